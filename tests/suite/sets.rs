//! That requests which travel together stay apart: bursts of every size, of many owners and of every operation, after each of
//! which everybody has what they were told, and nothing of anybody else's.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use hyper::Method;
use serde_json::{Value, json};

use super::{app, id};
use crate::{
    BACKEND,
    support::{Reply, TestApp, User, at_once},
};

const OWNERS: usize = 12;
const SIZES: [usize; 12] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233];

/// What an owner has, by id.
type Tasks = BTreeMap<String, Value>;

/// One request of a burst. No two are about the same task, so each has one right answer.
#[derive(Debug, Clone)]
enum Step {
    Get(Value),
    GetAnothers(String),
    List,
    Changes,
    Create { title: String },
    CreateOnce { title: String, key: String },
    Change { task: Value, title: String },
    ChangeAnothers(String),
    Toggle(Value),
    Remove(Value),
    RemoveAnothers(String),
}

impl Step {
    fn random(random: &mut Rng, own: &mut Vec<Value>, anothers: Option<String>, name: &str) -> Self {
        let title = format!("{name} {}", random.u64(..));
        let pick = random.u8(..10);
        match (pick, anothers) {
            (0, Some(id)) => return Self::GetAnothers(id),
            (1, Some(id)) => return Self::ChangeAnothers(id),
            (2, Some(id)) => return Self::RemoveAnothers(id),
            (3, _) => return if random.bool() { Self::List } else { Self::Changes },
            (4, _) => return Self::Create { title },
            (5, _) => return Self::CreateOnce { key: title.replace(' ', "-"), title },
            _ => {}
        }
        match (pick, own.pop()) {
            (_, None) => Self::Create { title },
            (6, Some(task)) => Self::Change { task, title },
            (7, Some(task)) => Self::Toggle(task),
            (8, Some(task)) => Self::Remove(task),
            (_, Some(task)) => Self::Get(task),
        }
    }

    async fn send(self, user: &User) -> Reply {
        match self {
            Self::Get(task) => user.get(id(&task)).await,
            Self::GetAnothers(id) => user.get(&id).await,
            Self::List => user.list("?limit=1000").await,
            Self::Changes => user.changes("").await,
            Self::Create { title } => user.post(json!({"title": title})).await,
            Self::CreateOnce { title, key } => {
                user.call(hyper::Method::POST, user.tasks()).key(&key).json(json!({"title": title})).send().await
            }
            Self::Change { task, title } => user.put(id(&task), json!({"title": title})).await,
            Self::ChangeAnothers(id) => user.put(&id, json!({"title": "mine now"})).await,
            Self::Toggle(task) => user.toggle(id(&task)).await,
            Self::Remove(task) => user.delete(id(&task)).await,
            Self::RemoveAnothers(id) => user.delete(&id).await,
        }
    }

    /// Checks the answer, and writes down what has become of the owner's tasks.
    fn check(&self, reply: &Reply, owner: &str, tasks: &mut Tasks) {
        match self {
            Self::GetAnothers(_) | Self::ChangeAnothers(_) | Self::RemoveAnothers(_) => {
                reply.is_problem(404, "no-such-task");
            }
            Self::List | Self::Changes => {
                let told = reply.is(200).json();
                let listed = told.as_array().unwrap_or_else(|| told["tasks"].as_array().unwrap());
                for task in listed {
                    assert_eq!(task["user_id"], owner, "a task strayed");
                }
            }
            Self::Get(task) => assert_eq!(reply.is(200).json(), *task),
            Self::Remove(task) => {
                reply.is(204);
                tasks.remove(id(task));
            }
            Self::Create { title } | Self::CreateOnce { title, .. } => {
                let made = reply.is(201).json();
                assert_eq!((&made["user_id"], &made["title"]), (&owner.into(), &title.as_str().into()));
                tasks.insert(id(&made).to_owned(), made);
            }
            Self::Change { task, title } => {
                let changed = reply.is(200).json();
                let mut expected = task.clone();
                expected["title"] = title.as_str().into();
                is_changed(&changed, expected);
                tasks.insert(id(&changed).to_owned(), changed);
            }
            Self::Toggle(task) => {
                let changed = reply.is(200).json();
                let mut expected = task.clone();
                expected["completed"] = (!task["completed"].as_bool().unwrap()).into();
                expected["completed_at"] = changed["completed_at"].clone();
                assert_eq!(changed["completed_at"].is_string(), changed["completed"] == true);
                is_changed(&changed, expected);
                tasks.insert(id(&changed).to_owned(), changed);
            }
        }
    }
}

/// `expected` says the new version too, but for what tells that it is one.
fn is_changed(changed: &Value, mut expected: Value) {
    expected["version"] = (expected["version"].as_i64().unwrap() + 1).into();
    expected["updated_at"] = changed["updated_at"].clone();
    assert_eq!(*changed, expected);
}

