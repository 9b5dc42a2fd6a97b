//! That each operation can answer just what the contract says: every declared status, and every example, is made to happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use hyper::Method;
use regex::Regex;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use super::{app, edge::exchange, id};
use crate::{
    BACKEND,
    support::{Backend, Call, Database, TestApp, User, contract::OPERATIONS, unused_id},
};

type Request = fn(&User, &User, &str) -> Call;

/// What has been seen to happen: statuses and examples of answers, by operation.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<&'static str, BTreeSet<u16>>,
    examples: BTreeSet<(&'static str, u16, String)>,
}

impl Seen {
    /// Sends a request, and holds what is answered against the contract's example if it is a problem.
    async fn see(&mut self, operation: &'static str, status: u16, call: Call) {
        let reply = call.send().await;
        reply.is(status);
        let body: Value = serde_json::from_slice(&reply.bytes).unwrap_or_default();
        self.saw(operation, status, &body);
    }

    fn saw(&mut self, operation: &'static str, status: u16, body: &Value) {
        self.statuses.entry(operation).or_default().insert(status);
        if let Some(slug) = body["type"].as_str().and_then(|kind| kind.strip_prefix("/problems/")) {
            self.is_shown(operation, status, slug, body);
        }
    }

    /// Sends the request of an example, and holds the answer against the example of the answer.
    async fn see_example(&mut self, operation: &'static str, status: u16, name: &str, call: Call) {
        let bodies = examples(&described(operation)["requestBody"], "application/json");
        let call = if bodies.is_null() { call } else { call.json(bodies[name]["value"].clone()) };
        let reply = call.send().await;
        self.statuses.entry(operation).or_default().insert(status);
        self.is_shown(operation, status, name, &reply.is(status).json());
    }

    fn is_shown(&mut self, operation: &'static str, status: u16, name: &str, answer: &Value) {
        let media_type = if status < 300 { "application/json" } else { "application/problem+json" };
        let response = &described(operation)["responses"][status.to_string()];
        let example = &examples(response, media_type)[name]["value"];
        assert_eq!(alike(answer), alike(example), "{operation} {status} {name}");
        self.examples.insert((operation, status, name.to_owned()));
    }
}

fn described(operation: &str) -> &'static Value {
    &OPERATIONS.iter().find(|one| one.id == operation).unwrap().description
}

fn examples<'a>(message: &'a Value, media_type: &str) -> &'a Value {
    &message["content"][media_type]["examples"]
}

/// The value without what differs from one request to another: ids, times, and how long to wait.
fn alike(value: &Value) -> Value {
    static WAIT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+ s\.").unwrap());
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let value = match name.as_str() {
                    "id" | "user_id" | "request_id" | "commit" => json!("an id"),
                    "next" => json!("a place"),
                    "completed_at" | "created_at" | "updated_at" | "deleted_at" if value.is_string() => json!("a time"),
                    "detail" => json!(WAIT.replace(value.as_str().unwrap(), "… s.")),
                    _ => alike(value),
                };
                (name.clone(), value)
            };
            fields.iter().map(field).collect()
        }
        Value::Array(values) => values.iter().map(alike).collect(),
        other => other.clone(),
    }
}

