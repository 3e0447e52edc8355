//! One scan: which sessions are marked, in the snapshot in which the listing is read.
//!
//! A database is read in one of two ways: its pages past SQLite and its log frame by
//! frame ([`super::pages`]), or, where that is not exact, rows by SQL
//! ([`super::sql_scan`]). Both keep within a budget, make some progress in each scan,
//! and remember how far they came.
//!
//! The marker is an optional part of a listing: if the content cannot be read, the scan
//! says why and no session is decided. It fails only where the snapshot or the schema
//! cannot be had, without which there is no listing.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cache::{CacheKey, ScanCache};
use super::halves::Halves;
use super::page::{Layout, TELLABLE};
use super::{Marks, Needle, content_tables, pages, session_tables, sql_scan};
use crate::marker_text::MarkerText;
use crate::store::{
    CONTENT_TABLES, Database, FileStamp, Schema, Snapshot, StoreError, WalPosition,
};
use crate::wire::{ErrorKind, Scan, ScanMode};

/// How to look for the marker.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The marker, if any.
    pub marker: Option<MarkerText>,
    /// Where to remember what is known, for the next scan.
    pub cache: Option<PathBuf>,
    /// How long to read at most; then the answer is what is known. A scan that could
    /// read nothing in that time reads one piece all the same.
    pub budget: Option<Duration>,
    /// Threads that read the file; 0 and 1 mean one.
    pub threads: usize,
}

/// What a scan found, and the snapshot in which it is so.
#[derive(Debug)]
pub struct Found<'a> {
    /// The snapshot.
    pub snapshot: Snapshot<'a>,
    /// Its schema.
    pub schema: Schema,
    /// The marks.
    pub marks: Marks,
    /// How they were found.
    pub scan: Scan,
    /// Why not only what is new was read, where that was so.
    pub why: Option<&'static str>,
    /// Why the content cannot be read, where that is so.
    pub degraded: Option<String>,
    /// What to remember when they were delivered.
    pub remember: Option<CacheMode>,
}

/// What to remember.
#[derive(Debug)]
pub struct CacheMode {
    cache: ScanCache,
    path: PathBuf,
}

impl CacheMode {
    /// Writes it, for the next scan.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be written. The next scan then begins anew.
    pub fn save(&self) -> std::io::Result<()> {
        self.cache.save(&self.path)
    }
}

/// Finds the marked sessions.
///
/// # Errors
///
/// Returns an error if no snapshot can be had or its schema cannot be read.
pub fn scan<'a>(database: &'a Database, options: &Options) -> Result<Found<'a>, StoreError> {
    let Some(marker) = &options.marker else {
        return without_marks(database, Marks::NotAsked, None);
    };
    match Scanner::new(database, options, marker).run() {
        Ok(found) => Ok(found),
        // There is no snapshot, or its time is over.
        Err(error) if error.kind() == ErrorKind::Busy || error.is_interrupted() => Err(error),
        Err(error) => {
            let unknown = Marks::Of {
                marked: HashSet::new(),
                complete: false,
            };
            without_marks(database, unknown, Some(error.to_string()))
        }
    }
}

fn without_marks(
    database: &Database,
    marks: Marks,
    degraded: Option<String>,
) -> Result<Found<'_>, StoreError> {
    let snapshot = database.begin()?;
    Ok(Found {
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
        marks,
        why: None,
        degraded,
        remember: None,
    })
}

/// What one scan works with, and what it has read so far.
pub(super) struct Scanner<'a, 'o> {
    pub(super) database: &'a Database,
    pub(super) options: &'o Options,
    pub(super) marker: &'o MarkerText,
    pub(super) needle: Needle,
    pub(super) halves: Halves,
    /// When the budget is used up.
    pub(super) until: Option<Instant>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) has_read_pages: bool,
    pub(super) why: Option<&'static str>,
}

/// One snapshot, and what of it can be read past SQLite.
pub(super) struct View<'a> {
    pub(super) snapshot: Snapshot<'a>,
    pub(super) schema: Schema,
    /// The file's stamp in this snapshot; `None` if another file is in its place.
    pub(super) stamp: Option<FileStamp>,
    pub(super) layout: Layout,
    pub(super) auto_vacuum: bool,
    /// How many pages the snapshot has.
    pub(super) pages: u32,
}

