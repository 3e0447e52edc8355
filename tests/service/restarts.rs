//! What is on disk between two lives of a service: after kill -9 at any moment the sessions of
//! the last snapshot are there at once.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use opencode_sessions::internals::codec::DecodeError;
use opencode_sessions::internals::index::{View, snapshot};
use opencode_sessions::marker_text::MarkerText;
use opencode_sessions::session::Millis;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    self, Host, Made, Model, endless, eventually, helpers_of, index_of, serve, wait_for,
};

/// The sessions in this snapshot, as events have them.
pub(crate) fn decode(db: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Value>, DecodeError> {
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
            let session = serde_json::to_value(session.parse()).unwrap();
            (session["id"].as_str().unwrap().to_owned(), session)
        })
        .collect())
}

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

/// It is killed at any moment.
#[test]
fn killed_service_restarts_with_its_last_snapshot() {
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
            // A helper does not survive its parent.
            eventually(Duration::from_secs(2), "the end of the helpers", || {
                helpers_of(&made.db).is_empty()
            });
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
    assert_eq!(host.model.sessions, support::expected(&made.db));
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
fn no_helper_survives_a_killed_service() {
    let _limit = support::limit(60);
    let made = endless();
    let state = made.directory.path().join("state");
    for _ in 0..5 {
        let mut command = serve(&made.db, &state);
        let host = Host::greeted(command.args(["--deadline", "60s"]));
        wait_for("a helper", || {
            (!helpers_of(&made.db).is_empty()).then_some(())
        });
        let _ = host.kill();
        eventually(Duration::from_secs(2), "the end of the helper", || {
            helpers_of(&made.db).is_empty()
        });
    }
}

#[test]
fn snapshot_is_written_at_most_every_five_seconds() {
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
fn failed_snapshot_is_written_at_the_end() {
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
        host.log()
            .contains("cannot write the snapshot")
            .then_some(())
    });
    fs::rename(&away, &state).unwrap();
    let (status, model, log) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    let bytes = fs::read(state.join("index")).expect("a snapshot");
    assert_eq!(decode(&made.db, &bytes).unwrap(), model.sessions);
}
