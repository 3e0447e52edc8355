//! One scan: finds the marked sessions in the snapshot from which the listing is read.
//!
//! A database is scanned in one of two ways: by its pages past SQLite and its log frame
//! by frame ([`super::pages`]), or, where that is not exact, by its rows with SQL
//! ([`super::sql_scan`]). Both keep within a budget, make some progress in each scan, and
//! cache their state for the next one.
//!
//! The marker is an optional part of a listing. If the content cannot be read, the result
//! says why, and for no session it is known whether it is marked. The scan fails only if
//! the snapshot or the schema cannot be read, without which there is no listing.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cache::{CacheKey, ScanCache};
use super::halves::Halves;
use super::page::{Layout, PAGE_COUNT_LIMIT};
use super::{MarkedSessions, Needle, content_tables, pages, session_tables, sql_scan};
use crate::marker_text::MarkerText;
use crate::store::{
    CONTENT_TABLES, Database, DatabaseStamp, Schema, Snapshot, StoreError, WalPosition,
};
use crate::wire::{ErrorKind, Scan, ScanMode};

/// Options of a scan.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The marker, if any.
    pub marker: Option<MarkerText>,
    /// The path of the scan cache.
    pub cache: Option<PathBuf>,
    /// How long to read at most. After that the scan returns what is known. A scan that
    /// read nothing in that time still reads one piece.
    pub budget: Option<Duration>,
    /// The number of threads that read the file; 0 and 1 mean one thread.
    pub threads: usize,
}

/// The result of a scan, and the snapshot for which it is valid.
#[derive(Debug)]
pub struct ScanResult<'a> {
    /// The snapshot.
    pub snapshot: Snapshot<'a>,
    /// The schema of the snapshot.
    pub schema: Schema,
    /// The marked sessions.
    pub marked_sessions: MarkedSessions,
    /// How they were found.
    pub scan: Scan,
    /// Why the scan read more than what is new, if it did.
    pub full_scan_reason: Option<&'static str>,
    /// Why the content cannot be read, if it cannot.
    pub degraded: Option<String>,
    /// The new scan cache, to be saved after the listing was delivered.
    pub cache_update: Option<CacheUpdate>,
}

/// A scan cache that has not been saved yet.
#[derive(Debug)]
pub struct CacheUpdate {
    cache: ScanCache,
    path: PathBuf,
}

impl CacheUpdate {
    /// Writes the cache for the next scan.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written. The next scan is then a full scan.
    pub fn save(&self) -> std::io::Result<()> {
        self.cache.save(&self.path)
    }
}

/// Finds the marked sessions.
///
/// # Errors
///
/// Returns an error if the snapshot cannot be taken or its schema cannot be read.
pub fn scan<'a>(database: &'a Database, options: &Options) -> Result<ScanResult<'a>, StoreError> {
    let Some(marker) = &options.marker else {
        return without_scan(database, MarkedSessions::NotRequested, None);
    };
    match Scanner::new(database, options, marker).run() {
        Ok(result) => Ok(result),
        // There is no snapshot, or its deadline has passed.
        Err(error) if error.kind() == ErrorKind::Busy || error.is_interrupted() => Err(error),
        Err(error) => {
            let unknown = MarkedSessions::Known {
                marked: HashSet::new(),
                is_complete: false,
            };
            without_scan(database, unknown, Some(error.to_string()))
        }
    }
}

fn without_scan(
    database: &Database,
    marked_sessions: MarkedSessions,
    degraded: Option<String>,
) -> Result<ScanResult<'_>, StoreError> {
    let snapshot = database.begin()?;
    Ok(ScanResult {
        schema: Schema::read(&snapshot)?,
        snapshot,
        scan: match degraded {
            None => Scan::NONE,
            Some(_) => Scan {
                progress: 0.0,
                stalled: true,
                ..Scan::NONE
            },
        },
        marked_sessions,
        full_scan_reason: None,
        degraded,
        cache_update: None,
    })
}

