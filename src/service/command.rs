//! The commands that a service accepts: one JSON object per line.
//!
//! Every line gets exactly one reply. The reply to a JSON object has its `id`, even if the
//! command is invalid. Unknown fields are ignored, so that a newer program can use an older
//! service. An error has a code for programs and a message for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::index::View;
use crate::session::SessionId;
use crate::wire::limits;

/// The names of all commands, for messages.
const COMMAND_NAMES: &str = "refresh, snapshot, subscribe, status, get, roots, shutdown or stop";

/// The length of the longest `id`, in bytes of JSON.
const MAX_ID_BYTES: usize = 1024;

/// Identifies a command, so that the caller recognizes the reply: any JSON value but null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(Value);

impl CommandId {
    /// Returns the id with this value, or `None` if it is null or longer than 1024 bytes of
    /// JSON.
    #[must_use]
    pub fn new(value: Value) -> Option<Self> {
        let is_short = |value: &Value| value.to_string().len() <= MAX_ID_BYTES;
        (!value.is_null() && is_short(&value)).then_some(Self(value))
    }
}

/// A command to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Bring the index up to date: list each source that may have changed.
    Refresh,
    /// Send a snapshot of all known sessions.
    Snapshot,
    /// Change which sessions this subscriber sees, beginning with a snapshot.
    Subscribe(View),
    /// Report the status of the service.
    Status,
    /// Look up these sessions, 1 to 1000.
    Get(Vec<SessionId>),
    /// Find the root sessions of these sessions, 1 to 1000.
    Roots(Vec<SessionId>),
    /// End the service if the host that started it sends this, and otherwise only the
    /// connection.
    Shutdown,
    /// End the service for all subscribers.
    Stop,
}

/// Why a command was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandError {
    /// The code for programs.
    pub code: ErrorCode,
    /// The message for people.
    pub message: String,
}

/// Why a command was rejected, for programs. Names are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The line is not a JSON object.
    NotAnObject,
    /// The line is longer than 1 MiB.
    TooLong,
    /// The command does not exist.
    UnknownCommand,
    /// A field of the command is missing or has an invalid value.
    Invalid,
    /// Too many look-ups are running; retry later.
    Busy,
    /// A thread for the command cannot be spawned.
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

/// One line of a subscriber: a command, or why it was rejected.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandLine {
    /// The id for the reply.
    pub id: Option<CommandId>,
    /// The command.
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
    /// Returns a command with an id.
    #[must_use]
    pub fn with_id(command: Command, id: impl Into<Value>) -> Self {
        Self {
            id: CommandId::new(id.into()),
            command: Ok(command),
        }
    }

    /// Parses a line.
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        match serde_json::from_slice::<Map<String, Value>>(line) {
            Ok(mut object) => {
                let value = object.remove("id").unwrap_or_default();
                let has_id = !value.is_null();
                let id = CommandId::new(value);
                let command = match id.is_some() || !has_id {
                    true => parse_command(&object),
                    false => Err(CommandError::new(
                        ErrorCode::Invalid,
                        format!("\"id\" is longer than {MAX_ID_BYTES} bytes of JSON"),
                    )),
                };
                Self { id, command }
            }
            Err(_) => Self::rejected(
                ErrorCode::NotAnObject,
                "not a JSON object; expected one per line, such as {\"type\":\"refresh\",\"id\":1}",
            ),
        }
    }

    /// Returns the rejection of a line that is longer than `limit_bytes`.
    #[must_use]
    pub fn too_long(limit_bytes: u64) -> Self {
        Self::rejected(
            ErrorCode::TooLong,
            &format!("line too long; a command has at most {limit_bytes} bytes"),
        )
    }

    fn rejected(code: ErrorCode, message: &str) -> Self {
        Self {
            id: None,
            command: Err(CommandError::new(code, message)),
        }
    }
}

fn parse_command(object: &Map<String, Value>) -> Result<Command, CommandError> {
    let invalid = |message: String| Err(CommandError::new(ErrorCode::Invalid, message));
    match object.get("type").map(Value::as_str) {
        Some(Some("refresh")) => Ok(Command::Refresh),
        Some(Some("snapshot")) => Ok(Command::Snapshot),
        Some(Some("subscribe")) => Ok(Command::Subscribe(View {
            children: optional_bool(object, "children")?,
            archived: optional_bool(object, "archived")?,
        })),
        Some(Some("status")) => Ok(Command::Status),
        Some(Some("get")) => session_ids(object).map(Command::Get),
        Some(Some("roots")) => session_ids(object).map(Command::Roots),
        Some(Some("shutdown")) => Ok(Command::Shutdown),
        Some(Some("stop")) => Ok(Command::Stop),
        Some(Some(other)) => Err(CommandError::new(
            ErrorCode::UnknownCommand,
            format!("unknown command {}; expected {COMMAND_NAMES}", quote(other)),
        )),
        Some(None) => invalid(format!(
            "\"type\" is not a string; expected {COMMAND_NAMES}"
        )),
        None => invalid(format!("missing \"type\"; expected {COMMAND_NAMES}")),
    }
}

