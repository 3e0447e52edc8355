//! Scans the pages of a database and the frames of its log past SQLite.
//!
//! The scan combines three exact sources:
//!
//! * Every frame of the log from the cached position to the snapshot ([`super::wal`]).
//!   Every page that was written since then is among them.
//! * Every page of the file ([`super::file_scan`]), read once and outside of any
//!   transaction; if there is no log, while a snapshot blocks writers.
//! * The rows that contained a half of the marker when they were last read. Every marked
//!   row of which no page was written since is among them.
//!
//! A page with a half leads to rows: a leaf page through its cells, an overflow page
//! through the pages that link to it. More rows than necessary do no harm, since SQL
//! confirms each row ([`super::confirm`]) in the snapshot of the listing. The module
//! [`super::cache`] describes what is known at each point and why that is sufficient.
//!
//! A database that is not in WAL mode has no log, and its snapshot prevents writers from
//! committing. So the snapshot is held for one slice at a time, and what was read is
//! valid only as long as the file's stamp stays the same.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::cache::{Phase, ScanCache, ScanState, SqlState};
use super::cache_key::CacheKey;
use super::confirm::Confirmer;
use super::content_tables;
use super::file_scan::FileScan;
use super::log_pages::LogPages;
use super::page::Layout;
use super::record::{MarkerMatch, RecordSearch};
use super::scanner::{Rowids, Scanner, SnapshotView};
use super::wal::{CommitCount, Log, LogGap, LogRead};
use crate::session::Millis;
use crate::store::{DatabaseStamp, StoreError, WalPosition};

/// How long pages are read between two reads of the log. In a longer time the log could
/// restart twice.
const SLICE: Duration = Duration::from_millis(250);

/// How long a snapshot that prevents commits is held at most.
pub(super) const BLOCKING_SLICE: Duration = Duration::from_millis(100);

/// How long writers may commit between two such snapshots.
const WRITER_PAUSE: Duration = Duration::from_millis(20);

/// How long each listing reads pages that are already known, for the daily renewal.
const RENEWAL_SLICE: Duration = Duration::from_millis(100);

/// A log with this many frames is not read again for a renewal.
const RENEWAL_MAX_FRAMES: u32 = 16 << 10;

/// How often a scan starts over because of a gap in the log.
const MAX_ATTEMPTS: usize = 4;

/// With more rows or pages to track, SQL reads all content instead.
const MAX_TRACKED: usize = 200_000;

