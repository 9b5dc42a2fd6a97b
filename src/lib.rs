//! Taskpact: a multi-user task API server whose OpenAPI contract is the product.
//!
//! # The map
//!
//! A module uses what stands on a floor below its own, or on the same one, and nothing above. `tests/floors.rs` reads the
//! imports and says so.
//!
//! | floor | module | what is there |
//! |---|---|---|
//! | 8 | `main.rs`, `cli` | the command line, a file per command |
//! | 7 | [`server`] | the listener, its connections, and what every request passes on its way in and out |
//! | 6 | [`contract`] | the one document: assembled from the operations, post-processed, published |
//! | 5 | [`api`] | the operations: what each takes, does and answers |
//! | 4 | [`request`] | the extractors: the owner, parameters, conditional headers, bodies |
//! | 4 | [`store`] | every SQL statement, and the connections |
//! | 3 | [`auth`] | tokens, and [`auth::Owner`], the proof that the caller may touch one user's data |
//! | 3 | [`limits`] | how much one user, and one address, may ask |
//! | 2 | [`problem`] | every failure, its problem type, its words |
//! | 2 | [`task`], [`changes`] | the published types |
//! | 2 | [`request_id`] | the id of a request |
//! | 2 | [`schema`] | how types are described in the contract |
//! | 2 | [`clock`] | the time, and new ids |
//! | 1 | [`telemetry`] | logs, and where spans go |
//! | 1 | [`config`] | every setting |
//!
//! The database's schema is in the package `migration`.
//!
//! # One request
//!
//! `PUT /api/ann/tasks/…` arrives in `server/edge.rs`, which gives it an id and a deadline and hands it to poem's routes.
//! These call `update_task` in `api/tasks.rs`; its arguments are extracted from the request in the order in which they are
//! written. The first is `Path<Owner>` (`request/owner.rs`): it verifies the token and compares its subject with the path
//! (401, 403). Then come the other parameters and the body, which [`request::Body`] validates against the published schema
//! (400, 413, 415, 422). The operation hands them to `store/tasks.rs`, which asks the database for that owner, in one
//! statement with others who ask at the same time (404, 412, 503). The reply is written by `api/reply.rs`; a failure travels as a [`problem::Fault`] back to the edge, where it
//! becomes a problem.
//!
//! # Three rules
//!
//! - **Nobody reaches another's rows.** The store gives out tasks for an [`auth::Owner`] only, and only a verified token
//!   makes one. (What the operator asks for by name, `store/person.rs`, no request leads to.)
//! - **There is one contract.** What is published, enforced, tested and committed as `api-spec.yaml` is the same
//!   document.
//! - **A failure has one place.** Its status, its words and its headers stand in [`problem`].

pub mod api;
pub mod auth;
pub mod changes;
pub mod clock;
pub mod config;
pub mod contract;
pub mod limits;
pub mod problem;
pub mod request;
pub mod request_id;
pub mod schema;
pub mod server;
pub mod store;
pub mod task;
pub mod telemetry;
