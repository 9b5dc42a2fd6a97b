//! Somebody who signs tokens and publishes keys: with every fault that an issuer, or who pretends to be one, can have.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use taskpact::clock::Clock;
use tokio::{net::TcpListener, time::sleep};

/// A key pair, for one algorithm.
pub struct SigningKey {
    pub id: &'static str,
    pub algorithm: Algorithm,
    pub pair: KeyPair,
    key: EncodingKey,
}

impl SigningKey {
    pub fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let (kind, encode): (_, fn(&[u8]) -> EncodingKey) = match algorithm {
            Algorithm::EdDSA => (&PKCS_ED25519, EncodingKey::from_ed_der),
            Algorithm::ES256 => (&PKCS_ECDSA_P256_SHA256, EncodingKey::from_ec_der),
            Algorithm::ES384 => (&PKCS_ECDSA_P384_SHA384, EncodingKey::from_ec_der),
            _ => (&PKCS_RSA_SHA256, EncodingKey::from_rsa_der),
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let der = pair.serialize_der();
        // What is asked for is the RSA key itself, which comes last in its wrapping.
        let bare = if kind == &PKCS_RSA_SHA256 { &der[26..] } else { &der[..] };
        Self { id, algorithm, key: encode(bare), pair }
    }

    /// The public key as it is published.
    pub fn jwk(&self) -> Value {
        // Of an Edwards key the library wants the first version of the format, which has no public half.
        let mut jwk = if self.algorithm == Algorithm::EdDSA {
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(self.pair.public_key_raw())})
        } else {
            serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap()
        };
        jwk["kid"] = self.id.into();
        jwk["alg"] = format!("{:?}", self.algorithm).into();
        jwk
    }

    /// A token with the usual header.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": format!("{:?}", self.algorithm), "kid": self.id}), claims)
    }

    /// A token with this header, whatever it says.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

/// What is signed.
pub fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
}

pub fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub fn now() -> i64 {
    DateTime::<Utc>::from(Clock.now()).timestamp()
}

/// What the issuer answers to a request for its keys.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub body: String,
    pub delay: Duration,
}

impl Answer {
    pub fn keys(keys: &[&SigningKey]) -> Self {
        Self::text(json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string())
    }

    pub fn text(body: impl Into<String>) -> Self {
        Self { status: 200, location: None, body: body.into(), delay: Duration::ZERO }
    }
}

/// A server of keys.
pub struct Issuer {
    pub address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    pub async fn start(answer: Answer) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    pub async fn start_at(address: SocketAddr, answer: Answer) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, fetches) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let issuer = Self { address, answer: Arc::clone(&answer), fetches: Arc::clone(&fetches) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, fetches) = (Arc::clone(&answer), Arc::clone(&fetches));
                let answer = move |_: Request<Incoming>| {
                    fetches.fetch_add(1, Relaxed);
                    let Answer { status, location, body, delay } = answer.lock().unwrap().clone();
                    async move {
                        sleep(delay).await;
                        let mut reply = Response::builder().status(status);
                        if let Some(location) = location {
                            reply = reply.header("Location", location);
                        }
                        reply.body(Full::<Bytes>::from(body))
                    }
                };
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        issuer
    }

    /// Where the keys are.
    pub fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    /// The `iss` of the tokens.
    pub fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers this.
    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How many times it was asked.
    pub fn fetches(&self) -> usize {
        self.fetches.load(Relaxed)
    }
}
