//! What every request passes on its way in, and every answer on its way out: the request's id, cross-origin rules, the
//! deadline, the last word on failures, and one line in the log.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use hyper::body::{Body as _, Incoming};
use poem::{
    Body, Endpoint, Request, Response, Route,
    http::{
        HeaderMap, HeaderValue, Method, Uri, Version,
        header::{CACHE_CONTROL, CONNECTION, ETAG, EXPECT, HOST, X_CONTENT_TYPE_OPTIONS},
        uri::{PathAndQuery, Scheme},
    },
    web::{LocalAddr, RemoteAddr},
};
use tokio::time;

use super::{
    body::Lender,
    compress,
    cors::Cors,
    log_line::{LogLine, name, trace_id},
    metrics::Traffic,
    peers::{Peer, Peers, Phase},
    prefix::{self, Prefix},
    timing,
};
use crate::{
    api,
    auth::Verifier,
    clock::Clock,
    config::{Config, Secret},
    contract::{self, Contract, Operation},
    limits::{Drawn, Limits},
    problem::Fault,
    request::{Violations, Wait},
    request_id::{self, RequestId},
    store::Store,
    telemetry,
};

/// The operations that are served when nothing else is.
const LIVENESS: &str = "getHealth";
const READINESS: &str = "getReadiness";
/// The operation that waits, if it is asked to.
const CHANGES: &str = "listChanges";

/// The way in and out.
pub(super) struct Edge {
    routes: Route,
    verifier: Verifier,
    contract: Contract,
    cors: Cors,
    prefix: Prefix,
    peers: Arc<Peers>,
    limits: Limits,
    deadline: Duration,
    clock: Clock,
    pub(super) traffic: Traffic,
    /// What users are hashed with in the log.
    user_key: Option<Secret>,
    /// Whether answers say where their time went.
    tells_timing: bool,
}

impl fmt::Debug for Edge {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Edge {
    pub(super) fn new(config: &Config, store: Store, verifier: Verifier, limits: Limits, peers: Arc<Peers>) -> Self {
        let contract = Contract::new();
        let routes = api::add_routes(store, contract::routes(&contract, !config.auth.is_set()));
        Self {
            routes,
            verifier,
            cors: Cors::new(config, &contract),
            contract,
            prefix: Prefix::new(&config.server),
            peers,
            limits,
            deadline: Duration::from_millis(config.server.request_timeout_ms.get()),
            clock: Clock,
            traffic: Traffic::default(),
            user_key: config.log.user_key.clone(),
            tells_timing: config.server.timing,
        }
    }

    /// Answers what hyper has read, whatever happens, and leaves the connection usable or says that it ends.
    pub(super) async fn serve(&self, request: hyper::Request<Incoming>, peer: &Arc<Peer>) -> Response {
        // hyper has asked for the answer only now that the last one has been taken.
        peer.enter(Phase::Serving);
        let (parts, body) = request.into_parts();
        let waits =
            parts.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let lender = (!body.is_end_stream()).then(Lender::default);
        let body = match &lender {
            Some(lender) => http_body_util::combinators::BoxBody::new(lender.lend(body, Arc::clone(peer))).into(),
            None => Body::empty(),
        };
        let parts = (parts, LocalAddr::default(), RemoteAddr(peer.address.into()), Scheme::HTTP).into();
        self.answer(Request::from_parts(parts, body), peer, lender.map(|lender| (lender, waits))).await
    }

