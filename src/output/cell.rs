//! One cell of a table: a text whose width is known, cut to fit, and kept apart from its
//! neighbours.

use std::borrow::Cow;

use crate::text::cells;

/// What stands for the part that was cut off.
const CUT: char = '…';

/// Begins a text whose direction its neighbours do not see (FIRST STRONG ISOLATE), and
/// ends it (POP DIRECTIONAL ISOLATE).
const ISOLATE: (char, char) = ('\u{2068}', '\u{2069}');

/// Makes an emoji of the character before it.
const EMOJI: char = '\u{fe0f}';

/// Which end of a text that is too long is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Start,
    /// Paths differ at their ends.
    End,
}

/// A text in one line and its width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    width: usize,
}

impl Cell {
    /// A text in one line that is safe to show.
    pub(super) fn new(text: &str) -> Self {
        let text = without_narrow_emoji(text);
        Self {
            width: width(&text),
            text: text.into_owned(),
        }
    }

    /// Its width, in cells.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The cell in at most so many cells.
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

    /// The text, for a terminal: a cell with a text from right to left does not turn the
    /// cells beside it around.
    pub(super) fn isolated(&self) -> Cow<'_, str> {
        match self.text.chars().any(is_right_to_left) {
            true => format!("{}{}{}", ISOLATE.0, self.text, ISOLATE.1).into(),
            false => self.text.as_str().into(),
        }
    }

    /// The text, as it is.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

pub(super) fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// The text without the selector that makes an emoji of a character with one cell: some
/// terminals draw that with one, others with two, and no width would be right for both.
fn without_narrow_emoji(text: &str) -> Cow<'_, str> {
    if !text.contains(EMOJI) {
        return text.into();
    }
    let mut before = 0;
    let kept = text.chars().filter(|c| {
        let is_kept = *c != EMOJI || before > 1;
        before = cells(*c);
        is_kept
    });
    kept.collect::<String>().into()
}

/// The longest start in so many cells. Nothing that belongs to a character that is cut off
/// stays: no joiner, and no white space before the mark of the cut.
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

/// The longest end in so many cells. It does not begin with what belongs to a character
/// that is cut off, such as an accent.
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

/// Letters of scripts that are written from right to left, and their digits
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
    fn cut_cell_has_at_most_the_cells_it_is_given() {
        for (text, room, start, end) in [
            ("abcdef", 6, "abcdef", "abcdef"),
            ("abcdef", 5, "abcd…", "…cdef"),
            ("abcdef", 1, "…", "…"),
            ("abcdef", 0, "", ""),
            ("one two", 5, "one…", "… two"),
            // Two cells do not fit one.
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
    fn cell_has_the_same_width_on_every_terminal() {
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
