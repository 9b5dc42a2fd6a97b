//! One owner's tasks.

use chrono::{DateTime, Utc};
use poem_openapi::types::MaybeUndefined;
use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, SqlErr, UpdateMany,
    sea_query::{CaseStatement, Expr},
};

use super::{
    IdempotentRequest, Outcome, Store,
    rows::{Rows, TASK, TaskColumn, TaskRow},
};
use crate::{
    problem::Fault,
    task::{
        Description, ExpectedVersion, NewTask, Task, TaskCompletion, TaskId, TaskStatus, TaskUpdate, Timestamp, Title,
    },
};

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The tasks, newest first.
    pub tasks: Vec<Task>,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// One owner's tasks: the only way to the `tasks` table.
#[derive(Debug)]
pub struct Tasks<'s> {
    pub(super) store: &'s Store,
    pub(super) rows: Rows<'s>,
}

impl Tasks<'_> {
    /// The owner's tasks after `after`, newest first, at most `limit`.
    ///
    /// A reader who follows the pages to the end meets every task that existed throughout exactly once, also while
    /// others come and go. An unknown `after` is no error: the page starts where it would have been.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] if the database did not answer.
    pub async fn list(&self, status: TaskStatus, after: Option<TaskId>, limit: u16) -> Result<Page, Fault> {
        let mut query = self.rows.select_tasks();
        query = match status {
            TaskStatus::All => query,
            TaskStatus::Pending => query.filter(TASK.completed_at.is_null()),
            TaskStatus::Completed => query.filter(TASK.completed_at.is_not_null()),
        };
        if let Some(after) = after {
            // By id, never by time: ids are unique and in the order of their creation.
            query = query.filter(TASK.id.lt(after.0));
        }
        let rows = query
            .order_by_desc(TASK.id)
            // One more than asked for tells whether there are more.
            .limit(u64::from(limit) + 1)
            .all(&self.store.pools.read)
            .await?;
        let has_more = rows.len() > usize::from(limit);
        Ok(Page { tasks: rows.into_iter().take(limit.into()).map(Task::from).collect(), has_more })
    }

    /// Creates a task, once if that is wanted.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] if the database did not answer; with `once`, also those of a key.
    pub async fn create(&self, new: NewTask, once: Option<IdempotentRequest>) -> Result<Outcome, Fault> {
        let now = self.store.clock.now();
        let NewTask { title, description, completed } = new;
        let row = TaskRow {
            user_id: String::new(),
            id: self.store.clock.new_task_id().0,
            title: title.0,
            description: description.map(|description| description.0),
            completed_at: completed.unwrap_or_default().then_some(now.into()),
            created_at: now.into(),
            updated_at: now.into(),
            version: 1,
        };
        let attempt = async || match &once {
            None => self.insert(&self.store.pools.write, row.clone()).await.map(Outcome::first),
            Some(once) => self.once(once, async |transaction| self.insert(transaction, row.clone()).await).await,
        };
        self.kept(match attempt().await {
            // The owner's first task. To ask beforehand would cost every later one a statement.
            Err(Fault::Database(error)) if is_unknown_user(&error) => {
                self.register().await?;
                attempt().await.map_err(|fault| match fault {
                    // Erased again in between: that passes.
                    Fault::Database(error) if is_unknown_user(&error) => Fault::Unavailable(error),
                    fault => fault,
                })
            }
            outcome => outcome,
        })
    }

    /// A change, if it can be found again.
    fn kept<T>(&self, change: Result<T, Fault>) -> Result<T, Fault> {
        let change = change?;
        self.store.is_kept()?;
        Ok(change)
    }

    /// Sees to it that the owner has a row of its own, which its tasks refer to.
    async fn register(&self) -> Result<(), DbErr> {
        self.rows.insert_user().exec_without_returning(&self.store.pools.write).await.map(drop)
    }

    async fn insert(&self, on: &impl ConnectionTrait, row: TaskRow) -> Result<Task, Fault> {
        let inserted = self.rows.insert_task(row).exec_with_returning(on).await?;
        let row = inserted.into_iter().next().ok_or_else(|| Fault::defect("an insertion gave back no row"))?;
        Ok(row.into())
    }

    /// One task.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`; [`Fault::Unavailable`] if the database did not answer.
    pub async fn get(&self, id: TaskId) -> Result<Task, Fault> {
        let row = self.rows.select_task(id).one(&self.store.pools.read).await?;
        row.map(Task::from).ok_or(Fault::NoSuchTask)
    }

    /// Changes what `update` names and leaves the rest as it is.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`; [`Fault::VersionMismatch`] if it is not of the `expected`
    /// version; [`Fault::Unavailable`] if the database did not answer.
    pub async fn update(&self, id: TaskId, update: TaskUpdate, expected: ExpectedVersion) -> Result<Task, Fault> {
        let now = self.store.clock.now();
        let TaskUpdate { title, description, completed } = update;
        let mut change = self
            .rows
            .update_task(id)
            .col_expr(TaskColumn::UpdatedAt, updated_at(now))
            .col_expr(TaskColumn::Version, TASK.version.add(1));
        if let Some(Title(title)) = title {
            change = change.col_expr(TaskColumn::Title, Expr::val(title));
        }
        match description {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => change = change.col_expr(TaskColumn::Description, Expr::val(None::<String>)),
            MaybeUndefined::Value(Description(text)) => {
                change = change.col_expr(TaskColumn::Description, Expr::val(text));
            }
        }
        if let Some(completed) = completed {
            change = change.col_expr(TaskColumn::CompletedAt, completed_at(completed, now));
        }
        self.kept(self.change(&self.store.pools.write, id, change, &expected).await)
    }

    /// Flips whether the task is completed, or makes it so as `completion` says, once if that is wanted. If it is so
    /// already, nothing changes, the version included.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`; [`Fault::VersionMismatch`] if it is not of the `expected`
    /// version; [`Fault::Unavailable`] if the database did not answer; with `once`, also those of a key.
    pub async fn toggle(
        &self,
        id: TaskId,
        completion: TaskCompletion,
        expected: ExpectedVersion,
        once: Option<IdempotentRequest>,
    ) -> Result<Outcome, Fault> {
        let now = self.store.clock.now();
        let next_version = TASK.version.add(1);
        let change = self.rows.update_task(id);
        let change = match completion.completed {
            None => change
                .col_expr(
                    TaskColumn::CompletedAt,
                    when(TASK.completed_at.is_null(), time(now), Expr::val(None::<DateTime<Utc>>)),
                )
                .col_expr(TaskColumn::UpdatedAt, updated_at(now))
                .col_expr(TaskColumn::Version, next_version),
            Some(completed) => {
                let changes = if completed { TASK.completed_at.is_null() } else { TASK.completed_at.is_not_null() };
                change
                    .col_expr(TaskColumn::CompletedAt, completed_at(completed, now))
                    .col_expr(
                        TaskColumn::UpdatedAt,
                        when(changes.clone(), updated_at(now), Expr::col(TaskColumn::UpdatedAt)),
                    )
                    .col_expr(TaskColumn::Version, when(changes, next_version, Expr::col(TaskColumn::Version)))
            }
        };
        let Some(once) = once else {
            return self.kept(self.change(&self.store.pools.write, id, change, &expected).await.map(Outcome::first));
        };
        self.kept(
            match self.once(&once, async |transaction| self.change(transaction, id, change, &expected).await).await {
                // Who has never had a task has no keys either.
                Err(Fault::Database(error)) if is_unknown_user(&error) => Err(Fault::NoSuchTask),
                outcome => outcome,
            },
        )
    }

    /// Deletes one task for good.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`, also the second time; [`Fault::VersionMismatch`] if it is
    /// not of the `expected` version; [`Fault::Unavailable`] if the database did not answer.
    pub async fn remove(&self, id: TaskId, expected: ExpectedVersion) -> Result<(), Fault> {
        // One statement: a read followed by a delete could meet a row that another request took in between.
        let statement = if_version(self.rows.delete_task(id), &expected);
        match statement.exec(&self.store.pools.write).await?.rows_affected {
            0 => Err(self.diagnose(&self.store.pools.write, id).await?),
            _ => self.kept(Ok(())),
        }
    }

    /// Makes `change` in one statement, which also checks the version.
    async fn change(
        &self,
        on: &impl ConnectionTrait,
        id: TaskId,
        change: UpdateMany<impl EntityTrait<Model = TaskRow>>,
        expected: &ExpectedVersion,
    ) -> Result<Task, Fault> {
        match if_version(change, expected).exec_with_returning(on).await?.pop() {
            Some(row) => Ok(row.into()),
            None => Err(self.diagnose(on, id).await?),
        }
    }

    /// Why a statement met no row: there is none, or it is of another version.
    ///
    /// It asks where the statement ran, which has seen every write; and it may still find a version that was made after.
    async fn diagnose(&self, on: &impl ConnectionTrait, id: TaskId) -> Result<Fault, DbErr> {
        let row = self.rows.select_task(id).one(on).await?;
        Ok(row.map_or(Fault::NoSuchTask, |row| Fault::VersionMismatch { current: Box::new(row.into()) }))
    }
}

