//! The published types of the feed of changes. What a comment here says stands in the contract: it is written for its readers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem_openapi::{Object, registry::MetaSchema, types::Example};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    schema::published,
    task::{Task, TaskId, Timestamp},
};

/// What has changed among a user's tasks.
///
/// Apply what comes, call after call, until `has_more` is false: then what you have is what the server had at one moment of the
/// last call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
#[oai(example)]
pub struct Changes {
    /// The tasks that were created or changed, as they are now, in the order of their last changes.
    #[oai(validator(max_items = 1000))]
    pub tasks: Vec<Task>,
    /// The tasks that were deleted, in the order of their deletions. You may not know all of them.
    #[oai(validator(max_items = 1000))]
    pub deleted: Vec<DeletedTask>,
    /// Where the next call goes on: its `since`. Keep it together with what you have.
    pub next: Since,
    /// Whether there are more changes already.
    pub has_more: bool,
}

impl Changes {
    /// Whether there is nothing new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.deleted.is_empty()
    }
}

impl Example for Changes {
    fn example() -> Self {
        let next = Since::start("").end(1_795_716_191_048_213);
        Self { tasks: vec![Task::example()], deleted: vec![DeletedTask::example()], next, has_more: false }
    }
}

/// A task that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
#[oai(example)]
pub struct DeletedTask {
    /// The id that it had.
    pub id: TaskId,
    /// When it was deleted. UTC.
    pub deleted_at: Timestamp,
}

impl Example for DeletedTask {
    fn example() -> Self {
        let id = TaskId::parse("019aa25c-6f3d-7a41-b1c6-90d2f8e4a7b3").expect("it is a UUID");
        Self { id, deleted_at: Task::example_time("2026-11-21T18:02:41.730452Z") }
    }
}

/// How far a reader of one user's changes has come.
///
/// Written, it is opaque: the reader only gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Since {
    /// Tasks up to this revision of their owner's are known, of those that have it as their own up to `id`.
    pub revision: i64,
    /// See `revision`.
    pub id: Uuid,
    /// Deletions up to this revision are known, or are none of the reader's business: of tasks that it was never told of.
    pub deletions: i64,
    /// Whose changes: a part of the hash of the user's id, so that a token is not taken for another user's place.
    user: u32,
}

impl Since {
    /// The form of what is written. Another one begins with another letter.
    const FORM: &str = "a";
    const BYTES: usize = 36;

    /// Nothing is known of this user's tasks.
    #[must_use]
    pub fn start(user_id: &str) -> Self {
        Self { revision: -1, id: Uuid::max(), deletions: -1, user: Self::hash(user_id) }
    }

    /// The same user's, with everything up to this revision known.
    #[must_use]
    pub fn end(self, revision: i64) -> Self {
        Self { revision, id: Uuid::max(), deletions: revision, ..self }
    }

    /// The same with tasks known up to this one, at its revision.
    #[must_use]
    pub fn at(self, revision: i64, id: TaskId) -> Self {
        Self { revision, id: id.0, ..self }
    }

    /// Whether nothing is known. It can't be out of date.
    #[must_use]
    pub fn is_start(&self) -> bool {
        self.revision < 0 && self.deletions < 0
    }

    /// The revision at which there is nothing new for whoever has this.
    #[must_use]
    pub fn end_revision(&self) -> Option<i64> {
        Some(self.revision).filter(|_| self.id == Uuid::max() && !self.is_start())
    }

    /// Whether it is a place among this user's changes.
    #[must_use]
    pub fn is_of(&self, user_id: &str) -> bool {
        self.user == Self::hash(user_id)
    }

    fn hash(user_id: &str) -> u32 {
        u32::from_be_bytes(*Sha256::digest(user_id).first_chunk().expect("it has 32 bytes"))
    }

    /// What was written, if it was.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(Self::FORM)?).ok()?;
        let bytes: &[u8; Self::BYTES] = bytes.as_slice().try_into().ok()?;
        let number = |at: usize| i64::from_be_bytes(*bytes[at..].first_chunk().expect("there are as many"));
        Some(Self {
            revision: number(0),
            id: Uuid::from_bytes(*bytes[8..].first_chunk().expect("there are as many")),
            deletions: number(24),
            user: u32::from_be_bytes(*bytes[32..].first_chunk().expect("there are as many")),
        })
    }

    fn write(&self) -> String {
        let Self { revision, id, deletions, user } = self;
        let bytes =
            [&revision.to_be_bytes()[..], id.as_bytes(), &deletions.to_be_bytes(), &user.to_be_bytes()].concat();
        Self::FORM.to_owned() + &URL_SAFE_NO_PAD.encode(bytes)
    }

    /// How the contract shows it: looser than it is, as nobody but the server has to know what is in it.
    pub(crate) fn schema() -> MetaSchema {
        MetaSchema {
            min_length: Some(1),
            max_length: Some(MAX_SINCE_CHARS.into()),
            pattern: Some("^[A-Za-z0-9_-]+$".to_owned()),
            ..MetaSchema::new("string")
        }
    }
}

published!(Since, Since::schema());

impl Serialize for Since {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.write())
    }
}

/// The longest place in the feed, as it is written.
pub const MAX_SINCE_CHARS: u16 = 128;
/// The longest that a call may wait for a change, in seconds.
pub const MAX_WAIT_SECS: u8 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_it_is_written_as_and_nothing_else_is_one() {
        let places = [
            Since::start("ann"),
            Since::start("bob").end(1_795_716_191_048_213),
            Since { id: Uuid::from_u128(7), deletions: i64::MAX, ..Since::start("").end(3) },
        ];
        for place in places {
            let text = place.write();
            assert_eq!(Since::parse(&text), Some(place), "{text}");
            for broken in [&text[1..], &text[..text.len() - 1], &format!("{text}A"), &text.replacen('a', "b", 1)] {
                assert_eq!(Since::parse(broken), None, "{broken}");
            }
        }
        for nothing in ["", "a", "0", "019aa25c-6f3d-7a41-b1c6-90d2f8e4a7b3"] {
            assert_eq!(Since::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_place_is_one_users() {
        assert!(Since::start("ann").end(3).is_of("ann"));
        assert!(!Since::start("ann").end(3).is_of("bob"));
    }
}
