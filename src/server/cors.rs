//! Cross-origin requests: which web pages may call, and what they may read.
//!
//! poem has a middleware for it. It answers a plain request from an origin that is not allowed with 403, where the
//! browser's own check is what protects; it leaves `Vary: Origin` away from what it refuses; and it answers a preflight
//! with an undeclared header by a text. Less code says it right than corrects it.

use std::collections::BTreeSet;

use poem::{
    Request, Response,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
};

use crate::{
    config::{Config, Origin},
    contract::Contract,
};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What pages may send beside the headers of the contract: what HTTP itself and tracing have.
const REQUEST_HEADERS: [&str; 4] = ["Authorization", "Content-Type", "X-Request-Id", "traceparent"];
/// Which page's measurements may have all that is known of an answer's time (Resource Timing, W3C).
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// For how long a browser need not ask again, in seconds. Chromium keeps it for no longer than this.
const MAX_AGE_SECS: HeaderValue = HeaderValue::from_static("7200");

/// What is allowed.
#[derive(Debug)]
pub(super) struct Cors {
    allowed_origins: Vec<Origin>,
    request_headers: HeaderValue,
    exposed_headers: HeaderValue,
    allow_credentials: bool,
    /// Whether the page's own measurements (Resource Timing) may have what `Server-Timing` says.
    tells_timing: bool,
}

impl Cors {
    pub(super) fn new(config: &Config, contract: &Contract) -> Self {
        let settings = &config.cors;
        let own = contract.request_headers.iter().cloned().chain(REQUEST_HEADERS.map(str::to_owned));
        let extra = settings.allowed_headers.iter().map(|name| name.as_str().to_owned());
        Self {
            allowed_origins: settings.allowed_origins.clone(),
            request_headers: list(own.chain(extra)),
            exposed_headers: list(contract.response_headers.iter().cloned()),
            allow_credentials: settings.allow_credentials,
            tells_timing: config.server.timing,
        }
    }

    /// The origin of the page that `request` comes from, if that page may call.
    pub(super) fn allowed_origin(&self, request: &Request) -> Option<HeaderValue> {
        let origin = request.headers().get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.allowed_origins.iter().any(|allowed| allowed.matches(text)).then(|| origin.clone())
    }

    /// The answer to a browser that asks whether a page of an allowed origin may send a request.
    pub(super) fn preflight(&self, request: &Request, allowed_origin: Option<&HeaderValue>) -> Option<Response> {
        let asks = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks {
            return None;
        }
        if allowed_origin.is_none() {
            let origin = request.header(header::ORIGIN).unwrap_or_default();
            tracing::info!(origin, "a page of {origin} may not call: it is not in `cors.allowed_origins`");
            return None;
        }
        let answer = Response::builder()
            .status(StatusCode::NO_CONTENT)
            .header(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS)
            .header(header::ACCESS_CONTROL_ALLOW_HEADERS, self.request_headers.clone())
            .header(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS);
        Some(answer.finish())
    }

    /// Lets the page read the answer, refusals too. To other pages' browsers the missing headers say no.
    pub(super) fn expose(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            if self.tells_timing {
                headers.insert(TIMING_ALLOW_ORIGIN, origin.clone());
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed_headers.clone());
            if self.allow_credentials {
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }
}

fn list(names: impl Iterator<Item = String>) -> HeaderValue {
    let names: BTreeSet<_> = names.collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(names).expect("the names of headers are printable")
}
