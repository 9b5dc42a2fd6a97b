//! A person's data, for the operator, who is asked for it or to erase it: `taskpact user`.
//!
//! These are the only statements beside those of requests that are about somebody's rows. No request leads here.

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

    /// Erases some of a user's rows, and the user with the last of them. Whether there may be more.
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
}
