//! What stands for the title of a session that has none: the first thing that a
//! person said, wherever OpenCode keeps it, however large its row is.

use serde_json::{Value, json};

use crate::common::{INBOX, prompt_of, untitled};
use crate::support::{self, Made, listing};

fn made() -> Made {
    let made = Made::new();
    made.run(INBOX);
    made
}

/// A message of a session, and its parts.
fn message(made: &Made, session: &str, at: i64, data: &str, parts: &[Value]) {
    let id = format!("msg_{at}_{session}");
    let insert = "INSERT INTO message VALUES (?1, ?2, ?3, ?3, ?4)";
    made.conn.execute(insert, (&id, session, at, data)).unwrap();
    for (n, part) in parts.iter().enumerate() {
        let insert = "INSERT INTO part VALUES (?1, ?2, ?3, 1, 1, ?4)";
        let part = (
            format!("prt_{at}_{n}_{session}"),
            &id,
            session,
            part.to_string(),
        );
        made.conn.execute(insert, part).unwrap();
    }
}

const USER: &str = r#"{"role":"user"}"#;

/// A row of one of the newer tables.
fn row(made: &Made, table: &str, session: &str, kind: &str, seq: i64, data: &str) {
    let (columns, kind) = match table {
        "session_input" => (
            "session_id, prompt, delivery, admitted_seq, time_created",
            None,
        ),
        "session_message" => (
            "session_id, data, type, seq, time_created, time_updated",
            Some(kind),
        ),
        "session_inbox" => (
            "session_id, payload, type, enqueued_seq, time_created, delivery",
            Some(kind),
        ),
        "session_pending" => (
            "session_id, data, type, admitted_seq, time_created, delivery",
            Some(kind),
        ),
        other => panic!("{other}"),
    };
    let rest = match (table, kind) {
        ("session_input", _) => "'steer', ?3, 1",
        ("session_message", _) => "?4, ?3, 1, 1",
        _ => "?4, ?3, 1, 'steer'",
    };
    let sql =
        format!("INSERT INTO {table} (id, {columns}) VALUES (?1 || '_' || ?3, ?1, ?2, {rest})");
    let mut insert = made.conn.prepare(&sql).unwrap();
    match kind {
        Some(kind) => insert.execute((session, data, seq, kind)),
        None => insert.execute((session, data, seq)),
    }
    .unwrap();
}

const NEWER: [&str; 4] = [
    "session_input",
    "session_message",
    "session_inbox",
    "session_pending",
];

#[test]
fn part_is_skipped_only_if_flag_is_exactly_true() {
    let _limit = support::limit(60);
    let made = made();
    let values = [
        ("true", true),
        ("false", false),
        ("null", false),
        ("\"true\"", false),
        ("1", false),
        ("0", false),
        ("[true]", false),
        ("{}", false),
        ("\"\"", false),
    ];
    for field in ["synthetic", "ignored"] {
        for (n, (value, is_passed_over)) in values.iter().enumerate() {
            let id = format!("ses_{field}_{n}");
            untitled(&made, &id);
            let value: Value = serde_json::from_str(value).unwrap();
            let first = json!({"type": "text", "text": "the first", field: value});
            let second = json!({"type": "text", "text": "the second"});
            message(&made, &id, 1, USER, &[first, second]);
            let expected = if *is_passed_over {
                "the second"
            } else {
                "the first"
            };
            assert_eq!(prompt_of(&made, &id), expected, "{field}: {value}");
        }
    }
    // One of them is enough.
    for (n, (synthetic, ignored)) in [(true, false), (false, true), (true, true)]
        .iter()
        .enumerate()
    {
        let id = format!("ses_{n}");
        untitled(&made, &id);
        let first = json!({"type": "text", "text": "the first", "synthetic": synthetic, "ignored": ignored});
        message(&made, &id, 1, USER, &[first]);
        assert_eq!(prompt_of(&made, &id), Value::Null);
    }
}

#[test]
fn prompt_is_the_first_message_of_the_user() {
    let _limit = support::limit(60);
    let made = made();
    for (n, before) in [
        json!({"type": "text", "text": "12 tokens pruned", "ignored": true}),
        json!({"type": "text", "text": "OpenCode's words", "synthetic": true}),
        json!({"type": "text", "text": " \n\t"}),
        json!({"type": "file", "mime": "image/png", "url": "data:"}),
        json!({"type": "subtask", "prompt": "x"}),
        json!({"type": "text"}),
        json!("not a part"),
    ]
    .iter()
    .enumerate()
    {
        let id = format!("ses_{n}");
        untitled(&made, &id);
        for at in 1..4 {
            message(&made, &id, at, USER, &[before.clone(), before.clone()]);
        }
        message(
            &made,
            &id,
            4,
            r#"{"role":"assistant"}"#,
            &[json!({"type": "text", "text": "an answer"})],
        );
        message(
            &made,
            &id,
            5,
            USER,
            &[
                before.clone(),
                json!({"type": "text", "text": "Fix the rounding"}),
            ],
        );
        message(
            &made,
            &id,
            6,
            USER,
            &[json!({"type": "text", "text": "a later one"})],
        );
        assert_eq!(prompt_of(&made, &id), "Fix the rounding", "after {before}");
    }
    // A message without any part.
    untitled(&made, "ses_empty");
    message(&made, "ses_empty", 1, USER, &[]);
    message(
        &made,
        "ses_empty",
        2,
        USER,
        &[json!({"type": "text", "text": "Fix the rounding"})],
    );
    assert_eq!(prompt_of(&made, "ses_empty"), "Fix the rounding");
}

