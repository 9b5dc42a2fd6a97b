//! The removal of what is remembered for a time only: the answers to idempotent requests, and which tasks were deleted.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::DbErr;
use tokio::time;

use super::{
    Store, idempotency,
    rows::{person, unowned},
};
use crate::telemetry::chain;

/// How often it is looked for what is old, and how many rows are deleted at a time.
const INTERVAL: Duration = Duration::from_mins(1);
const BATCH: u64 = 200;
/// How long others may write in between.
const PAUSE: Duration = Duration::from_millis(100);

impl Store {
    /// Deletes what is old for ever, in small batches between which others can write; while nobody uses the database, it is left
    /// alone.
    pub async fn sweep(self) {
        loop {
            let pause = match self.sweep_both().await {
                Ok(true) => PAUSE,
                Ok(false) => INTERVAL,
                Err(error) => {
                    tracing::warn!(
                        cause = chain(&error),
                        "could not delete old idempotency keys and deletions; trying again in a minute"
                    );
                    INTERVAL
                }
            };
            time::sleep(pause).await;
            while pause == INTERVAL && !self.last_use.is_new() {
                time::sleep(pause).await;
            }
        }
    }

    /// Whether there may be more.
    async fn sweep_both(&self) -> Result<bool, DbErr> {
        let keys = self.sweep_keys().await?;
        // These are one user's, and the next ones another's.
        Ok(self.sweep_deletions().await? > 0 || keys >= BATCH)
    }

    /// Deletes some of the keys that need not be kept any longer, and tells how many.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn sweep_keys(&self) -> Result<u64, DbErr> {
        let old = unowned::delete_old_keys(self.backend(), idempotency::RETENTION, BATCH);
        Ok(old.exec(&self.upkeep.write).await?.rows_affected)
    }

    /// Forgets some of the deletions that need not be remembered any longer, all of one user, and tells how many. Whoever knows less
    /// than that of the user's changes has to start over.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn sweep_deletions(&self) -> Result<u64, DbErr> {
        let before = DateTime::<Utc>::from(self.clock.now()) - self.retention;
        let Some(oldest) = unowned::oldest_deletion(before).one(&self.upkeep.read).await? else { return Ok(0) };
        let user = &oldest.user_id;
        let old = person::old_deletions(user, before, BATCH).all(&self.upkeep.read).await?;
        let Some(last) = old.last().map(|deletion| deletion.revision) else { return Ok(0) };
        let transaction = self.begin().await?;
        person::swept(user, last).exec(&transaction).await?;
        let forgotten = person::forget_deletions(user, last).exec(&transaction).await?.rows_affected;
        transaction.commit().await?;
        Ok(forgotten)
    }
}
