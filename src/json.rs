//! JSON that is safe to show on a terminal: characters that a terminal interprets are
//! written as `\u` escapes, which every JSON parser reads as the same text. serde_json
//! escapes only the C0 controls. It prints DEL, the C1 controls (U+009B starts an escape
//! sequence on some terminals) and direction overrides unescaped.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::text::is_unsafe_on_terminal;

/// Formats compact JSON with unsafe characters escaped.
struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // serde_json has escaped characters below U+0020, `"` and `\` already.
        // `fold` instead of `any`: the compiler can vectorize it.
        if !fragment.bytes().fold(false, |any, b| any | (b >= 0x7f)) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut start = 0;
        for (at, c) in fragment
            .char_indices()
            .filter(|&(_, c)| is_unsafe_on_terminal(c))
        {
            writer.write_all(&fragment.as_bytes()[start..at])?;
            // All unsafe characters are in the basic multilingual plane: no surrogates.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            start = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[start..])
    }
}

/// Writes the value as compact JSON that is safe to show on a terminal.
///
/// # Errors
///
/// Returns an error if `writer` fails. The types of this crate cause no other error.
pub(crate) fn to_json(value: &impl Serialize, writer: impl Write) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, TerminalSafe))
}

/// Appends the value to `text` as compact JSON that is safe on a terminal.
///
/// # Panics
///
/// Panics if the value does not serialize as JSON. The types of this crate always do: their
/// keys are strings, and writing to memory does not fail.
pub(crate) fn append_json(value: &impl Serialize, text: &mut Vec<u8>) {
    #[expect(clippy::expect_used, reason = "see the doc comment")]
    to_json(value, text).expect("a type of this crate serializes");
}

/// The field names that [`append_short_json`] writes as one byte: the first as 1, and so on up to
/// 31. JSON text has no other byte below 32, since strings escape them.
const SHORT_KEYS: [&str; 31] = [
    "directory",
    "worktree",
    "projectId",
    "parentId",
    "title",
    "untitled",
    "firstPrompt",
    "timeCreated",
    "timeUpdated",
    "timeArchived",
    "lastMessageAt",
    "marked",
    "store",
    "agent",
    "version",
    "slug",
    "model",
    "providerId",
    "variant",
    "cost",
    "tokens",
    "input",
    "output",
    "reasoning",
    "cacheRead",
    "cacheWrite",
    "summary",
    "additions",
    "deletions",
    "files",
    "id",
];

fn short_key(name: &str) -> Option<u8> {
    short_key_after(0, name)
}

/// As [`short_key`], with the search begun after this key.
fn short_key_after(last: u8, name: &str) -> Option<u8> {
    let (before, after) = SHORT_KEYS.split_at(usize::from(last));
    let mut after = after.iter().chain(before).zip(usize::from(last)..);
    let (_, at) = after.find(|(key, _)| **key == name)?;
    u8::try_from(at % SHORT_KEYS.len() + 1).ok()
}

/// As [`TerminalSafe`], with one byte in place of each of the [`SHORT_KEYS`] and its colon.
#[derive(Default)]
struct ShortKeys {
    is_key: bool,
    is_short: bool,
    /// The key found last: most fields come in the order of the table.
    last: u8,
}

impl Formatter for ShortKeys {
    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.is_key = true;
        if first { Ok(()) } else { out.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.is_key = false;
        Ok(())
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        if std::mem::take(&mut self.is_short) {
            Ok(())
        } else {
            out.write_all(b":")
        }
    }

    fn begin_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        if self.is_key {
            Ok(())
        } else {
            out.write_all(b"\"")
        }
    }

    fn end_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        if self.is_key {
            Ok(())
        } else {
            out.write_all(b"\"")
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.is_key {
            return TerminalSafe.write_string_fragment(out, fragment);
        }
        match short_key_after(self.last, fragment) {
            Some(key) => {
                (self.is_short, self.last) = (true, key);
                out.write_all(&[key])
            }
            None => write!(out, "\"{fragment}\""),
        }
    }
}

/// Appends the value as compact JSON whose most frequent field names are one byte each. The keys
/// of the value must be identifiers.
///
/// # Panics
///
/// As [`append_json`].
pub(crate) fn append_short_json(value: &impl Serialize, text: &mut Vec<u8>) {
    let mut serializer = Serializer::with_formatter(text, ShortKeys::default());
    #[expect(clippy::expect_used, reason = "see append_json")]
    value
        .serialize(&mut serializer)
        .expect("a type of this crate serializes");
}

/// Writes a text of [`append_short_json`], or a part of one, as JSON.
///
/// # Errors
///
/// Returns the errors of `out`.
pub(crate) fn write_long_keys(mut text: &[u8], mut out: impl Write) -> io::Result<()> {
    while let Some(at) = text.iter().position(|byte| *byte < 32) {
        out.write_all(&text[..at])?;
        if let Some(name) = SHORT_KEYS.get(usize::from(text[at]).wrapping_sub(1)) {
            // `write!` takes several times as long, and every field of every session comes here.
            out.write_all(b"\"")?;
            out.write_all(name.as_bytes())?;
            out.write_all(b"\":")?;
        }
        text = &text[at + 1..];
    }
    out.write_all(text)
}

/// Returns where the field begins with its comma in a text of [`append_short_json`]; the end of
/// the text if the field is not there.
pub(crate) fn short_key_start(text: &[u8], name: &str) -> usize {
    let at = short_key(name).and_then(|key| memchr::memchr(key, text));
    at.map_or(text.len(), |at| at.saturating_sub(1))
}

/// Returns where the value of a field that has no fields itself is in a text of
/// [`append_short_json`], or `None` if the field is not there. Another short field must follow.
pub(crate) fn short_value(text: &[u8], name: &str) -> Option<std::ops::Range<usize>> {
    let start = memchr::memchr(short_key(name)?, text)? + 1;
    let next = text[start..].iter().position(|byte| *byte < 32)?;
    // The comma before the next field.
    Some(start..start + next - 1)
}

/// Returns the value as one line of JSON, with its line feed.
///
/// # Panics
///
/// Panics if the value does not serialize as JSON. The types of this crate always do: their
/// keys are strings, and writing to memory does not fail.
#[must_use]
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::with_capacity(1024);
    append_json(value, &mut line);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_characters_are_escaped_and_round_trip() {
        let hostile = "a\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2028}\"\\\n日本🚀";
        let json = String::from_utf8(line(&hostile)).unwrap();
        assert_eq!(
            json,
            "\"a\\u001b[31m\\u007f\\u009b\\u202e\\u2028\\\"\\\\\\n日本🚀\"\n"
        );
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }
}
