//! The pages of a database and the frames of its log, read past SQLite.
//!
//! Three kinds of knowledge come together, and each is exact:
//!
//! * Every frame of the log from a remembered position to the snapshot
//!   ([`super::wal`]). A page that was written since then is among them.
//! * Every page of the file ([`super::file_scan`]), read once, outside of any
//!   transaction; where there is no log, while a snapshot keeps writers away.
//! * The rows that held a half of the marker when they were last read. A row
//!   that is marked and of which no page was written is among them.
//!
//! A page with a half leads to rows: a leaf by its cells, an overflow page by the
//! pages that lead to it. More rows than necessary do no harm: SQL has the last
//! word about each ([`super::confirm`]), in the snapshot of the listing. What is known
//! when, and why that is enough, is in [`super::cache`].
//!
//! A database that is not in WAL mode has no log, and its snapshot keeps writers from
//! committing. So it is held for a slice at a time, and what was read counts only as
//! long as the file's stamp stays the same.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::cache::{CacheKey, Phase, ScanCache, ScanState, SqlState};
use super::confirm::Confirmer;
use super::content_tables;
use super::file_scan::{Candidates, FileScan};
use super::free_pages::FreePages;
use super::overflow::OverflowLinks;
use super::page::Layout;
use super::record::{Records, Watched};
use super::scan::{Rows, Scanner, View, now_ms};
use super::wal::{Log, LogGap, LogRead};
use crate::store::{FileStamp, StoreError, WalPosition};

/// So long is read between two reads of the log, which could restart twice.
const SLICE: Duration = Duration::from_millis(250);

/// So long at most a snapshot is held that keeps writers from committing.
pub(super) const BLOCKING_SLICE: Duration = Duration::from_millis(100);

/// So long writers are let in between two of those.
const PAUSE: Duration = Duration::from_millis(20);

/// So long is read in each listing of what is known, once a day.
const RENEWAL: Duration = Duration::from_millis(100);

/// A log with more frames is not read once more for that.
const RENEWABLE: u32 = 16 << 10;

/// How often a scan begins anew because the log was lost meanwhile.
const ATTEMPTS: usize = 4;

/// With more rows or pages to follow than these, SQL reads everything.
const MANY: usize = 200_000;

/// How it ended.
#[expect(clippy::large_enum_variant, reason = "a scan makes one")]
pub(super) enum Ended<'a> {
    /// With what is known in this snapshot.
    Known(View<'a>, ScanState),
    /// Only SQL can read this snapshot; with what it knew before.
    OnlySql(View<'a>, Option<SqlState>),
}

/// Reads what is new since the cache, and as much of the file as the budget allows.
pub(super) fn run<'a>(
    scanner: &mut Scanner<'a, '_>,
    first: View<'a>,
    cache: Option<ScanCache>,
) -> Result<Ended<'a>, StoreError> {
    let (known, sql) = match cache {
        Some(ScanCache::Pages(state)) => (Some(state), None),
        Some(ScanCache::Sql(state)) => (None, Some(state)),
        None => (None, None),
    };
    // Or SQL had to read this very state before.
    let is_of_sql = match &sql {
        Some(sql) => first
            .key(scanner.marker)?
            .is_some_and(|(key, end, stamp)| sql.is_about(&key, end, stamp)),
        None => false,
    };
    if is_of_sql || !scanner.can_read_pages(&first) {
        return Ok(Ended::OnlySql(first, sql));
    }
    let mut next = Some(first);
    let mut run = Run {
        known,
        ..Run::default()
    };
    loop {
        let view = match next.take() {
            Some(view) => view,
            None => scanner.view(None)?,
        };
        let Some((key, end, stamp)) = view.key(scanner.marker)? else {
            return Ok(Ended::OnlySql(view, sql));
        };
        let file_pages = scanner.file(view.layout).pages()?;
        // SQL says what is wrong with a file that was cut off.
        let is_cut_off = end.frames == 0 && view.pages > file_pages;
        // SQL would keep writers waiting for longer.
        let may_give_up = !(view.snapshot.blocks_writers() && scanner.until.is_some());
        if run.attempts >= ATTEMPTS && may_give_up
            || run.rows.len() > MANY
            || is_cut_off
            || !scanner.can_read_pages(&view)
        {
            return Ok(Ended::OnlySql(view, sql));
        }
        let mut state = run.state_for(scanner, key, end, stamp);
        let frames = scanner.frames;
        let rows = &mut run.rows;
        if let Err(gap) = catch_up(scanner, &mut state, &view, end, file_pages, rows)? {
            scanner.why = Some(gap.why);
            run.lose(state, gap);
            continue;
        }
        if state.unowned_pages().len() > MANY || state.watched.len() > MANY {
            return Ok(Ended::OnlySql(view, sql));
        }
        let slice = if !state.is_complete() && run.may_confirm_later(scanner) {
            most_at_once(&view)
        } else {
            if scanner.frames > frames || !run.rows.is_empty() || run.is_ours {
                let started = Instant::now();
                confirm(scanner, &view, &mut state, &run.rows)?;
                run.confirming = started.elapsed();
                run.rows.clear();
            }
            let Some(slice) = next_slice(scanner, &mut state, &view, end, run.confirming) else {
                let stays = stamp.is_settled() && scanner.database.stamp()? == Some(stamp);
                state.keep_stamp(Some(stamp).filter(|_| stays));
                return Ok(Ended::Known(view, state));
            };
            slice
        };
        next = read_slice(scanner, &mut state, view, slice, &mut run.rows)?;
        run.known = Some(state);
        run.is_ours = true;
    }
}

