//! Publishing the contract, and explaining its problems.

use bytes::Bytes;
use poem::{
    Endpoint, EndpointExt, Request, Response, Route,
    endpoint::make_sync,
    error::NotFoundError,
    get,
    http::{StatusCode, header},
};

use super::Contract;
use crate::problem::{KINDS, Kind};

const HTML: &str = "text/html; charset=utf-8";

/// The routes that are about the contract rather than in it.
#[must_use]
pub fn routes() -> Route {
    let contract = Contract::get();
    Route::new()
        .at("/openapi.json", page("application/json", contract.json.clone()))
        .at("/openapi.yaml", page("application/yaml", contract.yaml.clone()))
        .at("/docs", page(HTML, contract.docs.clone()))
        .at("/problems", page(HTML, problems(KINDS).into()))
        .at("/problems/:slug", get(make_sync(|request| one_problem(&request))))
}

fn one_problem(request: &Request) -> poem::Result<Response> {
    let slug = request.raw_path_param("slug");
    let kind = KINDS.iter().find(|kind| Some(kind.slug) == slug).ok_or(NotFoundError)?;
    Ok(content(HTML, problems(&[kind]).into()))
}

fn page(media_type: &'static str, body: Bytes) -> impl Endpoint<Output = Response> + 'static {
    get(make_sync(move |_| content(media_type, body.clone()))).map_to_response()
}

fn content(media_type: &'static str, body: Bytes) -> Response {
    Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, media_type).body(body)
}

/// A page that explains `kinds`.
fn problems(kinds: &[&Kind]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Taskpact: problems</title>\
         <style>body{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;padding:0 1rem}</style>",
    );
    for Kind { status, slug, title, meaning, remedy } in kinds {
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
