//! A listing has the lines that it had when each row was read by itself ([`crate::oracle`]), byte
//! for byte, whatever the schema and the rows are ([`crate::odd`]).

use std::io::{self, Write};
use std::time::{Duration, Instant};

use opencode_sessions::internals::store::{Filter, ListQuery, ListSummary, Schema, StoreError};
use opencode_sessions::internals::wire::{Degraded, Message, Skipped, WriteError, Writer};
use opencode_sessions::session::Session;
use rusqlite::Connection;
use serde::Serialize as _;
use serde_json::ser::{Formatter, Serializer};

use crate::odd::{self, Random};
use crate::oracle;
use crate::support;
use crate::text::is_unsafe_on_terminal;

/// The variable with the number of databases of a longer run.
const COUNT: &str = "OPENCODE_SESSIONS_ODD_DATABASES";

/// The variable with the first seed of a run.
const FIRST: &str = "OPENCODE_SESSIONS_ODD_FIRST";

const FILTERS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// What a listing says, or why it fails.
#[derive(Debug, PartialEq)]
enum Listed {
    Complete {
        lines: String,
        tables: Vec<String>,
        flat: bool,
        skipped: Skipped,
        degraded: Vec<Degraded>,
    },
    NoTables,
    Failed(String),
}

/// Marks some sessions.
fn mark(id: &str) -> Option<bool> {
    [None, Some(true), Some(false)][id.len() % 3]
}

#[derive(Debug)]
enum Error {
    Store(StoreError),
    Write(WriteError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Error {
    fn listed(self) -> Listed {
        match self {
            Self::Store(error) => Listed::Failed(error.to_string()),
            Self::Write(error) => panic!("{error}"),
        }
    }
}

fn listed(conn: &Connection, filter: Filter, prompt_limit: usize) -> Listed {
    let list = || {
        let schema = Schema::read(conn)?;
        let Some(query) = ListQuery::new(&schema, filter)? else {
            return Ok(None);
        };
        let mut lines = Vec::new();
        let mut writer = Writer::new(&mut lines);
        let summary = query.run(conn, prompt_limit, |mut session| {
            session.marked = mark(session.id);
            writer.session(session).map_err(Error::Write)
        })?;
        Ok(Some((lines, summary)))
    };
    match list() {
        Err(error) => Error::listed(error),
        Ok(None) => Listed::NoTables,
        Ok(Some((lines, summary))) => {
            let ListSummary {
                tables,
                flat,
                skipped,
                degraded,
            } = summary;
            Listed::Complete {
                lines: String::from_utf8(lines).unwrap(),
                tables,
                flat,
                skipped,
                degraded: degraded.into_vec(),
            }
        }
    }
}

/// What the oracle says.
fn expected(conn: &Connection, filter: Filter, prompt_limit: usize) -> Listed {
    let list = || {
        let schema = Schema::read(conn)?;
        let Some(query) = oracle::ListQuery::new(&schema, filter)? else {
            return Ok(None);
        };
        let mut lines = Vec::new();
        let summary = query.run(conn, prompt_limit, |mut session| {
            session.marked = mark(session.id.as_str());
            write_line(session, &mut lines);
            Ok::<_, Error>(())
        })?;
        Ok(Some((lines, summary)))
    };
    match list() {
        Err(error) => Error::listed(error),
        Ok(None) => Listed::NoTables,
        Ok(Some((lines, summary))) => {
            let oracle::ListSummary {
                tables,
                flat,
                skipped,
                degraded,
            } = summary;
            Listed::Complete {
                lines: String::from_utf8(lines).unwrap(),
                tables,
                flat,
                skipped,
                degraded: degraded.into_vec(),
            }
        }
    }
}

fn write_line(session: Session, lines: &mut Vec<u8>) {
    let mut serializer = Serializer::with_formatter(&mut *lines, TerminalSafe);
    let message = Message::Session(Box::new(session));
    message.serialize(&mut serializer).unwrap();
    lines.push(b'\n');
}

/// Escapes what a terminal interprets.
struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for c in fragment.chars() {
            match is_unsafe_on_terminal(c) {
                true => write!(writer, "\\u{:04x}", u32::from(c))?,
                false => write!(writer, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Fails if a listing of the database differs from what the oracle says. Returns how many
/// listings had a session.
fn assert_same(open: impl Fn() -> Connection, prompt_limit: usize, what: &str) -> usize {
    let mut with_sessions = 0;
    for (children, archived) in FILTERS {
        let filter = Filter { children, archived };
        // Each has its own connection: a page that one has read is not checked for another.
        let (found, expected) = (
            listed(&open(), filter, prompt_limit),
            expected(&open(), filter, prompt_limit),
        );
        if found != expected {
            for (found, expected) in lines_of(&found).zip(lines_of(&expected)) {
                assert_eq!(found, expected, "{what}, {filter:?}");
            }
            panic!("{what}, {filter:?}: found {found:?}, not {expected:?}");
        }
        with_sessions += usize::from(lines_of(&found).next().is_some());
    }
    with_sessions
}

fn lines_of(listed: &Listed) -> impl Iterator<Item = &str> {
    match listed {
        Listed::Complete { lines, .. } => lines.lines(),
        _ => "".lines(),
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap())
}

#[test]
fn lines_of_odd_databases_are_those_of_the_oracle() {
    let _limit = support::limit(600);
    let (count, first) = (number(COUNT).unwrap_or(2_000), number(FIRST).unwrap_or(1));
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let started = Instant::now();
    let mut with_sessions = 0;
    for seed in first..first + count {
        let mut random = Random::new(seed);
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off; BEGIN")
            .unwrap();
        odd::fill(&conn, &mut random);
        conn.execute_batch("COMMIT").unwrap();
        conn.close().unwrap();
        let prompt_limit = *random.pick(&[1, 200, 4000]);
        let what = format!("{FIRST}={seed}");
        with_sessions += assert_same(|| Connection::open(&db).unwrap(), prompt_limit, &what);
        std::fs::remove_file(&db).unwrap();
    }
    let took = started.elapsed();
    println!("{count} databases from {FIRST}={first}, {with_sessions} listings, {took:?}");
    let listings = usize::try_from(count).unwrap() * FILTERS.len();
    assert!(
        with_sessions > listings / 2,
        "{with_sessions} of {listings}"
    );
    assert!(took < Duration::from_secs(600));
}
