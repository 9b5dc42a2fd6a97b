//! Tells the program the commit that it is built from, for `taskpact --version` and `/health`, and packs Swagger UI for it.
//!
//! `BUILD_COMMIT` says it where there is no repository, as in an image. A build for development does not know it: else each
//! commit would have everything compiled again.

use std::{
    env, fs,
    io::{Cursor, Read, Write},
    path::Path,
    process::Command,
};

use flate2::{Compression, write::ZlibEncoder};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

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
    pack_swagger_ui();
}

/// Writes Swagger UI's program and style where `src/contract/pages.rs` includes them.
fn pack_swagger_ui() {
    let folder = env::var("OUT_DIR").expect("cargo names it");
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).expect("Swagger UI comes as an archive");
    for name in ["swagger-ui-bundle.js", "swagger-ui.css"] {
        let end = format!("/dist/{name}");
        let at = (0..archive.len())
            .find(|at| archive.by_index(*at).is_ok_and(|file| file.name().is_ok_and(|path| path.ends_with(&end))))
            .expect("Swagger UI has its distribution");
        let mut content = Vec::new();
        archive.by_index(at).and_then(|mut file| Ok(file.read_to_end(&mut content)?)).expect("the archive is whole");
        let file = fs::File::create(Path::new(&folder).join(format!("{name}.zz"))).expect("cargo has made the folder");
        let mut packed = ZlibEncoder::new(file, Compression::best());
        packed.write_all(&content).and_then(|()| packed.finish()).expect("there is room for it");
    }
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
