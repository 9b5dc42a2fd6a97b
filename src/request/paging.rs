//! Which part of a list is asked for.

use poem_openapi::registry::MetaSchema;

use super::{Broken, Parameter};
use crate::{
    schema::{self, one_of},
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

    fn parse(text: &str) -> Result<Self, Broken> {
        match text {
            "all" => Ok(Self::All),
            "pending" => Ok(Self::Pending),
            "completed" => Ok(Self::Completed),
            _ => Err(Broken::new("enum", "must be `all`, `pending` or `completed`")),
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

    fn parse(text: &str) -> Result<Self, Broken> {
        let detail = || format!("must be a whole number from 1 to {MAX_PAGE}");
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Broken::new("type", detail()));
        }
        if text.len() > 1 && digits.starts_with('0') {
            return Err(Broken::new("type", detail()));
        }
        match text.parse::<u16>() {
            Ok(limit @ 1..=MAX_PAGE) => Ok(Self(limit)),
            Ok(0) => Err(Broken::bound("minimum", 1, detail())),
            Err(_) if text.starts_with('-') => Err(Broken::bound("minimum", 1, detail())),
            _ => Err(Broken::bound("maximum", MAX_PAGE, detail())),
        }
    }
}

/// Where a page starts: after the task with this id.
///
/// It means nothing without an owner: the cursor of another user is a place in one's own list.
impl Parameter for TaskId {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some(
                "Where the page starts: after the task with this id. Take the `Next-Cursor` of the page before, or the `id` \
                 of its last task, which is the same. It need not exist any more.",
            ),
            ..schema::uuid()
        }
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        Self::parse(text)
            .ok_or_else(|| Broken::new("format", "must be the `id` of a task, or an earlier `Next-Cursor`"))
    }
}
