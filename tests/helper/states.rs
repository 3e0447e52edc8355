//! A database that is being made, one that is busy, one that is locked, and one that
//! needs more room than there is: which is which, and what a listing says of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::files::{self, beside};
use crate::support::read_only::{self, ReadOnly, WAYS};
use crate::support::{
    self, Made, command, complete, error, helper, ids, lines, lister, listing, preload, settle,
};

/// A database with the newest schema that is not in WAL mode, with these sessions.
fn rollback_mode(sessions: &[&str]) -> Made {
    let made = Made::new();
    for id in sessions {
        made.session(id, 1);
    }
    made.conn
        .pragma_update(None, "journal_mode", "delete")
        .unwrap();
    made
}

/// The bytes of a database of several pages at rest, in either mode.
fn at_rest(journal: &str) -> Vec<u8> {
    let made = Made::new();
    for n in 0..40 {
        made.session(&format!("ses_{n:02}"), n);
    }
    made.conn
        .pragma_update(None, "journal_mode", "delete")
        .unwrap();
    let mode: String = made
        .conn
        .query_row(&format!("PRAGMA journal_mode = {journal}"), [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(mode, journal);
    let Made {
        directory,
        db,
        conn,
    } = made;
    conn.close().unwrap();
    let bytes = fs::read(&db).unwrap();
    drop(directory);
    bytes
}

/// The state of a database that has no sessions.
fn state(db: &Path) -> Value {
    let (sessions, end) = listing(db, &["--busy-timeout", "0"]);
    assert_eq!(sessions, Vec::<Value>::new());
    end["database"].clone()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    (directory, db)
}

/// Makes a file look old, by another program: when a process closes a file, it loses
/// the locks that its own connections have on it.
fn settle_apart(path: &Path) {
    let mut touch = command(Path::new("touch"));
    let status = touch.args(["-t", "202601010000"]).arg(path).status();
    assert!(status.unwrap().success());
}

// ---- Busy is not young.

#[test]
fn constantly_written_database_is_listed() {
    let _limit = support::limit(60);
    let made = rollback_mode(&["ses_a", "ses_b"]);
    let Made {
        directory,
        db,
        conn,
    } = made;
    conn.busy_timeout(Duration::from_secs(30)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let conn = conn;
            while !done.load(Ordering::Relaxed) {
                let insert = "INSERT INTO message VALUES (hex(randomblob(8)), 'ses_a', 1, 1, '{}')";
                conn.execute_batch(insert).unwrap();
                thread::sleep(Duration::from_millis(100));
            }
        });
        let end = Instant::now() + Duration::from_secs(3);
        let mut states = Vec::new();
        while Instant::now() < end {
            let (sessions, end) = complete(&helper(&db, &[]));
            states.push((sessions.len(), end["database"].clone()));
        }
        done.store(true, Ordering::Relaxed);
        assert!(states.len() > 3);
        let wrong = states.iter().find(|state| **state != (2, "ready".into()));
        assert_eq!(wrong, None);
    });
    drop(directory);
}

#[test]
fn complete_copy_is_listed_at_once_in_either_mode() {
    let _limit = support::limit(30);
    for journal in ["delete", "wal", "truncate", "persist"] {
        let bytes = at_rest(journal);
        let (_directory, db) = place();
        fs::write(&db, bytes).unwrap();
        let (sessions, end) = listing(&db, &[]);
        assert_eq!(end["database"], "ready", "{journal}");
        assert_eq!(sessions.len(), 40, "{journal}");
    }
}

#[test]
fn locked_database_is_busy_however_new_it_is() {
    let _limit = support::limit(30);
    let made = rollback_mode(&["ses_a"]);
    made.run("BEGIN EXCLUSIVE; UPDATE session SET title = 'x'");
    let (kind, _) = error(&made.db, &["--busy-timeout", "100"]);
    assert_eq!(kind, "busy");
    made.run("COMMIT");
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
    // Somebody who reads locks nobody out.
    made.run("BEGIN; SELECT * FROM session");
    assert_eq!(ids(&made.db, &["--busy-timeout", "0"]), ["ses_a"]);
}

// ---- What is just being made.

#[test]
fn file_without_a_whole_page_or_tables_is_young() {
    let _limit = support::limit(30);
    let (_directory, db) = place();
    let conn = Connection::open(&db).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    conn.close().unwrap();
    let page = fs::read(&db).unwrap();
    assert_eq!(page.len(), 4096);
    for length in [0, 1, 16, 99, 100, 512, 4095, 4096] {
        fs::write(&db, &page[..length]).unwrap();
        assert_eq!(state(&db), "young", "{length} bytes");
    }
    // It stays like that: then it is what it is.
    settle(&db);
    assert_eq!(state(&db), "empty");
    fs::write(&db, "").unwrap();
    settle(&db);
    assert_eq!(state(&db), "empty");
}

