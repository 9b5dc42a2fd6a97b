//! Tokens that are signed with published keys: what is accepted, and every attack of RFC 8725 that is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use support::{
    Backend, Reply, TestApp, User, at_once,
    issuer::{Answer, Issuer, SigningKey, base64url, message, now},
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

/// Made once: an RSA key takes its time.
static KEYS: LazyLock<[SigningKey; 3]> = LazyLock::new(|| {
    [("ed", Algorithm::EdDSA), ("ec", Algorithm::ES256), ("rsa", Algorithm::RS256)]
        .map(|(id, a)| SigningKey::new(id, a))
});

/// A server that trusts an issuer with three keys, of three kinds.
struct World {
    app: TestApp,
    issuer: Issuer,
    ed: &'static SigningKey,
    ec: &'static SigningKey,
    rsa: &'static SigningKey,
    ann: User,
}

impl World {
    async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// `settings` are those of `auth` that differ.
    async fn with(settings: Value) -> Self {
        let [ed, ec, rsa] = &*KEYS;
        let issuer = Issuer::start(Answer::keys(&[ed, ec, rsa])).await;
        let app = server(&issuer, settings).await;
        let ann = app.new_user().with_token("");
        Self { app, issuer, ed, ec, rsa, ann }
    }

    /// The claims of a good token for Ann, with `changes`; `"(none)"` removes a claim.
    fn claims(&self, changes: &Value) -> Value {
        claims(&self.issuer, &self.ann, changes)
    }

    fn good(&self) -> Value {
        self.claims(&json!({}))
    }

    async fn accepts(&self, token: &str) {
        accepts(&self.ann, token).await;
    }

    async fn refuses(&self, token: &str, word: &str) {
        refuses(&self.ann, token, word).await;
    }
}

async fn server(issuer: &Issuer, settings: Value) -> TestApp {
    let mut auth = json!({"jwks_url": issuer.url(), "issuer": issuer.name()});
    for (name, value) in settings.as_object().unwrap() {
        auth[name] = value.clone();
    }
    TestApp::start_with(Backend::Sqlite, json!({"auth": auth})).await
}

fn claims(issuer: &Issuer, user: &User, changes: &Value) -> Value {
    let name = issuer.name();
    let mut claims =
        json!({"iat": now(), "exp": now() + 900, "sub": user.id, "email": "a@example.com", "iss": name, "aud": name});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| *value != "(none)");
    claims
}

async fn list(user: &User, token: &str) -> Reply {
    user.with_token(token).list("").await
}

async fn accepts(user: &User, token: &str) {
    // The second time it may know the token.
    for _ in 0..2 {
        list(user, token).await.is(200);
    }
}

