//! Makes untrusted text safe to show.
//!
//! Text from a database or a helper is untrusted. A title can contain escape sequences that
//! retitle or clear a terminal, or direction overrides that make one path look like another.
//! All such text passes through this module before it is shown. The functions never fail.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use unicode_width::UnicodeWidthChar;

/// Returns true for a character that a terminal interprets instead of showing, or that
/// reorders or breaks the line around it: C0 and C1 controls, DEL, the line and paragraph
/// separators, and the bidirectional controls
/// (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>).
///
/// Returns false for the joiner U+200D and for variation selectors, which emoji need.
#[must_use]
pub fn is_unsafe_on_terminal(c: char) -> bool {
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

/// Returns true for an invisible character that no text needs to be legible: soft hyphens,
/// zero width spaces, fillers, invisible operators, interlinear marks and tags. With them two
/// different names can look alike
/// (<https://www.unicode.org/reports/tr36/#Mixed_Script_Spoofing>).
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e00ff}'
            | '\u{e01f0}'..='\u{e0fff}'
    )
}

/// Returns true for the zero width joiner and non-joiner: emoji, Persian and Indic scripts
/// need them between two characters.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Returns true for a variation selector: emoji, Mongolian and Japanese need them after a
/// character.
fn is_selector(c: char) -> bool {
    matches!(
        c,
        '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}'
    )
}

/// Returns true for a character that has no shape of its own.
fn has_no_shape(c: char) -> bool {
    is_invisible(c) || is_joiner(c) || is_selector(c)
}

/// Returns true if no character of the text is visible: all are white space, invisible, or
/// interpreted by a terminal.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    const BRAILLE_BLANK: char = '\u{2800}';
    text.chars().all(|c| {
        c.is_whitespace() || c == BRAILLE_BLANK || has_no_shape(c) || is_unsafe_on_terminal(c)
    })
}

/// Returns the number of terminal cells that this character occupies.
///
/// Most terminals place each code point separately, so the width of a text is the sum: a
/// ligature of two letters has two cells, and a family of emoji as many as its members. On a
/// terminal that joins them the sum is too large.
#[must_use]
pub fn cells(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Returns the text in one line, safe to show: runs of white space become one space, other
/// unsafe characters become U+FFFD. Invisible characters stay.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c == ' ' || !(c.is_whitespace() || is_unsafe_on_terminal(c));
    if text.chars().all(is_plain) && !text.contains("  ") {
        return Cow::Borrowed(text.trim_matches(' '));
    }
    let replace = |c: char| match is_unsafe_on_terminal(c) {
        true => '\u{fffd}',
        false => c,
    };
    map_words(text, |word| word.chars().map(replace).collect())
}

/// Applies `map` to each word and joins the words that are not empty then with one space.
fn map_words(text: &str, map: impl Fn(&str) -> String) -> Cow<'_, str> {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace().map(map) {
        if !line.is_empty() && !word.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    Cow::Owned(line)
}

/// Returns the text as [`one_line`] does, without invisible characters. For text that people
/// read as prose, such as a title.
#[must_use]
pub fn prose_line(text: &str) -> Cow<'_, str> {
    visible_line(text, None)
}

/// Returns the text as [`one_line`] does, with U+FFFD for each invisible character, so that a
/// name with such a character looks different. For text that identifies something, such as a
/// path, a name, or a message with one.
#[must_use]
pub fn name_line(text: &str) -> Cow<'_, str> {
    visible_line(text, Some('\u{fffd}'))
}

/// Returns the text in one line, with `replacement` for each invisible character.
fn visible_line(text: &str, replacement: Option<char>) -> Cow<'_, str> {
    match text.chars().any(has_no_shape) {
        true => map_words(text, |word| visible_word(word, replacement)),
        false => one_line(text),
    }
}

