//! Every SQL statement, and the connections to run them on.
//!
//! The rows are reached through [`Store::tasks`] only, which takes an [`Owner`]: unscoped access can't be written. Inside,
//! the entities are private to [`rows`], which hands out statements that are narrowed to an owner already.
//!
//! What it guarantees: each change is one statement, or one transaction where its response is stored for a repeat. The
//! database makes it whole or not at all, and its success is told only when it is kept. On SQLite all writes of this
//! process pass through one connection, in order; only another process can make them wait for a lock, for as long as
//! `database.acquire_timeout_ms` says.

use std::time::Duration;

use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqliteTransactionMode, SqlxError,
    Statement, TransactionOptions, TransactionTrait,
};

use crate::{auth::Owner, clock::Clock, config, problem::Fault};

mod connections;
mod file;
mod idempotency;
mod migrations;
mod pooler;
pub mod rows;
mod tasks;

pub use idempotency::{IdempotentRequest, Outcome};
pub use migrations::{Loss, Step};
pub use tasks::{Page, Tasks};

use connections::Pools;
use rows::Rows;

/// After this time, asking for readiness tries again whether a pooler keeps prepared statements apart.
const READY_POOLER_CHECK_AGE: Duration = Duration::from_mins(1);

/// Everything that is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Pools,
    clock: Clock,
}

impl Store {
    /// Prepares the connections to the database that `settings` name. None is opened yet, but a SQLite file is made if it
    /// is missing.
    ///
    /// # Errors
    /// The address is not one that the driver understands, or a SQLite file can't be opened or made.
    pub fn new(settings: &config::Database) -> Result<Self, DbErr> {
        Ok(Self { pools: connections::open_pools(settings)?, clock: Clock })
    }

    /// As [`new`](Self::new), but makes nothing: there is none if the SQLite file is missing.
    ///
    /// # Errors
    /// The same.
    pub fn existing(settings: &config::Database) -> Result<Option<Self>, DbErr> {
        if connections::is_missing(settings)? { Ok(None) } else { Self::new(settings).map(Some) }
    }

    /// `owner`'s tasks.
    #[must_use]
    pub fn tasks<'s>(&'s self, owner: &'s Owner) -> Tasks<'s> {
        Tasks { store: self, rows: Rows::of(owner) }
    }

    /// Asks the database whether it can serve, writes included.
    ///
    /// # Errors
    /// [`Fault::NotReady`] with the reason.
    pub async fn ready(&self) -> Result<(), Fault> {
        self.is_kept()?;
        self.probe().await.map_err(|cause| {
            let reason = reason(&cause);
            Fault::NotReady { reason, cause: Some(cause) }
        })?;
        Ok(())
    }

    async fn probe(&self) -> Result<(), DbErr> {
        self.check_pooler(READY_POOLER_CHECK_AGE).await?;
        rows::unowned::probe().one(&self.pools.read).await?;
        if self.backend() == DbBackend::Sqlite {
            // Nothing less than a write tells whether the file can be written and the disk has room.
            let write = "update seaql_migrations set applied_at = applied_at";
            return self.pools.write.execute_unprepared(write).await.map(drop);
        }
        let ask = "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean";
        let row = self.pools.read.query_one_raw(Statement::from_string(DbBackend::Postgres, ask)).await?;
        match row.map(|row| row.try_get_by_index(0)).transpose()? {
            Some(false) => Ok(()),
            _ => Err(DbErr::Custom(READS_ONLY.to_owned())),
        }
    }

    /// Whether another server has the same SQLite file open, as far as can be told. This one has it from now on.
    #[must_use]
    pub fn shares_its_file(&self) -> bool {
        self.pools.file.as_ref().is_some_and(|file| !file.is_ours_alone())
    }

    /// Tries to reach the database. The pool would only say that it took too long; this says why.
    ///
    /// # Errors
    /// Why it can't be reached.
    pub async fn try_connect(&self) -> Result<(), DbErr> {
        self.check_pooler(Duration::ZERO).await
    }

