//! The span of a request, for tracing systems (OpenTelemetry). Only in builds with the feature `otlp`.
//!
//! It is made when the request is over, of what its log line and its turn at the database know, and has no path and no user: these
//! go nowhere that the log does not tell them to.

use std::time::{Instant, SystemTime};

use chrono::{DateTime, Utc};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{Span, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};
use poem::http::HeaderMap;

use super::log_line::LogLine;
use crate::{clock::Clock, store, telemetry::otlp};

/// The trace that a request is a part of, and whether that is sampled, as the headers `traceparent` and `tracestate` say.
pub(super) fn parent(headers: &HeaderMap) -> Option<Context> {
    otlp::tracer().map(|_| TraceContextPropagator::new().extract(&HeaderExtractor(headers)))
}

/// Sends the spans of a request that is over now, if they are sampled, and gives back the id of their trace.
pub(super) fn send(line: &LogLine<'_>, status: Option<u16>) -> Option<String> {
    let (tracer, parent) = otlp::tracer().zip(line.parent.as_ref())?;
    let times = Times { now: Instant::now(), is: DateTime::<Utc>::from(Clock.now()).into() };
    let method = known(line.method.as_str());
    let name = line.operation.map_or(method, |operation| &operation.id).to_owned();
    let builder = tracer.span_builder(name).with_kind(SpanKind::Server).with_start_time(times.at(line.started));
    let mut span = tracer.build_with_context(builder, parent);
    let context = span.span_context().clone();
    if !context.is_sampled() {
        return None;
    }
    span.set_attribute(KeyValue::new("http.request.method", method));
    span.set_attribute(KeyValue::new("url.scheme", "http"));
    span.set_attribute(KeyValue::new("taskpact.request_id", line.request_id.as_str().to_owned()));
    if let Some(operation) = line.operation {
        span.set_attribute(KeyValue::new("http.route", operation.template.clone()));
    }
    if let Some(problem) = line.problem {
        span.set_attribute(KeyValue::new("taskpact.problem", problem));
    }
    if let Some(status) = status {
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    // What the caller did wrong is no error of the server's.
    if status.is_none_or(|status| status >= 500) {
        span.set_attribute(KeyValue::new("error.type", line.problem.unwrap_or("given-up")));
        span.set_status(Status::error(""));
    }
    if let Some(turn) = &line.turn {
        let parent = Context::new().with_remote_span_context(context.clone());
        for (name, part) in [("wait", turn.waited()), ("db", turn.worked())] {
            if let Some(part) = part {
                send_part(tracer, name, &parent, times, part);
            }
        }
    }
    span.end_with_timestamp(times.is);
    Some(context.trace_id().to_string())
}

fn send_part(tracer: &SdkTracer, name: &'static str, parent: &Context, times: Times, part: store::Span) {
    let builder = tracer.span_builder(name).with_start_time(times.at(part.from));
    tracer.build_with_context(builder, parent).end_with_timestamp(times.at(part.from + part.lasted));
}

/// The methods that the conventions of OpenTelemetry know; whatever else a client makes up is one more.
fn known(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"]
        .into_iter()
        .find(|one| *one == method)
        .unwrap_or("_OTHER")
}

/// One moment on both clocks: durations are measured by the one, and spans are written by the other.
#[derive(Debug, Clone, Copy)]
struct Times {
    now: Instant,
    is: SystemTime,
}

impl Times {
    fn at(self, instant: Instant) -> SystemTime {
        self.is - self.now.saturating_duration_since(instant)
    }
}
