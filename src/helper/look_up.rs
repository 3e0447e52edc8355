//! One look-up: open, and answer for each id in turn.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use super::listing::{Ended, Trouble, other_tables};
use crate::session::SessionId;
use crate::store::{Database, Finder, LookUpQuery, OpenOptions, Opened, Schema, StoreError};
use crate::wire::{Answer, AnswersEnd, DatabaseState, LookUp, Unresolved, Writer};

/// What to look up, and where.
#[derive(Debug, Clone)]
pub struct Task {
    /// The database; `None` where there is nothing to read.
    pub db: Option<PathBuf>,
    /// What is asked of each id.
    pub what: LookUp,
    /// The ids.
    pub ids: Vec<SessionId>,
    /// How to open the database.
    pub open: OpenOptions,
    /// The most characters of a first prompt.
    pub first_prompt_limit: usize,
}

/// Writes the answers after the `hello`, down to the last line.
///
/// # Errors
///
/// Only where `out` fails. A database that fails is an `error` line.
pub fn look_up<W: Write>(task: &Task, mut out: Writer<W>) -> io::Result<Ended> {
    let started = Instant::now();
    match answer(task, &mut out) {
        Ok((database, other_tables)) => {
            out.end_answers(&AnswersEnd {
                answers: task.ids.len() as u64,
                database,
                other_tables,
                elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            })?;
            Ok(Ended::Complete)
        }
        Err(error) => error.end(task.db.as_deref(), out),
    }
}

/// The state of the database, and the tables that it has where it has none of sessions.
type Found = (DatabaseState, Vec<String>);

fn answer<W: Write>(task: &Task, out: &mut Writer<W>) -> Result<Found, Trouble> {
    let opened = match &task.db {
        Some(path) => Database::open(path, &task.open)?,
        None => Opened::Missing,
    };
    let state = match opened {
        Opened::Ready(database) => {
            let found = answer_from(&database, task, out)?;
            database.close()?;
            return Ok(found);
        }
        Opened::Missing => DatabaseState::Missing,
        Opened::Young => DatabaseState::Young,
        Opened::Empty => DatabaseState::Empty,
    };
    for id in &task.ids {
        out.answer(&absent(task.what, id))?;
    }
    Ok((state, Vec::new()))
}

fn answer_from<W: Write>(
    database: &Database,
    task: &Task,
    out: &mut Writer<W>,
) -> Result<Found, Trouble> {
    // One snapshot: all answers are of the same moment.
    let snapshot = database.begin()?;
    let schema = Schema::read(&snapshot)?;
    let query = LookUpQuery::new(&schema)?;
    let mut finder = Finder::new(&snapshot, &query, task.first_prompt_limit)?;
    for id in &task.ids {
        out.answer(&one(&mut finder, task.what, id)?)?;
    }
    Ok(match query.is_empty() {
        true => {
            let tables = other_tables(&snapshot).map_err(StoreError::from)?;
            (DatabaseState::Empty, tables)
        }
        false => (DatabaseState::Ready, Vec::new()),
    })
}

fn one(finder: &mut Finder<'_>, what: LookUp, id: &SessionId) -> Result<Answer, StoreError> {
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
