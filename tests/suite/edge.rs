//! What every request meets: ids, slashes, HEAD, unknown paths and methods, origins, broken requests.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{app, id};
use crate::{
    BACKEND,
    support::{Call, Reply, TestApp, User, contract::OPERATIONS, unused_id},
};

/// Sends bytes as they are, and gives back what the server answers until it closes or is silent.
pub(super) async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let mut answer = Vec::new();
    let writing = async {
        // A server that closes early makes this fail; what counts is what it said.
        let _ = write.write_all(request).await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(Duration::from_secs(2), read.read(&mut chunk)).await {
            answer.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_keeps_a_sane_one() {
    let app = app().await;
    let ann = app.new_user();
    let with = async |given: &str| {
        let reply = ann.call(Method::GET, ann.tasks()).header("X-Request-Id", given).send().await;
        reply.is(200).header("x-request-id").unwrap().to_owned()
    };

    for sane in ["a", "7f3-x_Y.z", &"x".repeat(128)] {
        assert_eq!(with(sane).await, sane);
    }
    for strange in ["", " ", "a b", "<script>", "a\"b", "é", &"x".repeat(129)] {
        let made = with(strange).await;
        assert!(made != strange && uuid::Uuid::try_parse(&made).is_ok(), "{made}");
    }
    let first = ann.list("").await;
    assert_ne!(first.header("x-request-id"), ann.list("").await.header("x-request-id"));

    let refusal = ann.call(Method::GET, "/nowhere").header("X-Request-Id", "mine").send().await;
    assert_eq!((refusal.header("x-request-id"), &refusal.json()["request_id"]), (Some("mine"), &json!("mine")));
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    let app = app().await;
    let ann = app.new_user();

    let created = ann.call(Method::POST, ann.tasks() + "/").json(json!({"title": "t"})).send().await;
    let task = created.is(201).json();
    assert_eq!(created.header("location"), Some(&*ann.task(id(&task))));
    ann.post(json!({"title": "u"})).await.is(201);

    let page = ann.call(Method::GET, ann.tasks() + "/?limit=1").send().await;
    assert!(page.is(200).header("link").unwrap().starts_with(&format!("<{}?limit=1&cursor=", ann.tasks())));
    let path = ann.task(id(&task)) + "/";
    assert_eq!(ann.call(Method::GET, &path).send().await.is(200).json(), task);
    ann.call(Method::PUT, &path).json(json!({"title": "v"})).send().await.is(200);
    ann.call(Method::PATCH, path.clone() + "complete/").send().await.is(200);
    ann.call(Method::DELETE, &path).send().await.is(204);
    app.anybody().call(Method::GET, "/health/").send().await.is(200);
    app.anybody().call(Method::GET, "/health/ready/").send().await.is(200);
    app.anybody().call(Method::GET, "/docs/").send().await.is(200);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    for path in [
        ann.tasks(),
        ann.task(id(&task)),
        "/health".into(),
        "/health/ready".into(),
        "/openapi.json".into(),
        "/docs".into(),
        "/nowhere".into(),
    ] {
        let (head, get) = (ann.call(Method::HEAD, &path).send().await, ann.call(Method::GET, &path).send().await);
        assert_eq!((head.status, head.bytes.len()), (get.status, 0), "{path}");
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    let tag = ann.get(id(&task)).await.header("etag").unwrap().to_owned();
    ann.call(Method::HEAD, ann.task(id(&task))).header("If-None-Match", tag).send().await.is(304);
    app.anybody().call(Method::HEAD, ann.tasks()).send().await.is(401);
    let complete = ann.call(Method::HEAD, ann.task(id(&task)) + "/complete").send().await;
    assert_eq!(complete.is(405).header("allow"), Some("PATCH"));
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let app = app().await;
    let ann = app.new_user();

    for path in [
        "/api",
        "/api/tasks",
        "/API/x/tasks",
        "/api/x/tasks/y/z",
        "/api/x/tasks/y/complete/z",
        "/%00",
        "/%FF",
        "/docs/x",
        "/openapi.yml",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let reply = ann.call(method, path).send().await;
            assert_eq!(
                reply.is_problem(404, "no-such-path").detail(),
                "There is nothing at this path. The operations are listed at /docs."
            );
        }
    }
    ann.call(Method::GET, "/problems/unheard-of").send().await.is_problem(404, "no-such-path");
}

#[tokio::test]
async fn an_unknown_method_is_told_the_known_ones() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.task(&unused_id());

    for (method, path, known) in [
        ("PUT", ann.tasks(), "GET, HEAD, POST"),
        ("DELETE", ann.tasks() + "/", "GET, HEAD, POST"),
        ("POST", task.clone(), "GET, HEAD, PUT, DELETE"),
        ("PATCH", task.clone(), "GET, HEAD, PUT, DELETE"),
        ("OPTIONS", task.clone(), "GET, HEAD, PUT, DELETE"),
        ("GET", task.clone() + "/complete", "PATCH"),
        ("BREW", task + "/complete", "PATCH"),
        ("PUT", "/api//tasks".into(), "GET, HEAD, POST"),
        ("POST", "/health".into(), "GET, HEAD"),
        ("TRACE", "/health/ready".into(), "GET, HEAD"),
        ("POST", "/docs".into(), "GET, HEAD"),
        ("PUT", "/problems/internal".into(), "GET, HEAD"),
    ] {
        let reply = ann.call(method.parse().unwrap(), &path).send().await;
        assert_eq!(reply.is_problem(405, "method-not-allowed").header("allow"), Some(known), "{method} {path}");
    }
}

#[tokio::test]
async fn an_empty_part_of_the_path_is_no_user_and_no_task() {
    let app = app().await;
    let ann = app.new_user();

    ann.call(Method::GET, "/api//tasks").send().await.is_problem(403, "forbidden");
    ann.call(Method::PATCH, ann.tasks() + "//complete").send().await.is_problem(404, "no-such-task");
    ann.call(Method::GET, ann.tasks() + "//").send().await.is_problem(404, "no-such-path");
}

#[tokio::test]
async fn health_needs_no_token() {
    let app = app().await;
    for path in ["/health", "/health/ready"] {
        let (version, commit) = (taskpact::contract::VERSION, taskpact::api::COMMIT);
        let expected = json!({"status": "ok", "version": version, "commit": commit});
        assert_eq!(app.anybody().call(Method::GET, path).send().await.is(200).json(), expected);
    }
}

#[tokio::test]
async fn the_contract_and_its_pages_are_served() {
    let app = app().await;
    let get = async |path: &str| app.anybody().call(Method::GET, path).send().await;

    let json = get("/openapi.json").await;
    assert_eq!(
        (json.is(200).header("content-type"), json.json()),
        (Some("application/json"), crate::support::contract::DOCUMENT.clone())
    );
    let yaml = get("/openapi.yaml").await;
    assert_eq!(yaml.is(200).header("content-type"), Some("application/yaml"));
    assert_eq!(yaml.bytes, std::fs::read("api-spec.yaml").unwrap());
    let in_3_1 = get("/openapi-3.1.yaml").await;
    assert_eq!(in_3_1.is(200).bytes, std::fs::read("api-spec-3.1.yaml").unwrap());
    // The contract that an answer says it keeps.
    let kept = get(&format!("/openapi/{}.yaml", yaml.header("api-version").unwrap())).await;
    assert_eq!((kept.is(200).header("content-type"), &kept.bytes), (Some("application/yaml"), &yaml.bytes));
    for unknown in ["/openapi/0.0.1.yaml", "/openapi/0.1.0", "/openapi/0.1.0.yaml.yaml", "/openapi/"] {
        get(unknown).await.is_problem(404, "no-such-path");
    }

    let docs = get("/docs").await;
    let page = String::from_utf8(docs.is(200).bytes.to_vec()).unwrap();
    assert!(page.contains("SwaggerUIBundle("), "the page has its program within");
    assert!(page.contains("\"additionalProperties\": false"), "the page shows the published document");
    let greeting = get("/").await;
    let links = String::from_utf8(greeting.is(200).bytes.to_vec()).unwrap();
    assert!(links.contains(env!("CARGO_PKG_VERSION")));
    let links: Vec<_> = links.split("<a href=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    assert!(links.len() >= 7 && links.contains(&"/docs") && links.contains(&"/problems"), "{links:?}");
    for link in links {
        get(link).await.is(200);
    }
    for (page, scripts) in [(&docs, 2), (&greeting, 0), (&get("/problems").await, 0)] {
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), scripts, "{policy}");
    }

    let schemas = &crate::support::contract::DOCUMENT["components"]["schemas"];
    let of_problems = schemas.as_object().unwrap().values().map(|schema| &schema["properties"]["type"]["enum"][0]);
    let problems: Vec<_> = of_problems.filter_map(Value::as_str).collect();
    let all = String::from_utf8(get("/problems").await.is(200).bytes.to_vec()).unwrap();
    assert!(problems.len() > 10);
    for path in problems {
        let page = get(path).await;
        assert_eq!(page.is(200).header("content-type"), Some("text/html; charset=utf-8"));
        assert!(String::from_utf8_lossy(&page.bytes).contains("What to do:") && all.contains(path), "{path}");
    }
}

