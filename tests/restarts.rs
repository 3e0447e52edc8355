//! What is on disk between two lives of a service: after kill -9 at any moment
//! the sessions of the last snapshot are there at once, and whatever is in the
//! snapshot's place, nothing but a valid one is taken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

#[path = "support/serving.rs"]
mod serving;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use opencode_sessions::codec::Unreadable;
use opencode_sessions::entry::Entry;
use opencode_sessions::index::{Index, ListedEntries, Moment, View, snapshot};
use opencode_sessions::marker_text::MarkerText;
use opencode_sessions::session::Millis;
use opencode_sessions::source::sources_of;
use opencode_sessions::wire::DatabaseState;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use serving::{Host, Model, helpers_of, serve, wait_for};
use support::Made;

// ---- Kill -9.

/// How often the service is started.
const LIVES: usize = 200;

/// What the writer has done so far.
#[derive(Default)]
struct Written {
    done: AtomicBool,
    /// Sessions that it has deleted, or is just about to.
    deleted: Mutex<BTreeSet<String>>,
}

/// Inserts, updates and deletes sessions until it is done. A session's
/// `time_updated` only grows.
fn write(db: &Path, written: &Written, mut random: fastrand::Rng) {
    let conn = Connection::open(db).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    for time in 1_000.. {
        if written.done.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("ses_{}", random.u32(..300));
        let mut deleted = written.deleted.lock().unwrap();
        if random.u8(..4) == 0 {
            deleted.insert(id.clone());
            drop(deleted);
            conn.execute("DELETE FROM session WHERE id = ?1", [&id])
                .unwrap();
        } else if !deleted.contains(&id) {
            drop(deleted);
            conn.execute(
                "INSERT INTO session (id, project_id, slug, directory, title, version, \
                 time_created, time_updated) \
                 VALUES (?1, 'global', 'slug', '/usr', 'Title', '1', 1, ?2) \
                 ON CONFLICT DO UPDATE SET time_updated = ?2",
                (&id, time),
            )
            .unwrap();
        } else {
            // Once deleted an id is never used again; there are always new ones.
            drop(deleted);
            conn.execute(
                "INSERT INTO session (id, project_id, slug, directory, title, version, \
                 time_created, time_updated) \
                 VALUES (?1, 'global', 'slug', '/usr', 'Title', '1', 1, ?2)",
                (format!("ses_new_{time}"), time),
            )
            .unwrap();
        }
        thread::sleep(Duration::from_millis(4));
    }
}

/// The index of this database alone.
fn index_of(db: &Path) -> Index {
    Index::new(&sources_of(&[db.to_owned()]))
}

