//! A second host with the same sources passes on what the first service says.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use opencode_sessions::marker_text::MarkerText;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Daemon, made, plain, settle, socket, start, state, until_listed};
use crate::support::{self, Host, Made, ask_at, serve, wait_for};

#[test]
fn second_host_gets_the_events_of_the_first() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut first = start(&made);
    let link = made.directory.path().join("link.db");
    symlink(&made.db, &link).unwrap();
    for db in [&made.db, &link] {
        let mut second = Host::well(&mut serve(db, &state(&made)));
        assert_eq!(
            second.model.events[0], first.model.events[0],
            "the first one's hello"
        );
        assert_eq!(second.model.sessions, first.model.sessions);
        let id = format!("ses_of_{}", second.pid());
        made.session(&id, 2);
        for host in [&mut first, &mut second] {
            host.until("the change", |model| model.ids().contains(&id.as_str()));
        }
        assert_eq!(second.refresh()["outcome"], "ok");
        assert_eq!(second.status()["pid"], first.pid());
        second.say(b"nonsense\n");
        second.until("an error", |model| {
            model.events.last().unwrap()["error"].is_object()
        });
        second.leave();
        let (status, _, log) = second.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(first.refresh()["outcome"], "ok", "the first one goes on");
    }
    // The second one goes on when the first one ends.
    let mut second = Host::well(&mut serve(&made.db, &state(&made)));
    let before = second.model.events.len();
    first.end_by(Signal::TERM);
    made.session("ses_after", 9);
    second.until("what came after", |model| {
        model.ids().contains(&"ses_after") && model.state() == "ok"
    });
    assert_eq!(second.model.of_type("snapshot", before).len(), 1);
    // It has the socket, too.
    let (reply, _) = ask_at(&socket(&made), "status");
    assert_eq!(reply["status"]["pid"], second.pid());
    assert_eq!(second.model.of_type("bye", 0).len(), 0);
    assert_eq!(second.model.of_type("hello", 0).len(), 1);
    let (status, model, log) = second.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(model.events.last().unwrap()["type"], "bye");
}

#[test]
fn hosts_started_at_once_are_all_served() {
    let _limit = support::limit(90);
    for round in 0..15 {
        let made = made(&["ses_1"]);
        let (db, state) = (&made.db, &state(&made));
        let start = || {
            let mut host = Host::start(&mut serve(db, state));
            host.until("a listing", |model| {
                model.events.len() > 1 && model.state() == "ok"
            });
            host
        };
        let hosts: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
            starting
                .into_iter()
                .map(|host| host.join().unwrap())
                .collect()
        });
        let served_by = |host: &Host| host.model.events[0]["pid"].as_u64();
        let by: BTreeSet<_> = hosts.iter().map(served_by).collect();
        assert_eq!(by.len(), 1, "round {round}: by one of them");
    }
}

/// Between taking the index and answering there is a moment. Here the first
/// service is this test, which takes its time.
#[test]
fn second_host_waits_for_a_starting_one() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    fs::create_dir(state(&made)).unwrap();
    let lock = File::create(state(&made).join("lock")).unwrap();
    lock.try_lock().unwrap();
    let mut host = Host::start(&mut serve(&made.db, &state(&made)));
    // It goes on waiting, and starts nothing.
    thread::sleep(Duration::from_millis(300));
    let listener = UnixListener::bind(socket(&made)).unwrap();
    let path = made.db.canonicalize().unwrap();
    let hello = json!({"type": "hello", "protocol": 3, "version": "0", "pid": 1,
        "marker": MarkerText::DEFAULT, "sources": [{"source": "opencode.db", "path": path}]});
    let snapshot = json!({"type": "snapshot", "revision": 0, "sources": [], "sessions": []});
    thread::spawn(move || {
        // For as long as somebody listens.
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = write!(stream, "{hello}\n{snapshot}\n");
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    host.until("the other one's snapshot", |model| model.events.len() > 1);
    assert_eq!(host.model.events[0]["pid"], 1);
}

#[test]
fn host_beside_a_daemon_gets_its_events() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let daemon = Daemon::start(&mut plain(&made.db, &state(&made)));
    until_listed(&socket(&made));
    let mut host = Host::well(&mut serve(&made.db, &state(&made)));
    assert_eq!(host.model.events[0]["pid"], daemon.child.id());
    made.session("ses_2", 2);
    host.until("the change", |model| model.ids().len() == 2);
    // One that is gone is not gone for the host.
    drop(daemon);
    made.session("ses_3", 3);
    host.until("the next change", |model| model.ids().len() == 3);
    assert_eq!(host.refresh()["outcome"], "ok");
}

