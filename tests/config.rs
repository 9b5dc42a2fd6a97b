//! Settings: where they come from, who wins, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use taskpact::config::{Config, Loaded};
use tempfile::TempDir;

const SECRET: &str = "a secret that must never be shown 123";

/// A working directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn load(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Loaded, String> {
    load_in(&directory(files), environment)
}

fn load_in(directory: &TempDir, environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Loaded::from(directory.path(), environment).map_err(|error| within(directory, &error.to_string()))
}

/// `text` as if the directory were the working directory.
fn within(directory: &TempDir, text: &str) -> String {
    text.replace(&format!("{}/", directory.path().display()), "")
}

/// The settings in force as they are printed.
fn shown(files: &[(&str, &str)], environment: &[(&str, &str)]) -> String {
    let directory = directory(files);
    within(&directory, &load_in(&directory, environment).unwrap().describe())
}

/// Panics unless the settings are refused with just these words.
fn refused(files: &[(&str, &str)], environment: &[(&str, &str)], words: &str) {
    assert_eq!(load(files, environment).unwrap_err(), words);
}

#[test]
fn the_defaults_are_these() {
    let expected = r#"[server]
host = "127.0.0.1"  # default
port = 8080  # default
request_timeout_ms = 15000  # default
shutdown_timeout_secs = 20  # default
drain_delay_secs = 0  # default
max_connections = 1000  # default
head_timeout_secs = 10  # default
idle_timeout_secs = 75  # default
max_head_bytes = 65536  # default
max_untaken_mb = 32  # default
base_path = ""  # default
trust_forwarded_prefix = false  # default
timing = false  # default

[database]
url = "sqlite://data/taskpact.db"  # default
max_connections = 6  # default
acquire_timeout_ms = 3000  # default
readiness = "last_use"  # default
migrate = true  # default
sets = "all"  # default
page_cache_mb = 16  # default

[auth]
# secret is not set
# previous_secret is not set
# jwks_url is not set
# jwks_file is not set
jwks_max_age_secs = 300  # default
# issuer is not set
# audience is not set
leeway_secs = 30  # default
user_id_claim = "sub"  # default
development = "loopback"  # default

[limits]
user_requests_per_minute = 0  # default
user_burst = 60  # default
address_requests_per_minute = 0  # default
address_burst = 60  # default
trusted_proxies = []  # default

[changes]
retention_days = 30  # default
max_waiting = 500  # default
max_waiting_per_user = 10  # default

[cors]
allowed_origins = ["http://localhost:3000"]  # default
allowed_headers = []  # default
allow_credentials = false  # default

[log]
format = "text"  # default
filter = "info"  # default
# user_key is not set

[metrics]
# address is not set
"#;
    assert_eq!(shown(&[], &[]), expected);
}

#[test]
fn later_sources_win_and_each_is_named() {
    let toml = ("taskpact.toml", "[server]\nport = 1\nhost = '::1'\nmax_connections = 5\n[log]\nfilter = 'warn'");
    let dot_env = (".env", "PORT=2\nHOST=127.0.0.2\n# a comment\nexport TASKPACT_LOG__FORMAT='json'\n");
    let environment = [("PORT", "3"), ("TASKPACT_SERVER__PORT", "4"), ("TASKPACT_DATABASE__MIGRATE", "false")];

    let all = shown(&[toml, dot_env], &environment);

    for line in [
        "port = 4  # environment variable TASKPACT_SERVER__PORT",
        "host = \"127.0.0.2\"  # .env file's HOST",
        "max_connections = 5  # taskpact.toml",
        "filter = \"warn\"  # taskpact.toml",
        "format = \"json\"  # .env file's TASKPACT_LOG__FORMAT",
        "migrate = false  # environment variable TASKPACT_DATABASE__MIGRATE",
        "leeway_secs = 30  # default",
    ] {
        assert!(all.contains(&format!("\n{line}\n")), "{line}\n\n{all}");
    }
    assert!(shown(&[toml, dot_env], &[("PORT", "3")]).contains("port = 3  # environment variable PORT"));
    assert!(shown(&[toml, dot_env], &[]).contains("port = 2  # .env file's PORT"));
    assert!(shown(&[toml], &[]).contains("port = 1  # taskpact.toml"));
}

