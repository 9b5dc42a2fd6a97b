//! A proxy (`HAProxy`) for the tests, in front of servers of theirs.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{installed, postgres::free_port, skip};

pub struct HaProxy {
    child: Child,
    _folder: TempDir,
    pub address: SocketAddr,
}

impl HaProxy {
    /// Starts one that sends each request to one of these servers, once, and asks each five times a second whether it is ready.
    /// `None` if there is none on this machine; then it has been said.
    pub fn start(servers: &[u16]) -> Option<Self> {
        let Some(program) = installed("haproxy") else {
            skip("There is no `haproxy` here (Debian: `apt-get install haproxy`).", "Replicas were not tested.");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = folder.path().join("haproxy.cfg");
        let mut text = format!(
            "global\n maxconn 200\ndefaults\n mode http\n retries 0\n http-reuse always\n timeout connect 2s\n timeout client 30s\n \
             timeout server 30s\n timeout check 1s\nlisten taskpact\n bind 127.0.0.1:{port}\n balance roundrobin\n \
             option httpchk GET /health/ready\n default-server check inter 200ms fall 2 rise 1\n"
        );
        for (n, port) in servers.iter().enumerate() {
            text += &format!(" server taskpact{n} 127.0.0.1:{port}\n");
        }
        fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let address = ([127, 0, 0, 1], port).into();
        let mut this = Self { child: command.spawn().unwrap(), _folder: folder, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < Duration::from_secs(20), "{ended:?}");
            sleep(Duration::from_millis(20));
        }
        Some(this)
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