    async fn check_pooler(&self, max_age: Duration) -> Result<(), DbErr> {
        match &self.pools.pooler {
            Some(check) => check.ensure(max_age).await.map_err(connections::unusable),
            None => Ok(()),
        }
    }

    /// Whether `error` may go away by itself: the database is starting, restarting, or busy.
    #[must_use]
    pub fn is_transient(error: &DbErr) -> bool {
        is_transient(error)
    }

    /// Closes the connections, after what is under way on them, which may take long.
    pub async fn close(self) {
        // The only possible error is that they are closed.
        let _ = self.pools.read.close().await;
        let _ = self.pools.write.close().await;
    }

    /// Begins a transaction that writes. It is taken back unless it is committed.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            access_mode: None::<AccessMode>,
            isolation_level: None,
            // Takes the lock at once. A deferred one would fail when it comes to write after another has.
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        };
        self.pools.write.begin_with_options(options).await
    }

    fn backend(&self) -> DbBackend {
        self.pools.read.get_database_backend()
    }

    /// Makes sure that what has just been written can be found again.
    fn is_kept(&self) -> Result<(), Fault> {
        match &self.pools.file {
            Some(file) if !file.is_in_place() => Err(Fault::NotReady { reason: GONE, cause: None }),
            _ => Ok(()),
        }
    }
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        if is_transient(&error) || is_read_only(&error) { Self::Unavailable(error) } else { Self::Database(error) }
    }
}

const READS_ONLY: &str = "the database only takes reads";
const GONE: &str = "the database's file was deleted or replaced; restart the server";

/// Why the database can't serve, in words that may be shown to everybody.
fn reason(error: &DbErr) -> &'static str {
    let missing_table = |code: &str| code == "42P01" || error.to_string().contains("no such table");
    let (number, code) = code(error).unwrap_or_default();
    match (number, code.as_str()) {
        _ if is_read_only(error) || matches!(error, DbErr::Custom(text) if text == READS_ONLY) => READS_ONLY,
        (Some(13), _) | (_, "53100") => "the database's disk is full",
        (Some(10), _) => "the database's disk fails",
        (Some(14), _) => "the database's file can't be opened",
        (_, code) if missing_table(code) => "the database has not been migrated: run `taskpact migrate up`",
        _ if pooler::is_mixed_up(error) => "the connection pooler mixes up prepared statements",
        _ => "the database does not answer",
    }
}

/// What the database answered: SQLite's primary code, or PostgreSQL's SQLSTATE.
fn code(error: &DbErr) -> Option<(Option<u32>, String)> {
    match sqlx_error(error)? {
        SqlxError::Database(answer) => {
            let code = answer.code().unwrap_or_default().into_owned();
            let number = code.parse::<u32>().ok().filter(|_| code.len() < 5).map(|number| number & 0xff);
            Some((number, code))
        }
        _ => None,
    }
}

fn sqlx_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => Some(cause),
        _ => None,
    }
}

/// Whether the database takes no writes, which trying again won't change.
fn is_read_only(error: &DbErr) -> bool {
    code(error).is_some_and(|(number, code)| number == Some(8) || code == "25006")
}

fn is_transient(error: &DbErr) -> bool {
    match sqlx_error(error) {
        None => matches!(error, DbErr::ConnectionAcquire(_)),
        Some(SqlxError::Io(_) | SqlxError::PoolTimedOut | SqlxError::PoolClosed | SqlxError::WorkerCrashed) => true,
        Some(SqlxError::Database(_)) => match code(error).unwrap_or_default() {
            // SQLite: busy, locked, input or output failed, full, no descriptor left to open the file with.
            (Some(number), _) => matches!(number, 5 | 6 | 10 | 13 | 14),
            // PostgreSQL's classes: connection, resources, an operator's intervention; a transaction that lost against
            // another, or against a lock.
            (None, code) => ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) || code == "55P03",
        },
        Some(_) => false,
    }
}
