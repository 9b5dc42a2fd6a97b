//! Every SQL statement, and the connections to run them on.
//!
//! Outside of here rows are reached through [`Store::tasks`] only, which takes an [`Owner`]. Inside, what is asked is a request
//! that names its owner; requests wait in a queue (`queue.rs`) and are served in sets, by `postgres` with the texts in
//! `statements.rs`, or by `sqlite`. These texts name the owner by hand; the suite proves them (`isolation.rs`, `sets.rs`).
//! The entities are private to [`rows`].
//!
//! What it guarantees: a change, its owner's revision, and the response that is stored for a repeat are one transaction. The
//! database makes it whole or not at all, and its success is told only when it is kept. Revisions are in the order of the
//! commits. What one request of a set breaks does not fail the others.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use prometheus_client::registry::Registry;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqliteTransactionMode, SqlxError,
    Statement, TransactionOptions, TransactionTrait,
};
use tokio::task::JoinSet;

use crate::{
    auth::Owner,
    clock::Clock,
    config,
    problem::{Cause, Fault},
};

pub mod backup;
mod changes;
mod connections;
mod file;
mod functions;
mod idempotency;
mod measured;
mod migrations;
mod pages;
mod person;
mod places;
mod pooler;
mod postgres;
mod queue;
mod readiness;
mod request;
pub mod rows;
mod session;
mod sqlite;
mod statements;
mod sweep;
mod tasks;
mod turn;
mod waiting;

use connections::Upkeep;
pub use idempotency::IdempotentRequest;
use idempotency::replay;
pub use migrations::{Loss, Step};
use pages::Pages;
pub use person::{BATCH, Belongings};
use postgres::Postgres;
use queue::{Policy, Queue};
pub(crate) use readiness::NOT_MIGRATED;
use readiness::{GONE, LastUse, Probe};
pub use request::{Listed, Outcome, Page};
use sqlite::Sqlite;
pub use tasks::Tasks;
pub use turn::{Span, Turn};
use waiting::Waiting;

/// How long a request waits for what somebody else has locked, in milliseconds.
const LOCK_TIMEOUT_MS: u64 = 3_000;
/// The revision of an owner whom the database does not know.
const NO_REVISION: i64 = -1;

/// Everything that is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pages: Arc<Pages>,
    lanes: Arc<Lanes>,
    upkeep: Upkeep,
    probe: Arc<tokio::sync::Mutex<Probe>>,
    last_use: Arc<LastUse>,
    /// Whether readiness is judged by that.
    last_use_counts: bool,
    waiting: Arc<Waiting>,
    /// For how long deletions are remembered.
    retention: TimeDelta,
    clock: Clock,
}

/// Those who serve the queue. When the last store is dropped, they end.
struct Lanes {
    queue: Arc<Queue>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Lanes").finish_non_exhaustive()
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.queue.close();
        // They finish what they have taken, and end by themselves.
        self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).detach_all();
    }
}

impl Store {
    /// Prepares the connections to the database that `settings` name. None is opened yet, but a SQLite file is made if it
    /// is missing.
    ///
    /// # Errors
    /// The address is not one that the driver understands, or a SQLite file can't be opened or made.
    ///
    /// # Panics
    /// Outside of an asynchronous runtime, on which what serves the requests is started.
    pub fn new(settings: &config::Database) -> Result<Self, DbErr> {
        let upkeep = connections::open(settings)?;
        let patience = Duration::from_millis(settings.acquire_timeout_ms.get());
        let connections = settings.max_connections.get();
        let single_owner = settings.sets == config::Sets::Owner;
        let mut tasks = JoinSet::new();
        let queue = match (&upkeep.pooler, &upkeep.sessions, &upkeep.file) {
            (Some(check), Some(sessions), _) => {
                let policy = Policy { single_owner, waits: (!single_owner).then_some(queue::PROMPT) };
                let queue = Queue::new(postgres::lanes(connections, single_owner), policy, patience);
                Postgres::new(Arc::clone(sessions), Arc::clone(check), Arc::clone(&queue), patience, settings.sets)
                    .start(&mut tasks);
                queue
            }
            (_, _, Some(file)) => {
                let queue = Queue::new(sqlite::lanes(connections), Policy { single_owner, waits: None }, patience);
                Sqlite::new(Arc::clone(file), Arc::clone(&queue), patience).start(&mut tasks);
                queue
            }
            _ => return Err(DbErr::Custom("there is no database".to_owned())),
        };
        Ok(Self {
            lanes: Arc::new(Lanes { queue, tasks: Mutex::new(tasks) }),
            pages: Arc::new(Pages::new(settings.page_cache_mb.get::<u64>() * 1024 * 1024)),
            upkeep,
            probe: Arc::default(),
            last_use: Arc::default(),
            last_use_counts: settings.readiness == config::Readiness::LastUse,
            waiting: Arc::new(Waiting::new(&config::Changes::default(), usize::MAX)),
            retention: TimeDelta::days(config::Changes::default().retention_days.get()),
            clock: Clock,
        })
    }

    /// As [`new`](Self::new), but makes nothing: there is none if the SQLite file is missing.
    ///
    /// # Errors
    /// The same.
    pub fn existing(settings: &config::Database) -> Result<Option<Self>, DbErr> {
        if connections::is_missing(settings)? { Ok(None) } else { Self::new(settings).map(Some) }
    }

    /// Registers what is measured.
    pub fn register(&self, registry: &mut Registry) {
        self.lanes.queue.measured.register(registry);
        registry.register("changes_waiting", "Calls that wait for a change", self.waiting.gauge.clone());
    }

