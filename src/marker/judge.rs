//! What one row is, in one snapshot: SQL has the last word about each.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, OptionalExtension, Statement};

use super::halves::{Halves, Stream};
use super::{Needle, cell};
use crate::session::SessionId;
use crate::store::{Column, StoreError, Table, quoted};

/// The largest cell that is loaded, in bytes; larger ones are read in pieces.
pub(super) const WHOLE_CELL: i64 = 1 << 20;

/// Judges the rows of one table.
pub(super) struct Judge<'a> {
    conn: &'a Connection,
    table: &'a Table,
    column: &'static str,
    /// Every column, in the order in which a record has them: its size and, if it
    /// is not large, its value.
    record: Statement<'a>,
    /// The size of its content.
    size: Statement<'a>,
    /// The row's session, if `LIKE` says so.
    if_like: Statement<'a>,
    /// The row's session.
    session: Statement<'a>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        table: &'a Table,
        column: &'static str,
        rowid: &str,
        session: &str,
    ) -> Result<Self, StoreError> {
        let name = quoted(&table.name);
        let values = table.columns.iter().map(|column| {
            let column = format!("x.{}", quoted(&column.name));
            format!(
                "octet_length({column}), \
                 CASE WHEN octet_length({column}) <= {WHOLE_CELL} THEN {column} END"
            )
        });
        let values: Vec<_> = values.collect();
        let of_row = format!(
            "SELECT s.id FROM {name} AS x CROSS JOIN {session} AS s ON x.session_id = s.id \
             WHERE x.{rowid} = ?1 AND octet_length(s.id) <= {}",
            SessionId::MAX_BYTES
        );
        Ok(Self {
            conn,
            table,
            column,
            record: conn.prepare(&format!(
                "SELECT {} FROM {name} AS x WHERE x.{rowid} = ?1",
                values.join(", ")
            ))?,
            size: conn.prepare(&format!(
                "SELECT octet_length(x.{column}) FROM {name} AS x WHERE x.{rowid} = ?1"
            ))?,
            if_like: conn.prepare(&format!("{of_row} AND x.{column} LIKE ?2 ESCAPE '\\'"))?,
            session: conn.prepare(&of_row)?,
        })
    }

    /// True where the row's record holds a half of the marker: its columns' bytes
    /// one after the other, since an update can move the border between two
    /// without writing the page they are on. It may say so of a few others.
    pub(super) fn holds_a_half(&mut self, rowid: i64, halves: &Halves) -> Result<bool, StoreError> {
        let mut rows = self.record.query([rowid])?;
        let Some(row) = rows.next()? else {
            return Ok(false);
        };
        let mut stream = Stream::new(halves);
        for (at, column) in self.table.columns.iter().enumerate() {
            let size: Option<i64> = row.get(2 * at)?;
            if size.is_some_and(|size| size > WHOLE_CELL) {
                let cell = self.conn.blob_open(
                    MAIN_DB,
                    self.table.name.as_str(),
                    column.name.as_str(),
                    rowid,
                    true,
                )?;
                stream.read(cell)?;
                continue;
            }
            match row.get_ref(2 * at + 1)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => stream.push(bytes),
                ValueRef::Integer(value) if !is_rowid(column) => {
                    stream.push(integer(value, &mut [0; 8]));
                }
                // Stored as an integer where it is one.
                ValueRef::Real(value) if value.fract() == 0.0 => return Ok(true),
                ValueRef::Real(value) => stream.push(&value.to_be_bytes()),
                ValueRef::Integer(_) | ValueRef::Null => {}
            }
        }
        Ok(stream.has_found())
    }

    /// Calls `found` with the row's session if the row has the marker.
    pub(super) fn judge(
        &mut self,
        rowid: i64,
        pattern: &str,
        needle: &Needle,
        found: &mut impl FnMut(String),
    ) -> Result<(), StoreError> {
        let size: Option<i64> = self
            .size
            .query_row([rowid], |row| row.get(0))
            .optional()?
            .flatten();
        let mut ids = if size.is_none_or(|size| size <= WHOLE_CELL) {
            self.if_like.query((rowid, pattern))?
        } else if cell::is_like(self.conn, &self.table.name, self.column, rowid, needle)? {
            self.session.query([rowid])?
        } else {
            return Ok(());
        };
        while let Some(id) = ids.next()? {
            text_id(id.get_ref(0)?, found);
        }
        Ok(())
    }
}

/// Only a TEXT is the id of a session that can be listed.
pub(super) fn text_id(id: ValueRef<'_>, found: &mut impl FnMut(String)) {
    if let ValueRef::Text(id) = id
        && let Ok(id) = std::str::from_utf8(id)
    {
        found(id.to_owned());
    }
}

/// The rowid under another name, which a record does not have.
fn is_rowid(column: &Column) -> bool {
    column.in_primary_key && column.declared.eq_ignore_ascii_case("integer")
}

/// An integer as a record has it (<https://sqlite.org/fileformat2.html>, section
/// 2.1): as few bytes as it needs, none for 0 and 1.
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
