//! The committed contract: that it is this server's, and that it says what a contract must.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, fs};

use hyper::Method;
use serde_json::{Value, json};
use support::contract::{DOCUMENT, OPERATIONS};
use taskpact::contract::Contract;

#[test]
fn the_committed_contract_is_that_of_the_server() {
    let committed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/api-spec.yaml")).unwrap();
    assert!(
        committed == Contract::new().document.yaml,
        "api-spec.yaml is not the contract of this server. Look at what changed, then write it: \
         `just spec`"
    );
}

#[test]
fn the_committed_rendition_in_openapi_3_1_is_that_of_the_contract() {
    let committed = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/api-spec-3.1.yaml")).unwrap();
    let rendition = Contract::new().openapi_3_1();
    assert!(
        committed.as_bytes() == rendition.yaml,
        "api-spec-3.1.yaml is not the contract of this server: `just spec`"
    );
    let json: Value = serde_json::from_slice(&rendition.json).unwrap();
    assert!(json == serde_saphyr::from_str::<Value>(&committed).unwrap());

    assert_eq!(json["openapi"], "3.1.0");
    let task = &json["components"]["schemas"]["Task"];
    assert_eq!(task["properties"]["completed_at"]["type"], json!(["string", "null"]));
    assert_eq!((&task["examples"][0]["version"], &task["example"]), (&json!(2), &Value::Null));
    assert!(!committed.contains("nullable:"));
    let parameters = &json["components"]["parameters"];
    assert!(parameters["user_id"]["example"].is_string(), "a parameter keeps its example");
}

#[test]
fn every_contract_that_was_released_stays_published() {
    let folder = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/contracts"));
    let files = folder.unwrap().map(|file| file.unwrap().path()).filter(|path| path.extension().unwrap() == "yaml");
    let recorded: BTreeSet<_> = files
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    let published: BTreeSet<_> = taskpact::contract::RELEASED
        .iter()
        .map(|(version, yaml)| ((*version).to_owned(), (*yaml).to_owned()))
        .collect();
    assert!(recorded == published, "contracts/released.rs does not list what is beside it");
}

#[test]
fn both_forms_say_the_same() {
    let json: Value = serde_json::from_slice(&Contract::new().document.json).unwrap();
    assert!(json == *DOCUMENT, "`taskpact spec --format json` is not api-spec.yaml");
}

#[test]
fn these_are_the_operations() {
    let operations: Vec<_> = OPERATIONS.iter().map(|o| format!("{} {} {}", o.id, o.method, o.path)).collect();
    assert_eq!(
        operations,
        [
            "listTasks GET /api/{user_id}/tasks",
            "createTask POST /api/{user_id}/tasks",
            "getTask GET /api/{user_id}/tasks/{task_id}",
            "updateTask PUT /api/{user_id}/tasks/{task_id}",
            "deleteTask DELETE /api/{user_id}/tasks/{task_id}",
            "toggleTaskCompletion PATCH /api/{user_id}/tasks/{task_id}/complete",
            "listChanges GET /api/{user_id}/changes",
            "getHealth GET /health",
            "getReadiness GET /health/ready",
        ]
    );
}

#[test]
fn everything_is_described() {
    assert!(DOCUMENT["openapi"].as_str().unwrap().starts_with("3.0."));
    let described = |value: &Value, what: &str| {
        assert!(!value["description"].as_str().unwrap_or_default().is_empty(), "{what} has no description");
    };
    for operation in OPERATIONS.iter() {
        let (what, is) = (&operation.id, &operation.description);
        described(is, what);
        assert!(!is["summary"].as_str().unwrap().is_empty());
        assert_eq!(is["tags"].as_array().unwrap().len(), 1);
        for parameter in is["parameters"].as_array().into_iter().flatten() {
            described(parameter, &format!("{what}: {}", parameter["name"]));
        }
        if let Some(body) = is.get("requestBody") {
            described(body, what);
        }
        for (status, response) in is["responses"].as_object().unwrap() {
            described(response, &format!("{what} {status}"));
            for (name, header) in response["headers"].as_object().unwrap() {
                described(header, &format!("{what} {status} {name}"));
            }
        }
    }
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        described(schema, name);
        let fields = schema["properties"].as_object().into_iter().flatten();
        for (field, schema) in fields.filter(|(_, schema)| schema.get("$ref").is_none()) {
            described(schema, &format!("{name}.{field}"));
        }
    }
    for (name, scheme) in DOCUMENT["components"]["securitySchemes"].as_object().unwrap() {
        described(scheme, name);
    }
}

