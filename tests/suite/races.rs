//! Many at once.

use hyper::Method;
use serde_json::json;

use super::{app, id};
use crate::support::{Call, User, at_once};

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
    let writes: [fn(&User, &str, usize) -> Call; 3] = [
        |ann, task, n| ann.call(Method::PUT, ann.task(task)).json(json!({"title": format!("{n}")})),
        |ann, task, _| ann.call(Method::PATCH, ann.task(task) + "/complete"),
        |ann, task, _| ann.call(Method::DELETE, ann.task(task)),
    ];

    for write in writes {
        let task = ann.create("t").await;
        let replies = at_once(16, |n| write(&ann, id(&task), n).header("If-Match", "\"1\"").send()).await;

        let (winners, losers): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status.is_success());
        assert_eq!(winners.len(), 1);
        if winners[0].status == 204 {
            assert!(losers.iter().all(|reply| reply.status == 404));
            ann.get(id(&task)).await.is(404);
        } else {
            assert!(losers.iter().all(|reply| reply.status == 412 && reply.tagged_version() == 2));
            assert_eq!(ann.get(id(&task)).await.json(), winners[0].json());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_toggle_counts() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let flips = at_once(50, |_| {
        let (ann, task) = (ann.clone(), task.clone());
        async move { ann.toggle(id(&task)).await.is(200).json() }
    })
    .await;

    let mut flips: Vec<_> = flips
        .iter()
        .map(|flip| {
            (flip["version"].as_i64().unwrap(), flip["completed"] == true, flip["updated_at"].as_str().unwrap())
        })
        .collect();
    flips.sort_unstable();
    let states: Vec<_> = flips.iter().map(|(version, completed, _)| (*version, *completed)).collect();
    let expected: Vec<_> = (2..=51).map(|version| (version, version % 2 == 0)).collect();
    assert_eq!(states, expected, "each flip made a version of its own, and the other state");
    assert!(flips.is_sorted_by_key(|(_, _, updated_at)| updated_at), "the time of the last change never goes back");
    assert_eq!(ann.get(id(&task)).await.json()["version"], 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stated_completion_may_be_repeated_at_once() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let replies = at_once(16, |_| {
        let (ann, task) = (ann.clone(), task.clone());
        async move { ann.complete(id(&task), json!({"completed": true})).await.is(200).json() }
    })
    .await;

    assert!(replies.iter().all(|reply| reply == &replies[0]));
    assert_eq!((&replies[0]["completed"], &replies[0]["version"]), (&json!(true), &json!(2)));
}