/// SIGHUP means the same to a host whoever keeps the index; a configuration that is wrong
/// ends nobody, then or when the other one has ended.
#[test]
fn relaying_host_reloads_its_config_or_keeps_the_old() {
    let _limit = support::limit(60);
    let (made, other) = (made(&["ses_1"]), Made::new());
    other.session("ses_other", 1);
    settle(&made);
    let config = made.directory.path().join("config.toml");
    let configure = |sources: &[&Path]| {
        let source = |db: &&Path| format!("[[source]]\ndb = {:?}\n", db.to_str().unwrap());
        fs::write(&config, sources.iter().map(source).collect::<String>()).unwrap();
    };
    let configured = || {
        let mut command = support::command(support::sessions());
        command.args(["serve", "--stdio", "--config"]).arg(&config);
        command.arg("--state-dir").arg(state(&made));
        command
    };
    configure(&[&made.db]);
    let first = Host::well(&mut configured());
    let mut second = Host::well(&mut configured());
    assert_eq!(second.model.events[0]["pid"], first.pid());
    // No file has changed, and the service makes sure of that.
    let as_of = |status: &Value| status["sources"][0]["asOf"].as_i64();
    let before = as_of(&second.status());
    second.signal(Signal::HUP);
    second.until_status("a listing", |status| as_of(status) > before);
    fs::write(&config, "this is no configuration").unwrap();
    let before = second.log().matches("the old one stays").count();
    second.signal(Signal::HUP);
    wait_for("the refusal", || {
        (second.log().matches("the old one stays").count() > before).then_some(())
    });
    assert_eq!(second.status()["pid"], first.pid());
    first.kill();
    made.session("ses_2", 2);
    second.until("the change", |model| model.ids().len() == 2);
    assert_eq!(second.status()["pid"], second.pid());
    assert_eq!(second.model.of_type("hello", 0).len(), 1);
    // And where it is right again it is taken.
    configure(&[&other.db]);
    second.signal(Signal::HUP);
    second.until("the other source", |model| model.ids() == ["ses_other"]);
}

#[test]
fn second_daemon_names_the_first_and_exits_75() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut first = start(&made);
    let other = Made::new();
    for db in [&made.db, &other.db] {
        let mut command = plain(db, &state(&made));
        let output = command.stdin(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(75), "{output:?}");
        assert_eq!(output.stdout, b"");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let holder = format!("process {}", first.pid());
        assert!(
            stderr.contains(&holder) && stderr.contains("--state-dir"),
            "{stderr}"
        );
    }
    assert_eq!(first.refresh()["outcome"], "ok");
}

#[test]
fn host_with_another_config_has_its_own_index() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut first = start(&made);
    let other = Made::new();
    other.session("ses_other", 1);
    let mut both = serve(&made.db, &state(&made));
    both.arg("--db").arg(&other.db);
    let mut marker = serve(&made.db, &state(&made));
    marker.args(["--marker", "another tool's marker"]);
    let mut hosts: Vec<_> = [serve(&other.db, &state(&made)), both, marker]
        .iter_mut()
        .map(Host::greeted)
        .collect();
    for (host, ids) in
        hosts
            .iter_mut()
            .zip([&["ses_other"][..], &["ses_1", "ses_other"], &["ses_1"]])
    {
        host.until("its own sessions", |model| model.ids() == ids);
        assert_eq!(host.status()["pid"], host.pid());
    }
    // And the next one of the same shares it.
    let second = Host::well(&mut serve(&other.db, &state(&made)));
    assert_eq!(second.model.events[0]["pid"], hosts[0].pid());
    assert_eq!(first.refresh()["outcome"], "ok");
}
