//! Histories in which the chain of checksums of a log is broken.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::Connection;

use crate::history::{Database, MARKER, cache_in, definition, listed, marked};
use crate::support;
use crate::support::files::beside;
use crate::support::log::{self, Log};

/// Where the chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// The first frame of a transaction has no checksum, and the next one follows
    /// from there.
    First,
    /// No frame of it has one, and what is published is that of a frame that was
    /// rolled back.
    All,
}

/// Breaks the chain of the log from this frame to its end, as SQLite before 3.51
/// does: a transaction that wrote a page to the log twice, and then rolled back to a
/// savepoint before both, is committed with frames that have neither salts nor
/// checksums (<https://sqlite.org/forum/forumpost/b490f726db>).
fn break_chain(log: &mut Log, first: usize, which: Break) -> [u32; 2] {
    let end = log.frames();
    match which {
        Break::First => {
            log.unseal(first, first + 1);
            log.seal(first + 1, end);
            log.stored_checksum(end - 1)
        }
        Break::All => {
            log.unseal(first, end);
            [0x1795_02fd, 0x452a_9c7d]
        }
    }
}

/// Everything of the archive, in a directory.
fn written_by_3_40_1() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let archive = support::fixtures().join("sqlite-3.40.1-rollback-to.tar.gz");
    let archive = flate2::read::GzDecoder::new(File::open(archive).unwrap());
    tar::Archive::new(archive).unpack(directory.path()).unwrap();
    directory
}

/// Puts a state in the place of the one before it, in the same files.
fn put(state: &Path, db: &Path) {
    for suffix in ["", "-wal"] {
        fs::write(beside(db, suffix), fs::read(beside(state, suffix)).unwrap()).unwrap();
    }
    let _ = fs::remove_file(beside(db, "-shm"));
}

/// That the tests below break logs as SQLite does.
#[test]
fn broken_chain_equals_that_of_an_older_sqlite() {
    let _limit = support::limit(30);
    let states = written_by_3_40_1();
    let written = Log::of(&states.path().join("broken.db"));
    let (first, end) = (5, written.frames());
    let mut ours = Log::from(written.bytes.clone());
    ours.seal(0, end);
    assert!(ours.bytes != written.bytes, "it is not broken");
    break_chain(&mut ours, first, Break::First);
    assert!(ours.bytes == written.bytes);
}

#[test]
fn broken_chain_of_sqlite_3_40_1_keeps_the_marks() {
    let _limit = support::limit(60);
    let states = written_by_3_40_1();
    let place = tempfile::tempdir().unwrap();
    let (db, cache) = (place.path().join("opencode.db"), cache_in(place.path()));
    for (state, expected) in [("before", false), ("after", true), ("after", true)] {
        put(&states.path().join(format!("{state}.db")), &db);
        let (marks, scan) = listed(&db, &[&cache]);
        assert_eq!(marks["s1"], Some(expected), "{state}: {scan}");
    }
}

/// A database whose log has been restarted, so that old frames are behind the new.
pub(crate) fn restarted() -> Database {
    let made = Database::new(512);
    for id in 1000..1040 {
        made.part(id, "s0", &"z".repeat(300));
    }
    made.messages(60, &"long".repeat(120));
    made.checkpoint("RESTART");
    made.messages(3, "a");
    made
}

/// Commits a transaction that marks a session, and breaks the chain in it.
fn commit_broken(made: &Database, session: &str, which: Break) -> File {
    let first = Log::of(&made.db).frames();
    made.run("BEGIN");
    made.run("UPDATE session SET time_updated = time_updated + 1");
    let id = 5000 + i64::try_from(first).unwrap();
    made.part(id, session, &format!("{}{MARKER}", "x".repeat(100)));
    made.run("COMMIT");
    let mut log = Log::of(&made.db);
    assert!(log.frames() >= first + 2);
    let published = break_chain(&mut log, first, which);
    log::publish(&made.db, &log, published)
}

#[test]
fn broken_chain_before_a_restart_keeps_the_marks() {
    let _limit = support::limit(60);
    for which in [Break::First, Break::All] {
        let made = restarted();
        assert_eq!(made.scan(), "full");
        let _index = commit_broken(&made, "s1", which);
        made.messages(1, "b");
        made.checkpoint("RESTART");
        made.messages(1, "c");
        let frames = Log::of(&made.db).frames();
        assert_eq!(frames, 1, "the log was not restarted");
        made.scan();
        assert_eq!(made.scan(), "unchanged");
        drop(made.conn);
    }
}

/// Reading everything is right, but not each time until the log restarts.
#[test]
fn broken_chain_is_followed_from_behind_it() {
    let _limit = support::limit(60);
    for (which, most) in [(Break::First, 1), (Break::All, 2)] {
        let made = restarted();
        // It holds the marker, behind the end of its text.
        let hidden = format!("\0{}{MARKER}", "y".repeat(4000));
        made.part(9000, "s2", &hidden);
        assert_eq!(made.scan(), "full");
        let _index = commit_broken(&made, "s1", which);
        let mut modes = Vec::new();
        for _ in 0..most {
            modes.push(made.scan());
            made.messages(1, "b");
        }
        for _ in 0..3 {
            let mode = made.scan();
            assert_ne!(mode, "full", "{which:?}, after {modes:?}");
            made.messages(1, "c");
        }
        // One byte in the row's first page, and its text goes on to the marker.
        made.run("UPDATE part SET data = 'y' || substr(CAST(data AS BLOB), 2) WHERE id = 9000");
        assert_ne!(made.scan(), "full");
        made.part(9001, "s3", MARKER);
        assert_eq!(made.scan(), "tail");
        drop(made.conn);
    }
}

/// As long as it is the newest, too.
#[test]
fn transaction_without_checksums_is_remembered() {
    let _limit = support::limit(60);
    for which in [Break::First, Break::All] {
        let made = restarted();
        assert_eq!(made.scan(), "full");
        let _index = commit_broken(&made, "s1", which);
        assert_eq!(made.scan(), "tail", "{which:?}");
        for _ in 0..2 {
            assert_eq!(made.scan(), "unchanged", "{which:?}");
        }
        drop(made.conn);
    }
}

/// Recovery ends the log before the frame without a checksum, and a position behind it
/// is one of a log that is not there any more, though its frame still is.
#[test]
fn position_past_a_broken_chain_is_lost_in_a_crash() {
    let _limit = support::limit(60);
    for which in [Break::First, Break::All] {
        let mut made = restarted();
        assert_eq!(made.scan(), "full");
        let index = commit_broken(&made, "s1", which);
        made.messages(20, "after");
        made.scan();
        // A crash: nobody closes the database.
        let kept = Log::of(&made.db);
        drop(index);
        let no_checkpoint = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        made.conn.set_db_config(no_checkpoint, true).unwrap();
        made.conn = Connection::open_in_memory().unwrap();
        assert!(Log::of(&made.db).bytes == kept.bytes);
        let _ = fs::remove_file(beside(&made.db, "-shm"));
        made.conn = Connection::open(&made.db).unwrap();
        made.run("PRAGMA wal_autocheckpoint = 0");
        made.part(7777, "s2", &format!("{}{MARKER}", "x".repeat(50)));
        // It did recover: what came behind the hole is gone.
        assert_eq!(definition(&made.conn), marked(&["s2"]));
        made.checkpoint("RESTART");
        made.messages(1, "c");
        made.scan();
        drop(made.conn);
    }
}