/// What one scan keeps from one snapshot to the next.
#[derive(Default)]
struct Run {
    known: Option<ScanState>,
    /// What was known before the log was lost: its rows are worth a look.
    lost: Option<ScanState>,
    /// Rows to confirm in the next snapshot.
    rows: Rows,
    /// How often it began anew.
    attempts: usize,
    /// Something was learned by this scan: its marks are of an earlier snapshot.
    is_ours: bool,
    /// How long it took to confirm the rows.
    confirming: Duration,
}

impl Run {
    /// What is known of this database, in a snapshot that ends at `end`.
    fn state_for(
        &mut self,
        scanner: &mut Scanner<'_, '_>,
        key: CacheKey,
        end: WalPosition,
        stamp: FileStamp,
    ) -> ScanState {
        match self.known.take() {
            Some(state) if state.is_about(&key, end, stamp) => state,
            before => {
                // Somebody wrote to a file without a log.
                self.attempts += usize::from(scanner.has_read_pages && before.is_some());
                self.rows.clear();
                self.is_ours = true;
                scanner
                    .why
                    .get_or_insert("nothing is remembered of this database, schema and marker");
                ScanState::new(key, end, now_ms()).with_rows_of(before.or(self.lost.take()))
            }
        }
    }

    /// True if another slice is read before any answer, and few rows wait: those of both
    /// are confirmed at once then.
    fn may_confirm_later(&self, scanner: &Scanner<'_, '_>) -> bool {
        scanner.left().is_none_or(|left| left > 2 * SLICE) && self.rows.len() < MANY / 8
    }

    /// The log between a state and a snapshot cannot be had.
    fn lose(&mut self, state: ScanState, gap: LogGap) {
        self.attempts += 1;
        if gap.meanwhile && self.attempts == 1 {
            // The position may still be good, only this snapshot was not.
            self.known = Some(state);
        } else {
            self.lost = Some(state);
        }
    }
}

/// Reads the file's pages for so long, and lets the snapshot go if it can; else it is
/// given back.
fn read_slice<'a>(
    scanner: &mut Scanner<'a, '_>,
    state: &mut ScanState,
    view: View<'a>,
    slice: Duration,
    rows: &mut Rows,
) -> Result<Option<View<'a>>, StoreError> {
    let layout = view.layout;
    let is_nowhere = view
        .snapshot
        .wal_position()
        .is_some_and(|position| !position.has_log());
    let Some(stamp) = view.stamp.filter(|_| is_nowhere) else {
        drop(view);
        read_pages(scanner, state, layout, slice, rows)?;
        return Ok(None);
    };
    // Nobody can write to the file while the snapshot is held, so that what is read is of
    // this stamp.
    read_pages(scanner, state, layout, slice, rows)?;
    state.keep_stamp(Some(stamp));
    // One that could change and keep its stamp is held all the while, but for writers who
    // wait: their commits count.
    let blocks_writers = view.snapshot.blocks_writers();
    if blocks_writers || stamp.is_settled() {
        drop(view);
        if blocks_writers {
            thread::sleep(PAUSE.min(scanner.left().unwrap_or(PAUSE)));
        }
        return Ok(None);
    }
    scanner.view(Some(view.snapshot)).map(Some)
}

