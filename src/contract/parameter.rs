//! Parameters: in the path, in the query, in headers.
//!
//! poem-openapi has extractors of its own. These differ in what they say to the caller (the published name, and what
//! would be right), in refusing a parameter that is given twice, and in not passing over a header that is not ASCII: an
//! `If-Match` that goes unread would be a lost update.

use poem::{Request, RequestBody, Result, http::Uri};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};
use url::form_urlencoded;

use super::Contract;
use crate::problem::Fault;

/// A value that a request carries beside its body.
pub trait Parameter: Sized + Send {
    /// How the contract shows it. Its description and its example are shown with the parameter.
    fn schema() -> MetaSchema;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence: "must be …".
    fn parse(text: &str) -> Result<Self, &'static str>;
}

/// A part of the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// A parameter in the query, which may be left out.
#[derive(Debug)]
pub struct Query<T>(pub Option<T>);

/// A parameter in a header, which may be left out. Several headers of the name are one list.
#[derive(Debug)]
pub struct Header<T>(pub Option<T>);

macro_rules! extracted {
    ($name:ident, $place:ident, required: $required:literal, $read:expr) => {
        impl<'a, T: Parameter> ApiExtractor<'a> for $name<T> {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
            const PARAM_IS_REQUIRED: bool = $required;

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

extracted!(Path, Path, required: true, in_path);
extracted!(Query, Query, required: false, in_query);
extracted!(Header, Header, required: false, in_headers);

/// `position` is poem's name for the n-th parameter: `param0`, `param1`, …
fn in_path<T: Parameter>(request: &Request, position: &str) -> Result<T, Fault> {
    let invalid = |problem| {
        let operation = Contract::get().operation(request.method(), request.uri().path());
        let name = position.strip_prefix("param").and_then(|n| operation?.parameter(n.parse().ok()?));
        Fault::InvalidParameter { place: "path parameter", name: name.unwrap_or(position).to_owned(), problem }
    };
    let text = request.raw_path_param(position).ok_or_else(|| invalid("is not UTF-8"))?;
    T::parse(text).map_err(invalid)
}

fn in_query<T: Parameter>(request: &Request, name: &str) -> Result<Option<T>, Fault> {
    let invalid = |problem| Fault::InvalidParameter { place: "query parameter", name: name.to_owned(), problem };
    let mut values = pairs(request.uri()).filter(|(given, _)| given == name);
    let Some((_, text)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("is given more than once"));
    }
    T::parse(&text).map(Some).map_err(invalid)
}

fn in_headers<T: Parameter>(request: &Request, name: &str) -> Result<Option<T>, Fault> {
    let values: Vec<_> =
        request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if values.is_empty() {
        return Ok(None);
    }
    T::parse(&values.join(",")).map(Some).map_err(|problem| Fault::InvalidParameter {
        place: "header",
        name: name.to_owned(),
        problem,
    })
}

/// The parameters of a query, decoded.
pub(crate) fn pairs(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}
