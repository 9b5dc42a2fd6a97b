//! The keys that an issuer publishes: fetched, kept, and fetched again.
//!
//! They are fetched when the server starts, every few minutes, and when a token names a key that is not among them, since
//! an issuer may sign with a new key at once. A fetch that fails, or brings no key, changes nothing: an issuer that is down
//! does not lock out those whose keys are known.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use reqwest::{Client, redirect::Policy};
use tokio::{
    fs,
    sync::{Notify, watch},
    time::{self, Instant, timeout},
};

use super::keys::{Key, KeySet};
use crate::{
    config::{JwksUrl, Unusable},
    problem::Fault,
    telemetry::{Label, chain},
};

/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest set that is read, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// How long after one fetch the next may start. Whoever sends tokens with made-up keys can't make more of them.
const COOL_DOWN: Duration = Duration::from_secs(3);
/// After a fetch that failed, the next one comes after this time at the latest.
const RETRY: Duration = Duration::from_secs(15);

/// The keys of one issuer.
pub(super) struct Published {
    source: Source,
    max_age: Duration,
    state: watch::Sender<State>,
    /// That somebody waits for a key which is not there.
    wanted: Notify,
    fetches: Family<Label, Counter>,
    age: Gauge<f64, AtomicU64>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// The last fetch that has ended: when it began, and whether it brought keys.
    last_fetch: Option<(Instant, bool)>,
    /// When the keys were fetched.
    keys_of: Option<Instant>,
}

enum Source {
    Url { client: Client, url: JwksUrl },
    File(PathBuf),
}

impl Published {
    /// The keys at `url`. None is fetched yet: the server starts while the issuer is down.
    ///
    /// # Errors
    /// This machine has no certificates to know an issuer by.
    pub(super) fn at_url(url: JwksUrl, max_age: Duration) -> Result<Self, Unusable> {
        let mut client = Client::builder()
            // An address that leads elsewhere is not the one that the operator trusts.
            .redirect(Policy::none())
            .timeout(FETCH_TIMEOUT)
            .user_agent(concat!("taskpact/", env!("CARGO_PKG_VERSION")));
        if url.is_of_this_machine() {
            // Whoever runs the proxy could have any token accepted, and can't even reach the address.
            client = client.no_proxy();
        }
        let client =
            client.build().map_err(|error| Unusable(format!("`auth.jwks_url` can't be fetched: {}", chain(&error))))?;
        Ok(Self::new(Source::Url { client, url }, max_age))
    }

    /// The keys in `file`.
    ///
    /// # Errors
    /// It can't be read, or has no key that can be used.
    pub(super) async fn in_file(file: PathBuf, max_age: Duration) -> Result<Self, Unusable> {
        let name = file.display().to_string();
        let published = Self::new(Source::File(file), max_age);
        let keys = published.fetch().await;
        let keys = keys.map_err(|why| Unusable(format!("`auth.jwks_file` ({name}) can't be used: {why}")))?;
        published.state.send_modify(|state| (state.keys, state.keys_of) = (Some(keys), Some(Instant::now())));
        Ok(published)
    }

    fn new(source: Source, max_age: Duration) -> Self {
        let (state, wanted) = (watch::Sender::default(), Notify::new());
        Self { source, max_age, state, wanted, fetches: Family::default(), age: Gauge::default() }
    }

