//! A PostgreSQL for the tests: the one that `TEST_DATABASE_URL` names, or a private one that is started here.
//!
//! The private one ends with the test process, however that ends: its keeper, a shell, waits for the end of a pipe that
//! the process holds open.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio, exit},
    sync::{Mutex, OnceLock},
    thread::sleep,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;
use uuid::Uuid;

use super::skip;

const NONE: &str =
    "There is no PostgreSQL here: `initdb` and `postgres` are neither in PATH nor in /usr/lib/postgresql/*/bin.
Install it (Debian: `apt-get install postgresql`), or name a server in TEST_DATABASE_URL.";

/// A server that was started here.
pub struct Private {
    pub port: u16,
    pub folder: PathBuf,
    keeper: Mutex<ChildStdin>,
}

/// Makes the folder, the database cluster in it, and obeys: `start`, `stop`; at the end of its input it stops and
/// removes everything.
const KEEPER: &str = r#"
    bin=$1 port=$2; shift 2
    folder=$(mktemp -d) && echo "$folder" && cd "$folder" || exit 1
    "$bin/initdb" -D data -U taskpact -A trust -E UTF8 --lc-messages=C --no-sync >initdb.log 2>&1
    echo made
    stop() { [ -z "$server" ] || { kill -INT "$server" 2>/dev/null; wait "$server"; server=; }; }
    while read -r command; do
        case $command in
            start)
                "$bin/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
                    -c max_connections=200 -c fsync=off -c full_page_writes=off "$@" >>server.log 2>&1 <&- &
                server=$! ;;
            stop) stop ;;
        esac
    done
    stop
    cd / && rm -rf "$folder"
"#;

#[expect(clippy::zombie_processes, reason = "the keeper outlives the process, to clean up after it")]
impl Private {
    /// Starts a server with `options` beside the usual ones. `None` if there is no PostgreSQL on this machine.
    pub fn start(prepare: impl FnOnce(&Path), options: &[&str]) -> Option<Self> {
        let programs = programs()?;
        let port = free_port();
        // PostgreSQL refuses to run as root.
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let mut keeper = command
            .args(["-c", KEEPER, "keeper"])
            .arg(programs)
            .arg(port.to_string())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .current_dir("/")
            // A Ctrl-C at the terminal is for the tests; the keeper still has to clean up.
            .process_group(0)
            .spawn()
            .expect("can't start a shell (as root: through `runuser -u postgres`)");
        let mut said = BufReader::new(keeper.stdout.take().unwrap()).lines().map(Result::unwrap);
        let folder = PathBuf::from(said.next().expect("the keeper made no folder"));
        assert_eq!(
            said.next().as_deref(),
            Some("made"),
            "initdb failed: {:?}",
            fs::read_to_string(folder.join("initdb.log"))
        );
        prepare(&folder);
        let server = Self { port, folder, keeper: Mutex::new(keeper.stdin.take().unwrap()) };
        server.resume();
        Some(server)
    }

    /// Starts the server again, and waits until it serves. (It listens a little earlier.)
    pub fn resume(&self) {
        let log = || fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
        let times_ready = || log().matches("ready to accept connections").count();
        let before = times_ready();
        self.tell("start");
        let started = Instant::now();
        while times_ready() == before {
            assert!(started.elapsed() < Duration::from_secs(30), "PostgreSQL did not start: {}", log());
            sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server: its connections are cut.
    pub fn stop(&self) {
        self.tell("stop");
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            sleep(Duration::from_millis(20));
        }
    }

    /// The address of its database `name`.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://taskpact@127.0.0.1:{}/{name}", self.port)
    }

    fn tell(&self, what: &str) {
        writeln!(self.keeper.lock().unwrap(), "{what}").expect("the keeper is gone");
    }
}

/// A database of its own on the shared server, removed at the end.
pub struct Database {
    pub url: String,
    name: String,
}

impl Database {
    pub async fn new() -> Self {
        let name = format!("taskpact_test_{}", Uuid::new_v4().simple());
        execute(server(), &format!("create database {name}")).await;
        let mut url = Url::parse(server()).expect("TEST_DATABASE_URL is an address");
        url.set_path(&name);
        Self { url: url.into(), name }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("drop database if exists {} with (force)", self.name);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(server(), &drop));
        };
        // The test's own runtime may be ending.
        let _ = std::thread::spawn(work).join();
    }
}

/// Runs a statement on a connection of its own.
pub async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the tests' PostgreSQL does not answer");
    connection.execute(AssertSqlSafe(statement.to_owned())).await.expect("a statement of the tests failed");
}

/// The address of the server that the tests share.
fn server() -> &'static str {
    static SERVER: OnceLock<(String, Option<Private>)> = OnceLock::new();
    let (url, _) = SERVER.get_or_init(|| {
        if let Ok(url) = env::var("TEST_DATABASE_URL") {
            return (url, None);
        }
        let Some(server) = Private::start(|_| {}, &[]) else {
            // Every test of the program needs it.
            skip(NONE, "The tests of this program were not run.");
            exit(0)
        };
        (server.url("postgres"), Some(server))
    });
    url
}

/// A private server, or none. Then it has been said.
pub fn private(prepare: impl FnOnce(&Path), options: &[&str]) -> Option<Private> {
    let server = Private::start(prepare, options);
    if server.is_none() {
        skip(NONE, "A test that needs a PostgreSQL of its own was not run.");
    }
    server
}

/// Whether there is no PostgreSQL to test on. Then it has been said.
pub fn is_missing() -> bool {
    let missing = env::var_os("TEST_DATABASE_URL").is_none() && programs().is_none();
    if missing {
        skip(NONE, "A test that needs a PostgreSQL was not run.");
    }
    missing
}

/// The folder of PostgreSQL's programs.
pub fn programs() -> Option<PathBuf> {
    let in_path = env::split_paths(&env::var_os("PATH")?).collect::<Vec<_>>();
    let mut of_debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    of_debian.sort();
    let has_all = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    in_path.into_iter().chain(of_debian.into_iter().rev()).find(has_all)
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("there is no `id`");
    id.stdout.trim_ascii() == b"0"
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
