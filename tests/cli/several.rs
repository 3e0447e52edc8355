//! Several sources in a service, and one session in two of them.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place::{Machine, Place, database, ids, remote, stderr, stdout, wait_until};
use crate::support::{self, Host, list, preload, text};

// ---- Several sources in a service.

#[test]
fn hanging_and_lying_sources_spare_the_third() {
    let _limit = support::limit(90);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let config = [
        remote(
            "hangs",
            &[place.misbehaving("hangs-after-half-the-rows")],
            "1s",
        ),
        remote("lies", &[place.misbehaving("counts-wrong")], "1s"),
        database("fine", &fine.made.db),
        remote("far", &fine.words(), "1s"),
    ];
    place.config(&config.concat());

    // One listing: what can be had, and what cannot.
    let output = place.run(&["list", "--format", "ndjson", "--deadline", "1s"]);
    assert_eq!(output.status.code(), Some(1), "it is not all there is");
    let sessions = stdout(&output);
    assert_eq!(ids(&sessions), ["ses_1"]);
    assert_eq!(
        (&sessions[0]["source"], &sessions[0]["also"]),
        (&json!("fine"), &json!(["far"]))
    );
    let said = stderr(&output);
    assert!(
        said.contains("opencode-sessions: hangs: the helper did not finish within "),
        "{said}"
    );
    assert!(
        said.contains("opencode-sessions: lies: invalid helper output"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
    // One id is there, of the other nobody knows.
    let output = place.run(&["get", "ses_1", "ses_x", "--deadline", "1s"]);
    assert_eq!(output.status.code(), Some(1));
    let found = stdout(&output);
    assert_eq!(
        (&found[0]["type"], &found[0]["also"]),
        (&json!("session"), &json!(["far"]))
    );
    assert_eq!(found[1]["type"], "failed");
    let message = found[1]["message"].as_str().unwrap();
    assert!(
        message.starts_with("hangs: ") && message.contains("; lies: "),
        "{message}"
    );

    let mut command = place.serve();
    let mut host = Host::greeted(command.args(["--deadline", "3s"]));
    let state = |host: &Host, source: &str| host.model.health[source]["state"].clone();
    host.until("the fine ones", |model| {
        ["fine", "far"]
            .iter()
            .all(|name| model.health[*name]["state"] == "ok")
    });
    assert_eq!(state(&host, "hangs"), "starting", "nobody waits for it");
    let mut latest = Duration::ZERO;
    for n in 0..5 {
        let id = format!("ses_new_{n}");
        fine.made.session(&id, 10 + n);
        let since = Instant::now();
        host.until("the change", |model| model.sessions.contains_key(&id));
        latest = latest.max(since.elapsed());
    }
    // At the pace, while the other hangs all the time.
    assert!(latest < Duration::from_millis(2500), "{latest:?}");
    host.until("the failures", |model| {
        ["hangs", "lies"]
            .iter()
            .all(|name| model.health[*name]["state"] == "failing")
    });
    assert_eq!(host.model.health["hangs"]["kind"], "timeout");
    assert_eq!(host.model.health["lies"]["kind"], "wire");
    let reply = host.ask("refresh");
    let outcomes: BTreeMap<_, _> = list(&reply["refreshed"])
        .iter()
        .map(|one| (text(&one["source"]), text(&one["outcome"])))
        .collect();
    let outcome = |name: &str| outcomes[name].as_str();
    assert_eq!(
        ["hangs", "lies", "fine", "far"].map(outcome),
        ["failed", "failed", "ok", "ok"]
    );
    let status = host.status();
    let names: Vec<_> = list(&status["sources"])
        .iter()
        .map(|source| text(&source["source"]))
        .collect();
    assert_eq!(
        names,
        ["hangs", "lies", "fine", "far"],
        "in the order of the file"
    );
    assert_eq!(status["sources"][3]["watch"], "asked every 1s");
    assert_eq!(status["sessions"], 6, "each once");
    // And found where it is.
    host.say(b"{\"type\":\"get\",\"ids\":[\"ses_1\"],\"id\":\"q\"}\n");
    host.until("the answer", |model| {
        model.events.last().unwrap()["id"] == "q"
    });
    let answer = &host.model.events.last().unwrap()["answers"][0];
    assert_eq!(
        (&answer["type"], &answer["also"]),
        (&json!("session"), &json!(["far"]))
    );
}

#[test]
fn command_is_asked_at_its_own_interval() {
    let _limit = support::limit(60);
    let (place, machine) = (Place::new(), Machine::new(&["ses_1"]));
    let launches = place.path("launches");
    let words: Vec<_> = machine
        .words()
        .iter()
        .map(|word| format!("'{word}'"))
        .collect();
    let program = place.program(
        "asks",
        &format!(
            "#!/bin/sh\necho >> {}\nexec {} \"$@\"\n",
            launches.display(),
            words.join(" ")
        ),
    );
    place.config(&remote("devbox", &[program], "2s"));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the first listing", |model| model.state() == "ok");
    let count = || fs::read_to_string(&launches).unwrap().lines().count();
    let before = count();
    host.take_for(Duration::from_millis(5000));
    let more = count() - before;
    assert!((1..=3).contains(&more), "{more} in five seconds");
    machine.made.session("ses_2", 5);
    host.until("the change", |model| model.sessions.len() == 2);
    // After a restart it is known before it is asked.
    host.leave();
    host.end();
    fs::write(place.path("asks"), "#!/bin/sh\nsleep 60\n").unwrap();
    let host = Host::greeted(&mut place.serve());
    assert_eq!(host.model.ids(), ["ses_1", "ses_2"]);
    assert_eq!(host.model.state(), "stale");
}

#[test]
fn sighup_loads_a_valid_config_and_rejects_a_bad_one() {
    let _limit = support::limit(60);
    let place = Place::new();
    let (one, two) = (
        Machine::new(&["ses_one", "ses_both"]),
        Machine::new(&["ses_both", "ses_two"]),
    );
    one.made
        .run("UPDATE session SET time_updated = 9 WHERE id = 'ses_both'");
    place.config(&database("one", &one.made.db));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the first listing", |model| model.state() == "ok");

    place.config(&(database("one", &one.made.db) + &remote("two", &two.words(), "1s")));
    host.signal(Signal::HUP);
    host.until("the other source", |model| model.sessions.len() == 3);
    assert_eq!(host.model.ids(), ["ses_both", "ses_one", "ses_two"]);
    let both = &host.model.sessions["ses_both"];
    assert_eq!(
        (&both["source"], &both["also"]),
        (&json!("one"), &json!(["two"]))
    );
    assert_eq!(host.model.health["one"]["state"], "ok", "it went on");

    let bad = place.config("[[source]]\nname = \"one\"\npath = \"/x\"\n");
    host.signal(Signal::HUP);
    let expected = format!(
        "{}:3: unknown key `path`; expected one of `name`, `db`, `command`, `every`",
        bad.display()
    );
    wait_until("the report", || host.log().contains(&expected));
    two.made.session("ses_more", 9);
    host.until("the old ones go on", |model| {
        model.sessions.contains_key("ses_more")
    });

    // Of equal rows the first source's is shown; the order is that of the file.
    two.made
        .run("UPDATE session SET time_updated = 9 WHERE id = 'ses_both'");
    one.made.session("ses_last", 10);
    host.until("all", |model| model.sessions.len() == 5);
    place.config(&(remote("two", &two.words(), "1s") + &database("one", &one.made.db)));
    host.signal(Signal::HUP);
    host.until("the other order", |model| {
        model.sessions["ses_both"]["source"] == "two"
    });

    // The same database under another name, and nothing else.
    place.config(&database("renamed", &two.made.db));
    host.signal(Signal::HUP);
    host.until("the new source", |model| {
        model.health.keys().eq(["renamed"])
    });
    host.until("its listing", |model| model.sessions.len() == 3);
    assert_eq!(host.model.ids(), ["ses_both", "ses_more", "ses_two"]);
    assert_eq!(host.model.sessions["ses_both"]["also"], Value::Null);
    let refreshed = host.ask("refresh");
    assert_eq!(
        refreshed["refreshed"],
        json!([{"source": "renamed", "outcome": "ok"}])
    );
}

#[test]
fn refresh_of_a_removed_source_is_answered() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let hangs = remote("hangs", &[place.misbehaving("hangs-after-hello")], "1s");
    place.config(&(database("fine", &fine.made.db) + &hangs));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the fine one", |model| {
        model.health["fine"]["state"] == "ok"
    });
    let refresh = host.tell("refresh");
    // Commands are taken in order, and a signal overtakes them.
    host.ask("status");
    place.config(&database("fine", &fine.made.db));
    host.signal(Signal::HUP);
    host.until("the reply", |model| {
        model.events.iter().any(|event| event["id"] == refresh)
    });
    let replies = host.model.of_type("reply", 0);
    let reply = replies.into_iter().find(|reply| reply["id"] == refresh);
    let reply = reply.unwrap();
    let gone = list(&reply["refreshed"])
        .iter()
        .find(|one| one["source"] == "hangs");
    assert_eq!(gone.unwrap()["reason"], "source removed by a reload");
    // Where only the pace is another it goes on.
    let refresh = host.tell("refresh");
    place.config(&(database("fine", &fine.made.db) + &remote("far", &fine.words(), "1s")));
    host.signal(Signal::HUP);
    host.until("the new one", |model| model.health.contains_key("far"));
    let again = host.tell("refresh");
    place.config(&(database("fine", &fine.made.db) + &remote("far", &fine.words(), "2s")));
    host.signal(Signal::HUP);
    for refresh in [refresh, again] {
        host.until("the replies", |model| {
            model.events.iter().any(|event| event["id"] == refresh)
        });
        let reply = host
            .model
            .events
            .iter()
            .find(|event| event["id"] == refresh);
        let outcomes = list(&reply.unwrap()["refreshed"]).iter();
        let outcomes: Vec<_> = outcomes.map(|one| text(&one["outcome"])).collect();
        assert!(outcomes.iter().all(|outcome| outcome == "ok"), "{reply:?}");
    }
    host.leave();
    let (status, _, _) = host.end();
    assert_eq!(status.code(), Some(0));
}

