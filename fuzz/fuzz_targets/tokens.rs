//! Whatever is sent as a token: only the one that was signed is accepted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use poem::{
    Request,
    http::{HeaderValue, StatusCode},
};

mod server;

use server::{SERVER, USER};

#[derive(Debug, arbitrary::Arbitrary)]
enum Input<'a> {
    /// A header as it is.
    Header(&'a [u8]),
    /// The good token, with something else from one place on.
    Edited { at: u16, removed: u8, inserted: &'a str },
}

fuzz_target!(|input: Input| {
    let good = &SERVER.token;
    let header = match input {
        Input::Header(bytes) => bytes.to_vec(),
        Input::Edited { at, removed, inserted } => {
            let at = usize::from(at) % good.len();
            let end = (at + usize::from(removed)).min(good.len());
            format!("Bearer {}{inserted}{}", &good[..at], &good[end..]).into_bytes()
        }
    };
    let Ok(value) = HeaderValue::from_bytes(&header) else { return };
    let request = Request::builder().uri(format!("/api/{USER}/tasks").parse().unwrap()).header("Authorization", value);
    let status = SERVER.answer(request.finish());
    // The name of the scheme is written in any case, and spaces may follow it.
    let text = String::from_utf8_lossy(&header);
    let is_good = text
        .split_once(' ')
        .is_some_and(|(scheme, token)| scheme.trim().eq_ignore_ascii_case("bearer") && token.trim() == good.as_str());
    let expected = if is_good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    assert_eq!(status, expected, "{text}");
});
