//! Every failure, its status, its words.
//!
//! [`Fault`] says what went wrong, without regard to how that is answered. [`Kind`] is the public side: one row for each
//! way to refuse. This module alone turns the one into the other and both into an answer. A fault's cause goes to the
//! log, once, and never to the caller.

use std::{borrow::Cow, collections::BTreeMap, error::Error, marker::PhantomData};

use poem::{
    Response,
    error::{MethodNotAllowedError, NotFoundError, ResponseError},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::{Example, Type},
};
use sea_orm::DbErr;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{
    api::reply::entity_tag,
    contract::{self, published},
    telemetry::chain,
};

/// The media type of every refusal (RFC 9457).
pub const MEDIA_TYPE: &str = "application/problem+json";
/// How long a caller should wait before it tries again what could not be served, in seconds.
const RETRY_AFTER_SECS: u32 = 2;
/// How many violations the sentence about an invalid body names.
const MAX_SUMMARY: usize = 10;
const EXAMPLE_REQUEST_ID: &str = "019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57";

/// A way to refuse, as the contract prints it. A slug is public: once released it is never renamed.
#[derive(Debug)]
pub struct Kind {
    /// The status of the answer.
    pub status: StatusCode,
    /// The last part of the problem's type.
    pub slug: &'static str,
    /// What it is called.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What the caller can do.
    pub remedy: &'static str,
}

impl Kind {
    /// Where it is explained: the problem's type.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/problems/{}", self.slug)
    }
}

