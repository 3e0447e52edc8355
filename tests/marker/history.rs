//! Histories in which a scan for the marker once gave a wrong answer, or read far more than had
//! changed. Each is made step by step, so that it is the same in every run; what happens by chance
//! is in `scan.rs`.
//!
//! After each listing the marks are compared with what the literal query says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::Value;

use crate::support;

pub(crate) const MARKER: &str = "<freshell-session-metadata origin=3-views";

type Marks = BTreeMap<String, Option<bool>>;

pub(crate) const TABLES: &str = "
CREATE TABLE session (id TEXT PRIMARY KEY, directory TEXT, time_updated INTEGER);
CREATE TABLE part (id INTEGER PRIMARY KEY, session_id TEXT, data TEXT);
CREATE TABLE message (session_id TEXT, data TEXT);
INSERT INTO session VALUES ('s0', '/x', 1), ('s1', '/x', 1), ('s2', '/x', 1), ('s3', '/x', 1);
";

/// A database, and what is remembered of it from one listing to the next.
pub(crate) struct Database {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) db: PathBuf,
    pub(crate) conn: Connection,
}

impl Database {
    pub(crate) fn new(page_size: u32) -> Self {
        Self::with(&format!("PRAGMA page_size = {page_size}"), TABLES)
    }

    pub(crate) fn with(before: &str, tables: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("opencode.db");
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch(before).unwrap();
        conn.execute_batch("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0")
            .unwrap();
        conn.execute_batch(tables).unwrap();
        Self {
            directory,
            db,
            conn,
        }
    }

    pub(crate) fn run(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }

    pub(crate) fn part(&self, id: i64, session: &str, data: &str) {
        let insert = "INSERT INTO part VALUES (?1, ?2, ?3)";
        self.conn.execute(insert, (id, session, data)).unwrap();
    }

    pub(crate) fn messages(&self, count: u32, data: &str) {
        for _ in 0..count {
            let insert = "INSERT INTO message VALUES ('s0', ?1)";
            self.conn.execute(insert, [data]).unwrap();
        }
    }

    /// All of the log is in the file afterwards.
    pub(crate) fn checkpoint(&self, mode: &str) {
        checkpoint(&self.conn, mode);
    }

    pub(crate) fn cache(&self) -> String {
        cache_in(self.directory.path())
    }

    /// A listing with the cache, which must be right: how it was found.
    pub(crate) fn scan(&self) -> String {
        let (marks, scan) = listed(&self.db, &[&self.cache()]);
        assert_eq!(marks, definition(&self.conn), "{scan}");
        scan["mode"].as_str().unwrap().to_owned()
    }
}

fn checkpoint(conn: &Connection, mode: &str) {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let checked = conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (busy, frames, done): (i64, i64, i64) = checked.unwrap();
    assert_eq!((busy, frames), (0, done));
}

pub(crate) fn cache_in(directory: &Path) -> String {
    format!("--scan-cache={}", directory.join("cache").display())
}

/// What the literal query says of each session.
pub(crate) fn definition(conn: &Connection) -> Marks {
    let has = |table| {
        format!(
            "EXISTS (SELECT 1 FROM {table} x WHERE x.session_id = s.id AND x.data LIKE '%{MARKER}%')"
        )
    };
    let sql = format!(
        "SELECT id, {} OR {} FROM session s",
        has("part"),
        has("message")
    );
    let mut marks = conn.prepare(&sql).unwrap();
    let marks = marks.query_map([], |row| Ok((row.get(0)?, Some(row.get(1)?))));
    marks.unwrap().collect::<Result<_, _>>().unwrap()
}

/// The marks of a listing that must be complete, and its scan.
pub(crate) fn marks_of(output: &Output) -> (Marks, Value) {
    let (sessions, end) = support::complete(output);
    let marks = sessions.iter().map(|session| {
        let id = session["id"].as_str().unwrap().to_owned();
        (id, session["marked"].as_bool())
    });
    (marks.collect(), end["scan"].clone())
}

pub(crate) fn listed(db: &Path, arguments: &[&str]) -> (Marks, Value) {
    marks_of(&support::helper(db, arguments))
}

pub(crate) fn marked(ids: &[&str]) -> Marks {
    let mark = |id: &str| (id.to_owned(), Some(ids.contains(&id)));
    ["s0", "s1", "s2", "s3"].into_iter().map(mark).collect()
}
