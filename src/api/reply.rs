//! The replies: how the contract shows them, and how they are written.
//!
//! They are serialised straight from the types. poem-openapi's own would build a tree of JSON values first, which costs
//! more than all the rest of a request.

use std::marker::PhantomData;

use poem::{
    IntoResponse, Response,
    http::{HeaderName, StatusCode, Uri, header},
};
use poem_openapi::{
    ApiResponse,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use crate::{
    request::{A_PAGE, IfNoneMatch, query_pairs},
    schema::{self, header, one_of, text},
    store::{self, Outcome},
    task::{self, MAX_PAGE, Task, TaskId, TaskStatus},
};

const JSON: &str = "application/json";
const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");
/// Marks an answer that is given again.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A reply, ready to be sent. `D` is how the contract shows it; only the constructors here make one.
#[derive(Debug)]
pub(super) struct Reply<D>(Response, PhantomData<fn() -> D>);

/// How the contract shows the replies of an operation.
pub(super) trait Described {
    /// What their bodies are made of.
    type Body: Type;

    /// They, by status.
    fn responses() -> Vec<MetaResponse>;
}

impl<D> From<Response> for Reply<D> {
    fn from(response: Response) -> Self {
        Self(response, PhantomData)
    }
}

impl<D: Send> IntoResponse for Reply<D> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<D: Described> ApiResponse for Reply<D> {
    fn meta() -> MetaResponses {
        MetaResponses { responses: D::responses() }
    }

    fn register(registry: &mut Registry) {
        D::Body::register(registry);
    }
}

/// A page of tasks, or word that the caller has it already.
#[derive(Debug)]
pub(super) struct Listed;

impl Reply<Listed> {
    /// `uri` is that of the page itself: the next one differs in the cursor only.
    pub(super) fn page(
        listed: store::Listed,
        shape: &PageShape,
        if_none_match: Option<&IfNoneMatch>,
        uri: &Uri,
    ) -> Self {
        let page = match listed {
            store::Listed::Unchanged { revision } => return not_modified(&weak(&shape.tag(revision))).into(),
            store::Listed::Page(page) => page,
        };
        let tag = shape.tag(page.revision);
        if if_none_match.is_some_and(|listed| listed.matches(&tag)) {
            return not_modified(&weak(&tag)).into();
        }
        let mut reply = Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, JSON).body(page.json);
        add(&mut reply, header::ETAG, &weak(&tag));
        if let Some(last) = page.last {
            let cursor = last.0.to_string();
            let query = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(query_pairs(uri).filter(|(name, _)| PAGE_PARAMETERS.contains(&&**name)))
                .append_pair("cursor", &cursor)
                .finish();
            add(&mut reply, header::LINK, &format!("<{}?{query}>; rel=\"next\"", uri.path()));
            add(&mut reply, NEXT_CURSOR, &cursor);
        }
        reply.into()
    }
}

/// The parameters that the next page has in common with this one. Others are not repeated: nobody knows what they are.
const PAGE_PARAMETERS: [&str; 2] = ["status", "limit"];

/// Which page of which list, and how this version of the program writes tasks: all that a page's entity tag says beside the
/// revision.
pub(super) struct PageShape(String);

impl PageShape {
    pub(super) fn new(status: TaskStatus, after: Option<TaskId>, limit: u16) -> Self {
        let mut hash = Sha256::new_with_prefix(task::shape());
        hash.update([status as u8]);
        hash.update(limit.to_be_bytes());
        hash.update(after.map_or([0; 16], |after| *after.0.as_bytes()));
        // Eight bytes are more than enough to tell the pages of one list apart.
        let hash = hash.finalize();
        let hash = u64::from_be_bytes(*hash.first_chunk().expect("it has 32 bytes"));
        Self(format!("{hash:016x}"))
    }

    /// The opaque part of the page's entity tag at a revision of its owner's tasks.
    fn tag(&self, revision: i64) -> String {
        format!("{revision:016x}{}", self.0)
    }

    /// The revision that a tag of this page says.
    pub(super) fn revision_of(&self, tag: &str) -> Option<i64> {
        let revision = tag.strip_suffix(&self.0).filter(|revision| revision.len() == 16)?;
        u64::from_str_radix(revision, 16).ok().map(u64::cast_signed)
    }
}

impl Described for Listed {
    type Body = Task;

