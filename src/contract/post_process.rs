//! The one pass over poem-openapi's document: what it can't say, and what it says wrongly.
//!
//! Each step has its reason beside it. Nothing else changes the document.

use std::collections::BTreeSet;

use poem_openapi::types::{Example, Type};
use serde_json::{Map, Value, json};

use super::{Operation, VERSION, examples, links};
use crate::{
    problem,
    request_id::{self, RequestId},
    task::TaskUpdate,
};

/// The version of OpenAPI: the last of those that every generator reads.
const OPENAPI: &str = "3.0.3";

/// The version of the other rendition.
const OPENAPI_3_1: &str = "3.1.0";

/// The headers of answers that no operation speaks of: of all (the first three), and of those to requests that are limited, unless
/// we failed.
const ADDED: [&str; 5] = ["X-Request-Id", "API-Version", "Server-Timing", "RateLimit", "RateLimit-Policy"];

/// Post-processes the document in place, and tells the operations that it describes.
pub(super) fn apply(document: &mut Value) -> Vec<Operation> {
    document["openapi"] = OPENAPI.into();
    let schemas = document["components"]["schemas"].as_object_mut().expect("there are schemas");
    schemas.extend(problem::schemas());
    schemas.sort_keys();
    everywhere(document, &mut normalise);

    let (mut operations, mut parameters, mut responses) = (Vec::new(), Map::new(), Map::new());
    for (path, methods) in objects(&mut document["paths"]) {
        for (method, operation) in methods.iter_mut() {
            let problems = complete(operation, &mut parameters, &mut responses);
            let tag = operation["tags"][0].clone();
            operations.push((
                Operation {
                    id: operation["operationId"].as_str().unwrap_or_default().to_owned(),
                    method: method.to_uppercase().parse().expect("a method's name is a method"),
                    template: path.clone(),
                    problems,
                },
                tag,
            ));
        }
    }
    // What the API is for comes first.
    let first_use = |tag: &Value| operations.iter().position(|(_, of)| *of == tag["name"]);
    document["tags"].as_array_mut().expect("there are tags").sort_by_key(first_use);
    let operations = operations.into_iter().map(|(operation, _)| operation).collect();
    document["components"]["parameters"] = parameters.into();
    document["components"]["responses"] = responses.into();
    document["components"]["headers"]["RateLimit"] = json!({
        "description": "If users or addresses are limited: how many requests are left to each now (`r`), and after how many \
                        seconds all of the quota is there again (`t`), as draft-ietf-httpapi-ratelimit-headers-10 has it.",
        "schema": quotas("r", "t"),
        "example": "\"user\";r=42;t=18",
    });
    document["components"]["headers"]["RateLimit-Policy"] = json!({
        "description": "The quotas: how many requests may come at once (`q`), and in how many seconds so many are there again \
                        (`w`).",
        "schema": quotas("q", "w"),
        "example": "\"user\";q=60;w=60",
    });
    document["components"]["headers"]["X-Request-Id"] = json!({
        "description": "The id of the request: the caller's own if it sent a valid one, else a new one.",
        "required": true,
        "schema": request_id::schema(),
        "example": RequestId::example(),
    });
    document["components"]["headers"]["API-Version"] = json!({
        "description": "The version of this contract that the answer keeps.",
        "required": true,
        "schema": {"type": "string", "maxLength": 20, "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$"},
        "example": VERSION,
    });

    let duration = r"[a-z]+;dur=[0-9]+\.[0-9]+";
    document["components"]["headers"]["Server-Timing"] = json!({
        "description": "If the operator has it told: where the time of the request went, in milliseconds. It waited for the database \
                        (`wait`), the statement that it was a part of took its time (`db`), and so did all the rest (`app`).",
        "schema": {"type": "string", "maxLength": 200, "pattern": format!("^{duration}(, {duration})*$")},
        "example": "wait;dur=0.052, db;dur=1.204, app;dur=0.310",
    });

    let bodies = body_schemas(document);
    let replies = reachable(document, |operation| operation["responses"].clone());
    for (name, schema) in objects(&mut document["components"]["schemas"]) {
        // poem-openapi names each schema a second time within itself.
        schema.remove("title");
        if bodies.contains(name) {
            // It enforces `deny_unknown_fields`, but does not publish it.
            schema.insert("additionalProperties".to_owned(), false.into());
        }
        if replies.contains(name) {
            // It has no word for "always present, sometimes null", which is what serde writes.
            let is_present = |name: &str, field: &Value| {
                field["nullable"] == true
                    || schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name))
            };
            let fields = schema["properties"].as_object().into_iter().flatten();
            let present = fields.filter(|(name, field)| is_present(name, field)).map(|(name, _)| name.clone().into());
            let present: Vec<Value> = present.collect();
            schema.insert("required".to_owned(), present.into());
        }
    }
    // "At least one field" is not expressible either.
    document["components"]["schemas"][TaskUpdate::name().as_ref()]["minProperties"] = 1.into();
    operations
}

