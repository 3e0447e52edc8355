//! The two halves of the marker. Wherever a page boundary splits a marker, one half lies
//! completely on one side, since a marker is shorter than the part of a row on any page.
//! So a page that contains neither half contains no part of a marker that the scan needs.

use std::io::{self, Read};

use super::Needle;
use crate::marker_text::MarkerText;

/// Both halves of a marker, prepared for searching.
#[derive(Debug, Clone)]
pub(super) struct Halves([Needle; 2]);

impl Halves {
    pub(super) fn new(marker: &MarkerText) -> Self {
        let (first, second) = marker.as_str().split_at(marker.as_str().len() / 2);
        Self([Needle::from_text(first), Needle::from_text(second)])
    }

    /// Returns true if the bytes contain either half.
    pub(super) fn is_any_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|half| half.is_in(bytes))
    }

    /// Calls `found` with the index of each page in `pages` that contains a complete
    /// half.
    pub(super) fn find_pages(&self, page_size: usize, pages: &[u8], mut found: impl FnMut(usize)) {
        for half in &self.0 {
            let mut from = 0;
            while let Some(at) = half.find(&pages[from..]).map(|at| from + at) {
                let page = at / page_size;
                let is_whole = (at + half.len() - 1) / page_size == page;
                if is_whole {
                    found(page);
                }
                from = if is_whole {
                    (page + 1) * page_size
                } else {
                    at + 1
                };
                if from > pages.len() {
                    break;
                }
            }
        }
    }

    fn max_len_bytes(&self) -> usize {
        self.0.iter().map(Needle::len).max().unwrap_or(0)
    }
}

/// How many bytes are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Searches for a half in bytes that arrive in pieces.
pub(super) struct HalfStream<'a> {
    halves: &'a Halves,
    /// The end of the previous bytes, which may be the start of a half.
    tail: Vec<u8>,
    has_match: bool,
}

impl<'a> HalfStream<'a> {
    pub(super) fn new(halves: &'a Halves) -> Self {
        Self {
            halves,
            tail: Vec::new(),
            has_match: false,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.has_match || bytes.is_empty() {
            return;
        }
        let keep = self.halves.max_len_bytes() - 1;
        // First search across the boundary, then in the new bytes.
        self.tail.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        self.has_match = self.halves.is_any_in(&self.tail) || self.halves.is_any_in(bytes);
        if bytes.len() >= keep {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            let excess = self.tail.len().saturating_sub(keep);
            self.tail.drain(..excess);
        }
    }

    pub(super) fn read(&mut self, mut from: impl Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        while !self.has_match {
            match from.read(&mut piece)? {
                0 => break,
                count => self.push(&piece[..count]),
            }
        }
        Ok(())
    }

    /// Counts as a match from now on, whatever follows.
    pub(super) fn assume_match(&mut self) {
        self.has_match = true;
    }

    pub(super) fn has_match(&self) -> bool {
        self.has_match
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_result_does_not_depend_on_piece_size() {
        let marker = MarkerText::default();
        let halves = Halves::new(&marker);
        let (first, second) = marker.as_str().split_at(marker.as_str().len() / 2);
        let near = marker.as_str().replace('m', "n").replace('=', "-");
        for half in [first, second] {
            let text = format!("{near}{}{near}", half.to_uppercase());
            for piece in 1..=text.len() {
                let found = |text: &str| {
                    let mut stream = HalfStream::new(&halves);
                    text.as_bytes()
                        .chunks(piece)
                        .for_each(|piece| stream.push(piece));
                    stream.has_match()
                };
                assert!(found(&text), "{half} in pieces of {piece}");
                assert!(
                    !found(&text.replace("-S", "_S").replace("3-", "3_")),
                    "pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn half_counts_only_for_the_page_that_contains_it() {
        let marker = MarkerText::default();
        let halves = Halves::new(&marker);
        let pages_with = |at: usize| {
            let mut pages = vec![b'x'; 4 * 64];
            pages[at..at + marker.as_str().len()].copy_from_slice(marker.as_str().as_bytes());
            let mut with = Vec::new();
            halves.find_pages(64, &pages, |page| with.push(page));
            with.sort_unstable();
            with.dedup();
            with
        };
        for at in 0..4 * 64 - 41 {
            // The halves have 20 and 21 bytes.
            let mut expected = Vec::new();
            for (start, len) in [(at, 20), (at + 20, 21)] {
                if start / 64 == (start + len - 1) / 64 {
                    expected.push(start / 64);
                }
            }
            expected.dedup();
            assert!(!expected.is_empty());
            assert_eq!(pages_with(at), expected, "at {at}");
        }
    }
}
