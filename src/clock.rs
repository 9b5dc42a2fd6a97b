//! The one place that the time and new ids come from.
//!
//! `clippy.toml` bans the other ways, so that two timestamps of one answer can't disagree about their precision.

use std::sync::{LazyLock, Mutex};

use chrono::Utc;
use uuid::{ContextV7, Timestamp as UuidTimestamp, Uuid};

use crate::task::{TaskId, Timestamp};

/// What makes the next id greater than the last one.
static TASK_IDS: LazyLock<Mutex<ContextV7>> =
    LazyLock::new(|| Mutex::new(ContextV7::new().with_additional_precision()));

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

    /// A new task's id: a `UUIDv7`, greater than every one that this process made before. It has the time to a quarter of a
    /// microsecond (RFC 9562, section 6.2, method 3), so that the ids of servers whose clocks agree are in order, too.
    #[must_use]
    pub fn new_task_id(self) -> TaskId {
        TaskId(Uuid::new_v7(UuidTimestamp::now(&*TASK_IDS)))
    }

    /// A new request's id.
    #[must_use]
    pub fn new_request_id(self) -> Uuid {
        Uuid::now_v7()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "as two servers make ids, on one clock")]
    fn ids_of_several_servers_on_one_clock_are_in_the_order_of_their_time() {
        let servers = [(); 2].map(|()| ContextV7::new().with_additional_precision());
        let mut ids = Vec::new();
        for n in 0..4000 {
            ids.push(Uuid::new_v7(UuidTimestamp::now(&servers[n % 2])));
            // A request takes longer than this.
            let started = std::time::Instant::now();
            while started.elapsed() < std::time::Duration::from_micros(5) {}
        }
        assert!(ids.is_sorted());
    }

    #[test]
    fn each_id_is_greater_than_the_last_one() {
        let ids: Vec<_> = (0..100_000).map(|_| Clock.new_task_id().0).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
