//! Which sessions are marked: markers at borders, in every content table, and within a budget.

use std::collections::BTreeMap;
use std::time::Duration;

use opencode_sessions::in_process::InProcessLister;
use opencode_sessions::internals::wire::ScanMode;
use opencode_sessions::lister::{ListRequest, Lister, Outcome};
use opencode_sessions::marker_text::MarkerText;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::random_content::{PIECE, Place, WHOLE_CELL, by_argument, in_process, oracle};
use crate::support::{self, Made, listing, marks};

/// A marker at each place around each border between pieces, one cell of one
/// session after the other.
#[test]
fn marker_across_two_pieces_is_found_at_any_offset() {
    let _limit = support::limit(120);
    let place = Place::new();
    let marker = MarkerText::DEFAULT;
    let conn = place.open();
    conn.execute_batch(
        "CREATE TABLE session (id text, directory text DEFAULT '/w');
         CREATE TABLE part (session_id text, data text)",
    )
    .unwrap();
    conn.execute_batch("BEGIN").unwrap();
    let mut expected = BTreeMap::new();
    let size = 5 * PIECE;
    // Every place would be one in two bytes: the seventh ones meet each remainder.
    let starts = (0..=3)
        .map(|piece| (piece + 1) * PIECE - marker.len() - 2)
        .flat_map(|start| {
            (0..2 * marker.len() + 4)
                .step_by(7)
                .map(move |by| start + by)
        })
        .chain([size - marker.len()]);
    for start in starts {
        let mut cell = vec![b'x'; size];
        cell[start..start + marker.len()].copy_from_slice(marker.as_bytes());
        let id = format!("at {start}");
        conn.execute("INSERT INTO session (id) VALUES (?1)", [&id])
            .unwrap();
        conn.execute(
            "INSERT INTO part VALUES (?1, CAST(?2 AS TEXT))",
            (&id, cell),
        )
        .unwrap();
        expected.insert(id, true);
    }
    conn.execute_batch("COMMIT").unwrap();
    drop(conn);
    assert!(expected.len() > 40);
    assert_eq!(in_process(&place.db, marker), expected);
    assert!(
        in_process(&place.db, "<freshell-session-metadata origin=3-viewz")
            .values()
            .all(|marked| !marked)
    );
}

/// What a search is anchored on can overlap itself, so that it stands before the
/// marker, too, where the marker does not.
#[test]
fn marker_after_a_part_of_itself_is_found() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.part("ses_a", "");
    for (marker, text) in [
        ("--the-marker's-text", "---the-marker's-text"),
        ("the-marker's-text..", "the-marker's-text..."),
        ("==marked=by=me==", "= ===marked=by=me=="),
        ("1212121212121212 of it", "121212121212121212 of it"),
        ("<<<<<<<<<<<<<<<<x", "<<<<<<<<<<<<<<<<<<<<x"),
        ("eeeeeeeeeeeeeeeef", "eeeeeeeeeeeeeeeeeeef"),
    ] {
        for text in [text.to_owned(), "y".repeat(WHOLE_CELL) + text] {
            made.conn
                .execute("UPDATE part SET data = ?1", [text])
                .unwrap();
            assert!(oracle(&made.conn, marker)["ses_a"]);
            assert!(by_argument(&made.db, marker)["ses_a"], "{marker:?}");
        }
    }
}

#[test]
fn without_a_marker_nothing_is_searched() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.part("ses_a", MarkerText::DEFAULT);
    let (sessions, end) = listing(&made.db, &["--no-marker"]);
    assert_eq!(sessions[0]["marked"], Value::Null);
    assert_eq!(
        end["scan"],
        json!({"mode": "none", "progress": 1.0, "frames": 0, "bytes": 0})
    );
    let outcome = InProcessLister.list(&ListRequest::of(&made.db).marker(None));
    let Outcome::Complete(listed) = outcome else {
        panic!("{outcome}");
    };
    assert!(listed.sessions().all(|session| session.marked.is_none()));
    assert_eq!(listed.rows.len(), 1);
    assert_eq!(listed.end.scan.mode, ScanMode::None);
}

#[test]
fn full_scan_reports_the_bytes_it_searched() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.part("ses_a", &"x".repeat(1000));
    made.part("ses_a", &"x".repeat(WHOLE_CELL + 1));
    made.run(
        "INSERT INTO message (id, session_id, time_created, time_updated, data)
           VALUES ('m', 'ses_a', 1, 1, x'010203')",
    );
    let (_, end) = listing(&made.db, &[]);
    let scan = &end["scan"];
    assert_eq!(
        (&scan["mode"], &scan["progress"]),
        (&json!("full"), &json!(1.0))
    );
    // Whole pages, of the log too.
    let bytes = scan["bytes"].as_u64().unwrap();
    let content = u64::try_from(WHOLE_CELL).unwrap();
    assert!((content..2 * content).contains(&bytes), "{scan}");
    // SQL searches content alone.
    let (_, end) = listing(&made.db, &["--marker=1234567890123456"]);
    let scan = &end["scan"];
    assert_eq!(scan["bytes"].as_u64().unwrap(), 1000 + content + 1 + 3);
}

