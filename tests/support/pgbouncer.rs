//! A PgBouncer for the tests, in front of a PostgreSQL of theirs.

use std::{
    env, fs,
    net::TcpStream,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{installed, skip};

/// It refuses to run as root. This is `nobody`.
const NOBODY: u32 = 65_534;

pub struct PgBouncer {
    child: Child,
    folder: TempDir,
    pub port: u16,
}

impl PgBouncer {
    /// Starts one at `port`, in front of the server at `database`, with `settings` such as `pool_mode = session`.
    /// `None` if there is none on this machine; then it has been said.
    pub fn start(port: u16, database: u16, settings: &str) -> Option<Self> {
        let Some(program) = program() else {
            skip("There is no `pgbouncer` here (Debian: `apt-get install pgbouncer`).", "Poolers were not tested.");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={database} user=taskpact\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\nauth_file =\n{settings}\n"
        );
        fs::write(&file, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Only root may become somebody else, and has to.
        if chown(&file, Some(NOBODY), Some(NOBODY)).is_ok() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut this = Self { child: command.spawn().unwrap(), folder, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < Duration::from_secs(20), "{ended:?}: {}", this.log());
            sleep(Duration::from_millis(20));
        }
        Some(this)
    }

    pub fn url(&self) -> String {
        format!("postgres://taskpact@127.0.0.1:{}/postgres", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the one on this machine can keep track of prepared statements (1.21 and newer).
pub fn tracks_statements() -> bool {
    let Some(program) = program() else { return false };
    let version = Command::new(program).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let minor = version.trim_start_matches("PgBouncer 1.").split('.').next().unwrap();
    minor.parse::<u32>().unwrap_or_else(|_| panic!("{version}")) >= 21
}

/// That which PGBOUNCER names, or that of this machine.
fn program() -> Option<PathBuf> {
    env::var_os("PGBOUNCER").map(PathBuf::from).or_else(|| installed("pgbouncer"))
}
