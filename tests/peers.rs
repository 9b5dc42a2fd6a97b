//! Peers that keep the server waiting: silent, slow, and those who ask and don't take. Others must not feel them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use support::{Backend::Sqlite, TestApp, User, process::Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Long enough for everything here.
const LIMIT: Duration = Duration::from_secs(20);

async fn app(server: Value) -> TestApp {
    TestApp::start_with(Sqlite, json!({"server": server})).await
}

/// Connections that have sent this and then send nothing more.
async fn peers(app: &TestApp, count: usize, sends: &str) -> Vec<TcpStream> {
    let mut peers = Vec::new();
    for _ in 0..count {
        let mut peer = TcpStream::connect(app.address).await.unwrap();
        peer.write_all(sends.as_bytes()).await.unwrap();
        peers.push(peer);
    }
    peers
}

fn request(user: &User, method: &str, path: &str, rest: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{rest}", user.token)
}

/// What comes until the server closes, which it must.
async fn until_closed(peer: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset ends it, too.
    let _ = timeout(LIMIT, peer.read_to_end(&mut answer)).await.expect("it stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// What comes first.
async fn first(peer: &mut TcpStream) -> String {
    let mut chunk = vec![0; 64 * 1024];
    let count = timeout(LIMIT, peer.read(&mut chunk)).await.expect("nothing comes").unwrap();
    String::from_utf8_lossy(&chunk[..count]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_the_server_waiting_locks_nobody_out() {
    let app = app(json!({"max_connections": 20})).await;
    let ann = app.new_user();
    let unfinished =
        request(&ann, "POST", &ann.tasks(), "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{");
    let refused = "GET /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n";
    for sends in ["", "G", "GET /health HTTP/1.1\r\nHost: x\r\n", &unfinished, refused] {
        let _bad = peers(&app, 40, sends).await;
        let started = Instant::now();
        for n in 0..20 {
            ann.create(&n.to_string()).await;
            app.anybody().call(Method::GET, "/health").send().await.is(200);
        }
        // Far less than any of their deadlines.
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_waited_least_stays() {
    let app = app(json!({"max_connections": 10})).await;
    let mut idle = TcpStream::connect(app.address).await.unwrap();
    let ask = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    idle.write_all(ask.as_bytes()).await.unwrap();
    assert!(first(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut silent = peers(&app, 9, "").await;
    sleep(Duration::from_millis(1100)).await;

    // They owe something, and the idle one does not.
    let _more = peers(&app, 9, "").await;
    for one in &mut silent {
        assert_eq!(until_closed(one).await, "");
    }
    idle.write_all(ask.as_bytes()).await.unwrap();
    assert!(first(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_has_places_of_its_own() {
    let app = app(json!({"max_connections": 2, "request_timeout_ms": 8000})).await;
    let (ann, anybody) = (app.new_user(), app.anybody());
    let task = ann.create("t").await;
    // Two requests that are being served, because somebody else has the database.
    let held = app.database.hold("update users set id = id").await;
    let id = task["id"].as_str().unwrap();
    let toggle = request(&ann, "PATCH", &(ann.task(id) + "/complete"), "Connection: close\r\n\r\n");
    let mut busy = peers(&app, 2, &toggle).await;
    sleep(Duration::from_millis(300)).await;

    anybody.call(Method::GET, "/health").send().await.is(200);
    let refused = ann.list("").await;
    assert_eq!(refused.is_problem(503, "unavailable").header("retry-after"), Some("2"));
    assert_eq!(refused.header("connection"), Some("close"));
    drop(held);
    for one in &mut busy {
        assert!(until_closed(one).await.starts_with("HTTP/1.1 200"));
    }
    ann.list("").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_its_deadline_and_a_kept_connection_another() {
    let app = app(json!({"head_timeout_secs": 1, "idle_timeout_secs": 3})).await;
    let started = Instant::now();
    let mut silent = peers(&app, 1, "").await;
    assert_eq!(until_closed(&mut silent[0]).await, "");
    assert!(started.elapsed() < Duration::from_secs(3));

    // A byte now and then does not help.
    let started = Instant::now();
    let mut drips = TcpStream::connect(app.address).await.unwrap();
    let mut answer = Vec::new();
    for byte in b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: and so on, and so on" {
        let _ = drips.write_all(&[*byte]).await;
        let mut chunk = [0; 4096];
        if let Ok(Ok(count)) = timeout(Duration::from_millis(50), drips.read(&mut chunk)).await {
            answer.extend_from_slice(&chunk[..count]);
            break;
        }
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n") && answer.contains("/problems/request-timeout"), "{answer}");
    assert!(answer.contains("\r\ndate: ") && answer.contains("\r\nx-request-id: "), "{answer}");

    // Who goes on sending can still read why, once.
    let mut goes_on = peers(&app, 1, "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ").await.remove(0);
    for _ in 0..50 {
        let _ = goes_on.write_all(b"x").await;
        sleep(Duration::from_millis(50)).await;
    }
    let answer = until_closed(&mut goes_on).await;
    assert_eq!((answer.find("HTTP/1.1 408 "), answer.matches("HTTP/1.1").count()), (Some(0), 1), "{answer}");

    let mut kept = TcpStream::connect(app.address).await.unwrap();
    for pause in [0, 2000, 0] {
        sleep(Duration::from_millis(pause)).await;
        kept.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(first(&mut kept).await.starts_with("HTTP/1.1 200"));
    }
    let started = Instant::now();
    assert_eq!(until_closed(&mut kept).await, "");
    assert!(started.elapsed() > Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_that_came_with_a_request_keeps_no_connection() {
    let app = app(json!({"head_timeout_secs": 1, "idle_timeout_secs": 1})).await;
    let started = Instant::now();
    let mut peer = peers(&app, 1, "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea").await.remove(0);
    assert!(until_closed(&mut peer).await.starts_with("HTTP/1.1 200 OK"));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_answered_408() {
    let app = app(json!({"request_timeout_ms": 300})).await;
    let ann = app.new_user();
    let head = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let mut slow = peers(&app, 1, &request(&ann, "POST", &ann.tasks(), head)).await;

    let answer = until_closed(&mut slow[0]).await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    let problem: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(problem["type"], "/problems/request-timeout");
    assert_eq!(ann.list("").await.is(200).json(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_bounded() {
    let app = app(json!({"max_head_bytes": 8192})).await;
    let head = |bytes| format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(bytes));
    let mut large = peers(&app, 1, &head(20_000)).await;
    let answer = until_closed(&mut large[0]).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("/problems/headers-too-large"), "{answer}");
    let mut fits = peers(&app, 1, &head(6000)).await;
    assert!(first(&mut fits[0]).await.starts_with("HTTP/1.1 200"));
}

/// A user whose list has some 4 MB.
async fn user_with_much(app: &TestApp) -> User {
    let ann = app.new_user();
    app.database.execute(&format!("insert into users (id) values ('{}')", ann.id)).await;
    let numbers = "with recursive n (n) as (select 1 union all select n + 1 from n where n < 1000)";
    let insert = format!(
        "insert into tasks (user_id, id, title, description, version, created_at, updated_at) \
         {numbers} select '{}', randomblob(16), 't', replace(hex(zeroblob(500)), '0', '\u{1f600}'), 1, \
         '2026-01-01 00:00:00.000+00:00', '2026-01-01 00:00:00.000+00:00' from n",
        ann.id
    );
    app.database.execute(&insert).await;
    ann
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_before_the_last_answer_is_taken_waits() {
    let app = app(json!({})).await;
    let ann = user_with_much(&app).await;
    let bob = app.new_user();
    let list = request(&ann, "GET", &(ann.tasks() + "?limit=1000"), "\r\n");
    let body = r#"{"title":"t"}"#;
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let create = request(&bob, "POST", &bob.tasks(), &(head + body));
    // More than the buffers between the two hold.
    let mut peer = peers(&app, 1, &(list.repeat(8) + &create)).await.remove(0);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bob.list("").await.json(), json!([]), "it was served though nothing was taken");

    let answers = until_closed(&mut peer).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 8);
    assert_eq!(answers.matches("HTTP/1.1 201 Created").count(), 1);
    assert_eq!(bob.list("").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_bounded() {
    let app = app(json!({"max_untaken_mb": 24})).await;
    let ann = user_with_much(&app).await;
    let bob = user_with_much(&app).await;
    let list = |user: &User| request(user, "GET", &(user.tasks() + "?limit=1000"), "\r\n").repeat(4);
    // A quarter of the 24 MB is hers: of two answers the one that has not been taken for longer goes.
    let mut of_ann = peers(&app, 1, &list(&ann)).await;
    sleep(Duration::from_millis(1500)).await;
    let _next = peers(&app, 1, &list(&ann)).await;
    sleep(Duration::from_secs(1)).await;
    let cut = until_closed(&mut of_ann[0]).await;
    assert!(cut.starts_with("HTTP/1.1 200") && cut.matches("HTTP/1.1").count() < 4, "it was not cut off");

    // Whoever waits for room gets it when it is clear that nothing is taken; a small answer does not wait.
    let _of_bob = peers(&app, 1, &list(&bob)).await;
    sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    bob.list("?limit=1").await.is(200);
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    bob.list("?limit=1000").await.is(200);

    // Many at once who take what they ask for are served, one after the other; more than may wait are refused.
    let replies = support::at_once(3, |_| {
        let ann = ann.clone();
        async move { ann.list("?limit=1000").await.status }
    });
    assert!(replies.await.iter().all(|status| *status == 200));
    let silent = peers(&app, 20, &list(&ann)).await;
    // All of them have to have been read first.
    let mut refusal = ann.list("?limit=1000").await;
    for _ in 0..20 {
        if refusal.status == 503 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
        refusal = ann.list("?limit=1000").await;
    }
    refusal.is_problem(503, "unavailable");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn places_follow_from_the_number_of_files_that_the_system_allows() {
    let here = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    let start = format!("ulimit -n 128 && exec {}", env!("CARGO_BIN_EXE_taskpact"));
    command.args(["-c", &start]).env("BETTER_AUTH_SECRET", support::SECRET).current_dir(here.path());
    let server = Server::start_command(&mut command);
    assert!(server.complained().contains("61 connections have a place, and not 1000"), "{}", server.complained());
    let ann = server.user("ann");
    let mut silent = Vec::new();
    for n in 0..300 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
        if n % 10 == 0 {
            ann.create("t").await;
            ann.list("").await.is(200);
        }
    }
    let log = server.stop();
    assert!(!log.contains("ERROR") && !log.contains("could not accept"), "{log}");
    assert_eq!(log.matches("places or memory run short").count(), 1, "{log}");
}
