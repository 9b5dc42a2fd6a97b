//! Parameters: in the path, in the query, in headers.
//!
//! poem-openapi has extractors of its own. These differ in what they say to the caller (the published name, and what
//! would be right), in refusing a parameter that is given twice, and in not ignoring a header that is not ASCII: an
//! `If-Match` that goes unread would be a lost update.

use std::{borrow::Cow, future::Future};

use poem::{Request, RequestBody, Result, http::Uri};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};
use url::form_urlencoded;

use crate::{problem::Fault, task::TaskId};

/// A value that a request carries in its query or in a header.
pub trait Parameter: Sized + Send {
    /// How the contract shows it. Its description and its example are shown with the parameter.
    fn schema() -> MetaSchema;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence: "must be …".
    fn parse(text: &str) -> Result<Self, Cow<'static, str>>;
}

/// A value that stands in the path.
pub trait PathParameter: Sized + Send {
    /// What it is in the contract.
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    /// How the contract shows it.
    fn schema() -> MetaSchema;

    /// Registers what else the contract shows for it.
    fn register(_: &mut Registry) {}

    /// The security schemes that it stands for.
    #[must_use]
    fn security_schemes() -> Vec<&'static str> {
        Vec::new()
    }

    /// Reads it. `text` is decoded; there is none if it is not UTF-8.
    ///
    /// # Errors
    /// Why the request is refused.
    fn extract(request: &Request, text: Option<&str>) -> impl Future<Output = Result<Self, Fault>> + Send;
}

/// A part of the path.
// poem-openapi recognises a parameter in the path by this very name.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// A parameter in the query, which may be left out.
#[derive(Debug)]
pub struct Query<T>(pub Option<T>);

/// A parameter in a header, which may be left out. Several headers of the name are one list.
#[derive(Debug)]
pub struct Header<T>(pub Option<T>);

impl<'a, T: PathParameter> ApiExtractor<'a> for Path<T> {
    const TYPES: &'static [ApiExtractorType] = T::TYPES;
    const PARAM_IS_REQUIRED: bool = true;

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        T::security_schemes()
    }

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Path)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(T::schema())))
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, options: ExtractParamOptions<()>) -> Result<Self> {
        Ok(Self(T::extract(request, request.raw_path_param(options.name)).await?))
    }
}

macro_rules! optional_parameter {
    ($name:ident, $place:ident, $read:expr) => {
        impl<'a, T: Parameter> ApiExtractor<'a> for $name<T> {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
            const PARAM_IS_REQUIRED: bool = false;

            type ParamType = ();
            type ParamRawType = ();

            fn param_in() -> Option<MetaParamIn> {
                Some(MetaParamIn::$place)
            }

            fn param_schema_ref() -> Option<MetaSchemaRef> {
                Some(MetaSchemaRef::Inline(Box::new(T::schema())))
            }

            async fn from_request(
                request: &'a Request,
                _: &mut RequestBody,
                options: ExtractParamOptions<()>,
            ) -> Result<Self> {
                Ok(Self($read(request, options.name)?))
            }
        }
    };
}

optional_parameter!(Query, Query, in_query);
optional_parameter!(Header, Header, in_headers);

fn in_query<T: Parameter>(request: &Request, name: &str) -> Result<Option<T>, Fault> {
    let invalid = |problem| Fault::InvalidParameter { place: "query parameter", name: name.to_owned(), problem };
    let mut values = query_pairs(request.uri()).filter(|(given, _)| given == name);
    let Some((_, text)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("is given more than once".into()));
    }
    T::parse(&text).map(Some).map_err(invalid)
}

fn in_headers<T: Parameter>(request: &Request, name: &str) -> Result<Option<T>, Fault> {
    let invalid = |problem| Fault::InvalidParameter { place: "header", name: name.to_owned(), problem };
    let values = request.headers().get_all(name).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if values.is_empty() {
        return Ok(None);
    }
    T::parse(&values.join(",")).map(Some).map_err(invalid)
}

/// The parameters of a query, decoded.
pub(crate) fn query_pairs(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

impl PathParameter for TaskId {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("The task's id."),
            example: Some("019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57".into()),
            ..crate::schema::uuid()
        }
    }

    async fn extract(_: &Request, text: Option<&str>) -> Result<Self, Fault> {
        text.and_then(Self::parse).ok_or_else(|| Fault::InvalidParameter {
            place: "path parameter",
            name: "task_id".to_owned(),
            problem: "must be a UUID such as `019a7e3c-91d4-7b52-8f4e-2a6c0d1b3e57`".into(),
        })
    }
}
