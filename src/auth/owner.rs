//! The proof that the caller may touch one user's data, and the extractor that asks for it.

use std::ops::Deref;

use poem::{Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, MetaSecurityScheme, Registry},
};

use super::Verifier;
use crate::problem::Fault;

/// The name of the security scheme in the contract.
const SCHEME: &str = "bearer";
/// The longest user id, in characters.
pub(super) const MAX_USER_ID_CHARS: usize = 255;

/// A user whose token has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(
    // Private, and set in one place: `token.rs`, when a token has been believed.
    pub(super) Verified,
);

/// The subject of a verified token. Outside `auth` it can't even be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verified(pub(super) String);

impl Owner {
    /// The user's id: the subject of the token, as the issuer wrote it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.0
    }
}

/// The parameter `user_id`: whoever asks for it gets an owner, or the caller is refused.
///
/// It is both a parameter and the security scheme, so an operation can't have the one without the other. It comes
/// first in every operation: what else the request carries is looked at only afterwards.
#[derive(Debug)]
pub struct Path(Owner);

impl Deref for Path {
    type Target = Owner;

    fn deref(&self) -> &Owner {
        &self.0
    }
}

impl<'a> ApiExtractor<'a> for Path {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter, ApiExtractorType::SecurityScheme];
    const PARAM_IS_REQUIRED: bool = true;

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "http",
                description: Some(
                    "A JSON Web Token of the issuer (Better Auth). Its `sub` is the user's id; it must have an `exp`. It is \
                     verified as RFC8725 advises: by the algorithm of its key, whatever the token says.",
                ),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("JWT"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Path)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("The user whose tasks these are: the subject (`sub`) of the token."),
            min_length: Some(1),
            max_length: Some(MAX_USER_ID_CHARS),
            example: Some("wmqBpHnA7r9Hm5fZeOCKQZVgiGPffCRk".into()),
            ..MetaSchema::new("string")
        })))
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, options: ExtractParamOptions<()>) -> Result<Self> {
        let verifier: &Verifier = request.data().ok_or_else(|| Fault::defect("there is no verifier"))?;
        let owner = verifier.verify(super::token::bearer(request.headers())?).await?;
        // Byte by byte. A path that is not UTF-8 is nobody's.
        if request.raw_path_param(options.name) == Some(owner.id()) {
            Ok(Self(owner))
        } else {
            Err(Fault::AnotherUser.into())
        }
    }
}
