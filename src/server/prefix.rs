//! Behind a proxy that strips a prefix from the path, such as `/todo`: what we say about paths needs the prefix again.

use poem::{
    Body, Request, Response,
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_TYPE, LINK, LOCATION},
    },
};

use crate::config;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Where the public prefix is taken from.
#[derive(Debug)]
pub(super) struct Prefix {
    fixed: String,
    trusts_proxy: bool,
}

impl Prefix {
    pub(super) fn new(settings: &config::Server) -> Self {
        Self { fixed: settings.base_path.as_str().to_owned(), trusts_proxy: settings.trust_forwarded_prefix }
    }

    /// The prefix of the path by which `request` came to the proxy: empty, or `/` and some segments.
    pub(super) fn of(&self, request: &Request) -> String {
        let forwarded = request.header(FORWARDED_PREFIX).filter(|_| self.trusts_proxy);
        match forwarded.and_then(|prefix| config::BasePath::parse(prefix).ok()) {
            Some(prefix) => prefix.as_str().to_owned(),
            None => self.fixed.clone(),
        }
    }
}

/// Puts the prefix before every path that the answer leads to.
pub(super) async fn add(prefix: &str, answer: &mut Response) {
    if prefix.is_empty() {
        return;
    }
    for (name, before) in [(LOCATION, ""), (LINK, "<")] {
        let value = answer.headers().get(&name).and_then(|value| value.to_str().ok());
        if let Some(path) = value.and_then(|value| value.strip_prefix(before)) {
            let value = HeaderValue::try_from(format!("{before}{prefix}{path}")).expect("a path is printable");
            answer.headers_mut().insert(name, value);
        }
    }
    if answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        // Our own pages: their links, and the address at which the docs page calls the API.
        let page = answer.take_body().into_string().await.unwrap_or_default();
        let page = page.replace("href=\"/", &format!("href=\"{prefix}/"));
        answer.set_body(Body::from_string(page.replace("\"url\": \"/\"", &format!("\"url\": \"{prefix}\""))));
    }
}
