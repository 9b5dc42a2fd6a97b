//! Whatever stands in `.env` and in `taskpact.toml`: it is read or refused, and no refusal shows a secret.

#![no_main]

use std::{fs, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use taskpact::config::Loaded;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
const SECRET: &str = "hush-hush-hush-hush-hush-hush-hush";

fuzz_target!(|files: (&[u8], &[u8])| {
    let (dot_env, toml) = files;
    let ours = format!("\nBETTER_AUTH_SECRET={SECRET}\n");
    fs::write(FOLDER.path().join(".env"), [dot_env, ours.as_bytes()].concat()).unwrap();
    fs::write(FOLDER.path().join("taskpact.toml"), toml).unwrap();
    let said = match Loaded::from(FOLDER.path(), std::iter::empty()) {
        Ok(loaded) => loaded.describe(),
        Err(refusal) => refusal.to_string(),
    };
    let is_given_away =
        dot_env.windows(SECRET.len()).chain(toml.windows(SECRET.len())).any(|part| part == SECRET.as_bytes());
    assert!(is_given_away || !said.contains(SECRET), "{said}");
});
