//! The six operations on tasks.

use chrono::{DateTime, Utc};
use hyper::Method;
use serde_json::{Value, json};
use taskpact::clock::Clock;

use super::{app, id};

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_new_task_is_answered_whole_and_can_be_read() {
    let app = app().await;
    let ann = app.new_user();

    let reply = ann.post(json!({"title": "Water the plants", "description": "All of them"})).await;
    let task = reply.is(201).json();

    assert_eq!(task["user_id"], ann.id);
    assert_eq!(task["title"], "Water the plants");
    assert_eq!(task["description"], "All of them");
    assert_eq!(task["completed"], false);
    assert_eq!(task["completed_at"], Value::Null);
    assert_eq!(task["updated_at"], task["created_at"]);
    assert_eq!(task["version"], 1);
    assert_eq!(reply.tagged_version(), 1);
    let location = reply.header("location").unwrap();
    assert_eq!(location, ann.task(id(&task)));

    let read = ann.call(Method::GET, location).send().await;
    assert_eq!(read.is(200).json(), task);
    assert_eq!(read.tagged_version(), 1);
}

#[tokio::test]
async fn a_description_is_optional_or_null() {
    let app = app().await;
    let ann = app.new_user();

    for body in [json!({"title": "t"}), json!({"title": "t", "description": null})] {
        assert_eq!(ann.post(body).await.is(201).json()["description"], Value::Null);
    }
    assert_eq!(ann.post(json!({"title": "t", "description": ""})).await.is(201).json()["description"], "");
}

#[tokio::test]
async fn a_task_can_be_created_completed() {
    let app = app().await;
    let ann = app.new_user();

    let task = ann.post(json!({"title": "Done", "completed": true})).await.is(201).json();

    assert_eq!(task["completed"], true);
    assert_eq!(task["completed_at"], task["created_at"]);
}

#[tokio::test]
async fn timestamps_have_microseconds_and_stay_as_they_were_given() {
    let app = app().await;
    let ann = app.new_user();
    let before = DateTime::<Utc>::from(Clock.now());

    let task = ann.create("t").await;

    let written = task["created_at"].as_str().unwrap();
    assert_eq!(written.len(), "2026-11-21T07:15:42.310784Z".len(), "{written}");
    assert!(written.ends_with('Z'));
    assert!((before..=Clock.now().into()).contains(&time(&task["created_at"])));
    assert_eq!(ann.get(id(&task)).await.json()["created_at"], task["created_at"]);
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_leaves_the_rest() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.post(json!({"title": "Old", "description": "Kept"})).await.is(201).json();

    let reply = ann.put(id(&task), json!({"title": "New"})).await;
    let changed = reply.is(200).json();

    assert_eq!(changed["title"], "New");
    assert_eq!(changed["description"], "Kept");
    assert_eq!(changed["completed"], false);
    assert_eq!(changed["version"], 2);
    assert_eq!(changed["created_at"], task["created_at"]);
    assert!(time(&changed["updated_at"]) > time(&task["updated_at"]));
    assert_eq!(reply.tagged_version(), 2);
    assert_eq!(ann.get(id(&task)).await.json(), changed);
}

#[tokio::test]
async fn an_update_with_null_clears_the_description() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.post(json!({"title": "t", "description": "Gone soon"})).await.is(201).json();

    let changed = ann.put(id(&task), json!({"description": null})).await.is(200).json();

    assert_eq!(changed["description"], Value::Null);
    assert_eq!(changed["title"], "t");
    assert_eq!(ann.put(id(&task), json!({"description": "Back"})).await.is(200).json()["description"], "Back");
}

