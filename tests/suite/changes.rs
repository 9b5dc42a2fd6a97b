//! The feed of changes: what is told, in which order, for how long, and who waits for it.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{app, id};
use crate::{
    BACKEND,
    support::{Database, Reply, TestApp, User, at_once},
};

/// The changes since `next`, of which there are no more.
async fn news(user: &User, next: &Value) -> Value {
    let told = user.changes(&format!("?since={}", next.as_str().unwrap())).await.is(200).json();
    assert_eq!(told["has_more"], false);
    told
}

/// How many tasks, and how many deletions, are told.
fn counts(told: &Value) -> (usize, usize) {
    (told["tasks"].as_array().unwrap().len(), told["deleted"].as_array().unwrap().len())
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(id).collect()
}

fn since(told: &Value) -> String {
    format!("?since={}", told["next"].as_str().unwrap())
}

#[tokio::test]
async fn what_was_made_changed_and_deleted_is_told_once_in_the_order_of_the_changes() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let nothing = ann.changes("").await.is(200).json();
    assert_eq!((counts(&nothing), &nothing["has_more"]), ((0, 0), &json!(false)));

    let (one, two, three) = (ann.create("one").await, ann.create("two").await, ann.create("three").await);
    bob.create("of somebody else").await;
    let all = news(&ann, &nothing["next"]).await;
    assert_eq!(ids(&all["tasks"]), [id(&one), id(&two), id(&three)]);
    assert_eq!(all, ann.changes("").await.json(), "who knew that there is nothing knows as much as who knew nothing");
    assert_eq!(counts(&news(&ann, &all["next"]).await), (0, 0));

    let one = ann.put(id(&one), json!({"title": "changed"})).await.json();
    let three = ann.toggle(id(&three)).await.json();
    ann.delete(id(&two)).await.is(204);
    ann.complete(id(&three), json!({"completed": true})).await.is(200);
    let four = ann.create("four").await;
    let told = news(&ann, &all["next"]).await;
    assert_eq!(told["tasks"], json!([one, three, four]), "as they are now, each once");
    assert_eq!(ids(&told["deleted"]), [id(&two)]);
    assert!(told["deleted"][0]["deleted_at"].as_str().unwrap() >= two["created_at"].as_str().unwrap());
    assert_eq!(told, news(&ann, &all["next"]).await, "asked again, told again");
    assert_eq!(counts(&news(&ann, &told["next"]).await), (0, 0));

    // Whoever begins now need not know what has been.
    assert_eq!(counts(&ann.changes("").await.json()), (3, 0));
    assert_eq!(counts(&bob.changes("").await.json()), (1, 0));
}

#[tokio::test]
async fn a_change_that_is_none_and_a_refused_one_are_not_told() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    let known = ann.changes("").await.json();
    ann.complete(id(&task), json!({"completed": false})).await.is(200);
    let refused = ann.call(Method::DELETE, ann.task(id(&task))).header("If-Match", "\"7\"");
    refused.send().await.is_problem(412, "version-mismatch");
    assert_eq!(
        news(&ann, &known["next"]).await,
        json!({"tasks": [], "deleted": [], "next": known["next"], "has_more": false})
    );
}

#[tokio::test]
async fn pages_lead_to_what_the_server_has_though_it_changes_meanwhile() {
    let app = app().await;
    let ann = app.new_user();
    let mut tasks = Vec::new();
    for n in 0..7 {
        tasks.push(ann.create(&format!("task {n}")).await);
    }
    ann.delete(id(&tasks[6])).await.is(204);

    let first = ann.changes("?limit=3").await.is(200).json();
    assert_eq!((counts(&first), &first["has_more"]), ((3, 0), &json!(true)));
    // One that was told, one that was not, and one that is told again.
    ann.delete(id(&tasks[0])).await.is(204);
    ann.delete(id(&tasks[3])).await.is(204);
    let changed = ann.toggle(id(&tasks[1])).await.json();
    let second = ann.changes(&(since(&first) + "&limit=3")).await.is(200).json();
    assert_eq!(ids(&second["tasks"]), [id(&tasks[4]), id(&tasks[5])]);
    assert_eq!((ids(&second["deleted"]), &second["has_more"]), (vec![id(&tasks[0])], &json!(true)));
    let third = news(&ann, &second["next"]).await;
    assert_eq!((&third["tasks"], ids(&third["deleted"])), (&json!([changed]), vec![id(&tasks[3])]));
}

#[tokio::test]
async fn rows_that_were_there_before_the_feed_are_told_in_pages() {
    let app = app().await;
    let ann = app.new_user();
    ann.create("t").await;
    app.database.copy_the_task(2_500).await;
    let (mut known, mut query, mut pages) = (std::collections::BTreeSet::new(), "?limit=999".to_owned(), 0);
    loop {
        let told = ann.changes(&query).await.is(200).json();
        known.extend(ids(&told["tasks"]).into_iter().map(str::to_owned));
        pages += 1;
        if told["has_more"] == false {
            break;
        }
        query = since(&told) + "&limit=999";
    }
    assert_eq!((known.len(), pages), (2_501, 3));
}

