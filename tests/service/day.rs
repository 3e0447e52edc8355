//! A day of refreshes in a minute: what is left of them in the service.

use std::time::Duration;
use std::{fs, thread};

use crate::support::{self, Helper, Host, Made, serve};

/// One a minute, as the safety net looks.
const REFRESHES: i64 = 24 * 60;

/// Descriptors, threads, and resident memory in KiB: the least of some looks,
/// since a listing's thread ends a moment after its reply.
fn held(pid: u32) -> (usize, u64, u64) {
    let number = |name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let look = || {
        thread::sleep(Duration::from_millis(20));
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        (descriptors, number("Threads:"), number("VmRSS:"))
    };
    let looks: Vec<_> = (0..20).map(|_| look()).collect();
    let least = |of: fn(&(usize, u64, u64)) -> u64| looks.iter().map(of).min().unwrap();
    let descriptors = looks.iter().map(|look| look.0).min().unwrap();
    (descriptors, least(|look| look.1), least(|look| look.2))
}

/// Descriptors, threads and memory are as they were.
#[test]
fn day_of_refreshes_leaks_nothing() {
    let _limit = support::limit(300);
    let made = Made::new();
    for n in 0..100 {
        made.session(&format!("ses_{n}"), n);
    }
    let state = tempfile::tempdir().unwrap();
    let helper = Helper::new();
    let mut command = serve(&made.db, state.path());
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    let mut day = |refreshes: i64| {
        for n in 0..refreshes {
            let session = n % 100;
            made.run(&format!(
                "UPDATE session SET title = 'Title {n}', time_updated = time_updated + 1 \
                 WHERE id = 'ses_{session}'"
            ));
            // Things go wrong on such a day.
            let goes_wrong = n % 20 == 7;
            if goes_wrong {
                helper.becomes("killed-by-signal");
            }
            let outcome = host.refresh();
            assert_eq!(outcome["outcome"] == "failed", goes_wrong, "{outcome}");
            if goes_wrong {
                helper.becomes(support::REAL);
            }
        }
        held(host.pid())
    };
    // What the first ones allocate stays.
    let (descriptors, threads, memory) = day(REFRESHES / 8);
    let later = day(REFRESHES);
    assert_eq!((later.0, later.1), (descriptors, threads));
    let grown = later.2.saturating_sub(memory);
    assert!(grown < 4 << 10, "{grown} KiB more than {memory}");
    host.until("the last change", |model| {
        model
            .sessions
            .values()
            .any(|session| session["title"] == "Title 1439")
    });
}
