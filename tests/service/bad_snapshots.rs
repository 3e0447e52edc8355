//! Whatever is in the place of the snapshot, nothing but a valid one is taken.

use std::fs;
use std::path::Path;

use opencode_sessions::internals::index::snapshot;
use rustix::process::Signal;

use crate::restarts::decode;
use crate::support::{self, Host, Made, index_of, samples, serve, version};

/// What is in the place of the snapshot is set aside, said once, and rebuilt.
#[track_caller]
fn assert_is_set_aside(what: &str, put: impl FnOnce(&Path, &[u8])) {
    let made = Made::new();
    made.session("ses_1", 1);
    made.session("ses_2", 2);
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let (file, aside) = (state.join("index"), state.join("index.set-aside"));
    let (status, known, _) = Host::well(&mut serve(&made.db, &state)).end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    let valid = fs::read(&file).unwrap();
    put(&file, &valid);
    let bytes = fs::read(&file).ok();
    let mut host = Host::greeted(&mut serve(&made.db, &state));
    // The first listing may have been quicker than the host.
    if host.model.state() == "starting" {
        assert_eq!(host.model.sessions.len(), 0, "{what}");
    }
    host.until("the first listing", |model| model.state() == "ok");
    assert_eq!(host.model.sessions, known.sessions, "{what}");
    let (status, _, log) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{what}: {log}");
    assert!(aside.exists(), "{what}: {log}");
    assert_eq!(fs::read(&aside).ok(), bytes, "{what}");
    let said = log.lines().filter(|line| line.contains("snapshot"));
    assert_eq!(said.count(), 1, "{what}: {log}");
    let rebuilt = decode(&made.db, &fs::read(&file).unwrap()).unwrap();
    assert_eq!(rebuilt, known.sessions, "{what}");
    // The next one finds nothing wrong.
    let (_, model, log) = Host::well(&mut serve(&made.db, &state)).end_by(Signal::TERM);
    let first = &model.events[1]["sources"][0]["health"]["state"];
    assert!(first == "stale" || first == "ok", "{what}: {first}");
    assert!(!log.contains("snapshot"), "{what}: {log}");
}

#[test]
fn damaged_snapshot_is_set_aside_and_rebuilt() {
    let _limit = support::limit(60);
    let flip = |at: usize| {
        move |file: &Path, valid: &[u8]| {
            let mut damaged = valid.to_vec();
            damaged[at] ^= 0x10;
            fs::write(file, damaged).unwrap();
        }
    };
    assert_is_set_aside("a flip in the header", flip(14));
    assert_is_set_aside("a flip in the body", flip(60));
    assert_is_set_aside("half of it", |file, valid| {
        fs::write(file, &valid[..valid.len() / 2]).unwrap();
    });
}

/// It is rebuilt, as one that is not a snapshot at all is.
#[test]
fn snapshot_of_another_version_is_set_aside() {
    let _limit = support::limit(60);
    assert_is_set_aside("a newer format", |file, valid| {
        let mut newer = valid.to_vec();
        newer[8] = 99;
        fs::write(file, newer).unwrap();
    });
    assert_is_set_aside("an empty file", |file, _| fs::write(file, "").unwrap());
    assert_is_set_aside("another program's file", |file, _| {
        fs::copy(Made::new().db, file).map(|_| ()).unwrap();
    });
}

#[test]
fn directory_in_place_of_the_snapshot_is_set_aside() {
    let _limit = support::limit(60);
    assert_is_set_aside("a directory", |file, _| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    });
}

/// As the service does it: the old file is moved away unread and the index is rebuilt.
#[test]
fn service_sets_old_index_snapshots_aside() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_new", 1);
    let encoded = snapshot::Snapshot::of(&index_of(&made.db), None)
        .to_bytes()
        .unwrap();
    let known = version(&encoded);
    let old = samples("index").into_iter();
    let old: Vec<_> = old.filter(|(found, _)| *found != known).collect();
    assert!(!old.is_empty());
    for (found, bytes) in old {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("index");
        fs::write(&file, &bytes).unwrap();
        let host = Host::well(&mut serve(&made.db, state.path()));
        assert_eq!(host.model.ids(), ["ses_new"]);
        let (status, _, log) = host.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{log}");
        let aside = fs::read(file.with_extension("set-aside")).unwrap();
        assert_eq!(aside, bytes, "index-{found}.bin");
        assert!(log.contains(&format!("format {found}")), "{log}");
        assert_eq!(version(&fs::read(&file).unwrap()), known);
    }
}
