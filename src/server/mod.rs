//! The listener and its connections: how many, how long, and how they end.
//!
//! poem's own server has no deadline for a request's head, no bound on connections and no pause when accepting fails, so
//! the loop is ours; hyper speaks HTTP. Who may stay is in `peers.rs`, what a request meets on its way in `edge.rs`.

use std::{
    convert::Infallible, future::Future, io, net::SocketAddr, panic::AssertUnwindSafe, pin::pin, sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};

use crate::{auth::Verifier, config::Config, limits::Limits, store::Store, telemetry::chain};

mod body;
mod compress;
mod cors;
mod descriptors;
mod edge;
mod log_line;
mod metrics;
mod peers;
mod prefix;
mod refusal;
#[cfg(feature = "otlp")]
mod spans;
mod stream;
mod timing;

use edge::Edge;
use metrics::Metrics;
use peers::{Order, Peer, Peers, Phase};
use stream::Stream;

/// How long to wait before accepting again after it failed, for example because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long before a background task that panicked is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long a stopping server keeps connections that are idle: a request may be on its way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How many connections the system has ready at most that have not been accepted yet, and how long one may take to show.
const BACKLOG: usize = 1024;
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    edge: Arc<Edge>,
    peers: Arc<Peers>,
    limits: Limits,
    store: Store,
    verifier: Verifier,
    /// Where it is told what is measured.
    metrics: Option<(Arc<TcpListener>, Arc<Metrics>)>,
    max_head_bytes: usize,
    drain_delay: Duration,
    shutdown_timeout: Duration,
}

impl Server {
    /// Listens on the configured address. Connections wait until [`run`](Self::run).
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(config: &Config, store: Store, verifier: Verifier) -> io::Result<Self> {
        let address = (config.server.host.as_str(), config.server.port.get());
        let places = descriptors::places(config);
        let (peers, limits) = (Peers::new(&config.server, places), Limits::new(&config.limits));
        let store = store.for_server(&config.changes, places);
        let peers = Arc::new(peers);
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            edge: Arc::new(Edge::new(config, store.clone(), verifier.clone(), limits.clone(), Arc::clone(&peers))),
            metrics: None,
            peers,
            limits,
            store,
            verifier,
            max_head_bytes: config.server.max_head_bytes.get(),
            drain_delay: Duration::from_secs(config.server.drain_delay_secs.get()),
            shutdown_timeout: Duration::from_secs(config.server.shutdown_timeout_secs.get()),
        })
    }

    /// Tells what is measured to whoever asks for `/metrics` at `listener`.
    pub fn tell_metrics(&mut self, listener: TcpListener) {
        let (store, verifier) = (self.store.clone(), self.verifier.clone());
        let metrics = Metrics::new(&self.edge.traffic, Arc::clone(&self.peers), store, verifier);
        self.metrics = Some((Arc::new(listener), Arc::new(metrics)));
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done. Then it goes on for the configured delay, while every answer ends its connection; takes
    /// no more connections; and finishes what is in flight, for as long as is configured.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        // The background tasks. They end when this is dropped.
        let mut background = JoinSet::new();
        let (store, verifier) = (self.store.clone(), self.verifier.clone());
        background.spawn(restart_on_panic(move || store.clone().sweep()));
        background.spawn(restart_on_panic(move || verifier.clone().keep_fresh()));
        let store = self.store.clone();
        background.spawn(restart_on_panic(move || store.clone().watch_changes()));
        let (limits, peers) = (self.limits.clone(), Arc::clone(&self.peers));
        background.spawn(restart_on_panic(move || limits.clone().keep_small()));
        background.spawn(restart_on_panic(move || Arc::clone(&peers).watch()));
        if let Some((listener, metrics)) = self.metrics.clone() {
            background.spawn(restart_on_panic(move || Arc::clone(&metrics).serve(Arc::clone(&listener))));
        }
        let mut drained = pin!(async {
            stop.await;
            self.peers.drain();
            self.store.end_waiting();
            time::sleep(self.drain_delay).await;
        });
        let mut has_failed = false;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut drained => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    has_failed = false;
                    self.serve(stream, address);
                }
                Err(error) => {
                    // Too many files are open, here or in the whole system.
                    if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) {
                        self.peers.make_room();
                    }
                    // Once for all of a time in which it does not succeed.
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!(cause = chain(&error), "could not accept a connection; trying again");
                    }
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Those who have connected already are not left without an answer.
        for _ in 0..BACKLOG {
            let Ok(Ok((stream, address))) = time::timeout(BACKLOG_PAUSE, self.listener.accept()).await else { break };
            self.serve(stream, address);
        }
        drop(self.listener);
        let end = self.peers.end(LAST_CALL.min(self.shutdown_timeout));
        if time::timeout(self.shutdown_timeout, end).await.is_err() {
            tracing::warn!(
                "stopped with requests still in flight: they took longer than `server.shutdown_timeout_secs`"
            );
        }
    }

    /// Serves a connection, in a task of its own.
    fn serve(&self, stream: TcpStream, address: SocketAddr) {
        // Small answers go out at once. If it can't be set, they still go out.
        let _ = stream.set_nodelay(true);
        let (peers, edge) = (Arc::clone(&self.peers), Arc::clone(&self.edge));
        let Some(peer) = peers.admit(address) else { return };
        let place = Place { peers: Arc::clone(&peers), peer: Arc::clone(&peer) };
        let asks = Arc::clone(&peer);
        let answer = move |request: Request<Incoming>| {
            let (edge, peer) = (Arc::clone(&edge), Arc::clone(&asks));
            async move { Ok::<_, Infallible>(Response::from(edge.serve(request, &peer).await)) }
        };
        let stream = Stream::new(stream, Arc::clone(&peer), peers);
        let connection = http1::Builder::new()
            // hyper would count the time between two requests, too; `peers.rs` tells them apart.
            .header_read_timeout(None)
            .max_buf_size(self.max_head_bytes)
            // Some close their sending side as soon as they have asked, and wait for the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            loop {
                tokio::select! {
                    ended = connection.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(cause = chain(&error), "a connection broke");
                        }
                        break;
                    }
                    order = peer.told() => match order {
                        // Unless a request came in that moment: it has its answer first.
                        Order::Close if peer.phase() != Phase::Serving => break,
                        Order::Close | Order::Retire => connection.as_mut().graceful_shutdown(),
                        // The stream does it when it is read from, as it is now.
                        Order::Expire | Order::None => {}
                    }
                }
            }
            drop(place);
        });
    }
}

/// A connection's place. It is free again when this is dropped, also by a panic.
struct Place {
    peers: Arc<Peers>,
    peer: Arc<Peer>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peers.leave(&self.peer);
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
