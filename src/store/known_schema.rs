//! The schema of an earlier snapshot. As long as its text stays the same, it is not
//! analysed again.
//!
//! SQLite's pragmas say of each table which columns and indexes it has. Asking them takes
//! more instructions than anything else in a listing that finds nothing new. What they say
//! of ordinary tables follows from the text of `sqlite_schema` and from the version of
//! SQLite, so that both together identify it. The text itself is compared, not a checksum
//! or `schema_version`, which another database can have too.

use std::sync::Arc;

use bincode::{Decode, Encode};
use rusqlite::Connection;

use super::StoreError;
use super::schema::{KNOWN_TABLES, Schema};
use super::schema_rows::SchemaRows;

/// A longer text is not kept.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// A schema and the text that it follows from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct KnownSchema {
    sqlite_version: i32,
    text: Vec<u8>,
    schema: Arc<Schema>,
}

impl KnownSchema {
    /// Reads the schema of this connection's snapshot. Returns the schema, and what to
    /// pass as `known` the next time.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails or a session table cannot be read.
    pub fn read(
        conn: &Connection,
        known: Option<Self>,
    ) -> Result<(Arc<Schema>, Option<Self>), StoreError> {
        let rows = SchemaRows::read(conn, &KNOWN_TABLES)?;
        let sqlite_version = rusqlite::version_number();
        let is_same =
            |known: &Self| known.sqlite_version == sqlite_version && known.text == rows.text;
        if let Some(known) = known.filter(is_same) {
            return Ok((Arc::clone(&known.schema), Some(known)));
        }
        let schema = Arc::new(Schema::from_rows(conn, &rows)?);
        let is_known = schema.follows_from_text() && rows.text.len() <= MAX_TEXT_BYTES;
        let known = is_known.then(|| Self {
            sqlite_version,
            text: rows.text,
            schema: Arc::clone(&schema),
        });
        Ok((schema, known))
    }
}