/// The inputs of one scan, and what it has read so far.
pub(super) struct Scanner<'a, 'o> {
    pub(super) database: &'a Database,
    pub(super) options: &'o Options,
    pub(super) marker: &'o MarkerText,
    pub(super) needle: Needle,
    pub(super) halves: Halves,
    pub(super) budget_end: Option<Instant>,
    pub(super) frames_read: u64,
    pub(super) bytes_read: u64,
    pub(super) has_read_pages: bool,
    pub(super) full_scan_reason: Option<&'static str>,
}

/// A snapshot, and the facts that decide how it can be read past SQLite.
pub(super) struct SnapshotView<'a> {
    pub(super) snapshot: Snapshot<'a>,
    pub(super) schema: Schema,
    /// The stamp of the file in this snapshot, or `None` if another file has taken its
    /// place.
    pub(super) stamp: Option<DatabaseStamp>,
    pub(super) layout: Layout,
    pub(super) auto_vacuum: bool,
    pub(super) page_count: u32,
}

impl<'a> SnapshotView<'a> {
    /// Returns the cache key, the position in the log and the stamp of this snapshot, or
    /// `None` if no state of this snapshot may be cached.
    pub(super) fn key(
        &self,
        marker: &MarkerText,
    ) -> Result<Option<(CacheKey, WalPosition, DatabaseStamp)>, StoreError> {
        let (Some(end), Some(stamp)) = (self.snapshot.wal_position(), self.stamp) else {
            return Ok(None);
        };
        let layout = (
            self.layout.page_size,
            self.layout.page_size - self.layout.usable_bytes,
        );
        let key = CacheKey::read(&self.snapshot, &stamp, layout, marker)?;
        Ok(Some((key, end, stamp)))
    }
}

impl<'a, 'o> Scanner<'a, 'o> {
    fn new(database: &'a Database, options: &'o Options, marker: &'o MarkerText) -> Self {
        Self {
            database,
            options,
            marker,
            needle: Needle::new(marker),
            halves: Halves::new(marker),
            budget_end: options.budget.map(|budget| Instant::now() + budget),
            frames_read: 0,
            bytes_read: 0,
            has_read_pages: false,
            full_scan_reason: None,
        }
    }

