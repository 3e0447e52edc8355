//! What the scan remembers, and when that is of no use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opencode_sessions::marker_text::MarkerText;
use rusqlite::Connection;

use crate::history::listed;
use crate::scan::{SESSIONS, make};
use crate::support::{self, clock};

/// A database at rest with so many parts of so many bytes, of two sessions; the
/// last part of the second one has the marker.
fn at_rest(parts: usize, bytes: usize) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    make(&db, 4096, "none");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    for n in 0..parts {
        let marker = if n == parts - 1 {
            MarkerText::DEFAULT
        } else {
            ""
        };
        conn.execute(
            "INSERT INTO part (session_id, data) VALUES (?1, ?2 || ?3)",
            (
                if marker.is_empty() { "s0" } else { "s1" },
                "x".repeat(bytes),
                marker,
            ),
        )
        .unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    drop(conn);
    support::settle(&db);
    (directory, db)
}

pub(crate) fn expected() -> BTreeMap<String, Option<bool>> {
    (0..SESSIONS)
        .map(|n| (format!("s{n}"), Some(n == 1)))
        .collect()
}

#[test]
fn useless_cache_changes_no_answer() {
    use std::os::unix::fs::PermissionsExt;
    let _limit = support::limit(120);
    let (directory, db) = at_rest(20, 3000);
    let keep = Connection::open(&db).unwrap();
    keep.execute_batch("UPDATE session SET time_updated = 9")
        .unwrap();
    let cache = directory.path().join("cache");
    let argument = format!("--scan-cache={}", cache.display());
    assert_eq!(listed(&db, &[&argument]).1["mode"], "full");
    let good = fs::read(&cache).unwrap();
    let mode = fs::metadata(&cache).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(listed(&db, &[&argument]).1["mode"], "unchanged");
    let mut odd = vec![
        Vec::new(),
        b"another file".to_vec(),
        good[..good.len() - 1].to_vec(),
    ];
    odd.extend((0..good.len()).step_by(5).map(|at| {
        let mut damaged = good.clone();
        damaged[at] ^= 0x21;
        damaged
    }));
    for bytes in odd {
        fs::write(&cache, &bytes).unwrap();
        let (marks, scan) = listed(&db, &[&argument]);
        assert_eq!((marks, &scan["mode"]), (expected(), &"full".into()));
        // And it is a good one again.
        assert_eq!(listed(&db, &[&argument]).1["mode"], "unchanged");
    }
    // Of another marker, and of another database.
    let other = "--marker=another marker of its own";
    assert_eq!(listed(&db, &[&argument, other]).1["mode"], "full");
    assert_eq!(listed(&db, &[&argument]).1["mode"], "full");
    let (_other, another) = at_rest(3, 10);
    assert_eq!(listed(&another, &[&argument]).1["mode"], "full");
    let (marks, scan) = listed(&db, &[&argument]);
    assert_eq!((marks, &scan["mode"]), (expected(), &"full".into()));
    // It cannot be written: the listing is whole all the same.
    for place in [
        directory.path().join("nowhere/cache"),
        directory.path().to_owned(),
    ] {
        let output = support::helper(&db, &[&format!("--scan-cache={}", place.display())]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("cannot write the scan cache"), "{said}");
    }
}

#[test]
fn scan_resumes_across_budgets() {
    let _limit = support::limit(120);
    // Without a log, and with one that somebody goes on writing.
    for writes in [false, true] {
        let (directory, db) = at_rest(1500, 30_000);
        let conn = writes.then(|| Connection::open(&db).unwrap());
        let cache = format!("--scan-cache={}", directory.path().join("cache").display());
        // Without a log the file alone tells, when it is old enough.
        std::thread::sleep(Duration::from_millis(3100));
        let (mut last, mut unknown) = (0.0, 0);
        for n in 0.. {
            if let Some(conn) = &conn {
                conn.execute(
                    "INSERT INTO part (session_id, data) VALUES ('s2', ?1)",
                    ["y".repeat(9000)],
                )
                .unwrap();
            }
            let (marks, scan) = listed(&db, &[&cache, "--scan-budget=3"]);
            let progress = scan["progress"].as_f64().unwrap();
            // Of a database that grows.
            assert!(progress >= 0.9 * last, "{progress} after {last}");
            last = progress;
            if progress < 1.0 {
                unknown += 1;
                // Nothing is said that is not known.
                let known = marks.values().flatten();
                assert!(known.copied().all(|marked| marked), "{marks:?}");
                assert!(n < 5000);
                continue;
            }
            assert_eq!(marks, expected());
            break;
        }
        assert!(unknown > 1, "it was done at once");
        let (marks, scan) = listed(&db, &[&cache]);
        assert_eq!((marks, &scan["mode"]), (expected(), &"unchanged".into()));
    }
}

#[test]
fn database_without_a_log_is_reread_unless_unchanged() {
    let _limit = support::limit(60);
    let (directory, db) = at_rest(5, 100);
    let cache = format!("--scan-cache={}", directory.path().join("cache").display());
    // Settled, but for its inode, which has just changed: not sure enough.
    assert_eq!(listed(&db, &[&cache]).1["mode"], "full");
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(listed(&db, &[&cache]).1["mode"], "full");
    assert_eq!(listed(&db, &[&cache]).1["mode"], "unchanged");
    // A copy in its place, of the same size and time.
    let about = fs::metadata(&db).unwrap();
    let mut bytes = fs::read(&db).unwrap();
    let marker = MarkerText::DEFAULT.as_bytes();
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker)
        .unwrap();
    bytes[at] = b'x';
    fs::write(&db, &bytes).unwrap();
    let times = fs::FileTimes::new().set_modified(about.modified().unwrap());
    fs::File::options()
        .write(true)
        .open(&db)
        .unwrap()
        .set_times(times)
        .unwrap();
    let (marks, scan) = listed(&db, &[&cache]);
    assert_eq!(scan["mode"], "full");
    assert!(
        marks.values().all(|marked| *marked == Some(false)),
        "{marks:?}"
    );
}

