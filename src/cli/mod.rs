//! The command line: a file for each command.

use std::{
    error::Error,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use sea_orm::DbErr;
use taskpact::{
    auth::is_user_id,
    config::{Config, DatabaseUrl, Loaded, Unusable},
    store::backup::BackupError,
    telemetry::{self, chain},
};

mod auth;
mod backup;
mod completions;
mod config;
mod healthcheck;
mod man;
mod migrate;
mod serve;
mod spec;
mod token;
mod user;

/// What `--version` says: the version in the first line, then what was built, and what into it.
const LONG_VERSION: &str = if cfg!(feature = "otlp") {
    concat!(env!("CARGO_PKG_VERSION"), "\ncommit ", env!("BUILD_COMMIT"), "\nfeatures otlp")
} else {
    concat!(env!("CARGO_PKG_VERSION"), "\ncommit ", env!("BUILD_COMMIT"), "\nfeatures none")
};

/// A multi-user task API server whose OpenAPI contract is the product.
///
/// Without a command it serves. Settings come from `taskpact.toml`, `.env` and the environment; `taskpact config` shows
/// those in force.
#[derive(Debug, Parser)]
#[command(version, long_version = LONG_VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API (the default)
    Serve,
    /// Print the contract; it needs no settings and no database
    Spec(spec::Arguments),
    /// Change the database's schema, or tell its state
    #[command(subcommand)]
    Migrate(migrate::Change),
    /// Print a token for a user, signed with the shared secret as the issuer would sign it
    Token(token::Arguments),
    /// Copy a SQLite database to FILE, while servers use it, and verify the copy
    Backup {
        /// Where to; it must not be there
        file: PathBuf,
    },
    /// Put a copy in the place of a SQLite database that no server uses. What clients have read since the copy was made does not
    /// match any more
    Restore(backup::Source),
    /// Give out, or delete, what there is of one user; or refuse tokens that they were issued
    #[command(subcommand)]
    User(user::Request),
    /// Ask `/health` of the server that these settings are for, and fail if it does not answer (for containers)
    Healthcheck,
    /// Print the settings in force and where each came from, without secrets
    Config,
    /// Print a script with which a shell completes commands and options
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual's pages to FOLDER: one for each command
    Man {
        /// Where to, such as /usr/local/share/man/man1; it is made if it is not there
        folder: PathBuf,
    },
}

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settings(#[from] Unusable),
    #[error("`database.url` can't be used")]
    UnusableDatabase(#[source] DbErr),
    #[error("the database {0:?} can't be used")]
    Database(DatabaseUrl, #[source] DbErr),
    #[error("can't keep a development secret in {file}", file = taskpact::auth::development::FILE)]
    DevelopmentSecret(#[source] io::Error),
    #[error("can't listen on `{host}`, port {port} (`server.host`, `server.port`; environment HOST, PORT)")]
    Listen { host: String, port: u16, source: io::Error },
    #[error("can't listen on {address} (`metrics.address`)")]
    ListenForMetrics { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Backup(BackupError),
    #[error("the system gives no threads")]
    Threads(#[source] io::Error),
    #[error("can't listen for signals")]
    Signals(#[source] io::Error),
    #[error("can't write to standard output")]
    Output(#[source] io::Error),
    #[error("can't write to {0}")]
    Write(String, #[source] io::Error),
    #[error("can't read {0}")]
    File(String, #[source] io::Error),
    #[error("the server does not answer")]
    NoAnswer(#[source] Box<dyn Error + Send + Sync>),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Whether a setting is to blame, rather than the world.
    fn is_of_settings(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::UnusableDatabase(_))
    }
}

/// Runs the command that was given, and reports how it ended.
pub(crate) fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_of_settings() => {
            eprintln!("taskpact can't start with these settings:\n{}", chain(&failure));
            ExitCode::from(2)
        }
        Err(failure) => {
            eprintln!("taskpact failed: {}", chain(&failure));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match &command {
        Command::Spec(arguments) => return spec::run(arguments),
        Command::Completions { shell } => return completions::run(*shell),
        Command::Man { folder } => return man::run(folder),
        _ => {}
    }
    let loaded = Loaded::of_this_process()?;
    let config = &loaded.config;
    match command {
        Command::Spec(_) | Command::Completions { .. } | Command::Man { .. } => unreachable!("it needs no settings"),
        Command::Config => config::run(&loaded),
        Command::Token(arguments) => token::run(config, &arguments),
        Command::Serve => {
            telemetry::start(&config.log)?;
            // Until the last request has been served.
            let _sending = telemetry::send_spans()?;
            block_on(serve::run(&loaded))
        }
        Command::Migrate(change) => block_on(migrate::run(config, change)),
        Command::Backup { file } => backup::back_up(config, &file),
        Command::Restore(source) => block_on(backup::restore(config, &source)),
        Command::User(request) => block_on(user::run(config, request)),
        Command::Healthcheck => block_on(healthcheck::run(config)),
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Threads)?;
    runtime.block_on(work)
}

/// Prints to standard output. A reader who has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use io::Write;
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

/// How far long work has come, on a terminal; nothing in a pipe.
struct Progress {
    what: &'static str,
    is_shown: bool,
    has_shown: bool,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        use io::IsTerminal;
        Self { what, is_shown: io::stderr().is_terminal(), has_shown: false }
    }

    fn show(&mut self, done: u64, of: Option<u64>) {
        use io::Write;
        if self.is_shown {
            let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
            // A terminal that has gone is no reason to stop.
            let _ = write!(io::stderr(), "\r{done}{of} {}", self.what);
            self.has_shown = true;
        }
    }

    fn end(&self) {
        if self.has_shown {
            eprintln!();
        }
    }
}

/// Says what would be deleted, and goes on only if somebody at a terminal wants it.
fn confirm(what: &str) -> Result<(), Failure> {
    use io::{IsTerminal, Write};
    if !io::stdin().is_terminal() {
        return Err(Failure::Other(format!("{what}Nothing was done. Say --yes if that is wanted.")));
    }
    eprint!("{what}Type `yes` to go on: ");
    io::stderr().flush().map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::File("the answer".to_owned(), error))?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Failure::Other("nothing was done".to_owned())) }
}

/// Reads a user's id.
fn user_id(text: &str) -> Result<String, &'static str> {
    if is_user_id(text) { Ok(text.to_owned()) } else { Err("a user's id has 1 to 255 characters") }
}

/// The database failed, in the words of a command.
fn database_failed(config: &Config, error: DbErr) -> Failure {
    Failure::Database(config.database.url.clone(), error)
}

/// Where this machine reaches a server that listens on `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}
