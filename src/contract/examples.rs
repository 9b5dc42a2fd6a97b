//! Named examples: what a request says, and what is answered to it.
//!
//! Documentation, mocks and generated tests show just these, so they are whole, and they are true: the suite sends the request
//! of each, and is given its answer. An example of a request and the example of an answer to it have one name.

use poem_openapi::types::{Example as _, MaybeUndefined};
use serde_json::{Map, Value, json};

use crate::{
    api::Report,
    changes::Changes,
    problem::{Fault, Place, Violation},
    store::NOT_MIGRATED,
    task::{Description, Task, TaskId, Title},
};

/// What is sent to an operation that takes a body, and what is answered; or just the latter.
struct Example {
    name: &'static str,
    summary: &'static str,
    body: Option<Value>,
    answer: Value,
}

/// Adds the examples of what is sent to an operation, if it takes a body.
pub(super) fn of_requests(operation: &str, request: &mut Value) {
    add(request, of(operation).into_iter().filter_map(|one| Some((one.name, one.summary, one.body?))));
}

/// Adds the examples of what an operation answers when all is well.
pub(super) fn of_replies(operation: &str, status: &str, response: &mut Value) {
    if status.starts_with('2') {
        add(response, of(operation).into_iter().map(|one| (one.name, one.summary, one.answer)));
    }
}

fn add(message: &mut Value, examples: impl Iterator<Item = (&'static str, &'static str, Value)>) {
    let Some(content) = message.pointer_mut("/content/application~1json") else { return };
    let examples: Map<_, _> =
        examples.map(|(name, summary, value)| (name.to_owned(), json!({"summary": summary, "value": value}))).collect();
    content["examples"] = examples.into();
}

fn of(operation: &str) -> Vec<Example> {
    let one = |name, summary, body, answer: Value| Example { name, summary, body, answer };
    let sent = |name, summary, body: Value, answer: &Task| one(name, summary, Some(body), json!(answer));
    let (new, done) = (new(), Task::example());
    // Written a third time, a minute after it was completed.
    let changed = Task { updated_at: Task::example_time("2026-11-21T18:03:27.501942Z"), version: 3, ..done.clone() };
    match operation {
        "listTasks" => vec![
            one("tasks", "Two tasks, one of them done", None, json!([done, cat()])),
            one("no-tasks", "No tasks yet", None, json!([])),
        ],
        "createTask" => vec![
            sent(
                "title-only",
                "A title is enough",
                json!({"title": new.title}),
                &Task { description: None, ..new.clone() },
            ),
            sent(
                "all-fields",
                "Everything that can be said",
                json!({"title": new.title, "description": new.description, "completed": false}),
                &new,
            ),
        ],
        "getTask" => vec![one("task", "A task that is done", None, json!(done))],
        "updateTask" => {
            let title = Title("Water all the plants".to_owned());
            vec![
                sent("new-title", "Another title", json!({"title": title}), &Task { title, ..changed.clone() }),
                sent(
                    "no-description",
                    "The description is cleared",
                    json!({"description": MaybeUndefined::<Description>::Null}),
                    &Task { description: None, ..changed },
                ),
            ]
        }
        "toggleTaskCompletion" => vec![
            sent("complete", "It is done, whatever it was", json!({"completed": true}), &done),
            sent(
                "reopen",
                "It is to be done again",
                json!({"completed": false}),
                &Task { completed: false, completed_at: None, ..changed },
            ),
            sent("flip", "The other state", json!({}), &done),
        ],
        "listChanges" => {
            let none = Changes { tasks: Vec::new(), deleted: Vec::new(), ..Changes::example() };
            vec![
                one("changes", "A task that is done, and one that was deleted", None, json!(Changes::example())),
                one("no-changes", "Nothing new", None, json!(none)),
            ]
        }
        "getHealth" | "getReadiness" => vec![one("ok", "All is well", None, json!(Report::example()))],
        _ => Vec::new(),
    }
}

/// The usual task when it was new.
fn new() -> Task {
    let task = Task::example();
    Task { completed: false, completed_at: None, updated_at: task.created_at, version: 1, ..task }
}

/// An older task of the same user.
fn cat() -> Task {
    let created_at = Task::example_time("2026-11-20T19:40:05.917263Z");
    let id = TaskId::parse("019aa25c-6f3d-7a41-b1c6-90d2f8e4a7b3").expect("it is a UUID");
    let title = Title("Feed the cat".to_owned());
    Task { id, title, description: None, created_at, updated_at: created_at, ..new() }
}

/// What an operation is shown to refuse with, where the usual example of a problem can't happen to it.
pub(super) fn refused(operation: &str) -> Vec<Fault> {
    let header = |name: &str| {
        vec![violation(Place::Header, name, "pattern", "must be `*` or a list of entity tags such as `\"3\"`", None)]
    };
    let violations = match operation {
        "listTasks" | "listChanges" => {
            vec![violation(Place::Query, "limit", "minimum", "must be a whole number from 1 to 1000", Some(1))]
        }
        "getTask" => header("If-None-Match"),
        "deleteTask" => header("If-Match"),
        "toggleTaskCompletion" => {
            let body = violation(Place::Body, "", "type", "must be true or false", None);
            vec![Violation { name: None, pointer: Some("/completed".to_owned()), ..body }]
        }
        "getReadiness" => return vec![Fault::NotReady { reason: NOT_MIGRATED, cause: None }],
        _ => return Vec::new(),
    };
    vec![Fault::InvalidRequest(violations)]
}

fn violation(place: Place, name: &str, code: &str, detail: &str, limit: Option<i64>) -> Violation {
    Violation {
        place,
        name: Some(name.to_owned()),
        pointer: None,
        code: code.to_owned(),
        detail: detail.to_owned(),
        limit,
    }
}
