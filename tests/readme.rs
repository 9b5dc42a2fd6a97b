//! The README's tour, typed as it stands there, gives what stands there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use regex::Regex;
use support::{
    curl_is_missing, postgres,
    process::{Server, text},
};
use tempfile::tempdir;

/// The commands of the tour, each with what it prints.
fn tour() -> Vec<(String, String)> {
    let readme = fs::read_to_string("README.md").unwrap();
    let tour = readme.split("\n## ").find(|part| part.starts_with("A tour in five minutes")).unwrap();
    let mut steps: Vec<(String, String)> = Vec::new();
    for block in tour.split("```console\n").skip(1) {
        for line in block.split("\n```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push((command.to_owned(), String::new())),
                None => steps.last_mut().unwrap().1 += &format!("{line}\n"),
            }
        }
    }
    steps
}

/// `text` without what differs from run to run.
fn alike(text: &str) -> String {
    let id = Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z").unwrap();
    time.replace_all(&id.replace_all(text, "ID"), "TIME").into_owned()
}

/// Takes the tour, against a server on the database `url`.
fn take(directory: &Path, url: &str) {
    if curl_is_missing("The README's tour was not taken.") {
        return;
    }
    let server = Server::start(directory, &[("DATABASE_URL", url)]);
    let steps = tour();
    assert!(steps.len() > 10, "the tour is short: {steps:?}");
    // The program is built already, and it listens on another port, so that tests can run beside each other.
    let mut script = format!("cargo() {{ shift 3; {} \"$@\"; }}\n", env!("CARGO_BIN_EXE_taskpact"));
    for (command, _) in &steps {
        script += &format!("{command}\nprintf '\\036'\n");
    }
    let script = script.replace("127.0.0.1:8080", &server.address.to_string());
    let output = Command::new("sh")
        .args(["-euc", &script])
        .current_dir(directory)
        .env_clear()
        .envs([("PATH", std::env::var_os("PATH").unwrap())])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for ((command, expected), printed) in steps.iter().zip(printed.split('\u{1e}')) {
        assert_eq!(alike(printed), alike(expected), "$ {command}");
    }
}

#[test]
fn the_tour_is_true_on_sqlite() {
    take(tempdir().unwrap().path(), "sqlite://data/taskpact.db");
}

#[test]
fn the_tour_is_true_on_postgresql() {
    if postgres::is_missing() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(postgres::Database::new());
    take(tempdir().unwrap().path(), &database.url);
}

#[test]
fn the_table_of_settings_is_complete_and_right() {
    let page = fs::read_to_string("docs/CONFIGURATION.md").unwrap();
    let config = taskpact::config::Loaded::from(tempdir().unwrap().path(), []).unwrap().describe();
    let mut table = "";
    let mut found = 0;
    for line in config.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        } else if let Some((name, value)) = line.split_once("  # ").and_then(|(line, _)| line.split_once(" = ")) {
            let row = page.lines().find(|row| row.starts_with(&format!("| `{table}.{name}` |")));
            let row = row.unwrap_or_else(|| panic!("{table}.{name} is not in docs/CONFIGURATION.md"));
            let default = row.split('|').nth(3).unwrap().trim().trim_matches('`');
            assert_eq!(default, value.trim_matches(['"', '[', ']']), "{row}");
            found += 1;
        } else if let Some(name) = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set")) {
            assert!(
                page.contains(&format!("\n| `{table}.{name}` |")),
                "{table}.{name} is not in docs/CONFIGURATION.md"
            );
            found += 1;
        }
    }
    assert!(found >= 22);
    assert!(page.contains("| `auth.secret` | `BETTER_AUTH_SECRET` |"));
}

/// The anchor that a page has for a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The text of a page without its blocks of code.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_linked() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let others = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "clients/typescript/README.md"];
    let pages = docs.filter(|file| file.extension().is_some_and(|extension| extension == "md")).collect::<Vec<_>>();
    let readme = prose(Path::new("README.md"));
    for page in &pages {
        assert!(readme.contains(&format!("]({})", page.display())), "README.md does not lead to {}", page.display());
    }
    let mut found = 0;
    for page in pages.into_iter().chain(others.map(Into::into)) {
        let text = prose(&page);
        for target in link.captures_iter(&text).map(|link| link.extract::<1>().1[0]) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let is_there = file.exists()
                && (heading.is_empty()
                    || prose(&file).lines().any(|line| {
                        line.starts_with('#') && anchor(line.trim_start_matches('#').trim_start()) == heading
                    }));
            assert!(is_there, "{} leads to {target}, which is not there", page.display());
            found += 1;
        }
    }
    assert!(found > 50, "{found} links");
}
