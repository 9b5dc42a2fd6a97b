//! The problem types: one row for each way to refuse, as the contract prints it.

use poem::http::StatusCode;

/// A way to refuse. A slug is public: once released it is never renamed.
#[derive(Debug)]
pub struct ProblemType {
    /// The status of the answer.
    pub status: StatusCode,
    /// The last part of the problem's `type`.
    pub slug: &'static str,
    /// What it is called.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What the caller can do.
    pub remedy: &'static str,
}

impl ProblemType {
    /// What it is called in the contract: the slug, each word with a capital.
    #[must_use]
    pub fn name(&self) -> String {
        let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        self.slug.split('-').map(capital).collect()
    }

    /// Where it is explained: the problem's `type`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/problems/{}", self.slug)
    }

    /// The type with this slug.
    #[must_use]
    pub fn find(slug: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|known| known.slug == slug)
    }
}

impl PartialEq for ProblemType {
    fn eq(&self, other: &Self) -> bool {
        self.slug == other.slug
    }
}

macro_rules! problem_types {
    ($($name:ident = $status:ident $slug:literal $title:literal $meaning:literal $remedy:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $name: ProblemType = ProblemType {
                status: StatusCode::$status, slug: $slug, title: $title, meaning: $meaning, remedy: $remedy,
            };
        )*
        /// Every problem type, by status.
        pub const ALL: &[&ProblemType] = &[$(&$name),*];
    };
}

problem_types! {
    MALFORMED_REQUEST = BAD_REQUEST "malformed-request" "Malformed request"
        "The request is not HTTP/1.1 as RFC 9112 has it. The connection ends."
        "Correct the client or the proxy. `detail` says what is wrong.";
    MALFORMED_BODY = BAD_REQUEST "malformed-body" "Malformed body"
        "The body can't be read as JSON: a syntax error, a name that occurs twice in one object, text that is not Unicode, or a body that broke off."
        "Send one JSON value in UTF-8. `detail` says where it went wrong.";
    UNAUTHORIZED = UNAUTHORIZED "unauthorized" "Unauthorized"
        "There is no token, or it is not valid: expired, not yet valid, badly signed, without a subject, or issued before the operator blocked its user."
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
    REQUEST_TIMEOUT = REQUEST_TIMEOUT "request-timeout" "Request timeout"
        "The head or the body of the request did not come to its end in time. Nothing was done. The connection ends."
        "Send the request again, on a new connection and without pauses.";
    IDEMPOTENCY_KEY_IN_USE = CONFLICT "idempotency-key-in-use" "Idempotency key in use"
        "Another request with this `Idempotency-Key` is being served. Nothing was done for this one."
        "Send the same request again after the time that the `Retry-After` header gives, in seconds: it is given the other one's answer.";
    CHANGES_EXPIRED = GONE "changes-expired" "Changes expired"
        "What has changed since then can't be told any more: `since` is older than deletions are remembered, or from before the user was erased or the database was restored, or it is another user's."
        "Start over: call without `since`, and let what comes replace what you have.";
    VERSION_MISMATCH = PRECONDITION_FAILED "version-mismatch" "Version mismatch"
        "`If-Match` does not list the entity tag that the task has now. Usually somebody else has changed the task since it was read."
        "`current` is the task as it is now: apply your change to it, and send it with the `ETag` of this answer.";
    URI_TOO_LONG = URI_TOO_LONG "uri-too-long" "URI too long"
        "The path and the query are longer than any valid ones. The connection ends."
        "Send less.";
    HEADERS_TOO_LARGE = REQUEST_HEADER_FIELDS_TOO_LARGE "headers-too-large" "Headers too large"
        "The head of the request has too many headers, or is too large. The connection ends."
        "Send fewer and shorter headers. Often it is cookies, which this server does not need.";
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE "body-too-large" "Body too large"
        "The body is larger than any valid one."
        "Send less: the contract bounds every field.";
    UNSUPPORTED_MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "Unsupported media type"
        "The body is not declared to be JSON, or it is compressed."
        "Send JSON as it is, with the header `Content-Type: application/json` and without `Content-Encoding`.";
    INVALID_REQUEST = UNPROCESSABLE_ENTITY "invalid-request" "Invalid request"
        "A parameter in the query, a header or the body can be read, but is not what the contract asks for. `errors` lists every violation."
        "Correct what `errors` points to.";
    IDEMPOTENCY_KEY_REUSED = UNPROCESSABLE_ENTITY "idempotency-key-reused" "Idempotency key reused"
        "This `Idempotency-Key` came before, with another request: another operation, another task, another `If-Match` or another body. Nothing was done for this one."
        "Take a new key for each new request, and keep it for the repeats of that request only.";
    TOO_MANY_REQUESTS = TOO_MANY_REQUESTS "too-many-requests" "Too many requests"
        "This user, or this address, has sent more requests than the operator allows. Nothing was done."
        "Try again after the time that the `Retry-After` header gives, in seconds. `RateLimit` tells what is left before it is too late.";
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "Internal error"
        "The server failed. It is the server's fault, and it has been logged."
        "Tell the operator the `request_id`.";
    UNAVAILABLE = SERVICE_UNAVAILABLE "unavailable" "Unavailable"
        "The request could not be served in time, for example because the database, or the issuer of the tokens, is down or busy. A change may or may not have been made."
        "Try again after the time that the `Retry-After` header gives, in seconds.";
}

/// What every operation on somebody's tasks may answer: a token is required, it must be that of the user, and users may be
/// limited.
pub const AUTH: &[ProblemType] = &[UNAUTHORIZED, FORBIDDEN, TOO_MANY_REQUESTS];
/// What an operation that takes a body may answer.
pub const BODY: &[ProblemType] = &[MALFORMED_BODY, REQUEST_TIMEOUT, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE];
/// What an operation that takes an `Idempotency-Key` may answer.
pub const IDEMPOTENCY: &[ProblemType] = &[IDEMPOTENCY_KEY_IN_USE, IDEMPOTENCY_KEY_REUSED];
/// What the feed of changes may answer.
pub const CHANGES: &[ProblemType] = &[CHANGES_EXPIRED];
/// What every operation that takes more than a path may answer.
pub const CHECKED: &[ProblemType] = &[INVALID_REQUEST];
/// What an operation on a task that the path names may answer.
pub const TASK: &[ProblemType] = &[NO_SUCH_TASK];
/// What an operation that takes `If-Match` may answer.
pub const CONDITION: &[ProblemType] = &[VERSION_MISMATCH];
/// What an operation that asks the database may answer.
pub const DATABASE: &[ProblemType] = &[INTERNAL, UNAVAILABLE];
