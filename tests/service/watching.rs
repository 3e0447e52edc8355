//! How a service notices changes: with few threads and one inotify instance, without either,
//! and where a commit shows late.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{self, Helper, Host, Made, list, preload, serve, text, wait_for};

fn threads_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

fn inotify_instances_of(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|file| file.to_string_lossy().contains("inotify"))
        .count()
}

/// Seconds of processor time.
fn processor_time_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let times = after_name.split_whitespace().skip(11).take(2);
    times.map(|time| time.parse::<f64>().unwrap() / 100.0).sum()
}

/// A database with one session, closed, in a directory of its own.
fn database(at: &Path, session: &str) -> PathBuf {
    let made = Made::new();
    made.session(session, 1);
    fs::create_dir_all(at).unwrap();
    let db = at.join("opencode.db");
    let copy = format!("VACUUM INTO '{}'", db.display());
    made.run(&copy);
    support::settle(&db);
    db
}

fn insert(db: &Path, session: &str) {
    let conn = rusqlite::Connection::open(db).unwrap();
    let insert = "INSERT INTO session (id, project_id, slug, directory, title, version, \
        time_created, time_updated) VALUES (?1, 'global', 's', '/usr', 't', '1', 2, 2)";
    conn.execute(insert, [session]).unwrap();
}

/// A service of databases in these directories.
fn serve_all(place: &Path, directories: &[PathBuf]) -> Command {
    let mut command = serve(&directories[0].join("opencode.db"), &place.join("state"));
    for directory in &directories[1..] {
        command.arg("--db").arg(directory.join("opencode.db"));
    }
    command
}

#[test]
fn twenty_sources_share_one_inotify_and_few_threads() {
    let _limit = support::limit(120);
    let place = tempfile::tempdir().unwrap();
    let directories: Vec<_> = (0..20)
        .map(|n| {
            let directory = place.path().join(n.to_string());
            database(&directory, &format!("ses_{n}"));
            directory
        })
        .collect();
    let mut host = Host::greeted(&mut serve_all(place.path(), &directories));
    host.until("all sessions", |model| model.sessions.len() == 20);
    let status = host.until_status("all to be watched", |status| {
        let sources = list(&status["sources"]);
        sources.iter().all(|source| source["watch"] == "events")
    });
    assert_eq!(list(&status["sources"]).len(), 20);
    assert_eq!(inotify_instances_of(host.pid()), 1);
    wait_for("the threads of the first listings to end", || {
        (threads_of(host.pid()) <= 15).then_some(())
    });
    // Each is watched.
    for n in [0, 7, 19] {
        let new = format!("ses_new_{n}");
        insert(&directories[n].join("opencode.db"), &new);
        host.until("the change", |model| model.sessions.contains_key(&new));
    }
    assert_eq!(inotify_instances_of(host.pid()), 1);
    // A directory that is exchanged for another one.
    let away = place.path().join("away");
    fs::rename(&directories[3], &away).unwrap();
    host.until("its end", |model| !model.sessions.contains_key("ses_3"));
    database(&directories[3], "ses_other");
    host.until("the other one", |model| {
        model.sessions.contains_key("ses_other")
    });
    host.until_status("it to be watched", |status| {
        let sources = list(&status["sources"]);
        sources.iter().all(|source| source["watch"] == "events")
    });
    insert(&directories[3].join("opencode.db"), "ses_more");
    host.until("its change", |model| {
        model.sessions.contains_key("ses_more")
    });
    assert_eq!(inotify_instances_of(host.pid()), 1);
}

/// Of the threads that a service starts with, whichever the system refuses: it ends and says
/// why, or goes on. Without the one for events there is polling.
#[test]
fn service_that_lacks_a_thread_ends_cleanly_or_polls() {
    let _limit = support::limit(240);
    let place = tempfile::tempdir().unwrap();
    let db = database(&place.path().join("db"), "ses_1");
    let library = preload::Library::of("no_threads.c");
    let mut polled = 0;
    for at in 1..=6 {
        let state = place.path().join(format!("state {at}"));
        let mut command = serve(&db, &state);
        command.env("LD_PRELOAD", library.path());
        command.env("NO_THREAD_AT", at.to_string());
        let mut host = Host::start(&mut command);
        let is_up = wait_for("its start or its end", || {
            host.take_what_is_there();
            let is_up = host.model.events.len() > 1;
            (is_up || host.has_exited()).then_some(is_up)
        });
        if is_up {
            host.until("a listing or a failure", |model| {
                matches!(model.state(), "ok" | "failing")
            });
            let watch = host.status()["sources"][0]["watch"].clone();
            if text(&watch).starts_with("polling") {
                polled += 1;
                let new = format!("ses_new_{at}");
                insert(&db, &new);
                host.until("the change", |model| model.sessions.contains_key(&new));
            }
        }
        let log = host.log();
        assert!(!log.contains("panicked"), "thread {at}: {log}");
    }
    assert!(polled > 0, "no thread was the one for events");
}

