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

use migration::Migrator;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqliteTransactionMode, SqlxError,
    TransactionOptions, TransactionTrait,
};
use sea_orm_migration::{MigrationStatus, MigratorTrait};

use crate::{auth::Owner, clock::Clock, config, problem::Fault};

mod connections;
mod idempotency;
mod pooler;
pub mod rows;
mod tasks;

pub use idempotency::{IdempotentRequest, Outcome};
pub use tasks::{Page, Tasks};

use connections::Pools;
use rows::Rows;

/// Taken while the schema is changed, so that of several processes that start at once one does it. Any number will do
/// that no other program uses on the same database: this is "taskpact" in ASCII.
const MIGRATION_LOCK: i64 = 0x7461_736b_7061_6374;

/// After this time, asking for readiness tries again whether a pooler keeps prepared statements apart.
const READY_POOLER_CHECK_AGE: Duration = Duration::from_mins(1);

/// Everything that is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Pools,
    clock: Clock,
}

/// One step of the schema's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

impl Store {
    /// Prepares the connections to the database that `settings` name. None is opened yet.
    ///
    /// # Errors
    /// The address is not one that the driver understands, or the folder of a SQLite file can't be made.
    pub fn new(settings: &config::Database) -> Result<Self, DbErr> {
        Ok(Self { pools: connections::open_pools(settings)?, clock: Clock })
    }

    /// `owner`'s tasks.
    #[must_use]
    pub fn tasks<'s>(&'s self, owner: &'s Owner) -> Tasks<'s> {
        Tasks { store: self, rows: Rows::of(owner) }
    }

    /// Asks the database whether it can serve: it answers, has the tables, and keeps prepared statements apart.
    ///
    /// # Errors
    /// What it answered instead, or that it did not.
    pub async fn ready(&self) -> Result<(), DbErr> {
        self.check_pooler(READY_POOLER_CHECK_AGE).await?;
        rows::unowned::probe().one(&self.pools.read).await.map(drop)
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

    /// Brings the schema up to date. Of several processes that try at once one does it and the others wait.
    ///
    /// # Errors
    /// A step failed, and then none of them has been made; or the database has a step that this program doesn't know.
    pub async fn migrate_up(&self) -> Result<Vec<String>, DbErr> {
        let change = self.begin_schema_change().await?;
        let pending: Vec<String> = Migrator::get_pending_migrations(&change).await?.iter().map(name).collect();
        Migrator::up(&change, None).await?;
        change.commit().await?;
        Ok(pending)
    }

    /// Takes back the last `count` steps, with the data that they hold.
    ///
    /// # Errors
    /// A step failed, and then none of them has been taken back; or the database has a step that this program doesn't
    /// know.
    pub async fn migrate_down(&self, count: u32) -> Result<Vec<String>, DbErr> {
        let change = self.begin_schema_change().await?;
        let applied = Migrator::get_applied_migrations(&change).await?;
        let affected = applied.iter().rev().take(count as usize).map(name).collect();
        Migrator::down(&change, Some(count)).await?;
        change.commit().await?;
        Ok(affected)
    }

    /// The schema's history, oldest first. It changes nothing.
    ///
    /// # Errors
    /// The database did not answer, or has a step that this program doesn't know.
    pub async fn migration_status(&self) -> Result<Vec<Step>, DbErr> {
        let steps = Migrator::get_migration_with_status_read_only(&self.pools.read).await?;
        Ok(steps
            .iter()
            .map(|step| Step { name: name(step), applied: step.status() == MigrationStatus::Applied })
            .collect())
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

    async fn begin_schema_change(&self) -> Result<DatabaseTransaction, DbErr> {
        let transaction = self.begin().await?;
        if transaction.get_database_backend() == DbBackend::Postgres {
            // It is let go at the end of the transaction, which suits a transaction pooler too.
            transaction.execute_unprepared(&format!("select pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
        }
        Ok(transaction)
    }
}

fn name(step: &sea_orm_migration::Migration) -> String {
    step.name().to_owned()
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        if is_transient(&error) { Self::Unavailable(error) } else { Self::Database(error) }
    }
}

fn is_transient(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(cause))
    | DbErr::Exec(RuntimeErr::SqlxError(cause))
    | DbErr::Query(RuntimeErr::SqlxError(cause))) = error
    else {
        return matches!(error, DbErr::ConnectionAcquire(_));
    };
    match &**cause {
        SqlxError::Io(_) | SqlxError::PoolTimedOut | SqlxError::PoolClosed | SqlxError::WorkerCrashed => true,
        SqlxError::Database(answer) => {
            let code = answer.code().unwrap_or_default();
            match code.parse::<u32>() {
                // SQLite's primary codes: busy, locked, input or output failed, full.
                Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6 | 10 | 13),
                // PostgreSQL's classes: connection, resources, and an operator's intervention; a transaction that
                // lost against another; a server that only reads, as a standby does.
                _ => ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) || code == "25006",
            }
        }
        _ => false,
    }
}
