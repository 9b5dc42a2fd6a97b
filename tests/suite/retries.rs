//! Requests that are sent again: with a key they take effect once.

use hyper::Method;
use serde_json::{Value, json};

use super::{app, id};
use crate::{
    BACKEND,
    support::{Backend, Call, Reply, TestApp, User, at_once, unused_id},
};

const KEY: &str = "\"0f8fad5b-d9cb-469f-a165-70867728950e\"";

fn create(user: &User, title: &str) -> Call {
    user.call(Method::POST, user.tasks()).json(json!({"title": title}))
}

fn flip(user: &User, task: &Value) -> Call {
    user.call(Method::PATCH, user.task(id(task)) + "/complete")
}

/// Panics unless `repeat` is `first` again, marked as such.
fn is_replay(repeat: &Reply, first: &Reply) {
    assert_eq!((repeat.status, &repeat.bytes), (first.status, &first.bytes));
    for name in ["etag", "location", "content-type"] {
        assert_eq!(repeat.header(name), first.header(name), "{name}");
    }
    assert_eq!((first.header("idempotent-replayed"), repeat.header("idempotent-replayed")), (None, Some("true")));
}

async fn kept(app: &TestApp) -> usize {
    app.database.query("select key from idempotency_keys").await.len()
}

#[tokio::test]
async fn a_repeated_creation_makes_one_task_and_is_answered_alike() {
    let app = app().await;
    let ann = app.new_user();

    let first = create(&ann, "t").key(KEY).send().await;
    first.is(201);
    is_replay(&create(&ann, "t").key(KEY).send().await, &first);
    // However it is spelt: quoted or bare, and the body with other white space.
    is_replay(&create(&ann, "t").key(KEY.trim_matches('"')).send().await, &first);
    is_replay(&create(&ann, "t").body("{ \"title\" : \"t\" }").key(KEY).send().await, &first);
    assert_eq!(ann.list("").await.json(), json!([first.json()]));
}

#[tokio::test]
async fn a_repeat_is_given_the_first_answer_whatever_has_happened_since() {
    let app = app().await;
    let ann = app.new_user();
    let created = create(&ann, "t").key("create").send().await;
    let task = created.json();
    let flipped = flip(&ann, &task).header("If-Match", "\"1\"").key("flip").send().await;
    flipped.is(200);

    ann.put(id(&task), json!({"title": "Changed", "completed": false})).await.is(200);
    is_replay(&create(&ann, "t").key("create").send().await, &created);
    is_replay(&flip(&ann, &task).header("If-Match", "\"1\"").key("flip").send().await, &flipped);
    assert_eq!(ann.get(id(&task)).await.json()["version"], 3);

    ann.delete(id(&task)).await.is(204);
    is_replay(&create(&ann, "t").key("create").send().await, &created);
    is_replay(&flip(&ann, &task).header("If-Match", "\"1\"").key("flip").send().await, &flipped);
    assert_eq!(ann.list("").await.json(), json!([]));
}

#[tokio::test]
async fn a_repeated_flip_flips_once() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let first = flip(&ann, &task).key(KEY).send().await;
    assert_eq!(first.is(200).json()["completed"], true);
    // No body and an empty object ask for the same.
    for repeat in [flip(&ann, &task), flip(&ann, &task).json(json!({}))] {
        is_replay(&repeat.key(KEY).send().await, &first);
    }
    assert_eq!(ann.get(id(&task)).await.json(), first.json());
    assert_eq!(flip(&ann, &task).key("another").send().await.is(200).json()["completed"], false);
}

#[tokio::test]
async fn a_key_is_kept_across_servers() {
    let app = app().await;
    let ann = app.new_user();

    let first = create(&ann, "t").key(KEY).send().await;
    let elsewhere = app.replica(&ann).await;
    is_replay(&create(&elsewhere, "t").key(KEY).send().await, &first);
}

