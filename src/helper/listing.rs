//! One listing: open, look at the schema, find the marker, send the rows.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use crate::marker;
use crate::store::{Database, Filter, Listed, OpenOptions, Opened, Query, Schema, StoreError};
use crate::wire::{DatabaseState, End, ErrorKind, Failure, MarkerText, Scan, WriteError, Writer};

/// What to list, and how.
#[derive(Debug, Clone)]
pub struct Task {
    /// The database; `None` where there is nothing to read.
    pub db: Option<PathBuf>,
    /// The marker to look for, if any.
    pub marker: Option<MarkerText>,
    /// Which sessions.
    pub filter: Filter,
    /// How to open the database.
    pub open: OpenOptions,
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
/// Only where `out` fails. A database that fails is an `error` line.
pub fn list<W: Write>(task: &Task, mut out: Writer<W>) -> io::Result<Ended> {
    let failure = match read(task, &mut out) {
        Ok(end) => {
            out.end(end)?;
            return Ok(Ended::Complete);
        }
        Err(ListError::Write(WriteError::Io(error))) => return Err(error),
        Err(ListError::Write(error @ WriteError::TooLarge(_))) => Failure {
            kind: ErrorKind::Internal,
            message: error.to_string(),
        },
        Err(ListError::Store(error)) => {
            error.failure(task.db.as_deref().unwrap_or("no database".as_ref()))
        }
    };
    let kind = failure.kind;
    out.error(failure)?;
    Ok(Ended::Failed(kind))
}

enum ListError {
    Store(StoreError),
    Write(WriteError),
}

impl From<StoreError> for ListError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<WriteError> for ListError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

fn read<W: Write>(task: &Task, out: &mut Writer<W>) -> Result<End, ListError> {
    let started = Instant::now();
    let opened = match &task.db {
        Some(path) => Database::open(path, &task.open)?,
        None => Opened::Missing,
    };
    let (state, listed, scan) = match opened {
        Opened::Missing => (DatabaseState::Missing, None, Scan::NONE),
        Opened::Young => (DatabaseState::Young, None, Scan::NONE),
        Opened::Empty => (DatabaseState::Empty, None, Scan::NONE),
        Opened::Ready(database) => {
            let (listed, scan) = rows(&database, task, out)?;
            database.close()?;
            let state = match listed {
                Some(_) => DatabaseState::Ready,
                None => DatabaseState::Empty,
            };
            (state, listed, scan)
        }
    };
    let listed = listed.unwrap_or_default();
    Ok(End {
        sessions: out.sessions(),
        database: state,
        tables: Some(listed.table)
            .filter(|table| !table.is_empty())
            .into_iter()
            .collect(),
        flat: listed.flat,
        skipped: listed.skipped,
        scan,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// `None` where there are no session tables.
fn rows<W: Write>(
    database: &Database,
    task: &Task,
    out: &mut Writer<W>,
) -> Result<(Option<Listed>, Scan), ListError> {
    // One transaction: schema, marker and rows are of the same moment.
    let transaction = database.begin()?;
    let schema = Schema::read(&transaction)?;
    let Some(query) = Query::new(&schema, task.filter)? else {
        return Ok((None, Scan::NONE));
    };
    let (marks, scan) = marker::scan(&transaction, &schema, task.marker.as_ref())?;
    let listed = query.run(&transaction, |mut session| {
        session.marked = marks.of(&session.id);
        out.session(session).map_err(ListError::Write)
    })?;
    Ok((Some(listed), scan))
}
