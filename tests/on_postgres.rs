//! The suite on PostgreSQL: a private one that is started here, or the one that `TEST_DATABASE_URL` names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;
mod support;

const BACKEND: support::Backend = support::Backend::Postgres;
