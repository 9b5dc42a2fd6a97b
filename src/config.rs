//! Every setting: its unit, its range, its default, and where its value came from.
//!
//! Later sources win: the defaults below, `taskpact.toml` (or the file that `TASKPACT_CONFIG` names), `.env`, the
//! environment. In the environment a setting is spelt `TASKPACT_` and its path with `__` between the levels, such as
//! `TASKPACT_SERVER__PORT`; `HOST`, `PORT`, `DATABASE_URL` and `BETTER_AUTH_SECRET`, which people already have, are known
//! too. A variable without a value is no setting. A key that nobody knows is an error: a misspelt setting must not be a
//! silent default.
//!
//! No error and no output of this module shows a secret's value.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::{Host, Url};

/// The file that is read when `TASKPACT_CONFIG` names no other.
const FILE: &str = "taskpact.toml";
const PREFIX: &str = "TASKPACT_";
/// Better Auth signs with this constant when it was given no secret: everybody knows it.
const BETTER_AUTH_DEFAULT_SECRET: &str = "better-auth-secret-12345678901234567890";
/// The shortest secret that can't be guessed, in bytes.
pub const MIN_SECRET_BYTES: usize = 32;

/// The environment variables that other tools set, and the settings that they mean here.
const ALIASES: [(&str, &str); 4] = [
    ("HOST", "server.host"),
    ("PORT", "server.port"),
    ("DATABASE_URL", "database.url"),
    ("BETTER_AUTH_SECRET", "auth.secret"),
];

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener and the bounds of a request.
    pub server: Server,
    /// Where the tasks are kept.
    pub database: Database,
    /// Whose tokens are believed.
    pub auth: Auth,
    /// Which web pages may call.
    pub cors: Cors,
    /// What is told to the operator.
    pub log: Log,
}

/// The listener and the bounds of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The address to listen on, an IP address or a name. Default: `127.0.0.1`, which only this machine can reach.
    pub host: String,
    /// The TCP port to listen on, 0 to 65,535. Default: 8080. With 0 the system picks a free one.
    pub port: Whole<0, 65_535>,
    /// How long a request may take before it is answered 503, in milliseconds. 10 to 600,000, default 15,000.
    /// Keep it below the proxy's time-out, and with published keys above 5,000: so long may one wait for a new key.
    pub request_timeout_ms: Whole<10, 600_000>,
    /// How long a stopping server waits for the requests in flight, in seconds. 0 to 3,600, default 20. Keep it below
    /// the time that your supervisor waits before it kills.
    pub shutdown_timeout_secs: Whole<0, 3_600>,
    /// How many connections are served at once; further ones wait to be accepted. 1 to 100,000, default 1,000.
    /// Every connection is an open file: raise `ulimit -n` with it.
    pub max_connections: Whole<1, 100_000>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: Whole(8080),
            request_timeout_ms: Whole(15_000),
            shutdown_timeout_secs: Whole(20),
            max_connections: Whole(1_000),
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
    /// How many connections are open at most, 1 to 1,000, default 10. On SQLite these are readers; one more writes.
    pub max_connections: Whole<1, 1_000>,
    /// How long a request waits for a free connection before it is answered 503, in milliseconds. 10 to 60,000, default
    /// 3,000. Keep it below `server.request_timeout_ms`.
    pub acquire_timeout_ms: Whole<10, 60_000>,
    /// Whether pending migrations are applied when the server starts. Default: true.
    pub migrate: bool,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: DatabaseUrl("sqlite://data/taskpact.db".to_owned()),
            max_connections: Whole(10),
            acquire_timeout_ms: Whole(3_000),
            migrate: true,
        }
    }
}

