//! What only PostgreSQL has: processes that race to migrate it, an outage, a server that hangs, TLS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use support::{
    Backend, Call, SECRET, TestApp, User, at_once,
    postgres::{self, execute, free_port, is_missing, private},
    process::{Server, complaint, printed, start_eight},
    unused_id,
};
use tempfile::tempdir;
use tokio::{
    io::AsyncReadExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_may_start_at_once_on_an_empty_database() {
    if is_missing() {
        return;
    }
    let here = tempdir().unwrap();
    for _ in 0..3 {
        let database = postgres::Database::new().await;
        start_eight(here.path(), &database.url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_and_comes_back_needs_no_restart() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let server =
        Server::on(here.path(), &database.url("postgres"), &[("TASKPACT_DATABASE__ACQUIRE_TIMEOUT_MS", "500")]);
    let ann = server.user("ann");
    let task = ann.create("Before").await;
    let ready = || ann.call(hyper::Method::GET, "/health/ready").send();

    database.stop();
    let started = Instant::now();
    for reply in at_once(20, |_| {
        let ann = ann.clone();
        async move { ann.list("").await }
    })
    .await
    {
        assert_eq!(reply.is_problem(503, "unavailable").header("retry-after"), Some("2"));
    }
    ann.post(json!({"title": "During"})).await.is_problem(503, "unavailable");
    ready().await.is_problem(503, "unavailable");
    ann.call(hyper::Method::GET, "/health").send().await.is(200);
    assert!(started.elapsed() < Duration::from_secs(10), "nobody is kept waiting");

    database.resume();
    let started = Instant::now();
    while ready().await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "it did not come back: {}", server.complained());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ann.create("After").await;
    assert_eq!(ann.titles("").await, ["After", "Before"]);
    assert_eq!(ann.get(task["id"].as_str().unwrap()).await.json(), task);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_waits_for_its_database_to_start() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    database.stop();
    let mut server =
        Server::launch(here.path(), &[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &database.url("postgres"))]);
    server.wait_for("the database does not answer yet; trying again");
    database.resume();
    server.wait_until_it_listens();
    server.user("ann").create("t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_has_locked_delays_its_own_requests_only() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let (task, other) = (ann.create("locked").await, ann.create("free").await);
    let (task, other) = (task["id"].as_str().unwrap(), other["id"].as_str().unwrap());

    for statement in [
        format!("select * from tasks where id = '{task}' for update"),
        "select * from users where id = 'ann' for update".to_owned(),
    ] {
        let locks_owner = statement.contains("users");
        let mut operator = sqlx::PgConnection::connect(&url).await.unwrap();
        operator.execute("begin").await.unwrap();
        operator.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        let waits = if locks_owner { other } else { task };
        let waiting = tokio::spawn({
            let (ann, id) = (ann.clone(), waits.to_owned());
            async move {
                at_once(20, |_| {
                    let (ann, id) = (ann.clone(), id.clone());
                    async move { ann.toggle(&id).await }
                })
                .await
            }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Whatever else is asked meanwhile, in whatever sets, is served.
        for reply in at_once(40, |_| {
            let bob = bob.clone();
            async move {
                bob.create("Bob's").await;
                bob.list("").await
            }
        })
        .await
        {
            reply.is(200);
        }
        ann.list("").await.is(200);
        if !locks_owner {
            ann.toggle(other).await.is(200);
            ann.create("Ann's").await;
        }
        assert!(!waiting.is_finished(), "the lock is still held");
        operator.execute("rollback").await.unwrap();
        for reply in waiting.await.unwrap() {
            reply.is(200);
        }
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_are_locked_hold_up_no_connection_that_others_need() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[]);
    // As many as there are connections for requests, one request each.
    let users: Vec<_> = (0..6).map(|n| server.user(&format!("locked-{n}"))).collect();
    for user in &users {
        user.create("t").await;
    }
    let bob = server.user("bob");
    bob.create("t").await;
    let mut operator = sqlx::PgConnection::connect(&url).await.unwrap();
    operator.execute("begin; select * from users where id like 'locked-%' for update").await.unwrap();
    let mut waiting = Vec::new();
    for user in users {
        waiting.push(tokio::spawn(async move { user.post(json!({"title": "waits"})).await }));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let started = Instant::now();
    for _ in 0..10 {
        bob.create("t").await;
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    operator.execute("rollback").await.unwrap();
    for reply in waiting {
        reply.await.unwrap().is(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_locked_keeps_nobody_else_waiting() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[("TASKPACT_SERVER__REQUEST_TIMEOUT_MS", "400")]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let task = ann.create("t").await;
    let lock = Lock::take(&url).await;

    // More than there are connections.
    for reply in at_once(15, |_| {
        let (ann, task) = (ann.clone(), task.clone());
        async move { ann.toggle(task["id"].as_str().unwrap()).await }
    })
    .await
    {
        reply.is_problem(503, "unavailable");
    }
    server.wait_for("it took longer than `server.request_timeout_ms`");
    // The places of those that were given up are back after a moment, though the row is still locked.
    let started = Instant::now();
    while bob.list("").await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(10), "everybody waits for one row: {}", server.complained());
    }
    ann.create("Another").await;

    lock.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_locked_does_not_keep_a_stopping_server() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[("TASKPACT_SERVER__SHUTDOWN_TIMEOUT_SECS", "1")]);
    let ann = server.user("ann");
    let task = ann.create("t").await;
    let lock = Lock::take(&url).await;
    let mut waiting = std::net::TcpStream::connect(server.address).unwrap();
    waiting.write_all(toggle(&ann, &task).as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;

    let started = Instant::now();
    let log = server.stop();
    assert!(log.contains("stopped with requests still in flight"), "{log}");
    assert!(started.elapsed() < Duration::from_secs(8), "{log}");
    lock.release().await;
}

/// Somebody who holds every task: a statement that wants one neither ends nor fails.
struct Lock(sqlx::PgConnection);

impl Lock {
    async fn take(url: &str) -> Self {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        connection.execute("begin; select * from tasks for update").await.unwrap();
        Self(connection)
    }

    async fn release(mut self) {
        self.0.execute("rollback").await.unwrap();
    }
}

/// The request that flips a task.
fn toggle(user: &User, task: &Value) -> String {
    let path = user.task(task["id"].as_str().unwrap());
    format!("PATCH {path}/complete HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", user.token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_its_database_can_be_stopped() {
    let here = tempdir().unwrap();
    let url = format!("postgres://taskpact@127.0.0.1:{}/postgres", free_port());
    let server = Server::launch(here.path(), &[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &url)]);
    server.wait_for("trying again");
    assert!(server.complained().contains("Connection refused"), "{}", server.complained());

    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_nothing_private_whatever_happens() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = format!("postgres://taskpact:xyzzy-password@127.0.0.1:{}/postgres?schema=xyzzy-schema", database.port);
    let server = Server::on(
        here.path(),
        &url,
        &[("TASKPACT_LOG__FILTER", "trace"), ("TASKPACT_DATABASE__ACQUIRE_TIMEOUT_MS", "300")],
    );
    server.wait_for("`database.url` has parameters that are not known here and are ignored: schema");
    let ann = server.user("xyzzy-user");
    let task = ann.create("xyzzy-title").await;
    let id = task["id"].as_str().unwrap();
    ann.put(id, json!({"description": "xyzzy-description"})).await.is(200);
    ann.list("?status=pending").await.is(200);
    // An unknown algorithm is named by the token itself.
    ann.with_token("eyJhbGciOiJ4eXp6eSJ9.e30.xyzzy").list("").await.is(401);
    execute(&database.url("postgres"), "alter table tasks rename column title to name").await;
    ann.put(id, json!({"title": "xyzzy-again"})).await.is(500);
    database.stop();
    ann.post(json!({"title": "xyzzy-unavailable"})).await.is(503);
    let log = server.stop();

    assert!(log.contains("updateTask failed: ") && log.contains("createTask failed: "), "{log}");
    assert!(!log.contains("xyzzy"), "{}", log.lines().find(|line| line.contains("xyzzy")).unwrap());
    assert!(!log.contains(&ann.token) && !log.contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_ends_in_503_after_the_acquire_timeout() {
    if is_missing() {
        return;
    }
    let settings = json!({"database": {"max_connections": 1, "acquire_timeout_ms": 300}});
    let app = TestApp::start_with(Backend::Postgres, settings).await;
    let ann = app.new_user();
    ann.create("t").await;
    let database = app.database.url();
    let holder = tokio::spawn(async move {
        execute(&database, "begin; lock table tasks in access exclusive mode; select pg_sleep(2)").await;
    });
    tokio::time::sleep(Duration::from_millis(300)).await;

    // One request has the only connection and waits for the table; the others wait for the connection.
    let statuses = at_once(5, |_| {
        let ann = ann.clone();
        async move { ann.list("").await.status.as_u16() }
    })
    .await;
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 4, "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    holder.await.unwrap();
}

/// Stands between a server and its database, some way from each. What is connected when it is told to freeze hears nothing
/// any more, as after a failover; what connects later is served.
struct Link {
    port: u16,
    freeze: watch::Sender<u32>,
    trips: Arc<AtomicUsize>,
}

impl Link {
    async fn to(port: u16) -> Self {
        Self::with(port, Duration::ZERO).await
    }

    /// What is sent arrives after `delay`.
    async fn with(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near_port = listener.local_addr().unwrap().port();
        let link = Self { port: near_port, freeze: watch::Sender::new(0), trips: Arc::default() };
        let (freeze, trips) = (link.freeze.clone(), Arc::clone(&link.trips));
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (mut frozen, trips) = (freeze.subscribe(), Arc::clone(&trips));
                tokio::spawn(async move {
                    let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                    let has_answered = AtomicBool::new(true);
                    let ask = || _ = trips.fetch_add(usize::from(has_answered.swap(false, Relaxed)), Relaxed);
                    let answer = || has_answered.store(true, Relaxed);
                    tokio::select! {
                        () = carry(from_near, &to_far, delay, ask) => return,
                        () = carry(from_far, &to_near, delay, answer) => return,
                        _ = frozen.changed() => {}
                    }
                    // Open, and silent.
                    tokio::time::sleep(Duration::from_mins(10)).await;
                    drop((to_near, to_far));
                });
            }
        });
        link
    }

    /// How many times the server has asked and waited for an answer.
    fn trips(&self) -> usize {
        self.trips.load(Relaxed)
    }
}

/// Carries what comes from one end to the other until one of them is closed.
async fn carry(mut from: OwnedReadHalf, to: &OwnedWriteHalf, delay: Duration, note: impl Fn()) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(1..) = from.read(&mut buffer).await.inspect(|count| buffer.truncate(*count)) {
        note();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut sent = 0;
        while sent < buffer.len() {
            to.writable().await.unwrap();
            match to.try_write(&buffer[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        buffer.resize(64 * 1024, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_silent_is_replaced() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let link = Link::to(database.port).await;
    let url = format!("postgres://taskpact@127.0.0.1:{}/postgres", link.port);
    let server = Server::on(
        here.path(),
        &url,
        &[("TASKPACT_DATABASE__MAX_CONNECTIONS", "1"), ("TASKPACT_SERVER__REQUEST_TIMEOUT_MS", "500")],
    );
    let ann = server.user("ann");
    let post = || ann.call(hyper::Method::POST, ann.tasks()).json(json!({"title": "t"}));
    let once = || post().key("key");
    let requests: [&dyn Fn() -> Call; 2] = [&post, &once];

    for request in requests {
        ann.create("t").await;
        // Until the connection is back in the pool, which trusts it for that moment.
        tokio::time::sleep(Duration::from_millis(100)).await;
        link.freeze.send_modify(|times| *times += 1);
        request().send().await.is_problem(503, "unavailable");
        let started = Instant::now();
        while request().send().await.status != 201 {
            assert!(started.elapsed() < Duration::from_secs(15), "{}", server.complained());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_planned_once_a_connection_and_again_when_its_sets_have_doubled() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &["-c", "log_min_duration_statement=0"]) else { return };
    let server = Server::on(here.path(), &database.url("postgres"), &[("TASKPACT_DATABASE__MAX_CONNECTIONS", "1")]);
    let ann = server.user("ann");
    for _ in 0..10 {
        let task = ann.create("t").await;
        let id = task["id"].as_str().unwrap();
        ann.list("?limit=5").await.is(200);
        ann.get(id).await.is(200);
        ann.put(id, json!({"title": "u"})).await.is(200);
        ann.toggle(id).await.is(200);
        ann.delete(id).await.is(204);
    }
    let count = || {
        let log = fs::read_to_string(database.folder.join("server.log")).unwrap();
        let of_requests = log.lines().filter(|line| line.contains(" unnest(") || line.contains("insert into tasks"));
        let count = |step: &str| of_requests.clone().filter(|line| line.contains(step)).count();
        (count(" execute "), count(" parse "))
    };
    // One more for an owner who was new.
    assert_eq!(count(), (61, 6));

    for _ in 0..70 {
        ann.get(&unused_id()).await.is(404);
    }
    server.stop();
    // After 64 and after 128: a table that was empty is not for ever.
    assert_eq!(count(), (131, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_one_round_trip_also_with_a_key() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let link = Link::with(database.port, Duration::from_millis(5)).await;
    let url = format!("postgres://taskpact@127.0.0.1:{}/postgres", link.port);
    let server = Server::on(here.path(), &url, &[("TASKPACT_DATABASE__MAX_CONNECTIONS", "1")]);
    let ann = server.user("ann");
    let post = || ann.call(hyper::Method::POST, ann.tasks()).json(json!({"title": "t"}));

    let mut counts = Vec::new();
    // The first time the owner is new, and the statements are prepared.
    for key in ["one", "two"] {
        counts.clear();
        let mut last = link.trips();
        let mut count = |what: &'static str| {
            let now = link.trips();
            counts.push((what, now - last));
            last = now;
        };
        let task = post().send().await.is(201).json();
        let id = task["id"].as_str().unwrap();
        count("createTask");
        ann.get(id).await.is(200);
        count("getTask");
        let page = ann.list("").await;
        count("listTasks");
        let tag = page.header("etag").unwrap();
        ann.call(hyper::Method::GET, ann.tasks()).header("if-none-match", tag).send().await.is(304);
        count("listTasks, not modified");
        let feed = ann.tasks().replace("/tasks", "/changes");
        let told = ann.call(hyper::Method::GET, &feed).send().await.is(200).json();
        count("listChanges");
        let query = format!("{feed}?since={}", told["next"].as_str().unwrap());
        ann.call(hyper::Method::GET, query).send().await.is(200);
        count("listChanges, without any");
        ann.put(id, json!({"title": "u"})).await.is(200);
        count("updateTask");
        ann.toggle(id).await.is(200);
        count("toggleTaskCompletion");
        let toggle = || ann.call(hyper::Method::PATCH, ann.task(id) + "/complete").key(&format!("{key}-toggle"));
        toggle().send().await.is(200);
        count("toggleTaskCompletion with a key");
        toggle().send().await.is(200);
        count("the same again");
        ann.delete(id).await.is(204);
        count("deleteTask");
        post().key(key).send().await.is(201);
        count("createTask with a key");
        post().key(key).send().await.is(201);
        count("the same again");
    }
    assert!(counts.iter().all(|(_, trips)| *trips == 1), "{counts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_often_whether_it_is_ready_keeps_nobody_from_asking() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let link = Link::with(database.port, Duration::from_millis(5)).await;
    let url = format!("postgres://taskpact@127.0.0.1:{}/postgres", link.port);
    let server = Server::on(here.path(), &url, &[]);
    let anybody = server.user("anybody");
    let (before, started) = (link.trips(), Instant::now());
    for reply in at_once(300, |_| anybody.clone().call(hyper::Method::GET, "/health/ready").send()).await {
        reply.is(200);
    }
    assert!(started.elapsed() < Duration::from_secs(2) && link.trips() - before < 60, "{}", link.trips() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_leave_a_database_alone_that_was_used_well() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let link = Link::with(database.port, Duration::ZERO).await;
    let url = format!("postgres://taskpact@127.0.0.1:{}/postgres", link.port);
    let settings = [("TASKPACT_DATABASE__READINESS", "last_use"), ("TASKPACT_DATABASE__ACQUIRE_TIMEOUT_MS", "500")];
    let server = Server::on(here.path(), &url, &settings);
    let ann = server.user("ann");
    let ready = || ann.call(hyper::Method::GET, "/health/ready").send();
    let trips = async |probes: usize| {
        let before = link.trips();
        for _ in 0..probes {
            ready().await.is(200);
        }
        link.trips() - before
    };
    // The first one asks, as nobody has used it yet. So does the sweep, once, when the server begins.
    trips(1).await;
    let (mut before, mut quiet) = (link.trips(), 0);
    while quiet < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        quiet = if link.trips() == before { quiet + 1 } else { 0 };
        before = link.trips();
    }
    assert_eq!(trips(120).await, 0);
    ann.create("Water the plants").await;
    assert_eq!(trips(10).await, 0);

    // It is asked again when a request has failed, until it says that all is well.
    database.stop();
    ready().await.is(200);
    ann.list("").await.is_problem(503, "unavailable");
    ready().await.is_problem(503, "unavailable");
    database.resume();
    let started = Instant::now();
    while ready().await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "it did not come back: {}", server.complained());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(trips(10).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_asked_once_a_second_for_all_who_wait_and_never_while_nobody_does() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let link = Link::with(database.port, Duration::ZERO).await;
    let url = format!("postgres://taskpact@127.0.0.1:{}/postgres", link.port);
    let server = Server::on(here.path(), &url, &[("TASKPACT_DATABASE__READINESS", "last_use")]);
    let users: Vec<_> = (0..20).map(|n| server.user(&format!("user-{n}"))).collect();
    let mut places = Vec::new();
    for user in &users {
        user.create("t").await;
        let told = user.changes("").await.is(200).json();
        places.push(format!("?wait=4&since={}", told["next"].as_str().unwrap()));
    }
    let within = async |secs| {
        let before = link.trips();
        tokio::time::sleep(Duration::from_secs(secs)).await;
        link.trips() - before
    };
    let waiting = at_once(20, |n| {
        let (user, place) = (users[n].clone(), places[n].clone());
        async move { user.changes(&place).await }
    });
    let watched = async {
        // Until all of them wait.
        tokio::time::sleep(Duration::from_millis(900)).await;
        within(2).await
    };
    let (replies, trips) = tokio::join!(waiting, watched);
    for reply in replies {
        assert_eq!(reply.is(200).json()["tasks"], json!([]));
    }
    // Each question is three round trips at most, as the pool pings before and after. One for each who waits would be forty.
    assert!((1..=9).contains(&trips), "{trips} round trips in two seconds");
    // What was asked while they left.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(within(3).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_take_too_long_are_no_good_use() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let settings = [("TASKPACT_DATABASE__READINESS", "last_use"), ("TASKPACT_SERVER__REQUEST_TIMEOUT_MS", "300")];
    let server = Server::on(here.path(), &url, &settings);
    let ann = server.user("ann");
    ann.create("t").await;
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    connection.execute("begin; lock table tasks in access exclusive mode").await.unwrap();
    ann.list("").await.is_problem(503, "unavailable");
    ann.call(hyper::Method::GET, "/health/ready").send().await.is_problem(503, "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restoration_by_the_documented_commands_earlier_entity_tags_are_invalid() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let (url, new_url) = (database.url("postgres"), database.url("restored"));
    let server = Server::on(here.path(), &url, &[]);
    let ann = server.user("ann");
    let task = ann.create("t").await;
    let (of_task, of_list) = (ann.get(task["id"].as_str().unwrap()).await, ann.list("").await);
    let tags = [of_task, of_list].map(|reply| reply.header("etag").unwrap().to_owned());
    execute(&url, "create database restored").await;
    let page = fs::read_to_string("docs/UPGRADING.md").unwrap();
    let (_, section) = page.split_once("\n## Backups on PostgreSQL\n").unwrap();
    let blocks: String = section.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect();
    assert!(["pg_dump ", "pg_restore ", "psql "].iter().all(|command| blocks.contains(command)), "{blocks}");
    let path = format!("{}:{}", postgres::programs().unwrap().display(), std::env::var("PATH").unwrap());
    let mut commands = std::process::Command::new("sh");
    commands.args(["-euc", &blocks]).current_dir(here.path());
    commands.env_clear().envs([("PATH", &path), ("DATABASE_URL", &url), ("NEW_DATABASE_URL", &new_url)]);
    let output = commands.output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let restored = Server::on(here.path(), &new_url, &[]);
    let ann = restored.user("ann");
    assert_eq!(ann.titles("").await, ["t"]);
    let path = ann.task(task["id"].as_str().unwrap());
    let put = ann.call(hyper::Method::PUT, &path).json(json!({"title": "lost"})).header("If-Match", tags[0].clone());
    put.send().await.is_problem(412, "version-mismatch");
    ann.call(hyper::Method::GET, &path).header("If-None-Match", tags[0].clone()).send().await.is(200);
    ann.call(hyper::Method::GET, ann.tasks()).header("If-None-Match", tags[1].clone()).send().await.is(200);
}

/// A certificate authority, and what it signed for `name`.
struct Certificates {
    authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        Self { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Puts the server's files where it is told to look for them.
    fn install(&self, folder: &Path) {
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(folder).unwrap();
        for (name, content) in [("server.crt", &self.certificate), ("server.key", &self.key)] {
            let file = folder.join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_the_servers_name_is_verified() {
    let here = tempdir().unwrap();
    let (certificates, strangers) = (Certificates::new("localhost"), Certificates::new("localhost"));
    for (name, content) in [("ca.pem", &certificates.authority), ("strangers.pem", &strangers.authority)] {
        fs::write(here.path().join(name), content).unwrap();
    }
    let options = ["-c", "ssl=on", "-c", "ssl_cert_file=../server.crt", "-c", "ssl_key_file=../server.key"];
    let Some(database) = private(|folder| certificates.install(folder), &options) else { return };
    let url = |host: &str, options: &str| format!("postgres://taskpact@{host}:{}/postgres?{options}", database.port);
    let migrate = |url: &str, command: &str| printed(here.path(), &["migrate", command], &[("DATABASE_URL", url)]);
    let refused = |url: &str| complaint(here.path(), &["migrate", "status"], &[("DATABASE_URL", url)], 1);

    let verified = url("localhost", "sslmode=verify-full&sslrootcert=ca.pem");
    assert!(migrate(&verified, "up").starts_with("applied "));
    let server = Server::start(here.path(), &[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &verified)]);
    server.user("ann").create("Encrypted").await;
    let encrypted = "select bool_and(ssl)::text from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'taskpact'";
    let mut connection = sqlx::PgConnection::connect(&database.url("postgres")).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, String>(encrypted).fetch_one(&mut connection).await.unwrap(), "true");
    server.stop();

    // Another name than that in the certificate, another authority, no authority.
    let said = refused(&url("127.0.0.1", "sslmode=verify-full&sslrootcert=ca.pem"));
    assert!(said.contains("certificate not valid for name"), "{said}");
    let said = refused(&url("localhost", "sslmode=verify-full&sslrootcert=strangers.pem"));
    assert!(said.contains("invalid peer certificate"), "{said}");
    let said = refused(&url("localhost", "sslmode=verify-full"));
    assert!(said.contains("invalid peer certificate"), "{said}");
    assert!(migrate(&url("127.0.0.1", "sslmode=require"), "status").starts_with("applied "));
}

#[test]
fn an_address_that_is_refused_is_told_without_its_password() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = format!("postgres://nobody:hush@127.0.0.1:{}/postgres", database.port);

    let said = complaint(here.path(), &["migrate", "status"], &[("DATABASE_URL", &url)], 1);
    assert!(
        said.contains("postgres://nobody:hidden@127.0.0.1:") && said.contains("\"nobody\" does not exist"),
        "{said}"
    );
    let url = format!("postgres://nobody:hush@127.0.0.1:{}/postgres", free_port());
    let said = complaint(here.path(), &["migrate", "status"], &[("DATABASE_URL", &url)], 1);
    assert!(!said.contains("hush"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_only_reads_serves_reads_and_is_not_ready() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[]);
    server.user("ann").create("Before").await;
    server.stop();

    execute(&url, "alter database postgres set default_transaction_read_only = on").await;
    let server = Server::on(here.path(), &url, &[]);
    server.wait_for("the database only takes reads");
    let ann = server.user("ann");
    assert_eq!(ann.titles("").await, ["Before"]);
    ann.post(json!({"title": "t"})).await.is_problem(503, "unavailable");
    let ready = ann.call(hyper::Method::GET, "/health/ready").send().await;
    let detail = ready.is_problem(503, "unavailable").detail();
    assert_eq!(detail, "The server is not ready: the database only takes reads.");

    // Sessions that began like that stay like that; they are given up.
    execute(&url, "begin read write; alter database postgres reset default_transaction_read_only; commit").await;
    let mut refused = 0;
    for _ in 0..40 {
        refused += usize::from(ann.post(json!({"title": "t"})).await.status != 201);
    }
    assert!(refused <= 6, "{refused}: each connection once at most");
    ann.call(hyper::Method::GET, "/health/ready").send().await.is(200);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_not_distributed_where_others_are_are_named() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[]);
    assert!(!server.complained().contains("distributed"));
    server.stop();
    // As Citus keeps account of them.
    execute(&url, "create table pg_dist_partition (logicalrelid regclass)").await;
    let server = Server::on(here.path(), &url, &[]);
    assert!(!server.complained().contains("distributed"), "it is installed, and not used");
    server.stop();
    execute(&url, "insert into pg_dist_partition values ('users'), ('tasks')").await;
    let server = Server::on(here.path(), &url, &[]);
    server.wait_for(
        "requests fail until tables are distributed: select create_distributed_table('idempotency_keys', 'user_id')",
    );
    server.stop();
}
