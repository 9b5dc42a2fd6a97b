//! The connections for what is not a request: migrations, readiness, the sweep of old keys.
//!
//! Requests have connections of their own, in `postgres` and `sqlite`.

use std::{str::FromStr, sync::Arc, time::Duration};

use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, SqlxError};
use sqlx::{
    ConnectOptions, Connection,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    file::DatabaseFile,
    pooler::{self, PoolerCheck},
    postgres,
    session::Sessions,
};
use crate::config;

/// After this time without use they are closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// The connections. Built by sqlx itself: SeaORM's own way shows the address, password included, in its traces.
#[derive(Debug, Clone)]
pub(super) struct Upkeep {
    pub(super) read: DatabaseConnection,
    pub(super) write: DatabaseConnection,
    /// A SQLite file has no pooler in front of it.
    pub(super) pooler: Option<Arc<PoolerCheck>>,
    /// Nor has it sessions.
    pub(super) sessions: Option<Arc<Sessions>>,
    /// The file of a SQLite database.
    pub(super) file: Option<Arc<DatabaseFile>>,
}

/// Whether the database is a SQLite file that is not there.
pub(super) fn is_missing(settings: &config::Database) -> Result<bool, DbErr> {
    if !settings.url.is_sqlite() {
        return Ok(false);
    }
    let options = SqliteConnectOptions::from_str(settings.url.expose()).map_err(unusable)?;
    Ok(!options.get_filename().exists())
}

/// Prepares the connections. None is opened yet.
pub(super) fn open(settings: &config::Database) -> Result<Upkeep, DbErr> {
    if settings.url.is_sqlite() { sqlite(settings) } else { postgresql(settings) }
}

fn postgresql(settings: &config::Database) -> Result<Upkeep, DbErr> {
    let options = postgres::options(settings).map_err(unusable)?;
    let sessions = Some(Arc::new(Sessions::new(options.clone())));
    let timeout = Duration::from_millis(settings.acquire_timeout_ms.get());
    let check = Arc::new(PoolerCheck::new(options.clone(), timeout));
    let of_pool = Arc::clone(&check);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(timeout)
        .idle_timeout(IDLE_TIMEOUT)
        .after_connect(move |_, _| {
            let check = Arc::clone(&of_pool);
            Box::pin(async move { check.ensure(pooler::CHECK_AGE).await })
        })
        .connect_lazy_with(options);
    let connections = DatabaseConnection::from(pool);
    Ok(Upkeep { read: connections.clone(), write: connections, pooler: Some(check), sessions, file: None })
}

fn sqlite(settings: &config::Database) -> Result<Upkeep, DbErr> {
    let timeout = Duration::from_millis(settings.acquire_timeout_ms.get());
    let mut options = SqliteConnectOptions::from_str(settings.url.expose())
        .map_err(unusable)?
        .disable_statement_logging()
        .foreign_keys(true)
        // Of a user who is erased nothing is left in the file.
        .pragma("secure_delete", "on")
        // The writer of the requests, or another process, can hold the lock.
        .busy_timeout(timeout);
    let reads_only = settings.url.expose().contains("mode=ro");
    let file =
        DatabaseFile::open(options.get_filename(), reads_only).map_err(|error| unusable(SqlxError::Io(error)))?;
    if !file.is_read_only() {
        // A reply is a promise: what it says is on the disk.
        options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    }
    let pool = || {
        SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(timeout)
            .idle_timeout(IDLE_TIMEOUT)
            // SQLite ends a transaction by itself when the disk is full, and sqlx, which then fails to end it, goes on
            // counting it: what follows would be written within it, and never kept. The ping comes after what is queued.
            .after_release(|connection, _| {
                Box::pin(async move { Ok(connection.ping().await.is_ok() && !connection.is_in_transaction()) })
            })
    };
    let write = pool().connect_lazy_with(options.clone());
    let read = pool().connect_lazy_with(options);
    Ok(Upkeep { read: read.into(), write: write.into(), pooler: None, sessions: None, file: Some(Arc::new(file)) })
}

pub(super) fn unusable(error: SqlxError) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