/// Whose tokens are believed: those that are signed with a shared secret, or with one of the keys that the issuer
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
    /// seconds apart at least. A key that is withdrawn is believed until then, as long as the issuer answers.
    pub jwks_max_age_secs: Whole<1, 86_400>,
    /// The issuer (`iss`) that tokens must name, byte by byte. For Better Auth it is the origin of its base URL, such as
    /// `https://app.example.com`. Needed with published keys.
    pub issuer: Option<String>,
    /// The audience (`aud`) that tokens must be for. Default: with published keys the issuer, which is what Better Auth
    /// writes; with a secret any.
    pub audience: Option<String>,
    /// How far the issuer's clock may be off, in seconds. 0 to 60, default 30.
    pub leeway_secs: Whole<0, 60>,
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
            jwks_max_age_secs: Whole(300),
            issuer: None,
            audience: None,
            leeway_secs: Whole(30),
            user_id_claim: "sub".to_owned(),
            development: Development::Loopback,
        }
    }
}

impl Auth {
    /// Whether something is set to believe tokens by.
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

/// Which web pages may call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// The origins whose pages may call, such as `https://app.example.com`: scheme, host and port, no path. Default:
    /// `http://localhost:3000`. In the environment: separated by commas.
    pub allowed_origins: Vec<Origin>,
}

impl Default for Cors {
    fn default() -> Self {
        Self { allowed_origins: vec![Origin("http://localhost:3000".to_owned())] }
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
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
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

/// A whole number within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Whole<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// The number.
    #[must_use]
    pub fn get<T: TryFrom<u64>>(self) -> T
    where
        T::Error: fmt::Debug,
    {
        T::try_from(self.0).expect("the bounds of a setting fit the type that it is used as")
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> de::Visitor<'_> for Visitor<MIN, MAX> {
            type Value = Whole<MIN, MAX>;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(to, "a whole number from {MIN} to {MAX}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                if (MIN..=MAX).contains(&number) {
                    Ok(Whole(number))
                } else {
                    Err(E::invalid_value(de::Unexpected::Unsigned(number), &self))
                }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// Text that must not be shown: it prints as `(hidden)`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Whoever calls this sees to it that it goes nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("(hidden)")
    }
}

/// A database's address. It may hold a password, which is not printed.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The address with its password. Whoever calls this sees to it that it goes nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The names of the address's parameters that the driver would pass over.
    #[must_use]
    pub fn ignored_parameters(&self) -> Vec<String> {
        const KNOWN: &[&str] = &[
            "sslmode",
            "ssl-mode",
            "sslrootcert",
            "ssl-root-cert",
            "ssl-ca",
            "sslcert",
            "ssl-cert",
            "sslkey",
            "ssl-key",
            "statement-cache-capacity",
            "host",
            "hostaddr",
            "port",
            "dbname",
            "user",
            "password",
            "application_name",
            "options",
        ];
        let Ok(url) = Url::parse(&self.0) else { return Vec::new() };
        let names = url.query_pairs().map(|(name, _)| name.into_owned());
        // SQLite's driver refuses what it does not know.
        names.filter(|name| !self.is_sqlite() && !KNOWN.contains(&&**name) && !name.starts_with("options[")).collect()
    }

    /// Whether this is a SQLite file rather than a PostgreSQL server.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }

    fn hidden(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else { return "(hidden)".to_owned() };
        if url.password().is_some() {
            // It fails for an address without a host only, and that has no password.
            let _ = url.set_password(Some("hidden"));
        }
        if url.query().is_some() {
            let shown: Vec<(String, String)> = url
                .query_pairs()
                .map(|(name, value)| {
                    let value = if name.contains("password") { "hidden".into() } else { value };
                    (name.into_owned(), value.into_owned())
                })
                .collect();
            url.query_pairs_mut().clear().extend_pairs(shown);
        }
        url.into()
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.hidden())
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.hidden())
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Url::parse(&text) {
            Ok(url) if url.scheme() == "sqlite" && url.query().is_some_and(|query| query.contains("mode=memory")) => {
                Err(de::Error::custom("write `sqlite::memory:` for a database that is kept in memory only"))
            }
            Ok(url) if ["sqlite", "postgres", "postgresql"].contains(&url.scheme()) => Ok(Self(text)),
            Ok(url) if url.scheme().contains('+') => {
                Err(de::Error::custom("leave out the driver: write `postgresql://…`, not `postgresql+driver://…`"))
            }
            _ => Err(de::Error::custom(
                "expected `sqlite://path/to/file.db` or `postgres://user:password@host/name`, with every special \
                 character of the password written as %XX",
            )),
        }
    }
}