    fn responses() -> Vec<MetaResponse> {
        let link = MetaSchema {
            // As long as that of a task may be, and the parameters.
            max_length: Some(3500),
            pattern: Some(r#"^<[^>]*>; rel="next"$"#.to_owned()),
            ..text("The path of the next page, as `<path>; rel=\"next\"` (RFC 8288). Not on the last page.")
        };
        let cursor = MetaSchema {
            description: Some(
                "The `cursor` of the next page: the `id` of this page's last task. Not on the last page.",
            ),
            ..schema::uuid()
        };
        let tag = || {
            let schema = MetaSchema {
                example: Some(A_PAGE.into()),
                min_length: Some(3),
                max_length: Some(68),
                pattern: Some(r#"^W/"[0-9a-f]{1,64}"$"#.to_owned()),
                ..text(
                    "The entity tag of this page. It changes with every change of the user's tasks. It is a weak one, because \
                     the page may come compressed.",
                )
            };
            header("ETag", schema, true)
        };
        let tasks = MetaSchema {
            items: Some(Box::new(Task::schema_ref())),
            max_items: Some(MAX_PAGE.into()),
            ..MetaSchema::new("array")
        };
        let page = Some(MetaSchemaRef::Inline(Box::new(tasks)));
        let headers = vec![tag(), header("Link", link, false), header("Next-Cursor", cursor, false)];
        let unchanged = "The page still has an entity tag that `If-None-Match` lists.";
        vec![
            response(StatusCode::OK, "A page of tasks, the newest first.", page, headers),
            response(StatusCode::NOT_MODIFIED, unchanged, None, vec![tag()]),
        ]
    }
}

/// Declares replies that carry one task: the status, what the contract says of it, and the headers beside the entity tag.
macro_rules! task_replies {
    ($($(#[$doc:meta])* $name:ident: $status:ident $description:literal $(+ $header:ident)*;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Described for $name {
            type Body = Task;

            fn responses() -> Vec<MetaResponse> {
                let headers = vec![etag(), $($header()),*];
                vec![response(StatusCode::$status, $description, Some(Task::schema_ref()), headers)]
            }
        }
    )*};
}

task_replies! {
    /// A task that was created.
    Created: CREATED "The task, as it was created." + location + replayed;
    /// A task after a change.
    Changed: OK "The task, as it is now.";
    /// A task after a change that may have been made when the request was sent before.
    Toggled: OK "The task, as the request left it." + replayed;
    /// A task that was asked for.
    Found: OK "The task.";
}

impl Reply<Created> {
    /// `tasks` is where the task was created: its own path is below.
    pub(super) fn created(outcome: &Outcome, tasks: &Uri) -> Self {
        let mut reply = of_outcome(StatusCode::CREATED, outcome);
        add(&mut reply, header::LOCATION, &format!("{}/{}", tasks.path(), outcome.task.id.0));
        reply.into()
    }
}

impl Reply<Changed> {
    pub(super) fn changed(task: &Task) -> Self {
        of_task(StatusCode::OK, task).into()
    }
}

impl Reply<Toggled> {
    pub(super) fn toggled(outcome: &Outcome) -> Self {
        of_outcome(StatusCode::OK, outcome).into()
    }
}

/// A task, or word that the caller has it already.
#[derive(Debug)]
pub(super) struct Fetched;

impl Reply<Fetched> {
    pub(super) fn task(task: &Task, if_none_match: Option<&IfNoneMatch>) -> Self {
        let tag = task.tag();
        let is_known = if_none_match.is_some_and(|listed| listed.matches(&tag));
        if is_known { not_modified(&strong(&tag)).into() } else { of_task(StatusCode::OK, task).into() }
    }
}

impl Described for Fetched {
    type Body = Task;

    fn responses() -> Vec<MetaResponse> {
        let unchanged = "The task still has an entity tag that `If-None-Match` lists.";
        let mut responses = Found::responses();
        responses.push(response(StatusCode::NOT_MODIFIED, unchanged, None, vec![etag()]));
        responses
    }
}

/// A task is gone.
#[derive(Debug)]
pub(super) struct Deleted;

impl Reply<Deleted> {
    pub(super) fn deleted() -> Self {
        StatusCode::NO_CONTENT.into_response().into()
    }
}

impl Described for Deleted {
    type Body = Task;

    fn responses() -> Vec<MetaResponse> {
        vec![response(StatusCode::NO_CONTENT, "The task is deleted.", None, Vec::new())]
    }
}

/// A reply in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("the published types are plain data");
    Response::builder().status(status).header(header::CONTENT_TYPE, JSON).body(bytes)
}

fn strong(opaque: &str) -> String {
    format!("\"{opaque}\"")
}

fn weak(opaque: &str) -> String {
    format!("W/\"{opaque}\"")
}

/// A reply in JSON with an entity tag.
fn tagged(status: StatusCode, tag: &str, body: &impl Serialize) -> Response {
    let mut reply = json(status, body);
    add(&mut reply, header::ETAG, tag);
    reply
}

fn of_task(status: StatusCode, task: &Task) -> Response {
    tagged(status, &strong(&task.tag()), task)
}

fn of_outcome(status: StatusCode, outcome: &Outcome) -> Response {
    let mut reply = of_task(status, &outcome.task);
    if outcome.is_replay {
        add(&mut reply, REPLAYED, "true");
    }
    reply
}

fn not_modified(tag: &str) -> Response {
    let mut reply = StatusCode::NOT_MODIFIED.into_response();
    add(&mut reply, header::ETAG, tag);
    reply
}

fn add(reply: &mut Response, name: HeaderName, value: &str) {
    reply.headers_mut().insert(name, value.parse().expect("our own headers are printable"));
}

/// How the contract shows one status of a reply.
pub(super) fn response(
    status: StatusCode,
    description: &'static str,
    schema: Option<MetaSchemaRef>,
    headers: Vec<MetaHeader>,
) -> MetaResponse {
    let content = schema.into_iter().map(|schema| MetaMediaType { content_type: JSON, schema }).collect();
    MetaResponse { description, status: Some(status.as_u16()), status_range: None, content, headers }
}

fn etag() -> MetaHeader {
    let description = Some(
        "The entity tag of the task. It changes with the `version`, and when a later contract shows more of a task.",
    );
    header("ETag", MetaSchema { description, ..Task::tag_schema() }, true)
}

fn location() -> MetaHeader {
    let schema = MetaSchema {
        description: Some("The path of the task."),
        // A user's id, each character in four bytes and each byte written as %XX, a proxy's prefix, and what surrounds them.
        max_length: Some(3400),
        ..MetaSchema::new_with_format("string", "uri-reference")
    };
    header("Location", schema, true)
}

fn replayed() -> MetaHeader {
    let description = Some(
        "That this is the answer that a request with this `Idempotency-Key` was given before. Not on the first answer.",
    );
    header("Idempotent-Replayed", MetaSchema { description, ..one_of(["true"]) }, false)
}
