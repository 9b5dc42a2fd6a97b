//! The messages in `docs/TROUBLESHOOTING.md` are those that the program gives.
//!
//! Those of what somebody sees who sets a server up are made to happen; the rest, which takes a full disk or a pooler, is looked for
//! in the source.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use regex::Regex;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection};
use support::{
    SECRET,
    issuer::{self, Answer, Issuer, SigningKey},
    postgres::{execute, private},
    process::{Server, complaint, printed},
    token,
};
use tempfile::tempdir;

const SECTIONS: [&str; 7] = [
    "The settings can't be used",
    "The server does not start",
    "PostgreSQL refuses",
    "A token is refused",
    "A page in a browser can't call",
    "It answers 503 or 500",
    "Warnings in the log",
];
const WITH_SECRET: (&str, &str) = ("BETTER_AUTH_SECRET", SECRET);

/// The messages of a section.
fn messages(title: &str) -> Vec<String> {
    let page = fs::read_to_string("docs/TROUBLESHOOTING.md").unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(&format!("{title}\n"))).unwrap();
    let messages =
        section.lines().filter_map(|line| Some(line.strip_prefix("| `` ")?.split_once(" `` |")?.0.to_owned()));
    let messages: Vec<String> = messages.collect();
    let rows = section.lines().filter(|line| line.starts_with('|')).count() - 2;
    assert_eq!(messages.len(), rows, "a row of \"{title}\" does not begin with a message");
    messages
}

/// Sees to it that every message of a section is among what was said.
fn were_said(title: &str, said: &str) {
    for message in messages(title) {
        let pattern = regex::escape(&message).replace('…', "[^\n]*");
        assert!(Regex::new(&pattern).unwrap().is_match(said), "nobody said\n{message}\nbut\n{said}");
    }
}

/// Runs a statement on a SQLite file.
fn sqlite(file: &Path, statement: &'static str) {
    let url = format!("sqlite://{}?mode=rwc", file.display());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    });
}

#[test]
fn every_table_is_looked_at() {
    let page = fs::read_to_string("docs/TROUBLESHOOTING.md").unwrap();
    let titles: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(titles, SECTIONS);
}

#[test]
fn settings_that_can_not_be_used_are_told_in_these_words() {
    let here = tempdir().unwrap();
    fs::write(here.path().join("file"), "no folder").unwrap();
    let mut said = String::new();
    for environment in [
        &[("HOST", "0.0.0.0")][..],
        &[("TASKPACT_SERVER__PROT", "1")],
        &[("TASKPACT_SERVER_PORT", "1")],
        &[("PORT", "http")],
        &[("BETTER_AUTH_SECRET", "short")],
        &[("BETTER_AUTH_SECRET", "\"a secret of more than thirty-two bytes\"")],
        &[("BETTER_AUTH_SECRET", "better-auth-secret-12345678901234567890")],
        &[WITH_SECRET, ("TASKPACT_AUTH__JWKS_URL", "https://app.example.com/api/auth/jwks")],
        &[("TASKPACT_AUTH__JWKS_URL", "https://app.example.com/api/auth/jwks")],
        &[("DATABASE_URL", "postgres://ann:p@ss/word@localhost/taskpact")],
        &[("DATABASE_URL", "postgresql+asyncpg://localhost/taskpact")],
        &[("DATABASE_URL", "sqlite:///taskpact.db")],
        &[("TASKPACT_CORS__ALLOWED_ORIGINS", "https://app.example.com/")],
        &[("DATABASE_URL", "sqlite://file/tasks.db")],
    ] {
        said += &complaint(here.path(), &[], environment, 2);
    }
    fs::write(here.path().join(".env"), "BETTER_AUTH_SECRET=a secret # of more than thirty-two bytes\n").unwrap();
    said += &complaint(here.path(), &[], &[], 2);
    were_said("The settings can't be used", &said);
}

