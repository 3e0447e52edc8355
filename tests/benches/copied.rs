//! A copy of a database that a benchmark writes to, as a running OpenCode would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use rusqlite::{Connection, params};

use super::generate::Database;

/// A copy to write to, kept open as by a running OpenCode.
pub(crate) struct Copied {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
    _place: tempfile::TempDir,
}

/// The log of a database.
pub(crate) fn log_of(db: &Path) -> PathBuf {
    let mut log = db.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Copies a database and its log.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)?;
    fs::copy(log_of(from), log_of(to))?;
    Ok(())
}

impl Copied {
    pub(crate) fn of(database: &Database) -> Result<Self> {
        // Beside it: where it is, there is room for another.
        let place = tempfile::tempdir_in(database.directory().parent().unwrap_or(Path::new(".")))?;
        let path = place.path().join("opencode.db");
        copy(&database.path, &path)?;
        // Gigabytes on their way to the disk hold up everybody who makes a file.
        for copied in [path.clone(), log_of(&path)] {
            fs::File::open(copied)?.sync_all()?;
        }
        let conn = Connection::open(&path)?;
        conn.execute_batch("PRAGMA synchronous = NORMAL")?;
        conn.query_row("SELECT count(*) FROM session", [], |_| Ok(()))?;
        Ok(Self {
            conn,
            path,
            _place: place,
        })
    }

    /// The ids of the sessions that are listed.
    pub(crate) fn sessions(&self) -> Result<Vec<String>> {
        let sql = "SELECT id FROM session WHERE parent_id IS NULL AND time_archived IS NULL";
        let mut statement = self.conn.prepare(sql)?;
        let ids = statement.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// One commit as of a turn: another title, and another piece of a message.
    /// Returns when it began.
    pub(crate) fn commit(&self, session: &str, title: &str) -> Result<Instant> {
        let began = Instant::now();
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        self.conn.execute(
            "UPDATE session SET title = ?2, time_updated = ?3 WHERE id = ?1",
            params![session, title, Self::now()],
        )?;
        self.insert_part(session, title)?;
        self.conn.execute_batch("COMMIT")?;
        Ok(began)
    }

    /// Milliseconds since 1970.
    pub(crate) fn now() -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    /// Another piece of a message.
    pub(crate) fn insert_part(&self, session: &str, name: &str) -> Result<()> {
        self.conn.execute(
            "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
             SELECT 'prt_bench_' || ?2, id, session_id, ?3, ?3, ?4 FROM message \
             WHERE session_id = ?1 LIMIT 1",
            params![
                session,
                name,
                Self::now(),
                "{\"type\":\"step-start\"}".repeat(50)
            ],
        )?;
        Ok(())
    }
}
