//! Bearer tokens: reading, accepting or refusing them, and minting them for development.
//!
//! How tokens are accepted is configured: by a shared secret, or by published keys. The token has no say in it. What this
//! must never do is fall back: to another claim for the user, to another key, to an unsigned token.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, encode};
use poem::http::{HeaderMap, header::AUTHORIZATION};
use prometheus_client::registry::Registry;
use quick_cache::{Weighter, sync::Cache};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Value, json};

use super::{Owner, jwks::Published, keys::Key, owner::is_user_id};
use crate::{
    clock::Clock,
    config::{self, Unusable},
    problem::Fault,
};

/// The longest token that is looked at, in bytes. A proxy usually takes no more than this in all headers together.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The longest part of a claim that a refusal repeats, in characters.
const MAX_REPEATED_CHARS: usize = 100;
/// How many verdicts are kept, and how long their tokens are at most in all, in bytes.
const MAX_VERDICTS: usize = 10_000;
const MAX_VERDICT_BYTES: u64 = 8 * 1024 * 1024;

/// Accepts or refuses tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: Keys,
    rules: Rules,
    /// What has been accepted, by the whole token. To verify a signature again could cost more than all the rest of a short
    /// request.
    verdicts: Cache<Box<str>, Verdict, ByBytes>,
    clock: Clock,
}

enum Keys {
    Shared(Vec<Arc<Key>>),
    Published(Published),
}

impl Keys {
    /// Whether what `key` has signed is still accepted.
    fn has(&self, key: &Arc<Key>) -> bool {
        match self {
            // They are the same as long as the server runs.
            Self::Shared(_) => true,
            Self::Published(keys) => keys.has(key),
        }
    }
}

/// That a token was accepted. It holds as long as the key is published and the time has not come.
#[derive(Clone)]
struct Verdict {
    owner: Owner,
    key: Arc<Key>,
    expires_at: f64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<str>, Verdict> for ByBytes {
    fn weight(&self, token: &Box<str>, _: &Verdict) -> u64 {
        token.len() as u64
    }
}

/// What a token has to say, whoever has signed it.
struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_secs: f64,
    user_id_claim: String,
    /// The types (`typ`) that are ours, beside none at all.
    types: &'static [&'static str],
}

impl Verifier {
    /// Accepts tokens as `settings` say.
    ///
    /// # Errors
    /// There is neither a secret nor a place of keys, or a file of keys can't be used.
    pub async fn new(settings: &config::Auth) -> Result<Self, Unusable> {
        let max_age = Duration::from_secs(settings.jwks_max_age_secs.get());
        let keys = match (&settings.secret, &settings.jwks_url, &settings.jwks_file) {
            (Some(secret), ..) => {
                let secrets = [Some(secret), settings.previous_secret.as_ref()];
                Keys::Shared(secrets.into_iter().flatten().map(Key::of_secret).map(Arc::new).collect())
            }
            (None, Some(url), _) => Keys::Published(Published::at_url(url.clone(), max_age)?),
            (None, None, Some(file)) => Keys::Published(Published::in_file(file.clone(), max_age).await?),
            (None, None, None) => return Err(Unusable("there is nothing to verify tokens with".to_owned())),
        };
        let is_published = matches!(keys, Keys::Published(_));
        let rules = Rules {
            issuer: settings.issuer.clone(),
            // Better Auth's tokens are for their issuer if nothing else is said.
            audience: settings.audience.clone().or_else(|| settings.issuer.clone().filter(|_| is_published)),
            leeway_secs: settings.leeway_secs.get::<u32>().into(),
            user_id_claim: settings.user_id_claim.clone(),
            // An access token by RFC 9068 says for whom it is, which is only looked at with published keys.
            types: if is_published { &["jwt", "at+jwt"] } else { &["jwt"] },
        };
        let verdicts = Cache::with_weighter(MAX_VERDICTS, MAX_VERDICT_BYTES, ByBytes);
        Ok(Self(Arc::new(Inner { keys, rules, verdicts, clock: Clock })))
    }

    /// Keeps the published keys fresh, for ever.
    pub async fn keep_fresh(self) {
        match &self.0.keys {
            Keys::Shared(_) => std::future::pending().await,
            Keys::Published(keys) => keys.keep_fresh().await,
        }
    }

    /// Registers what is measured.
    pub fn register(&self, registry: &mut Registry) {
        if let Keys::Published(keys) = &self.0.keys {
            keys.register(registry);
        }
    }

    /// Looks at what is measured when somebody asks.
    pub fn measure(&self) {
        if let Keys::Published(keys) = &self.0.keys {
            keys.measure();
        }
    }

