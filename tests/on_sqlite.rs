//! The suite on SQLite.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;
mod support;

const BACKEND: support::Backend = support::Backend::Sqlite;
