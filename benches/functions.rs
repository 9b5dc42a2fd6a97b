//! The functions that every request meets, each alone: how long they take. The figures are this machine's.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use poem::{Request, RequestBody};
use poem_openapi::{ApiExtractor, ExtractParamOptions};
use serde_json::json;
use taskpact::{
    auth::{Owner, Verifier, token},
    config::Config,
    contract::Contract,
    request::{Body, Violations},
    store::Store,
    task::{NewTask, Task, TaskId, TaskStatus},
};
use tempfile::tempdir;
use tokio::runtime::Runtime;

/// Settings with a secret, and a database in `folder`.
fn config(folder: &str) -> Config {
    let mut config = Config::default();
    config.auth.secret = Some("a secret that is long enough for everybody".to_owned().into());
    config.database.url = serde_json::from_value(json!(format!("sqlite://{folder}/tasks.db"))).unwrap();
    config
}

fn new_task() -> NewTask {
    serde_json::from_value(json!({"title": "Water the plants", "description": "The ones on the balcony, too."}))
        .unwrap()
}

/// A token that is seen again, and one that comes for the first time.
fn tokens(c: &mut Criterion, runtime: &Runtime, config: &Config) -> Owner {
    let verifier = runtime.block_on(Verifier::new(&config.auth)).unwrap();
    let hour = Duration::from_hours(1);
    let known = token::mint(&config.auth, "ann", hour).unwrap();
    c.bench_function("a token that is known", |b| b.to_async(runtime).iter(|| verifier.verify(&known)));
    let mut users = 0;
    c.bench_function("a token that is new", |b| {
        let new = || {
            users += 1;
            token::mint(&config.auth, &format!("user-{users}"), hour).unwrap()
        };
        let verify = async |token: String| verifier.verify(&token).await.unwrap();
        b.to_async(runtime).iter_batched(new, verify, criterion::BatchSize::SmallInput);
    });
    runtime.block_on(verifier.verify(&known)).unwrap()
}

/// A body: read, validated against the contract, and turned into its type.
fn bodies(c: &mut Criterion, runtime: &Runtime) {
    let contract = Contract::new();
    let text = json!({"title": "Water the plants", "description": "The ones on the balcony, too."}).to_string();
    c.bench_function("a body", |b| {
        b.to_async(runtime).iter(async || {
            let mut request =
                Request::builder().content_type("application/json").header("content-length", text.len()).finish();
            request.set_data(contract.validators());
            request.set_data(Violations::default());
            let mut body = RequestBody::new(text.clone().into());
            Body::<NewTask>::from_request(&request, &mut body, ExtractParamOptions::default())
                .await
                .unwrap()
                .get()
                .unwrap()
        });
    });
}

/// A reply of one task, and a cursor.
fn texts(c: &mut Criterion, task: &Task) {
    c.bench_function("a reply", |b| b.iter(|| serde_json::to_vec(black_box(task))));
    let cursor = task.id.0.to_string();
    c.bench_function("a cursor", |b| b.iter(|| TaskId::parse(black_box(&cursor))));
}

/// Sets of one: what a request waits for on an idle server.
fn sets(c: &mut Criterion, runtime: &Runtime, store: &Store, owner: &Owner, task: &Task) {
    let tasks = store.tasks(owner);
    c.bench_function("a set of one, which reads a task", |b| b.to_async(runtime).iter(|| tasks.get(task.id)));
    c.bench_function("a set of one, which lists a page that is kept", |b| {
        b.to_async(runtime).iter(|| tasks.list(TaskStatus::All, None, 20, None));
    });
    c.bench_function("a set of one, which creates a task, on the disk", |b| {
        b.to_async(runtime).iter(|| tasks.create(new_task(), None));
    });
}

fn all(c: &mut Criterion) {
    let (runtime, folder) = (Runtime::new().unwrap(), tempdir().unwrap());
    let _guard = runtime.enter();
    let config = config(folder.path().to_str().unwrap());
    let store = Store::new(&config.database).unwrap();
    runtime.block_on(store.migrate_up()).unwrap();
    let owner = tokens(c, &runtime, &config);
    let task = runtime.block_on(store.tasks(&owner).create(new_task(), None)).unwrap().task;
    bodies(c, &runtime);
    texts(c, &task);
    sets(c, &runtime, &store, &owner, &task);
    runtime.block_on(store.close());
}

criterion_group!(functions, all);
criterion_main!(functions);
