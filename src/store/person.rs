//! A person's data, for the operator, who is asked for it or to erase it, or has to keep somebody out: `taskpact user`.
//!
//! These are the only statements beside those of requests that are about somebody's rows. No request leads here.

use chrono::{DateTime, Utc};
use sea_orm::{DbErr, PaginatorTrait};

use super::{Store, rows::person};
use crate::task::{Task, TaskId};

/// How many rows are read, or deleted, at a time: others are served in between.
pub const BATCH: u64 = 1_000;

/// How much the database has of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Belongings {
    /// The tasks.
    pub tasks: u64,
    /// The answers that are kept for repeats.
    pub keys: u64,
    /// The ids of deleted tasks that are remembered.
    pub deletions: u64,
}

impl Store {
    /// What the database has of a user; none if it does not know the user.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn belongings(&self, user_id: &str) -> Result<Option<Belongings>, DbErr> {
        let database = &self.upkeep.read;
        if person::user(user_id).one(database).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(Belongings {
            tasks: person::tasks(user_id).count(database).await?,
            keys: person::keys(user_id).count(database).await?,
            deletions: person::deletions(user_id).count(database).await?,
        }))
    }

    /// The user's next tasks after this one, the oldest first. There are none after the last.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn export(&self, user_id: &str, after: Option<TaskId>) -> Result<Vec<Task>, DbErr> {
        let rows = person::tasks_after(user_id, after.map(|id| id.0), BATCH).all(&self.upkeep.read).await?;
        Ok(rows.into_iter().map(Task::from).collect())
    }

    /// Erases some of a user's rows, and with the last of them the user, unless a block has to stay. Whether there may be more.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn erase(&self, user_id: &str) -> Result<bool, DbErr> {
        let transaction = self.begin().await?;
        // It also keeps the user's requests waiting for as long as this takes.
        person::next_revision(user_id).exec(&transaction).await?;
        let keys = person::delete_keys(user_id, BATCH).exec(&transaction).await?.rows_affected;
        let tasks = person::delete_tasks(user_id, BATCH).exec(&transaction).await?.rows_affected;
        let deletions = person::delete_deletions(user_id, BATCH).exec(&transaction).await?.rows_affected;
        let is_over = keys < BATCH && tasks < BATCH && deletions < BATCH;
        if is_over {
            person::delete_user(user_id).exec(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(!is_over)
    }

    /// Blocks a user: refuses the tokens that were issued before `tokens_from`, in seconds since 1970. A block is never made
    /// shorter by this; given back is the moment that is in force. It holds for every statement that begins afterwards, and for
    /// every one that waits for the user's row.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn block(&self, user_id: &str, tokens_from: i64) -> Result<i64, DbErr> {
        let first_revision = DateTime::<Utc>::from(self.clock.now()).timestamp_micros();
        let block = person::block(user_id, tokens_from, first_revision);
        let user = block.exec_with_returning(&self.upkeep.write).await?;
        Ok(user.tokens_from.unwrap_or(tokens_from))
    }

    /// Takes the block of a user back. Whether there was one.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn unblock(&self, user_id: &str) -> Result<bool, DbErr> {
        Ok(person::unblock(user_id).exec(&self.upkeep.write).await?.rows_affected > 0)
    }
}
