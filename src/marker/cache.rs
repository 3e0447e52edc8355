//! What a scan remembers for the next one, and the phases in which the pages of a
//! database become known.
//!
//! Each phase keeps an invariant. `P` is the position that the log was read to, and its
//! generation is the run of the log since it last began again at the front.
//!
//! * **Search**: every row that holds a half of the marker in the snapshot at `P` is
//!   watched, or one of its halves is on a page of the file after the first `done`, or
//!   on an unowned page.
//! * **Owners**: a round begins with `done` 0 and `P` at the start of its generation.
//!   In the round that ends the phase every link of the file and of the log was held
//!   against the final set of unowned pages. (So a round in which that set grew is
//!   followed by another; growth by links that were all held against each other does
//!   not count if no log was read before.) It ends at once where no unowned page is left:
//!   the log can say that no row has them any more ([`super::free_pages`]).
//! * **Complete**: every row that holds a half of the marker in the snapshot at `P` is
//!   watched.
//!
//! Whatever breaks the chain from `P` to a snapshot (the log was restarted unread,
//! another file or schema) begins a new state, which keeps the watched rows only as
//! rows to confirm. A file that cannot be decoded, or is about something else, is a
//! cache that is not there.
//!
//! Nothing here reads a database: the transitions are tested without one.

use std::collections::BTreeSet;
use std::path::Path;

use bincode::{Decode, Encode};
use rusqlite::Connection;

use super::wal::LogRead;
use crate::codec::{self, Kind};
use crate::files;
use crate::marker_text::MarkerText;
use crate::store::{CONTENT_TABLES, FileStamp, StoreError, WalPosition};

const KIND: Kind = Kind {
    magic: *b"OCSCACHE",
    version: 2,
};

/// When all is read once more, in milliseconds: a file that was written over by a copy
/// beside its old log is not seen in the log.
const RENEW_AFTER_MS: i64 = 24 * 60 * 60 * 1000;

/// The cache: what one scan knows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[expect(clippy::large_enum_variant, reason = "a process has one")]
pub(super) enum ScanCache {
    /// Of a database whose pages are read past SQLite.
    Pages(ScanState),
    /// Of one that only SQL reads exactly.
    Sql(SqlState),
}

impl ScanCache {
    /// What a file holds; `None` if it is not a cache of this version, whatever the
    /// reason.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let bytes = files::load(path, codec::HEADER + codec::MAX_BODY).ok()??;
        codec::decode(KIND, &bytes).ok()
    }

    /// Puts it in the file's place.
    pub(super) fn save(&self, path: &Path) -> std::io::Result<()> {
        files::save_unsynced(path, &codec::encode(KIND, self)?)
    }
}

/// What a cache is about. About another database it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct CacheKey {
    device: u64,
    inode: u64,
    page_size: u32,
    /// Bytes at the end of each page that are not content.
    reserved: u32,
    marker: String,
    schema_version: i64,
    /// Type, name, root page and SQL of the content tables: a table that was
    /// rebuilt and renamed, or has a column more, has other content, and not one
    /// of its pages need have been written.
    tables: Vec<(String, String, i64, Option<String>)>,
}

impl CacheKey {
    /// The key of a database in the snapshot of `conn`, with pages of so many bytes of
    /// which so many are reserved.
    pub(super) fn of(
        conn: &Connection,
        stamp: &FileStamp,
        (page_size, reserved): (usize, usize),
        marker: &MarkerText,
    ) -> Result<Self, StoreError> {
        let names = CONTENT_TABLES.map(|content| format!("'{}'", content.table));
        let mut tables = conn.prepare(&format!(
            "SELECT type, name, rootpage, sql FROM sqlite_schema \
             WHERE lower(name) IN ({}) AND type IN ('table', 'view') ORDER BY name",
            names.join(", ")
        ))?;
        let tables = tables.query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        Ok(Self {
            device: stamp.device,
            inode: stamp.inode,
            page_size: u32::try_from(page_size).unwrap_or(0),
            reserved: u32::try_from(reserved).unwrap_or(0),
            marker: marker.as_str().to_owned(),
            schema_version: conn.pragma_query_value(None, "schema_version", |row| row.get(0))?,
            tables: tables.collect::<Result<_, _>>()?,
        })
    }
}

/// What is known of a database's pages at one position in its log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct ScanState {
    key: CacheKey,
    position: WalPosition,
    /// Without a log: the file's stamp then.
    stamp: Option<FileStamp>,
    /// The position was the end of a snapshot: nothing is left to read.
    caught_up: bool,
    /// Frames of its generation before the position had no checksum.
    past_a_hole: bool,
    phase: Phase,
    /// Every row whose record holds a half of the marker, of what was read: the
    /// number of its table in [`CONTENT_TABLES`], and its rowid.
    pub(super) watched: BTreeSet<(u8, i64)>,
    /// Overflow pages that held a half, and those before them in their rows,
    /// whose rows are looked for.
    unowned_pages: BTreeSet<u32>,
    /// The marked sessions, as far as they are known.
    pub(super) marked: BTreeSet<String>,
    /// What SQL knows of the content tables whose rows are not what is on their pages.
    pub(super) by_sql: Option<SqlState>,
    /// All is known, and only being read once more.
    renewing: bool,
    /// When the pages were last begun to be read, in milliseconds since 1970.
    begun_ms: i64,
}

