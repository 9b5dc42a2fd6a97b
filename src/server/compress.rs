//! Compressing large answers for those who accept it.
//!
//! Only gzip: everybody has it. An answer with a strong entity tag is left as it is, because the tag promises these very
//! bytes; a list's is weak.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use poem::{
    Body, Response,
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, VARY},
    },
};
use tokio::task;

/// The smallest answer that is compressed, in bytes: below, the head is most of it.
const MIN_BYTES: usize = 2048;
/// Up to this size it is done at once, in bytes; what is larger would keep others waiting.
const MAX_INLINE_BYTES: usize = 32 * 1024;

/// Whether whoever sent these headers takes a compressed answer (RFC 9110, section 12.5.3).
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let quality = |coding: &str| {
        let parameter = coding.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
        parameter.map_or(Some(1.0), |q| q.trim().parse::<f32>().ok()).unwrap_or(0.0)
    };
    let codings = lists.flat_map(|list| list.split(','));
    let named = |coding: &&str| coding.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("gzip"));
    codings.filter(named).any(|coding| quality(coding) > 0.0)
}

/// Compresses a large answer, if that is accepted, and tells how many bytes its body has.
pub(super) async fn compress(mut answer: Response, is_accepted: bool) -> (Response, usize) {
    let has_strong_tag = answer.headers().get(ETAG).is_some_and(|tag| !tag.as_bytes().starts_with(b"W/"));
    let body: http_body_util::combinators::BoxBody<Bytes, std::io::Error> = answer.take_body().into();
    // Every body here is in memory already.
    let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let is_large = !has_strong_tag && length >= MIN_BYTES;
    if is_large {
        answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if !is_large || !is_accepted {
        answer.set_body(body);
        return (answer, length);
    }
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let compressed = if bytes.len() > MAX_INLINE_BYTES {
        task::spawn_blocking(move || gzip(&bytes)).await.expect("compressing does not panic")
    } else {
        gzip(&bytes)
    };
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let length = compressed.len();
    answer.set_body(Body::from_vec(compressed));
    (answer, length)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // The fastest level: a list shrinks to a tenth by it, and the rest is not worth the time.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_gzip_is_heard() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("identity", false),
            ("xgzip", false),
        ] {
            let headers = [(ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(is_accepted(&headers), expected, "{value}");
        }
    }
}