/// Panics unless the token is refused for a reason that names `word`.
async fn refuses(user: &User, token: &str, word: &str) {
    for _ in 0..2 {
        let reply = list(user, token).await;
        let detail = reply.is_problem(401, "unauthorized").detail();
        assert!(detail.starts_with("The token is not valid: ") && detail.contains(word), "{detail:?}: no {word:?}");
        let reason = detail.trim_start_matches("The token is not valid: ").trim_end_matches('.');
        let challenge = format!(r#"Bearer error="invalid_token", error_description="{reason}""#);
        assert_eq!(reply.header("www-authenticate"), Some(&*challenge));
    }
}

#[tokio::test]
async fn every_algorithm_is_accepted_with_its_key() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let algorithms = [EdDSA, ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512];
    let ids = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let keys: Vec<_> = ids.into_iter().zip(algorithms).map(|(id, algorithm)| SigningKey::new(id, algorithm)).collect();
    let issuer = Issuer::start(Answer::keys(&keys.iter().collect::<Vec<_>>())).await;
    let app = server(&issuer, json!({})).await;
    let ann = app.new_user();
    let good = claims(&issuer, &ann, &json!({}));

    for key in &keys {
        accepts(&ann, &key.token(&good)).await;
        // No other key's name and no other algorithm will do.
        for other in &keys {
            if other.id != key.id {
                let name = |key: &SigningKey| format!("{:?}", key.algorithm);
                refuses(&ann, &key.sign(&json!({"alg": name(key), "kid": other.id}), &good), "(alg)").await;
                refuses(&ann, &key.sign(&json!({"alg": name(other), "kid": key.id}), &good), "(alg)").await;
                refuses(&ann, &key.sign(&json!({"alg": name(other), "kid": other.id}), &good), "signature").await;
            }
        }
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn the_usual_variations_are_accepted() {
    let world = World::new().await;
    let name = world.issuer.name();
    for changes in [
        json!({}),
        json!({"aud": [name]}),
        json!({"aud": ["somebody else", name]}),
        json!({"iat": "(none)"}),
        json!({"nbf": now()}),
        json!({"exp": now() + 10, "iat": now() + 10, "nbf": now() + 10}),
        json!({"exp": 4_000_000_000.5_f64}),
        json!({"image": "x".repeat(8000)}),
    ] {
        world.accepts(&world.ed.token(&world.claims(&changes))).await;
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "application/jwt"] {
        world.accepts(&world.ed.sign(&json!({"alg": "EdDSA", "kid": "ed", "typ": typ}), &world.good())).await;
    }
    let nobody = world.ann.with_token("");
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let value = format!("{scheme} {}", world.ed.token(&world.good()));
        nobody.call(Method::GET, world.ann.tasks()).header("Authorization", value).send().await.is(200);
    }
}

#[tokio::test]
async fn an_unsigned_token_is_refused_in_every_spelling() {
    let world = World::new().await;
    for alg in ["none", "None", "NONE", "nOnE", "", " none"] {
        for kid in ["ed", "ec", "rsa", ""] {
            let header = json!({"alg": alg, "kid": kid});
            let message = message(&header, &world.good());
            let signature = world.ed.token(&world.good()).rsplit('.').next().unwrap().to_owned();
            for token in
                [format!("{message}."), message.clone(), format!("{message}.{signature}"), format!("{message}.AA")]
            {
                world.refuses(&token, "").await;
            }
        }
    }
    assert_eq!(world.issuer.fetches(), 1, "no key is looked for that can't be one");
    for header in [
        json!({}),
        json!({"alg": null}),
        json!({"alg": ["EdDSA"]}),
        json!([]),
        json!(["EdDSA", "ed", null]),
        json!("EdDSA"),
        json!(null),
    ] {
        world.refuses(&world.ed.sign(&header, &world.good()), "its header").await;
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let world = World::new().await;
    for key in &*KEYS {
        let (raw, jwk) = (key.pair.public_key_raw().to_vec(), key.jwk());
        let der = pem_body(&key.pair.public_key_pem());
        let mut forms = vec![
            key.pair.public_key_pem().into_bytes(),
            key.pair.public_key_pem().trim().as_bytes().to_vec(),
            key.pair.public_key_pem().replace("\r\n", "\n").into_bytes(),
            jwk.to_string().into_bytes(),
            json!({"keys": [jwk]}).to_string().into_bytes(),
            base64url(&raw).into_bytes(),
            base64url(&der).into_bytes(),
            key.id.as_bytes().to_vec(),
            Vec::new(),
            der,
            raw,
        ];
        for member in ["x", "y", "n", "e"] {
            forms.extend(jwk[member].as_str().map(|text| text.as_bytes().to_vec()));
        }
        for secret in forms {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let message = message(&json!({"alg": format!("{algorithm:?}"), "kid": key.id}), &world.good());
                let secret = EncodingKey::from_secret(&secret);
                let signature = crypto::sign(message.as_bytes(), &secret, algorithm).unwrap();
                world.refuses(&format!("{message}.{signature}"), "(alg)").await;
            }
        }
    }
}

fn pem_body(pem: &str) -> Vec<u8> {
    use base64::Engine;
    let body: String = pem.lines().filter(|line| !line.starts_with("--")).map(str::trim).collect();
    base64::prelude::BASE64_STANDARD.decode(body).unwrap()
}

#[tokio::test]
async fn critical_extensions_are_refused_whatever_they_are() {
    let world = World::new().await;
    for extension in [
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": ["b64"], "b64": true}),
        json!({"b64": false}),
        json!({"b64": true}),
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"crit": null}),
        json!({"crit": "b64"}),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "ed"});
        header.as_object_mut().unwrap().extend(extension.as_object().unwrap().clone());
        world.refuses(&world.ed.sign(&header, &world.good()), "(crit, b64)").await;
    }
}

