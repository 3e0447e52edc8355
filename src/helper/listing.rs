//! One listing: opens the database, reads the schema, finds the marked sessions, writes the
//! rows.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::Connection;

use super::difference::Difference;
use crate::marker::{self, CacheUpdate, ScanResult};
use crate::store::{Database, Filter, ListQuery, ListSummary, OpenOptions, Opened, StoreError};
use crate::wire::{
    DatabaseState, End, ErrorKind, HelperError, OptionalPart, Scan, WriteError, Writer, limits,
};

/// One listing to run.
#[derive(Debug, Clone)]
pub(crate) struct ListJob {
    /// The database; `None` if there is none to read.
    pub db: Option<PathBuf>,
    /// How to search for the marker.
    pub marker: marker::Options,
    /// Which sessions to list.
    pub filter: Filter,
    /// How to open the database.
    pub open: OpenOptions,
    /// The maximum length of a first prompt in characters.
    pub first_prompt_limit: usize,
}

/// The last line that a run wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunStatus {
    /// An `end`.
    Complete,
    /// An `error` of this kind.
    Failed(ErrorKind),
}

impl RunStatus {
    /// Returns the helper's exit status.
    #[must_use]
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Failed(kind) => kind.exit_status(),
        }
    }
}

/// Writes one listing, from the line after the `hello` to the last line, or only what differs
/// from what the caller has.
///
/// An error of the database becomes an `error` line. If the scan cache or the kept lines cannot
/// be written, that is reported to `err`.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(crate) fn list<W: Write>(
    job: &ListJob,
    mut difference: Option<Difference>,
    mut out: Writer<W>,
    mut err: impl Write,
) -> io::Result<RunStatus> {
    match read(job, difference.as_mut(), &mut out) {
        Ok((end, cache_update)) => {
            out.end(end)?;
            // Saved after the listing is written, so that the caller does not wait for it.
            if let Some(Err(error)) = cache_update.map(|cache_update| cache_update.save()) {
                let _ = writeln!(
                    err,
                    "opencode-lister: cannot write the scan cache, so the next scan is a full one: {error}"
                );
            }
            if let Some(Err(error)) = difference.map(|difference| difference.save()) {
                let _ = writeln!(
                    err,
                    "opencode-lister: cannot keep the lines of this listing, so the next request must send them: {error}"
                );
            }
            Ok(RunStatus::Complete)
        }
        Err(error) => error.end(job.db.as_deref(), out),
    }
}

/// Why a run cannot write its `end`.
pub(super) enum RunError {
    Store(StoreError),
    Write(WriteError),
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<WriteError> for RunError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl RunError {
    /// Writes the `error` line, unless the output itself failed.
    pub(super) fn end<W: Write>(self, db: Option<&Path>, out: Writer<W>) -> io::Result<RunStatus> {
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
        Ok(RunStatus::Failed(kind))
    }
}

fn read<W: Write>(
    job: &ListJob,
    mut difference: Option<&mut Difference>,
    out: &mut Writer<W>,
) -> Result<(End, Option<CacheUpdate>), RunError> {
    let started = Instant::now();
    let opened = match &job.db {
        Some(path) => Database::open(path, &job.open)?,
        None => Opened::Missing,
    };
    let mut rows = Rows {
        listed: None,
        log_elsewhere: false,
        other_tables: Vec::new(),
        scan: Scan::NONE,
        cache_update: None,
    };
    let state = match opened {
        Opened::Missing => DatabaseState::Missing,
        Opened::Young => DatabaseState::Young,
        Opened::Empty => DatabaseState::Empty,
        Opened::Ready(database) => {
            rows = send_rows(&database, job, difference.as_deref_mut(), out)?;
            database.close()?;
            match rows.listed {
                Some(_) => DatabaseState::Ready,
                None => DatabaseState::Empty,
            }
        }
    };
    // A database without sessions has no difference: the caller must not take it for one
    // whose sessions are gone.
    let difference = difference.filter(|_| rows.listed.is_some());
    let listed = rows.listed.unwrap_or_default();
    let end = End {
        sessions: out.sessions() + out.left_out(),
        difference: difference.map(|difference| difference.counts(out.sessions())),
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
    Ok((end, rows.cache_update))
}

struct Rows {
    /// `None` if the database has no session tables.
    listed: Option<ListSummary>,
    log_elsewhere: bool,
    /// Empty if the database has session tables.
    other_tables: Vec<String>,
    scan: Scan,
    cache_update: Option<CacheUpdate>,
}

fn send_rows<W: Write>(
    database: &Database,
    job: &ListJob,
    mut difference: Option<&mut Difference>,
    out: &mut Writer<W>,
) -> Result<Rows, RunError> {
    // Schema, marker and rows are read in one snapshot.
    let ScanResult {
        snapshot,
        schema,
        marked_sessions,
        scan,
        cache_update,
        degraded,
        full_scan_reason: _,
    } = marker::scan(database, &job.marker)?;
    let log_elsewhere = database.log_elsewhere();
    let Some(query) = ListQuery::new(&schema, job.filter)? else {
        return Ok(Rows {
            listed: None,
            log_elsewhere,
            other_tables: other_tables(&snapshot).map_err(StoreError::from)?,
            scan: Scan::NONE,
            cache_update: None,
        });
    };
    let mark = |id: &str| marked_sessions.is_marked(id);
    let mut listed = query.run(&snapshot, job.first_prompt_limit, mark, |id, line| {
        let is_known = |line: &[u8]| match &mut difference {
            Some(difference) => difference.has_line(id, line),
            None => false,
        };
        let written = out.session_line_unless(line, is_known);
        written.map_err(RunError::Write)
    })?;
    for session in difference.iter().flat_map(|difference| difference.gone()) {
        out.gone(session)?;
    }
    if let Some(reason) = degraded {
        listed.degraded.record(OptionalPart::Marked, &reason);
    }
    Ok(Rows {
        listed: Some(listed),
        log_elsewhere,
        other_tables: Vec::new(),
        scan,
        cache_update,
    })
}

/// Returns the names of the first tables of a database without sessions, except those in
/// which OpenCode records its migrations: they exist before any other table.
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
