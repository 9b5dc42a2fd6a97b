//! Whether the database can serve, writes included, within a second.

use std::{io, sync::Arc, time::Duration};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryTrait, SqlxError};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::{sync::Mutex, time::timeout};

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
pub(super) const GONE: &str = "the database's file was deleted or replaced; restart the server";

/// The connection that a PostgreSQL is asked on. One that has been given up would keep those who ask later waiting, in a
/// pool.
pub(super) type Probe = Mutex<Option<PgConnection>>;

impl Store {
    /// Asks the database whether it can serve, writes included.
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
        let late = || Err(connections::unusable(SqlxError::Io(io::ErrorKind::TimedOut.into())));
        let outcome = match self.upkeep.pooler.as_ref().zip(self.upkeep.sessions.as_ref()) {
            Some((check, sessions)) => timeout(TIMEOUT, self.ask_postgres(check, sessions)).await,
            None => timeout(TIMEOUT, self.ask_sqlite()).await,
        };
        let outcome = outcome.unwrap_or_else(|_| late());
        outcome.map_err(|error| Fault::NotReady { reason: reason(&error), cause: Some(Arc::new(error)) })
    }

    async fn ask_postgres(&self, check: &Arc<PoolerCheck>, sessions: &Sessions) -> Result<(), DbErr> {
        check.ensure_soon(POOLER_CHECK_AGE).await.map_err(connections::unusable)?;
        let mut place = self.probe.lock().await;
        // It is put back when it has answered.
        let kept = place.take();
        let was_kept = kept.is_some();
        let outcome = ask(kept, sessions).await;
        // A kept one may have died since.
        let (connection, reads_only) = match outcome {
            Err(_) if was_kept => ask(None, sessions).await,
            outcome => outcome,
        }
        .map_err(connections::unusable)?;
        *place = Some(connection);
        if reads_only { Err(DbErr::Custom(READS_ONLY.to_owned())) } else { Ok(()) }
    }

    async fn ask_sqlite(&self) -> Result<(), DbErr> {
        unowned::probe().one(&self.upkeep.read).await?;
        // Nothing less than a write tells whether the file can be written and the disk has room.
        let write = "update seaql_migrations set applied_at = applied_at";
        self.upkeep.write.execute_unprepared(write).await.map(drop)
    }
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
        (_, code) if missing_table(code) => "the database has not been migrated: run `taskpact migrate up`",
        _ if pooler::is_mixed_up(error) => "the connection pooler mixes up prepared statements",
        _ => "the database does not answer",
    }
}