#[tokio::test]
async fn a_token_brings_no_key_along_and_names_no_place_to_fetch_one() {
    let world = World::new().await;
    world.accepts(&world.ed.token(&world.good())).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let stranger = SigningKey::new("ed", Algorithm::EdDSA);

    for place in [
        json!({"jwk": stranger.jwk()}),
        json!({"jku": url}),
        json!({"x5u": url}),
        json!({"x5c": [base64url(&pem_body(&stranger.pair.public_key_pem()))]}),
        json!({"kid": url, "jku": url}),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "ed"});
        header.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        let why = if header["kid"] == "ed" { "signature" } else { "(kid)" };
        world.refuses(&stranger.sign(&header, &world.good()), why).await;
    }
    assert!(timeout(Duration::from_millis(200), listener.accept()).await.is_err(), "somebody came for the key");
}

#[tokio::test]
async fn a_hostile_key_id_is_an_unknown_one() {
    let world = World::new().await;
    world.accepts(&world.ed.token(&world.good())).await;
    let long = "x".repeat(10_000);
    let ids = [
        "../../../../dev/null",
        "/dev/null",
        "' or '1'='1",
        "ed' --",
        "ed\u{0}",
        "ED",
        " ed",
        "ed ",
        "*",
        "%s%n",
        "${jndi:ldap://x}",
        "\u{202e}de",
        "",
        &long,
    ];
    // All at once, because unknown ids wait for the next fetch.
    let tokens: Vec<_> =
        ids.iter().map(|id| world.ed.sign(&json!({"alg": "EdDSA", "kid": id}), &world.good())).collect();
    let replies = at_once(tokens.len(), |n| {
        let (ann, token) = (world.ann.clone(), tokens[n].clone());
        async move { list(&ann, &token).await }
    })
    .await;
    for reply in replies {
        assert!(reply.is_problem(401, "unauthorized").detail().contains("(kid)"), "{}", reply.detail());
    }
    for id in [json!(1), json!(["ed"]), json!({"ed": 1}), json!(true)] {
        world.refuses(&world.ed.sign(&json!({"alg": "EdDSA", "kid": id}), &world.good()), "its header").await;
    }
}

#[tokio::test]
async fn a_signature_that_is_none_is_refused() {
    let world = World::new().await;
    for key in &*KEYS {
        let good = key.token(&world.good());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        let length = if key.id == "rsa" { 256 } else { 64 };
        for bytes in [vec![], vec![0], vec![0; length], vec![255; length], vec![0; length - 1], vec![1; length + 1]] {
            world.refuses(&format!("{message}.{}", base64url(&bytes)), "signature").await;
        }
        // One character changed, anywhere; one too few; one too many.
        let change = |text: &str, at: usize| {
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &text[..at], &text[at + 1..])
        };
        for at in (0..signature.len() - 1).step_by(7) {
            world.refuses(&format!("{message}.{}", change(signature, at)), "signature").await;
        }
        for at in (0..payload.len() - 1).step_by(29) {
            world.refuses(&format!("{header}.{}.{signature}", change(payload, at)), "signature").await;
        }
        world.refuses(&good[..good.len() - 1], "signature").await;
        world.refuses(&format!("{good}A"), "signature").await;
        world.refuses(&format!("{good}="), "signature").await;
        let others = key.token(&world.claims(&json!({"sub": "bob"})));
        world.refuses(&format!("{}.{signature}", others.rsplit_once('.').unwrap().0), "signature").await;
    }
    // A stranger who says that his key is that of the issuer.
    let stranger = SigningKey::new("ed", Algorithm::EdDSA);
    world.refuses(&stranger.token(&world.good()), "signature").await;
}

