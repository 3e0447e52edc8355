//! A real OpenSSH server on this machine, for as long as a test runs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{self, within};

/// Where it is installed: it must be called by its whole path.
const PROGRAM: &str = "/usr/sbin/sshd";

/// Only the loopback is listened at, and only the key of this test may log in.
pub(crate) struct Sshd {
    place: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Sshd {
    /// Starts it; `None` where there is none to be had.
    pub(crate) fn start() -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        for key in ["key", "host_key"] {
            let made = run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(place.path().join(key))
                .status();
            if !made.is_ok_and(|status| status.success()) {
                return None;
            }
        }
        fs::copy(
            place.path().join("key.pub"),
            place.path().join("authorized"),
        )
        .unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let path = |name| place.path().join(name).to_str().unwrap().to_owned();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            path("host_key"),
            path("authorized")
        );
        fs::write(path("config"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let child = run(PROGRAM, &["-D", "-e", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut sshd = Self { place, child, port };
        let listens = within(Duration::from_secs(10), "the OpenSSH server", || {
            let listens = TcpStream::connect(("127.0.0.1", port)).is_ok();
            let ended = sshd.child.try_wait().unwrap().is_some();
            (listens || ended).then_some(listens)
        });
        if !listens {
            let log = fs::read_to_string(sshd.path("log")).unwrap_or_default();
            eprintln!("the OpenSSH server does not start: {log}");
        }
        listens.then_some(sshd)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The words that run a command there.
    pub(crate) fn client(&self) -> Vec<String> {
        let key = self.path("key").to_str().unwrap().to_owned();
        let port = self.port.to_string();
        [
            "ssh",
            "-F",
            "none",
            "-i",
            &key,
            "-p",
            &port,
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "127.0.0.1",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

fn run(program: &str, args: &[&str]) -> Command {
    let mut command = support::command(Path::new(program));
    command.args(args);
    command
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
