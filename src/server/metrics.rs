//! What is measured, for Prometheus: `docs/METRICS.md` has the table.
//!
//! Each module keeps its own numbers, and registers them here. Labels are bounded: operations by their ids, never paths, and no
//! users.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use tokio::net::{TcpListener, TcpStream};

use super::{
    log_line::{LogLine, name},
    peers::Peers,
};
use crate::{
    api::COMMIT,
    auth::Verifier,
    contract::VERSION,
    problem::Fault,
    store::Store,
    telemetry::{Label, durations},
};

/// The form of what is answered.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What passes the server's edge. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    requests: Family<Answered, Counter>,
    durations: Family<OfOperation, Histogram>,
    pub(super) in_flight: Gauge,
    replays: Family<OfOperation, Counter>,
    verdicts: Family<Verdict, Counter>,
    /// One of them, which most requests raise.
    accepted: Counter,
    limited: Family<Label, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    operation: String,
    status: u16,
    problem: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOperation {
    operation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
    reason: &'static str,
}

impl Default for Traffic {
    fn default() -> Self {
        let verdicts: Family<Verdict, Counter> = Family::default();
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(durations),
            in_flight: Gauge::default(),
            replays: Family::default(),
            accepted: verdicts.get_or_create_owned(&Verdict { verdict: "accepted", reason: "" }),
            verdicts,
            limited: Family::default(),
        }
    }
}

impl Traffic {
    /// Counts a request that has been answered with `status`.
    pub(super) fn answered(&self, line: &LogLine<'_>, status: u16) {
        let operation = name(line.operation).to_owned();
        let duration = self.durations.get_or_create_owned(&OfOperation { operation: operation.clone() });
        duration.observe(line.started.elapsed().as_secs_f64());
        self.requests.get_or_create(&Answered { operation, status, problem: line.problem.unwrap_or_default() }).inc();
    }

    /// Counts an answer that is given again.
    pub(super) fn replayed(&self, line: &LogLine<'_>) {
        self.replays.get_or_create(&OfOperation { operation: name(line.operation).to_owned() }).inc();
    }

    /// Counts a token that was accepted.
    pub(super) fn accepted(&self) {
        self.accepted.inc();
    }

    /// Counts what a token was refused for, or a request that was too much.
    pub(super) fn refused(&self, fault: &Fault) {
        let (verdict, reason) = match fault {
            Fault::NoToken => ("refused", "missing"),
            Fault::InvalidToken(why) => ("refused", reason(why)),
            Fault::NoKeys => ("unknown", "keys"),
            Fault::TooManyRequests { whose, .. } => {
                self.limited.get_or_create(&[("by", whose)]).inc();
                return;
            }
            _ => return,
        };
        self.verdicts.get_or_create(&Verdict { verdict, reason }).inc();
    }
}

/// Why a token was refused, in a word: the claim, or the field of its head, that the refusal names first, or `blocked`.
fn reason(why: &str) -> &'static str {
    const NAMED: [&str; 11] = ["alg", "aud", "blocked", "crit", "exp", "iat", "iss", "kid", "nbf", "sub", "typ"];
    let named = NAMED.into_iter().filter_map(|name| why.find(&format!("({name}")).map(|at| (at, name)));
    named.min().map_or(if why.contains("signature") { "signature" } else { "form" }, |(_, name)| name)
}

/// Everything that is measured.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    peers: Arc<Peers>,
    store: Store,
    verifier: Verifier,
}

impl Metrics {
    pub(super) fn new(traffic: &Traffic, peers: Arc<Peers>, store: Store, verifier: Verifier) -> Self {
        let mut registry = Registry::with_prefix("taskpact");
        let Traffic { requests, durations, in_flight, replays, verdicts, limited, .. } = traffic.clone();
        registry.register("build", "The program", Info::new([("commit", COMMIT), ("version", VERSION)]));
        registry.register("http_requests", "Requests that were answered", requests);
        let help = "The time from the head of a request to its answer";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, durations);
        registry.register("http_requests_in_flight", "Requests that are being served", in_flight);
        registry.register("idempotent_replays", "Answers that were given again", replays);
        registry.register("token_verdicts", "Tokens, by what was found of them", verdicts);
        registry.register("rate_limited", "Requests that were too many for a user or an address", limited);
        peers.register(&mut registry);
        store.register(&mut registry);
        verifier.register(&mut registry);
        Self { registry, peers, store, verifier }
    }

    /// Everything as it is now, in the text form of `OpenMetrics`.
    fn text(&self) -> String {
        self.peers.measure();
        self.store.measure();
        self.verifier.measure();
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes every text");
        text
    }

    /// Tells it to whoever asks for `/metrics`, for ever.
    pub(super) async fn serve(self: Arc<Self>, listener: Arc<TcpListener>) {
        loop {
            // Whatever keeps it from accepting passes, or there are other signs of it.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(super::ACCEPT_PAUSE).await;
                continue;
            };
            tokio::spawn(Arc::clone(&self).answer(stream));
        }
    }

    async fn answer(self: Arc<Self>, stream: TcpStream) {
        let answer = service_fn(|request: Request<Incoming>| {
            let answer = self.to(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        // Its head has thirty seconds to arrive, which is hyper's default; nobody but the operator gets here.
        let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
    }

    fn to(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let response = Response::builder();
        let response = match (request.uri().path(), request.method()) {
            ("/metrics", &Method::GET | &Method::HEAD) => {
                response.header(CONTENT_TYPE, OPEN_METRICS).body(Full::from(self.text()))
            }
            ("/metrics", _) => {
                response.status(StatusCode::METHOD_NOT_ALLOWED).header(ALLOW, "GET, HEAD").body(Full::default())
            }
            _ => response.status(StatusCode::NOT_FOUND).body(Full::from("There is only /metrics here.\n")),
        };
        response.expect("our own headers are valid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_bounded_reason() {
        for (why, expected) in [
            ("it expired 12s ago (exp)", "exp"),
            ("its issuer (iss) is `a (exp) b`, expected `c`", "iss"),
            ("its algorithm (alg) is not that of its key", "alg"),
            ("its signature is not that of the expected issuer", "signature"),
            ("it is not ASCII", "form"),
            ("it was not issued after its user's block (blocked)", "blocked"),
        ] {
            assert_eq!(reason(why), expected, "{why}");
        }
    }
}
