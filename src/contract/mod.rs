//! The contract: built once from the typed operations, post-processed in one pass, and used everywhere.
//!
//! The same document is what `/openapi.json`, `/openapi.yaml`, `/docs` and `taskpact spec` give out, what request bodies
//! are validated against, what tells which operation a request means, and what `cargo test` compares with
//! `api-spec.yaml`. There must never be a second one. The modules below know nothing of it: what they need of it is handed
//! to them.

use std::{
    collections::{BTreeSet, HashMap},
    marker::PhantomData,
};

use bytes::Bytes;
use jsonschema::{PatternOptions, Validator};
use poem::{
    endpoint::BoxEndpoint,
    http::{HeaderName, Method},
};
use poem_openapi::{
    ContactObject, LicenseObject, OpenApi, OpenApiService, ServerObject,
    registry::{MetaApi, Registry},
};
use serde_json::{Value, json};

use crate::{api, problem::ProblemType, request::Validators};

mod examples;
mod links;
mod pages;
mod post_process;
mod publish;

pub use publish::routes;

const DESCRIPTION: &str = "\
Tasks for many users: each user reads and changes their own, and nobody else's.

**Tokens.** Every operation on tasks takes a bearer token (JWT). `user_id` in the path is the token's subject (`sub`), \
compared byte by byte.

**Errors.** Every answer that is not 2xx or 304 is `application/problem+json` (RFC 9457). The `type` is a path at which \
the server explains the problem; the `detail` can be shown to a person. Each type has a schema of its own, and each \
operation lists those that it can give; `AnyProblem` is any of them. A 304, which only a request with `If-None-Match` is \
answered, is neither a result nor a problem, and has no body: look at the status first. A request that breaks HTTP itself, such as one with a \
head that is too large, is answered 400, 408, 414 or 431 in the same form.

**Requests.** Every answer has an `X-Request-Id`, by which the operator finds the request in the log. Send your own \
in the header `X-Request-Id` (up to 128 letters, digits, `.`, `_` and `-`) and it is kept. HEAD is answered wherever GET \
is. Unknown query parameters are ignored, unknown fields in a body are refused. A body is not compressed; an answer may be, \
with gzip, if `Accept-Encoding` says so.

**Versions.** `API-Version` in an answer is the version of this contract that the answer keeps. Each contract that was released \
stays at `/openapi/<version>.yaml`. Between two versions, answers may get new fields and operations new problem types: a client \
ignores the fields that it does not know, and has a branch for the types that it does not know. What would break such a client \
is called breaking, and raises the version accordingly.";

/// The version of the contract that this program keeps, which is its own.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The header that says so in every answer.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("api-version");

/// The contracts that were released, by version. They stay published.
pub const RELEASED: &[(&str, &str)] = include!("../../contracts/released.rs");

/// A document in both forms.
#[derive(Debug)]
pub struct Rendition {
    /// As JSON, indented.
    pub json: Bytes,
    /// As YAML.
    pub yaml: Bytes,
}

impl Rendition {
    fn of(document: &Value) -> Self {
        let json = serde_json::to_string_pretty(document).expect("a document is plain data") + "\n";
        // The writer indents empty lines too; an editor that trims them must not break the comparison.
        let yaml = serde_saphyr::to_string(document).expect("a document is plain data");
        let yaml: String = yaml.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        Self { json: json.into(), yaml: yaml.into() }
    }
}

/// The contract, ready to be published and enforced.
#[derive(Debug)]
pub struct Contract {
    /// The document. As YAML it is the content of `api-spec.yaml`.
    pub document: Rendition,
    /// The headers that requests may have.
    pub request_headers: BTreeSet<String>,
    /// The headers that answers may have, beside those of every answer in HTTP.
    pub response_headers: BTreeSet<String>,
    operations: Vec<Operation>,
    validators: Validators,
}

