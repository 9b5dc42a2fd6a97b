//! The operations: what each one takes, does and answers.
//!
//! A comment on an operation is published: it is written for the client, in full sentences.

use poem_openapi::Tags;

use crate::store::Store;

mod health;
mod parameters;
pub(crate) mod reply;
mod tasks;

pub use health::Health;
pub use tasks::Tasks;

/// The one list of operations.
pub type Operations = (Tasks, Health);

/// The operations on `store`.
#[must_use]
pub fn operations(store: Store) -> Operations {
    (Tasks::new(store.clone()), Health::new(store))
}

#[derive(Tags)]
enum Tag {
    /// One user's tasks.
    Tasks,
    /// Whether the server works. No token is needed.
    Health,
}
