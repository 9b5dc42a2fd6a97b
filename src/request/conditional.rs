//! Conditional requests: `If-Match` and `If-None-Match` (RFC 9110, section 13.1).

use poem_openapi::registry::MetaSchema;

use super::{Broken, Parameter};
use crate::{
    schema,
    task::{ExpectedVersion, Task},
};

/// The most entity tags that one request may list, and how long the list may be.
const MAX_TAGS: u8 = 50;
const MAX_CHARS: u16 = 4096;
/// The tag of some page: it stands as an example in the contract.
pub(crate) const A_PAGE: &str = "W/\"5f0c2c3de1aa4d52b7a19c1e019aa5b1\"";

/// `If-Match`: the change is meant for these versions only.
#[derive(Debug)]
pub struct IfMatch(EntityTags);

impl IfMatch {
    /// The versions that the change is meant for.
    ///
    /// A weak tag counts as the strong one: the server makes no weak tag of a task, but a proxy that compresses an answer
    /// weakens what the server made. And a version counts in whatever shape the task was read: one version is one content, so
    /// that nothing can be overwritten unseen.
    #[must_use]
    pub fn expected_version(if_match: Option<Self>) -> ExpectedVersion {
        match if_match.map(|if_match| if_match.0) {
            None | Some(EntityTags::Any) => ExpectedVersion::Any,
            Some(EntityTags::OneOf(tags)) => {
                ExpectedVersion::OneOf(tags.iter().filter_map(|tag| Task::version_of_tag(&tag.opaque)).collect())
            }
        }
    }
}

impl Parameter for IfMatch {
    fn schema() -> MetaSchema {
        EntityTags::schema(
            "Entity tags, at most 50, or `*`. The request takes effect only if the task still has one of them. The task's \
             `version` (`\"3\"`, or just `3`) stands for its tag, and a weak tag, which a proxy makes of a strong one when it \
             compresses an answer, for the strong one.",
            "*",
        )
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        EntityTags::parse(text).map(Self)
    }
}

/// `If-None-Match`: the caller has these already.
#[derive(Debug)]
pub struct IfNoneMatch(EntityTags);

impl IfNoneMatch {
    /// What `read` finds in the first of the tags in which it finds something.
    pub fn find<T>(&self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        match &self.0 {
            EntityTags::Any => None,
            EntityTags::OneOf(tags) => tags.iter().find_map(|tag| read(&tag.opaque)),
        }
    }

    /// Whether the tag with `opaque` between its quotes is listed, by weak comparison.
    #[must_use]
    pub fn matches(&self, opaque: &str) -> bool {
        match &self.0 {
            EntityTags::Any => true,
            EntityTags::OneOf(tags) => tags.iter().any(|tag| tag.opaque == opaque),
        }
    }
}

impl Parameter for IfNoneMatch {
    fn schema() -> MetaSchema {
        EntityTags::schema(
            "Entity tags that the caller has already, at most 50, or `*`. If what is asked for still has one of them, the answer is \
             304, without a body.",
            A_PAGE,
        )
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        EntityTags::parse(text).map(Self)
    }
}

/// The entity tags that either header lists.
#[derive(Debug)]
enum EntityTags {
    /// `*`: whatever the tag is.
    Any,
    /// One of these.
    OneOf(Vec<EntityTag>),
}

#[derive(Debug)]
struct EntityTag {
    /// What stands between the quotes.
    opaque: String,
}

impl EntityTags {
    /// `example` is one that changes nothing: the docs page sends it.
    fn schema(description: &'static str, example: &str) -> MetaSchema {
        let tag = r#"(W/)?"[!#-~\u0080-\u00FF]*"[ \t]*"#;
        let pattern = format!(r"^(\*|[0-9A-Za-z]+|[, \t]*{tag}(,[, \t]*{tag})*(,[, \t]*)?)$");
        MetaSchema {
            example: Some(example.into()),
            max_length: Some(MAX_CHARS.into()),
            pattern: Some(pattern),
            ..schema::text(description)
        }
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        if text.chars().count() > MAX_CHARS.into() {
            return Err(Broken::bound("maxLength", MAX_CHARS, format!("must have at most {MAX_CHARS} characters")));
        }
        // Without its quotes, as it is often sent by mistake, a tag still can't be taken for anything else.
        let bare = text.trim();
        if !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(Self::OneOf(vec![EntityTag { opaque: bare.to_owned() }]));
        }
        let mut tags = Vec::new();
        let mut rest = text;
        loop {
            // A list may have empty elements (RFC 9110, section 5.6.1.2).
            rest = rest.trim_start_matches([',', ' ', '\t']);
            if rest.is_empty() && !tags.is_empty() {
                return Ok(Self::OneOf(tags));
            }
            let (tag, after) = EntityTag::split(rest)
                .ok_or_else(|| Broken::new("pattern", "must be `*` or a list of entity tags such as `\"3\"`"))?;
            if tags.len() == usize::from(MAX_TAGS) {
                let detail = format!("must list at most {MAX_TAGS} entity tags");
                return Err(Broken::bound("maxItems", MAX_TAGS, detail));
            }
            tags.push(tag);
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(Broken::new("pattern", "must have commas between the entity tags"));
            }
        }
    }
}