#[tokio::test]
async fn what_can_not_be_told_any_more_is_gone_and_never_left_out() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let (one, two) = (ann.create("one").await, ann.create("two").await);
    bob.create("t").await;
    let gone = |reply: &Reply| {
        reply.is_problem(410, "changes-expired");
    };
    let early = ann.changes("").await.json();
    ann.delete(id(&one)).await.is(204);
    let late = ann.changes(&since(&early)).await.is(200).json();

    // Another user's place, also if there were one.
    gone(&bob.changes(&since(&late)).await);

    // Deletions are remembered for thirty days.
    assert_eq!(app.store.sweep_deletions().await.unwrap(), 0);
    let days = |days: u32| match app.database {
        Database::Sqlite(_) => {
            format!("update deleted_tasks set deleted_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-{days} days')")
        }
        Database::Postgres(_) => format!("update deleted_tasks set deleted_at = now() - interval '{days} days'"),
    };
    app.database.execute(&days(29)).await;
    assert_eq!(app.store.sweep_deletions().await.unwrap(), 0);
    assert_eq!(counts(&ann.changes(&since(&early)).await.is(200).json()), (0, 1));
    app.database.execute(&days(31)).await;
    assert_eq!(app.store.sweep_deletions().await.unwrap(), 1);
    assert_eq!(app.store.sweep_deletions().await.unwrap(), 0);
    gone(&ann.changes(&since(&early)).await);
    assert_eq!(counts(&ann.changes(&since(&late)).await.is(200).json()), (0, 0));
    assert_eq!(counts(&ann.changes("").await.is(200).json()), (1, 0));

    // A restored database, which has not come so far yet.
    app.database.execute("update users set revision = revision - 1").await;
    gone(&ann.changes(&since(&late)).await);
    app.database.execute("update users set revision = revision + 1").await;
    ann.changes(&since(&late)).await.is(200);

    // A user who was erased, and one who came again.
    while app.store.erase(&ann.id).await.unwrap() {}
    gone(&ann.changes(&since(&late)).await);
    let nothing = ann.changes("").await.is(200).json();
    assert_eq!(counts(&nothing), (0, 0));
    ann.create("again").await;
    gone(&ann.changes(&since(&late)).await);
    assert_eq!(counts(&ann.changes(&since(&nothing)).await.is(200).json()), (1, 0));
    drop(two);
}

/// It is erased in steps, between which the user is served.
#[tokio::test]
async fn who_follows_a_user_that_is_being_erased_starts_over() {
    let app = app().await;
    let ann = app.new_user();
    ann.create("t").await;
    app.database.copy_the_task(1_500).await;
    let known = ann.changes("?limit=1").await.json();
    assert!(app.store.erase(&ann.id).await.unwrap());
    ann.changes(&since(&known)).await.is_problem(410, "changes-expired");
    let left = ann.changes("").await.is(200).json();
    assert!(!app.store.erase(&ann.id).await.unwrap());
    ann.changes(&since(&left)).await.is_problem(410, "changes-expired");
}

#[tokio::test]
async fn what_breaks_the_contract_is_told() {
    let app = app().await;
    let ann = app.new_user();
    for (query, broken) in [
        ("?limit=0", ("limit", "minimum")),
        ("?limit=1001", ("limit", "maximum")),
        ("?wait=31", ("wait", "maximum")),
        ("?wait=-1", ("wait", "minimum")),
        ("?wait=1.5", ("wait", "type")),
        ("?since=", ("since", "minLength")),
        ("?since=last%20week", ("since", "pattern")),
        (&format!("?since={}", "a".repeat(129)), ("since", "maxLength")),
    ] {
        ann.changes(query).await.is_invalid(&[broken]);
    }
    ann.changes("?since=yesterday").await.is_problem(410, "changes-expired");
    ann.changes("?limit=x&wait=x&since=%2B").await.is_invalid(&[
        ("since", "pattern"),
        ("limit", "type"),
        ("wait", "type"),
    ]);
}

