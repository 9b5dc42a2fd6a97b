//! The command line.

use std::{
    error::Error,
    fmt::Display,
    fs,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    process::{self, ExitCode},
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, ValueEnum};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use sea_orm::DbErr;
use taskpact::{
    auth::{Verifier, development, token},
    config::{Auth, Config, Development, JwksUrl, Loaded, LogFormat, Secret, Unusable},
    contract::Contract,
    server::Server,
    store::Store,
    telemetry::{self, chain},
};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    time,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a starting server waits for its database.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);
/// How long the token is valid that a server in development mode prints.
const DEVELOPMENT_TOKEN_LIFETIME: Duration = Duration::from_hours(24);
/// How long a stopping server waits for its connections to the database to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const DEVELOPMENT_USER: &str = "dev";
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A multi-user task API server whose OpenAPI contract is the product.
///
/// Without a command it serves. Settings come from `taskpact.toml`, `.env` and the environment; `taskpact config` shows
/// those in force.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API (the default)
    Serve,
    /// Print the contract; it needs no settings and no database
    Spec {
        /// The form to print it in
        #[arg(long, value_enum, default_value_t = Form::Yaml)]
        format: Form,
        /// Print nothing, but fail if FILE is not exactly this contract in this form
        #[arg(long, value_name = "FILE")]
        check: Option<PathBuf>,
    },
    /// Change the database's schema, or tell its state
    #[command(subcommand)]
    Migrate(Migrate),
    /// Print a token for a user, signed with the shared secret as the issuer would sign it
    Token {
        /// The user's id: the token's subject
        #[arg(long, value_name = "ID", value_parser = user_id)]
        user: String,
        /// For how long the token is valid, such as `15m`, `1h` or `7d`
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Ask the server that these settings start whether it runs (for containers)
    Healthcheck,
    /// Print the settings in force and where each came from, without secrets
    Config,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

#[derive(Debug, Subcommand)]
enum Migrate {
    /// Apply every pending migration
    Up,
    /// Take back the last migrations, with the data that they hold
    Down {
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = 1)]
        steps: u32,
    },
    /// List the migrations and whether they are applied
    Status,
}

/// Why the program ends without success.
enum Failure {
    /// A setting can't be used.
    Settings(String),
    /// Something else went wrong.
    Other(String),
}

