//! Taskpact: a multi-user task API server whose OpenAPI contract is the product.
//!
//! # The map
//!
//! | module | what is there |
//! |---|---|
//! | [`api`] | the operations: what each takes, does and answers |
//! | [`task`] | the published types |
//! | [`problem`] | every failure, its status, its words |
//! | [`contract`] | the one document: built from the operations, mended, published, and enforced on requests |
//! | [`auth`] | tokens, and [`auth::Owner`], the proof that the caller may touch one user's data |
//! | [`store`] | every SQL statement, and the connections |
//! | [`server`] | the listener, its connections, and what every request passes on its way in and out |
//! | [`config`] | every setting |
//! | [`telemetry`] | logs |
//! | [`clock`] | the time, and new ids |
//!
//! The command line is in `main.rs`, the database's schema in the package `migration`.
//!
//! # One request
//!
//! `PUT /api/ann/tasks/…` arrives in `server/edge.rs`, which gives it an id and a deadline and hands it to poem's routes.
//! These call `update_task` in `api/tasks.rs`; its arguments are taken from the request in the order in which they are
//! written. The first is [`auth::owner::Path`]: it verifies the token and compares its subject with the path (401,
//! 403). Then come the other parameters and the body, which [`contract::Body`] holds against the published schema (400,
//! 413, 415, 422). The operation hands them to `store/tasks.rs`, which runs one statement, narrowed to the owner (404,
//! 412). The reply is written by `api/reply.rs`; a failure travels as a [`problem::Fault`] back to the edge, where it
//! becomes a problem.
//!
//! # Three rules
//!
//! - **Nobody reaches another's rows.** The store gives out tasks for an [`auth::Owner`] only, and only a verified token
//!   makes one.
//! - **There is one contract.** What is published, enforced, tested and committed as `api-spec.yaml` is the same
//!   document.
//! - **A failure has one place.** Its status, its words and its headers stand in [`problem`].

pub mod api;
pub mod auth;
pub mod clock;
pub mod config;
pub mod contract;
pub mod problem;
pub mod server;
pub mod store;
pub mod task;
pub mod telemetry;
