//! The proof that the caller may touch one user's data.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

/// The longest user id, in characters.
pub const MAX_USER_ID_CHARS: usize = 255;

/// A user whose token has been verified. Cheap to clone.
///
/// Two are equal if they are the same user, whatever their tokens: what is kept or counted for a user is found with each.
#[derive(Debug, Clone)]
pub struct Owner {
    id: Arc<str>,
    issued_at_secs: i64,
}

impl Owner {
    /// The user's id: the subject of the token, as the issuer wrote it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the token was issued, in whole seconds since 1970. A token that does not say is older than every other: whoever
    /// refuses old ones refuses it, too.
    #[must_use]
    pub fn issued_at_secs(&self) -> i64 {
        self.issued_at_secs
    }

    /// The owner that a token speaks for. To be called where a token has been verified, and nowhere else.
    pub(super) fn verified(user_id: String, issued_at_secs: Option<f64>) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "to whole seconds; what is out of range becomes the nearest"
        )]
        let issued_at_secs = issued_at_secs.map_or(i64::MIN, |secs| secs as i64);
        Self { id: user_id.into(), issued_at_secs }
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Owner {}

impl Hash for Owner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// Whether `text` can be a user's id.
#[must_use]
pub fn is_user_id(text: &str) -> bool {
    // PostgreSQL can't keep NUL.
    (1..=MAX_USER_ID_CHARS).contains(&text.chars().count()) && !text.contains('\0')
}
