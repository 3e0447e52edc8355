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
    let mut session = Session::new(id("ses_full"), Store::V2);
    session.directory = text("/home/me/a \"b\"\t\u{1b}[0m");
    session.worktree = text("/home/me");
    session.project_id = text("43aa");
    session.parent_id = text("ses_parent");
    session.title = text("Naïve 日本 🚀");
    session.time_created = Some(Millis(1_795_338_894_119));
    session.time_updated = Some(Millis(-1));
    session.time_archived = Some(Millis(i64::MAX));
    session.last_message_at = Some(Millis(i64::MIN));
    session.marked = Some(true);
    session.agent = text("build");
    session.version = text("1.18.33");
    session.slug = text("kind-forest");
    session.share_url = text("https://opncd.ai/s/x");
    session.workspace_id = text("wrk_1");
    session.model = Some(Model {
        id: "claude".to_owned(),
        provider_id: "anthropic".to_owned(),
        variant: text("high"),
    });
    session.cost = Some(0.1 + 0.2);
    session.tokens = Some(Tokens {
        input: 1,
        output: 300,
        reasoning: 70_000,
        cache_read: 5_000_000_000,
        cache_write: -5,
    });
    session.summary = Some(Summary {
        additions: 6,
        deletions: 7,
        files: 8,
    });
    session.time_compacting = Some(Millis(11));
    session.time_suspended = Some(Millis(12));
    session.forked_from = text("ses_original");
    session.time_idle = Some(Millis(9));
    session.time_viewed = Some(Millis(10));
    session.idle_outcome = text("interrupted");
    session
}

/// A session with no field that can be absent, and a first prompt.
pub(crate) fn untitled() -> Session {
    let mut session = Session::new(id("ses_untitled"), Store::V1);
    session.untitled = true;
    session.first_prompt = Some("Fix it".to_owned());
    session
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
    let mut end = End::new(2, DatabaseState::Ready);
    end.tables = vec!["session".to_owned(), "session_v2".to_owned()];
    end.flat = true;
    end.skipped = Skipped {
        invalid_id: 1,
        duplicate_id: 2,
        truncated: 3,
    };
    end.scan = {
        let mut scan = Scan::new(ScanMode::Tail);
        scan.progress = 0.5;
        scan.frames = 7;
        scan.bytes = 8_000_000_000;
        scan.stalled = true;
        scan
    };
    end.degraded = degraded
        .map(|(what, reason)| Degraded {
            what,
            reason: reason.to_owned(),
        })
        .into();
    end.log_elsewhere = true;
    end.elapsed_ms = 9;
    end
}