    /// Registers what is measured.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("jwks_fetches", "Fetches of the issuer's keys, by outcome", self.fetches.clone());
        let help = "The time since the keys that are in use were fetched";
        registry.register_with_unit("jwks_age", help, Unit::Seconds, self.age.clone());
    }

    /// Looks at what is measured when somebody asks.
    pub(super) fn measure(&self) {
        let age = self.state.borrow().keys_of.map(|at| at.elapsed().as_secs_f64());
        // There are none yet, however long one waits.
        self.age.set(age.unwrap_or(f64::INFINITY));
    }

    /// Fetches the keys again and again. Nothing else does: a fetch must not end with the request that asked for it.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let began = Instant::now();
            let fetched = self.fetch().await;
            let is_fresh = fetched.is_ok();
            if let Err(cause) = &fetched {
                let instead =
                    if self.current().is_some() { "going on with those before" } else { "there are none yet" };
                tracing::warn!(cause, "could not fetch the issuer's keys, {instead}: {cause}");
            }
            self.fetches.get_or_create(&[("outcome", if is_fresh { "success" } else { "failure" })]).inc();
            self.state.send_modify(|state| {
                state.last_fetch = Some((began, is_fresh));
                if is_fresh {
                    state.keys_of = Some(began);
                }
                state.keys = fetched.ok().or(state.keys.take());
            });

            time::sleep_until(began + COOL_DOWN).await;
            let due = began + if is_fresh { self.max_age } else { self.max_age.min(RETRY) };
            loop {
                tokio::select! {
                    () = time::sleep_until(due) => break,
                    // Whoever wanted a key may have got it meanwhile, or be gone. Without any, nobody waits.
                    () = self.wanted.notified() => {
                        if self.state.receiver_count() > 0 || self.current().is_none() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// The keys that a token may be signed with which names this key, or none, and says that its algorithm is this one.
    ///
    /// # Errors
    /// [`Fault::NoKeys`] if the issuer can't be reached, so that nobody knows whether it has such a key;
    /// [`Fault::InvalidToken`] if it has none, or one for another algorithm.
    pub(super) async fn keys(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<Arc<Key>>, Fault> {
        let is_known = |state: &State| state.keys.as_ref().is_some_and(|keys| !keys.named(id).is_empty());
        if id.is_some() && !is_known(&self.state.borrow()) || self.current().is_none() {
            self.wait_for(is_known).await?;
        }
        let keys = self.current().ok_or(Fault::NoKeys)?;
        let mut meant = keys.named(id);
        meant.retain(|key| key.algorithm() == algorithm);
        if meant.is_empty() {
            Err(Fault::invalid_token("its algorithm (alg) is not that of its key"))
        } else if id.is_none() && KeySet::are_ambiguous(&meant) {
            Err(Fault::invalid_token("it does not name its key (kid), and several could be meant"))
        } else {
            Ok(meant)
        }
    }

    /// Has the keys fetched once more, if that was not done just now, and tells whether there are others.
    ///
    /// For a token that names a key which is known, and which has not signed it: the issuer may have put another one in its
    /// place under the same name.
    pub(super) async fn have_changed(&self) -> bool {
        let before = self.current();
        let just_now = |state: &State| state.last_fetch.is_some_and(|(began, _)| began.elapsed() < COOL_DOWN);
        if just_now(&self.state.borrow()) {
            return false;
        }
        let asked = Instant::now();
        let mut states = self.state.subscribe();
        self.wanted.notify_one();
        // The sender is ours, so that it can't be gone.
        let _ = states.wait_for(|state| state.last_fetch.is_some_and(|(began, _)| began > asked)).await;
        let is_same = |now: &KeySet| before.as_ref().is_some_and(|before| now.is_same(before));
        self.current().is_some_and(|now| !is_same(&now))
    }

    /// Waits until a fetch has brought what `is_known` looks for.
    async fn wait_for(&self, is_known: impl Fn(&State) -> bool) -> Result<(), Fault> {
        let asked = Instant::now();
        let mut states = self.state.subscribe();
        self.wanted.notify_one();
        let has_answer = |state: &State| match state.last_fetch {
            _ if is_known(state) => true,
            // Without any key there is nothing to be had for waiting: the issuer is down.
            Some((_, false)) if state.keys.is_none() => true,
            // One that began before this was asked may have missed the key.
            Some((began, _)) => began > asked,
            None => false,
        };
        let state = states.wait_for(has_answer).await.map_err(Fault::defect)?;
        match state.last_fetch {
            _ if is_known(&state) => Ok(()),
            Some((_, true)) => {
                Err(Fault::invalid_token("it is signed with a key (kid) that the issuer does not publish"))
            }
            _ => Err(Fault::NoKeys),
        }
    }

    /// Whether the very key `key` is still published.
    pub(super) fn has(&self, key: &Arc<Key>) -> bool {
        self.current().is_some_and(|keys| keys.has(key))
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        self.state.borrow().keys.clone()
    }

    async fn fetch(&self) -> Result<Arc<KeySet>, String> {
        let text = match timeout(FETCH_TIMEOUT, self.source.read()).await {
            Ok(text) => text?,
            Err(_) => return Err("it takes too long".to_owned()),
        };
        let before = self.current();
        let skipped = |id: &serde_json::Value, why| tracing::warn!(kid = %id, "passed over a key of the issuer: {why}");
        let keys = KeySet::read(&text, before.as_deref(), skipped)?;
        tracing::debug!(keys = keys.len(), "fetched the issuer's keys");
        Ok(Arc::new(keys))
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(file) => fs::read(file).await.map_err(|error: io::Error| error.to_string()),
            Self::Url { client, url } => {
                let failed = |error: reqwest::Error| format!("{url}: {}", chain(&error.without_url()));
                let mut answer =
                    client.get(url.expose()).header("Accept", "application/json").send().await.map_err(failed)?;
                if answer.status() != 200 {
                    return Err(format!("{url} answered {}", answer.status()));
                }
                let mut bytes = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(failed)? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > MAX_BYTES {
                        return Err(format!("{url} answered with more than {MAX_BYTES} bytes"));
                    }
                }
                Ok(bytes)
            }
        }
    }
}
