//! The state that a scan caches for the next one, and the phases in which the pages of a
//! database are scanned.
//!
//! Each phase keeps an invariant. `P` is the position up to which the log was read. Its
//! generation is the run of the log since its last restart.
//!
//! * **Search**: for every row that contains a half of the marker in the snapshot at `P`,
//!   the row is in `rows_with_half`, or one of its halves is on a page of the file after
//!   the first `done` pages, or on an unowned page.
//! * **Owners**: a round begins with `done` 0 and `P` at the start of its generation. The phase
//!   ends with the first round in which the set of unowned pages does not grow: every link
//!   of the file and of the log was then compared with the final set. (Exception: growth
//!   does not count if one call read the whole file and no frame was read before it, since
//!   its links were all traced together.) The phase ends at once when no unowned page is left: the log
//!   can show that no row owns them any more ([`super::free_pages`]).
//! * **Complete**: every row that contains a half of the marker in the snapshot at `P` is
//!   in `rows_with_half`.
//!
//! Anything that breaks the chain from `P` to a snapshot (a log that was restarted
//! unread, another file or b-tree) starts a new state, which keeps `rows_with_half` only
//! as rows to confirm. A cache file that cannot be decoded, or has another key, counts as
//! missing.
//!
//! This module reads no database, so that the transitions are tested without one.

use std::collections::BTreeSet;
use std::path::Path;

use bincode::{Decode, Encode};

use super::cache_key::CacheKey;
use super::wal::LogRead;
use crate::codec::{self, FileFormat};
use crate::files;
use crate::store::{DatabaseStamp, KnownSchema, WalPosition};

const FORMAT: FileFormat = FileFormat {
    magic: *b"OCSCACHE",
    version: 3,
};

/// The age in milliseconds after which all pages are read again. If the file was
/// overwritten by a copy beside its old log, the log does not show it.
const RENEW_AFTER_MS: i64 = 24 * 60 * 60 * 1000;

/// The scan cache: the state of one scan.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[expect(clippy::large_enum_variant, reason = "one value per process")]
pub(super) enum ScanCache {
    /// For a database whose pages are read past SQLite.
    Pages(ScanState),
    /// For a database that only SQL reads exactly.
    Sql(SqlState),
}

/// The content of the cache file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct CacheFile {
    pub(super) scan: ScanCache,
    /// The schema, if it can be identified.
    pub(super) schema: Option<KnownSchema>,
}

impl CacheFile {
    /// Reads the cache file. Returns its content and its bytes, or `None` if it is not a
    /// valid cache of this version, for whatever reason.
    pub(super) fn load(path: &Path) -> Option<(Self, Vec<u8>)> {
        let bytes = files::load(path, codec::HEADER_BYTES + codec::MAX_BODY_BYTES).ok()??;
        Some((codec::decode(FORMAT, &bytes).ok()?, bytes))
    }

    /// Returns the bytes of the cache file.
    pub(super) fn encode(&self) -> std::io::Result<Vec<u8>> {
        codec::encode(FORMAT, self)
    }
}

/// What is known of the pages of a database at one position in its log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct ScanState {
    key: CacheKey,
    position: WalPosition,
    /// If no frame is before the position: the stamp of the file at that time.
    stamp: Option<DatabaseStamp>,
    /// Whether the position was the end of a snapshot, so that nothing is left to read.
    is_caught_up: bool,
    /// If so, how many commits were published then since the wal-index was built.
    commits: Option<u32>,
    /// Whether frames of this generation before the position had no checksum.
    is_past_hole: bool,
    phase: Phase,
    /// Every row, of what was read, whose record contains a half of the marker: the index
    /// of its table in [`CONTENT_TABLES`], and its rowid.
    pub(super) rows_with_half: BTreeSet<(u8, i64)>,
    /// Overflow pages that contained a half, and the pages before them in their chains,
    /// whose rows are not found yet.
    unowned_pages: BTreeSet<u32>,
    /// The marked sessions, as far as they are known.
    pub(super) marked: BTreeSet<String>,
    /// The state of the scan by SQL of the content tables whose rows read as something
    /// other than what their pages store.
    pub(super) sql_state: Option<SqlState>,
    /// Whether everything is known and is only being read again.
    is_renewing: bool,
    /// When the last search of the pages began, in milliseconds since 1970.
    search_started_ms: i64,
}

