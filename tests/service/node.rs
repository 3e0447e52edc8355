//! The service as the child of a real supervisor: a host written for Node.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{self, Made, command, sessions};

#[test]
fn node_host_sees_changes_and_ends_its_service() {
    let _limit = support::limit(60);
    let node = Path::new("node");
    if command(node).arg("--version").output().is_err() {
        support::skip("node: it is not installed");
        return;
    }
    let made = Made::new();
    made.session("ses_a", 1000);
    let state = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/helpers/sidebar.mjs");
    let mut host = command(node)
        .arg(script)
        .arg(sessions())
        .arg("--db")
        .arg(&made.db)
        .arg("--state-dir")
        .arg(state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let mut until = |titles: &[&str]| {
        for line in lines.by_ref() {
            let seen: Value = serde_json::from_str(&line.unwrap()).unwrap();
            assert_ne!(seen["event"], "exit", "the service ended");
            if seen["titles"] == json!(titles) {
                return;
            }
        }
        panic!("the host ended before it saw {titles:?}");
    };
    until(&["Title of ses_a"]);
    made.session("ses_b", 2000);
    until(&["Title of ses_a", "Title of ses_b"]);
    made.run("UPDATE session SET title = 'Another' WHERE id = 'ses_a'");
    until(&["Another", "Title of ses_b"]);
    made.run("DELETE FROM session WHERE id = 'ses_b'");
    until(&["Another"]);

    // The host is killed; its service ends by itself, since its input ends.
    host.kill().unwrap();
    host.wait().unwrap();
    let gone = || {
        let lock = std::fs::File::open(state.path().join("lock")).unwrap();
        lock.try_lock().is_ok()
    };
    support::eventually(support::PATIENCE, "its end", gone);
}