async fn from(user: &User, origin: &str, path: &str) -> Reply {
    user.call(Method::GET, path).header("Origin", origin).send().await
}

fn has_no_cors_headers(reply: &Reply) -> bool {
    !reply.headers.keys().any(|name| name.as_str().starts_with("access-control-"))
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_read_answers_and_refusals() {
    let app = app().await;
    let ann = app.new_user();

    for (path, user) in
        [(ann.tasks(), &ann), (ann.tasks(), &app.anybody()), ("/nowhere".into(), &ann), ("/health".into(), &ann)]
    {
        let reply = from(user, "http://localhost:3000", &path).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("http://localhost:3000"), "{path}");
        assert_eq!(
            reply.header("access-control-expose-headers"),
            Some(
                "API-Version, ETag, Idempotent-Replayed, Link, Location, Next-Cursor, RateLimit, RateLimit-Policy, Retry-After, \
                 Server-Timing, WWW-Authenticate, X-Request-Id"
            )
        );
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_cors_headers() {
    let app = app().await;
    let ann = app.new_user();

    for origin in [
        "http://localhost:3001",
        "https://localhost:3000",
        "http://localhost:3000.evil.example",
        "null",
        "*",
        "http://LOCALHOST:3000",
        "é",
    ] {
        let reply = from(&ann, origin, &ann.tasks()).await;
        assert!(has_no_cors_headers(reply.is(200)), "{origin}");
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
    let reply = ann.list("").await;
    assert!(has_no_cors_headers(&reply));
    assert_eq!(reply.header("vary"), Some("Origin"), "a cache must tell the two apart");
}

#[tokio::test]
async fn a_preflight_is_answered_for_every_method_and_header() {
    let app = app().await;
    let ask = async |origin: &str, method: &str, path: &str| {
        let call = app.anybody().call(Method::OPTIONS, path).header("Origin", origin);
        let call = call.header("Access-Control-Request-Method", method);
        call.header("Access-Control-Request-Headers", "authorization,content-type").send().await
    };
    let words = |reply: &Reply, name: &str| -> Vec<String> {
        reply.header(name).unwrap().split(", ").map(str::to_lowercase).collect()
    };

    assert!(OPERATIONS.len() >= 8);
    for operation in OPERATIONS.iter() {
        let reply =
            ask("http://localhost:3000", operation.method.as_str(), &operation.path.replace(['{', '}'], "x")).await;
        assert_eq!(reply.is(204).header("access-control-allow-origin"), Some("http://localhost:3000"));
        assert!(words(&reply, "access-control-allow-methods").contains(&operation.method.as_str().to_lowercase()));
        let headers = words(&reply, "access-control-allow-headers");
        let needed = [
            "authorization",
            "content-type",
            "if-match",
            "if-none-match",
            "idempotency-key",
            "x-request-id",
            "traceparent",
        ];
        assert!(needed.iter().all(|header| headers.contains(&(*header).to_owned())), "{headers:?}");
        assert!(reply.header("vary").unwrap().contains("Origin"));
        assert!(reply.bytes.is_empty());
    }
    let refused = ask("http://evil.example", "GET", "/health").await;
    assert!(has_no_cors_headers(refused.is_problem(405, "method-not-allowed")));
}

#[tokio::test]
async fn the_allowed_origins_can_be_set() {
    let settings = json!({"cors": {"allowed_origins": ["https://app.example.com", "https://example.com:8443"]}});
    let app = crate::support::TestApp::start_with(crate::BACKEND, settings).await;
    let ann = app.new_user();

    for origin in ["https://app.example.com", "https://example.com:8443"] {
        assert_eq!(from(&ann, origin, &ann.tasks()).await.header("access-control-allow-origin"), Some(origin));
    }
    assert!(has_no_cors_headers(&from(&ann, "http://localhost:3000", &ann.tasks()).await));
}

#[tokio::test]
async fn a_broken_request_is_answered_and_the_server_goes_on() {
    let app = app().await;
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(70_000));
    let many_headers = format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(200));
    let both_lengths =
        "POST /api/x/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (request, status) in [
        ("BROKEN\r\n\r\n", "400"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET http://x/health/ HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
        ("GET /health HTTP/9.9\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nbad header\r\n\r\n", "400"),
        ("POST /api/x/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400"),
        (both_lengths, "40"),
        (&long_path, "414"),
        (&many_headers, "431"),
    ] {
        let answer = exchange(app.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:.40}: {answer:.200}");
    }
    app.anybody().call(Method::GET, "/health").send().await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_at_a_client_that_sends_everything_before_it_reads() {
    let app = app().await;
    let ann = app.new_user();
    // More than the buffers between the two hold, so that the rest has to be read by somebody.
    let body = "x".repeat(12 * 1024 * 1024);

    for (user, status) in [(app.anybody(), 401), (app.new_user(), 403), (ann.clone(), 413)] {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            ann.tasks(),
            user.token,
            body.len()
        );
        let request = head.replace("Authorization: Bearer \r\n", "") + &body;
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(app.address).unwrap();
            stream.write_all(request.as_bytes()).expect("the connection was cut before the request was sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("the connection was cut before the answer was read");
            answer
        });
        let answer = answer.await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    ann.post(json!({"title": "x".repeat(3 * 1024 * 1024)})).await.is(413);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_503() {
    let app = crate::support::TestApp::start_with(crate::BACKEND, json!({"server": {"request_timeout_ms": 300}})).await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    let held = app.database.hold(&format!("update users set id = id where id = '{}'", ann.id)).await;

    let reply = ann.toggle(id(&task)).await;
    assert_eq!(reply.is_problem(503, "unavailable").header("retry-after"), Some("2"));
    drop(held);
}

#[tokio::test]
async fn a_user_can_be_limited() {
    let settings = json!({"limits": {"user_requests_per_minute": 60, "user_burst": 3}});
    let app = TestApp::start_with(BACKEND, settings).await;
    let (ann, bob) = (app.new_user(), app.new_user());
    for left in [2, 1, 0] {
        let reply = ann.list("").await;
        assert_eq!(reply.is(200).header("ratelimit"), Some(&*format!("\"user\";r={left};t={}", 3 - left)));
        assert_eq!(reply.header("ratelimit-policy"), Some("\"user\";q=3;w=3"));
    }
    let refused = ann.post(json!({"title": "t"})).await;
    assert_eq!(refused.is_problem(429, "too-many-requests").header("retry-after"), Some("1"));
    assert_eq!(refused.detail(), "This user has sent too many requests. Try again in 1 s.");
    // Others are not, nor is who merely asks at somebody's path, nor whether the server is well.
    bob.list("").await.is(200);
    bob.call(Method::GET, ann.tasks()).send().await.is_problem(403, "forbidden");
    app.anybody().call(Method::GET, "/health").send().await.is(200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ann.list("").await.is(200);
    ann.list("").await.is(429);
}

#[tokio::test]
async fn an_address_can_be_limited_before_its_tokens_are_looked_at() {
    let settings =
        json!({"limits": {"address_requests_per_minute": 1, "address_burst": 3, "trusted_proxies": ["127.0.0.1"]}});
    let app = TestApp::start_with(BACKEND, settings).await;
    let (ann, forged) = (app.new_user(), app.new_user().with_token("x.y.z"));
    let ask = async |user: &User, address: &str| {
        user.call(Method::GET, user.tasks()).header("X-Forwarded-For", address).send().await
    };
    for _ in 0..3 {
        let reply = ask(&forged, "192.0.2.1").await;
        assert!(reply.is(401).header("ratelimit").unwrap().starts_with("\"address\";r="));
    }
    let refused = ask(&forged, "192.0.2.1").await;
    assert_eq!(refused.is_problem(429, "too-many-requests").header("retry-after"), Some("60"));
    ask(&ann, "192.0.2.1").await.is(429);
    ask(&ann, "192.0.2.2").await.is(200);
    app.anybody().call(Method::GET, "/health").header("X-Forwarded-For", "192.0.2.1").send().await.is(200);
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_at_once_still_gets_its_answer() {
    let app = app().await;
    let ann = app.new_user();
    for n in 0..40 {
        let body = format!(r#"{{"title":"{n}"}}"#);
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            ann.tasks(),
            ann.token,
            body.len()
        );
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{n}: {answer}");
    }
    assert_eq!(ann.list("").await.json().as_array().unwrap().len(), 40);
}

/// Sends a head and a body apart, and then a valid request on the same connection, if that is still usable.
async fn refused_and_then_served(user: &User, address: SocketAddr, head: &str, body: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // A server that closes early makes this fail; what counts is what it said.
    let _ = stream.write_all(body).await;
    let mut refusal = Vec::new();
    let mut chunk = [0; 4096];
    let end = loop {
        let count = stream.read(&mut chunk).await.unwrap();
        refusal.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&refusal).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if rest.len() >= length.unwrap().parse::<usize>().unwrap() {
                break text;
            }
        }
        assert!(count > 0, "{text}");
    };
    if end.contains("\r\nconnection: close\r\n") {
        return (end, false);
    }
    let next = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        user.tasks(),
        user.token
    );
    stream.write_all(next.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "after {end}: {answer}");
    (end, true)
}

#[tokio::test]
async fn a_refusal_before_the_body_leaves_the_connection_usable_or_says_that_it_ends() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let head = |path: &str, token: &str, kind: &str, length: usize, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n{more}\r\n"
        )
    };
    let json = "application/json";
    for (status, path, token, kind, length, is_usable) in [
        (401, ann.tasks(), "x", json, 13, true),
        (401, ann.tasks(), "x", json, 60_000, true),
        (403, bob.tasks(), &*ann.token, json, 60_000, true),
        (404, "/nowhere".to_owned(), &ann.token, json, 1000, true),
        (405, "/health".to_owned(), &ann.token, json, 1000, true),
        (415, ann.tasks(), &ann.token, "text/plain", 60_000, true),
        (413, ann.tasks(), &ann.token, json, 100_000, true),
        (413, ann.tasks(), &ann.token, json, 5_000_000, false),
        (401, ann.tasks(), "x", json, 5_000_000, false),
    ] {
        let body = vec![b'x'; length];
        let (refusal, usable) =
            refused_and_then_served(&ann, app.address, &head(&path, token, kind, length, ""), &body).await;
        assert!(refusal.starts_with(&format!("HTTP/1.1 {status} ")), "{refusal}");
        assert_eq!(usable, is_usable, "{status} {length}");
    }
    // A body that never comes, and one that waits for an invitation, are not waited for.
    for more in ["", "Expect: 100-continue\r\n"] {
        let began = std::time::Instant::now();
        let head = head(&ann.tasks(), "x", json, 1000, more);
        let (refusal, usable) = refused_and_then_served(&ann, app.address, &head, b"").await;
        assert!(refusal.starts_with("HTTP/1.1 401 ") && !usable, "{refusal}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn one_host_is_named_by_every_request() {
    let app = app().await;
    for (hosts, status) in [("", 400), ("Host: a\r\nHost: b\r\n", 400), ("Host: a\r\n", 200), ("Host:\r\n", 200)] {
        let request = format!("GET /health HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let answer = exchange(app.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        if status == 400 {
            assert!(answer.contains("/problems/malformed-request") && answer.contains("connection: close"), "{answer}");
        }
    }
    let answer = exchange(app.address, b"GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_a_problem_too() {
    let app = app().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(70_000));
    let headers = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(200));
    for (request, status, slug) in [
        ("nonsense\r\n\r\n", "400 Bad Request", "malformed-request"),
        ("GET / HTTP/3.7\r\nHost: x\r\n\r\n", "400 Bad Request", "malformed-request"),
        (&long, "414 URI Too Long", "uri-too-long"),
        (&headers, "431 Request Header Fields Too Large", "headers-too-large"),
    ] {
        let answer = exchange(app.address, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(head.contains("\r\nconnection: close") && head.contains("\r\ndate: "), "{answer}");
        let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&problem["type"], &problem["request_id"]), (&json!(format!("/problems/{slug}")), &json!(id)));
    }
}

