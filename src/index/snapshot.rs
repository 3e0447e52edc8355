//! The index on disk, so that after a restart the sessions of the last good
//! listing are there at once.
//!
//! A snapshot that is damaged, cut off, of another version or another program is
//! set aside and rebuilt by the next listing; it is never fatal.

use bincode::{Decode, Encode};

use super::{Index, SourceState};
use crate::codec::{self, Kind, Unreadable};
use crate::entry::Entry;
use crate::marker_text::MarkerText;
use crate::packed::Packed;
use crate::session::Millis;

const KIND: Kind = Kind {
    magic: *b"OCSINDEX",
    version: 4,
};

/// For what is saved beside the sessions, in bytes.
const MARGIN: usize = 1 << 20;

#[derive(Encode)]
struct Saved<'a> {
    marker: Option<&'a str>,
    sources: Vec<(&'a str, Vec<&'a Packed<Entry>>)>,
}

#[derive(Decode)]
struct Restored {
    marker: Option<String>,
    sources: Vec<(String, Vec<Packed<Entry>>)>,
}

/// The snapshot of the index, whose listings look for `marker`. A source that has more
/// than fits is left out, so that it costs no other its part: the largest first.
///
/// # Errors
///
/// Where it would be larger than a file of ours may be.
pub fn encode(index: &Index, marker: Option<&MarkerText>) -> std::io::Result<Vec<u8>> {
    let mut parts: Vec<(usize, &SourceState)> = index
        .sources()
        .map(|known| (known.entries().map(Packed::size).sum(), known))
        .collect();
    parts.sort_by_key(|(size, _)| *size);
    let mut room = codec::MAX_BODY - MARGIN;
    let sources = parts.into_iter().map_while(|(size, known)| {
        room = room.checked_sub(size)?;
        Some((known.identity(), known.entries().collect()))
    });
    let sources = sources.collect();
    codec::encode(
        KIND,
        &Saved {
            marker: marker.map(MarkerText::as_str),
            sources,
        },
    )
}

/// Puts what a snapshot holds of the index's sources into the index, at `now`.
///
/// # Errors
///
/// Where it is no snapshot of this version; the index is then as it was.
pub fn restore(
    index: &mut Index,
    bytes: &[u8],
    marker: Option<&MarkerText>,
    now: Millis,
) -> Result<(), Unreadable> {
    let restored: Restored = codec::decode(KIND, bytes)?;
    // What is known of one marker says nothing about another.
    let same_marker = restored.marker.as_deref() == marker.map(MarkerText::as_str);
    for (identity, mut entries) in restored.sources {
        if !same_marker {
            for entry in &mut entries {
                let mut unpacked = entry.unpack();
                unpacked.session.marked = None;
                *entry = Packed::new(&unpacked);
            }
        }
        index.restore(&identity, entries, now);
    }
    Ok(())
}