macro_rules! kinds {
    ($($name:ident = $status:ident $slug:literal $title:literal $meaning:literal $remedy:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $name: Kind = Kind {
                status: StatusCode::$status, slug: $slug, title: $title, meaning: $meaning, remedy: $remedy,
            };
        )*
        /// Every way to refuse, by status.
        pub const KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    INVALID_PARAMETER = BAD_REQUEST "invalid-parameter" "Invalid parameter"
        "A parameter in the path, in the query or in a header is malformed, out of its range or given twice."
        "Correct the parameter that `detail` names.";
    MALFORMED_BODY = BAD_REQUEST "malformed-body" "Malformed body"
        "The body is not JSON: a syntax error, a name that occurs twice in one object, text that is not Unicode, or a body that broke off."
        "Send one JSON value in UTF-8. `detail` says where it went wrong.";
    UNAUTHORIZED = UNAUTHORIZED "unauthorized" "Unauthorized"
        "There is no token, or it is not valid: expired, not yet valid, badly signed, or without a subject."
        "Get a new token from the issuer and send it as `Authorization: Bearer <token>`.";
    FORBIDDEN = FORBIDDEN "forbidden" "Forbidden"
        "The token is valid, but the path belongs to another user: `user_id` is not the token's subject."
        "Use the token's subject (`sub`) as `user_id`.";
    NO_SUCH_TASK = NOT_FOUND "no-such-task" "No such task"
        "This user has no task with this id. A task of another user is answered in the same way."
        "Check the id, or list the tasks.";
    NO_SUCH_PATH = NOT_FOUND "no-such-path" "No such path"
        "There is nothing at this path."
        "Look the path up in the contract, /openapi.yaml, or on the docs page, /docs.";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED "method-not-allowed" "Method not allowed"
        "The path exists, but not for this method."
        "Use one of the methods that the `Allow` header lists.";
    IDEMPOTENCY_KEY_IN_USE = CONFLICT "idempotency-key-in-use" "Idempotency key in use"
        "Another request with this `Idempotency-Key` is being served. Nothing was done for this one."
        "Send the same request again after the time that the `Retry-After` header gives, in seconds: it is given the other one's answer.";
    VERSION_MISMATCH = PRECONDITION_FAILED "version-mismatch" "Version mismatch"
        "`If-Match` does not list the entity tag that the task has now. Usually somebody else has changed the task since it was read. A weak tag (`W/\"…\"`) never matches."
        "Read the task again, apply your change to it, and send it with the new `ETag`.";
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE "body-too-large" "Body too large"
        "The body is larger than any valid one."
        "Send less: the contract bounds every field.";
    UNSUPPORTED_MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "Unsupported media type"
        "The body is not declared to be JSON."
        "Send the header `Content-Type: application/json`.";
    INVALID_BODY = UNPROCESSABLE_ENTITY "invalid-body" "Invalid body"
        "The body is JSON, but not what the contract asks for. `errors` lists every violation."
        "Correct the fields that `errors` points to.";
    IDEMPOTENCY_KEY_REUSED = UNPROCESSABLE_ENTITY "idempotency-key-reused" "Idempotency key reused"
        "This `Idempotency-Key` came before, with another request: another operation, another task, another `If-Match` or another body. Nothing was done for this one."
        "Take a new key for each new request, and keep it for the repeats of that request only.";
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "Internal error"
        "The server failed. It is the server's fault, and it has been logged."
        "Tell the operator the `request_id`.";
    UNAVAILABLE = SERVICE_UNAVAILABLE "unavailable" "Unavailable"
        "The request could not be served in time, for example because the database, or the issuer of the tokens, is down or busy. A change may or may not have been made."
        "Try again after the time that the `Retry-After` header gives, in seconds.";
}

/// The refusals that every operation on somebody's tasks knows: a token is asked for, and it must be that of the user.
pub const OF_AN_OWNER: &[Kind] = &[UNAUTHORIZED, FORBIDDEN];
/// The refusals of an operation that takes a body.
pub const OF_A_BODY: &[Kind] = &[MALFORMED_BODY, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_BODY];
/// The refusals of an operation that can be told to take effect once.
pub const OF_A_KEY: &[Kind] = &[INVALID_PARAMETER, IDEMPOTENCY_KEY_IN_USE, IDEMPOTENCY_KEY_REUSED];
/// The refusals of an operation on a task that the path names.
pub const OF_A_TASK: &[Kind] = &[INVALID_PARAMETER, NO_SUCH_TASK];
/// The failures of an operation that asks the database.
pub const OF_THE_DATABASE: &[Kind] = &[INTERNAL, UNAVAILABLE];

/// What can go wrong while a request is served.
///
/// The words are for the caller. The cause of a failure of ours is kept as the source, for the log.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The caller did not say who it is.
    #[error("There is no token. Send the header `Authorization: Bearer <token>`.")]
    NoToken,
    /// The caller's token can't be believed, for this reason.
    #[error("The token is not valid: {0}.")]
    InvalidToken(Cow<'static, str>),
    /// The keys to verify tokens with could not be had yet.
    #[error("The keys of the token's issuer can't be had now. Try again in a moment.")]
    NoKeys,
    /// The caller is known, and is not the user whose data it asked for.
    #[error("The `user_id` in the path is not the subject of the token.")]
    AnotherUser,
    /// A parameter is not what the contract asks for.
    #[error("The {place} `{name}` {problem}.")]
    InvalidParameter {
        /// Where it stands: `path parameter`, `query parameter`, `header`.
        place: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it, or what it must be.
        problem: &'static str,
    },
    /// The body is no JSON document.
    #[error("The body is not valid JSON: {0}.")]
    MalformedBody(String),
    /// The body is larger than any valid one.
    #[error("The body is larger than {limit_bytes} bytes.")]
    BodyTooLarge {
        /// The bound that it exceeds.
        limit_bytes: usize,
    },
    /// The body is of a kind that nobody asked for.
    #[error("The body must be declared as JSON: `Content-Type: application/json`.")]
    UnsupportedMediaType,
    /// The body is JSON but not what the contract asks for.
    #[error("The body breaks the contract: {}.", summary(.0))]
    InvalidBody(Vec<Violation>),
    /// The caller has no such task. Whether someone else has must not show.
    #[error("There is no such task.")]
    NoSuchTask,
    /// The task is not of the version that the caller expects.
    #[error("`If-Match` does not list the entity tag that the task has now: \"{current}\".")]
    VersionMismatch {
        /// The version that it is of.
        current: i32,
    },
    /// Another request with this key is under way.
    #[error("A request with this `Idempotency-Key` is being served. Send it again in a moment.")]
    KeyInUse,
    /// The key came before, with another request.
    #[error("This `Idempotency-Key` was used for another request. A new request needs a new key.")]
    KeyReused,
    /// The database did not answer, or not in time, or has no room. Trying again may help.
    #[error("The database can't serve the request now. Try again in a moment.")]
    Unavailable(#[source] DbErr),
    /// The request took longer than it may.
    #[error("The request took too long. Try again in a moment.")]
    TooSlow,
    /// The database refused a statement. Trying again won't help.
    #[error("The server failed; the operator finds the cause in the log by the request id.")]
    Database(#[source] DbErr),
    /// A defect of ours.
    #[error("The server failed; the operator finds the cause in the log by the request id.")]
    Defect(#[source] Box<dyn Error + Send + Sync>),
    /// The caller asked for a path that leads nowhere.
    #[error("There is nothing at this path. The operations are listed at /docs.")]
    NoSuchPath,
    /// The path exists, but not for this method.
    #[error("This path does not know this method. It knows {}.", list(.allowed))]
    MethodNotAllowed {
        /// The methods that it knows.
        allowed: Vec<Method>,
    },
}

impl Fault {
    /// A defect of ours, in words for the log.
    pub fn defect(what: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Defect(what.into())
    }

    /// A token that can't be believed, for a reason that helps an honest developer and no forger. It stands in a quoted
    /// header too.
    pub fn invalid_token(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidToken(reason.into())
    }

    /// What the operator is told about a failure of ours.
    #[must_use]
    pub fn cause(&self) -> String {
        match (self, self.source()) {
            (_, Some(cause)) => chain(cause),
            (Self::NoKeys, None) => "the issuer's keys could not be fetched; warnings before say why".to_owned(),
            (Self::TooSlow, None) => "it took longer than `server.request_timeout_ms`".to_owned(),
            (other, None) => other.to_string(),
        }
    }

    /// Which public kind of refusal this is.
    #[must_use]
    pub fn kind(&self) -> &'static Kind {
        match self {
            Self::NoToken | Self::InvalidToken(_) => &UNAUTHORIZED,
            Self::AnotherUser => &FORBIDDEN,
            Self::InvalidParameter { .. } => &INVALID_PARAMETER,
            Self::MalformedBody(_) => &MALFORMED_BODY,
            Self::BodyTooLarge { .. } => &BODY_TOO_LARGE,
            Self::UnsupportedMediaType => &UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidBody(_) => &INVALID_BODY,
            Self::NoSuchTask => &NO_SUCH_TASK,
            Self::VersionMismatch { .. } => &VERSION_MISMATCH,
            Self::KeyInUse => &IDEMPOTENCY_KEY_IN_USE,
            Self::KeyReused => &IDEMPOTENCY_KEY_REUSED,
            Self::Unavailable(_) | Self::TooSlow | Self::NoKeys => &UNAVAILABLE,
            Self::Database(_) | Self::Defect(_) => &INTERNAL,
            Self::NoSuchPath => &NO_SUCH_PATH,
            Self::MethodNotAllowed { .. } => &METHOD_NOT_ALLOWED,
        }
    }

    /// The headers that come with the refusal.
    fn headers(&self) -> Vec<(HeaderName, String)> {
        match self {
            Self::NoToken => vec![(header::WWW_AUTHENTICATE, "Bearer".to_owned())],
            Self::InvalidToken(reason) => vec![(
                header::WWW_AUTHENTICATE,
                format!(r#"Bearer error="invalid_token", error_description="{reason}""#),
            )],
            Self::MethodNotAllowed { allowed } => vec![(header::ALLOW, list(allowed))],
            Self::VersionMismatch { current } => vec![(header::ETAG, format!(r#""{current}""#))],
            fault if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT].contains(&fault.kind().status) => {
                vec![(header::RETRY_AFTER, RETRY_AFTER_SECS.to_string())]
            }
            _ => Vec::new(),
        }
    }
}

impl ResponseError for Fault {
    fn status(&self) -> StatusCode {
        self.kind().status
    }
}

/// The refusals that an operation knows beside its replies: what stands here stands in the contract.
pub trait Refusals: Send + Sync + 'static {
    /// They, by group.
    const KINDS: &'static [&'static [Kind]];
}

/// Why an operation failed. `S` is what it may answer: the contract shows just that.
#[derive(Debug)]
pub struct Problem<S>(Fault, PhantomData<fn() -> S>);

impl<S> From<Fault> for Problem<S> {
    fn from(fault: Fault) -> Self {
        Self(fault, PhantomData)
    }
}

impl<S> From<Problem<S>> for poem::Error {
    fn from(Problem(fault, _): Problem<S>) -> Self {
        fault.into()
    }
}

impl<S: Refusals> ApiResponse for Problem<S> {
    fn meta() -> MetaResponses {
        let mut by_status: BTreeMap<StatusCode, Vec<&Kind>> = BTreeMap::new();
        for kind in S::KINDS.iter().copied().flatten() {
            by_status.entry(kind.status).or_default().push(kind);
        }
        MetaResponses { responses: by_status.into_iter().map(|(status, kinds)| refusal(status, &kinds)).collect() }
    }

    fn register(registry: &mut Registry) {
        Details::register(registry);
        ValidationProblem::register(registry);
    }
}

/// How the contract shows the refusals with this status. It is the same for every operation that knows the same ones.
fn refusal(status: StatusCode, kinds: &[&Kind]) -> MetaResponse {
    let challenge =
        MetaSchema { max_length: Some(500), pattern: Some("^Bearer".to_owned()), ..MetaSchema::new("string") };
    let retry_after = || {
        let seconds =
            MetaSchema { minimum: Some(0.0), maximum: Some(3600.0), ..MetaSchema::new_with_format("integer", "int32") };
        Some(("Retry-After", "After how many seconds to try again.", seconds))
    };
    let can_be_reused = kinds.iter().any(|kind| kind.slug == IDEMPOTENCY_KEY_REUSED.slug);
    let (description, header) = match status {
        StatusCode::BAD_REQUEST => ("A parameter or the body is malformed. `detail` says which and how.", None),
        StatusCode::UNAUTHORIZED => (
            UNAUTHORIZED.meaning,
            Some(("WWW-Authenticate", "What to send instead, and why the token was refused (RFC 6750).", challenge)),
        ),
        StatusCode::PRECONDITION_FAILED => {
            (VERSION_MISMATCH.meaning, Some(("ETag", "The entity tag of the task as it is now.", entity_tag())))
        }
        StatusCode::CONFLICT => (IDEMPOTENCY_KEY_IN_USE.meaning, retry_after()),
        StatusCode::SERVICE_UNAVAILABLE => (UNAVAILABLE.meaning, retry_after()),
        StatusCode::UNPROCESSABLE_ENTITY if can_be_reused => (
            "The body is JSON, but not what the contract asks for; or the `Idempotency-Key` came before, with another \
             request. The `type` tells which.",
            None,
        ),
        _ => (kinds.first().map_or("", |kind| kind.meaning), None),
    };
    let schema = match status {
        StatusCode::UNPROCESSABLE_ENTITY if can_be_reused => MetaSchemaRef::Inline(Box::new(MetaSchema {
            one_of: vec![ValidationProblem::schema_ref(), Details::schema_ref()],
            ..MetaSchema::ANY
        })),
        StatusCode::UNPROCESSABLE_ENTITY => ValidationProblem::schema_ref(),
        _ => Details::schema_ref(),
    };
    MetaResponse {
        description,
        status: Some(status.as_u16()),
        status_range: None,
        content: vec![MetaMediaType { content_type: MEDIA_TYPE, schema }],
        headers: header
            .into_iter()
            .map(|(name, description, schema)| contract::header(name, description, schema, true))
            .collect(),
    }
}

/// What a refusal with this status may look like, where it is a [`Problem`].
pub(crate) fn example(status: StatusCode) -> Option<Value> {
    let fault = match status {
        StatusCode::BAD_REQUEST => Fault::InvalidParameter {
            place: "query parameter",
            name: "limit".to_owned(),
            problem: "must be a whole number from 1 to 1000",
        },
        StatusCode::UNAUTHORIZED => Fault::invalid_token("it expired 12s ago (exp)"),
        StatusCode::FORBIDDEN => Fault::AnotherUser,
        StatusCode::NOT_FOUND => Fault::NoSuchTask,
        StatusCode::CONFLICT => Fault::KeyInUse,
        StatusCode::PRECONDITION_FAILED => Fault::VersionMismatch { current: 3 },
        StatusCode::PAYLOAD_TOO_LARGE => Fault::BodyTooLarge { limit_bytes: contract::MAX_BODY_BYTES },
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Fault::UnsupportedMediaType,
        StatusCode::INTERNAL_SERVER_ERROR => Fault::defect(""),
        StatusCode::SERVICE_UNAVAILABLE => Fault::TooSlow,
        _ => return None,
    };
    serde_json::to_value(Details::new(&fault, EXAMPLE_REQUEST_ID)).ok()
}

/// What poem itself refuses, in our words. `allowed` are the methods of the path that was asked for.
pub fn understand(error: poem::Error, allowed: impl FnOnce() -> Vec<Method>) -> Fault {
    if error.is::<NotFoundError>() {
        return Fault::NoSuchPath;
    }
    if error.is::<MethodNotAllowedError>() {
        return Fault::MethodNotAllowed { allowed: allowed() };
    }
    error.downcast().unwrap_or_else(|unknown| Fault::defect(unknown.to_string()))
}

/// The answer to a request that met `fault`.
#[must_use]
pub fn answer(fault: &Fault, request_id: &str) -> Response {
    let details = Details::new(fault, request_id);
    let body = match fault {
        Fault::InvalidBody(errors) => serde_json::to_vec(&ValidationProblem::new(details, errors.clone())),
        _ => serde_json::to_vec(&details),
    };
    let mut answer = Response::builder()
        .status(fault.kind().status)
        .header(header::CONTENT_TYPE, MEDIA_TYPE)
        .body(body.expect("a problem is plain data"));
    for (name, value) in fault.headers() {
        answer.headers_mut().insert(name, HeaderValue::try_from(value).expect("our own words are printable"));
    }
    answer
}

fn list(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

/// The first violations in words. All of them are listed beside it.
fn summary(violations: &[Violation]) -> String {
    let mut text = String::new();
    for Violation { pointer, detail, .. } in violations.iter().take(MAX_SUMMARY) {
        let place = if pointer.is_empty() { "the body" } else { pointer };
        text += &format!("{}{place} {detail}", if text.is_empty() { "" } else { "; " });
    }
    match violations.len().saturating_sub(MAX_SUMMARY) {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}

/// The type of a problem: where it is explained.
#[derive(Debug)]
struct ProblemType(&'static Kind);

/// The type of the one problem that lists violations. It is none of the others, so that a client that has looked at the
/// type knows which of the two it has.
#[derive(Debug)]
struct InvalidBodyType;

fn types(of: impl Fn(&Kind) -> bool) -> MetaSchema {
    let kinds = KINDS.iter().filter(|kind| of(kind));
    MetaSchema { enum_items: kinds.map(|kind| kind.path().into()).collect(), ..MetaSchema::new("string") }
}

published!(ProblemType, types(|kind| kind.slug != INVALID_BODY.slug));
published!(InvalidBodyType, types(|kind| kind.slug == INVALID_BODY.slug));

impl Serialize for ProblemType {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0.path())
    }
}

impl Serialize for InvalidBodyType {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&INVALID_BODY.path())
    }
}

/// Why a request was refused (RFC 9457).
///
/// The `type` is for programs, the `detail` for people.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "Problem", example)]
struct Details {
    /// What kind of problem it is. It is also the path at which the server explains it. It is never renamed; new kinds may
    /// be added.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: ProblemType,
    /// The name of the kind of problem.
    title: String,
    /// The status code of the answer.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    status: i32,
    /// What was wrong with this request, in a sentence or two that can be shown to a person.
    detail: String,
    /// The id of the request, by which the operator finds it in the log. It is also the `X-Request-Id` header.
    #[oai(validator(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]{1,128}$"))]
    request_id: String,
}

impl Details {
    fn new(fault: &Fault, request_id: &str) -> Self {
        let kind = fault.kind();
        Self {
            kind: ProblemType(kind),
            title: kind.title.to_owned(),
            status: kind.status.as_u16().into(),
            detail: fault.to_string(),
            request_id: request_id.to_owned(),
        }
    }
}

impl Example for Details {
    fn example() -> Self {
        Self::new(&Fault::NoSuchTask, EXAMPLE_REQUEST_ID)
    }
}

/// Why a body was refused (RFC 9457), with every violation.
#[derive(Debug, Serialize, Object)]
#[oai(example)]
struct ValidationProblem {
    /// That the body is invalid. It is also the path at which the server explains it. It is never renamed.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: InvalidBodyType,
    /// The name of the kind of problem.
    title: String,
    /// The status code of the answer.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    status: i32,
    /// What was wrong with this body, in a sentence or two that can be shown to a person.
    detail: String,
    /// The id of the request, by which the operator finds it in the log. It is also the `X-Request-Id` header.
    #[oai(validator(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]{1,128}$"))]
    request_id: String,
    /// Every violation of the contract.
    #[oai(validator(min_items = 1))]
    errors: Vec<Violation>,
}

impl ValidationProblem {
    fn new(details: Details, errors: Vec<Violation>) -> Self {
        let Details { kind: _, title, status, detail, request_id } = details;
        Self { kind: InvalidBodyType, title, status, detail, request_id, errors }
    }
}

impl Example for ValidationProblem {
    fn example() -> Self {
        let fault = Fault::InvalidBody(vec![Violation {
            pointer: "/title".to_owned(),
            code: "maxLength".to_owned(),
            detail: "must have at most 200 characters; it has 201".to_owned(),
        }]);
        let details = Details::new(&fault, EXAMPLE_REQUEST_ID);
        let Fault::InvalidBody(errors) = fault else { unreachable!("it was made four lines before") };
        Self::new(details, errors)
    }
}

/// One way in which a body breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
#[oai(example)]
pub struct Violation {
    /// Where in the body: a JSON pointer (RFC 6901), such as `/title`. Empty for the body as a whole.
    pub pointer: String,
    /// The keyword of the schema that is violated, such as `maxLength`, `required` or `type`.
    pub code: String,
    /// What is wrong, in words that can be shown to a person.
    pub detail: String,
}

impl Example for Violation {
    fn example() -> Self {
        ValidationProblem::example().errors.swap_remove(0)
    }
}
