//! Cross-origin requests: which web pages may call, and what they may read.
//!
//! poem has a middleware for it. It answers a plain request from an origin that is not allowed with 403, where the
//! browser's own check is what protects; it leaves `Vary: Origin` away from what it refuses; and it answers a preflight
//! with an undeclared header by a text. Less code says it right than mends it.

use poem::{
    Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};

use crate::config;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-Id, traceparent",
);
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("ETag, Idempotent-Replayed, Link, Location, Next-Cursor, Retry-After, X-Request-Id");
/// For how long a browser need not ask again, in seconds. Chromium keeps it for no longer than this.
const MAX_AGE_SECS: HeaderValue = HeaderValue::from_static("7200");

/// What is allowed.
#[derive(Debug)]
pub(super) struct Cors {
    allowed_origins: Vec<HeaderValue>,
}

impl Cors {
    pub(super) fn new(settings: &config::Cors) -> Self {
        let origins = settings.allowed_origins.iter();
        let allowed_origins = origins.filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok()).collect();
        Self { allowed_origins }
    }

    /// The origin of the page that `request` comes from, if that page may call.
    pub(super) fn allowed_origin(&self, request: &Request) -> Option<HeaderValue> {
        let origin = request.headers().get(header::ORIGIN)?;
        self.allowed_origins.contains(origin).then(|| origin.clone())
    }

    /// The answer to a browser that asks whether a page of an allowed origin may send a request.
    pub(super) fn preflight(request: &Request) -> Option<Response> {
        let asks = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        asks.then(|| {
            Response::builder()
                .status(StatusCode::NO_CONTENT)
                .header(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS)
                .header(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS)
                .header(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS)
                .finish()
        })
    }

    /// Lets the page read the answer, refusals too. To other pages' browsers the missing headers say no.
    pub(super) fn expose(origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}