#[test]
fn every_schema_has_an_example_that_it_allows() {
    let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
    assert!(schemas.len() >= 8);
    for (name, schema) in schemas {
        let example = schema.get("example").unwrap_or_else(|| panic!("{name} has no example"));
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        assert!(taskpact::contract::validator(&DOCUMENT, &reference).is_valid(example), "{name} forbids its example");
    }
    for operation in OPERATIONS.iter() {
        for parameter in operation.description["parameters"].as_array().into_iter().flatten() {
            let schema = &parameter["schema"];
            let validator = taskpact::contract::validator(&DOCUMENT, schema);
            let examples = [&parameter["example"], &schema["default"]];
            let mut examples = examples.iter().filter(|example| !example.is_null()).peekable();
            // The docs page fills them in and sends them: what has an example changes nothing by it.
            let changes_something =
                ["cursor", "since", "Idempotency-Key"].iter().any(|name| parameter["name"] == *name);
            assert_eq!(examples.peek().is_none(), changes_something, "{}: {}", operation.id, parameter["name"]);
            assert!(examples.all(|example| validator.is_valid(example)), "{}: {}", operation.id, parameter["name"]);
        }
        for (status, response) in operation.description["responses"].as_object().unwrap() {
            let Some(problem) = response["content"].get("application/problem+json") else { continue };
            let validator = taskpact::contract::validator(&DOCUMENT, &problem["schema"]);
            let examples = problem["examples"].as_object().unwrap();
            let types = problem["schema"]["oneOf"].as_array().map_or(1, Vec::len);
            assert_eq!(examples.len(), types, "{} {status}: an example for each type", operation.id);
            for (slug, example) in examples {
                let example = &example["value"];
                assert!(validator.is_valid(example), "{} {status}: {example}", operation.id);
                assert_eq!(example["status"].to_string(), *status);
                assert_eq!(example["type"], format!("/problems/{slug}"));
            }
        }
    }
}

#[test]
fn a_link_leads_from_an_example_to_an_operation() {
    let mut links = Vec::new();
    for operation in OPERATIONS.iter() {
        for (status, response) in operation.description["responses"].as_object().unwrap() {
            for (name, link) in response["links"].as_object().into_iter().flatten() {
                let target = OPERATIONS.iter().find(|one| link["operationId"] == one.id).unwrap();
                let names = |of: &Value| -> BTreeSet<String> {
                    of["parameters"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|p| p["name"].as_str().unwrap().to_owned())
                        .collect()
                };
                let examples = response["content"]["application/json"]["examples"].as_object().unwrap();
                for (parameter, from) in link["parameters"].as_object().unwrap() {
                    assert!(names(&target.description).contains(parameter), "{name}: {parameter}");
                    let from = from.as_str().unwrap();
                    let resolves = match from.split_once('.').unwrap() {
                        ("$request", name) => {
                            names(&operation.description).contains(name.strip_prefix("path.").unwrap())
                        }
                        (_, part) => match part.split_once('#') {
                            Some((_, pointer)) => examples.values().any(|one| one["value"].pointer(pointer).is_some()),
                            None => response["headers"][part.strip_prefix("header.").unwrap()].is_object(),
                        },
                    };
                    assert!(resolves, "{name}: {from}");
                }
                links.push(format!("{} {status} {name}", operation.id));
            }
        }
    }
    let on_one = ["getTask", "updateTask", "toggleTaskCompletion", "deleteTask"];
    let expected =
        on_one.map(|name| format!("listTasks 200 {name}")).into_iter().chain(["listTasks 200 listTasks".to_owned()]);
    let expected = expected.chain(on_one.map(|name| format!("createTask 201 {name}")));
    let expected: Vec<_> = expected.chain(["listChanges 200 listChanges".to_owned()]).collect();
    assert_eq!(links, expected);
}

