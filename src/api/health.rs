//! Whether the server works. These operations ask for no token: supervisors have none.

use poem::http::StatusCode;
use poem_openapi::{
    Object, OpenApi,
    registry::MetaResponse,
    types::{Example, Type},
};
use serde::Serialize;

use super::{
    Tag, declares,
    reply::{Described, Reply, json, response},
};
use crate::{
    problem::{Problem, types},
    schema::{one_of, published},
    store::Store,
};

/// The commit that this program was built from, or `unknown`.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// The operations that tell whether the server works.
#[derive(Debug)]
pub struct Health {
    store: Store,
}

impl Health {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[OpenApi(tag = "Tag::Health")]
impl Health {
    /// Ask whether the server runs
    ///
    /// It asks nothing of the database: a server that answers needs no restart.
    #[oai(path = "/health", method = "get", operation_id = "getHealth")]
    #[expect(clippy::unused_async, reason = "every operation is asynchronous")]
    async fn get_health(&self) -> Result<Reply<Healthy>, Problem<OnHealth>> {
        Ok(Reply::healthy())
    }

    /// Ask whether the server can serve
    ///
    /// It can if the last requests that read and wrote fared well. While there was none, or one failed, the database is asked,
    /// whether it takes writes, too. While it can't serve, requests are better sent elsewhere; `detail` says why.
    #[oai(path = "/health/ready", method = "get", operation_id = "getReadiness")]
    async fn get_readiness(&self) -> Result<Reply<Healthy>, Problem<OnReadiness>> {
        self.store.ready().await?;
        Ok(Reply::healthy())
    }
}

declares! {
    /// What asking whether the server runs may answer: a defect of ours is possible everywhere.
    OnHealth: &[types::INTERNAL];
    /// What asking for the readiness may answer.
    OnReadiness: types::DATABASE;
}

/// The server works.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "Health", example)]
pub struct Report {
    /// Always `ok`: a server that is not well answers with a problem, or not at all.
    status: State,
    /// The version of the server, which is that of the contract.
    #[oai(validator(max_length = 20, pattern = r"^[0-9]+\.[0-9]+\.[0-9]+$"))]
    version: String,
    /// The commit that the server was built from, or `unknown`: builds for development don't know it.
    #[oai(validator(max_length = 40, pattern = "^([0-9a-f]{7,40}|unknown)$"))]
    commit: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
}

published!(State, one_of(["ok"]));

impl Report {
    fn ok(commit: &str) -> Self {
        Self { status: State::Ok, version: env!("CARGO_PKG_VERSION").to_owned(), commit: commit.to_owned() }
    }
}

impl Example for Report {
    // The contract is the same, whichever commit it is printed by.
    fn example() -> Self {
        Self::ok("4f1c2d9e8b7a6f5e4d3c2b1a0f9e8d7c6b5a4f3e")
    }
}

/// The reply of a server that works.
#[derive(Debug)]
struct Healthy;

impl Reply<Healthy> {
    fn healthy() -> Self {
        json(StatusCode::OK, &Report::ok(COMMIT)).into()
    }
}

impl Described for Healthy {
    type Body = Report;

    fn responses() -> Vec<MetaResponse> {
        vec![response(StatusCode::OK, "All is well.", Some(Report::schema_ref()), Vec::new())]
    }
}
