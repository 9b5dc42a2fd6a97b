//! What only PostgreSQL has: processes that race to migrate it, an outage, a server that hangs, TLS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use support::{
    Backend, SECRET, TestApp, at_once,
    postgres::{self, Private, execute, free_port, required},
    process::{Server, complaint, printed, start_eight},
};
use tempfile::tempdir;

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_may_start_at_once_on_an_empty_database() {
    let here = tempdir().unwrap();
    for _ in 0..3 {
        let database = postgres::Database::new().await;
        start_eight(here.path(), &database.url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_and_comes_back_needs_no_restart() {
    let here = tempdir().unwrap();
    let database = required(Private::start(|_| {}, &[]));
    let environment = [
        ("BETTER_AUTH_SECRET", SECRET),
        ("DATABASE_URL", &database.url("postgres")),
        ("TASKPACT_DATABASE__ACQUIRE_TIMEOUT_MS", "500"),
    ];
    let server = Server::start(here.path(), &environment);
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
    let database = required(Private::start(|_| {}, &[]));
    database.stop();
    let mut server =
        Server::launch(here.path(), &[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &database.url("postgres"))]);
    server.wait_for("the database does not answer yet; trying again");
    database.resume();
    server.wait_until_it_listens();
    server.user("ann").create("t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_ends_in_503_within_the_deadline() {
    let app = TestApp::start_with(Backend::Postgres, json!({"server": {"request_timeout_ms": 400}})).await;
    let ann = app.new_user();
    ann.create("t").await;
    // Somebody holds the table: the statement neither ends nor fails.
    let (url, held) = (app.database.url(), tokio::sync::oneshot::channel::<()>());
    let holder = tokio::spawn(async move {
        use sqlx::{Connection, Executor};
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        connection.execute("begin; lock table tasks in access exclusive mode").await.unwrap();
        held.1.await.unwrap();
        connection.execute("rollback").await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(200)).await;

    let started = Instant::now();
    ann.list("").await.is_problem(503, "unavailable");
    ann.post(json!({"title": "u"})).await.is_problem(503, "unavailable");
    assert!(started.elapsed() < Duration::from_secs(3));

    held.0.send(()).unwrap();
    holder.await.unwrap();
    let started = Instant::now();
    while ann.list("").await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "it did not recover");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_ends_in_503_after_the_acquire_timeout() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_planned_once_a_connection() {
    let here = tempdir().unwrap();
    let database = required(Private::start(|_| {}, &["-c", "log_min_duration_statement=0"]));
    let environment = [
        ("BETTER_AUTH_SECRET", SECRET),
        ("DATABASE_URL", &database.url("postgres")),
        ("TASKPACT_DATABASE__MAX_CONNECTIONS", "1"),
    ];
    let server = Server::start(here.path(), &environment);
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
    server.stop();

    let log = fs::read_to_string(database.folder.join("server.log")).unwrap();
    let of_tasks = log.lines().filter(|line| line.contains("\"tasks\"") && !line.contains("CREATE "));
    let count = |step: &str| of_tasks.clone().filter(|line| line.contains(step)).count();
    assert_eq!((count(" execute "), count(" parse ")), (60, 6), "{log}");
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
    let database = required(Private::start(|folder| certificates.install(folder), &options));
    let url = |host: &str, options: &str| format!("postgres://taskpact@{host}:{}/postgres?{options}", database.port);
    let migrate = |url: &str, command: &str| printed(here.path(), &["migrate", command], &[("DATABASE_URL", url)]);
    let refused = |url: &str| complaint(here.path(), &["migrate", "status"], &[("DATABASE_URL", url)], 1);

    let verified = url("localhost", "sslmode=verify-full&sslrootcert=ca.pem");
    assert!(migrate(&verified, "up").starts_with("applied "));
    let server = Server::start(here.path(), &[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", &verified)]);
    server.user("ann").create("Encrypted").await;
    let encrypted = "select bool_and(ssl)::text from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'taskpact'";
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&database.url("postgres")).await.unwrap();
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
    let database = required(Private::start(|_| {}, &[]));
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
