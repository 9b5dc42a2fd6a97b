//! What the operator is told, on standard error: never a token, a title, a body or a database's address. And how what is
//! measured is described.

use std::{env, error::Error, io, panic};

use hmac::{Hmac, KeyInit, Mac};
use prometheus_client::metrics::histogram::Histogram;
use sha2::Sha256;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{self, LogFormat, Secret, Unusable};

#[cfg(feature = "otlp")]
pub(crate) mod otlp;

#[cfg(feature = "otlp")]
pub use otlp::Sending;

/// What sends spans: nothing, in a program without the feature `otlp`.
#[cfg(not(feature = "otlp"))]
#[derive(Debug)]
pub enum Sending {}

/// The variables that name the collector, the more specific one first.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The one label of a metric: its name and its value.
pub(crate) type Label = [(&'static str, &'static str); 1];

/// A histogram of times, from half a millisecond to ten seconds.
pub(crate) fn durations() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// What a user is called in the log: the first sixteen digits of the HMAC (SHA-256) of the id.
pub(crate) fn pseudonym(key: &Secret, user_id: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).expect("a key has any length");
    mac.update(user_id.as_bytes());
    mac.finalize().into_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts logging.
///
/// # Errors
/// The filter is none.
pub fn start(settings: &config::Log) -> Result<(), Unusable> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| Unusable(format!("`log.filter` is not a level such as `info`, nor a list: {error}")))?
        // They tell in many lines what the server tells in one.
        .add_directive("sea_orm_migration=warn".parse().expect("a directive"))
        .add_directive("sqlx::postgres::notice=warn".parse().expect("a directive"))
        // It warns of the parameters of the database's address that it does not know, with their values.
        .add_directive("sqlx_postgres::options=error".parse().expect("a directive"));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match settings.format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();

    // The message of a panic may quote what a caller sent, so only the place is told.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked at {place}");
    }));
    Ok(())
}

/// Starts sending spans, if the environment names a collector of traces. They are sent until what is given back is dropped.
///
/// # Errors
/// What the environment says can't be used.
pub fn send_spans() -> Result<Option<Sending>, Unusable> {
    let Some(name) = ENDPOINTS.into_iter().find(|name| variable(name).is_some()) else { return Ok(None) };
    #[cfg(feature = "otlp")]
    return otlp::start(name);
    #[cfg(not(feature = "otlp"))]
    {
        tracing::warn!("`{name}` is set, but no spans are sent: this program was built without the feature `otlp`");
        Ok(None)
    }
}

/// Whether the spans of requests are wanted.
pub(crate) fn sends_spans() -> bool {
    #[cfg(feature = "otlp")]
    return otlp::tracer().is_some();
    #[cfg(not(feature = "otlp"))]
    false
}

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// An error and its causes in one line, each said once. (As a value of its own kind, an error would reach the log of the
/// form `json` without its causes.)
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