    /// Answers a request, whatever happens. `lender` has what is left of its body, and knows whether the client waits to be
    /// invited to send it.
    async fn answer(&self, mut request: Request, peer: &Peer, lender: Option<(Lender, bool)>) -> Response {
        let method = request.method().clone();
        let accepts_gzip = compress::is_accepted(request.headers());
        let request_id = self.request_id(&request);
        let origin = self.cors.allowed_origin(&request);
        let prefix = self.prefix.of(&request);
        if method == Method::HEAD {
            // hyper knows what was asked and leaves the body away, but not its length.
            request.set_method(Method::GET);
        }
        trim_slash(request.uri_mut());
        let path = request.uri().path().to_owned();
        let operation = self.contract.operation(request.method(), &path);
        let mut line = LogLine::new(method.clone(), &path, operation, &request_id, &self.traffic);

        line.trace_id = request.header("traceparent").and_then(trace_id).map(str::to_owned);
        line.client = Some(self.limits.client(peer.address.ip(), request.headers()));
        #[cfg(feature = "otlp")]
        {
            line.parent = super::spans::parent(request.headers());
        }
        line.turn = (self.tells_timing || telemetry::sends_spans()).then(Arc::default);
        let (preflight, drawn) = (self.cors.preflight(&request, origin.as_ref()), Drawn::default());
        let work = self.run(request, &path, operation, peer, &drawn);
        let outcome = match (preflight, line.turn.clone()) {
            (Some(answer), _) => Ok(answer),
            (None, Some(turn)) => turn.note(work).await,
            (None, None) => work.await,
        };
        let mut answer = outcome.unwrap_or_else(|fault| {
            self.report(&fault, &mut line);
            fault.answer(&request_id)
        });
        prefix::add(&prefix, &mut answer).await;
        let (mut answer, length) = compress::compress(answer, accepts_gzip).await;
        let is_left = match lender {
            Some((lender, waits)) => !lender.discard_rest(waits, peer).await,
            None => false,
        };
        let length = if method == Method::HEAD { 0 } else { length };
        if !self.peers.gives(peer, length, drawn.owner()).await {
            self.report(&Fault::Crowded, &mut line);
            answer = Fault::Crowded.answer(&request_id);
            self.peers.gives(peer, 0, None).await;
        }

        if let Some(owner) = drawn.owner() {
            // Unless the database has refused it: a block, which the token itself does not show.
            if line.reason.is_none() {
                self.traffic.accepted();
            }
            line.user = self.user_key.as_ref().map(|key| telemetry::pseudonym(key, owner.id()));
        }
        line.bytes = length;
        if answer.headers().contains_key(api::REPLAYED) {
            self.traffic.replayed(&line);
        }
        let is_failure = answer.status().is_server_error();
        let headers = answer.headers_mut();
        if !is_failure {
            drawn.tell(headers);
        }
        mark(headers, &request_id);
        if let Some(turn) = line.turn.as_ref().filter(|_| self.tells_timing) {
            headers.insert(timing::SERVER_TIMING, timing::header(turn, line.started));
        }
        self.cors.expose(origin, headers);
        if is_left || peer.is_spare || self.peers.is_draining() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        line.status = Some(answer.status().as_u16());
        answer
    }

    /// Runs what the request means, within the time that it may take.
    async fn run(
        &self,
        mut request: Request,
        path: &str,
        operation: Option<&Operation>,
        peer: &Peer,
        drawn: &Drawn,
    ) -> Result<Response, Fault> {
        let is = |id| operation.is_some_and(|operation| operation.id == id);
        if self.peers.is_draining() && is(READINESS) {
            return Err(Fault::Stopping);
        }
        if !is(LIVENESS) && !is(READINESS) {
            if peer.is_spare {
                return Err(Fault::Crowded);
            }
            self.limits.count_address(peer.address, request.headers(), drawn)?;
        }
        if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
            return Err(Fault::MalformedRequest("A request of HTTP/1.1 has one header `Host`.".into()));
        }
        request.set_data(self.verifier.clone());
        request.set_data(self.limits.clone());
        request.set_data(drawn.clone());
        request.set_data(self.contract.validators());
        request.set_data(Violations::default());
        // Waiting for a change is no delay.
        let mut wait = Duration::ZERO;
        if is(CHANGES) {
            wait = Wait::in_query(request.uri());
            request.set_data(peer.presence.clone());
        }
        let work = AssertUnwindSafe(self.routes.call(request)).catch_unwind();
        let fault = match time::timeout(self.deadline + wait, work).await {
            Ok(Ok(Ok(answer))) => return Ok(answer),
            Ok(Ok(Err(error))) => Fault::from_poem_error(error, || self.methods(path)),
            Ok(Err(_)) => Fault::defect("a panic; its place is in the log line before"),
            Err(_) if peer.phase() == Phase::Body => Fault::SlowRequest,
            Err(_) => Fault::TooSlow,
        };
        let problem = fault.problem_type();
        match operation {
            // What the routes refuse has not reached the operation. (An empty task id at the end of a path is no path of
            // poem's, and in the middle it is one.)
            _ if matches!(fault, Fault::NoSuchPath | Fault::MethodNotAllowed { .. }) => Err(fault),
            Some(operation) if !operation.declares(problem) => {
                Err(Fault::defect(format!("{} does not declare `{}`", operation.id, problem.slug)))
            }
            _ => Err(fault),
        }
    }

