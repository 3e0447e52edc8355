//! What a caller has of a listing, and the request for differences to it (protocol 2).
//!
//! A caller that has the sessions of an earlier listing sends what it has: for each session the
//! hash of its id and the hash of its line. The helper then sends only the lines that differ, the
//! ids that are gone, and an `end` that counts all sessions and has the hash of their set. The
//! state is the caller's alone, so nothing can become stale: a helper with an empty cache, or of
//! another version, sends more lines, never wrong ones.
//!
//! A set of more than [`limits::HAVE_DIRECT`](super::limits::HAVE_DIRECT) sessions is announced
//! by its hash alone. A helper that has kept that set from its last answer compares with it;
//! another one writes a `want` line, and the caller sends the set.
//!
//! | request | standard input after the request line |
//! | --- | --- |
//! | `follows: true` | the set: 32 bytes a session |
//! | `follows: false` | the set, once the helper has written `want` |

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits;
use crate::line_hash::{HASH_BYTES, HashKey, LineHash, SetHash};
use crate::row::Rows;

/// The size in bytes of one session in a set: the hash of its id, and the hash of its line.
pub const HAVE_BYTES: usize = 2 * HASH_BYTES;

/// The part of a request that says what the caller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Have {
    /// The key of all hashes.
    pub key: HashKey,
    /// The number of sessions in the set, at most [`limits::SESSIONS`].
    pub sessions: u64,
    /// The hash of the set.
    pub set: SetHash,
    /// Whether the set follows the request line at once.
    pub follows: bool,
}

impl Have {
    /// Returns the size of the set in bytes.
    ///
    /// # Errors
    ///
    /// Returns a message for people if the set has more sessions than a listing may have.
    pub fn size_bytes(&self) -> Result<usize, String> {
        let sessions = usize::try_from(self.sessions).unwrap_or(usize::MAX);
        if sessions > limits::SESSIONS {
            let limit = limits::SESSIONS;
            return Err(format!(
                "invalid request: its set has more than {limit} sessions"
            ));
        }
        Ok(sessions * HAVE_BYTES)
    }
}

/// What a caller has of one source: the rows of its last complete listing.
#[derive(Debug, Clone)]
pub struct Known {
    /// The rows.
    pub rows: Arc<Rows>,
    /// The key of the hashes of the rows.
    pub key: HashKey,
    /// The hash of the set of their lines; `None` if the line of a row is unknown, because it
    /// was restored from a file.
    pub set: Option<SetHash>,
    /// The generation of the rows: another one for other rows.
    pub generation: u64,
}

impl Known {
    /// Returns what a request for differences to these rows says; `None` if the line of a row is
    /// unknown.
    #[must_use]
    pub fn have(&self) -> Option<Have> {
        Some(Have {
            key: self.key,
            sessions: self.rows.len() as u64,
            set: self.set?,
            follows: self.rows.len() <= limits::HAVE_DIRECT,
        })
    }

    /// Returns the bytes of the set.
    #[must_use]
    pub fn set_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.rows.len() * HAVE_BYTES);
        for row in self.rows.values() {
            if let Some(line) = row.line_hash() {
                bytes.extend(self.key.hash(row.id().as_str().as_bytes()).to_bytes());
                bytes.extend(line.to_bytes());
            }
        }
        bytes
    }
}

/// The hashes of the lines that a caller has, by the hashes of their ids.
pub type HaveLines = HashMap<LineHash, LineHash>;

/// Decodes a set.
///
/// # Errors
///
/// Returns a message for people if the set does not have the number of sessions or the hash that
/// `have` says, or has a session twice.
pub fn decode_set(have: &Have, bytes: &[u8]) -> Result<HaveLines, String> {
    let (sessions, rest) = bytes.as_chunks::<HAVE_BYTES>();
    let hash = |half: &[u8]| {
        let mut bytes = [0; HASH_BYTES];
        bytes.copy_from_slice(half);
        LineHash::of(bytes)
    };
    let pair = |session: &[u8; HAVE_BYTES]| {
        let (id, line) = session.split_at(HASH_BYTES);
        (hash(id), hash(line))
    };
    let lines: HaveLines = sessions.iter().map(pair).collect();
    let set: SetHash = lines.values().copied().collect();
    let is_valid = rest.is_empty()
        && lines.len() == sessions.len()
        && lines.len() as u64 == have.sessions
        && set == have.set;
    match is_valid {
        true => Ok(lines),
        false => Err("invalid request: its set is not the one that it announces".to_owned()),
    }
}
