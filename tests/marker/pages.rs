//! Histories in which a budget ends at any moment, or pages do not say what is in the rows.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::broken_chain::restarted;
use crate::history::{Database, MARKER, TABLES, definition, listed, marked, marks_of};
use crate::support::files::{self, beside};
use crate::support::log::Log;
use crate::support::read_only::{self, ReadOnly, WAYS};
use crate::support::{self, preload};

// ---- A budget that ends at any moment.

/// A row that holds the marker in an overflow page, and whose cell is in the log
/// alone, while the file still has it where it was before: a checkpoint wrote its old
/// page, and could not write its new one, which a reader was in the way of.
fn moved_while_a_checkpoint_was_held_up() -> Database {
    let made = Database::new(512);
    made.run("CREATE TABLE filler (x)");
    for id in 1..9 {
        made.part(id, "s0", &"x".repeat(20));
    }
    made.part(9, "s1", &format!("{}{MARKER}", "y".repeat(6090)));
    // So many pages that they are not read in one piece.
    made.run("INSERT INTO filler VALUES (zeroblob(400 * 1024))");
    made.checkpoint("TRUNCATE");
    made.run("BEGIN");
    for id in 1..7 {
        let update = "UPDATE part SET data = ?2 WHERE id = ?1";
        made.conn.execute(update, (id, "x".repeat(150))).unwrap();
    }
    made.run("COMMIT");
    let reader = Connection::open(&made.db).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM part").unwrap();
    made.part(10, "s0", "z");
    made.run("PRAGMA wal_checkpoint(PASSIVE)");
    reader.execute_batch("COMMIT").unwrap();
    made
}

/// The same, for a checkpoint that was killed before it wrote the last page.
fn moved_while_a_checkpoint_was_killed() -> Database {
    let made = Database::new(4096);
    for id in 1..11 {
        made.part(id, "s0", &"f".repeat(200));
    }
    made.part(
        1000,
        "s1",
        &format!("{}{MARKER}{}", "x".repeat(12000), "x".repeat(760)),
    );
    made.checkpoint("TRUNCATE");
    for id in 11..21 {
        made.part(id, "s0", &"f".repeat(200));
    }
    let Database {
        directory,
        db,
        conn,
    } = made;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    conn.close().unwrap();
    let log = Log::of(&db);
    let pages: BTreeMap<_, _> = (0..log.frames())
        .map(|frame| (log.page(frame), log.image(frame)))
        .collect();
    let file = File::options().write(true).open(&db).unwrap();
    for (number, image) in pages.iter().take(pages.len() - 1) {
        let at = u64::from(number - 1) * 4096;
        file.write_all_at(image, at).unwrap();
    }
    drop(file);
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    Database {
        directory,
        db,
        conn,
    }
}

#[cfg(target_os = "linux")]
#[test]
fn budget_that_ends_at_any_read_keeps_the_marks() {
    let _limit = support::limit(240);
    let disk = preload::Library::of("stalling_disk.c");
    for made in [
        moved_while_a_checkpoint_was_held_up(),
        moved_while_a_checkpoint_was_killed(),
    ] {
        let expected = definition(&made.conn);
        assert_eq!(expected["s1"], Some(true));
        let cache = made.directory.path().join("cache");
        let (mut partial, mut stalled) = (0, true);
        let mut read = 0;
        while stalled {
            read += 1;
            let _ = fs::remove_file(&cache);
            let _ = fs::remove_file(disk.beside("stalled"));
            let mut command = support::command(support::lister());
            command.arg("--db").arg(&made.db).arg(made.cache());
            command.args(["--scan-budget=20", "--threads=1"]);
            command.env("LD_PRELOAD", disk.path());
            command.env("STALLED", disk.beside("stalled"));
            command
                .env("STALL_AT", read.to_string())
                .env("STALL_MS", "40");
            let (marks, scan) = marks_of(&command.output().unwrap());
            stalled = disk.beside("stalled").exists();
            let wrong =
                |(id, mark): (&String, &Option<bool>)| mark.is_some() && expected[id] != *mark;
            assert!(!marks.iter().any(wrong), "read {read}: {marks:?} {scan}");
            partial += u32::from(scan["progress"] != 1.0);
            // The next one has time.
            let (marks, scan) = listed(&made.db, &[&made.cache()]);
            assert_eq!(marks, expected, "after read {read}: {scan}");
        }
        assert!(partial > 0, "no budget ended in {read} reads");
    }
}