/// A call that waits, and how long it took.
async fn waits(user: &User, query: String) -> (Value, Duration) {
    let started = Instant::now();
    let told = user.changes(&query).await.is(200).json();
    (told, started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_a_change_that_this_server_or_another_one_makes() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let other = app.replica(&ann).await;
    let task = ann.create("t").await;
    let known = ann.changes("").await.json();

    // What there is already is told at once.
    let (told, took) = waits(&ann, "?wait=30".to_owned()).await;
    assert!(counts(&told) == (1, 0) && took < Duration::from_secs(10), "{took:?}");

    // With nothing new it takes as long as it may, which is longer than another request.
    let (told, took) = waits(&ann, since(&known) + "&wait=2").await;
    assert_eq!(told, json!({"tasks": [], "deleted": [], "next": known["next"], "has_more": false}));
    assert!((2.0..10.0).contains(&took.as_secs_f64()), "{took:?}");

    let query = since(&known) + "&wait=30";
    let change = |by: User| {
        let (task, bob) = (id(&task).to_owned(), bob.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // What others do wakes nobody.
            bob.create("of somebody else").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            by.toggle(&task).await.is(200);
        }
    };
    for by in [&ann, &other] {
        let known = ann.changes("").await.json();
        let query = since(&known) + "&wait=30";
        let ((told, took), ()) = tokio::join!(waits(&ann, query), change(by.clone()));
        assert_eq!(counts(&told), (1, 0));
        assert!((0.5..15.0).contains(&took.as_secs_f64()), "{took:?}");
    }
    // Also a deletion.
    let ((told, _), ()) = tokio::join!(waits(&other, query), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ann.delete(id(&task)).await.is(204);
    });
    assert!(counts(&told) == (1, 0) || counts(&told) == (0, 1), "{told}");
}

/// A request may take a second here, and the call waits for longer.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_does_not_count_as_delay_and_holds_no_connection_to_the_database() {
    let settings = json!({"server": {"request_timeout_ms": 1_000}, "database": {"max_connections": 1}});
    let app = TestApp::start_with(BACKEND, settings).await;
    let ann = app.new_user();
    ann.create("t").await;
    let known = ann.changes("").await.json();
    let waiting = at_once(10, |_| {
        let (ann, query) = (ann.clone(), since(&known) + "&wait=3");
        async move { waits(&ann, query).await }
    });
    let others = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..20 {
            ann.list("").await.is(200);
        }
    };
    for (told, took) in tokio::join!(waiting, others).0 {
        assert!(counts(&told) == (0, 0) && took >= Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_wait_and_no_more() {
    let settings = json!({"changes": {"max_waiting": 3, "max_waiting_per_user": 2}});
    let app = TestApp::start_with(BACKEND, settings).await;
    let (ann, bob) = (app.new_user(), app.new_user());
    let ask = |user: &User, query: &str| {
        let (user, query) = (user.clone(), query.to_owned());
        tokio::spawn(async move { user.changes(&query).await })
    };
    let waiting = [ask(&ann, "?wait=30"), ask(&ann, "?wait=30")];
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = ann.changes("?wait=30").await;
    refused.is_problem(429, "too-many-requests");
    assert!(refused.header("retry-after").is_some());
    ann.changes("").await.is(200);
    let waits_too = ask(&bob, "?wait=30");
    tokio::time::sleep(Duration::from_millis(500)).await;
    bob.changes("?wait=30").await.is_problem(503, "unavailable");
    // A change sends them away, and their places are free.
    ann.create("t").await;
    for one in waiting {
        assert_eq!(counts(&one.await.unwrap().is(200).json()), (1, 0));
    }
    // What there is to be told is told, whoever waits.
    bob.create("t").await;
    assert_eq!(counts(&waits_too.await.unwrap().is(200).json()), (1, 0));
    let (_, took) = waits(&ann, since(&ann.changes("").await.json()) + "&wait=1").await;
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

/// Each has a connection: the other half is for those who ask for something else.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_wait_than_half_of_the_connections_that_have_a_place() {
    let app = TestApp::start_with(BACKEND, json!({"server": {"max_connections": 8}})).await;
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let user = app.new_user();
            tokio::spawn(async move { user.changes("?wait=3").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    app.new_user().changes("?wait=3").await.is_problem(503, "unavailable");
    for one in waiting {
        one.await.unwrap().is(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_waited_for_can_be_erased() {
    let app = app().await;
    let ann = app.new_user();
    ann.create("t").await;
    let query = since(&ann.changes("").await.json()) + "&wait=30";
    let (reply, ()) = tokio::join!(ann.changes(&query), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        while app.store.erase(&ann.id).await.unwrap() {}
    });
    reply.is_problem(410, "changes-expired");
}

/// Whoever hangs up waits no more, and one that sends nothing more, but listens, is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_has_left_is_not_waited_with() {
    let app = TestApp::start_with(BACKEND, json!({"changes": {"max_waiting_per_user": 1}})).await;
    let ann = app.new_user();
    for _ in 0..5 {
        let call = ann.call(Method::GET, ann.feed() + "?wait=30");
        assert!(call.send_within(Duration::from_millis(200)).await.is_none());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let started = Instant::now();
    let head = format!("GET {}?wait=30 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", ann.feed(), ann.token);
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#""has_more":false"#), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}
