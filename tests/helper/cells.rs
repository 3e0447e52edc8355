//! Cells of any type, invalid texts, invalid ids, and texts that are too long.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::{ALL, LOOSE, each, skipped};
use crate::support::{self, Made, helper, listing};

#[test]
fn cell_of_another_type_is_null() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    let texts = [
        "project_id",
        "workspace_id",
        "parent_id",
        "slug",
        "title",
        "version",
        "share_url",
        "agent",
        "model",
    ];
    let numbers = [
        "summary_additions",
        "summary_deletions",
        "summary_files",
        "cost",
        "tokens_input",
        "tokens_output",
        "tokens_reasoning",
        "tokens_cache_read",
        "tokens_cache_write",
        "time_created",
        "time_updated",
    ];
    let row = |id: &str, columns: &[&str], value: &str| {
        made.run(&format!(
            "INSERT INTO session (id, {}) VALUES ('{id}', {})",
            columns.join(", "),
            vec![value; columns.len()].join(", ")
        ));
    };
    row("ses_0", &["revert"], "NULL");
    row("ses_1", &texts, "7");
    row("ses_2", &texts, "7.5");
    row("ses_3", &texts, "x'414243'");
    row("ses_4", &texts, "zeroblob(100000)");
    row("ses_5", &numbers, "'7'");
    row("ses_6", &numbers, "x'37'");
    row("ses_7", &numbers, "zeroblob(100000)");
    row("ses_8", &numbers, "CAST(zeroblob(100000) AS TEXT)");
    let (mut sessions, end) = listing(&made.db, &ALL);
    let nothing = sessions[0].clone();
    assert_eq!(nothing["id"], "ses_0");
    assert_eq!(nothing.get("tokens"), None);
    assert_eq!(sessions.len(), 9);
    for session in &mut sessions {
        session["id"] = json!("ses_0");
        assert_eq!(*session, nothing);
    }
    assert_eq!(end["skipped"], skipped(0, 0, 0));
}

#[test]
fn numbers_are_parsed_as_far_as_they_go() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, cost, tokens_input, tokens_output, summary_additions,
           summary_deletions, summary_files) VALUES
           ('ses_a', 3, 1.9, -1.5, 9e999, 2, 'x'),
           ('ses_b', 9e999, 9223372036854775807, NULL, NULL, 2, 3),
           ('ses_c', -0.5, NULL, 2, 1, NULL, 3)",
    );
    let (sessions, _) = listing(&made.db, &[]);
    assert_eq!(sessions[0]["cost"], 3.0);
    assert_eq!(
        sessions[0]["tokens"],
        json!({"input": 1, "output": -2, "reasoning": 0, "cacheRead": 0, "cacheWrite": 0})
    );
    assert_eq!(
        sessions[0]["summary"],
        json!({"additions": i64::MAX, "deletions": 2, "files": 0})
    );
    // JSON has no infinity.
    assert_eq!(sessions[1].get("cost"), None);
    assert_eq!(sessions[1]["tokens"]["input"], i64::MAX);
    assert_eq!(sessions[1].get("summary"), None);
    assert_eq!(sessions[2]["cost"], -0.5);
    assert_eq!(sessions[2].get("tokens"), None);
}

#[test]
fn unparsable_model_is_null() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    for (at, model) in [
        r#"{"id":"m","providerID":"p","variant":"v","new":1}"#,
        r#"{"id":"m","providerID":"p"}"#,
        r#"{"id":"m"}"#,
        r#"{"id":1,"providerID":"p"}"#,
        r#"["m","p"]"#,
        "{",
        "",
        "null",
        "m",
    ]
    .iter()
    .enumerate()
    {
        made.conn
            .execute(
                "INSERT INTO session (id, model) VALUES (?1, ?2)",
                (format!("ses_{at}"), model),
            )
            .unwrap();
    }
    made.run(
        "INSERT INTO session (id, model) VALUES
           ('ses_x', CAST(x'7b226964223a22ff222c2270726f76696465724944223a2270227d' AS TEXT)),
           ('ses_y', '{\"id\":\"' || printf('%.5000c', 'x') || '\",\"providerID\":\"p\"}')",
    );
    let (sessions, end) = listing(&made.db, &[]);
    let models = each(&sessions, "model");
    assert_eq!(
        models[..2],
        [
            json!({"id": "m", "providerId": "p", "variant": "v"}),
            json!({"id": "m", "providerId": "p", "variant": null}),
        ]
    );
    assert!(models[2..4].iter().all(Value::is_null), "{models:?}");
    assert!(models[5..10].iter().all(Value::is_null), "{models:?}");
    assert_eq!(models[10]["id"], "x".repeat(4096));
    assert_eq!(end["skipped"], skipped(0, 0, 1));
}

