//! The marked sessions by SQL, for databases and tables where nothing else is exact:
//! text in UTF-16, views, tables without a rowid, computed columns, more pages than can
//! be told apart, a log whose end is not known.
//!
//! It goes through the content in passes: each content table in the order of its rowids,
//! or, if it has none, each table of sessions. At the end of the budget the statement is
//! interrupted, and the next scan goes on after the last row that was done, as long as
//! nothing was committed meanwhile: what was found holds for one state of the database.
//! Where that state cannot be told from another (the log's end is not known), nothing is
//! remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};

use super::cache::SqlState;
use super::confirm::{Confirmer, MAX_LOADED_BYTES, like_pattern, text_ids};
use super::pages::BLOCKING_SLICE;
use super::scan::{Scanner, View};
use super::{ContentTable, Needle, content_tables, session_tables};
use crate::session::SessionId;
use crate::store::{Schema, StoreError, Table, WalPosition, quote_identifier};

/// A function for SQL: whether a value may hold the marker.
const MAY_HOLD: &str = "may_hold_marker";

/// A function for SQL: notes that the row with this rowid is read, and is true.
const NOTE: &str = "note_row";

/// So long is read at least, whatever the budget.
const LEAST: Duration = Duration::from_millis(5);

/// What came of it.
pub(super) struct Outcome {
    pub(super) state: SqlState,
    /// Something was read now.
    pub(super) has_read: bool,
    /// The state can be told from others of this database.
    pub(super) may_remember: bool,
    pub(super) progress: f64,
}

/// Makes these passes, and goes on with `earlier` if that is about this state of the
/// database.
pub(super) fn run(
    scanner: &mut Scanner<'_, '_>,
    view: &View<'_>,
    passes: &[Pass<'_>],
    earlier: Option<SqlState>,
) -> Result<Outcome, StoreError> {
    let key = view.key(scanner.marker)?;
    // Of a file that could change and keep its stamp nothing is remembered.
    let may_remember = key
        .as_ref()
        .is_some_and(|(_, end, stamp)| end.has_log() || stamp.is_settled());
    let mut state = match key {
        Some((key, end, stamp)) => earlier
            .filter(|earlier| earlier.is_about(&key, end, stamp))
            .unwrap_or_else(|| {
                SqlState::new(Some(key), end, Some(stamp).filter(|_| !end.has_log()))
            }),
        None => SqlState::new(None, WalPosition::NO_LOG, None),
    };
    let has_read = !state.complete;
    let until = scanner.until.map(|until| {
        let now = Instant::now();
        let least = until.max(now + LEAST);
        if view.snapshot.blocks_writers() {
            least.min(now + BLOCKING_SLICE)
        } else {
            least
        }
    });
    let reading = Reading::new(&view.snapshot, scanner.needle.clone(), until)?;
    let database = scanner.database;
    while let Some(pass) = passes.get(state.pass as usize) {
        reading.begin();
        let mut found = |id| {
            state.marked.insert(id);
        };
        let done = database.run_until(until, || {
            pass.run(scanner, view, state.after, &reading, &mut found)
        });
        match done {
            Ok(()) => {
                state.pass += 1;
                state.after = None;
            }
            Err(error) if error.is_interrupted() && until.is_some_and(is_past) => {
                state.after = reading.last_done(state.after);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    state.complete = state.pass as usize >= passes.len();
    scanner.bytes += reading.bytes.load(Ordering::Relaxed);
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are a dozen passes at most"
    )]
    let part = f64::from(state.pass) / passes.len().max(1) as f64;
    Ok(Outcome {
        progress: if state.complete { 1.0 } else { part.min(0.99) },
        state,
        has_read,
        may_remember,
    })
}

/// As SQLite says it.
fn interrupted() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None)
}

fn is_past(until: Instant) -> bool {
    Instant::now() >= until
}

/// One pass.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pass<'s> {
    /// Through the rows of a content table, which has this name for its rowid: those
    /// that hold the marker's bytes are confirmed.
    Rows(ContentTable<'s>, &'s str),
    /// Through the same, where only `LIKE` knows, for one table of sessions.
    Like(ContentTable<'s>, &'s str, &'s Table),
    /// Through a table of sessions, each of which is looked for in the content.
    Sessions(ContentTable<'s>, &'s Table, &'s str),
}

/// Those through all content.
pub(super) fn passes(schema: &Schema) -> Vec<Pass<'_>> {
    passes_through(schema, |_| true)
}

/// Those through the content tables whose rows are not what is on their pages.
pub(super) fn passes_beside_pages(schema: &Schema) -> Vec<Pass<'_>> {
    passes_through(schema, |content| content.stored_rowid().is_none())
}

fn passes_through<'s>(
    schema: &'s Schema,
    is_wanted: impl Fn(&ContentTable<'s>) -> bool,
) -> Vec<Pass<'s>> {
    let mut passes = Vec::new();
    for content in content_tables(schema).filter(is_wanted) {
        match content.table.rowid() {
            // Cells of a table that computes a column cannot be read in pieces, and a BLOB
            // in a database of UTF-16 reads as UTF-16.
            Some(rowid) if schema.is_utf8 && !content.table.has_generated_column() => {
                passes.push(Pass::Rows(content, rowid));
            }
            Some(rowid) => passes.extend(
                session_tables(schema).map(|sessions| Pass::Like(content, rowid, sessions)),
            ),
            None => {
                passes.extend(session_tables(schema).filter_map(|sessions| {
                    Some(Pass::Sessions(content, sessions, sessions.rowid()?))
                }));
            }
        }
    }
    passes
}

