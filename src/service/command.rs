//! What a service is told: one JSON object a line.
//!
//! Every line gets exactly one reply. A line that is a JSON object is answered with its
//! `id`, whatever else is wrong with it; fields that are not known are ignored, so that a
//! newer program can ask an older service. An error has a code for programs and a sentence
//! for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::index::View;
use crate::session::SessionId;
use crate::wire::limits;

/// The longest `id` that is echoed, in bytes of JSON.
const LONGEST_ID: usize = 1024;

/// What a caller gives a command to know its reply by: any JSON value but null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(Value);

impl CommandId {
    /// Of this value; `None` for null and for one that is too long to be echoed.
    #[must_use]
    pub fn new(value: Value) -> Option<Self> {
        let is_short = |value: &Value| value.to_string().len() <= LONGEST_ID;
        (!value.is_null() && is_short(&value)).then_some(Self(value))
    }
}

/// Something a service is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Make sure that what is known is what there is now: list what may have changed.
    Refresh,
    /// Say all that is known.
    Snapshot,
    /// Tell this reader of these sessions from now on, beginning with a snapshot.
    Subscribe(View),
    /// Say how the service is doing.
    Status,
    /// Look up these sessions, 1 to 1000.
    Get(Vec<SessionId>),
    /// Find the roots of these sessions, 1 to 1000.
    Roots(Vec<SessionId>),
    /// End what this reader is a part of: the service, for the host that started it; the
    /// connection, for others.
    Shutdown,
    /// End the service, for all.
    Stop,
}

/// Why a command does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

/// Why a command does nothing, for programs: never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The line is no JSON object.
    NotAnObject,
    /// The line is longer than any command.
    TooLong,
    /// There is no such command.
    UnknownCommand,
    /// A field of the command is missing or cannot be what it is.
    Invalid,
    /// Too much is on its way; ask again later.
    Busy,
    /// The system gives no thread for it.
    NoThread,
}

impl CommandError {
    pub(super) fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

/// One line of a reader: a command, or what is wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandLine {
    /// For its reply.
    pub id: Option<CommandId>,
    /// What to do.
    pub command: Result<Command, CommandError>,
}

impl From<Command> for CommandLine {
    fn from(command: Command) -> Self {
        Self {
            id: None,
            command: Ok(command),
        }
    }
}

impl CommandLine {
    /// This command, whose reply is to have this id.
    #[must_use]
    pub fn with_id(command: Command, id: impl Into<Value>) -> Self {
        Self {
            id: CommandId::new(id.into()),
            command: Ok(command),
        }
    }

    /// What a line says.
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        match serde_json::from_slice::<Map<String, Value>>(line) {
            Ok(mut object) => {
                let given = object.remove("id").unwrap_or_default();
                let is_given = !given.is_null();
                let id = CommandId::new(given);
                let command = match id.is_some() || !is_given {
                    true => command(&object),
                    false => Err(CommandError::new(
                        ErrorCode::Invalid,
                        format!("\"id\" is longer than {LONGEST_ID} bytes of JSON"),
                    )),
                };
                Self { id, command }
            }
            Err(_) => Self::failed(
                ErrorCode::NotAnObject,
                "a command is one JSON object a line, such as {\"type\":\"refresh\",\"id\":1}",
            ),
        }
    }

    /// A line that is longer than any command.
    #[must_use]
    pub fn too_long(most: u64) -> Self {
        Self::failed(
            ErrorCode::TooLong,
            &format!("a command is at most {most} bytes long"),
        )
    }

    fn failed(code: ErrorCode, message: &str) -> Self {
        Self {
            id: None,
            command: Err(CommandError::new(code, message)),
        }
    }
}

fn command(object: &Map<String, Value>) -> Result<Command, CommandError> {
    let invalid = |message: String| Err(CommandError::new(ErrorCode::Invalid, message));
    match object.get("type").map(Value::as_str) {
        Some(Some("refresh")) => Ok(Command::Refresh),
        Some(Some("snapshot")) => Ok(Command::Snapshot),
        Some(Some("subscribe")) => Ok(Command::Subscribe(View {
            children: flag(object, "children")?,
            archived: flag(object, "archived")?,
        })),
        Some(Some("status")) => Ok(Command::Status),
        Some(Some("get")) => ids(object).map(Command::Get),
        Some(Some("roots")) => ids(object).map(Command::Roots),
        Some(Some("shutdown")) => Ok(Command::Shutdown),
        Some(Some("stop")) => Ok(Command::Stop),
        Some(Some(other)) => Err(CommandError::new(
            ErrorCode::UnknownCommand,
            format!(
                "there is no command {}; there are refresh, snapshot, subscribe, status, get, \
                 roots, shutdown and stop",
                quoted(other)
            ),
        )),
        Some(None) => invalid("\"type\" is not a text".to_owned()),
        None => invalid("\"type\" is missing: it says which command this is".to_owned()),
    }
}

