//! The lines of sessions, kept until they can be sent in order.

/// Lines, one after the other in one buffer.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) text: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    /// The offset of the end in the text.
    end: u32,
    /// How many texts were truncated.
    truncated: u32,
}

impl Lines {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
    }

    /// Ends the line that was appended to the text. Returns its index.
    pub(super) fn end(&mut self, truncated: u64) -> u32 {
        let index = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
        self.lines.push(Line {
            // The size is limited to some MiB.
            end: u32::try_from(self.text.len()).unwrap_or(u32::MAX),
            truncated: u32::try_from(truncated).unwrap_or(u32::MAX),
        });
        index
    }

    /// Returns the line with this index, and how many texts were truncated.
    pub(super) fn get(&self, index: u32) -> Option<(&[u8], u64)> {
        let index = index as usize;
        let line = self.lines.get(index)?;
        let before = index
            .checked_sub(1)
            .and_then(|before| self.lines.get(before));
        let start = before.map_or(0, |line| line.end);
        let text = self.text.get(start as usize..line.end as usize)?;
        Some((text, line.truncated.into()))
    }
}
