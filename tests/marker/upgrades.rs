//! Changes of the schema, and logs that are removed, emptied and begun: what the pages and the
//! log say of them is followed, and everything else is read again. The marks are always those
//! of the definition.

use std::fs;

use rusqlite::Connection;

use crate::history::{Database, MARKER, TABLES, definition, marks_of};
use crate::support;

/// More than [`TABLES`]: what an upgrade or a rename can take the place of something with.
const MORE: &str = "
ALTER TABLE part ADD COLUMN other TEXT;
CREATE TABLE spare (id INTEGER PRIMARY KEY, session_id TEXT, data TEXT, other TEXT);
CREATE INDEX message_session ON message (session_id);
CREATE TABLE renamed_session (id TEXT PRIMARY KEY, directory TEXT, time_updated INTEGER);
INSERT INTO renamed_session VALUES ('s9', '/x', 1), ('s1', '/x', 1);
";

/// A database that was listed. Each of these holds the marker, somewhere.
fn listed_once(before: &str) -> Database {
    let made = Database::with(before, &format!("{TABLES}{MORE}"));
    let long = "x".repeat(9000);
    made.run(&format!(
        "INSERT INTO part VALUES (1, 's1', '{MARKER}', ''), (2, 's2', 'x', '{MARKER}'),
             (3, 's3', '{long}', '{long}{MARKER}');
         INSERT INTO spare VALUES (1, 's2', '{MARKER}', ''), (7, 's3', '{long}{MARKER}', 'x');
         INSERT INTO message VALUES ('s9', '{MARKER}'), ('s0', '{long}')"
    ));
    // So that the rows are not among the frames that are read next.
    made.checkpoint("RESTART");
    made.run("UPDATE session SET time_updated = 2");
    assert_eq!(made.scan(), "full");
    made
}

fn mark(made: &Database, id: u32, session: &str) {
    made.run(&format!(
        "INSERT INTO part (id, session_id, data) VALUES ({id}, '{session}', '{MARKER}')"
    ));
}

#[test]
fn change_of_the_schema_is_followed() {
    let _limit = support::limit(120);
    for change in [
        "CREATE INDEX part_session ON part (session_id)",
        "DROP INDEX message_session",
        "CREATE TABLE more (x); INSERT INTO more VALUES (1)",
        "ALTER TABLE part ADD COLUMN third TEXT DEFAULT 'x'",
        "ALTER TABLE session ADD COLUMN title TEXT DEFAULT 'x'",
        // Nothing of the content is written.
        "ALTER TABLE part RENAME COLUMN data TO was; ALTER TABLE part RENAME COLUMN other TO data",
        "ALTER TABLE part DROP COLUMN other",
        "ALTER TABLE part DROP COLUMN data; ALTER TABLE part RENAME COLUMN other TO data",
        // Away and back, with a row that was written meanwhile.
        "ALTER TABLE part RENAME TO away; ALTER TABLE spare RENAME TO part;
         UPDATE away SET data = 'MARKER' WHERE id = 2;
         ALTER TABLE part RENAME TO spare; ALTER TABLE away RENAME TO part",
        // On the pages that are free by then.
        "DROP TABLE part; CREATE TABLE part (id INTEGER PRIMARY KEY, session_id TEXT, data TEXT);
         INSERT INTO part SELECT id, session_id, data FROM spare",
        "ALTER TABLE session RENAME TO old; ALTER TABLE renamed_session RENAME TO session",
        "VACUUM",
        "PRAGMA auto_vacuum = full; VACUUM; PRAGMA auto_vacuum = none; VACUUM",
        "DROP TABLE spare; VACUUM; UPDATE part SET data = 'MARKER' WHERE id = 3",
    ] {
        for page_size in [512, 4096] {
            let made = listed_once(&format!("PRAGMA page_size = {page_size}"));
            made.run(&change.replace("MARKER", MARKER));
            // A table that was made anew can have another root page.
            if !change.starts_with("DROP TABLE part") {
                assert_eq!(made.scan(), "tail", "{change}");
            }
            made.scan();
            made.run("UPDATE session SET time_updated = time_updated + 1");
            assert_eq!(made.scan(), "tail", "{change}");
            assert_eq!(made.scan(), "unchanged", "{change}");
        }
    }
}

