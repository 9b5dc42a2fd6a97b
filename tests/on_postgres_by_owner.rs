//! The suite on PostgreSQL with `database.sets = owner`: with the statements that Citus is given.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;
mod support;

const BACKEND: support::Backend = support::Backend::PostgresByOwner;
