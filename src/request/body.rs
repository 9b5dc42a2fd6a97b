//! Enforcing the contract on request bodies.
//!
//! A body is read up to a bound (413), parsed (400), validated against the published schema (422, with every violation
//! elsewhere in the request), and only then made into its type. So what is enforced is what is published, by construction.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use jsonschema::{
    JsonType, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use poem::{
    Request, RequestBody, Result,
    error::ReadBodyError,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::Type,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::violations::{Checked, Violations};
use crate::{
    problem::{Fault, Place, Violation},
    schema::MAX_BODY_BYTES,
    task,
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
pub struct Body<T>(Checked<T>);

/// The body of a request that may have none, valid by the contract.
#[derive(Debug)]
pub struct OptionalBody<T>(Checked<Option<T>>);

impl<T> Body<T> {
    /// The value, if nothing in the request breaks the contract.
    ///
    /// # Errors
    /// [`Fault::InvalidRequest`] with everything that does.
    pub fn get(self) -> Result<T, Fault> {
        self.0.get()
    }
}

impl<T> OptionalBody<T> {
    /// The value, if there is a body, and nothing in the request breaks the contract.
    ///
    /// # Errors
    /// [`Fault::InvalidRequest`] with everything that does.
    pub fn get(self) -> Result<Option<T>, Fault> {
        self.0.get()
    }
}

macro_rules! body_extractor {
    ($name:ident, required: $required:literal, $from_bytes:ident) => {
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
                let bytes = bytes(request, body.take()?).await?;
                Ok(Self(Checked::unless_broken($from_bytes(validator, &bytes)?, Violations::of(request)?)))
            }
        }
    };
}

body_extractor!(Body, required: true, required);
body_extractor!(OptionalBody, required: false, optional);

/// The bytes of a body that is declared as JSON, or none. What is empty has no type, whatever it is called: some clients
/// name one for every request.
async fn bytes(request: &Request, body: poem::Body) -> Result<Bytes, Fault> {
    let declared = request.header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let supported = is_supported(request);
    match declared {
        Some(0) => return Ok(Bytes::new()),
        Some(1..) => supported?,
        None if !request.headers().contains_key(TRANSFER_ENCODING) => return Ok(Bytes::new()),
        None => {}
    }
    let too_large = || Fault::BodyTooLarge { limit_bytes: MAX_BODY_BYTES };
    if declared.is_some_and(|length: usize| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let bytes = body.into_bytes_limit(MAX_BODY_BYTES).await.map_err(|error| match error {
        ReadBodyError::PayloadTooLarge => too_large(),
        _ => Fault::MalformedBody("it broke off before its end".to_owned()),
    })?;
    if !bytes.is_empty() {
        is_supported(request)?;
    }
    Ok(bytes)
}

/// Whether a body of this kind can be read.
fn is_supported(request: &Request) -> Result<(), Fault> {
    let coding =
        request.header(CONTENT_ENCODING).map(str::trim).filter(|coding| !coding.eq_ignore_ascii_case("identity"));
    if let Some(coding) = coding {
        let shown = coding.chars().filter(|c| c.is_ascii_graphic() && *c != '`').take(40);
        return Err(Fault::UnsupportedMediaType(Some(shown.collect())));
    }
    let kind = request.content_type().and_then(|kind| kind.split(';').next());
    let is_json = kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON));
    if is_json { Ok(()) } else { Err(Fault::UnsupportedMediaType(None)) }
}

fn required<T: DeserializeOwned>(validator: &Validator, bytes: &[u8]) -> Result<Result<T, Vec<Violation>>, Fault> {
    if bytes.is_empty() {
        return Ok(Err(vec![in_body(String::new(), "required", "is missing", None)]));
    }
    valid(validator, bytes)
}

fn optional<T: DeserializeOwned>(
    validator: &Validator,
    bytes: &[u8],
) -> Result<Result<Option<T>, Vec<Violation>>, Fault> {
    if bytes.is_empty() { Ok(Ok(None)) } else { Ok(valid(validator, bytes)?.map(Some)) }
}

