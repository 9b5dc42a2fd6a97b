//! The published types. What a comment here says stands in the contract: it is written for its readers.
//!
//! Replies are serialised, and bodies are read, by serde; poem-openapi's derives only describe the types. The test client
//! holds every exchange against that description, so the two can't disagree unnoticed.

use std::{fmt, sync::LazyLock};

use chrono::{DateTime, Datelike, SubsecRound, Timelike, Utc};
use poem_openapi::{
    Object,
    registry::MetaSchema,
    types::{Example, MaybeUndefined},
};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::schema::{published, uuid};

/// A task's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskId(pub Uuid);

published!(TaskId, uuid());

impl TaskId {
    /// What the contract shows as an example.
    pub(crate) const EXAMPLE: &str = "019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57";

    /// The id in the one form that the contract means. (The UUID parser also knows braces, URNs and no hyphens.)
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().filter(|_| text.len() == 36).map(Self)
    }
}

/// A point in time, to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Timestamp(DateTime<Utc>);

published!(Timestamp, MetaSchema { max_length: Some(27), ..MetaSchema::new_with_format("string", "date-time") });

impl From<DateTime<Utc>> for Timestamp {
    // Cut, not rounded: PostgreSQL keeps microseconds, and both databases give back what they were given.
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.trunc_subsecs(6))
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl Timestamp {
    /// RFC 3339, in UTC, to the microsecond, ending in `Z`.
    // A list has thousands of these, and chrono's own formatting takes half of the time that a list takes.
    fn write(self) -> [u8; 27] {
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut write = |at: usize, digits: usize, mut number: u32| {
            for place in text[at..at + digits].iter_mut().rev() {
                *place = b'0' + u8::try_from(number % 10).expect("a digit is small");
                number /= 10;
            }
        };
        let Self(time) = self;
        // Four digits are all that there is room for; the clock will not come to five.
        write(0, 4, time.year().clamp(0, 9999).unsigned_abs());
        write(5, 2, time.month());
        write(8, 2, time.day());
        write(11, 2, time.hour());
        write(14, 2, time.minute());
        write(17, 2, time.second());
        write(20, 6, time.timestamp_subsec_micros());
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(std::str::from_utf8(&self.write()).expect("digits are ASCII"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(std::str::from_utf8(&self.write()).expect("digits are ASCII"))
    }
}

// The patterns below are read by regular expression engines of all kinds, so they keep to what these have in common: no
// look-around, no classes by Unicode property, four hexadecimal digits an escape.
const CONTROL: &str = r"\u0000-\u001F\u007F-\u009F";
/// White space, and what prints nothing: soft hyphen, zero-width characters, directional marks, fillers, variation
/// selectors. (U+2028 and U+2029 are white space. As escapes of their own, one generator writes them out, as line ends.)
const INVISIBLE: &str = r"\s\u00A0\u00AD\u034F\u061C\u115F\u1160\u1680\u17B4\u17B5\u180B-\u180F\u2000-\u200F\u202A-\u202F\u205F-\u206F\u2800\u3000\u3164\uFE00-\uFE0F\uFEFF\uFFA0";

/// The tag characters and the other variation selectors, which print nothing either.
///
/// They are beyond four digits, so they stand for themselves, and one by one: JavaScript without the flag `u` reads each as
/// two halves. A range of halves would be an error there; one by one the first half, which no visible character has, is
/// rightly not visible.
fn invisible_beyond_four_digits() -> String {
    ('\u{E0000}'..='\u{E007F}').chain('\u{E0100}'..='\u{E01EF}').collect()
}

/// A text in which something can be seen, without control characters.
fn visible() -> String {
    let more = invisible_beyond_four_digits();
    // In a group, or Schemathesis rewrites it, and spells the characters beyond four digits in a way that is none.
    format!("^([^{CONTROL}]*[^{CONTROL}{INVISIBLE}{more}][^{CONTROL}]*)$")
}

/// What is to be done. The published schema bounds it; nothing else makes one from a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Title(pub String);

published!(
    Title,
    MetaSchema { min_length: Some(1), max_length: Some(200), pattern: Some(visible()), ..MetaSchema::new("string") }
);

/// What is wrong with a text that does not match the pattern of its schema, as the end of a sentence.
pub(crate) fn explain_pattern(text: &str) -> &'static str {
    if text.contains('\0') {
        "must not have the character NUL"
    } else if text.contains(char::is_control) {
        "must not have line breaks or other control characters"
    } else {
        "must not be blank"
    }
}

/// More about a task. The published schema bounds it; nothing else makes one from a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description(pub String);

published!(
    Description,
    MetaSchema {
        max_length: Some(1000),
        // NUL is what PostgreSQL can't keep.
        pattern: Some(r"^[^\u0000]*$".to_owned()),
        ..MetaSchema::new("string")
    }
);

/// Something that a user wants to get done.
///
/// Every field is always present.
// It is also kept, in JSON, as the answer to repeated requests: what is added needs a `#[serde(default)]` for those that
// were kept by the version before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Object)]
#[oai(example)]
pub struct Task {
    /// The task's id, a version 7 UUID: it begins with the time of the creation.
    pub id: TaskId,
    /// The user whom the task belongs to: the subject of the token that created it.
    #[oai(validator(min_length = 1, max_length = 255))]
    pub user_id: String,
    /// What is to be done.
    pub title: Title,
    /// More about it, or null.
    #[oai(nullable)]
    pub description: Option<Description>,
    /// Whether it is done.
    pub completed: bool,
    /// When it was done, or null while it is not. UTC.
    #[oai(nullable)]
    pub completed_at: Option<Timestamp>,
    /// When it was created. UTC.
    pub created_at: Timestamp,
    /// When it last changed. UTC.
    pub updated_at: Timestamp,
    /// How many times the task has been written, the creation included. `If-Match` takes it for the task as it is here.
    #[oai(validator(minimum(value = "1"), maximum(value = "2147483647")))]
    pub version: i32,
}

impl Task {
    /// A time in an example.
    pub(crate) fn example_time(text: &str) -> Timestamp {
        Timestamp(text.parse().expect("an example's time is RFC 3339"))
    }

    /// The opaque part of the task's entity tag: its version, and [`shape`], so that it changes when either does.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("{}-{}", self.version, shape())
    }

    /// Its entity tag, as the contract shows it.
    pub(crate) fn tag_schema() -> MetaSchema {
        MetaSchema {
            example: Some(format!("\"{}\"", Self::example().tag()).into()),
            // Looser than it is: nobody but the server has to know what is in it.
            min_length: Some(3),
            max_length: Some(66),
            pattern: Some(r#"^"[!#-~]{1,64}"$"#.to_owned()),
            ..MetaSchema::new("string")
        }
    }

    /// The version that a tag is of, whatever the shape. Tags that no task ever has are of none.
    #[must_use]
    pub fn version_of_tag(tag: &str) -> Option<i32> {
        let (version, shape) = tag.split_once('-').unwrap_or((tag, "0"));
        let is_shape = !shape.is_empty() && shape.bytes().all(|byte| byte.is_ascii_hexdigit());
        // `3` is a version, `03` is none.
        version.parse().ok().filter(|number: &i32| is_shape && number.to_string() == version)
    }
}

/// How this version of the program writes a task, as eight hexadecimal digits: what is written of the same row after an upgrade
/// that adds a field is another representation, and needs another entity tag.
#[must_use]
pub fn shape() -> &'static str {
    // The example has every field, or it would not compile.
    static SHAPE: LazyLock<String> = LazyLock::new(|| {
        let example = serde_json::to_vec(&Task::example()).expect("a task is plain data");
        Sha256::digest(example)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    });
    &SHAPE
}

