//! The six operations on one user's tasks.

use poem::http::Uri;
use poem_openapi::OpenApi;

use super::{
    Tag, declares,
    reply::{Changed, Created, Deleted, Fetched, Listed, PageShape, Reply, Toggled},
};
use crate::{
    auth::Owner,
    problem::{Problem, types},
    request::{Body, Header, IdempotencyKey, IfMatch, IfNoneMatch, Limit, OptionalBody, Path, Query},
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
        cursor: Query<TaskId>,
        #[oai(name = "If-None-Match")] if_none_match: Header<IfNoneMatch>,
        uri: &Uri,
    ) -> Result<Reply<Listed>, Problem<OnTasks>> {
        let (owner, after) = (user_id.get()?, cursor.get()?);
        let (status, limit) = (status.get()?.unwrap_or_default(), limit.get()?.unwrap_or_default());
        let if_none_match = if_none_match.get()?;
        let shape = PageShape::new(status, after, limit.0);
        let known = if_none_match.as_ref().and_then(|listed| listed.find(|tag| shape.revision_of(tag)));
        let listed = self.store.tasks(&owner).list(status, after, limit.0, known).await?;
        Ok(Reply::page(listed, &shape, if_none_match.as_ref(), uri))
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
        let (owner, task) = (user_id.get()?, task.get()?);
        let once = idempotency_key.get()?.map(|key| IdempotentRequest::create(key.0, &task));
        let outcome = self.store.tasks(&owner).create(task, once).await?;
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
        let (owner, id) = (user_id.get()?, task_id.get()?);
        let task = self.store.tasks(&owner).get(id).await?;
        Ok(Reply::task(&task, if_none_match.get()?.as_ref()))
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
        let (owner, id) = (user_id.get()?, task_id.get()?);
        let (update, expected) = (update.get()?, IfMatch::expected_version(if_match.get()?));
        let task = self.store.tasks(&owner).update(id, update, expected).await?;
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
        let (owner, id) = (user_id.get()?, task_id.get()?);
        self.store.tasks(&owner).remove(id, IfMatch::expected_version(if_match.get()?)).await?;
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
        let (owner, id) = (user_id.get()?, task_id.get()?);
        let expected = IfMatch::expected_version(if_match.get()?);
        let completion = completion.get()?.unwrap_or_default();
        let once = idempotency_key.get()?.map(|key| IdempotentRequest::toggle(key.0, id, completion, &expected));
        let outcome = self.store.tasks(&owner).toggle(id, completion, expected, once).await?;
        Ok(Reply::toggled(&outcome))
    }
}

declares! {
    /// What listing may answer.
    OnTasks: types::AUTH, types::CHECKED, types::DATABASE;
    /// What creating may answer.
    OnNewTask: types::AUTH, types::BODY, types::CHECKED, types::IDEMPOTENCY, types::DATABASE;
    /// What reading one task may answer.
    OnTask: types::AUTH, types::CHECKED, types::TASK, types::DATABASE;
    /// What deleting may answer.
    OnDeletedTask: types::AUTH, types::CHECKED, types::TASK, types::CONDITION, types::DATABASE;
    /// What changing a task may answer.
    OnChangedTask: types::AUTH, types::BODY, types::CHECKED, types::TASK, types::CONDITION, types::DATABASE;
    /// What completing or reopening may answer.
    OnToggledTask: types::AUTH, types::BODY, types::CHECKED, types::IDEMPOTENCY, types::TASK, types::CONDITION,
        types::DATABASE;
}