#[tokio::test]
async fn the_last_character_of_a_signature_has_one_spelling() {
    let world = World::new().await;
    let good = world.ed.token(&world.good());
    let (rest, last) = good.split_at(good.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for character in alphabet.chars().filter(|character| character.to_string() != last) {
        world.refuses(&format!("{rest}{character}"), "signature").await;
    }
}

#[tokio::test]
async fn claims_are_asked_for_in_their_types() {
    let world = World::new().await;
    let none = json!("(none)");
    let refuses =
        async |changes: Value, word: &str| world.refuses(&world.rsa.token(&world.claims(&changes)), word).await;

    for exp in
        [none.clone(), json!(null), json!("4000000000"), json!(true), json!([4_000_000_000_i64]), json!({}), json!(-1)]
    {
        refuses(json!({"exp": exp}), "(exp)").await;
    }
    for claim in ["nbf", "iat"] {
        for wrong in [json!(null), json!("1"), json!(true), json!([1]), json!({}), json!(-1)] {
            refuses(json!({claim: wrong}), &format!("({claim})")).await;
        }
        refuses(json!({claim: now() + 60}), &format!("({claim})")).await;
        refuses(json!({claim: 1e300}), &format!("({claim})")).await;
    }
    for sub in [
        none.clone(),
        json!(null),
        json!(""),
        json!(1),
        json!(true),
        json!([world.ann.id]),
        json!({}),
        json!("x".repeat(256)),
        json!("a\0b"),
    ] {
        refuses(json!({"sub": sub, "id": world.ann.id}), "(sub)").await;
    }
    let name = world.issuer.name();
    for claim in ["iss", "aud"] {
        let wrong = [
            none.clone(),
            json!(null),
            json!(""),
            json!("http://else"),
            json!(format!("{name}/")),
            json!(name.to_uppercase()),
            json!(1),
            json!({}),
            json!([]),
        ];
        for wrong in wrong {
            refuses(json!({claim: wrong}), &format!("({claim})")).await;
        }
    }
    refuses(json!({"iss": [name]}), "(iss)").await;
    refuses(json!({"aud": [format!("{name}x"), 1, null]}), "(aud)").await;
    refuses(json!({"aud": "better-auth:session-cache"}), "its audience (aud) is `better-auth:session-cache`, expected")
        .await;
    for typ in ["better-auth.session-cache+jwt", "logout+jwt", "JWE", "", "application/", "secevent+jwt"] {
        world.refuses(&world.ed.sign(&json!({"alg": "EdDSA", "kid": "ed", "typ": typ}), &world.good()), "(typ)").await;
    }
    for claims in [json!([]), json!("sub"), json!(null), json!(1)] {
        world.refuses(&world.ed.token(&claims), "claims").await;
    }
}

#[tokio::test]
async fn a_refusal_says_what_an_honest_developer_needs() {
    let world = World::new().await;
    let name = world.issuer.name();
    let refuses =
        async |changes: Value, words: &str| world.refuses(&world.ed.token(&world.claims(&changes)), words).await;

    refuses(json!({"exp": now() - 3600}), "it expired 1h").await;
    refuses(json!({"nbf": now() + 7200}), "it is not valid before 1h 59m").await;
    refuses(
        json!({"iss": "http://localhost:3000"}),
        &format!("its issuer (iss) is `http://localhost:3000`, expected `{name}`"),
    )
    .await;
    refuses(json!({"aud": "(none)"}), &format!("it has no audience (aud), expected `{name}`")).await;
    // What a claim says stands in a header: it can't break out of it, nor fill it.
    let hostile = format!("x\"\r\nSet-Cookie: a=b\\`ä{}", "y".repeat(5000));
    let shown = format!("`x???Set-Cookie: a=b???{}...`", "y".repeat(78));
    refuses(json!({"iss": hostile}), &shown).await;
}

#[tokio::test]
async fn what_is_no_compact_token_is_refused() {
    let world = World::new().await;
    let good = world.ed.token(&world.good());
    let parts: Vec<_> = good.split('.').collect();
    let flattened = json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]}).to_string();
    let general =
        json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]}).to_string();
    let jwe_header = base64url(json!({"alg": "dir", "enc": "A256GCM"}).to_string().as_bytes());
    for token in [
        "x",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        &flattened,
        &general,
        &format!("{jwe_header}..AAAA.AAAA.AAAA"),
        &format!("{good}.{}", parts[2]),
        &format!(".{good}"),
        &parts[..2].join("."),
        &format!("\"{good}\""),
        &good.replace('.', ".."),
        &good.replace('.', " ."),
        &format!("{}==.{}.{}", parts[0], parts[1], parts[2]),
    ] {
        world.refuses(token, "").await;
    }
    // The longest that is read, and a real one that is longer.
    let padded = |length: usize| world.ed.token(&world.claims(&json!({"image": "x".repeat(length)})));
    assert!(padded(64 * 1024).len() > 64 * 1024);
    for length in [16 * 1024, 64 * 1024] {
        world.refuses(&padded(length), "longer than 16384 bytes").await;
    }

    let call = || world.ann.call(Method::GET, world.ann.tasks());
    let twice =
        call().header("Authorization", format!("Bearer {good}")).header("Authorization", format!("Bearer {good}"));
    assert!(twice.send().await.is_problem(401, "unauthorized").detail().contains("not several"));
    let bytes = [b"Bearer ", good.as_bytes(), b"\xFF\xFE"].concat();
    call().header("Authorization", bytes).send().await.is_problem(401, "unauthorized");
    let list = format!("Bearer {good}, Bearer {good}");
    call().header("Authorization", list).send().await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_flood_of_unknown_keys_makes_few_fetches() {
    let world = World::new().await;
    world.accepts(&world.ed.token(&world.good())).await;
    let (before, started) = (world.issuer.fetches(), Instant::now());
    let stranger = SigningKey::new("x", Algorithm::EdDSA);

    for round in 0..2 {
        let replies = at_once(200, |n| {
            let header = json!({"alg": "EdDSA", "kid": format!("{round}-{n}")});
            let (ann, token) = (world.ann.clone(), stranger.sign(&header, &world.good()));
            async move { list(&ann, &token).await.status.as_u16() }
        })
        .await;
        assert_eq!(replies, [401; 200]);
        world.accepts(&world.ed.token(&world.good())).await;
    }
    // One every three seconds at most.
    let (fetches, most) = (world.issuer.fetches() - before, started.elapsed().as_secs() / 3 + 1);
    assert!(fetches >= 2 && fetches as u64 <= most, "{fetches} fetches, {most} at most");
}

