//! When a request had its turn at the database, for those who are told where its time went.
//!
//! It is noted of what is asked within [`Turn::note`] only, by a local of the task: no operation has to hand it on, and where
//! nobody wants to know it costs a look at that local.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

tokio::task_local! {
    static NOTED: Arc<Turn>;
}

/// When a request began to wait for the database, when a lane took it, and when it was answered, as far as it has come.
#[derive(Debug, Default)]
pub struct Turn {
    asked: OnceLock<Instant>,
    taken: OnceLock<Instant>,
    answered: OnceLock<Instant>,
}

/// A part of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub from: Instant,
    /// How long it took, or has taken so far.
    pub lasted: Duration,
}

impl Turn {
    /// Does `work`, and notes when what it asks of the database has its turn.
    pub async fn note<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        NOTED.scope(Arc::clone(self), work).await
    }

    /// That of whoever asks now, if it is noted.
    pub(super) fn of_this_task() -> Option<Arc<Self>> {
        NOTED.try_with(Arc::clone).ok()
    }

    /// Notes when it was asked. Only the first of each counts: an operation asks once, unless it waits for a change.
    pub(super) fn ask(&self, at: Instant) {
        let _ = self.asked.set(at);
    }

    pub(super) fn take(&self, at: Instant) {
        let _ = self.taken.set(at);
    }

    pub(super) fn answer(&self) {
        let _ = self.answered.set(Instant::now());
    }

    /// How long the request waited, if it asked the database at all.
    pub fn waited(&self) -> Option<Span> {
        let from = *self.asked.get()?;
        Some(span(from, self.taken.get().or(self.answered.get())))
    }

    /// How long the statement took that the request was a part of, if it came to that.
    pub fn worked(&self) -> Option<Span> {
        let from = *self.taken.get()?;
        Some(span(from, self.answered.get()))
    }
}

fn span(from: Instant, to: Option<&Instant>) -> Span {
    Span { from, lasted: to.copied().unwrap_or_else(Instant::now).saturating_duration_since(from) }
}
