//! The file of a SQLite database: who may read it, what happens if it can't be written, or is gone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::json;
use support::{
    Reply, SECRET, User,
    process::{Server, printed},
};
use tempfile::{TempDir, tempdir};

const WITH_SECRET: (&str, &str) = ("BETTER_AUTH_SECRET", SECRET);

async fn ready(user: &User) -> Reply {
    user.call(Method::GET, "/health/ready").send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_deleted_or_replaced_is_noticed_and_nothing_is_acknowledged() {
    for replaced in [false, true] {
        let here = tempdir().unwrap();
        let server = Server::start(here.path(), &[WITH_SECRET]);
        let ann = server.user("ann");
        let task = ann.create("Before").await;
        let id = task["id"].as_str().unwrap();
        ready(&ann).await.is(200);

        let file = here.path().join("data/taskpact.db");
        fs::remove_file(&file).unwrap();
        if replaced {
            fs::write(&file, "").unwrap();
        }
        for reply in [
            ann.post(json!({"title": "After"})).await,
            ann.put(id, json!({"title": "After"})).await,
            ann.toggle(id).await,
            ann.delete(id).await,
            ann.call(Method::POST, ann.tasks()).json(json!({"title": "Keyed"})).key("key").send().await,
            ready(&ann).await,
        ] {
            let detail = reply.is_problem(503, "unavailable").detail();
            assert!(detail.contains("the database's file was deleted or replaced; restart the server"), "{detail}");
        }
        server.stop();
    }
}

/// A database with one task, in a folder of its own.
async fn with_one_task(here: &TempDir) {
    let server = Server::start(here.path(), &[WITH_SECRET]);
    server.user("ann").create("Before").await;
    server.stop();
}

/// A server on this database that can't write to it: it serves reads, refuses writes, and says so.
async fn reads_only(server: Server) {
    server.wait_for("the database only takes reads");
    let ann = server.user("ann");
    assert_eq!(ann.titles("").await, ["Before"]);
    ann.post(json!({"title": "t"})).await.is_problem(503, "unavailable");
    let detail = ready(&ann).await.is_problem(503, "unavailable").detail();
    assert_eq!(detail, "The server is not ready: the database only takes reads.");
    ann.call(Method::GET, "/health").send().await.is(200);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_opened_for_reading_only_serves_reads_and_is_not_ready() {
    let here = tempdir().unwrap();
    with_one_task(&here).await;
    let url = ("DATABASE_URL", "sqlite://data/taskpact.db?mode=ro");
    reads_only(Server::start(here.path(), &[WITH_SECRET, url])).await;
}

/// Root may write everywhere, so this one is somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_permission_to_write_serves_reads_and_is_not_ready() {
    const NOBODY: u32 = 65_534;
    let here = tempdir().unwrap();
    with_one_task(&here).await;
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let data = here.path().join("data");
    mode(&data.join("taskpact.db"), 0o444);
    mode(here.path(), 0o755);
    let program = here.path().join("taskpact");
    fs::copy(env!("CARGO_BIN_EXE_taskpact"), &program).unwrap();
    let mut command = Command::new(&program);
    command.env_clear().env(WITH_SECRET.0, WITH_SECRET.1).current_dir(here.path());
    if chown(&data, Some(NOBODY), Some(NOBODY)).is_ok() {
        std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
    }
    reads_only(Server::start_command(&mut command)).await;

    // And one that may not even read it is told where.
    if data.join("taskpact.db").metadata().is_ok_and(|file| std::os::unix::fs::MetadataExt::uid(&file) == 0) {
        mode(&data.join("taskpact.db"), 0o600);
        let mut command = Command::new(&program);
        command.env_clear().env(WITH_SECRET.0, WITH_SECRET.1).env("PORT", "0").current_dir(here.path());
        std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("data/taskpact.db: Permission denied"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_one_file_is_warned_about() {
    let here = tempdir().unwrap();
    let words = "another server has the same SQLite file open";
    let first = Server::start(here.path(), &[WITH_SECRET]);
    assert!(!first.complained().contains(words), "{}", first.complained());
    let second = Server::start(here.path(), &[WITH_SECRET]);
    second.wait_for(words);
    first.stop();
    second.stop();
    // A command that looks, or a server after another, is none.
    let third = Server::start(here.path(), &[WITH_SECRET]);
    printed(here.path(), &["migrate", "status"], &[]);
    assert!(!third.complained().contains(words), "{}", third.complained());
    third.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may_read_it() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET]);
    server.user("ann").create("t").await;
    for file in fs::read_dir(here.path().join("data")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_does_not_grow_while_somebody_always_reads() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let log = here.path().join("data/taskpact.db-wal");
    let size = || fs::metadata(&log).map_or(0, |log| log.len()) / 1024 / 1024;
    let description = "x".repeat(1000);
    let write_for = async |time: Duration| {
        let started = Instant::now();
        let mut most = 0;
        let clients = (0..12).map(|n| {
            let (user, description) = (server.user(&format!("user-{}", n % 4)), description.clone());
            tokio::spawn(async move {
                while started.elapsed() < time {
                    if n < 6 {
                        user.list("?limit=100").await.is(200);
                    } else {
                        user.post(json!({"title": "t", "description": description})).await.is(201);
                    }
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            most = most.max(size());
        }
        for client in clients {
            client.await.unwrap();
        }
        most
    };
    let most = write_for(Duration::from_secs(8)).await;
    assert!((1..24).contains(&most), "{most} MiB");

    // Another process reads for a while: nobody waits for it, and afterwards the log is short again.
    let reader = rusqlite::Connection::open(here.path().join("data/taskpact.db")).unwrap();
    reader.execute_batch("begin; select count(*) from tasks").unwrap();
    let mut most = 0;
    for _ in 0..5 {
        if most <= 16 {
            most = most.max(write_for(Duration::from_secs(6)).await);
        }
    }
    assert!(most > 16, "{most} MiB: it was no reader");
    drop(reader);
    let started = Instant::now();
    while size() > 16 {
        assert!(started.elapsed() < Duration::from_secs(10), "{} MiB", size());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop();
}
