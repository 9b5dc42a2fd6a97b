//! What never becomes a request, in our words.
//!
//! hyper answers by itself what it can't read, without a body, and drops what is HTTP/2. It offers no way to say more, so
//! the connection looks at what passes: an answer that is not ours is hyper's.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use poem::http::header::CONNECTION;

use super::edge::mark;
use crate::{clock::Clock, problem::Fault, request_id::RequestId};

/// How a connection in HTTP/2 begins (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const NOT_HTTP2: &str = "This server speaks HTTP/1.1. Let the proxy in front of it speak HTTP/2.";

/// Whether what came first on a connection is HTTP/2.
pub(super) fn is_http2(first: &[u8]) -> bool {
    first.starts_with(HTTP2_PREFACE)
}

/// The refusal of a connection in HTTP/2, as HTTP/2 says it: empty settings, and a `GOAWAY` with `HTTP_1_1_REQUIRED`.
pub(super) fn of_http2() -> Bytes {
    tracing::info!("refused a connection in HTTP/2 over clear text");
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = u8::try_from(8 + NOT_HTTP2.len()).expect("the text is short");
    frames.extend([0, 0, length, 7, 0, 0, 0, 0, 0]);
    frames.extend([0, 0, 0, 0, 0, 0, 0, 13]);
    frames.extend(NOT_HTTP2.as_bytes());
    frames.into()
}

/// The answer in our words, if `bytes` are an answer that hyper has made by itself.
pub(super) fn of_hyper(bytes: &[u8]) -> Option<Bytes> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let head = bytes.strip_suffix(b"\r\n\r\n").and_then(|head| std::str::from_utf8(head).ok())?;
    // Ours has an id, and a body.
    if head.contains("\r\nx-request-id:") || !head.contains("\r\ncontent-length: 0") {
        return None;
    }
    let fault = match status {
        b"400" => Fault::MalformedRequest("The request can't be read as HTTP/1.1.".into()),
        b"414" => Fault::UriTooLong,
        b"431" => Fault::HeadersTooLarge,
        _ => return None,
    };
    Some(written(&fault))
}

/// The answer to a request whose head did not come to its end in time.
pub(super) fn of_slow_head() -> Bytes {
    written(&Fault::SlowRequest)
}

/// A refusal as it is sent.
fn written(fault: &Fault) -> Bytes {
    let request_id = RequestId::from(Clock.new_request_id());
    let problem = fault.problem_type();
    tracing::info!(status = problem.status.as_u16(), problem = problem.slug, %request_id, "refused what is no request");
    let (mut answer, body) = (fault.answer(&request_id), fault.body(&request_id));
    mark(answer.headers_mut(), &request_id);
    let mut text = format!("HTTP/1.1 {}\r\n", problem.status);
    for (name, value) in answer.headers().iter().filter(|(name, _)| **name != CONNECTION) {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    text += &format!("connection: close\r\ncontent-length: {}\r\n", body.len());
    let date = DateTime::<Utc>::from(Clock.now()).format("%a, %d %b %Y %H:%M:%S GMT");
    text += &format!("date: {date}\r\n\r\n");
    [text.into_bytes(), body].concat().into()
}
