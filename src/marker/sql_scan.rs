//! Finds the marked sessions by SQL, for databases and tables for which no other way is
//! exact: text in UTF-16, views, tables without a rowid, generated columns, too many
//! pages to tell their kinds apart, a log with an unknown end.
//!
//! The scan reads the content in passes: each content table in the order of its rowids,
//! or, if it has no rowid, each session table. At the end of the budget the statement is
//! interrupted. The next scan continues after the last row that was done, as long as
//! nothing was committed meanwhile: what was found is valid for one state of the database
//! only. If that state cannot be identified (the end of the log is unknown), nothing is
//! cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};

use super::cache::SqlState;
use super::confirm::{Confirmer, MAX_LOADED_BYTES, for_each_text_id, like_pattern};
use super::pages::BLOCKING_SLICE;
use super::scanner::{Scanner, SnapshotView};
use super::{ContentTable, Needle, content_tables, session_tables};
use crate::session::SessionId;
use crate::store::{Schema, StoreError, Table, WalPosition, quote_identifier};

/// An SQL function that returns whether a value may contain the marker.
const MAY_HOLD_MARKER: &str = "may_hold_marker";

/// An SQL function that records that the row with this rowid is being read, and returns
/// true.
const NOTE_ROW: &str = "note_row";

/// How long the scan reads at least, whatever the budget.
const MIN_BUDGET: Duration = Duration::from_millis(5);

/// The result of a scan by SQL.
pub(super) struct SqlScan {
    pub(super) state: SqlState,
    pub(super) has_read: bool,
    /// Whether the state of the database can be identified, so that the result may be
    /// cached.
    pub(super) is_cacheable: bool,
    pub(super) progress: f64,
}

/// Runs these passes. Continues from `earlier` if that is of this state of the database.
pub(super) fn run_passes(
    scanner: &mut Scanner<'_, '_>,
    view: &SnapshotView<'_>,
    passes: &[Pass<'_>],
    earlier: Option<SqlState>,
) -> Result<SqlScan, StoreError> {
    let key = view.key(scanner.marker)?;
    // Nothing is cached for a file that could change and keep its stamp.
    let is_cacheable = key
        .as_ref()
        .is_some_and(|(_, end, stamp)| end.has_log() || stamp.is_settled());
    let mut state = match key {
        Some((key, end, stamp)) => earlier
            .filter(|earlier| earlier.matches(&key, end, stamp))
            .unwrap_or_else(|| {
                SqlState::new(Some(key), end, Some(stamp).filter(|_| !end.has_log()))
            }),
        None => SqlState::new(None, WalPosition::NO_LOG, None),
    };
    let has_read = !state.is_complete;
    let deadline = scanner.budget_end.map(|budget_end| {
        let now = Instant::now();
        let deadline = budget_end.max(now + MIN_BUDGET);
        if view.snapshot.blocks_writers() {
            deadline.min(now + BLOCKING_SLICE)
        } else {
            deadline
        }
    });
    let tracker = ReadTracker::new(&view.snapshot, scanner.needle.clone(), deadline)?;
    let database = scanner.database;
    while let Some(pass) = passes.get(state.pass_index as usize) {
        tracker.reset_row();
        let mut found = |id| {
            state.marked.insert(id);
        };
        let result = database.run_until(deadline, || {
            pass.run(scanner, view, state.last_rowid, &tracker, &mut found)
        });
        match result {
            Ok(()) => {
                state.pass_index += 1;
                state.last_rowid = None;
            }
            Err(error) if error.is_interrupted() && deadline.is_some_and(is_past) => {
                state.last_rowid = tracker.last_done(state.last_rowid);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    state.is_complete = state.pass_index as usize >= passes.len();
    scanner.bytes_read += tracker.bytes.load(Ordering::Relaxed);
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are a dozen passes at most"
    )]
    let progress = f64::from(state.pass_index) / passes.len().max(1) as f64;
    Ok(SqlScan {
        progress: if state.is_complete {
            1.0
        } else {
            progress.min(0.99)
        },
        state,
        has_read,
        is_cacheable,
    })
}

/// Returns the error that SQLite returns for an interrupted statement.
fn interrupted_error() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None)
}

fn is_past(deadline: Instant) -> bool {
    Instant::now() >= deadline
}

/// One pass over the content.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pass<'s> {
    /// Over the rows of a content table with this rowid name. Rows that contain the bytes
    /// of the marker are confirmed.
    Rows(ContentTable<'s>, &'s str),
    /// Over the same rows, but with `LIKE` for each row, for one session table.
    Like(ContentTable<'s>, &'s str, &'s Table),
    /// Over the rows of a session table, each of which is searched for in the content.
    Sessions(ContentTable<'s>, &'s Table, &'s str),
}

/// Returns the passes over all content.
pub(super) fn passes(schema: &Schema) -> Vec<Pass<'_>> {
    passes_through(schema, |_| true)
}

