//! The replies: how the contract shows them, and how they are written.
//!
//! They are serialised straight from the types. poem-openapi's own would build a tree of JSON values first, which costs
//! more than all the rest of a request.

use poem::{
    IntoResponse, Response,
    http::{StatusCode, Uri, header},
};
use poem_openapi::{
    ApiResponse,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};
use serde::Serialize;
use url::form_urlencoded;

use super::parameters::{Cursor, EntityTags};
use crate::{contract, store::Page, task::Task};

const JSON: &str = "application/json";

/// A page of tasks.
#[derive(Debug)]
pub(super) struct Listed {
    tasks: Vec<Task>,
    next: Option<Next>,
}

#[derive(Debug)]
struct Next {
    link: String,
    cursor: Cursor,
}

impl Listed {
    /// `uri` is that of the page itself: the next one differs in the cursor only.
    pub(super) fn new(page: Page, uri: &Uri) -> Self {
        let last = page.tasks.last().filter(|_| page.has_more).map(|task| Cursor::at(task.id));
        let next = last.map(|cursor| {
            let query = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(contract::pairs(uri).filter(|(name, _)| name != "cursor"))
                .append_pair("cursor", &cursor.to_string())
                .finish();
            Next { link: format!("<{}?{query}>; rel=\"next\"", uri.path()), cursor }
        });
        Self { tasks: page.tasks, next }
    }
}

impl IntoResponse for Listed {
    fn into_response(self) -> Response {
        let reply = json(StatusCode::OK, &self.tasks);
        match self.next {
            None => reply,
            Some(Next { link, cursor }) => {
                reply.with_header(header::LINK, link).with_header("Next-Cursor", cursor.to_string()).into_response()
            }
        }
    }
}

impl ApiResponse for Listed {
    fn meta() -> MetaResponses {
        let link = text("The path of the next page, as `<path>; rel=\"next\"` (RFC 8288). Not on the last page.");
        let cursor = text("The `cursor` of the next page. Not on the last page.");
        let headers = vec![named("Link", link, false), named("Next-Cursor", cursor, false)];
        one(described(StatusCode::OK, "A page of tasks, the newest first.", Some(Vec::<Task>::schema_ref()), headers))
    }

    fn register(registry: &mut Registry) {
        Task::register(registry);
    }
}

/// A task that was just created.
#[derive(Debug)]
pub(super) struct Created {
    task: Task,
    location: String,
}

impl Created {
    /// `tasks` is where the task was created: its own path is below.
    pub(super) fn new(task: Task, tasks: &Uri) -> Self {
        Self { location: format!("{}/{}", tasks.path(), task.id.0), task }
    }
}

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        tagged(StatusCode::CREATED, &self.task).with_header(header::LOCATION, self.location).into_response()
    }
}

impl ApiResponse for Created {
    fn meta() -> MetaResponses {
        let headers = vec![etag(), named("Location", text("The path of the task."), true)];
        one(described(StatusCode::CREATED, "The task, as it was created.", Some(Task::schema_ref()), headers))
    }

    fn register(registry: &mut Registry) {
        Task::register(registry);
    }
}

/// A task, or word that the caller has it already.
#[derive(Debug)]
pub(super) enum Fetched {
    Task(Task),
    NotModified { version: i32 },
}

impl Fetched {
    pub(super) fn unless(if_none_match: Option<EntityTags>, task: Task) -> Self {
        match if_none_match {
            Some(tags) if tags.holds(task.version) => Self::NotModified { version: task.version },
            _ => Self::Task(task),
        }
    }
}

impl IntoResponse for Fetched {
    fn into_response(self) -> Response {
        match self {
            Self::Task(task) => tagged(StatusCode::OK, &task),
            Self::NotModified { version } => {
                StatusCode::NOT_MODIFIED.with_header(header::ETAG, entity_tag(version)).into_response()
            }
        }
    }
}

impl ApiResponse for Fetched {
    fn meta() -> MetaResponses {
        let mut meta = Changed::meta();
        meta.responses[0].description = "The task.";
        let unchanged = "The task still has an entity tag that `If-None-Match` lists.";
        meta.responses.push(described(StatusCode::NOT_MODIFIED, unchanged, None, vec![etag()]));
        meta
    }

    fn register(registry: &mut Registry) {
        Task::register(registry);
    }
}

/// A task after a change.
#[derive(Debug)]
pub(super) struct Changed(pub(super) Task);

impl IntoResponse for Changed {
    fn into_response(self) -> Response {
        tagged(StatusCode::OK, &self.0)
    }
}

impl ApiResponse for Changed {
    fn meta() -> MetaResponses {
        one(described(StatusCode::OK, "The task, as it is now.", Some(Task::schema_ref()), vec![etag()]))
    }

    fn register(registry: &mut Registry) {
        Task::register(registry);
    }
}

/// A task is gone.
#[derive(Debug)]
pub(super) struct Removed;

impl IntoResponse for Removed {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl ApiResponse for Removed {
    fn meta() -> MetaResponses {
        one(described(StatusCode::NO_CONTENT, "The task is deleted.", None, Vec::new()))
    }

    fn register(_: &mut Registry) {}
}

/// A reply in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("the published types are plain data");
    Response::builder().status(status).header(header::CONTENT_TYPE, JSON).body(bytes)
}

fn tagged(status: StatusCode, task: &Task) -> Response {
    json(status, task).with_header(header::ETAG, entity_tag(task.version)).into_response()
}

fn entity_tag(version: i32) -> String {
    format!("\"{version}\"")
}

/// How the contract shows a reply.
pub(super) fn described(
    status: StatusCode,
    description: &'static str,
    schema: Option<MetaSchemaRef>,
    headers: Vec<MetaHeader>,
) -> MetaResponse {
    let content = schema.into_iter().map(|schema| MetaMediaType { content_type: JSON, schema }).collect();
    MetaResponse { description, status: Some(status.as_u16()), status_range: None, content, headers }
}

pub(super) fn one(response: MetaResponse) -> MetaResponses {
    MetaResponses { responses: vec![response] }
}

fn text(description: &'static str) -> MetaSchema {
    MetaSchema { description: Some(description), ..MetaSchema::new("string") }
}

fn etag() -> MetaHeader {
    named("ETag", text("The entity tag of the task: its version in double quotes."), true)
}

fn named(name: &str, schema: MetaSchema, required: bool) -> MetaHeader {
    let description = schema.description.unwrap_or_default();
    contract::header(name, description, MetaSchema { description: None, ..schema }, required)
}
