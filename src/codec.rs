//! What this crate keeps on disk: bincode behind a header of its own, and the
//! only file that uses bincode's functions.
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
//!
//! Writing is atomic: a reader finds the old file or the new one, also after a
//! crash ([`save`]).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bincode::config;

/// The largest body, in bytes: 64 MiB.
pub const MAX_BODY: usize = 64 << 20;

const HEADER: usize = 24;

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

/// The bytes of a file.
///
/// # Errors
///
/// Where the body would be larger than [`MAX_BODY`].
pub fn encode(kind: Kind, value: &impl bincode::Encode) -> io::Result<Vec<u8>> {
    let body = bincode::encode_to_vec(value, bounded()).map_err(io::Error::other)?;
    if body.len() > MAX_BODY {
        return Err(io::Error::other(
            "there is more to save than a file may hold",
        ));
    }
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&kind.version.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The value in the bytes of a file.
///
/// # Errors
///
/// Where they are not exactly what [`encode`] made of the same kind.
pub fn decode<T: bincode::Decode<()>>(kind: Kind, bytes: &[u8]) -> Result<T, Unreadable> {
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
    match bincode::decode_from_slice(body, bounded()) {
        Ok((value, used)) if used == body.len() => Ok(value),
        _ => Err(Unreadable::Body),
    }
}

/// The bytes of the file at `path`; `None` where there is none. A file larger
/// than any of ours is cut there, and will not decode.
///
/// # Errors
///
/// Where it cannot be read.
pub fn load(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take((HEADER + MAX_BODY) as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts `bytes` in the place of the file at `path`, readable by its owner only:
/// written beside it, synced, renamed, and the directory synced.
///
/// # Errors
///
/// Where any of that fails; the old file is then still there.
pub fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::other("the path has no directory"))?;
    // Made with mode 0600, and removed when it is dropped before the rename.
    let mut file = tempfile::Builder::new()
        .prefix(LEFTOVER)
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// How the names of unfinished files begin.
const LEFTOVER: &str = ".unfinished-";

/// Removes the unfinished files that a killed process left in `directory`, which
/// must be this process's alone.
pub fn remove_leftovers(directory: &Path) {
    for entry in fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        if entry.file_name().to_string_lossy().starts_with(LEFTOVER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Moves the file at `path` out of the way, to where a person can look at it. An
/// earlier one there is replaced.
///
/// # Errors
///
/// Where it cannot be moved.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".set-aside");
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
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

    #[test]
    fn a_saved_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        assert_eq!(load(&path).unwrap(), None);
        save(&path, b"one").unwrap();
        save(&path, b"two").unwrap();
        assert_eq!(load(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(place.path().join(".unfinished-x"), "").unwrap();
        remove_leftovers(place.path());
        let aside = set_aside(&path).unwrap();
        let left: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(left, [aside]);
    }
}
