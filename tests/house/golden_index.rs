//! The index snapshot, pinned.

use std::time::Duration;

use opencode_sessions::entry::Entry;
use opencode_sessions::internals::index::{Index, Moment, SourceListing, snapshot};
use opencode_sessions::internals::wire::DatabaseState;
use opencode_sessions::marker_text::MarkerText;
use opencode_sessions::row::Row;
use opencode_sessions::session::Millis;
use opencode_sessions::source::{Source, sources_of};

use crate::golden::{assert_is_pinned, full, untitled};
use crate::support;

pub(crate) fn sources() -> Vec<Source> {
    sources_of(&["/nowhere/opencode.db".into(), "/nowhere/empty.db".into()])
}

fn entries() -> Vec<Entry> {
    vec![
        Entry {
            session: full(),
            project: Some("/home/me".to_owned()),
            gone: true,
        },
        Entry {
            session: untitled(),
            project: None,
            gone: false,
        },
    ]
}

pub(crate) fn index() -> Index {
    let sources = sources();
    let mut index = Index::new(&sources);
    let now = Moment {
        wall: Millis(0),
        monotonic: Duration::ZERO,
    };
    let found = |entries: Vec<Entry>| SourceListing::new(DatabaseState::Ready, entries);
    index.merge(&sources[0].name, found(entries()), now);
    index.merge(&sources[1].name, found(Vec::new()), now);
    index
}

fn entries_of(index: &Index) -> Vec<Vec<Entry>> {
    let entries = |known: &opencode_sessions::internals::index::SourceState| {
        known.rows().values().map(Row::entry).collect()
    };
    index.sources().map(entries).collect()
}

#[test]
fn index_snapshot_format_is_pinned() {
    let _limit = support::limit(60);
    let marker = MarkerText::default();
    let encoded = snapshot::Snapshot::of(&index(), Some(&marker))
        .to_bytes()
        .unwrap();
    let nothing = Index::new(&sources());
    assert_is_pinned("index", &encoded, |bytes| {
        let mut into = Index::new(&sources());
        let restored = snapshot::restore(&mut into, bytes, Some(&marker), Millis::now());
        match restored {
            Ok(()) => assert_eq!(entries_of(&into), [entries(), Vec::new()]),
            Err(_) => assert_eq!(entries_of(&into), entries_of(&nothing)),
        }
        restored
    });
}