#[test]
fn partial_copy_is_young_until_it_has_settled() {
    let _limit = support::limit(60);
    for journal in ["delete", "wal"] {
        let bytes = at_rest(journal);
        let pages = bytes.len() / 4096;
        assert!(pages > 10, "{pages}");
        let (directory, db) = place();
        let cuts = (1..pages).map(|page| page * 4096);
        for length in cuts.chain([4096 + 100, 3 * 4096 - 1, bytes.len() - 1]) {
            fs::write(&db, &bytes[..length]).unwrap();
            assert_eq!(state(&db), "young", "{journal}, {length} bytes");
            settle(&db);
            let lines = lines(&helper(&db, &[]));
            let last = lines.last().unwrap();
            // SQLite does not mind that a last page is not whole.
            let is_whole = length == bytes.len() - 1 && last["sessions"] == 40;
            let is_said = last["kind"] == "corrupt" || last["database"] == "empty";
            assert!(is_said || is_whole, "{journal}, {length} bytes: {last}");
            assert!(is_whole || lines.len() == 2, "{journal}, {length} bytes");
        }
        // Nothing is made beside it.
        assert!(!beside(&db, "-shm").exists() || journal == "wal");
        drop(directory);
    }
}

/// In WAL mode the file may be shorter than it says while its log is there.
#[test]
fn new_file_with_its_log_is_listed_whatever_its_length() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    assert!(fs::metadata(&made.db).unwrap().len() <= 4096);
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
}

// ---- What is in the way.

#[test]
fn read_only_log_is_read_or_named_as_the_cause() {
    let _limit = support::limit(60);
    for way in WAYS {
        let made = Made::new();
        made.session("ses_a", 1);
        let (place, db) = place();
        let directory = place.path().join("copy");
        fs::create_dir(&directory).unwrap();
        let db = directory.join(db.file_name().unwrap());
        files::copy(&made.db, &db, &["", "-wal"]);
        read_only::reachable(place.path());
        let Some(read_only) = ReadOnly::new(way, &[&directory]) else {
            continue;
        };
        let output = read_only.helper(&db, &[]);
        let last = lines(&output).pop().unwrap();
        if last["type"] == "end" {
            assert_eq!(last["sessions"], 1, "{way:?}: {last}");
            continue;
        }
        let message = last["message"].as_str().unwrap();
        assert_eq!(last["kind"], "permission", "{way:?}: {last}");
        assert!(message.contains("opencode.db"), "{message}");
        let names = ["director", "-shm"]
            .iter()
            .any(|name| message.contains(name));
        assert!(names && !message.contains("disk"), "{message}");
    }
}

/// A way to hold a lock, and what it is.
#[cfg(target_os = "linux")]
type Hold = (&'static str, fn(&Made));

/// The system's table of locks tells who holds one.
#[cfg(target_os = "linux")]
#[test]
fn lock_error_names_the_process_that_holds_it() {
    let _limit = support::limit(60);
    if !Path::new("/proc/locks").exists() {
        support::skip("locks: the system does not tell of them");
        return;
    }
    let process = std::process::id();
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let holds: [Hold; 3] = [
        ("a transaction in rollback mode", |made| {
            made.conn
                .pragma_update(None, "journal_mode", "delete")
                .unwrap();
            made.run("BEGIN EXCLUSIVE");
        }),
        ("a writer in rollback mode that waits", |made| {
            made.conn
                .pragma_update(None, "journal_mode", "delete")
                .unwrap();
            made.run(
                "PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE;
                      UPDATE session SET title = printf('%.20000c', 'x');
                      UPDATE session SET slug = printf('%.20000c', 'x')",
            );
        }),
        ("exclusive mode", |made| {
            made.conn
                .pragma_update(None, "journal_mode", "delete")
                .unwrap();
            made.conn
                .pragma_update(None, "locking_mode", "exclusive")
                .unwrap();
            made.conn
                .pragma_update(None, "journal_mode", "wal")
                .unwrap();
            made.run("UPDATE session SET title = 'x'");
        }),
    ];
    for (what, hold) in holds {
        let made = Made::new();
        made.session("ses_a", 1);
        hold(&made);
        settle_apart(&made.db);
        let (kind, message) = error(&made.db, &["--busy-timeout", "100"]);
        assert_eq!(kind, "busy", "{what}: {message}");
        let is_told = message.contains(&process.to_string()) && message.contains(name.trim());
        assert!(is_told, "{what}: {message}");
        assert!(message.contains("opencode.db"), "{what}: {message}");
        if what != holds[0].0 {
            continue;
        }
        // And so it is said to a person.
        let mut command = command(support::sessions());
        command.args(["list", "--no-service", "--db"]).arg(&made.db);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&process.to_string()), "{what}: {said}");
    }
}

// ---- Ids that are there twice.

