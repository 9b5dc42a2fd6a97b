//! Every setting: its unit, its range, its default.
//!
//! [`Config`] is the whole, a section a struct; `values` are the types that a setting can have, and `load` reads them from
//! files and the environment and knows where each came from. No error and no output of this module shows a secret's value.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

mod dot_env;
mod load;
mod values;

pub use load::Loaded;
pub use values::{BasePath, BoundedInteger, DatabaseUrl, FieldName, JwksUrl, Network, Origin, Secret};

/// The shortest secret that can't be guessed, in bytes.
pub const MIN_SECRET_BYTES: usize = 32;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener and the bounds of a request.
    pub server: Server,
    /// Where the tasks are kept.
    pub database: Database,
    /// Whose tokens are accepted.
    pub auth: Auth,
    /// How much one user, and one address, may ask.
    pub limits: Limits,
    /// What is told of changes, and to how many at once.
    pub changes: Changes,
    /// Which web pages may call.
    pub cors: Cors,
    /// What is told to the operator.
    pub log: Log,
    /// Where the operator's Prometheus asks.
    pub metrics: Metrics,
}

/// The listener and the bounds of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The address to listen on, an IP address or a name. Default: `127.0.0.1`, which only this machine can reach.
    pub host: String,
    /// The TCP port to listen on, 0 to 65,535. Default: 8080. With 0 the system picks a free one.
    pub port: BoundedInteger<0, 65_535>,
    /// How long a request may take before it is answered 503, in milliseconds. 10 to 600,000, default 15,000.
    /// Keep it below the proxy's time-out, and with published keys above 5,000: so long may one wait for a new key.
    pub request_timeout_ms: BoundedInteger<10, 600_000>,
    /// How long a stopping server waits for the requests in flight, in seconds. 0 to 3,600, default 20. Keep it below
    /// the time that your supervisor waits before it kills.
    pub shutdown_timeout_secs: BoundedInteger<0, 3_600>,
    /// How long a stopping server goes on as before, in seconds, but for its readiness, which is 503, and for the connections,
    /// which end with the next answer. 0 to 600, default 0. Behind a load balancer: a little longer than it takes to notice.
    pub drain_delay_secs: BoundedInteger<0, 600>,
    /// How many connections have a place. 1 to 100,000, default 1,000; fewer if the system allows fewer open files
    /// (`ulimit -n`). When all are taken, the next one has the place of whoever keeps the server waiting longest.
    pub max_connections: BoundedInteger<1, 100_000>,
    /// How long the head of a request may take to arrive, and the first byte on a new connection, in seconds. 1 to 600,
    /// default 10.
    pub head_timeout_secs: BoundedInteger<1, 600>,
    /// How long a connection may be idle between two requests, in seconds. 1 to 3,600, default 75: longer than the 60 after
    /// which the usual load balancers give one up. Were it shorter, they would send requests into connections that are just
    /// being closed.
    pub idle_timeout_secs: BoundedInteger<1, 3_600>,
    /// How large the head of a request may be, in bytes. 8,192 to 1,048,576, default 65,536.
    pub max_head_bytes: BoundedInteger<8_192, 1_048_576>,
    /// How much memory answers may take that wait for their peers to take them, in MB (of 2^20 bytes). 8 to 4,096, default
    /// 32; one user's have a quarter of it. As many more wait a moment for room. Who takes nothing is then disconnected; if
    /// that does not suffice, further large answers are 503.
    pub max_untaken_mb: BoundedInteger<8, 4_096>,
    /// The path below which a proxy serves the API, such as `/todo`, if it strips that before it passes a request on.
    /// `Location`, `Link` and the docs page then lead there. Default: none.
    pub base_path: BasePath,
    /// Whether the proxy's `X-Forwarded-Prefix` is taken for that path. Only where every request comes by a proxy that
    /// sets or removes the header. Default: false.
    pub trust_forwarded_prefix: bool,
    /// Whether answers have `Server-Timing`, which the developer tools of browsers show: how long a request waited for the
    /// database (`wait`), how long that took (`db`), and the rest (`app`), in milliseconds. Whoever calls then sees how busy
    /// the database is. Default: false.
    pub timing: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: BoundedInteger::new(8080),
            request_timeout_ms: BoundedInteger::new(15_000),
            shutdown_timeout_secs: BoundedInteger::new(20),
            drain_delay_secs: BoundedInteger::new(0),
            max_connections: BoundedInteger::new(1_000),
            head_timeout_secs: BoundedInteger::new(10),
            idle_timeout_secs: BoundedInteger::new(75),
            max_head_bytes: BoundedInteger::new(65_536),
            max_untaken_mb: BoundedInteger::new(32),
            base_path: BasePath::default(),
            trust_forwarded_prefix: false,
            timing: false,
        }
    }
}

