//! Many at once.

use hyper::Method;
use serde_json::json;

use super::{app, id};
use crate::support::at_once;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_writers_all_get_through() {
    let app = app().await;
    let users: Vec<_> = (0..10).map(|_| app.new_user()).collect();

    let statuses = at_once(100, |n| {
        let user = users[n % 10].clone();
        async move { user.post(json!({"title": format!("{n}")})).await.status.as_u16() }
    })
    .await;

    assert_eq!(statuses, [201; 100]);
    for user in users {
        assert_eq!(user.list("").await.json().as_array().unwrap().len(), 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_tasks_of_one_user_may_come_at_once() {
    let app = app().await;
    let ann = app.new_user();

    let created = at_once(16, |n| {
        let ann = ann.clone();
        async move { ann.create(&format!("{n}")).await }
    })
    .await;

    let listed = ann.list("").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 16);
    assert!(created.iter().all(|task| listed.as_array().unwrap().contains(task)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_with_one_tag_exactly_one_wins() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let replies = at_once(16, |n| {
        let call = ann.call(Method::PUT, ann.task(id(&task))).json(json!({"title": format!("{n}")}));
        async move { call.header("If-Match", "\"1\"").send().await }
    })
    .await;

    let winners: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.status == 412 && reply.header("etag") == Some("\"2\"")).count(), 15);
    assert_eq!(ann.get(id(&task)).await.json(), winners[0].json());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_toggle_counts() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let flips = at_once(49, |_| {
        let (ann, task) = (ann.clone(), task.clone());
        async move { ann.toggle(id(&task)).await.is(200).json() }
    })
    .await;

    let mut flips: Vec<_> =
        flips.iter().map(|flip| (flip["version"].as_i64().unwrap(), flip["updated_at"].as_str().unwrap())).collect();
    flips.sort_unstable();
    let versions: Vec<_> = flips.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (2..=50).collect::<Vec<_>>(), "each flip made a version of its own");
    assert!(flips.is_sorted_by_key(|(_, updated_at)| updated_at), "the time of the last change never goes back");
    let last = ann.get(id(&task)).await.json();
    assert_eq!((&last["completed"], &last["version"]), (&json!(true), &json!(50)));
}