impl From<Unusable> for Failure {
    fn from(error: Unusable) -> Self {
        Self::Settings(error.to_string())
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Settings(why)) => {
            eprintln!("taskpact can't start with these settings:\n{why}");
            ExitCode::from(2)
        }
        Err(Failure::Other(why)) => {
            eprintln!("taskpact failed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    if let Command::Spec { format, check } = command {
        return spec(format, check.as_deref());
    }
    let loaded = Loaded::of_this_process()?;
    let config = &loaded.config;
    match command {
        Command::Spec { .. } => unreachable!("it needs no settings"),
        Command::Config => print(&loaded.describe()),
        Command::Token { user, ttl } => {
            let (auth, is_development) = auth(config)?;
            if is_development {
                eprintln!("signed with the development secret in {}", development::FILE);
            }
            print(&(token::mint(&auth, &user, ttl)? + "\n"))
        }
        Command::Serve => {
            telemetry::start(&config.log)?;
            wait_for(serve(config))
        }
        Command::Migrate(change) => wait_for(migrate(config, change)),
        Command::Healthcheck => wait_for(healthcheck(config)),
    }
}

fn wait_for(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("the system gives no threads: {error}")))?
        .block_on(work)
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let (auth, is_development) = auth(config)?;
    let verifier = Verifier::new(&auth).await?;
    let store = Store::new(&config.database).map_err(|error| unusable_database(&error))?;
    // From the start: the database may keep it waiting, and the first process of a container gets no signal that it does
    // not listen for.
    let mut stop = pin!(asked_to_stop()?);
    let server = tokio::select! {
        server = start(config, store.clone(), verifier, is_development.then_some(&auth)) => Some(server?),
        () = &mut stop => None,
    };
    if let Some(server) = server {
        server.run(stop).await;
    }
    // What could not be finished may still hold a connection.
    let _ = time::timeout(CLOSE_TIMEOUT, store.close()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for the database, listens, and says so.
async fn start(
    config: &Config,
    store: Store,
    verifier: Verifier,
    development: Option<&Auth>,
) -> Result<Server, Failure> {
    warn(config, development.is_some());
    prepare(&store, config).await?;
    let server = Server::bind(config, store, verifier).await.map_err(|error| {
        let (host, port) = (&config.server.host, config.server.port.get::<u16>());
        Failure::Other(format!(
            "can't listen on `{host}`, port {port} (`server.host`, `server.port`; environment HOST, PORT): {error}"
        ))
    })?;
    let address = server.address().map_err(|error| Failure::Other(error.to_string()))?;
    announce(config, address, development)?;
    Ok(server)
}

/// Says what works, but may not be what was meant.
fn warn(config: &Config, is_development: bool) {
    let ignored = config.database.url.ignored_parameters();
    if !ignored.is_empty() {
        tracing::warn!("`database.url` has parameters that are not known here and are ignored: {}", ignored.join(", "));
    }
    let Auth { secret, jwks_url, issuer, .. } = &config.auth;
    if secret.is_some() && issuer.is_none() && !is_development {
        tracing::warn!(
            "`auth.issuer` is not set: every token that is signed with the secret is believed, whoever made it"
        );
    }
    if jwks_url.as_ref().is_some_and(JwksUrl::is_open_to_others) {
        tracing::warn!("`auth.jwks_url` is not https: who is on the way to it can have any token believed");
    }
}

/// By what tokens are believed, and whether it is a secret of our own, for development.
fn auth(config: &Config) -> Result<(Auth, bool), Failure> {
    if config.auth.is_set() {
        return Ok((config.auth.clone(), false));
    }
    let allowed = match config.auth.development {
        Development::Never => false,
        Development::Loopback => config.server.is_loopback(),
        Development::Anywhere => true,
    };
    if allowed {
        return Ok((Auth { secret: Some(development_secret()?), ..config.auth.clone() }, true));
    }
    Err(Failure::Settings(format!(
        "no secret is set, so no token could be believed. Set BETTER_AUTH_SECRET to the secret that Better Auth signs \
         with, or `auth.jwks_url` to where it publishes its keys. (Development mode, with a secret of its own, is for a \
         loopback address such as 127.0.0.1: `server.host` is `{}`. `auth.development` says where it is allowed.)",
        config.server.host
    )))
}

fn development_secret() -> Result<Secret, Failure> {
    development::secret(Path::new("."))
        .map_err(|error| Failure::Other(format!("can't keep a development secret in {}: {error}", development::FILE)))
}

/// Waits for the database, and brings its schema up to date if that is wanted.
async fn prepare(store: &Store, config: &Config) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let outcome = match store.reach().await {
            Err(error) => Err(error),
            Ok(()) if config.database.migrate => {
                let steps = store.migrate_up().await;
                steps.map(|steps| steps.iter().for_each(|step| tracing::info!("applied migration {step}")))
            }
            Ok(()) => store.migration_status().await.map(|steps| {
                for step in steps.iter().filter(|step| !step.applied) {
                    tracing::warn!("migration {} is pending: run `taskpact migrate up`", step.name);
                }
            }),
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) if Store::is_passing(&error) && started.elapsed() < DATABASE_PATIENCE => {
                let cause = chain(&error);
                tracing::warn!(cause, "the database does not answer yet; trying again");
                time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(database_failed(config, &error)),
        }
    }
}

