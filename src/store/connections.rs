//! The pools of connections.

use std::{fs, path::Path, str::FromStr, time::Duration};

use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, SqlxError};
use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::config;

/// A connection that has been idle for longer is tried before it is used: the server may have closed it.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// How long such a trial may take.
const TRIAL: Duration = Duration::from_secs(1);

/// The connections to read and to write on. Built by sqlx itself: SeaORM's own way shows the address, password
/// included, in its traces.
pub(super) fn prepare(settings: &config::Database) -> Result<(DatabaseConnection, DatabaseConnection), DbErr> {
    if settings.url.is_sqlite() { sqlite(settings) } else { postgres(settings) }
}

fn postgres(settings: &config::Database) -> Result<(DatabaseConnection, DatabaseConnection), DbErr> {
    let mut options = PgConnectOptions::from_str(settings.url.expose()).map_err(unusable)?.disable_statement_logging();
    if options.get_application_name().is_none() {
        options = options.application_name("taskpact");
    }
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections.get())
        .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms.get()))
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                let trusted = state.idle_for < TRUSTED_IDLE;
                Ok(trusted || matches!(tokio::time::timeout(TRIAL, connection.ping()).await, Ok(Ok(()))))
            })
        })
        .connect_lazy_with(options);
    let connections = DatabaseConnection::from(pool);
    Ok((connections.clone(), connections))
}

fn sqlite(settings: &config::Database) -> Result<(DatabaseConnection, DatabaseConnection), DbErr> {
    let timeout = Duration::from_millis(settings.acquire_timeout_ms.get());
    let options = SqliteConnectOptions::from_str(settings.url.expose())
        .map_err(unusable)?
        .disable_statement_logging()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A reply is a promise: what it says is on the disk.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Only another process can hold the lock: `taskpact migrate`, a backup.
        .busy_timeout(timeout);
    let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(timeout);

    if settings.url.expose().contains(":memory:") {
        // Such a database lives as long as its one connection.
        let pool = pool(1).idle_timeout(None).max_lifetime(None).connect_lazy_with(options);
        let connection = DatabaseConnection::from(pool);
        return Ok((connection.clone(), connection));
    }
    if let Some(folder) = options.get_filename().parent().filter(|folder| *folder != Path::new("")) {
        fs::create_dir_all(folder).map_err(|error| unusable(SqlxError::Io(error)))?;
    }
    // One writer: SQLite knows no more, and a queue of our own is fair, where its locks are won by luck.
    let write = pool(1).connect_lazy_with(options.clone());
    let read = pool(settings.max_connections.get()).connect_lazy_with(options);
    Ok((read.into(), write.into()))
}

fn unusable(error: SqlxError) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
