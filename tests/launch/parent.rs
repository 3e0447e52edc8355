//! The helper dies with its parent.

use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::processes::{Seen, Started, helper_of, locked, one_session, wait_until_it_reads};
use crate::support::{self, Made, endless};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn helper_dies_when_the_listing_program_is_killed() {
    let _limit = support::limit(60);
    let made = endless();
    let mut list = support::command(support::sessions());
    list.args(["list", "--deadline", "60s", "--db"])
        .arg(&made.db)
        .stdout(Stdio::null());
    let mut list = Started::of(&mut list);
    let helper = helper_of(list.pid(), &made.db);
    wait_until_it_reads(helper.0, &made.db);
    list.0.kill().unwrap();
    helper.assert_is_gone_within(SOON);
}

/// A helper with these arguments, waiting for a lock; and its standard input.
pub(crate) fn waiting(made: &Made, arguments: &[&str]) -> (Started, Option<ChildStdin>) {
    let mut helper = support::command(support::lister());
    helper
        .args(["--busy-timeout", "30000", "--db"])
        .arg(&made.db)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut helper = Started::of(&mut helper);
    wait_until_it_reads(helper.pid(), &made.db);
    let stdin = helper.0.stdin.take();
    (helper, stdin)
}

#[test]
fn helper_dies_when_its_parent_pipe_ends() {
    let _limit = support::limit(60);
    let made = locked();
    let (helper, stdin) = waiting(&made, &["--parent-pipe"]);
    let helper_seen = Seen(helper.pid());
    // It goes on.
    thread::sleep(Duration::from_millis(200));
    assert!(helper_seen.is_running(), "its parent lives");
    drop(stdin);
    helper_seen.assert_is_gone_within(SOON);
}

#[test]
fn helper_without_a_parent_pipe_ignores_stdin() {
    let _limit = support::limit(60);
    let made = locked();
    let (helper, stdin) = waiting(&made, &[]);
    drop(stdin);
    // It goes on.
    thread::sleep(Duration::from_millis(200));
    assert!(Seen(helper.pid()).is_running());
}

#[test]
fn helper_dies_when_its_parent_is_killed() {
    let _limit = support::limit(60);
    let made = locked();
    let mut parent = support::command(Path::new("/bin/sh"));
    parent
        .args([
            "-c",
            r#""$0" --busy-timeout 30000 --parent $$ --db "$1" & wait"#,
        ])
        .args([support::lister(), &made.db])
        .stdout(Stdio::null());
    let mut parent = Started::of(&mut parent);
    let helper = helper_of(parent.pid(), &made.db);
    wait_until_it_reads(helper.0, &made.db);
    parent.0.kill().unwrap();
    helper.assert_is_gone_within(SOON);
}

#[test]
fn helper_whose_parent_is_gone_lists_nothing() {
    let _limit = support::limit(60);
    let made = one_session();
    let us = std::process::id().to_string();
    let ours = support::helper(&made.db, &["--parent", &us]);
    assert_eq!(ours.status.code(), Some(0), "{ours:?}");
    // It would wait for the lock, would it begin.
    let made = locked();
    let started = Instant::now();
    let orphan = support::helper(&made.db, &["--busy-timeout", "30000", "--parent", "1"]);
    assert_eq!(orphan.status.code(), Some(1), "{orphan:?}");
    assert_eq!(orphan.stdout, b"");
    let stderr = String::from_utf8(orphan.stderr).unwrap();
    assert!(
        stderr.contains("process 1 is not the parent of this process"),
        "{stderr}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}