#[test]
fn the_names_that_people_already_have_are_known() {
    let environment =
        [("DATABASE_URL", "postgres://u@h/d"), ("BETTER_AUTH_SECRET", SECRET), ("HOST", "0.0.0.0"), ("PORT", "80")];
    let config = load(&[], &environment).unwrap().config;

    assert_eq!(config.database.url.expose(), "postgres://u@h/d");
    assert_eq!(config.auth.secret.unwrap().expose(), SECRET);
    assert_eq!((config.server.host.as_str(), config.server.port.get::<u16>()), ("0.0.0.0", 80));
}

#[test]
fn a_variable_without_a_value_is_no_setting() {
    let environment = [("PORT", ""), ("BETTER_AUTH_SECRET", ""), ("TASKPACT_CONFIG", ""), ("TASKPACT_LOG__FORMAT", "")];
    assert_eq!(shown(&[], &environment), shown(&[], &[]));
}

#[test]
fn another_file_can_be_named_and_must_exist() {
    let files = [("other.toml", "[server]\nport = 9"), ("taskpact.toml", "[server]\nport = 8")];
    assert!(shown(&files, &[("TASKPACT_CONFIG", "other.toml")]).contains("port = 9  # "));

    let refusal = load(&files, &[("TASKPACT_CONFIG", "missing.toml")]).unwrap_err();
    assert!(refusal.contains("missing.toml, which TASKPACT_CONFIG names, can't be read"), "{refusal}");
}

#[test]
fn text_stays_text_whatever_it_looks_like() {
    for secret in
        ["12345678901234567890123456789012", "true                             .", "[1, 2, 3]                        ."]
    {
        let config = load(&[], &[("BETTER_AUTH_SECRET", secret), ("HOST", "1")]).unwrap().config;
        assert_eq!((config.auth.secret.unwrap().expose(), config.server.host.as_str()), (secret, "1"));
    }
}

#[test]
fn a_list_is_separated_by_commas() {
    let config =
        load(&[], &[("TASKPACT_CORS__ALLOWED_ORIGINS", "https://a.example, http://b.example:81")]).unwrap().config;
    let origins: Vec<_> = config.cors.allowed_origins.iter().map(taskpact::config::Origin::as_str).collect();
    assert_eq!(origins, ["https://a.example", "http://b.example:81"]);
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let known = "host, port, request_timeout_ms, shutdown_timeout_secs, drain_delay_secs, max_connections, \
                 head_timeout_secs, idle_timeout_secs, max_head_bytes, max_untaken_mb, base_path, trust_forwarded_prefix, \
                 timing";
    refused(
        &[("taskpact.toml", "[server]\nprot = 1")],
        &[],
        &format!("there is no setting `server.prot` (taskpact.toml); known here: {known}"),
    );
    refused(
        &[],
        &[("TASKPACT_SERVER__PROT", "1")],
        &format!("there is no setting `server.prot` (environment variable TASKPACT_SERVER__PROT); known here: {known}"),
    );
    refused(
        &[(".env", "TASKPACT_SERVR__PORT=1")],
        &[],
        "there is no setting `servr` (.env file's TASKPACT_SERVR__PORT); known here: server, database, auth, limits, changes, cors, log, metrics",
    );
    refused(
        &[],
        &[("TASKPACT_PORT", "1")],
        "the environment variable TASKPACT_PORT is no setting: write two underscores between the levels, as in \
         TASKPACT_SERVER__PORT",
    );
}

#[test]
fn a_name_with_an_empty_level_is_no_setting() {
    for name in ["TASKPACT___X", "TASKPACT_SERVER__", "TASKPACT___", "TASKPACT_", "TASKPACT_SERVER____PORT"] {
        let refusal = load(&[], &[(name, "1")]).unwrap_err();
        assert!(refusal.starts_with(&format!("the environment variable {name} is no setting")), "{refusal}");
    }
}

