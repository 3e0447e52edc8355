//! Finding a marker in bytes the way `LIKE '%marker%'` does: ASCII case folded,
//! but at the speed of `memchr`.
//!
//! A case-insensitive search of every byte would cost seven times as much. So
//! it looks for something in the marker that has no case, the longest run of
//! characters that are no letters (`=3-` in the default), and compares the rest
//! only where that is found. A marker of letters alone is anchored on its
//! rarest letter, in both cases.

use memchr::memmem::Finder;

use crate::wire::MarkerText;

/// A marker, ready to be searched for.
#[derive(Debug, Clone)]
pub struct Needle {
    folded: Vec<u8>,
    anchor: Anchor,
    /// Where the anchor stands in the marker.
    offset: usize,
}

#[derive(Debug, Clone)]
enum Anchor {
    Run(Box<Finder<'static>>),
    Letter(u8, u8),
}

/// English and JSON text has fewer of the first ones.
const RAREST_FIRST: &[u8] = b"zqjxkvbwgyfphmucldrsnioate";

/// A run this long is rarer than any letter: JSON is full of single quotes,
/// commas and spaces.
const GOOD_RUN: usize = 2;

impl Needle {
    /// The needle of `marker`.
    #[must_use]
    pub fn new(marker: &MarkerText) -> Self {
        let folded = marker.as_str().to_ascii_lowercase().into_bytes();
        let (start, end) = longest_run_without_letters(&folded);
        if end - start < GOOD_RUN
            && let Some((offset, letter)) = rarest_letter(&folded)
        {
            let anchor = Anchor::Letter(letter, letter.to_ascii_uppercase());
            return Self {
                folded,
                anchor,
                offset,
            };
        }
        let anchor = Anchor::Run(Box::new(Finder::new(&folded[start..end]).into_owned()));
        Self {
            folded,
            anchor,
            offset: start,
        }
    }

    /// The marker's length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a marker is never empty")]
    pub fn len(&self) -> usize {
        self.folded.len()
    }

    /// True where `haystack` has the marker, ASCII case folded. It does not stop
    /// at a NUL, as `LIKE` does.
    #[must_use]
    pub fn is_in(&self, haystack: &[u8]) -> bool {
        let mut from = 0;
        while let Some(at) = self.find_anchor(&haystack[from..]) {
            if self.stands_around(haystack, from + at) {
                return true;
            }
            // One further only: anchors can overlap, as `--` does in `---`.
            from += at + 1;
        }
        false
    }

    fn find_anchor(&self, haystack: &[u8]) -> Option<usize> {
        match &self.anchor {
            Anchor::Run(finder) => finder.find(haystack),
            Anchor::Letter(lower, upper) => memchr::memchr2(*lower, *upper, haystack),
        }
    }

    fn stands_around(&self, haystack: &[u8], anchor_at: usize) -> bool {
        anchor_at
            .checked_sub(self.offset)
            .and_then(|start| haystack.get(start..start + self.folded.len()))
            .is_some_and(|text| text.eq_ignore_ascii_case(&self.folded))
    }
}

fn longest_run_without_letters(text: &[u8]) -> (usize, usize) {
    let mut longest = (0, 0);
    let mut start = 0;
    for end in 0..=text.len() {
        if end == text.len() || text[end].is_ascii_alphabetic() {
            if end - start > longest.1 - longest.0 {
                longest = (start, end);
            }
            start = end + 1;
        }
    }
    longest
}

fn rarest_letter(folded: &[u8]) -> Option<(usize, u8)> {
    RAREST_FIRST
        .iter()
        .find_map(|&letter| Some((memchr::memchr(letter, folded)?, letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needle(text: &str) -> Needle {
        Needle::new(&MarkerText::new(text).unwrap())
    }

    #[test]
    fn it_is_found_at_the_start_in_the_middle_and_at_the_end_in_any_case() {
        for text in [
            MarkerText::DEFAULT,
            "letters-only-once",
            "abcdefghijklmnopqrstuvwxyz",
            "eeeeeeeeeeeeeeee",
            "0123456789--====",
            "================",
            "[%_\\'\"] {a}  b?!",
        ] {
            let needle = needle(text);
            for marker in [
                text.to_owned(),
                text.to_ascii_uppercase(),
                text.to_ascii_lowercase(),
            ] {
                for haystack in [
                    marker.clone(),
                    format!("{marker} tail"),
                    format!("head {marker}"),
                    format!("=3-=3-{}{marker}", &marker[..marker.len() - 1]),
                    format!("{}{marker}", &marker[..1]),
                ] {
                    assert!(
                        needle.is_in(haystack.as_bytes()),
                        "{text:?} in {haystack:?}"
                    );
                }
                assert!(!needle.is_in(&marker.as_bytes()[1..]), "{text:?}");
                assert!(
                    !needle.is_in(&marker.as_bytes()[..marker.len() - 1]),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn only_ascii_letters_fold() {
        assert!(!needle("kkkkkkkkkkkkkkkk").is_in("\u{212a}".repeat(16).as_bytes()));
        // '[' and '{' differ in the bit that tells the cases of a letter apart.
        assert!(!needle("[[[[[[[[[[[[[[[[").is_in(b"{{{{{{{{{{{{{{{{"));
    }

    #[test]
    fn it_goes_on_past_a_nul_and_past_invalid_utf8() {
        let mut haystack = b"\xff\x00\xc3".to_vec();
        haystack.extend_from_slice(MarkerText::DEFAULT.as_bytes());
        assert!(needle(MarkerText::DEFAULT).is_in(&haystack));
    }
}