/// Not even a directory can be looked at there.
#[test]
fn sources_on_a_dead_disk_delay_no_other() {
    let _limit = support::limit(120);
    let place = tempfile::tempdir().unwrap();
    let library = preload::Library::of("hanging_disk.c");
    let mut directories = vec![place.path().join("fine")];
    directories.extend((0..5).map(|n| place.path().join(format!("dead-disk/{n}"))));
    for (n, directory) in directories.iter().enumerate() {
        database(directory, &format!("ses_{n}"));
    }
    let mut command = serve_all(place.path(), &directories);
    command.args(["--deadline", "1s"]);
    let mut host = Host::greeted(command.env("LD_PRELOAD", library.path()));
    host.until("the fine one", |model| model.sessions.len() == 1);
    for n in 0..3 {
        let new = format!("ses_new_{n}");
        let since = Instant::now();
        insert(&directories[0].join("opencode.db"), &new);
        host.until("the change", |model| model.sessions.contains_key(&new));
        let took = since.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
    }
    let status = host.status();
    assert!(
        list(&status["sources"])
            .iter()
            .any(|source| source["watch"] == "events"),
        "{status}"
    );
    assert_eq!(inotify_instances_of(host.pid()), 1);
}

/// No thread can be had while the directory comes back that is to be watched again.
#[test]
fn service_that_gets_no_more_threads_goes_on() {
    let _limit = support::limit(120);
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("db");
    let db = database(&directory, "ses_1");
    let (library, none) = (
        preload::Library::of("no_threads.c"),
        place.path().join("none"),
    );
    let mut command = serve(&db, &place.path().join("state"));
    command.env("LD_PRELOAD", library.path());
    let mut host = Host::well(command.env("NO_THREADS", &none));
    let away = place.path().join("away");
    fs::rename(&directory, &away).unwrap();
    host.until("its end", |model| model.state() == "missing");
    File::create(&none).unwrap();
    fs::rename(&away, &directory).unwrap();
    host.until_status("the directory to be watched", |status| {
        status["sources"][0]["watch"] == "events"
    });
    host.until("a listing without a thread", |model| {
        model.state() == "failing"
    });
    assert_eq!(host.model.only_health()["kind"], "thread");
    fs::remove_file(&none).unwrap();
    host.until("its return", |model| model.state() == "ok");
    assert_eq!(host.model.ids(), ["ses_1"]);
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

/// SQLite writes to the log, waits for the disk, here for seconds, and only then lets
/// readers see it, by a write to mapped memory that no event tells of.
#[test]
fn commit_published_long_after_its_write_is_noticed() {
    let _limit = support::limit(60);
    let made = Made::new();
    let place = tempfile::tempdir().unwrap();
    let listing = place.path().join("listing");
    let prints = |ids: &[&str]| {
        let mut lines = vec![json!({"type": "hello", "protocol": 1, "lister": "script"})];
        let session = |id: &&str| json!({"type": "session", "id": id, "store": "v1"});
        lines.extend(ids.iter().map(session));
        lines.push(
            json!({"type": "end", "sessions": ids.len(), "database": "ready", "elapsedMs": 1,
            "scan": {"mode": "none", "progress": 1.0, "frames": 0, "bytes": 0}}),
        );
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(place.path().join("new"), lines).unwrap();
        fs::rename(place.path().join("new"), &listing).unwrap();
    };
    prints(&[]);
    let helper = Helper::new();
    helper.becomes_script(&format!("#!/bin/sh\ncat '{}'\n", listing.display()));
    let mut command = serve(&made.db, &made.directory.path().join("state"));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    made.session("ses_1", 1);
    let written = Instant::now();
    // Longer than a file's time is too young to be sure of.
    host.take_for(Duration::from_millis(3_000));
    prints(&["ses_1"]);
    host.until("the session", |model| model.ids() == ["ses_1"]);
    let after = written.elapsed();
    assert!(after < Duration::from_secs(9), "{after:?}");
    // And only so often: what is written once is not listed for ever.
    host.take_for(Duration::from_secs(1));
    let spawns = host.status()["spawns"].as_u64().unwrap();
    host.take_for(Duration::from_secs(3));
    assert!(host.status()["spawns"].as_u64().unwrap() <= spawns + 1);
}

#[test]
fn changes_of_unrelated_files_cost_little() {
    let _limit = support::limit(120);
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("db");
    let db = database(&directory, "ses_1");
    let mut host = Host::well(&mut serve(&db, &place.path().join("state")));
    // Until it is at rest.
    host.take_for(Duration::from_secs(1));
    let before = (
        host.status()["spawns"].clone(),
        processor_time_of(host.pid()),
    );
    let (one, other) = (directory.join("one"), directory.join("other"));
    for n in 0..8_000 {
        File::create(directory.join(format!("touched {n}"))).unwrap();
    }
    File::create(&one).unwrap();
    for _ in 0..100_000 {
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    }
    // Time for a listing that must not come.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(host.status()["spawns"], before.0);
    let cost = processor_time_of(host.pid()) - before.1;
    assert!(cost < 2.0, "{cost} s");
    insert(&db, "ses_2");
    host.until("the change", |model| model.ids() == ["ses_1", "ses_2"]);
}