/// Larger than what is loaded of other cells, and than what is loaded of any.
const SIZES: [usize; 2] = [70_000, 1_200_000];

/// JSON with the text, and with much else before or after it.
fn large(size: usize) -> Vec<(String, &'static str)> {
    let much = "x".repeat(size);
    vec![
        (
            json!({"type": "text", "text": format!("Fix the {much}")}).to_string(),
            "Fix the xxxx",
        ),
        (
            format!(r#"{{"type":"text","text":"Fix the build","more":"{much}"}}"#),
            "Fix the build",
        ),
        (
            format!(r#"{{"more":"{much}","type":"text","text":"Fix the build"}}"#),
            "Fix the build",
        ),
    ]
}

#[test]
fn prompt_in_a_large_cell_is_found() {
    let _limit = support::limit(120);
    for size in SIZES {
        for (n, (data, expected)) in large(size).iter().enumerate() {
            let made = made();
            untitled(&made, "ses_part");
            message(&made, "ses_part", 1, USER, &[json!(null)]);
            made.conn
                .execute("UPDATE part SET data = ?1", [data])
                .unwrap();
            for table in NEWER {
                untitled(&made, table);
                row(&made, table, table, "user", 1, data);
            }
            for session in NEWER.into_iter().chain(["ses_part"]) {
                let prompt = prompt_of(&made, session);
                let prompt = prompt.as_str().unwrap_or_default();
                let is = format!("{session}, {size} bytes, {n}: {prompt:?}");
                assert!(prompt.starts_with(expected), "{is}");
                assert!(prompt.chars().count() <= 200, "{is}");
            }
        }
    }
}

#[test]
fn role_of_a_large_message_is_known() {
    let _limit = support::limit(120);
    for size in SIZES {
        let much = "x".repeat(size);
        for data in [
            format!(r#"{{"role":"user","summary":{{"diffs":"{much}"}}}}"#),
            format!(r#"{{"summary":{{"diffs":"{much}","role":"assistant"}},"role":"user"}}"#),
        ] {
            let made = made();
            untitled(&made, "ses_a");
            let of_assistant = data.replace(r#""role":"user""#, r#""role":"assistant""#);
            message(
                &made,
                "ses_a",
                1,
                &of_assistant,
                &[json!({"type": "text", "text": "an answer"})],
            );
            message(
                &made,
                "ses_a",
                2,
                &data,
                &[json!({"type": "text", "text": "Fix the build"})],
            );
            message(
                &made,
                "ses_a",
                3,
                USER,
                &[json!({"type": "text", "text": "a later one"})],
            );
            assert_eq!(prompt_of(&made, "ses_a"), "Fix the build", "{size} bytes");
        }
    }
}

#[test]
fn pending_prompt_is_of_the_user() {
    let _limit = support::limit(60);
    for table in ["session_inbox", "session_pending"] {
        let made = made();
        for (n, kind) in ["synthetic", "compaction", "move", "User", ""]
            .iter()
            .enumerate()
        {
            let id = format!("ses_{n}");
            untitled(&made, &id);
            row(&made, table, &id, kind, 1, r#"{"text":"not a person's"}"#);
            assert_eq!(prompt_of(&made, &id), Value::Null, "{table}: {kind}");
            row(&made, table, &id, "user", 3, r#"{"text":"the second"}"#);
            row(&made, table, &id, "user", 2, r#"{"text":"Fix the build"}"#);
            assert_eq!(prompt_of(&made, &id), "Fix the build", "{table}: {kind}");
        }
        // What was delivered came first.
        untitled(&made, "ses_a");
        row(&made, table, "ses_a", "user", 2, r#"{"text":"that waits"}"#);
        row(
            &made,
            "session_message",
            "ses_a",
            "synthetic",
            1,
            r#"{"text":"not a person's"}"#,
        );
        assert_eq!(prompt_of(&made, "ses_a"), "that waits");
        row(
            &made,
            "session_message",
            "ses_a",
            "user",
            5,
            r#"{"text":"that was heard"}"#,
        );
        assert_eq!(prompt_of(&made, "ses_a"), "that was heard");
    }
}

#[test]
fn invalid_pending_row_means_no_prompt() {
    let _limit = support::limit(60);
    let made = made();
    for table in ["session_inbox", "session_pending"] {
        for (n, data) in [
            "",
            "x",
            "null",
            "7",
            "[]",
            "{}",
            r#"{"text":7}"#,
            r#"{"text":null}"#,
            r#"{"text":" "}"#,
            r#"{"text":{"text":"x"}}"#,
        ]
        .iter()
        .enumerate()
        {
            let id = format!("{table} {n}");
            untitled(&made, &id);
            row(&made, table, &id, "user", 1, data);
            assert_eq!(prompt_of(&made, &id), Value::Null, "{table}: {data}");
        }
    }
    let (_, end) = listing(&made.db, &[]);
    assert_eq!(end.get("degraded"), None, "{end}");
}
