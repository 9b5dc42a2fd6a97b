//! The line that a request leaves in the log.

use std::{net::IpAddr, time::Instant};

use poem::http::Method;

use super::metrics::Traffic;
use crate::{contract::Operation, request_id::RequestId};

/// It is written when the request has been answered, or when the server stops before that. (A caller that hangs up can't be
/// told from one that has only closed its sending side, and waits for the answer.)
pub(super) struct LogLine<'r> {
    pub(super) method: Method,
    pub(super) operation: Option<&'r Operation>,
    /// For a request that means no operation: where it went.
    pub(super) path: Option<String>,
    pub(super) request_id: &'r RequestId,
    pub(super) started: Instant,
    pub(super) status: Option<u16>,
    /// The type of the problem that it was answered with.
    pub(super) problem: Option<&'static str>,
    /// What an operator wants to know of a refusal, and may know: never a token.
    pub(super) reason: Option<String>,
    /// Where it came from, and by whom, as a hash.
    pub(super) client: Option<IpAddr>,
    pub(super) user: Option<String>,
    /// How long the body of the answer is.
    pub(super) bytes: usize,
    traffic: &'r Traffic,
}

impl<'r> LogLine<'r> {
    pub(super) fn new(
        method: Method,
        path: &str,
        operation: Option<&'r Operation>,
        request_id: &'r RequestId,
        traffic: &'r Traffic,
    ) -> Self {
        traffic.in_flight.inc();
        let path = operation.is_none().then(|| path.to_owned());
        let started = Instant::now();
        let (client, user, bytes) = (None, None, 0);
        let (status, problem, reason) = (None, None, None);
        Self { method, operation, path, request_id, started, status, problem, reason, client, user, bytes, traffic }
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        self.traffic.in_flight.dec();
        if let Some(status) = self.status {
            self.traffic.answered(self, status);
        }
        let Self { method, operation, path, request_id, started, status, problem, reason, client, user, bytes, .. } =
            self;
        let (client, user) = (client.map(tracing::field::display), user.as_deref());
        let (operation, path, problem) = (name(*operation), path.as_deref(), *problem);
        let reason = reason.as_deref();
        #[expect(clippy::cast_precision_loss, reason = "a request's microseconds are exact in 53 bits")]
        let duration_ms = started.elapsed().as_micros() as f64 / 1e3;
        if let Some(status) = *status {
            let text = format_args!("{method} {operation} {status}");
            tracing::info!(operation, path, status, problem, reason, client, user, bytes, duration_ms, %request_id, "{text}");
        } else {
            tracing::info!(operation, path, duration_ms, %request_id, "{method} {operation}: given up, the server stops");
        }
    }
}

/// What an operation is called in the log.
pub(super) fn name(operation: Option<&Operation>) -> &str {
    operation.map_or("-", |operation| &operation.id)
}