#[tokio::test]
async fn http_2_over_clear_text_is_refused_in_its_own_words() {
    let app = app().await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // Settings, then a GOAWAY that no stream was taken before, with HTTP_1_1_REQUIRED and the reason.
    assert_eq!(answer[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let (frame, reason) = answer[9..].split_at(17);
    assert_eq!((frame[3], &frame[9..]), (7, &[0, 0, 0, 0, 0, 0, 0, 13][..]));
    assert_eq!(usize::from(frame[2]), 8 + reason.len());
    assert!(String::from_utf8_lossy(reason).starts_with("This server speaks HTTP/1.1."));
}

#[tokio::test]
async fn a_large_list_is_compressed_for_those_who_take_it() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    let ask = |path: String, coding: &str| ann.call(Method::GET, path).header("Accept-Encoding", coding).send();
    assert_eq!(ask(ann.tasks(), "gzip").await.header("content-encoding"), None, "a short one is not worth it");
    for n in 0..30 {
        ann.create(&format!("{n}")).await;
    }
    let plain = ask(ann.tasks(), "br").await;
    let vary: Vec<_> = plain.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!((plain.header("content-encoding"), vary), (None, vec!["Accept-Encoding", "Origin"]));
    let raw = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nAccept-Encoding: deflate, gzip\r\nConnection: close\r\n\r\n",
        ann.tasks(),
        ann.token
    );
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(raw.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..at].to_vec()).unwrap();
    assert!(head.contains("\r\ncontent-encoding: gzip") && head.contains("\r\nvary: Accept-Encoding"), "{head}");
    assert!(head.contains(&format!("\r\netag: {}", plain.header("etag").unwrap())), "{head}");
    assert!(answer.len() < plain.bytes.len() / 3);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&answer[at + 4..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.bytes);

    // One task has a strong tag, which promises these very bytes.
    let long = ann.put(id(&task), json!({"description": "x".repeat(1000), "title": "🌱".repeat(200)})).await;
    assert_eq!(long.is(200).tagged_version(), 2);
    assert_eq!(ask(ann.task(id(&task)), "gzip").await.header("content-encoding"), None);
}

