//! Loading the settings, and telling where each came from.
//!
//! Later sources win: the defaults below, `taskpact.toml` (or the file that `TASKPACT_CONFIG` names), `.env`, the
//! environment. In the environment a setting is spelt `TASKPACT_` and its path with `__` between the levels, such as
//! `TASKPACT_SERVER__PORT`; `HOST`, `PORT`, `DATABASE_URL` and `BETTER_AUTH_SECRET`, which people already have, are known
//! too. A variable without a value is no setting. A key that nobody knows is an error: a misspelt setting must not be a
//! silent default.

use std::{
    fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Value},
};

use super::{Auth, Config, MIN_SECRET_BYTES, Secret, Unusable};

/// The file that is read when `TASKPACT_CONFIG` names no other.
const FILE: &str = "taskpact.toml";
const PREFIX: &str = "TASKPACT_";
/// Better Auth signs with this constant when it was given no secret: everybody knows it.
const BETTER_AUTH_DEFAULT_SECRET: &str = "better-auth-secret-12345678901234567890";
/// The environment variables that other tools set, and the settings that they mean here.
const ALIASES: [(&str, &str); 4] = [
    ("HOST", "server.host"),
    ("PORT", "server.port"),
    ("DATABASE_URL", "database.url"),
    ("BETTER_AUTH_SECRET", "auth.secret"),
];

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
        use std::fmt::Write;

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
                "{} and {} are both set, but tokens are accepted in one way only: leave out one of them",
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
                "{} is set, but nothing to verify tokens with: set `auth.jwks_url` to where the issuer publishes its keys, \
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