    /// The user whom `token` speaks for.
    ///
    /// # Errors
    /// [`Fault::InvalidToken`] with the reason, which helps an honest developer; [`Fault::NoKeys`] if the issuer's keys
    /// could not be had yet.
    pub async fn verify(&self, token: &str) -> Result<Owner, Fault> {
        let Inner { keys, rules, verdicts, clock } = &*self.0;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Fault::invalid_token(format!("it is longer than {MAX_TOKEN_BYTES} bytes")));
        }
        let now = || seconds(clock.now().into());
        if let Some(Verdict { owner, key, expires_at }) = verdicts.get(token)
            && keys.has(&key)
        {
            rules.not_expired(expires_at, now())?;
            return Ok(owner);
        }
        let parts = Parts::of(token, rules)?;
        let key = match keys {
            Keys::Shared(keys) => {
                if parts.algorithm != Some(Algorithm::HS256) {
                    let why = "its algorithm (alg) is not HS256: tokens of a shared secret are expected here";
                    return Err(Fault::invalid_token(why));
                }
                keys.iter().find(|key| parts.are_signed_by(key)).map(Arc::clone).ok_or_else(badly_signed)?
            }
            Keys::Published(published) => {
                // No key is looked for that can't be one. A secret's algorithm is never a published key's.
                let algorithm = parts.algorithm.filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac);
                let unknown = || Fault::invalid_token("its algorithm (alg) is not one that published keys are for");
                let algorithm = algorithm.ok_or_else(unknown)?;
                let signer = async || {
                    let keys = published.keys(parts.key_id.as_deref(), algorithm).await?;
                    Ok::<_, Fault>(keys.into_iter().find(|key| parts.are_signed_by(key)))
                };
                match signer().await? {
                    Some(key) => key,
                    None if published.have_changed().await => signer().await?.ok_or_else(badly_signed)?,
                    None => return Err(badly_signed()),
                }
            }
        };
        let (owner, expires_at) = rules.apply(parts.payload, now())?;
        verdicts.insert(token.into(), Verdict { owner: owner.clone(), key, expires_at });
        Ok(owner)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self.0.keys {
            Keys::Shared(_) => "Verifier(shared secret)",
            Keys::Published(_) => "Verifier(published keys)",
        })
    }
}

/// What a token's header says. Keys that it brings along, or says where to find (`jwk`, `jku`, `x5c`, `x5u`), are not even
/// read.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
    #[serde(default, deserialize_with = "is_there")]
    b64: bool,
}

/// That a member is there, whatever its value is.
fn is_there<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(from).map(|_| true)
}

/// A token in compact form, in its parts.
struct Parts<'t> {
    /// What the token says of itself; none if it is an algorithm that nobody here knows.
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
    message: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn of(token: &'t str, rules: &Rules) -> Result<Self, Fault> {
        let unreadable = || Fault::invalid_token("it is not a signed JSON Web Token in compact form");
        let (message, signature) = token.rsplit_once('.').ok_or_else(unreadable)?;
        let (head, payload) = message.split_once('.').ok_or_else(unreadable)?;
        if payload.contains('.') {
            return Err(unreadable());
        }
        let header = BASE64_URL_SAFE_NO_PAD.decode(head).map_err(|_| unreadable())?;
        // serde would take an array of the values, too.
        let is_object = header.trim_ascii_start().starts_with(b"{");
        let header: Option<Header> = serde_json::from_slice(&header).ok().filter(|_| is_object);
        let no_header = || Fault::invalid_token("its header is not a JSON object with an algorithm (alg)");
        let header = header.ok_or_else(no_header)?;
        if header.crit || header.b64 {
            return Err(Fault::invalid_token(
                "its header has critical extensions (crit, b64), which are not supported",
            ));
        }
        // Other tokens are signed with the same key: session caches, logout tokens.
        if let Some(kind) = &header.typ {
            let kind = kind.to_ascii_lowercase();
            if !rules.types.contains(&kind.strip_prefix("application/").unwrap_or(&kind)) {
                return Err(Fault::invalid_token("its type (typ) is not JWT"));
            }
        }
        // The name that RFC 9864 gives it, as newer issuers write it.
        let algorithm = if header.alg == "Ed25519" { Some(Algorithm::EdDSA) } else { header.alg.parse().ok() };
        Ok(Self { algorithm, key_id: header.kid, message, payload, signature })
    }

    fn are_signed_by(&self, key: &Key) -> bool {
        key.has_signed(self.message.as_bytes(), self.signature)
    }
}

fn badly_signed() -> Fault {
    Fault::invalid_token("its signature is not that of the expected issuer")
}

