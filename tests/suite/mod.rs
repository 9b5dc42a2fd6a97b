//! What holds on every database. `on_sqlite.rs`, `on_postgres.rs` and `on_postgres_by_owner.rs` all run all of it.

mod blocks;
mod bodies;
mod changes;
mod conditions;
mod contract;
mod devices;
mod edge;
mod history;
mod isolation;
mod lists;
mod person;
mod races;
mod random;
mod retries;
mod schema;
mod sets;
mod tasks;
mod timing;
mod tokens;

use serde_json::Value;

use crate::{BACKEND, support::TestApp};

/// A server with the default settings and an empty database.
async fn app() -> TestApp {
    TestApp::start(BACKEND).await
}

/// The id of a task.
fn id(task: &Value) -> &str {
    task["id"].as_str().unwrap()
}