// ---- What the pages of the file do not say.

/// Sets how many bytes of each page are left to extensions, from the next `VACUUM` on.
#[expect(unsafe_code, reason = "no statement sets it")]
fn reserve(conn: &Connection, mut bytes: std::ffi::c_int) {
    // SAFETY: the connection is open, and SQLite reads and writes one integer.
    let result = unsafe {
        rusqlite::ffi::sqlite3_file_control(
            conn.handle(),
            c"main".as_ptr(),
            rusqlite::ffi::SQLITE_FCNTL_RESERVE_BYTES,
            std::ptr::from_mut(&mut bytes).cast(),
        )
    };
    assert_eq!(result, rusqlite::ffi::SQLITE_OK);
}

#[test]
fn reserved_bytes_only_in_the_log_keep_the_marks() {
    let _limit = support::limit(60);
    let made = Database::new(4096);
    for id in 1..60 {
        made.part(id, "s0", &"f".repeat(500));
    }
    made.checkpoint("TRUNCATE");
    reserve(&made.conn, 32);
    made.run("VACUUM");
    let mut in_the_file = [0];
    let file = File::open(&made.db).unwrap();
    file.read_exact_at(&mut in_the_file, 20).unwrap();
    let log = Log::of(&made.db);
    let first = (0..log.frames())
        .find(|frame| log.page(*frame) == 1)
        .unwrap();
    assert_eq!((in_the_file[0], log.image(first)[20]), (0, 32));
    made.scan();
    let content = format!("{}{MARKER}{}", "y".repeat(14_000), "y".repeat(3000));
    made.part(9000, "s2", &content);
    made.scan();
    assert_eq!(made.scan(), "unchanged");
    // And the other way round.
    made.checkpoint("TRUNCATE");
    reserve(&made.conn, 0);
    made.run("VACUUM");
    made.scan();
    made.part(9001, "s3", &content);
    made.scan();
    drop(made.conn);
    drop(file);
}

/// Where an overwrite can damage its neighbours, SQLite fills the sector with copies
/// of the last frame: each ends a transaction. The sync after them failed, so that
/// none was published.
#[test]
fn padded_commit_whose_sync_failed_keeps_the_marks() {
    let _limit = support::limit(60);
    let made = Database::new(1024);
    let padding = |db: &Path| {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
        let path = format!("file:{}?psow=0", db.display());
        let conn = Connection::open_with_flags(path, flags).unwrap();
        let settings = "PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 0";
        conn.execute_batch(settings).unwrap();
        conn
    };
    let writer = padding(&made.db);
    let part = |id: i64, session: &str, data: &str| {
        let insert = "INSERT INTO part VALUES (?1, ?2, ?3)";
        writer.execute(insert, (id, session, data)).unwrap();
    };
    part(1, "s1", &"x".repeat(9000));
    made.checkpoint("TRUNCATE");
    for id in 100..140 {
        part(id, "s0", &"r".repeat(2000));
    }
    made.checkpoint("RESTART");
    for id in 200..204 {
        part(id, "s0", &"t".repeat(2000));
    }
    assert_eq!(made.scan(), "full");
    let update = "UPDATE part SET data = ?1 WHERE id = 1";
    let content = format!("{}{MARKER}{}", "x".repeat(5000), "x".repeat(3959));
    writer.execute(update, [content]).unwrap();

    // The frames of a transaction that takes the row's pages: written by a copy of the
    // database, which goes on with the same log.
    let copied = made.directory.path().join("copied.db");
    files::copy(&made.db, &copied, &["", "-wal"]);
    let other = padding(&copied);
    let unpublished = "BEGIN; DELETE FROM part WHERE id = 1;
                       INSERT INTO part VALUES (77, 's0', printf('%.9000c', 'y')); COMMIT";
    other.execute_batch(unpublished).unwrap();
    let (before, after) = (Log::of(&made.db), Log::of(&copied));
    let (start, end) = (before.frames(), after.frames());
    assert!(after.bytes[..before.offset(start)] == before.bytes[..before.offset(start)]);
    let commits = (start..end).filter(|frame| after.bytes[after.offset(*frame) + 7] != 0);
    assert!(commits.count() > 1, "the commit is not padded");
    let file = File::options()
        .write(true)
        .open(beside(&made.db, "-wal"))
        .unwrap();
    let frames = &after.bytes[after.offset(start)..after.offset(end)];
    file.write_all_at(frames, u64::try_from(after.offset(start)).unwrap())
        .unwrap();

    drop(writer);
    made.checkpoint("FULL");
    made.messages(1, "restart");
    assert_eq!(Log::of(&made.db).frames(), 1, "the log was not restarted");
    assert_eq!(definition(&made.conn), marked(&["s1"]));
    made.scan();
    assert_eq!(made.scan(), "unchanged");
}

