//! Listing: order, filter, pages.

use hyper::Method;
use serde_json::json;

use super::{app, id};
use crate::{
    BACKEND,
    support::{TestApp, User},
};

async fn fill(user: &User, count: usize) {
    for n in 1..=count {
        user.create(&format!("{n}")).await;
    }
}

/// The titles of the pages that the `Link` headers lead through.
async fn follow(user: &User, first: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(user.tasks() + first);
    while let Some(path) = next {
        let reply = user.call(Method::GET, path).send().await;
        let tasks = reply.is(200).json();
        pages.push(tasks.as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap().to_owned()).collect());
        next = reply.header("link").map(|link| {
            link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect(link).to_owned()
        });
        assert_eq!(next.is_some(), reply.header("next-cursor").is_some());
    }
    pages
}

#[tokio::test]
async fn a_user_without_tasks_has_an_empty_list() {
    let app = app().await;
    let reply = app.new_user().list("").await;

    assert_eq!(reply.is(200).json(), json!([]));
    assert_eq!((reply.header("link"), reply.header("next-cursor")), (None, None));
}

#[tokio::test]
async fn the_newest_come_first() {
    let app = app().await;
    let ann = app.new_user();
    fill(&ann, 3).await;

    assert_eq!(ann.titles("").await, ["3", "2", "1"]);
}

#[tokio::test]
async fn the_status_filters() {
    let app = app().await;
    let ann = app.new_user();
    fill(&ann, 4).await;
    let tasks = ann.list("").await.json();
    ann.toggle(id(&tasks[1])).await.is(200);
    ann.toggle(id(&tasks[3])).await.is(200);

    assert_eq!(ann.titles("?status=completed").await, ["3", "1"]);
    assert_eq!(ann.titles("?status=pending").await, ["4", "2"]);
    assert_eq!(ann.titles("?status=all").await, ["4", "3", "2", "1"]);
    ann.toggle(id(&tasks[1])).await.is(200);
    assert_eq!(ann.titles("?status=completed").await, ["1"]);
}

#[tokio::test]
async fn pages_lead_to_the_end_and_keep_what_was_asked_for() {
    let app = app().await;
    let ann = app.user("ann & co/müller");
    fill(&ann, 5).await;
    ann.post(json!({"title": "done", "completed": true})).await.is(201);

    assert_eq!(follow(&ann, "?limit=2&status=pending").await, [vec!["5", "4"], vec!["3", "2"], vec!["1"]]);
    assert_eq!(follow(&ann, "?limit=3&x=%26y%3D1").await, [vec!["done", "5", "4"], vec!["3", "2", "1"]]);
    assert_eq!(follow(&ann, "?limit=6").await.len(), 1, "a page that is just full is the last one");

    let reply = ann.list("?limit=2&x=%26y%3D1&status=all").await;
    let (link, cursor) = (reply.header("link").unwrap(), reply.header("next-cursor").unwrap());
    assert_eq!(link, format!("<{}?limit=2&status=all&cursor={cursor}>; rel=\"next\"", ann.tasks()));
}

#[tokio::test]
async fn a_page_meets_each_task_once_while_others_come_and_go() {
    let app = app().await;
    let ann = app.new_user();
    fill(&ann, 6).await;
    let tasks = ann.list("").await.json();

    let first = ann.list("?limit=2").await;
    ann.create("late").await;
    // The very task that the cursor stands at, one on the page before, one that is still to come.
    for gone in [1, 0, 3] {
        ann.delete(id(&tasks[gone])).await.is(204);
    }
    let rest = follow(&ann, &format!("?limit=2&cursor={}", first.header("next-cursor").unwrap())).await;

    assert_eq!(rest.concat(), ["4", "2", "1"]);
}

#[tokio::test]
async fn another_users_cursor_shows_nothing_of_theirs() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    fill(&ann, 2).await;
    bob.create("Bob's").await;
    fill(&ann, 4).await;
    let cursor = ann.list("?limit=1").await.header("next-cursor").unwrap().to_owned();

    assert_eq!(bob.titles(&format!("?cursor={cursor}")).await, ["Bob's"]);
}

#[tokio::test]
async fn without_a_limit_it_is_the_newest_thousand() {
    let app = app().await;
    let ann = app.new_user();
    ann.create("the oldest").await;
    app.database.copy_the_task(1000).await;

    let reply = ann.list("").await;
    assert_eq!(reply.is(200).json().as_array().unwrap().len(), 1000);
    let cursor = reply.header("next-cursor").expect("there is one more");
    assert_eq!(ann.titles(&format!("?cursor={cursor}")).await, ["the oldest"]);
    assert_eq!(ann.list("?limit=1000").await.json(), reply.json());
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let app = app().await;
    let ann = app.new_user();
    fill(&ann, 2).await;

    let limit = "the query parameter `limit` must be a whole number from 1 to 1000.";
    let status = "the query parameter `status` must be `all`, `pending` or `completed`.";
    let cursor = "the query parameter `cursor` must be the `id` of a task, or an earlier `Next-Cursor`.";
    let cases = [
        ("limit=0", limit),
        ("limit=1001", limit),
        ("limit=-1", limit),
        ("limit=%2B1", limit),
        ("limit=1.0", limit),
        ("limit=01", limit),
        ("limit=ten", limit),
        ("limit=", limit),
        ("limit=99999999999999999999", limit),
        ("status=done", status),
        ("status=ALL", status),
        ("status=", status),
        ("status=%FF", status),
        ("cursor=", cursor),
        ("cursor=broken", cursor),
        ("cursor=%00", cursor),
        ("cursor=019a7e3c91d47b528f4e2a6c0d1b3e57", cursor),
        ("limit=1&limit=2", "the query parameter `limit` must be given once only."),
        ("status=all&limit=1&status=all", "the query parameter `status` must be given once only."),
    ];
    for (query, detail) in cases {
        let reply = ann.list(&format!("?{query}")).await;
        let expected = format!("The request breaks the contract: {detail}");
        assert_eq!(reply.is_problem(422, "invalid-request").detail(), expected, "{query}");
    }
    for (limit, code, bound) in [
        ("0", "minimum", json!(1)),
        ("-7", "minimum", json!(1)),
        ("1001", "maximum", json!(1000)),
        ("x", "type", json!(null)),
    ] {
        let reply = ann.list(&format!("?limit={limit}")).await;
        reply.is_invalid(&[("limit", code)]);
        assert_eq!(reply.json()["errors"][0]["limit"], bound);
    }
    assert_eq!(ann.titles("?unknown=1&unknown=2").await, ["2", "1"], "unknown parameters are ignored");
}

/// A page is kept, and not read again, until the owner's revision says that something has changed.
#[tokio::test]
async fn a_page_is_given_again_until_the_revision_rises() {
    for (megabytes, is_kept) in [(16, true), (0, false)] {
        let app = TestApp::start_with(BACKEND, json!({"database": {"page_cache_mb": megabytes}})).await;
        let ann = app.user("ann");
        ann.create("as it was").await;
        let tag = ann.list("").await.header("etag").unwrap().to_owned();

        app.database.execute("update tasks set title = 'by hand'").await;
        assert_eq!(ann.titles("").await, [if is_kept { "as it was" } else { "by hand" }]);
        let again = ann.call(Method::GET, ann.tasks()).header("if-none-match", tag.clone()).send().await;
        again.is(304);

        app.database.execute("update users set revision = revision + 1").await;
        assert_eq!(ann.titles("").await, ["by hand"]);
        ann.call(Method::GET, ann.tasks()).header("if-none-match", tag).send().await.is(200);
    }
}