/// One operation, as far as serving it needs to know.
#[derive(Debug)]
pub struct Operation {
    /// Its published name.
    pub id: String,
    /// Its method.
    pub method: Method,
    /// Its path, with its parameters in braces.
    pub template: String,
    problems: Vec<&'static ProblemType>,
}

impl Operation {
    /// Whether the operation declares that it may answer with this type of problem.
    #[must_use]
    pub fn declares(&self, problem: &ProblemType) -> bool {
        self.problems.contains(&problem)
    }

    fn is_at(&self, path: &str) -> bool {
        let mut segments = path.split('/');
        let mut template = self.template.split('/');
        loop {
            match (template.next(), segments.next()) {
                (None, None) => return true,
                // Also an empty one, as poem's routes do: that it is no valid value is for the parameter to say.
                (Some(parameter), Some(_)) if parameter.starts_with('{') => {}
                (Some(fixed), Some(segment)) if fixed == segment => {}
                _ => return false,
            }
        }
    }
}

impl Contract {
    /// The contract of this program.
    #[expect(clippy::new_without_default, reason = "there is one contract, which nobody takes for a default")]
    #[must_use]
    pub fn new() -> Self {
        let mut document: Value = serde_json::from_str(&service().spec()).expect("poem-openapi writes JSON");
        let operations = post_process::apply(&mut document);

        let validators = post_process::body_schemas(&document).into_iter().map(|name| {
            let schema = json!({"$ref": format!("#/components/schemas/{name}")});
            let validator = validator(&document, &schema);
            (name, validator)
        });
        Self {
            request_headers: post_process::request_headers(&document),
            response_headers: post_process::response_headers(&document),
            operations,
            validators: validators.collect(),
            document: Rendition::of(&document),
        }
    }

    /// The same document for tools that read OpenAPI 3.1 only. OpenAPI 3.0 stays the source.
    #[must_use]
    pub fn openapi_3_1(&self) -> Rendition {
        openapi_3_1(&self.document.json)
    }

    /// The validators of request bodies.
    #[must_use]
    pub fn validators(&self) -> Validators {
        self.validators.clone()
    }

    /// The operation that a request means, if it means one. `path` has no trailing slash.
    #[must_use]
    pub fn operation(&self, method: &Method, path: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.method == method && operation.is_at(path))
    }

    /// The methods that the contract knows at `path`, HEAD with every GET.
    #[must_use]
    pub fn methods(&self, path: &str) -> Vec<Method> {
        let mut methods = Vec::new();
        for operation in self.operations.iter().filter(|operation| operation.is_at(path)) {
            methods.push(operation.method.clone());
            if operation.method == Method::GET {
                methods.push(Method::HEAD);
            }
        }
        methods
    }
}

/// Compiles `schema`, a part of `document`, into a validator of JSON values.
///
/// # Panics
/// If `schema` is no valid schema.
#[must_use]
pub fn validator(document: &Value, schema: &Value) -> Validator {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    post_process::to_json_schema(&mut whole);
    jsonschema::options()
        .should_validate_formats(true)
        // Its time is linear in the length of the text, whatever the text is.
        .with_pattern_options(PatternOptions::regex())
        .build(&whole)
        .expect("the contract's schemas are valid")
}

/// What poem-openapi makes of the operations.
fn service() -> OpenApiService<Described<api::Operations>, ()> {
    OpenApiService::new(Described(PhantomData), "Taskpact", VERSION)
        .description(DESCRIPTION)
        .contact(ContactObject::new().name("The developers of Taskpact"))
        .license(LicenseObject::new("MIT").url("https://opensource.org/license/mit"))
        .server(ServerObject::new("/").description("This server"))
}

fn openapi_3_1(json: &[u8]) -> Rendition {
    let mut document = serde_json::from_slice(json).expect("it was written here");
    post_process::to_openapi_3_1(&mut document);
    Rendition::of(&document)
}

/// The description of operations, without anything to run them on.
struct Described<T>(PhantomData<fn() -> T>);

impl<T: OpenApi> OpenApi for Described<T> {
    fn meta() -> Vec<MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, _: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}
