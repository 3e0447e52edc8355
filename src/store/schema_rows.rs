//! The rows of `sqlite_schema` that define a set of tables. Two equal values mean equal
//! tables.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::StoreError;

/// The rows of some tables, with their indexes.
#[derive(Debug)]
pub(super) struct SchemaRows {
    /// Whether text is stored as UTF-8.
    pub(super) is_utf8: bool,
    /// The encoding of the database and the columns of each row, as bytes that no other
    /// rows have.
    pub(super) text: Vec<u8>,
    /// The name and the root page of each table.
    root_pages: Vec<(Vec<u8>, u32)>,
}

impl SchemaRows {
    /// Reads the rows of the tables with these names, in any case of letters.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails.
    pub(super) fn read(conn: &Connection, tables: &[&str]) -> Result<Self, StoreError> {
        let encoding: String = conn.pragma_query_value(None, "encoding", |row| row.get(0))?;
        let mut schema = Self {
            is_utf8: encoding == "UTF-8",
            text: encoding.into_bytes(),
            root_pages: Vec::new(),
        };
        let mut statement =
            conn.prepare("SELECT tbl_name, type, name, rootpage, sql FROM sqlite_schema")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let table = bytes(row.get_ref(0)?);
            let is_wanted = |name: &&str| table.eq_ignore_ascii_case(name.as_bytes());
            // A trigger says nothing about its table.
            if !tables.iter().any(is_wanted) || bytes(row.get_ref(1)?) == b"trigger" {
                continue;
            }
            for column in 0..5 {
                push_value(&mut schema.text, row.get_ref(column)?);
            }
            if let (b"table", ValueRef::Integer(root)) = (bytes(row.get_ref(1)?), row.get_ref(3)?) {
                let root = u32::try_from(root).unwrap_or(0);
                schema.root_pages.push((table.to_vec(), root));
            }
        }
        Ok(schema)
    }

    /// Returns the root page of the table with this name, or 0 if it has none.
    pub(super) fn root_page(&self, table: &str) -> u32 {
        let has_name = |(name, _): &&(Vec<u8>, u32)| name == table.as_bytes();
        self.root_pages
            .iter()
            .find(has_name)
            .map_or(0, |(_, root)| *root)
    }
}

fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    }
}

/// Appends a value: its type, its length and its bytes.
fn push_value(text: &mut Vec<u8>, value: ValueRef<'_>) {
    let number;
    let (kind, bytes): (u8, &[u8]) = match value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(integer) => {
            number = integer.to_le_bytes();
            (1, &number)
        }
        ValueRef::Real(real) => {
            number = real.to_le_bytes();
            (2, &number)
        }
        ValueRef::Text(bytes) => (3, bytes),
        ValueRef::Blob(bytes) => (4, bytes),
    };
    text.push(kind);
    text.extend((bytes.len() as u64).to_le_bytes());
    text.extend(bytes);
}