#[test]
fn a_server_that_does_not_start_says_so_in_these_words() {
    let here = tempdir().unwrap();
    let path = |name: &str| here.path().join(name);
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut said = complaint(here.path(), &[], &[WITH_SECRET, ("PORT", &port)], 1);
    // Nobody listens there any more.
    drop(taken);
    let url = format!("postgres://taskpact@127.0.0.1:{port}/taskpact");
    let waits = Server::launch(here.path(), &[WITH_SECRET, ("DATABASE_URL", &url)]);
    waits.wait_for("the database does not answer yet");
    said += &waits.complained();

    fs::write(path("no.db"), "no database, but as long as the head of one, which is a hundred bytes, ".repeat(2))
        .unwrap();
    sqlite(&path("other.db"), "create table users (id integer primary key, email text)");
    sqlite(
        &path("seaorm.db"),
        "create table seaql_migrations (version text primary key, applied_at bigint); insert into seaql_migrations values ('m1', 1)",
    );
    printed(here.path(), &["migrate", "up"], &[("DATABASE_URL", "sqlite://newer.db")]);
    sqlite(&path("newer.db"), "insert into seaql_migrations values ('m99991231_000001_later', 1)");
    for name in ["no.db", "other.db", "seaorm.db", "newer.db"] {
        said += &complaint(here.path(), &[], &[WITH_SECRET, ("DATABASE_URL", &format!("sqlite://{name}"))], 1);
    }
    let server = Server::start(here.path(), &[WITH_SECRET]);
    said += &complaint(here.path(), &["migrate", "down", "--yes"], &[], 1);
    server.stop();
    let other = tempdir().unwrap();
    fs::write(other.path().join("data"), "no folder").unwrap();
    said += &complaint(other.path(), &[], &[("DATABASE_URL", "sqlite://tasks.db")], 1);
    were_said("The server does not start", &said);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgresql_refuses_is_told_in_its_words() {
    let here = tempdir().unwrap();
    let options = ["-c", "max_connections=5", "-c", "superuser_reserved_connections=0", "-c", "max_wal_senders=0"];
    let Some(database) = private(|_| {}, &options) else { return };
    let url = database.url("postgres");
    // Since version 15 it is so from the beginning.
    execute(&url, "revoke create on schema public from public; create role ann login").await;
    let mut said = String::new();
    for url in [
        database.url("nowhere"),
        url.replace("taskpact@", "nobody@"),
        url.replace("taskpact@", "ann@"),
        url.clone() + "?sslmode=verify-full",
    ] {
        said += &complaint(here.path(), &["migrate", "up"], &[("DATABASE_URL", &url)], 1);
    }
    let mut all = Vec::new();
    while let Ok(connection) = PgConnection::connect(&url).await {
        all.push(connection);
    }
    said += &complaint(here.path(), &["migrate", "status"], &[("DATABASE_URL", &url)], 1);
    were_said("PostgreSQL refuses", &said);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refused_in_these_words() {
    let now = issuer::now();
    let signed = |changes: &Value| {
        let mut claims = json!({"sub": "ann", "iss": "https://app.example.com", "aud": "tasks", "exp": now + 600});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    };
    let by = |key: &SigningKey| key.token(&json!({"sub": "ann", "exp": now + 600}));
    let typed = Header { typ: Some("logout+jwt".to_owned()), ..Header::default() };
    let (known, stranger) = (SigningKey::new("known", Algorithm::EdDSA), SigningKey::new("stranger", Algorithm::EdDSA));
    let here = tempdir().unwrap();
    let settings =
        [WITH_SECRET, ("TASKPACT_AUTH__ISSUER", "https://app.example.com"), ("TASKPACT_AUTH__AUDIENCE", "tasks")];
    let server = Server::start(here.path(), &settings);
    let good = signed(&json!({}));
    let mut said = String::new();
    for token in [
        String::new(),
        "a-session-token".to_owned(),
        by(&known),
        good.clone() + "x",
        signed(&json!({"exp": now - 600})),
        signed(&json!({"exp": null})),
        signed(&json!({"nbf": now + 600})),
        signed(&json!({"iss": "http://localhost:3000"})),
        signed(&json!({"aud": "another"})),
        signed(&json!({"sub": 1})),
        jsonwebtoken::encode(&typed, &json!({}), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap(),
    ] {
        said += &(server.user("ann").with_token(&token).list("").await.is(401).detail() + "\n");
    }
    said += &(server.user("bob").with_token(&good).list("").await.is(403).detail() + "\n");
    server.stop();

    let issuer = Issuer::start(Answer::keys(&[&known])).await;
    let url = issuer.url();
    let with_keys = [("TASKPACT_AUTH__JWKS_URL", url.as_str()), ("TASKPACT_AUTH__ISSUER", "https://app.example.com")];
    let server = Server::start(tempdir().unwrap().path(), &with_keys);
    let ann = server.user("ann");
    for token in [token("ann"), by(&stranger)] {
        said += &(ann.with_token(&token).list("").await.is(401).detail() + "\n");
    }
    issuer.answers(Answer::text("is down"));
    let server = Server::start(tempdir().unwrap().path(), &with_keys);
    said += &server.user("ann").with_token(&by(&known)).list("").await.is(503).detail();
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET]);
    printed(here.path(), &["user", "block", "--user", "ann"], &[]);
    said += &server.user("ann").list("").await.is(401).detail();
    were_said("A token is refused", &said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_may_not_call_is_told_of_in_these_words() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let ann = server.user("ann");
    let asked = ann.call(Method::OPTIONS, ann.tasks()).header("Origin", "http://127.0.0.1:3000");
    asked.header("Access-Control-Request-Method", "GET").try_send().await;
    were_said("A page in a browser can't call", &server.stop());
}

/// Every file of Rust below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn what_can_not_be_made_to_happen_here_stands_in_the_source() {
    let source: String = sources(Path::new("src")).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    // A text that goes on in the next line.
    let source = Regex::new("\\\\\n\\s*").unwrap().replace_all(&source, "").replace("\\\"", "\"");
    for message in SECTIONS[5..].iter().flat_map(|title| messages(title)) {
        for part in message.split('…').map(str::trim).filter(|part| part.len() > 3) {
            assert!(source.contains(part.trim_end_matches('.')), "`{part}` of\n{message}\nis not in the source");
        }
    }
}
