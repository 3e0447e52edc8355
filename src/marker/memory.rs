//! What a scan remembers for the next one.

use std::collections::BTreeSet;
use std::path::Path;

use bincode::{Decode, Encode};
use rusqlite::Connection;

use super::CONTENT;
use crate::codec::{self, Kind};
use crate::file;
use crate::store::{FileLooks, Position, StoreError};
use crate::wire::MarkerText;

const KIND: Kind = Kind {
    magic: *b"OCSCACHE",
    version: 1,
};

/// What a scan knows at one place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Memory {
    /// What it is about. About another database it says nothing.
    pub(super) subject: Subject,
    /// Every frame up to here was searched.
    pub(super) position: Position,
    /// Where there is no log: what the file looked like then.
    pub(super) looks: Option<FileLooks>,
    /// The position was the end of a snapshot: nothing is left to read.
    pub(super) caught_up: bool,
    /// How far the pages of the file are known.
    pub(super) phase: Phase,
    /// Every row whose record holds a half of the marker, of what was read: the
    /// number of its table in [`CONTENT`], and its rowid.
    pub(super) watched: BTreeSet<(u8, i64)>,
    /// Overflow pages that held a half, and those before them in their rows,
    /// whose rows are looked for.
    pub(super) members: BTreeSet<u32>,
    /// The marked sessions, as far as they are known.
    pub(super) marked: BTreeSet<String>,
    /// All is known, and only being read once more.
    pub(super) renewing: bool,
    /// When the pages were last begun to be read, in milliseconds since 1970.
    pub(super) begun: i64,
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
    /// the members; `grew` where there are more members since this began.
    Owners {
        /// Pages.
        pages: u32,
        /// Pages.
        done: u32,
        /// Those that were looked at before must be once more.
        grew: bool,
    },
    /// All are.
    Complete,
}

/// What a memory is about.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Subject {
    device: u64,
    inode: u64,
    page_size: u32,
    marker: String,
    schema_version: i64,
    /// Type, name, root page and SQL of the content tables: a table that was
    /// rebuilt and renamed, or has a column more, has other content, and not one
    /// of its pages need have been written.
    tables: Vec<(String, String, i64, Option<String>)>,
}

impl Subject {
    pub(super) fn look(
        conn: &Connection,
        looks: &FileLooks,
        page_size: u32,
        marker: &MarkerText,
    ) -> Result<Self, StoreError> {
        let mut tables = conn.prepare(
            "SELECT type, name, rootpage, sql FROM sqlite_schema \
             WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')",
        )?;
        let mut all = Vec::new();
        for (name, _) in CONTENT {
            let found = tables.query_map([name], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
            for table in found {
                all.push(table?);
            }
        }
        Ok(Self {
            device: looks.device,
            inode: looks.inode,
            page_size,
            marker: marker.as_str().to_owned(),
            schema_version: conn.pragma_query_value(None, "schema_version", |row| row.get(0))?,
            tables: all,
        })
    }
}

impl Memory {
    /// Nothing is known, and the log is to be read from its start.
    pub(super) fn new(subject: Subject, end: Position, now: i64) -> Self {
        Self {
            subject,
            position: end.start(),
            looks: None,
            caught_up: false,
            phase: Phase::Search { done: 0 },
            watched: BTreeSet::new(),
            members: BTreeSet::new(),
            marked: BTreeSet::new(),
            renewing: false,
            begun: now,
        }
    }

    /// True where it is known of every session whether it is marked.
    pub(super) fn is_complete(&self) -> bool {
        self.caught_up && (self.phase == Phase::Complete || self.renewing)
    }

    /// What a file holds; `None` where it is of no use, whatever the reason.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let bytes = file::load(path, codec::HEADER + codec::MAX_BODY).ok()??;
        codec::decode(KIND, &bytes).ok()
    }

    /// Puts it in the file's place.
    pub(super) fn save(&self, path: &Path) -> std::io::Result<()> {
        file::save_unsynced(path, &codec::encode(KIND, self)?)
    }
}
