//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).

use poem_openapi::registry::MetaSchema;

use super::{Broken, Parameter};
use crate::task::min_key_retention_hours;

/// The caller's own name for a request that is to take effect once (draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug)]
pub struct IdempotencyKey(pub String);

const MAX_KEY_CHARS: usize = 255;

impl Parameter for IdempotencyKey {
    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some(concat!(
                "A name for this request that the caller has not used before, such as a new UUID: 1 to 255 characters, \
                 in double quotes or bare. If the answer is lost, the same request with the same key can be sent again, \
                 for at least ",
                min_key_retention_hours!(),
                " hours: it takes effect once, and every repeat is given the first one's answer, with the header \
                 `Idempotent-Replayed`. What was refused is not kept. Keys are the user's own.",
            )),
            min_length: Some(1),
            // Quoted, and each character escaped.
            max_length: Some(2 * MAX_KEY_CHARS + 2),
            pattern: Some(r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\--\[\]-~]{1,255})$"#.to_owned()),
            ..MetaSchema::new("string")
        }
    }

    fn parse(text: &str) -> Result<Self, Broken> {
        let malformed = "must be 1 to 255 printable ASCII characters in double quotes, with `\\` before `\"` and `\\`; or \
                         bare, without white space, comma, `\"` and `\\`";
        let key = match text.trim_matches([' ', '\t']).strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                Some(text.trim_matches([' ', '\t']).to_owned()).filter(|bare| !bare.contains([' ', ',', '"', '\\']))
            }
        };
        let is_valid = |key: &String| {
            (1..=MAX_KEY_CHARS).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        key.filter(is_valid).map(Self).ok_or_else(|| Broken::new("pattern", malformed))
    }
}

/// The text of a string of a structured field (RFC 8941, section 3.3.3) whose first quote has been read.
fn unquoted(quoted: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(text),
            '\\' => text.push(characters.next().filter(|escaped| ['"', '\\'].contains(escaped))?),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_quoted_or_bare() {
        let long = "x".repeat(MAX_KEY_CHARS);
        for (text, expected) in [
            ("abc", "abc"),
            (r#""abc""#, "abc"),
            (r#" "abc" "#, "abc"),
            (r#""a b,c""#, "a b,c"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("a=b;c:d/e+f", "a=b;c:d/e+f"),
            (&long, &long),
            (&format!("\"{long}\""), &long),
        ] {
            assert!(is_published(text.trim()), "{text}");
            assert_eq!(IdempotencyKey::parse(text).ok().map(|key| key.0).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (long, quoted) = ("x".repeat(MAX_KEY_CHARS + 1), format!("\"{}\"", "x".repeat(MAX_KEY_CHARS + 1)));
        for text in [
            "",
            " ",
            "\"\"",
            "\"",
            "\"a",
            "a\"",
            "\"a\"b",
            "\"a\", \"b\"",
            "\"a\";b",
            "a,b",
            "a b",
            r"a\b",
            r#""a\b""#,
            r#""a\""#,
            "ä",
            "\"ä\"",
            "\"a\tb\"",
            "a\u{7f}",
            &long,
            &quoted,
        ] {
            assert!(IdempotencyKey::parse(text).is_err(), "{text:?} was taken");
            assert!(!is_published(text), "{text:?} is published as valid");
        }
    }

    /// Whether the contract says that this is a key.
    fn is_published(text: &str) -> bool {
        regex::Regex::new(&IdempotencyKey::schema().pattern.unwrap()).unwrap().is_match(text)
    }
}
