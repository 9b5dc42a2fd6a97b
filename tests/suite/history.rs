//! A history: many clients create, toggle, change and delete at random over connections that break at random, and send
//! again what was not answered. Afterwards everything must be as the answers explain it.
//!
//! It takes ten seconds, or as many as `HISTORY_SECS` says.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    env,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::app;
use crate::support::{Call, Reply, User};

const CLIENTS: usize = 32;
const USERS: usize = 4;
const DEFAULT_SECS: u64 = 10;

/// What the clients have been told.
#[derive(Default)]
struct History {
    /// The ids of the tasks that are known to have been created, by user.
    tasks: [Mutex<Vec<String>>; USERS],
    /// What each version of a task was seen to be: it is one thing only.
    seen: Mutex<HashMap<(String, i64), Value>>,
    /// What made each version of a task: one request only.
    writers: Mutex<HashMap<(String, i64), Writer>>,
    /// Changes that may have been made: their answer was lost, and by the time of the next one the task was of a later
    /// version. By the version that they would have made.
    doubtful: Mutex<HashMap<(String, i64), Vec<String>>>,
    /// Tasks that somebody has tried to delete, and those that were told to be.
    doomed: Mutex<HashSet<String>>,
    deleted: Mutex<HashSet<String>>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    lost: AtomicUsize,
    replayed: AtomicUsize,
    outrun: AtomicUsize,
}

/// A request that was told to have taken effect.
#[derive(Debug, Clone, PartialEq)]
enum Writer {
    Creation { title: String },
    Toggle { key: String },
    Change { description: String },
}

struct Client {
    user: User,
    number: usize,
    history: Arc<History>,
}

impl Client {
    async fn run(self, end: Instant) {
        while Instant::now() < end {
            let known = locked(self.tasks()).clone();
            match fastrand::u8(..100) {
                _ if known.is_empty() => self.create().await,
                0..20 => self.create().await,
                20..55 => self.toggle(fastrand::choice(&known).unwrap()).await,
                55..85 => self.change(fastrand::choice(&known).unwrap()).await,
                85..95 => self.delete(fastrand::choice(&known).unwrap()).await,
                _ => {
                    for task in self.list().await {
                        self.see(&task);
                    }
                }
            }
        }
    }

    fn tasks(&self) -> &Mutex<Vec<String>> {
        &self.history.tasks[self.number % USERS]
    }

    /// Sends a request until it is answered, and tells how many answers were lost before.
    async fn insist(&self, call: Call) -> (Reply, usize) {
        let mut lost = 0;
        loop {
            // About as long as an answer takes, so that the connection breaks at every stage. (A request whose caller hangs
            // up may be served all the same: so the first attempt has to be answered, too, now and then.)
            let shift = lost.max(fastrand::usize(..7)).min(8);
            let limit = Duration::from_micros(fastrand::u64(..30_000) << shift);
            let reply = call.clone().send_within(limit).await;
            match reply {
                // Also an answer that came may be lost on the way.
                Some(reply) if reply.status != 503 && reply.status != 409 && (fastrand::u8(..10) > 0) => {
                    self.history.counts.answered.fetch_add(1, Relaxed);
                    return (reply, lost);
                }
                _ => lost += 1,
            }
            self.history.counts.lost.fetch_add(1, Relaxed);
        }
    }

    /// Sends a request with a key until it is answered, and sometimes once more.
    async fn insist_once(&self, call: Call) -> (Reply, String) {
        let key = Uuid::new_v4().to_string();
        let call = call.key(&key);
        let (reply, _) = self.insist(call.clone()).await;
        if reply.header("idempotent-replayed").is_some() {
            self.history.counts.replayed.fetch_add(1, Relaxed);
        }
        if reply.status.is_success() && fastrand::u8(..10) == 0 {
            let (again, _) = self.insist(call).await;
            assert_eq!((again.status, &again.bytes), (reply.status, &reply.bytes));
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
        }
        (reply, key)
    }

    /// What is seen at any time of a version is the same.
    fn see(&self, task: &Value) {
        let mut seen = locked(&self.history.seen);
        let before = seen.entry(version_of(task)).or_insert_with(|| task.clone());
        assert_eq!(before, task, "one version, two contents");
    }

    fn wrote(&self, task: &Value, writer: Writer) {
        self.see(task);
        match locked(&self.history.writers).entry(version_of(task)) {
            Entry::Vacant(place) => place.insert(writer),
            Entry::Occupied(other) => panic!("{writer:?} made {task}, and so did {:?}", other.get()),
        };
    }

    async fn create(&self) {
        let title = Uuid::new_v4().to_string();
        let call = self.user.call(Method::POST, self.user.tasks()).json(json!({"title": title}));
        let (reply, _) = self.insist_once(call).await;
        let task = reply.is(201).json();
        self.wrote(&task, Writer::Creation { title });
        locked(self.tasks()).push(version_of(&task).0);
    }

    async fn toggle(&self, id: &str) {
        let (reply, key) = self.insist_once(self.user.call(Method::PATCH, self.user.task(id) + "/complete")).await;
        match reply.status.as_u16() {
            404 => self.is_doomed(id),
            _ => self.wrote(&reply.is(200).json(), Writer::Toggle { key }),
        }
    }