/// A key that is not the rowid is stored in the record like any other column, and
/// text can lie on both sides of it.
#[test]
fn integer_keys_are_part_of_the_searched_record() {
    let _limit = support::limit(60);
    for (column, constraint) in [
        ("n INTEGER", ", PRIMARY KEY (id, n)"),
        ("n INTEGER", ", PRIMARY KEY (n, id)"),
        ("n INTEGER PRIMARY KEY DESC", ""),
    ] {
        let made = Database::with(
            "",
            &format!(
                "{TABLES} DROP TABLE part;
                 CREATE TABLE part (id TEXT, session_id TEXT, pad TEXT, {column}, data TEXT{constraint});
                 INSERT INTO part VALUES ('a', 's0', 'pad', 0, 'data'), ('b', 's0', 'pad', 1, 'data')"
            ),
        );
        // The integer's eight bytes are the end of one half and the start of the other.
        let number = i64::from_be_bytes(MARKER.as_bytes()[16..24].try_into().unwrap());
        let pad = "x".repeat(9000);
        let insert = "INSERT INTO part VALUES ('p', 's1', ?1, ?2, ?3)";
        let pieces = (format!("{pad}{}", &MARKER[..16]), number, &MARKER[24..]);
        made.conn.execute(insert, pieces).unwrap();
        made.checkpoint("TRUNCATE");
        made.run("UPDATE session SET time_updated = 2");
        assert_eq!(made.scan(), "full");
        // The same bytes as one text: only the page with the record's header is written.
        let update = "UPDATE part SET pad = NULL, n = NULL, data = ?1 WHERE id = 'p'";
        made.conn
            .execute(update, [format!("{pad}{MARKER}")])
            .unwrap();
        assert_eq!(definition(&made.conn), marked(&["s1"]));
        made.scan();
    }
}

// ---- A wal-index that SQLite does not trust.

/// A copy that was made while OpenCode wrote, on a disk that cannot be written to:
/// SQLite then reads the log itself, not the older index of it.
#[test]
fn wal_index_older_than_its_log_keeps_the_marks() {
    let _limit = support::limit(120);
    for way in WAYS {
        let made = Database::new(4096);
        let place = tempfile::tempdir().unwrap();
        let copied = place.path().join("copied");
        fs::create_dir(&copied).unwrap();
        let db = copied.join("opencode.db");
        files::copy(&made.db, &db, &["-shm"]);
        made.part(1, "s1", MARKER);
        made.run("INSERT INTO session VALUES ('in the log', '/x', 1)");
        made.part(2, "in the log", MARKER);
        files::copy(&made.db, &db, &["", "-wal"]);
        read_only::reachable(place.path());
        let Some(read_only) = ReadOnly::new(way, &[&copied]) else {
            continue;
        };
        let cache = format!(
            "--scan-cache={}",
            read_only.place.path().join("cache").display()
        );
        for _ in 0..2 {
            let (marks, scan) = marks_of(&read_only.helper(&db, &[&cache]));
            assert_eq!(marks, definition(&made.conn), "{way:?}: {scan}");
        }
        // A later copy of the log beside the same index.
        drop(read_only);
        made.part(3, "s2", MARKER);
        files::copy(&made.db, &db, &["-wal"]);
        let read_only = ReadOnly::new(way, &[&copied]).unwrap();
        let (marks, scan) = marks_of(&read_only.helper(&db, &[&cache]));
        assert_eq!(marks, definition(&made.conn), "{way:?}: {scan}");
    }
}