/// How far the pages of the file have been scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Phase {
    /// The first `done` pages were searched for halves of the marker.
    Search {
        /// The number of pages searched.
        done: u32,
    },
    /// Of the first `pages` pages, the last `done` were searched for links to the unowned
    /// pages.
    Owners {
        /// The number of pages to search.
        pages: u32,
        /// The number of pages searched, from the end.
        done: u32,
        /// Whether the set of unowned pages has grown since the round began, so that
        /// another round must follow.
        has_grown: bool,
    },
    /// All pages are scanned.
    Complete,
}

impl ScanState {
    /// Creates a state in which nothing is known. The log is to be read from the start of
    /// the generation of `end`.
    pub(super) fn new(key: CacheKey, end: WalPosition, now_ms: i64) -> Self {
        Self {
            key,
            position: end.start(),
            stamp: None,
            is_caught_up: false,
            commits: None,
            is_past_hole: false,
            phase: Phase::Search { done: 0 },
            rows_with_half: BTreeSet::new(),
            unowned_pages: BTreeSet::new(),
            marked: BTreeSet::new(),
            sql_state: None,
            is_renewing: false,
            search_started_ms: now_ms,
        }
    }

    /// Returns true if the state can be continued for the database with this key and
    /// stamp, in a snapshot that ends at `end`.
    ///
    /// Without a log, only the stamp shows whether the file was written.
    pub(super) fn is_valid_for(
        &self,
        key: &CacheKey,
        end: WalPosition,
        stamp: DatabaseStamp,
    ) -> bool {
        let has_log = self.position.has_log() && end.has_log();
        self.key.covers(key) && (has_log || self.stamp == Some(stamp))
    }

    /// Continues the state, which is valid, under this key, in a snapshot that ends at
    /// `end`.
    ///
    /// If the file has the stamp that it had when it alone was the database, all commits
    /// since are in the log that there is now: before a log is removed or restarted, all
    /// of it is written to the file.
    pub(super) fn resume(&mut self, key: CacheKey, end: WalPosition, stamp: DatabaseStamp) {
        self.key = key;
        if self.stamp == Some(stamp) && self.position.salts != end.salts {
            self.position = end.start();
            self.is_caught_up = end == self.position;
            self.commits = None;
        }
    }

    /// Adds the rows with a half from an earlier state of the same b-trees. Some may still
    /// be marked, and confirming more rows than necessary does no harm.
    pub(super) fn with_rows_from(mut self, earlier: Option<Self>) -> Self {
        if let Some(earlier) = earlier.filter(|earlier| earlier.key.covers(&self.key)) {
            self.rows_with_half = earlier.rows_with_half;
        }
        self
    }

    /// Returns how much is known, from 0 to 1, for a database with this number of pages.
    pub(super) fn progress(&self, pages: u32) -> f64 {
        match self.phase {
            _ if self.is_complete() => 1.0,
            Phase::Search { done } => (f64::from(done) / f64::from(pages.max(1))).min(0.99),
            Phase::Owners { .. } | Phase::Complete => 0.99,
        }
    }

    pub(super) fn position(&self) -> WalPosition {
        self.position
    }

    /// Returns true if the log cannot be followed across a restart from the position:
    /// recovery may have ended the log before the position and written other frames
    /// there.
    pub(super) fn is_broken_by_restart(&self, end: WalPosition) -> bool {
        self.is_past_hole && self.position.salts != end.salts
    }

    /// Returns how many commits were published at the position, if it was the end of a
    /// snapshot.
    pub(super) fn commits(&self) -> Option<u32> {
        self.commits.filter(|_| self.is_caught_up)
    }