/// One or two quotas, each with two numbers.
fn quotas(one: &str, other: &str) -> Value {
    let quota = format!(r#""(address|user)";{one}=[0-9]+;{other}=[0-9]+"#);
    json!({"type": "string", "maxLength": 200, "pattern": format!("^{quota}(, {quota})?$")})
}

/// Completes the description of one operation, extracts the components that it shares with others, and tells which
/// problems it declares.
fn complete(
    operation: &mut Value,
    parameters: &mut Map<String, Value>,
    responses: &mut Map<String, Value>,
) -> Vec<&'static problem::ProblemType> {
    if operation.get("security").is_none() {
        // Said in so many words, so that nobody takes it for forgotten.
        operation["security"] = json!([]);
    }
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        lift(parameter);
        // What stands in the path or in a header means the same wherever it stands.
        if parameter["in"] != "query" {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            extract_component(parameter, "parameters", name, parameters);
        }
    }
    let id = operation["operationId"].as_str().expect("every operation has an id").to_owned();
    if let Some(request) = operation.get_mut("requestBody") {
        examples::of_requests(&id, request);
    }
    let is_limited = operation["security"] != json!([]);
    let mut declared = Vec::new();
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        let problems = problem::declared(response);
        let shown = examples::refused(&id);
        let is_own =
            problems.iter().flatten().any(|problem| shown.iter().any(|fault| fault.problem_type() == *problem));
        let component = problems.as_deref().map(|problems| problem::response(problems, &shown));
        let name = component.map(|(name, refusal)| {
            *response = refusal;
            name
        });
        examples::of_replies(&id, status, response);
        links::add(&id, status, response);
        // The edge of the server adds them, beyond the operations' types.
        for header in if is_limited && !status.starts_with('5') { &ADDED[..] } else { &ADDED[..3] } {
            response["headers"][header] = json!({"$ref": format!("#/components/headers/{header}")});
        }
        if let Some(name) = name.filter(|_| !is_own) {
            // A refusal is the same for every operation that declares it, unless it shows an example of its own.
            extract_component(response, "responses", name, responses);
        }
        declared.extend(problems.into_iter().flatten());
    }
    declared
}