impl Server {
    /// Whether nobody but this machine can reach the address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Where the tasks are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `sqlite://path/to/file.db`, or `postgres://user:password@host/name` with `?sslmode=verify-full` for a server that
    /// is reached over a network. Default: `sqlite://data/taskpact.db`. A missing SQLite file is made.
    pub url: DatabaseUrl,
    /// How many connections serve requests at most, 1 to 1,000, default 6; one more is for upkeep (on PostgreSQL two). Requests
    /// share them, so a few are enough. On SQLite these are readers; one more writes.
    pub max_connections: BoundedInteger<1, 1_000>,
    /// How long a request waits for its turn at the database before it is answered 503, in milliseconds. 10 to 60,000,
    /// default 3,000. Keep it below `server.request_timeout_ms`.
    pub acquire_timeout_ms: BoundedInteger<10, 60_000>,
    /// What readiness is judged by: the `last_use` of the database, so that probes don't keep an idle one awake, or what it
    /// says when it is asked each time (`ask`). Default: `last_use`.
    pub readiness: Readiness,
    /// Whether pending migrations are applied when the server starts. Default: true.
    pub migrate: bool,
    /// What travels together in one statement: requests of `all` users, or of one `owner` only, for engines that keep users
    /// on different machines (Citus), where one statement for many would be a distributed transaction. Default: `all`.
    pub sets: Sets,
    /// How much memory written pages of lists may take, in MB (of 2^20 bytes), 0 to 4,096, default 16. A page is given out
    /// only while the database says that it is still the same. 0 keeps none.
    pub page_cache_mb: BoundedInteger<0, 4_096>,
}

/// What travels together in one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sets {
    /// Requests of whichever users.
    All,
    /// Requests of one user.
    Owner,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: DatabaseUrl::sqlite("data/taskpact.db"),
            max_connections: BoundedInteger::new(6),
            acquire_timeout_ms: BoundedInteger::new(3_000),
            readiness: Readiness::LastUse,
            migrate: true,
            sets: Sets::All,
            page_cache_mb: BoundedInteger::new(16),
        }
    }
}

/// What readiness is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// The last request that read, and the last that wrote. The database is asked only while there was none, or one failed.
    LastUse,
    /// What the database says.
    Ask,
}

/// Whose tokens are accepted: those that are signed with a shared secret, or with one of the keys that the issuer
/// publishes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The secret that the issuer signs its tokens with (HS256): Better Auth's own, as it is, at least 32 bytes. Without
    /// it, and without keys, the server runs in development mode, or not at all.
    pub secret: Option<Secret>,
    /// The secret before this one, while tokens that were signed with it are still about.
    pub previous_secret: Option<Secret>,
    /// Where the issuer publishes its keys, such as `https://app.example.com/api/auth/jwks`: Better Auth with its jwt
    /// plugin, or any other issuer with a JSON Web Key Set (EdDSA, ES256, ES384, RS256 to RS512, PS256 to PS512).
    pub jwks_url: Option<JwksUrl>,
    /// A file with the issuer's keys, instead.
    pub jwks_file: Option<PathBuf>,
    /// How old the published keys may be before they are fetched again, in seconds. 1 to 86,400, default 300; fetches are 3
    /// seconds apart at least. A key that is withdrawn is accepted until then, as long as the issuer answers.
    pub jwks_max_age_secs: BoundedInteger<1, 86_400>,
    /// The issuer (`iss`) that tokens must name, byte by byte. For Better Auth it is the origin of its base URL, such as
    /// `https://app.example.com`. Needed with published keys.
    pub issuer: Option<String>,
    /// The audience (`aud`) that tokens must be for. Default: with published keys the issuer, which is what Better Auth
    /// writes; with a secret any.
    pub audience: Option<String>,
    /// How far the issuer's clock may be off, in seconds. 0 to 60, default 30.
    pub leeway_secs: BoundedInteger<0, 60>,
    /// The claim that holds the user's id. Default: `sub`.
    pub user_id_claim: String,
    /// Where a server without a secret may run in development mode, with a random secret of its own. Default: on a
    /// loopback address only.
    pub development: Development,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            secret: None,
            previous_secret: None,
            jwks_url: None,
            jwks_file: None,
            jwks_max_age_secs: BoundedInteger::new(300),
            issuer: None,
            audience: None,
            leeway_secs: BoundedInteger::new(30),
            user_id_claim: "sub".to_owned(),
            development: Development::Loopback,
        }
    }
}

