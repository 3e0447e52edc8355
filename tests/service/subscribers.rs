//! Subscribers: one that stops reading, and what each of several subscribed to.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{made, settle, socket, start, state};
use crate::support::{self, Host, Made, ask_at, expected, list, quick_status, serve, text};

// ---- A reader that stops reading.

#[test]
fn slow_subscriber_delays_nobody_and_catches_up() {
    let _limit = support::limit(90);
    let made = made(&["ses_1", "ses_2"]);
    for n in 0..100 {
        made.session(&format!("ses_more_{n}"), n);
    }
    let mut host = start(&made);
    let unread = host.stop_reading();
    // A connection that never reads, too.
    let silent = UnixStream::connect(socket(&made)).unwrap();
    let mut asking = silent.try_clone().unwrap();
    thread::spawn(move || {
        // It waits as soon as too many are not answered.
        while asking.write_all(b"{\"type\":\"snapshot\"}\n").is_ok() {}
    });
    for _ in 0..600 {
        host.tell("snapshot");
    }
    for batch in 0..10 {
        made.run("BEGIN");
        for n in 0..100 {
            made.session(&format!("ses_{batch}_{n}"), n);
        }
        made.run("DELETE FROM session WHERE id LIKE 'ses_more_%' AND time_updated % 10 = 0");
        made.run(&format!(
            "UPDATE session SET title = 'batch {batch}' WHERE id = 'ses_1'; COMMIT"
        ));
        let (reply, _) = ask_at(&socket(&made), "refresh");
        assert_eq!(reply["refreshed"][0]["outcome"], "ok");
        let status = quick_status(&socket(&made));
        assert_eq!(
            status["sessions"].as_u64(),
            Some(2 + 90 + 100 * (batch + 1))
        );
    }
    drop(unread);
    let _ = silent.shutdown(Shutdown::Both);
    let all = expected(&made.db);
    host.until("the fresh snapshot", |model| model.sessions == all);
    let snapshots = host.model.of_type("snapshot", 0).len();
    assert!(snapshots < 400, "{snapshots} were kept for it");
    // And it goes on from there.
    made.session("ses_last", 1);
    host.until("one more change", |model| model.ids().contains(&"ses_last"));
    let last = host.model.events.last().unwrap();
    assert_eq!(last["type"], "change");
    assert_eq!(list(&last["upserted"]).len(), 1);
}

/// Nothing is lost of what a slow reader asks, and nothing piles up: what it has not read
/// the replies to is not taken.
#[test]
fn subscriber_with_unread_replies_is_paused_not_dropped() {
    const COMMANDS: usize = 20_000;
    let _limit = support::limit(120);
    let made = made(&["ses_1"]);
    settle(&made);
    let mut host = start(&made);
    let mut silent = UnixStream::connect(socket(&made)).unwrap();
    let before = host.status()["memory"].as_u64().unwrap();
    let mut writing = silent.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for id in 0..COMMANDS {
            let what = ["status", "snapshot", "nonsense"][id % 3];
            let line = format!("{{\"type\":\"{what}\",\"id\":{id}}}\n");
            writing.write_all(line.as_bytes()).unwrap();
        }
    });
    for _ in 0..50 {
        quick_status(&socket(&made));
    }
    assert!(!writer.is_finished(), "all of it was taken");
    let after = host.status()["memory"].as_u64().unwrap();
    assert!(after < before + (8 << 20), "from {before} to {after} bytes");
    // And now it reads.
    silent
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let lines = BufReader::new(&mut silent).lines().map(Result::unwrap);
    let mut ids = lines.filter_map(|line| {
        let event: Value = serde_json::from_str(&line).unwrap();
        (event["type"] == "reply").then(|| event["id"].as_u64())
    });
    for id in 0..COMMANDS {
        assert_eq!(ids.next(), Some(Some(id as u64)));
    }
    writer.join().unwrap();
    assert_eq!(host.refresh()["outcome"], "ok");
}

// ---- Children and archived sessions.

