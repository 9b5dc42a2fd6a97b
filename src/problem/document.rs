//! How the contract shows problems.

use poem::http::StatusCode;
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::{Example, Type},
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    Declared, Fault, MEDIA_TYPE, Problem,
    types::{self, ProblemType},
};
use crate::{
    request_id::RequestId,
    schema::{self, MAX_BODY_BYTES, one_of, published},
};

impl<D: Declared> ApiResponse for Problem<D> {
    // poem-openapi has no word for what a refusal is like: one schema with an example for each status, which operations
    // share. So it is told just the types, and `contract` replaces what it makes of them by what `response` says.
    fn meta() -> MetaResponses {
        let mut responses: Vec<MetaResponse> = Vec::new();
        let mut declared: Vec<&ProblemType> = D::PROBLEMS.iter().copied().flatten().collect();
        declared.sort_by_key(|problem| problem.status);
        for same in declared.chunk_by(|a, b| a.status == b.status) {
            // It forgets schemas that nothing refers to, so these are referred to.
            let any_of = vec![Details::schema_ref(), ValidationProblem::schema_ref()];
            let slugs = one_of(same.iter().map(|problem| problem.slug));
            let schema = MetaSchemaRef::Inline(Box::new(MetaSchema { any_of, ..slugs }));
            responses.push(MetaResponse {
                description: "",
                status: Some(same[0].status.as_u16()),
                status_range: None,
                content: vec![MetaMediaType { content_type: MEDIA_TYPE, schema }],
                headers: Vec::new(),
            });
        }
        MetaResponses { responses }
    }

    fn register(registry: &mut Registry) {
        Details::register(registry);
        ValidationProblem::register(registry);
    }
}

/// The types that an operation declares for one status, if `response` is what [`Problem`] makes poem-openapi write.
pub(crate) fn declared(response: &Value) -> Option<Vec<&'static ProblemType>> {
    let slugs = response["content"].get(MEDIA_TYPE)?["schema"]["enum"].as_array()?;
    Some(slugs.iter().map(|slug| slug.as_str().and_then(ProblemType::find).expect("it is written above")).collect())
}

/// How the contract shows the refusals with one status, and its name among the components: it is the same for every
/// operation that declares the same ones.
pub(crate) fn response(problems: &[&'static ProblemType]) -> (String, Value) {
    let status = problems[0].status;
    let can_be_reused = problems.contains(&&types::IDEMPOTENCY_KEY_REUSED);
    let reason = status.canonical_reason().unwrap_or_else(|| status.as_str()).replace(' ', "");
    let (name, description, schema) = match status {
        StatusCode::UNPROCESSABLE_ENTITY if can_be_reused => (
            reason + "OrReusedKey",
            "The body is JSON, but not what the contract asks for; or the `Idempotency-Key` came before, with another \
             request. The `type` tells which.",
            json!({"oneOf": [ValidationProblem::schema_ref(), Details::schema_ref()]}),
        ),
        StatusCode::UNPROCESSABLE_ENTITY => (reason, problems[0].meaning, json!(ValidationProblem::schema_ref())),
        StatusCode::BAD_REQUEST => {
            (reason, "A parameter or the body is malformed. `detail` says which and how.", json!(Details::schema_ref()))
        }
        _ => (reason, problems[0].meaning, json!(Details::schema_ref())),
    };
    let mut content = json!({"schema": schema});
    if let Some(fault) = example(status) {
        content["example"] = json!(Details::new(&fault, &RequestId::example()));
    }
    (name, json!({"description": description, "content": {MEDIA_TYPE: content}, "headers": headers(status)}))
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
            "schema": schema::entity_tag(),
        }}),
        StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => json!({"Retry-After": {
            "description": "After how many seconds to try again.",
            "required": true,
            "schema": {"type": "integer", "format": "int32", "maximum": 3600, "minimum": 0},
        }}),
        _ => json!({}),
    }
}

