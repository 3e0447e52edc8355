//! The frames of a write-ahead log as bytes
//! (<https://sqlite.org/fileformat2.html>, sections 4.1 and 4.2).

/// The log's header, in bytes.
pub(super) const HEADER: usize = 32;

/// A frame's header, in bytes.
pub(super) const FRAME: usize = 24;

/// True for two frames with the same image of the same page.
pub(super) fn same_page(one: &[u8], other: &[u8]) -> bool {
    one[..4] == other[..4] && one[FRAME..] == other[FRAME..]
}

/// True for the salts of a generation before this one: what was left of it is where
/// this one has no frames. Others are this one's own, or those of a hole.
pub(super) fn is_older(salts: [u32; 2], than: [u32; 2]) -> bool {
    let behind = than[0].wrapping_sub(salts[0]);
    salts != [0, 0] && (1..1 << 31).contains(&behind)
}

/// A big-endian word.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
