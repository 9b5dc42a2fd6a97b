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
    process::{Server, complaint, printed},
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

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_made_under_load_is_whole_and_what_was_read_since_does_not_match_after_a_restoration() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let task = ann.create("before").await;
    let path = ann.task(task["id"].as_str().unwrap());
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let bob = bob.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    bob.post(json!({"title": "t", "description": "x".repeat(1000)})).await.is(201);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let said = printed(here.path(), &["backup", "copy.db"], &[]);
    assert_eq!(said, "copy.db is a copy of the database, and in order\n");
    let copied = bob.titles("").await.len();
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(copied > 0 && copied < 400, "it was not under load: {copied}");
    let copy = here.path().join("copy.db");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let again = complaint(here.path(), &["backup", "copy.db"], &[], 1);
    assert!(again.contains("copy.db is there already"), "{again}");

    // Changed since: these tags are of what the copy does not have.
    let changed = ann.call(Method::PUT, &path).json(json!({"title": "after"})).send().await;
    let tag = changed.is(200).header("etag").unwrap().to_owned();
    let of_list = ann.list("").await.header("etag").unwrap().to_owned();
    let running = complaint(here.path(), &["restore", "copy.db", "--yes"], &[], 1);
    assert!(running.contains("a server has data/taskpact.db open: stop it first"), "{running}");
    server.stop();
    let unasked = complaint(here.path(), &["restore", "copy.db"], &[], 1);
    assert!(unasked.contains("Nothing was done. Say --yes"), "{unasked}");
    let said = printed(here.path(), &["restore", "copy.db", "--yes"], &[]);
    assert!(said.starts_with("the database is that of copy.db; what it was is in data/taskpact.db.before-"), "{said}");

    let server = Server::start(here.path(), &[WITH_SECRET]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    assert_eq!(ann.titles("").await, ["before"]);
    let found = bob.titles("").await.len();
    assert!(found > 0 && found <= copied, "{found} of {copied}");
    // It is at version 2 once more, by its count, and has other content than the version 2 that was read.
    ann.call(Method::PUT, &path).json(json!({"description": "since then"})).send().await.is(200);
    let late = ann.call(Method::PUT, &path).json(json!({"title": "lost"})).header("If-Match", tag.clone()).send().await;
    late.is_problem(412, "version-mismatch");
    ann.call(Method::GET, &path).header("If-None-Match", tag).send().await.is(200);
    ann.call(Method::GET, ann.tasks()).header("If-None-Match", of_list).send().await.is(200);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_takes_nothing_of_the_one_before_and_loses_none() {
    let here = tempdir().unwrap();
    let data = here.path().join("data");
    let befores = || {
        let names = fs::read_dir(&data).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".before-") && !name.ends_with("-wal") && !name.ends_with("-shm")).count()
    };
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let ann = server.user("ann");
    ann.create("copied").await;
    printed(here.path(), &["backup", "copy.db"], &[]);
    ann.create("since then").await;
    // It is killed: what it wrote last is in the log only. And somebody puts the file itself aside.
    drop(server);
    assert!(data.join("taskpact.db-wal").exists());
    fs::rename(data.join("taskpact.db"), data.join("aside.db")).unwrap();
    printed(here.path(), &["restore", "copy.db", "--yes"], &[]);
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let found = server.user("ann").list("").await.json();
    assert_eq!((&found[0]["title"], found.as_array().unwrap().len()), (&json!("copied"), 1));
    assert!(found[0]["version"].as_i64().unwrap() > 1_000_000, "{found}");
    // What is known after this restoration is not what is known after the next one of the same copy.
    let ann = server.user("ann");
    let id = found[0]["id"].as_str().unwrap();
    let tag = ann.put(id, json!({"title": "after the first"})).await.is(200).header("etag").unwrap().to_owned();
    let of_list = ann.list("").await.header("etag").unwrap().to_owned();
    let told = ann.changes("").await.is(200).json();
    server.stop();
    std::thread::sleep(Duration::from_millis(1_100));
    printed(here.path(), &["restore", "copy.db", "--yes"], &[]);
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let ann = server.user("ann");
    ann.put(id, json!({"title": "after the second"})).await.is(200);
    let late = ann.call(Method::PUT, ann.task(id)).json(json!({"title": "lost"})).header("If-Match", tag);
    late.send().await.is_problem(412, "version-mismatch");
    ann.call(Method::GET, ann.tasks()).header("If-None-Match", of_list).send().await.is(200);
    let since = format!("?since={}", told["next"].as_str().unwrap());
    ann.changes(&since).await.is_problem(410, "changes-expired");
    server.stop();

    let before = befores();
    for _ in 0..3 {
        printed(here.path(), &["restore", "copy.db", "--yes"], &[]);
    }
    assert_eq!(befores(), before + 3, "each is kept");

    // The second of two servers has not the lock by which the first one is known.
    let first = Server::start(here.path(), &[WITH_SECRET]);
    let second = Server::start(here.path(), &[WITH_SECRET]);
    first.stop();
    second.user("ann").create("by the second").await;
    let refused = complaint(here.path(), &["restore", "copy.db", "--yes"], &[], 1);
    assert!(refused.contains("a server has data/taskpact.db open: stop it first"), "{refused}");
    assert_eq!(second.user("ann").titles("").await, ["by the second", "copied"]);
    second.stop();
    assert!(!data.join("taskpact.db.restored").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_copy_of_ours_is_not_put_in_place() {
    let here = tempdir().unwrap();
    let missing = complaint(here.path(), &["backup", "copy.db"], &[], 1);
    assert!(missing.contains("there is no file data/taskpact.db"), "{missing}");
    let server = Server::start(here.path(), &[WITH_SECRET]);
    server.user("ann").create("kept").await;
    server.stop();
    printed(here.path(), &["backup", "copy.db"], &[]);
    let restore = |name: &str| complaint(here.path(), &["restore", name, "--yes"], &[], 1);

    rusqlite::Connection::open(here.path().join("foreign.db")).unwrap().execute_batch("create table t (a)").unwrap();
    fs::write(here.path().join("text.db"), "This is no database, whatever it is called.".repeat(100)).unwrap();
    let mut bytes = fs::read(here.path().join("copy.db")).unwrap();
    let half = bytes.len() / 2;
    bytes[half..half + 3000].fill(0x55);
    fs::write(here.path().join("damaged.db"), bytes).unwrap();
    for (name, why) in [
        ("nowhere.db", "there is no file nowhere.db"),
        ("foreign.db", "it has no table `tasks`"),
        ("text.db", "text.db is damaged: "),
        ("damaged.db", "damaged.db is damaged: "),
    ] {
        let said = restore(name);
        assert!(said.contains(why), "{name}: {said}");
    }
    let postgres = [("DATABASE_URL", "postgres://nobody@127.0.0.1/x")];
    let said = complaint(here.path(), &["backup", "x.db"], &postgres, 1);
    assert!(said.contains("is a PostgreSQL, which has tools of its own"), "{said}");

    let server = Server::start(here.path(), &[WITH_SECRET]);
    assert_eq!(server.user("ann").titles("").await, ["kept"], "nothing has been changed");
    server.stop();
    let left: Vec<_> = fs::read_dir(here.path().join("data")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().contains(".restored")), "{left:?}");
}