#[tokio::test]
async fn callers_who_hang_up_keep_no_key_from_others() {
    let world = World::new().await;
    world.accepts(&world.ed.token(&world.good())).await;
    let new = SigningKey::new("new", Algorithm::EdDSA);
    world.issuer.answers(Answer { delay: Duration::from_millis(300), ..Answer::keys(&[&new]) });

    // Each of them asks for an unknown key and is gone before there can be an answer.
    let (ann, stranger) = (world.ann.clone(), SigningKey::new("x", Algorithm::EdDSA).token(&world.good()));
    let hanging_up = tokio::spawn(async move {
        loop {
            let call = ann.with_token(&stranger).call(Method::GET, ann.tasks());
            call.send_within(Duration::from_millis(100)).await;
        }
    });
    sleep(Duration::from_millis(50)).await;
    list(&world.ann, &new.token(&world.good())).await.is(200);
    hanging_up.abort();
}

#[tokio::test]
async fn keys_that_share_their_id_or_have_none_are_all_tried() {
    for id in [json!("same"), json!(null)] {
        let keys = [SigningKey::new("a", Algorithm::EdDSA), SigningKey::new("b", Algorithm::EdDSA)];
        let jwks: Vec<_> = keys
            .iter()
            .map(|key| {
                let mut jwk = key.jwk();
                jwk["kid"] = id.clone();
                jwk
            })
            .collect();
        let issuer = Issuer::start(Answer::text(json!({"keys": jwks}).to_string())).await;
        let app = server(&issuer, json!({})).await;
        let ann = app.new_user();
        let stranger = SigningKey::new("c", Algorithm::EdDSA);

        let sign = |key: &SigningKey| key.sign(&json!({"alg": "EdDSA", "kid": id}), &claims(&issuer, &ann, &json!({})));
        accepts(&ann, &sign(&keys[0])).await;
        accepts(&ann, &sign(&keys[1])).await;
        refuses(&ann, &sign(&stranger), "signature").await;
    }
}

