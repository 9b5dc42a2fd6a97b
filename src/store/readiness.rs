//! Whether the database can serve, within a second: whether it answers, has the tables, and takes writes (a SQLite is written to,
//! a PostgreSQL is asked).
//!
//! Some databases sleep when nobody uses them, and probes are no use: unless it is set otherwise, what counts is how requests
//! fared last. Only while there was none, or one failed, is the database asked.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryTrait, SqlxError};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::timeout;

use super::{
    Store, code, connections, is_read_only,
    pooler::{self, PoolerCheck},
    rows::unowned,
    session::Sessions,
};
use crate::problem::Fault;

/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// After this time it is tried again whether a pooler keeps prepared statements apart.
const POOLER_CHECK_AGE: Duration = Duration::from_mins(1);

const READS_ONLY: &str = "the database only takes reads";
/// Why a database without our tables can't serve.
pub(crate) const NOT_MIGRATED: &str = "the database has not been migrated: run `taskpact migrate up`";
pub(super) const GONE: &str = "the database's file was deleted or replaced; restart the server";

/// What asks, one at a time.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// The connection that a PostgreSQL is asked on. One that has been given up would keep those who ask later waiting, in a
    /// pool.
    connection: Option<PgConnection>,
    /// What was found last, and when that was begun.
    last: Option<(Instant, Result<(), Arc<DbErr>>)>,
}

/// How requests fared at the database last.
#[derive(Debug, Default)]
pub(super) struct LastUse {
    read: AtomicBool,
    wrote: AtomicBool,
    /// Whether there was any since somebody asked for this.
    is_new: AtomicBool,
}

impl LastUse {
    /// Notes how a request fares: badly, if it is given up before there is an outcome.
    pub(super) fn begin(&self, writes: bool) -> Using<'_> {
        self.is_new.store(true, Relaxed);
        Using { part: if writes { &self.wrote } else { &self.read }, has_outcome: false }
    }

    fn is_good(&self) -> bool {
        self.read.load(Relaxed) && self.wrote.load(Relaxed)
    }

    /// Whether the database has been used since this was asked last.
    pub(super) fn is_new(&self) -> bool {
        self.is_new.swap(false, Relaxed)
    }
}

/// A request that is under way.
pub(super) struct Using<'u> {
    part: &'u AtomicBool,
    has_outcome: bool,
}

impl Using<'_> {
    /// Notes how it has fared. `proves` is whether success shows that the database can serve: what has written nothing shows
    /// nothing about writes.
    pub(super) fn end<T>(mut self, outcome: &Result<T, Fault>, proves: impl FnOnce(&T) -> bool) {
        self.has_outcome = true;
        match outcome {
            Err(Fault::Unavailable(_) | Fault::NotReady { .. } | Fault::Database(_)) => self.part.store(false, Relaxed),
            Ok(answer) if proves(answer) => self.part.store(true, Relaxed),
            _ => {}
        }
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        if !self.has_outcome {
            self.part.store(false, Relaxed);
        }
    }
}

impl Store {
    /// Tells whether the database can serve, writes included.
    ///
    /// # Errors
    /// [`Fault::NotReady`] with the reason.
    pub async fn ready(&self) -> Result<(), Fault> {
        if self.upkeep.file.as_ref().is_some_and(|file| !file.is_in_place()) {
            return Err(Fault::NotReady { reason: GONE, cause: None });
        }
        if self.lanes.queue.is_closed() {
            return Err(super::closed());
        }
        if self.last_use_counts && self.last_use.is_good() {
            return Ok(());
        }
        let late = |_| Err(Arc::new(connections::unusable(SqlxError::Io(io::ErrorKind::TimedOut.into()))));
        let outcome = timeout(TIMEOUT, self.probed(Instant::now())).await.unwrap_or_else(late);
        for part in [&self.last_use.read, &self.last_use.wrote] {
            part.store(outcome.is_ok(), Relaxed);
        }
        outcome.map_err(|error| Fault::NotReady { reason: reason(&error), cause: Some(error) })
    }

    /// What the database says, or has said to somebody else who has asked it since. However many ask, it is asked once at a time:
    /// nobody keeps others from asking.
    async fn probed(&self, since: Instant) -> Result<(), Arc<DbErr>> {
        let mut probe = self.probe.lock().await;
        let Probe { connection, last } = &mut *probe;
        if let Some((_, outcome)) = last.as_ref().filter(|(begun, _)| *begun >= since) {
            return outcome.clone();
        }
        let begun = Instant::now();
        let outcome = match self.upkeep.pooler.as_ref().zip(self.upkeep.sessions.as_ref()) {
            Some((check, sessions)) => ask_postgres(connection, check, sessions).await,
            None => self.ask_sqlite().await,
        };
        let outcome = outcome.map_err(Arc::new);
        *last = Some((begun, outcome.clone()));
        outcome
    }

    async fn ask_sqlite(&self) -> Result<(), DbErr> {
        unowned::probe().one(&self.upkeep.read).await?;
        // Nothing less than a write tells whether the file can be written and the disk has room.
        let write = "update seaql_migrations set applied_at = applied_at";
        self.upkeep.write.execute_unprepared(write).await.map(drop)
    }
}

/// Asks PostgreSQL, on the connection at this place or on a new one.
async fn ask_postgres(
    place: &mut Option<PgConnection>,
    check: &Arc<PoolerCheck>,
    sessions: &Sessions,
) -> Result<(), DbErr> {
    check.ensure_soon(POOLER_CHECK_AGE).await.map_err(connections::unusable)?;
    // It is put back when it has answered.
    let kept = place.take();
    let was_kept = kept.is_some();
    // A kept one may have died since.
    let (connection, reads_only) = match ask(kept, sessions).await {
        Err(_) if was_kept => ask(None, sessions).await,
        outcome => outcome,
    }
    .map_err(connections::unusable)?;
    if reads_only {
        // Another one may lead elsewhere.
        return Err(DbErr::Custom(READS_ONLY.to_owned()));
    }
    *place = Some(connection);
    Ok(())
}

/// Asks every table for nothing, and whether the database takes only reads.
async fn ask(connection: Option<PgConnection>, sessions: &Sessions) -> Result<(PgConnection, bool), SqlxError> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => sessions.begin().await?,
    };
    let tables = unowned::probe().build(DbBackend::Postgres).to_string();
    sqlx::query(AssertSqlSafe(tables)).execute(&mut connection).await?;
    let writes = "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean";
    let reads_only = sqlx::query_scalar(writes).fetch_one(&mut connection).await?;
    Ok((connection, reads_only))
}

/// Why the database can't serve, in words that may be shown to everybody.
fn reason(error: &DbErr) -> &'static str {
    let missing_table = |code: &str| code == "42P01" || error.to_string().contains("no such table");
    let (number, code) = code(error).unwrap_or_default();
    match (number, code.as_str()) {
        _ if is_read_only(error) || matches!(error, DbErr::Custom(text) if text == READS_ONLY) => READS_ONLY,
        (Some(13), _) | (_, "53100") => "the database's disk is full",
        (Some(10), _) => "the database's disk fails",
        (Some(14), _) => "the database's file can't be opened",
        (_, code) if missing_table(code) => NOT_MIGRATED,
        (_, code) if code == "42703" || error.to_string().contains("no such column") => {
            "the database's schema is not that of this version: run `taskpact migrate up`"
        }
        _ if pooler::is_mixed_up(error) => "the connection pooler mixes up prepared statements",
        _ => "the database does not answer",
    }
}
