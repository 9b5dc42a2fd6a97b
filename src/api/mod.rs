//! The operations: what each one takes, does and answers.
//!
//! A comment on an operation is published: it is written for the client, in full sentences.

use poem_openapi::Tags;

use crate::store::Store;

mod health;
mod reply;
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

/// Declares what operations may answer beside their replies.
macro_rules! declares {
    ($($(#[$doc:meta])* $name:ident: $($problems:expr),*;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl crate::problem::Declared for $name {
            const PROBLEMS: &'static [&'static [crate::problem::ProblemType]] = &[$($problems),*];
        }
    )*};
}
use declares;
