//! Every failure, its problem type, its words.
//!
//! [`Fault`] says what went wrong, in words that know no HTTP; [`Fault::problem_type`] is the one place that says how each
//! is answered. [`types`] is the public table of the ways to refuse, `document` how the contract shows them. A fault's
//! cause goes to the log, once, and never to the caller.

use std::{borrow::Cow, error::Error, marker::PhantomData, sync::Arc};

use poem::{
    Response,
    error::{MethodNotAllowedError, NotFoundError, ResponseError},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
};

use crate::{request_id::RequestId, task::Task, telemetry::chain};

mod document;
pub mod types;

use document::{Details, MAX_VIOLATIONS};
pub use document::{Place, Violation};
pub(crate) use document::{declared, response, schemas};
pub use types::ProblemType;

/// The media type of every refusal (RFC 9457).
pub const MEDIA_TYPE: &str = "application/problem+json";
/// How long a caller should wait before it tries again what could not be served, in seconds.
const RETRY_AFTER_SECS: u32 = 2;
/// How many violations the sentence about an invalid request names, and how much of where each stands.
const MAX_SUMMARY: usize = 10;
const MAX_SHOWN_CHARS: usize = 60;

/// Why something failed, for the log. Several requests can have failed for it together.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// What can go wrong while a request is served.
///
/// The words are for the caller. The cause of a failure of ours is kept as the source, for the log.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The caller did not say who it is.
    #[error("There is no token. Send the header `Authorization: Bearer <token>`.")]
    NoToken,
    /// The caller's token was refused, for this reason.
    #[error("The token is not valid: {0}.")]
    InvalidToken(Cow<'static, str>),
    /// The keys to verify tokens with could not be had yet.
    #[error("The keys of the token's issuer can't be had now. Try again in a moment.")]
    NoKeys,
    /// The caller is known, and is not the user whose data it asked for.
    #[error("The `user_id` in the path is not the subject of the token.")]
    AnotherUser,
    /// The request is no HTTP.
    #[error("{0}")]
    MalformedRequest(Cow<'static, str>),
    /// The request did not come to its end in time.
    #[error("The request did not arrive in time. Send it again, without pauses.")]
    SlowRequest,
    /// The path and the query are too long.
    #[error("The path and the query are too long.")]
    UriTooLong,
    /// The head is too large.
    #[error("The head of the request is too large.")]
    HeadersTooLarge,
    /// The body can't be read as JSON.
    #[error("The body is not valid JSON: {0}.")]
    MalformedBody(String),
    /// The body is larger than any valid one.
    #[error("The body is larger than {limit_bytes} bytes.")]
    BodyTooLarge {
        /// The bound that it exceeds.
        limit_bytes: usize,
    },
    /// The body is of a kind that nobody asked for.
    #[error("{}", unsupported(.0.as_deref()))]
    UnsupportedMediaType(
        /// The content coding (`Content-Encoding`), if that is what is not supported.
        Option<String>,
    ),
    /// The request can be read, but is not what the contract asks for.
    #[error("The request breaks the contract: {}.", summary(.0))]
    InvalidRequest(Vec<Violation>),
    /// The caller has no such task. Whether someone else has must not show.
    #[error("There is no such task.")]
    NoSuchTask,
    /// The task is not of the version that the caller expects.
    #[error("`If-Match` does not list the entity tag that the task has now: \"{}\".", .current.tag())]
    VersionMismatch {
        /// The task as it is.
        current: Box<Task>,
    },
    /// Another request with this key is under way.
    #[error("A request with this `Idempotency-Key` is being served. Send it again in a moment.")]
    KeyInUse,
    /// The key came before, with another request.
    #[error("This `Idempotency-Key` was used for another request. A new request needs a new key.")]
    KeyReused,
    /// A user, or an address, has asked more than it may.
    #[error("This {whose} has sent too many requests. Try again in {wait_secs} s.")]
    TooManyRequests {
        /// What has been counted: `user` or `address`.
        whose: &'static str,
        /// After how long the next request is served, in seconds.
        wait_secs: u64,
    },
    /// A user has so many calls that wait for a change already.
    #[error("So many calls of this user wait for a change already. Try again in a moment, or without `wait`.")]
    TooManyWaiting,
    /// What the caller knows is too old, or of another time, for changes to be told.
    #[error(
        "What has changed since then can't be told any more. Call without `since`, and let what comes replace what you have."
    )]
    ChangesExpired,
    /// The database did not answer, or not in time, or has no room. Trying again may help.
    #[error("The database can't serve the request now. Try again in a moment.")]
    Unavailable(#[source] Cause),
    /// The database can't serve now, for a reason that may be shown to everybody.
    #[error("The server is not ready: {reason}.")]
    NotReady {
        /// Why, as a part of a sentence.
        reason: &'static str,
        /// What the database said.
        #[source]
        cause: Option<Cause>,
    },
    /// There is no place, or no memory, for the request.
    #[error("The server is too busy to serve the request now. Try again in a moment.")]
    Crowded,
    /// The server is about to end.
    #[error("The server is not ready: it is stopping.")]
    Stopping,
    /// The request took longer than it may.
    #[error("The request took too long. Try again in a moment.")]
    TooSlow,
    /// The database refused a statement. Trying again won't help.
    #[error("The server failed; the operator finds the cause in the log by the request id.")]
    Database(#[source] Cause),
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

    /// A token that is refused, for a reason that helps an honest developer and no forger. It stands in a quoted
    /// header too.
    pub fn invalid_token(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidToken(reason.into())
    }

    /// A token that was issued before its user's block ends. Only the database knows, so it is told when that is asked: a request
    /// that can be refused without it (403, 422) is told of that.
    pub(crate) fn blocked() -> Self {
        Self::invalid_token("it was not issued after its user's block (blocked)")
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

    /// Which problem type it is answered with.
    #[must_use]
    pub fn problem_type(&self) -> &'static ProblemType {
        match self {
            Self::NoToken | Self::InvalidToken(_) => &types::UNAUTHORIZED,
            Self::AnotherUser => &types::FORBIDDEN,
            Self::MalformedRequest(_) => &types::MALFORMED_REQUEST,
            Self::SlowRequest => &types::REQUEST_TIMEOUT,
            Self::UriTooLong => &types::URI_TOO_LONG,
            Self::HeadersTooLarge => &types::HEADERS_TOO_LARGE,
            Self::MalformedBody(_) => &types::MALFORMED_BODY,
            Self::BodyTooLarge { .. } => &types::BODY_TOO_LARGE,
            Self::UnsupportedMediaType(_) => &types::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidRequest(_) => &types::INVALID_REQUEST,
            Self::NoSuchTask => &types::NO_SUCH_TASK,
            Self::VersionMismatch { .. } => &types::VERSION_MISMATCH,
            Self::KeyInUse => &types::IDEMPOTENCY_KEY_IN_USE,
            Self::KeyReused => &types::IDEMPOTENCY_KEY_REUSED,
            Self::TooManyRequests { .. } | Self::TooManyWaiting => &types::TOO_MANY_REQUESTS,
            Self::ChangesExpired => &types::CHANGES_EXPIRED,
            Self::Unavailable(_)
            | Self::NotReady { .. }
            | Self::TooSlow
            | Self::NoKeys
            | Self::Crowded
            | Self::Stopping => &types::UNAVAILABLE,
            Self::Database(_) | Self::Defect(_) => &types::INTERNAL,
            Self::NoSuchPath => &types::NO_SUCH_PATH,
            Self::MethodNotAllowed { .. } => &types::METHOD_NOT_ALLOWED,
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
            Self::MalformedRequest(_) | Self::SlowRequest => vec![(header::CONNECTION, "close".to_owned())],
            Self::TooManyRequests { wait_secs, .. } => vec![(header::RETRY_AFTER, wait_secs.to_string())],
            Self::MethodNotAllowed { allowed } => vec![(header::ALLOW, list(allowed))],
            Self::VersionMismatch { current } => vec![(header::ETAG, format!(r#""{}""#, current.tag()))],
            fault => match fault.problem_type().status {
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => {
                    vec![(header::RETRY_AFTER, RETRY_AFTER_SECS.to_string())]
                }
                _ => Vec::new(),
            },
        }
    }

    /// What poem itself refuses, as a fault. `allowed` are the methods of the path that was asked for.
    pub fn from_poem_error(error: poem::Error, allowed: impl FnOnce() -> Vec<Method>) -> Self {
        if error.is::<NotFoundError>() {
            return Self::NoSuchPath;
        }
        if error.is::<MethodNotAllowedError>() {
            return Self::MethodNotAllowed { allowed: allowed() };
        }
        error.downcast().unwrap_or_else(|unknown| Self::defect(unknown.to_string()))
    }

    /// The body of the answer to a request that met it.
    pub(crate) fn body(&self, request_id: &RequestId) -> Vec<u8> {
        serde_json::to_vec(&Details::new(self, request_id)).expect("a problem is plain data")
    }

    /// The answer to a request that met it.
    #[must_use]
    pub fn answer(&self, request_id: &RequestId) -> Response {
        let mut answer = Response::builder()
            .status(self.status())
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .body(self.body(request_id));
        for (name, value) in self.headers() {
            answer.headers_mut().insert(name, HeaderValue::try_from(value).expect("our own words are printable"));
        }
        answer
    }
}

impl ResponseError for Fault {
    fn status(&self) -> StatusCode {
        self.problem_type().status
    }
}

/// The problem types that an operation declares beside its replies. What stands here stands in the contract, and a fault
/// of any other type that leaves the operation is answered as a defect of ours.
pub trait Declared: Send + Sync + 'static {
    /// They, by group.
    const PROBLEMS: &'static [&'static [ProblemType]];
}

/// Why an operation failed. `D` is what it declares: the contract shows just that.
#[derive(Debug)]
pub struct Problem<D>(Fault, PhantomData<fn() -> D>);

impl<D> From<Fault> for Problem<D> {
    fn from(fault: Fault) -> Self {
        Self(fault, PhantomData)
    }
}

impl<D> From<Problem<D>> for poem::Error {
    fn from(Problem(fault, _): Problem<D>) -> Self {
        fault.into()
    }
}

fn list(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

fn unsupported(coding: Option<&str>) -> String {
    match coding {
        Some(coding) => {
            format!("The body is compressed (`Content-Encoding: {coding}`), which is not supported. Send it as it is.")
        }
        None => "The body must be declared as JSON: `Content-Type: application/json`.".to_owned(),
    }
}

/// The first violations in words. They are listed beside it.
fn summary(violations: &[Violation]) -> String {
    let mut text = String::new();
    for Violation { place, name, pointer, detail, .. } in violations.iter().take(MAX_SUMMARY) {
        let separator = if text.is_empty() { "" } else { "; " };
        let name = name.as_deref().unwrap_or_default();
        let what = match (place, pointer.as_deref()) {
            (Place::Query, _) => format!("the query parameter `{name}`"),
            (Place::Header, _) => format!("the header `{name}`"),
            (Place::Body, None | Some("")) => "the body".to_owned(),
            (Place::Body, Some(pointer)) => match pointer.char_indices().nth(MAX_SHOWN_CHARS) {
                Some((end, _)) => format!("{}…", &pointer[..end]),
                None => pointer.to_owned(),
            },
        };
        text += &format!("{separator}{what} {detail}");
    }
    match violations.len().saturating_sub(MAX_SUMMARY) {
        0 => text,
        more if violations.len() <= MAX_VIOLATIONS => format!("{text}; and {more} more"),
        more => format!("{text}; and {more} more, of which `errors` lists the first {}", MAX_VIOLATIONS - MAX_SUMMARY),
    }
}
