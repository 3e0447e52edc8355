//! One look-up: opens the database and writes one answer per id.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use super::listing::{RunError, RunStatus, other_tables};
use crate::session::SessionId;
use crate::store::{Database, Finder, LookUpQuery, OpenOptions, Opened, Schema, StoreError};
use crate::wire::{Answer, AnswersEnd, DatabaseState, LookUp, Unresolved, Writer};

/// One look-up to run.
#[derive(Debug, Clone)]
pub(crate) struct LookUpJob {
    /// The database; `None` if there is none to read.
    pub db: Option<PathBuf>,
    /// What to find for each id.
    pub what: LookUp,
    /// The ids.
    pub ids: Vec<SessionId>,
    /// How to open the database.
    pub open: OpenOptions,
    /// The maximum length of a first prompt in characters.
    pub first_prompt_limit: usize,
}

/// Writes one look-up, from the line after the `hello` to the last line.
///
/// An error of the database becomes an `error` line.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(crate) fn look_up<W: Write>(job: &LookUpJob, mut out: Writer<W>) -> io::Result<RunStatus> {
    let started = Instant::now();
    match answer_all(job, &mut out) {
        Ok((database, other_tables)) => {
            out.end_answers(&AnswersEnd {
                answers: job.ids.len() as u64,
                database,
                other_tables,
                elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            })?;
            Ok(RunStatus::Complete)
        }
        Err(error) => error.end(job.db.as_deref(), out),
    }
}

/// The state of the database, and the names of its tables if it has no session tables.
type DatabaseSummary = (DatabaseState, Vec<String>);

fn answer_all<W: Write>(job: &LookUpJob, out: &mut Writer<W>) -> Result<DatabaseSummary, RunError> {
    let opened = match &job.db {
        Some(path) => Database::open(path, &job.open)?,
        None => Opened::Missing,
    };
    let state = match opened {
        Opened::Ready(database) => {
            let summary = answer_from(&database, job, out)?;
            database.close()?;
            return Ok(summary);
        }
        Opened::Missing => DatabaseState::Missing,
        Opened::Young => DatabaseState::Young,
        Opened::Empty => DatabaseState::Empty,
    };
    for id in &job.ids {
        out.answer(&absent(job.what, id))?;
    }
    Ok((state, Vec::new()))
}

fn answer_from<W: Write>(
    database: &Database,
    job: &LookUpJob,
    out: &mut Writer<W>,
) -> Result<DatabaseSummary, RunError> {
    // All answers are read in one snapshot.
    let snapshot = database.begin()?;
    let schema = Schema::read(&snapshot)?;
    let query = LookUpQuery::new(&schema)?;
    let mut finder = Finder::new(&snapshot, &query, job.first_prompt_limit)?;
    for id in &job.ids {
        out.answer(&find(&mut finder, job.what, id)?)?;
    }
    Ok(match query.is_empty() {
        true => {
            let tables = other_tables(&snapshot).map_err(StoreError::from)?;
            (DatabaseState::Empty, tables)
        }
        false => (DatabaseState::Ready, Vec::new()),
    })
}

fn find(finder: &mut Finder<'_>, what: LookUp, id: &SessionId) -> Result<Answer, StoreError> {
    Ok(match what {
        LookUp::Get => match finder.session(id)? {
            Some(session) => Answer::Session(Box::new(session)),
            None => absent(what, id),
        },
        LookUp::Roots => match finder.root(id)? {
            Ok(root) => Answer::Root {
                id: id.clone(),
                root,
                directory: finder.directory(id)?,
            },
            Err(reason) => Answer::Unresolved {
                id: id.clone(),
                reason,
            },
        },
    })
}

fn absent(what: LookUp, id: &SessionId) -> Answer {
    let id = id.clone();
    match what {
        LookUp::Get => Answer::Absent { id },
        LookUp::Roots => Answer::Unresolved {
            id,
            reason: Unresolved::Absent,
        },
    }
}
