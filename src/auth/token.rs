//! Bearer tokens: reading, believing or refusing them, and minting them for development.
//!
//! The algorithm comes from the configuration and never from the token. What this must never do is fall back: to
//! another claim for the subject, to another key, to an unsigned token.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation, decode, encode, errors::ErrorKind};
use poem::http::{HeaderMap, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Owner,
    owner::{MAX_USER_ID_CHARS, Verified},
};
use crate::{clock::Clock, config::Secret, problem::Fault};

/// Believes or refuses tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    key: DecodingKey,
    validation: Validation,
    clock: Clock,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    iat: Option<Value>,
}

impl Verifier {
    /// Believes the tokens that are signed with `secret` by HS256: its bytes as they are, as Better Auth uses them.
    #[must_use]
    pub fn of_shared_secret(secret: &Secret, leeway_secs: u64) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = leeway_secs;
        validation.validate_nbf = true;
        // The same secret also signs e-mail verification and cookie tokens, which have no subject.
        validation.set_required_spec_claims(&["exp", "sub"]);
        // Tokens of this form often have no audience, and no setting says which one would be ours.
        validation.validate_aud = false;
        Self(Arc::new(Inner { key: DecodingKey::from_secret(secret.expose().as_bytes()), validation, clock: Clock }))
    }

    /// The user whom `token` speaks for.
    ///
    /// # Errors
    /// [`Fault::InvalidToken`] with the reason, which helps an honest developer.
    pub fn verify(&self, token: &str) -> Result<Owner, Fault> {
        let Inner { key, validation, clock } = &*self.0;
        let data =
            decode::<Claims>(token, key, validation).map_err(|error| Fault::InvalidToken(reason(error.kind())))?;

        if data.header.crit.is_some() {
            return Err(Fault::InvalidToken("its header has critical extensions (crit), which are not supported"));
        }
        // Other tokens are signed with the same key: session caches, logout tokens.
        if data.header.typ.is_some_and(|kind| !kind.eq_ignore_ascii_case("JWT")) {
            return Err(Fault::InvalidToken("its type (typ) is not JWT"));
        }
        if let Some(issued_at) = data.claims.iat {
            let seconds = issued_at.as_f64().ok_or(Fault::InvalidToken("its issue time (iat) is not a number"))?;
            let now: DateTime<Utc> = clock.now().into();
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in 53 bits")]
            if seconds > (now.timestamp() + i64::try_from(validation.leeway).unwrap_or(0)) as f64 {
                return Err(Fault::InvalidToken("it was issued in the future (iat)"));
            }
        }
        match data.claims.sub {
            Some(Value::String(subject)) if is_user_id(&subject) => Ok(Owner(Verified(subject))),
            _ => Err(Fault::InvalidToken("its subject (sub) is not a text of 1 to 255 characters")),
        }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Verifier(HS256)")
    }
}

/// Whether `text` can be a user's id.
#[must_use]
pub fn is_user_id(text: &str) -> bool {
    // PostgreSQL can't keep NUL.
    (1..=MAX_USER_ID_CHARS).contains(&text.chars().count()) && !text.contains('\0')
}

/// The token in the one header that may hold it.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Fault> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(Fault::NoToken) };
    if values.next().is_some() {
        return Err(Fault::InvalidToken("there must be one Authorization header, not several"));
    }
    let value = value.to_str().map_err(|_| Fault::InvalidToken("it is not ASCII"))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => Ok(token.trim()),
        _ => Err(Fault::NoToken),
    }
}

/// Why a token was refused, in words that help an honest developer and no forger. They stand in a quoted header.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired (exp)",
        ErrorKind::ImmatureSignature => "it is not valid yet (nbf)",
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => "it has no usable expiry time (exp)",
        ErrorKind::MissingRequiredClaim(_) => "its subject (sub) is not a text of 1 to 255 characters",
        ErrorKind::InvalidClaimFormat(_) => "its expiry time (exp) or start time (nbf) is not a number",
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => {
            "its signature is not that of the expected issuer (HS256 with the shared secret)"
        }
        ErrorKind::Json(_) => "its header, or a claim (exp, nbf, sub), is not of the expected form",
        _ => "it is not a JSON Web Token in compact form",
    }
}

/// Makes a token for `user`, as the issuer would, that is valid from now for `lifetime`.
///
/// # Errors
/// If the signature can't be made.
pub fn mint(secret: &Secret, user: &str, lifetime: Duration) -> Result<String, jsonwebtoken::errors::Error> {
    #[derive(Serialize)]
    struct Claims<'a> {
        sub: &'a str,
        iat: i64,
        exp: i64,
    }
    let now = DateTime::<Utc>::from(Clock.now()).timestamp();
    let exp = now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
    let claims = Claims { sub: user, iat: now, exp };
    encode(&jsonwebtoken::Header::default(), &claims, &EncodingKey::from_secret(secret.expose().as_bytes()))
}
