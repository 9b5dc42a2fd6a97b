//! Tokens of the shared-secret form: which are accepted, and which are not.

use chrono::{DateTime, Utc};
use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use taskpact::clock::Clock;

use super::app;
use crate::{
    BACKEND,
    support::{SECRET, TestApp, User},
};

/// A token with these claims, signed as the issuer would.
pub(super) fn signed(claims: &Value) -> String {
    signed_with(&Header::default(), claims, SECRET)
}

fn signed_with(header: &Header, claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

pub(super) fn now() -> i64 {
    DateTime::<Utc>::from(Clock.now()).timestamp()
}

/// The claims of a good token for `user`, with `changes`; a null removes a claim.
fn claims(user: &User, changes: &Value) -> Value {
    let mut claims = json!({"sub": user.id, "iat": now(), "exp": now() + 3600, "email": "ann@example.com"});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| *value != "(none)");
    claims
}

async fn accepts(user: &User, token: &str) {
    user.with_token(token).list("").await.is(200);
}

/// Panics unless the token is refused for a reason that names `word`.
async fn refuses(user: &User, token: &str, word: &str) {
    let reply = user.with_token(token).list("").await;
    let detail = reply.is_problem(401, "unauthorized").detail();
    assert!(
        detail.starts_with("The token is not valid: ") && detail.contains(word),
        "{detail:?} does not name {word:?}"
    );
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.starts_with(r#"Bearer error="invalid_token", error_description=""#), "{challenge}");
}

#[tokio::test]
async fn the_common_forms_are_accepted() {
    let app = app().await;
    let ann = app.new_user();

    for changes in [
        json!({}),
        json!({"iat": "(none)", "email": "(none)"}),
        json!({"exp": now() + 10, "nbf": now() - 10}),
        json!({"exp": 4_000_000_000.5_f64}),
        json!({"iss": "http://localhost:3000", "aud": "http://localhost:3000"}),
        json!({"aud": ["a", "b"]}),
        json!({"name": "x".repeat(8_000)}),
    ] {
        accepts(&ann, &signed(&claims(&ann, &changes))).await;
    }
    for typ in [None, Some("JWT"), Some("jwt")] {
        let header = Header { typ: typ.map(str::to_owned), ..Header::default() };
        accepts(&ann, &signed_with(&header, &claims(&ann, &json!({})), SECRET)).await;
    }
}

#[tokio::test]
async fn a_clock_may_be_off_by_the_leeway() {
    let app = app().await;
    let ann = app.new_user();

    for claim in ["nbf", "iat"] {
        accepts(&ann, &signed(&claims(&ann, &json!({claim: now() + 20})))).await;
        refuses(&ann, &signed(&claims(&ann, &json!({claim: now() + 60}))), claim).await;
    }
    accepts(&ann, &signed(&claims(&ann, &json!({"exp": now() - 20})))).await;
    refuses(&ann, &signed(&claims(&ann, &json!({"exp": now() - 60}))), "expired").await;
}

#[tokio::test]
async fn an_expiry_and_a_subject_are_required_in_their_types() {
    let app = app().await;
    let ann = app.new_user();

    for exp in [
        json!("(none)"),
        json!(null),
        json!("4000000000"),
        json!(true),
        json!([4_000_000_000_i64]),
        json!({}),
        json!(-1),
    ] {
        refuses(&ann, &signed(&claims(&ann, &json!({"exp": exp}))), "exp").await;
    }
    for sub in [
        json!("(none)"),
        json!(null),
        json!(""),
        json!(1),
        json!(true),
        json!([ann.id]),
        json!({}),
        json!("x".repeat(256)),
        json!("a\0b"),
    ] {
        let token = signed(&claims(&ann, &json!({"sub": sub, "id": ann.id, "user_id": ann.id})));
        refuses(&ann, &token, "sub").await;
    }
    for iat in [json!("now"), json!(true), json!([])] {
        refuses(&ann, &signed(&claims(&ann, &json!({"iat": iat}))), "(iat)").await;
    }
    refuses(&ann, &signed(&claims(&ann, &json!({"nbf": "soon"}))), "(nbf)").await;
}

#[tokio::test]
async fn foreign_types_and_critical_extensions_are_refused() {
    let app = app().await;
    let ann = app.new_user();

    for typ in ["better-auth.session-cache+jwt", "logout+jwt", "JWE", ""] {
        let header = Header { typ: Some(typ.to_owned()), ..Header::default() };
        refuses(&ann, &signed_with(&header, &claims(&ann, &json!({})), SECRET), "(typ)").await;
    }
    for crit in [vec![], vec!["exp".to_owned()], vec!["b64".to_owned()]] {
        let header = Header { crit: Some(crit), ..Header::default() };
        refuses(&ann, &signed_with(&header, &claims(&ann, &json!({})), SECRET), "(crit, b64)").await;
    }
}

#[tokio::test]
async fn only_the_issuers_signature_counts() {
    let app = app().await;
    let ann = app.new_user();
    let good = signed(&claims(&ann, &json!({})));
    let parts: Vec<_> = good.split('.').collect();

    refuses(
        &ann,
        &signed_with(&Header::default(), &claims(&ann, &json!({})), "another secret, also of 32 bytes or more"),
        "signature",
    )
    .await;
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        refuses(&ann, &signed_with(&Header::new(algorithm), &claims(&ann, &json!({})), SECRET), "(alg)").await;
    }
    let mut tampered = parts[2].to_owned();
    tampered.replace_range(..1, if tampered.starts_with('A') { "B" } else { "A" });
    refuses(&ann, &format!("{}.{}.{tampered}", parts[0], parts[1]), "signature").await;
    let other = signed(&claims(&app.new_user(), &json!({})));
    let swapped = other.split('.').nth(1).unwrap();
    refuses(&ann, &format!("{}.{swapped}.{}", parts[0], parts[2]), "signature").await;

    // {"alg":"none"} with and without a signature, and in other spellings.
    for (header, word) in [
        ("eyJhbGciOiJub25lIn0", "(alg)"),
        ("eyJhbGciOiJOT05FIn0", "(alg)"),
        ("eyJhbGciOiIifQ", "(alg)"),
        ("e30", "its header"),
    ] {
        for signature in ["", parts[2]] {
            refuses(&ann, &format!("{header}.{}.{signature}", parts[1]), word).await;
        }
    }
    for broken in [
        "x",
        "..",
        "a.b",
        "a.b.c.d",
        &good[..good.len() - 1],
        &format!("{good}x"),
        &format!("{good}.x"),
        &format!("{good}="),
        &parts[..2].join("."),
    ] {
        refuses(&ann, broken, "").await;
    }
}

