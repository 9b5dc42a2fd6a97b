//! How types are described in the contract: the vocabulary that every published type is written with.
//!
//! It knows no operation and no document. Bounds that a value has wherever it appears stand here once.

use poem_openapi::registry::{MetaHeader, MetaSchema, MetaSchemaRef};

/// The bound of a request's body. The largest valid one, with every character escaped, has less than 15,000 bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// A header of a reply. The schema's description becomes that of the header.
pub(crate) fn header(name: &str, schema: MetaSchema, required: bool) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: schema.description.map(str::to_owned),
        required,
        deprecated: false,
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema { description: None, ..schema })),
    }
}

/// Text, with what it means.
pub(crate) fn text(description: &'static str) -> MetaSchema {
    MetaSchema { description: Some(description), ..MetaSchema::new("string") }
}

/// One of these texts.
pub(crate) fn one_of(values: impl IntoIterator<Item = impl Into<serde_json::Value>>) -> MetaSchema {
    MetaSchema { enum_items: values.into_iter().map(Into::into).collect(), ..MetaSchema::new("string") }
}

/// A UUID in its hyphenated form.
pub(crate) fn uuid() -> MetaSchema {
    MetaSchema { min_length: Some(36), max_length: Some(36), ..MetaSchema::new_with_format("string", "uuid") }
}

/// Describes a type to poem-openapi by its schema. The type itself is written, and read, by serde.
macro_rules! published {
    ($name:ident, $schema:expr) => {
        impl ::poem_openapi::types::Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> ::std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn schema_ref() -> ::poem_openapi::registry::MetaSchemaRef {
                ::poem_openapi::registry::MetaSchemaRef::Inline(Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(::std::iter::once(self))
            }
        }

        impl ::poem_openapi::types::ToJSON for $name {
            fn to_json(&self) -> Option<::serde_json::Value> {
                ::serde_json::to_value(self).ok()
            }
        }

        impl ::poem_openapi::types::ParseFromJSON for $name {
            // poem-openapi's derives require it, but nothing calls it: bodies are read by `request::Body`.
            fn parse_from_json(_: Option<::serde_json::Value>) -> ::poem_openapi::types::ParseResult<Self> {
                Err(::poem_openapi::types::ParseError::custom("bodies are read by serde"))
            }
        }
    };
}
pub(crate) use published;
