//! That a block refuses the tokens that were issued before it ends, everywhere and at once, and nothing else.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    app, id,
    isolation::{of_users, request},
    tokens::{now, signed},
};
use crate::{
    BACKEND,
    support::{Held, Reply, TestApp, User, at_once, unused_id},
};

/// The user with a token that was issued then.
fn at(user: &User, issued: impl Into<Value>) -> User {
    user.with_token(&signed(&json!({"sub": user.id, "exp": now() + 3600, "iat": issued.into()})))
}

fn is_blocked(reply: &Reply) {
    reply.is_problem(401, "unauthorized");
    assert_eq!(reply.detail(), "The token is not valid: it was not issued after its user's block (blocked).");
    assert!(reply.header("www-authenticate").unwrap().starts_with(r#"Bearer error="invalid_token""#));
}

/// Creates a task, once.
async fn create_once(user: &User, key: &str) -> Reply {
    user.call(Method::POST, user.tasks()).json(json!({"title": "once"})).key(key).send().await
}

/// Everything that there is, to tell whether anything has changed.
async fn everything(app: &TestApp) -> Vec<String> {
    let of_tasks = "select concat_ws(' ', t.title, t.version, t.completed_at, u.revision) from tasks t \
                    join users u on u.id = t.user_id order by t.title";
    [app.database.query(of_tasks).await, app.database.query("select key from idempotency_keys").await].concat()
}

#[tokio::test]
async fn a_token_that_was_issued_before_the_block_is_refused_by_every_operation() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let task = ann.create("Ann's").await;
    let (bobs, from) = (bob.create("Bob's").await, now() - 10);
    let without = ann.with_token(&signed(&json!({"sub": ann.id, "exp": now() + 3600})));
    let old = [at(&ann, from - 1), at(&ann, json!(0.5)), without];
    let new = [at(&ann, from), ann.clone()];
    create_once(&ann, "key").await.is(201);
    let toggle_once = |user: &User| user.call(Method::PATCH, user.task(id(&task)) + "/complete").key("toggle").send();
    toggle_once(&ann).await.is(200);
    // This page is kept from now on.
    let tag = ann.list("").await.header("etag").unwrap().to_owned();
    let before = everything(&app).await;
    for user in &old {
        user.list("").await.is(200);
    }

    assert_eq!(app.store.block(&ann.id, from).await.unwrap(), from);

    for user in &old {
        for operation in of_users() {
            for task in [id(&task), id(&bobs), &unused_id()] {
                is_blocked(&request(operation, user, &ann.id, task).send().await);
            }
        }
        // The stored answers are refused, too, and whether a page is still the same.
        is_blocked(&create_once(user, "key").await);
        is_blocked(&create_once(user, "another").await);
        is_blocked(&toggle_once(user).await);
        is_blocked(&user.call(Method::GET, user.tasks()).header("If-None-Match", &*tag).send().await);
        is_blocked(&user.call(Method::DELETE, user.task(id(&task))).header("If-Match", "\"9\"").send().await);
        // What can be refused without the database is.
        user.list("?limit=0").await.is(422);
        user.call(Method::GET, bob.tasks()).send().await.is(403);
    }
    assert_eq!(everything(&app).await, before, "a request that was refused has done something");
    bob.get(id(&bobs)).await.is(200);
    for user in &new {
        user.get(id(&task)).await.is(200);
        user.call(Method::GET, user.tasks()).header("If-None-Match", &*tag).send().await.is(304);
        assert_eq!(create_once(user, "key").await.is(201).header("idempotent-replayed"), Some("true"));
    }

    assert!(app.store.unblock(&ann.id).await.unwrap());
    for user in &old {
        user.get(id(&task)).await.is(200);
    }
    assert!(!app.store.unblock(&ann.id).await.unwrap());
}

#[tokio::test]
async fn a_block_holds_on_every_server_and_is_never_made_shorter() {
    let app = app().await;
    let ann = app.new_user();
    let there = app.replica(&ann).await;
    there.list("").await.is(200);
    let until = now() + 1000;
    assert_eq!(app.store.block(&ann.id, until).await.unwrap(), until);
    for server in [&ann, &there] {
        is_blocked(&server.list("").await);
        is_blocked(&server.post(json!({"title": "t"})).await);
    }
    assert_eq!(app.store.block(&ann.id, now()).await.unwrap(), until);
    is_blocked(&there.list("").await);
    assert_eq!(app.store.block(&ann.id, until + 1).await.unwrap(), until + 1);
    app.store.unblock(&ann.id).await.unwrap();
    there.list("").await.is(200);
}

#[tokio::test]
async fn who_was_erased_does_not_come_back_with_an_old_token() {
    let app = app().await;
    let ann = app.new_user();
    let old = at(&ann, now() - 10);
    create_once(&old, "key").await.is(201);
    app.store.block(&ann.id, now() - 5).await.unwrap();
    while app.store.erase(&ann.id).await.unwrap() {}

    is_blocked(&old.post(json!({"title": "t"})).await);
    is_blocked(&create_once(&old, "key").await);
    is_blocked(&old.list("").await);

    assert_eq!(everything(&app).await, [""; 0]);
    ann.create("They may come back by themselves").await;
    // Without a block nothing is left of them.
    app.store.unblock(&ann.id).await.unwrap();
    while app.store.erase(&ann.id).await.unwrap() {}
    assert!(app.store.belongings(&ann.id).await.unwrap().is_none());
}

/// With one connection, so that many of them are in one set.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_travel_together_are_judged_apart() {
    let app = TestApp::start_with(BACKEND, json!({"database": {"max_connections": 1}})).await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let users = [at(&ann, now() - 10), ann.clone(), bob];
    app.store.block(&ann.id, now() - 5).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..60 {
        tasks.push(if n % 3 == 2 { &users[2] } else { &ann }.create("t").await);
    }
    // The same page for all, which is read once for those who may have it.
    let replies = at_once(60, |n| {
        let user = users[n % 3].clone();
        async move { user.list("?limit=1").await }
    })
    .await;
    for (n, reply) in replies.iter().enumerate() {
        if n % 3 == 0 { is_blocked(reply) } else { assert_eq!(reply.is(200).json()[0]["user_id"], users[n % 3].id) }
    }
    let replies = at_once(2 * tasks.len(), |n| {
        let (user, task, pick) = (users[n % 3].clone(), id(&tasks[n % 60]).to_owned(), n / 3 % 8);
        async move {
            match pick {
                0 => user.get(&task).await,
                1 => user.list("").await,
                2 => user.put(&task, json!({"title": "u"})).await,
                3 => user.toggle(&task).await,
                4 => user.post(json!({"title": "new"})).await,
                5 => create_once(&user, &format!("{n}")).await,
                6 => user.call(Method::PATCH, user.task(&task) + "/complete").key(&format!("{n}")).send().await,
                _ => user.delete(&task).await,
            }
        }
    })
    .await;
    for (n, reply) in replies.iter().enumerate() {
        if n % 3 == 0 {
            is_blocked(reply);
        } else {
            // Two of them may be about one task, of which one deletes it.
            assert!(reply.status.is_success() || reply.status == 404, "{n}: {}", reply.status);
        }
    }
    // Those of the refused ones are as they were.
    for task in tasks.iter().step_by(3) {
        assert_eq!(ann.get(id(task)).await.is(200).json(), *task);
    }
}

/// A request that waits for its owner's lock has looked for a block before there was one.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_while_the_block_is_made_is_refused() {
    let app = app().await;
    for pick in 0..5 {
        let ann = app.new_user();
        let task = id(&ann.create("t").await).to_owned();
        let block = format!("update users set tokens_from = {} where id = '{}'", now() + 1000, ann.id);
        let held = app.database.hold(&block).await;
        let waiting = tokio::spawn(async move {
            match pick {
                0 => ann.post(json!({"title": "late"})).await,
                1 => create_once(&ann, "late").await,
                2 => ann.toggle(&task).await,
                3 => ann.call(Method::PATCH, ann.task(&task) + "/complete").key("toggle").send().await,
                _ => ann.delete(&task).await,
            }
        });
        sleep(Duration::from_millis(300)).await;
        let before = everything(&app).await;
        match held {
            Held::Postgres(mut connection) => drop(sqlx::raw_sql("commit").execute(&mut connection).await.unwrap()),
            Held::Sqlite(mut connection) => drop(sqlx::raw_sql("commit").execute(&mut connection).await.unwrap()),
        }
        is_blocked(&waiting.await.unwrap());
        assert_eq!(everything(&app).await, before);
    }
}
