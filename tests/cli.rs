//! The program: its commands, how it starts and how it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use support::{
    SECRET, curl_is_missing,
    issuer::{self, Answer, Issuer, SigningKey},
    process::{Server, complaint, printed, program, run, start_eight, text},
    skip, token,
};
use taskpact::clock::Clock;
use tempfile::{TempDir, tempdir};

const WITH_SECRET: (&str, &str) = ("BETTER_AUTH_SECRET", SECRET);

/// Starts a server with the tests' secret.
fn serve(directory: &TempDir) -> Server {
    Server::start(directory.path(), &[WITH_SECRET])
}

#[test]
fn help_and_version_need_no_settings() {
    let here = tempdir().unwrap();
    let broken = [("TASKPACT_NOTHING", "1")];

    let help = printed(here.path(), &["--help"], &broken);
    for command in ["serve", "spec", "migrate", "token", "healthcheck", "config", "completions", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        assert!(!printed(here.path(), &[command, "--help"], &broken).is_empty());
    }
    let (version, commit) = (env!("CARGO_PKG_VERSION"), taskpact::api::COMMIT);
    assert_eq!(printed(here.path(), &["-V"], &broken), format!("taskpact {version}\n"));
    let long = printed(here.path(), &["--version"], &broken);
    assert!(long.starts_with(&format!("taskpact {version}\ncommit {commit}\nfeatures ")), "{long}");
    complaint(here.path(), &["unheard-of"], &[], 2);
}

#[test]
fn shells_complete_what_the_program_takes() {
    let here = tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = printed(here.path(), &["completions", shell], &[("TASKPACT_NOTHING", "1")]);
        assert!(script.contains("healthcheck") && script.contains("ttl"), "{shell}: {script}");
    }
    let script = here.path().join("taskpact.bash");
    fs::write(&script, printed(here.path(), &["completions", "bash"], &[])).unwrap();
    let ask = format!(
        "set -euo pipefail; . '{}'; COMP_WORDS=(taskpact mig) COMP_CWORD=1; _taskpact taskpact mig taskpact; echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
    assert_eq!(text(&output.stdout), "migrate\n", "{}", text(&output.stderr));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let here = tempdir().unwrap();
    let folder = here.path().join("share/man1");
    printed(here.path(), &["man", folder.to_str().unwrap()], &[("TASKPACT_NOTHING", "1")]);
    let pages: Vec<_> = fs::read_dir(&folder).unwrap().map(|page| page.unwrap().path()).collect();
    for name in ["taskpact.1", "taskpact-serve.1", "taskpact-migrate-up.1", "taskpact-user-erase.1"] {
        assert!(pages.contains(&folder.join(name)), "{name} is not among {pages:?}");
    }
    let complained = complaint(here.path(), &["man", "/dev/null/x"], &[], 1);
    assert!(complained.contains("can't write to /dev/null/x"), "{complained}");
    if Command::new("mandoc").arg("/dev/null").output().is_err() {
        return skip("There is no `mandoc` here.", "That the manual's pages are well formed was not tested.");
    }
    let output = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).args(&pages).output().unwrap();
    assert_eq!(text(&output.stdout), "");
}

#[test]
#[cfg(not(feature = "otlp"))]
fn whoever_expects_spans_of_a_program_that_sends_none_is_told() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")]);
    let told = "`OTEL_EXPORTER_OTLP_ENDPOINT` is set, but no spans are sent";
    assert!(server.stop().contains(told));
}

