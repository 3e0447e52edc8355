//! The tables as they are: any column may be missing, in any order, and while
//! OpenCode upgrades every intermediate schema is visible. Read in the same
//! transaction as the rows.

use std::collections::BTreeMap;

use rusqlite::{Connection, Statement};

use super::StoreError;

/// The tables that are read, as far as the database has them.
const TABLES: [&str; 11] = [
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

/// True for a table without which there is no listing.
fn is_of_sessions(table: &str) -> bool {
    matches!(table, "session" | "session_v2")
}

/// What is known of the tables this crate reads.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    tables: BTreeMap<String, Table>,
    /// Text is stored as UTF-8. Otherwise its bytes are not those of a text.
    pub utf8: bool,
    /// Tables that are optional and cannot be read, by their names above, and why: a view
    /// of a table that is not there, for one.
    pub unreadable: Vec<(&'static str, String)>,
}

/// One table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name as the database spells it.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
    /// Its columns in the order of the table.
    pub columns: Vec<Column>,
    /// Its indexes.
    pub indexes: Vec<Index>,
}

/// What a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableKind {
    /// An ordinary table whose rows have a rowid, which goes by this name.
    Rowid(&'static str),
    /// A table without a rowid, or one whose columns take all of its names.
    WithoutRowid,
    /// A view, a virtual table, or a shadow table.
    Other(String),
}

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name, in lower case.
    pub name: String,
    /// Its declared type.
    pub declared: String,
    /// It is computed from other columns.
    pub generated: bool,
    /// It is of the primary key.
    pub in_primary_key: bool,
    /// Rows that were made before the column can read as something else than
    /// null, though nothing of it is stored.
    pub has_default: bool,
}

/// One index.
#[derive(Debug, Clone)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// No two rows have the same key.
    pub unique: bool,
    /// It holds only some rows.
    pub partial: bool,
    /// It is the table's primary key, which then is not the rowid.
    pub primary: bool,
    /// Its key: columns in lower case, or nothing for an expression; and
    /// whether they are ordered by their bytes.
    pub key: Vec<(Option<String>, bool)>,
}

impl Schema {
    /// Reads the schema.
    ///
    /// # Errors
    ///
    /// Where SQLite fails.
    pub fn read(conn: &Connection) -> Result<Self, StoreError> {
        let encoding: String = conn.pragma_query_value(None, "encoding", |row| row.get(0))?;
        let mut schema = Self {
            tables: BTreeMap::new(),
            utf8: encoding == "UTF-8",
            unreadable: Vec::new(),
        };
        let mut statements = Statements::new(conn)?;
        // All at once: each of them reads the whole list.
        let mut list =
            conn.prepare("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'")?;
        let mut list = list.query([])?;
        while let Some(row) = list.next()? {
            let name = row.get_ref(0)?.as_bytes().unwrap_or_default();
            let is_it = |known: &&&str| name.eq_ignore_ascii_case(known.as_bytes());
            if let Some(known) = TABLES.iter().find(is_it) {
                let listed = (row.get(0)?, row.get(1)?, row.get(2)?);
                match Table::read(&mut statements, listed) {
                    Ok(table) => drop(schema.tables.insert((*known).to_owned(), table)),
                    Err(error) if is_of_sessions(known) => return Err(error),
                    Err(error) => schema.unreadable.push((known, error.to_string())),
                }
            }
        }
        Ok(schema)
    }

    /// The table of this name, if there is one.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// All tables that were found.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }
}

/// What the schema is asked with, made once for all tables.
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
    /// Reads the table of this name, type and kind.
    fn read(
        statements: &mut Statements<'_>,
        (name, kind, without_rowid): (String, String, bool),
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
            "table" if !without_rowid => ["rowid", "_rowid_", "oid"]
                .into_iter()
                .find(|alias| columns.iter().all(|column| column.name != *alias))
                .map_or(TableKind::WithoutRowid, TableKind::Rowid),
            "table" => TableKind::WithoutRowid,
            _ => TableKind::Other(kind),
        };
        let indexes = Index::read(statements, &name)?;
        Ok(Self {
            name,
            kind,
            columns,
            indexes,
        })
    }

    /// True where there is a column of this name (in lower case).
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|known| known.name == column)
    }

    /// True where a column is computed from others.
    #[must_use]
    pub fn computes(&self) -> bool {
        self.columns.iter().any(|column| column.generated)
    }

    /// The name of the rowid, where rows have one.
    #[must_use]
    pub fn rowid(&self) -> Option<&'static str> {
        match self.kind {
            TableKind::Rowid(name) => Some(name),
            _ => None,
        }
    }

    /// The column that is the rowid under another name (in lower case): the primary
    /// key, if it has no index of its own (<https://sqlite.org/lang_createtable.html>,
    /// section 5).
    #[must_use]
    pub fn rowid_alias(&self) -> Option<&String> {
        self.rowid()?;
        if self.indexes.iter().any(|index| index.primary) {
            return None;
        }
        let key = self.columns.iter().find(|column| column.in_primary_key);
        key.map(|column| &column.name)
    }

    /// An index over all rows whose key begins with these columns, ordered by
    /// their bytes.
    #[must_use]
    pub fn index_on(&self, columns: &[&str]) -> Option<&Index> {
        self.indexes.iter().find(|index| {
            !index.partial
                && index.key.len() >= columns.len()
                && index
                    .key
                    .iter()
                    .zip(columns)
                    .all(|((name, binary), wanted)| name.as_deref() == Some(*wanted) && *binary)
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