#[test]
fn the_parameters_of_an_address_that_nobody_reads_are_named() {
    let ignored = |url: &str| load(&[], &[("DATABASE_URL", url)]).unwrap().config.database.url.ignored_parameters();
    assert_eq!(
        ignored("postgres://u@h/d?sslmode=require&channel_binding=require&schema=public"),
        ["channel_binding", "schema"]
    );
    assert_eq!(ignored("postgres://u@h/d?sslrootcert=x&options[statement_timeout]=1"), [""; 0]);
    assert_eq!(ignored("sqlite://x.db?mode=ro"), [""; 0]);
}

#[test]
fn what_kubernetes_sets_for_a_service_of_this_name_is_no_setting() {
    let environment = [
        ("TASKPACT_PORT", "tcp://10.0.0.1:8080"),
        ("TASKPACT_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("TASKPACT_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("TASKPACT_SERVICE_HOST", "10.0.0.1"),
        ("TASKPACT_SERVICE_PORT_HTTP", "8080"),
    ];
    assert_eq!(shown(&[], &environment), shown(&[], &[]));
}

#[test]
fn a_value_out_of_its_range_is_refused_with_the_range() {
    refused(
        &[],
        &[("PORT", "65536")],
        "`server.port` (environment variable PORT): expected a whole number from 0 to 65535",
    );
    refused(
        &[],
        &[("PORT", "http")],
        "`server.port` (environment variable PORT): expected a whole number from 0 to 65535",
    );
    refused(
        &[("taskpact.toml", "[database]\nmax_connections = 0")],
        &[],
        "`database.max_connections` (taskpact.toml): expected a whole number from 1 to 1000",
    );
    refused(
        &[("taskpact.toml", "[auth]\nleeway_secs = -1")],
        &[],
        "`auth.leeway_secs` (taskpact.toml): expected a whole number from 0 to 60",
    );
    refused(
        &[("taskpact.toml", "[log]\nformat = 'yaml'")],
        &[],
        "`log.format` (taskpact.toml): expected one of text, json",
    );
    refused(
        &[],
        &[("TASKPACT_DATABASE__MIGRATE", "perhaps")],
        "`database.migrate` (environment variable TASKPACT_DATABASE__MIGRATE): expected a boolean",
    );
    refused(
        &[],
        &[("TASKPACT_CORS__ALLOWED_ORIGINS", "https://a.example/")],
        "`cors.allowed_origins.0` (environment variable TASKPACT_CORS__ALLOWED_ORIGINS): write the origin as \
         `https://a.example`",
    );
    for origin in ["*", "a.example", "file:///x"] {
        let refusal = load(&[], &[("TASKPACT_CORS__ALLOWED_ORIGINS", origin)]).unwrap_err();
        assert!(refusal.ends_with("expected an origin such as `https://app.example.com`"), "{refusal}");
    }
}

#[test]
fn a_database_address_is_checked_before_it_is_used() {
    for (url, words) in [
        ("mysql://u:hush@h/d", "expected `sqlite://"),
        ("not an address, hush", "expected `sqlite://"),
        ("postgres://u:hu sh@h:port/d", "expected `sqlite://"),
        ("sqlite://hush.db?mode=memory", "a database in memory only is not offered"),
        ("sqlite::memory:", "a database in memory only is not offered"),
        ("postgresql+asyncpg://u:hush@h/d", "leave out the driver: write `postgresql://"),
    ] {
        let refusal = load(&[], &[("DATABASE_URL", url)]).unwrap_err();
        assert!(refusal.starts_with("`database.url` (environment variable DATABASE_URL): "), "{refusal}");
        assert!(refusal.contains(words) && !refusal.contains("hush"), "{refusal}");
    }
}

#[test]
fn a_secret_that_could_be_guessed_is_refused() {
    let short = load(&[], &[("BETTER_AUTH_SECRET", &SECRET[..31])]).unwrap_err();
    assert!(
        short.starts_with("`auth.secret` (environment variable BETTER_AUTH_SECRET) is shorter than 32 bytes"),
        "{short}"
    );
    load(&[], &[("BETTER_AUTH_SECRET", &SECRET[..32])]).unwrap();

    let public =
        load(&[("taskpact.toml", "[auth]\nsecret = 'better-auth-secret-12345678901234567890'")], &[]).unwrap_err();
    assert!(
        public.starts_with("`auth.secret` (taskpact.toml) is the constant that Better Auth falls back to"),
        "{public}"
    );
}

#[test]
fn tokens_are_accepted_in_one_way() {
    let url = ("TASKPACT_AUTH__JWKS_URL", "https://a.example/jwks");
    let (file, issuer) = (("TASKPACT_AUTH__JWKS_FILE", "jwks.json"), ("TASKPACT_AUTH__ISSUER", "https://a.example"));
    let secret = ("BETTER_AUTH_SECRET", SECRET);
    let previous = ("TASKPACT_AUTH__PREVIOUS_SECRET", SECRET);

    for one in [&[secret][..], &[secret, previous], &[secret, issuer], &[url, issuer], &[file, issuer]] {
        load(&[], one).unwrap();
    }
    for (two, names) in [
        (
            [secret, url],
            "`auth.secret` (environment variable BETTER_AUTH_SECRET) and `auth.jwks_url` (environment \
                         variable TASKPACT_AUTH__JWKS_URL)",
        ),
        (
            [secret, file],
            "`auth.secret` (environment variable BETTER_AUTH_SECRET) and `auth.jwks_file` (environment \
                          variable TASKPACT_AUTH__JWKS_FILE)",
        ),
        (
            [url, file],
            "`auth.jwks_url` (environment variable TASKPACT_AUTH__JWKS_URL) and `auth.jwks_file` (environment \
                       variable TASKPACT_AUTH__JWKS_FILE)",
        ),
    ] {
        let words = format!("{names} are both set, but tokens are accepted in one way only: leave out one of them");
        refused(&[], &[&two[..], &[issuer]].concat(), &words);
    }
    for (variable, name) in [(url, "jwks_url"), (file, "jwks_file")] {
        let refusal = load(&[], &[variable]).unwrap_err();
        assert!(refusal.starts_with(&format!("`auth.{name}` (environment variable {})", variable.0)), "{refusal}");
        assert!(
            refusal.contains("is set without `auth.issuer`: set it to the issuer (iss) of the tokens"),
            "{refusal}"
        );
        refused(
            &[],
            &[variable, issuer, previous],
            "`auth.previous_secret` (environment variable TASKPACT_AUTH__PREVIOUS_SECRET) is set without `auth.secret`: \
             set both, or leave it out",
        );
    }
    for alone in [issuer, ("TASKPACT_AUTH__AUDIENCE", "tasks")] {
        let refusal = load(&[], &[alone]).unwrap_err();
        assert!(
            refusal.contains(&format!("({} variable {}) is set, but nothing", "environment", alone.0)),
            "{refusal}"
        );
    }
    assert!(load(&[], &[previous]).unwrap_err().contains("is set without `auth.secret`"));
    let short = load(&[], &[secret, ("TASKPACT_AUTH__PREVIOUS_SECRET", "short")]).unwrap_err();
    assert!(short.starts_with("`auth.previous_secret` (") && short.contains("shorter than 32 bytes"), "{short}");
    assert!(load(&[("taskpact.toml", "[auth]\nuser_id_claim = ''")], &[]).unwrap_err().contains("is empty"));
}

#[test]
fn the_address_of_keys_is_checked_before_it_is_used() {
    let issuer = ("TASKPACT_AUTH__ISSUER", "https://a.example");
    let with = |url| load(&[], &[("TASKPACT_AUTH__JWKS_URL", url), issuer]);
    for url in ["a.example/jwks", "file:///jwks.json", "ftp://a.example/jwks", "https://"] {
        let refusal = with(url).unwrap_err();
        assert!(refusal.ends_with("expected an address such as `https://app.example.com/api/auth/jwks`"), "{refusal}");
    }
    let refusal = with("https://user:hush@a.example/jwks").unwrap_err();
    assert!(refusal.contains("without a user name and a password") && !refusal.contains("hush"), "{refusal}");

    for (url, is_open) in [
        ("https://a.example/jwks", false),
        ("http://localhost:3000/jwks", false),
        ("http://127.0.0.1:3000/jwks", false),
        ("http://[::1]/jwks", false),
        ("http://web:3000/jwks", true),
        ("http://localhost.a.example/jwks", true),
    ] {
        assert_eq!(with(url).unwrap().config.auth.jwks_url.unwrap().is_open_to_others(), is_open, "{url}");
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let environment = [
        ("BETTER_AUTH_SECRET", SECRET),
        ("TASKPACT_AUTH__PREVIOUS_SECRET", SECRET),
        ("DATABASE_URL", "postgres://user:hush@host:5432/name?sslmode=verify-full&password=hush2"),
    ];
    let loaded = load(&[], &environment).unwrap();
    for text in [loaded.describe(), format!("{:?}", loaded.config)] {
        assert!(!text.contains(SECRET) && !text.contains("hush"), "{text}");
        assert!(text.contains("(hidden)") && text.contains("postgres://user:hidden@host:5432/name"), "{text}");
        assert!(text.contains("sslmode=verify-full"), "{text}");
    }

    // Neither in what is said about a secret that is wrong.
    for toml in
        ["[auth]\nsecret = 1234567", "[auth]\nsecret = ['hush']", "[auth]\nsecret = 'hush", "[auth.secret]\nhush = 1"]
    {
        let refusal = load(&[("taskpact.toml", toml)], &[]).unwrap_err();
        assert!(!refusal.contains("1234567") && !refusal.contains("hush"), "{refusal}");
        assert!(refusal.contains("`auth.secret") || refusal.contains("line 2"), "{refusal}");
    }
    let refusal = load(&[(".env", "BETTER_AUTH_SECRET=hush hush\n")], &[]).unwrap_err();
    let words = "line 1 of .env (BETTER_AUTH_SECRET) can't be read: put a value with blanks";
    assert!(refusal.starts_with(words) && !refusal.contains("hush"), "{refusal}");

    // Nor of an address that is none, or that has a key somewhere.
    for url in ["postgres:alice:hush@db/x", "postgres://alice:12/hush@db/x", "postgres://alice:hu@sh:12/@db/x"] {
        let refusal = load(&[], &[("DATABASE_URL", url)]).unwrap_err();
        assert!(refusal.contains("every special character of the password written as %XX"), "{refusal}");
        assert!(!refusal.contains("hu"), "{refusal}");
    }
    let url = "postgres://user@host/name?PASSWORD=hush&Password=hush&sslmode=disable&x=hush";
    let environment = [
        ("DATABASE_URL", url),
        ("TASKPACT_AUTH__JWKS_URL", "https://a.example/jwks?key=hush"),
        ("TASKPACT_AUTH__ISSUER", "https://a.example"),
    ];
    let loaded = load(&[], &environment).unwrap();
    for text in [loaded.describe(), format!("{:?}", loaded.config)] {
        assert!(!text.contains("hush") && text.contains("sslmode=disable"), "{text}");
        assert!(text.contains("https://a.example/jwks?hidden"), "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let toml = ("taskpact.toml", "[server]\nport = 'x'\nprot = 1\n[log]\nformat = 'yaml'\n[auth]\nleeway_secs = 100");
    let environment =
        [("TASKPACT_DATABASE__MIGRATE", "perhaps"), ("TASKPACT_SERVER", "1"), ("TASKPACT_LOG__FILTER", "verbose")];

    let refusal = load(&[toml], &environment).unwrap_err();

    for start in [
        "the environment variable TASKPACT_SERVER is no setting",
        "`server.port` (taskpact.toml): ",
        "there is no setting `server.prot` (taskpact.toml)",
        "`log.format` (taskpact.toml): ",
        "`auth.leeway_secs` (taskpact.toml): ",
        "`database.migrate` (environment variable TASKPACT_DATABASE__MIGRATE): ",
        "`log.filter` (environment variable TASKPACT_LOG__FILTER): ",
    ] {
        assert_eq!(refusal.lines().filter(|line| line.starts_with(start)).count(), 1, "{start}:\n{refusal}");
    }
    assert_eq!(refusal.lines().count(), 7, "{refusal}");
}

#[test]
fn lines_of_other_programs_in_dot_env_are_passed_over_and_named() {
    let text = "\u{FEFF}NEXT_PUBLIC_APP_NAME=My Task App\r\nPORT=9000\r\nGREETING=it's me\r\nFOLDER=C:\\x\r\n\
                JSON={\"a\": \"b c\"}\r\nno assignment at all\r\nTEXT=\"two\r\nlines\"\r\nBASE=data\r\n\
                DATABASE_URL=sqlite://${BASE}/x.db\r\nHOST='127.0.0.9'\r\n";
    let loaded = load(&[(".env", text)], &[]).unwrap();
    assert_eq!(loaded.config.server.port.get::<u16>(), 9000);
    assert_eq!(
        (loaded.config.server.host.as_str(), loaded.config.database.url.expose()),
        ("127.0.0.9", "sqlite://data/x.db")
    );
    assert!(
        loaded
            .notes
            .iter()
            .any(|note| note.starts_with("line 1 of ") && note.contains("(NEXT_PUBLIC_APP_NAME) can't be read"))
    );
    assert!(loaded.notes.iter().all(|note| !note.contains("My Task") && !note.contains("it's")), "{:?}", loaded.notes);

    // A quote that never ends does not swallow what is ours.
    let loaded = load(&[(".env", "A='don't\nPORT=9001\nB=isn't'\n")], &[]).unwrap();
    assert_eq!(loaded.config.server.port.get::<u16>(), 9001);

    // As shells and editors on Windows write it.
    let here = tempfile::tempdir().unwrap();
    for mark in [[0xFF, 0xFE], [0xFE, 0xFF]] {
        let units = "PORT=9002\r\n".encode_utf16();
        let unit = |unit: u16| if mark[0] == 0xFF { unit.to_le_bytes() } else { unit.to_be_bytes() };
        fs::write(here.path().join(".env"), [mark.to_vec(), units.flat_map(unit).collect()].concat()).unwrap();
        assert_eq!(Loaded::from(here.path(), []).unwrap().config.server.port.get::<u16>(), 9002);
    }
    fs::remove_file(here.path().join(".env")).unwrap();
    fs::create_dir(here.path().join(".env")).unwrap();
    let refusal = Loaded::from(here.path(), []).unwrap_err().to_string();
    assert!(refusal.contains(".env is a folder"), "{refusal}");
}

#[test]
fn the_real_environment_wins_over_dot_env_in_every_spelling() {
    let dot_env = (".env", "TASKPACT_SERVER__PORT=1\nTASKPACT_DATABASE__URL=sqlite://file.db\n");
    let config = load(&[dot_env], &[("PORT", "2"), ("DATABASE_URL", "sqlite://environment.db")]).unwrap().config;
    assert_eq!(config.server.port.get::<u16>(), 2);
    assert_eq!(config.database.url.expose(), "sqlite://environment.db");
    // What a file says of the type does not count.
    let toml = ("taskpact.toml", "[server]\nport = '8080'\n");
    assert_eq!(load(&[toml], &[("PORT", "9000")]).unwrap().config.server.port.get::<u16>(), 9000);
}

#[test]
fn a_secret_is_taken_as_it_is_and_so_must_be_nothing_else() {
    for (secret, words) in [
        (format!("\"{SECRET}\""), "has quotes around it"),
        (format!("'{SECRET}'"), "has quotes around it"),
        (format!(" {SECRET}"), "has blanks at its start or end"),
        (format!("{SECRET}\t"), "has blanks at its start or end"),
        (format!("{SECRET}\n"), "has a line end"),
    ] {
        for variable in ["BETTER_AUTH_SECRET", "TASKPACT_AUTH__PREVIOUS_SECRET"] {
            let refusal = load(&[], &[("BETTER_AUTH_SECRET", SECRET), (variable, &secret)]).unwrap_err();
            assert!(refusal.contains(words) && refusal.contains(variable) && !refusal.contains(SECRET), "{refusal}");
        }
    }
}

#[test]
fn a_filter_of_the_log_that_would_silence_it_is_refused() {
    for filter in
        ["warning", "verbose", "taskpact:debug", "debug;trace", "taskpact", "info,x=loud", "=info", "a b=info", ""]
    {
        let toml = ("taskpact.toml", &*format!("[log]\nfilter = '{filter}'"));
        let refusal = load(&[toml], &[]).unwrap_err();
        assert!(refusal.contains("is neither a level (error, warn, info, debug, trace, off)"), "{filter}: {refusal}");
    }
    for filter in ["info", "WARN", "off", "warn,taskpact=debug", "info, taskpact::store=trace", "info,a[b{c=d}]=trace"]
    {
        load(&[("taskpact.toml", &*format!("[log]\nfilter = '{filter}'"))], &[]).unwrap();
    }
}

#[test]
fn origins_are_those_that_browsers_send() {
    let set = |origin: &str| {
        let loaded = load(&[], &[("TASKPACT_CORS__ALLOWED_ORIGINS", origin)])?;
        Ok::<_, String>(loaded.config.cors.allowed_origins.into_iter().next().unwrap())
    };
    for (origin, yes, no) in [
        ("capacitor://localhost", "capacitor://localhost", "capacitor://localhost.evil"),
        ("tauri://localhost", "tauri://localhost", "https://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop", "chrome-extension://b"),
        ("http://localhost:*", "http://localhost:5173", "http://localhost"),
        ("http://localhost:*", "http://localhost:1", "http://localhost:5173.evil.example"),
        ("http://127.0.0.1:*", "http://127.0.0.1:80", "http://127.0.0.1:80x"),
        ("https://*.example.com", "https://a-1.example.com", "https://a.b.example.com"),
        ("https://*.example.com", "https://x.example.com", "https://example.com"),
        ("https://*.example.com", "https://x.example.com", "https://.example.com"),
        ("https://*.example.com", "https://x.example.com", "http://x.example.com"),
        ("https://*.example.com", "https://x.example.com", "https://evil.com/.example.com"),
        ("https://*.example.com:8443", "https://x.example.com:8443", "https://x.example.com"),
        ("https://app-*-team.vercel.app", "https://app-git-main-team.vercel.app", "https://app-x-other.vercel.app"),
    ] {
        let allowed = set(origin).unwrap();
        assert!(allowed.matches(yes), "{origin} is not {yes}");
        assert!(!allowed.matches(no), "{origin} is {no}");
        assert_eq!(allowed.is_open_to_others(), origin.contains('*') && !origin.ends_with(":*"), "{origin}");
    }
    for origin in [
        "null",
        "https://*",
        "https://*.com",
        "*://localhost",
        "https://a.*.example.com",
        "https://**.example.com",
        "https://*.*.example.com",
        "http://example.com:*",
        "https://example.com/",
        "https://EXAMPLE.com",
        "https://example.com:443",
        "data:text/html,x",
        "capacitor://",
        "capacitor:localhost",
        "https://x.example.com/*",
    ] {
        assert!(set(origin).is_err(), "{origin} was taken");
    }
}

#[test]
fn the_spelling_of_sqlalchemy_means_what_its_authors_mean_or_is_refused() {
    let url =
        |url: &str| load(&[], &[("DATABASE_URL", url)]).map(|loaded| loaded.config.database.url.expose().to_owned());
    assert_eq!(url("sqlite:///./todo.db").unwrap(), "sqlite://todo.db");
    assert_eq!(url("sqlite:///./data/todo.db?mode=ro").unwrap(), "sqlite://data/todo.db?mode=ro");
    assert_eq!(url("sqlite:////var/lib/todo.db").unwrap(), "sqlite:////var/lib/todo.db");
    let refusal = url("sqlite:///todo.db").unwrap_err();
    assert!(refusal.contains("write `sqlite://todo.db` for a file in the working directory"), "{refusal}");
}

#[test]
fn the_public_path_is_one() {
    let set = |path: &str| {
        load(&[], &[("TASKPACT_SERVER__BASE_PATH", path)]).map(|l| l.config.server.base_path.as_str().to_owned())
    };
    assert_eq!((set("/todo").unwrap(), set("/a/b/").unwrap()), ("/todo".to_owned(), "/a/b".to_owned()));
    for path in ["todo", "//x", "/a b", "https://x/y", "/a\"b", "/a/../b?"] {
        assert!(set(path).unwrap_err().contains("expected a path such as `/todo`"), "{path}");
    }
}

#[test]
fn the_address_of_the_metrics_has_a_port() {
    let set = |address: &str| load(&[], &[("TASKPACT_METRICS__ADDRESS", address)]);
    for address in ["127.0.0.1:9464", "[::1]:0"] {
        assert_eq!(set(address).unwrap().config.metrics.address, Some(address.parse().unwrap()));
    }
    for address in ["127.0.0.1", "9464", "localhost:9464", "nonsense"] {
        assert!(set(address).unwrap_err().contains("expected an IP address and a port"), "{address}");
    }
}

#[test]
fn the_example_files_are_complete_and_are_the_defaults() {
    let toml = fs::read_to_string("taskpact.example.toml").unwrap();
    let dot_env = fs::read_to_string(".env.example").unwrap();
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    let defaults = values(&shown(&[], &[]));
    assert_eq!(values(&shown(&[("taskpact.toml", &toml)], &[])), defaults);
    assert_eq!(values(&shown(&[(".env", &dot_env)], &[])), defaults);

    // The containers are given every setting that is not their own affair: where they listen, and which database they use.
    let compose = fs::read_to_string("docker-compose.yml").unwrap();
    let names = dot_env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    let own =
        ["HOST", "PORT", "TASKPACT_SERVER__HOST", "TASKPACT_SERVER__PORT", "TASKPACT_DATABASE__URL", "TASKPACT_CONFIG"];
    for name in names.filter(|name| !own.contains(name)) {
        assert!(compose.contains(&format!("\n    {name}:")), "{name} is not in docker-compose.yml");
    }

    let tables = serde_json::to_value(Config::default()).unwrap();
    for (table, settings) in tables.as_object().unwrap() {
        assert!(toml.contains(&format!("\n[{table}]\n")), "{table}");
        for name in settings.as_object().unwrap().keys() {
            let variable = format!("TASKPACT_{table}__{name}=").to_uppercase();
            assert!(dot_env.contains(&format!("\n{variable}")), "{variable} is not in .env.example");
            let part = toml.split(&format!("\n[{table}]\n")).nth(1).unwrap().split("\n[").next().unwrap();
            let line = format!("{name} = ");
            assert!(
                part.lines().any(|l| l.trim_start_matches("# ").starts_with(&line)),
                "{table}.{name} is not in the file"
            );
        }
    }
}

#[test]
fn whatever_stands_in_an_env_file_shows_no_secret() {
    const PARTS: &[&str] = &[
        "BETTER_AUTH_SECRET",
        "DATABASE_URL",
        "TASKPACT_",
        "SERVER",
        "__",
        "PORT",
        "=",
        "\n",
        "\"",
        "'",
        "$",
        "{",
        "}",
        "#",
        " ",
        "\t",
        "\\",
        "\r\n",
        "export ",
        "postgres://ann:hush-hush@host/x",
        "é",
        "\u{feff}",
        "1",
        "[",
        "]",
        ",",
        "\0",
    ];
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut refused = 0;
    for n in 0..500 {
        let count = random.usize(0..20);
        let before: String = (0..count).map(|_| PARTS[random.usize(0..PARTS.len())]).collect();
        let text = format!("{before}\nBETTER_AUTH_SECRET=hush-hush-hush-hush-hush-hush-hush-hush\n");
        let said = match load(&[(".env", &text)], &[]) {
            Ok(loaded) => loaded.describe(),
            Err(refusal) => {
                refused += 1;
                refusal
            }
        };
        assert!(!said.contains("hush-hush"), "{text:?}, number {n} of seed {seed}: {said}");
    }
    assert!((10..490).contains(&refused), "{refused} of seed {seed} were refused: the others tell little");
}