/// Returns the passes over the content tables whose rows read as something other than
/// what their pages store.
pub(super) fn supplementary_passes(schema: &Schema) -> Vec<Pass<'_>> {
    passes_through(schema, |content| content.stored_rowid().is_none())
}

fn passes_through<'s>(
    schema: &'s Schema,
    is_wanted: impl Fn(&ContentTable<'s>) -> bool,
) -> Vec<Pass<'s>> {
    let mut passes = Vec::new();
    for content in content_tables(schema).filter(is_wanted) {
        match content.table.rowid() {
            // Cells of a table with a generated column cannot be read in pieces. In a
            // UTF-16 database, SQLite reads a BLOB as UTF-16.
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
    /// Calls `found` with the id of each session that is marked by a row after the rowid
    /// `after`.
    fn run(
        self,
        scanner: &Scanner<'_, '_>,
        view: &SnapshotView<'_>,
        after: Option<i64>,
        tracker: &ReadTracker,
        found: &mut impl FnMut(String),
    ) -> Result<(), StoreError> {
        let (conn, schema): (&Connection, _) = (&view.snapshot, &view.schema);
        let pattern = like_pattern(scanner.marker);
        let range = |row: &str| match after {
            Some(after) => format!("{row} > {after} AND {NOTE_ROW}({row})"),
            None => format!("{NOTE_ROW}({row})"),
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
                     ELSE {MAY_HOLD_MARKER}(x.{column}) END",
                    range(&format!("x.{rowid}"))
                ))?;
                let mut rows = candidates.query([])?;
                while let Some(row) = rows.next()? {
                    let (rowid, size_bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
                    let is_large = size_bytes > i64::from(MAX_LOADED_BYTES);
                    if is_large {
                        tracker.add_bytes(size_bytes.unsigned_abs());
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
                for_each_text_id(ids.query([&pattern])?, found)?;
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
                for_each_text_id(ids.query([&pattern])?, found)?;
            }
        }
        Ok(())
    }
}

/// What the SQL functions record.
struct ReadTracker {
    bytes: Arc<AtomicU64>,
    row: Arc<CurrentRow>,
}

/// The row that is being read, if any.
#[derive(Default)]
struct CurrentRow {
    is_set: AtomicBool,
    rowid: AtomicI64,
}

impl ReadTracker {
    /// Adds the functions to a connection. A view or an index expression of the database
    /// cannot call them.
    ///
    /// `note_row` checks the time between two rows. SQLite's progress handler does so
    /// only after many instructions, and rows can be large.
    fn new(
        conn: &Connection,
        needle: Needle,
        deadline: Option<Instant>,
    ) -> Result<Self, StoreError> {
        let tracker = Self {
            bytes: Arc::default(),
            row: Arc::default(),
        };
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        let bytes = Arc::clone(&tracker.bytes);
        conn.create_scalar_function(
            MAY_HOLD_MARKER,
            1,
            flags | FunctionFlags::SQLITE_DETERMINISTIC,
            move |call| {
                Ok(match call.get_raw(0) {
                    ValueRef::Text(value) | ValueRef::Blob(value) => {
                        bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
                        needle.is_in(value)
                    }
                    ValueRef::Null => false,
                    // The digits could match the marker.
                    ValueRef::Integer(_) | ValueRef::Real(_) => true,
                })
            },
        )?;
        let row = Arc::clone(&tracker.row);
        conn.create_scalar_function(NOTE_ROW, 1, flags, move |call| {
            row.rowid.store(call.get(0)?, Ordering::Relaxed);
            // At least one row is read.
            let is_first = !row.is_set.swap(true, Ordering::Relaxed);
            match deadline {
                Some(deadline) if !is_first && is_past(deadline) => Err(interrupted_error()),
                _ => Ok(true),
            }
        })?;
        Ok(tracker)
    }

    /// Resets the current row before a statement begins.
    fn reset_row(&self) {
        self.row.is_set.store(false, Ordering::Relaxed);
    }

    fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the last row that is done: the one before the current row, or `before` if
    /// no row was read.
    fn last_done(&self, before: Option<i64>) -> Option<i64> {
        match self.row.is_set.load(Ordering::Relaxed) {
            true => self.row.rowid.load(Ordering::Relaxed).checked_sub(1),
            false => before,
        }
    }
}