#[tokio::test]
async fn a_secret_that_was_changed_is_accepted_as_long_as_it_is_set() {
    let new = "the secret after that of the tests, 32 bytes or more";
    let both = TestApp::start_with(BACKEND, json!({"auth": {"secret": new, "previous_secret": SECRET}})).await;
    let one = TestApp::start_with(BACKEND, json!({"auth": {"secret": new}})).await;
    let ann = both.new_user();
    let before = signed(&claims(&ann, &json!({})));
    let after = signed_with(&Header::default(), &claims(&ann, &json!({})), new);

    accepts(&ann, &before).await;
    accepts(&ann, &after).await;
    refuses(&one.user(&ann.id), &before, "signature").await;
    accepts(&one.user(&ann.id), &after).await;
}

#[tokio::test]
async fn an_issuer_and_an_audience_are_asked_for_where_they_are_set() {
    let app = TestApp::start_with(BACKEND, json!({"auth": {"secret": SECRET, "issuer": "i", "audience": "a"}})).await;
    let ann = app.new_user();

    accepts(&ann, &signed(&claims(&ann, &json!({"iss": "i", "aud": "a"})))).await;
    accepts(&ann, &signed(&claims(&ann, &json!({"iss": "i", "aud": ["b", "a"]})))).await;
    refuses(&ann, &signed(&claims(&ann, &json!({"aud": "a"}))), "it has no issuer (iss), expected `i`").await;
    refuses(&ann, &signed(&claims(&ann, &json!({"iss": "i"}))), "it has no audience (aud), expected `a`").await;
    refuses(&ann, &signed(&claims(&ann, &json!({"iss": "j", "aud": "a"}))), "is `j`, expected `i`").await;
    refuses(&ann, &signed(&claims(&ann, &json!({"iss": "i", "aud": ["b"]}))), "(aud)").await;
}

#[tokio::test]
async fn the_header_is_read_strictly_but_its_scheme_in_any_case() {
    let app = app().await;
    let ann = app.new_user();
    let nobody = ann.with_token("");
    let call = || nobody.call(Method::GET, ann.tasks());

    for scheme in ["Bearer", "bearer", "BEARER"] {
        call().header("Authorization", format!("{scheme} {}", ann.token)).send().await.is(200);
    }
    let twice = call()
        .header("Authorization", format!("Bearer {}", ann.token))
        .header("Authorization", format!("Bearer {}", ann.token));
    assert!(twice.send().await.is_problem(401, "unauthorized").detail().contains("not several"));
    call().header("Authorization", b"Bearer \xFF\xFE".to_vec()).send().await.is_problem(401, "unauthorized");

    for value in ["", "Bearer", "Basic dXNlcjpwYXNz", &ann.token, "Token x", "Bearer,x"] {
        let reply = call().header("Authorization", value).send().await;
        assert_eq!(reply.is_problem(401, "unauthorized").header("www-authenticate"), Some("Bearer"), "{value}");
        assert_eq!(reply.detail(), "There is no token. Send the header `Authorization: Bearer <token>`.");
    }
    // Nowhere else is a token looked for.
    call().header("Cookie", format!("token={0}; better-auth.session_token={0}", ann.token)).send().await.is(401);
    nobody.call(Method::GET, format!("{}?access_token={}", ann.tasks(), ann.token)).send().await.is(401);
}

#[tokio::test]
async fn a_token_with_anything_else_in_it_is_refused() {
    let app = app().await;
    let ann = app.new_user();
    ann.list("").await.is(200);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..300 {
        let mut token = ann.token.clone().into_bytes();
        let at = random.usize(0..token.len());
        let other = b"AZaz09-_.=+/ ~"[random.usize(0..14)];
        match random.u8(0..3) {
            0 => token[at] = other,
            1 => token.insert(at, other),
            _ => _ = token.remove(at),
        }
        let token = String::from_utf8(token).unwrap();
        // A space before it is none of its own.
        if token.trim() != ann.token {
            let reply = ann.with_token(&token).list("").await;
            assert_eq!(reply.status, 401, "{token}, number {n} of seed {seed}");
        }
    }
}