#[tokio::test]
async fn a_token_that_names_no_key_means_the_only_one_of_its_algorithm() {
    let world = World::new().await;
    for header in [json!({"alg": "EdDSA"}), json!({"alg": "EdDSA", "kid": null})] {
        world.accepts(&world.ed.sign(&header, &world.good())).await;
        world.refuses(&SigningKey::new("x", Algorithm::EdDSA).sign(&header, &world.good()), "signature").await;
    }
    let keys = [SigningKey::new("a", Algorithm::EdDSA), SigningKey::new("b", Algorithm::EdDSA)];
    let issuer = Issuer::start(Answer::keys(&[&keys[0], &keys[1]])).await;
    let app = server(&issuer, json!({})).await;
    let ann = app.new_user();
    let token = keys[0].sign(&json!({"alg": "EdDSA"}), &claims(&issuer, &ann, &json!({})));
    refuses(&ann, &token, "several could be meant").await;
}

#[tokio::test]
async fn a_single_key_without_a_name_is_meant_whatever_a_token_calls_it() {
    let key = SigningKey::new("a", Algorithm::EdDSA);
    let mut jwk = key.jwk();
    jwk.as_object_mut().unwrap().remove("kid");
    let issuer = Issuer::start(Answer::text(json!({"keys": [jwk]}).to_string())).await;
    let app = server(&issuer, json!({})).await;
    let ann = app.new_user();
    for header in [json!({"alg": "EdDSA", "kid": "a"}), json!({"alg": "EdDSA", "kid": "b"}), json!({"alg": "EdDSA"})] {
        accepts(&ann, &key.sign(&header, &claims(&issuer, &ann, &json!({})))).await;
        let forged = SigningKey::new("a", Algorithm::EdDSA).sign(&header, &claims(&issuer, &ann, &json!({})));
        refuses(&ann, &forged, "signature").await;
    }
}

