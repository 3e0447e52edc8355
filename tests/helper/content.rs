//! Content of every type is judged as the definition of a mark says.

use rusqlite::Connection;
use rusqlite::types::Value as Sql;

use crate::common::MARKER;
use crate::schema::{marks, oracle};
use crate::support::{self, Made, listing};

/// Sessions and what their content is, marked or not.
fn contents() -> Vec<(&'static str, Sql)> {
    let text = |text: String| Sql::Text(text);
    let upper = MARKER.to_ascii_uppercase();
    let large = "x".repeat(1 << 20);
    vec![
        ("s0", text(MARKER.to_owned())),
        ("s1", text(MARKER[1..].to_owned())),
        ("s2", text(format!("é {upper} é"))),
        ("s3", text(format!("\0{MARKER}"))),
        ("s4", text(format!("{MARKER}\0"))),
        ("s5", Sql::Blob(MARKER.as_bytes().to_vec())),
        ("s6", Sql::Blob([b"\xff\xfe", upper.as_bytes()].concat())),
        ("s7", Sql::Integer(3)),
        ("s8", Sql::Real(3.5)),
        ("s9", text(format!("{large}{upper}"))),
        ("s10", text(format!("{large}\0{MARKER}"))),
        ("s11", Sql::Blob(format!("{large}{MARKER}").into_bytes())),
        ("s12", text(format!("{MARKER}{large}"))),
        ("s13", text(large)),
    ]
}

pub(crate) const INSERT: &str = "INSERT INTO part (session_id, data) VALUES (?1, ?2)";

/// The marks of a database with these tables, filled by `insert`, are those of
/// the definition.
#[track_caller]
fn agrees_in(made: &Made, tables: &str, insert: &str) {
    if !tables.contains("TABLE session ") {
        made.run("CREATE TABLE session (id text PRIMARY KEY, directory text DEFAULT '/w')");
    }
    made.run(tables);
    for (id, content) in contents() {
        made.conn
            .execute("INSERT INTO session (id) VALUES (?1)", [id])
            .unwrap();
        made.conn.execute(insert, (id, content)).unwrap();
    }
    let expected = oracle(&made.conn);
    let marked = expected.values().filter(|marked| **marked).count();
    assert!((1..expected.len()).contains(&marked), "{expected:?}");
    assert_eq!(marks(&made.db), expected, "{tables}");
}

#[track_caller]
fn agrees(tables: &str, insert: &str) {
    agrees_in(&Made::of(""), tables, insert);
}

#[test]
fn content_of_every_declared_type_is_marked_as_defined() {
    let _limit = support::limit(60);
    for kind in [
        "text NOT NULL",
        "",
        "blob",
        "integer",
        "numeric",
        "text COLLATE NOCASE",
    ] {
        for session_id in ["text", "blob", "integer", ""] {
            agrees(
                &format!("CREATE TABLE part (session_id {session_id}, data {kind})"),
                INSERT,
            );
        }
    }
    agrees(
        "CREATE TABLE part (session_id ANY, data ANY) STRICT",
        INSERT,
    );
}

#[test]
fn content_without_a_rowid_is_marked_as_defined() {
    let _limit = support::limit(60);
    for tables in [
        "CREATE TABLE part (session_id text, data, PRIMARY KEY (session_id, data)) WITHOUT ROWID",
        "CREATE TABLE t (s, d); CREATE VIEW part (session_id, data) AS SELECT s, d FROM t;
         CREATE TRIGGER i INSTEAD OF INSERT ON part BEGIN
           INSERT INTO t VALUES (NEW.session_id, NEW.data); END",
        "CREATE VIRTUAL TABLE part USING fts5 (session_id, data)",
        "CREATE TABLE part (session_id text, data, rowid, _rowid_, oid)",
    ] {
        agrees(tables, INSERT);
    }
}

#[test]
fn computed_content_is_marked_as_defined() {
    let _limit = support::limit(60);
    for kind in ["VIRTUAL", "STORED"] {
        agrees(
            &format!(
                "CREATE TABLE part (session_id text, raw, data GENERATED ALWAYS AS (raw) {kind})"
            ),
            "INSERT INTO part (session_id, raw) VALUES (?1, ?2)",
        );
    }
}

/// SQLite's incremental blob I/O refuses tables with a computed column, also for
/// the other columns.
#[test]
fn large_cell_with_computed_column_is_marked_as_defined() {
    let _limit = support::limit(60);
    for kind in ["VIRTUAL", "STORED"] {
        agrees(
            &format!(
                "CREATE TABLE part (session_id text, data,
                   type text GENERATED ALWAYS AS (typeof(data)) {kind})"
            ),
            INSERT,
        );
    }
}

#[test]
fn content_in_utf16_is_marked_as_defined() {
    let _limit = support::limit(60);
    for encoding in ["UTF-16le", "UTF-16be"] {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("opencode.db");
        let conn = Connection::open(&db).unwrap();
        conn.pragma_update(None, "encoding", encoding).unwrap();
        conn.pragma_update(None, "journal_mode", "wal").unwrap();
        let made = Made {
            directory,
            db,
            conn,
        };
        agrees_in(&made, "CREATE TABLE part (session_id text, data)", INSERT);
        let (sessions, _) = listing(&made.db, &[]);
        assert_eq!(sessions[0]["directory"], "/w");
    }
}

#[test]
fn content_with_own_collation_is_marked_as_defined() {
    let _limit = support::limit(60);
    for (session, part) in [
        ("text COLLATE NOCASE", "text"),
        ("text", "text COLLATE NOCASE"),
    ] {
        agrees(
            &format!(
                "CREATE TABLE session (id {session}, directory text DEFAULT '/w');
                 CREATE TABLE part (session_id {part}, data);
                 INSERT INTO session (id) VALUES ('X1'), ('x2');
                 INSERT INTO part VALUES ('x1', '{MARKER}'), ('x2', '{MARKER}')"
            ),
            INSERT,
        );
    }
}

#[test]
fn content_at_extreme_rowids_is_marked_as_defined() {
    let _limit = support::limit(60);
    agrees(
        &format!(
            "CREATE TABLE session (id text PRIMARY KEY, directory text DEFAULT '/w');
             CREATE TABLE part (id integer PRIMARY KEY, session_id text, data);
             CREATE TABLE message (id integer PRIMARY KEY, session_id text, data);
             INSERT INTO session (id) VALUES ('low'), ('high'), ('zero'), ('none');
             INSERT INTO part VALUES ({}, 'low', '{MARKER}'), ({}, 'none', 'x');
             INSERT INTO message VALUES ({}, 'high', '{MARKER}'), (0, 'zero', '{MARKER}');
             INSERT INTO message VALUES (-1, 'none', 'x')",
            i64::MIN,
            i64::MAX - 100,
            i64::MAX
        ),
        INSERT,
    );
}