impl Example for Task {
    fn example() -> Self {
        Self {
            id: TaskId(Uuid::from_u128(0x019a_7e3c_91d4_7b52_8f4e_2a6c_0d1b_3e57)),
            user_id: "wmqBpHnA7r9Hm5fZeOCKQZVgiGPffCRk".to_owned(),
            title: Title("Water the plants".to_owned()),
            description: Some(Description("The ones on the balcony, too.".to_owned())),
            completed: true,
            completed_at: Some(Self::example_time("2026-11-21T18:02:11.048213Z")),
            created_at: Self::example_time("2026-11-21T07:15:42.310784Z"),
            updated_at: Self::example_time("2026-11-21T18:02:11.048213Z"),
            version: 2,
        }
    }
}

/// A task to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Object)]
#[oai(deny_unknown_fields, example)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    /// What is to be done: 1 to 200 characters, at least one of them visible, none a control character. A character is
    /// a Unicode code point.
    pub title: Title,
    /// More about it, at most 1,000 characters, or null.
    #[oai(nullable)]
    pub description: Option<Description>,
    /// Whether it is done already. Left out, it is not.
    // Without a `default`, which would have some generators ask for the field.
    #[oai(skip_serializing_if_is_none)]
    pub completed: Option<bool>,
}

impl Example for NewTask {
    fn example() -> Self {
        Self {
            title: Title("Water the plants".to_owned()),
            description: Some(Description("The ones on the balcony, too.".to_owned())),
            completed: Some(false),
        }
    }
}