/// The origin of a web page, as a browser sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Origin(String);

impl Origin {
    /// The origin, as a browser sends it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Url::parse(&text) {
            // What a browser sends is the canonical form: anything else would never match.
            Ok(url) if url.origin().is_tuple() && url.origin().ascii_serialization() == text => Ok(Self(text)),
            Ok(url) if url.origin().is_tuple() => {
                Err(de::Error::custom(format!("write the origin as `{}`", url.origin().ascii_serialization())))
            }
            _ => Err(de::Error::custom("expected an origin such as `https://app.example.com`")),
        }
    }
}

/// Where an issuer publishes its keys.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct JwksUrl(String);

impl JwksUrl {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether somebody on the way could put other keys in the place of the issuer's.
    #[must_use]
    pub fn is_open_to_others(&self) -> bool {
        let is_near = |url: &Url| match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        Url::parse(&self.0).is_ok_and(|url| url.scheme() == "http" && !is_near(&url))
    }
}

impl<'de> Deserialize<'de> for JwksUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Url::parse(&text) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Err(de::Error::custom("expected an address without a user name and a password"))
            }
            Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(Self(text)),
            _ => Err(de::Error::custom("expected an address such as `https://app.example.com/api/auth/jwks`")),
        }
    }
}

/// A setting that can't be used, in a sentence that says which, from where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// The settings in force, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    sources: Figment,
}