/// Takes the marker from its row and puts it into one of the other session, in the
/// file itself: the log does not show it. The size of the file.
fn marked_past_sqlite(db: &Path) -> u64 {
    let mut bytes = fs::read(db).unwrap();
    let marker = MarkerText::DEFAULT.as_bytes();
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker);
    // In the middle: the first pages have dead bytes of the first rows.
    let half = bytes.len() / 2;
    let filler = bytes[half..]
        .windows(500)
        .position(|window| window == [b'x'; 500]);
    let (at, filler) = (at.unwrap(), half + filler.unwrap());
    bytes[at] = b'y';
    bytes[filler..filler + marker.len()].copy_from_slice(marker);
    fs::write(db, &bytes).unwrap();
    bytes.len() as u64
}

#[test]
fn verify_compares_the_scan_with_the_definition() {
    let _limit = support::limit(60);
    let (directory, db) = at_rest(20, 3000);
    let conn = Connection::open(&db).unwrap();
    conn.execute("UPDATE session SET time_updated = 9", [])
        .unwrap();
    let cache = format!("--scan-cache={}", directory.path().join("cache").display());
    assert_eq!(listed(&db, &[&cache]).1["mode"], "full");
    let verified = || {
        let mut command = support::command(support::lister());
        let output = command.args(["verify", &cache, "--db"]).arg(&db).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    };
    let (status, said) = verified();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("scan:     unchanged, 0 frames"), "{said}");
    assert!(said.contains("equal:    1 sessions are marked"), "{said}");
    marked_past_sqlite(&db);
    let (status, said) = verified();
    assert_eq!(status, Some(1), "{said}");
    for difference in [
        "differs:  s0: marked by the query only",
        "differs:  s1: marked by the scan only",
    ] {
        assert!(said.contains(difference), "{said}");
    }
    // It is the cache that is wrong: without it both are the same again.
    fs::remove_file(directory.path().join("cache")).unwrap();
    let (status, said) = verified();
    assert_eq!(status, Some(0), "{said}");
    assert!(!directory.path().join("cache").exists());
}

/// The log does not show that pages were put in the file past SQLite.
#[cfg(target_os = "linux")]
#[test]
fn busy_database_is_fully_scanned_once_a_day() {
    let _limit = support::limit(60);
    let (directory, db) = at_rest(20, 3000);
    let conn = Connection::open(&db).unwrap();
    let cache = format!("--scan-cache={}", directory.path().join("cache").display());
    let mut command = support::command(support::lister());
    command.args([&*cache, "--db"]).arg(&db);
    let clock = clock::Clock::of(&mut command);
    let mut listed = || {
        conn.execute("UPDATE session SET time_updated = time_updated + 1", [])
            .unwrap();
        let (mut sessions, end) = support::complete(&command.output().unwrap());
        sessions.retain(|session| session["marked"] == true);
        let marked = sessions.iter().map(|session| session["id"].clone());
        (marked.collect::<Vec<_>>(), end["scan"].clone())
    };
    assert_eq!(listed().1["mode"], "full");
    let size = marked_past_sqlite(&db);
    // The row that is watched is looked at each time; of the other nobody knows.
    let (marked, scan) = listed();
    assert_eq!((marked.len(), &scan["mode"]), (0, &"tail".into()));
    clock.set(23 * 60 * 60);
    assert_eq!(listed().0.len(), 0);
    clock.set(25 * 60 * 60);
    let (marked, scan) = listed();
    assert_eq!(marked, ["s0"]);
    assert!(scan["bytes"].as_u64().unwrap() > size, "{scan}");
    // And then not again until the next day, or until the clock is set back.
    for again in [false, true, false] {
        if again {
            clock.set(0);
        }
        let (marked, scan) = listed();
        assert_eq!(marked, ["s0"]);
        assert_eq!(scan["mode"], if again { "full" } else { "tail" });
        assert_eq!(scan["bytes"].as_u64().unwrap() > size, again, "{scan}");
    }
}

/// What a row reads as is not always stored in it.
#[test]
fn added_column_with_marker_default_marks_old_rows() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    make(&db, 4096, "none");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(
        "DROP TABLE session_input; CREATE TABLE session_input (id TEXT, session_id TEXT);
         INSERT INTO session_input (rowid, session_id) VALUES (1000, 's3')",
    )
    .unwrap();
    let cache = format!("--scan-cache={}", directory.path().join("cache").display());
    let marked = || {
        let (marks, _) = listed(&db, &[&cache]);
        let marked = marks
            .into_iter()
            .filter(|(_, marked)| *marked == Some(true));
        marked.map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(marked(), [""; 0]);
    let default = MarkerText::DEFAULT;
    conn.execute_batch(&format!(
        "ALTER TABLE session_input ADD COLUMN prompt TEXT DEFAULT 'a {default} b'"
    ))
    .unwrap();
    for _ in 0..2 {
        assert_eq!(marked(), ["s3"]);
    }
    conn.execute_batch("UPDATE session_input SET prompt = ''")
        .unwrap();
    assert_eq!(marked(), [""; 0]);
}
