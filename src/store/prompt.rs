//! The start of a session's first prompt, for a session that has no title yet: by
//! index look-ups alone, and whatever goes wrong means none.
//!
//! OpenCode keeps what a person says in several places (seen in 1.2.1 to 1.18.33, and
//! read in the source of 2.0): the `/session` routes, which the terminal of OpenCode 1
//! uses, write a row of `message` whose `role` is `user`, and its pieces to `part`; the
//! `/api/session` routes and OpenCode 2 write one row with a `text`, to `session_input`,
//! `session_inbox` or `session_pending` while it waits, and to `session_message` of type
//! `user` when it is delivered. Parts that are `"synthetic": true` or `"ignored": true`
//! are not a person's words.
//!
//! A cell larger than 64 KiB is not loaded: its start is read, and its flags are looked
//! for in the rest as it passes by.

use std::io::{BufReader, Read};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row, Statement};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::content::{CONTENT, Content};
use super::row::WHOLE_CELL;
use super::{Schema, Table, quoted};
use crate::session::SessionId;
use crate::text::{cut, is_blank, one_line};

/// So many messages of a session, and pieces of a message, are looked at.
const MOST: u32 = 10;

/// Of a larger cell so many bytes are read for the start of its text.
const START: u64 = 256 << 10;

/// A larger cell is not looked at.
const LARGEST: u64 = 16 << 20;

/// Rows of a content table, in the order in which they were said.
#[derive(Debug, Clone)]
struct RowsQuery {
    content: Content,
    /// The table as the database spells it.
    table: String,
    sql: String,
}

/// The SQL that finds first prompts, made for one schema.
#[derive(Debug, Clone)]
pub(super) struct PromptQuery {
    /// The messages of a session, and the parts of a message.
    messages: Option<[RowsQuery; 2]>,
    /// What was said in a session, newer routes.
    inputs: Vec<RowsQuery>,
}

/// The content table of this name.
fn content(table: &str) -> Option<Content> {
    CONTENT.into_iter().find(|content| content.table == table)
}

