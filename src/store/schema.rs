//! The schema of a database as it is: any column may be missing, in any order. While
//! OpenCode upgrades, every intermediate schema is visible, so the schema is read in the
//! same transaction as the rows.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use rusqlite::{Connection, Statement};

use super::StoreError;
use super::schema_rows::SchemaRows;

/// The tables that this crate reads, if the database has them.
pub(super) const KNOWN_TABLES: [&str; 11] = [
    "session",
    "session_v2",
    "project",
    "message",
    "part",
    "session_message",
    "session_input",
    "session_inbox",
    "session_pending",
    "kv",
    "event_sequence",
];

/// Returns true for a table without which there is no listing.
fn is_session_table(table: &str) -> bool {
    matches!(table, "session" | "session_v2")
}

/// The schema of the tables that this crate reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Schema {
    tables: BTreeMap<String, Table>,
    /// Whether text is stored as UTF-8. Otherwise the stored bytes differ from those of
    /// the text.
    pub is_utf8: bool,
    /// Optional tables that cannot be read, with the reason: for example a view of a
    /// missing table.
    pub unreadable: Vec<(String, String)>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Table {
    /// The name as the database spells it.
    pub name: String,
    /// The kind of table.
    pub kind: TableKind,
    /// The columns in the order of the table.
    pub columns: Vec<Column>,
    /// The indexes of the table.
    pub indexes: Vec<Index>,
    /// The root page of its b-tree, or 0 if it has none.
    pub root_page: u32,
}

/// The kind of a table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum TableKind {
    /// An ordinary table whose rows have a rowid, which has this name.
    Rowid(RowidName),
    /// A table without a rowid, or one whose columns use all names of the rowid.
    WithoutRowid,
    /// A view, a virtual table, or a shadow table.
    Other(String),
}

/// The name of the rowid: the first that no column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum RowidName {
    /// `rowid`.
    Rowid,
    /// `_rowid_`.
    Underscored,
    /// `oid`.
    Oid,
}

impl RowidName {
    const ALL: [Self; 3] = [Self::Rowid, Self::Underscored, Self::Oid];

    /// Returns the name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rowid => "rowid",
            Self::Underscored => "_rowid_",
            Self::Oid => "oid",
        }
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Column {
    /// The name in lower case.
    pub name: String,
    /// The declared type.
    pub declared: String,
    /// Whether the column is generated.
    pub generated: bool,
    /// Whether the column is part of the primary key.
    pub in_primary_key: bool,
    /// Whether rows that are older than the column read as a default other than null,
    /// though no value is stored.
    pub has_default: bool,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Index {
    /// The name of the index.
    pub name: String,
    /// Whether it is a unique index.
    pub unique: bool,
    /// Whether it is a partial index.
    pub partial: bool,
    /// Whether it implements the primary key, which then is not the rowid.
    pub primary: bool,
    /// The key: for each column its name in lower case, or `None` for an expression, and
    /// whether it has the collation BINARY.
    pub key: Vec<(Option<String>, bool)>,
}

impl Schema {
    /// Reads the schema.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite fails or a session table cannot be read.
    pub fn read(conn: &Connection) -> Result<Self, StoreError> {
        Self::from_rows(conn, &SchemaRows::read(conn, &KNOWN_TABLES)?)
    }

    /// Reads the schema with these rows in the same snapshot.
    pub(super) fn from_rows(
        conn: &Connection,
        schema_rows: &SchemaRows,
    ) -> Result<Self, StoreError> {
        let mut schema = Self {
            tables: BTreeMap::new(),
            is_utf8: schema_rows.is_utf8,
            unreadable: Vec::new(),
        };
        let mut statements = Statements::new(conn)?;
        // One query for all tables, since each query of `pragma_table_list` reads the
        // whole list.
        let mut table_list =
            conn.prepare("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'")?;
        let mut rows = table_list.query([])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_bytes().unwrap_or_default();
            let has_name = |table: &&&str| name.eq_ignore_ascii_case(table.as_bytes());
            if let Some(known_name) = KNOWN_TABLES.iter().find(has_name) {
                let listed = (row.get(0)?, row.get(1)?, row.get(2)?);
                let known_name = (*known_name).to_owned();
                match Table::read(&mut statements, listed, schema_rows) {
                    Ok(table) => drop(schema.tables.insert(known_name, table)),
                    Err(error) if is_session_table(&known_name) => return Err(error),
                    Err(error) => schema.unreadable.push((known_name, error.to_string())),
                }
            }
        }
        Ok(schema)
    }

    /// Creates a schema of these tables.
    #[cfg(test)]
    pub(super) fn of(tables: BTreeMap<String, Table>, is_utf8: bool) -> Self {
        Self {
            tables,
            is_utf8,
            unreadable: vec![("f".to_owned(), "why".to_owned())],
        }
    }

    /// Returns the table with this name, if the database has it.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// Returns true if the schema follows from the text of its tables alone. What a view or
    /// a virtual table has for columns can follow from other tables, or from content.
    pub(super) fn follows_from_text(&self) -> bool {
        let is_ordinary = |table: &Table| !matches!(table.kind, TableKind::Other(_));
        self.unreadable.is_empty() && self.tables().all(is_ordinary)
    }

    /// Returns all tables that the database has.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }
}