impl Pass<'_> {
    /// Calls `found` with the id of each session that the rows after `after` mark.
    fn run(
        self,
        scanner: &Scanner<'_, '_>,
        view: &View<'_>,
        after: Option<i64>,
        reading: &Reading,
        found: &mut impl FnMut(String),
    ) -> Result<(), StoreError> {
        let (conn, schema): (&Connection, _) = (&view.snapshot, &view.schema);
        let pattern = like_pattern(scanner.marker);
        let range = |row: &str| match after {
            Some(after) => format!("{row} > {after} AND {NOTE}({row})"),
            None => format!("{NOTE}({row})"),
        };
        let id = format!("octet_length(s.id) <= {}", SessionId::MAX_BYTES);
        match self {
            Self::Rows(content, rowid) => {
                let name = quote_identifier(&content.table.name);
                let column = content.column;
                let mut confirmer = Confirmer::new(
                    conn,
                    schema,
                    content,
                    rowid,
                    scanner.marker,
                    &scanner.needle,
                )?;
                // `octet_length` of a column does not load it.
                let mut candidates = conn.prepare(&format!(
                    "SELECT x.{rowid}, octet_length(x.{column}) FROM {name} AS x NOT INDEXED \
                     WHERE {} AND CASE WHEN octet_length(x.{column}) > {MAX_LOADED_BYTES} THEN 1 \
                     ELSE {MAY_HOLD}(x.{column}) END",
                    range(&format!("x.{rowid}"))
                ))?;
                let mut rows = candidates.query([])?;
                while let Some(row) = rows.next()? {
                    let (rowid, size): (i64, i64) = (row.get(0)?, row.get(1)?);
                    let is_large = size > i64::from(MAX_LOADED_BYTES);
                    if is_large {
                        reading.add_bytes(size.unsigned_abs());
                    }
                    confirmer.confirm(rowid, is_large, found)?;
                }
            }
            Self::Like(content, rowid, sessions) => {
                let mut ids = conn.prepare(&format!(
                    "SELECT s.id FROM {} AS x NOT INDEXED CROSS JOIN {} AS s \
                     ON x.session_id = s.id \
                     WHERE {} AND {id} AND x.{} LIKE ?1 ESCAPE '\\'",
                    quote_identifier(&content.table.name),
                    quote_identifier(&sessions.name),
                    range(&format!("x.{rowid}")),
                    content.column,
                ))?;
                text_ids(ids.query([&pattern])?, found)?;
            }
            Self::Sessions(content, sessions, rowid) => {
                let mut ids = conn.prepare(&format!(
                    "SELECT s.id FROM {} AS s NOT INDEXED WHERE {} AND {id} AND EXISTS \
                     (SELECT 1 FROM {} AS x WHERE x.session_id = s.id \
                      AND x.{} LIKE ?1 ESCAPE '\\')",
                    quote_identifier(&sessions.name),
                    range(&format!("s.{rowid}")),
                    quote_identifier(&content.table.name),
                    content.column,
                ))?;
                text_ids(ids.query([&pattern])?, found)?;
            }
        }
        Ok(())
    }
}

/// What the functions for SQL note.
struct Reading {
    bytes: Arc<AtomicU64>,
    row: Arc<Row>,
}

/// The row that is being read, if there is one.
#[derive(Default)]
struct Row {
    any: AtomicBool,
    rowid: AtomicI64,
}

impl Reading {
    /// Adds the functions to a connection. A view or an index expression of the database
    /// cannot call them.
    ///
    /// Between two rows the time is looked at, which SQLite does between many
    /// instructions only: rows can be large.
    fn new(conn: &Connection, needle: Needle, until: Option<Instant>) -> Result<Self, StoreError> {
        let reading = Self {
            bytes: Arc::default(),
            row: Arc::default(),
        };
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        let bytes = Arc::clone(&reading.bytes);
        conn.create_scalar_function(
            MAY_HOLD,
            1,
            flags | FunctionFlags::SQLITE_DETERMINISTIC,
            move |call| {
                Ok(match call.get_raw(0) {
                    ValueRef::Text(value) | ValueRef::Blob(value) => {
                        bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
                        needle.is_in(value)
                    }
                    ValueRef::Null => false,
                    // Its digits could be the marker's.
                    ValueRef::Integer(_) | ValueRef::Real(_) => true,
                })
            },
        )?;
        let row = Arc::clone(&reading.row);
        conn.create_scalar_function(NOTE, 1, flags, move |call| {
            row.rowid.store(call.get(0)?, Ordering::Relaxed);
            // But one row at least is read.
            let is_first = !row.any.swap(true, Ordering::Relaxed);
            match until {
                Some(until) if !is_first && is_past(until) => Err(interrupted()),
                _ => Ok(true),
            }
        })?;
        Ok(reading)
    }

    /// A statement begins.
    fn begin(&self) {
        self.row.any.store(false, Ordering::Relaxed);
    }

    fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The last row that is done: that before the one that is being read, or `before`.
    fn last_done(&self, before: Option<i64>) -> Option<i64> {
        match self.row.any.load(Ordering::Relaxed) {
            true => self.row.rowid.load(Ordering::Relaxed).checked_sub(1),
            false => before,
        }
    }
}
