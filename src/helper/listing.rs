//! One listing: open, look at the schema, find the marker, send the rows.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::Connection;

use crate::marker::{self, CacheUpdate, ScanResult};
use crate::store::{Database, Filter, ListQuery, ListSummary, OpenOptions, Opened, StoreError};
use crate::wire::{
    DatabaseState, End, ErrorKind, HelperError, OptionalPart, Scan, WriteError, Writer, limits,
};

/// What to list, and how.
#[derive(Debug, Clone)]
pub struct Task {
    /// The database; `None` where there is nothing to read.
    pub db: Option<PathBuf>,
    /// How to look for the marker.
    pub marker: marker::Options,
    /// Which sessions.
    pub filter: Filter,
    /// How to open the database.
    pub open: OpenOptions,
    /// The most characters of a first prompt.
    pub first_prompt_limit: usize,
}

/// How a listing ended; the last line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an `end`.
    Complete,
    /// With an `error` of this kind.
    Failed(ErrorKind),
}

impl Ended {
    /// The helper's exit status.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Failed(kind) => kind.exit_status(),
        }
    }
}

/// Writes one listing after its `hello`, down to its last line.
///
/// # Errors
///
/// Only where `out` fails. A database that fails is an `error` line. What cannot be
/// remembered for the next listing is said to `err`.
pub fn list<W: Write>(task: &Task, mut out: Writer<W>, mut err: impl Write) -> io::Result<Ended> {
    match read(task, &mut out) {
        Ok((end, remember)) => {
            out.end(end)?;
            // Not before the listing has been delivered: it waits for nothing.
            if let Some(Err(error)) = remember.map(|remember| remember.save()) {
                let _ = writeln!(
                    err,
                    "opencode-lister: the scan cache cannot be written, and the next scan is a full one: {error}"
                );
            }
            Ok(Ended::Complete)
        }
        Err(error) => error.end(task.db.as_deref(), out),
    }
}

/// Why there is no end of what was begun.
pub(super) enum Trouble {
    Store(StoreError),
    Write(WriteError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<WriteError> for Trouble {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl Trouble {
    /// Writes the last line.
    pub(super) fn end<W: Write>(self, db: Option<&Path>, out: Writer<W>) -> io::Result<Ended> {
        let failure = match self {
            Self::Write(WriteError::Io(error)) => return Err(error),
            Self::Write(error @ WriteError::TooLarge(_)) => HelperError {
                kind: ErrorKind::Internal,
                message: error.to_string(),
            },
            Self::Store(error) => match db {
                Some(db) => error.with_io_cause(db).to_helper_error(db),
                None => error.to_helper_error("no database".as_ref()),
            },
        };
        let kind = failure.kind;
        out.error(failure)?;
        Ok(Ended::Failed(kind))
    }
}

fn read<W: Write>(task: &Task, out: &mut Writer<W>) -> Result<(End, Option<CacheUpdate>), Trouble> {
    let started = Instant::now();
    let opened = match &task.db {
        Some(path) => Database::open(path, &task.open)?,
        None => Opened::Missing,
    };
    let mut rows = Rows {
        listed: None,
        log_elsewhere: false,
        other_tables: Vec::new(),
        scan: Scan::NONE,
        remember: None,
    };
    let state = match opened {
        Opened::Missing => DatabaseState::Missing,
        Opened::Young => DatabaseState::Young,
        Opened::Empty => DatabaseState::Empty,
        Opened::Ready(database) => {
            rows = send_rows(&database, task, out)?;
            database.close()?;
            match rows.listed {
                Some(_) => DatabaseState::Ready,
                None => DatabaseState::Empty,
            }
        }
    };
    let listed = rows.listed.unwrap_or_default();
    let end = End {
        sessions: out.sessions(),
        database: state,
        tables: listed.tables,
        flat: listed.flat,
        skipped: listed.skipped,
        scan: rows.scan,
        degraded: listed.degraded.into_vec(),
        log_elsewhere: rows.log_elsewhere,
        other_tables: rows.other_tables,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    Ok((end, rows.remember))
}

struct Rows {
    /// `None` where there are no session tables.
    listed: Option<ListSummary>,
    log_elsewhere: bool,
    /// Where there are no session tables.
    other_tables: Vec<String>,
    scan: Scan,
    remember: Option<CacheUpdate>,
}

fn send_rows<W: Write>(
    database: &Database,
    task: &Task,
    out: &mut Writer<W>,
) -> Result<Rows, Trouble> {
    // One snapshot: schema, marker and rows are of the same moment.
    let ScanResult {
        snapshot,
        schema,
        marked_sessions,
        scan,
        cache_update,
        degraded,
        full_scan_reason: _,
    } = marker::scan(database, &task.marker)?;
    let log_elsewhere = database.log_elsewhere();
    let Some(query) = ListQuery::new(&schema, task.filter)? else {
        return Ok(Rows {
            listed: None,
            log_elsewhere,
            other_tables: other_tables(&snapshot).map_err(StoreError::from)?,
            scan: Scan::NONE,
            remember: None,
        });
    };
    let mut listed = query.run(&snapshot, task.first_prompt_limit, |mut session| {
        session.marked = marked_sessions.is_marked(&session.id);
        out.session(session).map_err(Trouble::Write)
    })?;
    if let Some(reason) = degraded {
        listed.degraded.record(OptionalPart::Marked, &reason);
    }
    Ok(Rows {
        listed: Some(listed),
        log_elsewhere,
        other_tables: Vec::new(),
        scan,
        remember: cache_update,
    })
}

/// The first tables of a database without sessions, but for those in which OpenCode keeps
/// count of its migrations: these are there before any other.
pub(super) fn other_tables(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut tables = conn.prepare(
        "SELECT CAST(substr(name, 1, 64) AS BLOB) FROM sqlite_schema
         WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
           AND lower(name) NOT IN ('migration', 'data_migration', '__drizzle_migrations')
         ORDER BY rowid",
    )?;
    let name = |row: &rusqlite::Row<'_>| {
        let name = row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec();
        Ok(String::from_utf8_lossy(&name).into_owned())
    };
    tables
        .query_map([], name)?
        .take(limits::OTHER_TABLES)
        .collect()
}
