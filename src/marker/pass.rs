//! One pass over each content table in rowid order, on the borrowed values: a
//! cheap filter finds the few rows that hold the marker's bytes, and `LIKE`
//! judges those. Every page is read once, in the order of the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

use super::judge::{Judge, WHOLE_CELL, plain};
use super::{Needle, content_tables};
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
    for (table, column) in content_tables(schema) {
        // A BLOB in a database of UTF-16 reads as UTF-16: only LIKE knows. And
        // no cell of a table that computes a column can be read in pieces.
        let Some(rowid) = table.rowid().filter(|_| schema.utf8 && !table.computes()) else {
            plain(conn, schema, table, column, marker, &mut found)?;
            continue;
        };
        let mut judge = Judge::new(conn, schema, (table, column, rowid), marker, &needle)?;
        let mut candidates = conn.prepare(&candidates_sql(table, column, rowid))?;
        let mut rows = candidates.query([])?;
        while let Some(row) = rows.next()? {
            let (rowid, size): (i64, i64) = (row.get(0)?, row.get(1)?);
            let is_large = size > i64::from(WHOLE_CELL);
            if is_large {
                bytes.fetch_add(size.unsigned_abs(), Ordering::Relaxed);
            }
            judge.judge(rowid, is_large, &mut found)?;
        }
    }
    Ok(bytes.load(Ordering::Relaxed))
}

/// The rowids of the rows to judge, and the size of what each holds.
/// `octet_length` of a column does not load it, so a large cell is not loaded.
fn candidates_sql(table: &Table, column: &str, rowid: &str) -> String {
    let name = quoted(&table.name);
    format!(
        "SELECT x.{rowid}, octet_length(x.{column}) FROM {name} AS x NOT INDEXED \
         WHERE CASE WHEN octet_length(x.{column}) > {WHOLE_CELL} THEN 1 \
         ELSE {FILTER}(x.{column}) END"
    )
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
