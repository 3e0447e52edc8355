//! The configuration file as it is written: its tables, its keys and the types of their values.
//!
//! serde and toml find the problems of this kind and their offsets in the text. The messages are
//! written here: they name the key and say what its value must be.

use std::fmt;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ParseError;
use crate::text::escaped;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) discover: Option<Discover>,
    #[serde(default)]
    pub(super) source: Vec<Spanned<SourceTable>>,
}

/// The value of `discover`.
pub(super) enum Discover {
    Switch(bool),
    Programs(Vec<Spanned<String>>),
}

/// One `[[source]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceTable {
    pub(super) name: Option<Spanned<String>>,
    pub(super) db: Option<Spanned<String>>,
    pub(super) command: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) every: Option<Spanned<String>>,
}

impl Document {
    /// Returns an error for text that is not TOML, an unknown key or a value of another type
    /// than expected.
    pub(super) fn parse(text: &str) -> Result<Self, ParseError> {
        let offset = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        let table = DeTable::parse(text).map_err(|error| {
            let message = format!("invalid TOML: {}", escaped(error.message()));
            ParseError::new(offset(&error), message)
        })?;
        // serde would take the values of an array for the fields of the struct, in their order.
        if let Some(DeValue::Array(items)) = table.get_ref().get("source").map(Spanned::get_ref)
            && let Some(item) = items.iter().find(|item| !item.get_ref().is_table())
        {
            let message = wrong_type("source", item.get_ref());
            return Err(ParseError::new(item.span().start, message));
        }
        let deserializer = toml::Deserializer::from(table.clone());
        Self::deserialize(deserializer).map_err(|error| {
            let offset = offset(&error);
            ParseError::new(
                offset,
                structure_error(error.message(), table.get_ref(), offset),
            )
        })
    }
}

/// What the value of each key must be, for the error about a value of another type.
pub(super) fn expected(key: &str) -> &'static str {
    match key {
        "discover" => "`discover` must be true, false or a list such as [\"opencode\", \"kilo\"]",
        "name" => "`name` must be a string such as \"devbox\"",
        "db" => "`db` must be a path in quotes",
        "command" => {
            "`command` must be a list of strings such as [\"ssh\", \"devbox\", \"opencode-lister\"]"
        }
        "every" => "`every` must be a duration in quotes such as \"15s\"",
        _ => "`source` must be a list of tables (start each with [[source]], in double brackets)",
    }
}

/// The message for an unknown key or a value of the wrong type; serde reports nothing else
/// here. `message` is serde's own; `offset` is that of the key or of the value.
fn structure_error(message: &str, table: &DeTable<'_>, offset: usize) -> String {
    let unknown = message.strip_prefix("unknown field ");
    if let Some((key, keys)) = unknown.and_then(|rest| rest.rsplit_once(", expected ")) {
        return match key {
            "`sources`" => "unknown key `sources`; start each source with [[source]]".to_owned(),
            _ => format!("unknown key {}; expected {keys}", escaped(key)),
        };
    }
    match find(table, offset) {
        Some((key, value)) => wrong_type(key, value),
        None => escaped(message).into_owned(),
    }
}

fn wrong_type(key: &str, value: &DeValue<'_>) -> String {
    let found = match value.type_str() {
        "array" => "a list".to_owned(),
        "integer" => "an integer".to_owned(),
        other => format!("a {other}"),
    };
    format!("{}, not {found}", expected(key))
}

/// The value that starts at `offset`, and the key that it belongs to.
fn find<'a>(table: &'a DeTable<'a>, offset: usize) -> Option<(&'a str, &'a DeValue<'a>)> {
    let entries = |table: &'a DeTable<'a>| {
        let entries = table.iter();
        entries.map(|(key, value)| (key.get_ref().as_ref(), value))
    };
    let mut values: Vec<(&str, &Spanned<DeValue<'_>>)> = entries(table).collect();
    while let Some((key, value)) = values.pop() {
        match value.get_ref() {
            value_here if value.span().start == offset => return Some((key, value_here)),
            DeValue::Array(items) => values.extend(items.iter().map(|item| (key, item))),
            DeValue::Table(table) => values.extend(entries(table)),
            _ => {}
        }
    }
    None
}

// An untagged enum would need no visitor, but would lose the offsets of the strings.
impl<'de> Deserialize<'de> for Discover {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DiscoverVisitor;

        impl<'de> Visitor<'de> for DiscoverVisitor {
            type Value = Discover;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a boolean or a list of strings")
            }

            fn visit_bool<E>(self, is_on: bool) -> Result<Discover, E> {
                Ok(Discover::Switch(is_on))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Discover, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Discover::Programs)
            }
        }

        deserializer.deserialize_any(DiscoverVisitor)
    }
}
