//! Entity tags: If-Match and If-None-Match.

use hyper::Method;
use serde_json::{Value, json};

use super::{app, id};
use crate::support::{Call, Reply, User, unused_id};

async fn get(user: &User, task: &Value, if_none_match: impl Into<Vec<u8>>) -> Reply {
    user.call(Method::GET, user.task(id(task))).header("If-None-Match", if_none_match).send().await
}

/// The three operations that write to a task.
fn writes(user: &User, task: &str) -> [Call; 3] {
    [
        user.call(Method::PUT, user.task(task)).json(json!({"title": "Changed"})),
        user.call(Method::PATCH, user.task(task) + "/complete"),
        user.call(Method::DELETE, user.task(task)),
    ]
}

#[tokio::test]
async fn a_task_that_the_caller_has_is_not_sent_again() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let tag = ann.get(id(&task)).await.header("etag").unwrap().to_owned();
    for tags in [tag.clone(), format!("W/{tag}"), "*".to_owned(), format!("\"0\", {tag}"), format!("\"x,y\" , W/{tag}")]
    {
        let reply = get(&ann, &task, tags.clone()).await;
        assert!(reply.is(304).bytes.is_empty(), "{tags}");
        assert_eq!(reply.header("etag"), Some(&*tag));
    }
    // The version alone is no tag of what was read: an earlier program may have written it in another shape.
    for tags in ["\"1\"", "\"1-00000000\"", "\"2\"", "\"01\"", "\"\""] {
        get(&ann, &task, tags).await.is(200);
    }
    ann.toggle(id(&task)).await.is(200);
    get(&ann, &task, tag).await.is(200);
}

#[tokio::test]
async fn a_write_with_the_current_tag_takes_effect() {
    let app = app().await;
    let ann = app.new_user();

    let tag = ann.post(json!({"title": "t"})).await.header("etag").unwrap().to_owned();
    for tags in
        [&*tag, &format!("W/{tag}"), "\"1\"", "1", "\"1-00000000\"", "*", "\"7\", \"1\"", "\"x\",\"1\"", "W/\"1\""]
    {
        for n in 0..3 {
            let task = ann.create("t").await;
            let [put, patch, delete] = writes(&ann, id(&task));
            let call = [put, patch, delete].into_iter().nth(n).unwrap();
            assert!(call.header("If-Match", tags).send().await.status.is_success(), "{tags}");
        }
    }
}

#[tokio::test]
async fn a_write_with_another_tag_changes_nothing_and_tells_the_current_one() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    let task = ann.put(id(&task), json!({"description": "d"})).await.is(200).json();

    for tags in ["\"1\"", "\"3\"", "W/\"3\"", "\"1\", W/\"3\"", "\"two\"", "\"\"", "\"02\"", "\"99999999999\""] {
        for call in writes(&ann, id(&task)) {
            let reply = call.header("If-Match", tags).send().await;
            assert_eq!(reply.is_problem(412, "version-mismatch").tagged_version(), 2, "{tags}");
            let tag = reply.header("etag").unwrap();
            assert_eq!(
                reply.detail(),
                format!("`If-Match` does not list the entity tag that the task has now: {tag}.")
            );
            assert_eq!(reply.json()["current"], task, "to merge with, without a second read");
        }
    }
    let stated = ann.call(Method::PATCH, ann.task(id(&task)) + "/complete").json(json!({"completed": false}));
    stated.header("If-Match", "\"1\"").send().await.is_problem(412, "version-mismatch");
    assert_eq!(ann.get(id(&task)).await.json(), task);
}

#[tokio::test]
async fn a_tag_that_is_not_ascii_is_not_passed_over() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    for call in writes(&ann, id(&task)) {
        call.header("If-Match", b"\"\xE9\"".to_vec()).send().await.is_problem(412, "version-mismatch");
    }
    get(&ann, &task, b"\"\xE9\"".to_vec()).await.is(200);
}

#[tokio::test]
async fn several_headers_are_one_list() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let put = || ann.call(Method::PUT, ann.task(id(&task))).json(json!({"title": "u"})).header("If-Match", "\"8\"");
    put().header("If-Match", "\"9\"").send().await.is_problem(412, "version-mismatch");
    put().header("If-Match", "\"1\"").send().await.is(200);
}

#[tokio::test]
async fn a_malformed_condition_is_refused_and_nothing_is_changed() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    for tags in ["", "1, 2", "\"1", "\"1\" \"2\"", "*, \"1\"", "w/\"1\"", ",", "\"1 \""] {
        for call in writes(&ann, id(&task)) {
            let reply = call.header("If-Match", tags).send().await;
            reply.is_invalid(&[("If-Match", "pattern")]);
            assert!(reply.detail().contains(": the header `If-Match` must "), "{tags}: {}", reply.detail());
        }
        get(&ann, &task, tags).await.is_invalid(&[("If-None-Match", "pattern")]);
    }
    let many = vec!["\"1\""; 51].join(", ");
    for call in writes(&ann, id(&task)) {
        call.header("If-Match", many.clone()).send().await.is_invalid(&[("If-Match", "maxItems")]);
    }
    let long = format!("\"{}\"", "x".repeat(4095));
    for call in writes(&ann, id(&task)) {
        call.header("If-Match", long.clone()).send().await.is_invalid(&[("If-Match", "maxLength")]);
    }
    assert_eq!(ann.get(id(&task)).await.json(), task);
}

#[tokio::test]
async fn a_condition_on_no_task_is_still_no_such_task() {
    let app = app().await;
    let ann = app.new_user();

    for tags in ["*", "\"1\"", "W/\"1\""] {
        for call in writes(&ann, &unused_id()) {
            call.header("If-Match", tags).send().await.is_problem(404, "no-such-task");
        }
    }
}
