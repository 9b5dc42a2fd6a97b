//! What the operator can do with all that there is of one user.

use serde_json::json;

use super::app;

#[tokio::test]
async fn everything_of_a_user_is_given_out_as_the_api_gives_it() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    ann.post(json!({"title": "t", "description": "d"})).await.is(201);
    app.database.copy_the_task(2_400).await;
    bob.create("of somebody else").await;

    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let tasks = app.store.export(&ann.id, after).await.unwrap();
        assert!(tasks.len() <= 1_000);
        let Some(last) = tasks.last() else { break };
        after = Some(last.id);
        all.extend(tasks);
    }

    assert_eq!(all.len(), 2_401);
    let mut newest: Vec<_> = all.iter().rev().take(1_000).map(|task| json!(task)).collect();
    let listed = ann.list("").await.json();
    assert_eq!(json!(newest), listed);
    newest.truncate(1);
    assert_eq!(newest[0]["user_id"], ann.id);
}

#[tokio::test]
async fn an_erased_user_leaves_nothing_and_nobody_else_loses_anything() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    ann.create("t").await;
    app.database.copy_the_task(2_400).await;
    let toggled = ann.list("?limit=1").await.json()[0]["id"].as_str().unwrap().to_owned();
    ann.call(hyper::Method::PATCH, ann.task(&toggled) + "/complete").key("a").send().await.is(200);
    let kept = bob.create("of somebody else").await;
    let page = ann.list("").await;
    let before = app.store.belongings(&ann.id).await.unwrap().unwrap();
    assert_eq!((before.tasks, before.keys), (2_401, 1));

    let mut steps = 1;
    while app.store.erase(&ann.id).await.unwrap() {
        // Nobody is shown a page that was kept from before.
        let tag = page.header("etag").unwrap().to_owned();
        ann.call(hyper::Method::GET, ann.tasks()).header("If-None-Match", tag).send().await.is(200);
        steps += 1;
    }

    assert_eq!(steps, 3);
    assert_eq!(ann.list("").await.json(), json!([]));
    assert!(app.store.belongings(&ann.id).await.unwrap().is_none());
    assert!(app.store.export(&ann.id, None).await.unwrap().is_empty());
    assert_eq!(bob.list("").await.json(), json!([kept]));
    // Erasing again, or somebody unknown, is nothing.
    assert!(!app.store.erase(&ann.id).await.unwrap());
}