/// Reads what the log has since the remembered position.
fn catch_up(
    scanner: &mut Scanner<'_, '_>,
    state: &mut ScanState,
    view: &View<'_>,
    end: WalPosition,
    file_pages: u32,
    rows: &mut Rows,
) -> Result<Result<(), LogGap>, StoreError> {
    let layout = view.layout;
    let from = state.position();
    // With auto-vacuum pages move behind their rows' backs.
    let may_resolve = !view.auto_vacuum && state.is_between_transactions();
    let mut parts: [(Candidates, OverflowLinks); 3] = Default::default();
    let (mut owners, mut unowned) = (BTreeSet::new(), state.unowned_pages().clone());
    let mut free = FreePages::default();
    let mut bytes = 0;
    if state.is_lost_by_a_restart(end) {
        let why = "the log was restarted behind frames without a checksum";
        return Ok(Err(LogGap::for_good(why)));
    }
    let mut read = LogRead {
        to: from,
        frames: 0,
        past_a_hole: false,
    };
    if from != end {
        let Ok(Some(file)) = scanner.database.open_log() else {
            return Ok(Err(LogGap::for_good("there is no log any more")));
        };
        let halves = &scanner.halves;
        let each = |part, number, image: &[u8]| {
            bytes += image.len() as u64;
            let is_asked =
                |(candidates, _): &(Candidates, _)| candidates.overflow.contains(&number);
            let is_asked = unowned.contains(&number) || parts.iter().any(is_asked);
            free.take(part, layout, number, image, is_asked);
            let (candidates, links) = &mut parts[part as usize];
            if halves.are_in(image) {
                candidates.take(layout, number, image);
            }
            links.take(layout, number, image);
            if links.are_many() {
                links.trace_owners(&mut unowned, &mut owners);
                links.forget();
            }
        };
        match Log::new(&file, layout.page_size).read(from, end, each, || scanner.is_over()) {
            Ok(Ok(done)) => read = done,
            Ok(Err(gap)) => return Ok(Err(gap)),
            Err(_) => return Ok(Err(LogGap::for_good("the log cannot be read"))),
        }
    }
    scanner.frames += read.frames;
    scanner.bytes += bytes;

    // The way to what is looked for may go through several parts.
    loop {
        let before = unowned.len();
        for (_, links) in &mut parts {
            links.trace_owners(&mut unowned, &mut owners);
        }
        if unowned.len() == before {
            break;
        }
    }
    for (mut candidates, mut links) in parts {
        // A row whose leaf is not in the part has owned its pages all the while,
        // and no other row's leads to them there, where all is committed. (The
        // last transaction of a generation may not be; then what it holds means
        // nothing.) A part that was not read to its end can be cut within a
        // transaction.
        if may_resolve && read.to == end {
            links.resolve(&mut candidates.overflow, &mut owners);
        }
        rows.append(&mut candidates.rowids);
        unowned.append(&mut candidates.overflow);
    }
    rows.append(&mut owners);
    if read.to == end {
        let free = free.among(&unowned);
        unowned = state.without_free(unowned, &free);
    }
    if state.log_was_read(read, end, unowned, file_pages) {
        scanner.why =
            Some("an overflow page with a half of the marker is of a row that was not written");
    }
    state.advance(file_pages);
    Ok(Ok(()))
}