#[test]
fn spec_prints_the_contract_and_checks_a_file() {
    let here = tempdir().unwrap();
    // Settings that nothing could start with.
    let broken = [("TASKPACT_NOTHING", "1"), ("DATABASE_URL", "nonsense"), ("BETTER_AUTH_SECRET", "short")];
    let committed = fs::read_to_string("api-spec.yaml").unwrap();
    let check = |name: &str, format: &str| run(here.path(), &["spec", "--check", name, "--format", format], &broken);

    assert_eq!(printed(here.path(), &["spec"], &broken), committed);
    let json = printed(here.path(), &["spec", "--format", "json"], &broken);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), *support::contract::DOCUMENT);

    let in_3_1 = fs::read_to_string("api-spec-3.1.yaml").unwrap();
    assert_eq!(printed(here.path(), &["spec", "--openapi", "3.1"], &broken), in_3_1);
    assert_eq!(run(here.path(), &["spec", "--openapi", "2.0"], &broken).status.code(), Some(2));

    fs::write(here.path().join("rendition.yaml"), &in_3_1).unwrap();
    assert!(text(&check("rendition.yaml", "yaml").stderr).contains("in OpenAPI 3.1: add `--openapi 3.1`"));
    fs::remove_file(here.path().join("rendition.yaml")).unwrap();
    fs::write(here.path().join("same.yaml"), &committed).unwrap();
    fs::write(here.path().join("same.json"), &json).unwrap();
    fs::write(here.path().join("other.yaml"), committed.replacen("maxLength: 200", "maxLength: 201", 1)).unwrap();
    for (name, format) in [("same.yaml", "yaml"), ("same.json", "json")] {
        let output = check(name, format);
        assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    }
    let line = committed.lines().position(|line| line.ends_with("maxLength: 200")).unwrap() + 1;
    let other = check("other.yaml", "yaml");
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains(&format!("differs from line {line} on")), "{}", text(&other.stderr));
    assert!(text(&check("same.yaml", "json").stderr).contains("`taskpact spec --format json > same.yaml` writes it"));
    fs::write(here.path().join("windows.yaml"), committed.replace('\n', "\r\n")).unwrap();
    let windows = text(&check("windows.yaml", "yaml").stderr);
    assert!(windows.contains("but with other line ends (CRLF)") && !windows.contains(" from line "), "{windows}");
    fs::write(here.path().join("windows.yaml"), committed.trim_end()).unwrap();
    let cut = text(&check("windows.yaml", "yaml").stderr);
    assert!(cut.contains("but for the empty lines at its end"), "{cut}");
    assert!(text(&check("missing.yaml", "yaml").stderr).contains("can't read missing.yaml"));
    assert!(fs::read_dir(here.path()).unwrap().count() == 4, "it leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_exported_and_erased() {
    let here = tempdir().unwrap();
    let unknown = complaint(here.path(), &["user", "export", "--user", "ann"], &[], 1);
    assert!(unknown.contains("there is no database yet at sqlite://data/taskpact.db"), "{unknown}");
    assert!(fs::read_dir(here.path()).unwrap().next().is_none(), "it makes no database");
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let tasks = [ann.create("one").await, ann.create("two").await];
    bob.create("of somebody else").await;
    let in_file = |text: &str| {
        let files = ["data/taskpact.db", "data/taskpact.db-wal"]
            .map(|name| fs::read(here.path().join(name)).unwrap_or_default());
        files.iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    let secret = "what nobody may find any more";
    ann.put(tasks[1]["id"].as_str().unwrap(), json!({"description": secret})).await.is(200);

    let exported = printed(here.path(), &["user", "export", "--user", "ann"], &[]);
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0], lines.len(), &lines[1]["description"]), (&tasks[0], 2, &json!(secret)));

    let refused = complaint(here.path(), &["user", "erase", "--user", "ann"], &[], 1);
    assert!(refused.contains("user `ann` for good, with 2 tasks, 0 answers"), "{refused}");
    assert!(refused.contains("Nothing was done. Say --yes"), "{refused}");
    assert_eq!(ann.titles("").await.len(), 2);
    let erased = printed(here.path(), &["user", "erase", "--user", "ann", "--yes"], &[]);
    assert_eq!(erased, "erased `ann`: 2 tasks\n");
    assert_eq!((ann.titles("").await.len(), bob.titles("").await.len()), (0, 1));
    complaint(here.path(), &["user", "erase", "--user", "", "--yes"], &[], 2);
    let unknown = complaint(here.path(), &["user", "erase", "--user", "ann", "--yes"], &[], 1);
    assert!(unknown.contains("there is no user `ann` in the database"), "{unknown}");
    let running = complaint(here.path(), &["migrate", "down", "--yes"], &[], 1);
    assert!(running.contains("a server has the database open: stop it first"), "{running}");
    server.stop();
    assert!(in_file("of somebody else") && !in_file(secret), "it is still in the file");
}

