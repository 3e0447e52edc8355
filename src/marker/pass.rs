//! One pass over each content table in rowid order, on the borrowed values: a
//! cheap filter finds the few rows that hold the marker's bytes, and `LIKE`
//! judges those. Every page is read once, in the order of the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

use super::judge::{WHOLE_CELL, text_id};
use super::{Needle, cell, content_tables};
use crate::session::SessionId;
use crate::store::{Schema, StoreError, Table, quoted};
use crate::wire::MarkerText;

/// The filter's name in SQL.
const FILTER: &str = "may_hold_marker";

/// Calls `found` with the id of each session that is marked, once or more
/// often, and returns how many bytes of content were searched.
pub(super) fn run(
    conn: &Connection,
    schema: &Schema,
    marker: &MarkerText,
    mut found: impl FnMut(String),
) -> Result<u64, StoreError> {
    let needle = Needle::new(marker);
    let bytes = Arc::new(AtomicU64::new(0));
    add_filter(conn, needle.clone(), Arc::clone(&bytes))?;
    let session = session_table(schema);
    let pattern = like_pattern(marker);
    for (table, column) in content_tables(schema) {
        // A BLOB in a database of UTF-16 reads as UTF-16: only LIKE knows. And
        // no cell of a table that computes a column can be read in pieces.
        let Some(rowid) = table.rowid().filter(|_| schema.utf8 && !table.computes()) else {
            plain(conn, schema, table, column, marker, &mut found)?;
            continue;
        };
        let name = quoted(&table.name);
        let of_row = format!(
            "SELECT s.id FROM {name} AS x CROSS JOIN {session} AS s ON x.session_id = s.id \
             WHERE x.{rowid} = ?1 AND octet_length(s.id) <= {}",
            SessionId::MAX_BYTES
        );
        let mut of_row_if_like =
            conn.prepare(&format!("{of_row} AND x.{column} LIKE ?2 ESCAPE '\\'"))?;
        let mut of_row = conn.prepare(&of_row)?;
        let mut candidates = conn.prepare(&candidates_sql(table, column))?;
        let mut rows = candidates.query([])?;
        while let Some(row) = rows.next()? {
            let (rowid, size): (i64, i64) = (row.get(0)?, row.get(1)?);
            if size <= WHOLE_CELL {
                let mut ids = of_row_if_like.query((rowid, &pattern))?;
                while let Some(id) = ids.next()? {
                    text_id(id.get_ref(0)?, &mut found);
                }
                continue;
            }
            bytes.fetch_add(size.unsigned_abs(), Ordering::Relaxed);
            if cell::is_like(conn, &table.name, column, rowid, &needle)? {
                let mut ids = of_row.query([rowid])?;
                while let Some(id) = ids.next()? {
                    text_id(id.get_ref(0)?, &mut found);
                }
            }
        }
    }
    Ok(bytes.load(Ordering::Relaxed))
}

/// The rowids of the rows to judge, and the size of what each holds.
/// `octet_length` of a column does not load it, so a large cell is not loaded.
fn candidates_sql(table: &Table, column: &str) -> String {
    let (name, rowid) = (quoted(&table.name), table.rowid().unwrap_or("rowid"));
    format!(
        "SELECT x.{rowid}, octet_length(x.{column}) FROM {name} AS x NOT INDEXED \
         WHERE CASE WHEN octet_length(x.{column}) > {WHOLE_CELL} THEN 1 \
         ELSE {FILTER}(x.{column}) END"
    )
}

/// The definition itself, for tables and databases where nothing else is exact.
pub(super) fn plain(
    conn: &Connection,
    schema: &Schema,
    table: &Table,
    column: &str,
    marker: &MarkerText,
    found: &mut impl FnMut(String),
) -> Result<(), StoreError> {
    let (name, session) = (quoted(&table.name), session_table(schema));
    let mut ids = conn.prepare(&format!(
        "SELECT s.id FROM {session} AS s WHERE octet_length(s.id) <= {} AND EXISTS \
         (SELECT 1 FROM {name} AS x WHERE x.session_id = s.id AND x.{column} LIKE ?1 ESCAPE '\\')",
        SessionId::MAX_BYTES
    ))?;
    let mut ids = ids.query([like_pattern(marker)])?;
    while let Some(id) = ids.next()? {
        text_id(id.get_ref(0)?, found);
    }
    Ok(())
}

fn add_filter(conn: &Connection, needle: Needle, bytes: Arc<AtomicU64>) -> Result<(), StoreError> {
    // DIRECTONLY: a view or an index expression of the database cannot call it.
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function(FILTER, 1, flags, move |call| {
        Ok(match call.get_raw(0) {
            ValueRef::Text(value) | ValueRef::Blob(value) => {
                bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
                needle.is_in(value)
            }
            ValueRef::Null => false,
            // Its digits could be the marker's.
            ValueRef::Integer(_) | ValueRef::Real(_) => true,
        })
    })?;
    Ok(())
}

/// The name of the table of sessions, in SQL.
pub(super) fn session_table(schema: &Schema) -> String {
    let table = schema.table("session");
    table.map(|table| quoted(&table.name)).unwrap_or_default()
}

/// `%`, `_` and the escape itself are literal in a marker.
pub(super) fn like_pattern(marker: &MarkerText) -> String {
    let mut pattern = String::from("%");
    for c in marker.as_str().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_marker_are_literal() {
        let marker = MarkerText::new(r"100%_of\the-marker").unwrap();
        assert_eq!(like_pattern(&marker), r"%100\%\_of\\the-marker%");
    }
}
