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
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::parameters::{Cursor, EntityTags};
use crate::{
    contract,
    store::{MAX_PAGE, Outcome, Page},
    task::Task,
};

const JSON: &str = "application/json";
/// Marks an answer that is given again.
const REPLAYED: &str = "Idempotent-Replayed";

/// A page of tasks, or word that the caller has it already.
#[derive(Debug)]
pub(super) enum Listed {
    Page { tasks: Vec<Task>, tag: String, next: Option<Next> },
    NotModified { tag: String },
}

#[derive(Debug)]
pub(super) struct Next {
    link: String,
    cursor: Cursor,
}

impl Listed {
    /// `uri` is that of the page itself: the next one differs in the cursor only.
    pub(super) fn unless(if_none_match: Option<EntityTags>, page: Page, uri: &Uri) -> Self {
        let tag = list_tag(&page);
        if if_none_match.is_some_and(|tags| tags.hold(&tag)) {
            return Self::NotModified { tag };
        }
        let last = page.tasks.last().filter(|_| page.has_more).map(|task| Cursor::at(task.id));
        let next = last.map(|cursor| {
            let query = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(contract::pairs(uri).filter(|(name, _)| name != "cursor"))
                .append_pair("cursor", &cursor.to_string())
                .finish();
            Next { link: format!("<{}?{query}>; rel=\"next\"", uri.path()), cursor }
        });
        Self::Page { tasks: page.tasks, tag, next }
    }
}

/// What stands between the quotes of a page's entity tag. It says which tasks in which versions make the page; a task of
/// one version is always the same, but for how a version of this program writes it.
fn list_tag(page: &Page) -> String {
    let mut hash = Sha256::new_with_prefix(env!("CARGO_PKG_VERSION"));
    hash.update([page.has_more.into()]);
    for task in &page.tasks {
        hash.update(task.id.0.as_bytes());
        hash.update(task.version.to_be_bytes());
    }
    // Half of it is more than enough to tell pages apart.
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl IntoResponse for Listed {
    fn into_response(self) -> Response {
        let (tasks, tag, next) = match self {
            Self::NotModified { tag } => return not_modified(&tag),
            Self::Page { tasks, tag, next } => (tasks, tag, next),
        };
        let reply = tagged(StatusCode::OK, &tag, &tasks);
        match next {
            None => reply,
            Some(Next { link, cursor }) => {
                reply.with_header(header::LINK, link).with_header("Next-Cursor", cursor.to_string()).into_response()
            }
        }
    }
}

impl ApiResponse for Listed {
    fn meta() -> MetaResponses {
        let link = MetaSchema {
            pattern: Some(r#"^<[^>]*>; rel="next"$"#.to_owned()),
            ..text("The path of the next page, as `<path>; rel=\"next\"` (RFC 8288). Not on the last page.")
        };
        let cursor =
            MetaSchema { description: Some("The `cursor` of the next page. Not on the last page."), ..Cursor::form() };
        let tag = || {
            let form = MetaSchema {
                example: Some("\"5f0c2c3de1aa4d52b7a19c1e019aa5b1\"".into()),
                min_length: Some(3),
                max_length: Some(66),
                pattern: Some(r#"^"[0-9a-f]{1,64}"$"#.to_owned()),
                ..text("The entity tag of this page, in double quotes.")
            };
            named("ETag", form, true)
        };
        let headers = vec![tag(), named("Link", link, false), named("Next-Cursor", cursor, false)];
        let page = "A page of tasks, the newest first.";
        let tasks = MetaSchema {
            items: Some(Box::new(Task::schema_ref())),
            max_items: Some(MAX_PAGE.into()),
            ..MetaSchema::new("array")
        };
        let unchanged = "The page still has an entity tag that `If-None-Match` lists.";
        MetaResponses {
            responses: vec![
                described(StatusCode::OK, page, Some(MetaSchemaRef::Inline(Box::new(tasks))), headers),
                described(StatusCode::NOT_MODIFIED, unchanged, None, vec![tag()]),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        Task::register(registry);
    }
}

/// A task that was created.
#[derive(Debug)]
pub(super) struct Created {
    outcome: Outcome,
    location: String,
}

impl Created {
    /// `tasks` is where the task was created: its own path is below.
    pub(super) fn new(outcome: Outcome, tasks: &Uri) -> Self {
        Self { location: format!("{}/{}", tasks.path(), outcome.task.id.0), outcome }
    }
}

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        replayed(StatusCode::CREATED, &self.outcome).with_header(header::LOCATION, self.location).into_response()
    }
}

impl ApiResponse for Created {
    fn meta() -> MetaResponses {
        let location = MetaSchema {
            description: Some("The path of the task."),
            // A user's id, each character in four bytes and each byte written as %XX, and what surrounds it.
            max_length: Some(3200),
            ..MetaSchema::new_with_format("string", "uri-reference")
        };
        let headers = vec![etag(), named("Location", location, true), replay()];
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
            Some(tags) if tags.hold(&task.version.to_string()) => Self::NotModified { version: task.version },
            _ => Self::Task(task),
        }
    }
}

impl IntoResponse for Fetched {
    fn into_response(self) -> Response {
        match self {
            Self::Task(task) => of_version(StatusCode::OK, &task),
            Self::NotModified { version } => not_modified(&version.to_string()),
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
        of_version(StatusCode::OK, &self.0)
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

/// A task after a change that may have been made when the request was sent before.
#[derive(Debug)]
pub(super) struct Toggled(pub(super) Outcome);

impl IntoResponse for Toggled {
    fn into_response(self) -> Response {
        replayed(StatusCode::OK, &self.0)
    }
}

impl ApiResponse for Toggled {
    fn meta() -> MetaResponses {
        let headers = vec![etag(), replay()];
        one(described(StatusCode::OK, "The task, as the request left it.", Some(Task::schema_ref()), headers))
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

/// `tag` is what stands between the quotes of the entity tag.
fn tagged(status: StatusCode, tag: &str, body: &impl Serialize) -> Response {
    json(status, body).with_header(header::ETAG, format!("\"{tag}\"")).into_response()
}

fn of_version(status: StatusCode, task: &Task) -> Response {
    tagged(status, &task.version.to_string(), task)
}

fn not_modified(tag: &str) -> Response {
    StatusCode::NOT_MODIFIED.with_header(header::ETAG, format!("\"{tag}\"")).into_response()
}

fn replayed(status: StatusCode, outcome: &Outcome) -> Response {
    let reply = of_version(status, &outcome.task);
    if outcome.is_replay { reply.with_header(REPLAYED, "true").into_response() } else { reply }
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
    let description = Some("The entity tag of the task: its version in double quotes.");
    named("ETag", MetaSchema { description, ..entity_tag() }, true)
}

/// How the contract shows the entity tag of a task.
pub(crate) fn entity_tag() -> MetaSchema {
    MetaSchema {
        example: Some("\"2\"".into()),
        min_length: Some(3),
        max_length: Some(12),
        pattern: Some(r#"^"[1-9][0-9]{0,9}"$"#.to_owned()),
        ..MetaSchema::new("string")
    }
}

fn replay() -> MetaHeader {
    let schema = MetaSchema {
        enum_items: vec!["true".into()],
        ..text(
            "That this is the answer that a request with this `Idempotency-Key` was given before. Not on the first answer.",
        )
    };
    named(REPLAYED, schema, false)
}

fn named(name: &str, schema: MetaSchema, required: bool) -> MetaHeader {
    let description = schema.description.unwrap_or_default();
    contract::header(name, description, MetaSchema { description: None, ..schema }, required)
}
