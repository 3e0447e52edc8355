//! Sessions of OpenCode 2 beside and instead of those of OpenCode 1, and what
//! people said in sessions that have no title.
//!
//! No OpenCode 2 could be had: its tables are as public issue threads show them
//! (anomalyco/opencode 41217, 49412, 49641, 50130).

use std::path::Path;

use opencode_sessions::marker_text::MarkerText;
use serde_json::{Value, json};

use crate::common::{prompt_of, session_v2, untitled};
use crate::support::{self, Made, ids, listing};

/// A database that an OpenCode 1 left and an OpenCode 2 has opened.
fn both() -> Made {
    let made = Made::new();
    made.run(&session_v2());
    made
}

fn v2(made: &Made, id: &str, updated: i64) {
    made.conn
        .execute(
            "INSERT INTO session_v2 (id, project_id, slug, directory, title, version, time_created, \
             time_updated) VALUES (?1, 'global', 'slug', '/usr', 'V2 title of ' || ?1, '2.0.0', 1, ?2)",
            (id, updated),
        )
        .unwrap();
}

/// Ids and the tables they came from.
fn stores(db: &Path, arguments: &[&str]) -> Vec<(String, String)> {
    let (sessions, _) = listing(db, arguments);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair = |session: &Value| (text(&session["id"]), text(&session["store"]));
    sessions.iter().map(pair).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(id, store): &(&str, &str)| ((*id).to_owned(), (*store).to_owned());
    expected.iter().map(pair).collect()
}

#[test]
fn sessions_of_both_tables_are_one_list() {
    let _limit = support::limit(60);
    let made = both();
    for (id, v1_updated, v2_updated) in [
        ("ses_only_1", Some(50), None),
        ("ses_only_2", None, Some(60)),
        ("ses_newer_in_1", Some(80), Some(40)),
        ("ses_newer_in_2", Some(10), Some(70)),
        ("ses_tie", Some(30), Some(30)),
    ] {
        v1_updated.inspect(|updated| made.session(id, *updated));
        v2_updated.inspect(|updated| v2(&made, id, *updated));
    }
    assert_eq!(
        stores(&made.db, &[]),
        pairs(&[
            ("ses_newer_in_1", "v1"),
            ("ses_newer_in_2", "v2"),
            ("ses_only_2", "v2"),
            ("ses_only_1", "v1"),
            ("ses_tie", "v2"),
        ])
    );
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(sessions[0]["title"], "Title of ses_newer_in_1");
    assert_eq!(sessions[1]["title"], "V2 title of ses_newer_in_2");
    assert_eq!(end["tables"], json!(["session", "session_v2"]));
    // That a session is in both is no fault of it.
    let none = json!({"invalidId": 0, "duplicateId": 0, "truncated": 0});
    assert_eq!(end["skipped"], none);
}

#[test]
fn newer_row_decides_whether_a_session_is_listed() {
    let _limit = support::limit(60);
    let made = both();
    for id in ["ses_archived", "ses_restored", "ses_child", "ses_lost"] {
        made.session(id, 10);
        v2(&made, id, 20);
    }
    made.run(
        "UPDATE session_v2 SET time_archived = 15 WHERE id = 'ses_archived';
         UPDATE session SET time_archived = 5 WHERE id = 'ses_restored';
         UPDATE session_v2 SET parent_id = 'ses_restored' WHERE id = 'ses_child';
         UPDATE session_v2 SET directory = '' WHERE id = 'ses_lost';",
    );
    assert_eq!(stores(&made.db, &[]), pairs(&[("ses_restored", "v2")]));
    let with = |arguments: &[&str]| ids(&made.db, arguments);
    assert_eq!(with(&["--children"]), ["ses_child", "ses_restored"]);
    assert_eq!(with(&["--archived"]), ["ses_archived", "ses_restored"]);
}

