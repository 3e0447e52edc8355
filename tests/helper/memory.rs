//! How much memory a listing takes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::Value;

use crate::common::{LOOSE, MARKER, ONE_SESSION, at_rest, each, skipped};
use crate::support::{self, command, complete, error, helper, ids, lister};

/// The helper with at most so many KiB of address space, for everything: itself,
/// its libraries, its heap and its stack.
fn within(kib: u32, db: &Path, args: &[&str]) -> Option<Output> {
    if !cfg!(target_os = "linux") {
        support::skip("the address space: only Linux limits it");
        return None;
    }
    let output = command(Path::new("/bin/sh"))
        .arg("-c")
        .arg("ulimit -v \"$1\" && shift && exec \"$@\"")
        .args(["sh", &kib.to_string()])
        .arg(lister())
        .arg("--db")
        .arg(db)
        .args(args)
        .output()
        .unwrap();
    Some(output)
}

/// The address space in which every listing must do: the program and the
/// memory that SQLite may take.
const ROOM: u32 = 36 << 10;

#[test]
fn cells_of_200_megabytes_take_no_memory() {
    let _limit = support::limit(120);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let conn = Connection::open(&db).unwrap();
    // Once on the disk, not twice.
    conn.pragma_update(None, "journal_mode", "off").unwrap();
    conn.pragma_update(None, "synchronous", "off").unwrap();
    conn.execute_batch(support::SCHEMA).unwrap();
    conn.execute_batch(
        "INSERT INTO session (id, project_id, slug, directory, title, version, revert,
           summary_diffs, model, time_created, time_updated)
           VALUES ('ses_a', 'p', '', '/w', 'A title', '', zeroblob(40000000),
             zeroblob(10000000), '{\"id\":\"m\",\"providerID\":\"p\"}', 1, 2);
         INSERT INTO session (id, project_id, slug, directory, title, version, time_created,
           time_updated)
           VALUES ('ses_b', 'p', '', '/w', CAST(zeroblob(20000000) AS TEXT), '', 1, 1);
         INSERT INTO part VALUES
           ('p', 'm', 'ses_a', 1, 1, CAST(zeroblob(100000000) AS TEXT)),
           ('q', 'm', 'ses_b', 1, 1, zeroblob(30000000))",
    )
    .unwrap();
    // No NUL, at which LIKE would stop; and a marker at the very end.
    let filled = |table: &str, column: &str, row: i64, end: &str| {
        let mut cell = conn.blob_open("main", table, column, row, false).unwrap();
        let piece = [b'x'; 65_536];
        let mut left = cell.len() - end.len();
        while left > 0 {
            let now = left.min(piece.len());
            cell.write_all(&piece[..now]).unwrap();
            left -= now;
        }
        cell.write_all(end.as_bytes()).unwrap();
    };
    filled("session", "title", 2, "end");
    filled("part", "data", 1, MARKER);
    filled("part", "data", 2, &MARKER[..MARKER.len() - 1]);
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    conn.close().unwrap();
    assert!(fs::metadata(&db).unwrap().len() > 200_000_000);

    let Some(output) = within(ROOM, &db, &["--memory-limit", "16"]) else {
        return;
    };
    let (sessions, end) = complete(&output);
    assert_eq!(each(&sessions, "id"), ["ses_a", "ses_b"]);
    assert_eq!(each(&sessions, "marked"), [true, false]);
    assert_eq!(sessions[0]["model"]["id"], "m");
    assert_eq!(sessions[1]["title"], "x".repeat(4096));
    assert_eq!(end["skipped"], skipped(0, 0, 1));
    // Every page once, and the large ones once more for their rows.
    let bytes = end["scan"]["bytes"].as_u64().unwrap();
    assert!((200_000_000..600_000_000).contains(&bytes), "{bytes}");
}

/// So many sessions in the directory `/w`, all alike.
fn many(count: usize, sql: &str) -> (tempfile::TempDir, PathBuf) {
    at_rest(&format!(
        "{LOOSE}; PRAGMA synchronous = off; {sql};
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO session (id, title, time_updated)
           SELECT printf('ses_%026d', i), 'A title of ' || i, i % 1000 FROM n"
    ))
}

#[test]
fn memory_does_not_grow_with_the_number_of_sessions() {
    let _limit = support::limit(120);
    let unique = "CREATE UNIQUE INDEX u ON session (id)";
    for count in [500, 30_000] {
        let (_directory, db) = many(count, unique);
        let Some(output) = within(24 << 10, &db, &[]) else {
            return;
        };
        let (sessions, end) = complete(&output);
        assert_eq!(sessions.len(), count);
        assert_eq!(end["sessions"], count);
    }
}

#[test]
fn over_200000_sessions_are_an_error_not_a_short_list() {
    let _limit = support::limit(180);
    let (_directory, db) = many(200_001, "CREATE UNIQUE INDEX u ON session (id)");
    let output = helper(&db, &["--no-marker"]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last = stdout.lines().last().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["type"], "error");
    assert_eq!(last["kind"], "internal");
    assert!(
        last["message"].as_str().unwrap().contains("200000"),
        "{last}"
    );
    assert!(!stdout.contains("\"type\":\"end\""));
}

#[test]
fn memory_limit_too_low_is_a_memory_error() {
    let _limit = support::limit(60);
    // SQLite needs as much of the schema in memory as there is.
    let tables: String = (0..20)
        .map(|at| {
            format!(
                "CREATE TABLE t{at} (a text DEFAULT '{}');",
                "x".repeat(900_000)
            )
        })
        .collect();
    let (_directory, db) = at_rest(&format!("{ONE_SESSION}{tables}"));
    let (kind, message) = error(&db, &["--memory-limit", "8"]);
    assert_eq!(kind, "out_of_memory");
    assert!(message.contains("memory limit"), "{message}");
    assert_eq!(ids(&db, &["--memory-limit", "256"]), ["ses_a"]);
}
