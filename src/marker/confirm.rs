//! Finds the session that a row marks, in one snapshot. `LIKE` decides, or an exact
//! equivalent for a cell that is too large to be loaded.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Rows, Statement};

use super::{ContentTable, Needle, large_cell, session_tables};
use crate::marker_text::MarkerText;
use crate::session::SessionId;
use crate::store::{Schema, StoreError, Table, quote_identifier};

/// The size in bytes of the largest cell that is loaded. Larger cells are read in pieces.
pub(super) const MAX_LOADED_BYTES: i32 = 1 << 20;

/// Confirms rows of one table.
pub(super) struct Confirmer<'a> {
    conn: &'a Connection,
    table: &'a Table,
    column: &'static str,
    needle: &'a Needle,
    pattern: String,
    /// For each session table, the statement that selects the row's session if `LIKE`
    /// matches or if the third parameter is true. In the latter case the content is not
    /// loaded.
    session_of_row: Vec<Statement<'a>>,
}

impl<'a> Confirmer<'a> {
    /// Prepares the statements for a table whose rowid is named `rowid`.
    pub(super) fn new(
        conn: &'a Connection,
        schema: &Schema,
        ContentTable { table, column, .. }: ContentTable<'a>,
        rowid: &str,
        marker: &MarkerText,
        needle: &'a Needle,
    ) -> Result<Self, StoreError> {
        let session_of_row = session_tables(schema).map(|session| {
            conn.prepare(&format!(
                "SELECT s.id FROM {} AS x CROSS JOIN {} AS s ON x.session_id = s.id \
                 WHERE x.{rowid} = ?1 AND octet_length(s.id) <= {} \
                 AND (?3 OR x.{column} LIKE ?2 ESCAPE '\\')",
                quote_identifier(&table.name),
                quote_identifier(&session.name),
                SessionId::MAX_BYTES
            ))
        });
        Ok(Self {
            conn,
            table,
            column,
            needle,
            pattern: like_pattern(marker),
            session_of_row: session_of_row.collect::<Result<_, _>>()?,
        })
    }

    /// Calls `found` with the row's session if the row contains the marker. Content that
    /// `is_large` is not loaded.
    pub(super) fn confirm(
        &mut self,
        rowid: i64,
        is_large: bool,
        found: &mut impl FnMut(String),
    ) -> Result<(), StoreError> {
        if is_large
            && !large_cell::contains_marker(
                self.conn,
                &self.table.name,
                self.column,
                rowid,
                self.needle,
            )?
        {
            return Ok(());
        }
        for session in &mut self.session_of_row {
            for_each_text_id(session.query((rowid, &self.pattern, is_large))?, found)?;
        }
        Ok(())
    }
}

/// Evaluates the definition itself for all rows at once, for tables and databases where
/// no other way is exact.
pub(super) fn find_by_definition(
    conn: &Connection,
    schema: &Schema,
    ContentTable { table, column, .. }: ContentTable<'_>,
    marker: &MarkerText,
    found: &mut impl FnMut(String),
) -> Result<(), StoreError> {
    for session in session_tables(schema) {
        let mut ids = conn.prepare(&format!(
            "SELECT s.id FROM {} AS s WHERE octet_length(s.id) <= {} AND EXISTS \
             (SELECT 1 FROM {} AS x WHERE x.session_id = s.id AND x.{column} LIKE ?1 ESCAPE '\\')",
            quote_identifier(&session.name),
            SessionId::MAX_BYTES,
            quote_identifier(&table.name)
        ))?;
        for_each_text_id(ids.query([like_pattern(marker)])?, found)?;
    }
    Ok(())
}

/// Calls `found` with each id that is a TEXT; other values are not the id of a session
/// that can be listed.
pub(super) fn for_each_text_id(
    mut ids: Rows<'_>,
    found: &mut impl FnMut(String),
) -> Result<(), StoreError> {
    while let Some(id) = ids.next()? {
        if let ValueRef::Text(id) = id.get_ref(0)?
            && let Ok(id) = std::str::from_utf8(id)
        {
            found(id.to_owned());
        }
    }
    Ok(())
}

/// Returns the `LIKE` pattern that finds the marker. `%`, `_` and the escape character
/// are literal in a marker.
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
    fn like_pattern_escapes_wildcards() {
        let marker = MarkerText::new(r"100%_of\the-marker").unwrap();
        assert_eq!(like_pattern(&marker), r"%100\%\_of\\the-marker%");
    }
}