/// The result of the page scan.
#[expect(clippy::large_enum_variant, reason = "one value per scan")]
pub(super) enum PageScan<'a> {
    /// The scan state is valid in this snapshot.
    Valid(SnapshotView<'a>, ScanState),
    /// Only SQL can read this snapshot. The second value is the cached state of an
    /// earlier scan by SQL.
    NeedsSql(SnapshotView<'a>, Option<SqlState>),
}

/// Reads what is new since the cache was saved, and as much of the file as the budget
/// allows.
pub(super) fn scan_pages<'a>(
    scanner: &mut Scanner<'a, '_>,
    first: SnapshotView<'a>,
    cache: Option<ScanCache>,
) -> Result<PageScan<'a>, StoreError> {
    let (state, sql) = match cache {
        Some(ScanCache::Pages(state)) => (Some(state), None),
        Some(ScanCache::Sql(state)) => (None, Some(state)),
        None => (None, None),
    };
    // SQL already scanned exactly this state of the database.
    let is_known_to_sql = match &sql {
        Some(sql) => first
            .key(scanner.marker)?
            .is_some_and(|(key, end, stamp)| sql.matches(&key, end, stamp)),
        None => false,
    };
    if is_known_to_sql || !scanner.can_read_pages(&first) {
        return Ok(PageScan::NeedsSql(first, sql));
    }
    let mut next = Some(first);
    let mut run = ScanRun {
        state,
        ..ScanRun::default()
    };
    loop {
        let view = match next.take() {
            Some(view) => view,
            None => scanner.take_snapshot(None)?,
        };
        let Some((key, end, stamp)) = view.key(scanner.marker)? else {
            return Ok(PageScan::NeedsSql(view, sql));
        };
        let file_pages = scanner.file(view.layout).page_count()?;
        // SQLite reports what is wrong with a truncated file.
        let is_truncated = end.frames == 0 && view.page_count > file_pages;
        // A scan by SQL would block writers for longer.
        let may_use_sql = !(view.snapshot.blocks_writers() && scanner.budget_end.is_some());
        if run.attempts >= MAX_ATTEMPTS && may_use_sql
            || run.rows.len() > MAX_TRACKED
            || is_truncated
            || !scanner.can_read_pages(&view)
        {
            return Ok(PageScan::NeedsSql(view, sql));
        }
        let mut state = run.state_for(scanner, key, end, stamp);
        let frames_before = scanner.frames_read;
        let rows = &mut run.rows;
        if let Err(gap) = read_log(scanner, &mut state, &view, end, file_pages, rows)? {
            scanner.full_scan_reason = Some(gap.reason);
            run.handle_gap(state, gap);
            continue;
        }
        if state.unowned_pages().len() > MAX_TRACKED || state.rows_with_half.len() > MAX_TRACKED {
            return Ok(PageScan::NeedsSql(view, sql));
        }
        let slice = if !state.is_complete() && run.may_confirm_later(scanner) {
            max_slice(&view)
        } else {
            if scanner.frames_read > frames_before || !run.rows.is_empty() || run.has_new_state {
                let started = Instant::now();
                confirm_rows(scanner, &view, &mut state, &run.rows)?;
                run.confirm_time = started.elapsed();
                run.rows.clear();
            }
            let Some(slice) = next_slice(scanner, &mut state, &view, end, run.confirm_time) else {
                let is_unchanged = stamp.is_settled() && scanner.database.stamp()? == Some(stamp);
                state.set_stamp(Some(stamp).filter(|_| is_unchanged));
                return Ok(PageScan::Valid(view, state));
            };
            slice
        };
        next = read_slice(scanner, &mut state, view, slice, &mut run.rows)?;
        run.state = Some(state);
        run.has_new_state = true;
    }
}

/// The state that one scan keeps from one snapshot to the next.
#[derive(Default)]
struct ScanRun {
    state: Option<ScanState>,
    /// The state before the gap in the log. Its rows are confirmed again.
    state_before_gap: Option<ScanState>,
    /// The rows to confirm in the next snapshot.
    rows: Rowids,
    /// How often the scan started over.
    attempts: usize,
    /// Whether this scan has changed the state, so that its marked sessions are of an
    /// earlier snapshot.
    has_new_state: bool,
    /// How long the last confirmation of rows took.
    confirm_time: Duration,
}

impl ScanRun {
    /// Returns the state of this database for a snapshot that ends at `end`.
    fn state_for(
        &mut self,
        scanner: &mut Scanner<'_, '_>,
        key: CacheKey,
        end: WalPosition,
        stamp: DatabaseStamp,
    ) -> ScanState {
        match self.state.take() {
            Some(mut state) if state.is_valid_for(&key, end, stamp) => {
                state.resume(key, end, stamp);
                state
            }
            before => {
                // Another program wrote to a file without a log.
                self.attempts += usize::from(scanner.has_read_pages && before.is_some());
                self.rows.clear();
                self.has_new_state = true;
                scanner
                    .full_scan_reason
                    .get_or_insert("no cached state for this database, its tables and the marker");
                ScanState::new(key, end, Millis::now().0)
                    .with_rows_from(before.or(self.state_before_gap.take()))
            }
        }
    }

    /// Returns true if another slice will be read before any answer, and few rows wait.
    /// The rows of both are then confirmed together.
    fn may_confirm_later(&self, scanner: &Scanner<'_, '_>) -> bool {
        scanner.budget_left().is_none_or(|left| left > 2 * SLICE)
            && self.rows.len() < MAX_TRACKED / 8
    }

    /// Handles a gap in the log between the state and the snapshot.
    fn handle_gap(&mut self, state: ScanState, gap: LogGap) {
        self.attempts += 1;
        if gap.is_transient && self.attempts == 1 {
            // The position may still be valid; only this snapshot failed.
            self.state = Some(state);
        } else {
            self.state_before_gap = Some(state);
        }
    }
}