#[test]
fn taking_the_blocks_back_says_how_many_there_are() {
    let here = tempdir().unwrap();
    printed(here.path(), &["migrate", "up"], &[]);
    let told = || complaint(here.path(), &["migrate", "down"], &[], 1);
    assert!(!told().contains("blocks of users"), "there is none");
    printed(here.path(), &["user", "block", "--user", "ann"], &[]);
    assert!(told().contains("  blocks of users (1 rows), made by m20261126_000005_blocks"), "{}", told());
    // Also somebody whom the database did not know: who was erased before does not come back.
    let said = complaint(here.path(), &["user", "erase", "--user", "bob", "--yes", "--block"], &[], 1);
    assert!(said.contains("there is no user `bob`"), "{said}");
    assert!(told().contains("(2 rows)"), "{}", told());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_blocked_until_they_have_a_new_token_or_a_time_comes() {
    let here = tempdir().unwrap();
    let metrics = format!("127.0.0.1:{}", support::postgres::free_port());
    let server = Server::start(here.path(), &[WITH_SECRET, ("TASKPACT_METRICS__ADDRESS", &metrics)]);
    let ann = server.user("ann");
    ann.create("t").await;
    let block = |more: &[&str]| run(here.path(), &[&["user", "block", "--user", "ann"], more].concat(), &[]);

    let blocked = text(&block(&[]).stdout);
    let at = blocked.strip_prefix("blocked `ann`: tokens that were issued before ").unwrap();
    let at = chrono::DateTime::parse_from_rfc3339(at.strip_suffix(" are refused\n").unwrap()).unwrap();
    let ahead = at.timestamp() - chrono::DateTime::<chrono::Utc>::from(Clock.now()).timestamp();
    assert!((-20..=1).contains(&ahead), "{blocked}");
    ann.list("").await.is_problem(401, "unauthorized");
    server.wait_for(r#"reason="it was not issued after its user's block (blocked)""#);
    // One request was accepted, one refused, and none counts as both.
    let counted = metrics_of(&metrics);
    for verdict in [r#"{verdict="accepted",reason=""} 1"#, r#"{verdict="refused",reason="blocked"} 1"#] {
        assert!(counted.contains(&format!("taskpact_token_verdicts_total{verdict}\n")), "{counted}");
    }
    while Clock.now() < at.to_utc().into() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let renewed = ann.with_token(printed(here.path(), &["token", "--user", "ann"], &[WITH_SECRET]).trim_end());
    renewed.list("").await.is(200);

    let until = "2999-12-31T22:00:00+01:00";
    let longer = block(&["--until", until]);
    assert_eq!(
        text(&longer.stdout),
        "blocked `ann`: tokens that were issued before 2999-12-31T21:00:01Z are refused\n"
    );
    assert!(longer.stderr.is_empty(), "{}", text(&longer.stderr));
    renewed.list("").await.is_problem(401, "unauthorized");
    let again = block(&["--until", "2h"]);
    assert_eq!(again.stdout, longer.stdout);
    assert!(text(&again.stderr).contains("lasts longer"), "{}", text(&again.stderr));
    for (wrong, why) in
        [("2020-01-01T00:00:00Z", "not in the future"), ("0s", "not in the future"), ("soon", "such as")]
    {
        let refused = block(&["--until", wrong]);
        assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
    }
    let unblock = ["user", "unblock", "--user", "ann"];
    assert_eq!(printed(here.path(), &unblock, &[]), "unblocked `ann`\n");
    renewed.list("").await.is(200);
    ann.list("").await.is(200);
    assert!(complaint(here.path(), &unblock, &[], 1).contains("the user `ann` is not blocked"));

    let erase = |user: &str, more: &[&str]| {
        let erased = run(here.path(), &[&["user", "erase", "--yes", "--user", user], more].concat(), &[]);
        (text(&erased.stdout), text(&erased.stderr))
    };
    let (erased, said) = erase("ann", &["--block"]);
    assert!(erased.starts_with("blocked `ann`: ") && erased.ends_with("\nerased `ann`: 1 tasks\n"), "{erased}");
    assert_eq!(said, "");
    renewed.post(json!({"title": "t"})).await.is_problem(401, "unauthorized");
    let unknown = run(here.path(), &["user", "block", "--user", "somebody"], &[]);
    assert!(text(&unknown.stderr).contains("The database did not know this user"), "{}", text(&unknown.stderr));
    let bob = server.user("bob");
    bob.create("t").await;
    assert!(erase("bob", &[]).1.contains("`taskpact user block` refuses those"));
    bob.create("t").await;
    server.stop();
}

/// What the server tells at the address of its metrics.
fn metrics_of(address: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn config_prints_what_is_in_force_without_secrets() {
    let here = tempdir().unwrap();
    let shown = printed(here.path(), &["config"], &[WITH_SECRET, ("PORT", "9")]);

    assert!(shown.contains("\nport = 9  # environment variable PORT\n"), "{shown}");
    assert!(shown.contains("\nsecret = \"(hidden)\"  # environment variable BETTER_AUTH_SECRET\n"), "{shown}");
    assert!(!shown.contains(SECRET));
}

#[test]
fn bad_settings_end_every_command_with_status_2() {
    let here = tempdir().unwrap();
    for arguments in
        [&[][..], &["serve"], &["config"], &["migrate", "up"], &["token", "--user", "ann"], &["healthcheck"]]
    {
        let said = complaint(here.path(), arguments, &[("TASKPACT_SERVER__PROT", "1")], 2);
        assert!(said.contains("`server.prot` (environment variable TASKPACT_SERVER__PROT)"), "{said}");
    }
    let said = complaint(here.path(), &[], &[("TASKPACT_LOG__FILTER", "loud,=")], 2);
    assert!(said.contains("`log.filter`"), "{said}");
    let said = complaint(here.path(), &["token", "--user", ""], &[WITH_SECRET], 2);
    assert!(said.contains("1 to 255 characters"), "{said}");
    complaint(here.path(), &["token", "--user", "ann", "--ttl", "soon"], &[WITH_SECRET], 2);
    complaint(here.path(), &["token"], &[WITH_SECRET], 2);
}

#[test]
fn migrations_go_up_and_down_and_tell_their_state() {
    let here = tempdir().unwrap();
    let migrate = |arguments: &[&str]| printed(here.path(), &[&["migrate"], arguments].concat(), &[]);
    let steps = [
        "m20261121_000001_users_and_tasks",
        "m20261121_000002_idempotency_keys",
        "m20261125_000003_revisions",
        "m20261126_000004_changes",
        "m20261126_000005_blocks",
    ];
    let [one, two, three, four, last] = steps;
    let all = |said: &str| steps.map(|step| format!("{said} {step}\n")).concat();

    assert_eq!(migrate(&["status"]), all("pending "));
    assert_eq!(migrate(&["down"]), "nothing to take back\n");
    assert!(!here.path().join("data").exists(), "to look makes no file");
    assert_eq!(migrate(&["up"]), all("applied"));
    assert_eq!(migrate(&["up"]), "nothing to apply\n");
    assert_eq!(migrate(&["status"]), all("applied "));
    for file in ["taskpact.db", "taskpact.db-wal"] {
        let file = here.path().join("data").join(file);
        let mode = file.metadata().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
        assert_eq!(mode, 0o600, "what is in {} is nobody else's business", file.display());
    }

    // What would go is told first, and nothing goes by a slip.
    let said = complaint(here.path(), &["migrate", "down", "--steps", "5"], &[], 1);
    for table in ["deleted_tasks (0 rows)", "idempotency_keys (0 rows)", "tasks (0 rows)", "users (0 rows)"] {
        assert!(said.contains(table), "{said}");
    }
    assert!(said.contains("Say --yes"), "{said}");
    assert_eq!(migrate(&["status"]), all("applied "));
    let said = complaint(here.path(), &["migrate", "down"], &[], 1);
    assert!(said.contains(&format!("This takes back {last}.")) && said.contains("Say --yes"), "{said}");
    for step in [last, four, three, two] {
        assert_eq!(migrate(&["down", "--yes"]), format!("took back {step}\n"));
    }
    let pending: String = [two, three, four, last].map(|step| format!("pending  {step}\n")).concat();
    assert_eq!(migrate(&["status"]), format!("applied  {one}\n{pending}"));
    assert_eq!(migrate(&["down", "--steps", "6", "--yes"]), format!("took back {one}\n"));
    assert_eq!(migrate(&["down"]), "nothing to take back\n");
}

/// What a terminal shows of a command, with `answer` typed at its prompt.
fn at_a_terminal(here: &Path, arguments: &str, answer: &str) -> String {
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_taskpact"));
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).current_dir(here).env_clear();
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    text(&child.wait_with_output().unwrap().stdout)
}

#[test]
fn at_a_terminal_taking_back_is_asked_for() {
    let here = tempdir().unwrap();
    printed(here.path(), &["migrate", "up"], &[]);
    let shown = at_a_terminal(here.path(), "migrate down --steps 4", "no\n");
    assert!(shown.contains("Type `yes` to go on") && shown.contains("nothing was done"), "{shown}");
    let shown = at_a_terminal(here.path(), "migrate down --steps 4", "yes\n");
    assert!(shown.contains("took back m20261121_000002_idempotency_keys"), "{shown}");
}

#[test]
fn a_database_of_another_program_or_of_a_newer_version_is_left_alone() {
    let here = tempdir().unwrap();
    let sqlite = |file: &str, statements: &'static str| {
        let url = format!("sqlite://{}?mode=rwc", here.path().join(file).display());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
        });
    };
    sqlite("other.db", "create table users (id integer primary key, email text)");
    let said = complaint(here.path(), &[], &[WITH_SECRET, ("DATABASE_URL", "sqlite://other.db")], 1);
    assert!(said.contains("it has a table `users` of another program: this server needs a database"), "{said}");

    printed(here.path(), &["migrate", "up"], &[("DATABASE_URL", "sqlite://newer.db")]);
    sqlite("newer.db", "insert into seaql_migrations values ('m99991231_000001_later', 1)");
    for command in [&[][..], &["migrate", "up"], &["migrate", "down", "--yes"], &["migrate", "status"]] {
        let said = complaint(here.path(), command, &[WITH_SECRET, ("DATABASE_URL", "sqlite://newer.db")], 1);
        assert!(said.contains("a newer version of this server has migrated it (`m99991231_000001_later`"), "{said}");
    }
    let foreign = "create table seaql_migrations (version text primary key, applied_at bigint);
                   insert into seaql_migrations values ('m1', 1)";
    sqlite("seaorm.db", foreign);
    let said = complaint(here.path(), &["migrate", "up"], &[("DATABASE_URL", "sqlite://seaorm.db")], 1);
    assert!(said.contains("another program has migrated it (`m1`)"), "{said}");
}