#[cfg(test)]
impl KnownSchema {
    /// A value of which each field is another, for the sample of the scan cache.
    pub(crate) fn sample() -> Self {
        use super::schema::{Column, Index, RowidName, Table, TableKind};
        let index = Index {
            name: "by_id".to_owned(),
            unique: true,
            partial: false,
            primary: true,
            key: vec![(Some("id".to_owned()), true), (None, false)],
        };
        let column = |name: &str, is_key| Column {
            name: name.to_owned(),
            declared: "TEXT".to_owned(),
            generated: false,
            in_primary_key: is_key,
            has_default: !is_key,
        };
        let table = |kind| Table {
            name: "Part".to_owned(),
            kind,
            columns: vec![column("id", true), column("data", false)],
            indexes: vec![index.clone()],
            root_page: 61,
        };
        let tables = [
            TableKind::Rowid(RowidName::Rowid),
            TableKind::Rowid(RowidName::Underscored),
            TableKind::Rowid(RowidName::Oid),
            TableKind::WithoutRowid,
            TableKind::Other("view".to_owned()),
        ]
        .into_iter()
        .zip(["a", "b", "c", "d", "e"])
        .map(|(kind, name)| (name.to_owned(), table(kind)));
        Self {
            sqlite_version: 62,
            text: b"text".to_vec(),
            schema: Arc::new(Schema::of(tables.collect(), true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a database of this test")]
    fn in_memory() -> Connection {
        Connection::open_in_memory().unwrap()
    }

    /// A change of the schema a line, and whether the one before can still be used.
    const CHANGES: &[(&str, bool)] = &[
        (
            "CREATE TABLE session (id TEXT PRIMARY KEY, title TEXT)",
            false,
        ),
        ("INSERT INTO session VALUES ('s', 't')", true),
        (
            "CREATE TABLE part (id INTEGER PRIMARY KEY, session_id TEXT, data TEXT)",
            false,
        ),
        ("CREATE INDEX part_session ON part (session_id)", false),
        ("CREATE TABLE other (x)", true),
        (
            "CREATE TRIGGER t AFTER INSERT ON part BEGIN SELECT 1; END",
            true,
        ),
        ("CREATE VIEW v AS SELECT * FROM part", true),
        ("ALTER TABLE part ADD COLUMN more TEXT DEFAULT 'x'", false),
        ("ALTER TABLE part RENAME COLUMN data TO text", false),
        ("ALTER TABLE part RENAME COLUMN more TO data", false),
        ("ALTER TABLE part DROP COLUMN text", false),
        ("DROP INDEX part_session", false),
        (
            "CREATE UNIQUE INDEX part_session ON part (session_id) WHERE id > 5",
            false,
        ),
        (
            "ALTER TABLE part ADD COLUMN made TEXT AS (data || 'x')",
            false,
        ),
        ("DROP VIEW v", true),
        ("ALTER TABLE part RENAME TO Part_2", false),
        (
            "CREATE TABLE PART (oid, rowid, x COLLATE NOCASE UNIQUE) ",
            false,
        ),
        (
            "DROP TABLE part; CREATE TABLE part (k PRIMARY KEY, data) WITHOUT ROWID",
            false,
        ),
        // In the place of another table, with the same text.
        ("DROP TABLE other; DROP TABLE session", false),
        (
            "CREATE TABLE session (id TEXT PRIMARY KEY, title TEXT)",
            false,
        ),
        ("VACUUM", false),
    ];

    #[test]
    fn known_schema_equals_a_new_one_after_each_change() {
        for encoding in ["UTF-8", "UTF-16le"] {
            let conn = in_memory();
            conn.execute_batch(&format!("PRAGMA encoding = '{encoding}'"))
                .unwrap();
            let (_, mut known) = KnownSchema::read(&conn, None).unwrap();
            for (change, is_same) in CHANGES {
                conn.execute_batch(change).unwrap();
                let before = known.as_ref().map(|known| known.schema.clone());
                let (schema, next) = KnownSchema::read(&conn, known).unwrap();
                assert_eq!(*schema, Schema::read(&conn).unwrap(), "{change}");
                let is_reused = before.is_some_and(|before| Arc::ptr_eq(&before, &schema));
                // Of VACUUM it depends on the pages that were free.
                assert!(is_reused == *is_same || *change == "VACUUM", "{change}");
                known = next;
                assert!(known.is_some(), "{change}");
            }
        }
    }

    #[test]
    fn schema_with_a_view_of_a_known_name_is_not_kept() {
        let conn = in_memory();
        conn.execute_batch(
            "CREATE TABLE session (id TEXT PRIMARY KEY); CREATE TABLE base (session_id, data);
             CREATE VIEW part AS SELECT * FROM base",
        )
        .unwrap();
        let (schema, known) = KnownSchema::read(&conn, None).unwrap();
        assert_eq!(schema.table("part").unwrap().columns.len(), 2);
        assert_eq!(known, None);
        conn.execute_batch("ALTER TABLE base ADD COLUMN x; DROP VIEW part; CREATE TABLE part (x)")
            .unwrap();
        assert!(KnownSchema::read(&conn, None).unwrap().1.is_some());
    }

    #[test]
    fn schema_of_another_sqlite_or_text_is_read_again() {
        let conn = in_memory();
        conn.execute_batch("CREATE TABLE session (id TEXT PRIMARY KEY)")
            .unwrap();
        let (schema, known) = KnownSchema::read(&conn, None).unwrap();
        let known = known.unwrap();
        let wrong = Arc::new(Schema::default());
        let with_wrong = |sqlite_version, text: &[u8]| KnownSchema {
            sqlite_version,
            text: text.to_vec(),
            schema: Arc::clone(&wrong),
        };
        let version = known.sqlite_version;
        let (used, _) = KnownSchema::read(&conn, Some(with_wrong(version, &known.text))).unwrap();
        assert!(Arc::ptr_eq(&used, &wrong), "it is what is kept");
        for other in [
            with_wrong(version - 1, &known.text),
            with_wrong(version, &known.text[..known.text.len() - 1]),
            with_wrong(version, b""),
        ] {
            let (read, next) = KnownSchema::read(&conn, Some(other)).unwrap();
            assert_eq!(read, schema);
            assert_eq!(next, Some(known.clone()));
        }
    }
}
