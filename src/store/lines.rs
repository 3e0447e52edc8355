//! The lines of sessions, kept until they can be sent in order.

/// How many bytes a block has, unless a line does not fit into it. One text that grows would
/// take up to twice the memory of its lines.
const BLOCK_BYTES: usize = 256 << 10;

/// How much of a block may stay empty.
const SPARE_BYTES: usize = 4 << 10;

/// Lines, in blocks of memory.
#[derive(Debug, Default)]
pub(super) struct Lines {
    blocks: Vec<Vec<u8>>,
    lines: Vec<Line>,
}

/// The location of a line.
#[derive(Debug)]
struct Line {
    block: u32,
    /// The offsets of the start and the end in the block.
    start: u32,
    end: u32,
    /// How many texts were truncated.
    truncated: u32,
}

impl Lines {
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.lines.clear();
    }

    /// Returns how much memory the lines take, without the last block.
    pub(super) fn size_bytes(&self) -> usize {
        BLOCK_BYTES * self.blocks.len().saturating_sub(1)
    }

    /// Returns the text to which a line can be appended. If it is, [`end`](Self::end) must follow.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        let is_full = |block: &Vec<u8>| block.len() + SPARE_BYTES > BLOCK_BYTES;
        if self.blocks.last().is_none_or(is_full) {
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES));
        }
        // There is one now.
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    /// Ends the line that was appended to the text. Returns its index.
    pub(super) fn end(&mut self, truncated: u64) -> u32 {
        // All are small: the number of lines and the size of a block are limited.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let index = small(self.lines.len());
        let block = small(self.blocks.len().saturating_sub(1));
        let before = self.lines.last().filter(|line| line.block == block);
        self.lines.push(Line {
            block,
            start: before.map_or(0, |line| line.end),
            end: small(self.blocks.last().map_or(0, Vec::len)),
            truncated: u32::try_from(truncated).unwrap_or(u32::MAX),
        });
        index
    }

    /// Returns the line with this index, and how many texts were truncated.
    pub(super) fn get(&self, index: u32) -> Option<(&[u8], u64)> {
        let line = self.lines.get(index as usize)?;
        let block = self.blocks.get(line.block as usize)?;
        let text = block.get(line.start as usize..line.end as usize)?;
        Some((text, line.truncated.into()))
    }
}
