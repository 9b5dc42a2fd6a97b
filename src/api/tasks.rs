//! The six operations on one user's tasks.

use poem::http::Uri;
use poem_openapi::OpenApi;

use super::{
    Tag,
    parameters::{Cursor, EntityTags, IdempotencyKey, Limit},
    reply::{Changed, Created, Fetched, Listed, Removed, Toggled},
};
use crate::{
    auth::owner,
    contract::{Body, Header, OptionalBody, Path, Query},
    problem::{self, Kind, Problem, Refusals},
    store::{Once, Store, TaskStatus},
    task::{NewTask, TaskCompletion, TaskId, TaskUpdate},
};

/// The operations on one user's tasks.
#[derive(Debug)]
pub struct Tasks {
    store: Store,
}

impl Tasks {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

// The owner is the first argument of each: who is unknown is refused before anything else is looked at.
#[OpenApi(tag = "Tag::Tasks")]
impl Tasks {
    /// List tasks
    ///
    /// The newest come first. Without `limit` these are the newest 1,000. While there is more, the answer has the headers
    /// `Link`, which leads to the next page, and `Next-Cursor`, which is the `cursor` of the next page. A client that
    /// follows the pages to the end sees every task that existed throughout exactly once, also while others come and go.
    #[oai(path = "/api/:user_id/tasks", method = "get", operation_id = "listTasks")]
    async fn list_tasks(
        &self,
        user_id: owner::Path,
        status: Query<TaskStatus>,
        limit: Query<Limit>,
        cursor: Query<Cursor>,
        /// Entity tags that the caller has already, or `*`. If what is asked for still has one of them, the answer is
        /// 304, without a body.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<EntityTags>,
        uri: &Uri,
    ) -> Result<Listed, Problem<OnTasks>> {
        let limit = limit.0.unwrap_or_default();
        let page =
            self.store.tasks(&user_id).list(status.0.unwrap_or_default(), cursor.0.map(Cursor::after), limit.0).await?;
        Ok(Listed::unless(if_none_match.0, page, uri))
    }

    /// Create a task
    ///
    /// The task belongs to the user in the path. With an `Idempotency-Key` the request can be repeated without making a
    /// second task.
    #[oai(path = "/api/:user_id/tasks", method = "post", operation_id = "createTask")]
    async fn create_task(
        &self,
        user_id: owner::Path,
        #[oai(name = "Idempotency-Key")] idempotency_key: Header<IdempotencyKey>,
        /// The task to be created.
        task: Body<NewTask>,
        uri: &Uri,
    ) -> Result<Created, Problem<OnNewTask>> {
        let once = idempotency_key.0.map(|key| Once::new(key.0, &("createTask", &task.0)));
        let outcome = self.store.tasks(&user_id).create(task.0, once).await?;
        Ok(Created::new(outcome, uri))
    }

    /// Read one task
    ///
    /// A task of another user is answered exactly like one that never was.
    #[oai(path = "/api/:user_id/tasks/:task_id", method = "get", operation_id = "getTask")]
    async fn get_task(
        &self,
        user_id: owner::Path,
        task_id: Path<TaskId>,
        /// Entity tags that the caller has already, or `*`. If what is asked for still has one of them, the answer is
        /// 304, without a body.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<EntityTags>,
    ) -> Result<Fetched, Problem<OnTask>> {
        let task = self.store.tasks(&user_id).get(task_id.0).await?;
        Ok(Fetched::unless(if_none_match.0, task))
    }

    /// Change a task
    ///
    /// What is left out stays as it is.
    #[oai(path = "/api/:user_id/tasks/:task_id", method = "put", operation_id = "updateTask")]
    async fn update_task(
        &self,
        user_id: owner::Path,
        task_id: Path<TaskId>,
        /// Entity tags, or `*`. The request takes effect only if the task still has one of them. A weak tag (`W/"3"`)
        /// never matches.
        #[oai(name = "If-Match")]
        if_match: Header<EntityTags>,
        /// What to change.
        update: Body<TaskUpdate>,
    ) -> Result<Changed, Problem<OnChangedTask>> {
        let task = self.store.tasks(&user_id).update(task_id.0, update.0, EntityTags::expected(if_match.0)).await?;
        Ok(Changed(task))
    }