/// Confirms the watched rows and these, of whatever table they are.
fn confirm(
    scanner: &Scanner<'_, '_>,
    view: &View<'_>,
    state: &mut ScanState,
    rows: &Rows,
) -> Result<(), StoreError> {
    let (snapshot, schema) = (&view.snapshot, &view.schema);
    let mut watched = BTreeSet::new();
    let mut marked = BTreeSet::new();
    let mut found = |id| {
        marked.insert(id);
    };
    for content in content_tables(schema) {
        // Of others SQL says it, once for all slices.
        let Some(rowid) = content.stored_rowid() else {
            continue;
        };
        let number = content.number;
        let of_table = state.watched.range((number, i64::MIN)..=(number, i64::MAX));
        let rows: Rows = of_table
            .map(|(_, row)| *row)
            .chain(rows.iter().copied())
            .collect();
        if rows.is_empty() {
            continue;
        }
        let needle = &scanner.needle;
        let mut confirmer =
            Confirmer::new(snapshot, schema, content, rowid, scanner.marker, needle)?;
        let mut records = Records::new(snapshot, content, rowid, needle, &scanner.halves)?;
        for row in rows {
            let Some(holds) = records.with_a_half(row)? else {
                continue;
            };
            watched.insert((number, row));
            if holds != Watched::Unmarked {
                confirmer.confirm(row, holds == Watched::MaybeLarge, &mut found)?;
            }
        }
    }
    state.watched = watched;
    state.marked = marked;
    Ok(())
}

/// So long is read between two snapshots.
fn most_at_once(view: &View<'_>) -> Duration {
    match view.snapshot.blocks_writers() {
        true => BLOCKING_SLICE,
        false => SLICE,
    }
}

/// How long to read the file's pages now; `None` if the answer is there, or has to be.
fn next_slice(
    scanner: &Scanner<'_, '_>,
    state: &mut ScanState,
    view: &View<'_>,
    end: WalPosition,
    confirming: Duration,
) -> Option<Duration> {
    if !state.is_complete() {
        let most = most_at_once(view);
        // What is read is confirmed within the budget, too.
        let left = scanner.left().map(|left| left.saturating_sub(confirming));
        let left = left.unwrap_or(most).min(most);
        // Each scan reads one piece at least.
        return (!left.is_zero() || !scanner.has_read_pages).then_some(left);
    }
    // Only while somebody writes, and in a listing that has time.
    if state.is_due_for_renewal(now_ms()) && scanner.frames > 0 && end.frames < RENEWABLE {
        state.begin_renewal(now_ms());
        return Some(RENEWAL);
    }
    (state.is_renewing() && !scanner.has_read_pages && scanner.frames > 0).then_some(RENEWAL)
}

/// Reads the file's pages for so long, one piece at least.
fn read_pages(
    scanner: &mut Scanner<'_, '_>,
    state: &mut ScanState,
    layout: Layout,
    slice: Duration,
    rows: &mut Rows,
) -> Result<(), StoreError> {
    let until = Instant::now() + slice;
    let stop = || Instant::now() >= until;
    let file = scanner.file(layout);
    let (before, after);
    match state.phase() {
        Phase::Search { done } => {
            let (reached, mut candidates) = file.search(done, &scanner.halves, stop)?;
            (before, after) = (done, reached);
            rows.append(&mut candidates.rowids);
            state.pages_were_searched(reached, candidates.overflow);
        }
        Phase::Owners { pages, done, .. } => {
            let mut unowned = state.unowned_pages().clone();
            let (reached, together) = file.trace_owners(&mut unowned, rows, pages, done, stop)?;
            (before, after) = (done, reached);
            state.owners_were_looked_for(reached, together, unowned);
        }
        // The log is not read to its end yet.
        Phase::Complete => (before, after) = (0, 0),
    }
    scanner.bytes += u64::from(after.saturating_sub(before)) * layout.page_size as u64;
    scanner.has_read_pages = true;
    Ok(())
}

impl<'a> Scanner<'a, '_> {
    fn file(&self, layout: Layout) -> FileScan<'a> {
        FileScan::new(self.database.file(), layout, self.options.threads)
    }

    /// What is left of the budget, if there is one.
    fn left(&self) -> Option<Duration> {
        self.until
            .map(|until| until.saturating_duration_since(Instant::now()))
    }
}
