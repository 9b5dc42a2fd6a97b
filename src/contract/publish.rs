//! Publishing the contract, and explaining its problems.

use std::sync::LazyLock;

use bytes::Bytes;
use poem::{
    Endpoint, EndpointExt, Request, Response, Route,
    endpoint::make_sync,
    error::NotFoundError,
    get,
    http::{StatusCode, header},
};

use super::{
    Contract, RELEASED, Rendition, VERSION,
    pages::{self, Page},
};
use crate::problem::{ProblemType, types};

const YAML: &str = "application/yaml";
/// Whoever has it asks whether it is still the same.
const ASK_AGAIN: &str = "no-cache";
/// What is large, and does not change while the program runs.
const FOR_MINUTES: &str = "max-age=300";

/// The routes that are about the contract rather than in it. In development mode the docs page is filled in.
#[must_use]
pub fn routes(contract: &Contract, development: bool) -> Route {
    let Rendition { json, yaml } = &contract.document;
    let (for_docs, for_3_1, current) = (json.clone(), json.clone(), yaml.clone());
    let in_3_1 = LazyLock::new(move || super::openapi_3_1(&for_3_1).yaml);
    // Larger than all the rest that a server keeps, so it is made when it is asked for first.
    let docs = LazyLock::new(move || {
        let json = str::from_utf8(&for_docs).expect("JSON is UTF-8");
        pages::docs(json, development)
    });
    Route::new()
        .at("/", page(|_| Ok(shown(&pages::greeting(), ASK_AGAIN))))
        .at("/docs", page(move |_| Ok(shown(&docs, FOR_MINUTES))))
        .at("/problems", page(|_| Ok(shown(&pages::problems(types::ALL), ASK_AGAIN))))
        .at("/problems/:slug", page(|request| one_problem(&request)))
        .at("/openapi.json", file("application/json", json.clone()))
        .at("/openapi.yaml", file(YAML, yaml.clone()))
        .at("/openapi-3.1.yaml", page(move |_| Ok(content(YAML, Bytes::clone(&in_3_1)))))
        .at("/openapi/:file", page(move |request| one_version(&request, &current)))
}

fn page(
    answer: impl Fn(Request) -> poem::Result<Response> + Send + Sync + 'static,
) -> impl Endpoint<Output = Response> + 'static {
    get(make_sync(answer)).map_to_response()
}

fn file(media_type: &'static str, body: Bytes) -> impl Endpoint<Output = Response> + 'static {
    page(move |_| Ok(content(media_type, body.clone())))
}

fn one_problem(request: &Request) -> poem::Result<Response> {
    let problem = request.raw_path_param("slug").and_then(ProblemType::find).ok_or(NotFoundError)?;
    Ok(shown(&pages::problems(&[problem]), ASK_AGAIN))
}

/// The contract of one version: of this program's, or of one that was released.
fn one_version(request: &Request, current: &Bytes) -> poem::Result<Response> {
    let version = request.raw_path_param("file").and_then(|file| file.strip_suffix(".yaml")).ok_or(NotFoundError)?;
    let released = |version| RELEASED.iter().find(|(released, _)| *released == version).map(|(_, yaml)| (*yaml).into());
    let yaml = if version == VERSION { Some(current.clone()) } else { released(version) };
    Ok(content(YAML, yaml.ok_or(NotFoundError)?))
}

fn content(media_type: &'static str, body: Bytes) -> Response {
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CACHE_CONTROL, ASK_AGAIN)
        .body(body)
}

/// A page as it is answered. Tokens are entered on one of them: none is shown within a page of somebody else's, and none tells
/// where its visitors come from.
fn shown(page: &Page, caching: &'static str) -> Response {
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .header(header::CACHE_CONTROL, caching)
        .header(header::CONTENT_SECURITY_POLICY, page.policy.clone())
        .header(header::X_FRAME_OPTIONS, "DENY")
        .header(header::REFERRER_POLICY, "no-referrer")
        .body(page.html.clone())
}
