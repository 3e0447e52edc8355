//! Searches the record of a row: the values of its columns one after the other, as SQLite
//! stores them (<https://sqlite.org/fileformat2.html>, section 2.1).

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row};

use super::confirm::MAX_LOADED_BYTES;
use super::halves::{HalfStream, Halves};
use super::{ContentTable, Needle};
use crate::store::{CellLimit, RowById, RowFormat, StoreError, Table, quote_identifier};

/// Searches the records of one table.
pub(super) struct RecordSearch<'a> {
    search: RowSearch<'a>,
    limit: CellLimit<'a>,
    /// Selects every column in the order of the record. For a row with a large cell,
    /// selects the size of each column and its value if that is not large.
    row: RowById<'a>,
}

/// The marker in a row whose record contains a half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkerMatch {
    /// The row does not contain the marker.
    Unmarked,
    /// The row may contain the marker.
    Maybe,
    /// The row may contain the marker, in content that is too large to be loaded.
    MaybeLarge,
}

impl<'a> RecordSearch<'a> {
    /// Prepares the search of a table whose rowid is named `rowid`.
    pub(super) fn new(
        conn: &'a Connection,
        ContentTable { table, column, .. }: ContentTable<'a>,
        rowid: &str,
        needle: &'a Needle,
        halves: &'a Halves,
    ) -> Result<Self, StoreError> {
        let select = |value: fn(String) -> String| {
            let columns = table.columns.iter();
            let values =
                columns.map(|column| value(format!("x.{}", quote_identifier(&column.name))));
            format!(
                "SELECT {} FROM {} AS x WHERE x.{rowid} = ?1",
                values.collect::<Vec<_>>().join(", "),
                quote_identifier(&table.name)
            )
        };
        let content_index = table
            .columns
            .iter()
            .position(|candidate| candidate.name == column);
        Ok(Self {
            search: RowSearch {
                conn,
                table,
                content_index: content_index.unwrap_or_default(),
                needle,
                halves,
            },
            row: RowById::new(
                conn,
                &select(|column| column),
                select(|column| {
                    format!(
                        "octet_length({column}), \
                         CASE WHEN octet_length({column}) <= {MAX_LOADED_BYTES} THEN {column} END"
                    )
                }),
            )?,
            limit: CellLimit::new(conn, MAX_LOADED_BYTES)?,
        })
    }

    /// Returns a match if the record of the row contains a half of the marker. A half can
    /// also lie across the boundary between two columns: an update can move that boundary
    /// without writing the page that the two columns are on. A few other rows may match
    /// too. Returns `None` for all other rows.
    pub(super) fn search(&mut self, rowid: i64) -> Result<Option<MarkerMatch>, StoreError> {
        let search = &self.search;
        let found = self
            .row
            .read(rowid, &self.limit, |row_format, row| match row_format {
                RowFormat::Plain => {
                    search.search(rowid, row, |row, index| Ok(Some(row.get_ref(index)?)))
                }
                RowFormat::Large => search.search(rowid, row, |row, index| {
                    let size_bytes: Option<i64> = row.get(2 * index)?;
                    let is_large = size_bytes
                        .is_some_and(|size_bytes| size_bytes > i64::from(MAX_LOADED_BYTES));
                    Ok((!is_large).then_some(row.get_ref(2 * index + 1)?))
                }),
            })?;
        Ok(found.flatten())
    }
}

/// How the rows of a table are searched.
struct RowSearch<'a> {
    conn: &'a Connection,
    table: &'a Table,
    content_index: usize,
    needle: &'a Needle,
    halves: &'a Halves,
}

impl RowSearch<'_> {
    /// Searches a row. `cell` returns the value of a column, or `None` if the value is
    /// large.
    fn search(
        &self,
        rowid: i64,
        row: &Row<'_>,
        cell: impl for<'r> Fn(&'r Row<'_>, usize) -> rusqlite::Result<Option<ValueRef<'r>>>,
    ) -> Result<Option<MarkerMatch>, StoreError> {
        let mut stream = HalfStream::new(self.halves);
        let mut marker_match = MarkerMatch::Unmarked;
        for (index, column) in self.table.columns.iter().enumerate() {
            match cell(row, index)? {
                Some(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => {
                    stream.push(bytes);
                    // The content can contain the marker only if it contains a half.
                    if index == self.content_index && stream.has_match() && self.needle.is_in(bytes)
                    {
                        marker_match = MarkerMatch::Maybe;
                    }
                }
                // A record does not store the alias of the rowid.
                Some(ValueRef::Integer(_)) if self.table.rowid_alias() == Some(&column.name) => {}
                Some(ValueRef::Integer(value)) => stream.push(encode_integer(value, &mut [0; 8])),
                // SQLite stores a REAL value without a fraction as an integer if it can.
                Some(ValueRef::Real(value)) if value.fract() == 0.0 => stream.assume_match(),
                Some(ValueRef::Real(value)) => stream.push(&value.to_be_bytes()),
                Some(ValueRef::Null) => {}
                None => {
                    let (table, name) = (self.table.name.as_str(), column.name.as_str());
                    stream.read(self.conn.blob_open(MAIN_DB, table, name, rowid, true)?)?;
                    if index == self.content_index {
                        marker_match = MarkerMatch::MaybeLarge;
                    }
                }
            }
        }
        Ok(stream.has_match().then_some(marker_match))
    }
}

/// Returns the bytes with which a record stores an integer: as few as possible, none for
/// 0 and 1.
fn encode_integer(value: i64, bytes: &mut [u8; 8]) -> &[u8] {
    *bytes = value.to_be_bytes();
    let magnitude = if value < 0 { !value } else { value };
    let count = match magnitude {
        _ if value == 0 || value == 1 => 0,
        0..0x80 => 1,
        0x80..0x8000 => 2,
        0x8000..0x80_0000 => 3,
        0x80_0000..0x8000_0000 => 4,
        0x8000_0000..0x8000_0000_0000 => 6,
        _ => 8,
    };
    &bytes[8 - count..]
}