#[test]
fn migrations_at_start_can_be_turned_off() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET, ("TASKPACT_DATABASE__MIGRATE", "false")]);
    server.wait_for("migration m20261121_000001_users_and_tasks is pending: run `taskpact migrate up`");

    let status = |path: &str| get(&server, path, "").lines().next().unwrap().to_owned();
    assert_eq!(status("/health"), "HTTP/1.1 200 OK");
    assert_eq!(status("/health/ready"), "HTTP/1.1 503 Service Unavailable");
    printed(here.path(), &["migrate", "up"], &[]);
    assert_eq!(status("/health/ready"), "HTTP/1.1 200 OK");
}

/// The answer to a plain request.
fn get(server: &Server, path: &str, headers: &str) -> String {
    exchange(server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"))
}

fn exchange(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_token_is_what_the_server_accepts() {
    let here = tempdir().unwrap();
    let server = serve(&here);

    for arguments in [&["--user", "ann"][..], &["--user", "ann", "--ttl", "15m"], &["--user", "ann", "--ttl", "7d"]] {
        let token = printed(here.path(), &[&["token"], arguments].concat(), &[WITH_SECRET]);
        assert_eq!(token.lines().count(), 1);
        let answer = get(&server, "/api/ann/tasks", &format!("Authorization: Bearer {}\r\n", token.trim_end()));
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_what_the_issuer_would_make_by_these_settings() {
    let here = tempdir().unwrap();
    let settings = [
        WITH_SECRET,
        ("TASKPACT_AUTH__ISSUER", "https://app.example.com"),
        ("TASKPACT_AUTH__AUDIENCE", "tasks"),
        ("TASKPACT_AUTH__USER_ID_CLAIM", "uid"),
    ];
    let server = Server::start(here.path(), &settings);
    let token = printed(here.path(), &["token", "--user", "ann"], &settings);
    let plain = printed(here.path(), &["token", "--user", "ann"], &[WITH_SECRET]);

    server.user("ann").with_token(token.trim_end()).list("").await.is(200);
    server.user("ann").with_token(plain.trim_end()).list("").await.is(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_this_machine_are_not_fetched_through_a_proxy() {
    let here = tempdir().unwrap();
    let key = SigningKey::new("a", jsonwebtoken::Algorithm::EdDSA);
    let issuer = Issuer::start(Answer::keys(&[&key])).await;
    let proxy = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let (url, name) = (issuer.url(), issuer.name());
    let server = Server::start(
        here.path(),
        &[
            ("TASKPACT_AUTH__JWKS_URL", &url),
            ("TASKPACT_AUTH__ISSUER", &name),
            ("HTTP_PROXY", &address),
            ("http_proxy", &address),
            ("ALL_PROXY", &address),
        ],
    );
    let claims = json!({"sub": "ann", "iss": name, "aud": name, "exp": issuer::now() + 60});
    server.user("ann").with_token(&key.token(&claims)).list("").await.is(200);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "the proxy was asked");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_meant_is_warned_of() {
    let here = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    fs::write(elsewhere.path().join(".env"), "NEXT_PUBLIC_APP_NAME=My Task App\n").unwrap();
    let wide = ("TASKPACT_CORS__ALLOWED_ORIGINS", "https://*.vercel.app,http://localhost:*");
    let server = Server::start(elsewhere.path(), &[WITH_SECRET, wide]);
    server.wait_for("line 1 of .env (NEXT_PUBLIC_APP_NAME) can't be read; it is no setting of this server");
    server.wait_for("`cors.allowed_origins` has `https://*.vercel.app`: every page under such a name may call");
    assert!(!server.stop().contains("has `http://localhost:*`"));
    let (anybody, on_the_way) = ("`auth.issuer` is not set", "`auth.jwks_url` is not https");
    let issuer = ("TASKPACT_AUTH__ISSUER", "https://app.example.com");
    let keys = |url| vec![issuer, ("TASKPACT_AUTH__JWKS_URL", url)];
    for (settings, warnings) in [
        (vec![], [false, false]),
        (vec![WITH_SECRET], [true, false]),
        (vec![WITH_SECRET, issuer], [false, false]),
        (keys("http://127.0.0.1:9/jwks"), [false, false]),
        (keys("http://keys.invalid/jwks"), [false, true]),
    ] {
        let log = Server::start(here.path(), &settings).stop();
        assert_eq!([anybody, on_the_way].map(|words| log.contains(words)), warnings, "{settings:?}: {log}");
    }
    let said = complaint(here.path(), &["token", "--user", "ann"], &keys("https://app.example.com/jwks"), 2);
    assert!(said.contains("only the issuer can make one: take one from it"), "{said}");
    let file = [issuer, ("TASKPACT_AUTH__JWKS_FILE", "missing.json")];
    let said = complaint(here.path(), &[], &file, 2);
    assert!(said.contains("`auth.jwks_file` (missing.json) can't be used: No such file"), "{said}");
}

#[test]
fn without_settings_it_runs_in_development_mode_and_says_how_to_call_it() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[]);
    let said = server.printed();
    let url = format!("http://{}", server.address);

    for line in [
        format!("  API       {url}/api/{{user_id}}/tasks"),
        format!("  docs      {url}/docs"),
        format!("  contract  {url}/openapi.yaml"),
        "  database  sqlite://data/taskpact.db".to_owned(),
    ] {
        assert!(said.lines().any(|printed| printed == line), "{line}\n\n{said}");
    }
    assert!(said.contains("DEVELOPMENT MODE"));

    // The line that is printed, pasted into a shell.
    if curl_is_missing("The line that a starting server prints was not tried.") {
        return;
    }
    let line = said.lines().find(|line| line.trim_start().starts_with("curl ")).expect(&said);
    let shell = std::process::Command::new("sh")
        .args(["-c", &format!("{line} --silent --show-error --fail")])
        .output()
        .unwrap();
    assert_eq!((text(&shell.stdout), text(&shell.stderr)), ("[]".to_owned(), String::new()));

    let file = here.path().join("data/development-secret");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&file).unwrap();
    assert!(secret.len() >= 32 && !said.contains(&secret));
    assert!(fs::metadata(here.path().join("data/taskpact.db")).unwrap().is_file());

    // The same secret the next time, also for the command that prints tokens.
    server.stop();
    let server = Server::start(here.path(), &[]);
    let token = printed(here.path(), &["token", "--user", "ann"], &[]);
    let answer = get(&server, "/api/ann/tasks", &format!("Authorization: Bearer {}\r\n", token.trim_end()));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);
    assert_eq!(fs::read_dir(here.path().join("data")).unwrap().filter(|e| text_of(e).contains("secret")).count(), 1);

    // Every page of this machine may call, whatever serves it; and those of others may not, which is explained.
    let preflight = |origin: &str| {
        let head = format!("Host: x\r\nConnection: close\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST");
        exchange(&server, &format!("OPTIONS /api/ann/tasks HTTP/1.1\r\n{head}\r\n\r\n"))
    };
    for origin in ["http://localhost:5173", "http://127.0.0.1:4200", "http://localhost:3000"] {
        assert!(preflight(origin).contains(&format!("access-control-allow-origin: {origin}\r\n")), "{origin}");
    }
    assert!(!preflight("https://app.example.com").contains("access-control-allow-origin"));
    server.wait_for("a page of https://app.example.com may not call: it is not in `cors.allowed_origins`");
}

fn text_of(entry: &std::io::Result<fs::DirEntry>) -> String {
    entry.as_ref().unwrap().file_name().into_string().unwrap()
}

#[test]
fn development_mode_is_for_this_machine_only_unless_it_is_asked_for() {
    let here = tempdir().unwrap();
    for environment in [
        &[("HOST", "0.0.0.0")][..],
        &[("HOST", "::")],
        &[("TASKPACT_AUTH__DEVELOPMENT", "never")],
        &[("TASKPACT_AUTH__DEVELOPMENT", "never"), ("HOST", "localhost")],
    ] {
        let said = complaint(here.path(), &[], environment, 2);
        assert!(said.contains("Set BETTER_AUTH_SECRET"), "{said}");
    }
    assert!(!here.path().join("data").exists(), "nothing is made before the settings are right");
    for environment in [
        &[("HOST", "localhost")][..],
        &[("HOST", "0.0.0.0"), ("TASKPACT_AUTH__DEVELOPMENT", "anywhere")],
        &[("HOST", "0.0.0.0"), WITH_SECRET],
    ] {
        let server = Server::start(here.path(), environment);
        assert_eq!(server.printed().contains("DEVELOPMENT MODE"), !environment.contains(&WITH_SECRET));
        assert!(
            server.printed().contains(&format!("http://127.0.0.1:{}/docs", server.address.port())),
            "{}",
            server.printed()
        );
    }
}

#[test]
fn in_json_development_mode_is_a_warning_without_a_token() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[("TASKPACT_LOG__FORMAT", "json")]);
    let log = server.complained();
    assert!(log.contains("DEVELOPMENT MODE") && log.contains("\"WARN\"") && !log.contains("eyJ"), "{log}");
    assert!(server.printed().is_empty(), "{}", server.printed());
}

