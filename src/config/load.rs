//! Loading the settings, and telling where each came from.
//!
//! Later sources win: the defaults below, `taskpact.toml` (or the file that `TASKPACT_CONFIG` names), `.env`, the
//! environment. In the environment a setting is spelt `TASKPACT_` and its path with `__` between the levels, such as
//! `TASKPACT_SERVER__PORT`; `HOST`, `PORT`, `DATABASE_URL` and `BETTER_AUTH_SECRET`, which people already have, are known
//! too. A variable without a value is no setting. A key that nobody knows is an error: a misspelt setting must not be a
//! silent default.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Value},
};

use super::{Auth, Config, MIN_SECRET_BYTES, Secret, Unusable, dot_env};

/// The file that is read when `TASKPACT_CONFIG` names no other.
const FILE: &str = "taskpact.toml";
const PREFIX: &str = "TASKPACT_";
/// Better Auth signs with this constant when it was given no secret: everybody knows it.
const BETTER_AUTH_DEFAULT_SECRET: &str = "better-auth-secret-12345678901234567890";
/// The levels of the log, and none.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
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
    /// What was passed over, in words for the operator.
    pub notes: Vec<String>,
    sources: Figment,
}

/// An environment variable, and where it was set.
struct Variable {
    name: String,
    value: String,
    place: &'static str,
}

