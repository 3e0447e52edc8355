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

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::cache::{CacheFile, ScanCache, SqlState};
use super::scanner::{Options, Scanner, SnapshotView};
use super::{MarkedSessions, content_tables, pages, sql_scan};
use crate::files;
use crate::store::{CONTENT_TABLES, Database, Schema, Snapshot, StoreError};
use crate::wire::{ErrorKind, Scan, ScanMode};

/// The result of a scan, and the snapshot for which it is valid.
#[derive(Debug)]
pub struct ScanResult<'a> {
    /// The snapshot.
    pub snapshot: Snapshot<'a>,
    /// The schema of the snapshot.
    pub schema: Arc<Schema>,
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
    file: CacheFile,
    /// The bytes of the cache that this scan began with.
    loaded: Option<Vec<u8>>,
    path: PathBuf,
}

impl CacheUpdate {
    /// Writes the cache for the next scan, unless it is the one that this scan began with.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written. The next scan is then a full scan.
    pub fn save(&self) -> std::io::Result<()> {
        let bytes = self.file.encode()?;
        if self.loaded.as_ref() == Some(&bytes) {
            return Ok(());
        }
        files::save_unsynced(&self.path, &bytes)
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
    match run(Scanner::new(database, options, marker)) {
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
        schema: Arc::new(Schema::read(&snapshot)?),
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

/// Runs the phases of a scan.
fn run<'a>(mut scanner: Scanner<'a, '_>) -> Result<ScanResult<'a>, StoreError> {
    let (cache, loaded) = scanner
        .options
        .cache
        .as_deref()
        .and_then(CacheFile::load)
        .unzip();
    scanner.loaded_cache = loaded;
    let (cache, known_schema) = cache.map(|file| (file.scan, file.schema)).unzip();
    scanner.known_schema = known_schema.flatten();
    let view = scanner.take_snapshot(None)?;
    let is_content_table =
        |table: &str| CONTENT_TABLES.iter().any(|content| content.table == table);
    let mut unreadable = view.schema.unreadable.iter();
    if let Some((_, reason)) = unreadable.find(|(table, _)| is_content_table(table)) {
        // The other tables are not scanned, since this case is rare.
        return Err(StoreError::Schema(reason.clone()));
    }
    if content_tables(&view.schema).next().is_none() {
        return Ok(result_of(
            scanner,
            view,
            Vec::new(),
            true,
            ScanMode::Full,
            None,
        ));
    }
    match pages::scan_pages(&mut scanner, view, cache)? {
        pages::PageScan::Valid(view, mut state) => {
            let passes = sql_scan::supplementary_passes(&view.schema);
            let mut complete = state.is_complete();
            let mut marked: Vec<_> = state.marked.iter().cloned().collect();
            if !passes.is_empty() {
                let sql =
                    sql_scan::run_passes(&mut scanner, &view, &passes, state.sql_state.take())?;
                complete &= sql.state.is_complete;
                marked.extend(sql.state.marked.iter().cloned());
                state.sql_state = Some(sql.state).filter(|_| sql.is_cacheable);
            }
            let mode = match scanner.has_read_pages && !state.is_renewing() || !complete {
                true => ScanMode::Full,
                false if scanner.frames_read > 0 => ScanMode::Tail,
                false => ScanMode::Unchanged,
            };
            let progress = match state.progress(view.page_count) {
                progress if complete => progress,
                progress => progress.min(0.99),
            };
            let mut result = result_of(
                scanner,
                view,
                marked,
                complete,
                mode,
                Some(ScanCache::Pages(state)),
            );
            result.scan.progress = progress;
            Ok(result)
        }
        pages::PageScan::NeedsSql(view, cached) => run_by_sql(scanner, view, cached),
    }
}

/// Finishes a scan that only SQL can do exactly.
fn run_by_sql<'a>(
    mut scanner: Scanner<'a, '_>,
    view: SnapshotView<'a>,
    cached: Option<SqlState>,
) -> Result<ScanResult<'a>, StoreError> {
    let passes = sql_scan::passes(&view.schema);
    let sql = sql_scan::run_passes(&mut scanner, &view, &passes, cached)?;
    scanner
        .full_scan_reason
        .get_or_insert("only SQL can read this database exactly");
    let mode = match sql.has_read {
        true => ScanMode::Full,
        false => ScanMode::Unchanged,
    };
    let state = sql.state;
    let marked = state.marked.iter().cloned().collect();
    let (complete, progress) = (state.is_complete, sql.progress);
    let cache = sql.is_cacheable.then_some(ScanCache::Sql(state));
    let mut result = result_of(scanner, view, marked, complete, mode, cache);
    result.scan.progress = progress;
    Ok(result)
}

/// Makes the result of a scan.
fn result_of<'a>(
    scanner: Scanner<'a, '_>,
    view: SnapshotView<'a>,
    marked: Vec<String>,
    complete: bool,
    mode: ScanMode,
    cache: Option<ScanCache>,
) -> ScanResult<'a> {
    let cache_update = cache
        .zip(scanner.options.cache.clone())
        .map(|(scan, path)| CacheUpdate {
            file: CacheFile {
                scan,
                schema: scanner.known_schema,
            },
            loaded: scanner.loaded_cache,
            path,
        });
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
            frames: scanner.frames_read,
            bytes: scanner.bytes_read,
            stalled: !complete && cache_update.is_none(),
        },
        full_scan_reason: scanner.full_scan_reason,
        degraded: None,
        cache_update,
    }
}
