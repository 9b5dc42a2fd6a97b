//! What the tests share: a server to talk to, users to talk as, and a client that trusts nothing.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses its part")]

pub mod client;
pub mod contract;
pub mod haproxy;
pub mod issuer;
pub mod pgbouncer;
pub mod postgres;
pub mod process;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use taskpact::{
    auth::{Verifier, token},
    config::{Auth, Config},
    server::Server,
    store::Store,
};
use tempfile::TempDir;
use uuid::Uuid;

#[allow(unused_imports, reason = "each test program uses its part")]
pub use client::{Call, Reply, User};

pub const SECRET: &str = "the secret of the tests, 32 bytes or more";

/// Which database a test program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
    /// With statements for one owner each, as an engine needs them that keeps owners on different machines.
    PostgresByOwner,
}

impl Backend {
    /// The settings of a server on it, which are the defaults but for `settings`.
    fn settings(self, settings: serde_json::Value) -> serde_json::Value {
        let mut all = json!({"database": {}});
        if self == Self::PostgresByOwner {
            all["database"]["sets"] = json!("owner");
        }
        merge(&mut all, settings);
        all
    }
}

/// A database of the test's own, removed at the end.
pub enum Database {
    Sqlite(TempDir),
    Postgres(postgres::Database),
}

impl Database {
    pub async fn new(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::Sqlite(tempfile::tempdir().unwrap()),
            Backend::Postgres | Backend::PostgresByOwner => Self::Postgres(postgres::Database::new().await),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite://{}/tasks.db", folder.path().display()),
            Self::Postgres(database) => database.url.clone(),
        }
    }

    /// Runs a statement behind the server's back.
    pub async fn execute(&self, statement: &str) {
        match self {
            Self::Postgres(database) => postgres::execute(&database.url, statement).await,
            Self::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.create_url()).await.unwrap();
                connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
            }
        }
    }

    /// Runs a statement behind the server's back in a transaction that ends when what is given back is dropped.
    pub async fn hold(&self, statement: &str) -> Held {
        let statement = AssertSqlSafe(statement.to_owned());
        match self {
            Self::Postgres(database) => {
                let mut connection = PgConnection::connect(&database.url).await.unwrap();
                sqlx::raw_sql("begin").execute(&mut connection).await.unwrap();
                sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
                Held::Postgres(connection)
            }
            Self::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.create_url()).await.unwrap();
                sqlx::raw_sql("begin immediate").execute(&mut connection).await.unwrap();
                sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
                Held::Sqlite(connection)
            }
        }
    }

    /// The rows of a query that has one column, of text.
    pub async fn query(&self, query: &str) -> Vec<String> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Postgres(database) => {
                let query = sqlx::query_scalar(query);
                query.fetch_all(&mut PgConnection::connect(&database.url).await.unwrap()).await.unwrap()
            }
            Self::Sqlite(_) => {
                let query = sqlx::query_scalar(query);
                query.fetch_all(&mut SqliteConnection::connect(&self.create_url()).await.unwrap()).await.unwrap()
            }
        }
    }

    fn create_url(&self) -> String {
        self.url() + "?mode=rwc"
    }
}

/// An open transaction.
pub enum Held {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A running server with an empty database of its own.
pub struct TestApp {
    pub address: std::net::SocketAddr,
    pub store: Store,
    pub database: Database,
    backend: Backend,
}

impl Database {
    /// Adds so many copies of the one task that there is.
    pub async fn copy_the_task(&self, count: usize) {
        let columns = "user_id, id, title, description, completed_at, created_at, updated_at, version";
        let source = format!("select {columns} from tasks");
        // Ids in the middle of the range, distinct, and newer than the first one.
        let copies = match self {
            Self::Postgres(_) => format!(
                "insert into tasks ({columns}) select user_id, ('ff000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'copy', \
                 description, completed_at, created_at, updated_at, version from ({source}) as one, generate_series(1, {count}) as n"
            ),
            Self::Sqlite(_) => format!(
                "with recursive series(n) as (select 1 union all select n + 1 from series where n < {count}) \
                 insert into tasks ({columns}) select user_id, unhex('ff000000000070008000' || printf('%012x', n)), 'copy', \
                 description, completed_at, created_at, updated_at, version from ({source}) as one, series"
            ),
        };
        self.execute(&copies).await;
    }
}

impl TestApp {
    pub async fn start(backend: Backend) -> Self {
        Self::start_with(backend, json!({})).await
    }

