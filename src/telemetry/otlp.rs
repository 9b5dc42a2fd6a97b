//! Sending spans to a collector, by OTLP over HTTP. Only in builds with the feature `otlp`.
//!
//! It is set up by the variables that OpenTelemetry specifies, which whoever runs a collector has for all programs, and not by
//! settings of ours. Nothing is sent unless an endpoint is named. A thread of the SDK's sends what is in its queue; what the queue
//! does not hold is given up, so that a collector that is away delays no request.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{InstrumentationScope, Key, KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{self, SdkTracer, SdkTracerProvider, SpanData},
};
use url::Url;

use super::{chain, variable};
use crate::config::Unusable;

/// How long a stopping server waits for the last spans to be taken.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
const VERSION: &str = env!("CARGO_PKG_VERSION");

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What makes spans, if they are sent.
pub(crate) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// What sends spans. When it is dropped, it sends those that it still has, which takes seconds at most.
#[derive(Debug)]
pub struct Sending(SdkTracerProvider);

impl Drop for Sending {
    fn drop(&mut self) {
        // If they are not taken, it has been said that the collector is away.
        let _ = self.0.shutdown_with_timeout(FLUSH_TIMEOUT);
    }
}

/// Starts sending to the collector that the variable `name` names.
pub(super) fn start(name: &str) -> Result<Option<Sending>, Unusable> {
    let is = |name, value: &str| variable(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if variable(name).is_some() && !is(name, "http/protobuf") {
            return Err(Unusable(format!(
                "`{name}` must be http/protobuf, or not be set: spans are sent in no other form"
            )));
        }
    }
    let unusable = |why: &str| Unusable(format!("`{name}` can't be used: {why}"));
    let endpoint = variable(name).unwrap_or_default();
    let origin = Url::parse(&endpoint).map_err(|error| unusable(&error.to_string()))?.origin().ascii_serialization();
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let exporter = exporter.map_err(|error| unusable(&chain(&error)))?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_batch_exporter(Told { exporter, fails: AtomicBool::new(false) })
        .build();
    let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(VERSION).build();
    // There is one server in a process.
    let _ = TRACER.set(provider.tracer_with_scope(scope));
    tracing::info!(collector = origin, "spans are sent to {origin}");
    Ok(Some(Sending(provider)))
}

/// Who sends: what the environment says, and our name if it says none.
fn resource() -> Resource {
    let said = Resource::builder().build().get(&Key::from_static_str("service.name"));
    let is_named = said.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let ours = Resource::builder().with_attribute(KeyValue::new("service.version", VERSION));
    if is_named { ours } else { ours.with_service_name(env!("CARGO_PKG_NAME")) }.build()
}

/// Tells the operator when the collector does not take spans, and when it takes them again: once each, and not for each batch.
#[derive(Debug)]
struct Told {
    exporter: SpanExporter,
    fails: AtomicBool,
}

impl trace::SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        match (&outcome, self.fails.swap(outcome.is_err(), Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(cause = chain(error), "the collector takes no spans; they are given up until it does");
            }
            (Ok(()), true) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
