//! Whatever a user sends to the operations: it is served or refused, and nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use poem::{
    Body, Request,
    http::{HeaderValue, Method, Uri},
};

mod server;

use server::{SERVER, USER};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    operation: u8,
    id: &'a str,
    query: Option<&'a str>,
    if_match: Option<&'a [u8]>,
    if_none_match: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    is_json: bool,
    body: &'a [u8],
}

fuzz_target!(|input: Input| {
    let tasks = format!("/api/{USER}/tasks");
    let task = format!("{tasks}/{}", input.id);
    let (method, path) = match input.operation % 6 {
        0 => (Method::GET, tasks),
        1 => (Method::POST, tasks),
        2 => (Method::GET, task),
        3 => (Method::PUT, task),
        4 => (Method::DELETE, task),
        _ => (Method::PATCH, task + "/complete"),
    };
    let target = match input.query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // What is none never becomes a request.
    let Ok(uri) = target.parse::<Uri>() else { return };
    let mut request =
        Request::builder().method(method).uri(uri).header("Authorization", format!("Bearer {}", SERVER.token));
    let headers =
        [("If-Match", input.if_match), ("If-None-Match", input.if_none_match), ("Idempotency-Key", input.key)];
    for (name, value) in headers {
        let Some(value) = value else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        request = request.header(name, value);
    }
    if input.is_json {
        request = request.header("Content-Type", "application/json");
    }
    if !input.body.is_empty() {
        request = request.header("Content-Length", input.body.len());
    }
    SERVER.answer(request.body(Body::from_vec(input.body.to_vec())));
});