    /// Records how many commits are published at the end of the snapshot.
    pub(super) fn set_commits(&mut self, commits: Option<u32>) {
        self.commits = commits.filter(|_| self.is_caught_up);
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn unowned_pages(&self) -> &BTreeSet<u32> {
        &self.unowned_pages
    }

    pub(super) fn is_renewing(&self) -> bool {
        self.is_renewing
    }

    /// Returns true if it is known for every session whether it is marked.
    pub(super) fn is_complete(&self) -> bool {
        self.is_caught_up && (self.phase == Phase::Complete || self.is_renewing)
    }

    /// Returns true if the frames after the position begin with a whole transaction. A
    /// position where the budget ended can be within a transaction.
    pub(super) fn is_between_transactions(&self) -> bool {
        self.is_caught_up || self.position.frames == 0
    }

    /// Records that the frames from the position to `read.to` were searched, in a
    /// snapshot that ends at `end`, and that their links were compared with the unowned
    /// pages. `unowned_pages` is the new set, which contains the previous one. The file
    /// has `file_pages` pages. Returns true if the search for owners must begin because
    /// of the new set.
    pub(super) fn record_log_read(
        &mut self,
        LogRead {
            to, is_past_hole, ..
        }: LogRead,
        end: WalPosition,
        unowned_pages: BTreeSet<u32>,
        file_pages: u32,
    ) -> bool {
        self.is_past_hole = is_past_hole || self.is_past_hole && self.position.salts == to.salts;
        self.position = to;
        self.is_caught_up = to == end;
        self.stamp = self.stamp.filter(|_| to.frames == 0);
        let is_larger = unowned_pages.len() > self.unowned_pages.len();
        self.unowned_pages = unowned_pages;
        self.is_renewing &= !is_larger;
        match &mut self.phase {
            Phase::Search { .. } => false,
            Phase::Owners { has_grown, .. } => {
                *has_grown |= is_larger;
                false
            }
            Phase::Complete => {
                if is_larger {
                    self.begin_owner_search(file_pages);
                }
                is_larger
            }
        }
    }

    /// Takes the next set of unowned pages and the pages `free`, which no row owns in the
    /// snapshot up to which the log was read. Returns the pages whose owners must still
    /// be found.
    ///
    /// During the search for owners the set either only grows or becomes empty: the file
    /// can lead to a free page in every round, and each growth requires another round.
    pub(super) fn remove_free_pages(
        &mut self,
        mut unowned_pages: BTreeSet<u32>,
        free: &BTreeSet<u32>,
    ) -> BTreeSet<u32> {
        let is_new = |page: &u32| !self.unowned_pages.contains(page);
        let has_missing_owners = unowned_pages.iter().any(|page| !free.contains(page));
        match self.phase {
            Phase::Owners { .. } if has_missing_owners => {
                unowned_pages.retain(|page| !(free.contains(page) && is_new(page)));
            }
            _ => {
                unowned_pages.retain(|page| !free.contains(page));
                self.unowned_pages.retain(|page| !free.contains(page));
            }
        }
        unowned_pages
    }

    /// Records that the pages up to `done` were searched. `overflow` are the overflow
    /// pages among them that contain a half.
    pub(super) fn record_page_search(&mut self, done: u32, mut overflow: BTreeSet<u32>) {
        if let Phase::Search { done: searched } = &mut self.phase {
            *searched = done;
            self.unowned_pages.append(&mut overflow);
        }
    }

    /// Records that `done` pages, counted from the end, have been searched for links to
    /// the unowned pages, and that `unowned_pages` is the new set. `is_together` is true
    /// if all links of this search were traced together.
    pub(super) fn record_owner_search(
        &mut self,
        done: u32,
        is_together: bool,
        unowned_pages: BTreeSet<u32>,
    ) {
        let Phase::Owners {
            pages,
            done: searched,
            has_grown,
        } = &mut self.phase
        else {
            return;
        };
        // Only if no log was read in this round is it still to be read with the final
        // set. Otherwise its links were compared with a smaller set.
        let is_single_search =
            is_together && *searched == 0 && done == *pages && self.position.frames == 0;
        *searched = done;
        *has_grown |= !is_single_search && unowned_pages.len() > self.unowned_pages.len();
        self.unowned_pages = unowned_pages;
    }

    /// Enters the next phase if this one is done and the log was read to its end.
    pub(super) fn advance(&mut self, file_pages: u32) {
        if !self.is_caught_up {
            return;
        }
        match self.phase {
            Phase::Search { done } if done >= file_pages => {
                if self.unowned_pages.is_empty() {
                    self.phase = Phase::Complete;
                } else {
                    self.begin_owner_search(file_pages);
                }
            }
            // No owner is missing any more.
            Phase::Owners { .. } if self.unowned_pages.is_empty() => {
                self.phase = Phase::Complete;
            }
            Phase::Owners {
                pages,
                done,
                has_grown,
            } if done >= pages => {
                if has_grown {
                    self.begin_owner_search(file_pages);
                } else {
                    self.unowned_pages.clear();
                    self.phase = Phase::Complete;
                }
            }
            _ => {}
        }
        if self.phase == Phase::Complete {
            self.is_renewing = false;
        }
    }

    /// Begins a round of the search for owners: the file and the log, from the start of
    /// its generation, are searched for links to the unowned pages.
    fn begin_owner_search(&mut self, file_pages: u32) {
        self.position = self.position.start();
        self.is_caught_up = false;
        self.phase = Phase::Owners {
            pages: file_pages,
            done: 0,
            has_grown: false,
        };
    }

    /// Returns true if the last search of all pages is more than a day old, or in the
    /// future because the clock was set back.
    pub(super) fn is_due_for_renewal(&self, now_ms: i64) -> bool {
        let age = now_ms.saturating_sub(self.search_started_ms);
        self.phase == Phase::Complete && !self.is_renewing && !(0..=RENEW_AFTER_MS).contains(&age)
    }

    /// Begins to read all pages again. What is known stays valid meanwhile.
    pub(super) fn begin_renewal(&mut self, now_ms: i64) {
        self.phase = Phase::Search { done: 0 };
        self.is_renewing = true;
        self.search_started_ms = now_ms;
        // What is read from now on can be of any time in this generation.
        self.position = self.position.start();
        self.commits = None;
    }

    /// Sets the stamp of the file if it alone is the database. If there is no log, the
    /// stamp is the only sign of changes. `None` means that the file could change and keep
    /// its stamp.
    pub(super) fn set_stamp(&mut self, stamp: Option<DatabaseStamp>) {
        let is_alone = !self.position.has_log() || self.position.frames == 0 && self.is_caught_up;
        self.stamp = stamp.filter(|_| is_alone);
    }
}

/// What a scan by SQL has found in one state of a database. Any commit creates another
/// state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct SqlState {
    key: Option<CacheKey>,
    position: WalPosition,
    /// Without a log: the stamp of the file at that time.
    stamp: Option<DatabaseStamp>,
    /// The index of the current pass. All passes are done when the index reaches their
    /// number.
    pub(super) pass_index: u32,
    /// The last rowid that the current pass has done.
    pub(super) last_rowid: Option<i64>,
    /// The marked sessions that were found.
    pub(super) marked: BTreeSet<String>,
    pub(super) is_complete: bool,
}

impl SqlState {
    /// Creates a state in which nothing is known. The key is `None` if the state of the
    /// database cannot be identified.
    pub(super) fn new(
        key: Option<CacheKey>,
        position: WalPosition,
        stamp: Option<DatabaseStamp>,
    ) -> Self {
        Self {
            key,
            position,
            stamp,
            pass_index: 0,
            last_rowid: None,
            marked: BTreeSet::new(),
            is_complete: false,
        }
    }

    /// Returns true if this is the result for exactly this state of the database.
    pub(super) fn matches(
        &self,
        key: &CacheKey,
        position: WalPosition,
        stamp: DatabaseStamp,
    ) -> bool {
        self.key.as_ref() == Some(key)
            && self.position == position
            && (position.has_log() || self.stamp == Some(stamp))
    }
}

#[cfg(test)]
mod tests;
