//! Which part of a list is asked for.

use std::{borrow::Cow, fmt};

use poem_openapi::registry::MetaSchema;
use uuid::Uuid;

use super::Parameter;
use crate::{
    schema::one_of,
    task::{MAX_PAGE, TaskId, TaskStatus},
};

impl Parameter for TaskStatus {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("Which tasks: all of them, those still to be done, or those done."),
            default: Some("all".into()),
            ..one_of(["all", "pending", "completed"])
        }
    }

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        match text {
            "all" => Ok(Self::All),
            "pending" => Ok(Self::Pending),
            "completed" => Ok(Self::Completed),
            _ => Err("must be `all`, `pending` or `completed`".into()),
        }
    }
}

/// How many tasks a page has at most.
#[derive(Debug, Clone, Copy)]
pub struct Limit(pub u16);

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

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        // The standard parser also takes a plus sign.
        match text.parse() {
            Ok(limit @ 1..=MAX_PAGE) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self(limit)),
            _ => Err(format!("must be a whole number from 1 to {MAX_PAGE}").into()),
        }
    }
}

/// Where a page starts: after the last task of the page before.
///
/// It holds no more than that task's id, and means nothing without an owner: the cursor of another user is a place in
/// one's own list.
#[derive(Debug, Clone, Copy)]
pub struct Cursor(TaskId);

impl Cursor {
    /// The page after the task `last`.
    #[must_use]
    pub fn at(last: TaskId) -> Self {
        Self(last)
    }

    /// The task after which the page starts.
    #[must_use]
    pub fn after(self) -> TaskId {
        self.0
    }

    /// How the contract shows it, as a parameter and as a header.
    #[must_use]
    pub fn bare_schema() -> MetaSchema {
        MetaSchema {
            min_length: Some(32),
            max_length: Some(32),
            pattern: Some("^[0-9a-f]{32}$".to_owned()),
            ..MetaSchema::new("string")
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.simple().fmt(to)
    }
}

impl Parameter for Cursor {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("Where the page starts: the `Next-Cursor` of the page before. It has no other meaning."),
            ..Self::bare_schema()
        }
    }

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 32 && !text.contains(|c: char| c.is_ascii_uppercase()) => Ok(Self(TaskId(id))),
            _ => Err("must be the `Next-Cursor` of an earlier answer".into()),
        }
    }
}