    /// Delete a task
    ///
    /// It is gone for good; deleting it again is answered 404.
    #[oai(path = "/api/:user_id/tasks/:task_id", method = "delete", operation_id = "deleteTask")]
    async fn delete_task(
        &self,
        user_id: owner::Path,
        task_id: Path<TaskId>,
        /// Entity tags, or `*`. The request takes effect only if the task still has one of them. A weak tag (`W/"3"`)
        /// never matches.
        #[oai(name = "If-Match")]
        if_match: Header<EntityTags>,
    ) -> Result<Removed, Problem<OnDeletedTask>> {
        self.store.tasks(&user_id).remove(task_id.0, EntityTags::expected(if_match.0)).await?;
        Ok(Removed)
    }

    /// Complete or reopen a task
    ///
    /// Without a body, or with an empty object, the state flips. With `completed` it becomes what is asked for: if it is
    /// that already, nothing changes, so that a repeat does no harm. A flip can be repeated with an `Idempotency-Key`.
    #[oai(path = "/api/:user_id/tasks/:task_id/complete", method = "patch", operation_id = "toggleTaskCompletion")]
    async fn toggle_task_completion(
        &self,
        user_id: owner::Path,
        task_id: Path<TaskId>,
        /// Entity tags, or `*`. The request takes effect only if the task still has one of them. A weak tag (`W/"3"`)
        /// never matches.
        #[oai(name = "If-Match")]
        if_match: Header<EntityTags>,
        #[oai(name = "Idempotency-Key")] idempotency_key: Header<IdempotencyKey>,
        /// The state to bring the task into.
        completion: OptionalBody<TaskCompletion>,
    ) -> Result<Toggled, Problem<OnToggledTask>> {
        let (id, expected, completion) =
            (task_id.0, EntityTags::expected(if_match.0), completion.0.unwrap_or_default());
        let once = idempotency_key.0.map(|key| Once::new(key.0, &("toggleTaskCompletion", id, &expected, completion)));
        Ok(Toggled(self.store.tasks(&user_id).toggle(id, completion, expected, once).await?))
    }
}

/// What the operations may answer beside their replies.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($kinds:expr),*;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Refusals for $name {
            const KINDS: &'static [&'static [Kind]] = &[$($kinds),*];
        }
    )*};
}

refusals! {
    /// What listing may answer.
    OnTasks: problem::OF_AN_OWNER, &[problem::INVALID_PARAMETER], problem::OF_THE_DATABASE;
    /// What creating may answer.
    OnNewTask: problem::OF_AN_OWNER, problem::OF_A_KEY, problem::OF_A_BODY, problem::OF_THE_DATABASE;
    /// What reading one task may answer.
    OnTask: problem::OF_AN_OWNER, problem::OF_A_TASK, problem::OF_THE_DATABASE;
    /// What deleting may answer.
    OnDeletedTask: problem::OF_AN_OWNER, problem::OF_A_TASK, &[problem::VERSION_MISMATCH], problem::OF_THE_DATABASE;
    /// What changing a task may answer.
    OnChangedTask: problem::OF_AN_OWNER, problem::OF_A_BODY, problem::OF_A_TASK, &[problem::VERSION_MISMATCH],
        problem::OF_THE_DATABASE;
    /// What completing or reopening may answer.
    OnToggledTask: problem::OF_AN_OWNER, problem::OF_A_KEY, problem::OF_A_BODY, problem::OF_A_TASK,
        &[problem::VERSION_MISMATCH], problem::OF_THE_DATABASE;
}
