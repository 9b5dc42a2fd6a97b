//! Which part of a list, or of the feed of changes, is asked for.

use std::time::Duration;

use poem::http::Uri;
use poem_openapi::registry::MetaSchema;

use super::{Broken, Parameter, query_pairs};
use crate::{
    changes::{MAX_SINCE_CHARS, MAX_WAIT_SECS, Since},
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

/// How many tasks, or changes, an answer has at most.
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
            description: Some("How many tasks, or changes, the answer has at most."),
            minimum: Some(1.0),
            maximum: Some(MAX_PAGE.into()),
            default: Some(MAX_PAGE.into()),
            example: Some(50.into()),
            ..MetaSchema::new_with_format("integer", "int32")
        }
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        whole_number(text, 1, MAX_PAGE).map(Self)
    }
}

/// A whole number within these bounds, as JSON writes it.
fn whole_number(text: &str, min: u16, max: u16) -> Result<u16, Broken> {
    let detail = || format!("must be a whole number from {min} to {max}");
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Broken::new("type", detail()));
    }
    if text.len() > 1 && digits.starts_with('0') {
        return Err(Broken::new("type", detail()));
    }
    match text.parse::<u16>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(number) if number < min => Err(Broken::bound("minimum", min, detail())),
        Err(_) if text.starts_with('-') => Err(Broken::bound("minimum", min, detail())),
        _ => Err(Broken::bound("maximum", max, detail())),
    }
}

/// How far the caller has come, if that can be told. Another version of this server may write it in another way.
#[derive(Debug, Clone, Copy)]
pub struct Known(pub Option<Since>);

impl Parameter for Known {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some(
                "Where to go on: the `next` of the call before. Left out, everything is told from the beginning.",
            ),
            ..Since::schema()
        }
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let detail = "must be the `next` of an earlier answer";
        if text.is_empty() {
            Err(Broken::bound("minLength", 1, detail))
        } else if text.chars().count() > MAX_SINCE_CHARS.into() {
            Err(Broken::bound("maxLength", MAX_SINCE_CHARS, detail))
        } else if !text.bytes().all(is_one) {
            Err(Broken::new("pattern", detail))
        } else {
            Ok(Self(Since::parse(text)))
        }
    }
}

/// For how long to wait if nothing has changed, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wait(u8);

impl Wait {
    /// The time.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }

    /// The time that a request asks for in its query, if it does.
    #[must_use]
    pub fn in_query(uri: &Uri) -> Duration {
        let wait = query_pairs(uri).find(|(name, _)| name == "wait");
        wait.and_then(|(_, text)| Self::parse(&text).ok()).unwrap_or_default().duration()
    }
}

impl Parameter for Wait {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some(
                "For how long to wait if nothing has changed, in seconds: the answer comes as soon as something does, or \
                 without any change when the time is up.",
            ),
            minimum: Some(0.0),
            maximum: Some(MAX_WAIT_SECS.into()),
            default: Some(0.into()),
            ..MetaSchema::new_with_format("integer", "int32")
        }
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        let secs = whole_number(text, 0, MAX_WAIT_SECS.into())?;
        Ok(Self(u8::try_from(secs).expect("it is within the bounds")))
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