fn optional_bool(object: &Map<String, Value>, name: &str) -> Result<bool, CommandError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => {
            let message = format!("\"{name}\" is not a boolean");
            Err(CommandError::new(ErrorCode::Invalid, message))
        }
    }
}

fn session_ids(object: &Map<String, Value>) -> Result<Vec<SessionId>, CommandError> {
    let invalid = |message| CommandError::new(ErrorCode::Invalid, message);
    let ids = object
        .get("ids")
        .and_then(Value::as_array)
        .ok_or_else(|| invalid("\"ids\" is not an array of session ids".to_owned()))?;
    if !(1..=limits::IDS).contains(&ids.len()) {
        let message = format!(
            "\"ids\" has {} ids; expected 1 to {}",
            ids.len(),
            limits::IDS
        );
        return Err(invalid(message));
    }
    let id = |(at, id): (usize, &Value)| {
        let which = format!("session id {} of \"ids\"", at + 1);
        let text = id
            .as_str()
            .ok_or_else(|| invalid(format!("{which} is not a string")))?;
        SessionId::new(text).map_err(|error| invalid(format!("{which} is invalid: {error}")))
    };
    ids.iter().enumerate().map(id).collect()
}

/// Returns at most 40 characters of the text as a JSON string, for a message.
fn quote(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    Value::from(short).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(line: &Value) -> CommandLine {
        CommandLine::parse(line.to_string().as_bytes())
    }

    /// Objects, and the code of their errors.
    fn objects() -> Vec<(Value, Option<ErrorCode>)> {
        let (unknown, invalid) = (Some(ErrorCode::UnknownCommand), Some(ErrorCode::Invalid));
        let too_many = vec![json!("ses_1"); limits::IDS + 1];
        vec![
            (json!({"type": "refresh"}), None),
            (json!({"type": "refresh", "extra": 1}), None),
            (json!({"type": "stop", "force": {"a": [1, 2]}}), None),
            (json!({"type": "get", "ids": ["ses_1"]}), None),
            (json!({"type": "nope"}), unknown),
            (json!({"type": "nope\u{1b}[0m"}), unknown),
            (json!({"type": "subscribe", "children": true}), None),
            (json!({"type": "subscribe", "archived": 1}), invalid),
            (json!({"type": 3}), invalid),
            (json!({"type": null}), invalid),
            (json!({}), invalid),
            (json!({"type": "get"}), invalid),
            (json!({"type": "get", "ids": "ses_1"}), invalid),
            (json!({"type": "get", "ids": []}), invalid),
            (json!({"type": "get", "ids": [1]}), invalid),
            (
                json!({"type": "roots", "ids": ["ses_1", "x".repeat(300)]}),
                invalid,
            ),
            (json!({"type": "roots", "ids": too_many}), invalid),
        ]
    }

    #[test]
    fn object_keeps_its_id_and_unknown_fields_are_ignored() {
        let ids = [
            json!(9),
            json!("a"),
            json!(1.5),
            json!([1]),
            json!({"a": true}),
            json!(-1),
        ];
        for id in ids {
            for (mut line, code) in objects() {
                line["id"] = id.clone();
                let parsed = parse(&line);
                assert_eq!(parsed.id, CommandId::new(id.clone()), "{line}");
                let error = parsed.command.as_ref().err();
                assert_eq!(error.map(|error| error.code), code, "{line}");
                let message = error.map(|error| error.message.as_str());
                // Neither words of the parser's own messages nor control characters.
                for word in ["enum", "variant", "struct", "line 1", "\u{1b}"] {
                    assert!(!message.unwrap_or_default().contains(word), "{message:?}");
                }
            }
        }
        let line = json!({"type": "status", "id": null});
        assert_eq!(parse(&line), CommandLine::from(Command::Status));
    }

    #[test]
    fn line_that_is_not_an_object_is_rejected_without_id() {
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
    }

    /// The command is not run, since its reply could not be recognized.
    #[test]
    fn command_with_a_long_id_is_rejected() {
        let line = json!({"type": "stop", "id": "x".repeat(MAX_ID_BYTES)});
        let parsed = parse(&line);
        assert_eq!(parsed.id, None);
        let code = parsed.command.map_err(|error| error.code);
        assert_eq!(code, Err(ErrorCode::Invalid));
    }
}