#[tokio::test]
async fn an_update_completes_and_reopens_and_keeps_the_first_completion() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let done = ann.put(id(&task), json!({"completed": true})).await.is(200).json();
    let again = ann.put(id(&task), json!({"completed": true, "title": "u"})).await.is(200).json();
    let open = ann.put(id(&task), json!({"completed": false})).await.is(200).json();

    assert_eq!((&done["completed"], &done["completed_at"]), (&json!(true), &done["updated_at"]));
    assert_eq!((&again["completed_at"], &again["version"]), (&done["completed_at"], &json!(3)));
    assert_eq!((&open["completed"], &open["completed_at"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn without_a_body_or_with_an_empty_object_the_state_flips() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let done = ann.toggle(id(&task)).await;
    assert_eq!(done.is(200).json()["completed"], true);
    assert_eq!(done.json()["completed_at"], done.json()["updated_at"]);
    assert_eq!(done.tagged_version(), 2);

    let open = ann.complete(id(&task), json!({})).await.is(200).json();
    assert_eq!((&open["completed"], &open["completed_at"], &open["version"]), (&json!(false), &Value::Null, &json!(3)));

    let declared_but_empty = ann
        .call(Method::PATCH, ann.task(id(&task)) + "/complete")
        .header("Content-Type", "application/json")
        .send()
        .await;
    assert_eq!(declared_but_empty.is(200).json()["completed"], true);
}

#[tokio::test]
async fn a_stated_completion_repeats_harmlessly() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;

    let done = ann.complete(id(&task), json!({"completed": true})).await.is(200).json();
    let again = ann.complete(id(&task), json!({"completed": true})).await.is(200).json();
    assert_eq!((&done["completed"], &done["version"]), (&json!(true), &json!(2)));
    assert_eq!(again, done);

    let open = ann.complete(id(&task), json!({"completed": false})).await.is(200).json();
    let again = ann.complete(id(&task), json!({"completed": false})).await.is(200).json();
    assert_eq!((&open["completed"], &open["completed_at"], &open["version"]), (&json!(false), &Value::Null, &json!(3)));
    assert_eq!(again, open);
}

#[tokio::test]
async fn a_deleted_task_is_gone() {
    let app = app().await;
    let ann = app.new_user();
    let (task, kept) = (ann.create("t").await, ann.create("Kept").await);

    let reply = ann.delete(id(&task)).await;
    assert!(reply.is(204).bytes.is_empty());

    ann.delete(id(&task)).await.is_problem(404, "no-such-task");
    ann.get(id(&task)).await.is_problem(404, "no-such-task");
    ann.put(id(&task), json!({"title": "u"})).await.is_problem(404, "no-such-task");
    ann.toggle(id(&task)).await.is_problem(404, "no-such-task");
    ann.complete(id(&task), json!({"completed": true})).await.is_problem(404, "no-such-task");
    assert_eq!(ann.list("").await.json(), json!([kept]));
}

#[tokio::test]
async fn text_of_every_script_survives() {
    let app = app().await;
    let ann = app.new_user();

    for title in [
        "Ünïcödé",
        "水をやる",
        "سقي النباتات",
        "🌱🪴 👩‍👩‍👧‍👦",
        "'; drop table tasks; --",
        "\\u0041 \"quoted\" \\n",
        "a\u{301}",
        "  edges  ",
    ] {
        let task =
            ann.post(json!({"title": title, "description": format!("{title}\n\t{title}\r\n")})).await.is(201).json();
        assert_eq!(task["title"], title);
        assert_eq!(ann.get(id(&task)).await.is(200).json(), task);
    }
}

#[tokio::test]
async fn user_ids_are_compared_byte_by_byte() {
    let app = app().await;
    let ids = [
        "1",
        "ann",
        "Ann",
        "ANN ",
        "a/b",
        "a%2Fb",
        "ä",
        "a\u{308}",
        "水",
        "..",
        "a b",
        "?x=1#y",
        "🌱",
        &"x".repeat(255),
    ];

    for id in ids {
        let user = app.user(id);
        assert_eq!(user.create(id.get(..20).unwrap_or(id)).await["user_id"], id);
    }
    for id in ids {
        assert_eq!(
            app.user(id).list("").await.is(200).json().as_array().unwrap().len(),
            1,
            "{id:?} sees other tasks than its own"
        );
    }
}

#[tokio::test]
async fn no_time_of_a_task_goes_back_though_a_clock_does() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    // Made by a server whose clock is ahead.
    let future = "2099-01-01T00:00:00.000000Z";
    app.database.execute(&format!("update tasks set created_at = '{future}', updated_at = '{future}'")).await;
    for completed in [true, false, true] {
        let reply = ann.complete(id(&task), json!({"completed": completed})).await;
        let changed = reply.is(200).json();
        let expected = if completed { json!(future) } else { Value::Null };
        assert_eq!((&changed["completed_at"], &changed["updated_at"]), (&expected, &json!(future)), "{completed}");
    }
    let flipped = ann.toggle(id(&task)).await.is(200).json();
    let flipped_back = ann.toggle(id(&task)).await.is(200).json();
    assert_eq!((&flipped["updated_at"], &flipped_back["completed_at"]), (&json!(future), &json!(future)));
}

#[tokio::test]
async fn a_task_at_its_last_version_can_be_read_and_deleted_and_no_more() {
    let app = app().await;
    let ann = app.new_user();
    let task = ann.create("t").await;
    app.database.execute("update tasks set version = 2147483647").await;
    let before = ann.get(id(&task)).await.is(200).json();
    ann.toggle(id(&task)).await.is_problem(500, "internal");
    ann.put(id(&task), json!({"title": "u"})).await.is_problem(500, "internal");
    assert_eq!(ann.get(id(&task)).await.is(200).json(), before);
    assert_eq!(ann.list("").await.is(200).json(), json!([before]));
    ann.delete(id(&task)).await.is(204);
}
