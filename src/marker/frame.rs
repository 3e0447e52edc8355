//! The bytes of write-ahead log frames (<https://sqlite.org/fileformat2.html>, sections
//! 4.1 and 4.2).

/// The size of the log header in bytes.
pub(super) const LOG_HEADER_BYTES: usize = 32;

/// The size of a frame header in bytes.
pub(super) const FRAME_HEADER_BYTES: usize = 24;

/// Returns true if both frames hold the same image of the same page.
pub(super) fn is_same_page(one: &[u8], other: &[u8]) -> bool {
    one[..4] == other[..4] && one[FRAME_HEADER_BYTES..] == other[FRAME_HEADER_BYTES..]
}

/// Returns true for the salts of an earlier generation, whose frames remain after those
/// of this generation. Other salts are of this generation, or of a hole in the checksum
/// chain.
pub(super) fn is_older_generation(salts: [u32; 2], than: [u32; 2]) -> bool {
    let generations_behind = than[0].wrapping_sub(salts[0]);
    salts != [0, 0] && (1..1 << 31).contains(&generations_behind)
}

/// Reads a big-endian 32-bit number.
pub(super) fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes([
        bytes[offset],
        bytes[offset + 1],
        bytes[offset + 2],
        bytes[offset + 3],
    ])
}