/// Says where everything is. In development mode also how to call it, with a token.
fn announce(config: &Config, address: SocketAddr, development: Option<&Auth>) -> Result<(), Failure> {
    let url = format!("http://{}", reachable(address));
    if config.log.format == LogFormat::Json {
        if development.is_some() {
            let how = "BETTER_AUTH_SECRET is not set. `taskpact token --user ID` prints a token";
            tracing::warn!(secret = development::FILE, "DEVELOPMENT MODE, with a random secret: {how}");
        }
        tracing::info!(url, "listening");
        return Ok(());
    }
    let mut text = format!(
        "Taskpact {} is listening.\n\n  API       {url}/api/{{user_id}}/tasks\n  docs      {url}/docs\n  \
         contract  {url}/openapi.yaml\n  database  {:?}\n\n",
        env!("CARGO_PKG_VERSION"),
        config.database.url
    );
    if let Some(auth) = development {
        let token = token::mint(auth, DEVELOPMENT_USER, DEVELOPMENT_TOKEN_LIFETIME)?;
        text += &format!(
            "DEVELOPMENT MODE: BETTER_AUTH_SECRET is not set, so tokens are signed with a random secret, kept in\n{}. \
             Do not serve anybody else like this. `taskpact token --user ID` prints a\ntoken for any user. As the user \
             `{DEVELOPMENT_USER}`, for the next 24 hours:\n\n  curl -H 'Authorization: Bearer {token}' \
             {url}/api/{DEVELOPMENT_USER}/tasks\n\n",
            development::FILE
        );
    }
    print(&text)
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

/// Waits for SIGTERM or SIGINT. A second one ends the process at once.
fn asked_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::Other(format!("can't listen for signals: {error}")));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        next().await;
        tracing::info!("stopping: finishing what is in flight");
        tokio::spawn(async move {
            next().await;
            tracing::warn!("stopping at once");
            process::exit(1);
        });
    })
}

async fn migrate(config: &Config, change: Migrate) -> Result<(), Failure> {
    let store = Store::new(&config.database).map_err(|error| unusable_database(&error))?;
    let failed = |error| database_failed(config, &error);
    store.reach().await.map_err(failed)?;
    let report = |done: &str, nothing: &str, steps: &[String]| {
        if steps.is_empty() {
            format!("{nothing}\n")
        } else {
            steps.iter().map(|step| format!("{done} {step}\n")).collect()
        }
    };
    let text = match change {
        Migrate::Up => report("applied", "nothing to apply", &store.migrate_up().await.map_err(failed)?),
        Migrate::Down { steps } => {
            report("took back", "nothing to take back", &store.migrate_down(steps).await.map_err(failed)?)
        }
        Migrate::Status => {
            let steps = store.migration_status().await.map_err(failed)?;
            steps
                .iter()
                .map(|step| format!("{}  {}\n", if step.applied { "applied" } else { "pending" }, step.name))
                .collect()
        }
    };
    store.close().await;
    print(&text)
}

async fn healthcheck(config: &Config) -> Result<(), Failure> {
    let failed = |why: &dyn Display| Failure::Other(format!("the server does not answer: {why}"));
    let ask = async {
        let host = config.server.host.parse().map_or_else(
            |_| config.server.host.clone(),
            |ip: IpAddr| reachable(SocketAddr::new(ip, 0)).ip().to_string(),
        );
        let stream = TcpStream::connect((host.as_str(), config.server.port.get())).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get("/health").header("Host", host).body(String::new())?;
        Ok::<_, Box<dyn Error>>(sender.send_request(request).await?.status())
    };
    match time::timeout(HEALTHCHECK_TIMEOUT, ask).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::Other(format!("the server answered {status}"))),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(failed(&"it takes too long")),
    }
}

fn spec(format: Form, check: Option<&Path>) -> Result<(), Failure> {
    let contract = Contract::get();
    let text = match format {
        Form::Yaml => &contract.yaml,
        Form::Json => &contract.json,
    };
    let text = std::str::from_utf8(text).expect("a contract is text");
    let Some(file) = check else { return print(text) };
    let name = file.display();
    let found = fs::read_to_string(file).map_err(|error| Failure::Other(format!("can't read {name}: {error}")))?;
    if found == text {
        return Ok(());
    }
    let line = found.lines().zip(text.lines()).take_while(|(found, right)| found == right).count() + 1;
    Err(Failure::Other(format!(
        "{name} is not this server's contract: it differs from line {line} on. `taskpact spec > {name}` writes it"
    )))
}

fn user_id(text: &str) -> Result<String, &'static str> {
    if token::is_user_id(text) { Ok(text.to_owned()) } else { Err("a user's id has 1 to 255 characters") }
}

/// Prints to standard output. A reader who has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use io::Write;
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("can't write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn unusable_database(error: &DbErr) -> Failure {
    Failure::Settings(format!("`database.url` can't be used: {}", chain(error)))
}

fn database_failed(config: &Config, error: &DbErr) -> Failure {
    Failure::Other(format!("the database {:?} can't be used: {}", config.database.url, chain(error)))
}
