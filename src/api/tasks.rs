//! The six operations on one user's tasks.

use poem::http::Uri;
use poem_openapi::OpenApi;

use super::{
    Tag, declares,
    reply::{Changed, Created, Deleted, Fetched, Listed, Reply, Toggled},
};
use crate::{
    auth::Owner,
    problem::{Problem, types},
    request::{Body, Cursor, Header, IdempotencyKey, IfMatch, IfNoneMatch, Limit, OptionalBody, Path, Query},
    store::{IdempotentRequest, Store},
    task::{NewTask, TaskCompletion, TaskId, TaskStatus, TaskUpdate},
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
        user_id: Path<Owner>,
        status: Query<TaskStatus>,
        limit: Query<Limit>,
        cursor: Query<Cursor>,
        #[oai(name = "If-None-Match")] if_none_match: Header<IfNoneMatch>,
        uri: &Uri,
    ) -> Result<Reply<Listed>, Problem<OnTasks>> {
        let (status, limit) = (status.0.unwrap_or_default(), limit.0.unwrap_or_default());
        let page = self.store.tasks(&user_id.0).list(status, cursor.0.map(Cursor::after), limit.0).await?;
        Ok(Reply::page(&page, if_none_match.0.as_ref(), uri))
    }

    /// Create a task
    ///
    /// The task belongs to the user in the path. With an `Idempotency-Key` the request can be repeated without making a
    /// second task.
    #[oai(path = "/api/:user_id/tasks", method = "post", operation_id = "createTask")]
    async fn create_task(
        &self,
        user_id: Path<Owner>,
        #[oai(name = "Idempotency-Key")] idempotency_key: Header<IdempotencyKey>,
        /// The task to be created.
        task: Body<NewTask>,
        uri: &Uri,
    ) -> Result<Reply<Created>, Problem<OnNewTask>> {
        let once = idempotency_key.0.map(|key| IdempotentRequest::new(key.0, &("createTask", &task.0)));
        let outcome = self.store.tasks(&user_id.0).create(task.0, once).await?;
        Ok(Reply::created(&outcome, uri))
    }

    /// Read one task
    ///
    /// A task of another user is answered exactly like one that never was.
    #[oai(path = "/api/:user_id/tasks/:task_id", method = "get", operation_id = "getTask")]
    async fn get_task(
        &self,
        user_id: Path<Owner>,
        task_id: Path<TaskId>,
        #[oai(name = "If-None-Match")] if_none_match: Header<IfNoneMatch>,
    ) -> Result<Reply<Fetched>, Problem<OnTask>> {
        let task = self.store.tasks(&user_id.0).get(task_id.0).await?;
        Ok(Reply::task(&task, if_none_match.0.as_ref()))
    }

    /// Change a task
    ///
    /// What is left out stays as it is.
    #[oai(path = "/api/:user_id/tasks/:task_id", method = "put", operation_id = "updateTask")]
    async fn update_task(
        &self,
        user_id: Path<Owner>,
        task_id: Path<TaskId>,
        #[oai(name = "If-Match")] if_match: Header<IfMatch>,
        /// What to change.
        update: Body<TaskUpdate>,
    ) -> Result<Reply<Changed>, Problem<OnChangedTask>> {
        let expected = IfMatch::expected_version(if_match.0);
        let task = self.store.tasks(&user_id.0).update(task_id.0, update.0, expected).await?;
        Ok(Reply::changed(&task))
    }

    /// Delete a task
    ///
    /// It is gone for good; deleting it again is answered 404.
    #[oai(path = "/api/:user_id/tasks/:task_id", method = "delete", operation_id = "deleteTask")]
    async fn delete_task(
        &self,
        user_id: Path<Owner>,
        task_id: Path<TaskId>,
        #[oai(name = "If-Match")] if_match: Header<IfMatch>,
    ) -> Result<Reply<Deleted>, Problem<OnDeletedTask>> {
        self.store.tasks(&user_id.0).remove(task_id.0, IfMatch::expected_version(if_match.0)).await?;
        Ok(Reply::deleted())
    }

    /// Complete or reopen a task
    ///
    /// Without a body, or with an empty object, the state flips. With `completed` it becomes what is asked for: if it is
    /// that already, nothing changes, so that a repeat does no harm. A flip can be repeated with an `Idempotency-Key`.
    #[oai(path = "/api/:user_id/tasks/:task_id/complete", method = "patch", operation_id = "toggleTaskCompletion")]
    async fn toggle_task_completion(
        &self,
        user_id: Path<Owner>,
        task_id: Path<TaskId>,
        #[oai(name = "If-Match")] if_match: Header<IfMatch>,
        #[oai(name = "Idempotency-Key")] idempotency_key: Header<IdempotencyKey>,
        /// The state to bring the task into.
        completion: OptionalBody<TaskCompletion>,
    ) -> Result<Reply<Toggled>, Problem<OnToggledTask>> {
        let (id, expected) = (task_id.0, IfMatch::expected_version(if_match.0));
        let completion = completion.0.unwrap_or_default();
        let request = ("toggleTaskCompletion", id, &expected, completion);
        let once = idempotency_key.0.map(|key| IdempotentRequest::new(key.0, &request));
        let outcome = self.store.tasks(&user_id.0).toggle(id, completion, expected, once).await?;
        Ok(Reply::toggled(&outcome))
    }
}

declares! {
    /// What listing may answer.
    OnTasks: types::AUTH, &[types::INVALID_PARAMETER], types::DATABASE;
    /// What creating may answer.
    OnNewTask: types::AUTH, types::IDEMPOTENCY, types::BODY, types::DATABASE;
    /// What reading one task may answer.
    OnTask: types::AUTH, types::TASK, types::DATABASE;
    /// What deleting may answer.
    OnDeletedTask: types::AUTH, types::TASK, &[types::VERSION_MISMATCH], types::DATABASE;
    /// What changing a task may answer.
    OnChangedTask: types::AUTH, types::BODY, types::TASK, &[types::VERSION_MISMATCH],
        types::DATABASE;
    /// What completing or reopening may answer.
    OnToggledTask: types::AUTH, types::IDEMPOTENCY, types::BODY, types::TASK,
        &[types::VERSION_MISMATCH], types::DATABASE;
}