/// Reads the file's pages for the duration `slice`. Returns the snapshot if it must be
/// held for longer.
fn read_slice<'a>(
    scanner: &mut Scanner<'a, '_>,
    state: &mut ScanState,
    view: SnapshotView<'a>,
    slice: Duration,
    rows: &mut Rowids,
) -> Result<Option<SnapshotView<'a>>, StoreError> {
    let layout = view.layout;
    let has_no_log = view
        .snapshot
        .wal_position()
        .is_some_and(|position| !position.has_log());
    let Some(stamp) = view.stamp.filter(|_| has_no_log) else {
        drop(view);
        read_pages(scanner, state, layout, slice, rows)?;
        return Ok(None);
    };
    // No program can write to the file while the snapshot is held, so what is read
    // belongs to this stamp.
    read_pages(scanner, state, layout, slice, rows)?;
    state.set_stamp(Some(stamp));
    // If the file could change and keep its stamp, the snapshot is held throughout,
    // unless it blocks writers: they may then commit.
    let blocks_writers = view.snapshot.blocks_writers();
    if blocks_writers || stamp.is_settled() {
        drop(view);
        if blocks_writers {
            thread::sleep(WRITER_PAUSE.min(scanner.budget_left().unwrap_or(WRITER_PAUSE)));
        }
        return Ok(None);
    }
    scanner.take_snapshot(Some(view.snapshot)).map(Some)
}

/// Reads the frames of the log after the cached position.
fn read_log(
    scanner: &mut Scanner<'_, '_>,
    state: &mut ScanState,
    view: &SnapshotView<'_>,
    end: WalPosition,
    file_pages: u32,
    rows: &mut Rowids,
) -> Result<Result<(), LogGap>, StoreError> {
    let layout = view.layout;
    let from = state.position();
    // Auto-vacuum moves pages without writing the pages of the rows that own them.
    let may_resolve = !view.auto_vacuum && state.is_between_transactions();
    let mut pages = LogPages::new(layout, &scanner.halves, state.unowned_pages().clone());
    if state.is_broken_by_restart(end) {
        let reason =
            "the log was restarted after the last scan had passed frames without a checksum";
        return Ok(Err(LogGap::permanent(reason)));
    }
    let mut read = LogRead {
        to: from,
        frames: 0,
        is_past_hole: false,
    };
    // The log was restarted, and nothing was committed since: what it held is searched.
    let published = view.snapshot.published();
    let is_only_restarted = end.frames == 0
        && from.frames > 0
        && published.is_some_and(|log| log.last_commit_checksum == from.checksum);
    if is_only_restarted {
        read.to = end;
    } else if from != end {
        let Ok(Some(file)) = scanner.database.open_log() else {
            return Ok(Err(LogGap::permanent(
                "the log is missing or cannot be opened",
            )));
        };
        let mut log = Log::new(&file, layout.page_size);
        let commits = CommitCount::between(state.commits(), published);
        match log.read(
            commits,
            from,
            end,
            |step| pages.add(step),
            || scanner.is_budget_spent(),
        ) {
            Ok(Ok(done)) => read = done,
            Ok(Err(gap)) => return Ok(Err(gap)),
            Err(_) => return Ok(Err(LogGap::permanent("cannot read the log"))),
        }
    }
    let mut found = pages.finish(may_resolve && read.to == end);
    scanner.frames_read += read.frames;
    scanner.bytes_read += found.bytes;
    rows.append(&mut found.rows);
    let mut unowned = found.unowned;
    if read.to == end {
        let free = found.free.select(&unowned);
        unowned = state.remove_free_pages(unowned, &free);
    }
    if state.record_log_read(read, end, unowned, file_pages) {
        scanner.full_scan_reason = Some(
            "an overflow page with a half of the marker belongs to a row that was not written",
        );
    }
    state.set_commits(published.map(|log| log.commits));
    state.advance(file_pages);
    Ok(Ok(()))
}

