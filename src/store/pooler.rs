//! Finding out whether what a connection prepares stays its own.
//!
//! The driver names its prepared statements by number: `sqlx_s_1` is another statement on each connection. Behind a
//! transaction pooler that does not keep track of them (PgBouncer before 1.21, or with `max_prepared_statements = 0`) the
//! connections to the database are shared, and with them the names: one request's parameters run through another request's
//! statement, and the answer is a 200. Nothing in a single answer tells. So it is tried before anything else is done, and
//! whenever the pool connects anew: a pooler can be changed while the server runs.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::telemetry::chain;

/// For how long it is taken for granted that a pooler is what it was, when a connection is made.
pub(super) const CHECK_AGE: Duration = Duration::from_secs(10);
/// How often the trial is made. A pooler may give the same connection back by chance, most of all while others use it.
const ROUNDS: usize = 3;

/// Prepared statements get mixed up between connections.
#[derive(Debug, thiserror::Error)]
#[error(
    "the connection pooler in front of it mixes up prepared statements: one request's statement would run for another, \
     and data would be corrupted. With PgBouncer set `pool_mode = session`, or use version 1.21 or newer with \
     `max_prepared_statements = 200`; or connect to PostgreSQL itself"
)]
struct MixedUp;

/// What is known of the way to the database.
#[derive(Debug)]
pub(super) struct PoolerCheck {
    options: PgConnectOptions,
    /// How long each step may take.
    limit: Duration,
    passed: Mutex<Option<Instant>>,
    is_running: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

impl PoolerCheck {
    pub(super) fn new(options: PgConnectOptions, limit: Duration) -> Self {
        Self {
            options,
            limit,
            passed: Mutex::default(),
            is_running: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Makes sure that the trial has been passed, no longer than `max_age` ago.
    ///
    /// # Errors
    /// It was not passed, which no repetition will change; or the database did not answer.
    pub(super) async fn ensure(&self, max_age: Duration) -> Result<(), sqlx::Error> {
        if !self.has_passed(max_age) {
            // One at a time: each opens two sessions.
            let _turn = self.turn.lock().await;
            if !self.has_passed(max_age) {
                self.run().await?;
                self.note(Some(Instant::now()));
            }
        }
        Ok(())
    }

    /// As [`ensure`](Self::ensure), but does not wait for the trial if it has been passed before: if it fails this time, the next
    /// one who asks is told.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn ensure_soon(self: &Arc<Self>, max_age: Duration) -> Result<(), sqlx::Error> {
        let passed = *self.passed.lock().expect("nothing panics with it");
        let Some(passed) = passed else { return self.ensure(max_age).await };
        if passed.elapsed() > max_age && !self.is_running.swap(true, Relaxed) {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = this.run().await {
                    tracing::warn!(cause = chain(&error), "the way to the database could not be tried");
                    // Whoever asks next tries it again, and is told.
                    this.note(None);
                } else {
                    this.note(Some(Instant::now()));
                }
                this.is_running.store(false, Relaxed);
            });
        }
        Ok(())
    }

    fn has_passed(&self, max_age: Duration) -> bool {
        self.passed.lock().expect("nothing panics with it").is_some_and(|at| at.elapsed() <= max_age)
    }

    fn note(&self, passed: Option<Instant>) {
        *self.passed.lock().expect("nothing panics with it") = passed;
    }

    /// Tries whether prepared statements keep to their connection.
    async fn run(&self) -> Result<(), sqlx::Error> {
        let mut one = Session::open(&self.options, self.limit).await?;
        let mut other = Session::open(&self.options, self.limit).await?;
        for _ in 0..ROUNDS {
            let before = one.ask_prepared().await?;
            // As long as this transaction lasts, a pooler has to serve `one` from another connection to the database.
            other.execute("begin").await?;
            let taken = other.ask_prepared().await?;
            // If the pooler has a single connection, `one` would wait for it in vain; and that `other` could prepare its
            // own statement there has told already what is asked.
            if taken != before {
                one.ask_prepared().await?;
            }
            other.execute("rollback").await?;
        }
        one.close().await;
        other.close().await;
        Ok(())
    }
}

/// A connection with a prepared statement that no other has.
struct Session {
    connection: PgConnection,
    limit: Duration,
    mark: String,
}

impl Session {
    async fn open(options: &PgConnectOptions, limit: Duration) -> Result<Self, sqlx::Error> {
        let connection = within(limit, options.connect()).await?;
        Ok(Self { connection, limit, mark: Uuid::new_v4().to_string() })
    }

    /// Runs its prepared statement, and tells which of the database's processes it ran in.
    async fn ask_prepared(&mut self) -> Result<i32, sqlx::Error> {
        let query = AssertSqlSafe(format!("select '{}', pg_backend_pid()", self.mark));
        let ask = sqlx::query_as::<_, (String, i32)>(query).fetch_one(&mut self.connection);
        match within(self.limit, ask).await {
            Ok((mark, process)) if mark == self.mark => Ok(process),
            // Another's statement ran, or would have.
            Ok(_) | Err(sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
                Err(mixed_up())
            }
            Err(sqlx::Error::Database(answer)) if is_of_another_statement(answer.downcast_ref()) => Err(mixed_up()),
            Err(error) => Err(error),
        }
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        within(self.limit, sqlx::raw_sql(statement).execute(&mut self.connection)).await.map(drop)
    }

    async fn close(self) {
        // Whether it ends well is of no interest any more.
        let _ = within(self.limit, self.connection.close()).await;
    }
}

/// Whether the database says what it can't say of this very connection's own statement: that it does not exist, that it
/// exists already, or that it has other parameters. (A pooler's own errors have the last code, too, but no routine.)
fn is_of_another_statement(answer: &PgDatabaseError) -> bool {
    ["26000", "42P05"].contains(&answer.code()) || answer.routine() == Some("exec_bind_message")
}

/// Whether this is what `error` says.
pub(super) fn is_mixed_up(error: &sea_orm::DbErr) -> bool {
    matches!(super::sqlx_error(error), Some(sqlx::Error::Configuration(cause)) if cause.is::<MixedUp>())
}

fn mixed_up() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(MixedUp))
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}
