//! Whether the caller is still there, for an operation that waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::Notify;

/// Whether a caller is there. Its connection sees to that, as long as somebody asks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Presence(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_asked_for: AtomicBool,
    has_left: Notify,
}

/// Somebody who asks. Dropped, nobody does.
struct Asking<'p>(&'p Presence);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.0.is_asked_for.store(false, Relaxed);
    }
}

impl Presence {
    /// Waits until the caller has closed its sending side: it has gone, or it has asked for the last time and wants its answer.
    pub async fn left(&self) {
        let _asking = Asking(self);
        self.0.is_asked_for.store(true, Relaxed);
        self.0.has_left.notified().await;
    }

    /// Whether somebody asks.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.0.is_asked_for.load(Relaxed)
    }

    /// Says that the caller has closed its sending side.
    pub fn leave(&self) {
        self.0.has_left.notify_one();
    }
}
