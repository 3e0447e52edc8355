//! Sessions that a service looks up, and marks that it learns later.

use std::os::unix::fs::symlink;
use std::time::Instant;

use opencode_sessions::marker_text::MarkerText;
use serde_json::{Value, json};

use crate::common::{END, made, settle, socket, state};
use crate::support::{self, Helper, Host, list, quick_status, serve, wait_for};

#[test]
fn look_up_asks_all_sources_at_once() {
    let _limit = support::limit(60);
    let (one, other) = (
        made(&["ses_one", "ses_both"]),
        made(&["ses_other", "ses_both"]),
    );
    one.run("UPDATE session SET time_archived = 1, time_updated = 99 WHERE id = 'ses_both'");
    other.run(
        "UPDATE session SET parent_id = 'ses_both' WHERE id = 'ses_other';
         UPDATE session SET title = 'the older one' WHERE id = 'ses_both'",
    );
    let directory = one.directory.path().join("other");
    symlink(other.directory.path(), &directory).unwrap();
    let mut command = serve(&one.db, &state(&one));
    command.arg("--db").arg(directory.join("opencode.db"));
    let mut host = Host::greeted(&mut command);
    let ask = |host: &mut Host, command: &str, ids: &[&str]| {
        let question = json!({"type": command, "ids": ids, "id": "a question"});
        host.say(format!("{question}\n").as_bytes());
        host.until("the answers", |model| {
            let last = model.events.last().unwrap();
            last["type"] == "reply" && last["id"] == "a question"
        });
        let reply = host.model.events.last().unwrap().clone();
        // So that the last event is no reply.
        host.model.events.push(json!({"type": "none"}));
        reply
    };
    let reply = ask(&mut host, "get", &["ses_other", "ses_none", "ses_both"]);
    let answers = list(&reply["answers"]);
    assert_eq!(answers.len(), 3);
    assert_eq!(
        (&answers[0]["type"], &answers[0]["id"]),
        (&json!("session"), &json!("ses_other"))
    );
    assert_eq!(answers[0]["parentId"], "ses_both");
    assert!(answers[0]["project"].is_string());
    assert_eq!(answers[1], json!({"type": "absent", "id": "ses_none"}));
    assert_eq!(answers[2]["title"], "Title of ses_both", "the newer one");
    assert_eq!(answers[2]["timeArchived"], 1);
    assert_ne!(answers[0]["source"], answers[2]["source"]);
    let reply = ask(&mut host, "roots", &["ses_other", "ses_none"]);
    let root = json!({"type": "root", "id": "ses_other", "root": "ses_both", "directory": "/usr",
        "source": answers[0]["source"]});
    let unresolved = json!({"type": "unresolved", "id": "ses_none", "reason": "absent"});
    assert_eq!(reply["answers"], json!([root, unresolved]));
    // Nobody can say that there is none where one of the sources cannot be asked.
    other.run("DROP TABLE session; CREATE VIEW session AS SELECT 1 AS id");
    let reply = ask(&mut host, "get", &["ses_none", "ses_one"]);
    assert_eq!(reply["answers"][0]["type"], "failed");
    assert_eq!(reply["answers"][1]["type"], "session");
    for ids in [vec![], vec!["x"; 1001], vec!["a\nb"]] {
        let ids = json!({"type": "get", "ids": ids, "id": 7}).to_string();
        host.say(format!("{ids}\n").as_bytes());
        host.until("an error", |model| {
            model.events.last().unwrap()["error"].is_object()
        });
        host.model.events.push(json!({"type": "none"}));
    }
    assert_eq!(host.status()["sources"].as_array().unwrap().len(), 2);
}

#[test]
fn hanging_look_ups_end_and_delay_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    helper.becomes("hangs-after-hello");
    for _ in 0..9 {
        host.say(b"{\"type\":\"get\",\"ids\":[\"ses_1\"],\"id\":1}\n");
    }
    // One too many.
    host.until("a refusal", |model| {
        model.events.last().unwrap()["error"].is_object()
    });
    quick_status(&socket(&made));
    host.until("the answers", |model| {
        let replies = model.of_type("reply", 0);
        replies
            .iter()
            .filter(|reply| reply["answers"][0]["type"] == "failed")
            .count()
            == 8
    });
    // And at the end they are ended.
    let before = helper.pids().len();
    host.say(b"{\"type\":\"roots\",\"ids\":[\"ses_1\"]}\n");
    wait_for("its launch", || {
        (helper.pids().len() > before).then_some(())
    });
    let started = Instant::now();
    host.leave();
    host.end();
    assert!(started.elapsed() < END);
    assert_eq!(helper.running(), []);
}

/// A listing does not wait for the marker: what it did not find out in its budget,
/// the next ones do, and each mark is told when it is known.
#[test]
fn mark_known_later_is_sent_as_a_change() {
    let _limit = support::limit(90);
    let made = made(&["ses_marked", "ses_other"]);
    made.run("BEGIN");
    for _ in 0..600 {
        made.part("ses_other", &"x".repeat(60_000));
    }
    made.part("ses_marked", MarkerText::DEFAULT);
    made.run("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
    settle(&made);
    let helper = Helper::new();
    // The real one, with one of the two seconds that the service gives it in a
    // thousand.
    helper.becomes_script(
        "#!/bin/sh\nfor word; do\n  shift\n  [ \"$word\" = 2000 ] && word=2\n  set -- \"$@\" \"$word\"\ndone\n\
         exec \"${0%/*}/opencode-lister\" \"$@\"\n",
    );
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    let mark = |sessions: &[Value], id: &str| {
        let session = sessions.iter().find(|session| session["id"] == id);
        session.map(|session| session["marked"].clone())
    };
    host.until("all marks", |model| {
        model
            .sessions
            .values()
            .all(|session| session["marked"].is_boolean())
    });
    let told = |id| {
        let changes = host.model.of_type("change", 0);
        let marks = changes
            .iter()
            .filter_map(|change| mark(list(&change["upserted"]), id));
        marks.collect::<Vec<_>>()
    };
    assert_eq!(told("ses_marked"), [Value::Null, Value::Bool(true)]);
    assert_eq!(told("ses_other"), [Value::Null, Value::Bool(false)]);
    let status = host.status();
    assert_eq!(status["sources"][0]["scan"]["progress"], 1.0, "{status}");
    assert!(status["listings"].as_u64().unwrap() > 2, "{status}");
}
