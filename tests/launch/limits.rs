//! The limits that a helper keeps to.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{fs, thread};

use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{ListRequest, Lister, Outcome};

use crate::parent::waiting;
use crate::processes::{Started, arguments, helper_of, locked, stat, unlock, wait_until_it_reads};
use crate::support::{self, Made, endless, with_projects};

/// The soft and the hard limit of this name in `/proc/PID/limits`.
pub(crate) fn limits(pid: u32, name: &str) -> [String; 2] {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let mut values = line.unwrap().split_whitespace().map(str::to_owned);
    [values.next().unwrap(), values.next().unwrap()]
}

fn io_priority(pid: u32) -> i64 {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_get takes two integers and touches no memory of ours.
    #[expect(unsafe_code, reason = "neither std nor rustix has this system call")]
    unsafe {
        libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, pid)
    }
}

const BEST_EFFORT: i64 = 2 << 13;

#[test]
fn launched_helper_has_its_limits_and_knows_its_parent() {
    let _limit = support::limit(60);
    let made = locked();
    let us = std::process::id();
    let request = ListRequest::of(&made.db).deadline(Duration::from_secs(30));
    thread::scope(|scope| {
        let listing = scope.spawn(|| ProcessLister::at(support::lister()).list(&request));
        let helper = helper_of(us, &made.db);
        wait_until_it_reads(helper.0, &made.db);
        let pid = helper.0;
        // Nice is field 19, the process group field 5.
        let nice = |pid| stat(pid).unwrap()[16].parse::<i32>().unwrap();
        assert_eq!(nice(pid), (nice(us) + 10).min(19));
        let stat = stat(pid).unwrap();
        assert_eq!(stat[2], pid.to_string(), "the leader of its own group");
        assert_eq!(io_priority(pid), BEST_EFFORT | 7);
        let gib = (1 << 30).to_string();
        assert_eq!(limits(pid, "Max core file size"), ["0", "0"]);
        assert_eq!(limits(pid, "Max address space"), [gib.as_str(), &gib]);
        let seconds = 31 * opencode_sessions::lister::default_threads();
        let cpu = [seconds, seconds + 1].map(|seconds| seconds.to_string());
        assert_eq!(limits(pid, "Max cpu time"), cpu);
        let arguments = arguments(pid).join(" ");
        for part in [&format!("--parent {us} "), "--parent-pipe "] {
            assert!(arguments.contains(part), "{arguments}");
        }
        unlock(&made);
        let outcome = listing.join().unwrap();
        assert!(matches!(&outcome, Outcome::Complete(_)), "{outcome:?}");
    });
}

#[test]
fn helper_run_by_hand_has_only_a_memory_limit() {
    let _limit = support::limit(60);
    let made = locked();
    let (helper, _stdin) = waiting(&made, &[]);
    let us = std::process::id();
    let pid = helper.pid();
    assert_eq!(stat(pid).unwrap()[16], stat(us).unwrap()[16]);
    for name in ["Max core file size", "Max address space", "Max cpu time"] {
        assert_eq!(limits(pid, name), limits(us, name), "{name}");
    }
}

#[test]
fn lower_inherited_limit_is_kept() {
    let _limit = support::limit(60);
    let made = locked();
    let mut helper = support::command(Path::new("/bin/sh"));
    helper
        .args([
            "-c",
            r#"ulimit -S -v 524288; ulimit -S -t 7; exec "$0" "$@""#,
        ])
        .arg(support::lister())
        .args([
            "--busy-timeout",
            "30000",
            "--background",
            "--cpu-limit",
            "60",
            "--db",
        ])
        .arg(&made.db)
        .stdout(Stdio::null());
    let helper = Started::of(&mut helper);
    wait_until_it_reads(helper.pid(), &made.db);
    let [half, whole] = [512 << 20, 1 << 30].map(|bytes: u64| bytes.to_string());
    assert_eq!(limits(helper.pid(), "Max address space"), [half, whole]);
    assert_eq!(limits(helper.pid(), "Max cpu time"), ["7", "61"]);
}

#[test]
fn helper_past_its_cpu_limit_is_killed() {
    let _limit = support::limit(60);
    let made = endless();
    let output = support::helper(&made.db, &["--cpu-limit", "1"]);
    assert_eq!(output.status.signal(), Some(libc::SIGXCPU), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("\"end\""));
}

/// What is optional costs only itself, whatever limit it comes to.
#[test]
fn optional_part_past_a_memory_limit_is_omitted() {
    let _limit = support::limit(60);
    let is_left_out = |end: &serde_json::Value| {
        let degraded = end["degraded"].as_array().unwrap();
        assert_eq!(degraded.len(), 1, "{end}");
        assert_eq!(degraded[0]["what"], "worktree");
        let reason = degraded[0]["reason"].as_str().unwrap();
        assert!(reason.contains("memory"), "{reason}");
    };
    // Two hundred megabytes; then a gigabyte, which is all of the address space.
    let large = with_projects("SELECT 'p' AS id, hex(zeroblob(100000000)) AS worktree");
    let huge = with_projects("SELECT 'p' AS id, hex(zeroblob(499999000)) AS worktree");
    for (made, limit) in [
        (&large, &[][..]),
        (&large, &["--memory-limit", "8"]),
        (&large, &["--background"]),
        (&huge, &["--background", "--memory-limit", "65536"]),
    ] {
        let (sessions, end) = support::listing(&made.db, limit);
        assert_eq!(sessions.len(), 1);
        is_left_out(&end);
    }
    let (_, end) = support::listing(&large.db, &["--memory-limit", "1024"]);
    assert_eq!(end["degraded"], serde_json::Value::Null);
}

/// What every listing needs fails it cleanly.
#[test]
fn listing_past_its_memory_limit_fails_cleanly() {
    let _limit = support::limit(60);
    // As much as there is of the schema is in memory: hundred megabytes.
    let tables: String = (0..110)
        .map(|at| {
            format!(
                "CREATE TABLE t{at} (a text DEFAULT '{}');",
                "x".repeat(900_000)
            )
        })
        .collect();
    let made = Made::new();
    made.session("ses_a", 1);
    made.run(&tables);
    for limit in [&[][..], &["--memory-limit", "8"], &["--background"]] {
        let (kind, message) = support::error(&made.db, limit);
        assert_eq!(kind, "out_of_memory", "{message}");
    }
    let (sessions, _) = support::listing(&made.db, &["--memory-limit", "1024"]);
    assert_eq!(sessions.len(), 1);
    let lister = ProcessLister::at(support::lister());
    let outcome = lister.list(&ListRequest::of(&made.db));
    let Outcome::Refused(refusal) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(refusal.error.kind.as_str(), "out_of_memory");
}
