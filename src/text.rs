//! Untrusted text on its way to a person.
//!
//! Everything that comes from a database or from a helper is text that anybody
//! may have written: a title can hold escape sequences that retitle or clear a
//! terminal, or direction overrides that make a path read as another. Nothing
//! reaches a terminal before it went through here. The functions never fail.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// True for characters that a terminal acts on instead of showing, and for
/// those that reorder or break the line around them: C0 and C1 controls, DEL,
/// the line and paragraph separators, and the bidirectional controls
/// (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>).
///
/// The joiner U+200D and variation selectors are not among them: emoji need them.
#[must_use]
pub fn unsafe_on_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// The text in one line, safe to show: runs of white space become one space,
/// other unsafe characters become U+FFFD.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c == ' ' || !(c.is_whitespace() || unsafe_on_a_terminal(c));
    if text.chars().all(plain) && !text.contains("  ") {
        return Cow::Borrowed(text.trim_matches(' '));
    }
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| {
            if unsafe_on_a_terminal(c) {
                '\u{fffd}'
            } else {
                c
            }
        }));
    }
    Cow::Owned(line)
}

/// The text with unsafe characters, tabs, line ends and backslashes written as
/// escapes (`\t`, `\n`, `\\`, `\u{1b}`): reversible, and one line whatever it held.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c == '\\' || unsafe_on_a_terminal(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if unsafe_on_a_terminal(c) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The bytes as [`escaped`] writes a text, and each byte that is not part of UTF-8 as
/// `\xff`: reversible, so that different bytes are never written alike.
#[must_use]
pub fn escaped_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escaped(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        out.push_str(&escaped(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

/// Shows a path in a message: quoted where it holds anything but plain
/// characters, so that it can be pasted into a shell, and never with a
/// character that a terminal would act on.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_os_str().as_bytes();
        let text = std::str::from_utf8(bytes).ok();
        let plain = |c: char| c.is_alphanumeric() || "_-./=:@%+,~".contains(c);
        match text.filter(|text| !text.chars().any(unsafe_on_a_terminal)) {
            Some(text) if !text.is_empty() && text.chars().all(plain) => f.write_str(text),
            Some(text) => write!(f, "'{}'", text.replace('\'', r"'\''")),
            None => ansi_c_quoted(bytes, f),
        }
    }
}

/// ANSI-C quoting, which bash, zsh and ksh understand.
fn ansi_c_quoted(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("$'")?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\'' => write!(f, "\\{c}")?,
                c if unsafe_on_a_terminal(c) && u32::from(c) < 0x80 => {
                    write!(f, "\\x{:02x}", u32::from(c))?;
                }
                c if unsafe_on_a_terminal(c) => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    f.write_char('\'')
}

/// The duration in a text such as `500ms`, `15s` or `2m`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let signed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(signed).ok()
}

/// A duration for people: `15s`, `1h 30m`.
#[must_use]
pub fn told(duration: Duration) -> String {
    match jiff::SignedDuration::try_from(duration) {
        Ok(duration) => format!("{duration:#}"),
        Err(_) => format!("{duration:?}"),
    }
}

/// The longest start of `text` that has at most `limit` bytes and ends at a
/// character.
#[must_use]
pub fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn an_escape_sequence_does_not_survive_in_any_form() {
        let hostile = "a\x1b]0;owned\x07b\u{9b}31mc\u{202e}d\nE\u{2028}f";
        for safe in [
            one_line(hostile),
            escaped(hostile),
            Shown(Path::new(hostile)).to_string().into(),
        ] {
            assert!(!safe.chars().any(unsafe_on_a_terminal), "{safe:?}");
        }
    }

    #[test]
    fn emoji_and_other_scripts_stay_as_they_are() {
        let title = "日本語 🚀 naïve 👩\u{200d}👩\u{200d}👧 ok";
        assert_eq!(one_line(title), title);
        assert_eq!(escaped(title), title);
    }

    #[test]
    fn white_space_is_one_space_and_none_at_the_ends() {
        assert_eq!(one_line("  a \t b\r\n\n c "), "a b c");
    }

    #[test]
    fn an_escaped_text_tells_a_backslash_from_a_tab() {
        assert_eq!(escaped("a\tb\\t"), "a\\tb\\\\t");
    }

    #[test]
    fn a_shown_path_is_quoted_when_a_shell_would_read_it_otherwise() {
        assert_eq!(Shown(Path::new("/a/b-c.db")).to_string(), "/a/b-c.db");
        assert_eq!(Shown(Path::new("/a b/$(x)")).to_string(), "'/a b/$(x)'");
        assert_eq!(Shown(Path::new("/it's")).to_string(), r"'/it'\''s'");
        assert_eq!(Shown(Path::new("/a\x1b'")).to_string(), r"$'/a\x1b\''");
        let bytes = |bytes: &'static [u8]| Path::new(OsStr::from_bytes(bytes));
        assert_eq!(Shown(bytes(b"/a\xff")).to_string(), r"$'/a\xff'");
    }

    #[test]
    fn different_bytes_are_escaped_differently() {
        let all: [(&[u8], &str); 8] = [
            (b"a\xff", r"a\xff"),
            (b"a\xfe", r"a\xfe"),
            (br"a\xff", r"a\\xff"),
            ("a\u{fffd}".as_bytes(), "a\u{fffd}"),
            // The first two bytes of three.
            (b"a\xe2\x82", r"a\xe2\x82"),
            (b"\xff\t\\\xff", r"\xff\t\\\xff"),
            (b"\t", r"\t"),
            (br"\t", r"\\t"),
        ];
        for (bytes, expected) in all {
            assert_eq!(escaped_bytes(bytes), expected);
        }
    }

    #[test]
    fn a_cut_falls_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 99), "aé");
    }
}
