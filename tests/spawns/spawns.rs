//! What a thousand listings leave in the process that asks for them: nothing.
//!
//! One test, since descriptors, threads and memory are of the whole process.

use std::fs;
use std::time::{Duration, Instant};

use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{FailureReason, ListRequest, Lister, Outcome};
use rustix::process::{Pid, Signal};

use crate::support::{self, Made};

/// What the caller is promised on top of the deadline.
const GRACE: Duration = Duration::from_secs(1);

/// What this process has.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: u64,
    children: usize,
}

fn held() -> Held {
    Held {
        descriptors: support::descriptors(),
        threads: status("self", "Threads:").unwrap(),
        children: children(),
    }
}

/// A number of `/proc/PID/status`.
fn status(pid: &str, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The children of this process, dead ones that nobody reaped included.
fn children() -> usize {
    let us = u64::from(std::process::id());
    fs::read_dir("/proc")
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            let pid = name.to_str().unwrap();
            pid.parse::<u32>().is_ok() && status(pid, "PPid:") == Some(us)
        })
        .count()
}

/// Resident memory, in KiB.
fn memory() -> u64 {
    status("self", "VmRSS:").unwrap()
}

/// A way to list, what it must come to, and how often.
struct Way {
    lister: ProcessLister,
    request: ListRequest,
    expected: fn(&Outcome) -> bool,
    times: usize,
}

fn repeat(ways: &[Way], percent: usize) {
    for way in ways {
        for _ in 0..way.times * percent / 100 {
            let outcome = way.lister.list(&way.request);
            let program = way.lister.program().unwrap().display();
            assert!((way.expected)(&outcome), "{program}: {outcome:?}");
        }
    }
}

/// Where the misbehaving helpers live. No process of theirs survives it.
struct Place(tempfile::TempDir);

impl Place {
    fn bad(&self, way: &str) -> ProcessLister {
        ProcessLister::at(support::misbehaving(self.0.path(), way))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.0.path().join("pids")).unwrap_or_default();
        for pid in pids.lines() {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw)
                && program.ends_with("misbehaving-lister")
            {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Nor does any way to fail.
#[test]
fn thousand_listings_leak_nothing() {
    let _limit = support::limit(600);
    leave_the_caller_as_it_was(1_000);
}

/// Nor does any way to fail.
#[test]
#[ignore = "takes minutes: ./scripts/soak spawns"]
fn soak_ten_thousand_listings_leak_nothing() {
    let _limit = support::limit(3_600);
    leave_the_caller_as_it_was(10_000);
}

fn leave_the_caller_as_it_was(listings: usize) {
    let made = Made::new();
    for n in 0..20 {
        made.session(&format!("ses_{n}"), n);
    }
    let text = made.directory.path().join("text.db");
    fs::write(&text, "no database").unwrap();
    let place = Place(tempfile::tempdir().unwrap());
    let way = |lister, times, expected| Way {
        lister,
        request: ListRequest::of(&made.db),
        expected,
        times,
    };
    let real = || ProcessLister::at(support::lister());
    let ways = [
        way(
            real(),
            listings,
            |outcome| matches!(outcome, Outcome::Complete(l) if l.rows.len() == 20),
        ),
        Way {
            request: ListRequest::of(&text),
            ..way(real(), 60, |outcome| matches!(outcome, Outcome::Refused(_)))
        },
        way(
            place.bad("killed-by-signal"),
            60,
            |outcome| matches!(outcome, Outcome::Failed(b) if matches!(b.reason, FailureReason::Killed { .. })),
        ),
        way(
            place.bad("prints-end-and-exits-3"),
            60,
            |outcome| matches!(outcome, Outcome::Failed(b) if matches!(b.reason, FailureReason::StatusMismatch { .. })),
        ),
        way(
            ProcessLister::at("/nowhere/lister"),
            20,
            |outcome| matches!(outcome, Outcome::Failed(b) if matches!(b.reason, FailureReason::NotFound(_))),
        ),
        Way {
            request: ListRequest::of(&made.db).deadline(Duration::from_millis(50)),
            ..way(place.bad("hangs-before-output"), 20, |outcome| {
                matches!(outcome, Outcome::TimedOut(_))
            })
        },
    ];

    // The first listings allocate what stays: buffers, the pipe of wait-timeout.
    repeat(&ways, 10);
    let (before, memory_before) = (held(), memory());
    repeat(&ways, 100);
    assert_eq!(held(), before);
    let grown = memory().saturating_sub(memory_before);
    assert!(grown < 4 << 10, "{grown} KiB more");

    // Every way of misbehaving, without a look at memory: a flood is kept up to
    // the limits of the wire.
    let names = support::command(place.bad("names").program().unwrap()).output();
    let names = String::from_utf8(names.unwrap().stdout).unwrap();
    assert!(names.lines().count() > 40, "{names}");
    for name in names.lines() {
        // Of its own, since some of them are linked already.
        let place = Place(tempfile::tempdir().unwrap());
        let lister = place.bad(name);
        let request = ListRequest::of(&made.db).deadline(Duration::from_millis(250));
        let started = Instant::now();
        let outcome = lister.list(&request);
        let took = started.elapsed();
        assert!(took <= request.deadline + GRACE, "{name}: {took:?}");
        assert_eq!(held(), before, "{name}: {outcome:?}");
    }
}
