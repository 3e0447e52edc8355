//! What a service costs while nothing changes, and what it notices.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{made, settle, start, state};
use crate::schedule::Scripted;
use crate::support::{self, Helper, Host, Made, list, listed, serve, text};

#[test]
fn idle_database_launches_no_helper() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    settle(&made);
    let mut host = start(&made);
    // Nothing happens in all these waits.
    host.take_for(Duration::from_secs(1));
    assert_eq!(host.status()["spawns"], 1, "the first listing says it all");
    // A reader of the database is no change, though it touches the files beside it.
    for _ in 0..3 {
        listed(&made.db, &[]);
        host.take_for(Duration::from_millis(700));
    }
    assert_eq!(host.status()["spawns"], 1);
    // After a change it is idle again, as soon as a second change could not go unseen.
    made.session("ses_2", 2);
    host.until("the change", |model| model.ids().len() == 2);
    host.take_for(Duration::from_secs(5));
    let spawns = host.status()["spawns"].clone();
    assert!(spawns.as_u64() <= Some(4), "{spawns}");
    host.take_for(Duration::from_secs(3));
    assert_eq!(host.status()["spawns"], spawns);
}

/// As a reader does it that SQLite has make a log, or set the owner of one.
#[test]
fn empty_log_and_new_inode_time_are_not_a_change() {
    let _limit = support::limit(60);
    let plain = made(&["ses_1"]);
    plain.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let place = tempfile::tempdir().unwrap();
    let db = place.path().join("opencode.db");
    fs::copy(&plain.db, &db).unwrap();
    support::settle(&db);
    let scripted = Scripted::new();
    let mut command = serve(&db, &place.path().join("state"));
    let mut host = Host::well(command.arg("--lister").arg(scripted.helper.program()));
    // Nothing happens, neither here nor after each of what follows.
    host.take_for(Duration::from_millis(500));
    assert_eq!(host.status()["spawns"], 1);
    let log = place.path().join("opencode.db-wal");
    let of_all = Permissions::from_mode(0o644);
    for _ in 0..3 {
        File::create(&log).unwrap();
        host.take_for(Duration::from_millis(300));
        fs::set_permissions(&db, of_all.clone()).unwrap();
        host.take_for(Duration::from_millis(300));
        fs::remove_file(&log).unwrap();
        host.take_for(Duration::from_millis(300));
    }
    assert_eq!(host.status()["spawns"], 1);
}

#[test]
fn directory_created_later_is_found() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("not/yet.d");
    let db = directory.join("opencode.db");
    let mut host = Host::greeted(&mut serve(&db, &place.path().join("state")));
    host.until("the first listing", |model| model.state() == "missing");
    let status = host.until_status("how it is watched", |status| {
        text(&status["sources"][0]["watch"]).starts_with("polling")
    });
    assert!(
        text(&status["sources"][0]["watch"]).contains("directory"),
        "{status}"
    );
    fs::create_dir_all(&directory).unwrap();
    host.until_status("the directory to be watched", |status| {
        status["sources"][0]["watch"] == "events"
    });
    let made = made(&["ses_1"]);
    made.run("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::copy(&made.db, directory.join("new")).unwrap();
    fs::rename(directory.join("new"), &db).unwrap();
    host.until("the database", |model| model.state() == "ok");
    assert_eq!(host.model.ids(), ["ses_1"]);
    // And gone again, when nothing else happens: not before its listing is settled.
    host.take_for(Duration::from_secs(2));
    let away = place.path().join("away");
    fs::rename(&directory, &away).unwrap();
    host.until("its end", |model| model.state() == "missing");
    fs::rename(&away, &directory).unwrap();
    host.until("its return", |model| model.state() == "ok");
    let (_, _, log) = host.end_by(Signal::TERM);
    let said = log.lines().filter(|line| line.contains("polling")).count();
    assert!((1..=2).contains(&said), "once each time: {log}");
}

#[test]
fn failing_source_delays_no_other() {
    let _limit = support::limit(60);
    let (good, bad) = (made(&["ses_1"]), made(&["ses_1"]));
    let helper = Helper::new();
    // The second database's helper hangs.
    helper.becomes_script(&format!(
        "#!/bin/sh\ncase \"$*\" in *'{}'*) exec sleep 60;; esac\nexec '{}' \"$@\"\n",
        bad.db.display(),
        support::lister().display()
    ));
    let mut command = serve(&good.db, &state(&good));
    command
        .arg("--db")
        .arg(&bad.db)
        .arg("--lister")
        .arg(helper.program());
    let mut host = Host::greeted(&mut command);
    let names: Vec<_> = host.model.health.keys().cloned().collect();
    assert!(
        names.iter().all(|name| name.ends_with("/opencode.db")),
        "{names:?}"
    );
    let of = |made: &Made| {
        let directory = made.directory.path().file_name().unwrap();
        format!("{}/opencode.db", directory.to_str().unwrap())
    };
    for n in 0..3 {
        let id = format!("ses_more_{n}");
        good.session(&id, 2);
        host.until("the change", |model| model.sessions.contains_key(&id));
    }
    assert_eq!(host.model.health[&of(&good)]["state"], "ok");
    assert_eq!(host.model.health[&of(&bad)]["state"], "starting");
    let refresh = host.tell("refresh");
    let status = host.tell("status");
    let reply = host.reply(status);
    assert_eq!(list(&reply["status"]["sources"]).len(), 2);
    let replies = host.model.of_type("reply", 0);
    assert!(
        replies.iter().all(|reply| reply["id"] != refresh),
        "it waits for both"
    );
}