/// Another command of the same name is not taken for the old one.
#[test]
fn new_command_under_an_old_name_starts_afresh() {
    let _limit = support::limit(60);
    let (place, one) = (Place::new(), Machine::new(&["ses_old"]));
    place.config(&remote("devbox", &one.words(), "1s"));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the first listing", |model| model.state() == "ok");
    let hangs = place.misbehaving("hangs-after-hello");
    place.config(&remote("devbox", &[hangs], "1s"));
    host.signal(Signal::HUP);
    host.until("the other one", |model| model.state() == "stale");
    assert_eq!(host.model.ids(), ["ses_old"], "nothing is lost");
    let two = Machine::new(&["ses_new"]);
    place.config(&remote("devbox", &two.words(), "1s"));
    host.signal(Signal::HUP);
    host.until("its listing", |model| model.state() == "ok");
    assert_eq!(host.model.ids(), ["ses_new"]);
    // That the old listings were ended says nothing of the new source.
    host.take_for(Duration::from_millis(300));
    let health = host.model.of_type("health", 0);
    assert!(
        health
            .iter()
            .all(|event| event["health"]["kind"] != "cancelled"),
        "{health:?}"
    );
}

#[test]
fn failing_source_delays_no_look_up() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let hangs = remote("hangs", &[place.misbehaving("hangs-before-output")], "1s");
    place.config(&(database("fine", &fine.made.db) + &hangs));
    let mut command = place.serve();
    let mut host = Host::greeted(command.args(["--deadline", "1s"]));
    host.until("the failure", |model| {
        model.health["hangs"]["state"] == "failing"
    });
    let since = Instant::now();
    for n in 0..20 {
        host.say(
            format!("{{\"type\":\"get\",\"ids\":[\"ses_1\",\"ses_x\"],\"id\":\"q{n}\"}}\n")
                .as_bytes(),
        );
        let id = format!("q{n}");
        host.until("the answer", |model| {
            model.events.last().unwrap()["id"] == *id
        });
        let answers = &host.model.events.last().unwrap()["answers"];
        assert_eq!(answers[0]["type"], "session", "{answers}");
        assert_eq!(answers[1]["type"], "failed", "nobody knows: {answers}");
    }
    // One would take two seconds.
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "{:?}",
        since.elapsed()
    );
}

