//! One cell of a table: a text with a known width, which can be cut to fit.

use std::borrow::Cow;

use crate::text::cells;

/// Replaces the part that is cut off.
const CUT: char = '…';

/// The start (FIRST STRONG ISOLATE) and the end (POP DIRECTIONAL ISOLATE) of a text whose
/// direction does not affect the text around it.
const ISOLATE: (char, char) = ('\u{2068}', '\u{2069}');

/// The variation selector that makes an emoji of the character before it.
const EMOJI_SELECTOR: char = '\u{fe0f}';

/// The end that is kept of a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Start,
    /// Paths differ at their ends.
    End,
}

/// A text of one line and its width in terminal cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    width: usize,
}

impl Cell {
    /// Creates a cell from one line of text that is safe on a terminal.
    pub(super) fn new(text: &str) -> Self {
        let text = without_narrow_emoji(text);
        Self {
            width: width(&text),
            text: text.into_owned(),
        }
    }

    /// Returns the width in terminal cells.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Returns the cell, cut to at most `room` terminal cells.
    pub(super) fn cut(&self, room: usize, keep: Keep) -> Self {
        if self.width <= room {
            return self.clone();
        }
        let Some(room) = room.checked_sub(cells(CUT)) else {
            return Self::new("");
        };
        let text = match keep {
            Keep::Start => format!("{}{CUT}", start(&self.text, room)),
            Keep::End => format!("{CUT}{}", end(&self.text, room)),
        };
        Self::new(&text)
    }

    /// Returns the text for a terminal. Text with right-to-left letters is isolated, so that
    /// the terminal does not reorder the columns beside it.
    pub(super) fn isolated(&self) -> Cow<'_, str> {
        match self.text.chars().any(is_right_to_left) {
            true => format!("{}{}{}", ISOLATE.0, self.text, ISOLATE.1).into(),
            false => self.text.as_str().into(),
        }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Returns the width of a text in terminal cells.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// Removes the emoji selector after a character of one cell. Terminals draw the pair with one
/// cell or with two, so its width is unknown.
fn without_narrow_emoji(text: &str) -> Cow<'_, str> {
    if !text.contains(EMOJI_SELECTOR) {
        return text.into();
    }
    let mut previous_width = 0;
    let kept = text.chars().filter(|c| {
        let is_kept = *c != EMOJI_SELECTOR || previous_width > 1;
        previous_width = cells(*c);
        is_kept
    });
    kept.collect::<String>().into()
}

/// Returns the longest start that fits `room` cells, without trailing joiners, which belong
/// to a character that is cut off, and without trailing blanks.
fn start(text: &str, room: usize) -> &str {
    let mut used = 0;
    let end = text
        .char_indices()
        .find(|(_, c)| {
            used += cells(*c);
            used > room
        })
        .map_or(text.len(), |(at, _)| at);
    text[..end].trim_end_matches([' ', '\u{200c}', '\u{200d}'])
}

/// Returns the longest end that fits `room` cells, without leading characters of no width,
/// such as accents, which belong to a character that is cut off.
fn end(text: &str, room: usize) -> &str {
    let mut used = 0;
    let start = text
        .char_indices()
        .rev()
        .take_while(|(_, c)| {
            used += cells(*c);
            used <= room
        })
        .last()
        .map_or(text.len(), |(at, _)| at);
    text[start..].trim_start_matches(|c| cells(c) == 0)
}

/// Returns true for letters and digits of right-to-left scripts
/// (<https://www.unicode.org/Public/UCD/latest/ucd/extracted/DerivedBidiClass.txt>: the
/// blocks whose default is R or AL).
fn is_right_to_left(c: char) -> bool {
    matches!(
        c,
        '\u{590}'..='\u{8ff}'
            | '\u{fb1d}'..='\u{fdff}'
            | '\u{fe70}'..='\u{fefc}'
            | '\u{10800}'..='\u{10fff}'
            | '\u{1e800}'..='\u{1efff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_cell_fits_its_room() {
        for (text, room, start, end) in [
            ("abcdef", 6, "abcdef", "abcdef"),
            ("abcdef", 5, "abcd…", "…cdef"),
            ("abcdef", 1, "…", "…"),
            ("abcdef", 0, "", ""),
            ("one two", 5, "one…", "… two"),
            // A character of two cells does not fit one.
            ("日本語", 4, "日…", "…語"),
            ("日本語", 5, "日本…", "…本語"),
            // An accent stays with its letter, and goes with it.
            ("ae\u{301}b", 2, "a…", "…b"),
            ("ae\u{301}bc", 3, "ae\u{301}…", "…bc"),
            ("👩\u{200d}👩\u{200d}👧", 4, "👩…", "…👧"),
            ("/home/dev/project", 9, "/home/de…", "…/project"),
        ] {
            let cell = Cell::new(text);
            for (keep, expected) in [(Keep::Start, start), (Keep::End, end)] {
                let cut = cell.cut(room, keep);
                assert_eq!(cut.text(), expected, "{text} {room}");
                assert_eq!(cut.width(), width(expected));
                assert!(cut.width() <= room, "{text} {room}");
            }
        }
    }

    #[test]
    fn cell_drops_selectors_of_ambiguous_width() {
        for (text, shown, width) in [
            ("❤\u{fe0f} ok", "❤ ok", 4),
            ("🚀\u{fe0f}", "🚀\u{fe0f}", 2),
            ("لا", "لا", 2),
        ] {
            let cell = Cell::new(text);
            assert_eq!((cell.text(), cell.width()), (shown, width));
        }
    }

    #[test]
    fn only_right_to_left_text_is_isolated() {
        for (text, is_isolated) in [
            ("plain", false),
            ("日本 🚀 é", false),
            ("שלום", true),
            ("fix لا now", true),
            ("\u{1e922}", true),
        ] {
            let cell = Cell::new(text);
            let expected = match is_isolated {
                true => format!("\u{2068}{text}\u{2069}"),
                false => text.to_owned(),
            };
            assert_eq!(cell.isolated(), expected);
            assert_eq!(
                Cell::new(&expected).width(),
                cell.width(),
                "isolates take no cell"
            );
        }
    }
}
