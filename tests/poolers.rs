//! Connection poolers in front of PostgreSQL: those that mix up prepared statements are refused, the others serve.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use support::{
    SECRET, User, at_once,
    pgbouncer::{self, PgBouncer},
    postgres::{Private, free_port, private},
    process::{Server, complaint},
};
use tempfile::tempdir;

const MIXES_UP: &str = "the connection pooler in front of it mixes up prepared statements";
const TRANSACTION: &str = "pool_mode = transaction\ndefault_pool_size = 5";
const SESSION: &str = "pool_mode = session\ndefault_pool_size = 20";

/// Newer ones keep track of statements unless they are told not to; Debian's does not know the setting.
fn untracked() -> &'static str {
    if pgbouncer::tracks_statements() { "\nmax_prepared_statements = 0" } else { "" }
}

/// A PostgreSQL, and a pooler in front of it.
fn both(settings: &str) -> Option<(Private, PgBouncer)> {
    let database = private(|_| {}, &[])?;
    let pooler = PgBouncer::start(free_port(), database.port, settings)?;
    Some((database, pooler))
}

/// Many users at once do what users do. Whatever one reads is theirs and what they wrote.
async fn many_users_find_what_they_wrote(server: &Server) {
    let users: Vec<User> = (0..16).map(|n| server.user(&format!("user-{n}"))).collect();
    at_once(users.len(), |n| {
        let user = users[n].clone();
        async move {
            let task = user.create("t").await;
            let id = task["id"].as_str().unwrap();
            for round in 0..10 {
                let (title, description) = (format!("title {n} {round}"), format!("description {n} {round}"));
                user.put(id, json!({"title": title})).await.is(200);
                let changed = user.put(id, json!({"description": description})).await.is(200).json();
                assert_eq!((&changed["title"], &changed["description"]), (&json!(title), &json!(description)));
                user.toggle(id).await.is(200);
                let read = user.get(id).await.is(200).json();
                assert_eq!((&read["id"], &read["title"]), (&json!(id), &json!(title)));
                assert_eq!(user.list("").await.is(200).json(), json!([read]));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_up_statements_is_refused_before_anything_is_written() {
    let here = tempdir().unwrap();
    for settings in [
        TRANSACTION,
        "pool_mode = transaction\ndefault_pool_size = 1",
        "pool_mode = transaction\nserver_round_robin = 1",
    ] {
        let Some((database, pooler)) = both(&format!("{settings}{}", untracked())) else { return };
        let environment = [("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &pooler.url())];
        for command in [&[][..], &["migrate", "up"]] {
            let why = complaint(here.path(), command, &environment, 1);
            assert!(why.contains(MIXES_UP) && why.contains("pool_mode = session"), "{settings}, {command:?}: {why}");
        }
        let mut direct = PgConnection::connect(&database.url("postgres")).await.unwrap();
        let tables = sqlx::query_scalar::<_, i64>("select count(*) from pg_tables where schemaname = 'public'");
        assert_eq!(tables.fetch_one(&mut direct).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_of_whole_sessions_serves() {
    serves(SESSION).await;
}

/// Debian's is too old for it; PGBOUNCER names another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_keeps_track_of_statements_serves() {
    if pgbouncer::tracks_statements() {
        serves(&format!("{TRANSACTION}\nmax_prepared_statements = 200")).await;
        serves("pool_mode = transaction\ndefault_pool_size = 1\nmax_prepared_statements = 200").await;
    }
}

async fn serves(settings: &str) {
    let here = tempdir().unwrap();
    let Some((_database, pooler)) = both(settings) else { return };
    let server = Server::start(here.path(), &[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &pooler.url())]);

    many_users_find_what_they_wrote(&server).await;
    server.user("ann").call(Method::GET, "/health/ready").send().await.is(200);
    // The pooler takes no parameters of a session.
    server.wait_for(r#"`alter role "taskpact" set statement_timeout = '5s'`"#);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_is_changed_under_a_running_server_is_found_out() {
    let here = tempdir().unwrap();
    let Some((database, pooler)) = both(SESSION) else { return };
    let environment = [
        ("BETTER_AUTH_SECRET", SECRET),
        ("DATABASE_URL", &pooler.url()),
        ("TASKPACT_DATABASE__ACQUIRE_TIMEOUT_MS", "500"),
    ];
    let server = Server::start(here.path(), &environment);
    let ann = server.user("ann");
    let task = ann.create("Before").await;
    let id = task["id"].as_str().unwrap().to_owned();
    // It goes on trusting what it has tried for ten seconds.
    tokio::time::sleep(Duration::from_secs(11)).await;

    let port = pooler.port;
    drop(pooler);
    let changed = PgBouncer::start(port, database.port, &format!("{TRANSACTION}{}", untracked())).unwrap();
    for _ in 0..3 {
        ann.get(&id).await.is_problem(503, "unavailable");
        ann.put(&id, json!({"title": "During"})).await.is_problem(503, "unavailable");
    }
    server.wait_for(MIXES_UP);

    drop(changed);
    let _mended = PgBouncer::start(port, database.port, SESSION).unwrap();
    let started = Instant::now();
    while ann.call(Method::GET, "/health/ready").send().await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", server.complained());
    }
    assert_eq!(ann.get(&id).await.is(200).json(), task);
    server.stop();
}