#[test]
fn marks_follow_writes_deletes_and_rollbacks() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    made.session("ses_b", 2);
    let marked = || marks(&listing(&made.db, &[]).0)["ses_a"];
    let marker = MarkerText::DEFAULT;
    made.part("ses_a", "");
    made.part("ses_b", "");
    for (sql, expected) in [
        // A text part is inserted empty and filled in place.
        (
            format!("UPDATE part SET data = '{marker}' WHERE session_id = 'ses_a'"),
            true,
        ),
        ("UPDATE part SET session_id = 'ses_b'".to_owned(), false),
        ("UPDATE part SET session_id = 'ses_a'".to_owned(), true),
        ("DELETE FROM part".to_owned(), false),
        (
            format!("BEGIN; INSERT INTO part VALUES ('p', 'm', 'ses_a', 1, 1, '{marker}')"),
            false,
        ),
        ("ROLLBACK".to_owned(), false),
        (
            format!("INSERT INTO part VALUES ('p', 'm', 'ses_a', 1, 1, '{marker}')"),
            true,
        ),
        ("PRAGMA wal_checkpoint(TRUNCATE)".to_owned(), true),
        ("BEGIN; DELETE FROM part".to_owned(), true),
        ("COMMIT".to_owned(), false),
        // The text of a title or of a session's other columns is no content.
        (
            format!("UPDATE session SET title = '{marker}', revert = '{marker}'"),
            false,
        ),
    ] {
        made.conn.execute_batch(&sql).unwrap();
        assert_eq!(marked(), expected, "after {sql}");
    }
}

/// Children and archived ones, too.
#[test]
fn each_content_table_marks_its_own_sessions() {
    let _limit = support::limit(30);
    let made = Made::new();
    for id in ["ses_1", "ses_2", "ses_3", "ses_4", "ses_5"] {
        made.session(id, 1);
    }
    let marker = MarkerText::DEFAULT.to_ascii_uppercase();
    made.run(&format!(
        "UPDATE session SET parent_id = 'ses_5' WHERE id = 'ses_1';
         UPDATE session SET time_archived = 1 WHERE id = 'ses_2';
         INSERT INTO part VALUES ('p', 'm', 'ses_1', 1, 1, 'a{marker}b');
         INSERT INTO message VALUES ('m', 'ses_2', 1, 1, '{marker}');
         INSERT INTO session_message VALUES ('m', 'ses_3', 'user', 1, 1, 1, '{marker}');
         INSERT INTO session_input VALUES ('i', 'ses_4', '{marker}', 'd', 1, NULL, 1)"
    ));
    let (sessions, _) = listing(&made.db, &["--children", "--archived"]);
    let marks: Vec<_> = sessions.iter().map(|session| &session["marked"]).collect();
    assert_eq!(marks, [true, true, true, true, false]);
}

/// A listing makes some progress however little time it has, with every kind of database:
/// the time was up before the first page.
#[test]
fn every_listing_progresses_however_small_its_budget() {
    let _limit = support::limit(120);
    for (kind, prepare, parts) in [
        ("with a log", "PRAGMA journal_mode = wal", 3_000),
        ("without a log", "PRAGMA journal_mode = delete", 3_000),
        // At least five milliseconds are read each time, more on a busy machine.
        (
            "by SQL",
            "PRAGMA encoding = 'UTF-16le'; PRAGMA journal_mode = wal",
            20_000,
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("opencode.db");
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch(prepare).unwrap();
        conn.execute_batch(
            "CREATE TABLE session (id text PRIMARY KEY, directory text, time_updated integer);
             CREATE TABLE part (id text PRIMARY KEY, session_id text, data text);
             INSERT INTO session VALUES ('ses_a', '/w', 2), ('ses_b', '/w', 1)",
        )
        .unwrap();
        conn.execute_batch("BEGIN").unwrap();
        for n in 0..parts {
            let (session, data) = match n + 1 == parts {
                true => ("ses_b", MarkerText::DEFAULT.to_owned()),
                false => ("ses_a", "x".repeat(1000)),
            };
            conn.execute(
                "INSERT INTO part VALUES (?1, ?2, ?3)",
                (format!("prt_{n}"), session, data),
            )
            .unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
        if kind == "without a log" {
            // A file that changed just now could change again and look the same.
            std::thread::sleep(Duration::from_millis(3100));
        }
        let options = opencode_sessions::internals::marker::Options {
            marker: Some(MarkerText::default()),
            cache: Some(directory.path().join("cache")),
            budget: Some(Duration::ZERO),
            threads: 1,
        };
        let mut progress = vec![0.0];
        let marks = loop {
            let open = opencode_sessions::internals::store::OpenOptions {
                busy_timeout: Duration::from_secs(5),
                heap_limit: None,
                deadline: None,
            };
            let opened = opencode_sessions::internals::store::Database::open(&db, &open).unwrap();
            let opencode_sessions::internals::store::Opened::Ready(database) = opened else {
                panic!("{kind}");
            };
            let found = opencode_sessions::internals::marker::scan(&database, &options).unwrap();
            if let Some(cache_update) = &found.cache_update {
                cache_update.save().unwrap();
            }
            progress.push(found.scan.progress);
            if found.scan.progress >= 1.0 {
                break found.marked_sessions;
            }
            assert!(progress.len() < 200, "{kind} ends never: {progress:?}");
        };
        assert!(progress.len() > 3, "{kind} ended at once: {progress:?}");
        assert!(progress.is_sorted(), "{kind}: {progress:?}");
        assert_eq!(marks.is_marked("ses_a"), Some(false), "{kind}");
        assert_eq!(marks.is_marked("ses_b"), Some(true), "{kind}");
    }
}