/// Confirms the rows with a half of the marker that are already known, and `rows` of any
/// table.
fn confirm_rows(
    scanner: &Scanner<'_, '_>,
    view: &SnapshotView<'_>,
    state: &mut ScanState,
    rows: &Rowids,
) -> Result<(), StoreError> {
    let (snapshot, schema) = (&view.snapshot, &view.schema);
    let mut rows_with_half = BTreeSet::new();
    let mut marked = BTreeSet::new();
    let mut found = |id| {
        marked.insert(id);
    };
    for content in content_tables(schema) {
        // A separate pass by SQL scans the other tables, once for all slices.
        let Some(rowid) = content.stored_rowid() else {
            continue;
        };
        let table = content.index;
        let of_table = state
            .rows_with_half
            .range((table, i64::MIN)..=(table, i64::MAX));
        let rows: Rowids = of_table
            .map(|(_, row)| *row)
            .chain(rows.iter().copied())
            .collect();
        if rows.is_empty() {
            continue;
        }
        let needle = &scanner.needle;
        let mut confirmer =
            Confirmer::new(snapshot, schema, content, rowid, scanner.marker, needle)?;
        let mut records = RecordSearch::new(snapshot, content, rowid, needle, &scanner.halves)?;
        for row in rows {
            let Some(marker_match) = records.search(row)? else {
                continue;
            };
            rows_with_half.insert((table, row));
            if marker_match != MarkerMatch::Unmarked {
                confirmer.confirm(row, marker_match == MarkerMatch::MaybeLarge, &mut found)?;
            }
        }
    }
    state.rows_with_half = rows_with_half;
    state.marked = marked;
    Ok(())
}

/// Returns how long pages may be read between two snapshots.
fn max_slice(view: &SnapshotView<'_>) -> Duration {
    match view.snapshot.blocks_writers() {
        true => BLOCKING_SLICE,
        false => SLICE,
    }
}

/// Returns how long to read the file's pages now, or `None` if the scan must return its
/// result.
fn next_slice(
    scanner: &Scanner<'_, '_>,
    state: &mut ScanState,
    view: &SnapshotView<'_>,
    end: WalPosition,
    confirm_time: Duration,
) -> Option<Duration> {
    if !state.is_complete() {
        let max_slice = max_slice(view);
        // The rows that are found must be confirmed within the budget, too.
        let left = scanner
            .budget_left()
            .map(|left| left.saturating_sub(confirm_time));
        let left = left.unwrap_or(max_slice).min(max_slice);
        // Each scan reads at least one piece.
        return (!left.is_zero() || !scanner.has_read_pages).then_some(left);
    }
    // A renewal runs only while another program writes, and in a listing that has time.
    if state.is_due_for_renewal(Millis::now().0)
        && scanner.frames_read > 0
        && end.frames < RENEWAL_MAX_FRAMES
    {
        state.begin_renewal(Millis::now().0);
        return Some(RENEWAL_SLICE);
    }
    (state.is_renewing() && !scanner.has_read_pages && scanner.frames_read > 0)
        .then_some(RENEWAL_SLICE)
}

/// Reads the file's pages for the duration `slice`, and at least one piece.
fn read_pages(
    scanner: &mut Scanner<'_, '_>,
    state: &mut ScanState,
    layout: Layout,
    slice: Duration,
    rows: &mut Rowids,
) -> Result<(), StoreError> {
    let deadline = Instant::now() + slice;
    let stop = || Instant::now() >= deadline;
    let file = scanner.file(layout);
    let (done_before, done_after);
    match state.phase() {
        Phase::Search { done } => {
            let (reached, mut candidates) = file.search(done, &scanner.halves, stop)?;
            (done_before, done_after) = (done, reached);
            rows.append(&mut candidates.rowids);
            state.record_page_search(reached, candidates.overflow);
        }
        Phase::Owners { pages, done, .. } => {
            let mut unowned = state.unowned_pages().clone();
            let (reached, is_together) =
                file.trace_owners(&mut unowned, rows, pages, done, stop)?;
            (done_before, done_after) = (done, reached);
            state.record_owner_search(reached, is_together, unowned);
        }
        // The log has not been read to its end yet.
        Phase::Complete => (done_before, done_after) = (0, 0),
    }
    scanner.bytes_read +=
        u64::from(done_after.saturating_sub(done_before)) * layout.page_size as u64;
    scanner.has_read_pages = true;
    Ok(())
}

impl<'a> Scanner<'a, '_> {
    fn file(&self, layout: Layout) -> FileScan<'a> {
        FileScan::new(self.database.file(), layout, self.options.threads)
    }

    /// Returns the rest of the budget, if there is one.
    fn budget_left(&self) -> Option<Duration> {
        self.budget_end
            .map(|end| end.saturating_duration_since(Instant::now()))
    }
}