impl Auth {
    /// Whether something is set to verify tokens with.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.secret.is_some() || self.jwks_url.is_some() || self.jwks_file.is_some()
    }
}

/// Where a server without a secret may run in development mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Development {
    /// On an address that only this machine can reach.
    Loopback,
    /// On every address: for a container whose port is published to the own machine only.
    Anywhere,
    /// Nowhere: without a secret the server does not start.
    Never,
}

/// How much one user, and one address, may ask. Each server counts by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How many requests a minute one user may send, 0 to 1,000,000; further ones are answered 429. Default: 0, any number.
    pub user_requests_per_minute: BoundedInteger<0, 1_000_000>,
    /// How many of them may come at once, 1 to 100,000, default 60.
    pub user_burst: BoundedInteger<1, 100_000>,
    /// How many requests a minute may come from one address, whosesoever they are, before the token is looked at. 0 to
    /// 1,000,000, default 0: any number. In IPv6 a network of 64 bits counts as one.
    pub address_requests_per_minute: BoundedInteger<0, 1_000_000>,
    /// How many of them may come at once, 1 to 100,000, default 60.
    pub address_burst: BoundedInteger<1, 100_000>,
    /// The proxies whose `X-Forwarded-For` says which address a request comes from: addresses such as `10.0.0.7`, or networks
    /// such as `10.0.0.0/8`. Default: none. In the environment: separated by commas.
    pub trusted_proxies: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            user_requests_per_minute: BoundedInteger::new(0),
            user_burst: BoundedInteger::new(60),
            address_requests_per_minute: BoundedInteger::new(0),
            address_burst: BoundedInteger::new(60),
            trusted_proxies: Vec::new(),
        }
    }
}

/// What is told of changes, and to how many at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// For how long deletions are remembered, in days. 1 to 3,650, default 30. A client that was away for longer is told to start
    /// over (410).
    pub retention_days: BoundedInteger<1, 3_650>,
    /// How many calls may wait for a change at once, 0 to 100,000, default 500; further ones are answered 503. Each has a
    /// connection, so never more wait than half of `server.max_connections`.
    pub max_waiting: BoundedInteger<0, 100_000>,
    /// How many of them may be one user's, 1 to 1,000, default 10; further ones are answered 429.
    pub max_waiting_per_user: BoundedInteger<1, 1_000>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            retention_days: BoundedInteger::new(30),
            max_waiting: BoundedInteger::new(500),
            max_waiting_per_user: BoundedInteger::new(10),
        }
    }
}

/// Which web pages may call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// The origins whose pages may call, such as `https://app.example.com`: scheme, host and port, no path. Also those of
    /// web views and extensions (`capacitor://localhost`, `chrome-extension://…`); any port of this machine
    /// (`http://localhost:*`); and with a `*` in the first label of the host all names that differ there only
    /// (`https://*-my-team.vercel.app`). Default: `http://localhost:3000`. In the environment: separated by commas.
    pub allowed_origins: Vec<Origin>,
    /// Headers that pages may send beside those of the contract, such as `sentry-trace` and `baggage`. Default: none.
    pub allowed_headers: Vec<FieldName>,
    /// Whether pages may call with `credentials: "include"`. Tokens go without. Default: false.
    pub allow_credentials: bool,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            allowed_origins: vec![Origin::http_localhost(3000)],
            allowed_headers: Vec::new(),
            allow_credentials: false,
        }
    }
}

/// What is told to the operator, on standard error.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `text` for people, `json` for machines: one object a line. Default: `text`.
    pub format: LogFormat,
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module such as
    /// `warn,taskpact=debug`. Default: `info`.
    pub filter: String,
    /// A key of at least 32 bytes. With it the line of a request has a hash of its user (`user`), so that the lines of one user
    /// can be followed, and nobody without the key can tell whose they are. Default: none, and no line says anything of users.
    pub user_key: Option<Secret>,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned(), user_key: None }
    }
}

/// Where the operator's Prometheus asks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The address at which `/metrics` is answered, such as `127.0.0.1:9464`: whoever reaches it may ask. Default: none.
    #[serde(default, deserialize_with = "values::address")]
    pub address: Option<SocketAddr>,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A setting that can't be used, in a sentence that says which, from where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);
