//! Whatever is in the place of a snapshot, nothing but a valid one is taken.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opencode_sessions::entry::Entry;
use opencode_sessions::internals::codec::DecodeError;
use opencode_sessions::internals::index::{Index, Moment, SourceListing, View, snapshot};
use opencode_sessions::internals::wire::DatabaseState;
use opencode_sessions::session::Millis;
use serde_json::json;

use crate::support::{self, index_of};

fn entry(n: usize) -> Entry {
    serde_json::from_value(json!({
        "id": format!("ses_{n}"), "title": "T\u{e9}", "directory": "/usr", "store": "v1",
        "timeUpdated": n, "marked": n > 2, "model": {"id": "m", "providerId": "p"},
        "cost": 0.5, "tokens": {"input": 1, "output": 2, "reasoning": 3, "cacheRead": 4, "cacheWrite": 5},
    }))
    .unwrap()
}

/// An index with so many sessions, and its database.
fn known(sessions: usize) -> (Index, PathBuf) {
    let db = PathBuf::from("/nowhere/opencode.db");
    let mut index = index_of(&db);
    let found = SourceListing::new(DatabaseState::Ready, (0..sessions).map(entry));
    let now = Moment {
        wall: Millis(0),
        monotonic: Duration::ZERO,
    };
    index.merge(&"opencode.db".into(), found, now);
    (index, db)
}

/// Fewer than so many random bytes.
fn noise(random: &mut fastrand::Rng, most: usize) -> Vec<u8> {
    let length = random.usize(..most);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

/// All that there is to see of an index.
fn seen(index: &Index) -> (u64, String) {
    (index.revision(), format!("{index:?}"))
}

/// It is refused.
#[test]
fn snapshot_damaged_at_any_byte_changes_nothing() {
    let _limit = support::limit(60);
    let (index, _) = known(5);
    let bytes = snapshot::Snapshot::of(&index, None).to_bytes().unwrap();
    // It is put where there is something to lose.
    let (mut into, _) = known(2);
    let before = seen(&into);
    let mut assert_refused = |bytes: &[u8], what: &str| {
        let restored = snapshot::restore(&mut into, bytes, None, Millis::now());
        assert!(restored.is_err(), "{what}");
        assert_eq!(seen(&into), before, "{what}");
    };
    for at in 0..bytes.len() {
        assert_refused(&bytes[..at], &format!("cut at {at}"));
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            assert_refused(&damaged, &format!("byte {at} flipped by {flip}"));
        }
        let zeroed = [&bytes[..at], &vec![0; bytes.len() - at]].concat();
        if zeroed != bytes {
            assert_refused(&zeroed, &format!("zeros from {at}"));
        }
    }
    assert_refused(&[&bytes[..], b"\0"].concat(), "one byte more");
    assert_refused(&[&bytes[..], &bytes].concat(), "twice");
    let (mut empty, _) = (index_of(Path::new("/nowhere/opencode.db")), ());
    snapshot::restore(&mut empty, &bytes, None, Millis::now()).unwrap();
    assert_eq!(index.sessions(View::ALL), empty.sessions(View::ALL));
    assert_eq!(empty.sources().next().unwrap().health().name(), "stale");
}

/// The header of a valid file with this body.
fn with_header(of: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u64).to_le_bytes();
    let checksum = crc32fast::hash(body).to_le_bytes();
    [&of[..12], &length, &checksum, body].concat()
}

/// The most memory that this process has had, resident and reserved.
fn memory() -> Option<[u64; 2]> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some([of("VmHWM:")?, of("VmPeak:")?])
}

/// A checksum holds off what happens by chance, not what a bug or a person
/// writes: the decoder itself takes anything.
#[test]
fn decoder_survives_any_bytes_in_bounded_memory() {
    let _limit = support::limit(120);
    let seed = 41;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (index, _) = known(8);
    let valid = snapshot::Snapshot::of(&index, None).to_bytes().unwrap();
    let body = &valid[24..];
    let before = memory();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = match round % 4 {
            0 => noise(&mut random, 400),
            _ => body.to_vec(),
        };
        if round % 4 > 0 {
            for _ in 0..random.usize(1..8) {
                mutate(&mut bytes, &mut random);
            }
        }
        let file = with_header(&valid, &bytes);
        let mut into = index_of(Path::new("/nowhere/opencode.db"));
        match snapshot::restore(&mut into, &file, None, Millis::now()) {
            Ok(()) => taken += 1,
            Err(why) => {
                assert_eq!(why, DecodeError::Body);
                assert_eq!(seen(&into).0, 0);
                refused += 1;
            }
        }
    }
    println!("{taken} were still a snapshot, {refused} were not");
    assert!(taken > 100 && refused > 10_000, "{taken}, {refused}");
    if let (Some([hwm, peak]), Some([hwm_then, peak_then])) = (memory(), before) {
        // A body may ask for 64 MiB; other tests' threads need some too.
        assert!(
            hwm - hwm_then < 200 << 10,
            "{} KiB resident",
            hwm - hwm_then
        );
        assert!(
            peak - peak_then < 1 << 20,
            "{} KiB reserved",
            peak - peak_then
        );
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    if bytes.is_empty() {
        bytes.push(random.u8(..));
        return;
    }
    let at = random.usize(..bytes.len());
    match random.u8(..6) {
        0 => bytes[at] = random.u8(..),
        1 => bytes[at] ^= 1 << random.u8(..8),
        // bincode's marks for numbers of 2, 4, 8 and 16 bytes.
        2 => bytes[at] = random.u8(251..=255),
        3 => {
            bytes.truncate(at);
        }
        4 => bytes.insert(at, random.u8(..)),
        _ => {
            let huge = random.u64(..).to_le_bytes();
            bytes[at] = 253;
            for (offset, byte) in huge.into_iter().enumerate() {
                if let Some(place) = bytes.get_mut(at + 1 + offset) {
                    *place = byte;
                }
            }
        }
    }
}

#[test]
fn random_bytes_are_not_a_snapshot() {
    let _limit = support::limit(60);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..20_000 {
        let bytes = noise(&mut random, if round % 100 == 0 { 1 << 16 } else { 64 });
        let mut into = index_of(Path::new("/nowhere/opencode.db"));
        assert!(snapshot::restore(&mut into, &bytes, None, Millis::now()).is_err());
        assert_eq!(seen(&into).0, 0);
    }
}