    /// `settings` are those that differ from the defaults.
    pub async fn start_with(backend: Backend, settings: serde_json::Value) -> Self {
        let database = Database::new(backend).await;
        let config = config(&database.url(), backend.settings(settings));
        let store = Store::new(&config.database).unwrap();
        // As the program does it: on a machine that has much to do a database may take its time.
        let mut migrated = store.migrate_up().await;
        for _ in 0..10 {
            if !matches!(&migrated, Err(error) if Store::is_transient(error)) {
                break;
            }
            migrated = store.migrate_up().await;
        }
        migrated.unwrap();
        let address = serve(&config, store.clone()).await;
        Self { address, store, database, backend }
    }

    /// Another server on the same database, as `user` sees it.
    pub async fn replica(&self, user: &User) -> User {
        let config = config(&self.database.url(), self.backend.settings(json!({})));
        User::new(serve(&config, Store::new(&config.database).unwrap()).await, &user.id, &user.token)
    }

    /// A user whom nobody else is.
    pub fn new_user(&self) -> User {
        self.user(&format!("user-{}", Uuid::new_v4().simple()))
    }

    /// The user with this id.
    pub fn user(&self, id: &str) -> User {
        User::new(self.address, id, &token(id))
    }

    /// A caller without a token.
    pub fn anybody(&self) -> User {
        User::new(self.address, "anybody", "")
    }
}

async fn serve(config: &Config, store: Store) -> std::net::SocketAddr {
    let verifier = Verifier::new(&auth(config)).await.unwrap();
    let server = Server::bind(config, store, verifier).await.unwrap();
    let address = server.address().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    address
}

/// Whether there is no curl to try a printed line with. Then it has been said.
pub fn curl_is_missing(what: &str) -> bool {
    let missing = std::process::Command::new("curl").arg("--version").output().is_err();
    if missing {
        skip("There is no `curl` here.", what);
    }
    missing
}

/// A program of this machine, where it usually is.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Says, loudly, what was not tested and why. Where `CI` is set it fails, so that nobody takes it for a pass.
pub fn skip(why: &str, what: &str) {
    use std::io::Write;
    assert!(std::env::var_os("CI").is_none(), "{why} {what}");
    // Not `eprintln!`, which the test harness would swallow.
    let _ = writeln!(std::io::stderr(), "\n\n******** SKIPPED ********\n{why}\n{what}\n*************************\n");
}

/// An id that no task has.
pub fn unused_id() -> String {
    Uuid::new_v4().to_string()
}

/// The default settings but for the database, which is asked whether it is ready, a free port, and `settings`.
pub fn config(url: &str, settings: serde_json::Value) -> Config {
    let mut all = serde_json::to_value(Config::default()).unwrap();
    merge(&mut all, json!({"server": {"port": 0}, "database": {"url": url, "readiness": "ask"}}));
    merge(&mut all, settings);
    serde_json::from_value(all).unwrap()
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match from {
        serde_json::Value::Object(fields) => {
            if into.is_null() {
                *into = json!({});
            }
            for (name, value) in fields {
                merge(&mut into[name], value);
            }
        }
        value => *into = value,
    }
}

/// Those of the settings that say what tokens are verified with: by the tests' secret, if nothing else is set.
fn auth(config: &Config) -> Auth {
    let mut auth = config.auth.clone();
    if !auth.is_set() {
        auth.secret = Some(SECRET.to_owned().into());
    }
    auth
}

/// A token for `user`, valid for an hour.
pub fn token(user: &str) -> String {
    token::mint(&auth(&Config::default()), user, Duration::from_hours(1)).unwrap()
}

/// Runs `count` pieces of work at once and gives back what each came to.
pub async fn at_once<F, T>(count: usize, work: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(count));
    let running: Vec<_> = (0..count)
        .map(|n| {
            let (work, barrier) = (work(n), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                work.await
            })
        })
        .collect();
    let mut all = Vec::new();
    for one in running {
        all.push(one.await.unwrap());
    }
    all
}
