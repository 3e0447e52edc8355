//! The units that ship: what they say, and the program under the restrictions of the one for
//! systemd, as far as they can be had without a manager.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

#[path = "support/serving.rs"]
mod serving;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serving::ask_at;

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// The settings of a unit; of one that is given twice the last.
fn settings(unit: &str) -> BTreeMap<&str, &str> {
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn the_unit_restarts_what_can_be_mended_by_that_and_nothing_else() {
    let unit = script("systemd/opencode-sessions.service");
    let settings = settings(&unit);
    for (setting, value) in [
        ("Type", "notify"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "2 78"),
        // A host keeps the index for as long as it runs.
        ("StartLimitIntervalSec", "0"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "read-only"),
        ("PrivateTmp", "yes"),
        ("RuntimeDirectory", "opencode-sessions"),
        ("RuntimeDirectoryPreserve", "yes"),
        (
            "RestrictAddressFamilies",
            "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        ),
    ] {
        assert_eq!(settings.get(setting), Some(&value), "{setting}");
    }
    let seconds: u32 = settings["RestartSec"].parse().unwrap();
    assert!(
        (5..=60).contains(&seconds),
        "neither a loop nor a long wait"
    );
}

#[test]
fn the_agent_for_launchd_waits_before_it_starts_again_and_finds_the_commands() {
    let plist = script("launchd/io.github.opencode-sessions.plist");
    let after = |key: &str| {
        let (_, rest) = plist.split_once(&format!("<key>{key}</key>")).unwrap();
        rest.trim_start().lines().next().unwrap().trim().to_owned()
    };
    assert_eq!(after("SuccessfulExit"), "<false/>");
    assert_eq!(after("ThrottleInterval"), "<integer>60</integer>");
    assert!(after("PATH").contains("/usr/local/bin"), "docker is there");
}

/// What the unit leaves writable, and everything else read-only.
const RESTRICTED: &str = r#"
mount --make-rprivate / || exit 99
for directory in "$1" "$2" "$3"; do
    mount --bind "$directory" "$directory" || exit 99
done
mount -o remount,bind,ro / || exit 99
mount -t tmpfs tmpfs /var/tmp || exit 99
case "$1" in
    # What is needed is in there.
    /tmp/*) ;;
    *) mount -t tmpfs tmpfs /tmp || exit 99 ;;
esac
shift 3
exec "$@""#;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn two_hundred_thousand_sessions_are_kept_under_the_restrictions_of_the_unit() {
    const SESSIONS: u64 = 200_000;
    let _limit = support::limit(180);
    // Mostly not in /tmp, which is another one there.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| -> PathBuf { home.path().join(name) };
    for directory in ["data", "state", "run"] {
        fs::create_dir(at(directory)).unwrap();
    }
    let db = at("data/opencode.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = off;
         CREATE TABLE session (id text PRIMARY KEY, directory text, title text, parent_id text,
           time_created integer, time_updated integer, time_archived integer);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {SESSIONS})
         INSERT INTO session SELECT 'ses_' || n, '/home/me/shop', 'Session number ' || n, NULL,
           n, abs(random() % 1000000), NULL FROM n"
    ))
    .unwrap();
    let mut command = support::command(Path::new("unshare"));
    let is_root = rustix::process::geteuid().is_root();
    command
        .arg(if is_root { "-m" } else { "-rm" })
        .args(["sh", "-c", RESTRICTED, "sh"])
        .args([at("data"), at("state"), at("run")])
        .arg(support::sessions())
        .args(["serve", "--db"])
        .arg(&db)
        .arg("--state-dir")
        .arg(at("state"))
        .env("XDG_RUNTIME_DIR", at("run"))
        .env_remove("TMPDIR")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let socket = at("state/socket");
    let until = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            if status.code() == Some(99) || status.code() == Some(1) {
                eprintln!("SKIPPED: there are no mounts of one's own here");
                return;
            }
            panic!("it ended: {status}");
        }
        if socket.exists() {
            let (reply, _) = ask_at(&socket, "status");
            let source = &reply["status"]["sources"][0];
            assert_ne!(source["health"]["state"], "failing", "{source}");
            if reply["status"]["sessions"].as_u64() == Some(SESSIONS) {
                break reply["status"].clone();
            }
        }
        assert!(Instant::now() < until, "it does not list them");
        std::thread::sleep(Duration::from_millis(100));
    };
    let memory = status["memory"].as_u64().unwrap() >> 20;
    println!("{memory} MiB");
    assert!(memory < 256, "{memory} MiB are more than the unit allows");
    // And they are kept for the next start.
    let index = at("state/index");
    while fs::metadata(&index).map_or(0, |about| about.len()) < 1 << 20 {
        assert!(Instant::now() < until, "the index is not kept");
        std::thread::sleep(Duration::from_millis(100));
    }
}
