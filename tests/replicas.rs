//! Several servers on one PostgreSQL, behind a proxy: killed, restarted in turn, upgraded in turn. Nobody may feel it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use serde_json::json;
use support::{
    SECRET, User,
    haproxy::HaProxy,
    postgres::{Private, execute, free_port, private},
    process::Server,
    token,
};
use tempfile::{TempDir, tempdir};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::sleep,
};

/// Two servers on one database, with a proxy before them.
struct Replicas {
    here: TempDir,
    url: String,
    ports: [u16; 2],
    servers: [Option<Server>; 2],
    proxy: HaProxy,
    _database: Private,
}

impl Replicas {
    async fn start() -> Option<Self> {
        let database = private(|_| {}, &[])?;
        let (here, url, ports) = (tempdir().unwrap(), database.url("postgres"), [free_port(), free_port()]);
        let proxy = HaProxy::start(&ports)?;
        let mut this = Self { here, url, ports, servers: [None, None], proxy, _database: database };
        for n in [0, 1] {
            this.begin(n).await;
        }
        Some(this)
    }

    /// Starts a server, and waits until the proxy sends it requests.
    async fn begin(&mut self, n: usize) {
        let port = self.ports[n].to_string();
        let settings = [
            ("BETTER_AUTH_SECRET", SECRET),
            ("DATABASE_URL", &self.url),
            ("TASKPACT_SERVER__PORT", &port),
            ("TASKPACT_SERVER__DRAIN_DELAY_SECS", "1"),
        ];
        self.servers[n] = Some(Server::start(self.here.path(), &settings));
        sleep(Duration::from_millis(700)).await;
    }

    /// Stops a server as an operator does.
    async fn stop(&mut self, n: usize) {
        let server = self.servers[n].take().unwrap();
        tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    }

    /// Somebody who calls through the proxy.
    fn user(&self, id: &str) -> User {
        User::new(self.proxy.address, id, &token(id))
    }
}

/// What a client had: how many tasks it made, and what was no success, if there was an answer at all.
type Had = (User, usize, Vec<Option<StatusCode>>);

/// Clients that make tasks and read them until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Had>>,
}

