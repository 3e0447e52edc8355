//! The start of a session's first prompt, for a session without a title. It is found by
//! index look-ups alone.
//!
//! OpenCode stores what the user writes in several places (observed in 1.2.1 to 1.18.33,
//! and read in the source of 2.0). The `/session` routes, which the terminal of OpenCode
//! 1 uses, write a row of `message` whose `role` is `user`, and its pieces to `part`. The
//! `/api/session` routes and OpenCode 2 write one row with a `text`: to `session_input`,
//! `session_inbox` or `session_pending` while it waits, and to `session_message` with
//! type `user` when it is delivered. Parts with `"synthetic": true` or `"ignored": true`
//! were not written by the user.
//!
//! A cell larger than 64 KiB is not loaded. Its start is read for the text, and the rest
//! is streamed to find its flags.

use std::io::{BufReader, Read};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row, Statement};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::content::{CONTENT_TABLES, ContentColumn};
use super::row::MAX_LOADED_BYTES;
use super::{Schema, Table, quote_identifier};
use crate::text::{cut, is_blank, one_line};

/// How many messages of a session, and parts of a message, are read at most.
const MAX_ROWS: u32 = 10;

/// How many bytes of a larger cell are read to find the start of its text.
const TEXT_START_BYTES: u64 = 256 << 10;

/// The size in bytes of the largest cell that is read.
const MAX_READ_BYTES: u64 = 16 << 20;

/// The rows of a content table in the order in which they were written.
#[derive(Debug, Clone)]
struct ContentRowsQuery {
    content: ContentColumn,
    /// The name of the table as the database spells it.
    table: String,
    sql: String,
}

/// The SQL that finds first prompts, for one schema.
#[derive(Debug, Clone)]
pub(super) struct PromptQuery {
    /// The messages of a session, and the parts of a message.
    messages: Option<[ContentRowsQuery; 2]>,
    /// The tables of the newer routes.
    inputs: Vec<ContentRowsQuery>,
}

/// Returns the content table with this name.
fn find_content_table(table: &str) -> Option<ContentColumn> {
    CONTENT_TABLES
        .into_iter()
        .find(|content| content.table == table)
}

impl PromptQuery {
    pub(super) fn new(schema: &Schema) -> Self {
        let rows = |name, of: &str, order: &[&str], users: bool| {
            let (content, table) = (find_content_table(name)?, schema.table(name)?);
            Some(ContentRowsQuery {
                content,
                table: table.name.clone(),
                sql: ordered_sql(table, content.column, of, order, users)?,
            })
        };
        let messages = rows("message", "session_id", &["time_created", "id"], false);
        let parts = rows("part", "message_id", &["id"], false);
        let inputs = [
            rows("session_input", "session_id", &["admitted_seq"], false),
            rows("session_message", "session_id", &["seq"], true),
            rows("session_inbox", "session_id", &["enqueued_seq"], true),
            rows("session_pending", "session_id", &["admitted_seq"], true),
        ];
        Self {
            messages: messages
                .zip(parts)
                .map(|(messages, parts)| [messages, parts]),
            inputs: inputs.into_iter().flatten().collect(),
        }
    }

    pub(super) fn statements(&self) -> impl Iterator<Item = &str> {
        let all = self.messages.iter().flatten().chain(&self.inputs);
        all.map(|rows| rows.sql.as_str())
    }
}

/// Builds the SQL that selects the rows with one value of the column `of`, and only those
/// of type `user` if `users` is true. They are ordered by other columns or by rowid. Each
/// row has its rowid, its content if that is not large, the size of the content, and its
/// id.
///
/// Returns `None` if a column is missing or no index provides the order without a sort.
fn ordered_sql(
    table: &Table,
    column: &str,
    of: &str,
    order: &[&str],
    users: bool,
) -> Option<String> {
    let rowid = table.rowid()?;
    if !table.has_column(column) || users && !table.has_column("type") {
        return None;
    }
    // An index that includes the type finds the user's rows directly.
    let by: [&[&str]; 2] = [&[of, "type"], &[of]];
    let by = if users { &by[..] } else { &by[1..] };
    let found = by.iter().find_map(|equal| {
        let prefix = |count: usize| [*equal, &order[..count]].concat();
        let of_all = |count| table.index_on(&prefix(count)).map(|index| (index, count));
        let by_order = (1..=order.len()).rev().find_map(of_all);
        by_order.or_else(|| {
            // For one value, an index is ordered by rowid.
            let has_no_other_column = |index: &&super::Index| index.key.len() == equal.len();
            table
                .index_on(equal)
                .filter(has_no_other_column)
                .map(|index| (index, 0))
        })
    });
    let (index, count) = found?;
    let order = match count {
        0 => rowid.to_owned(),
        count => order[..count].join(", "),
    };
    let id = if table.has_column("id") { "id" } else { "NULL" };
    let user = if users { " AND type = 'user'" } else { "" };
    Some(format!(
        "SELECT {rowid}, CASE WHEN octet_length({column}) <= {MAX_LOADED_BYTES} THEN {column} END, \
         octet_length({column}), {id} \
         FROM {} INDEXED BY {} WHERE {of} = ?1{user} ORDER BY {order} LIMIT {MAX_ROWS}",
        quote_identifier(&table.name),
        quote_identifier(&index.name),
    ))
}

