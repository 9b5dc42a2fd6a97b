//! Where the time of a request went, as the developer tools of browsers show it (Server Timing, W3C).

use std::time::{Duration, Instant};

use poem::http::{HeaderName, HeaderValue};

use crate::store::Turn;

/// The header that tells it.
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// In milliseconds: how long the request waited for the database, how long the database took, and all the rest, from its head to
/// that of its answer.
pub(super) fn header(turn: &Turn, started: Instant) -> HeaderValue {
    let mut parts = Vec::new();
    let mut rest = started.elapsed();
    for (name, span) in [("wait", turn.waited()), ("db", turn.worked())] {
        if let Some(span) = span {
            rest = rest.saturating_sub(span.lasted);
            parts.push(part(name, span.lasted));
        }
    }
    parts.push(part("app", rest));
    HeaderValue::try_from(parts.join(", ")).expect("names and numbers are printable")
}

fn part(name: &str, duration: Duration) -> String {
    format!("{name};dur={:.3}", duration.as_secs_f64() * 1e3)
}
