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

use super::{Contract, RELEASED, Rendition, VERSION};
use crate::problem::{ProblemType, types};

const YAML: &str = "application/yaml";
const HTML: &str = "text/html; charset=utf-8";

/// The routes that are about the contract rather than in it.
#[must_use]
pub fn routes(contract: &Contract) -> Route {
    let Rendition { json, yaml } = &contract.document;
    let (for_docs, for_3_1, current) = (json.clone(), json.clone(), yaml.clone());
    Route::new()
        .at("/openapi.json", page("application/json", json.clone()))
        .at("/openapi.yaml", page(YAML, yaml.clone()))
        .at("/openapi-3.1.yaml", made_later(YAML, move || super::openapi_3_1(&for_3_1).yaml))
        .at("/openapi/:file", get(make_sync(move |request| one_version(&request, &current))))
        // Larger than all the rest that a server keeps.
        .at("/docs", made_later(HTML, move || super::docs(str::from_utf8(&for_docs).expect("JSON is UTF-8")).into()))
        .at("/problems", page(HTML, problems(types::ALL).into()))
        .at("/problems/:slug", get(make_sync(|request| one_problem(&request))))
}

fn one_problem(request: &Request) -> poem::Result<Response> {
    let problem = request.raw_path_param("slug").and_then(ProblemType::find).ok_or(NotFoundError)?;
    Ok(content(HTML, problems(&[problem]).into()))
}

fn page(media_type: &'static str, body: Bytes) -> impl Endpoint<Output = Response> + 'static {
    get(make_sync(move |_| content(media_type, body.clone()))).map_to_response()
}

/// A page that is made when it is asked for first.
fn made_later(
    media_type: &'static str,
    make: impl FnOnce() -> Bytes + Send + 'static,
) -> impl Endpoint<Output = Response> + 'static {
    let page = LazyLock::new(make);
    get(make_sync(move |_| content(media_type, Bytes::clone(&page)))).map_to_response()
}

/// The contract of one version: of this program's, or of one that was released.
fn one_version(request: &Request, current: &Bytes) -> poem::Result<Response> {
    let version = request.raw_path_param("file").and_then(|file| file.strip_suffix(".yaml")).ok_or(NotFoundError)?;
    let released = |version| RELEASED.iter().find(|(released, _)| *released == version).map(|(_, yaml)| (*yaml).into());
    let yaml = if version == VERSION { Some(current.clone()) } else { released(version) };
    Ok(content(YAML, yaml.ok_or(NotFoundError)?))
}

fn content(media_type: &'static str, body: Bytes) -> Response {
    Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, media_type).body(body)
}

/// A page that explains these problem types.
fn problems(explained: &[&ProblemType]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Taskpact: problems</title>\
         <style>body{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;padding:0 1rem}</style>",
    );
    for ProblemType { status, slug, title, meaning, remedy } in explained {
        page += &format!(
            "<h2 id=\"{slug}\"><a href=\"/problems/{slug}\">{title}</a></h2><p>Status {status}</p>\
             <p>{}</p><p><strong>What to do:</strong> {}</p>",
            html(meaning),
            html(remedy)
        );
    }
    page + "<p><a href=\"/problems\">All problems</a> · <a href=\"/docs\">Operations</a></p></html>"
}

/// Our own words as HTML.
fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
