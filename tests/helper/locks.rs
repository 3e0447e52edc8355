//! Databases that others have locked or left with a log.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rusqlite::Connection;

use crate::common::{ONE_SESSION, at_rest, each, rollback_mode};
use crate::people::explained;
use crate::support::files::beside;
use crate::support::{self, Made, error, ids, listing, real_database, settle};

/// A connection that nobody else can read beside.
fn locked(db: &Path) -> Connection {
    let conn = Connection::open(db).unwrap();
    conn.pragma_update(None, "locking_mode", "exclusive")
        .unwrap();
    conn.execute_batch("BEGIN IMMEDIATE; CREATE TABLE held (x); COMMIT")
        .unwrap();
    conn
}

#[test]
fn locked_database_is_busy_after_the_timeout() {
    let _limit = support::limit(60);
    let (_directory, db) = at_rest(ONE_SESSION);
    let holder = locked(&db);
    for timeout in ["0", "100"] {
        let started = Instant::now();
        let (kind, message) = error(&db, &["--busy-timeout", timeout]);
        assert_eq!(kind, "busy");
        let holder = format!("locked by process {}", std::process::id());
        assert!(message.contains(&holder), "{message}");
        assert!(started.elapsed() < Duration::from_secs(4), "{timeout}");
    }
    let started = Instant::now();
    assert_eq!(error(&db, &["--busy-timeout", "1000"]).0, "busy");
    assert!(started.elapsed() >= Duration::from_millis(900));
    drop(holder);
    assert_eq!(ids(&db, &["--busy-timeout", "100"]), ["ses_a"]);

    let made = rollback_mode(ONE_SESSION);
    // Not later: closing any descriptor of the file drops this process's locks.
    settle(&made.db);
    made.run("BEGIN EXCLUSIVE");
    assert_eq!(error(&made.db, &["--busy-timeout", "100"]).0, "busy");
}

#[test]
fn lock_released_in_time_is_waited_for() {
    let _limit = support::limit(60);
    let (_directory, db) = at_rest(ONE_SESSION);
    let holder = locked(&db);
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(holder);
        });
        assert_eq!(ids(&db, &["--busy-timeout", "30000"]), ["ses_a"]);
    });
}

#[test]
fn uncommitted_rows_of_a_writer_are_not_listed() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.run("BEGIN IMMEDIATE");
    made.session("ses_b", 2);
    made.run("UPDATE session SET title = 'Changed'; DELETE FROM session WHERE id = 'ses_a'");
    // So much that uncommitted pages are in the log already.
    made.run("PRAGMA cache_spill = 1; PRAGMA cache_size = 1");
    made.part("ses_b", &"x".repeat(1 << 20));
    let (sessions, _) = listing(&made.db, &["--busy-timeout", "0"]);
    assert_eq!(each(&sessions, "title"), ["Title of ses_a"]);
    made.run("COMMIT");
    assert_eq!(ids(&made.db, &["--busy-timeout", "0"]), ["ses_b"]);
}

#[test]
fn listing_keeps_log_and_file_and_leaves_no_lock() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    let bytes = |db: &Path| {
        (
            fs::read(db).unwrap(),
            fs::read(beside(db, "-wal")).unwrap(),
            fs::metadata(db).unwrap().modified().unwrap(),
        )
    };
    let before = bytes(&made.db);
    assert!(!before.1.is_empty());
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
    explained(&made.db);
    assert!(bytes(&made.db) == before, "the owner's files changed");
    // The owner can do what needs every lock.
    made.conn.busy_timeout(Duration::ZERO).unwrap();
    let busy: i64 = made
        .conn
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(busy, 0);
    made.run("BEGIN EXCLUSIVE; DELETE FROM session; COMMIT");
    made.conn
        .pragma_update(None, "journal_mode", "delete")
        .unwrap();
}

#[test]
fn log_of_a_dead_owner_is_read_and_kept() {
    let _limit = support::limit(30);
    // Version 1.2.1 left everything in the log: the main file has no tables.
    for version in ["1.2.1", "1.18.33"] {
        let (_directory, db) = real_database(version);
        let log = beside(&db, "-wal");
        let before = (fs::read(&db).unwrap(), fs::read(&log).unwrap());
        for _ in 0..2 {
            assert_eq!(ids(&db, &[]).len(), 15);
        }
        let after = (fs::read(&db).unwrap(), fs::read(&log).unwrap());
        assert!(after == before, "{version}");
    }
}
