//! The program itself, as a process.

use std::{
    ffi::OsStr,
    fs::File,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{SECRET, User, token};

/// How long to wait for what should happen soon.
const TIMEOUT: Duration = Duration::from_secs(40);

/// The program in `directory` with these arguments and variables, and no others.
pub fn program(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskpact"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir(directory);
    command
}

/// Runs the program to its end, which must come soon.
pub fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut command = program(directory, arguments, environment);
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Output { status, stdout: whole(&out).into(), stderr: whole(&err).into() };
        }
        if started.elapsed() > TIMEOUT {
            child.kill().unwrap();
            panic!("{arguments:?} does not end: {}{}", whole(&out), whole(&err));
        }
        sleep(Duration::from_millis(5));
    }
}

/// Runs the program to its end, which must be a success, and gives back what it printed.
pub fn printed(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(directory, arguments, environment);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs the program to its end, which must have this status, and gives back what it complained.
pub fn complaint(directory: &Path, arguments: &[&str], environment: &[(&str, &str)], status: i32) -> String {
    // On a port that is free, unless it is about the port.
    let output = run(directory, arguments, &[&[("PORT", "0")], environment].concat());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {out}{err}");
    assert!(!err.contains("panicked") && !err.contains("RUST_BACKTRACE"), "{err}");
    err
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server in a process of its own. It is killed at the end, if it still runs.
pub struct Server {
    child: Child,
    /// Known once it listens.
    pub address: SocketAddr,
    out: File,
    err: File,
}

impl Server {
    /// Starts the program, without waiting for it. It asks the database whether it is ready, unless `environment` says otherwise.
    pub fn launch(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let asks = [("TASKPACT_DATABASE__READINESS", "ask")];
        Self::launch_command(&mut program(directory, &[], &[&asks, environment].concat()))
    }

    /// Starts a command that comes to the program, and waits until it listens.
    pub fn start_command(command: &mut Command) -> Self {
        let mut server = Self::launch_command(command);
        server.wait_until_it_listens();
        server
    }

    fn launch_command(command: &mut Command) -> Self {
        let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = command
            // The system picks a free one, and it says which.
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::from(out.try_clone().unwrap()))
            .stderr(Stdio::from(err.try_clone().unwrap()))
            .spawn()
            .unwrap();
        Self { child, address: ([127, 0, 0, 1], 0).into(), out, err }
    }

    /// Starts the program, and waits until it listens.
    pub fn start(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut server = Self::launch(directory, environment);
        server.wait_until_it_listens();
        server
    }

    /// Starts the program on this database, with these settings beside its secret, and waits until it listens.
    pub fn on(directory: &Path, url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start(directory, &[&[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", url)], settings].concat())
    }

    pub fn wait_until_it_listens(&mut self) {
        let started = Instant::now();
        while !self.printed().contains("is listening") && !self.complained().contains(r#""message":"listening""#) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < TIMEOUT, "{ended:?}: {}", self.complained());
            sleep(Duration::from_millis(10));
        }
        let said = self.printed() + &self.complained();
        let address = said.split("http://").nth(1).unwrap().split(['/', '"']).next().unwrap();
        self.address = address.parse().unwrap_or_else(|_| panic!("{address} is no address: {said}"));
    }

    /// Somebody who calls this server, if its secret is that of the tests.
    pub fn user(&self, id: &str) -> User {
        User::new(self.address, id, &token(id))
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        whole(&self.out)
    }

    /// What it has logged so far.
    pub fn complained(&self) -> String {
        whole(&self.err)
    }

    /// Waits until it has logged this.
    pub fn wait_for(&self, words: &str) {
        let started = Instant::now();
        while !self.complained().contains(words) {
            assert!(started.elapsed() < TIMEOUT, "it never said {words:?}: {}", self.complained());
            sleep(Duration::from_millis(10));
        }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn send_signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// Waits until it has ended.
    pub fn end(mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.complained());
            }
            assert!(started.elapsed() < TIMEOUT, "it does not end: {}", self.complained());
            sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to stop, and waits until it has ended, which must be a success.
    pub fn stop(self) -> String {
        self.send_signal("TERM");
        let (status, log) = self.end();
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub fn signal(name: impl AsRef<OsStr>, process: u32) {
    let status = Command::new("kill").arg("-s").arg(name).arg(process.to_string()).status().unwrap();
    assert!(status.success());
}

fn whole(file: &File) -> String {
    // Not from the file's own place, which is also where the process writes.
    let mut all = vec![0; file.metadata().unwrap().len().try_into().unwrap()];
    file.read_exact_at(&mut all, 0).unwrap();
    text(&all)
}

/// Starts eight servers at once on an empty database, and has each of them serve.
pub async fn start_eight(directory: &Path, url: &str) {
    let launch = |_| Server::launch(directory, &[("BETTER_AUTH_SECRET", SECRET), ("DATABASE_URL", url)]);
    let mut servers: Vec<_> = (0..8).map(launch).collect();
    for server in &mut servers {
        server.wait_until_it_listens();
    }
    for (n, server) in servers.iter().enumerate() {
        server.user("ann").create(&format!("{n}")).await;
    }
    for server in servers {
        assert_eq!(server.user("ann").list("").await.is(200).json().as_array().unwrap().len(), 8);
        server.stop();
    }
}
