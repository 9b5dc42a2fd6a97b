//! A real Better Auth: its users sign up, take their tokens and call the API with them.
//!
//! It needs Node.js and the packages of `tests/better-auth` (`npm ci`), and PostgreSQL, where it keeps its tables.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use hyper::Method;
use serde_json::{Value, json};
use support::{
    SECRET, User,
    issuer::now,
    postgres::{self, is_missing},
    process::Server,
    skip,
};
use tempfile::{TempDir, tempdir};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/better-auth");

/// A running Better Auth with an empty database.
struct BetterAuth {
    child: Child,
    url: String,
    database: postgres::Database,
    is_shared_secret: bool,
}

impl BetterAuth {
    /// `None` if it can't run here. Then it has been said.
    async fn start(algorithm: &str) -> Option<Self> {
        if is_missing() {
            return None;
        }
        if !Path::new(FOLDER).join("node_modules").is_dir() || Command::new("node").arg("--version").output().is_err() {
            skip(
                "There is no Better Auth here: Node.js (20.19 or newer) or the packages of tests/better-auth are missing.
Install them: `npm ci --prefix tests/better-auth`.",
                "Tokens of a real Better Auth were not tried.",
            );
            return None;
        }
        let database = postgres::Database::new().await;
        // It ends when its standard input does: with this process at the latest.
        let mut child = Command::new("node")
            .arg("issuer.mjs")
            .current_dir(FOLDER)
            .env("DATABASE_URL", &database.url)
            .env("PORT", "0")
            .env("BETTER_AUTH_SECRET", SECRET)
            .env("TOKEN_ALGORITHM", algorithm)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening ").expect("Better Auth does not start").to_owned();
        Some(Self { child, url, database, is_shared_secret: algorithm == "HS256" })
    }

    async fn sign_up(&self, name: &str) -> Session<'_> {
        self.sign("up", name).await
    }

    async fn sign_in(&self, name: &str) -> Session<'_> {
        self.sign("in", name).await
    }

    async fn sign(&self, direction: &str, name: &str) -> Session<'_> {
        let body = json!({"name": name, "email": format!("{name}@example.com"), "password": "correct horse battery"});
        let request = client().post(format!("{}/api/auth/sign-{direction}/email", self.url));
        let request = request.header("Origin", &self.url).header("Content-Type", "application/json");
        let reply = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let cookie = reply.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        Session { issuer: self, cookie, user_id: body["user"]["id"].as_str().unwrap().to_owned() }
    }

    /// Lets the time come at which it makes a new key for the next token.
    async fn rotate(&self) {
        self.execute("update jwks set \"expiresAt\" = now()").await;
    }

    async fn execute(&self, statement: &str) {
        postgres::execute(&self.database.url, statement).await;
    }

    /// The settings of a server that accepts its tokens.
    fn settings(&self) -> Vec<(&'static str, String)> {
        if self.is_shared_secret {
            vec![("BETTER_AUTH_SECRET", SECRET.to_owned())]
        } else {
            let url = format!("{}/api/auth/jwks", self.url);
            vec![("TASKPACT_AUTH__JWKS_URL", url), ("TASKPACT_AUTH__ISSUER", self.url.clone())]
        }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for BetterAuth {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Session<'b> {
    issuer: &'b BetterAuth,
    cookie: String,
    user_id: String,
}

impl Session<'_> {
    async fn token(&self) -> String {
        let path = if self.issuer.is_shared_secret { "/api/token" } else { "/api/auth/token" };
        let request = client().get(format!("{}{path}", self.issuer.url)).header("Cookie", &self.cookie);
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        body["token"].as_str().unwrap().to_owned()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A server beside it, on a database of its own.
fn serve(here: &TempDir, issuer: &BetterAuth) -> Server {
    let settings = issuer.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Server::start(here.path(), &settings)
}

/// The header of a token.
fn header(token: &str) -> Value {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap()
}

/// Calls all seven operations as this user.
async fn call_everything(user: &User) {
    let task = user.create("Water the plants").await;
    let id = task["id"].as_str().unwrap();
    assert_eq!(task["user_id"], json!(user.id));
    user.put(id, json!({"description": "All of them"})).await.is(200);
    assert_eq!(user.toggle(id).await.is(200).json()["completed"], true);
    assert_eq!(user.get(id).await.is(200).json()["version"], 3);
    assert_eq!(user.list("?status=completed").await.is(200).json().as_array().unwrap().len(), 1);
    user.delete(id).await.is(204);
    assert_eq!(user.changes("").await.is(200).json()["tasks"], json!([]));
}

async fn users_of_a_real_better_auth_reach_their_tasks(algorithm: &str) {
    let here = tempdir().unwrap();
    let Some(issuer) = BetterAuth::start(algorithm).await else { return };
    let server = serve(&here, &issuer);
    issuer.sign_up("ann").await;
    let (ann, bob) = (issuer.sign_in("ann").await, issuer.sign_up("bob").await);

    let token = ann.token().await;
    assert_eq!(header(&token)["alg"], algorithm);
    let as_ann = User::new(server.address, &ann.user_id, &token);
    call_everything(&as_ann).await;
    let as_bob = User::new(server.address, &bob.user_id, &bob.token().await);
    call_everything(&as_bob).await;

    // On each other's paths they are nobody.
    let task = as_ann.create("Ann's").await;
    let path = as_ann.task(task["id"].as_str().unwrap());
    for (method, path) in [(Method::GET, as_ann.tasks()), (Method::GET, path.clone()), (Method::DELETE, path)] {
        as_bob.call(method, path).send().await.is_problem(403, "forbidden");
    }
    as_ann.with_token(&format!("{token}x")).list("").await.is_problem(401, "unauthorized");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn eddsa() {
    users_of_a_real_better_auth_reach_their_tasks("EdDSA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn es256() {
    users_of_a_real_better_auth_reach_their_tasks("ES256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rs256() {
    users_of_a_real_better_auth_reach_their_tasks("RS256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ps256() {
    users_of_a_real_better_auth_reach_their_tasks("PS256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_secret() {
    users_of_a_real_better_auth_reach_their_tasks("HS256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_rotated_needs_no_restart_and_an_issuer_that_is_down_locks_nobody_out() {
    let here = tempdir().unwrap();
    let Some(mut issuer) = BetterAuth::start("EdDSA").await else { return };
    let server = serve(&here, &issuer);
    let mut tokens = Vec::new();
    let user_id = {
        let ann = issuer.sign_up("ann").await;
        let passes = async |token: &String| call_everything(&User::new(server.address, &ann.user_id, token)).await;
        tokens.push(ann.token().await);
        passes(&tokens[0]).await;

        issuer.rotate().await;
        tokens.push(ann.token().await);
        assert_ne!(header(&tokens[0])["kid"], header(&tokens[1])["kid"]);
        passes(&tokens[0]).await;
        passes(&tokens[1]).await;

        // A third key, which the server never gets to see.
        issuer.rotate().await;
        tokens.push(ann.token().await);
        assert_ne!(header(&tokens[1])["kid"], header(&tokens[2])["kid"]);
        ann.user_id.clone()
    };
    issuer.stop();

    for token in &tokens[..2] {
        call_everything(&User::new(server.address, &user_id, token)).await;
    }
    let asked = now();
    let refusal = User::new(server.address, &user_id, &tokens[2]).list("").await;
    refusal.is_problem(503, "unavailable");
    assert!(now() - asked < 10);
    let log = server.stop();
    assert!(log.contains("could not fetch the issuer's keys, going on with those before"), "{log}");
    assert!(tokens.iter().all(|token| !log.contains(token)));
}