    /// Tells the operator about a request that failed: in the line of the request, and if it is our failure in one of its
    /// own, with the cause.
    fn report(&self, fault: &Fault, line: &mut LogLine<'_>) {
        self.traffic.refused(fault);
        let problem = fault.problem_type();
        line.problem = Some(problem.slug);
        if let Fault::InvalidToken(reason) = fault {
            line.reason = Some(reason.to_string());
        }
        if problem.status.is_server_error() && !matches!(fault, Fault::Crowded | Fault::Stopping) {
            let (operation, cause, request_id) = (name(line.operation), fault.cause(), line.request_id);
            tracing::error!(%request_id, operation, cause, "{operation} failed: {cause}");
        }
    }

    /// What is known at `path`. The pages beside the contract can only be read.
    fn methods(&self, path: &str) -> Vec<Method> {
        let methods = self.contract.methods(path);
        if methods.is_empty() { vec![Method::GET, Method::HEAD] } else { methods }
    }

    fn request_id(&self, request: &Request) -> RequestId {
        let given = request.header(request_id::HEADER).and_then(RequestId::parse);
        given.unwrap_or_else(|| self.clock.new_request_id().into())
    }
}

/// Adds what every answer has, also one to what is no request.
pub(super) fn mark(headers: &mut HeaderMap, request_id: &RequestId) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What has an entity tag is its user's alone, and the browser may keep it, if it asks each time whether it is still the same.
    let caching = if headers.contains_key(ETAG) { "private, no-cache" } else { "no-store" };
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static(caching));
    headers.insert(contract::VERSION_HEADER, HeaderValue::from_static(contract::VERSION));
    let id = HeaderValue::from_str(request_id.as_str()).expect("a request's id is printable");
    headers.insert(request_id::HEADER, id);
}

/// Removes a slash at the end of the path: both forms are the same operation.
fn trim_slash(uri: &mut Uri) {
    let Some(trimmed) = uri.path().strip_suffix('/').filter(|path| !path.is_empty()) else { return };
    let whole = match uri.query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).expect("a part of a path is a path"));
    *uri = Uri::from_parts(parts).expect("the other parts are as they were");
}

#[cfg(test)]
mod tests {
    use poem::{IntoResponse, endpoint::make_sync, error::InternalServerError, http::StatusCode};
    use serde_json::Value;

    use super::*;

    /// An edge before an endpoint at `/health`, which declares no problem but a defect.
    fn edge(endpoint: impl Endpoint<Output = Response> + 'static, deadline: Duration) -> Edge {
        before(Route::new().at("/health", endpoint), deadline)
    }