#[test]
fn invalid_utf8_is_repaired() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    for (at, bytes) in [
        &b"\xff"[..],
        b"a\xc3",
        b"\xf0\x9f\x9a",
        b"\xed\xa0\x80",
        b"\0",
        b"a\0b",
        b"\x1b]0;owned\x07",
        "\u{202e}\u{9b}31m".as_bytes(),
    ]
    .iter()
    .enumerate()
    {
        made.conn
            .execute(
                "INSERT INTO session (id, title, agent, project_id, workspace_id)
                 VALUES (?1, CAST(?2 AS TEXT), CAST(?2 AS TEXT), CAST(?2 AS TEXT),
                   CAST(?2 AS TEXT))",
                (format!("ses_{at}"), bytes),
            )
            .unwrap();
    }
    let (sessions, end) = listing(&made.db, &[]);
    let expected = [
        "\u{fffd}",
        "a\u{fffd}",
        "\u{fffd}",
        "\u{fffd}\u{fffd}\u{fffd}",
        "\0",
        "a\0b",
        "\x1b]0;owned\x07",
        "\u{202e}\u{9b}31m",
    ];
    for field in ["title", "agent", "projectId", "workspaceId"] {
        assert_eq!(each(&sessions, field), expected, "{field}");
    }
    assert_eq!(end["skipped"], skipped(0, 0, 0));
    // And nothing of it reaches a terminal.
    let raw = helper(&made.db, &[]).stdout;
    let text = String::from_utf8(raw).unwrap();
    assert!(
        !text
            .chars()
            .any(|c| c != '\n' && opencode_sessions::internals::text::is_unsafe_on_terminal(c))
    );
}

#[test]
fn row_without_a_valid_id_is_omitted_and_counted() {
    let _limit = support::limit(30);
    for unique in ["", "CREATE UNIQUE INDEX i ON session (id)"] {
        let made = Made::of(LOOSE);
        made.run(unique);
        let longest = "é".repeat(128);
        made.run(&format!(
            "INSERT INTO session (id) VALUES
               ('ses_a'), (NULL), (7), (7.5), (x'7365735f62'), (''),
               (CAST(x'7365735fff' AS TEXT)), (CAST(x'ed' AS TEXT)), (CAST(x'00' AS TEXT)),
               ('ses' || char(10)), ('ses' || char(0) || 'x'), ('ses' || char(27)),
               ('ses' || char(127)), ('ses' || char(155)), ('{longest}'), ('{longest}x'),
               (printf('%.70000c', 'x')), (zeroblob(70000)), ('ses_z')"
        ));
        let (sessions, end) = listing(&made.db, &[]);
        let mut found = each(&sessions, "id");
        found.sort_by_key(Value::to_string);
        assert_eq!(found, [json!("ses_a"), json!("ses_z"), json!(longest)]);
        assert_eq!(end["skipped"], skipped(16, 0, 0));
    }
}

/// The others are counted as skipped.
#[test]
fn newest_of_rows_with_one_id_is_kept() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, time_updated, title) VALUES
           ('ses_a', 10, 'old'), ('ses_b', 15, 'only'), ('ses_a', 30, 'new'), ('ses_a', 20, 'mid'),
           ('ses_c', NULL, 'none'), ('ses_c', -1, 'some'), ('SES_A', 1, 'another'),
           ('ses_a ', 2, 'another')",
    );
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(
        each(&sessions, "id"),
        ["ses_a", "ses_b", "ses_a ", "SES_A", "ses_c"]
    );
    assert_eq!(
        each(&sessions, "title"),
        ["new", "only", "another", "another", "some"]
    );
    assert_eq!(end["skipped"], skipped(0, 3, 0));
    // An index that leaves rows out promises nothing about them.
    made.run("CREATE UNIQUE INDEX i ON session (id) WHERE time_updated = 15");
    assert_eq!(listing(&made.db, &[]).1["skipped"], skipped(0, 3, 0));
}

