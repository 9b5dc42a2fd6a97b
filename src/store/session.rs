//! Sessions on PostgreSQL that end by themselves what nobody waits for any more.
//!
//! A statement can't be taken back by closing its connection: PostgreSQL notices only when it has an answer to send. So the
//! session is told how long a statement may take when it begins, and what it must not inherit from the database or the
//! role. A pooler may refuse such parameters: they would be another client's, too. Then they are looked for in what the
//! role or the database has set, and missed once in the log.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

/// How long a statement may take, in milliseconds: less than is waited for its answer (`postgres::SET_TIMEOUT`).
const STATEMENT_TIMEOUT_MS: u32 = 4_500;
/// What every session has to be.
const SETTINGS: [(&str, &str); 5] = [
    ("default_transaction_isolation", "read committed"),
    // In seconds: a connection whose peer is gone is noticed within a minute.
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("idle_in_transaction_session_timeout", "10s"),
];

/// How sessions are begun.
#[derive(Debug)]
pub(super) struct Sessions {
    plain: PgConnectOptions,
    own: PgConnectOptions,
    is_refused: AtomicBool,
    was_missed: AtomicBool,
}

impl Sessions {
    pub(super) fn new(plain: PgConnectOptions) -> Self {
        let own = plain.clone().options(SETTINGS).options([("statement_timeout", STATEMENT_TIMEOUT_MS)]);
        Self { plain, own, is_refused: AtomicBool::new(false), was_missed: AtomicBool::new(false) }
    }

    /// Begins a session.
    pub(super) async fn begin(&self) -> Result<PgConnection, sqlx::Error> {
        if !self.is_refused.load(Relaxed) {
            match self.own.connect().await {
                Err(sqlx::Error::Database(refusal)) if is_of_parameters(refusal.message()) => {
                    self.is_refused.store(true, Relaxed);
                }
                outcome => return outcome,
            }
        }
        let connection = self.plain.connect().await;
        if connection.is_err() {
            // When it is back it may be another one.
            self.is_refused.store(false, Relaxed);
        }
        let mut connection = connection?;
        if !self.was_missed.load(Relaxed) {
            self.look(&mut connection).await?;
            self.was_missed.store(true, Relaxed);
        }
        Ok(connection)
    }

    /// Says what is missing where sessions can't set it themselves.
    async fn look(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let ask = "select current_setting('statement_timeout'), current_setting('default_transaction_isolation')";
        let (timeout, isolation): (String, String) = sqlx::query_as(ask).fetch_one(connection).await?;
        let role = self.plain.get_username();
        if timeout == "0" {
            tracing::warn!(
                "the pooler does not let sessions limit their statements, and the database does not either: what is given up \
                 goes on there. `alter role \"{role}\" set statement_timeout = '5s'`"
            );
        }
        if isolation != "read committed" {
            tracing::warn!(
                "transactions are `{isolation}` by default, and fail more often than they need: \
                 `alter role \"{role}\" set default_transaction_isolation = 'read committed'`"
            );
        }
        Ok(())
    }
}

/// Whether a pooler refuses a connection because of its parameters.
fn is_of_parameters(refusal: &str) -> bool {
    refusal.contains("startup parameter") || refusal.contains("startup options")
}
