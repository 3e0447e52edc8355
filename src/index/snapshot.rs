//! The index on disk, so that the sessions of the last complete listings are available right
//! after a restart.
//!
//! A snapshot that is damaged, cut off, of another version or of another program causes
//! a [`DecodeError`]. The caller sets it aside, and the next listings rebuild it.

use std::io::{self, Cursor, Seek, Write};
use std::sync::Arc;

use bincode::enc::Encoder;
use bincode::error::EncodeError;
use bincode::{BorrowDecode, Encode};

use super::Index;
use crate::codec::{self, DecodeError, FileFormat};
use crate::entry::Entry;
use crate::marker_text::MarkerText;
use crate::row::{Row, RowMaker, Rows};
use crate::session::Millis;

const FORMAT: FileFormat = FileFormat {
    magic: *b"OCSINDEX",
    version: 5,
};

/// The space reserved for everything but the rows, in bytes.
const MARGIN_BYTES: usize = 1 << 20;

/// A snapshot of the index, which shares its rows.
#[derive(Debug, Encode)]
pub struct Snapshot {
    marker: Option<String>,
    sources: Vec<(String, SavedRows)>,
}

/// The rows of one source, saved as the JSON text of their entries.
#[derive(Debug)]
struct SavedRows(Arc<Rows>);

impl SavedRows {
    /// Returns a size in bytes that the encoded rows do not exceed. To count exactly, they must
    /// be written.
    fn max_bytes(&self) -> usize {
        let rows = self.0.values();
        rows.map(Row::max_written_bytes).sum()
    }
}

impl Encode for SavedRows {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.len().encode(encoder)?;
        let mut text = Vec::new();
        for row in self.0.values() {
            text.clear();
            row.write_open(&mut text)
                .map_err(|inner| EncodeError::Io { inner, index: 0 })?;
            text.push(b'}');
            text.as_slice().encode(encoder)?;
        }
        Ok(())
    }
}

#[derive(BorrowDecode)]
struct Restored<'a> {
    marker: Option<&'a str>,
    sources: Vec<(&'a str, Vec<&'a [u8]>)>,
}

impl Snapshot {
    /// Takes the snapshot of an index whose listings search for `marker`.
    #[must_use]
    pub fn of(index: &Index, marker: Option<&MarkerText>) -> Self {
        let sources = index.sources().map(|source| {
            let rows = SavedRows(Arc::clone(source.rows()));
            (source.identity().to_owned(), rows)
        });
        Self {
            marker: marker.map(|marker| marker.as_str().to_owned()),
            sources: sources.collect(),
        }
    }

    /// Writes the snapshot. Sources whose rows do not fit in [`codec::MAX_BODY_BYTES`] are left
    /// out, the largest first, so that the others keep their rows. Returns how many were left
    /// out.
    ///
    /// # Errors
    ///
    /// Returns the errors of `out`.
    pub fn write(self, out: &mut (impl Write + Seek)) -> io::Result<usize> {
        self.write_within(codec::MAX_BODY_BYTES, out)
    }

    /// As [`write`](Self::write), with this limit.
    ///
    /// # Errors
    ///
    /// Returns the errors of `out`.
    pub fn write_within(
        mut self,
        limit_bytes: usize,
        out: &mut (impl Write + Seek),
    ) -> io::Result<usize> {
        let count = self.sources.len();
        let room_bytes = limit_bytes.saturating_sub(MARGIN_BYTES);
        // The smallest first, as the largest are dropped.
        self.sources
            .sort_by_cached_key(|(_, rows)| rows.max_bytes());
        let max_bytes = self.sources.iter().map(|(_, rows)| rows.max_bytes());
        if max_bytes.sum::<usize>() > room_bytes {
            self.drop_largest(room_bytes);
        }
        codec::write(FORMAT, &self, out)?;
        Ok(count - self.sources.len())
    }

    /// Drops the largest sources, so that the others have this size at most.
    fn drop_largest(&mut self, mut room_bytes: usize) {
        let sources = std::mem::take(&mut self.sources).into_iter();
        let mut sizes: Vec<_> = sources
            .map(|source| (codec::encoded_bytes(&source), source))
            .collect();
        sizes.sort_by_key(|(bytes, _)| *bytes);
        let fitting = sizes.into_iter().map_while(|(bytes, source)| {
            room_bytes = room_bytes.checked_sub(bytes)?;
            Some(source)
        });
        self.sources = fitting.collect();
    }

    /// Returns the bytes of the snapshot; see [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`write`](Self::write).
    pub fn to_bytes(self) -> io::Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        self.write(&mut bytes)?;
        Ok(bytes.into_inner())
    }
}

/// Restores the rows of the index's sources from an encoded snapshot, at `now`.
///
/// # Errors
///
/// Returns an error if the bytes are not a snapshot of this version. Then the index is
/// unchanged.
pub fn restore(
    index: &mut Index,
    bytes: &[u8],
    marker: Option<&MarkerText>,
    now: Millis,
) -> Result<(), DecodeError> {
    let restored: Restored<'_> = codec::decode(FORMAT, bytes)?;
    // The marks are results for the marker of that time.
    let is_same_marker = restored.marker == marker.map(MarkerText::as_str);
    let sources = restored.sources.into_iter().map(|(identity, rows)| {
        let mut maker = RowMaker::default();
        let rows = rows.into_iter().map(|json| {
            let entry: Entry = serde_json::from_slice(json).map_err(|_| DecodeError::Body)?;
            let mut row = maker.restore(&entry);
            if !is_same_marker {
                row.forget_mark();
            }
            Ok(row)
        });
        Ok((identity, rows.collect::<Result<Vec<Row>, DecodeError>>()?))
    });
    for (identity, rows) in sources.collect::<Result<Vec<_>, DecodeError>>()? {
        index.restore(identity, rows, now);
    }
    Ok(())
}
