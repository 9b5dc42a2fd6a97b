//! Links: where an answer leads, for those who explore the API by its contract.

use serde_json::{Map, Value, json};

/// The operations on one task, and what following the link to each does.
const ON_A_TASK: [(&str, &str); 4] = [
    ("getTask", "Read the task."),
    ("updateTask", "Change the task."),
    ("toggleTaskCompletion", "Complete or reopen the task."),
    ("deleteTask", "Delete the task."),
];

/// Adds to an answer of an operation the links that it has.
pub(super) fn add(operation: &str, status: &str, response: &mut Value) {
    let links = match (operation, status) {
        ("createTask", "201") => to_task("$response.body#/id"),
        ("listTasks", "200") => {
            // An expression can't mean each task of the page.
            let mut links = to_task("$response.body#/0/id");
            let description = "The next page, if there is one.";
            let parameters = json!({"user_id": USER, "cursor": "$response.header.Next-Cursor"});
            links.insert("listTasks".to_owned(), link("listTasks", description, &parameters));
            links
        }
        ("listChanges", "200") => {
            let description = "What has changed after that.";
            let parameters = json!({"user_id": USER, "since": "$response.body#/next"});
            Map::from_iter([("listChanges".to_owned(), link("listChanges", description, &parameters))])
        }
        _ => return,
    };
    response["links"] = links.into();
}

const USER: &str = "$request.path.user_id";

fn to_task(id: &str) -> Map<String, Value> {
    let parameters = json!({"user_id": USER, "task_id": id});
    ON_A_TASK.map(|(operation, does)| (operation.to_owned(), link(operation, does, &parameters))).into_iter().collect()
}

fn link(operation: &str, description: &str, parameters: &Value) -> Value {
    json!({"operationId": operation, "description": description, "parameters": parameters})
}