/// A database with a root, its child, an archived root and an archived child.
fn family() -> Made {
    let made = made(&["ses_root", "ses_child", "ses_old", "ses_old_child"]);
    made.run(
        "UPDATE session SET parent_id = 'ses_root' WHERE id = 'ses_child';
         UPDATE session SET parent_id = 'ses_old' WHERE id = 'ses_old_child';
         UPDATE session SET time_archived = 5 WHERE id LIKE 'ses_old%'",
    );
    made
}

const FAMILY: [&str; 4] = ["ses_child", "ses_old", "ses_old_child", "ses_root"];

#[test]
fn each_subscriber_sees_what_it_subscribed_to() {
    let _limit = support::limit(60);
    let made = family();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.args(["--children", "--archived"]));
    assert_eq!(
        host.model.events[0]["capabilities"],
        json!(["children", "archived"])
    );
    assert_eq!(host.model.ids(), FAMILY, "it is its own service's");
    for (children, archived, expected) in [
        (false, false, &["ses_root"][..]),
        (true, false, &["ses_child", "ses_root"]),
        (false, true, &["ses_old", "ses_root"]),
        (true, true, &FAMILY),
    ] {
        let subscribe = json!({"type": "subscribe", "children": children, "archived": archived,
            "id": "view"});
        host.say(format!("{subscribe}\n").as_bytes());
        host.until("the reply", |model| {
            model.events.last().unwrap()["id"] == "view"
        });
        assert_eq!(host.model.ids(), expected);
        let before = host.model.events.len();
        // Something of each kind changes, and each is told of what it sees.
        made.run("UPDATE session SET title = title || '.', time_updated = time_updated + 1");
        assert_eq!(host.refresh()["outcome"], "ok");
        let changes = host.model.of_type("change", before);
        assert_eq!(changes.len(), 1);
        assert_eq!(list(&changes[0]["upserted"]).len(), expected.len());
        // The next one archives a root, which goes from the sight of some.
        made.run("UPDATE session SET time_archived = 6 WHERE id = 'ses_root'");
        assert_eq!(host.refresh()["outcome"], "ok");
        assert_eq!(host.model.ids().contains(&"ses_root"), archived);
        made.run("UPDATE session SET time_archived = NULL WHERE id = 'ses_root'");
        assert_eq!(host.refresh()["outcome"], "ok");
        assert_eq!(host.model.ids(), expected);
    }
    // Another program sees the roots, until it asks for more.
    let mut usual = Host::well(&mut serve(&made.db, &state(&made)));
    assert_eq!(usual.model.events[0]["pid"], host.pid());
    assert_eq!(usual.model.ids(), ["ses_root"]);
    usual.say(b"{\"type\":\"subscribe\",\"children\":true}\n");
    usual.until("the children", |model| {
        model.ids() == ["ses_child", "ses_root"]
    });
    // And a host that wants them from the start gets one snapshot, with them.
    let mut command = serve(&made.db, &state(&made));
    let other = Host::well(command.arg("--archived"));
    assert_eq!(other.model.events[0]["pid"], host.pid());
    assert_eq!(other.model.ids(), ["ses_old", "ses_root"]);
    assert_eq!(other.model.of_type("snapshot", 0).len(), 1);
}

#[test]
fn unlisted_sessions_cannot_be_subscribed_to() {
    let _limit = support::limit(60);
    let made = family();
    let mut first = start(&made);
    assert_eq!(first.model.events[0]["capabilities"], json!([]));
    first.say(b"{\"type\":\"subscribe\",\"children\":true,\"id\":1}\n");
    first.until("the refusal", |model| {
        model.events.last().unwrap()["id"] == 1
    });
    let error = first.model.events.last().unwrap()["error"].clone();
    assert_eq!(error["code"], "invalid");
    assert!(text(&error["message"]).contains("--children"), "{error}");
    assert_eq!(first.model.ids(), ["ses_root"]);
    // Who wants them has an index of its own.
    let mut command = serve(&made.db, &state(&made));
    let mut second = Host::well(command.arg("--children"));
    assert_eq!(second.model.events[0]["pid"], second.pid());
    second.until("the children", |model| {
        model.ids() == ["ses_child", "ses_root"]
    });
}
