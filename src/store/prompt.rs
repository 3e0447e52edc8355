//! The start of a session's first prompt, for a session that has no title yet: by
//! index look-ups alone, and whatever goes wrong means none.
//!
//! OpenCode keeps what a person says in three places (seen in 1.2.1 to 1.18.33):
//! the `/session` routes, which the terminal uses, write a row of `message` whose
//! `role` is `user`, and its pieces to `part`; the `/api/session` routes write a row
//! of `session_input`, and one of `session_message` whose type is `user`.

use rusqlite::{Connection, Statement};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Schema, Table, quoted};
use crate::session::SessionId;
use crate::text::{cut, one_line};
use crate::wire::limits;

/// So many messages of a session, and pieces of a message, are looked at.
const MOST: u32 = 10;

/// The SQL that finds first prompts, made for one schema.
#[derive(Debug, Clone)]
pub(super) struct PromptQuery {
    /// The messages of a session, and the parts of a message.
    messages: Option<[String; 2]>,
    /// What was said in a session, newer routes.
    inputs: Vec<String>,
}

impl PromptQuery {
    pub(super) fn new(schema: &Schema) -> Self {
        let rows = |table, columns: &[&str], equal: &[&str], order: &[&str]| {
            in_order(schema.table(table)?, columns, equal, order)
        };
        let by_time = ["time_created", "id"];
        let messages = rows("message", &["id", "data"], &["session_id"], &by_time);
        let parts = rows("part", &["data"], &["message_id"], &["id"]);
        let inputs = [
            rows(
                "session_input",
                &["prompt"],
                &["session_id"],
                &["admitted_seq"],
            ),
            rows(
                "session_message",
                &["data"],
                &["session_id", "type"],
                &["seq"],
            ),
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
        all.map(String::as_str)
    }
}

/// These columns of the rows of one value of the first columns (`'user'` of a second
/// one) in the order of others, or of their rowids: without a sort, or not at all.
fn in_order(table: &Table, columns: &[&str], equal: &[&str], order: &[&str]) -> Option<String> {
    if !columns.iter().all(|column| table.has(column)) {
        return None;
    }
    let prefix = |count: usize| [equal, &order[..count]].concat();
    let of_all = |count| table.index_on(&prefix(count)).map(|index| (index, count));
    let by_order = (1..=order.len()).rev().find_map(of_all);
    let (index, count) = by_order.or_else(|| {
        // Within one value an index is in the order of the rowids.
        let alone = |index: &&super::Index| index.key.len() == equal.len();
        table.index_on(equal).filter(alone).map(|index| (index, 0))
    })?;
    let order = match count {
        0 => table.rowid()?.to_owned(),
        count => order[..count].join(", "),
    };
    let user = equal.get(1).map(|column| format!(" AND {column} = 'user'"));
    Some(format!(
        "SELECT {} FROM {} INDEXED BY {} WHERE {} = ?1{} ORDER BY {order} LIMIT {MOST}",
        columns.join(", "),
        quoted(&table.name),
        quoted(&index.name),
        equal[0],
        user.unwrap_or_default(),
    ))
}

/// Finds first prompts.
pub(super) struct Prompts<'a> {
    messages: Option<[Statement<'a>; 2]>,
    inputs: Vec<Statement<'a>>,
}

/// The data of a message.
#[derive(Deserialize)]
struct Message {
    role: String,
}

/// The data of a part.
#[derive(Deserialize)]
struct Part {
    r#type: String,
    #[serde(default)]
    text: String,
    /// OpenCode's own words.
    #[serde(default)]
    synthetic: bool,
}

/// What a row of the newer routes has.
#[derive(Deserialize)]
struct Input {
    text: String,
}

impl<'a> Prompts<'a> {
    pub(super) fn new(conn: &'a Connection, query: &PromptQuery) -> rusqlite::Result<Self> {
        let messages = match &query.messages {
            Some([messages, parts]) => Some([conn.prepare(messages)?, conn.prepare(parts)?]),
            None => None,
        };
        let inputs = query.inputs.iter().map(|sql| conn.prepare(sql));
        Ok(Self {
            messages,
            inputs: inputs.collect::<Result<_, _>>()?,
        })
    }

    /// The start of the first prompt of a session: one line that is not blank, of at
    /// most [`limits::FIRST_PROMPT`] characters.
    pub(super) fn of(&mut self, id: &SessionId) -> Option<String> {
        let of_messages = self.messages.as_mut();
        let of_messages = of_messages.and_then(|statements| of_messages_of(statements, id).ok());
        of_messages.flatten().or_else(|| {
            let mut inputs = self.inputs.iter_mut();
            inputs.find_map(|input| of_input(input, id).ok().flatten())
        })
    }
}

/// The first text of the first message of a person.
fn of_messages_of(
    [messages, parts]: &mut [Statement<'_>; 2],
    id: &SessionId,
) -> rusqlite::Result<Option<String>> {
    let mut messages = messages.query([id.as_str()])?;
    while let Some(message) = messages.next()? {
        let is_users =
            json(message.get_ref(1)?.as_str()?).is_some_and(|Message { role }| role == "user");
        if !is_users {
            continue;
        }
        let mut parts = parts.query([message.get_ref(0)?.as_str()?])?;
        while let Some(part) = parts.next()? {
            let part: Option<Part> = json(part.get_ref(0)?.as_str()?);
            let text = part.filter(|part| part.r#type == "text" && !part.synthetic);
            if let Some(line) = text.and_then(|part| line_of(&part.text)) {
                return Ok(Some(line));
            }
        }
        break;
    }
    Ok(None)
}

fn of_input(statement: &mut Statement<'_>, id: &SessionId) -> rusqlite::Result<Option<String>> {
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        let input: Option<Input> = json(row.get_ref(0)?.as_str()?);
        if let Some(line) = input.and_then(|input| line_of(&input.text)) {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

fn json<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// The text's start in one line; `None` where it is blank.
fn line_of(text: &str) -> Option<String> {
    // More than enough for the characters that are left of it.
    let start = cut(text.trim_start(), 16 * limits::FIRST_PROMPT);
    let line = one_line(start);
    let line: String = line.chars().take(limits::FIRST_PROMPT).collect();
    let line = line.trim_end();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_short_and_holds_nothing_that_a_terminal_acts_on() {
        assert_eq!(
            line_of(" Fix\n\tthe  build\r\n").as_deref(),
            Some("Fix the build")
        );
        assert_eq!(line_of(" \n\t"), None);
        assert_eq!(line_of("a\u{1b}[31mb").as_deref(), Some("a\u{fffd}[31mb"));
        let long = line_of(&"é ".repeat(100_000)).unwrap();
        assert_eq!(long.chars().count(), limits::FIRST_PROMPT - 1);
        assert_eq!(line_of(&"日".repeat(1000)).unwrap().chars().count(), 200);
    }
}