fn list(user: &User, of: &User) -> Call {
    user.call(Method::GET, of.tasks())
}
fn follow(user: &User, of: &User) -> Call {
    user.call(Method::GET, of.feed())
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
async fn every_declared_status_and_every_example_happens_and_no_other_is_declared() {
    let mut seen = Seen::default();
    let app = app().await;
    let (ann, bob, nobody) = (app.new_user(), app.new_user(), app.anybody());
    let task = done(&ann).await;
    let (task, gone, stale) = (id(&task), unused_id(), "\"99\"");
    let good = json!({"title": "t"});
    let large = "x".repeat(100_000);
    let cut_off = |call: Call| call.header("Content-Type", "application/json").body("{\"title\": \"Water the plants\"");

    seen.see("listTasks", 304, list(&ann, &ann).header("If-None-Match", "*")).await;
    seen.see("listTasks", 422, ann.call(Method::GET, ann.tasks() + "?limit=0")).await;
    seen.see("listTasks", 401, list(&nobody, &ann)).await;
    seen.see("listTasks", 403, list(&bob, &ann)).await;

    seen.see("listChanges", 422, ann.call(Method::GET, ann.feed() + "?limit=0")).await;
    seen.see("listChanges", 401, follow(&nobody, &ann)).await;
    seen.see("listChanges", 403, follow(&bob, &ann)).await;
    let anns = ann.changes("").await.json()["next"].as_str().unwrap().to_owned();
    seen.see("listChanges", 410, bob.call(Method::GET, bob.feed() + "?since=" + &anns)).await;

    seen.see("createTask", 400, cut_off(create(&ann, &ann))).await;
    seen.see("createTask", 401, create(&nobody, &ann)).await;
    seen.see("createTask", 403, create(&bob, &ann)).await;
    seen.see("createTask", 413, create(&ann, &ann).json(large.clone())).await;
    seen.see("createTask", 415, create(&ann, &ann).body("x")).await;
    seen.see("createTask", 422, create(&ann, &ann).json(json!({"title": "x".repeat(201)}))).await;

    seen.see("getTask", 304, get(&ann, &ann, task).header("If-None-Match", "*")).await;
    seen.see("getTask", 422, get(&ann, &ann, task).header("If-None-Match", "\"x")).await;
    seen.see("getTask", 401, get(&nobody, &ann, task)).await;
    seen.see("getTask", 403, get(&bob, &ann, task)).await;
    seen.see("getTask", 404, get(&ann, &ann, &gone)).await;

    let changes: [(_, Request); 2] = [("updateTask", update), ("toggleTaskCompletion", toggle)];
    for (operation, call) in changes {
        let (valid, invalid) = match operation {
            "updateTask" => (good.clone(), json!({"title": "x".repeat(201)})),
            _ => (json!({}), json!({"completed": "yes"})),
        };
        seen.see(operation, 400, cut_off(call(&ann, &ann, task))).await;
        seen.see(operation, 401, call(&nobody, &ann, task)).await;
        seen.see(operation, 403, call(&bob, &ann, task)).await;
        seen.see(operation, 404, call(&ann, &ann, &gone).json(valid.clone())).await;
        seen.see(operation, 412, call(&ann, &ann, task).json(valid).header("If-Match", stale)).await;
        seen.see(operation, 413, call(&ann, &ann, task).json(large.clone())).await;
        seen.see(operation, 415, call(&ann, &ann, task).body("x")).await;
        seen.see(operation, 422, call(&ann, &ann, task).json(invalid)).await;
    }
    // A key that comes again with another request.
    create(&ann, &ann).json(good.clone()).key("k").send().await.is(201);
    seen.see("createTask", 422, create(&ann, &ann).json(json!({"title": "u"})).key("k")).await;
    seen.see("toggleTaskCompletion", 422, toggle(&ann, &ann, task).key("k")).await;

    seen.see("deleteTask", 422, delete(&ann, &ann, task).header("If-Match", "\"x")).await;
    seen.see("deleteTask", 401, delete(&nobody, &ann, task)).await;
    seen.see("deleteTask", 403, delete(&bob, &ann, task)).await;
    seen.see("deleteTask", 404, delete(&ann, &ann, &gone)).await;
    seen.see("deleteTask", 412, delete(&ann, &ann, task).header("If-Match", stale)).await;
    seen.see("deleteTask", 204, delete(&ann, &ann, task)).await;

    successes(&mut seen, &app).await;

    // A database that refuses every statement, and one that does not answer.
    let (broken, absent) = (self::app().await, self::app().await);
    broken.database.execute("drop table tasks").await;
    absent.store.clone().close().await;
    for (app, status) in [(&broken, 500), (&absent, 503)] {
        failures(&mut seen, app, status).await;
    }
    seen.see("getReadiness", 503, broken.anybody().call(Method::GET, "/health/ready")).await;
    absent.anybody().call(Method::GET, "/health/ready").send().await.is_problem(503, "unavailable");
    absent.anybody().call(Method::GET, "/health").send().await.is(200);
    // A defect, which nothing makes happen from outside here. The tests of the server's edge show how it is answered.
    for operation in ["getHealth", "getReadiness"] {
        assert!(seen.statuses.get_mut(operation).unwrap().insert(500));
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
    assert_eq!(seen.statuses, declared);

    assert_eq!(seen.examples, shown());
}

/// The examples of answers that the contract has, but for those that nothing makes happen. Each success has its request.
fn shown() -> BTreeSet<(&'static str, u16, String)> {
    let mut shown = BTreeSet::new();
    for operation in OPERATIONS.iter() {
        let sent = examples(&operation.description["requestBody"], "application/json");
        for (status, response) in operation.description["responses"].as_object().unwrap() {
            let status: u16 = status.parse().unwrap();
            let contents = response["content"].as_object().into_iter().flatten();
            for (name, _) in contents.flat_map(|(_, content)| content["examples"].as_object().unwrap()) {
                shown.insert((operation.id.as_str(), status, name.clone()));
                assert!(
                    status >= 300 || sent.is_null() || sent[name].is_object(),
                    "{} is not sent {name}",
                    operation.id
                );
            }
        }
        let answers = shown.iter().filter(|(id, status, _)| *id == operation.id && *status < 300).count();
        assert_eq!(sent.as_object().map_or(answers, serde_json::Map::len), answers, "{}", operation.id);
    }
    shown.retain(|(operation, status, _)| match status {
        // See above.
        500 => !operation.starts_with("getHealth") && !operation.starts_with("getReadiness"),
        409 => BACKEND != Backend::Sqlite,
        _ => true,
    });
    shown
}

/// The task that the contract shows: made with everything that can be said, and completed.
async fn done(user: &User) -> Value {
    let new = examples(&described("createTask")["requestBody"], "application/json")["all-fields"]["value"].clone();
    let task = user.post(new).await.is(201).json();
    user.toggle(id(&task)).await.is(200).json()
}

/// Everything that goes well, as the contract shows it.
async fn successes(seen: &mut Seen, app: &TestApp) {
    let (ann, nobody) = (app.new_user(), app.anybody());
    seen.see_example("listTasks", 200, "no-tasks", list(&ann, &ann)).await;
    ann.create("Feed the cat").await;
    let task = done(&ann).await;
    seen.see_example("listTasks", 200, "tasks", list(&ann, &ann)).await;
    let known = ann.changes("").await.json();
    let ask = |known: &Value| ann.call(Method::GET, ann.feed() + "?since=" + known["next"].as_str().unwrap());
    seen.see_example("listChanges", 200, "no-changes", ask(&known)).await;
    let (cat, changed) = (ann.create("Feed the cat, too").await, done(&ann).await);
    ann.delete(id(&cat)).await.is(204);
    seen.see_example("listChanges", 200, "changes", ask(&known)).await;
    ann.delete(id(&changed)).await.is(204);
    seen.see_example("getTask", 200, "task", get(&ann, &ann, id(&task))).await;
    seen.see_example("updateTask", 200, "new-title", update(&ann, &ann, id(&task))).await;
    let task = done(&ann).await;
    seen.see_example("updateTask", 200, "no-description", update(&ann, &ann, id(&task))).await;
    for name in ["title-only", "all-fields"] {
        seen.see_example("createTask", 201, name, create(&ann, &ann)).await;
    }
    let task = done(&ann).await;
    seen.see_example("toggleTaskCompletion", 200, "reopen", toggle(&ann, &ann, id(&task))).await;
    for name in ["complete", "flip"] {
        let new = examples(&described("createTask")["requestBody"], "application/json")["all-fields"]["value"].clone();
        let task = ann.post(new).await.is(201).json();
        seen.see_example("toggleTaskCompletion", 200, name, toggle(&ann, &ann, id(&task))).await;
    }
    seen.see_example("getHealth", 200, "ok", nobody.call(Method::GET, "/health")).await;
    seen.see_example("getReadiness", 200, "ok", nobody.call(Method::GET, "/health/ready")).await;
}

async fn limits(seen: &mut Seen, app: &TestApp) {
    let (ann, task) = (app.new_user(), unused_id());
    ann.list("").await.is(200);
    let calls = [
        ("listTasks", list(&ann, &ann)),
        ("listChanges", follow(&ann, &ann)),
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
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        seen.saw(operation, 408, &serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap());
    }
}

async fn failures(seen: &mut Seen, app: &TestApp, status: u16) {
    let (ann, task) = (app.new_user(), unused_id());
    let good = json!({"title": "t"});
    seen.see("listTasks", status, list(&ann, &ann)).await;
    seen.see("listChanges", status, follow(&ann, &ann)).await;
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