#[tokio::test]
async fn behind_a_proxy_that_strips_a_prefix_what_is_said_of_paths_has_it() {
    let fixed = TestApp::start_with(BACKEND, json!({"server": {"base_path": "/todo"}})).await;
    let trusting = TestApp::start_with(BACKEND, json!({"server": {"trust_forwarded_prefix": true}})).await;
    let plain = app().await;
    for (app, prefix) in [(&fixed, "/todo"), (&trusting, "/a/b"), (&plain, "")] {
        let ann = app.new_user();
        let with = |call: Call| call.header("X-Forwarded-Prefix", "/a/b/");
        for title in ["one", "two"] {
            let created = with(ann.call(Method::POST, ann.tasks()).json(json!({"title": title}))).send().await;
            let location = format!("{prefix}{}", ann.task(id(&created.is(201).json())));
            assert_eq!(created.header("location"), Some(&*location));
        }
        let page = with(ann.call(Method::GET, ann.tasks() + "?limit=1")).send().await;
        let link = page.header("link").unwrap();
        assert!(link.starts_with(&format!("<{prefix}{}?limit=1&cursor=", ann.tasks())), "{link}");
        let page = |path: &str| with(app.anybody().call(Method::GET, path)).send();
        let docs = String::from_utf8(page("/docs").await.is(200).bytes.to_vec()).unwrap();
        let server = if prefix.is_empty() { "/" } else { prefix };
        assert!(docs.contains(&format!("\"url\": \"{server}\"")));
        let problems = String::from_utf8(page("/problems").await.is(200).bytes.to_vec()).unwrap();
        assert!(problems.contains(&format!("href=\"{prefix}/docs\"")));
    }
    // What is no path, or an attempt at more, is none.
    let ann = trusting.new_user();
    for prefix in ["//evil.example", "https://evil.example", "/a\"b", "x", "/a b"] {
        let call = ann.call(Method::POST, ann.tasks()).json(json!({"title": "t"})).header("X-Forwarded-Prefix", prefix);
        assert!(call.send().await.is(201).header("location").unwrap().starts_with("/api/"), "{prefix}");
    }
}
