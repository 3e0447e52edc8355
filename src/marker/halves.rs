//! The halves of the marker. Wherever the end of a page cuts a marker, one half
//! lies whole on one side: a marker is shorter than the part of a row on any
//! page. So a page without either half has no part of a marker that can be
//! missed.

use std::io::{self, Read};

use super::Needle;
use crate::marker_text::MarkerText;

/// Both halves of a marker, ready to be searched for.
#[derive(Debug, Clone)]
pub(super) struct Halves([Needle; 2]);

impl Halves {
    pub(super) fn of(marker: &MarkerText) -> Self {
        let (first, second) = marker.as_str().split_at(marker.as_str().len() / 2);
        Self([Needle::of(first), Needle::of(second)])
    }

    /// True where either is in these bytes.
    pub(super) fn are_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|half| half.is_in(bytes))
    }

    /// Calls `found` with the index of each page in `pages` that has one whole.
    pub(super) fn pages_with(&self, page_size: usize, pages: &[u8], mut found: impl FnMut(usize)) {
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

    fn longest(&self) -> usize {
        self.0.iter().map(Needle::len).max().unwrap_or(0)
    }
}

/// Bytes read at a time.
const PIECE: usize = 64 << 10;

/// Looks for a half in bytes that come in pieces.
pub(super) struct Stream<'a> {
    halves: &'a Halves,
    /// The end of what came, which may be the start of a half.
    carried: Vec<u8>,
    found: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(halves: &'a Halves) -> Self {
        Self {
            halves,
            carried: Vec::new(),
            found: false,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.found || bytes.is_empty() {
            return;
        }
        let keep = self.halves.longest() - 1;
        // What lies across the border, then what lies behind it.
        self.carried
            .extend_from_slice(&bytes[..bytes.len().min(keep)]);
        self.found = self.halves.are_in(&self.carried) || self.halves.are_in(bytes);
        if bytes.len() >= keep {
            self.carried.clear();
            self.carried.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            let excess = self.carried.len().saturating_sub(keep);
            self.carried.drain(..excess);
        }
    }

    pub(super) fn read(&mut self, mut from: impl Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        while !self.found {
            match from.read(&mut piece)? {
                0 => break,
                count => self.push(&piece[..count]),
            }
        }
        Ok(())
    }

    /// Whatever comes, a half counts as found.
    pub(super) fn assume_found(&mut self) {
        self.found = true;
    }

    pub(super) fn has_found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_every_size_have_what_the_whole_has() {
        let marker = MarkerText::default();
        let halves = Halves::of(&marker);
        let (first, second) = marker.as_str().split_at(marker.as_str().len() / 2);
        let near = marker.as_str().replace('m', "n").replace('=', "-");
        for half in [first, second] {
            let text = format!("{near}{}{near}", half.to_uppercase());
            for piece in 1..=text.len() {
                let found = |text: &str| {
                    let mut stream = Stream::new(&halves);
                    text.as_bytes()
                        .chunks(piece)
                        .for_each(|piece| stream.push(piece));
                    stream.has_found()
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
    fn a_half_counts_for_the_page_that_has_it_whole() {
        let marker = MarkerText::default();
        let halves = Halves::of(&marker);
        let pages_with = |at: usize| {
            let mut pages = vec![b'x'; 4 * 64];
            pages[at..at + marker.as_str().len()].copy_from_slice(marker.as_str().as_bytes());
            let mut with = Vec::new();
            halves.pages_with(64, &pages, |page| with.push(page));
            with.sort_unstable();
            with.dedup();
            with
        };
        for at in 0..4 * 64 - 41 {
            // The halves are of 20 and 21 bytes.
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
