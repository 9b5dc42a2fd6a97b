//! The configurations of proxies in `docs/`, as they stand there: TLS in front of two servers on one PostgreSQL.
//!
//! Clients come with `curl`, which knows the certificate. The servers are restarted in turn, and nobody may notice; then the
//! database goes, and what is answered still has to be a problem of the contract, not a page of the proxy's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair};
use support::{
    SECRET, curl_is_missing, installed,
    postgres::{free_port, private},
    process::{Server, text},
    skip, token,
};
use tempfile::{TempDir, tempdir};

/// A little more than a proxy takes to see that a server is not ready, or that it is again.
const NOTICE: Duration = Duration::from_secs(3);

/// Where clients come from. On Linux every address of this network is this machine's; elsewhere it has one.
const CLIENT: &str = if cfg!(target_os = "linux") { "127.0.0.2" } else { "127.0.0.1" };

/// A proxy that is killed at the end.
struct Proxy {
    child: Child,
    port: u16,
    /// Where the certificate is that clients know it by. Caddy makes its own.
    authority: PathBuf,
    folder: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts `program` on a page of `docs/`, before the servers on these ports.
    fn start(
        program: &Path,
        arguments: &[&str],
        servers: [u16; 2],
        prepare: impl FnOnce(&mut Command, &Path) -> PathBuf,
    ) -> Self {
        let (folder, port) = (tempdir().unwrap(), free_port());
        let [one, two] = servers.map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HTTPS_PORT", port.to_string());
        command.env("TASKPACT_ONE", one).env("TASKPACT_TWO", two);
        let authority = prepare(&mut command, folder.path());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        Self { child, port, authority, folder }
    }

    /// What a call of `user`'s list is answered: the status, the version of HTTP, the media type, and whether browsers are told to
    /// come with TLS only.
    fn call(&self, user: &str, arguments: &[&str]) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--output", "/dev/null", "--max-time", "20"])
            .args(["--write-out", "%{http_code} %{http_version} %{content_type} %header{strict-transport-security}"])
            .arg("--cacert")
            .arg(&self.authority)
            .args(["--header", &format!("Authorization: Bearer {}", token(user))])
            // From another address than the proxy's, which is trusted. Nobody may say for themselves where they come from.
            .args(["--interface", CLIENT])
            .args(["--header", "X-Forwarded-For: 192.0.2.7"])
            .args(arguments)
            .arg(format!("https://localhost:{}/api/{user}/tasks", self.port))
            .output()
            .unwrap();
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Waits until it has its certificate and has found the servers.
    fn wait(&mut self) {
        let started = Instant::now();
        while !self.call("ann", &[]).starts_with("200") {
            let ended = self.child.try_wait().unwrap();
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(ended.is_none() && started.elapsed() < Duration::from_secs(30), "{ended:?}: {log}");
            sleep(Duration::from_millis(200));
        }
        sleep(NOTICE);
    }
}

/// Has the servers behind a proxy restarted under load, and then their database stopped.
fn is_as_the_page_says(start: impl FnOnce([u16; 2]) -> Proxy) {
    if curl_is_missing("The proxies of docs/ were not tried.") {
        return;
    }
    let here = tempdir().unwrap();
    let Some(database) = private(|_| {}, &[]) else { return };
    let (url, ports) = (database.url("postgres"), [free_port(), free_port()]);
    let begin = |port: u16| {
        let settings = [
            ("BETTER_AUTH_SECRET", SECRET),
            ("DATABASE_URL", &url),
            ("TASKPACT_SERVER__PORT", &port.to_string()),
            ("TASKPACT_SERVER__DRAIN_DELAY_SECS", "3"),
            ("TASKPACT_LIMITS__TRUSTED_PROXIES", "127.0.0.1"),
            ("TASKPACT_CHANGES__MAX_WAITING_PER_USER", "1"),
        ];
        Server::start(here.path(), &settings)
    };
    let mut servers = ports.map(|port| Some(begin(port)));
    let mut proxy = start(ports);
    proxy.wait();
    assert_eq!(proxy.call("ann", &[]), "200 2 application/json max-age=31536000");
    // Who hangs up waits for no change any more: there is one place on each server, and three callers.
    for _ in 0..3 {
        let given_up = proxy.call("ann", &["--max-time", "1", "--request-target", "/api/ann/changes?wait=30"]);
        assert!(given_up.contains("timed out"), "{given_up}");
        sleep(Duration::from_millis(500));
    }

    let (stop, proxy) = (AtomicBool::new(false), &proxy);
    let started = Instant::now();
    let answers: Vec<String> = thread::scope(|scope| {
        let client = |n| {
            let (stop, user) = (&stop, format!("user-{n}"));
            move || {
                let mut answers = Vec::new();
                // Not for ever, also if the other thread fails.
                while !stop.load(Relaxed) && started.elapsed() < Duration::from_mins(1) {
                    answers.push(proxy.call(&user, &["--json", r#"{"title": "t"}"#]));
                    answers.push(proxy.call(&user, &[]));
                }
                answers
            }
        };
        let clients: Vec<_> = (0..3).map(|n| scope.spawn(client(n))).collect();
        for (server, port) in servers.iter_mut().zip(ports) {
            let log = server.take().unwrap().stop();
            let is_told_apart = log.contains(&format!("client={CLIENT} ")) && !log.contains("192.0.2.7");
            assert!(is_told_apart || cfg!(not(target_os = "linux")), "{log}");
            *server = Some(begin(port));
            sleep(NOTICE);
        }
        stop.store(true, Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let failed: Vec<_> = answers.iter().filter(|answer| !answer.starts_with("20")).collect();
    assert!(failed.is_empty() && answers.len() > 100, "{failed:?} of {}", answers.len());

    database.stop();
    sleep(NOTICE);
    for arguments in [&[][..], &["--json", r#"{"title": "t"}"#]] {
        assert_eq!(proxy.call("ann", arguments), "503 2 application/problem+json max-age=31536000");
    }
}

#[test]
fn haproxy_serves_over_tls_and_a_rolling_restart_fails_nobody() {
    let Some(haproxy) = installed("haproxy") else {
        return skip(
            "There is no `haproxy` here (Debian: `apt-get install haproxy`).",
            "docs/haproxy.cfg was not tried.",
        );
    };
    is_as_the_page_says(|servers| {
        Proxy::start(&haproxy, &["-f", "docs/haproxy.cfg"], servers, |command, folder| {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            let file = folder.join("localhost.pem");
            fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
            command.env("CERTIFICATE", &file);
            file
        })
    });
}

#[test]
fn caddy_serves_over_tls_and_a_rolling_restart_fails_nobody() {
    let Some(caddy) = installed("caddy") else {
        return skip("There is no `caddy` here (Debian: `apt-get install caddy`).", "docs/Caddyfile was not tried.");
    };
    is_as_the_page_says(|servers| {
        Proxy::start(
            &caddy,
            &["run", "--config", "docs/Caddyfile", "--adapter", "caddyfile"],
            servers,
            |command, folder| {
                command.env("TASKPACT_SITE", "localhost").env("HTTP_PORT", free_port().to_string());
                command.env("HOME", folder).env("XDG_DATA_HOME", folder);
                folder.join("caddy/pki/authorities/local/root.crt")
            },
        )
    });
}
