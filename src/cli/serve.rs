//! `taskpact serve`

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    process,
    time::{Duration, Instant},
};

use sea_orm::DbErr;
use taskpact::{
    auth::{Verifier, development, token},
    config::{Auth, Config, JwksUrl, Loaded, LogFormat, Origin},
    server::Server,
    store::Store,
    telemetry::chain,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time,
};

use super::{Failure, auth, database_failed, print, reachable};

/// How long a starting server waits for its database.
const DATABASE_WAIT: Duration = Duration::from_secs(30);
/// How long the token is valid that a server in development mode prints.
const DEVELOPMENT_TOKEN_LIFETIME: Duration = Duration::from_hours(24);
/// How long a stopping server waits for its connections to the database to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const DEVELOPMENT_USER: &str = "dev";

pub(super) async fn run(loaded: &Loaded) -> Result<(), Failure> {
    let (auth, is_development) = auth::effective(&loaded.config)?;
    let mut config = loaded.config.clone();
    if is_development && config.server.is_loopback() {
        // Nobody else's page reaches this machine's server, and a frontend's own is on one port or another.
        config.cors.allowed_origins.extend(Origin::of_this_machine());
    }
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    let changed = loaded.changed();
    if !changed.is_empty() {
        tracing::info!("settings that are not the defaults: {}", changed.join(", "));
    }
    warn(&config, is_development);
    let verifier = Verifier::new(&auth).await?;
    let store = Store::new(&config.database).map_err(Failure::UnusableDatabase)?;
    // From the start: the database may keep it waiting, and the first process of a container gets no signal that it does
    // not listen for.
    let mut stop = pin!(stop_signal()?);
    let server = tokio::select! {
        server = start(&config, store.clone(), verifier, is_development.then_some(&auth)) => Some(server?),
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

/// Listens, waits for the database, and says so.
async fn start(
    config: &Config,
    store: Store,
    verifier: Verifier,
    development: Option<&Auth>,
) -> Result<Server, Failure> {
    let failed = |source| {
        let (host, port) = (config.server.host.clone(), config.server.port.get());
        Failure::Listen { host, port, source }
    };
    // First: a server that can't serve here must not change the database.
    let mut server = Server::bind(config, store.clone(), verifier).await.map_err(failed)?;
    let address = server.address().map_err(failed)?;
    if let Some(address) = config.metrics.address {
        let failed = |source| Failure::ListenForMetrics { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let url = format!("http://{}/metrics", listener.local_addr().map_err(failed)?);
        tracing::info!(url, "metrics are at {url}");
        server.tell_metrics(listener);
    }
    if store.shares_its_file() {
        tracing::warn!(
            "another server has the same SQLite file open: they will wait for each other. Several servers on one database \
             need PostgreSQL"
        );
    }
    prepare(&store, config).await?;
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
            "`auth.issuer` is not set: every token that is signed with the secret is accepted, whoever made it"
        );
    }
    if jwks_url.as_ref().is_some_and(JwksUrl::is_open_to_others) {
        tracing::warn!("`auth.jwks_url` is not https: who is on the way to it can have any token accepted");
    }
    for origin in config.cors.allowed_origins.iter().filter(|origin| origin.is_open_to_others()) {
        let origin = origin.as_str();
        tracing::warn!(
            "`cors.allowed_origins` has `{origin}`: every page under such a name may call with the tokens of its visitors, \
             also those that others can register there"
        );
    }
}

/// Waits for the database, and brings its schema up to date if that is wanted.
async fn prepare(store: &Store, config: &Config) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        match migrated(store, config).await {
            Ok(()) => break,
            Err(error) if Store::is_transient(&error) && started.elapsed() < DATABASE_WAIT => {
                let cause = chain(&error);
                tracing::warn!(cause, "the database does not answer yet; trying again");
                time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(database_failed(config, error)),
        }
    }
    match store.undistributed_tables().await {
        Ok(statements) if statements.is_empty() => {}
        Ok(statements) => tracing::warn!("requests fail until tables are distributed: {}", statements.join("; ")),
        Err(error) => tracing::warn!(cause = chain(&error), "could not look whether tables are distributed"),
    }
    // It serves what it can: reads, if the database takes no writes.
    if let Err(fault) = store.ready().await {
        tracing::warn!(cause = fault.cause(), "{fault}");
    }
    Ok(())
}

async fn migrated(store: &Store, config: &Config) -> Result<(), DbErr> {
    store.try_connect().await?;
    if config.database.migrate {
        let steps = store.migrate_up().await?;
        for step in steps {
            tracing::info!("applied migration {step}");
        }
    } else {
        for step in store.migration_status().await?.iter().filter(|step| !step.applied) {
            tracing::warn!("migration {} is pending: run `taskpact migrate up`", step.name);
        }
    }
    Ok(())
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

/// Waits for SIGTERM, SIGINT or SIGHUP. A second one ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(Failure::Signals);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
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
