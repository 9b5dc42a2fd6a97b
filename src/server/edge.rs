//! What every request passes on its way in, and every answer on its way out: the request's id, cross-origin rules, the
//! deadline, the last word on failures, and one line in the log.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use poem::{
    Endpoint, EndpointExt, Request, Response, RouteMethod,
    endpoint::BoxEndpoint,
    http::{HeaderValue, Method, Uri, header, uri::PathAndQuery},
};
use poem_openapi::OpenApi;
use tokio::time;

use super::cors::Cors;
use crate::{
    api,
    auth::Verifier,
    clock::Clock,
    config::Config,
    contract::{self, Contract, Operation},
    problem::Fault,
    request_id::{self, RequestId},
    store::Store,
};

/// The way in and out.
pub(super) struct Edge {
    routes: BoxEndpoint<'static>,
    contract: Contract,
    cors: Cors,
    deadline: Duration,
    clock: Clock,
}

impl fmt::Debug for Edge {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Edge {
    pub(super) fn new(config: &Config, store: Store, verifier: Verifier) -> Self {
        // As `OpenApiService` does it, but without its cookies and its own reading of the query, which nobody uses.
        let mut table = HashMap::new();
        api::operations(store).add_routes(&mut table);
        let contract = Contract::new();
        let mut routes = contract::routes(&contract);
        for (path, methods) in table {
            let methods = methods.into_iter().fold(RouteMethod::new(), |all, (method, run)| all.method(method, run));
            routes = routes.at(path, methods);
        }
        Self {
            routes: routes.data(verifier).data(contract.validators()).map_to_response().boxed(),
            contract,
            cors: Cors::new(&config.cors),
            deadline: Duration::from_millis(config.server.request_timeout_ms.get()),
            clock: Clock,
        }
    }

    /// Answers a request, whatever happens.
    pub(super) async fn answer(&self, mut request: Request) -> Response {
        let started = Instant::now();
        let method = request.method().clone();
        let request_id = self.request_id(&request);
        let origin = self.cors.allowed_origin(&request);
        if method == Method::HEAD {
            // hyper knows what was asked and leaves the body away, but not its length.
            request.set_method(Method::GET);
        }
        trim_slash(request.uri_mut());
        let operation = self.contract.operation(request.method(), request.uri().path());
        let mut line = Line { method, operation, request_id: &request_id, started, status: None };

        let preflight = origin.as_ref().and_then(|_| Cors::preflight(&request));
        let mut answer = match preflight {
            Some(answer) => answer,
            None => self.run(request, operation, &request_id).await,
        };

        let headers = answer.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let id = HeaderValue::from_str(request_id.as_str()).expect("a request's id is printable");
        headers.insert(request_id::HEADER, id);
        Cors::expose(origin, headers);

        line.status = Some(answer.status().as_u16());
        drop(line);
        answer
    }

    async fn run(&self, request: Request, operation: Option<&Operation>, request_id: &RequestId) -> Response {
        let path = request.uri().path().to_owned();
        let work = AssertUnwindSafe(self.routes.call(request)).catch_unwind();
        let fault = match time::timeout(self.deadline, work).await {
            Ok(Ok(Ok(answer))) => return answer,
            Ok(Ok(Err(error))) => Fault::from_poem_error(error, || self.methods(&path)),
            Ok(Err(_)) => Fault::defect("a panic; its place is in the log line before"),
            Err(_) => Fault::TooSlow,
        };
        let problem = fault.problem_type();
        let fault = match operation {
            // What the routes refuse has not reached the operation. (An empty task id at the end of a path is no path of
            // poem's, and in the middle it is one.)
            _ if matches!(fault, Fault::NoSuchPath | Fault::MethodNotAllowed { .. }) => fault,
            Some(operation) if !operation.declares(problem) => {
                Fault::defect(format!("{} does not declare `{}`", operation.id, problem.slug))
            }
            _ => fault,
        };
        if fault.problem_type().status.is_server_error() {
            let operation = name(operation);
            let cause = fault.cause();
            tracing::error!(%request_id, operation, cause, "{operation} failed: {cause}");
        }
        if let Fault::InvalidToken(reason) = &fault {
            tracing::debug!(%request_id, operation = name(operation), "refused a token: {reason}");
        }
        fault.answer(request_id)
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

/// The line that a request leaves in the log: when it has been answered, or when the caller has hung up before.
struct Line<'r> {
    method: Method,
    operation: Option<&'r Operation>,
    request_id: &'r RequestId,
    started: Instant,
    status: Option<u16>,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let Self { method, request_id, started, .. } = self;
        let operation = name(self.operation);
        #[expect(clippy::cast_precision_loss, reason = "a request's microseconds are exact in 53 bits")]
        let duration_ms = started.elapsed().as_micros() as f64 / 1e3;
        if let Some(status) = self.status {
            tracing::info!(operation, status, duration_ms, %request_id, "{method} {operation} {status}");
        } else {
            tracing::info!(operation, duration_ms, %request_id, "{method} {operation}: the caller hung up");
        }
    }
}

/// What an operation is called in the log.
fn name(operation: Option<&Operation>) -> &str {
    operation.map_or("-", |operation| &operation.id)
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
    use poem::{IntoResponse, Route, endpoint::make_sync, error::InternalServerError, http::StatusCode};
    use serde_json::Value;

    use super::*;

    /// An edge before an endpoint at `/health`, which declares no problem but a defect.
    fn edge(endpoint: impl Endpoint<Output = Response> + 'static, deadline: Duration) -> Edge {
        before(Route::new().at("/health", endpoint), deadline)
    }

    fn before(routes: Route, deadline: Duration) -> Edge {
        Edge {
            routes: routes.boxed(),
            contract: Contract::new(),
            cors: Cors::new(&Config::default().cors),
            deadline,
            clock: Clock,
        }
    }

    async fn ask(edge: &Edge) -> (StatusCode, Value) {
        let request = Request::builder().uri_str("/health").header("X-Request-Id", "mine").finish();
        let answer = edge.answer(request).await;
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
        for (method, expected) in [(Method::PUT, "internal"), (Method::POST, "idempotency-key-reused")] {
            let path = if method == Method::POST { "/api/ann/tasks" } else { path };
            let request = Request::builder().method(method).uri_str(path).finish();
            let answer = edge.answer(request).await.into_body().into_json::<Value>().await.unwrap();
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
