//! That nobody reaches what is another's: proved by walking the published contract, so that an operation that is added
//! is proved too.

use hyper::Method;
use serde_json::{Value, json};

use super::{app, id};
use crate::support::{
    Call, User,
    contract::{OPERATIONS, Operation},
    unused_id,
};

/// A valid request for `operation`, by `caller`, on the path of `user_id`, for the task `task_id`.
pub(super) fn request(operation: &Operation, caller: &User, user_id: &str, task_id: &str) -> Call {
    let path = operation.path.replace("{user_id}", user_id).replace("{task_id}", task_id);
    assert!(!path.contains('{'), "the test does not know a parameter of {path}");
    let call = caller.call(operation.method.clone(), path);
    let schema = &operation.description["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    match schema.as_str() {
        None => call,
        Some(schema) => {
            let schema = crate::support::contract::DOCUMENT.pointer(schema.trim_start_matches('#')).unwrap();
            call.json(schema["example"].clone())
        }
    }
}

pub(super) fn of_users() -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().filter(|operation| operation.path.contains("{user_id}"))
}

#[tokio::test]
async fn every_operation_but_health_needs_a_token() {
    let without: Vec<_> =
        OPERATIONS.iter().filter(|operation| !operation.needs_a_token()).map(|o| o.id.as_str()).collect();
    assert_eq!(without, ["getHealth", "getReadiness"]);
    assert!(of_users().count() >= 6);
    assert!(of_users().all(Operation::needs_a_token));
}

#[tokio::test]
async fn without_a_valid_token_of_that_user_nothing_is_done() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let task = ann.create("Ann's").await;

    let past = super::tokens::signed(&json!({"sub": ann.id, "exp": 1_000_000_000}));
    for operation in of_users() {
        for token in ["", "garbage", "a.b.c", &past] {
            let reply = request(operation, &ann.with_token(token), &ann.id, id(&task)).send().await;
            reply.is_problem(401, "unauthorized");
            assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
        request(operation, &bob, &ann.id, id(&task)).send().await.is_problem(403, "forbidden");
    }
    assert_eq!(ann.list("").await.json(), json!([task]));
}

#[tokio::test]
async fn another_owners_task_looks_like_no_task() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let anns = ann.create("Water the plants").await;
    let bobs = bob.create("Bob's own").await;

    let of_one_task: Vec<_> = of_users().filter(|operation| operation.path.contains("{task_id}")).collect();
    assert!(of_one_task.len() >= 4);
    for operation in of_one_task {
        let theirs = request(operation, &bob, &bob.id, id(&anns)).send().await;
        let nobodys = request(operation, &bob, &bob.id, &unused_id()).send().await;

        theirs.is_problem(404, "no-such-task");
        assert_eq!(theirs.without_request_id(), nobodys.without_request_id());
        let names = |reply: &crate::support::Reply| reply.headers.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&theirs), names(&nobodys));
    }
    assert_eq!(ann.list("").await.json(), json!([anns]));
    assert_eq!(bob.list("").await.json(), json!([bobs]));
}

#[tokio::test]
async fn a_condition_tells_nothing_of_another_owners_task() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let anns = ann.create("t").await;

    for tags in ["\"1\"", "\"2\"", "*"] {
        for (method, header) in [(Method::GET, "If-None-Match"), (Method::DELETE, "If-Match")] {
            bob.call(method, bob.task(id(&anns))).header(header, tags).send().await.is_problem(404, "no-such-task");
        }
        let put = bob.call(Method::PUT, bob.task(id(&anns))).json(json!({"title": "Bob's now"}));
        put.header("If-Match", tags).send().await.is_problem(404, "no-such-task");
    }
    assert_eq!(ann.get(id(&anns)).await.json(), anns);
}

#[tokio::test]
async fn a_user_id_in_the_body_does_not_count() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());

    ann.post(json!({"title": "t", "user_id": bob.id})).await.is_invalid(&[("/user_id", "additionalProperties")]);
    assert_eq!(bob.list("").await.json(), json!([]));
}

#[tokio::test]
async fn a_path_that_only_resembles_the_subject_is_another_users() {
    let app = app().await;
    let ann = app.user("Ann");
    ann.create("t").await;

    for path in [
        "ann", "ANN", "Ann%20", "%20Ann", "Ann%00", "Ann%2F", "%41nn%41", "Ann%FF", "%C1%81nn", "Änn", "A%6En.", "*",
        "%25", "Ann%3Bx",
    ] {
        ann.call(Method::GET, format!("/api/{path}/tasks")).send().await.is_problem(403, "forbidden");
    }
    // The same bytes, written differently, are the same user.
    for path in ["Ann", "%41nn", "A%6en"] {
        assert_eq!(
            ann.call(Method::GET, format!("/api/{path}/tasks")).send().await.is(200).json().as_array().unwrap().len(),
            1
        );
    }
}

#[tokio::test]
async fn refusals_come_in_their_order() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let task = ann.create("t").await;
    let call =
        |user: &User, path: String, body: Value| user.call(Method::PUT, path).json(body).header("If-Match", "\"9\"");
    let (bad, good) = (json!({"title": 1}), json!({"title": "u"}));

    // Everything is wrong; what is refused is the first of it. Then that is corrected.
    let nobody = ann.with_token("");
    call(&nobody, bob.task("no-uuid"), bad.clone()).send().await.is(401);
    call(&ann, bob.task("no-uuid"), bad.clone()).send().await.is(403);
    let unread = ann.call(Method::PUT, ann.task("no-uuid")).header("Content-Type", "application/json").body("{");
    unread.header("If-Match", "\"x").send().await.is(400);
    call(&ann, ann.task("no-uuid"), bad.clone()).send().await.is(422);
    call(&ann, ann.task("no-uuid"), good.clone()).send().await.is(404);
    call(&ann, ann.task(&unused_id()), bad.clone()).send().await.is(422);
    call(&ann, ann.task(&unused_id()), good.clone()).send().await.is(404);
    call(&ann, ann.task(id(&task)), bad).send().await.is(422);
    call(&ann, ann.task(id(&task)), good).send().await.is(412);
}

#[tokio::test]
async fn who_is_refused_costs_no_database_work() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    // A server that can't ask its database any more.
    app.store.clone().close().await;

    for operation in of_users() {
        let task = unused_id();
        request(operation, &ann.with_token(""), &ann.id, &task).send().await.is(401);
        request(operation, &bob, &ann.id, &task).send().await.is(403);
        request(operation, &ann, &ann.id, &task).send().await.is_problem(503, "unavailable");
    }
}