/// How far the pages of the file are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Phase {
    /// The first `done` pages were searched.
    Search {
        /// Pages.
        done: u32,
    },
    /// Of the first `pages` pages the last `done` were looked at for what leads to
    /// the unowned pages; `grew` if there are more of these since the round began.
    Owners {
        /// Pages.
        pages: u32,
        /// Pages.
        done: u32,
        /// Another round must follow.
        grew: bool,
    },
    /// All are.
    Complete,
}

impl ScanState {
    /// Nothing is known, and the log is to be read from the start of the generation
    /// of `end`.
    pub(super) fn new(key: CacheKey, end: WalPosition, now_ms: i64) -> Self {
        Self {
            key,
            position: end.start(),
            stamp: None,
            caught_up: false,
            past_a_hole: false,
            phase: Phase::Search { done: 0 },
            watched: BTreeSet::new(),
            unowned_pages: BTreeSet::new(),
            marked: BTreeSet::new(),
            by_sql: None,
            renewing: false,
            begun_ms: now_ms,
        }
    }

    /// True if it is about the database of this key, whose file has this stamp, in a
    /// snapshot that ends at `end`. Without a log nothing but the stamp tells what was
    /// written.
    pub(super) fn is_about(&self, key: &CacheKey, end: WalPosition, stamp: FileStamp) -> bool {
        self.key == *key && (end.has_log() || self.stamp == Some(stamp))
    }

    /// With the watched rows of an earlier state of the same tables: some may still be
    /// marked, and to confirm more rows than necessary does no harm.
    pub(super) fn with_rows_of(mut self, earlier: Option<Self>) -> Self {
        if let Some(earlier) = earlier.filter(|earlier| earlier.key == self.key) {
            self.watched = earlier.watched;
        }
        self
    }

    /// How much is decided, from 0 to 1, of a database with so many pages.
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

