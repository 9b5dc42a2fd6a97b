//! Those who wait for a change: until this server has made one for their owner, or somebody else has.
//!
//! They hold no connection to the database. Whoever writes here wakes them; what other servers write is seen by one question a
//! second for all of them, and by none while nobody waits. (A session that LISTENs would not pass a transaction pooler.)

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{NO_REVISION, Store, connections};
use crate::{auth::Owner, config, problem::Fault, telemetry::chain};

/// How often the database is asked for those who wait.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long that may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Everybody who waits.
#[derive(Debug)]
pub(super) struct Waiting {
    owners: Mutex<HashMap<Owner, OfOwner>>,
    /// How many there are, so that who writes need not look when nobody waits.
    count: AtomicUsize,
    max: usize,
    max_per_owner: usize,
    /// Somebody waits now.
    begun: Notify,
    /// Nobody may wait any more.
    is_over: watch::Sender<bool>,
    /// How many waited when somebody looked.
    pub(super) gauge: Gauge,
}

#[derive(Debug, Default)]
struct OfOwner {
    news: watch::Sender<News>,
    waiters: usize,
}

/// What has been heard of an owner's tasks.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    /// How often something was written here.
    written: u64,
    /// The revision that the database had, the last time that it was asked for those who wait.
    revision: Option<i64>,
}

/// Somebody who waits. Dropped, they wait no more.
#[derive(Debug)]
pub(super) struct Waiter {
    waiting: Arc<Waiting>,
    owner: Owner,
    news: watch::Receiver<News>,
    is_over: watch::Receiver<bool>,
    written: u64,
}

impl Waiting {
    /// At most so many wait as is set, and as `places` has room for.
    pub(super) fn new(settings: &config::Changes, places: usize) -> Self {
        Self {
            owners: Mutex::default(),
            count: AtomicUsize::new(0),
            max: settings.max_waiting.get::<usize>().min(places),
            max_per_owner: settings.max_waiting_per_user.get(),
            begun: Notify::new(),
            is_over: watch::Sender::default(),
            gauge: Gauge::default(),
        }
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<Owner, OfOwner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen for news of an owner's tasks: what comes from now on is not missed.
    ///
    /// # Errors
    /// [`Fault::TooManyWaiting`] if too many wait for this owner's, [`Fault::Crowded`] if too many wait at all.
    pub(super) fn begin(self: &Arc<Self>, owner: &Owner) -> Result<Waiter, Fault> {
        let mut owners = self.owners();
        if self.count.load(Relaxed) >= self.max {
            return Err(Fault::Crowded);
        }
        let of_owner = owners.entry(owner.clone()).or_default();
        if of_owner.waiters >= self.max_per_owner {
            return Err(Fault::TooManyWaiting);
        }
        of_owner.waiters += 1;
        self.count.fetch_add(1, Relaxed);
        self.begun.notify_one();
        let news = of_owner.news.subscribe();
        let written = news.borrow().written;
        Ok(Waiter { waiting: Arc::clone(self), owner: owner.clone(), news, is_over: self.is_over.subscribe(), written })
    }

    /// Tells those who wait for this owner's changes that there may be one.
    pub(super) fn tell(&self, owner: &Owner) {
        if self.count.load(Relaxed) > 0
            && let Some(of_owner) = self.owners().get(owner)
        {
            of_owner.news.send_modify(|news| news.written += 1);
        }
    }

    /// Sends everybody away, from now on.
    pub(super) fn end(&self) {
        self.is_over.send_replace(true);
    }

    /// Looks how many wait.
    pub(super) fn measure(&self) {
        self.gauge.set(i64::try_from(self.count.load(Relaxed)).unwrap_or(i64::MAX));
    }

    /// Waits until somebody waits, and gives back whose changes are waited for.
    async fn owners_waited_for(&self) -> Vec<Owner> {
        while self.count.load(Relaxed) == 0 {
            self.begun.notified().await;
        }
        sleep(INTERVAL).await;
        self.owners().keys().cloned().collect()
    }

    fn tell_revision(&self, owner: &Owner, revision: i64) {
        if let Some(of_owner) = self.owners().get(owner) {
            of_owner.news.send_if_modified(|news| news.revision.replace(revision) != Some(revision));
        }
    }
}

impl Waiter {
    /// Waits until there may be something new for whoever has seen the owner's tasks at `revision`. Whether there may; else the
    /// server is about to stop.
    pub(super) async fn wait(&mut self, revision: i64) -> bool {
        let Self { news, is_over, written, .. } = self;
        let something = async {
            // Its sender is there as long as this waiter is.
            while news.changed().await.is_ok() {
                let now = *news.borrow_and_update();
                let is_written = now.written != std::mem::replace(written, now.written);
                if is_written || now.revision.is_some_and(|other| other != revision) {
                    break;
                }
            }
        };
        tokio::select! {
            () = something => true,
            _ = is_over.wait_for(|is_over| *is_over) => false,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut owners = self.waiting.owners();
        if let Entry::Occupied(mut of_owner) = owners.entry(self.owner.clone()) {
            of_owner.get_mut().waiters -= 1;
            if of_owner.get().waiters == 0 {
                of_owner.remove();
            }
        }
        self.waiting.count.fetch_sub(1, Relaxed);
    }
}

impl Store {
    /// The same, for a server that has room for so many connections.
    #[must_use]
    pub fn for_server(self, settings: &config::Changes, places: usize) -> Self {
        let retention = chrono::TimeDelta::days(settings.retention_days.get());
        Self { waiting: Arc::new(Waiting::new(settings, places / 2)), retention, ..self }
    }

    /// Answers everybody who waits for a change, and lets nobody wait any more.
    pub fn end_waiting(&self) {
        self.waiting.end();
    }

    /// Looks for what other servers have changed, for those who wait, for ever.
    pub async fn watch_changes(self) {
        let mut has_failed = false;
        loop {
            let owners = self.waiting.owners_waited_for().await;
            match timeout(TIMEOUT, self.revisions(&owners)).await.unwrap_or_else(|_| Err(late())) {
                Ok(revisions) => {
                    has_failed = false;
                    for owner in &owners {
                        self.waiting.tell_revision(owner, revisions.get(owner.id()).copied().unwrap_or(NO_REVISION));
                    }
                }
                // They are answered when their time is up. Once for all of a time in which it does not succeed.
                Err(error) if !std::mem::replace(&mut has_failed, true) => {
                    tracing::warn!(cause = chain(&error), "could not look for changes; trying again each second");
                }
                Err(_) => {}
            }
        }
    }

    /// The revisions of these owners, of those whom the database knows.
    async fn revisions(&self, owners: &[Owner]) -> Result<HashMap<String, i64>, DbErr> {
        let ids: Vec<_> = owners.iter().map(Owner::id).collect();
        let ids = serde_json::to_string(&ids).expect("ids are text");
        let backend = self.backend();
        // As one parameter, so that it is one statement, however many there are.
        let sql = match backend {
            DbBackend::Postgres => {
                "select u.id, u.revision from json_array_elements_text($1::json) as w (id) join users u on u.id = w.id"
            }
            _ => "select u.id, u.revision from json_each(?) as w join users u on u.id = w.value",
        };
        let rows = self.upkeep.read.query_all_raw(Statement::from_sql_and_values(backend, sql, [ids.into()])).await?;
        rows.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))).collect()
    }
}

fn late() -> DbErr {
    connections::unusable(sea_orm::SqlxError::Io(std::io::ErrorKind::TimedOut.into()))
}
