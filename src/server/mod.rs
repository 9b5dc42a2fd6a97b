//! The listener and its connections: how many, how long, and how they end.
//!
//! poem's own server has no deadline for a request's head, no bound on connections and no pause when accepting fails, so
//! the loop is ours; hyper speaks HTTP. What a request meets on its way is in `edge.rs`.

use std::{
    convert::Infallible, future::Future, io, net::SocketAddr, panic::AssertUnwindSafe, pin::pin, sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time};

use crate::{auth::Verifier, config::Config, store::Store, telemetry::chain};

mod body;
mod compress;
mod cors;
mod edge;
mod log_line;
mod prefix;
mod refusal;
mod stream;

use edge::Edge;
use stream::Stream;

/// How long a connection may be silent: between two requests, and within the head of one. Longer than the 60 seconds
/// after which the usual load balancers give an idle connection up: were it shorter, they would now and then send a
/// request into a connection that is just being closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long to wait before accepting again after it failed, for example because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long to wait before a background task that panicked is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    edge: Arc<Edge>,
    store: Store,
    verifier: Verifier,
    max_connections: usize,
    shutdown_timeout: Duration,
}

impl Server {
    /// Listens on the configured address. Connections wait until [`run`](Self::run).
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(config: &Config, store: Store, verifier: Verifier) -> io::Result<Self> {
        let address = (config.server.host.as_str(), config.server.port.get());
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            edge: Arc::new(Edge::new(config, store.clone(), verifier.clone())),
            store,
            verifier,
            max_connections: config.server.max_connections.get(),
            shutdown_timeout: Duration::from_secs(config.server.shutdown_timeout_secs.get()),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done, then takes no more requests and finishes those in flight, for as long as is
    /// configured.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, edge, store, verifier, max_connections, shutdown_timeout } = self;
        // The background tasks. They end when this is dropped.
        let mut background = JoinSet::new();
        background.spawn(restart_on_panic(move || store.clone().sweep_old_keys()));
        background.spawn(restart_on_panic(move || verifier.clone().keep_fresh()));
        let connections = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(max_connections));
        let mut stop = pin!(stop);
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(cause = chain(&error), "could not accept a connection");
                    time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Small answers go out at once. If it can't be set, they still go out.
            let _ = stream.set_nodelay(true);
            let edge = Arc::clone(&edge);
            let answer = move |request: Request<Incoming>| {
                let edge = Arc::clone(&edge);
                async move { Ok::<_, Infallible>(Response::from(edge.serve(request, peer).await)) }
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                // Some close their sending side as soon as they have asked, and wait for the answer.
                .half_close(true)
                .serve_connection(TokioIo::new(Stream::new(stream)), service_fn(answer));
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(cause = chain(&error), "a connection broke");
                }
                drop(place);
            });
        }
        drop(listener);
        if time::timeout(shutdown_timeout, connections.shutdown()).await.is_err() {
            tracing::warn!(
                "stopped with requests still in flight: they took longer than `server.shutdown_timeout_secs`"
            );
        }
    }
}

/// Runs a background task that never ends, and starts it again after a panic, which has been logged.
async fn restart_on_panic<F: Future<Output = ()>>(task: impl Fn() -> F) {
    loop {
        // The panic's place is in the log.
        let _ = AssertUnwindSafe(task()).catch_unwind().await;
        time::sleep(RESTART_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_background_task_that_panics_is_started_again() {
        let (begun, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let work = {
            let (begun, again) = (Arc::clone(&begun), Arc::clone(&again));
            move || {
                let (nth, again) = (begun.fetch_add(1, Relaxed), Arc::clone(&again));
                async move {
                    assert_ne!(nth, 0, "the first time it breaks");
                    again.notify_one();
                    std::future::pending::<()>().await;
                }
            }
        };
        let going = tokio::spawn(restart_on_panic(work));
        time::timeout(Duration::from_secs(10), again.notified()).await.expect("it was not begun again");
        going.abort();
    }
}
