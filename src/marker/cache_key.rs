//! What a scan cache is valid for.
//!
//! The key names the database, the marker, and the b-trees whose rows are known: of each
//! content table, the root page. It does not name the schema. What a scan knows is which
//! rows of these b-trees have a record with a half of the marker, and that follows from
//! pages alone: SQLite writes each page that it adds to a b-tree, and the root page of a
//! b-tree does not change as long as it exists. So an index, a column or a table more, or
//! a column of another name, changes nothing of it. VACUUM writes all pages. The schema
//! decides only which of these rows mark a session, and each change of it is a commit,
//! after which they are confirmed again.
//!
//! With auto-vacuum, SQLite moves pages: when a table is dropped, the root page of another
//! table takes its place, with all rows below it. Every such change has another
//! `schema_version`, which the key then holds too.

use bincode::{Decode, Encode};

use super::content_tables;
use super::page::Layout;
use crate::marker_text::MarkerText;
use crate::store::{DatabaseStamp, Schema};

/// Identifies the database, the b-trees and the marker that a cache is valid for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct CacheKey {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) page_size: u32,
    /// The number of reserved bytes at the end of each page.
    pub(super) reserved_bytes: u32,
    pub(super) marker: String,
    /// Only in a database with auto-vacuum.
    pub(super) schema_version: Option<i64>,
    /// The content tables whose rows are read from their pages: the index in
    /// [`CONTENT_TABLES`](crate::store::CONTENT_TABLES), and the root page.
    pub(super) root_pages: Vec<(u8, u32)>,
}

impl CacheKey {
    /// Creates the key of a database in one snapshot. `schema_version` is that of the
    /// snapshot if the database has auto-vacuum.
    pub(super) fn new(
        schema: &Schema,
        schema_version: Option<i64>,
        stamp: &DatabaseStamp,
        layout: Layout,
        marker: &MarkerText,
    ) -> Self {
        let reserved_bytes = layout.page_size - layout.usable_bytes;
        let tables = content_tables(schema).filter(|content| content.stored_rowid().is_some());
        Self {
            device: stamp.file.device,
            inode: stamp.file.inode,
            page_size: u32::try_from(layout.page_size).unwrap_or(0),
            reserved_bytes: u32::try_from(reserved_bytes).unwrap_or(0),
            marker: marker.as_str().to_owned(),
            schema_version,
            root_pages: tables
                .map(|content| (content.index, content.table.root_page))
                .collect(),
        }
    }

    /// Returns true if what is known under this key is known under `later` too: it is the
    /// same database, and all b-trees of `later` are among those of this key.
    pub(super) fn covers(&self, later: &Self) -> bool {
        let has_rows_of = |table: &(u8, u32)| table.1 != 0 && self.root_pages.contains(table);
        later.root_pages.iter().all(has_rows_of)
            && Self {
                root_pages: later.root_pages.clone(),
                ..self.clone()
            } == *later
    }
}
