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

use unicode_width::UnicodeWidthChar;

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

/// True for characters that show nothing and that no text needs to be read: soft
/// hyphens, zero width spaces, fillers, invisible operators, interlinear marks and tags.
/// With them two names can look alike and differ
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

/// The zero width joiner and non-joiner: emoji, Persian and Indic scripts need them
/// between two characters.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Variation selectors: emoji, Mongolian and Japanese need them after a character.
fn is_selector(c: char) -> bool {
    matches!(
        c,
        '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}'
    )
}

/// Characters that show nothing themselves.
fn is_unseen(c: char) -> bool {
    is_invisible(c) || is_joiner(c) || is_selector(c)
}

/// True if nobody can see anything of the text: it has only white space, invisible
/// characters and characters that a terminal acts on.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    const BRAILLE_BLANK: char = '\u{2800}';
    text.chars()
        .all(|c| c.is_whitespace() || c == BRAILLE_BLANK || is_unseen(c) || unsafe_on_a_terminal(c))
}

/// The cells that a terminal gives this character. Terminals place each code point by
/// itself, so the cells of a text are the sum: a ligature of two letters has two, and a
/// family of emoji as many as its members, which is too many where a terminal joins them.
#[must_use]
pub fn cells(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The text in one line, safe to show: runs of white space become one space,
/// other unsafe characters become U+FFFD. Invisible characters stay.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c == ' ' || !(c.is_whitespace() || unsafe_on_a_terminal(c));
    if text.chars().all(plain) && !text.contains("  ") {
        return Cow::Borrowed(text.trim_matches(' '));
    }
    let safe = |c: char| match unsafe_on_a_terminal(c) {
        true => '\u{fffd}',
        false => c,
    };
    line_of(text, |word| word.chars().map(safe).collect())
}

/// The words in one line, each as `word` has it.
fn line_of(text: &str, word: impl Fn(&str) -> String) -> Cow<'_, str> {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace().map(word) {
        if !line.is_empty() && !word.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    Cow::Owned(line)
}

/// As [`one_line`], for a person who reads it as prose, such as a title: what is invisible
/// is left out.
#[must_use]
pub fn prose_line(text: &str) -> Cow<'_, str> {
    visible_line(text, None)
}

/// As [`one_line`], for a person who tells things apart by it, such as a path, a name or a
/// message with one: what is invisible becomes U+FFFD, so that a name with it is not taken
/// for the one without.
#[must_use]
pub fn name_line(text: &str) -> Cow<'_, str> {
    visible_line(text, Some('\u{fffd}'))
}

fn visible_line(text: &str, invisible: Option<char>) -> Cow<'_, str> {
    match text.chars().any(is_unseen) {
        true => line_of(text, |word| visible_word(word, invisible)),
        false => one_line(text),
    }
}

fn visible_word(word: &str, invisible: Option<char>) -> String {
    let mut visible = String::with_capacity(word.len());
    let mut rest = word.chars().peekable();
    // ASCII letters are neither joined nor varied; digits and two signs become keycaps.
    let takes_part = |c: Option<&char>| c.is_some_and(|c| !c.is_ascii());
    let is_varied = |c: Option<&char>| {
        takes_part(c) || c.is_some_and(|c| c.is_ascii_digit() || "#*".contains(*c))
    };
    let mut before = None;
    while let Some(c) = rest.next() {
        let has_effect = match (is_joiner(c), is_selector(c)) {
            (true, _) => takes_part(before.as_ref()) && takes_part(rest.peek()),
            (_, true) => is_varied(before.as_ref()),
            _ => true,
        };
        let shown = if is_invisible(c) || !has_effect {
            invisible
        } else if unsafe_on_a_terminal(c) {
            Some('\u{fffd}')
        } else {
            Some(c)
        };
        visible.extend(shown);
        before = shown.or(before);
    }
    visible
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
pub struct DisplayPath<'a>(pub &'a Path);

impl fmt::Display for DisplayPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_os_str().as_bytes();
        let text = std::str::from_utf8(bytes).ok();
        let plain = |c: char| c.is_alphanumeric() || "_-./=:@%+,~".contains(c);
        match text.filter(|text| !text.chars().any(is_hidden_in_a_path)) {
            Some(text) if !text.is_empty() && text.chars().all(plain) => f.write_str(text),
            Some(text) => write!(f, "'{}'", text.replace('\'', r"'\''")),
            None => ansi_c_quoted(bytes, f),
        }
    }
}

/// Whether a path with this character could be taken for another, or does something else
/// than to be shown. Joiners count here: a path is to be exact before it is pretty.
fn is_hidden_in_a_path(c: char) -> bool {
    unsafe_on_a_terminal(c) || is_unseen(c)
}