/// Finds first prompts.
pub(super) struct Prompts<'a> {
    messages: Option<[ContentRows<'a>; 2]>,
    inputs: Vec<ContentRows<'a>>,
}

/// A prepared [`ContentRowsQuery`].
struct ContentRows<'a> {
    conn: &'a Connection,
    query: &'a ContentRowsQuery,
    statement: Statement<'a>,
}

/// The data of a message.
#[derive(Deserialize)]
struct MessageData {
    role: String,
}

/// The data of a part, without its text.
#[derive(Deserialize)]
struct PartData {
    r#type: String,
    /// Written by OpenCode itself.
    #[serde(default, deserialize_with = "is_true")]
    synthetic: bool,
    /// Written by a plugin for the user; the model does not get it.
    #[serde(default, deserialize_with = "is_true")]
    ignored: bool,
}

/// The text of a part, or of a row of the newer routes.
#[derive(Deserialize)]
struct TextData {
    text: String,
}

/// Returns true for the JSON value `true` only, not for null, a text or a number.
fn is_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Other(IgnoredAny),
    }
    Ok(matches!(Flag::deserialize(deserializer)?, Flag::Bool(true)))
}

impl<'a> ContentRows<'a> {
    fn new(conn: &'a Connection, query: &'a ContentRowsQuery) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            query,
            statement: conn.prepare(&query.sql)?,
        })
    }

    /// Returns the first result that `read` returns for the rows with this value.
    fn first<T>(
        &mut self,
        of: &str,
        mut read: impl FnMut(&Cell<'_>, &Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Option<T>> {
        let mut rows = self.statement.query([of])?;
        while let Some(row) = rows.next()? {
            let cell = Cell {
                conn: self.conn,
                query: self.query,
                rowid: row.get(0)?,
                loaded: match row.get_ref(1)? {
                    ValueRef::Text(text) => Some(text),
                    _ => None,
                },
                size_bytes: row.get::<_, Option<i64>>(2)?.unwrap_or(0).unsigned_abs(),
            };
            if let Some(found) = read(&cell, row)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The content of one row.
struct Cell<'r> {
    conn: &'r Connection,
    query: &'r ContentRowsQuery,
    rowid: i64,
    /// The content, if it is not large.
    loaded: Option<&'r [u8]>,
    size_bytes: u64,
}

impl Cell<'_> {
    /// Parses the content as JSON. Fields that `T` lacks are not kept in memory.
    fn parse<T: DeserializeOwned>(&self) -> rusqlite::Result<Option<T>> {
        match self.loaded {
            Some(json) => Ok(serde_json::from_slice(json).ok()),
            None if !self.is_large() => Ok(None),
            None => {
                let cell = BufReader::with_capacity(64 << 10, self.open()?.take(MAX_READ_BYTES));
                Ok(serde_json::from_reader(cell).ok())
            }
        }
    }

    /// Returns the start of the content's text.
    fn text(&self) -> rusqlite::Result<Option<String>> {
        match self.loaded {
            Some(json) => Ok(serde_json::from_slice(json)
                .ok()
                .map(|TextData { text }| text)),
            None if !self.is_large() => Ok(None),
            None => {
                let mut start = Vec::new();
                let read = self.open()?.take(TEXT_START_BYTES).read_to_end(&mut start);
                match read.ok().and_then(|_| parse_text_start(&start)) {
                    // Another field is large and precedes the text.
                    None => Ok(self.parse()?.map(|TextData { text }| text)),
                    text => Ok(text),
                }
            }
        }
    }

    /// Returns true if the content was not loaded because of its size, rather than
    /// because it is missing or not a text.
    fn is_large(&self) -> bool {
        self.size_bytes > MAX_LOADED_BYTES.unsigned_abs().into()
            && self.size_bytes <= MAX_READ_BYTES
    }

    fn open(&self) -> rusqlite::Result<rusqlite::blob::Blob<'_>> {
        let (table, column) = (self.query.table.as_str(), self.query.content.column);
        self.conn
            .blob_open(MAIN_DB, table, column, self.rowid, true)
    }
}

/// Returns the text of a JSON object of which only the start was read. The object is
/// closed where the start ends. If the text is what makes the object large, that is
/// within the text.
fn parse_text_start(start: &[u8]) -> Option<String> {
    if let Ok(TextData { text }) = serde_json::from_slice(start) {
        return Some(text);
    }
    // The longest escape is a surrogate pair of twelve bytes.
    (0..12).find_map(|less| {
        let end = start.len().checked_sub(less)?;
        let closed = [&start[..end], b"\"}"].concat();
        let TextData { text } = serde_json::from_slice(&closed).ok()?;
        Some(text)
    })
}

impl<'a> Prompts<'a> {
    pub(super) fn empty() -> Self {
        Self {
            messages: None,
            inputs: Vec::new(),
        }
    }