#[tokio::test]
async fn a_key_that_came_with_another_request_is_refused() {
    let app = app().await;
    let ann = app.new_user();
    let (one, two) = (ann.create("one").await, ann.create("two").await);
    create(&ann, "t").key("create").send().await.is(201);
    flip(&ann, &one).key("flip").send().await.is(200);
    let before = ann.list("").await.bytes;

    let state = |completed: bool| flip(&ann, &one).json(json!({"completed": completed}));
    for call in [
        create(&ann, "u").key("create"),
        create(&ann, "t").json(json!({"title": "t", "completed": true})).key("create"),
        flip(&ann, &one).key("create"),
        create(&ann, "t").key("flip"),
        flip(&ann, &two).key("flip"),
        flip(&ann, &one).header("If-Match", "\"2\"").key("flip"),
        state(true).key("flip"),
    ] {
        call.send().await.is_problem(422, "idempotency-key-reused");
    }
    assert_eq!(ann.list("").await.bytes, before);
}

#[tokio::test]
async fn two_users_keys_never_meet() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());

    let anns = create(&ann, "t").key(KEY).send().await;
    let bobs = create(&bob, "t").key(KEY).send().await;

    assert_eq!(bobs.is(201).header("idempotent-replayed"), None);
    assert_ne!(anns.json()["id"], bobs.json()["id"]);
    is_replay(&create(&bob, "t").key(KEY).send().await, &bobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_with_one_key_one_takes_effect_and_all_are_answered_alike() {
    let app = app().await;
    let ann = app.new_user();
    let elsewhere = app.replica(&ann).await;
    let both = [&ann, &elsewhere];

    // The first round is also that in which the user is made.
    for round in 0..5 {
        let key = format!("create-{round}");
        let created = at_once(16, |n| create(both[n % 2], &key).key(&key).send()).await;
        let task = created[0].is(201).json();
        let key = format!("flip-{round}");
        let flipped = at_once(16, |n| flip(both[n % 2], &task).key(&key).send()).await;
        for replies in [created, flipped] {
            let firsts = replies.iter().filter(|reply| reply.header("idempotent-replayed").is_none());
            assert_eq!(firsts.count(), 1);
            assert!(replies.iter().all(|reply| reply.status.is_success() && reply.bytes == replies[0].bytes));
        }
        assert_eq!(ann.get(id(&task)).await.json()["version"], 2);
    }
    assert_eq!(ann.list("").await.json().as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn what_is_refused_keeps_no_key() {
    let app = app().await;
    let (ann, stranger) = (app.new_user(), app.new_user());
    let task = ann.create("t").await;
    let users = || app.database.query("select id from users");

    create(&ann, "").key(KEY).send().await.is(422);
    create(&ann.with_token(""), "t").key(KEY).send().await.is(401);
    flip(&ann, &task).header("If-Match", "\"9\"").key(KEY).send().await.is_problem(412, "version-mismatch");
    flip(&ann, &json!({"id": unused_id()})).key(KEY).send().await.is_problem(404, "no-such-task");
    flip(&stranger, &task).key(KEY).send().await.is_problem(404, "no-such-task");
    assert_eq!((kept(&app).await, users().await), (0, vec![ann.id.clone()]));

    assert_eq!(flip(&ann, &task).key(KEY).send().await.is(200).header("idempotent-replayed"), None);
}

#[tokio::test]
async fn a_malformed_key_is_refused_and_nothing_is_made() {
    let app = app().await;
    let ann = app.new_user();

    let (long, quoted) = ("x".repeat(256), format!("\"{}\"", "x".repeat(256)));
    for key in ["", "\"\"", "\"", "\"a", "a b", "a,b", "\"a\";b", "ä", &long, &quoted] {
        let reply = create(&ann, "t").key(key).send().await;
        reply.is_invalid(&[("Idempotency-Key", "pattern")]);
        assert!(reply.detail().contains(": the header `Idempotency-Key` must be "), "{key}");
    }
    create(&ann, "t").key("a").key("b").send().await.is(422);
    create(&ann, "t").key("\"a\"").key("\"b\"").send().await.is(422);
    assert_eq!(ann.list("").await.json(), json!([]));

    for key in [&"x".repeat(255), &format!("\"{}\"", "x".repeat(255))] {
        create(&ann, "t").key(key).send().await.is(201);
    }
}

#[tokio::test]
async fn old_answers_are_forgotten_bit_by_bit() {
    let app = app().await;
    let ann = app.new_user();
    let first = create(&ann, "t").key("old").send().await;
    create(&ann, "t").key("young").send().await.is(201);
    let hours_ago = |hours: u32| match BACKEND {
        Backend::Postgres | Backend::PostgresByOwner => format!("now() - interval '{hours} hours'"),
        // As the server writes it.
        Backend::Sqlite => format!("strftime('%Y-%m-%dT%H:%M:%f', 'now', '-{hours} hours') || '+00:00'"),
    };
    let age = async |key: &str, hours| {
        let time = hours_ago(hours);
        let update = format!("update idempotency_keys set created_at = {time} where key = '{key}'");
        app.database.execute(&update).await;
    };
    age("young", 24).await;
    age("old", 26).await;
    is_replay(&create(&ann, "t").key("old").send().await, &first);
    let many = "with recursive n(n) as (select 1 union all select n + 1 from n where n < 399)
                insert into idempotency_keys select user_id, n, fingerprint, answer, created_at
                from idempotency_keys, n where key = 'old'";
    let many =
        if BACKEND == Backend::Postgres { many.replace("user_id, n,", "user_id, n::text,") } else { many.into() };
    app.database.execute(&many).await;
    assert_eq!(kept(&app).await, 401);

    for (removed, left) in [(200, 201), (200, 1), (0, 1)] {
        assert_eq!(app.store.sweep_keys().await.unwrap(), removed);
        assert_eq!(kept(&app).await, left);
    }
    assert_eq!(create(&ann, "t").key("young").send().await.header("idempotent-replayed"), Some("true"));
    assert_eq!(create(&ann, "t").key("old").send().await.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn a_list_that_the_caller_has_is_not_sent_again() {
    let app = app().await;
    let ann = app.new_user();
    let list = async |query: &str, tags: &str| {
        ann.call(Method::GET, ann.tasks() + query).header("If-None-Match", tags).send().await
    };
    let mut seen = vec![ann.list("").await.header("etag").unwrap().to_owned()];
    let mut changed = async |what: &str| {
        let tag = ann.list("").await.header("etag").unwrap().to_owned();
        assert!(!seen.contains(&tag), "{what} did not change the tag");
        for tags in [&tag, tag.trim_start_matches("W/"), &format!("\"x\", {tag}"), "*"] {
            let reply = list("", tags).await;
            assert_eq!((reply.is(304).bytes.len(), reply.header("etag")), (0, Some(&*tag)));
        }
        for tags in &seen {
            list("", tags).await.is(200);
        }
        seen.push(tag);
    };

    let one = ann.create("one").await;
    changed("a creation").await;
    let two = ann.create("two").await;
    changed("another creation").await;
    ann.toggle(id(&one)).await.is(200);
    changed("a flip").await;
    ann.put(id(&one), json!({"title": "three"})).await.is(200);
    changed("a change").await;
    ann.delete(id(&two)).await.is(204);
    changed("a deletion").await;
    ann.complete(id(&one), json!({"completed": true})).await.is(200);
    let newest = seen.last().unwrap();
    list("", newest).await.is(304);

    list("", "\"3").await.is_invalid(&[("If-None-Match", "pattern")]);
    ann.call(Method::HEAD, ann.tasks()).header("If-None-Match", newest.clone()).send().await.is(304);

    // The last page says so, which the same tasks on a page before the last do not.
    ann.create("newer").await;
    let page = ann.list("?limit=1").await;
    ann.delete(id(&one)).await.is(204);
    let last_page = list("?limit=1", page.header("etag").unwrap()).await;
    assert_eq!((last_page.is(200).header("link"), &last_page.bytes), (None, &page.bytes));
}