/// ANSI-C quoting, which bash, zsh and ksh understand.
fn ansi_c_quoted(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("$'")?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\'' => write!(f, "\\{c}")?,
                c if is_hidden_in_a_path(c) => match u32::from(c) {
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

/// What a program wrote, line by line: as UTF-16 each line that is written so, which
/// programs of Windows do, with or without a byte order mark, also between lines of UTF-8;
/// else as UTF-8, with U+FFFD for what is not.
///
/// A line is taken for UTF-16 where UTF-8 would have a NUL or be invalid, one of its
/// characters has a byte of zero, and it holds only what a text can hold.
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

/// True where [`decoded`] takes the first line for UTF-16.
#[must_use]
pub fn begins_in_utf16(bytes: &[u8]) -> bool {
    utf16_line(bytes).is_some()
}

/// The bytes of the first line, with its line feed, where that is one byte.
fn line_length(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

/// Bytes of a line from which on it is UTF-8 for certain where it looks so.
const SHORT_LINE: usize = 8;

/// The first line, where it is in UTF-16, and its length in bytes.
fn utf16_line(bytes: &[u8]) -> Option<(String, usize)> {
    let length = line_length(bytes);
    let line = &bytes[..length];
    // A few letters and a line feed can also be ideographs with such bytes.
    let is_utf8 =
        length >= SHORT_LINE && std::str::from_utf8(line).is_ok_and(|line| !line.contains('\0'));
    // The line feed of UTF-16LE is a byte of ten and one of zero; that zero can also be the
    // first byte of a line in UTF-16BE after one of UTF-8.
    let can_be_le = length % 2 == 1 && bytes.get(length) == Some(&0);
    if is_utf8 && !can_be_le {
        return None;
    }
    let little = utf16_line_of(bytes, u16::from_le_bytes);
    let big = utf16_line_of(bytes, u16::from_be_bytes);
    let read = match (little, big) {
        (Some(little), Some(big)) if big.score > little.score => Some(big),
        (little, big) => little.or(big),
    };
    read.map(|read| (read.text, read.length))
}

/// The first line, read in one order of bytes.
struct Utf16Line {
    text: String,
    /// In bytes.
    length: usize,
    /// Of two readings the one with the larger score is right: it begins with a byte order
    /// mark, it has a line feed, it has so many characters with a byte of zero.
    score: (bool, bool, usize),
}

/// As [`utf16_line`], in this order of bytes.
fn utf16_line_of(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<Utf16Line> {
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
    // Letters of ASCII, taken two by two, are all ideographs.
    if narrow == 0 || 2 * doubtful > count {
        return None;
    }
    // A byte that is left over is half of a unit that was cut off.
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

/// The duration in a text such as `500ms`, `15s` or `2m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let signed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(signed).ok()
}

/// A duration for people: `15s`, `1h 30m`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
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

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn output_in_utf16_is_decoded_with_and_without_a_mark() {
        for text in [
            "There is no such distribution.\r\nError code: 1\r\n",
            "no line end",
            "Es gibt keine Distribution für „x“ – 100 € 🚀\r\n",
            // A character with a byte of 10, and one with a byte of 0.
            "上一个发行版不存在。\r\n请重试\r\n",
            "\r\n\r\nafter empty lines\r\n",
            "",
        ] {
            for order in [u16::to_le_bytes, u16::to_be_bytes] {
                let bytes = utf16(text, order);
                assert_eq!(decoded(&bytes), text);
                assert_eq!(begins_in_utf16(&bytes), !text.is_empty());
                let marked = utf16(&format!("\u{feff}{text}"), order);
                assert_eq!(decoded(&marked), text);
                // Between lines of UTF-8.
                let mixed = [b"Authorized use only\n", &*bytes, b""].concat();
                assert_eq!(decoded(&mixed), format!("Authorized use only\n{text}"));
                if text.ends_with('\n') {
                    let mixed = [&*bytes, "naïve end\n".as_bytes()].concat();
                    assert_eq!(decoded(&mixed), format!("{text}naïve end\n"));
                }
            }
        }
        // Its last unit was cut.
        let bytes = utf16("cut", u16::to_le_bytes);
        assert_eq!(decoded(&bytes[..5]), "cu");
    }

    #[test]
    fn output_in_utf8_is_never_taken_for_utf16() {
        for (bytes, text) in [
            (&b"plain\nlines\n"[..], "plain\nlines\n"),
            ("naïve 日本語\n".as_bytes(), "naïve 日本語\n"),
            (b"caf\xe9 au lait\n", "caf\u{fffd} au lait\n"),
            (b"\nOK\nno\n\xe9t\xe9\n", "\nOK\nno\n\u{fffd}t\u{fffd}\n"),
            (b"{\0\"type\":\"hello\"}", "{\0\"type\":\"hello\"}"),
            (b"list\0of\0names\0here", "list\0of\0names\0here"),
            (b"\0\0\0\0", "\0\0\0\0"),
            (b"\xff", "\u{fffd}"),
        ] {
            assert_eq!(decoded(bytes), text);
            assert!(!begins_in_utf16(bytes), "{text:?}");
        }
    }

    #[test]
    fn an_escape_sequence_does_not_survive_in_any_form() {
        let hostile = "a\x1b]0;owned\x07b\u{9b}31mc\u{202e}d\nE\u{2028}f";
        for safe in [
            one_line(hostile),
            escaped(hostile),
            DisplayPath(Path::new(hostile)).to_string().into(),
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
    fn invisible_characters_are_left_out_of_prose_and_marked_in_names() {
        // The text, as prose, as a name.
        for (text, prose, name) in [
            ("plain  text", "plain text", "plain text"),
            ("a\u{200b}b", "ab", "a\u{fffd}b"),
            ("soft\u{ad}hyphen", "softhyphen", "soft\u{fffd}hyphen"),
            ("\u{3164}", "", "\u{fffd}"),
            ("a \u{2060} b", "a b", "a \u{fffd} b"),
            (
                "a\u{180e}\u{115f}\u{ffa0}b",
                "ab",
                "a\u{fffd}\u{fffd}\u{fffd}b",
            ),
            ("x\u{fff9}y\u{fffb}z", "xyz", "x\u{fffd}y\u{fffd}z"),
            ("t\u{e0041}\u{e007f}", "t", "t\u{fffd}\u{fffd}"),
            // A joiner or selector counts only where it has an effect.
            ("a\u{200d}b\u{fe0f}", "ab", "a\u{fffd}b\u{fffd}"),
            ("日\u{200d} x", "日 x", "日\u{fffd} x"),
            ("می\u{200c}خواهم", "می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("❤\u{fe0f} ok", "❤\u{fe0f} ok", "❤\u{fe0f} ok"),
            (
                "👩\u{200d}👩\u{200d}👧 ok",
                "👩\u{200d}👩\u{200d}👧 ok",
                "👩\u{200d}👩\u{200d}👧 ok",
            ),
            ("\u{202e}\u{1b}x", "\u{fffd}\u{fffd}x", "\u{fffd}\u{fffd}x"),
        ] {
            assert_eq!(prose_line(text), prose, "{text:?}");
            assert_eq!(name_line(text), name, "{text:?}");
        }
    }

    #[test]
    fn a_text_without_visible_characters_is_blank() {
        for blank in [
            "",
            " \t\u{3000}",
            "\u{200b}\u{2060}",
            "\u{3164}",
            "\u{ad}\u{180e}",
            "\u{e0001}\u{e0041}",
            "\u{fff9}\u{fffa}\u{fffb}",
            "\u{200d}\u{fe0f}",
            "\u{202e}\u{200e}",
            "\u{2800}",
        ] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for seen in ["a", "\u{200b}a", "日", "🚀", "-", "\u{fffd}"] {
            assert!(!is_blank(seen), "{seen:?}");
        }
    }

    #[test]
    fn cells_are_the_sum_over_code_points() {
        for (text, expected) in [
            ("abc", 3),
            ("日本", 4),
            ("لا", 2),
            ("👩\u{200d}👩\u{200d}👧", 6),
            ("🇩🇪", 2),
            ("e\u{301}", 1),
            ("\u{2068}a\u{2069}", 1),
            ("\u{1b}\u{200b}", 0),
        ] {
            let sum: usize = text.chars().map(cells).sum();
            assert_eq!(sum, expected, "{text:?}");
        }
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
        assert_eq!(DisplayPath(Path::new("/a/b-c.db")).to_string(), "/a/b-c.db");
        assert_eq!(
            DisplayPath(Path::new("/a b/$(x)")).to_string(),
            "'/a b/$(x)'"
        );
        assert_eq!(DisplayPath(Path::new("/it's")).to_string(), r"'/it'\''s'");
        assert_eq!(
            DisplayPath(Path::new("/a\x1b'")).to_string(),
            r"$'/a\x1b\''"
        );
        for (path, shown) in [
            ("/a\u{200b}b", r"$'/a\u200bb'"),
            ("/\u{3164}", r"$'/\u3164'"),
            ("/a\u{e0041}1", r"$'/a\U000e00411'"),
        ] {
            assert_eq!(DisplayPath(Path::new(path)).to_string(), shown);
        }
        let bytes = |bytes: &'static [u8]| Path::new(OsStr::from_bytes(bytes));
        assert_eq!(DisplayPath(bytes(b"/a\xff")).to_string(), r"$'/a\xff'");
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
