//! What a row's record holds: its columns' bytes one after the other, as SQLite
//! stores them (<https://sqlite.org/fileformat2.html>, section 2.1).

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Statement};

use super::halves::{Halves, Stream};
use super::judge::WHOLE_CELL;
use crate::store::{Column, StoreError, Table, quoted};

/// The records of one table.
pub(super) struct Records<'a> {
    conn: &'a Connection,
    table: &'a Table,
    /// Which column is the content.
    content: usize,
    /// Every column, in the order in which a record has them: its size and, if it
    /// is not large, its value.
    row: Statement<'a>,
}

impl<'a> Records<'a> {
    /// The records of `table`, whose content is in `column` and whose rowid goes by
    /// the name `rowid`.
    pub(super) fn new(
        conn: &'a Connection,
        (table, column, rowid): (&'a Table, &str, &str),
    ) -> Result<Self, StoreError> {
        let values = table.columns.iter().map(|column| {
            let column = format!("x.{}", quoted(&column.name));
            format!(
                "octet_length({column}), \
                 CASE WHEN octet_length({column}) <= {WHOLE_CELL} THEN {column} END"
            )
        });
        let values: Vec<_> = values.collect();
        let content = table.columns.iter().position(|known| known.name == column);
        Ok(Self {
            conn,
            table,
            content: content.unwrap_or_default(),
            row: conn.prepare(&format!(
                "SELECT {} FROM {} AS x WHERE x.{rowid} = ?1",
                values.join(", "),
                quoted(&table.name)
            ))?,
        })
    }

    /// The size of the row's content, if its record holds a half of the marker: also
    /// across the border between two columns, since an update can move that without
    /// writing the page they are on. It may say so of a few others.
    pub(super) fn with_a_half(
        &mut self,
        rowid: i64,
        halves: &Halves,
    ) -> Result<Option<i64>, StoreError> {
        let mut rows = self.row.query([rowid])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let size = |at: usize| row.get::<_, Option<i64>>(2 * at);
        let content = size(self.content)?.unwrap_or_default();
        let mut stream = Stream::new(halves);
        for (at, column) in self.table.columns.iter().enumerate() {
            if size(at)?.is_some_and(|size| size > WHOLE_CELL) {
                let (table, column) = (self.table.name.as_str(), column.name.as_str());
                stream.read(self.conn.blob_open(MAIN_DB, table, column, rowid, true)?)?;
                continue;
            }
            match row.get_ref(2 * at + 1)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => stream.push(bytes),
                ValueRef::Integer(value) if !is_rowid(column) => {
                    stream.push(integer(value, &mut [0; 8]));
                }
                // Stored as an integer where it is one.
                ValueRef::Real(value) if value.fract() == 0.0 => return Ok(Some(content)),
                ValueRef::Real(value) => stream.push(&value.to_be_bytes()),
                ValueRef::Integer(_) | ValueRef::Null => {}
            }
        }
        Ok(stream.has_found().then_some(content))
    }
}

/// The rowid under another name, which a record does not have.
fn is_rowid(column: &Column) -> bool {
    column.in_primary_key && column.declared.eq_ignore_ascii_case("integer")
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
