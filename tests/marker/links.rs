//! Histories of databases that are links.

use std::fs;
use std::os::unix::fs::symlink;

use crate::history::{Database, MARKER, cache_in, definition, listed, marked, marks_of};
use crate::support::read_only::{self, ReadOnly, WAYS};
use crate::support::{self, files};

/// OpenCode was killed, the file was moved to a larger disk, and a link was left
/// where it had been, beside the log that it had then.
#[test]
fn link_beside_a_dead_log_is_scanned_by_the_log_of_its_target() {
    let _limit = support::limit(60);
    let made = Database::new(4096);
    made.part(1, "s0", "nothing");
    made.checkpoint("FULL");
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join("opencode.db");
    // As they lie there while it is open: as a killed process leaves them.
    files::copy(&made.db, &link, &["-wal", "-shm"]);
    made.checkpoint("TRUNCATE");
    symlink(&made.db, &link).unwrap();
    let cache = cache_in(place.path());
    assert_eq!(listed(&link, &[&cache]).0, marked(&[]));
    made.part(2, "s1", MARKER);
    for _ in 0..2 {
        assert_eq!(listed(&link, &[&cache]).0, marked(&["s1"]));
    }
}

#[test]
fn link_to_a_database_is_scanned_by_what_is_new() {
    let _limit = support::limit(60);
    let made = Database::new(4096);
    made.part(1, "s1", MARKER);
    let root = made.directory.path();
    fs::create_dir(root.join("links")).unwrap();
    symlink(&made.db, root.join("links/absolute.db")).unwrap();
    symlink("../opencode.db", root.join("links/relative.db")).unwrap();
    symlink("relative.db", root.join("links/of-a-link.db")).unwrap();
    symlink(root, root.join("links/directory")).unwrap();
    for (n, link) in [
        "absolute.db",
        "relative.db",
        "of-a-link.db",
        "directory/opencode.db",
    ]
    .into_iter()
    .enumerate()
    {
        let path = root.join("links").join(link);
        let cache = format!("--scan-cache={}", root.join(format!("cache {n}")).display());
        let scan = || {
            let (marks, scan) = listed(&path, &[&cache]);
            assert_eq!(marks, marked(&["s1"]), "{link}: {scan}");
            scan["mode"].clone()
        };
        assert_eq!(scan(), "full", "{link}");
        assert_eq!(scan(), "unchanged", "{link}");
        made.messages(1, "new");
        assert_eq!(scan(), "tail", "{link}");
    }
}

/// What the helper must never do is to leave out what only the log has.
#[test]
fn link_to_a_read_only_database_lists_all_or_nothing() {
    let _limit = support::limit(120);
    for way in WAYS {
        for has_log in [true, false] {
            let made = Database::new(4096);
            if has_log {
                made.checkpoint("TRUNCATE");
                made.run("DELETE FROM session WHERE id = 's3'");
                made.run("INSERT INTO session VALUES ('in the log', '/x', 1)");
            }
            let place = tempfile::tempdir().unwrap();
            let (real, links) = (place.path().join("real"), place.path().join("links"));
            fs::create_dir(&real).unwrap();
            fs::create_dir(&links).unwrap();
            let target = real.join("opencode.db");
            if has_log {
                files::copy(&made.db, &target, &["", "-wal"]);
            } else {
                made.checkpoint("TRUNCATE");
                files::copy(&made.db, &target, &[""]);
            }
            let link = links.join("opencode.db");
            symlink(&target, &link).unwrap();
            read_only::reachable(place.path());
            let Some(read_only) = ReadOnly::new(way, &[&real, &links]) else {
                continue;
            };
            let output = read_only.helper(&link, &[]);
            let last = support::lines(&output).pop().unwrap();
            if !has_log || last["type"] == "end" {
                let (marks, _) = marks_of(&output);
                let expected = definition(&made.conn);
                assert_eq!(marks, expected, "{way:?}, with a log: {has_log}");
            } else {
                let message = last["message"].as_str().unwrap();
                assert!(!message.contains("disk"), "{message}");
            }
        }
    }
}