fn flag(object: &Map<String, Value>, name: &str) -> Result<bool, CommandError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => {
            let message = format!("\"{name}\" is neither true nor false");
            Err(CommandError::new(ErrorCode::Invalid, message))
        }
    }
}

fn ids(object: &Map<String, Value>) -> Result<Vec<SessionId>, CommandError> {
    let invalid = |message| CommandError::new(ErrorCode::Invalid, message);
    let ids = object
        .get("ids")
        .and_then(Value::as_array)
        .ok_or_else(|| invalid("\"ids\" is not a list of session ids".to_owned()))?;
    if !(1..=limits::IDS).contains(&ids.len()) {
        let message = format!(
            "\"ids\" has {} ids; 1 to {} can be asked for at once",
            ids.len(),
            limits::IDS
        );
        return Err(invalid(message));
    }
    let id = |(at, id): (usize, &Value)| {
        let what = format!("number {} of \"ids\"", at + 1);
        let text = id
            .as_str()
            .ok_or_else(|| invalid(format!("{what} is not a text")))?;
        SessionId::new(text).map_err(|why| invalid(format!("{what} is no session id: {why}")))
    };
    ids.iter().enumerate().map(id).collect()
}

/// A part of what somebody wrote, as JSON.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    Value::from(short).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_object_is_answered_with_its_id_and_unknown_fields_are_ignored() {
        let long = "x".repeat(LONGEST_ID);
        let many = vec![json!("ses_1"); limits::IDS + 1];
        let parsed = |line: &Value| CommandLine::parse(line.to_string().as_bytes());
        for id in [
            json!(9),
            json!("a"),
            json!(1.5),
            json!([1]),
            json!({"a": true}),
            json!(-1),
        ] {
            for (fields, code) in [
                (json!({"type": "refresh"}), None),
                (json!({"type": "refresh", "extra": 1}), None),
                (json!({"type": "stop", "force": {"a": [1, 2]}}), None),
                (json!({"type": "get", "ids": ["ses_1"]}), None),
                (json!({"type": "nope"}), Some(ErrorCode::UnknownCommand)),
                (
                    json!({"type": "nope\u{1b}[0m"}),
                    Some(ErrorCode::UnknownCommand),
                ),
                (json!({"type": "subscribe", "children": true}), None),
                (
                    json!({"type": "subscribe", "archived": 1}),
                    Some(ErrorCode::Invalid),
                ),
                (json!({"type": 3}), Some(ErrorCode::Invalid)),
                (json!({"type": null}), Some(ErrorCode::Invalid)),
                (json!({}), Some(ErrorCode::Invalid)),
                (json!({"type": "get"}), Some(ErrorCode::Invalid)),
                (
                    json!({"type": "get", "ids": "ses_1"}),
                    Some(ErrorCode::Invalid),
                ),
                (json!({"type": "get", "ids": []}), Some(ErrorCode::Invalid)),
                (json!({"type": "get", "ids": [1]}), Some(ErrorCode::Invalid)),
                (
                    json!({"type": "roots", "ids": ["ses_1", "x".repeat(300)]}),
                    Some(ErrorCode::Invalid),
                ),
                (
                    json!({"type": "roots", "ids": many}),
                    Some(ErrorCode::Invalid),
                ),
            ] {
                let mut line = fields.clone();
                line["id"] = id.clone();
                let parsed = parsed(&line);
                assert_eq!(parsed.id, CommandId::new(id.clone()), "{line}");
                let got = parsed.command.as_ref().err();
                assert_eq!(got.map(|error| error.code), code, "{line}");
                let message = got.map(|error| error.message.as_str()).unwrap_or_default();
                for word in ["enum", "variant", "struct", "expected", "line 1", "\u{1b}"] {
                    assert!(!message.contains(word), "{message}");
                }
            }
        }
        for line in [
            "",
            "3",
            "[]",
            "null",
            "\"refresh\"",
            "{",
            "{\"type\":",
            "{} x",
            "\u{feff}{}",
        ] {
            let parsed = CommandLine::parse(line.as_bytes());
            assert_eq!(parsed.id, None);
            let code = parsed.command.map_err(|error| error.code);
            assert_eq!(code, Err(ErrorCode::NotAnObject), "{line}");
        }
        let line = json!({"type": "status", "id": null});
        assert_eq!(parsed(&line), CommandLine::from(Command::Status));
        let line = json!({"type": "stop", "id": long});
        let refused = parsed(&line).command.map_err(|error| error.code);
        assert_eq!(
            refused,
            Err(ErrorCode::Invalid),
            "nothing is done that cannot be told"
        );
    }
}
