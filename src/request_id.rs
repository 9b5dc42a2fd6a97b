//! The id of a request: what the operator finds it by in the log.

use std::fmt;

use poem::http::HeaderName;
use poem_openapi::{registry::MetaSchema, types::Example};
use serde::Serialize;
use uuid::Uuid;

use crate::schema::published;

/// The header that carries it, in requests and in answers.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_CHARS: usize = 128;

/// The id of a request: the caller's own if it is valid, else a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RequestId(String);

published!(RequestId, schema());

/// How the contract shows it: up to 128 letters, digits, `.`, `_` and `-`, which are safe in a log line and in a header.
pub(crate) fn schema() -> MetaSchema {
    MetaSchema {
        min_length: Some(1),
        max_length: Some(MAX_CHARS),
        pattern: Some(format!("^[A-Za-z0-9._-]{{1,{MAX_CHARS}}}$")),
        ..MetaSchema::new("string")
    }
}

impl RequestId {
    /// The id that a caller has chosen, if it is valid.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ((1..=MAX_CHARS).contains(&text.len()) && text.bytes().all(is_allowed)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Example for RequestId {
    fn example() -> Self {
        Self("019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57".to_owned())
    }
}

impl From<Uuid> for RequestId {
    fn from(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}