    fn run(mut self) -> Result<ScanResult<'a>, StoreError> {
        let cache = self.options.cache.as_deref().and_then(ScanCache::load);
        let view = self.take_snapshot(None)?;
        let is_content_table =
            |table: &str| CONTENT_TABLES.iter().any(|content| content.table == table);
        let mut unreadable = view.schema.unreadable.iter();
        if let Some((_, reason)) = unreadable.find(|(table, _)| is_content_table(table)) {
            // The other tables are not scanned, since this case is rare.
            return Err(StoreError::Schema(reason.clone()));
        }
        if content_tables(&view.schema).next().is_none() {
            return Ok(self.result(view, Vec::new(), true, ScanMode::Full, None));
        }
        match pages::scan_pages(&mut self, view, cache)? {
            pages::PageScan::Valid(view, mut state) => {
                let passes = sql_scan::supplementary_passes(&view.schema);
                let mut complete = state.is_complete();
                let mut marked: Vec<_> = state.marked.iter().cloned().collect();
                if !passes.is_empty() {
                    let sql =
                        sql_scan::run_passes(&mut self, &view, &passes, state.sql_state.take())?;
                    complete &= sql.state.is_complete;
                    marked.extend(sql.state.marked.iter().cloned());
                    state.sql_state = Some(sql.state).filter(|_| sql.is_cacheable);
                }
                let mode = match self.has_read_pages && !state.is_renewing() || !complete {
                    true => ScanMode::Full,
                    false if self.frames_read > 0 => ScanMode::Tail,
                    false => ScanMode::Unchanged,
                };
                let progress = match state.progress(view.page_count) {
                    progress if complete => progress,
                    progress => progress.min(0.99),
                };
                let mut result =
                    self.result(view, marked, complete, mode, Some(ScanCache::Pages(state)));
                result.scan.progress = progress;
                Ok(result)
            }
            pages::PageScan::NeedsSql(view, cached) => {
                let passes = sql_scan::passes(&view.schema);
                let sql = sql_scan::run_passes(&mut self, &view, &passes, cached)?;
                self.full_scan_reason
                    .get_or_insert("only SQL can read this database exactly");
                let mode = match sql.has_read {
                    true => ScanMode::Full,
                    false => ScanMode::Unchanged,
                };
                let state = sql.state;
                let marked = state.marked.iter().cloned().collect();
                let (complete, progress) = (state.is_complete, sql.progress);
                let cache = sql.is_cacheable.then_some(ScanCache::Sql(state));
                let mut result = self.result(view, marked, complete, mode, cache);
                result.scan.progress = progress;
                Ok(result)
            }
        }
    }

    /// Takes a snapshot, or uses `held`, and reads its schema and layout.
    pub(super) fn take_snapshot(
        &self,
        held: Option<Snapshot<'a>>,
    ) -> Result<SnapshotView<'a>, StoreError> {
        let snapshot = match held {
            Some(snapshot) => snapshot,
            None => self.database.begin()?,
        };
        let schema = Schema::read(&snapshot)?;
        let pragma = |name| snapshot.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let page_size = usize::try_from(pragma("page_size")?).unwrap_or(0);
        let page_count = u32::try_from(pragma("page_count")?).unwrap_or(u32::MAX);
        let auto_vacuum = pragma("auto_vacuum")? != 0;
        let reserved = snapshot.reserved_bytes()?;
        Ok(SnapshotView {
            // After BEGIN: a file without a log does not change while the snapshot is
            // held.
            stamp: self.database.stamp()?,
            layout: Layout {
                page_size,
                usable_bytes: page_size.saturating_sub(reserved),
            },
            auto_vacuum,
            snapshot,
            schema,
            page_count,
        })
    }

    /// Returns true if the pages of this snapshot can be read past SQLite.
    pub(super) fn can_read_pages(&self, view: &SnapshotView<'_>) -> bool {
        view.stamp.is_some()
            && view.snapshot.wal_position().is_some()
            // The minimum that SQLite allows.
            && view.layout.usable_bytes >= 480
            // In a UTF-16 database, SQLite reads a BLOB as UTF-16.
            && view.schema.is_utf8
            && view.page_count < PAGE_COUNT_LIMIT
            && !could_match_number(self.marker)
            // Without an index, each confirmed row would read all sessions.
            && session_tables(&view.schema).all(|table| table.index_on(&["id"]).is_some())
    }

    pub(super) fn is_budget_spent(&self) -> bool {
        self.budget_end.is_some_and(|end| Instant::now() >= end)
    }

    fn result(
        self,
        view: SnapshotView<'a>,
        marked: Vec<String>,
        complete: bool,
        mode: ScanMode,
        cache: Option<ScanCache>,
    ) -> ScanResult<'a> {
        let cache_update = cache
            .zip(self.options.cache.clone())
            .map(|(cache, path)| CacheUpdate { cache, path });
        ScanResult {
            snapshot: view.snapshot,
            schema: view.schema,
            marked_sessions: MarkedSessions::Known {
                marked: marked.into_iter().collect(),
                is_complete: complete,
            },
            scan: Scan {
                mode,
                progress: 1.0,
                frames: self.frames_read,
                bytes: self.bytes_read,
                stalled: !complete && cache_update.is_none(),
            },
            full_scan_reason: self.full_scan_reason,
            degraded: None,
            cache_update,
        }
    }
}

/// Returns true if `LIKE` could find the marker in the text of a number.
fn could_match_number(marker: &MarkerText) -> bool {
    marker
        .as_str()
        .bytes()
        .all(|byte| b"0123456789+-.eEinfINF".contains(&byte))
}

/// Returns the current time in milliseconds since 1970.
pub(super) fn unix_time_ms() -> i64 {
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

/// Rowids of any table.
pub(super) type Rowids = BTreeSet<i64>;
