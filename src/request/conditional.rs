//! Conditional requests: `If-Match` and `If-None-Match` (RFC 9110, section 13.1).

use poem_openapi::registry::MetaSchema;

use super::{Broken, Parameter};
use crate::{schema, task::ExpectedVersion};

/// The most entity tags that one request may list.
const MAX_TAGS: u8 = 50;

/// `If-Match`: the change is meant for these versions only.
#[derive(Debug)]
pub struct IfMatch(EntityTags);

impl IfMatch {
    /// The versions that the change is meant for.
    ///
    /// A weak tag counts as the strong one. The server makes no weak tag of a task, but a proxy that compresses an answer
    /// weakens what the server made; and one version of a task is one content, so that nothing can be overwritten unseen.
    #[must_use]
    pub fn expected_version(if_match: Option<Self>) -> ExpectedVersion {
        match if_match.map(|if_match| if_match.0) {
            None | Some(EntityTags::Any) => ExpectedVersion::Any,
            Some(EntityTags::OneOf(tags)) => {
                ExpectedVersion::OneOf(tags.iter().filter_map(EntityTag::version).collect())
            }
        }
    }
}

impl Parameter for IfMatch {
    fn schema() -> MetaSchema {
        EntityTags::schema(
            "Entity tags, at most 50, or `*`. The request takes effect only if the task still has one of them. A weak tag \
             (`W/\"3\"`), which a proxy makes of a strong one when it compresses an answer, counts as the strong one.",
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
    fn schema(description: &'static str) -> MetaSchema {
        // Without an example, as every parameter that is rarely wanted: the docs page would send it.
        let pattern = r#"^(\*|[, \t]*(W/)?"[^"]*"[ \t]*(,[, \t]*(W/)?"[^"]*"[ \t]*)*(,[, \t]*)?)$"#;
        MetaSchema { pattern: Some(pattern.to_owned()), ..schema::text(description) }
    }

    fn parse(text: &str) -> Result<Self, Broken> {
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
        Some((Self { opaque: opaque.to_owned() }, after))
    }

    /// The version of the task that has this tag: the number between the quotes. Other tags are no task's.
    fn version(&self) -> Option<i32> {
        // `"3"` is a version's tag, `"03"` is none.
        self.opaque.parse().ok().filter(|version: &i32| version.to_string() == self.opaque)
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
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in ["", ",", "1", "\"1", "\"1\" \"2\"", "*, \"1\"", "w/\"1\"", "W/1"] {
            assert!(expected(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_tag_that_only_resembles_a_version_is_none() {
        for text in [r#""01""#, r#""+1""#, r#"" 1""#, r#""1.0""#, r#""99999999999""#] {
            assert_eq!(expected(text), Ok(ExpectedVersion::OneOf(vec![])), "{text}");
        }
    }

    #[test]
    fn a_weak_tag_counts_as_the_strong_one() {
        assert_eq!(expected(r#"W/"1", "2""#), Ok(ExpectedVersion::OneOf(vec![1, 2])));
    }

    #[test]
    fn the_tags_of_one_request_are_bounded() {
        let list = |count: usize| vec![r#""1""#; count].join(",");
        assert!(expected(&list(50)).is_ok());
        assert_eq!(expected(&list(51)).map_err(|broken| (broken.code, broken.limit)), Err(("maxItems", Some(50))));
    }

    #[test]
    fn a_weak_tag_is_good_enough_for_reading() {
        let listed = IfNoneMatch::parse(r#""7", W/"1""#).unwrap();
        assert!(listed.matches("1") && listed.matches("7") && !listed.matches("2"));
    }
}