async fn everybody_keeps_what_is_theirs(settings: Value) {
    let app = TestApp::start_with(BACKEND, settings).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let users: Vec<User> = (0..OWNERS).map(|_| app.new_user()).collect();
    let mut all: Vec<Tasks> = vec![Tasks::new(); OWNERS];

    for size in SIZES.into_iter().chain(SIZES) {
        let mut free: Vec<Vec<Value>> = all.iter().map(|tasks| tasks.values().cloned().collect()).collect();
        for tasks in &mut free {
            random.shuffle(tasks);
        }
        let burst: Vec<(usize, Step)> = (0..size)
            .map(|_| {
                let (owner, other) = (random.usize(..OWNERS), random.usize(..OWNERS));
                let anothers = random.choice(all[other].keys()).filter(|_| owner != other).cloned();
                (owner, Step::random(&mut random, &mut free[owner], anothers, &format!("Task {owner}")))
            })
            .collect();

        let replies = at_once(size, |n| {
            let (owner, step) = burst[n].clone();
            let user = users[owner].clone();
            async move { step.send(&user).await }
        })
        .await;

        for ((owner, step), reply) in burst.iter().zip(&replies) {
            step.check(reply, &users[*owner].id, &mut all[*owner]);
        }
        for (user, tasks) in users.iter().zip(&all) {
            let listed = user.list("?limit=1000").await.is(200).json();
            // The newest is first; ids rise with time.
            let expected: Vec<&Value> = tasks.values().rev().collect();
            assert_eq!(listed, json!(expected), "after {size} at once");
        }
    }
}

/// As many sets as there can be, large and small.
#[tokio::test(flavor = "multi_thread")]
async fn what_travels_together_stays_apart() {
    everybody_keeps_what_is_theirs(json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_travels_together_stays_apart_on_one_connection_and_without_kept_pages() {
    everybody_keeps_what_is_theirs(json!({"database": {"max_connections": 1, "page_cache_mb": 0}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_travels_together_stays_apart_where_each_set_is_of_one_owner() {
    everybody_keeps_what_is_theirs(json!({"database": {"sets": "owner"}})).await;
}

/// Whoever hangs up leaves no hole: the others of the set are answered.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_leaves_no_hole() {
    let app = TestApp::start_with(BACKEND, json!({"database": {"max_connections": 1}})).await;
    let (ann, bob) = (app.new_user(), app.new_user());
    for _ in 0..10 {
        let replies = at_once(40, |n| {
            let user = if n % 2 == 0 { ann.clone() } else { bob.clone() };
            async move {
                let call = user.call(hyper::Method::POST, user.tasks()).json(json!({"title": "t"}));
                if n % 2 == 0 { call.send_within(Duration::from_millis(1)).await } else { Some(call.send().await) }
            }
        })
        .await;
        for reply in replies.into_iter().flatten() {
            reply.is(201);
        }
    }
    assert_eq!(bob.titles("?limit=1000").await.len(), 200);
}

#[tokio::test]
async fn a_task_has_its_owners_revision_at_its_last_change() {
    let app = app().await;
    let (ann, bob) = (app.new_user(), app.new_user());
    // Somebody else's changes raise nothing here.
    bob.create("of somebody else").await;
    // The title of the task that changed last, and how far its revision is from its owner's.
    let query = format!(
        "select concat(t.title, ' ', u.revision - t.revision) from tasks t join users u on u.id = t.user_id \
         where u.id = '{}' order by t.revision desc limit 1",
        ann.id
    );
    let last = async || app.database.query(&query).await.remove(0);
    let one = ann.create("one").await;
    assert_eq!(last().await, "one 0");
    ann.call(Method::POST, ann.tasks()).json(json!({"title": "two"})).key("a").send().await.is(201);
    assert_eq!(last().await, "two 0");
    ann.put(id(&one), json!({"description": "d"})).await.is(200);
    assert_eq!(last().await, "one 0");
    let three = ann.create("three").await;
    assert_eq!(last().await, "three 0");
    ann.toggle(id(&one)).await.is(200);
    assert_eq!(last().await, "one 0");
    ann.call(Method::PATCH, ann.task(id(&three)) + "/complete").key("b").send().await.is(200);
    assert_eq!(last().await, "three 0");
    // A deletion is a change, too, which no task has.
    ann.delete(id(&three)).await.is(204);
    assert_eq!(last().await, "one 2");
    // Many at once have one each, up to the owner's.
    at_once(20, |_| {
        let ann = ann.clone();
        async move { ann.create("many").await }
    })
    .await;
    let query = format!(
        "select cast(u.revision - t.revision as text) from tasks t join users u on u.id = t.user_id \
         where u.id = '{}' and t.title = 'many' order by t.revision desc",
        ann.id
    );
    assert_eq!(app.database.query(&query).await, (0..20).map(|behind| behind.to_string()).collect::<Vec<_>>());
}
