//! What the phases of one scan share: its inputs, what it has read, and its snapshot.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache_key::CacheKey;
use super::halves::Halves;
use super::page::{Layout, PAGE_COUNT_LIMIT};
use super::{Needle, session_tables};
use crate::marker_text::MarkerText;
use crate::store::{
    Database, DatabaseStamp, KnownSchema, Schema, Snapshot, StoreError, WalPosition,
};

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
    /// The number of threads that read the file; 0 means as many as the machine offers,
    /// up to 4.
    pub threads: usize,
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
    /// The bytes of the cache file that the scan began with.
    pub(super) loaded_cache: Option<Vec<u8>>,
    /// The schema of the last snapshot.
    pub(super) known_schema: Option<KnownSchema>,
}

/// A snapshot, and the facts that decide how it can be read past SQLite.
pub(super) struct SnapshotView<'a> {
    pub(super) snapshot: Snapshot<'a>,
    pub(super) schema: Arc<Schema>,
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
        let schema_version = match self.auto_vacuum {
            true => Some(
                self.snapshot
                    .pragma_query_value(None, "schema_version", |row| row.get(0))?,
            ),
            false => None,
        };
        let key = CacheKey::new(&self.schema, schema_version, &stamp, self.layout, marker);
        Ok(Some((key, end, stamp)))
    }
}

impl<'a, 'o> Scanner<'a, 'o> {
    pub(super) fn new(
        database: &'a Database,
        options: &'o Options,
        marker: &'o MarkerText,
    ) -> Self {
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
            loaded_cache: None,
            known_schema: None,
        }
    }

    /// Takes a snapshot, or uses `held`, and reads its schema and layout.
    pub(super) fn take_snapshot(
        &mut self,
        held: Option<Snapshot<'a>>,
    ) -> Result<SnapshotView<'a>, StoreError> {
        let snapshot = match held {
            Some(snapshot) => snapshot,
            None => self.database.begin()?,
        };
        let (schema, known) = KnownSchema::read(&snapshot, self.known_schema.take())?;
        self.known_schema = known;
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
}

/// Returns true if `LIKE` could find the marker in the text of a number.
fn could_match_number(marker: &MarkerText) -> bool {
    marker
        .as_str()
        .bytes()
        .all(|byte| b"0123456789+-.eEinfINF".contains(&byte))
}

/// Rowids of any table.
pub(super) type Rowids = BTreeSet<i64>;