#[test]
fn media_types_and_headers_are_in_their_usual_form() {
    let (mut media_types, mut headers) = (BTreeSet::new(), BTreeSet::new());
    for operation in OPERATIONS.iter() {
        let is = &operation.description;
        let contents = is["responses"].as_object().unwrap().values().chain(is.get("requestBody"));
        for content in contents.filter_map(|message| message["content"].as_object()) {
            media_types.extend(content.keys().cloned());
        }
        for response in is["responses"].as_object().unwrap().values() {
            headers.extend(response["headers"].as_object().unwrap().keys().cloned());
        }
        let parameters = is["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "header");
        headers.extend(parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()));
    }
    assert_eq!(media_types.into_iter().collect::<Vec<_>>(), ["application/json", "application/problem+json"]);
    let usual = [
        "API-Version",
        "ETag",
        "Idempotency-Key",
        "Idempotent-Replayed",
        "If-Match",
        "If-None-Match",
        "Link",
        "Location",
        "Next-Cursor",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "Server-Timing",
        "WWW-Authenticate",
        "X-Request-Id",
    ];
    assert_eq!(headers.into_iter().collect::<Vec<_>>(), usual);
}

#[test]
fn bodies_are_closed_and_replies_are_complete() {
    let schema = |name: &str| &DOCUMENT["components"]["schemas"][name];
    let bodies: BTreeSet<&str> = OPERATIONS
        .iter()
        .filter_map(|operation| operation.description.pointer("/requestBody/content/application~1json/schema/$ref"))
        .map(|reference| reference.as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert!(bodies.contains("NewTask"));
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        let Some(fields) = schema["properties"].as_object() else { continue };
        if bodies.contains(&**name) {
            assert_eq!(schema["additionalProperties"], false, "{name} takes whatever it is sent");
            continue;
        }
        assert_eq!(schema["additionalProperties"], Value::Null, "{name} may not grow");
        if name != "Violation" {
            let fields: Vec<_> = fields.keys().map(|field| json!(field)).collect();
            assert_eq!(schema["required"], json!(fields), "{name}");
        }
    }
    assert_eq!(schema("Violation")["required"], json!(["in", "code", "detail"]));
    let nullable = |name: &str| -> Vec<&String> {
        let fields = schema(name)["properties"].as_object().unwrap().iter();
        fields.filter(|(_, field)| field["nullable"] == true).map(|(name, _)| name).collect()
    };
    assert_eq!(nullable("Task"), ["description", "completed_at"]);
    assert_eq!(nullable("NewTask"), ["description"]);
    assert_eq!(nullable("TaskUpdate"), ["description"]);
    assert!(nullable("TaskCompletion").is_empty());
    assert_eq!(schema("NewTask")["required"], json!(["title"]));
    assert_eq!(schema("TaskUpdate")["minProperties"], 1);
}

#[test]
fn whose_request_it_is_comes_first_and_what_is_wrong_with_it_is_declared() {
    for operation in OPERATIONS.iter() {
        let is = &operation.description;
        let parameters: Vec<_> = is["parameters"].as_array().into_iter().flatten().collect();
        let is_in_path = |parameter: &&&Value| parameter["in"] == "path";
        if operation.path.contains("{user_id}") {
            // They are extracted in this order: nothing is said of a request to whom it is not for.
            assert_eq!(parameters[0]["name"], "user_id", "{}", operation.id);
        }
        let can_be_invalid = is.get("requestBody").is_some() || !parameters.iter().all(|p| is_in_path(&p));
        let declared = is["responses"]["422"].to_string().contains("InvalidRequestProblem");
        assert!(declared || !can_be_invalid, "{} does not declare what is answered to invalid requests", operation.id);
    }
}