#[test]
fn a_token_is_printed_only_where_a_server_would_accept_it() {
    let here = tempdir().unwrap();
    for environment in [("TASKPACT_AUTH__DEVELOPMENT", "never"), ("HOST", "0.0.0.0")] {
        let said = complaint(here.path(), &["token", "--user", "ann"], &[environment], 2);
        assert!(said.contains("Set BETTER_AUTH_SECRET"), "{said}");
    }
    let output = run(here.path(), &["token", "--user", "ann"], &[]);
    assert!(text(&output.stderr).contains("development secret"), "{}", text(&output.stderr));
    assert!(!text(&run(here.path(), &["token", "--user", "ann"], &[WITH_SECRET]).stderr).contains("development"));
}

#[test]
fn a_development_secret_that_is_none_is_refused() {
    let here = tempdir().unwrap();
    fs::create_dir(here.path().join("data")).unwrap();
    for broken in ["", "\n", "short"] {
        fs::write(here.path().join("data/development-secret"), broken).unwrap();
        for arguments in [&[][..], &["token", "--user", "ann"]] {
            let said = complaint(here.path(), arguments, &[], 1);
            assert!(said.contains("data/development-secret: it is shorter than 32 bytes; delete it"), "{said}");
        }
    }
}

#[test]
fn a_variable_that_is_not_unicode_is_not_passed_over() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let here = tempdir().unwrap();
    for name in ["BETTER_AUTH_SECRET", "TASKPACT_LOG__FILTER"] {
        let mut command = program(here.path(), &["config"], &[]);
        let output = command
            .env(name, OsStr::from_bytes(b"\xFF\xFE"))
            .env("OTHER", OsStr::from_bytes(b"\xFF"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(&format!("{name} is not UTF-8")), "{}", text(&output.stderr));
    }
}

