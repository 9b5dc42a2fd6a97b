//! What a request costs with this or that, compared with the same request without: a ratio within one run, because the
//! rates themselves say more about the machine than about the server.
//!
//! The two sides take turns, a second each, so that what else happens on the machine hits both. The server is a process of
//! its own; PostgreSQL writes to the disk as it does in operation.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1, http::request};
use hyper_util::rt::TokioIo;
use jsonwebtoken::Algorithm;
use serde_json::json;
use support::{
    SECRET,
    issuer::{Answer, Issuer, SigningKey, now},
    postgres::Private,
    process::Server,
    token,
};
use tempfile::tempdir;
use tokio::{net::TcpStream, task::JoinSet};

const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 16;
/// Counts the requests of all sides, for keys that are new.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// One of the two kinds of requests that are compared.
#[derive(Clone)]
struct Side {
    address: SocketAddr,
    expected: StatusCode,
    body: &'static str,
    head: Arc<dyn Fn() -> request::Builder + Send + Sync>,
}

impl Side {
    /// Requests in a second.
    async fn rate(&self) -> f64 {
        let started = Instant::now();
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let side = self.clone();
            connections.spawn(async move { side.requests_until(started + ROUND).await });
        }
        let counts = connections.join_all().await;
        f64::from(counts.iter().sum::<u32>()) / started.elapsed().as_secs_f64()
    }

    async fn requests_until(self, end: Instant) -> u32 {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut count = 0;
        while Instant::now() < end {
            let request = (self.head)().header("Host", "taskpact").body(Full::<Bytes>::from(self.body)).unwrap();
            sender.ready().await.unwrap();
            let reply = sender.send_request(request).await.unwrap();
            assert_eq!(reply.status(), self.expected);
            reply.into_body().collect().await.unwrap();
            count += 1;
        }
        count
    }
}

/// Prints how many times the rate of `without` that of `with` is.
async fn compare(title: &str, with: &Side, without: &Side) {
    // Once unmeasured, for connections and plans.
    with.rate().await;
    without.rate().await;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        rates.push((with.rate().await, without.rate().await));
    }
    let mean =
        |side: fn(&(f64, f64)) -> f64| rates.iter().map(side).sum::<f64>() / f64::from(u32::try_from(ROUNDS).unwrap());
    let mut ratios: Vec<f64> = rates.iter().map(|(with, without)| with / without).collect();
    ratios.sort_by(f64::total_cmp);
    let (with, without) = (mean(|rates| rates.0), mean(|rates| rates.1));
    println!(
        "{title}: {:.2} ({:.2} to {:.2} in {ROUNDS} rounds; {with:.0}/s against {without:.0}/s)",
        with / without,
        ratios[0],
        ratios[ROUNDS - 1],
    );
}

fn create(address: SocketAddr, with_key: bool) -> Side {
    let authorization = format!("Bearer {}", token("ann"));
    let head = move || {
        let head = Request::post("/api/ann/tasks").header("Authorization", &authorization);
        let head = head.header("Content-Type", "application/json");
        if with_key { head.header("Idempotency-Key", format!("\"{}\"", COUNT.fetch_add(1, Relaxed))) } else { head }
    };
    Side { address, expected: StatusCode::CREATED, body: r#"{"title": "Water the plants"}"#, head: Arc::new(head) }
}

fn list(address: SocketAddr, token: &str) -> Side {
    let authorization = format!("Bearer {token}");
    let head = move || Request::get("/api/ann/tasks?limit=20").header("Authorization", &authorization);
    Side { address, expected: StatusCode::OK, body: "", head: Arc::new(head) }
}

/// What a key costs.
async fn keys(here: &Path) {
    let postgres =
        Private::start(|_| {}, &["-c", "fsync=on", "-c", "full_page_writes=on"]).expect("there is no PostgreSQL");
    for (name, url) in [("SQLite", "sqlite://tasks.db".to_owned()), ("PostgreSQL", postgres.url("postgres"))] {
        let environment = [("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &url), ("TASKPACT_LOG__FILTER", "warn")];
        let server = Server::start(here, &environment);
        let (with, without) = (create(server.address, true), create(server.address, false));
        compare(&format!("createTask on {name}, with an Idempotency-Key against without"), &with, &without).await;
        server.stop();
    }
}

/// What a signature by a key pair costs, beside one by a secret: two servers on one database.
async fn signatures(here: &Path) {
    let key = SigningKey::new("key", Algorithm::EdDSA);
    let issuer = Issuer::start(Answer::keys(&[&key])).await;
    let claims = json!({"sub": "ann", "iat": now(), "exp": now() + 900, "iss": issuer.name(), "aud": issuer.name(),
        "id": "ann", "name": "Ann", "email": "ann@example.com", "emailVerified": false, "image": null,
        "createdAt": "2026-11-21T10:00:00.000Z", "updatedAt": "2026-11-21T10:00:00.000Z"});
    let common = [("DATABASE_URL", "sqlite://list.db"), ("TASKPACT_LOG__FILTER", "warn")];
    let (url, name) = (issuer.url(), issuer.name());
    let published = [("TASKPACT_AUTH__JWKS_URL", &*url), ("TASKPACT_AUTH__ISSUER", &*name)];
    let shared = Server::start(here, &[&common[..], &[("BETTER_AUTH_SECRET", SECRET)]].concat());
    let published = Server::start(here, &[&common[..], &published].concat());
    for n in 0..20 {
        shared.user("ann").create(&format!("Water plant {n}")).await;
    }

    let with = list(published.address, &key.token(&claims));
    let without = list(shared.address, &token("ann"));
    compare("listTasks of 20 tasks, with an EdDSA token against HS256", &with, &without).await;
    shared.stop();
    published.stop();
}

#[tokio::main]
async fn main() {
    let here = tempdir().unwrap();
    keys(here.path()).await;
    signatures(here.path()).await;
}