#[test]
fn database_of_opencode_2_alone_is_listed() {
    let _limit = support::limit(60);
    let made = both();
    made.run("DROP TABLE session");
    assert_eq!(stores(&made.db, &[]), []);
    v2(&made, "ses_a", 5);
    v2(&made, "ses_b", 6);
    made.run(
        "UPDATE session_v2 SET title = NULL, time_idle = 9, time_viewed = 8.9, \
         idle_outcome = 'completed' WHERE id = 'ses_a'",
    );
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(end["tables"], json!(["session_v2"]));
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[0]["id"], "ses_b");
    assert_eq!(sessions[0].get("timeIdle"), None, "{}", sessions[0]);
    let untitled = &sessions[1];
    assert_eq!(untitled["title"], Value::Null);
    assert_eq!(untitled["untitled"], true);
    assert_eq!(untitled["timeIdle"], 9);
    assert_eq!(untitled["timeViewed"], 8);
    assert_eq!(untitled["idleOutcome"], "completed");
}

/// The import from `session` is one transaction; before it and after it the list is
/// the same.
#[test]
fn no_session_is_missing_amid_an_import() {
    let _limit = support::limit(60);
    let made = Made::new();
    for n in 0..30 {
        made.session(&format!("ses_{n:02}"), n);
    }
    let before = ids(&made.db, &[]);
    made.run(&session_v2());
    assert_eq!(ids(&made.db, &[]), before, "an empty table");
    let columns = "id, project_id, slug, directory, title, version, time_created, time_updated";
    for part in ["< 'ses_07'", ">= 'ses_07'"] {
        made.run(&format!(
            "INSERT INTO session_v2 ({columns}) SELECT {columns} FROM session WHERE id {part}"
        ));
        assert_eq!(ids(&made.db, &[]), before);
    }
    // A session that an OpenCode 1 made since is in its table only.
    made.session("ses_new", 99);
    assert_eq!(ids(&made.db, &[])[0], "ses_new");
    assert_eq!(stores(&made.db, &[])[1].1, "v2");
}

/// No shorter listing comes of it.
#[test]
fn unreadable_table_fails_the_listing_as_a_whole() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    made.run("CREATE VIEW session_v2 AS SELECT 'ses_b' AS id");
    let (kind, message) = support::error(&made.db, &[]);
    assert_eq!(kind, "schema");
    assert!(message.contains("session_v2"), "{message}");
}

#[test]
fn marker_is_found_in_content_of_either_table() {
    let _limit = support::limit(60);
    for keeps_v1 in [true, false] {
        let made = both();
        for (n, place) in ["part", "message", "session_message", "session_input"]
            .iter()
            .enumerate()
        {
            let id = format!("ses_{n}");
            v2(&made, &id, 1);
            let (column, more, values) = match *place {
                "part" => (
                    "data",
                    "message_id, time_created, time_updated",
                    "'m', 1, 1",
                ),
                "message" => ("data", "time_created, time_updated", "1, 1"),
                "session_message" => (
                    "data",
                    "type, seq, time_created, time_updated",
                    "'user', 1, 1, 1",
                ),
                _ => (
                    "prompt",
                    "delivery, admitted_seq, time_created",
                    "'steer', 1, 1",
                ),
            };
            made.run(&format!(
                "INSERT INTO {place} (id, session_id, {column}, {more}) \
                 VALUES ('x', '{id}', 'a {} b', {values})",
                MarkerText::DEFAULT
            ));
        }
        v2(&made, "ses_unmarked", 1);
        if !keeps_v1 {
            made.run("DROP TABLE session");
        }
        let (sessions, _) = listing(&made.db, &[]);
        assert_eq!(sessions.len(), 5);
        for session in sessions {
            assert_eq!(
                session["marked"],
                session["id"] != "ses_unmarked",
                "{session}"
            );
        }
    }
}

