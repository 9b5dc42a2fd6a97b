//! The operations: what each one takes, does and answers.
//!
//! A comment on an operation is published: it is written for the client, in full sentences.

use std::collections::HashMap;

use poem::{Route, RouteMethod};
use poem_openapi::{OpenApi, Tags};

use crate::store::Store;

mod changes;
mod health;
mod reply;
mod tasks;

pub use changes::Changes;
pub use health::{COMMIT, Health, Report};
pub use reply::REPLAYED;
pub use tasks::Tasks;

/// The one list of operations.
pub type Operations = (Tasks, Changes, Health);

/// Adds the operations on `store` to `routes`. As `OpenApiService` does it, but without its cookies and its own reading of the
/// query, which nobody uses.
#[must_use]
pub fn add_routes(store: Store, routes: Route) -> Route {
    let mut table = HashMap::new();
    let operations: Operations = (Tasks::new(store.clone()), Changes::new(store.clone()), Health::new(store));
    operations.add_routes(&mut table);
    table.into_iter().fold(routes, |routes, (path, methods)| {
        let methods = methods.into_iter().fold(RouteMethod::new(), |all, (method, run)| all.method(method, run));
        routes.at(path, methods)
    })
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