#[test]
fn a_taken_port_is_named() {
    let here = tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let said = complaint(here.path(), &[], &[("PORT", &port)], 1);
    assert!(
        said.contains(&format!(
            "can't listen on `127.0.0.1`, port {port} (`server.host`, `server.port`; environment HOST, PORT)"
        )),
        "{said}"
    );
    let database = here.path().join("data/taskpact.db");
    assert_eq!(fs::metadata(database).map_or(0, |file| file.len()), 0, "nothing was migrated for it");
}

#[test]
fn a_database_that_can_not_be_had_is_named() {
    let here = tempdir().unwrap();
    fs::write(here.path().join("file"), "not a folder").unwrap();
    fs::write(
        here.path().join("no.db"),
        "not a database, but as long as the head of one would be, which is a hundred bytes, and more",
    )
    .unwrap();

    let said = complaint(here.path(), &[], &[("DATABASE_URL", "sqlite://file/tasks.db")], 2);
    assert!(said.contains("`database.url` can't be used") && said.contains("file: "), "{said}");
    let said = complaint(here.path(), &[], &[("DATABASE_URL", "sqlite://no.db")], 1);
    assert!(said.contains("the database sqlite://no.db can't be used") && said.contains("not a database"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_a_restart() {
    let here = tempdir().unwrap();
    let server = serve(&here);
    let create = |server: &Server| {
        let ann = server.user("ann");
        ann.call(Method::POST, ann.tasks()).json(json!({"title": "Still there"})).key("key").send()
    };
    let created = create(&server).await;
    // Not even a chance to clean up.
    server.send_signal("KILL");
    server.end();

    let server = serve(&here);
    let repeated = create(&server).await;
    assert_eq!((&repeated.bytes, repeated.header("idempotent-replayed")), (&created.bytes, Some("true")));
    assert_eq!(server.user("ann").list("").await.is(200).json(), json!([created.json()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_forgets_old_answers_by_itself() {
    let here = tempdir().unwrap();
    let url = format!("sqlite://{}/data/taskpact.db", here.path().display());
    let server = serve(&here);
    let ann = server.user("ann");
    ann.call(Method::POST, ann.tasks()).json(json!({"title": "t"})).key("key").send().await.is(201);
    server.stop();
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    let kept = "select count(*) from idempotency_keys";
    database.execute("update idempotency_keys set created_at = '2000-01-01 00:00:00+00:00'").await.unwrap();

    let server = serve(&here);
    let started = Instant::now();
    while sqlx::query_scalar::<_, i64>(kept).fetch_one(&mut database).await.unwrap() > 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "it still keeps the answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop();
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_though_the_disk_was_full() {
    let here = tempdir().unwrap();
    printed(here.path(), &["migrate", "up"], &[]);
    // No file may grow beyond 1 MiB: writing fails then, as it does on a full disk.
    let limited = format!("trap '' XFSZ; ulimit -S -f 2048; exec {} serve", env!("CARGO_BIN_EXE_taskpact"));
    let server = Server::start_command(
        std::process::Command::new("sh")
            .args(["-c", &limited])
            .current_dir(here.path())
            .env_clear()
            .envs([WITH_SECRET]),
    );
    let ann = server.user("ann");

    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for n in 0..500 {
        if n == 450 {
            assert!(refused > 0, "the disk was never full");
            refused = 0;
            let status = std::process::Command::new("prlimit")
                .args(["--fsize=unlimited", "--pid", &server.id().to_string()])
                .status();
            assert!(status.unwrap().success());
        }
        let body = json!({"title": format!("{n}"), "description": "x".repeat(1000)});
        let call = ann.call(Method::POST, ann.tasks()).json(body);
        // Every second one is a transaction of several statements.
        let reply = if n % 2 == 0 { call } else { call.key(&format!("{n}")) }.send().await;
        if reply.status == 201 {
            acknowledged.push(reply.json());
        } else {
            reply.is_problem(503, "unavailable");
            refused += 1;
        }
    }
    assert_eq!(refused, 0, "there is room again");
    assert!(acknowledged.len() > 70, "{} acknowledged", acknowledged.len());
    server.send_signal("KILL");
    server.end();

    let server = serve(&here);
    let listed = server.user("ann").list("").await.is(200).json();
    for task in acknowledged {
        assert!(listed.as_array().unwrap().contains(&task), "it was acknowledged and is not there: {task}");
    }
}

#[test]
fn a_stopping_server_finishes_what_is_in_flight() {
    for name in ["TERM", "INT", "HUP"] {
        let here = tempdir().unwrap();
        let server = serve(&here);
        let body = r#"{"title":"In flight"}"#;
        let (first, rest) = body.split_at(5);
        let mut request = TcpStream::connect(server.address).unwrap();
        write!(
            request,
            "POST /api/ann/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}",
            token("ann"),
            body.len()
        )
        .unwrap();
        // An idle connection must not hold it up either.
        let mut idle = TcpStream::connect(server.address).unwrap();
        idle.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(idle.read(&mut [0; 1000]).unwrap() > 0);
        // On a busy machine the head may still be on its way.
        thread::sleep(Duration::from_millis(300));

        server.send_signal(name);
        server.wait_for("stopping");
        thread::sleep(Duration::from_millis(200));
        assert!(TcpStream::connect(server.address).is_err(), "it takes no more connections");
        request.write_all(rest.as_bytes()).unwrap();
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();

        assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

#[test]
fn a_request_that_never_ends_does_not_keep_a_stopping_server() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET, ("TASKPACT_SERVER__SHUTDOWN_TIMEOUT_SECS", "1")]);
    let _request = unfinished_request(&server);

    let started = Instant::now();
    let log = server.stop();
    assert!(log.contains("stopped with requests still in flight"), "{log}");
    assert!(started.elapsed() < Duration::from_secs(10), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_change_is_answered_when_the_server_stops() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET, ("TASKPACT_SERVER__DRAIN_DELAY_SECS", "3")]);
    let ann = server.user("ann");
    let ask = |query| {
        let ann = ann.clone();
        tokio::spawn(async move { ann.changes(query).await })
    };
    let waiting = [ask("?wait=30"), ask("?wait=30")];
    tokio::time::sleep(Duration::from_millis(300)).await;

    let started = Instant::now();
    server.send_signal("TERM");
    for call in waiting {
        let reply = call.await.unwrap();
        assert_eq!(
            (reply.is(200).json()["has_more"].clone(), reply.header("connection")),
            (json!(false), Some("close"))
        );
    }
    // Nobody may wait any more.
    ask("?wait=30").await.unwrap().is(200);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(started.elapsed() < Duration::from_secs(15), "{log}");
}

/// A request of which the server waits for the rest.
fn unfinished_request(server: &Server) -> TcpStream {
    let mut request = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST /api/ann/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 99\r\n\r\n",
        token("ann")
    );
    request.write_all(head.as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(200));
    request
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let here = tempdir().unwrap();
    let server = serve(&here);
    let _request = unfinished_request(&server);

    server.send_signal("TERM");
    server.wait_for("stopping");
    server.send_signal("TERM");
    assert_eq!(server.end().0.code(), Some(1));
}

#[test]
fn the_health_check_asks_the_server_of_these_settings() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET, ("HOST", "0.0.0.0")]);
    let port = server.address.port().to_string();
    let check = |host: &str| run(here.path(), &["healthcheck"], &[("HOST", host), ("PORT", &port)]);

    for host in ["0.0.0.0", "127.0.0.1", "localhost"] {
        assert!(check(host).status.success(), "{host}: {}", text(&check(host).stderr));
    }
    server.stop();
    let said = complaint(here.path(), &["healthcheck"], &[("PORT", &port)], 1);
    assert!(said.contains("the server does not answer"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_one_line_a_request_and_holds_nothing_private() {
    let here = tempdir().unwrap();
    let environment = [
        WITH_SECRET,
        ("TASKPACT_LOG__FORMAT", "json"),
        ("TASKPACT_LOG__FILTER", "trace"),
        ("DATABASE_URL", "sqlite://data/xyzzy-address.db"),
    ];
    let server = Server::start(here.path(), &environment);
    let ann = server.user("xyzzy-user");

    let task = ann.create("xyzzy-title").await;
    ann.put(task["id"].as_str().unwrap(), json!({"description": "xyzzy-description"})).await.is(200);
    ann.post(json!({"title": ["xyzzy-wrong"], "xyzzy-field": 1})).await.is(422);
    ann.call(Method::POST, ann.tasks())
        .header("Content-Type", "application/json")
        .body("xyzzy-broken")
        .send()
        .await
        .is(400);
    ann.list("?cursor=xyzzy-cursor").await.is(422);
    ann.with_token("xyzzy.token.xyzzy").list("").await.is(401);
    ann.call(Method::GET, ann.tasks()).header("X-Request-Id", "mine").send().await.is(200);
    ann.call(Method::GET, "/nowhere?xyzzy-query=1").send().await.is(404);
    ann.call(Method::DELETE, ann.tasks()).send().await.is(405);
    let preflight = ann.call(Method::OPTIONS, ann.tasks()).header("Origin", "http://localhost:3000");
    preflight.header("Access-Control-Request-Method", "POST").send().await.is(204);
    let token = ann.token.clone();
    let log = server.stop();

    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let requests: Vec<_> = lines.iter().filter(|line| line.get("duration_ms").is_some()).collect();
    let seen: Vec<_> =
        requests.iter().map(|line| (line["operation"].as_str().unwrap(), line["status"].as_u64().unwrap())).collect();
    assert_eq!(
        seen,
        [
            ("createTask", 201),
            ("updateTask", 200),
            ("createTask", 422),
            ("createTask", 400),
            ("listTasks", 422),
            ("listTasks", 401),
            ("listTasks", 200),
            ("-", 404),
            ("-", 405),
            ("-", 204),
        ]
    );
    assert_eq!(requests[6]["request_id"], "mine");
    assert_eq!(requests[0]["message"], "POST createTask 201");
    let bytes: Vec<_> = requests.iter().map(|line| line["bytes"].as_u64().unwrap()).collect();
    assert!(bytes[0] > 100 && bytes[6] > 100, "{bytes:?}");
    assert!(requests.iter().all(|line| line["client"] == "127.0.0.1" && line["user"] == Value::Null));
    let first = lines[0]["message"].as_str().unwrap();
    assert!(first.starts_with("settings that are not the defaults: "), "{first}");
    for setting in [
        "database.url = (set) (environment variable DATABASE_URL)",
        "auth.secret = \"(hidden)\" (environment variable BETTER_AUTH_SECRET)",
        "log.format = \"json\" (environment variable TASKPACT_LOG__FORMAT)",
    ] {
        assert!(first.contains(setting), "{first}");
    }
    // What an operator asks of a refusal.
    assert_eq!(requests[2]["problem"], "invalid-request");
    assert_eq!(requests[5]["reason"], "it is not a signed JSON Web Token in compact form");
    assert_eq!((&requests[7]["path"], &requests[0]["path"]), (&json!("/nowhere"), &Value::Null));
    assert_eq!(requests[9]["path"], "/api/{user_id}/tasks");
    assert!(requests.iter().all(|line| line["level"] == "INFO" && line["duration_ms"].as_f64().unwrap() > 0.0));

    assert!(!log.contains("xyzzy"), "{}", log.lines().find(|line| line.contains("xyzzy")).unwrap());
    assert!(!log.contains(&token) && !log.contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_one_user_can_be_followed_and_name_nobody() {
    let here = tempdir().unwrap();
    let key = "a key that only operators have, and keep";
    let environment = [
        WITH_SECRET,
        ("TASKPACT_LOG__FORMAT", "json"),
        ("TASKPACT_LOG__USER_KEY", key),
        ("TASKPACT_LIMITS__TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let server = Server::start(here.path(), &environment);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for user in [&ann, &bob, &ann] {
        let forwarded = user.call(Method::GET, user.tasks()).header("X-Forwarded-For", "192.0.2.7");
        forwarded.header("traceparent", trace).send().await.is(200);
    }
    ann.with_token("").list("").await.is(401);
    let log = server.stop();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let requests: Vec<_> = lines.filter(|line| line.get("bytes").is_some()).collect();
    let users: Vec<_> = requests.iter().map(|line| line["user"].as_str()).collect();
    // printf %s ann | openssl dgst -sha256 -hmac "$key"
    let (hash_of_ann, hash_of_bob) = (Some("74174f8a40a8cb0f"), Some("00401aa9623c99a2"));
    assert_eq!(users, [hash_of_ann, hash_of_bob, hash_of_ann, None]);
    assert_eq!(requests[0]["client"], "192.0.2.7");
    assert_eq!(requests[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(!log.contains(key) && !log.contains("bob"));
    let short = [WITH_SECRET, ("TASKPACT_LOG__USER_KEY", "short")];
    assert!(complaint(here.path(), &[], &short, 2).contains("`log.user_key` (environment variable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_token_was_refused_stands_in_the_line_of_the_request() {
    let here = tempdir().unwrap();
    let server = Server::start(here.path(), &[WITH_SECRET]);
    let ann = server.user("ann");
    let forged = format!("{}x", ann.token);
    let refusal = ann.with_token(&forged).list("").await;
    let id = refusal.is(401).header("x-request-id").unwrap().to_owned();

    let log = server.stop();
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.contains("its signature is not that of the expected issuer") && line.contains("listTasks"), "{log}");
    assert!(!log.contains(&forged) && !log.contains(&ann.token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_logged_once_with_its_cause_and_the_request() {
    let here = tempdir().unwrap();
    let server = Server::start(
        here.path(),
        &[WITH_SECRET, ("TASKPACT_LOG__FORMAT", "json"), ("DATABASE_URL", "sqlite://tasks.db")],
    );
    let ann = server.user("ann");
    ann.create("t").await;
    rusqlite::Connection::open(here.path().join("tasks.db")).unwrap().execute_batch("drop table tasks").unwrap();

    let reply = ann.list("").await;
    let id = reply.is(500).header("x-request-id").unwrap();

    let log = server.stop();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert_eq!((&errors[0]["request_id"], &errors[0]["operation"]), (&json!(id), &json!("listTasks")));
    assert!(errors[0].to_string().contains("no such table"), "{}", errors[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_may_start_at_once_on_one_new_file() {
    let here = tempdir().unwrap();
    start_eight(here.path(), "sqlite://data/tasks.db").await;
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let here = tempdir().unwrap();
    let mut child = program(here.path(), &["spec"], &[]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
