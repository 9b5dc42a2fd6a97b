//! Parameters: in the path, in the query, in headers.
//!
//! poem-openapi has extractors of its own. These differ in what they say to the caller (the published name, what would be
//! right, and everything at once), in refusing a parameter that is given twice, and in not ignoring a header that is not
//! ASCII: an `If-Match` that goes unread would be a lost update.

use std::{borrow::Cow, future::Future};

use poem::{Request, RequestBody, Result, http::Uri};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};
use url::form_urlencoded;

use super::violations::{Checked, Violations};
use crate::{
    problem::{Fault, Place, Violation},
    schema,
    task::TaskId,
};

/// A value that a request carries in its query or in a header.
pub trait Parameter: Sized + Send {
    /// How the contract shows it. Its description and its example are shown with the parameter.
    fn schema() -> MetaSchema;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(text: &str) -> Result<Self, Broken>;
}

/// What is wrong with a parameter.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The keyword of its schema that is violated.
    pub code: &'static str,
    /// The bound that is broken, if the keyword has one.
    pub limit: Option<i64>,
    /// What it must be, as the end of a sentence: "must be …".
    pub detail: Cow<'static, str>,
}

impl Broken {
    /// It breaks a keyword that has no bound.
    pub fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, limit: None, detail: detail.into() }
    }

    /// It breaks a bound.
    pub fn bound(code: &'static str, limit: impl Into<i64>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, limit: Some(limit.into()), detail: detail.into() }
    }

    fn at(self, place: Place, name: &str) -> Violation {
        let Self { code, limit, detail } = self;
        let (code, detail) = (code.to_owned(), detail.into_owned());
        Violation { place, name: Some(name.to_owned()), pointer: None, code, detail, limit }
    }
}

/// A value that stands in the path.
pub trait PathParameter: Sized + Send {
    /// What it is in the contract.
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    /// Whether a request without it is refused before anything else in it is looked at.
    const IS_REFUSED_FIRST: bool = false;

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
pub struct Path<T>(Checked<T>);

impl<T> Path<T> {
    /// The value, if nothing in the request breaks the contract.
    ///
    /// # Errors
    /// [`Fault::InvalidRequest`] with everything that does; or why there is no such value.
    pub fn get(self) -> Result<T, Fault> {
        self.0.get()
    }
}

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
        match T::extract(request, request.raw_path_param(options.name)).await {
            Err(fault) if T::IS_REFUSED_FIRST => Err(fault.into()),
            value => Ok(Self(Checked::new(value, Violations::of(request)?))),
        }
    }
}

macro_rules! optional_parameter {
    ($(#[$doc:meta])* $name:ident, $place:ident, $texts:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<T>(Checked<Option<T>>);

        impl<T> $name<T> {
            /// The value, if there is one, and nothing in the request breaks the contract.
            ///
            /// # Errors
            /// [`Fault::InvalidRequest`] with everything that does.
            pub fn get(self) -> Result<Option<T>, Fault> {
                self.0.get()
            }
        }

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
                let parsed = $texts(request, options.name).and_then(|text| text.as_deref().map(T::parse).transpose());
                let value = parsed.map_err(|broken| vec![broken.at(Place::$place, options.name)]);
                Ok(Self(Checked::unless_broken(value, Violations::of(request)?)))
            }
        }
    };
}

optional_parameter! {
    /// A parameter in the query, which may be left out.
    Query, Query, in_query
}
optional_parameter! {
    /// A parameter in a header, which may be left out. Several headers of the name are one list.
    Header, Header, in_headers
}

fn in_query<'r>(request: &'r Request, name: &str) -> Result<Option<Cow<'r, str>>, Broken> {
    let mut values = query_pairs(request.uri()).filter(|(given, _)| given == name).map(|(_, value)| value);
    let first = values.next();
    if values.next().is_some() { Err(Broken::new("duplicate", "must be given once only")) } else { Ok(first) }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for `in_query`, too")]
fn in_headers<'r>(request: &'r Request, name: &str) -> Result<Option<Cow<'r, str>>, Broken> {
    let values = request.headers().get_all(name).iter();
    let mut values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(first) = values.next() else { return Ok(None) };
    Ok(Some(values.fold(first, |list, value| Cow::Owned(format!("{list},{value}")))))
}

/// The parameters of a query, decoded.
pub(crate) fn query_pairs(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

impl PathParameter for TaskId {
    fn schema() -> MetaSchema {
        MetaSchema { description: Some("The task's id."), example: Some(TaskId::EXAMPLE.into()), ..schema::uuid() }
    }

    async fn extract(_: &Request, text: Option<&str>) -> Result<Self, Fault> {
        // What is no id, such as a number in an old bookmark, is the id of no task.
        text.and_then(Self::parse).ok_or(Fault::NoSuchTask)
    }
}