impl PromptQuery {
    pub(super) fn new(schema: &Schema) -> Self {
        let rows = |name, of: &str, order: &[&str], users: bool| {
            let (content, table) = (content(name)?, schema.table(name)?);
            Some(RowsQuery {
                content,
                table: table.name.clone(),
                sql: in_order(table, content.column, of, order, users)?,
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

    /// Each statement.
    pub(super) fn statements(&self) -> impl Iterator<Item = &str> {
        let all = self.messages.iter().flatten().chain(&self.inputs);
        all.map(|rows| rows.sql.as_str())
    }
}

/// The rows with one value of the column `of`, those of type `user` only if `users`, in
/// the order of other columns or of their rowids: without a sort, or not at all. Each
/// with its rowid, its content if that is not large, and for messages their ids.
fn in_order(table: &Table, column: &str, of: &str, order: &[&str], users: bool) -> Option<String> {
    let rowid = table.rowid()?;
    if !table.has(column) || users && !table.has("type") {
        return None;
    }
    // An index by the type too finds a user's rows at once.
    let by: [&[&str]; 2] = [&[of, "type"], &[of]];
    let by = if users { &by[..] } else { &by[1..] };
    let found = by.iter().find_map(|equal| {
        let prefix = |count: usize| [*equal, &order[..count]].concat();
        let of_all = |count| table.index_on(&prefix(count)).map(|index| (index, count));
        let by_order = (1..=order.len()).rev().find_map(of_all);
        by_order.or_else(|| {
            // Within one value an index is in the order of the rowids.
            let alone = |index: &&super::Index| index.key.len() == equal.len();
            table.index_on(equal).filter(alone).map(|index| (index, 0))
        })
    });
    let (index, count) = found?;
    let order = match count {
        0 => rowid.to_owned(),
        count => order[..count].join(", "),
    };
    let id = if table.has("id") { "id" } else { "NULL" };
    let user = if users { " AND type = 'user'" } else { "" };
    Some(format!(
        "SELECT {rowid}, CASE WHEN octet_length({column}) <= {WHOLE_CELL} THEN {column} END, \
         octet_length({column}), {id} \
         FROM {} INDEXED BY {} WHERE {of} = ?1{user} ORDER BY {order} LIMIT {MOST}",
        quoted(&table.name),
        quoted(&index.name),
    ))
}

/// Finds first prompts.
pub(super) struct Prompts<'a> {
    messages: Option<[Rows<'a>; 2]>,
    inputs: Vec<Rows<'a>>,
}

/// A prepared [`RowsQuery`].
struct Rows<'a> {
    conn: &'a Connection,
    query: &'a RowsQuery,
    statement: Statement<'a>,
}

/// The data of a message.
#[derive(Deserialize)]
struct Message {
    role: String,
}

/// The data of a part, but for its text.
#[derive(Deserialize)]
struct Part {
    r#type: String,
    /// OpenCode's own words.
    #[serde(default, deserialize_with = "is_true")]
    synthetic: bool,
    /// A plugin's words to the person, which the model does not get.
    #[serde(default, deserialize_with = "is_true")]
    ignored: bool,
}

/// A text, in a part and in a row of the newer routes.
#[derive(Deserialize)]
struct Text {
    text: String,
}

/// Exactly true: what else is there (null, a text, a number) is not.
fn is_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Other(IgnoredAny),
    }
    Ok(matches!(Flag::deserialize(deserializer)?, Flag::Bool(true)))
}

impl<'a> Rows<'a> {
    fn new(conn: &'a Connection, query: &'a RowsQuery) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            query,
            statement: conn.prepare(&query.sql)?,
        })
    }

    /// What `read` makes of the first row with this value that it makes something of.
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
                small: match row.get_ref(1)? {
                    ValueRef::Text(text) => Some(text),
                    _ => None,
                },
                size: row.get::<_, Option<i64>>(2)?.unwrap_or(0).unsigned_abs(),
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
    query: &'r RowsQuery,
    rowid: i64,
    /// It, if it is not large.
    small: Option<&'r [u8]>,
    /// How many bytes it has.
    size: u64,
}

impl Cell<'_> {
    /// What is wanted of it; the rest is not kept in memory.
    fn parsed<T: DeserializeOwned>(&self) -> rusqlite::Result<Option<T>> {
        match self.small {
            Some(json) => Ok(serde_json::from_slice(json).ok()),
            None if !self.is_large() => Ok(None),
            None => {
                let cell = BufReader::with_capacity(64 << 10, self.open()?.take(LARGEST));
                Ok(serde_json::from_reader(cell).ok())
            }
        }
    }

    /// How its text begins.
    fn text(&self) -> rusqlite::Result<Option<String>> {
        match self.small {
            Some(json) => Ok(serde_json::from_slice(json).ok().map(|Text { text }| text)),
            None if !self.is_large() => Ok(None),
            None => {
                let mut start = Vec::new();
                let read = self.open()?.take(START).read_to_end(&mut start);
                match read.ok().and_then(|_| text_of_start(&start)) {
                    // Something else is large, and stands before it.
                    None => Ok(self.parsed()?.map(|Text { text }| text)),
                    text => Ok(text),
                }
            }
        }
    }

    /// A cell that is not there, and not a text, was not left out for its size.
    fn is_large(&self) -> bool {
        self.size > WHOLE_CELL.unsigned_abs().into() && self.size <= LARGEST
    }

    fn open(&self) -> rusqlite::Result<rusqlite::blob::Blob<'_>> {
        let (table, column) = (self.query.table.as_str(), self.query.content.column);
        self.conn
            .blob_open(MAIN_DB, table, column, self.rowid, true)
    }
}