// ---- Pages that no row has any more.

/// What a row leaves behind when its pages are free: one of them becomes a trunk of the
/// freelist, keeps half a marker behind its few numbers, and is written again with each
/// page that is freed or taken.
#[test]
fn page_turned_freelist_trunk_needs_no_full_scan() {
    let _limit = support::limit(60);
    // On each of its pages, whichever is freed first.
    let long = MARKER.repeat(500);
    let fewer = |pages: usize| format!("z{}", "q".repeat(508 * pages));
    type Change<'a> = (&'a str, &'a dyn Fn(&Database));
    let changes: &[Change<'_>] = &[
        ("deleted", &|made| {
            made.run("DELETE FROM part WHERE id = 9000");
        }),
        ("written shorter", &|made| {
            made.run("UPDATE part SET data = 'short' WHERE id = 9000");
        }),
        ("written longer, without", &|made| {
            let update = "UPDATE part SET data = ?1 WHERE id = 9000";
            made.conn.execute(update, [fewer(100)]).unwrap();
        }),
        ("the session with it", &|made| {
            made.run("BEGIN; DELETE FROM part WHERE session_id = 's2'; DELETE FROM session WHERE id = 's2'; COMMIT");
        }),
        ("another trunk before it", &|made| {
            made.run("DELETE FROM part WHERE id = 9000");
            made.run("DELETE FROM part WHERE id = 9001");
        }),
        ("taken again by a row", &|made| {
            made.run("DELETE FROM part WHERE id = 9000");
            for _ in 0..8 {
                made.messages(1, &fewer(10));
            }
        }),
        ("taken again by an index", &|made| {
            made.run("DELETE FROM part WHERE id = 9000");
            for id in 0..1500 {
                let session = format!("s2{id:0>40}");
                let insert = "INSERT INTO session VALUES (?1, '/x', 1)";
                made.conn.execute(insert, [session]).unwrap();
            }
        }),
        ("the log restarted once more", &|made| {
            made.messages(20, "old");
            made.run("DELETE FROM part WHERE id = 9000");
            made.messages(3, "old");
            made.checkpoint("RESTART");
            made.messages(1, "new");
        }),
    ];
    for (name, change) in changes {
        let made = restarted();
        made.part(9001, "s1", &fewer(150));
        made.part(9000, "s2", &long);
        made.part(9002, "s3", &fewer(3));
        made.checkpoint("RESTART");
        made.messages(2, "a");
        assert_eq!(made.scan(), "full");
        assert_eq!(made.scan(), "unchanged");
        change(&made);
        assert_eq!(made.scan(), "tail", "{name}");
        // Each of these writes the trunk again.
        for round in 0..5 {
            made.run("DELETE FROM part WHERE id = (SELECT max(id) FROM part WHERE id > 9000)");
            assert_eq!(made.scan(), "tail", "{name}, round {round}");
            made.part(9100 + round, "s0", &fewer(2));
            assert_eq!(made.scan(), "tail", "{name}, round {round}");
        }
        drop(made.conn);
    }
}

/// A text of the same length is written over the old one, and only on the pages that
/// differ: nothing in the log leads from the row to its page.
#[test]
fn page_written_without_its_row_keeps_the_marks() {
    let _limit = support::limit(60);
    let made = restarted();
    let text = |middle: &str| format!("{}{middle}{}", "x".repeat(3000), "y".repeat(20_000));
    made.part(9000, "s1", &text(&"x".repeat(MARKER.len())));
    made.part(9001, "s2", &text(MARKER));
    made.checkpoint("RESTART");
    made.messages(2, "a");
    assert_eq!(made.scan(), "full");
    let frames = Log::of(&made.db).frames();
    made.run("BEGIN; DELETE FROM part WHERE id = 9001");
    let update = "UPDATE part SET data = ?1 WHERE id = 9000";
    made.conn.execute(update, [text(MARKER)]).unwrap();
    made.run("COMMIT");
    // A leaf, the first page, a trunk, and the one or two pages with the marker.
    assert!(Log::of(&made.db).frames() - frames <= 5);
    made.scan();
    assert_eq!(definition(&made.conn), marked(&["s1"]));
    assert_eq!(made.scan(), "unchanged");
}
