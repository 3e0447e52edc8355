//! Encodes values as bytes. Only this file encodes and decodes with bincode; others derive its
//! traits. It does no I/O; [`mod@crate::files`] writes the bytes to disk.
//!
//! A file on disk ([`encode`], [`decode`]) begins with a header:
//!
//! | bytes | content |
//! | --- | --- |
//! | 8 | magic: the kind of file |
//! | 4 | format version, little endian |
//! | 8 | length of the body, little endian |
//! | 4 | CRC-32 of the body, little endian |
//! | … | the body, in bincode's standard encoding |
//!
//! Decoding checks the header first, allocates at most [`MAX_BODY_BYTES`] for a body, and
//! returns a [`DecodeError`] for every other input: it never panics and never returns a
//! wrong value. The caller sets an undecodable file aside and creates it again. bincode is
//! no longer maintained (RUSTSEC-2025-0141), so it reads only bytes that passed the checksum.

use std::io::{self, BufWriter, Cursor, Seek, SeekFrom, Write};

use bincode::config;
use bincode::enc::EncoderImpl;
use bincode::enc::write::SizeWriter;
use bincode::error::EncodeError;

/// The maximum length of a body in bytes: 256 MiB, the rows of 200,000 sessions with long texts.
pub const MAX_BODY_BYTES: usize = 256 << 20;

/// The length of the header in bytes.
pub const HEADER_BYTES: usize = 24;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFormat {
    /// The first bytes of the file.
    pub magic: [u8; 8],
    /// The version of the format. Any change of the encoded types needs a new version.
    pub version: u32,
}

/// Why bytes cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes begin with another magic.
    #[error("unknown file type")]
    Foreign,
    /// The format has another version.
    #[error("unsupported format {found}; this version reads format {known}")]
    Version {
        /// The version of the bytes.
        found: u32,
        /// The expected version.
        known: u32,
    },
    /// The length differs from that in the header.
    #[error("length mismatch: the file is truncated or has extra bytes")]
    Length,
    /// The checksum differs from that in the header.
    #[error("checksum mismatch: the file is damaged")]
    Checksum,
    /// The body is not a valid encoding.
    #[error("invalid content")]
    Body,
}

/// How much memory a body of at most this size may ask for: 64 MiB. A larger body may ask for
/// [`MAX_BODY_BYTES`].
const USUAL_BODY_BYTES: usize = 64 << 20;

const _: () = assert!(USUAL_BODY_BYTES < MAX_BODY_BYTES);

/// Returns the bytes of a file.
///
/// # Errors
///
/// Returns an error if the body would be larger than [`MAX_BODY_BYTES`].
pub fn encode(format: FileFormat, value: &impl bincode::Encode) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::with_capacity(HEADER_BYTES));
    write(format, value, &mut bytes)?;
    Ok(bytes.into_inner())
}

/// Writes a file from the position of `out` on. The body is never in memory as a whole.
///
/// # Errors
///
/// Returns the errors of `out`, and an error if the body would be larger than [`MAX_BODY_BYTES`].
pub fn write(
    format: FileFormat,
    value: &impl bincode::Encode,
    out: &mut (impl Write + Seek),
) -> io::Result<()> {
    let start = out.stream_position()?;
    out.write_all(&[0; HEADER_BYTES])?;
    let mut body = Body {
        out: BufWriter::with_capacity(64 << 10, &mut *out),
        bytes: 0,
        checksum: crc32fast::Hasher::new(),
    };
    let encoded = bincode::encode_into_std_write(value, &mut body, config::standard());
    encoded.map_err(|error| match error {
        EncodeError::Io { inner, .. } => inner,
        error => io::Error::other(error),
    })?;
    body.out.flush()?;
    let bytes = body.bytes as u64;
    let checksum = body.checksum.clone().finalize();
    drop(body);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&format.magic);
    header.extend_from_slice(&format.version.to_le_bytes());
    header.extend_from_slice(&bytes.to_le_bytes());
    header.extend_from_slice(&checksum.to_le_bytes());
    out.seek(SeekFrom::Start(start))?;
    out.write_all(&header)?;
    out.seek(SeekFrom::End(0))?;
    Ok(())
}

