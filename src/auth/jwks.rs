//! The keys that an issuer publishes: fetched, kept, and fetched again.
//!
//! They are fetched when the server starts, every few minutes, and when a token names a key that is not among them, since
//! an issuer may sign with a new key at once. A fetch that fails, or brings no key, changes nothing: an issuer that is down
//! does not lock out those whose keys are known.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use reqwest::{Client, redirect::Policy};
use tokio::{
    fs,
    sync::Mutex,
    time::{self, Instant, timeout},
};

use super::keys::{Key, KeySet};
use crate::{config::Unusable, problem::Fault, telemetry::chain};

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
    keys: RwLock<Option<Arc<KeySet>>>,
    /// When the last fetch began. It is held during a fetch, so that there is one at a time.
    last_fetch: Mutex<Option<Instant>>,
}

enum Source {
    Url { client: Client, url: String },
    File(PathBuf),
}

impl Published {
    /// The keys at `url`. None is fetched yet: the server starts while the issuer is down.
    ///
    /// # Errors
    /// This machine has no certificates to know an issuer by.
    pub(super) fn at_url(url: String, max_age: Duration) -> Result<Self, Unusable> {
        let client = Client::builder()
            // An address that leads elsewhere is not the one that the operator trusts.
            .redirect(Policy::none())
            .timeout(FETCH_TIMEOUT)
            .user_agent(concat!("taskpact/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Unusable(format!("`auth.jwks_url` can't be fetched: {}", chain(&error))))?;
        Ok(Self::new(Source::Url { client, url }, max_age))
    }

    /// The keys in `file`.
    ///
    /// # Errors
    /// It can't be read, or has no key that can be used.
    pub(super) async fn in_file(file: PathBuf, max_age: Duration) -> Result<Self, Unusable> {
        let name = file.display().to_string();
        let published = Self::new(Source::File(file), max_age);
        let outcome = published.fetch().await;
        outcome.map_err(|why| Unusable(format!("`auth.jwks_file` ({name}) can't be used: {why}")))?;
        Ok(published)
    }

    fn new(source: Source, max_age: Duration) -> Self {
        Self { source, max_age, keys: RwLock::new(None), last_fetch: Mutex::new(None) }
    }

    /// Fetches the keys again and again.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let fetched = self.fetch_unless(|_| false).await;
            time::sleep(if fetched { self.max_age } else { self.max_age.min(RETRY) }).await;
        }
    }

    /// The key that a token names.
    ///
    /// # Errors
    /// [`Fault::NoKeys`] if the issuer has not been reached yet; [`Fault::InvalidToken`] if it has no such key, or one
    /// for another algorithm.
    pub(super) async fn key(&self, id: Option<&str>, algorithm: &str) -> Result<Arc<Key>, Fault> {
        let is_known = |keys: &KeySet| keys.named(id).next().is_some();
        if !self.current().is_some_and(|keys| is_known(&keys)) {
            self.fetch_unless(is_known).await;
        }
        let keys = self.current().ok_or(Fault::NoKeys)?;
        if !is_known(&keys) {
            return Err(Fault::invalid_token("it is signed with a key (kid) that the issuer does not publish"));
        }
        let key = keys.named(id).find(|key| key.algorithm() == algorithm);
        key.cloned().ok_or_else(|| Fault::invalid_token("its algorithm (alg) is not that of its key"))
    }

    /// Whether the very key `key` is still published.
    pub(super) fn has(&self, key: &Arc<Key>) -> bool {
        self.current().is_some_and(|keys| keys.has(key))
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the keys, unless those that are there by then are `enough`, and tells whether they are fresh. Of many who
    /// ask at once one fetches, and the others wait for what it brings.
    async fn fetch_unless(&self, enough: impl Fn(&KeySet) -> bool) -> bool {
        let asked = Instant::now();
        let mut last_fetch = self.last_fetch.lock().await;
        if self.current().is_some_and(|keys| enough(&keys)) {
            return true;
        }
        if let Some(last) = *last_fetch {
            // One that began after this was asked has brought all there is.
            if last > asked {
                return true;
            }
            // Without any key there is nothing to be had for waiting: the issuer is down.
            if self.current().is_none() && last.elapsed() < COOL_DOWN {
                return false;
            }
            time::sleep_until(last + COOL_DOWN).await;
        }
        *last_fetch = Some(Instant::now());
        match self.fetch().await {
            Ok(()) => true,
            Err(cause) => {
                let instead =
                    if self.current().is_some() { "going on with those before" } else { "there are none yet" };
                tracing::warn!(cause, "could not fetch the issuer's keys, {instead}: {cause}");
                false
            }
        }
    }

    async fn fetch(&self) -> Result<(), String> {
        let text = match timeout(FETCH_TIMEOUT, self.source.read()).await {
            Ok(text) => text?,
            Err(_) => return Err("it takes too long".to_owned()),
        };
        let before = self.current();
        let skipped = |id: &serde_json::Value, why| tracing::warn!(kid = %id, "passed over a key of the issuer: {why}");
        let keys = KeySet::read(&text, before.as_deref(), skipped)?;
        tracing::debug!(keys = keys.len(), "fetched the issuer's keys");
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        Ok(())
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(file) => fs::read(file).await.map_err(|error: io::Error| error.to_string()),
            Self::Url { client, url } => {
                let failed = |error: reqwest::Error| chain(&error);
                let mut answer = client.get(url).header("Accept", "application/json").send().await.map_err(failed)?;
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
