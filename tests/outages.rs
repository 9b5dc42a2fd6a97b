//! What a PostgreSQL can do to a server: end its sessions, lock a table, be no PostgreSQL, be of another kind than expected.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::Write,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use support::{
    SECRET, at_once,
    postgres::{execute, private},
    process::{Server, complaint, signal},
};
use tempfile::tempdir;
use tokio::time::sleep;

/// Ends every session of the server's.
const TERMINATE: &str = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'taskpact'";

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_ended_cost_nobody_an_error() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[]);
    let ann = server.user("ann");
    ann.create("t").await;

    // Idle ones: each lane finds its own gone.
    for _ in 0..3 {
        at_once(30, |_| {
            let ann = ann.clone();
            async move { ann.list("").await.is(200).status }
        })
        .await;
        execute(&url, TERMINATE).await;
        let replies = at_once(30, |n| {
            let ann = ann.clone();
            async move { if n % 2 == 0 { ann.list("").await } else { ann.post(json!({"title": "t"})).await } }
        });
        for reply in replies.await {
            assert!(reply.status.is_success(), "{}", server.complained());
        }
    }

    // Busy ones.
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for n in 0..20 {
        let (user, stop, answered) = (server.user(&format!("user-{n}")), Arc::clone(&stop), Arc::clone(&answered));
        clients.push(tokio::spawn(async move {
            let mut made = 0;
            let mut failed = Vec::new();
            while !stop.load(Relaxed) {
                let reply = user.post(json!({"title": "t"})).await;
                made += usize::from(reply.status == StatusCode::CREATED);
                let list = user.list("?limit=1").await;
                failed.extend([reply, list].into_iter().filter(|reply| !reply.status.is_success()));
                answered.fetch_add(2, Relaxed);
            }
            let mut kept = 0;
            let mut query = "?limit=1000".to_owned();
            loop {
                let page = user.list(&query).await;
                kept += page.is(200).json().as_array().unwrap().len();
                let Some(next) = page.header("next-cursor") else { break };
                query = format!("?limit=1000&cursor={next}");
            }
            (made, kept, failed)
        }));
    }
    for _ in 0..15 {
        sleep(Duration::from_millis(200)).await;
        execute(&url, TERMINATE).await;
    }
    stop.store(true, Relaxed);
    let mut all_failed = Vec::new();
    for client in clients {
        let (made, kept, failed) = client.await.unwrap();
        assert_eq!(made, kept, "what was answered 201 is there, once");
        all_failed.extend(failed);
    }
    // Whoever meets two in a row is told so.
    let answered = answered.load(Relaxed);
    assert!(all_failed.len() * 200 <= answered, "{} of {answered}: {:#?}", all_failed.len(), all_failed.first());
    assert!(all_failed.iter().all(|reply| reply.status == 503));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_taken_back_and_readiness_answers_within_a_second() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let server = Server::on(here.path(), &url, &[]);
    let ann = server.user("ann");
    ann.create("t").await;
    let ready = || ann.call(Method::GET, "/health/ready").send();

    let mut operator = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("begin; lock table tasks in access exclusive mode").execute(&mut operator).await.unwrap();
    let started = Instant::now();
    let count = "select count(*), count(*) filter (where state = 'active') from pg_stat_activity \
                 where application_name = 'taskpact'";
    // Within a transaction the statistics stay as they are.
    let mut observer = PgConnection::connect(&url).await.unwrap();
    let mut most = 0;
    while started.elapsed() < Duration::from_secs(11) {
        let asked = Instant::now();
        let (reply, _) = tokio::join!(
            ready(),
            at_once(10, |n| {
                let ann = ann.clone();
                async move {
                    let call = if n % 2 == 0 {
                        ann.call(Method::GET, ann.tasks())
                    } else {
                        ann.call(Method::POST, ann.tasks()).json(json!({"title": "t"}))
                    };
                    call.send_within(Duration::from_millis(300)).await;
                }
            })
        );
        reply.is_problem(503, "unavailable");
        assert!(asked.elapsed() < Duration::from_millis(1800), "{:?}", asked.elapsed());
        let (sessions, _): (i64, i64) = sqlx::query_as(count).fetch_one(&mut observer).await.unwrap();
        most = most.max(sessions);
    }
    // Six for requests, one for upkeep; for readiness one, and those that it has given up in the last five seconds.
    assert!(most <= 14, "{most} sessions");
    sqlx::raw_sql("rollback").execute(&mut operator).await.unwrap();
    let started = Instant::now();
    while ready().await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(3), "{}", server.complained());
    }
    ann.list("").await.is(200);
    sleep(Duration::from_millis(200)).await;
    let (_, busy): (i64, i64) = sqlx::query_as(count).fetch_one(&mut observer).await.unwrap();
    assert_eq!(busy, 0, "nothing goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_frozen_holds_up_nobody() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    let (frozen, other) = (Server::on(here.path(), &url, &[]), Server::on(here.path(), &url, &[]));
    let (ann, bob) = (other.user("ann"), other.user("bob"));
    let task = ann.create("t").await;
    let id = task["id"].as_str().unwrap();
    let toggle =
        format!("PATCH {}/complete HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", ann.task(id), ann.token);

    for _ in 0..20 {
        // In the midst of its work on this very task.
        let mut streams: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(frozen.address).unwrap()).collect();
        for stream in &mut streams {
            stream.write_all(toggle.as_bytes()).unwrap();
        }
        signal("STOP", frozen.id());
        let started = Instant::now();
        let replies = at_once(10, |_| {
            let (ann, id) = (ann.clone(), id.to_owned());
            async move { ann.put(&id, json!({"title": "u"})).await }
        });
        for reply in replies.await {
            reply.is(200);
        }
        bob.list("").await.is(200);
        ann.call(Method::GET, "/health/ready").send().await.is(200);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        signal("CONT", frozen.id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_postgresql_is_waited_for() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    // As a proxy does that has nobody behind it.
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = proxy.local_addr().unwrap().port();
    let url = format!("postgres://taskpact@127.0.0.1:{port}/postgres");
    let has_backend = Arc::new(AtomicBool::new(false));
    let (is_behind, real) = (Arc::clone(&has_backend), database.port);
    std::thread::spawn(move || {
        for near in proxy.incoming() {
            let mut near = near.unwrap();
            if !is_behind.load(Relaxed) {
                let _ = near.shutdown(std::net::Shutdown::Both);
                continue;
            }
            let mut far = std::net::TcpStream::connect(("127.0.0.1", real)).unwrap();
            let (mut from_near, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_near, &mut to_far);
                let _ = to_far.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut far, &mut near);
                let _ = near.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    let environment = [("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &url)];
    let mut server = Server::launch(here.path(), &environment);
    server.wait_for("trying again");
    has_backend.store(true, Relaxed);
    server.wait_until_it_listens();
    let ann = server.user("ann");
    ann.create("t").await;

    has_backend.store(false, Relaxed);
    execute(&database.url("postgres"), TERMINATE).await;
    for _ in 0..3 {
        ann.list("").await.is_problem(503, "unavailable");
        ann.post(json!({"title": "t"})).await.is_problem(503, "unavailable");
    }
    has_backend.store(true, Relaxed);
    let started = Instant::now();
    while ann.list("").await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(5), "{}", server.complained());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_isolates_more_by_default_behaves_the_same() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &["-c", "default_transaction_isolation=serializable"]) else { return };
    let servers = [0, 1].map(|_| Server::on(here.path(), &database.url("postgres"), &[]));
    let anns = servers.each_ref().map(|server| server.user("ann"));
    let task = anns[0].create("t").await;
    let id = task["id"].as_str().unwrap().to_owned();
    let replies = at_once(100, |n| {
        let (ann, id) = (anns[n % 2].clone(), id.clone());
        async move {
            let toggle = ann.call(Method::PATCH, ann.task(&id) + "/complete").key(&format!("key-{n}"));
            toggle.send().await.status
        }
    });
    for status in replies.await {
        assert_eq!(status, 200, "{}{}", servers[0].complained(), servers[1].complained());
    }
    // Nor did they have to be tried again.
    let log = fs::read_to_string(database.folder.join("server.log")).unwrap();
    assert!(log.contains("ready to accept connections") && !log.contains("could not serialize"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_can_not_hold_every_title_is_refused() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let make = "create database ascii encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0";
    execute(&database.url("postgres"), make).await;
    let environment = [("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &database.url("ascii"))];
    let said = complaint(here.path(), &[], &environment, 1);
    assert!(said.contains("its encoding is SQL_ASCII") && said.contains("encoding 'UTF8'"), "{said}");
}

/// Makes a PostgreSQL keep account of two machines as Citus does, one of which hangs while somebody has the lock 1: whatever is
/// about a user there ends when that is given back.
const TWO_MACHINES: &str = "
    create table pg_dist_shard (logicalrelid regclass, shardid int8, shardmaxvalue text);
    create table pg_dist_placement (shardid int8, groupid int4);
    insert into pg_dist_shard values ('users', 1, '-1'), ('users', 2, '2147483647');
    insert into pg_dist_placement values (1, 1), (2, 2);
    grant select on pg_dist_shard, pg_dist_placement to app;
    create function answers(id text) returns bool language plpgsql as $$ begin
        while hashtext(id) < 0 and not pg_try_advisory_xact_lock_shared(1) loop
            perform pg_sleep(0.02);
        end loop;
        return true;
    end $$;
    alter table users enable row level security, force row level security;
    alter table tasks enable row level security, force row level security;
    create policy machine on users using (answers(id));
    create policy machine on tasks using (answers(user_id));
";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_hangs_keeps_nobody_elses_users_waiting() {
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let url = database.url("postgres");
    execute(&url, "create role app login; grant create on schema public to app").await;
    // Whoever may do everything would not be kept waiting.
    let of_app = url.replace("taskpact@", "app@");
    let server = Server::on(here.path(), &of_app, &[("TASKPACT_DATABASE__SETS", "owner")]);
    let mut operator = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(TWO_MACHINES).execute(&mut operator).await.unwrap();
    let ask = "select array(select id from (select 'user-' || n as id from generate_series(1, 500) n) u \
               where hashtext(id) < 0 limit 14), \
               array(select id from (select 'user-' || n as id from generate_series(1, 500) n) u where hashtext(id) >= 0)";
    let (hung, others): (Vec<String>, Vec<String>) = sqlx::query_as(ask).fetch_one(&mut operator).await.unwrap();
    let mut others = others.iter().map(|id| server.user(id));
    let others_at_work: Vec<_> = others.by_ref().take(4).collect();
    let hung: Vec<_> = hung.iter().map(|id| server.user(id)).collect();
    for user in hung.iter().chain(&others_at_work) {
        user.create("t").await;
    }

    sqlx::raw_sql("select pg_advisory_lock(1)").execute(&mut operator).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for user in hung.iter().flat_map(|user| [user, user]) {
        for reads in [true, false] {
            let (user, stop) = (user.clone(), Arc::clone(&stop));
            clients.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let reply = if reads { user.list("").await } else { user.post(json!({"title": "t"})).await };
                    assert!([200, 201, 503].contains(&reply.status.as_u16()), "{reply:?}");
                }
            }));
        }
    }
    sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    // Longer than it takes until a statement is given up.
    while started.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        for user in &others_at_work {
            let task = user.create("t").await;
            user.toggle(task["id"].as_str().unwrap()).await.is(200);
            user.list("").await.is(200);
        }
        // Somebody who had no task before.
        others.next().unwrap().create("t").await;
        let ready = others_at_work[0].call(Method::GET, "/health/ready").send().await;
        assert_eq!(ready.status, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        sleep(Duration::from_millis(100)).await;
    }

    sqlx::raw_sql("select pg_advisory_unlock(1)").execute(&mut operator).await.unwrap();
    stop.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    for user in &hung {
        user.create("t").await;
    }
}