#[test]
#[cfg(target_os = "linux")]
fn dead_disk_delays_only_its_own_source() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let disk = preload::Library::of("hanging_disk.c");
    let hangs = place.path("hanging-disk");
    fs::create_dir(&hangs).unwrap();
    place.config(&(database("hangs", &hangs.join("x.db")) + &database("fine", &fine.made.db)));
    let mut command = place.command(&["list", "--format", "ids", "--deadline", "2s", "--config"]);
    command.arg(place.path("config.toml"));
    let output = command.env("LD_PRELOAD", disk.path()).output().unwrap();
    assert_eq!(output.stdout, b"ses_1\n", "{output:?}");
    // Neither does it keep the paths behind it from being resolved.
    let link = place.path("link.db");
    std::os::unix::fs::symlink(&fine.made.db, &link).unwrap();
    let mut command = place.command(&["list", "--format", "ndjson", "--deadline", "2s", "--db"]);
    command.arg(hangs.join("x.db")).arg("--db").arg(&link);
    command.arg("--db").arg(&fine.made.db);
    let output = command.env("LD_PRELOAD", disk.path()).output().unwrap();
    assert_eq!(stdout(&output)[0]["also"], Value::Null, "{output:?}");
    let mut host = Host::greeted(place.serve().env("LD_PRELOAD", disk.path()));
    host.until("the fine one", |model| {
        model.health["fine"]["state"] == "ok"
    });
    for n in 0..2 {
        let id = format!("ses_new_{n}");
        fine.made.session(&id, 5);
        host.signal(Signal::HUP);
        host.until("the change", |model| model.sessions.contains_key(&id));
    }
}

