//! A listing has the lines that it had when each row was read by itself ([`crate::oracle`]), byte
//! for byte, whatever the schema and the rows are ([`crate::odd`]).

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

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
        let summary = query.run(conn, prompt_limit, mark, |_, line| {
            writer.session_line(line).map_err(Error::Write)
        })?;
        let ListSummary {
            tables,
            flat,
            skipped,
            degraded,
        } = summary;
        Ok(Some(Listed::Complete {
            lines: String::from_utf8(lines).unwrap(),
            tables,
            flat,
            skipped,
            degraded: degraded.into_vec(),
        }))
    };
    list().map_or_else(Error::listed, |listed| listed.unwrap_or(Listed::NoTables))
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
        let oracle::ListSummary {
            tables,
            flat,
            skipped,
            degraded,
        } = summary;
        Ok(Some(Listed::Complete {
            lines: String::from_utf8(lines).unwrap(),
            tables,
            flat,
            skipped,
            degraded: degraded.into_vec(),
        }))
    };
    list().map_or_else(Error::listed, |listed| listed.unwrap_or(Listed::NoTables))
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

/// Fails if the listing of a database differs from what the oracle says. Each has its own
/// connection if the database is damaged, because a page that one has read is not checked for
/// another. Returns true if a session is listed.
fn assert_same(
    [first, second]: [&Connection; 2],
    filter: Filter,
    limit: usize,
    what: &str,
) -> bool {
    let (found, expected) = (
        listed(first, filter, limit),
        expected(second, filter, limit),
    );
    if found != expected {
        for (found, expected) in lines_of(&found).zip(lines_of(&expected)) {
            assert_eq!(found, expected, "{what}");
        }
        panic!("{what}: found {found:?}, not {expected:?}");
    }
    lines_of(&found).next().is_some()
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

/// The seeds of a run, of which there are so many unless a variable says otherwise.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let first = number(FIRST).unwrap_or(1);
    first..first + number(COUNT).unwrap_or(count)
}

fn any_filter(random: &mut Random) -> Filter {
    Filter {
        children: random.one_in(2),
        archived: random.one_in(2),
    }
}

#[test]
fn lines_of_odd_databases_are_those_of_the_oracle() {
    let _limit = support::limit(600);
    let started = Instant::now();
    let mut with_sessions = 0;
    let seeds = seeds(2_000);
    for seed in seeds.clone() {
        let mut random = Random::new(seed);
        let conn = Connection::open_in_memory().unwrap();
        odd::fill(&conn, &mut random);
        let (filter, limit) = (any_filter(&mut random), *random.pick(&[1, 200, 4000]));
        let what = format!("{FIRST}={seed}, {filter:?}");
        with_sessions += u64::from(assert_same([&conn, &conn], filter, limit, &what));
    }
    let count = seeds.end - seeds.start;
    println!(
        "{count} databases from {FIRST}={}, {with_sessions} with sessions: {:?}",
        seeds.start,
        started.elapsed()
    );
    assert!(with_sessions > count / 2, "{with_sessions} of {count}");
}

/// A database in a file, so that its pages can be damaged.
struct OnDisk {
    db: PathBuf,
    page_size: usize,
}

impl OnDisk {
    fn fill(db: PathBuf, random: &mut Random) -> Self {
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off; BEGIN")
            .unwrap();
        odd::fill(&conn, random);
        conn.execute_batch("COMMIT").unwrap();
        let page_size: i64 = conn
            .query_row("PRAGMA page_size", [], |row| row.get(0))
            .unwrap();
        conn.close().unwrap();
        Self {
            db,
            page_size: usize::try_from(page_size).unwrap(),
        }
    }

    fn open(&self) -> Connection {
        let conn = Connection::open(&self.db).unwrap();
        conn.execute_batch("PRAGMA cell_size_check = true").unwrap();
        conn
    }

    /// Returns the pages of what a listing can do without, from 1.
    fn optional_pages(&self) -> Vec<usize> {
        let conn = self.open();
        let sql = "SELECT pageno FROM dbstat WHERE lower(name) NOT IN
                   ('sqlite_schema', 'sqlite_master', 'session', 'session_v2')";
        let mut pages = conn.prepare(sql).unwrap();
        let pages = pages.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        pages
            .map(|page| usize::try_from(page.unwrap()).unwrap())
            .collect()
    }

    fn damage(&self, random: &mut Random) {
        let pages = self.optional_pages();
        let mut bytes = fs::read(&self.db).unwrap();
        for _ in 0..1 + random.below(4) {
            if pages.is_empty() {
                return;
            }
            let start = (random.pick(&pages) - 1) * self.page_size;
            let page = &mut bytes[start..start + self.page_size];
            match random.below(4) {
                0 => page.fill(0),
                1 => page.fill_with(|| random.next().to_le_bytes()[0]),
                2 => page[..12].fill_with(|| random.next().to_le_bytes()[0]),
                _ => page[random.below(self.page_size)] ^= 1 << random.below(8),
            }
        }
        fs::write(&self.db, bytes).unwrap();
    }
}

/// The pages of the session tables themselves are whole: where they are not, one statement can
/// find rows that a seek does not find.
#[test]
fn lines_despite_damage_are_those_of_the_oracle() {
    let _limit = support::limit(600);
    let directory = tempfile::tempdir().unwrap();
    let mut degraded = 0;
    for seed in seeds(400) {
        let mut random = Random::new(seed);
        let on_disk = OnDisk::fill(directory.path().join(seed.to_string()), &mut random);
        on_disk.damage(&mut random);
        let filter = any_filter(&mut random);
        let what = format!("{FIRST}={seed}, {filter:?}");
        assert_same([&on_disk.open(), &on_disk.open()], filter, 200, &what);
        if let Listed::Complete {
            degraded: parts, ..
        } = listed(&on_disk.open(), filter, 200)
        {
            degraded += u64::from(!parts.is_empty());
        }
        fs::remove_file(&on_disk.db).unwrap();
    }
    println!("{degraded} listings lack something");
    assert!(degraded > 20, "{degraded}");
}

/// More than the rows that are kept in memory, and many with a large cell.
#[test]
fn lines_of_large_rows_are_those_of_the_oracle() {
    let _limit = support::limit(120);
    for large_cells in [0, 1, 100] {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(support::SCHEMA).unwrap();
        conn.execute_batch(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
             INSERT INTO session (id, project_id, slug, directory, title, version, agent,
                 share_url, time_created, time_updated)
               SELECT printf('ses_%03d', i), printf('%.4000c', 'p'), printf('%.4000c', 's'),
                 '/' || printf('%.4096c', 'd'), CASE WHEN i % 100 < {large_cells}
                 THEN printf('%.70000c', 't') ELSE 'A title' END, printf('%.4000c', 'v'),
                 printf('%.4000c', 'a'), printf('%.4000c', 'u'), i, (i * 7919) % 600 FROM n"
        ))
        .unwrap();
        for filter in [false, true].map(|all| Filter {
            children: all,
            archived: all,
        }) {
            assert!(assert_same(
                [&conn, &conn],
                filter,
                200,
                &large_cells.to_string()
            ));
        }
    }
}
