//! That each operation can answer just what the contract says: every declared status is made to happen.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use super::{app, edge::exchange, id};
use crate::{
    BACKEND,
    support::{Backend, Call, Database, TestApp, User, contract::OPERATIONS, unused_id},
};

type Request = fn(&User, &User, &str) -> Call;

/// What has been seen to happen: statuses by operation.
#[derive(Default)]
struct Seen(BTreeMap<&'static str, BTreeSet<u16>>);

impl Seen {
    async fn see(&mut self, operation: &'static str, status: u16, call: Call) {
        call.send().await.is(status);
        self.0.entry(operation).or_default().insert(status);
    }
}

fn list(user: &User, of: &User) -> Call {
    user.call(Method::GET, of.tasks())
}
fn create(user: &User, of: &User) -> Call {
    user.call(Method::POST, of.tasks())
}
fn get(user: &User, of: &User, task: &str) -> Call {
    user.call(Method::GET, of.task(task))
}
fn update(user: &User, of: &User, task: &str) -> Call {
    user.call(Method::PUT, of.task(task))
}
fn delete(user: &User, of: &User, task: &str) -> Call {
    user.call(Method::DELETE, of.task(task))
}
fn toggle(user: &User, of: &User, task: &str) -> Call {
    user.call(Method::PATCH, of.task(task) + "/complete")
}

#[tokio::test]
async fn every_declared_status_happens_and_no_other_is_declared() {
    let mut seen = Seen::default();
    let app = app().await;
    let (ann, bob, nobody) = (app.new_user(), app.new_user(), app.anybody());
    let task = ann.create("t").await;
    let (task, gone, stale) = (id(&task), unused_id(), "\"99\"");
    let good = json!({"title": "t"});
    let large = "x".repeat(100_000);

    seen.see("listTasks", 200, list(&ann, &ann)).await;
    seen.see("listTasks", 304, list(&ann, &ann).header("If-None-Match", "*")).await;
    seen.see("listTasks", 422, ann.call(Method::GET, ann.tasks() + "?limit=0")).await;
    seen.see("listTasks", 401, list(&nobody, &ann)).await;
    seen.see("listTasks", 403, list(&bob, &ann)).await;

    seen.see("createTask", 201, create(&ann, &ann).json(good.clone())).await;
    seen.see("createTask", 400, create(&ann, &ann).header("Content-Type", "application/json").body("{")).await;
    seen.see("createTask", 401, create(&nobody, &ann)).await;
    seen.see("createTask", 403, create(&bob, &ann)).await;
    seen.see("createTask", 413, create(&ann, &ann).json(large.clone())).await;
    seen.see("createTask", 415, create(&ann, &ann).body("x")).await;
    seen.see("createTask", 422, create(&ann, &ann).json(json!({}))).await;

    seen.see("getTask", 200, get(&ann, &ann, task)).await;
    seen.see("getTask", 304, get(&ann, &ann, task).header("If-None-Match", "*")).await;
    seen.see("getTask", 422, get(&ann, &ann, task).header("If-None-Match", "x")).await;
    seen.see("getTask", 401, get(&nobody, &ann, task)).await;
    seen.see("getTask", 403, get(&bob, &ann, task)).await;
    seen.see("getTask", 404, get(&ann, &ann, &gone)).await;

    let changes: [(_, Request); 2] = [("updateTask", update), ("toggleTaskCompletion", toggle)];
    for (operation, call) in changes {
        let valid = if operation == "updateTask" { good.clone() } else { json!({}) };
        seen.see(operation, 200, call(&ann, &ann, task).json(valid.clone())).await;
        let unreadable = call(&ann, &ann, task).header("Content-Type", "application/json").body("{");
        seen.see(operation, 400, unreadable).await;
        seen.see(operation, 401, call(&nobody, &ann, task)).await;
        seen.see(operation, 403, call(&bob, &ann, task)).await;
        seen.see(operation, 404, call(&ann, &ann, &gone).json(valid.clone())).await;
        seen.see(operation, 412, call(&ann, &ann, task).json(valid).header("If-Match", stale)).await;
        seen.see(operation, 413, call(&ann, &ann, task).json(large.clone())).await;
        seen.see(operation, 415, call(&ann, &ann, task).body("x")).await;
        seen.see(operation, 422, call(&ann, &ann, task).json(json!({"unknown": 1}))).await;
    }

    seen.see("deleteTask", 422, delete(&ann, &ann, task).header("If-Match", "x")).await;
    seen.see("deleteTask", 401, delete(&nobody, &ann, task)).await;
    seen.see("deleteTask", 403, delete(&bob, &ann, task)).await;
    seen.see("deleteTask", 404, delete(&ann, &ann, &gone)).await;
    seen.see("deleteTask", 412, delete(&ann, &ann, task).header("If-Match", stale)).await;
    seen.see("deleteTask", 204, delete(&ann, &ann, task)).await;

    seen.see("getHealth", 200, nobody.call(Method::GET, "/health")).await;
    seen.see("getReadiness", 200, nobody.call(Method::GET, "/health/ready")).await;

    // A database that refuses every statement, and one that does not answer.
    let (broken, absent) = (self::app().await, self::app().await);
    broken.database.execute("drop table tasks").await;
    absent.store.clone().close().await;
    for (app, status) in [(&broken, 500), (&absent, 503)] {
        failures(&mut seen, app, status).await;
    }
    seen.see("getReadiness", 503, absent.anybody().call(Method::GET, "/health/ready")).await;
    absent.anybody().call(Method::GET, "/health").send().await.is(200);
    // A defect, which nothing makes happen from outside here. The tests of the server's edge show how it is answered.
    for operation in ["getHealth", "getReadiness"] {
        assert!(seen.0.get_mut(operation).unwrap().insert(500));
    }

    // A user who may ask once, and has; and a body that does not come.
    let limited =
        TestApp::start_with(BACKEND, json!({"limits": {"user_requests_per_minute": 1, "user_burst": 1}})).await;
    limits(&mut seen, &limited).await;
    let impatient = TestApp::start_with(BACKEND, json!({"server": {"request_timeout_ms": 300}})).await;
    slow_bodies(&mut seen, &impatient).await;

    // Another server that is at it with the same key. SQLite has one writer at a time, so there it can't be.
    if let Database::Postgres(database) = &app.database {
        let mut other = PgConnection::connect(&database.url).await.unwrap();
        let claim = "begin; insert into idempotency_keys select id, 'key', '', '', now() from users";
        other.execute(claim).await.unwrap();
        let task = ann.create("t").await;
        for (operation, call) in
            [("createTask", create(&ann, &ann).json(good)), ("toggleTaskCompletion", toggle(&ann, &ann, id(&task)))]
        {
            seen.see(operation, 409, call.header("Idempotency-Key", "key")).await;
        }
    }

    let mut declared: BTreeMap<_, BTreeSet<_>> = OPERATIONS
        .iter()
        .map(|operation| (operation.id.as_str(), operation.statuses().into_iter().collect()))
        .collect();
    if BACKEND == Backend::Sqlite {
        assert!(["createTask", "toggleTaskCompletion"].iter().all(|id| declared.get_mut(id).unwrap().remove(&409)));
    }
    assert_eq!(seen.0, declared);
}

async fn limits(seen: &mut Seen, app: &TestApp) {
    let (ann, task) = (app.new_user(), unused_id());
    ann.list("").await.is(200);
    let calls = [
        ("listTasks", list(&ann, &ann)),
        ("createTask", create(&ann, &ann)),
        ("getTask", get(&ann, &ann, &task)),
        ("updateTask", update(&ann, &ann, &task)),
        ("deleteTask", delete(&ann, &ann, &task)),
        ("toggleTaskCompletion", toggle(&ann, &ann, &task)),
    ];
    for (operation, call) in calls {
        seen.see(operation, 429, call).await;
    }
}

async fn slow_bodies(seen: &mut Seen, app: &TestApp) {
    let ann = app.new_user();
    let task = ann.task(&unused_id());
    let calls = [
        ("createTask", "POST", ann.tasks()),
        ("updateTask", "PUT", task.clone()),
        ("toggleTaskCompletion", "PATCH", task + "/complete"),
    ];
    for (operation, method, path) in calls {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", ann.token);
        let body = "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
        let answer = exchange(app.address, (head + body).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("/problems/request-timeout"), "{answer}");
        seen.0.entry(operation).or_default().insert(408);
    }
}

async fn failures(seen: &mut Seen, app: &TestApp, status: u16) {
    let (ann, task) = (app.new_user(), unused_id());
    let good = json!({"title": "t"});
    seen.see("listTasks", status, list(&ann, &ann)).await;
    seen.see("createTask", status, create(&ann, &ann).json(good.clone())).await;
    seen.see("getTask", status, get(&ann, &ann, &task)).await;
    seen.see("updateTask", status, update(&ann, &ann, &task).json(good)).await;
    seen.see("deleteTask", status, delete(&ann, &ann, &task)).await;
    seen.see("toggleTaskCompletion", status, toggle(&ann, &ann, &task)).await;
}

#[tokio::test]
async fn a_failure_shows_nothing_of_its_cause() {
    let app = app().await;
    let ann = app.new_user();
    app.database.execute("drop table tasks").await;

    let reply = ann.list("").await;

    let text = String::from_utf8_lossy(&reply.is_problem(500, "internal").bytes).to_lowercase();
    for word in ["tasks", "table", "select", "sql", "relation", "no such"] {
        assert!(!text.replace("/api/", "").contains(word), "{text}");
    }
}
