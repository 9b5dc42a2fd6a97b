//! Whatever is sent is served or refused as the contract says: requests that are nearly right, at random.

use fastrand::Rng;
use hyper::Method;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{app, id};
use crate::support::{User, unused_id};

/// How many requests are tried.
const REQUESTS: usize = 600;

/// Text of characters that make trouble.
fn text(random: &mut Rng, most: usize) -> String {
    const CHARACTERS: &[&str] = &[
        "a",
        "Z",
        "0",
        " ",
        "\t",
        "\n",
        "\"",
        "\\",
        "/",
        "*",
        ",",
        "'",
        ";",
        "%",
        "&",
        "=",
        "\u{0}",
        "\u{7f}",
        "é",
        "ß",
        "日",
        "\u{200b}",
        "\u{202e}",
        "\u{1f600}",
        "\u{fe0f}",
        "\u{e0061}",
        "\u{feff}",
        "\u{fffd}",
        "\u{10ffff}",
    ];
    let length = random.usize(0..=most);
    (0..length).map(|_| CHARACTERS[random.usize(0..CHARACTERS.len())]).collect()
}

fn value(random: &mut Rng, depth: usize) -> Value {
    match random.u8(0..if depth > 0 { 9 } else { 6 }) {
        0 => Value::Null,
        1 => random.bool().into(),
        2 => random.i64(..).into(),
        3 => random.f64().into(),
        4 => text(random, 8).into(),
        5 => text(random, 1100).into(),
        6 => (0..random.usize(0..4)).map(|_| value(random, depth - 1)).collect(),
        _ => object(random, depth - 1),
    }
}

fn object(random: &mut Rng, depth: usize) -> Value {
    let mut object = json!({});
    for name in ["title", "description", "completed"] {
        if random.bool() {
            object[name] = match name {
                "completed" if random.bool() => random.bool().into(),
                _ if random.bool() => text(random, 210).into(),
                _ => value(random, depth),
            };
        }
    }
    if random.u8(0..5) == 0 {
        object[text(random, 5)] = value(random, depth);
    }
    object
}

/// A body: right, nearly right, broken off, or with a byte changed.
fn body(random: &mut Rng) -> Vec<u8> {
    let mut body = if random.bool() { object(random, 2) } else { value(random, 3) }.to_string().into_bytes();
    match random.u8(0..6) {
        0 => body.truncate(random.usize(0..=body.len())),
        1 if !body.is_empty() => {
            let at = random.usize(0..body.len());
            body[at] = random.u8(..);
        }
        2 => body.extend(text(random, 5).into_bytes()),
        _ => {}
    }
    body
}

fn header(random: &mut Rng) -> Vec<u8> {
    let tag = |random: &mut Rng| match random.u8(0..5) {
        0 => "*".to_owned(),
        1 => format!("W/\"{}\"", random.u8(0..4)),
        2 => format!("\"{}\"", text(random, 4)),
        3 => text(random, 12),
        _ => format!("\"{}\"", random.u8(0..4)),
    };
    let count = if random.u8(0..20) == 0 { 60 } else { random.usize(1..4) };
    let list: Vec<_> = (0..count).map(|_| tag(random)).collect();
    // What can't stand in a header never becomes a request.
    list.join(", ").bytes().filter(|byte| *byte >= 0x20 && *byte != 0x7f).collect()
}

fn query(random: &mut Rng) -> String {
    let mut query = String::new();
    for name in ["status", "limit", "cursor", "x"] {
        if random.bool() {
            let value = match random.u8(0..6) {
                0 => "completed".to_owned(),
                1 => random.u16(..).to_string(),
                2 => unused_id(),
                3 => random.i64(..).to_string(),
                _ => text(random, 10),
            };
            let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            query += &format!("{}{name}={value}", if query.is_empty() { '?' } else { '&' });
        }
    }
    query
}

/// Sends one request, which is held against the contract, and tells its status.
async fn one(ann: &User, task: &str, random: &mut Rng) -> u16 {
    let of_task = match random.u8(0..6) {
        0 => unused_id(),
        1 => form_urlencoded::byte_serialize(text(random, 8).as_bytes()).collect(),
        _ => task.to_owned(),
    };
    let (method, path) = match random.u8(0..5) {
        0 => (Method::GET, ann.tasks()),
        1 => (Method::POST, ann.tasks()),
        2 => (Method::GET, ann.task(&of_task)),
        3 => (Method::PUT, ann.task(&of_task)),
        _ => (Method::PATCH, ann.task(&of_task) + "/complete"),
    };
    let mut call = ann.call(method.clone(), path + &query(random));
    for name in ["If-Match", "If-None-Match", "Idempotency-Key"] {
        if random.u8(0..4) == 0 {
            call = call.header(name, header(random));
        }
    }
    if method != Method::GET {
        call = call.body(body(random));
        if random.u8(0..6) > 0 {
            call = call.header("Content-Type", "application/json");
        }
    }
    call.send().await.status.as_u16()
}

#[tokio::test]
async fn whatever_is_sent_is_answered_as_the_contract_says() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    let mut served = 0;
    for n in 0..REQUESTS {
        let status = one(&ann, id(&task), &mut random).await;
        assert!(status < 500, "request {n} of seed {seed} was answered {status}");
        served += usize::from(status < 300);
    }
    assert!(served > REQUESTS / 20, "{served} of seed {seed} were served: the others tell little");
}