#[tokio::test]
async fn the_newer_name_of_an_algorithm_means_the_same() {
    let key = SigningKey::new("a", Algorithm::EdDSA);
    for name in ["EdDSA", "Ed25519"] {
        let mut jwk = key.jwk();
        jwk["alg"] = name.into();
        let issuer = Issuer::start(Answer::text(json!({"keys": [jwk]}).to_string())).await;
        let app = server(&issuer, json!({})).await;
        let ann = app.new_user();
        for alg in ["EdDSA", "Ed25519"] {
            let sign =
                |key: &SigningKey| key.sign(&json!({"alg": alg, "kid": "a"}), &claims(&issuer, &ann, &json!({})));
            accepts(&ann, &sign(&key)).await;
            refuses(&ann, &sign(&SigningKey::new("a", Algorithm::EdDSA)), "signature").await;
        }
        let ed448 = key.sign(&json!({"alg": "Ed448", "kid": "a"}), &claims(&issuer, &ann, &json!({})));
        refuses(&ann, &ed448, "(alg)").await;
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_under_its_name_is_noticed_at_the_first_signature() {
    // The keys would be kept for much longer.
    let world = World::new().await;
    world.accepts(&world.ed.token(&world.good())).await;
    let other = SigningKey::new("ed", Algorithm::EdDSA);
    world.issuer.answers(Answer::keys(&[&other]));
    sleep(Duration::from_millis(3500)).await;

    world.accepts(&other.token(&world.good())).await;
    world.refuses(&world.ed.token(&world.good()), "signature").await;

    // Whoever forges tokens can't make more fetches of it than one in three seconds, and is refused at once.
    let (before, began) = (world.issuer.fetches(), std::time::Instant::now());
    for n in 0..20 {
        let forger = SigningKey::new("ed", Algorithm::EdDSA);
        world.refuses(&forger.token(&world.claims(&json!({"n": n}))), "signature").await;
    }
    assert!(began.elapsed() < Duration::from_secs(2) && world.issuer.fetches() <= before + 1);
}

#[tokio::test]
async fn a_new_key_is_accepted_at_once_and_an_old_one_as_long_as_it_is_published() {
    let world = World::with(json!({"jwks_max_age_secs": 1})).await;
    let old = world.ed.token(&world.good());
    world.accepts(&old).await;

    let new = SigningKey::new("new", Algorithm::EdDSA);
    world.issuer.answers(Answer::keys(&[&new, world.ed]));
    world.accepts(&new.token(&world.good())).await;
    world.accepts(&old).await;

    // Withdrawn: not accepted for longer than the keys are kept, though the verdict on it was.
    world.issuer.answers(Answer::keys(&[&new]));
    sleep(Duration::from_secs(5)).await;
    world.refuses(&old, "(kid)").await;
    // Another key under the old name does not bring it back.
    let other = SigningKey::new("ed", Algorithm::EdDSA);
    world.issuer.answers(Answer::keys(&[&new, &other]));
    sleep(Duration::from_secs(5)).await;
    world.refuses(&old, "signature").await;
    world.accepts(&other.token(&world.good())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_fails_locks_nobody_out() {
    let stranger = Arc::new(SigningKey::new("new", Algorithm::EdDSA));
    let elsewhere = Issuer::start(Answer::keys(&[&stranger])).await;
    let to_elsewhere = |status| Answer { status, location: Some(elsewhere.url()), ..Answer::keys(&[&stranger]) };
    let big = json!({"keys": [stranger.jwk()], "padding": "x".repeat(1024 * 1024)}).to_string();
    let answers = [
        Answer { status: 500, ..Answer::keys(&[&stranger]) },
        Answer { status: 404, ..Answer::keys(&[&stranger]) },
        Answer { status: 201, ..Answer::keys(&[&stranger]) },
        to_elsewhere(302),
        to_elsewhere(307),
        Answer::text(""),
        Answer::text("<html>"),
        Answer::text(r#"{"keys": []}"#),
        Answer::text(r#"{"keys": [{"kty": "oct", "k": "AAAA", "kid": "new"}]}"#),
        Answer::text(big),
        Answer { delay: Duration::from_mins(1), ..Answer::keys(&[&stranger]) },
    ];

    at_once(answers.len(), |n| {
        let (answer, stranger) = (answers[n].clone(), Arc::clone(&stranger));
        async move {
            let world = World::with(json!({"jwks_max_age_secs": 1})).await;
            let known = world.ed.token(&world.good());
            world.accepts(&known).await;
            let before = world.issuer.fetches();
            world.issuer.answers(answer);

            // It waits in vain, no longer than a fetch may take; and whether the key is good nobody knows.
            let unknown = stranger.token(&world.good());
            let reply = timeout(Duration::from_secs(10), list(&world.ann, &unknown)).await.unwrap();
            reply.is_problem(503, "unavailable");
            assert!(world.issuer.fetches() > before);
            world.accepts(&known).await;
            // Not only what it has a verdict on.
            world.accepts(&world.ec.token(&world.good())).await;
        }
    })
    .await;
    assert_eq!(elsewhere.fetches(), 0, "a redirection was followed");
}

#[tokio::test]
async fn a_server_starts_while_its_issuer_is_down() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{address}/jwks");
    let auth = json!({"jwks_url": url, "issuer": format!("http://{address}")});
    let app = TestApp::start_with(Backend::Sqlite, json!({"auth": auth})).await;
    let ann = app.new_user();
    let key = SigningKey::new("ed", Algorithm::EdDSA);
    app.anybody().call(Method::GET, "/health/ready").send().await.is(200);

    let claims = json!({"sub": ann.id, "exp": now() + 900, "iss": format!("http://{address}"), "aud": format!("http://{address}")});
    let reply = list(&ann, &key.token(&claims)).await;
    assert_eq!(reply.is_problem(503, "unavailable").header("retry-after"), Some("2"));
    // What is no token needs no key to be refused.
    list(&ann, "x").await.is_problem(401, "unauthorized");
    list(&ann, "").await.is_problem(401, "unauthorized");

    // As soon as the issuer is there, whoever asks has it asked.
    let _issuer = Issuer::start_at(address, Answer::keys(&[&key])).await;
    let started = Instant::now();
    while list(&ann, &key.token(&claims)).await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(100)).await;
    }
    accepts(&ann, &key.token(&claims)).await;
}

#[tokio::test]
async fn a_verdict_ends_with_its_token() {
    let world = World::with(json!({"leeway_secs": 0})).await;
    let brief = world.ed.token(&world.claims(&json!({"exp": now() + 5})));
    world.accepts(&brief).await;
    sleep(Duration::from_secs(6)).await;
    world.refuses(&brief, "it expired").await;
}

#[tokio::test]
async fn keys_may_stand_in_a_file_that_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let (one, two) = (SigningKey::new("one", Algorithm::ES384), SigningKey::new("two", Algorithm::PS256));
    let write = |keys: &[&SigningKey]| fs::write(&file, Answer::keys(keys).body).unwrap();
    write(&[&one]);
    let auth = json!({"jwks_file": file, "issuer": "issuer", "audience": "tasks", "jwks_max_age_secs": 1});
    let app = TestApp::start_with(Backend::Sqlite, json!({"auth": auth})).await;
    let ann = app.new_user();
    let claims = json!({"sub": ann.id, "exp": now() + 900, "iss": "issuer", "aud": ["x", "tasks"]});

    accepts(&ann, &one.token(&claims)).await;
    write(&[&one, &two]);
    accepts(&ann, &two.token(&claims)).await;
    fs::remove_file(&file).unwrap();
    sleep(Duration::from_secs(4)).await;
    accepts(&ann, &one.token(&claims)).await;
}

#[tokio::test]
async fn another_claim_may_hold_the_users_id() {
    let world = World::with(json!({"user_id_claim": "https://example.com/uid", "audience": "tasks"})).await;
    let with =
        |uid: Value| world.claims(&json!({"sub": "somebody|else", "https://example.com/uid": uid, "aud": "tasks"}));

    world.accepts(&world.ed.token(&with(json!(world.ann.id)))).await;
    world.refuses(&world.ed.token(&with(json!(1))), "its claim `https://example.com/uid` is not a text").await;
    world
        .refuses(&world.ed.token(&world.claims(&json!({"aud": "tasks"}))), "its claim `https://example.com/uid`")
        .await;
    world.refuses(&world.ed.token(&world.good()), "expected `tasks`").await;
    let token = world.ed.token(&with(json!("bob")));
    list(&world.ann, &token).await.is_problem(403, "forbidden");
    drop(world.app);
}