    async fn change(&self, id: &str) {
        let found = self.user.get(id).await;
        if found.status == 404 {
            return self.is_doomed(id);
        }
        let (id, version) = version_of(&found.is(200).json());
        self.see(&found.json());

        let description = Uuid::new_v4().to_string();
        let body = json!({"description": description});
        let call = self.user.call(Method::PUT, self.user.task(&id)).json(body);
        let (reply, lost) = self.insist(call.header("If-Match", format!("\"{version}\""))).await;
        match reply.status.as_u16() {
            200 => {
                assert_eq!(version_of(&reply.json()), (id, version + 1));
                return self.wrote(&reply.json(), Writer::Change { description });
            }
            404 => self.is_doomed(&id),
            _ => {
                reply.is(412);
                self.history.counts.outrun.fetch_add(1, Relaxed);
            }
        }
        if lost > 0 {
            locked(&self.history.doubtful).entry((id, version + 1)).or_default().push(description);
        }
    }

    async fn delete(&self, id: &str) {
        locked(&self.history.doomed).insert(id.to_owned());
        locked(self.tasks()).retain(|known| known != id);
        let (reply, _) = self.insist(self.user.call(Method::DELETE, self.user.task(id))).await;
        if reply.status == 204 {
            assert!(locked(&self.history.deleted).insert(id.to_owned()), "{id} was deleted twice");
        } else {
            reply.is(404);
        }
    }

    fn is_doomed(&self, id: &str) {
        assert!(locked(&self.history.doomed).contains(id), "{id} is gone, and nobody has deleted it");
    }

    /// Every task of the user's, page by page.
    async fn list(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut query = String::from("?limit=300");
        loop {
            let page = self.user.list(&query).await;
            all.extend(page.is(200).json().as_array().unwrap().iter().cloned());
            match page.header("next-cursor") {
                None => return all,
                Some(cursor) => query = format!("?limit=300&cursor={cursor}"),
            }
        }
    }

    /// Compares what is there with what was told.
    async fn judge(&self) {
        let history = &self.history;
        let writers = locked(&history.writers).clone();
        let doubtful = locked(&history.doubtful).clone();
        let doomed = locked(&history.doomed).clone();
        let tasks = self.list().await;
        for task in &tasks {
            self.see(task);
        }
        let seen = locked(&history.seen).clone();

        let left: HashMap<String, i64> = tasks.iter().map(version_of).collect();
        assert_eq!(left.len(), tasks.len());
        for id in locked(&history.tasks[self.number % USERS]).iter() {
            assert!(left.contains_key(id) || doomed.contains(id), "{id} was created, and is missing");
        }
        let titles: HashSet<_> = tasks.iter().map(|task| task["title"].as_str()).collect();
        assert_eq!(titles.len(), tasks.len(), "a creation was doubled");

        for (id, last) in &left {
            for version in 1..=*last {
                let at = (id.clone(), version);
                let doubts = doubtful.get(&at).map(Vec::as_slice).unwrap_or_default();
                let Some(writer) = writers.get(&at) else {
                    assert!(!doubts.is_empty(), "nobody made {at:?}");
                    continue;
                };
                let Some(task) = seen.get(&at) else { continue };
                match writer {
                    Writer::Creation { title } => assert_eq!((version, &task["title"]), (1, &json!(title))),
                    Writer::Change { description } => assert_eq!(task["description"], json!(description)),
                    Writer::Toggle { .. } => {}
                }
                // What one request left as it was, and what it did not.
                let Some(before) = seen.get(&(id.clone(), version - 1)) else { continue };
                let flips = matches!(writer, Writer::Toggle { .. });
                assert_eq!((before["completed"] != task["completed"], &before["title"]), (flips, &task["title"]));
                assert_eq!(before["description"] == task["description"], flips, "{before} {task}");
            }
            let flips = writers.iter().filter(|((of, _), writer)| of == id && matches!(writer, Writer::Toggle { .. }));
            assert_eq!(seen[&(id.clone(), *last)]["completed"], flips.count() % 2 == 1, "a flip too many or too few");
        }
        for (id, version) in writers.keys() {
            assert!(left.get(id).is_none_or(|last| version <= last), "version {version} of {id} was lost");
        }
    }
}

/// Also after another client has failed: its failure is the one to be told.
fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn version_of(task: &Value) -> (String, i64) {
    (task["id"].as_str().unwrap().to_owned(), task["version"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_lost_answers_is_explained_by_those_that_came() {
    let app = app().await;
    let users: Vec<_> = (0..USERS).map(|_| app.new_user()).collect();
    let history = Arc::new(History::default());
    let client = |number: usize| Client { user: users[number % USERS].clone(), number, history: Arc::clone(&history) };
    let secs = env::var("HISTORY_SECS").map_or(DEFAULT_SECS, |secs| secs.parse().expect("HISTORY_SECS is a number"));
    let end = Instant::now() + Duration::from_secs(secs);

    // The first one that fails ends it.
    let mut clients: JoinSet<()> = (0..CLIENTS).map(|number| client(number).run(end)).collect();
    while let Some(outcome) = clients.join_next().await {
        outcome.unwrap();
    }
    for number in 0..USERS {
        client(number).judge().await;
    }

    let Counts { answered, lost, replayed, outrun } = &history.counts;
    let of = |count: &AtomicUsize| count.load(Relaxed);
    let (deleted, doubtful) = (locked(&history.deleted).len(), locked(&history.doubtful).len());
    println!(
        "{} answered, {} lost, {} replayed, {} outrun, {deleted} deleted, {doubtful} in doubt",
        of(answered),
        of(lost),
        of(replayed),
        of(outrun)
    );
    assert!(of(answered) > 200 && of(lost) > 100, "it was no history");
    assert!(of(replayed) > 20 && of(outrun) > 5 && deleted > 5, "nothing went wrong in it");
}
