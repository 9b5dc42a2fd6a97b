//! The pages that people see: a greeting, the problems explained, and Swagger UI with the contract.
//!
//! Nothing on them is fetched from elsewhere, and a policy in a header says so to the browser.

use std::io::Read;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use flate2::read::ZlibDecoder;
use poem::http::HeaderValue;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::VERSION;
use crate::problem::ProblemType;

/// A page, and what its `Content-Security-Policy` is.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) html: Bytes,
    pub(super) policy: HeaderValue,
}

/// A tick on a green tile.
const ICON: &str = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>\
    <rect width='32' height='32' rx='7' fill='%23166534'/>\
    <path d='M8 17l6 6 11-13' fill='none' stroke='white' stroke-width='4' stroke-linecap='round' stroke-linejoin='round'/></svg>";

/// How our own pages look, on a telephone as on a screen, by day and by night.
const STYLE: &str = "\
    :root{color-scheme:light dark}\
    body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:0 auto;padding:1rem;overflow-wrap:break-word}\
    a{color:light-dark(#166534,#86efac)}\
    h1 small{font-weight:normal;color:light-dark(#52525b,#a1a1aa)}\
    code{font:.9em ui-monospace,monospace;background:light-dark(#f4f4f5,#27272a);padding:.1em .3em;border-radius:.2em}\
    section{border-top:1px solid light-dark(#d4d4d8,#3f3f46)}";

/// What Swagger UI lacks: it knows no night, and neither phones nor long words.
const DOCS_STYLE: &str = "\
    body{margin:0}\
    .swagger-ui .info{margin:1.5rem 0}\
    .swagger-ui .info .title,.swagger-ui .opblock-summary-path{overflow-wrap:anywhere}\
    @media(max-width:640px){.swagger-ui .wrapper{padding:0 .5rem}.swagger-ui .opblock-summary{flex-wrap:wrap}\
    .swagger-ui .opblock .opblock-summary-description{flex-basis:100%;padding:0 .5rem}\
    .swagger-ui .opblock-body,.swagger-ui .responses-wrapper{overflow-x:auto}}\
    @media(prefers-color-scheme:dark){html{background:#171717}\
    .swagger-ui{filter:invert(.9) hue-rotate(180deg)}.swagger-ui .highlight-code{filter:invert(1) hue-rotate(180deg)}}";

/// Starts Swagger UI. The document is data beside it: whatever is changed in that, the policy knows this program.
const START: &str = "SwaggerUIBundle({dom_id:'#ui',deepLinking:true,defaultModelsExpandDepth:0,spec:JSON.parse(document.getElementById('contract').textContent),\
    persistAuthorization:document.documentElement.dataset.mode==='development'})";

/// What greets those who come to the server's own address.
pub(super) fn greeting() -> Page {
    let links = [
        ("/docs", "The operations", "to read, and to try out"),
        ("/openapi.yaml", "The contract", "in OpenAPI 3.0"),
        ("/openapi.json", "The same in JSON", "for tools that want it"),
        ("/openapi-3.1.yaml", "The same in OpenAPI 3.1", "for tools that read no other"),
        ("/problems", "The problems", "what each one means, and what to do"),
        ("/health", "Health", "whether the server runs"),
        ("/health/ready", "Readiness", "whether it can serve"),
    ];
    let items = links.map(|(path, name, what)| format!("<li><a href=\"{path}\">{name}</a>: {what}</li>")).concat();
    page(
        "Taskpact",
        &format!("<h1>Taskpact <small>{VERSION}</small></h1><p>A task API for many users.</p><ul>{items}</ul>"),
    )
}

/// What explains these problem types.
pub(super) fn problems(explained: &[&ProblemType]) -> Page {
    let section = |ProblemType { status, slug, title, meaning, remedy }: &&ProblemType| {
        format!(
            "<section><h2 id=\"{slug}\"><a href=\"/problems/{slug}\">{title}</a></h2><p>Status {status}, type \
             <code>/problems/{slug}</code></p><p>{}</p><p><strong>What to do:</strong> {}</p></section>",
            marked_up(meaning),
            marked_up(remedy)
        )
    };
    let sections: String = explained.iter().map(section).collect();
    let end = "<p><a href=\"/problems\">All problems</a> · <a href=\"/docs\">Operations</a></p>";
    page("Taskpact: problems", &format!("<h1>Problems</h1>{sections}{end}"))
}

fn page(title: &str, body: &str) -> Page {
    let html = format!("{}<style>{STYLE}</style></head><body>{body}</body></html>", head(title, ""));
    Page { html: html.into(), policy: policy("'none'") }
}

/// Swagger UI's program and style, packed.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.zz"));
const UI_STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.zz"));

fn unpacked(packed: &[u8]) -> String {
    let mut text = String::new();
    ZlibDecoder::new(packed).read_to_string(&mut text).expect("the build has packed it");
    text
}

/// Swagger UI with the document `json`.
pub(super) fn docs(json: &str, development: bool) -> Page {
    let (program, style) = (unpacked(PROGRAM), unpacked(UI_STYLE));
    let mode = if development { " data-mode=\"development\"" } else { "" };
    let document = if development { for_development(json) } else { json.to_owned() };
    let html = format!(
        "{}<style>{style}{DOCS_STYLE}</style><script>{program}</script></head><body><div id=\"ui\"></div>\
         <script type=\"application/json\" id=\"contract\">{}</script><script>{START}</script></body></html>",
        head("Taskpact", mode),
        document.replace("</", "<\\/"),
    );
    let hash = |script: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(script)));
    Page { html: html.into(), policy: policy(&format!("{} {}", hash(&program), hash(START))) }
}

/// The document with the user whose token `taskpact token` makes, and where to get it.
fn for_development(json: &str) -> String {
    let mut document: Value = serde_json::from_str(json).expect("it was written here");
    document["components"]["parameters"]["user_id"]["example"] = "dev".into();
    let description = document["info"]["description"].as_str().unwrap_or_default();
    document["info"]["description"] = format!(
        "**Development mode.** The user here is `dev`. The server has printed a token at its start, and `taskpact token --user \
         dev` makes another: enter it at *Authorize*.\n\n{description}"
    )
    .into();
    serde_json::to_string_pretty(&document).expect("a document is plain data")
}

fn head(title: &str, attributes: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"{attributes}><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><link rel=\"icon\" href=\"{ICON}\">"
    )
}

/// Nothing but what the page has within it, and calls of the server itself.
fn policy(scripts: &str) -> HeaderValue {
    let policy = format!(
        "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri \
         'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("a policy is printable")
}

/// Our own words as HTML. What stands between backticks is code.
fn marked_up(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let part = |(at, part): (usize, &str)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() };
    text.split('`').enumerate().map(part).collect()
}
