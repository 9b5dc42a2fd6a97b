//! The line that a request leaves in the log.

use std::{net::IpAddr, sync::Arc, time::Instant};

use poem::http::Method;

use super::metrics::Traffic;
use crate::{contract::Operation, request_id::RequestId, store::Turn};

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
    /// The trace that it is a part of.
    pub(super) trace_id: Option<String>,
    /// The span that it is a part of.
    #[cfg(feature = "otlp")]
    pub(super) parent: Option<opentelemetry::Context>,
    /// When it had its turn at the database, if somebody wants to know.
    pub(super) turn: Option<Arc<Turn>>,
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
        let path = operation.is_none().then(|| without_user(path));
        Self {
            method,
            operation,
            path,
            request_id,
            started: Instant::now(),
            status: None,
            problem: None,
            reason: None,
            client: None,
            user: None,
            trace_id: None,
            #[cfg(feature = "otlp")]
            parent: None,
            turn: None,
            bytes: 0,
            traffic,
        }
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        self.traffic.in_flight.dec();
        #[cfg(feature = "otlp")]
        if let Some(trace_id) = super::spans::send(self, self.status) {
            self.trace_id = Some(trace_id);
        }
        let (method, operation, request_id) = (&self.method, name(self.operation), self.request_id);
        let path = self.path.as_deref();
        #[expect(clippy::cast_precision_loss, reason = "a request's microseconds are exact in 53 bits")]
        let duration_ms = self.started.elapsed().as_micros() as f64 / 1e3;
        let Some(status) = self.status else {
            tracing::info!(operation, path, duration_ms, %request_id, "{method} {operation}: given up, the server stops");
            return;
        };
        self.traffic.answered(self, status);
        tracing::info!(
            operation,
            path,
            status,
            problem = self.problem,
            reason = self.reason,
            client = self.client.map(tracing::field::display),
            user = self.user,
            trace_id = self.trace_id,
            bytes = self.bytes,
            duration_ms,
            %request_id,
            "{method} {operation} {status}"
        );
    }
}

/// A path without the id of the user whose it is.
fn without_user(path: &str) -> String {
    match path.strip_prefix("/api/").map(|rest| rest.split_once('/')) {
        Some(Some((_, rest))) => format!("/api/{{user_id}}/{rest}"),
        Some(None) => "/api/{user_id}".to_owned(),
        None => path.to_owned(),
    }
}

/// What an operation is called in the log.
pub(super) fn name(operation: Option<&Operation>) -> &str {
    operation.map_or("-", |operation| &operation.id)
}

/// The id of the trace that a `traceparent` names (W3C Trace Context, level 1), if it is one.
pub(super) fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut parts = traceparent.trim().split('-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    // A later version may have more to say.
    let is_over = parts.next().is_none() || version != "00";
    let lengths = [version, trace, span, flags].map(str::len);
    let is_valid = lengths == [2, 32, 16, 2] && is_hex(&traceparent.trim()[..55].replace('-', "")) && version != "ff";
    (is_over && is_valid && trace.bytes().any(|byte| byte != b'0')).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_an_id_if_it_is_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for text in [format!("00-{id}-00f067aa0ba902b7-01"), format!(" cc-{id}-00f067aa0ba902b7-01-what-else")] {
            assert_eq!(trace_id(&text), Some(id), "{text}");
        }
        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{id}-00f067aa0ba902b7"),
            format!("00-{id}-00f067aa0ba902b7-01-more"),
            format!("ff-{id}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{id}-00f067aa0ba902bü-1"),
        ] {
            assert_eq!(trace_id(&text), None, "{text}");
        }
    }
}
