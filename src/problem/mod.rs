//! Every failure, its problem type, its words.
//!
//! [`Fault`] says what went wrong, in words that know no HTTP; [`Fault::problem_type`] is the one place that says how each
//! is answered. [`types`] is the public table of the ways to refuse, `document` how the contract shows them. A fault's
//! cause goes to the log, once, and never to the caller.

use std::{borrow::Cow, error::Error, marker::PhantomData};

use poem::{
    Response,
    error::{MethodNotAllowedError, NotFoundError, ResponseError},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
};
use sea_orm::DbErr;

use crate::{request_id::RequestId, telemetry::chain};

mod document;
pub mod types;

pub use document::Violation;
use document::{Details, ValidationProblem};
pub(crate) use document::{declared, response};
pub use types::ProblemType;

/// The media type of every refusal (RFC 9457).
pub const MEDIA_TYPE: &str = "application/problem+json";
/// How long a caller should wait before it tries again what could not be served, in seconds.
const RETRY_AFTER_SECS: u32 = 2;
/// How many violations the sentence about an invalid body names.
const MAX_SUMMARY: usize = 10;

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
    /// A parameter is not what the contract asks for.
    #[error("The {place} `{name}` {problem}.")]
    InvalidParameter {
        /// Where it stands: `path parameter`, `query parameter`, `header`.
        place: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it, or what it must be.
        problem: Cow<'static, str>,
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

    /// A token that is refused, for a reason that helps an honest developer and no forger. It stands in a quoted
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

    /// Which problem type it is answered with.
    #[must_use]
    pub fn problem_type(&self) -> &'static ProblemType {
        match self {
            Self::NoToken | Self::InvalidToken(_) => &types::UNAUTHORIZED,
            Self::AnotherUser => &types::FORBIDDEN,
            Self::InvalidParameter { .. } => &types::INVALID_PARAMETER,
            Self::MalformedBody(_) => &types::MALFORMED_BODY,
            Self::BodyTooLarge { .. } => &types::BODY_TOO_LARGE,
            Self::UnsupportedMediaType => &types::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidBody(_) => &types::INVALID_BODY,
            Self::NoSuchTask => &types::NO_SUCH_TASK,
            Self::VersionMismatch { .. } => &types::VERSION_MISMATCH,
            Self::KeyInUse => &types::IDEMPOTENCY_KEY_IN_USE,
            Self::KeyReused => &types::IDEMPOTENCY_KEY_REUSED,
            Self::Unavailable(_) | Self::TooSlow | Self::NoKeys => &types::UNAVAILABLE,
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
            Self::MethodNotAllowed { allowed } => vec![(header::ALLOW, list(allowed))],
            Self::VersionMismatch { current } => vec![(header::ETAG, format!(r#""{current}""#))],
            fault => match fault.problem_type().status {
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => {
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

    /// The answer to a request that met it.
    #[must_use]
    pub fn answer(&self, request_id: &RequestId) -> Response {
        let details = Details::new(self, request_id);
        let body = match self {
            Self::InvalidBody(errors) => serde_json::to_vec(&ValidationProblem::new(details, errors.clone())),
            _ => serde_json::to_vec(&details),
        };
        let mut answer = Response::builder()
            .status(self.status())
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .body(body.expect("a problem is plain data"));
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