/// The text of a JSON object of which only the start is there: it is closed where the
/// start ends, which is within a text if that is what makes it large.
fn text_of_start(start: &[u8]) -> Option<String> {
    if let Ok(Text { text }) = serde_json::from_slice(start) {
        return Some(text);
    }
    // The longest escape is a pair of surrogates, of twelve bytes.
    (0..12).find_map(|less| {
        let end = start.len().checked_sub(less)?;
        let closed = [&start[..end], b"\"}"].concat();
        let Text { text } = serde_json::from_slice(&closed).ok()?;
        Some(text)
    })
}

impl<'a> Prompts<'a> {
    /// Finds nothing.
    pub(super) fn none() -> Self {
        Self {
            messages: None,
            inputs: Vec::new(),
        }
    }

    pub(super) fn new(conn: &'a Connection, query: &'a PromptQuery) -> rusqlite::Result<Self> {
        let messages = match &query.messages {
            Some([messages, parts]) => Some([Rows::new(conn, messages)?, Rows::new(conn, parts)?]),
            None => None,
        };
        let inputs = query.inputs.iter().map(|rows| Rows::new(conn, rows));
        Ok(Self {
            messages,
            inputs: inputs.collect::<Result<_, _>>()?,
        })
    }

    /// The start of the first prompt of a session: one line that is not blank, of at
    /// most `limit` characters.
    pub(super) fn of(&mut self, id: &SessionId, limit: usize) -> rusqlite::Result<Option<String>> {
        if let Some(messages) = &mut self.messages
            && let Some(found) = of_messages(messages, id, limit)?
        {
            return Ok(Some(found));
        }
        for input in &mut self.inputs {
            let found = input.first(id.as_str(), |cell, _| {
                Ok(cell.text()?.and_then(|text| line_of(&text, limit)))
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The first text that is a person's, of the messages of people.
fn of_messages(
    [messages, parts]: &mut [Rows<'_>; 2],
    id: &SessionId,
    limit: usize,
) -> rusqlite::Result<Option<String>> {
    messages.first(id.as_str(), |message, row| {
        let of: Option<Message> = message.parsed()?;
        let ValueRef::Text(id) = row.get_ref(3)? else {
            return Ok(None);
        };
        let is_users = of.is_some_and(|message| message.role == "user");
        let (true, Ok(id)) = (is_users, std::str::from_utf8(id)) else {
            return Ok(None);
        };
        parts.first(id, |part, _| {
            let of: Option<Part> = part.parsed()?;
            let is_said =
                of.is_some_and(|part| part.r#type == "text" && !part.synthetic && !part.ignored);
            if !is_said {
                return Ok(None);
            }
            Ok(part.text()?.and_then(|text| line_of(&text, limit)))
        })
    })
}

/// The text's start in one line of so many characters; `None` where it is blank.
fn line_of(text: &str, limit: usize) -> Option<String> {
    // More than enough for the characters that are left of it.
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
    fn a_line_is_short_and_holds_nothing_that_a_terminal_acts_on() {
        assert_eq!(
            line_of(" Fix\n\tthe  build\r\n", 200).as_deref(),
            Some("Fix the build")
        );
        assert_eq!(line_of(" \n\t", 200), None);
        assert_eq!(
            line_of("a\u{1b}[31mb", 200).as_deref(),
            Some("a\u{fffd}[31mb")
        );
        let long = line_of(&"é ".repeat(100_000), 200).unwrap();
        assert_eq!(long.chars().count(), 199);
        for limit in [1, 200, 4000] {
            let line = line_of(&"日".repeat(9000), limit).unwrap();
            assert_eq!(line.chars().count(), limit);
        }
    }

    #[test]
    fn only_true_is_true() {
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
                let part: Part = serde_json::from_str(&part).unwrap();
                assert_eq!(part.synthetic || part.ignored, expected, "{flag}: {json}");
            }
        }
        let part: Part = serde_json::from_str(r#"{"type":"text"}"#).unwrap();
        assert!(!part.synthetic && !part.ignored);
    }

    #[test]
    fn a_text_begins_the_same_wherever_its_cell_is_cut() {
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
                let found = text_of_start(&json.as_bytes()[..end]);
                // Behind the text the object is not within a text any more.
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
