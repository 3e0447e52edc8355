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
pub fn to_json(value: &impl Serialize, writer: impl Write) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, TerminalSafe))
}

/// Appends the value to `text` as compact JSON that is safe on a terminal.
///
/// # Panics
///
/// Panics if the value does not serialize as JSON. The types of this crate always do: their
/// keys are strings, and writing to memory does not fail.
pub fn append_json(value: &impl Serialize, text: &mut Vec<u8>) {
    #[expect(clippy::expect_used, reason = "see the doc comment")]
    to_json(value, text).expect("a type of this crate serializes");
}

/// Returns the value as one line of JSON, with its line feed.
///
/// # Panics
///
/// Panics if the value does not serialize as JSON. The types of this crate always do: their
/// keys are strings, and writing to memory does not fail.
#[must_use]
pub fn line(value: &impl Serialize) -> Vec<u8> {
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