#[test]
fn a_request_means_the_operation_at_its_path() {
    let contract = Contract::new();
    let id = |method: Method, path: &str| contract.operation(&method, path).map(|operation| operation.id.as_str());

    assert_eq!(id(Method::GET, "/api/ann/tasks"), Some("listTasks"));
    assert_eq!(id(Method::GET, "/api/ann/tasks/1"), Some("getTask"));
    assert_eq!(id(Method::PATCH, "/api/ann/tasks/1/complete"), Some("toggleTaskCompletion"));
    assert_eq!(id(Method::GET, "/health/ready"), Some("getReadiness"));
    // poem's routes take an empty part of the path, too; the parameter then refuses it.
    assert_eq!(id(Method::GET, "/api//tasks"), Some("listTasks"));
    assert_eq!(id(Method::PATCH, "/api/ann/tasks//complete"), Some("toggleTaskCompletion"));
    for path in ["", "/", "/api", "/api/ann/tasks/1/complete", "/api/ann/tasks/1/2", "/healthy"] {
        assert_eq!(id(Method::GET, path), None, "{path}");
    }
}

#[test]
fn a_schema_of_the_contract_means_what_openapi_says() {
    let validator = |schema: Value| taskpact::contract::validator(&DOCUMENT, &schema);
    let bounded = json!({"type": "string", "nullable": true, "minLength": 1, "maxLength": 2, "pattern": "^[^x]*$"});
    let closed = json!({
        "type": "object",
        "required": ["a"],
        "minProperties": 1,
        "additionalProperties": false,
        "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 2}, "b": bounded.clone()}
    });
    let listed = json!({"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/TaskCompletion"}});
    for (schema, valid, invalid) in [
        (bounded, vec![json!(null), json!("a"), json!("🌱🌱")], vec![json!(""), json!("abc"), json!("x"), json!(1)]),
        (json!({"type": "string"}), vec![json!("")], vec![json!(null)]),
        (json!({"type": "string", "enum": ["a"]}), vec![json!("a")], vec![json!("b"), json!(null)]),
        (
            closed.clone(),
            vec![json!({"a": 1}), json!({"a": 2, "b": null})],
            vec![
                json!({}),
                json!({"b": "a"}),
                json!({"a": 0}),
                json!({"a": 3}),
                json!({"a": 1.5}),
                json!({"a": null}),
                json!({"a": 1, "c": 1}),
                json!({"a": 1, "b": "x"}),
                json!([]),
            ],
        ),
        (
            listed,
            vec![json!([{}]), json!([{"completed": true}])],
            vec![json!([]), json!([1]), json!([{"completed": null}])],
        ),
        (
            json!({"type": "string", "format": "uuid"}),
            vec![json!("019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57")],
            vec![json!("x")],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            vec![json!("2026-11-21T07:15:42.310784Z")],
            vec![json!("now")],
        ),
    ] {
        let validator = validator(schema.clone());
        assert!(valid.iter().all(|value| validator.is_valid(value)), "{schema} refuses one of {valid:?}");
        assert!(!invalid.iter().any(|value| validator.is_valid(value)), "{schema} takes one of {invalid:?}");
    }
}

#[test]
fn a_problem_has_one_type_and_one_status_and_any_of_them_has_a_name() {
    let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
    let any: Vec<_> =
        schemas["AnyProblem"]["oneOf"].as_array().unwrap().iter().map(|one| one["$ref"].clone()).collect();
    let problems = schemas.iter().filter(|(name, _)| name.ends_with("Problem") && *name != "AnyProblem");
    let mut types = BTreeSet::new();
    for (name, schema) in problems {
        assert!(any.contains(&json!(format!("#/components/schemas/{name}"))), "{name}");
        for single in ["type", "status"] {
            assert_eq!(schema["properties"][single]["enum"].as_array().unwrap().len(), 1, "{name}");
        }
        assert!(types.insert(schema["properties"]["type"]["enum"][0].to_string()), "{name}");
    }
    assert_eq!(types.len(), any.len());
}
