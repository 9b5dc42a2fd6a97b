//! Many devices that follow the changes: offline now and then, losing answers, reading small pages, while several write at once
//! through two servers. In the end they all have what the server has; and at no time has anybody a place in the feed that is
//! past a change which they do not know.
//!
//! It takes eight seconds, or as many as `HISTORY_SECS` says.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::{app, id};
use crate::support::{Database, Reply, User};

const USERS: usize = 2;
const WRITERS: usize = 4;
const DEVICES: usize = 6;
const DEFAULT_SECS: u64 = 8;

/// Commits take their time, some more and some less: numbers that are given in one order and committed in another stand out.
/// (SQLite has one writer at a time.)
const SLOW_COMMITS: [&str; 2] = [
    "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(random() * 0.04); return null; end $$",
    "create constraint trigger slow after insert or update or delete on tasks deferrable initially deferred
     for each row execute function slow()",
];

/// What a device has, by id, and its place in the feed.
#[derive(Default)]
struct Device {
    tasks: BTreeMap<String, Value>,
    next: Option<String>,
}

impl Device {
    /// Applies an answer, as the contract says.
    fn apply(&mut self, told: &Value) {
        for task in told["tasks"].as_array().unwrap() {
            let before = self.tasks.insert(id(task).to_owned(), task.clone());
            let version = |task: &Value| task["version"].as_i64().unwrap();
            assert!(before.is_none_or(|before| version(&before) <= version(task)), "a task went back: {task}");
        }
        for gone in told["deleted"].as_array().unwrap() {
            self.tasks.remove(id(gone));
        }
        self.next = Some(told["next"].as_str().unwrap().to_owned());
    }

    fn query(&self, limit: usize, wait: u8) -> String {
        let since = self.next.as_ref().map_or(String::new(), |next| format!("&since={next}"));
        format!("?limit={limit}&wait={wait}{since}")
    }

    /// Reads to the end.
    async fn catch_up(&mut self, user: &User) {
        loop {
            let told = user.changes(&self.query(1_000, 0)).await.is(200).json();
            self.apply(&told);
            if told["has_more"] == false {
                return;
            }
        }
    }

    fn state(&self) -> Value {
        // The newest is first, as in a list.
        json!(self.tasks.values().rev().collect::<Vec<_>>())
    }
}

/// Follows the changes as a telephone does, until it is told to stop.
async fn follow(servers: [User; 2], stop: Arc<AtomicBool>, read: Arc<AtomicUsize>) -> Device {
    let mut device = Device::default();
    while !stop.load(Relaxed) {
        let user = fastrand::choice(&servers).unwrap();
        match fastrand::u8(..10) {
            0 => sleep(Duration::from_millis(fastrand::u64(..400))).await,
            // The answer is lost on its way, or before it has come.
            1 => {
                let call = user.call(hyper::Method::GET, user.feed() + &device.query(20, 1));
                let _ = call.send_within(Duration::from_micros(fastrand::u64(..5_000))).await;
            }
            n => {
                let limit = fastrand::usize(1..=30);
                let reply: Reply = user.changes(&device.query(limit, n % 2)).await;
                if reply.status == 429 {
                    // More devices than may wait.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
                let told = reply.is(200).json();
                let count = told["tasks"].as_array().unwrap().len() + told["deleted"].as_array().unwrap().len();
                assert!(count <= limit, "{count} entries, and asked for {limit}");
                read.fetch_add(count, Relaxed);
                device.apply(&told);
            }
        }
    }
    device
}

/// Creates, changes and deletes at random.
async fn write(servers: [User; 2], stop: Arc<AtomicBool>, written: Arc<AtomicUsize>) {
    let mut known: Vec<String> = Vec::new();
    while !stop.load(Relaxed) {
        let user = fastrand::choice(&servers).unwrap();
        let at = if known.is_empty() { 0 } else { fastrand::usize(..known.len()) };
        let reply = match (fastrand::u8(..10), known.get(at)) {
            (0..=2, Some(task)) => user.toggle(task).await,
            (3..=4, Some(task)) => user.put(task, json!({"title": format!("changed {}", fastrand::u32(..))})).await,
            (5..=6, Some(_)) => user.delete(&known.swap_remove(at)).await,
            _ => {
                let reply = user.post(json!({"title": "t"})).await;
                known.push(id(&reply.is(201).json()).to_owned());
                reply
            }
        };
        assert!(reply.status.is_success(), "{reply:?}");
        written.fetch_add(1, Relaxed);
        sleep(Duration::from_micros(fastrand::u64(..2_000))).await;
    }
}

/// Looks at a list and at the feed, one after the other: whoever has come to the end of the feed after the list was read knows
/// everything in it, as it was then or later.
async fn audit(servers: [User; 2], stop: Arc<AtomicBool>) -> usize {
    let (mut device, mut audits) = (Device::default(), 0);
    while !stop.load(Relaxed) {
        let [one, other] = &servers;
        let listed = one.list("").await.is(200).json();
        device.catch_up(other).await;
        let gone = other.list("").await.is(200).json();
        let is_there = |list: &Value, task: &str| list.as_array().unwrap().iter().any(|other| id(other) == task);
        for task in listed.as_array().unwrap() {
            match device.tasks.get(id(task)) {
                Some(known) => assert!(known["version"].as_i64() >= task["version"].as_i64(), "{known} is not {task}"),
                // It was deleted meanwhile.
                None => assert!(!is_there(&gone, id(task)), "a change was skipped: {task}"),
            }
        }
        audits += 1;
        sleep(Duration::from_millis(20)).await;
    }
    audits
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_comes_to_have_what_the_server_has() {
    let secs = env::var("HISTORY_SECS").map_or(DEFAULT_SECS, |secs| secs.parse().unwrap());
    let app = app().await;
    if let Database::Postgres(_) = &app.database {
        for statement in SLOW_COMMITS {
            app.database.execute(statement).await;
        }
    }
    let (stop, read, written) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
    let mut users = Vec::new();
    for _ in 0..USERS {
        let user = app.new_user();
        users.push([user.clone(), app.replica(&user).await]);
    }
    let (mut devices, mut writers, mut audits) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for (n, servers) in users.iter().enumerate() {
        for _ in 0..WRITERS {
            writers.spawn(write(servers.clone(), Arc::clone(&stop), Arc::clone(&written)));
        }
        for _ in 0..DEVICES {
            let followed = follow(servers.clone(), Arc::clone(&stop), Arc::clone(&read));
            devices.spawn(async move { (n, followed.await) });
        }
        audits.spawn(audit(servers.clone(), Arc::clone(&stop)));
    }

    let end = Instant::now() + Duration::from_secs(secs);
    while Instant::now() < end && !stop.load(Relaxed) {
        sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Relaxed);
    writers.join_all().await;
    let audits: usize = audits.join_all().await.iter().sum();
    for (n, mut device) in devices.join_all().await {
        device.catch_up(&users[n][1]).await;
        let listed = users[n][0].list("").await.is(200).json();
        assert!(listed.as_array().unwrap().len() < 1_000, "the list has more pages");
        assert_eq!(device.state(), listed);
    }
    let (read, written) = (read.load(Relaxed), written.load(Relaxed));
    println!("{written} changes, {read} entries read, {audits} audits");
    assert!(written > 50 && read > written && audits > 3, "{written} changes, {read} entries read, {audits} audits");
}