/// Among other sources, a database that was not named and is not there is none.
#[test]
fn missing_unnamed_database_is_not_a_source() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    place.config(&(format!("discover = true\n{}", remote("far", &fine.words(), "15s"))));
    let output = place.run(&["get", "ses_1", "ses_x"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(stdout(&output)[1], json!({"type": "absent", "id": "ses_x"}));
    // Of one that was named nobody knows what it has.
    let away = database("away", &place.path("away.db"));
    place.config(&(away + &remote("far", &fine.words(), "15s")));
    let output = place.run(&["get", "ses_1", "ses_x"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = stdout(&output)[1]["message"].to_string();
    assert!(message.contains("away: no database at "), "{message}");
}

/// A copy that is not archived does not bring it back after a restart, though the source of the
/// archived one is away.
#[test]
fn archived_session_stays_hidden_without_its_source() {
    let _limit = support::limit(60);
    let place = Place::new();
    let (live, copied) = (Machine::new(&["ses_1"]), Machine::new(&["ses_1"]));
    copied.made.run("PRAGMA wal_checkpoint(truncate)");
    live.made
        .run("UPDATE session SET time_archived = 1, time_updated = 9");
    let words: Vec<_> = live
        .words()
        .iter()
        .map(|word| format!("'{word}'"))
        .collect();
    let program = place.program(
        "live",
        &format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")),
    );
    let copy = place.path("copy.db");
    place.config(&(remote("live", &[program], "1s") + &database("copy", &copy)));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the live one", |model| {
        model.health["live"]["state"] == "ok"
    });
    // The copy comes when that is known.
    fs::copy(&copied.made.db, &copy).unwrap();
    support::settle(&copy);
    host.until("the copy", |model| model.health["copy"]["state"] == "ok");
    assert!(host.model.ids().is_empty());
    host.leave();
    host.end();
    // Nothing that is shown has changed, and what is hidden is known all the same.
    place.program("live", "#!/bin/sh\nexit 1\n");
    let mut host = Host::greeted(&mut place.serve());
    host.until("the failure", |model| {
        model.health["live"]["state"] == "failing"
    });
    host.until("the copy", |model| model.health["copy"]["state"] == "ok");
    assert!(host.model.ids().is_empty());
    assert!(host.model.of_type("change", 0).is_empty());
}

// ---- One session in two places.

/// The other source is named beside it.
#[test]
fn copied_database_shows_each_session_once() {
    let _limit = support::limit(60);
    let (place, live) = (Place::new(), Machine::new(&["ses_1", "ses_2", "ses_3"]));
    live.made.run("PRAGMA wal_checkpoint(truncate)");
    let copy = place.path("copy.db");
    fs::copy(&live.made.db, &copy).unwrap();
    support::settle(&copy);
    place.config(&(database("copy", &copy) + &database("live", &live.made.db)));
    live.made.run(
        "UPDATE session SET title = 'newer', time_updated = 10 WHERE id = 'ses_1';
         UPDATE session SET time_archived = 10, time_updated = 10 WHERE id = 'ses_2';
         DELETE FROM session WHERE id = 'ses_3'",
    );
    let sessions = stdout(&place.run(&["list", "--format", "ndjson"]));
    assert_eq!(
        ids(&sessions),
        ["ses_1", "ses_3"],
        "an archived one is not there by its copy"
    );
    assert_eq!(sessions[0]["title"], "newer");
    assert_eq!(
        (&sessions[0]["source"], &sessions[0]["also"]),
        (&json!("live"), &json!(["copy"]))
    );
    assert_eq!(
        (&sessions[1]["source"], &sessions[1]["also"]),
        (&json!("copy"), &Value::Null)
    );
    let all = stdout(&place.run(&["list", "--format", "ndjson", "--archived"]));
    assert_eq!(ids(&all), ["ses_1", "ses_2", "ses_3"]);
    let table = place.run(&["list"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.lines().next().unwrap().ends_with(" SOURCE"),
        "{table}"
    );
    assert!(table.contains("live, copy"), "{table}");

    let mut host = Host::greeted(&mut place.serve());
    host.until("both", |model| {
        model.health.values().all(|health| health["state"] == "ok")
    });
    let listed: BTreeMap<_, _> = sessions
        .iter()
        .map(|session| (text(&session["id"]), session.clone()))
        .collect();
    assert_eq!(host.model.sessions, listed, "as list has them");
    // The copy is left behind, and the other way round.
    live.made
        .run("UPDATE session SET time_archived = NULL, time_updated = 11 WHERE id = 'ses_2'");
    host.until("its return", |model| model.sessions.contains_key("ses_2"));
    live.made.run("DELETE FROM session WHERE id = 'ses_1'");
    host.until("its copy", |model| {
        model.sessions["ses_1"]["source"] == "copy"
    });
    assert_eq!(host.model.sessions["ses_1"]["title"], "Title of ses_1");
    assert_eq!(host.model.sessions["ses_1"]["also"], Value::Null);
}
