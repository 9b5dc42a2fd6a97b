//! Enforcing the contract on request bodies.
//!
//! A body is read up to a bound (413), parsed (400), validated against the published schema (422, every violation), and
//! only then made into its type. So what is enforced is what is published, by construction.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use jsonschema::{
    JsonType, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use poem::{
    Request, RequestBody, Result,
    error::ReadBodyError,
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::Type,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    problem::{Fault, Violation},
    schema::MAX_BODY_BYTES,
};

const JSON: &str = "application/json";

/// The validators of request bodies, by the name of the published schema. The extractors find them as data of the
/// request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Validators(Arc<HashMap<String, Validator>>);

impl FromIterator<(String, Validator)> for Validators {
    fn from_iter<I: IntoIterator<Item = (String, Validator)>>(validators: I) -> Self {
        Self(Arc::new(validators.into_iter().collect()))
    }
}

impl Validators {
    /// The validator of the bodies that become a `T`.
    fn of<T: Type>(request: &Request) -> Result<&Validator, Fault> {
        let validators: Option<&Self> = request.data();
        let validator = validators.and_then(|validators| validators.0.get(T::name().as_ref()));
        validator.ok_or_else(|| Fault::defect(format!("there is no validator for {}", T::name())))
    }
}

/// The body of a request, valid by the contract.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// The body of a request that may have none, valid by the contract.
#[derive(Debug)]
pub struct OptionalBody<T>(pub Option<T>);

macro_rules! body_extractor {
    ($name:ident, required: $required:literal, $wrap:expr) => {
        impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for $name<T> {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut Registry) {
                T::register(registry);
            }

            fn request_meta() -> Option<MetaRequest> {
                let content = vec![MetaMediaType { content_type: JSON, schema: T::schema_ref() }];
                Some(MetaRequest { description: None, content, required: $required })
            }

            async fn from_request(
                request: &'a Request,
                body: &mut RequestBody,
                _: ExtractParamOptions<()>,
            ) -> Result<Self> {
                let validator = Validators::of::<T>(request)?;
                let bytes = bytes(request, body.take()?, $required).await?;
                Ok($wrap(validator, bytes)?)
            }
        }
    };
}

body_extractor!(Body, required: true, |validator, bytes: Bytes| valid(validator, &bytes).map(Self));
body_extractor!(OptionalBody, required: false, |validator, bytes: Bytes| {
    if bytes.is_empty() { Ok(Self(None)) } else { valid(validator, &bytes).map(Some).map(Self) }
});

/// The bytes of a body that is declared as JSON, or of one that is not there and need not be.
async fn bytes(request: &Request, body: poem::Body, required: bool) -> Result<Bytes, Fault> {
    let is_json = is_json(request);
    if !is_json && (required || request.headers().contains_key(CONTENT_TYPE)) {
        return Err(Fault::UnsupportedMediaType);
    }
    let too_large = || Fault::BodyTooLarge { limit_bytes: MAX_BODY_BYTES };
    let declared = request.header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if declared.is_some_and(|length: usize| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let bytes = body.into_bytes_limit(MAX_BODY_BYTES).await.map_err(|error| match error {
        ReadBodyError::PayloadTooLarge => too_large(),
        _ => Fault::MalformedBody("it broke off before its end".to_owned()),
    })?;
    // Undeclared is as good as JSON where there is nothing.
    if is_json || bytes.is_empty() { Ok(bytes) } else { Err(Fault::UnsupportedMediaType) }
}

fn is_json(request: &Request) -> bool {
    request
        .content_type()
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON))
}

/// Makes a body into its type, if it is what the contract asks for.
fn valid<T: DeserializeOwned>(validator: &Validator, bytes: &[u8]) -> Result<T, Fault> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| Fault::MalformedBody(error.to_string()))?;
    if !validator.is_valid(&value) {
        return Err(Fault::InvalidBody(validator.iter_errors(&value).flat_map(|error| violations(&error)).collect()));
    }
    // From the bytes once more, not from the value, in which the last of two equal names has won: a gateway in front
    // may have read the first one. serde refuses the second, and after the check there is nothing else to refuse.
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Fault::MalformedBody(format!("a name occurs twice in one object, at line {line} column {column}"))
    })
}

/// What one error of the validator means for whoever wrote the body. The value itself is not repeated.
fn violations(error: &ValidationError<'_>) -> Vec<Violation> {
    let pointer = error.instance_path().as_str();
    let code = error.kind().keyword();
    let at = |pointer: String, detail: String| Violation { pointer, code: code.to_owned(), detail };
    let here = |detail: String| vec![at(pointer.to_owned(), detail)];
    // A JSON pointer's escapes (RFC 6901, section 3).
    let field = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.iter().map(|name| at(field(name), "is not a field that is known here".to_owned())).collect()
        }
        ValidationErrorKind::Required { property } => {
            vec![at(field(property.as_str().unwrap_or_default()), "is missing".to_owned())]
        }
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => here(format!("must be {}", name(*kind))),
        ValidationErrorKind::Type { kind: TypeKind::Multiple(kinds) } => {
            here(format!("must be {}", kinds.iter().map(name).collect::<Vec<_>>().join(" or ")))
        }
        ValidationErrorKind::MinLength { limit } => here(format!("must have at least {}", characters(*limit))),
        ValidationErrorKind::MaxLength { limit } => {
            let length = error.instance().as_str().map_or(0, |text| text.chars().count());
            here(format!("must have at most {}; it has {length}", characters(*limit)))
        }
        ValidationErrorKind::Pattern { .. } => {
            here("has a character that is not allowed here, or none that can be seen".to_owned())
        }
        ValidationErrorKind::MinProperties { .. } => here("must have at least one field".to_owned()),
        _ => here(error.masked().to_string()),
    }
}

fn characters(count: u64) -> String {
    if count == 1 { "1 character".to_owned() } else { format!("{count} characters") }
}

fn name(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "an array",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "text",
    }
}