/// Narrows a statement to rows of the `expected` version.
fn if_version<Q: QueryFilter>(statement: Q, expected: &ExpectedVersion) -> Q {
    match expected {
        ExpectedVersion::Any => statement,
        ExpectedVersion::OneOf(versions) => statement.filter(TASK.version.is_in(versions.iter().copied())),
    }
}

/// The new `completed_at` of a task that is to be completed, or not. The time of the first completion is kept.
fn completed_at(completed: bool, now: Timestamp) -> Expr {
    if completed {
        when(TASK.completed_at.is_null(), time(now), Expr::col(TaskColumn::CompletedAt))
    } else {
        Expr::val(None::<DateTime<Utc>>)
    }
}

/// The new `updated_at`. It never goes back, though the change may have been asked for before the last one was made, or
/// by a server whose clock is behind.
fn updated_at(now: Timestamp) -> Expr {
    let at = DateTime::<Utc>::from(now);
    when(TASK.updated_at.lt(at), Expr::val(at), Expr::col(TaskColumn::UpdatedAt))
}

fn when(condition: Expr, then: impl Into<Expr>, otherwise: impl Into<Expr>) -> Expr {
    CaseStatement::new().case(condition, then.into()).finally(otherwise.into()).into()
}

fn time(at: Timestamp) -> Expr {
    Expr::val(DateTime::<Utc>::from(at))
}

fn is_unknown_user(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::ForeignKeyConstraintViolation(_)))
}

impl From<TaskRow> for Task {
    fn from(row: TaskRow) -> Self {
        let TaskRow { user_id, id, title, description, completed_at, created_at, updated_at, version } = row;
        Self {
            id: TaskId(id),
            user_id,
            title: Title(title),
            description: description.map(Description),
            completed: completed_at.is_some(),
            completed_at: completed_at.map(Timestamp::from),
            created_at: created_at.into(),
            updated_at: updated_at.into(),
            version,
        }
    }
}
