//! What a running service says and is told.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{assert_keys, made, start, state};
use crate::support::{self, Helper, Host, expected, list, serve, text};

#[test]
fn service_starts_with_hello_and_snapshot() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let host = Host::greeted(&mut serve(&made.db, &state(&made)));
    let [hello, snapshot] = &host.model.events[..2] else {
        panic!();
    };
    assert_keys(
        hello,
        &[
            "type",
            "protocol",
            "version",
            "pid",
            "marker",
            "sources",
            "capabilities",
        ],
    );
    assert_eq!(hello["protocol"], 3);
    assert_eq!(hello["capabilities"], json!([]));
    assert_eq!(hello["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(hello["pid"], host.pid());
    assert!(hello["marker"].is_string());
    let path = made.db.canonicalize().unwrap();
    assert_eq!(
        hello["sources"],
        json!([{"source": "opencode.db", "path": path}])
    );
    assert_keys(snapshot, &["type", "revision", "sources", "sessions"]);
    let [source] = list(&snapshot["sources"]) else {
        panic!("{snapshot}");
    };
    assert_keys(source, &["source", "health"]);
    let mut without_marker = serve(&made.db, &made.directory.path().join("other"));
    let host = Host::greeted(without_marker.arg("--no-marker"));
    assert_eq!(host.model.events[0]["marker"], Value::Null);
}

#[test]
fn change_event_is_the_difference_of_two_lists() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2", "ses_3"]);
    let mut host = start(&made);
    assert_eq!(host.model.sessions, expected(&made.db));
    let before = host.model.events.len();
    made.run(
        "BEGIN; DELETE FROM session WHERE id = 'ses_1';
         UPDATE session SET title = 'another \u{1b}[31m' WHERE id = 'ses_2';
         INSERT INTO session SELECT 'ses_4', project_id, workspace_id, 'ses_3', slug, directory,
           path, title, version, share_url, summary_additions, summary_deletions, summary_files,
           summary_diffs, metadata, cost, tokens_input, tokens_output, tokens_reasoning,
           tokens_cache_read, tokens_cache_write, revert, permission, agent, model, time_created,
           time_updated, time_compacting, time_archived FROM session WHERE id = 'ses_3';
         COMMIT",
    );
    made.session("ses_5", 9);
    host.until("the changes", |model| {
        model.ids() == ["ses_2", "ses_3", "ses_5"]
    });
    assert_eq!(host.model.sessions, expected(&made.db));
    let changes = host.model.of_type("change", before);
    let upserted: Vec<_> = changes
        .iter()
        .flat_map(|change| list(&change["upserted"]))
        .collect();
    let ids: BTreeSet<_> = upserted
        .iter()
        .map(|session| text(&session["id"]))
        .collect();
    assert_eq!(
        ids,
        ["ses_2", "ses_5"].map(str::to_owned).into(),
        "{upserted:#?}"
    );
    let removed: Vec<_> = changes
        .iter()
        .flat_map(|change| list(&change["removed"]))
        .collect();
    assert_eq!(removed, ["ses_1"]);
    assert_keys(changes[0], &["type", "revision", "upserted", "removed"]);
    // Nothing is announced when nothing changed.
    let before = host.model.events.len();
    host.refresh();
    assert_eq!(host.model.events.len(), before + 1);
}

#[test]
fn health_event_has_state_and_reason() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let helper = Helper::new();
    let mut command = serve(&made.db, &state(&made));
    let mut host = Host::well(command.arg("--lister").arg(helper.program()));
    let mut event = host.model.of_type("health", 0)[0].clone();
    let as_of = event.as_object_mut().unwrap().remove("asOf").unwrap();
    assert!(as_of.as_i64() > Some(1_700_000_000_000), "{as_of}");
    assert_eq!(
        event,
        json!({"type": "health", "source": "opencode.db", "health": {"state": "ok"}})
    );
    helper.becomes("exits-with-error-io");
    let outcome = host.refresh();
    assert_keys(&outcome, &["source", "outcome", "reason"]);
    assert_eq!(outcome["outcome"], "failed");
    let event = host.model.of_type("health", 0)[1].clone();
    let health = &event["health"];
    assert_keys(
        health,
        &["state", "since", "kind", "reason", "attempts", "nextTry"],
    );
    assert_eq!(health["state"], "failing");
    assert_eq!(health["attempts"], 1);
    assert_eq!(health["reason"], outcome["reason"]);
    let now = jiff::Timestamp::now().as_millisecond();
    let (since, next) = (
        health["since"].as_i64().unwrap(),
        health["nextTry"].as_i64().unwrap(),
    );
    assert!((now - 30_000..=now).contains(&since), "{health}");
    assert!((since + 700..since + 3_000).contains(&next), "{health}");
    let status = host.status();
    assert_eq!(status["failures"], json!({"io": 1}));
}

#[test]
fn reply_has_the_id_of_its_command() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    for id in [
        json!(7),
        json!(-1),
        json!(i64::MAX),
        json!("a \u{1b} text"),
        json!(""),
        Value::Null,
    ] {
        for command in ["status", "snapshot", "refresh"] {
            host.say(format!("{}\n", json!({"id": id, "type": command})).as_bytes());
            let before = host.model.events.len();
            host.until("the reply", |model| {
                model.events.last().unwrap()["type"] == "reply"
            });
            let reply = host.model.events.last().unwrap().clone();
            assert_eq!(reply["id"], id);
            match command {
                "status" => assert_keys(&reply, &["type", "id", "status"]),
                "refresh" => assert_eq!(
                    reply["refreshed"],
                    json!([{"source": "opencode.db", "outcome": "ok"}])
                ),
                _ => {
                    assert_eq!(reply["done"], true);
                    let snapshots = host.model.of_type("snapshot", before);
                    assert_eq!(snapshots.len(), 1, "before its reply");
                }
            }
            host.say(b"\n \t\r\n");
            // So that the last event is no reply.
            host.say(b"{\"type\":\"snapshot\",\"id\":\"again\"}\n");
            host.until("the next", |model| {
                model.events.last().unwrap()["id"] == "again"
            });
            host.model.events.push(json!({"type": "none"}));
        }
    }
    host.say(b"{\"type\":\"status\"}\n");
    host.until("the reply", |model| {
        model.events.last().unwrap()["type"] == "reply"
    });
    assert_eq!(host.model.events.last().unwrap()["id"], Value::Null);
}