/// Rows that were not known until then.
#[test]
fn other_rows_under_a_known_name_are_read_again() {
    let _limit = support::limit(120);
    let swap = "ALTER TABLE part RENAME TO away; ALTER TABLE spare RENAME TO part";
    for (before, change) in [
        ("", swap),
        ("", "DROP TABLE part; ALTER TABLE spare RENAME TO part"),
        (
            "",
            "ALTER TABLE message RENAME TO session_input; ALTER TABLE spare RENAME TO message",
        ),
        ("PRAGMA auto_vacuum = full", swap),
        // The root page of the other table is moved to that of the first.
        (
            "PRAGMA auto_vacuum = full",
            "DROP TABLE part; ALTER TABLE spare RENAME TO part",
        ),
        (
            "PRAGMA auto_vacuum = full",
            "CREATE INDEX part_session ON part (session_id)",
        ),
    ] {
        let made = listed_once(before);
        made.run(change);
        assert_eq!(made.scan(), "full", "{before}: {change}");
        assert_eq!(made.scan(), "unchanged", "{before}: {change}");
    }
}

/// A table that is there already, under a name of content.
#[test]
fn table_that_becomes_content_is_read() {
    let _limit = support::limit(60);
    let made = listed_once("");
    made.run("ALTER TABLE spare RENAME TO session_message");
    let (marks, scan) = marks_of(&support::helper(&made.db, &[&made.cache()]));
    let marked: Vec<_> = marks.iter().filter(|mark| *mark.1 == Some(true)).collect();
    assert_eq!(marked.len(), 3, "{marks:?}");
    assert_eq!(scan["mode"], "full");
}

/// A column of the name becomes content, and its rows are not known.
#[test]
fn column_that_becomes_content_is_read() {
    let _limit = support::limit(60);
    let made = Database::with("", TABLES);
    made.run("CREATE TABLE session_input (id INTEGER PRIMARY KEY, session_id TEXT, text TEXT)");
    made.run(&format!(
        "INSERT INTO session_input VALUES (1, 's2', '{MARKER}')"
    ));
    made.checkpoint("RESTART");
    made.run("UPDATE session SET time_updated = 2");
    assert_eq!(made.scan(), "full");
    made.run("ALTER TABLE session_input RENAME COLUMN text TO prompt");
    let output = support::helper(&made.db, &[&made.cache()]);
    let (marks, scan) = marks_of(&output);
    assert_eq!((marks["s2"], &scan["mode"]), (Some(true), &"full".into()));
    // And back and forth, unseen.
    made.run(
        "ALTER TABLE session_input RENAME COLUMN prompt TO text;
         UPDATE session_input SET text = 'x';
         ALTER TABLE session_input RENAME COLUMN text TO prompt",
    );
    let (marks, scan) = marks_of(&support::helper(&made.db, &[&made.cache()]));
    assert_eq!((marks["s2"], &scan["mode"]), (Some(false), &"tail".into()));
}

#[test]
fn emptied_log_shows_that_nothing_is_new() {
    let _limit = support::limit(60);
    for mode in ["TRUNCATE", "TRUNCATE); PRAGMA wal_checkpoint(TRUNCATE"] {
        let made = listed_once("");
        made.run("UPDATE session SET time_updated = 3");
        assert_eq!(made.scan(), "tail");
        made.run(&format!("PRAGMA wal_checkpoint({mode})"));
        let log = fs::metadata(made.db.with_extension("db-wal")).unwrap();
        assert_eq!(log.len(), 0);
        for _ in 0..2 {
            assert_eq!(made.scan(), "unchanged");
        }
        mark(&made, 20, "s0");
        assert_eq!(made.scan(), "tail");
        assert_eq!(made.scan(), "unchanged");
    }
}

/// What was committed before the log was emptied is nowhere but in the file.
#[test]
fn commit_before_the_log_was_emptied_is_found() {
    let _limit = support::limit(60);
    for (before, after) in [("", ""), ("", "x"), ("x", ""), ("x", "x")] {
        let made = listed_once("");
        if !before.is_empty() {
            made.run("UPDATE session SET time_updated = 3");
            assert_eq!(made.scan(), "tail");
        }
        mark(&made, 20, "s0");
        made.run("PRAGMA wal_checkpoint(TRUNCATE)");
        if !after.is_empty() {
            made.run("UPDATE session SET time_updated = 4");
        }
        assert_eq!(made.scan(), "full");
        assert_eq!(made.scan(), "unchanged");
    }
}

/// So many commits, of one frame each.
fn commits(made: &Database, count: u32) {
    for n in 0..count {
        let sql = "UPDATE session SET time_updated = ?1 WHERE id = 's0'";
        made.conn.execute(sql, [1000 + n]).unwrap();
    }
}

fn frames(made: &Database) -> u64 {
    u64::try_from(support::log::Log::of(&made.db).frames()).unwrap()
}

/// More than the wal-index has room for in another block.
const MANY: u32 = 4200;