fn visible_word(word: &str, replacement: Option<char>) -> String {
    let mut visible = String::with_capacity(word.len());
    let mut rest = word.chars().peekable();
    // Joiners and selectors have no effect on ASCII letters. With a selector, digits, `#` and
    // `*` become keycaps.
    let can_join = |c: Option<&char>| c.is_some_and(|c| !c.is_ascii());
    let can_vary = |c: Option<&char>| {
        can_join(c) || c.is_some_and(|c| c.is_ascii_digit() || "#*".contains(*c))
    };
    let mut previous = None;
    while let Some(c) = rest.next() {
        let has_effect = match (is_joiner(c), is_selector(c)) {
            (true, _) => can_join(previous.as_ref()) && can_join(rest.peek()),
            (_, true) => can_vary(previous.as_ref()),
            _ => true,
        };
        let shown = if is_invisible(c) || !has_effect {
            replacement
        } else if is_unsafe_on_terminal(c) {
            Some('\u{fffd}')
        } else {
            Some(c)
        };
        visible.extend(shown);
        previous = shown.or(previous);
    }
    visible
}

/// Escapes unsafe characters, tabs, line ends and backslashes (`\t`, `\n`, `\\`, `\u{1b}`).
/// The result is one line, and the escaping is reversible.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c == '\\' || is_unsafe_on_terminal(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if is_unsafe_on_terminal(c) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Escapes bytes as [`escaped`] does text, and each byte that is not part of valid UTF-8 as
/// `\xff`. The escaping is reversible, so different bytes have different results.
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

/// Displays a path in a message. The path is quoted if it contains other than plain
/// characters, so that it can be pasted into a shell. The result never contains a character
/// that a terminal interprets.
#[derive(Debug, Clone, Copy)]
pub struct DisplayPath<'a>(pub &'a Path);

impl fmt::Display for DisplayPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_os_str().as_bytes();
        let text = std::str::from_utf8(bytes).ok();
        let is_plain = |c: char| c.is_alphanumeric() || "_-./=:@%+,~".contains(c);
        match text.filter(|text| !text.chars().any(needs_escape_in_path)) {
            Some(text) if !text.is_empty() && text.chars().all(is_plain) => f.write_str(text),
            Some(text) => write!(f, "'{}'", text.replace('\'', r"'\''")),
            None => write_ansi_c_quoted(bytes, f),
        }
    }
}

/// Returns true if a path with this character could look like another path, or if a terminal
/// interprets the character. Includes joiners: an exact path is more important than its
/// appearance.
fn needs_escape_in_path(c: char) -> bool {
    is_unsafe_on_terminal(c) || has_no_shape(c)
}

/// Writes the bytes in ANSI-C quotes, which bash, zsh and ksh support.
fn write_ansi_c_quoted(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("$'")?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\'' => write!(f, "\\{c}")?,
                c if needs_escape_in_path(c) => match u32::from(c) {
                    code @ ..0x80 => write!(f, "\\x{code:02x}")?,
                    code @ ..0x1_0000 => write!(f, "\\u{code:04x}")?,
                    code => write!(f, "\\U{code:08x}")?,
                },
                c => f.write_char(c)?,
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    f.write_char('\'')
}

/// Decodes the output of a program, line by line.
///
/// Windows programs write UTF-16, with or without a byte order mark, and also between lines
/// of UTF-8. A line is decoded as UTF-16 if it is invalid as UTF-8 or contains a NUL, one of
/// its characters has a zero byte, and it contains only characters of text. Other lines are
/// decoded as UTF-8, with U+FFFD for invalid bytes.
#[must_use]
pub fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => return Cow::Borrowed(text),
        _ => {}
    }
    let (mut text, mut rest) = (String::with_capacity(bytes.len()), bytes);
    while !rest.is_empty() {
        let (line, length) = utf16_line(rest).unwrap_or_else(|| {
            let length = line_length(rest);
            (
                String::from_utf8_lossy(&rest[..length]).into_owned(),
                length,
            )
        });
        text.push_str(&line);
        rest = &rest[length..];
    }
    Cow::Owned(text)
}