    fn before(routes: Route, deadline: Duration) -> Edge {
        let (mut config, contract) = (Config::default(), Contract::new());
        config.auth.secret = Some("a secret that nobody uses".to_owned().into());
        let verifier = Verifier::new(&config.auth).now_or_never();
        Edge {
            routes,
            verifier: verifier.expect("it needs nobody").unwrap(),
            cors: Cors::new(&config, &contract),
            contract,
            prefix: Prefix::new(&config.server),
            peers: Arc::new(Peers::new(&config.server, 1)),
            limits: Limits::new(&config.limits),
            deadline,
            clock: Clock,
            traffic: Traffic::default(),
            user_key: config.log.user_key.clone(),
            tells_timing: config.server.timing,
        }
    }

    async fn ask(edge: &Edge) -> (StatusCode, Value) {
        let request = Request::builder().uri_str("/health").header("Host", "x").header("X-Request-Id", "mine").finish();
        let answer = edge.answer(request, &edge.peers.admit(([127, 0, 0, 1], 1).into()).unwrap(), None).await;
        assert_eq!(answer.header("X-Request-Id"), Some("mine"));
        let status = answer.status();
        (status, serde_json::from_str(&answer.into_body().into_string().await.unwrap()).unwrap())
    }

    async fn is_internal(endpoint: impl Endpoint<Output = Response> + 'static) {
        let (status, problem) = ask(&edge(endpoint, Duration::from_secs(10))).await;
        assert_eq!((status, &problem["type"]), (StatusCode::INTERNAL_SERVER_ERROR, &"/problems/internal".into()));
        assert_eq!(problem["request_id"], "mine");
        assert!(!problem.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_next_request_too() {
        let panics = || make_sync(|_| -> Response { panic!("a secret") });
        is_internal(panics()).await;
        let edge = edge(panics(), Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(ask(&edge).await.0, StatusCode::INTERNAL_SERVER_ERROR);
        }
    }

    #[tokio::test]
    async fn a_failure_that_the_operation_does_not_declare_is_a_defect_of_ours() {
        is_internal(make_sync(|_| -> poem::Result<Response> { Err(Fault::NoSuchTask.into()) })).await;
    }

    #[tokio::test]
    async fn a_problem_is_declared_by_its_type_and_not_by_its_status() {
        // `updateTask` declares 422 for its body, and takes no key.
        let path = "/api/ann/tasks/019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57";
        let reused = || make_sync(|_| -> poem::Result<Response> { Err(Fault::KeyReused.into()) });
        let routes = Route::new().at(path, reused()).at("/api/ann/tasks", reused());
        let edge = before(routes, Duration::from_secs(10));
        let peer = edge.peers.admit(([127, 0, 0, 1], 1).into()).unwrap();
        for (method, expected) in [(Method::PUT, "internal"), (Method::POST, "idempotency-key-reused")] {
            let path = if method == Method::POST { "/api/ann/tasks" } else { path };
            let request = Request::builder().method(method).uri_str(path).header("Host", "x").finish();
            let answer = edge.answer(request, &peer, None).await.into_body().into_json::<Value>().await.unwrap();
            assert_eq!(answer["type"], format!("/problems/{expected}"));
        }
    }

    #[tokio::test]
    async fn a_failure_that_nobody_knows_shows_nothing_of_itself() {
        let unknown = || InternalServerError(std::io::Error::other("a secret"));
        is_internal(make_sync(move |_| -> poem::Result<Response> { Err(unknown()) })).await;
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up() {
        let sleeps = poem::endpoint::make(|_| async {
            time::sleep(Duration::from_mins(1)).await;
            StatusCode::OK.into_response()
        });
        // Where it is declared, as it is for every operation that asks the database, it is a 503; the suite shows that.
        assert_eq!(ask(&edge(sleeps, Duration::from_millis(10))).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn one_slash_at_the_end_is_removed() {
        for (given, expected) in [
            ("/", "/"),
            ("/a/", "/a"),
            ("/a", "/a"),
            ("/a//", "/a/"),
            ("/a/?b=/", "/a?b=/"),
            ("http://host/a/?b", "http://host/a?b"),
        ] {
            let mut uri = given.parse().unwrap();
            trim_slash(&mut uri);
            assert_eq!(uri.to_string(), expected);
        }
    }
}