/// A message of a session, and its parts in the order of their ids.
fn said(made: &Made, session: &str, at: i64, role: &str, parts: &[Value]) {
    let message = format!("msg_{session}_{at}");
    made.conn
        .execute(
            "INSERT INTO message (id, session_id, time_created, time_updated, data) \
             VALUES (?1, ?2, ?3, ?3, ?4)",
            (&message, session, at, json!({"role": role}).to_string()),
        )
        .unwrap();
    for (n, part) in parts.iter().enumerate() {
        made.conn
            .execute(
                "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data) \
                 VALUES (?1, ?2, ?3, 1, 1, ?4)",
                (
                    format!("prt_{at}_{n}_{session}"),
                    &message,
                    session,
                    part.to_string(),
                ),
            )
            .unwrap();
    }
}

fn words(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

#[test]
fn untitled_session_shows_its_first_prompt() {
    let _limit = support::limit(60);
    let made = Made::new();
    untitled(&made, "ses_a");
    assert_eq!(prompt_of(&made, "ses_a"), Value::Null);
    said(&made, "ses_a", 20, "user", &[words("a later one")]);
    said(&made, "ses_a", 5, "assistant", &[words("no prompt")]);
    said(
        &made,
        "ses_a",
        10,
        "user",
        &[
            json!({"type": "file", "text": "no text"}),
            json!({"type": "text", "text": "OpenCode's words", "synthetic": true}),
            words(" \n"),
            words(&format!(
                "Fix\n  the\u{1b} build, {}",
                "please ".repeat(100)
            )),
            words("a later one"),
        ],
    );
    let prompt = prompt_of(&made, "ses_a");
    let prompt = prompt.as_str().unwrap();
    let table = support::helper(&made.db, &["--pretty"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("Fix the\u{fffd} build, please"), "{table}");
    assert!(
        prompt.starts_with("Fix the\u{fffd} build, please please"),
        "{prompt}"
    );
    assert_eq!(prompt.chars().count(), 200);
    // Only where there is no title.
    made.session("ses_titled", 2);
    said(&made, "ses_titled", 1, "user", &[words("hello")]);
    assert_eq!(prompt_of(&made, "ses_titled"), Value::Null);
}

#[test]
fn invalid_prompt_is_null_and_fails_no_listing() {
    let _limit = support::limit(60);
    let made = Made::new();
    let odd = [
        "not JSON".to_owned(),
        "7".to_owned(),
        "{\"type\":\"text\"}".to_owned(),
        "{\"type\":\"text\",\"text\":7}".to_owned(),
        "{\"type\":7,\"text\":\"x\"}".to_owned(),
        "[".repeat(10_000),
        "[".repeat(100_000),
    ];
    for (n, data) in odd.iter().enumerate() {
        let id = format!("ses_{n}");
        untitled(&made, &id);
        said(&made, &id, 1, "user", &[json!(null)]);
        made.conn
            .execute(
                "UPDATE part SET data = ?1 WHERE session_id = ?2",
                (data, &id),
            )
            .unwrap();
        assert_eq!(
            prompt_of(&made, &id),
            Value::Null,
            "{}",
            &data[..data.len().min(50)]
        );
        made.conn
            .execute(
                "UPDATE message SET data = ?1 WHERE session_id = ?2",
                (data, &id),
            )
            .unwrap();
        assert_eq!(prompt_of(&made, &id), Value::Null);
        // What is no text at all.
        made.conn
            .execute(
                "UPDATE part SET data = x'ff00' WHERE session_id = ?1",
                [&id],
            )
            .unwrap();
        assert_eq!(prompt_of(&made, &id), Value::Null);
    }
    assert_eq!(listing(&made.db, &[]).0.len(), odd.len());
}

/// Also while OpenCode upgrades.
#[test]
fn missing_prompt_columns_mean_no_prompt() {
    let _limit = support::limit(60);
    for message in [
        "session_id, time_created, data",
        "id, session_id, time_created",
    ] {
        let made = Made::new();
        untitled(&made, "ses_a");
        made.run(&format!(
            "DROP TABLE message; CREATE TABLE message ({message});
             CREATE INDEX by_time ON message (session_id, time_created)"
        ));
        assert_eq!(prompt_of(&made, "ses_a"), Value::Null);
    }
}

#[test]
fn prompts_of_the_newer_routes_are_found() {
    let _limit = support::limit(60);
    let made = both();
    let input = |session: &str, seq: i64, text: &str| {
        made.conn
            .execute(
                "INSERT INTO session_input (id, session_id, prompt, delivery, admitted_seq, time_created) \
                 VALUES ('inp_' || ?1 || ?2, ?1, ?3, 'steer', ?2, 1)",
                (session, seq, json!({"text": text}).to_string()),
            )
            .unwrap();
    };
    let message = |session: &str, seq: i64, kind: &str, text: &str| {
        made.conn
            .execute(
                "INSERT INTO session_message (id, session_id, type, seq, time_created, time_updated, data) \
                 VALUES ('m_' || ?1 || ?2, ?1, ?3, ?2, 1, 1, ?4)",
                (session, seq, kind, json!({"text": text}).to_string()),
            )
            .unwrap();
    };
    for id in ["ses_input", "ses_message", "ses_said"] {
        untitled(&made, id);
    }
    v2(&made, "ses_v2", 1);
    made.run("UPDATE session_v2 SET title = NULL");
    input("ses_input", 7, "the second");
    input("ses_input", 3, "the first");
    for session in ["ses_message", "ses_v2", "ses_said"] {
        message(session, 4, "user", "the second");
        message(session, 2, "user", "the first");
        message(session, 1, "assistant", "an answer");
    }
    said(
        &made,
        "ses_said",
        1,
        "user",
        &[words("by the older routes")],
    );
    assert_eq!(prompt_of(&made, "ses_input"), "the first");
    assert_eq!(prompt_of(&made, "ses_message"), "the first");
    assert_eq!(prompt_of(&made, "ses_v2"), "the first");
    assert_eq!(prompt_of(&made, "ses_said"), "by the older routes");
}

#[test]
fn real_untitled_sessions_show_their_prompts() {
    let _limit = support::limit(60);
    for (version, expected) in [
        ("1.2.1", &["unnamed: only a noReply user message"][..]),
        ("1.14.34", &["unnamed: only a noReply user message"]),
        ("1.18.33", &["unnamed: only a noReply user message"]),
        (
            "1.18.33-v2api",
            &["hello v2 [[title:V2 title]] [[words:15]]"],
        ),
    ] {
        let (_directory, db) = support::real_database(version);
        let (sessions, _) = listing(&db, &["--archived"]);
        let prompts = sessions.iter().filter_map(|session| {
            let prompt = session["firstPrompt"].as_str()?;
            assert_eq!(session["untitled"], true, "{session}");
            Some(prompt)
        });
        assert_eq!(prompts.collect::<Vec<_>>(), expected, "{version}");
    }
}

/// Look-ups in indexes, in the order that they have: nothing is read for nothing.
#[test]
fn prompts_and_activity_need_no_scan_or_sort() {
    let _limit = support::limit(60);
    for (version, statements) in [
        ("1.2.1", 2),
        ("1.14.34", 4),
        ("1.18.33", 6),
        ("1.18.33-v2api", 6),
    ] {
        let (_directory, db) = support::real_database(version);
        let output = support::command(support::lister())
            .args(["explain", "--db"])
            .arg(&db)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut plans = 0;
        let mut named = "";
        for line in text.lines() {
            if !line.starts_with(' ') {
                named = line;
            }
            if !["newest message:", "first prompt:"].contains(&named) || !line.starts_with("    ") {
                continue;
            }
            plans += 1;
            assert!(line.trim_start().starts_with("SEARCH"), "{version}: {line}");
        }
        assert_eq!(plans, statements, "{version}: {text}");
    }
}
