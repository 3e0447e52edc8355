//! What a row's record holds: its columns' bytes one after the other, as SQLite
//! stores them (<https://sqlite.org/fileformat2.html>, section 2.1).

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row};

use super::confirm::MAX_LOADED_BYTES;
use super::halves::{Halves, Stream};
use super::{ContentTable, Needle};
use crate::store::{CellLimit, RowById, RowFormat, StoreError, Table, quote_identifier};

/// The records of one table.
pub(super) struct Records<'a> {
    search: Search<'a>,
    limit: CellLimit<'a>,
    /// Every column, in the order in which a record has them; of a row with a large
    /// cell each column's size and, if it is not large, its value.
    row: RowById<'a>,
}

/// What is known of a row whose record holds a half of the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// It does not have the marker.
    Unmarked,
    /// It may have it.
    Maybe,
    /// It may have it, in a content that is too large to be loaded.
    MaybeLarge,
}

impl<'a> Records<'a> {
    /// The records of a table whose rowid goes by the name `rowid`.
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
        let content = table.columns.iter().position(|known| known.name == column);
        Ok(Self {
            search: Search {
                conn,
                table,
                content: content.unwrap_or_default(),
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

    /// What is known of a row if its record holds a half of the marker: also across
    /// the border between two columns, since an update can move that without writing
    /// the page they are on. It may say so of a few others. `None` of all the rest.
    pub(super) fn with_a_half(&mut self, rowid: i64) -> Result<Option<Watched>, StoreError> {
        let search = &self.search;
        let found = self
            .row
            .read(rowid, &self.limit, |shape, row| match shape {
                RowFormat::Plain => search.row(rowid, row, |row, at| Ok(Some(row.get_ref(at)?))),
                RowFormat::Large => search.row(rowid, row, |row, at| {
                    let size: Option<i64> = row.get(2 * at)?;
                    let is_large = size.is_some_and(|size| size > i64::from(MAX_LOADED_BYTES));
                    Ok((!is_large).then_some(row.get_ref(2 * at + 1)?))
                }),
            })?;
        Ok(found.flatten())
    }
}

/// How a row is searched.
struct Search<'a> {
    conn: &'a Connection,
    table: &'a Table,
    /// Which column is the content.
    content: usize,
    needle: &'a Needle,
    halves: &'a Halves,
}

impl Search<'_> {
    /// `cell` gives the value of a column, or nothing where that is large.
    fn row(
        &self,
        rowid: i64,
        row: &Row<'_>,
        cell: impl for<'r> Fn(&'r Row<'_>, usize) -> rusqlite::Result<Option<ValueRef<'r>>>,
    ) -> Result<Option<Watched>, StoreError> {
        let mut stream = Stream::new(self.halves);
        let mut watched = Watched::Unmarked;
        for (at, column) in self.table.columns.iter().enumerate() {
            match cell(row, at)? {
                Some(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => {
                    stream.push(bytes);
                    // Without a half there is no whole.
                    if at == self.content && stream.has_found() && self.needle.is_in(bytes) {
                        watched = Watched::Maybe;
                    }
                }
                // A record does not have the rowid under its other name.
                Some(ValueRef::Integer(_)) if self.table.rowid_alias() == Some(&column.name) => {}
                Some(ValueRef::Integer(value)) => stream.push(integer(value, &mut [0; 8])),
                // Stored as an integer where it is one.
                Some(ValueRef::Real(value)) if value.fract() == 0.0 => stream.assume_found(),
                Some(ValueRef::Real(value)) => stream.push(&value.to_be_bytes()),
                Some(ValueRef::Null) => {}
                None => {
                    let (table, name) = (self.table.name.as_str(), column.name.as_str());
                    stream.read(self.conn.blob_open(MAIN_DB, table, name, rowid, true)?)?;
                    if at == self.content {
                        watched = Watched::MaybeLarge;
                    }
                }
            }
        }
        Ok(stream.has_found().then_some(watched))
    }
}

/// An integer as a record has it: as few bytes as it needs, none for 0 and 1.
fn integer(value: i64, bytes: &mut [u8; 8]) -> &[u8] {
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
