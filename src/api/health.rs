//! Whether the server works. These operations ask for no token: supervisors have none.

use poem::{IntoResponse, Response, http::StatusCode};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    registry::{MetaResponses, MetaSchema, Registry},
    types::{Example, Type},
};
use serde::Serialize;

use super::{
    Tag,
    reply::{described, json, one},
};
use crate::{
    contract::published,
    problem::{self, Fault, Kind, Problem, Refusals},
    store::Store,
};

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
    async fn get_health(&self) -> Result<Well, Problem<OnHealth>> {
        Ok(Well)
    }

    /// Ask whether the server can serve
    ///
    /// It asks the database. While that does not answer, requests are better sent elsewhere.
    #[oai(path = "/health/ready", method = "get", operation_id = "getReadiness")]
    async fn get_readiness(&self) -> Result<Well, Problem<OnReadiness>> {
        self.store.ready().await.map_err(Fault::Unavailable)?;
        Ok(Well)
    }
}

/// What asking whether the server runs may answer: a defect of ours is everywhere possible.
#[derive(Debug)]
pub(super) struct OnHealth;

impl Refusals for OnHealth {
    const KINDS: &'static [&'static [Kind]] = &[&[problem::INTERNAL]];
}

/// What asking for the readiness may answer.
#[derive(Debug)]
pub(super) struct OnReadiness;

impl Refusals for OnReadiness {
    const KINDS: &'static [&'static [Kind]] = &[problem::OF_THE_DATABASE];
}

/// The server works.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "Health", example)]
struct Status {
    /// Always `ok`: a server that is not well answers with a problem, or not at all.
    status: State,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
}

published!(State, MetaSchema { enum_items: vec!["ok".into()], ..MetaSchema::new("string") });

const OK: Status = Status { status: State::Ok };

impl Example for Status {
    fn example() -> Self {
        OK
    }
}

/// The reply of a server that works.
#[derive(Debug)]
struct Well;

impl IntoResponse for Well {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &OK)
    }
}

impl ApiResponse for Well {
    fn meta() -> MetaResponses {
        one(described(StatusCode::OK, "All is well.", Some(Status::schema_ref()), Vec::new()))
    }

    fn register(registry: &mut Registry) {
        Status::register(registry);
    }
}