/// The last frame of a generation is the last one of the file: it may have been cut off
/// there. The number of commits tells that it was not.
#[test]
fn log_that_fills_its_file_is_followed_after_many_commits() {
    let _limit = support::limit(120);
    for (many, expected) in [(20, "full"), (MANY, "tail")] {
        let made = listed_once("PRAGMA page_size = 512; PRAGMA synchronous = off");
        made.checkpoint("TRUNCATE");
        commits(&made, many);
        made.scan();
        assert_eq!(made.scan(), "unchanged");
        commits(&made, 3);
        mark(&made, 20, "s0");
        made.checkpoint("RESTART");
        commits(&made, 1);
        assert_eq!(frames(&made), 1);
        assert_eq!(made.scan(), expected, "{many}");
        assert_eq!(made.scan(), "unchanged", "{many}");
    }
}

/// The file was cut off at the end of a frame, with commits behind it that were never read.
/// What is published is as if there were none: after a recovery as many were made as
/// before.
#[test]
fn commits_that_were_cut_off_are_found() {
    let _limit = support::limit(120);
    for has_recovery in [false, true] {
        let mut made = listed_once("PRAGMA page_size = 512; PRAGMA synchronous = off");
        made.checkpoint("TRUNCATE");
        // The count begins.
        let reopen = |made: &mut Database| {
            let stays = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            made.conn.set_db_config(stays, true).unwrap();
            made.conn = Connection::open_in_memory().unwrap();
            made.conn = Connection::open(&made.db).unwrap();
            made.run("PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = off");
        };
        commits(&made, 5);
        reopen(&mut made);
        commits(&made, MANY);
        made.scan();
        assert_eq!(made.scan(), "unchanged");
        if has_recovery {
            reopen(&mut made);
        }
        commits(&made, 2);
        let kept = 32 + frames(&made) * (24 + 512);
        mark(&made, 20, "s0");
        commits(&made, MANY - 1);
        made.run(&format!("PRAGMA journal_size_limit = {kept}"));
        made.checkpoint("RESTART");
        commits(&made, 3);
        let log = fs::metadata(made.db.with_extension("db-wal")).unwrap();
        assert_eq!(log.len(), kept);
        assert_eq!(made.scan(), "full", "{has_recovery}");
        assert_eq!(made.scan(), "unchanged", "{has_recovery}");
    }
}

/// As [`Database::scan`], a minute from now: a file that has just changed looks settled.
#[cfg(target_os = "linux")]
fn scan_later(made: &Database, clock: &support::preload::Library, conn: &Connection) -> String {
    fs::write(clock.beside("seconds"), "60\n").unwrap();
    let output = support::command(support::lister())
        .arg("--db")
        .arg(&made.db)
        .arg(made.cache())
        .env("LD_PRELOAD", clock.path())
        .env("SET_CLOCK", clock.beside("seconds"))
        .output()
        .unwrap();
    let (marks, scan) = marks_of(&output);
    assert_eq!(marks, definition(conn), "{scan}");
    scan["mode"].as_str().unwrap().to_owned()
}

/// OpenCode is closed, so that the log is removed, and started again.
#[cfg(target_os = "linux")]
#[test]
fn log_that_is_begun_after_none_is_followed() {
    let _limit = support::limit(60);
    let clock = support::preload::Library::of("set_clock.c");
    // What happens between the first listing and the log: nothing, or something that is
    // in the file by then.
    for (between, expected) in [
        ("SELECT 1", "tail"),
        ("UPDATE part SET data = 'MARKER' WHERE id = 2", "full"),
    ] {
        let mut made = listed_once("");
        let close = |made: &mut Database| {
            made.conn = Connection::open_in_memory().unwrap();
            assert!(!made.db.with_extension("db-wal").exists());
        };
        let open = |made: &Database| {
            let conn = Connection::open(&made.db).unwrap();
            conn.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
            conn
        };
        close(&mut made);
        let expected_of = |made: &Database| {
            let copy = made.directory.path().join("copy.db");
            fs::copy(&made.db, &copy).unwrap();
            Connection::open(copy).unwrap()
        };
        assert_eq!(scan_later(&made, &clock, &expected_of(&made)), "full");
        assert_eq!(scan_later(&made, &clock, &expected_of(&made)), "unchanged");
        made.conn = open(&made);
        made.run(&between.replace("MARKER", MARKER));
        close(&mut made);
        made.conn = open(&made);
        mark(&made, 20, "s0");
        assert_eq!(scan_later(&made, &clock, &made.conn), expected, "{between}");
        mark(&made, 21, "s2");
        assert_eq!(scan_later(&made, &clock, &made.conn), "tail", "{between}");
    }
}
