//! Finding a text in bytes the way `LIKE '%text%'` does: ASCII case folded, but
//! at the speed of memory.
//!
//! Comparing every position would cost twenty times as much. So it looks for two
//! of the text's bytes at their distance, the rarest ones that it has, in blocks
//! that the compiler turns into vector instructions, and compares the rest only
//! where both are found.

#[cfg(target_arch = "x86_64")]
use memchr::arch::all::packedpair::Pair;

use crate::marker_text::MarkerText;

/// A text, ready to be searched for.
#[derive(Debug, Clone)]
pub struct Needle {
    folded: Vec<u8>,
    rare: [Rare; 2],
    wide: Option<Wide>,
}

/// Looks for two bytes that are no letters, with instructions that only some
/// processors have.
#[cfg(target_arch = "x86_64")]
type Wide = memchr::arch::x86_64::avx2::packedpair::Finder;
/// Nothing has to be asked for: the blocks use what every processor has.
#[cfg(not(target_arch = "x86_64"))]
type Wide = std::convert::Infallible;

/// A byte of the text. Where it is a letter, `fold` is the bit that tells its
/// cases apart, else nothing.
#[derive(Debug, Clone, Copy)]
struct Rare {
    at: usize,
    byte: u8,
    fold: u8,
}

impl Rare {
    #[inline]
    fn is(self, byte: u8) -> bool {
        byte | self.fold == self.byte
    }
}

/// JSON text has fewer of the first ones. What is not named is rarer still, but
/// for what JSON itself is written with.
const COMMONEST_LAST: &[u8] = b"zqjxkvbwgyfphmucldrsnioate0123456789_/.-:,{}\" ";

/// Positions that are looked at together.
const BLOCK: usize = 64;

impl Needle {
    /// The needle of `marker`.
    #[must_use]
    pub fn new(marker: &MarkerText) -> Self {
        Self::of(marker.as_str())
    }

    /// The needle of a text of at least two bytes, all ASCII.
    pub(super) fn of(text: &str) -> Self {
        let folded = text.to_ascii_lowercase().into_bytes();
        let commonness = |byte: u8| memchr::memchr(byte, COMMONEST_LAST).map_or(0, |at| at + 1);
        let mut order: Vec<usize> = (0..folded.len()).collect();
        order.sort_by_key(|&at| commonness(folded[at]));
        let rare = rarest(&folded, &order).map(|at| {
            let byte = folded[at];
            let fold = if byte.is_ascii_lowercase() { 0x20 } else { 0 };
            Rare { at, byte, fold }
        });
        order.retain(|&at| !folded[at].is_ascii_lowercase());
        let wide = (order.len() > 1)
            .then(|| wide(&folded, rarest(&folded, &order)))
            .flatten();
        Self { folded, rare, wide }
    }

    /// Its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a needle is never empty")]
    pub fn len(&self) -> usize {
        self.folded.len()
    }

    /// True where `haystack` has it, ASCII case folded. It does not stop at a
    /// NUL, as `LIKE` does.
    #[must_use]
    pub fn is_in(&self, haystack: &[u8]) -> bool {
        self.find(haystack).is_some()
    }

    /// Where it stands first in `haystack`.
    #[must_use]
    pub fn find(&self, haystack: &[u8]) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = &self.wide {
            let mut at = 0;
            while haystack.len() - at >= wide.min_haystack_len() {
                at += wide.find_prefilter(&haystack[at..])?;
                if self.stands_at(haystack, at) {
                    return Some(at);
                }
                at += 1;
            }
            return Some(at + self.find_in_blocks(&haystack[at..])?);
        }
        self.find_in_blocks(haystack)
    }

    fn find_in_blocks(&self, haystack: &[u8]) -> Option<usize> {
        let starts = (haystack.len() + 1).checked_sub(self.folded.len())?;
        let [a, b] = self.rare.map(|rare| &haystack[rare.at..][..starts]);
        let [first, second] = self.rare;
        let both = |(a, b): (&u8, &u8)| first.is(*a) & second.is(*b);
        let mut at = 0;
        while at < starts {
            let end = starts.min(at + BLOCK);
            let (a, b) = (&a[at..end], &b[at..end]);
            let may_start = match (<&[u8; BLOCK]>::try_from(a), <&[u8; BLOCK]>::try_from(b)) {
                // Without a branch for each byte: these become vector instructions.
                (Ok(a), Ok(b)) => a.iter().zip(b).fold(false, |any, pair| any | both(pair)),
                _ => true,
            };
            if may_start {
                let mut pairs = a.iter().zip(b).enumerate();
                let found = pairs
                    .find(|(offset, pair)| both(*pair) && self.stands_at(haystack, at + offset));
                if let Some((offset, _)) = found {
                    return Some(at + offset);
                }
            }
            at = end;
        }
        None
    }

    fn stands_at(&self, haystack: &[u8], start: usize) -> bool {
        haystack[start..]
            .get(..self.folded.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(&self.folded))
    }
}

/// The first two places, of different bytes where there are: twice the same says
/// less.
fn rarest(folded: &[u8], order: &[usize]) -> [usize; 2] {
    let other = order.iter().find(|&&at| folded[at] != folded[order[0]]);
    [order[0], *other.unwrap_or(&order[1])]
}

#[cfg(target_arch = "x86_64")]
fn wide(folded: &[u8], rare: [usize; 2]) -> Option<Wide> {
    let [first, second] = rare.map(u8::try_from);
    let pair = Pair::with_indices(folded, first.ok()?, second.ok()?)?;
    Wide::with_pair(folded, pair)
}

#[cfg(not(target_arch = "x86_64"))]
fn wide(_: &[u8], _: [usize; 2]) -> Option<Wide> {
    None
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
