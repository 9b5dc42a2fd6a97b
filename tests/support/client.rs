//! A client that holds every exchange against the contract.

use std::{fmt::Debug, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::join;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::contract;

/// Somebody who calls the server.
#[derive(Debug, Clone)]
pub struct User {
    address: SocketAddr,
    pub id: String,
    pub token: String,
}

/// A request that is being put together.
#[derive(Debug, Clone)]
pub struct Call {
    address: SocketAddr,
    method: Method,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// An answer that the contract allows.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl User {
    pub fn new(address: SocketAddr, id: &str, token: &str) -> Self {
        Self { address, id: id.to_owned(), token: token.to_owned() }
    }

    /// The same user with another token. An empty one is not sent.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The path of the user's tasks.
    pub fn tasks(&self) -> String {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        let encoded = self
            .id
            .bytes()
            .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
        format!("/api/{}/tasks", encoded.collect::<String>())
    }

    /// The path of the user's changes.
    pub fn feed(&self) -> String {
        self.tasks().trim_end_matches("tasks").to_owned() + "changes"
    }

    /// The path of one of the user's tasks.
    pub fn task(&self, id: &str) -> String {
        format!("{}/{id}", self.tasks())
    }

    pub fn call(&self, method: Method, path: impl Into<String>) -> Call {
        let call = Call { address: self.address, method, path: path.into(), headers: Vec::new(), body: Vec::new() };
        if self.token.is_empty() { call } else { call.header("Authorization", format!("Bearer {}", self.token)) }
    }

    pub async fn list(&self, query: &str) -> Reply {
        self.call(Method::GET, self.tasks() + query).send().await
    }

    /// Asks for the changes; `query` begins with `?`, or is empty.
    pub async fn changes(&self, query: &str) -> Reply {
        self.call(Method::GET, self.feed() + query).send().await
    }

    pub async fn post(&self, body: impl Into<Value>) -> Reply {
        self.call(Method::POST, self.tasks()).json(body).send().await
    }

    /// A new task with this title.
    pub async fn create(&self, title: &str) -> Value {
        self.post(json!({"title": title})).await.is(201).json()
    }

    pub async fn get(&self, id: &str) -> Reply {
        self.call(Method::GET, self.task(id)).send().await
    }

    pub async fn put(&self, id: &str, body: impl Into<Value>) -> Reply {
        self.call(Method::PUT, self.task(id)).json(body).send().await
    }

    pub async fn delete(&self, id: &str) -> Reply {
        self.call(Method::DELETE, self.task(id)).send().await
    }

    /// Flips a task.
    pub async fn toggle(&self, id: &str) -> Reply {
        self.call(Method::PATCH, self.task(id) + "/complete").send().await
    }

    /// Makes a task completed, or not.
    pub async fn complete(&self, id: &str, body: impl Into<Value>) -> Reply {
        self.call(Method::PATCH, self.task(id) + "/complete").json(body).send().await
    }

    /// The titles of all tasks, newest first.
    pub async fn titles(&self, query: &str) -> Vec<String> {
        let tasks = self.list(query).await.is(200).json();
        tasks.as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap().to_owned()).collect()
    }
}

impl Call {
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn json(self, body: impl Into<Value>) -> Self {
        self.header("Content-Type", "application/json").body(body.into().to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The same request with this key, so that it takes effect once.
    pub fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    /// Sends the request over a connection of its own, and holds the answer against the contract.
    pub async fn send(self) -> Reply {
        let (method, path) = (self.method.clone(), self.path.clone());
        let reply = self.exchange().await.unwrap();
        contract::assert_conforms(&method, &path, reply.status, &reply.headers, &reply.bytes);
        reply
    }

    /// As [`send`](Self::send), where there may be nobody to answer, or a proxy answers itself.
    pub async fn try_send(self) -> Option<Reply> {
        let (method, path) = (self.method.clone(), self.path.clone());
        let reply = self.exchange().await.ok()?;
        if reply.header("x-request-id").is_some() {
            contract::assert_conforms(&method, &path, reply.status, &reply.headers, &reply.bytes);
        }
        Some(reply)
    }

    async fn exchange(self) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let Self { address, method, path, headers, body } = self;
        let mut request = Request::builder().method(&method).uri(&path).header("Host", address.to_string());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::<Bytes>::from(body))?;
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async move {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((parts, body.collect().await?.to_bytes()))
        };
        // Not in a task of its own: whoever gives the request up closes the connection.
        let (outcome, _) = join(exchange, connection).await;
        let (parts, bytes) = outcome?;
        Ok(Reply { status: parts.status, headers: parts.headers, bytes })
    }

    /// Sends the request and hangs up after `limit`, whatever has become of it by then.
    pub async fn send_within(self, limit: Duration) -> Option<Reply> {
        timeout(limit, self.send()).await.ok()
    }
}

impl Reply {
    /// Panics unless the answer has this status.
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// Panics unless the answer is this problem.
    pub fn is_problem(&self, status: u16, slug: &str) -> &Self {
        self.is(status);
        assert_eq!(self.json()["type"], format!("/problems/{slug}"), "{:?}", self.json());
        self
    }

    /// Panics unless the request was refused with just these violations, each a pointer or a name, and a code.
    pub fn is_invalid(&self, violations: &[(&str, &str)]) -> &Self {
        self.is_problem(422, "invalid-request");
        let body = self.json();
        let place = |e: &Value| match e["in"].as_str().unwrap() {
            "body" => e["pointer"].clone(),
            _ => e["name"].clone(),
        };
        let errors = body["errors"].as_array().unwrap().iter();
        let found: Vec<_> = errors.map(|e| (place(e), e["code"].as_str().unwrap().to_owned())).collect();
        let found: Vec<_> = found.iter().map(|(place, code)| (place.as_str().unwrap(), code.as_str())).collect();
        assert_eq!(found, violations, "{body:#}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The version that the task's strong entity tag is of.
    pub fn tagged_version(&self) -> i64 {
        let tag = self.header("etag").and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')).unwrap();
        tag.split_once('-').unwrap().0.parse().unwrap()
    }

    /// The problem's sentence.
    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }

    /// The body without what differs from request to request.
    pub fn without_request_id(&self) -> Value {
        let mut body = self.json();
        body.as_object_mut().unwrap().remove("request_id");
        body
    }
}