/// Of an index that promises that there are none, where one byte was flipped.
#[test]
fn id_stored_twice_despite_its_index_is_listed_once() {
    let _limit = support::limit(60);
    for (journal, tables) in [
        ("delete", "session"),
        ("wal", "session"),
        ("delete", "session_v2"),
        ("wal", "session_v2"),
    ] {
        let (_directory, db) = place();
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch(&format!(
            "CREATE TABLE {tables} (id text PRIMARY KEY, directory text, title text, time_updated integer);
             INSERT INTO {tables} VALUES ('ses_one_1', '/usr', 'old', 1), ('ses_two_2', '/usr', 'two', 2),
               ('ses_one_3', '/usr', 'new', 3), ('ses_four_4', '/usr', 'four', 4);
             PRAGMA journal_mode = {journal}"
        ))
        .unwrap();
        conn.close().unwrap();
        let mut bytes = fs::read(&db).unwrap();
        // Rows are put from the end of a page; the cell of the table has the directory.
        let cell = b"ses_one_3/usr";
        let at = bytes.windows(cell.len()).position(|window| window == cell);
        bytes[at.unwrap() + cell.len() - "3/usr".len()] = b'1';
        fs::write(&db, bytes).unwrap();
        settle(&db);
        let (sessions, end) = listing(&db, &[]);
        let rows: Vec<_> = sessions
            .iter()
            .map(|session| {
                (
                    session["id"].as_str().unwrap(),
                    session["title"].as_str().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("ses_four_4", "four"),
            ("ses_one_1", "new"),
            ("ses_two_2", "two"),
        ];
        assert_eq!(rows, expected, "{journal}, {tables}");
        assert_eq!(end["skipped"]["duplicateId"], 1, "{journal}, {tables}");
        let mut command = command(support::sessions());
        command.args(["list", "--no-service", "--format", "ids", "--db"]);
        let output = command.arg(&db).output().unwrap();
        let listed = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(listed, 3, "{output:?}");
    }
}

// ---- Many sessions.

/// The most memory that the process had, in KiB, of what it wrote at its end.
#[cfg(target_os = "linux")]
fn peak(status: &Path) -> u64 {
    let status = fs::read_to_string(status).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    peak.parse().unwrap()
}

/// As where a supervisor lets the program write nowhere.
#[cfg(target_os = "linux")]
#[test]
fn many_sessions_are_listed_without_temporary_files() {
    let _limit = support::limit(240);
    let library = preload::Library::of("failing_calls.c");
    for tables in [&["session"][..], &["session", "session_v2"]] {
        let (_directory, db) = place();
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch("PRAGMA synchronous = off; PRAGMA journal_mode = wal; BEGIN")
            .unwrap();
        let each = 200_000 / tables.len();
        for (n, table) in tables.iter().enumerate() {
            let first = n * each;
            conn.execute_batch(&format!(
                "CREATE TABLE {table} (id text PRIMARY KEY, project_id text, parent_id text, directory text,
                   title text, time_created integer, time_updated integer, time_archived integer);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {each})
                 INSERT INTO {table} (id, project_id, directory, title, time_created, time_updated)
                   SELECT printf('ses_%026d', i + {first}), 'global', '/usr/' || (i % 50), 'Title ' || i, 1,
                     1795000000000 + (i * 7919) % 1000003 FROM n"
            ))
            .unwrap();
        }
        conn.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        conn.close().unwrap();
        for name in ["log", "status"] {
            let _ = fs::remove_file(library.beside(name));
        }
        let nowhere = library.beside("nowhere");
        let output = command(lister())
            .arg("--db")
            .arg(&db)
            .env("TMPDIR", &nowhere)
            .env("SQLITE_TMPDIR", &nowhere)
            .env("LD_PRELOAD", library.path())
            .env("FAIL_CALL", "temporary")
            .env("FAIL_PATH", "*")
            .env("FAIL_ERRNO", "30")
            .env("FAIL_LOG", library.beside("log"))
            .env("STATUS", library.beside("status"))
            .output()
            .unwrap();
        let last = output
            .stdout
            .trim_ascii_end()
            .rsplit(|byte| *byte == b'\n')
            .next();
        let last: Value = serde_json::from_slice(last.unwrap()).unwrap();
        assert_eq!(last["sessions"], 200_000, "{tables:?}: {last}");
        assert!(
            !library.beside("log").exists(),
            "it wanted a temporary file"
        );
        // Of a program that is not built for release.
        let peak = peak(&library.beside("status"));
        assert!(peak <= 32 << 10, "{tables:?}: {peak} KiB");
        // Newest first.
        let text = String::from_utf8(output.stdout).unwrap();
        let times: Vec<i64> = text
            .lines()
            .filter(|line| line.starts_with("{\"type\":\"session\""))
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["timeUpdated"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        assert!(times.len() == 200_000 && times.is_sorted_by(|a, b| a >= b));
    }
}
