//! Tells the program the commit that it is built from, for `taskpact --version` and `/health`.
//!
//! `BUILD_COMMIT` says it where there is no repository, as in an image. A build for development does not know it: else each
//! commit would have everything compiled again.

use std::{env, path::Path, process::Command};

/// Without the prefix of settings: cargo hands it on to what it runs, and the program would take it for one.
const VARIABLE: &str = "BUILD_COMMIT";
/// What changes with each commit, and with what is checked out.
const LOG: &str = ".git/logs/HEAD";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    let given = env::var(VARIABLE).ok().filter(|given| !given.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| is_release.then(of_repository).flatten());
    if let Some(commit) = &commit {
        let is_hex = commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        assert!(is_hex && (7..=40).contains(&commit.len()), "{VARIABLE} is `{commit}`, not 7 to 40 hexadecimal digits");
    }
    println!("cargo::rustc-env={VARIABLE}={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit that is checked out here; not that of another repository which this folder may stand in.
fn of_repository() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    if Path::new(LOG).exists() {
        println!("cargo::rerun-if-changed={LOG}");
    }
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| commit.trim().to_owned())
}
