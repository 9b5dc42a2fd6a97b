//! Requests that take effect once, however often they are sent.
//!
//! The first request with a key writes down what it is answered, in the transaction of its effect: there is never the one
//! without the other. A repeat finds the answer and is given it again. The key's row is written before the effect, so
//! that of two requests at once the later one waits for the end of the other, and sees nothing half done.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{
    ActiveValue::Set,
    DatabaseTransaction, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    sea_query::{Expr, LockBehavior, LockType, OnConflict},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::{self, timeout};

use super::{Store, Tasks, entities::idempotency_keys as keys};
use crate::{problem::Fault, task::Task, telemetry::chain};

/// For how long an answer is kept: for a day, and somewhat longer, because another server's clock may say when it is over.
const RETENTION: TimeDelta = TimeDelta::hours(25);
/// How long a request waits for another one with its key.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often old answers are looked for, and how many are removed in one statement.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
const BITE: u64 = 200;
/// How long others may write between two such statements.
const BITE_PAUSE: Duration = Duration::from_millis(100);

/// What makes a request one that takes effect once: the caller's key for it, and what was asked for.
#[derive(Debug)]
pub struct Once {
    key: String,
    fingerprint: Vec<u8>,
}

impl Once {
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
        once: &Once,
        effect: impl AsyncFnOnce(&DatabaseTransaction) -> Result<Task, Fault>,
    ) -> Result<Outcome, Fault> {
        // Whatever fails below takes everything back: the transaction is dropped.
        let transaction = self.store.begin().await?;
        if !self.claim(&transaction, once).await? {
            let task = self.recall(&transaction, once).await?;
            return Ok(Outcome { task, is_replay: true });
        }
        let task = effect(&transaction).await?;
        let answer = serde_json::to_string(&task).expect("a task is plain data");
        self.of_key(keys::Entity::update_many(), once)
            .col_expr(keys::Column::Answer, Expr::val(answer))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(Outcome::first(task))
    }

    /// Narrows a statement to this owner's key.
    fn of_key<Q: QueryFilter>(&self, statement: Q, once: &Once) -> Q {
        statement.filter(keys::COLUMN.user_id.eq(self.owner.id())).filter(keys::COLUMN.key.eq(&once.key))
    }

    /// Writes the key down, and tells whether it is new. While another request with it is being served, it waits.
    async fn claim(&self, transaction: &DatabaseTransaction, once: &Once) -> Result<bool, Fault> {
        let row = keys::ActiveModel {
            user_id: Set(self.owner.id().to_owned()),
            key: Set(once.key.clone()),
            fingerprint: Set(once.fingerprint.clone()),
            // Nobody sees it: it is there before the transaction ends.
            answer: Set(String::new()),
            created_at: Set(self.store.clock.now().into()),
        };
        let conflict = OnConflict::columns([keys::Column::UserId, keys::Column::Key]).do_nothing().to_owned();
        let insert = keys::Entity::insert(row).on_conflict(conflict).exec_without_returning(transaction);
        Ok(timeout(PATIENCE, insert).await.map_err(|_| Fault::KeyInUse)?? == 1)
    }

    /// What the first request with this key was answered.
    async fn recall(&self, transaction: &DatabaseTransaction, once: &Once) -> Result<Task, Fault> {
        let row = self.of_key(keys::Entity::find(), once).one(transaction).await?;
        // It was there a moment ago, and has become too old.
        let row = row.ok_or(Fault::KeyInUse)?;
        if row.fingerprint != once.fingerprint {
            return Err(Fault::KeyReused);
        }
        serde_json::from_str(&row.answer).map_err(Fault::defect)
    }
}

impl Store {
    /// Removes old answers for ever, in small bites between which others can write.
    pub async fn forget_old_answers(self) {
        loop {
            let pause = match self.forget_some_answers().await {
                Ok(BITE..) => BITE_PAUSE,
                Ok(_) => SWEEP_INTERVAL,
                Err(error) => {
                    tracing::warn!(cause = chain(&error), "could not remove old answers; trying again in a minute");
                    SWEEP_INTERVAL
                }
            };
            time::sleep(pause).await;
        }
    }

    /// Removes some of the answers that need not be kept any longer, and tells how many.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn forget_some_answers(&self) -> Result<u64, DbErr> {
        let limit = DateTime::<Utc>::from(self.clock.now()) - RETENTION;
        let old = keys::Entity::find()
            .select_only()
            .columns([keys::Column::UserId, keys::Column::Key])
            .filter(keys::COLUMN.created_at.lt(limit))
            .order_by_asc(keys::Column::CreatedAt)
            .limit(BITE)
            // Another server is at those.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .into_query();
        let key = Expr::tuple([Expr::col(keys::Column::UserId), Expr::col(keys::Column::Key)]);
        let removed = keys::Entity::delete_many().filter(key.in_subquery(old)).exec(&self.write).await?;
        Ok(removed.rows_affected)
    }
}