/// The sessions in this snapshot, as events have them.
fn decode(db: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Value>, Unreadable> {
    let mut index = index_of(db);
    snapshot::restore(
        &mut index,
        bytes,
        Some(&MarkerText::default()),
        Millis::now(),
    )?;
    let sessions = index.sessions(View::default());
    Ok(sessions
        .iter()
        .map(|session| {
            let session = serde_json::to_value(session).unwrap();
            (session["id"].as_str().unwrap().to_owned(), session)
        })
        .collect())
}

/// Reads the snapshot all the time: a reader never finds a part of one.
fn read(db: &Path, file: &Path, written: &Written, read: &AtomicUsize) {
    let mut last = None;
    while !written.done.load(Ordering::Relaxed) {
        let looks = fs::metadata(file).map(|file| (file.ino(), file.len(), file.mtime_nsec()));
        if looks.as_ref().ok() != last.as_ref()
            && let Ok(bytes) = fs::read(file)
        {
            let decoded = decode(db, &bytes);
            assert!(decoded.is_ok(), "{decoded:?}: {} bytes", bytes.len());
            read.fetch_add(1, Ordering::Relaxed);
            last = looks.ok();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the first snapshot event has of the snapshot file: the same, marked
/// stale, or where the first listing was quick, what is newer.
fn assert_shows(model: &Model, before: &BTreeMap<String, Value>, written: &Written) {
    let mut first = Model::default();
    for event in &model.events[..2] {
        first.take(event.clone());
    }
    match first.state() {
        "stale" => assert_eq!(first.sessions, *before),
        "starting" => assert!(before.is_empty(), "{} are lost", before.len()),
        "ok" => {
            let deleted = written.deleted.lock().unwrap();
            for (key, old) in before {
                match first.sessions.get(key) {
                    Some(new) => {
                        assert!(new["timeUpdated"].as_i64() >= old["timeUpdated"].as_i64());
                    }
                    None => assert!(deleted.contains(key), "{key:?} is lost"),
                }
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_service_that_is_killed_at_any_moment_comes_back_with_its_last_snapshot() {
    let _limit = support::limit(150);
    let seed = 20_261_122;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let made = Made::new();
    for n in 0..300 {
        made.session(&format!("ses_{n}"), 1);
    }
    let place = tempfile::tempdir().unwrap();
    let (state, file) = (place.path().join("state"), place.path().join("state/index"));
    let written = Written::default();
    let (mut greeted, mut stale, mut listed, mut in_flight, mut saved) = (0, 0, 0, 0, 0);
    let reads = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _done = Done(&written);
        let random_writes = random.fork();
        scope.spawn(|| write(&made.db, &written, random_writes));
        scope.spawn(|| read(&made.db, &file, &written, &reads));
        for life in 0..LIVES {
            let before = fs::read(&file).ok();
            let known = before.as_deref().map(|bytes| decode(&made.db, bytes));
            let known = known.unwrap_or(Ok(BTreeMap::new())).unwrap();
            let host = Host::start(&mut serve(&made.db, &state));
            let in_order = life % 10 == 9;
            thread::sleep(Duration::from_millis(random.u64(5..120)));
            let helpers = helpers_of(&made.db).len();
            let model = if in_order {
                let mut host = host;
                host.until("a listing", |model| {
                    model.events.len() > 1 && model.state() == "ok"
                });
                let (status, model, log) = host.end_by(Signal::TERM);
                assert_eq!(status.code(), Some(0), "{log}");
                let last = decode(&made.db, &fs::read(&file).unwrap()).unwrap();
                assert_eq!(last, model.sessions, "it is what was known at the end");
                model
            } else {
                in_flight += helpers;
                host.kill()
            };
            if model.events.len() > 1 {
                greeted += 1;
                stale += usize::from(model.events[1]["sources"][0]["health"]["state"] == "stale");
                listed += usize::from(model.state() == "ok");
                assert_shows(&model, &known, &written);
            }
            saved += usize::from(fs::read(&file).ok() != before);
            assert!(!state.join("index.set-aside").exists(), "life {life}");
            let killed = Instant::now();
            while !helpers_of(&made.db).is_empty() {
                let alone = killed.elapsed();
                assert!(
                    alone < Duration::from_secs(2),
                    "a helper survives its parent"
                );
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    println!(
        "of {LIVES} lives {greeted} were greeted, {stale} of them stale, {listed} listed; \
         {in_flight} were killed while a helper ran; {saved} wrote a snapshot, which was read {reads:?} times"
    );
    // Else all this has tested nothing.
    assert!(greeted >= 40 && stale >= 20, "{greeted}, {stale}");
    assert!(saved >= 15, "{saved}");
    let mut left: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".unfinished-"))
        .collect();
    left.sort_unstable();
    assert_eq!(
        left.iter()
            .filter(|name| *name != "socket" && !name.starts_with("scan-"))
            .collect::<Vec<_>>(),
        ["index", "lock"]
    );
    // And a last one in peace: what killed ones left unfinished is gone.
    let mut host = Host::well(&mut serve(&made.db, &state));
    assert_eq!(host.refresh()["outcome"], "ok");
    assert_eq!(host.model.sessions, serving::expected(&made.db));
    let leftovers = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".unfinished-"));
    // It may be writing one itself.
    assert!(leftovers.count() <= 1);
}

/// Ends the writer, also where the test fails.
struct Done<'a>(&'a Written);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_helper_survives_a_service_that_is_killed() {
    let _limit = support::limit(60);
    // Its listing never ends: it looks for a project that is none of endlessly
    // many.
    let made = Made::of(&support::SCHEMA.replace("CREATE TABLE project", "CREATE TABLE ignored"));
    made.session("ses_1", 1);
    made.run(
        "UPDATE session SET project_id = 'p';
         CREATE VIEW project AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
         SELECT i AS id, '/usr' AS worktree FROM n WHERE i < 0",
    );
    let state = made.directory.path().join("state");
    for _ in 0..5 {
        let mut command = serve(&made.db, &state);
        let host = Host::greeted(command.args(["--deadline", "60s"]));
        wait_for("a helper", || {
            (!helpers_of(&made.db).is_empty()).then_some(())
        });
        let _ = host.kill();
        let killed = Instant::now();
        while !helpers_of(&made.db).is_empty() {
            assert!(killed.elapsed() < Duration::from_secs(2));
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_snapshot_is_written_at_most_every_five_seconds() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_1", 1);
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let mut host = Host::well(&mut serve(&made.db, &state));
    let inode = || {
        fs::metadata(state.join("index"))
            .ok()
            .map(|file| file.ino())
    };
    let first = wait_for("the first snapshot", inode);
    let started = Instant::now();
    let (mut last, mut times) = (first, 0);
    while started.elapsed() < Duration::from_secs(12) {
        made.run("UPDATE session SET time_updated = time_updated + 1");
        host.take_for(Duration::from_millis(200));
        if let Some(now) = inode().filter(|now| *now != last) {
            (last, times) = (now, times + 1);
        }
    }
    assert!((1..=2).contains(&times), "{times} in twelve seconds");
    // At the end what is not written yet.
    made.session("ses_2", 2);
    host.until("the last change", |model| model.ids().len() == 2);
    let (_, model, _) = host.end_by(Signal::TERM);
    let written = decode(&made.db, &fs::read(state.join("index")).unwrap()).unwrap();
    assert_eq!(written, model.sessions);
}

#[test]
fn a_snapshot_that_could_not_be_written_is_written_at_the_end() {
    let _limit = support::limit(60);
    let made = Made::new();
    let place = tempfile::tempdir().unwrap();
    let (state, away) = (place.path().join("state"), place.path().join("away"));
    let mut host = Host::well(&mut serve(&made.db, &state));
    assert!(!state.join("index").exists(), "there was nothing to write");
    fs::rename(&state, &away).unwrap();
    made.session("ses_1", 1);
    host.until("the change", |model| model.ids().len() == 1);
    wait_for("the failure", || {
        host.log().contains("cannot be written").then_some(())
    });
    fs::rename(&away, &state).unwrap();
    let (status, model, log) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    let bytes = fs::read(state.join("index")).expect("a snapshot");
    assert_eq!(decode(&made.db, &bytes).unwrap(), model.sessions);
}

// ---- A damaged snapshot.

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
    let found = ListedEntries {
        database: DatabaseState::Ready,
        entries: (0..sessions).map(entry).collect(),
    };
    let now = Moment {
        wall: Millis(0),
        monotonic: Duration::ZERO,
    };
    index.merge(&"opencode.db".into(), found, now);
    (index, db)
}

/// All that there is to see of an index.
fn seen(index: &Index) -> (u64, String) {
    (index.revision(), format!("{index:?}"))
}

#[test]
fn a_snapshot_damaged_at_any_byte_is_not_taken_and_changes_nothing() {
    let _limit = support::limit(60);
    let (index, _) = known(5);
    let bytes = snapshot::encode(&index, None).unwrap();
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
fn the_decoder_takes_any_bytes_without_panic_and_in_bounded_memory() {
    let _limit = support::limit(120);
    let seed = 41;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (index, _) = known(8);
    let valid = snapshot::encode(&index, None).unwrap();
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
                assert_eq!(why, Unreadable::Body);
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

/// Fewer than so many random bytes.
fn noise(random: &mut fastrand::Rng, most: usize) -> Vec<u8> {
    let length = random.usize(..most);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
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
fn random_bytes_of_any_length_are_no_snapshot() {
    let _limit = support::limit(60);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..20_000 {
        let bytes = noise(&mut random, if round % 100 == 0 { 1 << 16 } else { 64 });
        let mut into = index_of(Path::new("/nowhere/opencode.db"));
        assert!(snapshot::restore(&mut into, &bytes, None, Millis::now()).is_err());
        assert_eq!(seen(&into).0, 0);
    }
}

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
fn a_damaged_snapshot_is_set_aside_and_rebuilt() {
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

#[test]
fn what_is_no_snapshot_of_this_version_is_set_aside_and_rebuilt() {
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
fn a_directory_in_the_place_of_the_snapshot_is_set_aside() {
    let _limit = support::limit(60);
    assert_is_set_aside("a directory", |file, _| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    });
}