    /// True if a restart of the log cannot be followed from the position: recovery may
    /// have ended the log before it, and written other frames there.
    pub(super) fn is_lost_by_a_restart(&self, end: WalPosition) -> bool {
        self.past_a_hole && self.position.salts != end.salts
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn unowned_pages(&self) -> &BTreeSet<u32> {
        &self.unowned_pages
    }

    pub(super) fn is_renewing(&self) -> bool {
        self.renewing
    }

    /// True if it is known of every session whether it is marked.
    pub(super) fn is_complete(&self) -> bool {
        self.caught_up && (self.phase == Phase::Complete || self.renewing)
    }

    /// True if the frames that follow the position begin with whole transactions: a
    /// position where time was up can be within one.
    pub(super) fn is_between_transactions(&self) -> bool {
        self.caught_up || self.position.frames == 0
    }

    /// The frames from the position to `read.to` were searched, in a snapshot that ends at
    /// `end`, and their links were held against the unowned pages: these are
    /// `unowned_pages` now, none of those before among the missing. The file has
    /// `file_pages` pages. Returns true if owners must be looked for because of them.
    pub(super) fn log_was_read(
        &mut self,
        LogRead {
            to, past_a_hole, ..
        }: LogRead,
        end: WalPosition,
        unowned_pages: BTreeSet<u32>,
        file_pages: u32,
    ) -> bool {
        self.past_a_hole = past_a_hole || self.past_a_hole && self.position.salts == to.salts;
        self.position = to;
        self.caught_up = to == end;
        let has_grown = unowned_pages.len() > self.unowned_pages.len();
        self.unowned_pages = unowned_pages;
        self.renewing &= !has_grown;
        match &mut self.phase {
            Phase::Search { .. } => false,
            Phase::Owners { grew, .. } => {
                *grew |= has_grown;
                false
            }
            Phase::Complete => {
                if has_grown {
                    self.begin_owners(file_pages);
                }
                has_grown
            }
        }
    }

    /// These will be the unowned pages, of which no row has the `free` ones in the snapshot
    /// that the log was read to. Returns those that are to be looked for.
    ///
    /// While owners are looked for, the set only grows, or is empty: the file can lead to a
    /// free page in every round, and each growth asks for another.
    pub(super) fn without_free(
        &mut self,
        mut unowned_pages: BTreeSet<u32>,
        free: &BTreeSet<u32>,
    ) -> BTreeSet<u32> {
        let is_new = |page: &u32| !self.unowned_pages.contains(page);
        let are_left = unowned_pages.iter().any(|page| !free.contains(page));
        match self.phase {
            Phase::Owners { .. } if are_left => {
                unowned_pages.retain(|page| !(free.contains(page) && is_new(page)));
            }
            _ => {
                unowned_pages.retain(|page| !free.contains(page));
                self.unowned_pages.retain(|page| !free.contains(page));
            }
        }
        unowned_pages
    }

    /// The pages up to `done` were searched; overflow pages among them held a half.
    pub(super) fn pages_were_searched(&mut self, done: u32, mut overflow: BTreeSet<u32>) {
        if let Phase::Search { done: before } = &mut self.phase {
            *before = done;
            self.unowned_pages.append(&mut overflow);
        }
    }

    /// Pages were looked at for what leads to the unowned pages, `done` of them now,
    /// counted from the end; the unowned pages are `unowned_pages` now. `together` if
    /// all links that were read now were held against each other.
    pub(super) fn owners_were_looked_for(
        &mut self,
        done: u32,
        together: bool,
        unowned_pages: BTreeSet<u32>,
    ) {
        let Phase::Owners {
            pages,
            done: before,
            grew,
        } = &mut self.phase
        else {
            return;
        };
        // The log is still to be read with the final set only if none of it was read in
        // this round. If some was, its links were held against a smaller set.
        let all_at_once = together && *before == 0 && done == *pages && self.position.frames == 0;
        *before = done;
        *grew |= !all_at_once && unowned_pages.len() > self.unowned_pages.len();
        self.unowned_pages = unowned_pages;
    }

    /// Goes on to the next phase if this one is done and the log was read to its end.
    pub(super) fn advance(&mut self, file_pages: u32) {
        if !self.caught_up {
            return;
        }
        match self.phase {
            Phase::Search { done } if done >= file_pages => {
                if self.unowned_pages.is_empty() {
                    self.phase = Phase::Complete;
                } else {
                    self.begin_owners(file_pages);
                }
            }
            // Nobody is looked for any more.
            Phase::Owners { .. } if self.unowned_pages.is_empty() => {
                self.phase = Phase::Complete;
            }
            Phase::Owners { pages, done, grew } if done >= pages => {
                if grew {
                    self.begin_owners(file_pages);
                } else {
                    self.unowned_pages.clear();
                    self.phase = Phase::Complete;
                }
            }
            _ => {}
        }
        if self.phase == Phase::Complete {
            self.renewing = false;
        }
    }

    /// A round: the file is read for what leads to the unowned pages, and so is the log,
    /// from the start of its generation.
    fn begin_owners(&mut self, file_pages: u32) {
        self.position = self.position.start();
        self.caught_up = false;
        self.phase = Phase::Owners {
            pages: file_pages,
            done: 0,
            grew: false,
        };
    }

    /// True if all pages were read a day ago, or in the future: the clock was set back.
    pub(super) fn is_due_for_renewal(&self, now_ms: i64) -> bool {
        let age = now_ms.saturating_sub(self.begun_ms);
        self.phase == Phase::Complete && !self.renewing && !(0..=RENEW_AFTER_MS).contains(&age)
    }

    /// All pages are read once more, while what is known stays known.
    pub(super) fn begin_renewal(&mut self, now_ms: i64) {
        self.phase = Phase::Search { done: 0 };
        self.renewing = true;
        self.begun_ms = now_ms;
        // What is read now can be of any moment of this generation.
        self.position = self.position.start();
    }

    /// Keeps the file's stamp, which alone tells of changes without a log; `None` if it
    /// could change and keep its stamp.
    pub(super) fn keep_stamp(&mut self, stamp: Option<FileStamp>) {
        self.stamp = stamp.filter(|_| !self.position.has_log());
    }
}

/// What SQL has found in one state of a database. Any commit is another state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct SqlState {
    key: Option<CacheKey>,
    position: WalPosition,
    /// Without a log: the file's stamp then.
    stamp: Option<FileStamp>,
    /// Which of the passes is under way; all are done when there are no more.
    pub(super) pass: u32,
    /// The last rowid that this pass is done with.
    pub(super) after: Option<i64>,
    /// The marked sessions that were found.
    pub(super) marked: BTreeSet<String>,
    /// All passes are done.
    pub(super) complete: bool,
}

impl SqlState {
    /// Nothing is known of the database in this state; `None` for a key if it cannot be
    /// told from others.
    pub(super) fn new(
        key: Option<CacheKey>,
        position: WalPosition,
        stamp: Option<FileStamp>,
    ) -> Self {
        Self {
            key,
            position,
            stamp,
            pass: 0,
            after: None,
            marked: BTreeSet::new(),
            complete: false,
        }
    }

    /// True if it is about this very state of this database.
    pub(super) fn is_about(&self, key: &CacheKey, position: WalPosition, stamp: FileStamp) -> bool {
        self.key.as_ref() == Some(key)
            && self.position == position
            && (position.has_log() || self.stamp == Some(stamp))
    }
}

#[cfg(test)]
mod tests;