/// The statements that read the schema, prepared once for all tables.
struct Statements<'c> {
    columns: Statement<'c>,
    indexes: Statement<'c>,
    key: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            columns: conn.prepare(
                "SELECT lower(name), type, hidden IN (2, 3), pk > 0, \
                 coalesce(dflt_value, 'null') <> 'null' COLLATE NOCASE \
                 FROM pragma_table_xinfo(?1) ORDER BY cid",
            )?,
            indexes: conn.prepare(
                "SELECT name, \"unique\", partial, origin = 'pk' FROM pragma_index_list(?1)",
            )?,
            key: conn.prepare(
                "SELECT lower(name), coll = 'BINARY' COLLATE NOCASE FROM pragma_index_xinfo(?1) \
                 WHERE key ORDER BY seqno",
            )?,
        })
    }
}

impl Table {
    /// Reads the table with this name, type and WITHOUT ROWID flag.
    fn read(
        statements: &mut Statements<'_>,
        (name, kind, without_rowid): (String, String, bool),
        schema_rows: &SchemaRows,
    ) -> Result<Self, StoreError> {
        let columns = statements
            .columns
            .query_map([&name], |row| {
                Ok(Column {
                    name: row.get(0)?,
                    declared: row.get(1)?,
                    generated: row.get(2)?,
                    in_primary_key: row.get(3)?,
                    has_default: row.get(4)?,
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        let kind = match kind.as_str() {
            "table" if !without_rowid => RowidName::ALL
                .into_iter()
                .find(|alias| columns.iter().all(|column| column.name != alias.as_str()))
                .map_or(TableKind::WithoutRowid, TableKind::Rowid),
            "table" => TableKind::WithoutRowid,
            _ => TableKind::Other(kind),
        };
        let indexes = Index::read(statements, &name)?;
        Ok(Self {
            root_page: schema_rows.root_page(&name),
            name,
            kind,
            columns,
            indexes,
        })
    }

    /// Returns true if the table has a column with this name (in lower case).
    #[must_use]
    pub fn has_column(&self, column: &str) -> bool {
        self.columns
            .iter()
            .any(|candidate| candidate.name == column)
    }

    /// Returns true if the table has a generated column.
    #[must_use]
    pub fn has_generated_column(&self) -> bool {
        self.columns.iter().any(|column| column.generated)
    }

    /// Returns the name of the rowid, if rows have one.
    #[must_use]
    pub fn rowid(&self) -> Option<&'static str> {
        match self.kind {
            TableKind::Rowid(name) => Some(name.as_str()),
            _ => None,
        }
    }

    /// Returns the column that is an alias of the rowid (in lower case): the primary key,
    /// if it has no index of its own (<https://sqlite.org/lang_createtable.html>, section
    /// 5).
    #[must_use]
    pub fn rowid_alias(&self) -> Option<&String> {
        self.rowid()?;
        if self.indexes.iter().any(|index| index.primary) {
            return None;
        }
        let key = self.columns.iter().find(|column| column.in_primary_key);
        key.map(|column| &column.name)
    }

    /// Returns an index over all rows whose key begins with these columns, each with the
    /// collation BINARY.
    #[must_use]
    pub fn index_on(&self, columns: &[&str]) -> Option<&Index> {
        self.indexes.iter().find(|index| {
            !index.partial
                && index.key.len() >= columns.len()
                && index
                    .key
                    .iter()
                    .zip(columns)
                    .all(|((name, is_binary), wanted)| {
                        name.as_deref() == Some(*wanted) && *is_binary
                    })
        })
    }
}

impl Index {
    fn read(statements: &mut Statements<'_>, table: &str) -> Result<Vec<Self>, StoreError> {
        let mut indexes = statements
            .indexes
            .query_map([table], |row| {
                Ok(Self {
                    name: row.get(0)?,
                    unique: row.get(1)?,
                    partial: row.get(2)?,
                    primary: row.get(3)?,
                    key: Vec::new(),
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for index in &mut indexes {
            index.key = statements
                .key
                .query_map([&index.name], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<Vec<_>, _>>()?;
        }
        Ok(indexes)
    }
}