/// In UTF-16 two different texts can be the same text in UTF-8, so that what a
/// unique index promises does not hold on the wire.
#[test]
fn ids_equal_only_in_utf8_are_one_session() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let conn = Connection::open(&db).unwrap();
    conn.pragma_update(None, "encoding", "UTF-16le").unwrap();
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    conn.execute_batch(
        "CREATE TABLE session (id text PRIMARY KEY, directory text DEFAULT '/w');
         INSERT INTO session (id) VALUES (CAST(x'00d805dc' AS TEXT)), (CAST(x'00dc05dc' AS TEXT));
         INSERT INTO session (id) VALUES ('ses_a')",
    )
    .unwrap();
    let (sessions, end) = listing(&db, &[]);
    let mut found = each(&sessions, "id");
    found.dedup();
    assert_eq!(found.len(), sessions.len(), "{found:?}");
    assert_eq!(end["skipped"]["duplicateId"], 3 - found.len());
}

#[test]
fn text_over_4_kib_is_cut_at_a_character_and_counted() {
    let _limit = support::limit(60);
    let made = Made::of(LOOSE);
    // The text, its start on the wire, and whether that is less.
    let cases: [(Vec<u8>, String, bool); 12] = [
        ("x".repeat(4096).into(), "x".repeat(4096), false),
        ("x".repeat(4097).into(), "x".repeat(4096), true),
        ("é".repeat(2048).into(), "é".repeat(2048), false),
        (
            format!("x{}", "é".repeat(2048)).into(),
            format!("x{}", "é".repeat(2047)),
            true,
        ),
        (
            format!("xx{}", "日".repeat(1365)).into(),
            format!("xx{}", "日".repeat(1364)),
            true,
        ),
        (
            format!("x{}", "🚀".repeat(1024)).into(),
            format!("x{}", "🚀".repeat(1023)),
            true,
        ),
        // Each invalid byte becomes three.
        (vec![0xff; 1365], "\u{fffd}".repeat(1365), false),
        (vec![0xff; 1366], "\u{fffd}".repeat(1365), true),
        // Not loaded, but read from its start.
        ("x".repeat(65_537).into(), "x".repeat(4096), true),
        (
            format!("x{}", "é".repeat(35_000)).into(),
            format!("x{}", "é".repeat(2047)),
            true,
        ),
        (
            [&[0xff], "日".repeat(1_000_000).as_bytes()].concat(),
            format!("\u{fffd}{}", "日".repeat(1364)),
            true,
        ),
        (
            format!("xx{}", "🚀".repeat(800_000)).into(),
            format!("xx{}", "🚀".repeat(1023)),
            true,
        ),
    ];
    for (at, (text, ..)) in cases.iter().enumerate() {
        made.conn
            .execute(
                "INSERT INTO session (id, title, slug, directory)
                 VALUES (?1, CAST(?2 AS TEXT), 'x', CAST(?2 AS TEXT))",
                (format!("ses_{at:02}"), text),
            )
            .unwrap();
    }
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(sessions.len(), cases.len());
    let mut cut = 0;
    for (session, (_, expected, shorter)) in sessions.iter().zip(&cases) {
        let id = &session["id"];
        assert!(session["title"] == **expected, "the title of {id}");
        assert!(session["directory"] == **expected, "the directory of {id}");
        assert_eq!(session["slug"], "x");
        cut += 2 * u64::from(*shorter);
    }
    assert_eq!(end["skipped"], skipped(0, 0, cut));
}

#[test]
fn large_worktree_is_cut_or_omitted_and_counted() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO project VALUES ('p', '/' || printf('%.5000c', 'x')),
           ('q', '/' || printf('%.3000000c', 'x'));
         INSERT INTO session (id, project_id) VALUES ('ses_a', 'p'), ('ses_b', 'q')",
    );
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(sessions[0]["worktree"], format!("/{}", "x".repeat(4095)));
    let second = &sessions[1]["worktree"];
    assert!(second.is_null() || second.as_str().unwrap().len() == 4096);
    assert_eq!(end["skipped"], skipped(0, 0, 2));
}