/// Removes what only repeats a default, writes bounds as the whole numbers that they are, and joins the lines of a
/// paragraph, which are broken where a comment in the source is.
fn normalise(object: &mut Map<String, Value>) {
    // Not within `properties`, where these could be the names of fields: there they hold schemas, which are no booleans.
    for (keyword, default) in [("deprecated", false), ("explode", true)] {
        if object.get(keyword) == Some(&default.into()) {
            object.remove(keyword);
        }
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    for bound in ["minimum", "maximum", "multipleOf"] {
        if let Some(whole) = object.get(bound).and_then(Value::as_f64).filter(|number| number.fract() == 0.0) {
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and bounds are small")]
            object.insert(bound.to_owned(), (whole as i64).into());
        }
    }
}

/// Lifts what a parameter's type says of itself to the parameter, where readers and generators look for it.
fn lift(parameter: &mut Value) {
    for keyword in ["description", "example"] {
        let said = parameter["schema"].as_object_mut().and_then(|schema| schema.shift_remove(keyword));
        if let (Some(said), true) = (said, parameter[keyword].is_null()) {
            parameter[keyword] = said;
        }
    }
    if let Some(parameter) = parameter.as_object_mut() {
        parameter.retain(|_, value| !value.is_null());
    }
}

/// Keeps `part` once, among the components of `kind`, and refers to it.
fn extract_component(part: &mut Value, kind: &str, name: String, components: &mut Map<String, Value>) {
    let reference = json!({"$ref": format!("#/components/{kind}/{name}")});
    let part = std::mem::replace(part, reference);
    let first = components.entry(name).or_insert_with(|| part.clone());
    assert_eq!(*first, part, "two operations describe differently what they share");
}

/// The names of the schemas that request bodies must match.
pub(super) fn body_schemas(document: &Value) -> BTreeSet<String> {
    reachable(document, |operation| operation["requestBody"].clone())
}

/// The names of the headers that requests may have.
pub(super) fn request_headers(document: &Value) -> BTreeSet<String> {
    let parameters = document["components"]["parameters"].as_object().into_iter().flatten();
    parameters.filter(|(_, parameter)| parameter["in"] == "header").map(|(name, _)| name.clone()).collect()
}

/// The names of the headers that answers may have.
pub(super) fn response_headers(document: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    everywhere(&mut document.clone(), &mut |object| {
        if object.contains_key("description") {
            names.extend(
                object.get("headers").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()),
            );
        }
    });
    names
}

/// The names of the schemas that `part` of any operation refers to, directly or through other components.
fn reachable(document: &Value, part: impl Fn(&Value) -> Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let methods = document["paths"].as_object().into_iter().flatten().map(|(_, methods)| methods);
    let operations = methods.filter_map(Value::as_object).flatten().map(|(_, operation)| operation);
    let mut open: Vec<Value> = operations.map(part).collect();
    while let Some(mut value) = open.pop() {
        everywhere(&mut value, &mut |object| {
            let target = object.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
            if let Some(pointer) = target.filter(|target| found.insert((*target).to_owned())) {
                open.extend(document.pointer(pointer).cloned());
            }
        });
    }
    found.iter().filter_map(|pointer| pointer.strip_prefix("/components/schemas/").map(str::to_owned)).collect()
}

/// Rewrites an OpenAPI 3.0 schema into the JSON Schema that it means: there, null is a type.
pub(super) fn to_json_schema(schema: &mut Value) {
    everywhere(schema, &mut |object| {
        if object.get("nullable") == Some(&true.into()) {
            object.remove("nullable");
            if let Some(kind) = object.get("type").cloned() {
                object.insert("type".to_owned(), json!([kind, "null"]));
            }
        }
    });
}

/// Rewrites the document from OpenAPI 3.0 into 3.1, whose schemas are JSON Schema: null is a type, and a schema's one example is
/// a list of examples. Everything else means the same in both.
pub(super) fn to_openapi_3_1(document: &mut Value) {
    document["openapi"] = OPENAPI_3_1.into();
    to_json_schema(document);
    everywhere(document, &mut |object| {
        // A parameter, a header or a media type has its example beside its schema, and keeps it.
        let is_schema = !object.contains_key("schema")
            && (object.get("type").is_some_and(|kind| !kind.is_object()) || object.contains_key("oneOf"));
        if let Some(example) = is_schema.then(|| object.shift_remove("example")).flatten() {
            object.insert("examples".to_owned(), json!([example]));
        }
    });
}

fn everywhere(value: &mut Value, act: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            act(object);
            object.values_mut().for_each(|value| everywhere(value, act));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| everywhere(value, act)),
        _ => {}
    }
}

fn objects(value: &mut Value) -> impl Iterator<Item = (&String, &mut Map<String, Value>)> {
    value
        .as_object_mut()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| value.as_object_mut().map(|object| (name, object)))
}