/// What to change in a task. At least one field is given; what is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Object)]
#[oai(deny_unknown_fields, example)]
#[serde(deny_unknown_fields)]
pub struct TaskUpdate {
    /// What is to be done: 1 to 200 characters, at least one of them visible, none a control character. A character is
    /// a Unicode code point.
    #[oai(skip_serializing_if_is_none)]
    pub title: Option<Title>,
    /// More about it, at most 1,000 characters. Null clears it.
    #[oai(nullable)]
    #[serde(default)]
    pub description: MaybeUndefined<Description>,
    /// Whether it is done. A task that is done already keeps the time at which it was done.
    #[oai(skip_serializing_if_is_none)]
    pub completed: Option<bool>,
}

impl Example for TaskUpdate {
    fn example() -> Self {
        Self {
            title: Some(Title("Water all the plants".to_owned())),
            description: MaybeUndefined::Null,
            completed: None,
        }
    }
}

/// The state to bring a task into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Object)]
#[oai(deny_unknown_fields, example)]
#[serde(deny_unknown_fields)]
pub struct TaskCompletion {
    /// Whether the task is to be done. Left out, its state is flipped.
    pub completed: Option<bool>,
}

impl Example for TaskCompletion {
    fn example() -> Self {
        Self { completed: Some(true) }
    }
}

/// The most tasks that one page has.
pub const MAX_PAGE: u16 = 1000;

/// For how long an `Idempotency-Key` is kept at least, in hours: as a literal, for the text of the contract.
macro_rules! min_key_retention_hours {
    () => {
        24
    };
}
pub(crate) use min_key_retention_hours;

/// Which tasks of a user's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// All of them.
    #[default]
    All,
    /// Those still to be done.
    Pending,
    /// Those done.
    Completed,
}

/// Which version of a task a change is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ExpectedVersion {
    /// Whichever it is.
    Any,
    /// One of these; none, if there are none.
    OneOf(Vec<i32>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_what_it_is_written_as() {
        for text in ["2026-11-21T07:15:42.310784999Z", "2026-11-21T07:15:42Z", "2026-11-21T07:15:42.1Z"] {
            let time = Timestamp::from(text.parse::<DateTime<Utc>>().unwrap());
            let written = serde_json::to_value(time).unwrap();
            assert_eq!(Timestamp(written.as_str().unwrap().parse().unwrap()), time);
            let expected = DateTime::from(time).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn a_tag_tells_the_version_that_it_is_of() {
        for (tag, version) in [
            (Task::example().tag().as_str(), Some(2)),
            ("2", Some(2)),
            ("2-0", Some(2)),
            ("02", None),
            ("+2", None),
            ("2-", None),
            ("2-x", None),
            ("-2", None),
            ("2-0-0", None),
            ("99999999999", None),
            ("", None),
        ] {
            assert_eq!(Task::version_of_tag(tag), version, "{tag}");
        }
    }
}