impl Loaded {
    /// Reads the settings of this process: the working directory's files and the environment.
    ///
    /// # Errors
    /// A file can't be read, a key is unknown, or a value is out of its range: everything that is wrong, a line each.
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
    /// A file can't be read, a key is unknown, or a value is out of its range: everything that is wrong, a line each.
    pub fn from(directory: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Unusable> {
        let (mut problems, mut notes) = (Vec::new(), Vec::new());
        let of = |place| move |(name, value)| Variable { name, value, place };
        let file = directory.join(".env");
        let dot_env = dot_env::read(&file, is_known).map_err(Unusable)?;
        for (line, name) in dot_env.unreadable {
            let text = format!("line {line} of {} ({name}) can't be read", shorten(&file).display());
            if is_known(&name) {
                problems.push(format!("{text}: put a value with blanks, quotes, `#` or `$` in 'single quotes'"));
            } else {
                notes.push(format!("{text}; it is no setting of this server, and is ignored"));
            }
        }
        let mut variables: Vec<_> = dot_env.variables.into_iter().map(of(".env file's")).collect();
        let in_file = variables.len();
        variables.extend(environment.into_iter().map(of("environment variable")));
        let is_set = |variable: &&Variable| !variable.value.is_empty();

        let file = match variables.iter().filter(is_set).rfind(|variable| variable.name == "TASKPACT_CONFIG") {
            Some(Variable { value, .. }) => toml(&directory.join(value), true)?,
            None => toml(&directory.join(FILE), false)?,
        };
        // What the real environment sets wins over `.env`, whatever it is called; in each of the two, a name of our own wins
        // over one that other tools share.
        let (of_file, of_environment) = variables.split_at(in_file);
        let mut settings = Vec::new();
        for group in [of_file, of_environment] {
            let group = || group.iter().filter(is_set);
            settings.extend(group().filter_map(|variable| {
                let (_, key) = ALIASES.iter().find(|(alias, _)| *alias == variable.name)?;
                Some(((*key).to_owned(), variable))
            }));
            for variable in group() {
                match key_of(variable) {
                    Ok(Some(key)) => settings.push((key, variable)),
                    Ok(None) => {}
                    Err(problem) => problems.push(problem),
                }
            }
        }
        let (config, sources) = extract(file.as_ref(), &settings, &mut problems)?;
        let loaded = Self { config, notes, sources };
        // What is left out of it can't be judged as a whole.
        if !problems.iter().any(|problem| problem.starts_with("`auth.")) {
            problems.extend(loaded.check_auth().err());
        }
        problems.extend(loaded.check_log().err());
        if problems.is_empty() { Ok(loaded) } else { Err(Unusable(problems.join("\n"))) }
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

    /// The settings that are not the defaults, with where each came from; of what would be secret only that it is set.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        let tables = serde_json::to_value(&self.config).expect("settings are plain data");
        let defaults = serde_json::to_value(Config::default()).expect("settings are plain data");
        let mut changed = Vec::new();
        for (table, settings) in tables.as_object().into_iter().flatten() {
            for (name, value) in settings.as_object().into_iter().flatten() {
                let key = format!("{table}.{name}");
                // Not even without its password: who reads logs need not know where the data is.
                let value = if key == "database.url" { "(set)".to_owned() } else { value.to_string() };
                if defaults[table][name] != tables[table][name] {
                    changed.push(format!("{key} = {value} ({})", self.source(&key)));
                }
            }
        }
        changed
    }

    /// Where the value of `key` came from, in words.
    fn source(&self, key: &str) -> String {
        self.sources.find_metadata(key).map_or_else(|| "default".to_owned(), place)
    }

    /// The setting `key` of the table `auth`, and where it came from.
    fn named(&self, key: &str) -> String {
        format!("`auth.{key}` ({})", self.source(&format!("auth.{key}")))
    }

    fn check_auth(&self) -> Result<(), String> {
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
        Err(problem)
    }

    fn check_secret(&self, key: &str, secret: Option<&Secret>) -> Result<(), String> {
        let Some(secret) = secret.map(Secret::expose) else { return Ok(()) };
        let name = self.named(key);
        let quotes = ['"', '\'', '`'];
        let advice = "use the issuer's BETTER_AUTH_SECRET, made for example by `openssl rand -base64 32`";
        let problem = if secret == BETTER_AUTH_DEFAULT_SECRET {
            format!("is the constant that Better Auth falls back to, which everybody knows: {advice}")
        } else if secret.contains(['\r', '\n']) {
            "has a line end, which would be a part of it: leave it out".to_owned()
        } else if secret.trim() != secret {
            "has blanks at its start or end, which would be a part of it: leave them out".to_owned()
        } else if quotes.iter().any(|quote| secret.starts_with(*quote) && secret.ends_with(*quote)) {
            "has quotes around it, which would be a part of it: leave them out".to_owned()
        } else if secret.len() < MIN_SECRET_BYTES {
            format!("is shorter than {MIN_SECRET_BYTES} bytes and could be guessed: {advice}")
        } else {
            return Ok(());
        };
        Err(format!("{name} {problem}"))
    }

    /// `EnvFilter` takes an unknown word for the name of a module, and then shows nothing else.
    fn check_log(&self) -> Result<(), String> {
        let is_level = |text: &str| LEVELS.contains(&text.to_ascii_lowercase().as_str());
        let is_module = |text: &str| {
            let module = text.split(['[', '{']).next().unwrap_or_default();
            module
                .split("::")
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        };
        let wrong =
            self.config.log.filter.split(',').map(str::trim).find(|directive| match directive.rsplit_once('=') {
                Some((module, level)) => !is_module(module) || !is_level(level),
                None => !is_level(directive),
            });
        let is_short = |key: &Secret| key.expose().len() < MIN_SECRET_BYTES;
        if self.config.log.user_key.as_ref().is_some_and(is_short) {
            let source = self.source("log.user_key");
            return Err(format!(
                "`log.user_key` ({source}) is shorter than {MIN_SECRET_BYTES} bytes and could be guessed: make one by `openssl \
                 rand -base64 32`"
            ));
        }
        let source = self.source("log.filter");
        wrong.map_or(Ok(()), |wrong| {
            Err(format!(
                "`log.filter` ({source}): `{wrong}` is neither a level ({}) nor a level of a module, such as `taskpact=debug`",
                LEVELS.join(", ")
            ))
        })
    }
}

/// The settings that the sources make, and the sources. A value that can't be used is told to `problems`, and left out, so
/// that the next one can be found.
fn extract(
    file: Option<&File>,
    variables: &[(String, &Variable)],
    problems: &mut Vec<String>,
) -> Result<(Config, Figment), Unusable> {
    let defaults = Figment::from(Serialized::defaults(Config::default()));
    let mut left_out: Vec<String> = Vec::new();
    loop {
        let mut sources = defaults.clone();
        if let Some(file) = file {
            sources = sources.merge(file.without(&left_out));
        }
        let is_left_out = |key: &str| {
            left_out
                .iter()
                .any(|out| key.strip_prefix(out.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        };
        for (key, variable) in variables.iter().filter(|(key, _)| !is_left_out(key)) {
            sources = sources.merge(Entry::new(variable, key, &defaults));
        }
        let error = match sources.extract() {
            Ok(config) => return Ok((config, sources)),
            Err(error) => error,
        };
        // Of a list, the whole list.
        let key = error.path.iter().take(2).cloned().collect::<Vec<_>>().join(".");
        problems.push(explain(error));
        if key.is_empty() || left_out.contains(&key) {
            return Err(Unusable(problems.join("\n")));
        }
        left_out.push(key);
    }
}

/// A file of settings that has been read.
struct File {
    path: PathBuf,
    tables: Dict,
}

impl File {
    /// The file without these settings.
    fn without(&self, keys: &[String]) -> Self {
        let mut tables = self.tables.clone();
        for key in keys {
            let (table, name) = key.split_once('.').unwrap_or((key, ""));
            match tables.get_mut(table) {
                Some(Value::Dict(_, settings)) if !name.is_empty() => drop(settings.remove(name)),
                _ => drop(tables.remove(table)),
            }
        }
        Self { path: self.path.clone(), tables }
    }
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::from("TOML file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tables.clone()))
    }
}

/// The settings in `file`, if it is there.
fn toml(file: &Path, required: bool) -> Result<Option<File>, Unusable> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !required => return Ok(None),
        Err(error) if required => {
            let name = file.display();
            return Err(Unusable(format!("{name}, which TASKPACT_CONFIG names, can't be read: {error}")));
        }
        Err(error) => return Err(Unusable(format!("{} can't be read: {error}", shorten(file).display()))),
    };
    let tables = Toml::from_str(&text).map_err(|error| {
        // The message quotes the line, which may hold a secret.
        let what = error.to_string();
        let words: Vec<_> = what.lines().filter(|line| !line.contains('|') && !line.is_empty()).collect();
        Unusable(format!("{} ({})", words.join(": "), shorten(file).display()))
    })?;
    Ok(Some(File { path: file.to_owned(), tables }))
}

fn is_known(name: &str) -> bool {
    name.starts_with(PREFIX) || ALIASES.iter().any(|(alias, _)| *alias == name)
}

/// The setting that a variable means, if it means one.
fn key_of(Variable { name, value, .. }: &Variable) -> Result<Option<String>, String> {
    let Some(path) = name.strip_prefix(PREFIX) else { return Ok(None) };
    if path == "CONFIG" || set_by_kubernetes(path, value) {
        return Ok(None);
    }
    if !path.contains("__") || path.split("__").any(str::is_empty) {
        return Err(format!(
            "the environment variable {name} is no setting: write two underscores between the levels, as in \
             {PREFIX}SERVER__PORT"
        ));
    }
    Ok(Some(path.to_lowercase().replace("__", ".")))
}

/// Whether Kubernetes put the variable there: it does so for every service, also for one that is called `taskpact`.
fn set_by_kubernetes(path: &str, value: &str) -> bool {
    path.starts_with("SERVICE_") || path.starts_with("PORT_") || path == "PORT" && value.contains("://")
}

/// One environment variable as a source of its own, so that an error can name it.
struct Entry {
    name: String,
    data: Dict,
}

impl Entry {
    fn new(Variable { name, value, place }: &Variable, key: &str, defaults: &Figment) -> Self {
        // The setting tells what the text means: `12345678` is a number for a port and text for a secret.
        let value = match defaults.find_value(key) {
            Ok(Value::Array(..)) => value.split(',').map(str::trim).collect::<Vec<_>>().into(),
            Ok(Value::Num(..)) => value.parse::<u64>().map_or_else(|_| Value::from(value.as_str()), Value::from),
            Ok(Value::Bool(..)) => value.parse::<bool>().map_or_else(|_| Value::from(value.as_str()), Value::from),
            _ => Value::from(value.as_str()),
        };
        let Value::Dict(_, data) = figment::util::nest(key, value) else {
            unreachable!("a key has at least one level")
        };
        Self { name: format!("{place} {name}"), data }
    }
}

impl Provider for Entry {
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