impl Loaded {
    /// Reads the settings of this process: the working directory's files and the environment.
    ///
    /// # Errors
    /// A file can't be read, a key is unknown, or a value is out of its range.
    pub fn of_this_process() -> Result<Self, Unusable> {
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            // A name that is not Unicode is none of ours.
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => environment.push((name, value)),
                Err(_) if is_known(&name) => {
                    return Err(Unusable(format!("the environment variable {name} is not UTF-8")));
                }
                Err(_) => {}
            }
        }
        Self::from(Path::new("."), environment)
    }

    /// Reads the settings of a process that would run in `directory` with the variables of `environment`.
    ///
    /// # Errors
    /// A file can't be read, a key is unknown, or a value is out of its range.
    pub fn from(directory: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Unusable> {
        let mut variables = dot_env(&directory.join(".env"))?;
        variables.extend(environment.into_iter().map(|(name, value)| (name, value, "environment variable")));
        variables.retain(|(_, value, _)| !value.is_empty());

        let defaults = Figment::from(Serialized::defaults(Config::default()));
        let mut sources = match variables.iter().rfind(|(name, ..)| name == "TASKPACT_CONFIG") {
            Some((_, file, _)) => with_file(defaults, &directory.join(file), true)?,
            None => with_file(defaults, &directory.join(FILE), false)?,
        };
        // Twice over the variables: a name of our own beats one that other tools share.
        let defaults = sources.clone();
        for (name, value, place) in &variables {
            if let Some((_, key)) = ALIASES.iter().find(|(alias, _)| alias == name) {
                sources = sources.merge(Variable::new(name, place, key, value, &defaults));
            }
        }
        for (name, value, place) in &variables {
            if let Some(key) = key_of(name, value)? {
                sources = sources.merge(Variable::new(name, place, &key, value, &defaults));
            }
        }

        let config: Config = sources.extract().map_err(|error| Unusable(explain(error)))?;
        let loaded = Self { config, sources };
        loaded.check_auth()?;
        Ok(loaded)
    }

    /// The settings in force, one a line, each with its source. It is TOML; secrets are hidden.
    #[must_use]
    pub fn describe(&self) -> String {
        use fmt::Write;

        let mut out = String::new();
        let tables = serde_json::to_value(&self.config).expect("settings are plain data");
        for (table, settings) in tables.as_object().into_iter().flatten() {
            let _ = writeln!(out, "{}[{table}]", if out.is_empty() { "" } else { "\n" });
            for (name, value) in settings.as_object().into_iter().flatten() {
                let source = self.source(&format!("{table}.{name}"));
                let _ = match value {
                    serde_json::Value::Null => writeln!(out, "# {name} is not set"),
                    value => writeln!(out, "{name} = {value}  # {source}"),
                };
            }
        }
        out
    }

    /// Where the value of `key` came from, in words.
    fn source(&self, key: &str) -> String {
        self.sources.find_metadata(key).map_or_else(|| "default".to_owned(), place)
    }

    /// The setting `key` of the table `auth`, and where it came from.
    fn named(&self, key: &str) -> String {
        format!("`auth.{key}` ({})", self.source(&format!("auth.{key}")))
    }

    fn check_auth(&self) -> Result<(), Unusable> {
        let Auth { secret, previous_secret, jwks_url, jwks_file, issuer, audience, user_id_claim, .. } =
            &self.config.auth;
        self.check_secret("secret", secret.as_ref())?;
        self.check_secret("previous_secret", previous_secret.as_ref())?;
        let ways = [("secret", secret.is_some()), ("jwks_url", jwks_url.is_some()), ("jwks_file", jwks_file.is_some())];
        let ways: Vec<_> = ways.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect();
        let problem = match &ways[..] {
            [one, another, ..] => format!(
                "{} and {} are both set, but tokens are believed in one way only: leave out one of them",
                self.named(one),
                self.named(another)
            ),
            [] | ["jwks_url" | "jwks_file"] if previous_secret.is_some() => {
                format!("{} is set without `auth.secret`: set both, or leave it out", self.named("previous_secret"))
            }
            [way @ ("jwks_url" | "jwks_file")] if issuer.is_none() => format!(
                "{} is set without `auth.issuer`: set it to the issuer (iss) of the tokens, which for Better Auth is the \
                 origin of its base URL, such as `https://app.example.com`",
                self.named(way)
            ),
            [] if issuer.is_some() || audience.is_some() => format!(
                "{} is set, but nothing to believe tokens by: set `auth.jwks_url` to where the issuer publishes its keys, \
                 or BETTER_AUTH_SECRET to the secret that it signs with",
                self.named(if issuer.is_some() { "issuer" } else { "audience" })
            ),
            _ if user_id_claim.is_empty() => {
                format!("{} is empty: name a claim of the tokens, such as `sub`", self.named("user_id_claim"))
            }
            _ => return Ok(()),
        };
        Err(Unusable(problem))
    }

    fn check_secret(&self, key: &str, secret: Option<&Secret>) -> Result<(), Unusable> {
        let Some(secret) = secret else { return Ok(()) };
        let advice = "use the issuer's BETTER_AUTH_SECRET, made for example by `openssl rand -base64 32`";
        let name = self.named(key);
        if secret.expose() == BETTER_AUTH_DEFAULT_SECRET {
            return Err(Unusable(format!(
                "{name} is the constant that Better Auth falls back to, which everybody knows: {advice}"
            )));
        }
        if secret.expose().len() < MIN_SECRET_BYTES {
            return Err(Unusable(format!(
                "{name} is shorter than {MIN_SECRET_BYTES} bytes and could be guessed: {advice}"
            )));
        }
        Ok(())
    }
}

/// The variables of a `.env` file, if there is one.
fn dot_env(file: &Path) -> Result<Vec<(String, String, &'static str)>, Unusable> {
    if !file.is_file() {
        return Ok(Vec::new());
    }
    // dotenvy's errors quote the line, which may hold a secret.
    let unreadable = |_| Unusable(format!("{} is not a list of NAME=value lines", file.display()));
    dotenvy::from_path_iter(file)
        .map_err(unreadable)?
        .map(|line| line.map(|(name, value)| (name, value, ".env file's")).map_err(unreadable))
        .collect()
}

