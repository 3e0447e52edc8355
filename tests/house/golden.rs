//! One sample of each format that outlives the program that wrote it: the index
//! snapshot, the scan cache, the wire, the events of a service.
//!
//! A format of this version is pinned: the encoding of a fixed value is its sample, byte
//! by byte, and the sample decodes to that value. A sample of an older format on disk is
//! refused as another version. So a change of an encoded type cannot be made without a
//! new format version: see `fixtures/golden/README.md`.

use std::fs;

use opencode_sessions::internals::codec::DecodeError;
use opencode_sessions::internals::wire::{
    DatabaseState, Degraded, End, OptionalPart, Scan, ScanMode, Skipped,
};
use opencode_sessions::session::{Millis, Model, Session, SessionId, Store, Summary, Tokens};

use crate::support::{WRITE, directory, sample, samples, version};

/// The sample of this name is exactly these bytes.
#[track_caller]
pub(crate) fn assert_is_sample(name: &str, encoded: &[u8]) {
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(directory()).unwrap();
        fs::write(directory().join(name), encoded).unwrap();
    }
    let sample = sample(name);
    let differs = sample.iter().zip(encoded).position(|(a, b)| a != b);
    assert!(
        sample == encoded,
        "{name}: the encoding differs from byte {} on. A format that was released needs a new \
         version: raise it, keep this sample, and write the new one with {WRITE}=1",
        differs.unwrap_or(sample.len().min(encoded.len()))
    );
}

/// A format on disk is pinned: `encoded` is the sample of its version. Each older sample
/// is one of the same kind of file and is refused by `decode` as another version.
#[track_caller]
pub(crate) fn assert_is_pinned(
    kind: &str,
    encoded: &[u8],
    mut decode: impl FnMut(&[u8]) -> Result<(), DecodeError>,
) {
    let known = version(encoded);
    assert_is_sample(&format!("{kind}-{known}.bin"), encoded);
    let samples = samples(kind);
    assert_eq!(
        samples.keys().copied().max(),
        Some(known),
        "the version of {kind} went back"
    );
    for (found, bytes) in &samples {
        assert_eq!(version(bytes), *found, "{kind}-{found}.bin");
        assert_eq!(bytes[..8], encoded[..8], "{kind}-{found}.bin");
        let expected = match *found == known {
            true => Ok(()),
            false => Err(DecodeError::Version {
                found: *found,
                known,
            }),
        };
        assert_eq!(decode(bytes), expected, "{kind}-{found}.bin");
    }
}

pub(crate) fn id(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

/// A session with every field.
pub(crate) fn full() -> Session {
    let text = |text: &str| Some(text.to_owned());
    {
        let mut value = Session::new(id("ses_full"), Store::V2);
        value.directory = text("/home/me/a \"b\"\t\u{1b}[0m");
        value.worktree = text("/home/me");
        value.project_id = text("43aa");
        value.parent_id = text("ses_parent");
        value.title = text("Naïve 日本 🚀");
        value.time_created = Some(Millis(1_795_338_894_119));
        value.time_updated = Some(Millis(-1));
        value.time_archived = Some(Millis(i64::MAX));
        value.last_message_at = Some(Millis(i64::MIN));
        value.marked = Some(true);
        value.agent = text("build");
        value.version = text("1.18.33");
        value.slug = text("kind-forest");
        value.share_url = text("https://opncd.ai/s/x");
        value.workspace_id = text("wrk_1");
        value.model = Some(Model {
            id: "claude".to_owned(),
            provider_id: "anthropic".to_owned(),
            variant: text("high"),
        });
        value.cost = Some(0.1 + 0.2);
        value.tokens = Some(Tokens {
            input: 1,
            output: 300,
            reasoning: 70_000,
            cache_read: 5_000_000_000,
            cache_write: -5,
        });
        value.summary = Some(Summary {
            additions: 6,
            deletions: 7,
            files: 8,
        });
        value.time_compacting = Some(Millis(11));
        value.time_suspended = Some(Millis(12));
        value.forked_from = text("ses_original");
        value.time_idle = Some(Millis(9));
        value.time_viewed = Some(Millis(10));
        value.idle_outcome = text("interrupted");
        value
    }
}

/// A session with no field that can be absent, and a first prompt.
pub(crate) fn untitled() -> Session {
    {
        let mut value = Session::new(id("ses_untitled"), Store::V1);
        value.untitled = true;
        value.first_prompt = Some("Fix it".to_owned());
        value
    }
}

/// An `end` with every field.
pub(crate) fn end() -> End {
    let degraded = [
        (OptionalPart::LastMessageAt, "the index is damaged"),
        (OptionalPart::FirstPrompt, "the table \"part\" is damaged"),
        (OptionalPart::Worktree, "there is no column \"worktree\""),
        (OptionalPart::Marked, "the scan was interrupted"),
        (OptionalPart::Deleted, "the table \"kv\" is damaged"),
    ];
    {
        let mut value = End::new(2, DatabaseState::Ready);
        value.tables = vec!["session".to_owned(), "session_v2".to_owned()];
        value.flat = true;
        value.skipped = Skipped {
            invalid_id: 1,
            duplicate_id: 2,
            truncated: 3,
        };
        value.scan = {
            let mut value = Scan::new(ScanMode::Tail);
            value.progress = 0.5;
            value.frames = 7;
            value.bytes = 8_000_000_000;
            value.stalled = true;
            value
        };
        value.degraded = degraded
            .map(|(what, reason)| Degraded {
                what,
                reason: reason.to_owned(),
            })
            .into();
        value.log_elsewhere = true;
        value.elapsed_ms = 9;
        value
    }
}
