//! Validating exchanges against `api-spec.yaml`.

use std::{collections::HashMap, fs, sync::LazyLock};

use hyper::{HeaderMap, Method, StatusCode};
use jsonschema::Validator;
use serde_json::{Value, json};

/// The headers that belong to HTTP and to browsers rather than to an operation.
const OF_HTTP: [&str; 13] = [
    "api-version",
    "cache-control",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "timing-allow-origin",
    "vary",
    "x-content-type-options",
    "x-request-id",
];

/// The committed contract.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/api-spec.yaml");
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
});

/// Every operation: its id, its method, its path, and its description with the references resolved.
pub static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, description)| Operation {
            id: description["operationId"].as_str().unwrap().to_owned(),
            method: method.to_uppercase().parse().unwrap(),
            path: path.clone(),
            description: resolved(description),
        })
    });
    operations.collect()
});

#[derive(Debug)]
pub struct Operation {
    pub id: String,
    pub method: Method,
    pub path: String,
    pub description: Value,
}

impl Operation {
    pub fn statuses(&self) -> Vec<u16> {
        self.description["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap()).collect()
    }

    pub fn needs_a_token(&self) -> bool {
        self.description["security"] == json!([{"bearer": []}])
    }

    fn is_at(&self, path: &str) -> bool {
        let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let (template, path) = (parts(&self.path), parts(path));
        template.len() == path.len()
            && template
                .iter()
                .zip(&path)
                .all(|(template, part)| template == part || template.starts_with('{') && !part.is_empty())
    }
}

/// Panics unless the contract allows this answer to this request.
pub fn assert_conforms(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let what = format!("{method} {path} was answered {status}:\n{}\n", String::from_utf8_lossy(body));
    assert!(headers.contains_key("x-request-id"), "{what}without an X-Request-Id");
    assert_eq!(headers["api-version"], DOCUMENT["info"]["version"].as_str().unwrap(), "{what}");
    assert_eq!(headers["x-content-type-options"], "nosniff", "{what}");
    let (path, is_head) = (path.split('?').next().unwrap(), method == Method::HEAD);
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let method = if is_head { &Method::GET } else { method };
    let Some(operation) = OPERATIONS.iter().find(|operation| operation.method == method && operation.is_at(path))
    else {
        // No operation, so no description of its own: but every refusal is a problem.
        if !is_head && !status.is_success() {
            assert_body_conforms(
                &what,
                headers,
                &json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/AnyProblem"}}}),
                body,
            );
        }
        return;
    };

    let caching = if headers.contains_key("etag") { "private, no-cache" } else { "no-store" };
    assert_eq!(headers["cache-control"], caching, "{what}");

    let response = &operation.description["responses"][status.as_str()];
    assert!(response.is_object(), "{what}which {} does not declare", operation.id);
    let declared = response["headers"].as_object().unwrap();
    for (name, header) in declared {
        let Some(value) = headers.get(name) else {
            assert_ne!(header["required"], true, "{what}without the header {name}");
            continue;
        };
        let text = value.to_str().unwrap();
        let value =
            if header["schema"]["type"] == "integer" { json!(text.parse::<i64>().unwrap()) } else { json!(text) };
        assert_value_conforms(&what, &header["schema"], &value);
    }
    for name in headers.keys().filter(|name| !OF_HTTP.contains(&name.as_str())) {
        assert!(
            declared.keys().any(|known| known.eq_ignore_ascii_case(name.as_str())),
            "{what}with the undeclared header {name}"
        );
    }
    if !is_head {
        assert_body_conforms(&what, headers, &response["content"], body);
    }
}

fn assert_body_conforms(what: &str, headers: &HeaderMap, content: &Value, body: &[u8]) {
    let media_type = headers.get("content-type").map(|media_type| media_type.to_str().unwrap());
    let Some(media_type) = media_type else {
        assert!(content.is_null() && body.is_empty(), "{what}without a media type");
        return;
    };
    assert!(content[media_type].is_object(), "{what}with the undeclared media type {media_type}");
    let value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{what}which is no JSON: {error}"));
    assert_value_conforms(what, &content[media_type]["schema"], &value);
}

fn assert_value_conforms(what: &str, schema: &Value, value: &Value) {
    let errors: Vec<_> =
        validator(schema).iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}which breaks the contract: {errors:#?}");
}

/// A validator that also refuses fields which the schema does not know: the server sends what it declares, no more.
fn validator(schema: &Value) -> std::sync::Arc<Validator> {
    static VALIDATORS: LazyLock<std::sync::Mutex<HashMap<String, std::sync::Arc<Validator>>>> =
        LazyLock::new(Default::default);
    let mut validators = VALIDATORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let compile = || {
        let mut document = DOCUMENT.clone();
        close(&mut document["components"]["schemas"]);
        taskpact::contract::validator(&document, schema).into()
    };
    validators.entry(schema.to_string()).or_insert_with(compile).clone()
}

fn close(schema: &mut Value) {
    for value in schema.as_object_mut().into_iter().flat_map(|object| object.values_mut()) {
        close(value);
    }
    if schema["type"] == "object" && schema["properties"].is_object() {
        schema["additionalProperties"] = false.into();
    }
}

/// `value` with the references to components other than schemas replaced by what they refer to.
fn resolved(value: &Value) -> Value {
    match value {
        Value::Object(object) => match object.get("$ref").and_then(Value::as_str) {
            Some(target) if !target.starts_with("#/components/schemas/") => {
                resolved(DOCUMENT.pointer(target.trim_start_matches('#')).unwrap())
            }
            _ => Value::Object(object.iter().map(|(name, value)| (name.clone(), resolved(value))).collect()),
        },
        Value::Array(values) => values.iter().map(resolved).collect(),
        other => other.clone(),
    }
}
