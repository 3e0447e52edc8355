//! Fixed sleeps. A test waits for the thing itself (`support::eventually`, `Host::until`); it
//! sleeps only where it proves that nothing happens, where time itself is the condition, or to
//! set the pace of something.

use std::collections::BTreeMap;

use crate::files::{rust_files, text_of};
use crate::support;

/// The files with fixed sleeps, how many each has, and why.
const SLEEPS: &[(&str, usize, &str)] = &[
    ("tests/cli/found.rs", 1, "nothing happens"),
    (
        "tests/cli/several.rs",
        2,
        "nothing happens; how often in five seconds",
    ),
    ("tests/helper/locks.rs", 1, "a lock is held for so long"),
    ("tests/helper/states.rs", 1, "the pace of a writer"),
    ("tests/launch/grandchildren.rs", 1, "the pace of looking"),
    ("tests/launch/parent.rs", 2, "nothing happens"),
    (
        "tests/launch/sigchld.rs",
        2,
        "the pace of looking, and of reaping",
    ),
    ("tests/marker/definition.rs", 1, "the age of a file"),
    ("tests/marker/remembered.rs", 2, "the age of a file"),
    (
        "tests/marker/scan.rs",
        2,
        "a writer is killed at any moment",
    ),
    ("tests/service/cost.rs", 9, "nothing happens"),
    ("tests/service/day.rs", 1, "the pace of looking"),
    (
        "tests/service/half_clients.rs",
        2,
        "a slow client; rest is that nothing happens",
    ),
    ("tests/service/hosts.rs", 1, "the pace of looking"),
    ("tests/service/own_listers.rs", 1, "nothing happens"),
    (
        "tests/service/restarts.rs",
        4,
        "the pace of a writer and a reader; killed at any moment",
    ),
    (
        "tests/service/schedule.rs",
        6,
        "nothing happens; the age of a file; a pace",
    ),
    ("tests/service/second_host.rs", 1, "nothing happens"),
    ("tests/service/sidebar.rs", 1, "nothing happens"),
    ("tests/service/socket.rs", 1, "nothing happens any more"),
    (
        "tests/service/survive_database.rs",
        4,
        "away for so long; nothing happens",
    ),
    ("tests/service/survive_helper.rs", 1, "nothing happens"),
    (
        "tests/service/systemd.rs",
        3,
        "the pace of a writer; nothing happens",
    ),
    ("tests/service/unit.rs", 1, "nothing happens"),
    (
        "tests/service/watching.rs",
        5,
        "the age of a file; nothing happens",
    ),
    ("tests/support/within.rs", 1, "the one loop that waits"),
];

/// What is no test of a room.
const OTHERS: [&str; 2] = ["tests/benches", "tests/helpers"];

#[test]
fn fixed_sleeps_are_exactly_the_listed_ones() {
    let _limit = support::limit(30);
    // In pieces, so that this file has none.
    let calls = [["thread::", "sleep("].concat(), [".take_", "for("].concat()];
    let mut found = BTreeMap::new();
    for file in rust_files("tests") {
        if OTHERS.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        let text = text_of(&file);
        let sleeps: usize = calls.iter().map(|call| text.matches(call).count()).sum();
        if sleeps > 0 {
            found.insert(file.to_str().unwrap().to_owned(), sleeps);
        }
    }
    let listed = SLEEPS
        .iter()
        .map(|(file, count, _)| ((*file).to_owned(), *count));
    let listed: BTreeMap<String, usize> = listed.collect();
    assert_eq!(found, listed, "found, and listed in {}", file!());
}