/// A body on its way to a file: counted and summed.
struct Body<W: Write> {
    out: BufWriter<W>,
    bytes: usize,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for Body<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        if self.bytes > MAX_BODY_BYTES {
            return Err(io::Error::other(
                "the content exceeds the size limit of a file",
            ));
        }
        self.checksum.update(bytes);
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns how many bytes of a body this value takes.
#[must_use]
pub fn encoded_bytes(value: &impl bincode::Encode) -> usize {
    let mut size = EncoderImpl::new(SizeWriter::default(), config::standard());
    #[expect(clippy::expect_used, reason = "counting cannot fail")]
    value.encode(&mut size).expect("every value is encoded");
    size.into_writer().bytes_written
}

/// Returns the value in the bytes of a file.
///
/// # Errors
///
/// Returns an error if the bytes are not exactly an output of [`encode`] for this format.
pub fn decode<'a, T: bincode::BorrowDecode<'a, ()>>(
    format: FileFormat,
    bytes: &'a [u8],
) -> Result<T, DecodeError> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Foreign)?;
    if *magic != format.magic {
        return Err(DecodeError::Foreign);
    }
    let (version, rest) = rest.split_first_chunk().ok_or(DecodeError::Length)?;
    let found = u32::from_le_bytes(*version);
    if found != format.version {
        return Err(DecodeError::Version {
            found,
            known: format.version,
        });
    }
    let (length, rest) = rest.split_first_chunk().ok_or(DecodeError::Length)?;
    let (checksum, body) = rest.split_first_chunk().ok_or(DecodeError::Length)?;
    if u64::from_le_bytes(*length) != body.len() as u64 || body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::Length);
    }
    if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
        return Err(DecodeError::Checksum);
    }
    let decoded = if body.len() <= USUAL_BODY_BYTES {
        let bounded = config::standard().with_limit::<USUAL_BODY_BYTES>();
        bincode::borrow_decode_from_slice(body, bounded)
    } else {
        let bounded = config::standard().with_limit::<MAX_BODY_BYTES>();
        bincode::borrow_decode_from_slice(body, bounded)
    };
    match decoded {
        Ok((value, used)) if used == body.len() => Ok(value),
        _ => Err(DecodeError::Body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: FileFormat = FileFormat {
        magic: *b"TESTFILE",
        version: 3,
    };

    fn value() -> Vec<(String, Option<i64>)> {
        (0..50)
            .map(|n| (format!("session {n}"), (n % 3 > 0).then_some(n)))
            .collect()
    }

    #[test]
    fn encoded_value_is_decoded() {
        let bytes = encode(FORMAT, &value()).unwrap();
        assert_eq!(decode(FORMAT, &bytes), Ok(value()));
    }

    #[test]
    fn damaged_or_truncated_bytes_are_rejected() {
        let bytes = encode(FORMAT, &value()).unwrap();
        let read = |bytes: &[u8]| decode::<Vec<(String, Option<i64>)>>(FORMAT, bytes);
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(read(&damaged).is_err(), "byte {at}, bit {bit}");
            }
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(read(&longer), Err(DecodeError::Length));
    }

    #[test]
    fn other_file_types_and_versions_are_distinguished() {
        let other = FileFormat {
            version: 4,
            ..FORMAT
        };
        let bytes = encode(other, &1_u32).unwrap();
        assert_eq!(
            decode::<u32>(FORMAT, &bytes),
            Err(DecodeError::Version { found: 4, known: 3 })
        );
        assert_eq!(
            decode::<u32>(FORMAT, b"SQLite format 3\0"),
            Err(DecodeError::Foreign)
        );
        assert_eq!(decode::<u32>(FORMAT, b""), Err(DecodeError::Foreign));
    }

    #[test]
    fn body_with_a_huge_length_is_rejected() {
        // A vector of 2^62 elements, with a valid checksum.
        let body = encode(FORMAT, &(1_u64 << 62)).unwrap();
        assert_eq!(decode::<Vec<u64>>(FORMAT, &body), Err(DecodeError::Body));
    }
}
