//! The one place that the time and new ids come from.
//!
//! `clippy.toml` bans the other ways, so that two timestamps of one answer can't disagree about their precision.

use chrono::Utc;
use uuid::Uuid;

use crate::task::{TaskId, Timestamp};

/// Tells the time and makes ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

#[expect(clippy::disallowed_methods, reason = "this is the one place that they are for")]
impl Clock {
    /// Now, to the microsecond.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Utc::now().into()
    }

    /// A new task's id: a `UUIDv7`, greater than every one that this process made before.
    #[must_use]
    pub fn new_task_id(self) -> TaskId {
        TaskId(Uuid::now_v7())
    }

    /// A new request's id.
    #[must_use]
    pub fn new_request_id(self) -> Uuid {
        Uuid::now_v7()
    }
}