    /// Looks at what is measured when somebody asks.
    pub fn measure(&self) {
        self.lanes.queue.measured.wait(self.lanes.queue.waiting());
        self.waiting.measure();
    }

    /// `owner`'s tasks.
    #[must_use]
    pub fn tasks<'s>(&'s self, owner: &'s Owner) -> Tasks<'s> {
        Tasks { store: self, owner }
    }

    /// Whether another server has the same SQLite file open, as far as can be told. This one has it from now on.
    #[must_use]
    pub fn shares_its_file(&self) -> bool {
        self.upkeep.file.as_ref().is_some_and(|file| !file.is_ours_alone())
    }

    /// Tries to reach the database. The pool would only say that it took too long; this says why.
    ///
    /// # Errors
    /// Why it can't be reached, or can't be used.
    pub async fn try_connect(&self) -> Result<(), DbErr> {
        let Some(check) = &self.upkeep.pooler else { return Ok(()) };
        check.ensure(Duration::ZERO).await.map_err(connections::unusable)?;
        let ask = Statement::from_string(DbBackend::Postgres, "show server_encoding");
        let row = self.upkeep.read.query_one_raw(ask).await?;
        match row.map(|row| row.try_get_by_index::<String>(0)).transpose()?.as_deref() {
            Some("UTF8") | None => Ok(()),
            Some(encoding) => Err(DbErr::Migration(format!(
                "its encoding is {encoding}, which can't hold every title: make one with `create database … encoding 'UTF8' \
                 template template0`"
            ))),
        }
    }

    /// Whether `error` may go away by itself: the database is starting, restarting, or busy.
    #[must_use]
    pub fn is_transient(error: &DbErr) -> bool {
        is_transient(error)
    }

    /// Serves no more requests, and waits for those under way, which may take long.
    pub async fn close(self) {
        self.lanes.queue.close();
        let mut tasks = std::mem::take(&mut *self.lanes.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        // The only possible error is that they are closed.
        let _ = self.upkeep.read.close().await;
        let _ = self.upkeep.write.close().await;
    }

    /// Begins a transaction that writes. It is taken back unless it is committed.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            access_mode: None::<AccessMode>,
            isolation_level: None,
            // Takes the lock at once. A deferred one would fail when it comes to write after another has.
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        };
        self.upkeep.write.begin_with_options(options).await
    }

    fn backend(&self) -> DbBackend {
        self.upkeep.read.get_database_backend()
    }
}

/// What becomes of a request when nobody serves any more, or too many wait.
fn closed() -> Fault {
    Fault::Unavailable(request::cause("too many requests wait for the database, or the server stops"))
}

/// The same fault for another request that failed with it.
fn shared(fault: &Fault) -> Fault {
    match fault {
        Fault::Unavailable(cause) => Fault::Unavailable(Cause::clone(cause)),
        Fault::Database(cause) => Fault::Database(Cause::clone(cause)),
        Fault::NotReady { reason, cause } => Fault::NotReady { reason, cause: cause.clone() },
        other => Fault::defect(other.to_string()),
    }
}

impl From<Arc<SqlxError>> for Fault {
    fn from(error: Arc<SqlxError>) -> Self {
        let passes = is_transient_in_sqlx(&error) || is_read_only_in_sqlx(&error);
        if passes { Self::Unavailable(error) } else { Self::Database(error) }
    }
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        let passes = is_transient(&error) || is_read_only(&error);
        if passes { Self::Unavailable(Arc::new(error)) } else { Self::Database(Arc::new(error)) }
    }
}

/// What the database answered: SQLite's primary code, or PostgreSQL's SQLSTATE.
fn code(error: &DbErr) -> Option<(Option<u32>, String)> {
    code_in_sqlx(sqlx_error(error)?)
}

fn code_in_sqlx(error: &SqlxError) -> Option<(Option<u32>, String)> {
    let SqlxError::Database(answer) = error else { return None };
    let code = answer.code().unwrap_or_default().into_owned();
    let number = code.parse::<u32>().ok().filter(|_| code.len() < 5).map(|number| number & 0xff);
    Some((number, code))
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
    sqlx_error(error).is_some_and(is_read_only_in_sqlx)
}

fn is_read_only_in_sqlx(error: &SqlxError) -> bool {
    code_in_sqlx(error).is_some_and(|(number, code)| number == Some(8) || code == "25006")
}

fn is_transient(error: &DbErr) -> bool {
    match sqlx_error(error) {
        None => matches!(error, DbErr::ConnectionAcquire(_)),
        Some(error) => is_transient_in_sqlx(error),
    }
}

fn is_transient_in_sqlx(error: &SqlxError) -> bool {
    match error {
        // The last one: what is no PostgreSQL, such as a proxy that has none behind it.
        SqlxError::Io(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed
        | SqlxError::Protocol(_) => true,
        SqlxError::Database(_) => match code_in_sqlx(error).unwrap_or_default() {
            // SQLite: busy, locked, input or output failed, full, no descriptor left to open the file with.
            (Some(number), _) => matches!(number, 5 | 6 | 10 | 13 | 14),
            // PostgreSQL's classes: connection, resources, an operator's intervention; a transaction that lost against
            // another, or against a lock.
            (None, code) => ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) || code == "55P03",
        },
        _ => false,
    }
}

/// Whether the connection is of no use any more: there is no answer, or the database has ended it.
fn is_lost(error: &SqlxError) -> bool {
    match error {
        SqlxError::Database(_) => {
            code_in_sqlx(error).is_some_and(|(_, code)| code.starts_with("08") || code.starts_with("57P"))
        }
        _ => true,
    }
}
