//! Reading `.env`, which other programs use, too.
//!
//! Their lines need not be readable here: what can't be read matters only if it is a setting of ours, and is then named by
//! its line, never by its value. dotenvy reads the lines; it gives up a whole file at the first that it can't read, so it is
//! given them one after the other.

use std::{fs, io::ErrorKind, path::Path};

/// How many lines a quoted value may have.
const MAX_LINES: usize = 100;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct DotEnv {
    /// The variables, in their order.
    pub(super) variables: Vec<(String, String)>,
    /// The lines that can't be read: the number, and the name of the variable if there seems to be one.
    pub(super) unreadable: Vec<(usize, String)>,
}

/// Reads `file`, if it is there. `is_ours` tells the names that mean something here.
///
/// # Errors
/// It is there and can't be read at all, in words for the operator.
pub(super) fn read(file: &Path, is_ours: impl Fn(&str) -> bool) -> Result<DotEnv, String> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(DotEnv::default()),
        Err(error) if file.is_dir() => return Err(format!("{} is a folder: {error}", file.display())),
        Err(error) => return Err(format!("{} can't be read: {error}", file.display())),
    };
    let text = decode(&bytes).ok_or_else(|| format!("{} is neither UTF-8 nor UTF-16", file.display()))?;
    Ok(parse(&text, is_ours))
}

/// The text of a file in UTF-8, or in UTF-16 with a byte order mark, as editors and shells on Windows write it.
fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<_> = bytes[2..].chunks(2).map(|pair| unit([pair[0], *pair.get(1).unwrap_or(&0)])).collect();
        String::from_utf16(&units).ok()
    };
    match bytes {
        [0xFF, 0xFE, ..] => utf16(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => utf16(u16::from_be_bytes),
        _ => {
            let text = str::from_utf8(bytes).ok()?;
            Some(text.strip_prefix('\u{FEFF}').unwrap_or(text).to_owned())
        }
    }
}

fn parse(text: &str, is_ours: impl Fn(&str) -> bool) -> DotEnv {
    let lines: Vec<_> = text.lines().collect();
    let (mut readable, mut unreadable) = (String::new(), Vec::new());
    let mut at = 0;
    while at < lines.len() {
        let mut chunk = lines[at].to_owned() + "\n";
        let mut end = at + 1;
        // A value in quotes may go on. What assigns to one of our names is no part of another's value.
        let may_go_on = chunk.contains(['"', '\'']);
        while !is_readable(&readable, &chunk) {
            let next = lines.get(end).filter(|next| may_go_on && end - at < MAX_LINES && !is_ours(name(next)));
            let Some(next) = next else {
                unreadable.push((at + 1, name(lines[at]).to_owned()));
                (chunk, end) = (String::new(), at + 1);
                break;
            };
            chunk += &format!("{next}\n");
            end += 1;
        }
        readable += &chunk;
        at = end;
    }
    let variables = dotenvy::from_read_iter(readable.as_bytes()).filter_map(Result::ok).collect();
    DotEnv { variables, unreadable }
}

/// Whether dotenvy can read `chunk`, which may refer to variables of the lines before.
fn is_readable(before: &str, chunk: &str) -> bool {
    let text = if chunk.contains('$') { before.to_owned() + chunk } else { chunk.to_owned() };
    dotenvy::from_read_iter(text.as_bytes()).all(|variable| variable.is_ok())
}

/// The name of the variable that a line seems to set.
fn name(line: &str) -> &str {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let name = line.split('=').next().unwrap_or_default().trim();
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') { name } else { "" }
}