impl Rules {
    /// The user that the claims in `payload` speak for, and the time at which they end.
    fn apply(&self, payload: &str, now: f64) -> Result<(Owner, f64), Fault> {
        let claims = BASE64_URL_SAFE_NO_PAD.decode(payload).ok();
        let claims: Option<HashMap<String, Value>> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
        let claims = claims.ok_or_else(|| Fault::invalid_token("its claims are not a JSON object"))?;

        let expires_at = time(&claims, "exp", "expiry time")?
            .ok_or_else(|| Fault::invalid_token("it has no usable expiry time (exp)"))?;
        self.not_expired(expires_at, now)?;
        let limit = now + self.leeway_secs;
        let (starts_at, issued_at) = (time(&claims, "nbf", "start time")?, time(&claims, "iat", "issue time")?);
        for (name, at, what) in
            [("nbf", starts_at, "is not valid before"), ("iat", issued_at, "was issued in the future,")]
        {
            if let Some(at) = at.filter(|at| *at > limit) {
                let wait = span(at - now);
                return Err(Fault::invalid_token(format!("it {what} {wait} from now ({name}); is a clock wrong?")));
            }
        }
        expect(&claims, "iss", "issuer", self.issuer.as_deref())?;
        expect(&claims, "aud", "audience", self.audience.as_deref())?;
        match claims.get(&self.user_id_claim) {
            Some(Value::String(id)) if is_user_id(id) => Ok((Owner::verified(id.clone(), issued_at), expires_at)),
            _ if self.user_id_claim == "sub" => {
                Err(Fault::invalid_token("its subject (sub) is not a text of 1 to 255 characters"))
            }
            _ => {
                let claim = repeated(&self.user_id_claim);
                Err(Fault::invalid_token(format!("its claim `{claim}` is not a text of 1 to 255 characters")))
            }
        }
    }

    fn not_expired(&self, expires_at: f64, now: f64) -> Result<(), Fault> {
        if expires_at < now - self.leeway_secs {
            return Err(Fault::invalid_token(format!("it expired {} ago (exp)", span(now - expires_at))));
        }
        Ok(())
    }
}

/// The time, in seconds since 1970, that a claim holds, if it is there.
fn time(claims: &HashMap<String, Value>, name: &str, meaning: &str) -> Result<Option<f64>, Fault> {
    let Some(claim) = claims.get(name) else { return Ok(None) };
    match claim.as_f64().filter(|time| *time >= 0.0) {
        Some(time) => Ok(Some(time)),
        None => Err(Fault::invalid_token(format!("its {meaning} ({name}) is not a number of seconds since 1970"))),
    }
}

/// Sees to it that a claim is, or lists, what is expected.
fn expect(claims: &HashMap<String, Value>, name: &str, meaning: &str, expected: Option<&str>) -> Result<(), Fault> {
    let Some(expected) = expected else { return Ok(()) };
    let found = match claims.get(name) {
        Some(Value::String(text)) if text == expected => return Ok(()),
        Some(Value::Array(list)) if name == "aud" && list.iter().any(|one| one == expected) => return Ok(()),
        Some(Value::String(text)) => format!("its {meaning} ({name}) is `{}`", repeated(text)),
        Some(_) => format!("its {meaning} ({name}) is something else"),
        None => format!("it has no {meaning} ({name})"),
    };
    Err(Fault::invalid_token(format!("{found}, expected `{}`", repeated(expected))))
}

/// A claim's text as it may stand in a quoted header.
fn repeated(text: &str) -> String {
    let plain = |c: char| if (' '..='~').contains(&c) && !['"', '\\', '`'].contains(&c) { c } else { '?' };
    let mut shown: String = text.chars().take(MAX_REPEATED_CHARS).map(plain).collect();
    if shown.len() < text.chars().count() {
        shown += "...";
    }
    shown
}

/// A number of seconds in words.
fn span(secs: f64) -> String {
    // Far beyond any calendar it makes no difference.
    let whole = Duration::from_secs_f64(secs.clamp(0.0, 1e10)).as_secs();
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in 53 bits")]
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1e3
}

/// The token in the one header that may hold it.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<&str, Fault> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(Fault::NoToken) };
    if values.next().is_some() {
        return Err(Fault::invalid_token("there must be one Authorization header, not several"));
    }
    let value = value.to_str().map_err(|_| Fault::invalid_token("it is not ASCII"))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => Ok(token.trim()),
        _ => Err(Fault::NoToken),
    }
}

/// Makes a token for `user` as the issuer that `settings` describe would, valid from now for `lifetime`.
///
/// # Errors
/// There is no secret to sign with, or the signature can't be made.
pub fn mint(settings: &config::Auth, user: &str, lifetime: Duration) -> Result<String, Unusable> {
    let secret = settings.secret.as_ref().ok_or_else(|| {
        Unusable("tokens are accepted by the issuer's published keys, so that only the issuer can make one: take one from it".to_owned())
    })?;
    let now = DateTime::<Utc>::from(Clock.now()).timestamp();
    let mut claims = json!({
        "sub": user,
        "iat": now,
        "exp": now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)),
    });
    claims[&settings.user_id_claim] = user.into();
    for (name, value) in [("iss", &settings.issuer), ("aud", &settings.audience)] {
        if let Some(value) = value {
            claims[name] = value.as_str().into();
        }
    }
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&jsonwebtoken::Header::default(), &claims, &key)
        .map_err(|error| Unusable(format!("a token can't be signed: {error}")))
}
