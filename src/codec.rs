//! Values as bytes: the only file in which bincode encodes and decodes. Pure; what puts
//! the bytes on disk is [`mod@crate::files`].
//!
//! What goes to disk ([`encode`], [`decode`]) has a header of our own in front:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic: which kind of file |
//! | 4 | format version, little endian |
//! | 8 | length of the body, little endian |
//! | 4 | CRC-32 of the body, little endian |
//! | … | the body, bincode's standard encoding |
//!
//! Reading promises: the header is checked before anything is decoded, a body
//! never makes memory larger than [`MAX_BODY`], and whatever is wrong is an
//! [`Unreadable`], never a panic and never a wrong value. Such a file is to be
//! set aside and made again. bincode is no longer maintained (RUSTSEC-2025-0141),
//! which is why it sees no byte that did not pass the checksum.

use std::io::{self, BufWriter, Cursor, Seek, SeekFrom, Write};

use bincode::config;
use bincode::enc::EncoderImpl;
use bincode::enc::write::SizeWriter;
use bincode::error::EncodeError;

/// The largest body, in bytes: 64 MiB.
pub const MAX_BODY: usize = 64 << 20;

/// The bytes before the body.
pub const HEADER: usize = 24;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// How it begins.
    pub magic: [u8; 8],
    /// The version of its format. Any change of the encoded types is another.
    pub version: u32,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is another kind of file.
    #[error("it is not one of this program's files")]
    Foreign,
    /// It is of another version.
    #[error("it has format {found}, this version reads format {known}")]
    Version {
        /// Its version.
        found: u32,
        /// The version that can be read.
        known: u32,
    },
    /// It is shorter or longer than it says.
    #[error("its length is not what it says")]
    Length,
    /// Its checksum is wrong.
    #[error("it is damaged: its checksum is wrong")]
    Checksum,
    /// Its body cannot be decoded.
    #[error("it cannot be decoded")]
    Body,
}

fn bounded() -> impl config::Config {
    config::standard().with_limit::<MAX_BODY>()
}

/// Returns the bytes of a file.
///
/// # Errors
///
/// Returns an error if the body would be larger than [`MAX_BODY`].
pub fn encode(kind: Kind, value: &impl bincode::Encode) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::with_capacity(HEADER));
    write(kind, value, &mut bytes)?;
    Ok(bytes.into_inner())
}

/// Writes a file from the position of `out` on. The body is never in memory as a whole.
///
/// # Errors
///
/// Returns the errors of `out`, and an error if the body would be larger than [`MAX_BODY`].
pub fn write(
    kind: Kind,
    value: &impl bincode::Encode,
    out: &mut (impl Write + Seek),
) -> io::Result<()> {
    let start = out.stream_position()?;
    out.write_all(&[0; HEADER])?;
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
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&kind.magic);
    header.extend_from_slice(&kind.version.to_le_bytes());
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
        if self.bytes > MAX_BODY {
            return Err(io::Error::other(
                "there is more to save than a file may hold",
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

/// The value in the bytes of a file.
///
/// # Errors
///
/// Where they are not exactly what [`encode`] made of the same kind.
pub fn decode<'a, T: bincode::BorrowDecode<'a, ()>>(
    kind: Kind,
    bytes: &'a [u8],
) -> Result<T, Unreadable> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(Unreadable::Foreign)?;
    if *magic != kind.magic {
        return Err(Unreadable::Foreign);
    }
    let (version, rest) = rest.split_first_chunk().ok_or(Unreadable::Length)?;
    let found = u32::from_le_bytes(*version);
    if found != kind.version {
        return Err(Unreadable::Version {
            found,
            known: kind.version,
        });
    }
    let (length, rest) = rest.split_first_chunk().ok_or(Unreadable::Length)?;
    let (checksum, body) = rest.split_first_chunk().ok_or(Unreadable::Length)?;
    if u64::from_le_bytes(*length) != body.len() as u64 || body.len() > MAX_BODY {
        return Err(Unreadable::Length);
    }
    if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
        return Err(Unreadable::Checksum);
    }
    match bincode::borrow_decode_from_slice(body, bounded()) {
        Ok((value, used)) if used == body.len() => Ok(value),
        _ => Err(Unreadable::Body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        magic: *b"TESTFILE",
        version: 3,
    };

    fn value() -> Vec<(String, Option<i64>)> {
        (0..50)
            .map(|n| (format!("session {n}"), (n % 3 > 0).then_some(n)))
            .collect()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let bytes = encode(KIND, &value()).unwrap();
        assert_eq!(decode(KIND, &bytes), Ok(value()));
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_noticed() {
        let bytes = encode(KIND, &value()).unwrap();
        let read = |bytes: &[u8]| decode::<Vec<(String, Option<i64>)>>(KIND, bytes);
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(read(&damaged).is_err(), "byte {at}, bit {bit}");
            }
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(read(&longer), Err(Unreadable::Length));
    }

    #[test]
    fn another_kind_and_another_version_are_told_apart() {
        let other = Kind { version: 4, ..KIND };
        let bytes = encode(other, &1_u32).unwrap();
        assert_eq!(
            decode::<u32>(KIND, &bytes),
            Err(Unreadable::Version { found: 4, known: 3 })
        );
        assert_eq!(
            decode::<u32>(KIND, b"SQLite format 3\0"),
            Err(Unreadable::Foreign)
        );
        assert_eq!(decode::<u32>(KIND, b""), Err(Unreadable::Foreign));
    }

    #[test]
    fn a_body_that_claims_to_be_huge_takes_no_memory() {
        // A vector of 2^62 elements, with a right checksum.
        let body = encode(KIND, &(1_u64 << 62)).unwrap();
        assert_eq!(decode::<Vec<u64>>(KIND, &body), Err(Unreadable::Body));
    }
}
