//! Finds a text in bytes as `LIKE '%text%'` does, with ASCII case folded, at the speed of
//! memory.
//!
//! Comparing at every position would take twenty times as long. So the search looks for
//! the two rarest bytes of the text at their distance from each other, in blocks that the
//! compiler turns into vector instructions. The rest of the text is compared only where
//! both bytes are found.

#[cfg(target_arch = "x86_64")]
use memchr::arch::all::packedpair::Pair;

use crate::marker_text::MarkerText;

/// A text that is prepared for searching.
#[derive(Debug, Clone)]
pub struct Needle {
    folded: Vec<u8>,
    rare: [RareByte; 2],
    simd_finder: Option<SimdFinder>,
}

/// Finds two bytes that are not letters, with instructions that not all processors have.
#[cfg(target_arch = "x86_64")]
type SimdFinder = memchr::arch::x86_64::avx2::packedpair::Finder;
/// Uninhabited: on other processors the search in blocks needs no runtime detection.
#[cfg(not(target_arch = "x86_64"))]
type SimdFinder = std::convert::Infallible;

/// A byte of the text. For a letter, `fold` is the bit that distinguishes its cases;
/// otherwise it is 0.
#[derive(Debug, Clone, Copy)]
struct RareByte {
    at: usize,
    byte: u8,
    fold: u8,
}

impl RareByte {
    #[inline]
    fn matches(self, byte: u8) -> bool {
        byte | self.fold == self.byte
    }
}

/// Bytes by their frequency in JSON text, rarest first. Bytes that are not listed are
/// rarer still, except JSON's own syntax.
const BYTES_BY_FREQUENCY: &[u8] = b"zqjxkvbwgyfphmucldrsnioate0123456789_/.-:,{}\" ";

/// The number of positions that are compared together.
const BLOCK_LEN: usize = 64;

impl Needle {
    /// Creates the needle of `marker`.
    #[must_use]
    pub fn new(marker: &MarkerText) -> Self {
        Self::from_text(marker.as_str())
    }

    /// Creates the needle of a text of at least two bytes, all of them ASCII.
    pub(super) fn from_text(text: &str) -> Self {
        let folded = text.to_ascii_lowercase().into_bytes();
        let frequency = |byte: u8| memchr::memchr(byte, BYTES_BY_FREQUENCY).map_or(0, |at| at + 1);
        let mut order: Vec<usize> = (0..folded.len()).collect();
        order.sort_by_key(|&at| frequency(folded[at]));
        let rare = choose_pair(&folded, &order).map(|at| {
            let byte = folded[at];
            let fold = if byte.is_ascii_lowercase() { 0x20 } else { 0 };
            RareByte { at, byte, fold }
        });
        order.retain(|&at| !folded[at].is_ascii_lowercase());
        let simd_finder = (order.len() > 1)
            .then(|| simd_finder(&folded, choose_pair(&folded, &order)))
            .flatten();
        Self {
            folded,
            rare,
            simd_finder,
        }
    }

    /// Returns the length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a needle is never empty")]
    pub fn len(&self) -> usize {
        self.folded.len()
    }

    /// Returns true if `haystack` contains the text, with ASCII case folded. Unlike
    /// `LIKE`, the search does not stop at a NUL.
    #[must_use]
    pub fn is_in(&self, haystack: &[u8]) -> bool {
        self.find(haystack).is_some()
    }

    /// Returns the offset of the first match in `haystack`.
    #[must_use]
    pub fn find(&self, haystack: &[u8]) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd_finder) = &self.simd_finder {
            let mut at = 0;
            while haystack.len() - at >= simd_finder.min_haystack_len() {
                at += simd_finder.find_prefilter(&haystack[at..])?;
                if self.matches_at(haystack, at) {
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
        let both = |(a, b): (&u8, &u8)| first.matches(*a) & second.matches(*b);
        let mut at = 0;
        while at < starts {
            let end = starts.min(at + BLOCK_LEN);
            let (a, b) = (&a[at..end], &b[at..end]);
            let may_start = match (
                <&[u8; BLOCK_LEN]>::try_from(a),
                <&[u8; BLOCK_LEN]>::try_from(b),
            ) {
                // No branch per byte, so that the compiler generates vector instructions.
                (Ok(a), Ok(b)) => a.iter().zip(b).fold(false, |any, pair| any | both(pair)),
                _ => true,
            };
            if may_start {
                let mut pairs = a.iter().zip(b).enumerate();
                let found = pairs
                    .find(|(offset, pair)| both(*pair) && self.matches_at(haystack, at + offset));
                if let Some((offset, _)) = found {
                    return Some(at + offset);
                }
            }
            at = end;
        }
        None
    }

    fn matches_at(&self, haystack: &[u8], start: usize) -> bool {
        haystack[start..]
            .get(..self.folded.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(&self.folded))
    }
}

/// Returns the first two offsets in `order`, of different bytes if possible, since the
/// same byte twice is less selective.
fn choose_pair(folded: &[u8], order: &[usize]) -> [usize; 2] {
    let other = order.iter().find(|&&at| folded[at] != folded[order[0]]);
    [order[0], *other.unwrap_or(&order[1])]
}

#[cfg(target_arch = "x86_64")]
fn simd_finder(folded: &[u8], rare: [usize; 2]) -> Option<SimdFinder> {
    let [first, second] = rare.map(u8::try_from);
    let pair = Pair::with_indices(folded, first.ok()?, second.ok()?)?;
    SimdFinder::with_pair(folded, pair)
}

#[cfg(not(target_arch = "x86_64"))]
fn simd_finder(_: &[u8], _: [usize; 2]) -> Option<SimdFinder> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needle(text: &str) -> Needle {
        Needle::new(&MarkerText::new(text).unwrap())
    }

    #[test]
    fn needle_is_found_at_any_place_and_in_any_case() {
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
    fn search_folds_only_ascii_letters() {
        assert!(!needle("kkkkkkkkkkkkkkkk").is_in("\u{212a}".repeat(16).as_bytes()));
        // '[' and '{' differ in the bit that distinguishes the cases of a letter.
        assert!(!needle("[[[[[[[[[[[[[[[[").is_in(b"{{{{{{{{{{{{{{{{"));
    }

    #[test]
    fn search_continues_past_nul_and_invalid_utf8() {
        let mut haystack = b"\xff\x00\xc3".to_vec();
        haystack.extend_from_slice(MarkerText::DEFAULT.as_bytes());
        assert!(needle(MarkerText::DEFAULT).is_in(&haystack));
    }
}
