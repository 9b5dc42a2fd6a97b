//! What the operations take beside their bodies.

use poem_openapi::registry::MetaSchema;
use uuid::Uuid;

use crate::{
    contract::Parameter,
    store::{Expected, MAX_PAGE, TaskStatus},
    task::{TaskId, uuid},
};

impl Parameter for TaskId {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("The task's id."),
            example: Some("019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57".into()),
            ..uuid()
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        // Only in the form that the contract means: the parser also knows braces, URNs and no hyphens.
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => Ok(Self(id)),
            _ => Err("must be a UUID such as `019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57`"),
        }
    }
}

impl Parameter for TaskStatus {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("Which tasks: all of them, those still to be done, or those done."),
            enum_items: vec!["all".into(), "pending".into(), "completed".into()],
            default: Some("all".into()),
            ..MetaSchema::new("string")
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "all" => Ok(Self::All),
            "pending" => Ok(Self::Pending),
            "completed" => Ok(Self::Completed),
            _ => Err("must be `all`, `pending` or `completed`"),
        }
    }
}

/// How many tasks a page has at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(pub(super) u16);

impl Default for Limit {
    fn default() -> Self {
        Self(MAX_PAGE)
    }
}

impl Parameter for Limit {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("How many tasks the page has at most."),
            minimum: Some(1.0),
            maximum: Some(MAX_PAGE.into()),
            default: Some(MAX_PAGE.into()),
            example: Some(50.into()),
            ..MetaSchema::new_with_format("integer", "int32")
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        // The standard parser also takes a plus sign.
        match text.parse() {
            Ok(limit @ 1..=MAX_PAGE) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self(limit)),
            _ => Err("must be a whole number from 1 to 1000"),
        }
    }
}

/// Where a page starts: after the last task of the page before.
///
/// It holds no more than that task's id, and means nothing without an owner: the cursor of another user is a place in
/// one's own list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor(TaskId);

impl Cursor {
    pub(super) fn at(last: TaskId) -> Self {
        Self(last)
    }

    pub(super) fn after(self) -> TaskId {
        self.0
    }

    /// How the contract shows it, as a parameter and as a header.
    pub(super) fn form() -> MetaSchema {
        MetaSchema {
            min_length: Some(32),
            max_length: Some(32),
            pattern: Some("^[0-9a-f]{32}$".to_owned()),
            ..MetaSchema::new("string")
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.0.simple().fmt(to)
    }
}

impl Parameter for Cursor {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("Where the page starts: the `Next-Cursor` of the page before. It has no other meaning."),
            ..Self::form()
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 32 && !text.contains(|c: char| c.is_ascii_uppercase()) => Ok(Self(TaskId(id))),
            _ => Err("must be the `Next-Cursor` of an earlier answer"),
        }
    }
}

/// The caller's own name for a request that is to take effect once (draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug)]
pub(super) struct IdempotencyKey(pub(super) String);

const MAX_KEY_CHARS: usize = 255;

impl Parameter for IdempotencyKey {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some(
                "A name for this request that the caller has not used before, such as a new UUID: 1 to 255 characters, \
                 in double quotes or bare. If the answer is lost, the same request with the same key can be sent again, \
                 for at least 24 hours: it takes effect once, and every repeat is given the first one's answer, with the \
                 header `Idempotent-Replayed`. What was refused is not kept. Keys are the user's own.",
            ),
            min_length: Some(1),
            // Quoted, and each character escaped.
            max_length: Some(2 * MAX_KEY_CHARS + 2),
            pattern: Some(r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\--\[\]-~]{1,255})$"#.to_owned()),
            ..MetaSchema::new("string")
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let malformed = "must be 1 to 255 printable ASCII characters in double quotes, with `\\` before `\"` and `\\`; or \
                         bare, without white space, comma, `\"` and `\\`";
        let key = match text.trim_matches([' ', '\t']).strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                Some(text.trim_matches([' ', '\t']).to_owned()).filter(|bare| !bare.contains([' ', ',', '"', '\\']))
            }
        };
        let is_sane = |key: &String| {
            (1..=MAX_KEY_CHARS).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        key.filter(is_sane).map(Self).ok_or(malformed)
    }
}

/// The text of a string of a structured field (RFC 8941, section 3.3.3) whose first quote has been read.
fn unquoted(quoted: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(text),
            '\\' => text.push(characters.next().filter(|escaped| ['"', '\\'].contains(escaped))?),
            character => text.push(character),
        }
    }
}

/// The entity tags of a conditional request (RFC 9110, section 13.1).
#[derive(Debug)]
pub(super) enum EntityTags {
    /// `*`: whatever the tag is.
    Any,
    /// One of these.
    OneOf(Vec<Tag>),
}

#[derive(Debug)]
pub(super) struct Tag {
    weak: bool,
    opaque: String,
}