/// What a refusal with this status may be about. Those of a body have an example in their schema.
fn example(status: StatusCode) -> Option<Fault> {
    Some(match status {
        StatusCode::BAD_REQUEST => Fault::InvalidParameter {
            place: "query parameter",
            name: "limit".to_owned(),
            problem: "must be a whole number from 1 to 1000".into(),
        },
        StatusCode::UNAUTHORIZED => Fault::invalid_token("it expired 12s ago (exp)"),
        StatusCode::FORBIDDEN => Fault::AnotherUser,
        StatusCode::NOT_FOUND => Fault::NoSuchTask,
        StatusCode::CONFLICT => Fault::KeyInUse,
        StatusCode::PRECONDITION_FAILED => Fault::VersionMismatch { current: 3 },
        StatusCode::PAYLOAD_TOO_LARGE => Fault::BodyTooLarge { limit_bytes: MAX_BODY_BYTES },
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Fault::UnsupportedMediaType,
        StatusCode::INTERNAL_SERVER_ERROR => Fault::defect(""),
        StatusCode::SERVICE_UNAVAILABLE => Fault::TooSlow,
        _ => return None,
    })
}

/// The `type` of a problem: where it is explained.
#[derive(Debug)]
struct TypePath(&'static ProblemType);

/// The `type` of the one problem that lists violations. It is none of the others, so that a client that has looked at the
/// type knows which of the two it has.
#[derive(Debug)]
struct InvalidBodyPath;

fn paths(of: impl Fn(&ProblemType) -> bool) -> MetaSchema {
    one_of(types::ALL.iter().filter(|problem| of(problem)).map(|problem| problem.path()))
}

published!(TypePath, paths(|problem| *problem != types::INVALID_BODY));
published!(InvalidBodyPath, paths(|problem| *problem == types::INVALID_BODY));

impl Serialize for TypePath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0.path())
    }
}

impl Serialize for InvalidBodyPath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        TypePath(&types::INVALID_BODY).serialize(to)
    }
}

/// Why a request was refused (RFC 9457).
///
/// The `type` is for programs, the `detail` for people.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "Problem", example)]
pub(super) struct Details {
    /// What kind of problem it is. It is also the path at which the server explains it. It is never renamed; new kinds may
    /// be added.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: TypePath,
    /// The name of the kind of problem.
    title: String,
    /// The status code of the answer.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    status: i32,
    /// What was wrong with this request, in a sentence or two that can be shown to a person.
    detail: String,
    /// The id of the request, by which the operator finds it in the log. It is also the `X-Request-Id` header.
    request_id: RequestId,
}

impl Details {
    pub(super) fn new(fault: &Fault, request_id: &RequestId) -> Self {
        let problem = fault.problem_type();
        Self {
            kind: TypePath(problem),
            title: problem.title.to_owned(),
            status: problem.status.as_u16().into(),
            detail: fault.to_string(),
            request_id: request_id.clone(),
        }
    }
}

impl Example for Details {
    fn example() -> Self {
        Self::new(&Fault::NoSuchTask, &RequestId::example())
    }
}

/// Why a body was refused (RFC 9457), with every violation.
#[derive(Debug, Serialize, Object)]
#[oai(example)]
pub(super) struct ValidationProblem {
    /// That the body is invalid. It is also the path at which the server explains it. It is never renamed.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: InvalidBodyPath,
    /// The name of the kind of problem.
    title: String,
    /// The status code of the answer.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    status: i32,
    /// What was wrong with this body, in a sentence or two that can be shown to a person.
    detail: String,
    /// The id of the request, by which the operator finds it in the log. It is also the `X-Request-Id` header.
    request_id: RequestId,
    /// Every violation of the contract.
    #[oai(validator(min_items = 1))]
    errors: Vec<Violation>,
}

impl ValidationProblem {
    pub(super) fn new(details: Details, errors: Vec<Violation>) -> Self {
        let Details { kind: _, title, status, detail, request_id } = details;
        Self { kind: InvalidBodyPath, title, status, detail, request_id, errors }
    }
}

impl Example for ValidationProblem {
    fn example() -> Self {
        let fault = Fault::InvalidBody(vec![Violation {
            pointer: "/title".to_owned(),
            code: "maxLength".to_owned(),
            detail: "must have at most 200 characters; it has 201".to_owned(),
        }]);
        let details = Details::new(&fault, &RequestId::example());
        let Fault::InvalidBody(errors) = fault else { unreachable!("it was made four lines before") };
        Self::new(details, errors)
    }
}

/// One way in which a body breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
#[oai(example)]
pub struct Violation {
    /// Where in the body: a JSON pointer (RFC 6901), such as `/title`. Empty for the body as a whole.
    pub pointer: String,
    /// The keyword of the schema that is violated, such as `maxLength`, `required` or `type`.
    pub code: String,
    /// What is wrong, in words that can be shown to a person.
    pub detail: String,
}

impl Example for Violation {
    fn example() -> Self {
        ValidationProblem::example().errors.swap_remove(0)
    }
}