fn with_file(settings: Figment, file: &Path, required: bool) -> Result<Figment, Unusable> {
    match fs::metadata(file) {
        Ok(_) => Ok(settings.merge(Toml::file_exact(file))),
        Err(_) if !required => Ok(settings),
        Err(error) => Err(Unusable(format!("{}, which TASKPACT_CONFIG names, can't be read: {error}", file.display()))),
    }
}

fn is_known(name: &str) -> bool {
    name.starts_with(PREFIX) || ALIASES.iter().any(|(alias, _)| *alias == name)
}

/// The setting that the variable `name` means, if it means one.
fn key_of(name: &str, value: &str) -> Result<Option<String>, Unusable> {
    let Some(path) = name.strip_prefix(PREFIX) else { return Ok(None) };
    if path == "CONFIG" || set_by_kubernetes(path, value) {
        return Ok(None);
    }
    if !path.contains("__") || path.split("__").any(str::is_empty) {
        return Err(Unusable(format!(
            "the environment variable {name} is no setting: write two underscores between the levels, as in \
             {PREFIX}SERVER__PORT"
        )));
    }
    Ok(Some(path.to_lowercase().replace("__", ".")))
}

/// Whether Kubernetes put the variable there: it does so for every service, also for one that is called `taskpact`.
fn set_by_kubernetes(path: &str, value: &str) -> bool {
    path.starts_with("SERVICE_") || path.starts_with("PORT_") || path == "PORT" && value.contains("://")
}

/// One environment variable as a source of its own, so that an error can name it.
struct Variable {
    name: String,
    data: Dict,
}

impl Variable {
    fn new(name: &str, place: &str, key: &str, text: &str, defaults: &Figment) -> Self {
        // The default tells what the text means: `12345678` is a number for a port and text for a secret.
        let value = match defaults.find_value(key) {
            Ok(Value::Array(..)) => text.split(',').map(str::trim).collect::<Vec<_>>().into(),
            Ok(Value::Num(..)) => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
            Ok(Value::Bool(..)) => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
            _ => Value::from(text),
        };
        let Value::Dict(_, data) = figment::util::nest(key, value) else {
            unreachable!("a key has at least one level")
        };
        Self { name: format!("{place} {name}"), data }
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.data.clone()))
    }
}

/// Says what is wrong with the settings, each problem on a line, without the value: it may be a secret.
fn explain(error: figment::Error) -> String {
    let lines: Vec<String> = error
        .into_iter()
        .map(|error| {
            let from = error.metadata.as_ref().map(|from| format!(" ({})", place(from))).unwrap_or_default();
            let key = error.path.join(".");
            match error.kind {
                Kind::UnknownField(_, known) => {
                    format!("there is no setting `{key}`{from}; known here: {}", known.join(", "))
                }
                Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                    format!("`{key}`{from}: expected {expected}")
                }
                Kind::UnknownVariant(_, known) => format!("`{key}`{from}: expected one of {}", known.join(", ")),
                Kind::MissingField(name) => format!("`{name}` is missing{from}"),
                // A file that is no TOML: the message quotes the line, which may hold a secret.
                Kind::Message(what) if key.is_empty() => {
                    let words = what.lines().filter(|line| !line.contains('|') && !line.is_empty());
                    format!("{}{from}", words.collect::<Vec<_>>().join(": "))
                }
                Kind::Message(what) => format!("`{key}`{from}: {what}"),
                other => format!("`{key}`{from}: {other}"),
            }
        })
        .collect();
    lines.join("\n")
}

fn place(from: &Metadata) -> String {
    match &from.source {
        Some(figment::Source::File(file)) => shorten(file).display().to_string(),
        _ if from.name.starts_with("taskpact::config") => "default".to_owned(),
        _ => from.name.to_string(),
    }
}

fn shorten(file: &Path) -> PathBuf {
    file.strip_prefix(".").unwrap_or(file).to_owned()
}