impl<'a> View<'a> {
    /// The key of the cache, and where in the log it holds; `None` if nothing may be
    /// remembered of this snapshot.
    pub(super) fn key(
        &self,
        marker: &MarkerText,
    ) -> Result<Option<(CacheKey, WalPosition, FileStamp)>, StoreError> {
        let (Some(end), Some(stamp)) = (self.snapshot.wal_position(), self.stamp) else {
            return Ok(None);
        };
        let layout = (
            self.layout.page_size,
            self.layout.page_size - self.layout.usable,
        );
        let key = CacheKey::of(&self.snapshot, &stamp, layout, marker)?;
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
            halves: Halves::of(marker),
            until: options.budget.map(|budget| Instant::now() + budget),
            frames: 0,
            bytes: 0,
            has_read_pages: false,
            why: None,
        }
    }

    fn run(mut self) -> Result<Found<'a>, StoreError> {
        let cache = self.options.cache.as_deref().and_then(ScanCache::load);
        let view = self.view(None)?;
        let is_content = |table: &str| CONTENT_TABLES.iter().any(|content| content.table == table);
        let mut unreadable = view.schema.unreadable.iter();
        if let Some((_, why)) = unreadable.find(|(table, _)| is_content(table)) {
            // What is in the other tables is not looked for: it is rare.
            return Err(StoreError::Schema(why.clone()));
        }
        if content_tables(&view.schema).next().is_none() {
            return Ok(self.found(view, Vec::new(), true, ScanMode::Full, None));
        }
        match pages::run(&mut self, view, cache)? {
            pages::Ended::Known(view, mut state) => {
                let passes = sql_scan::passes_beside_pages(&view.schema);
                let mut complete = state.is_complete();
                let mut marked: Vec<_> = state.marked.iter().cloned().collect();
                if !passes.is_empty() {
                    let beside = sql_scan::run(&mut self, &view, &passes, state.by_sql.take())?;
                    complete &= beside.state.complete;
                    marked.extend(beside.state.marked.iter().cloned());
                    state.by_sql = Some(beside.state).filter(|_| beside.may_remember);
                }
                let mode = match self.has_read_pages && !state.is_renewing() || !complete {
                    true => ScanMode::Full,
                    false if self.frames > 0 => ScanMode::Tail,
                    false => ScanMode::Unchanged,
                };
                let progress = match state.progress(view.pages) {
                    progress if complete => progress,
                    progress => progress.min(0.99),
                };
                let mut found =
                    self.found(view, marked, complete, mode, Some(ScanCache::Pages(state)));
                found.scan.progress = progress;
                Ok(found)
            }
            pages::Ended::OnlySql(view, known) => {
                let passes = sql_scan::passes(&view.schema);
                let sql = sql_scan::run(&mut self, &view, &passes, known)?;
                self.why
                    .get_or_insert("only SQL can read this database exactly");
                let mode = match sql.has_read {
                    true => ScanMode::Full,
                    false => ScanMode::Unchanged,
                };
                let state = sql.state;
                let marked = state.marked.iter().cloned().collect();
                let (complete, progress) = (state.complete, sql.progress);
                let cache = sql.may_remember.then_some(ScanCache::Sql(state));
                let mut found = self.found(view, marked, complete, mode, cache);
                found.scan.progress = progress;
                Ok(found)
            }
        }
    }

    /// A snapshot, or this one, and what can be read of it.
    pub(super) fn view(&self, held: Option<Snapshot<'a>>) -> Result<View<'a>, StoreError> {
        let snapshot = match held {
            Some(snapshot) => snapshot,
            None => self.database.begin()?,
        };
        let schema = Schema::read(&snapshot)?;
        let number = |name| snapshot.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let page_size = usize::try_from(number("page_size")?).unwrap_or(0);
        let pages = u32::try_from(number("page_count")?).unwrap_or(u32::MAX);
        let auto_vacuum = number("auto_vacuum")? != 0;
        let reserved = snapshot.reserved_bytes()?;
        Ok(View {
            // After BEGIN: without a log the file stays as it is while this is held.
            stamp: self.database.stamp()?,
            layout: Layout {
                page_size,
                usable: page_size.saturating_sub(reserved),
            },
            auto_vacuum,
            snapshot,
            schema,
            pages,
        })
    }

    /// True if the pages of this snapshot can be read past SQLite.
    pub(super) fn can_read_pages(&self, view: &View<'_>) -> bool {
        view.stamp.is_some()
            && view.snapshot.wal_position().is_some()
            // The least that SQLite allows.
            && view.layout.usable >= 480
            // A BLOB in a database of UTF-16 reads as UTF-16.
            && view.schema.is_utf8
            && view.pages < TELLABLE
            && !could_be_a_number(self.marker)
            // Else each row that is confirmed would read all sessions.
            && session_tables(&view.schema).all(|table| table.index_on(&["id"]).is_some())
    }

    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn found(
        self,
        view: View<'a>,
        marked: Vec<String>,
        complete: bool,
        mode: ScanMode,
        cache: Option<ScanCache>,
    ) -> Found<'a> {
        let remember = cache
            .zip(self.options.cache.clone())
            .map(|(cache, path)| CacheMode { cache, path });
        Found {
            snapshot: view.snapshot,
            schema: view.schema,
            marks: Marks::Of {
                marked: marked.into_iter().collect(),
                complete,
            },
            scan: Scan {
                mode,
                progress: 1.0,
                frames: self.frames,
                bytes: self.bytes,
                stalled: !complete && remember.is_none(),
            },
            why: self.why,
            degraded: None,
            remember,
        }
    }
}

/// True where `LIKE` could find it in the text of a number.
fn could_be_a_number(marker: &MarkerText) -> bool {
    marker
        .as_str()
        .bytes()
        .all(|byte| b"0123456789+-.eEinfINF".contains(&byte))
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Rowids, of whatever table.
pub(super) type Rows = BTreeSet<i64>;
