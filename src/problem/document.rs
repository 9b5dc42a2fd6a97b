//! How the contract shows problems: a schema for each type, so that a client which has looked at the `type` knows the rest.

use std::{io, sync::Arc};

use poem::http::StatusCode;
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry},
    types::{Example, Type},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Declared, Fault, MEDIA_TYPE, Problem,
    types::{self, ProblemType},
};
use crate::{
    request_id::RequestId,
    schema::{MAX_BODY_BYTES, one_of, published},
    task::Task,
};

/// The most violations that one refusal lists.
pub(super) const MAX_VIOLATIONS: usize = 100;
/// The schema that is any of the problems.
const ANY: &str = "AnyProblem";

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, Object)]
pub(super) struct Details {
    /// What kind of problem it is. It is also the path at which the server explains it. It is never renamed.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: String,
    /// The name of the kind of problem.
    #[oai(validator(max_length = 100))]
    title: String,
    /// The status code of the answer.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    status: i32,
    /// What was wrong with this request, in a sentence or two that can be shown to a person.
    #[oai(validator(max_length = 4000))]
    detail: String,
    /// The id of the request, by which the operator finds it in the log. It is also the `X-Request-Id` header.
    request_id: RequestId,
    /// Every violation of the contract, wherever it stands; the first 100, if there are more.
    #[oai(validator(min_items = 1, max_items = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Violation>>,
    /// The task as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Task>,
}

impl Details {
    pub(super) fn new(fault: &Fault, request_id: &RequestId) -> Self {
        let problem = fault.problem_type();
        Self {
            kind: problem.path(),
            title: problem.title.to_owned(),
            status: problem.status.as_u16().into(),
            detail: fault.to_string(),
            request_id: request_id.clone(),
            errors: match fault {
                Fault::InvalidRequest(violations) => Some(violations.iter().take(MAX_VIOLATIONS).cloned().collect()),
                _ => None,
            },
            current: match fault {
                Fault::VersionMismatch { current } => Some((**current).clone()),
                _ => None,
            },
        }
    }
}

/// One way in which a request breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
#[oai(example)]
pub struct Violation {
    /// Where it stands: in the `query`, in a `header`, or in the `body`.
    #[oai(rename = "in")]
    #[serde(rename = "in")]
    pub place: Place,
    /// The name of the parameter or of the header.
    #[oai(skip_serializing_if_is_none, validator(max_length = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where in the body: a JSON pointer (RFC 6901), such as `/title`. Empty for the body as a whole.
    // The name of an unknown field is as long as a body may be, and each of its characters may have to be escaped.
    #[oai(skip_serializing_if_is_none, validator(max_length = 131_073))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The keyword of the schema that is violated, such as `maxLength`, `required` or `type`.
    #[oai(validator(max_length = 100))]
    pub code: String,
    /// What is wrong, as the end of a sentence that can be shown to a person.
    #[oai(validator(max_length = 300))]
    pub detail: String,
    /// The bound that is broken, such as 200 with the code `maxLength`. Only for a code that has one.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0"), maximum(value = "1000000")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

impl Example for Violation {
    fn example() -> Self {
        Self {
            place: Place::Body,
            name: None,
            pointer: Some("/title".to_owned()),
            code: "maxLength".to_owned(),
            detail: "must have at most 200 characters; it has 201".to_owned(),
            limit: Some(200),
        }
    }
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The parameters after the question mark.
    Query,
    /// A header.
    Header,
    /// The body.
    Body,
}

published!(Place, one_of(["query", "header", "body"]));

impl<D: Declared> ApiResponse for Problem<D> {
    // poem-openapi has no word for a schema with single values, nor for several named examples. So it is told just the
    // types, and `contract` replaces what it makes of them by what `response` and `schemas` say.
    fn meta() -> MetaResponses {
        let mut declared: Vec<&ProblemType> = D::PROBLEMS.iter().copied().flatten().collect();
        declared.sort_by_key(|problem| problem.status);
        let by_status = declared.chunk_by(|a, b| a.status == b.status);
        let response = |same: &[&ProblemType]| {
            let schema = MetaSchemaRef::Inline(Box::new(one_of(same.iter().map(|problem| problem.slug))));
            let content = vec![MetaMediaType { content_type: MEDIA_TYPE, schema }];
            let status = Some(same[0].status.as_u16());
            MetaResponse { description: "", status, status_range: None, content, headers: Vec::new() }
        };
        MetaResponses { responses: by_status.map(response).collect() }
    }

    fn register(_: &mut Registry) {}
}

/// The types that an operation declares for one status, if `response` is what [`Problem`] makes poem-openapi write.
pub(crate) fn declared(response: &Value) -> Option<Vec<&'static ProblemType>> {
    let slugs = response["content"].get(MEDIA_TYPE)?["schema"]["enum"].as_array()?;
    Some(slugs.iter().map(|slug| slug.as_str().and_then(ProblemType::find).expect("it is written above")).collect())
}