impl Tag {
    /// The version of the task that has this tag: the number between the quotes. Other tags are no task's.
    fn version(&self) -> Option<i32> {
        // `"3"` is a version's tag, `"03"` is none.
        self.opaque.parse().ok().filter(|version: &i32| version.to_string() == self.opaque)
    }
}

impl EntityTags {
    /// What `If-Match` asks for: strong comparison, so that a weak tag never matches.
    pub(super) fn expected(if_match: Option<Self>) -> Expected {
        match if_match {
            None | Some(Self::Any) => Expected::Any,
            Some(Self::OneOf(tags)) => {
                Expected::OneOf(tags.iter().filter(|tag| !tag.weak).filter_map(Tag::version).collect())
            }
        }
    }

    /// What `If-None-Match` asks for: whether this tag, of which `opaque` stands between the quotes, is one of them, by
    /// weak comparison.
    pub(super) fn hold(&self, opaque: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.iter().any(|tag| tag.opaque == opaque),
        }
    }
}

impl Parameter for EntityTags {
    fn schema() -> MetaSchema {
        // Without an example, as every parameter that is rarely wanted: the docs page would send it.
        let pattern = r#"^(\*|[, \t]*(W/)?"[^"]*"[ \t]*(,[, \t]*(W/)?"[^"]*"[ \t]*)*(,[, \t]*)?)$"#;
        MetaSchema { pattern: Some(pattern.to_owned()), ..MetaSchema::new("string") }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = text;
        loop {
            // A list may have empty elements (RFC 9110, section 5.6.1.2).
            rest = rest.trim_start_matches([',', ' ', '\t']);
            if rest.is_empty() && !tags.is_empty() {
                return Ok(Self::OneOf(tags));
            }
            let (tag, after) = tag(rest).ok_or("must be `*` or a list of entity tags such as `\"3\"`")?;
            tags.push(tag);
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err("must have commas between the entity tags");
            }
        }
    }
}

/// The entity tag at the start of `text`, and what follows it.
fn tag(text: &str) -> Option<(Tag, &str)> {
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
    Some((Tag { weak, opaque: opaque.to_owned() }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(text: &str) -> Result<Expected, &'static str> {
        EntityTags::parse(text).map(|tags| EntityTags::expected(Some(tags)))
    }

    #[test]
    fn a_list_of_tags_is_read_whole() {
        assert_eq!(expected(r#""1""#), Ok(Expected::OneOf(vec![1])));
        assert_eq!(expected(r#" "1" ,, "22","#), Ok(Expected::OneOf(vec![1, 22])));
        assert_eq!(expected(r#""a,b", "2""#), Ok(Expected::OneOf(vec![2])));
        assert_eq!(expected(" * "), Ok(Expected::Any));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in ["", ",", "1", "\"1", "\"1\" \"2\"", "*, \"1\"", "w/\"1\"", "W/1"] {
            assert!(expected(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_tag_that_only_resembles_a_version_is_none() {
        for text in [r#""01""#, r#""+1""#, r#"" 1""#, r#""1.0""#, r#"W/"1""#, r#""99999999999""#] {
            assert_eq!(expected(text), Ok(Expected::OneOf(vec![])), "{text}");
        }
    }

    #[test]
    fn a_weak_tag_is_good_enough_for_reading() {
        assert!(
            EntityTags::parse(r#""7", W/"1""#).is_ok_and(|tags| tags.hold("1") && tags.hold("7") && !tags.hold("2"))
        );
    }

    #[test]
    fn a_key_is_the_same_quoted_or_bare() {
        let long = "x".repeat(MAX_KEY_CHARS);
        for (text, expected) in [
            ("abc", "abc"),
            (r#""abc""#, "abc"),
            (r#" "abc" "#, "abc"),
            (r#""a b,c""#, "a b,c"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("a=b;c:d/e+f", "a=b;c:d/e+f"),
            (&long, &long),
            (&format!("\"{long}\""), &long),
        ] {
            assert!(is_published(text.trim()), "{text}");
            assert_eq!(IdempotencyKey::parse(text).map(|key| key.0).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (long, quoted) = ("x".repeat(MAX_KEY_CHARS + 1), format!("\"{}\"", "x".repeat(MAX_KEY_CHARS + 1)));
        for text in [
            "",
            " ",
            "\"\"",
            "\"",
            "\"a",
            "a\"",
            "\"a\"b",
            "\"a\", \"b\"",
            "\"a\";b",
            "a,b",
            "a b",
            r"a\b",
            r#""a\b""#,
            r#""a\""#,
            "ä",
            "\"ä\"",
            "\"a\tb\"",
            "a\u{7f}",
            &long,
            &quoted,
        ] {
            assert!(IdempotencyKey::parse(text).is_err(), "{text:?} was taken");
            assert!(!is_published(text), "{text:?} is published as valid");
        }
    }

    /// Whether the contract says that this is a key.
    fn is_published(text: &str) -> bool {
        regex::Regex::new(&IdempotencyKey::schema().pattern.unwrap()).unwrap().is_match(text)
    }
}