impl Load {
    /// `retries`: whatever fails is sent again, with the same key.
    fn start(replicas: &Replicas, count: usize, retries: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |n| {
            let (user, stop) = (replicas.user(&format!("user-{n}")), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut made, mut failed) = (0, Vec::new());
                while !stop.load(Relaxed) {
                    let key = format!("key-{made}");
                    loop {
                        let call = user.call(Method::POST, user.tasks()).json(json!({"title": key})).key(&key);
                        match call.try_send().await {
                            Some(reply) if reply.status == StatusCode::CREATED => {
                                made += 1;
                                break;
                            }
                            other => failed.push(other.map(|reply| reply.status)),
                        }
                        if !retries {
                            break;
                        }
                        sleep(Duration::from_millis(50)).await;
                    }
                    match user.call(Method::GET, user.tasks() + "?limit=5").try_send().await {
                        Some(reply) if reply.status == StatusCode::OK => {}
                        other => failed.push(other.map(|reply| reply.status)),
                    }
                }
                (user, made, failed)
            })
        };
        let clients = (0..count).map(client).collect();
        Self { stop, clients }
    }

    /// Ends it. Every task that was acknowledged is there, once. Gives back how many there are, and what failed.
    async fn end(self) -> (usize, Vec<Option<StatusCode>>) {
        self.stop.store(true, Relaxed);
        let (mut all, mut all_failed) = (0, Vec::new());
        for client in self.clients {
            let (user, made, failed) = client.await.unwrap();
            let mut titles = Vec::new();
            let mut query = "?limit=1000".to_owned();
            loop {
                let page = user.list(&query).await;
                let tasks = page.is(200).json();
                titles.extend(tasks.as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap().to_owned()));
                let Some(next) = page.header("next-cursor") else { break };
                query = format!("?limit=1000&cursor={next}");
            }
            titles.reverse();
            let expected: Vec<_> = (0..made).map(|n| format!("key-{n}")).collect();
            assert_eq!(titles, expected, "lost, doubled, or out of order");
            all += made;
            all_failed.extend(failed);
        }
        (all, all_failed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_nothing() {
    let Some(mut replicas) = Replicas::start().await else { return };
    let load = Load::start(&replicas, 16, true);
    for n in [0, 1, 0] {
        sleep(Duration::from_millis(800)).await;
        let server = replicas.servers[n].take().unwrap();
        server.send_signal("KILL");
        server.end();
        sleep(Duration::from_millis(800)).await;
        replicas.begin(n).await;
    }
    let (made, failed) = load.end().await;
    assert!(made > 100, "{made} were made");
    // The proxy says so, or hangs up, until it has noticed.
    let is_of_proxy = |status: &Option<StatusCode>| status.is_none_or(|status| [502, 503].contains(&status.as_u16()));
    assert!(failed.iter().all(is_of_proxy), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_nobody_though_nothing_is_sent_twice() {
    let Some(mut replicas) = Replicas::start().await else { return };
    let load = Load::start(&replicas, 16, false);
    for n in [0, 1, 0, 1] {
        replicas.stop(n).await;
        replicas.begin(n).await;
    }
    let (made, failed) = load.end().await;
    assert!(made > 100 && failed.is_empty(), "{made} were made, {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_goes_on_while_a_newer_one_migrates() {
    let Some(replicas) = Replicas::start().await else { return };
    let load = Load::start(&replicas, 8, false);
    sleep(Duration::from_millis(500)).await;
    // As the next version's migration does it, under its lock.
    execute(
        &replicas.url,
        "begin; select pg_advisory_xact_lock(8386658456067597170); \
         alter table tasks add column due_at timestamptz; \
         alter table users add column plan text not null default 'free'; \
         create table attachments (user_id text not null references users (id), id uuid not null, primary key (user_id, id)); \
         insert into seaql_migrations (version, applied_at) values ('m99991231_000000_next', 0); commit",
    )
    .await;
    sleep(Duration::from_millis(1500)).await;
    let (made, failed) = load.end().await;
    let said = replicas.servers.iter().flatten().map(Server::complained).collect::<String>();
    let errors: Vec<_> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(made > 50 && failed.is_empty(), "{made} were made, {failed:?}: {errors:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_keeps_its_connection_is_left_without_an_answer_never() {
    let here = tempdir().unwrap();
    for delay in ["0", "1"] {
        let settings = [("BETTER_AUTH_SECRET", SECRET), ("TASKPACT_SERVER__DRAIN_DELAY_SECS", delay)];
        let server = Server::start(here.path(), &settings);
        let address = server.address;
        let clients = (0..16u64).map(|n| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                for count in 1.. {
                    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
                    let mut answer = vec![0; 4096];
                    let length = stream.read(&mut answer).await.unwrap();
                    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
                    assert!(answer.starts_with("http/1.1 200 "), "no answer to request {count}: {answer:?}");
                    if answer.contains("\r\nconnection: close\r\n") {
                        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "it says that it closes");
                        return count;
                    }
                    sleep(Duration::from_millis(5 + 20 * n)).await;
                }
                0
            })
        });
        let clients: Vec<_> = clients.collect();
        sleep(Duration::from_millis(600)).await;
        let started = Instant::now();
        let stopping = tokio::task::spawn_blocking(move || server.stop());
        for client in clients {
            assert!(client.await.unwrap() > 1);
        }
        stopping.await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_half_arrived_is_answered_before_the_end() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[("BETTER_AUTH_SECRET", SECRET)]);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut answer = vec![0; 4096];
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea").await.unwrap();
    assert!(stream.read(&mut answer).await.unwrap() > 0);
    stream.write_all(b"lth HTTP/1.1\r\n").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    sleep(Duration::from_millis(1700)).await;
    stream.write_all(b"Host: x\r\n\r\n").await.unwrap();
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer:?}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_is_not_ready_and_goes_on() {
    let here = tempdir().unwrap();
    let settings = [("BETTER_AUTH_SECRET", SECRET), ("TASKPACT_SERVER__DRAIN_DELAY_SECS", "2")];
    let server = Server::start(here.path(), &settings);
    let ann = server.user("ann");
    ann.call(Method::GET, "/health/ready").send().await.is(200);
    server.send_signal("TERM");
    server.wait_for("stopping");
    let ready = ann.call(Method::GET, "/health/ready").send().await;
    assert_eq!(ready.is_problem(503, "unavailable").detail(), "The server is not ready: it is stopping.");
    assert_eq!(ann.post(json!({"title": "t"})).await.is(201).header("connection"), Some("close"));
    ann.call(Method::GET, "/health").send().await.is(200);
    let (status, log) = server.end();
    assert!(status.success() && !log.contains("ERROR"), "{log}");
}
