//! The pools of connections.

use std::{str::FromStr, sync::Arc, time::Duration};

use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, SqlxError};
use sqlx::{
    ConnectOptions, Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::time::timeout;

use super::{file::DatabaseFile, pooler::PoolerCheck};
use crate::config;

/// A connection that has been idle for longer is tried before it is used: the server may have closed it.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
/// How long such a trial may take.
const TRIAL: Duration = Duration::from_secs(1);
/// For how long it is taken for granted that a pooler is what it was. What it does to prepared statements is tried again
/// when a connection is made after that.
const POOLER_CHECK_AGE: Duration = Duration::from_secs(10);

/// The connections to the database. Built by sqlx itself: SeaORM's own way shows the address, password included, in its
/// traces.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    pub(super) read: DatabaseConnection,
    pub(super) write: DatabaseConnection,
    /// A SQLite file has no pooler in front of it.
    pub(super) pooler: Option<Arc<PoolerCheck>>,
    /// The file of a SQLite database that is kept in one.
    pub(super) file: Option<Arc<DatabaseFile>>,
}

/// Whether the database is a SQLite file that is not there.
pub(super) fn is_missing(settings: &config::Database) -> Result<bool, DbErr> {
    if !settings.url.is_sqlite() || is_in_memory(settings) {
        return Ok(false);
    }
    let options = SqliteConnectOptions::from_str(settings.url.expose()).map_err(unusable)?;
    Ok(!options.get_filename().exists())
}

fn is_in_memory(settings: &config::Database) -> bool {
    settings.url.expose().contains(":memory:")
}

/// Prepares the connections. None is opened yet.
pub(super) fn open_pools(settings: &config::Database) -> Result<Pools, DbErr> {
    if settings.url.is_sqlite() { sqlite(settings) } else { postgres(settings) }
}

fn postgres(settings: &config::Database) -> Result<Pools, DbErr> {
    let mut options = PgConnectOptions::from_str(settings.url.expose())
        .map_err(unusable)?
        .disable_statement_logging()
        // Poolers refuse it as a parameter of the connection, and nothing here has such digits.
        .extra_float_digits(None);
    if options.get_application_name().is_none() {
        options = options.application_name("taskpact");
    }
    let timeout = Duration::from_millis(settings.acquire_timeout_ms.get());
    let check = Arc::new(PoolerCheck::new(options.clone(), timeout));
    let of_pool = Arc::clone(&check);
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections.get())
        .acquire_timeout(timeout)
        .after_connect(move |_, _| {
            let check = Arc::clone(&of_pool);
            Box::pin(async move { check.ensure(POOLER_CHECK_AGE).await })
        })
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move { Ok(state.idle_for < TRUSTED_IDLE || is_sound(connection).await) })
        })
        // A request that was given up may have left a statement behind that waits for a lock. The pool itself would wait
        // for its end before it has the place back, and a few such requests would have taken all places. Or it has left
        // a transaction open: sqlx forgets one whose beginning nobody has waited for, and what other requests then write
        // on the connection, and are told to be kept, would be taken back.
        .after_release(|connection, _| {
            let unsound = || SqlxError::Protocol("the connection does not answer, or is in a transaction".to_owned());
            Box::pin(async move { if is_sound(connection).await { Ok(true) } else { Err(unsound()) } })
        })
        .connect_lazy_with(options);
    let connections = DatabaseConnection::from(pool);
    Ok(Pools { read: connections.clone(), write: connections, pooler: Some(check), file: None })
}

/// Whether a connection answers, and is in no transaction: that would have begun before the statement that asks. (Not a
/// prepared one, of which each message has a time of its own.)
async fn is_sound(connection: &mut PgConnection) -> bool {
    let ask = sqlx::raw_sql("select transaction_timestamp() = statement_timestamp()").fetch_one(connection);
    match timeout(TRIAL, ask).await {
        Ok(Ok(row)) => row.try_get(0).unwrap_or(false),
        _ => false,
    }
}

fn sqlite(settings: &config::Database) -> Result<Pools, DbErr> {
    let timeout = Duration::from_millis(settings.acquire_timeout_ms.get());
    let mut options = SqliteConnectOptions::from_str(settings.url.expose())
        .map_err(unusable)?
        .disable_statement_logging()
        .foreign_keys(true)
        // Only another process can hold the lock: `taskpact migrate`, a backup.
        .busy_timeout(timeout);
    let in_memory = is_in_memory(settings);
    let file = if in_memory { None } else { Some(DatabaseFile::open(options.get_filename())) };
    let file = file.transpose().map_err(|error| unusable(SqlxError::Io(error)))?.map(Arc::new);
    if !file.as_ref().is_some_and(|file| file.is_read_only()) && !settings.url.expose().contains("mode=ro") {
        // A reply is a promise: what it says is on the disk.
        options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    }
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(timeout)
            // SQLite ends a transaction by itself when the disk is full, and sqlx, which then fails to end it, goes on
            // counting it: what follows would be written within it, and never kept. The ping comes after what is queued.
            .after_release(|connection, _| {
                Box::pin(async move { Ok(connection.ping().await.is_ok() && !connection.is_in_transaction()) })
            })
    };

    if in_memory {
        // Such a database lives as long as its one connection.
        let pool = pool(1).idle_timeout(None).max_lifetime(None).connect_lazy_with(options);
        let connection = DatabaseConnection::from(pool);
        return Ok(Pools { read: connection.clone(), write: connection, pooler: None, file: None });
    }
    // One writer: SQLite knows no more, and a queue of our own is fair, where its locks are won by luck.
    let write = pool(1).connect_lazy_with(options.clone());
    let read = pool(settings.max_connections.get()).connect_lazy_with(options);
    Ok(Pools { read: read.into(), write: write.into(), pooler: None, file })
}

pub(super) fn unusable(error: SqlxError) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, DbBackend, Statement};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn sqlite_keeps_what_it_says_and_waits_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/deep/er/tasks.db", folder.path().display());
        let settings = json!({"url": url, "max_connections": 2, "acquire_timeout_ms": 1234, "migrate": true});
        let Pools { read, write, .. } = open_pools(&serde_json::from_value(settings).unwrap()).unwrap();

        for connection in [write, read] {
            for (pragma, expected) in
                [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1"), ("busy_timeout", "1234")]
            {
                let ask = Statement::from_string(DbBackend::Sqlite, format!("pragma {pragma}"));
                let row = connection.query_one_raw(ask).await.unwrap().unwrap();
                let value = row.try_get_by_index::<i64>(0).map(|n| n.to_string()).or_else(|_| row.try_get_by_index(0));
                assert_eq!(value.unwrap(), expected, "{pragma}");
            }
        }
    }
}
