//! Idempotent requests: those that take effect once, however often they are sent.
//!
//! The first request with a key stores its response in the transaction of its effect: there is never the one without the
//! other. A repeat finds the response and is given it again. The key is reserved before the effect, so that of two requests
//! at once the later one waits for the end of the other, and sees nothing half done.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{DatabaseTransaction, DbErr, sea_query::Expr};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::{self, timeout};

use super::{
    Store, Tasks,
    rows::{KeyColumn, unowned},
};
use crate::{
    problem::Fault,
    task::{Task, min_key_retention_hours},
    telemetry::chain,
};

/// For how long a key is kept: as long as is promised, and somewhat longer, because another server's clock may say when
/// that is over.
const RETENTION: TimeDelta = TimeDelta::hours(min_key_retention_hours!() + 1);
/// How long a request waits for another one with its key.
const KEY_WAIT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often old keys are looked for, and how many are deleted in one statement.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
const SWEEP_BATCH: u64 = 200;
/// How long others may write between two such statements.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// What makes a request an idempotent one: the caller's key for it, and what was asked for.
#[derive(Debug)]
pub struct IdempotentRequest {
    key: String,
    fingerprint: Vec<u8>,
}

impl IdempotentRequest {
    /// `request` is all that tells it apart from another one: the operation, what it is about, and what it says.
    #[must_use]
    pub fn new(key: String, request: &impl Serialize) -> Self {
        let request = serde_json::to_vec(request).expect("a request is plain data");
        Self { key, fingerprint: Sha256::digest(request).to_vec() }
    }
}

/// What a request came to.
#[derive(Debug)]
pub struct Outcome {
    /// The task, as it was when the request took effect.
    pub task: Task,
    /// Whether that was at an earlier time, when the request was sent before.
    pub is_replay: bool,
}

impl Outcome {
    pub(super) fn first(task: Task) -> Self {
        Self { task, is_replay: false }
    }
}

impl Tasks<'_> {
    /// Has `effect` if the request has not had it before, and answers it as it was answered the first time.
    ///
    /// # Errors
    /// Those of `effect`, and then nothing is kept; [`Fault::KeyReused`] if the key came with another request;
    /// [`Fault::KeyInUse`] if the request is just being served; [`Fault::Unavailable`] if the database did not answer.
    pub(super) async fn once(
        &self,
        request: &IdempotentRequest,
        effect: impl AsyncFnOnce(&DatabaseTransaction) -> Result<Task, Fault>,
    ) -> Result<Outcome, Fault> {
        // Whatever fails below rolls everything back: the transaction is dropped.
        let transaction = self.store.begin().await?;
        if !self.reserve_key(&transaction, request).await? {
            let task = self.stored_response(&transaction, request).await?;
            return Ok(Outcome { task, is_replay: true });
        }
        let task = effect(&transaction).await?;
        let response = serde_json::to_string(&task).expect("a task is plain data");
        let stored = self.rows.update_key(&request.key).col_expr(KeyColumn::Answer, Expr::val(response));
        stored.exec(&transaction).await?;
        transaction.commit().await?;
        Ok(Outcome::first(task))
    }

    /// Reserves the key, and tells whether it is new. While another request with it is being served, it waits.
    async fn reserve_key(&self, on: &DatabaseTransaction, request: &IdempotentRequest) -> Result<bool, Fault> {
        let now = self.store.clock.now().into();
        let insert = self.rows.insert_key(&request.key, &request.fingerprint, now).exec_without_returning(on);
        Ok(timeout(KEY_WAIT_TIMEOUT, insert).await.map_err(|_| Fault::KeyInUse)?? == 1)
    }

    /// What the first request with this key was answered.
    async fn stored_response(&self, on: &DatabaseTransaction, request: &IdempotentRequest) -> Result<Task, Fault> {
        let row = self.rows.select_key(&request.key).one(on).await?;
        // It was there a moment ago, and has been swept since.
        let row = row.ok_or(Fault::KeyInUse)?;
        if row.fingerprint != request.fingerprint {
            return Err(Fault::KeyReused);
        }
        serde_json::from_str(&row.answer).map_err(Fault::defect)
    }
}

impl Store {
    /// Deletes old keys for ever, in small batches between which others can write.
    pub async fn sweep_old_keys(self) {
        loop {
            let pause = match self.sweep_batch().await {
                Ok(SWEEP_BATCH..) => SWEEP_PAUSE,
                Ok(_) => SWEEP_INTERVAL,
                Err(error) => {
                    tracing::warn!(
                        cause = chain(&error),
                        "could not delete old idempotency keys; trying again in a minute"
                    );
                    SWEEP_INTERVAL
                }
            };
            time::sleep(pause).await;
        }
    }

    /// Deletes some of the keys that need not be kept any longer, and tells how many.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn sweep_batch(&self) -> Result<u64, DbErr> {
        let limit = DateTime::<Utc>::from(self.clock.now()) - RETENTION;
        Ok(unowned::delete_old_keys(limit, SWEEP_BATCH).exec(&self.pools.write).await?.rows_affected)
    }
}
