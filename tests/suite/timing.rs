//! What answers say of where their time went.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::time::sleep;

use super::{app, id};
use crate::{
    BACKEND,
    support::{Reply, TestApp},
};

async fn telling() -> TestApp {
    TestApp::start_with(BACKEND, json!({"server": {"timing": true}})).await
}

/// The parts of the header, in milliseconds, in their order.
fn parts(reply: &Reply) -> Vec<(String, f64)> {
    let header = reply.header("server-timing").expect("the header is there");
    let parts = header.split(", ").map(|part| part.split_once(";dur=").expect("a duration"));
    parts.map(|(name, duration)| (name.to_owned(), duration.parse().unwrap())).collect()
}

fn names(reply: &Reply) -> Vec<String> {
    parts(reply).into_iter().map(|(name, _)| name).collect()
}

fn part(reply: &Reply, name: &str) -> f64 {
    parts(reply).into_iter().find(|(one, _)| one == name).unwrap_or_else(|| panic!("no {name}: {reply:?}")).1
}

#[tokio::test]
async fn an_answer_says_where_its_time_went_if_that_is_wanted() {
    let app = telling().await;
    let ann = app.new_user();
    let task = ann.create("Water the plants").await;
    for call in [
        ann.call(Method::GET, ann.tasks()),
        ann.call(Method::GET, ann.task(id(&task))),
        ann.call(Method::PATCH, ann.task(id(&task)) + "/complete"),
        ann.call(Method::PUT, ann.task(id(&task))).header("If-Match", "\"9\"").json(json!({"title": "t"})),
        ann.call(Method::DELETE, ann.task(id(&task))),
        ann.call(Method::DELETE, ann.task(id(&task))),
    ] {
        let started = Instant::now();
        let reply = call.send().await;
        let met = started.elapsed().as_secs_f64() * 1e3;
        assert_eq!(names(&reply), ["wait", "db", "app"]);
        let sum: f64 = parts(&reply).iter().map(|(_, duration)| duration).sum();
        assert!(part(&reply, "db") > 0.0 && sum <= met, "{sum} ms of {met}: {reply:?}");
    }
    // Who asks nothing of the database.
    let of_nobody = [app.anybody().list("").await, app.anybody().call(Method::GET, "/nowhere").send().await];
    for reply in of_nobody {
        assert_eq!(names(&reply), ["app"]);
    }
}

#[tokio::test]
async fn nobody_is_told_unless_it_is_wanted() {
    let app = app().await;
    let ann = app.new_user();
    let call = ann.call(Method::GET, ann.tasks()).header("Origin", "http://localhost:3000");
    let reply = call.send().await;
    assert_eq!(reply.is(200).header("server-timing"), None);
    assert_eq!(reply.header("timing-allow-origin"), None);
}

#[tokio::test]
async fn the_measurements_of_an_allowed_page_may_have_it() {
    let app = telling().await;
    let ann = app.new_user();
    for (origin, expected) in
        [("http://localhost:3000", Some("http://localhost:3000")), ("http://localhost:3001", None)]
    {
        let reply = ann.call(Method::GET, ann.tasks()).header("Origin", origin).send().await;
        assert_eq!(reply.is(200).header("timing-allow-origin"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_turn_is_told_apart_from_the_databases_own_time() {
    let app = telling().await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    let toggle = || {
        let (ann, path) = (ann.clone(), ann.task(id(&task)) + "/complete");
        tokio::spawn(async move { ann.call(Method::PATCH, path).send().await })
    };
    // One of the user's writes is with the database, and the next one waits for it here.
    let held = app.database.hold(&format!("update users set id = id where id = '{}'", ann.id)).await;
    let first = toggle();
    sleep(Duration::from_millis(200)).await;
    let second = toggle();
    sleep(Duration::from_millis(400)).await;
    drop(held);

    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(part(first.is(200), "db") > 500.0 && part(&first, "wait") < 300.0, "{first:?}");
    assert!(part(second.is(200), "wait") > 300.0 && part(&second, "db") < 300.0, "{second:?}");
}