/// Returns true if [`decoded`] decodes the first line as UTF-16.
#[must_use]
pub fn begins_in_utf16(bytes: &[u8]) -> bool {
    utf16_line(bytes).is_some()
}

/// Returns the length of the first line in bytes, including a line feed of one byte.
fn line_length(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

/// The length in bytes from which a line that is valid UTF-8 cannot be UTF-16.
const SHORT_LINE_BYTES: usize = 8;

/// Returns the first line and its length in bytes if the line is UTF-16.
fn utf16_line(bytes: &[u8]) -> Option<(String, usize)> {
    let length = line_length(bytes);
    let line = &bytes[..length];
    // The bytes of a few letters and a line feed may also encode ideographs.
    let is_utf8 = length >= SHORT_LINE_BYTES
        && std::str::from_utf8(line).is_ok_and(|line| !line.contains('\0'));
    // The line feed of UTF-16LE has the bytes 10 and 0. The 0 can also be the first byte of a
    // line in UTF-16BE after a line in UTF-8.
    let can_be_le = length % 2 == 1 && bytes.get(length) == Some(&0);
    if is_utf8 && !can_be_le {
        return None;
    }
    let little = decode_utf16_line(bytes, u16::from_le_bytes);
    let big = decode_utf16_line(bytes, u16::from_be_bytes);
    let best = match (little, big) {
        (Some(little), Some(big)) if big.score > little.score => Some(big),
        (little, big) => little.or(big),
    };
    best.map(|line| (line.text, line.length))
}

/// The first line, decoded in one byte order.
struct Utf16Line {
    text: String,
    /// The length in bytes.
    length: usize,
    /// The byte order with the larger score is the right one. The score is whether the line
    /// begins with a byte order mark, whether it ends with a line feed, and how many of its
    /// characters have a zero byte.
    score: (bool, bool, usize),
}

/// Decodes the first line in the byte order of `unit`; `None` if it is not UTF-16.
fn decode_utf16_line(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<Utf16Line> {
    const MARK: char = '\u{feff}';
    let units = bytes
        .chunks_exact(2)
        .map(|bytes| unit([bytes[0], bytes[1]]));
    let (mut text, mut length) = (String::new(), 0);
    let (mut narrow, mut doubtful, mut count) = (0, 0, 0);
    let mut has_mark = false;
    for c in char::decode_utf16(units) {
        let c = c.ok()?;
        let is_mark = length == 0 && c == MARK;
        if c.is_control() && !"\t\r\n\x1b".contains(c) {
            return None;
        }
        let [.., high, low] = u32::from(c).to_be_bytes();
        count += 1;
        has_mark |= is_mark;
        narrow += usize::from(u32::from(c) < 0x100 || is_mark);
        doubtful += usize::from([high, low].iter().all(|byte| matches!(byte, b' '..=b'~')));
        length += 2 * c.len_utf16();
        text.extend((!is_mark).then_some(c));
        if c == '\n' {
            break;
        }
    }
    // ASCII letters, decoded in pairs, are all ideographs.
    if narrow == 0 || 2 * doubtful > count {
        return None;
    }
    // A single remaining byte is half of a truncated unit.
    let length = match bytes.len() - length {
        1 => bytes.len(),
        _ => length,
    };
    let score = (has_mark, text.ends_with('\n'), narrow);
    Some(Utf16Line {
        text,
        length,
        score,
    })
}

/// Parses a duration such as `500ms`, `15s` or `2m`. `None` if the text is invalid or the
/// duration is negative.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let signed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(signed).ok()
}

/// Formats a duration for people: `15s`, `1h 30m`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    match jiff::SignedDuration::try_from(duration) {
        Ok(duration) => format!("{duration:#}"),
        Err(_) => format!("{duration:?}"),
    }
}

/// Returns the longest prefix of `text` that has at most `limit_bytes` bytes and ends at a
/// character boundary.
#[must_use]
pub fn cut(text: &str, limit_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(limit_bytes)]
}

#[cfg(test)]
mod tests;
