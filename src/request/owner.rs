//! The parameter `user_id`: whoever asks for it gets an [`Owner`], or the caller is refused.
//!
//! It is both a parameter and the security scheme, so an operation can't have the one without the other. It comes first
//! in every operation: what else the request carries is looked at only afterwards.

use poem::Request;
use poem_openapi::{
    ApiExtractorType,
    registry::{MetaSchema, MetaSecurityScheme, Registry},
};

use super::PathParameter;
use crate::{
    auth::{MAX_USER_ID_CHARS, Owner, Verifier, bearer_token},
    limits::{Drawn, Limits},
    problem::Fault,
    schema,
};

/// The name of the security scheme in the contract.
const SCHEME: &str = "bearer";

impl PathParameter for Owner {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter, ApiExtractorType::SecurityScheme];
    const IS_REFUSED_FIRST: bool = true;

    fn schema() -> MetaSchema {
        MetaSchema {
            min_length: Some(1),
            max_length: Some(MAX_USER_ID_CHARS),
            example: Some("wmqBpHnA7r9Hm5fZeOCKQZVgiGPffCRk".into()),
            ..schema::text("The user whose tasks these are: the subject (`sub`) of the token.")
        }
    }

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

    async fn extract(request: &Request, user_id: Option<&str>) -> Result<Self, Fault> {
        let verifier: &Verifier = request.data().ok_or_else(|| Fault::defect("there is no verifier"))?;
        let owner = verifier.verify(bearer_token(request.headers())?).await?;
        if let Some((limits, drawn)) = request.data::<Limits>().zip(request.data::<Drawn>()) {
            limits.count_user(&owner, drawn)?;
        }
        // Byte by byte. A path that is not UTF-8 is nobody's.
        if user_id == Some(owner.id()) { Ok(owner) } else { Err(Fault::AnotherUser) }
    }
}