impl EntityTag {
    /// The entity tag at the start of `text`, weak or strong, and what follows it.
    fn split(text: &str) -> Option<(Self, &str)> {
        let quoted = text.strip_prefix("W/").unwrap_or(text);
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        // `etagc` of RFC 9110, section 8.8.3. What is beyond ASCII came as one byte, or as several.
        let is_etagc = |c: char| !c.is_ascii() || c.is_ascii_graphic();
        opaque.chars().all(is_etagc).then(|| (Self { opaque: opaque.to_owned() }, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(text: &str) -> Result<ExpectedVersion, Broken> {
        IfMatch::parse(text).map(|if_match| IfMatch::expected_version(Some(if_match)))
    }

    #[test]
    fn a_list_of_tags_is_read_whole() {
        assert_eq!(expected(r#""1""#), Ok(ExpectedVersion::OneOf(vec![1])));
        assert_eq!(expected(r#" "1" ,, "22","#), Ok(ExpectedVersion::OneOf(vec![1, 22])));
        assert_eq!(expected(r#""a,b", "2""#), Ok(ExpectedVersion::OneOf(vec![2])));
        assert_eq!(expected(" * "), Ok(ExpectedVersion::Any));
        assert_eq!(expected(" 3 "), Ok(ExpectedVersion::OneOf(vec![3])));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in [
            "",
            ",",
            "1, 2",
            "1-2",
            "\"1",
            "\"1\" \"2\"",
            "*, \"1\"",
            "w/\"1\"",
            "W/1",
            "\"a b\"",
            "\"\u{7f}\"",
            "\"\n\"",
        ] {
            assert!(expected(text).is_err(), "{text:?} was taken");
            assert!(!is_published(text), "{text:?} is published as valid");
        }
        for text in ["*", "1", "a1", "\"\"", ", W/\"1-a!~\" ,,\"\u{e9}\",", "\"1\"\t, \"2\""] {
            assert!(expected(text).is_ok(), "{text:?} was refused");
            assert!(is_published(text), "{text:?} is published as invalid");
        }
    }

    /// Whether the contract says that this is a list of entity tags.
    fn is_published(text: &str) -> bool {
        regex::Regex::new(&IfMatch::schema().pattern.unwrap()).unwrap().is_match(text)
    }

    #[test]
    fn a_tag_that_only_resembles_a_version_is_none() {
        for text in [r#""01""#, r#""+1""#, r#""1.0""#, r#""1-""#, r#""99999999999""#] {
            assert_eq!(expected(text), Ok(ExpectedVersion::OneOf(vec![])), "{text}");
        }
    }

    #[test]
    fn a_weak_tag_counts_as_the_strong_one() {
        assert_eq!(expected(r#"W/"1", "2-5f0c""#), Ok(ExpectedVersion::OneOf(vec![1, 2])));
    }

    #[test]
    fn the_tags_of_one_request_are_bounded() {
        let list = |count: usize| vec![r#""1""#; count].join(",");
        assert!(expected(&list(50)).is_ok());
        let bound = |text: &str| expected(text).unwrap_err();
        assert_eq!((bound(&list(51)).code, bound(&list(51)).limit), ("maxItems", Some(50)));
        let long = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        assert!(expected(&long(4096)).is_ok());
        assert_eq!((bound(&long(4097)).code, bound(&long(4097)).limit), ("maxLength", Some(4096)));
    }

    #[test]
    fn a_weak_tag_is_good_enough_for_reading() {
        let listed = IfNoneMatch::parse(r#""7", W/"1""#).unwrap();
        assert!(listed.matches("1") && listed.matches("7") && !listed.matches("2"));
    }
}