#[test]
fn status_has_health_and_counts() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let mut host = start(&made);
    let status = host.status();
    assert_keys(
        &status,
        &[
            "version",
            "pid",
            "uptimeMs",
            "revision",
            "sessions",
            "sources",
            "spawns",
            "listings",
            "failures",
            "latency",
            "bytesRead",
            "memory",
            "readers",
        ],
    );
    assert_keys(&status["latency"], &["count", "p50", "p99", "max"]);
    assert_eq!(status["pid"], host.pid());
    assert_eq!(status["sessions"], 2);
    assert_eq!(status["readers"], 1);
    assert_eq!(status["revision"], host.model.revision);
    assert!(status["spawns"].as_u64() >= Some(1));
    assert!(status["bytesRead"].as_u64() > Some(100));
    let source = &status["sources"][0];
    assert_keys(
        source,
        &[
            "source", "health", "asOf", "sessions", "watch", "listing", "scan", "stuck",
        ],
    );
    assert_eq!(source["health"], json!({"state": "ok"}));
    assert_eq!(source["watch"], "events");
    let before = status["spawns"].as_u64().unwrap();
    host.refresh();
    assert_eq!(host.status()["spawns"], before + 1);
}

#[test]
fn events_of_a_refresh_precede_its_reply() {
    let _limit = support::limit(60);
    let made = made(&[]);
    let mut host = start(&made);
    for n in 0..30 {
        let id = format!("ses_{n}");
        made.session(&id, n);
        assert_eq!(host.refresh()["outcome"], "ok");
        assert!(host.model.sessions.contains_key(&id), "{n}");
    }
    // Also a failure's, and what follows from it.
    made.run("DROP TABLE session; CREATE VIEW session AS SELECT 1 AS other");
    assert_eq!(host.refresh()["outcome"], "failed");
    assert_eq!(host.model.state(), "failing");
    assert_eq!(host.model.ids().len(), 30);
}

#[test]
fn invalid_command_is_explained_and_changes_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    let before = host.status();
    let deep = "[".repeat(100_000);
    let wrong: [(&[u8], &str); 13] = [
        (b"hello", "not_an_object"),
        (b"{", "not_an_object"),
        (b"{}", "invalid"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"\"refresh\"", "not_an_object"),
        (br#"{"type":"nonsense"}"#, "unknown_command"),
        (br#"{"type":"Refresh"}"#, "unknown_command"),
        (br#"{"type":7}"#, "invalid"),
        (br#"{"type":"refresh"} {"type":"refresh"}"#, "not_an_object"),
        (b"{\"type\":\"refresh\",\"id\":\"\xff\"}", "not_an_object"),
        (b"\x00\x1b[31m\x7f", "not_an_object"),
        (deep.as_bytes(), "not_an_object"),
    ];
    for (line, code) in wrong {
        host.say(line);
        host.say(b"\n");
        host.until("an error", |model| {
            model.events.last().unwrap()["type"] == "reply"
                && model.events.last().unwrap()["error"].is_object()
        });
        let reply = host.model.events.last().unwrap().clone();
        assert_keys(&reply, &["type", "id", "error"]);
        assert_keys(&reply["error"], &["code", "message"]);
        assert_eq!(reply["error"]["code"], code, "{reply}");
        // So that the next one is another.
        host.model.events.push(json!({"type": "none"}));
    }
    let after = host.status();
    for same in ["revision", "spawns", "listings", "failures", "readers"] {
        assert_eq!(after[same], before[same], "{same}");
    }
}

#[test]
fn overlong_line_is_rejected_as_a_whole() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    let long = |length: usize| "x".repeat(length);
    for line in [
        format!("{{\"type\":\"shutdown\",\"id\":\"{}\"}}", long(2 << 20)),
        format!("{}{{\"type\":\"shutdown\"}}", long(1 << 20)),
        long((1 << 20) + 1),
        long(1 << 20),
    ] {
        host.say(line.as_bytes());
        host.say(b"\n{\"type\":\"status\",\"id\":\"after\"}\n");
        let before = host.model.events.len();
        host.until("the next reply", |model| {
            model.events.last().unwrap()["id"] == "after"
        });
        let replies = host.model.of_type("reply", before);
        assert_eq!(replies.len(), 2, "one for the whole line: {replies:?}");
        let said = text(&replies[0]["error"]["message"]);
        assert!(said.contains("at most 1048576 bytes"), "{said}");
        assert_eq!(replies[0]["error"]["code"], "too_long");
        host.model.events.push(json!({"type": "none"}));
    }
    // As long as may be.
    let more = long((1 << 20) - 1 - r#"{"type":"status","id":"all","more":""}"#.len());
    let line = format!("{{\"type\":\"status\",\"id\":\"all\",\"more\":\"{more}\"}}\n");
    assert_eq!(line.len(), 1 << 20);
    host.say(line.as_bytes());
    host.until("the reply", |model| {
        model.events.last().unwrap()["type"] == "reply"
    });
    let reply = host.model.events.last().unwrap();
    assert_eq!(reply["id"], "all");
    assert!(reply["status"].is_object());
}