/// Makes a body into its type, or tells in which ways it is not what the contract asks for.
fn valid<T: DeserializeOwned>(validator: &Validator, bytes: &[u8]) -> Result<Result<T, Vec<Violation>>, Fault> {
    if let Some(mark) = byte_order_mark(bytes) {
        return Err(Fault::MalformedBody(format!("it begins with a byte order mark ({mark}); send UTF-8 without one")));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| Fault::MalformedBody(error.to_string()))?;
    let found = (!validator.is_valid(&value)).then(|| violations(validator, &value));
    // From the bytes once more, not from the value, in which the last of two equal names has won: a gateway in front
    // may have read the first one. serde refuses the second, and after the check there is nothing else to refuse.
    match (found, serde_json::from_slice(bytes)) {
        (Some(violations), _) => Ok(Err(violations)),
        (None, Ok(body)) => Ok(Ok(body)),
        (None, Err(error)) => {
            let (line, column) = (error.line(), error.column());
            let what = format!("a name occurs twice in one object, at line {line} column {column}");
            Err(Fault::MalformedBody(what))
        }
    }
}

/// The mark at the start of text that some editors and programs put there, which JSON does not allow.
fn byte_order_mark(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xEF, 0xBB, 0xBF, ..] => Some("UTF-8"),
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] => Some("UTF-16"),
        _ => None,
    }
}

fn violations(validator: &Validator, value: &Value) -> Vec<Violation> {
    let mut found: Vec<_> = validator.iter_errors(value).flat_map(|error| explain(&error)).collect();
    // What is empty is not blank as well.
    let empty: Vec<_> = found.iter().filter(|one| one.code == "minLength").map(|one| one.pointer.clone()).collect();
    found.retain(|one| one.code != "pattern" || !empty.contains(&one.pointer));
    found
}

fn in_body(pointer: String, code: &str, detail: impl Into<String>, limit: Option<u64>) -> Violation {
    Violation {
        place: Place::Body,
        name: None,
        pointer: Some(pointer),
        code: code.to_owned(),
        detail: detail.into(),
        limit: limit.and_then(|limit| limit.try_into().ok()),
    }
}

/// What one error of the validator means for whoever wrote the body. The value itself is not repeated.
fn explain(error: &ValidationError<'_>) -> Vec<Violation> {
    let pointer = error.instance_path().as_str();
    let code = error.kind().keyword();
    let here = |detail: String| vec![in_body(pointer.to_owned(), code, detail, None)];
    let bound = |limit: u64, detail: String| vec![in_body(pointer.to_owned(), code, detail, Some(limit))];
    // A JSON pointer's escapes (RFC 6901, section 3).
    let field = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = |name: &String| in_body(field(name), code, "is not a field that is known here", None);
            unexpected.iter().map(unknown).collect()
        }
        ValidationErrorKind::Required { property } => {
            vec![in_body(field(property.as_str().unwrap_or_default()), code, "is missing", None)]
        }
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => here(format!("must be {}", name(*kind))),
        ValidationErrorKind::Type { kind: TypeKind::Multiple(kinds) } => {
            here(format!("must be {}", kinds.iter().map(name).collect::<Vec<_>>().join(" or ")))
        }
        ValidationErrorKind::MinLength { limit: 1 } => bound(1, "must not be empty".to_owned()),
        ValidationErrorKind::MinLength { limit } => bound(*limit, format!("must have at least {limit} characters")),
        ValidationErrorKind::MaxLength { limit } => {
            let length = error.instance().as_str().map_or(0, |text| text.chars().count());
            bound(*limit, format!("must have at most {limit} characters; it has {length}"))
        }
        ValidationErrorKind::Pattern { .. } => {
            here(task::explain_pattern(error.instance().as_str().unwrap_or_default()).to_owned())
        }
        ValidationErrorKind::MinProperties { limit } => bound(*limit, "must have at least one field".to_owned()),
        _ => here(error.masked().to_string()),
    }
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