    pub(super) fn new(conn: &'a Connection, query: &'a PromptQuery) -> rusqlite::Result<Self> {
        let messages = match &query.messages {
            Some([messages, parts]) => Some([
                ContentRows::new(conn, messages)?,
                ContentRows::new(conn, parts)?,
            ]),
            None => None,
        };
        let inputs = query.inputs.iter().map(|rows| ContentRows::new(conn, rows));
        Ok(Self {
            messages,
            inputs: inputs.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the start of a session's first prompt: one line that is not blank, of at
    /// most `limit` characters.
    pub(super) fn find(&mut self, id: &str, limit: usize) -> rusqlite::Result<Option<String>> {
        if let Some(messages) = &mut self.messages
            && let Some(found) = find_in_messages(messages, id, limit)?
        {
            return Ok(Some(found));
        }
        for input in &mut self.inputs {
            let found = input.first(id, |cell, _| {
                Ok(cell.text()?.and_then(|text| to_line(&text, limit)))
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Returns the first text that the user wrote, of the messages with the role `user`.
fn find_in_messages(
    [messages, parts]: &mut [ContentRows<'_>; 2],
    id: &str,
    limit: usize,
) -> rusqlite::Result<Option<String>> {
    messages.first(id, |message, row| {
        let data: Option<MessageData> = message.parse()?;
        let ValueRef::Text(id) = row.get_ref(3)? else {
            return Ok(None);
        };
        let is_from_user = data.is_some_and(|data| data.role == "user");
        let (true, Ok(id)) = (is_from_user, std::str::from_utf8(id)) else {
            return Ok(None);
        };
        parts.first(id, |part, _| {
            let data: Option<PartData> = part.parse()?;
            let is_user_text =
                data.is_some_and(|data| data.r#type == "text" && !data.synthetic && !data.ignored);
            if !is_user_text {
                return Ok(None);
            }
            Ok(part.text()?.and_then(|text| to_line(&text, limit)))
        })
    })
}

/// Returns the start of the text as one line of at most `limit` characters, or `None` if
/// it is blank.
fn to_line(text: &str, limit: usize) -> Option<String> {
    // Enough bytes for the characters that are kept.
    let start = cut(text.trim_start(), 16 * limit);
    let line = one_line(start);
    let line: String = line.chars().take(limit).collect();
    let line = line.trim_end();
    (!is_blank(line)).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_line_is_short_and_has_no_control_characters() {
        assert_eq!(
            to_line(" Fix\n\tthe  build\r\n", 200).as_deref(),
            Some("Fix the build")
        );
        assert_eq!(to_line(" \n\t", 200), None);
        assert_eq!(
            to_line("a\u{1b}[31mb", 200).as_deref(),
            Some("a\u{fffd}[31mb")
        );
        let long = to_line(&"é ".repeat(100_000), 200).unwrap();
        assert_eq!(long.chars().count(), 199);
        for limit in [1, 200, 4000] {
            let line = to_line(&"日".repeat(9000), limit).unwrap();
            assert_eq!(line.chars().count(), limit);
        }
    }

    #[test]
    fn flag_is_set_only_by_json_true() {
        for (json, expected) in [
            ("true", true),
            ("false", false),
            ("null", false),
            ("1", false),
            ("\"true\"", false),
            ("[true]", false),
            ("{\"a\":true}", false),
        ] {
            for flag in ["synthetic", "ignored"] {
                let part = format!(r#"{{"type":"text","text":"x","{flag}":{json}}}"#);
                let part: PartData = serde_json::from_str(&part).unwrap();
                assert_eq!(part.synthetic || part.ignored, expected, "{flag}: {json}");
            }
        }
        let part: PartData = serde_json::from_str(r#"{"type":"text"}"#).unwrap();
        assert!(!part.synthetic && !part.ignored);
    }

    #[test]
    fn text_start_is_the_same_wherever_the_cell_is_cut() {
        let text = "Naïve \"日本\" \\ 🚀\n\u{1f} ends";
        let part = serde_json::json!({"type": "text", "text": text, "time": {"start": 1}});
        let escaped = serde_json::to_string(text).unwrap();
        let ascii: String = escaped
            .chars()
            .flat_map(|c| {
                let mut units = [0; 2];
                let units = c.encode_utf16(&mut units).to_vec();
                units.into_iter().map(move |unit| match c.is_ascii() {
                    true => c.to_string(),
                    false => format!("\\u{unit:04x}"),
                })
            })
            .collect();
        for json in [
            part.to_string(),
            format!(r#"{{"type":"text","text":{ascii}}}"#),
        ] {
            let from = json.find("\"text\":\"").unwrap() + 8;
            for end in from..=json.len() {
                let found = parse_text_start(&json.as_bytes()[..end]);
                // After the end of the text, the object is no longer cut within the text.
                let found = found.unwrap_or_else(|| text.to_owned());
                assert!(text.starts_with(&found), "{end}: {found}");
                assert!(
                    found.len() >= (end - from).min(60).saturating_sub(12) / 6,
                    "{end}"
                );
            }
        }
    }
}