/// How the contract shows the refusals with one status, and its name among the components: it is the same for every
/// operation that declares the same types.
///
/// `shown` are the faults that stand as examples of their types, instead of the usual ones.
pub(crate) fn response(problems: &[&'static ProblemType], shown: &[Fault]) -> (String, Value) {
    let joined = |of: fn(&ProblemType) -> String, separator| {
        problems.iter().map(|problem| of(problem)).collect::<Vec<_>>().join(separator)
    };
    let examples: Map<_, _> = problems
        .iter()
        .map(|problem| (problem.slug.to_owned(), json!({"summary": problem.title, "value": example(problem, shown)})))
        .collect();
    let content = json!({"schema": either(problems), "examples": examples});
    let headers = headers(problems[0].status);
    let description = joined(|problem| problem.meaning.to_owned(), " Or: ");
    let response = json!({"description": description, "content": {MEDIA_TYPE: content}, "headers": headers});
    (joined(ProblemType::name, "Or"), response)
}

/// The schemas of all problems, by name: one for each type, and one that is any of them.
pub(crate) fn schemas() -> Vec<(String, Value)> {
    let mut registry = Registry::new();
    Details::register(&mut registry);
    let written = |name: &str| json!(registry.schemas[name]);
    let mut schemas: Vec<_> =
        types::ALL.iter().map(|problem| (schema_name(problem), schema(problem, written("Details")))).collect();
    let mut any = either(types::ALL);
    any["description"] =
        "Any problem. New types may be added: a client has a branch for those that it does not know.".into();
    any["example"] = example(&types::NO_SUCH_TASK, &[]);
    schemas.push((ANY.to_owned(), any));
    schemas.push((Violation::name().into_owned(), written(&Violation::name())));
    schemas
}

/// What all problems have in common, as it is for one type.
fn schema(problem: &ProblemType, mut schema: Value) -> Value {
    let example = example(problem, &[]);
    let names: Vec<_> = example.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    schema["properties"].as_object_mut().expect("a problem is an object").retain(|name, _| names.contains(name));
    if let Some(current) = schema["properties"].get_mut("current") {
        *current = json!(Task::schema_ref());
    }
    schema["properties"]["type"]["enum"] = json!([problem.path()]);
    schema["properties"]["status"]["enum"] = json!([problem.status.as_u16()]);
    schema["description"] = problem.meaning.into();
    schema["required"] = json!(names);
    schema["example"] = example;
    schema
}

fn schema_name(problem: &ProblemType) -> String {
    problem.name() + "Problem"
}

fn either(problems: &[&ProblemType]) -> Value {
    let references =
        problems.iter().map(|problem| json!({"$ref": format!("#/components/schemas/{}", schema_name(problem))}));
    let mut references: Vec<_> = references.collect();
    if references.len() == 1 { references.remove(0) } else { json!({"oneOf": references}) }
}

/// The headers that come with every refusal with this status.
fn headers(status: StatusCode) -> Value {
    match status {
        StatusCode::UNAUTHORIZED => json!({"WWW-Authenticate": {
            "description": "What to send instead, and why the token was refused (RFC 6750).",
            "required": true,
            "schema": {"type": "string", "maxLength": 500, "pattern": "^Bearer"},
        }}),
        StatusCode::PRECONDITION_FAILED => json!({"ETag": {
            "description": "The entity tag of the task as it is now.",
            "required": true,
            "schema": Task::tag_schema(),
        }}),
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            json!({"Retry-After": {
                "description": "After how many seconds to try again.",
                "required": true,
                "schema": {"type": "integer", "format": "int32", "maximum": 3600, "minimum": 0},
            }})
        }
        _ => json!({}),
    }
}

/// A refusal of this type: one of `shown`, or the usual one.
fn example(problem: &ProblemType, shown: &[Fault]) -> Value {
    let usual = [
        Fault::MalformedRequest("A request of HTTP/1.1 has one header `Host`.".into()),
        Fault::SlowRequest,
        Fault::UriTooLong,
        Fault::HeadersTooLarge,
        Fault::MalformedBody("EOF while parsing an object at line 1 column 28".to_owned()),
        Fault::NoToken,
        Fault::AnotherUser,
        Fault::NoSuchTask,
        Fault::NoSuchPath,
        Fault::MethodNotAllowed { allowed: vec![poem::http::Method::GET, poem::http::Method::HEAD] },
        Fault::KeyInUse,
        Fault::ChangesExpired,
        Fault::VersionMismatch { current: Box::new(Task::example()) },
        Fault::BodyTooLarge { limit_bytes: MAX_BODY_BYTES },
        Fault::UnsupportedMediaType(None),
        Fault::InvalidRequest(vec![Violation::example()]),
        Fault::KeyReused,
        Fault::TooManyRequests { whose: "user", wait_secs: 3 },
        Fault::defect(""),
        Fault::Unavailable(Arc::new(io::Error::other(""))),
    ];
    let fault =
        shown.iter().chain(&usual).find(|fault| fault.problem_type() == problem).expect("every type has an example");
    json!(Details::new(fault, &RequestId::example()))
}
