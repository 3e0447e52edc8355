//! What the helper reads of a database, whatever is in it, whatever became of
//! the file, and without its owner noticing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod support;

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use support::{
    Made, command, complete, error, helper, ids, lines, lister, listing, real_database, settle,
};

const MARKER: &str = "<freshell-session-metadata origin=3-views";

const ALL: [&str; 2] = ["--children", "--archived"];

/// Tables without declared types or constraints, so that a cell keeps any value.
const LOOSE: &str = "
CREATE TABLE project (id, worktree);
CREATE TABLE session (id, project_id, workspace_id, parent_id, slug, directory DEFAULT '/w', title,
  version, share_url, summary_additions, summary_deletions, summary_files, cost, tokens_input,
  tokens_output, tokens_reasoning, tokens_cache_read, tokens_cache_write, revert, agent, model,
  time_created, time_updated, time_archived);
CREATE TABLE message (id, session_id, time_created, data);
CREATE TABLE session_message (id, session_id, time_created, data);
CREATE TABLE part (id, session_id, data);
";

/// `field` of every session, in the order of the listing.
fn each(sessions: &[Value], field: &str) -> Vec<Value> {
    sessions
        .iter()
        .map(|session| session[field].clone())
        .collect()
}

fn skipped(invalid_id: u64, duplicate_id: u64, truncated: u64) -> Value {
    json!({"invalidId": invalid_id, "duplicateId": duplicate_id, "truncated": truncated})
}

/// The state of a database that has no sessions.
fn state(db: &Path) -> Value {
    let (sessions, end) = listing(db, &["--busy-timeout", "0"]);
    assert_eq!(sessions, Vec::<Value>::new());
    end["database"].clone()
}

fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// A database at rest: all in the main file, nobody has it open.
fn at_rest(sql: &str) -> (tempfile::TempDir, PathBuf) {
    let Made {
        directory,
        db,
        conn,
    } = Made::of(sql);
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    conn.close().unwrap();
    assert!(!beside(&db, "-wal").exists());
    (directory, db)
}

/// A database in rollback-journal mode, which OpenCode never leaves one in.
fn rollback_mode(sql: &str) -> Made {
    let made = Made::of(sql);
    made.conn
        .pragma_update(None, "journal_mode", "delete")
        .unwrap();
    made
}

const ONE_SESSION: &str = "
CREATE TABLE session (id text PRIMARY KEY, directory text);
INSERT INTO session VALUES ('ses_a', '/w');
";

/// Numbers that look like noise, the same in every run.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes()[4])
    })
}

// What is listed, and in which order.

#[test]
fn roots_that_are_not_archived_come_newest_first_and_ties_by_id() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, time_updated) VALUES
           ('ses_d', 20), ('ses_c', 20), ('ses_B', 20), ('ses_new', 30), ('ses_old', -5),
           ('ses_none', NULL), ('ses_also_none', 'yesterday'), ('ses_zero', 0), ('ses_real', 25.5);
         INSERT INTO session (id, time_updated, parent_id) VALUES
           ('ses_child', 29, 'ses_new'), ('ses_orphan', 28, 'ses_gone'), ('ses_of_blank', 27, '');
         INSERT INTO session (id, time_updated, time_archived) VALUES
           ('ses_archived', 31, 99), ('ses_at_zero', 26, 0);
         INSERT INTO session (id, time_updated, parent_id, time_archived) VALUES
           ('ses_both', 32, 'ses_new', 99)",
    );
    let roots = [
        "ses_new",
        "ses_of_blank",
        "ses_at_zero",
        "ses_real",
        "ses_B",
        "ses_c",
        "ses_d",
        "ses_zero",
        "ses_old",
        "ses_also_none",
        "ses_none",
    ];
    let merged = |more: &[&str], at: &[usize]| -> Vec<String> {
        let mut all = roots.to_vec();
        for (id, at) in more.iter().zip(at) {
            all.insert(*at, id);
        }
        all.iter().map(|id| (*id).to_owned()).collect()
    };
    assert_eq!(ids(&made.db, &[]), merged(&[], &[]));
    assert_eq!(
        ids(&made.db, &["--children"]),
        merged(&["ses_child", "ses_orphan"], &[1, 2])
    );
    assert_eq!(
        ids(&made.db, &["--archived"]),
        merged(&["ses_archived"], &[0])
    );
    assert_eq!(
        ids(&made.db, &ALL),
        merged(
            &["ses_both", "ses_archived", "ses_child", "ses_orphan",],
            &[0, 1, 3, 4]
        )
    );
    let (sessions, _) = listing(&made.db, &ALL);
    assert_eq!(sessions[0]["parentId"], "ses_new");
    assert_eq!(sessions[0]["timeArchived"], 99);
}

#[test]
fn times_are_integers_reals_are_floored_and_other_types_are_null() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    let times = [
        ("0", json!(0)),
        ("1795338894119", json!(1_795_338_894_119_i64)),
        ("-1", json!(-1)),
        ("9223372036854775807", json!(i64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("1.0", json!(1)),
        ("1.999", json!(1)),
        ("-1.001", json!(-2)),
        ("-0.0", json!(0)),
        ("1795338894119.9", json!(1_795_338_894_119_i64)),
        ("1e300", json!(i64::MAX)),
        ("-1e300", json!(i64::MIN)),
        ("9e999", json!(i64::MAX)),
        ("-9e999", json!(i64::MIN)),
        ("NULL", Value::Null),
        ("'1795338894119'", Value::Null),
        ("'2026-11-22T09:14:59Z'", Value::Null),
        ("x'31'", Value::Null),
    ];
    for (at, (time, _)) in times.iter().enumerate() {
        made.run(&format!(
            "INSERT INTO session (id, time_created, time_updated, time_archived)
             VALUES ('ses_{at:02}', {time}, {time}, {time})"
        ));
    }
    let (mut sessions, end) = listing(&made.db, &["--archived"]);
    sessions.sort_by_key(|session| session["id"].to_string());
    let expected: Vec<_> = times.into_iter().map(|(_, expected)| expected).collect();
    for field in ["timeCreated", "timeUpdated"] {
        assert_eq!(each(&sessions, field), expected, "{field}");
    }
    // Where null can stand, 0 stands for it.
    let or_null = |time: &Value| {
        if *time == 0 {
            Value::Null
        } else {
            time.clone()
        }
    };
    let expected: Vec<_> = expected.iter().map(or_null).collect();
    assert_eq!(each(&sessions, "timeArchived"), expected);
    assert_eq!(end["skipped"], skipped(0, 0, 0));
}

#[test]
fn a_worktree_that_means_nothing_is_null_and_always_for_the_project_global() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    let worktrees = [
        ("'/home/me/a'", json!("/home/me/a")),
        ("' /home/me/a '", json!(" /home/me/a ")),
        ("'//'", json!("//")),
        ("NULL", Value::Null),
        ("''", Value::Null),
        ("'  '", Value::Null),
        ("char(9, 10)", Value::Null),
        ("'/'", Value::Null),
        ("' / '", Value::Null),
        ("7", Value::Null),
        ("x'2f61'", Value::Null),
    ];
    for (at, (worktree, _)) in worktrees.iter().enumerate() {
        made.run(&format!(
            "INSERT INTO project VALUES ('p{at:02}', {worktree});
             INSERT INTO session (id, project_id) VALUES ('ses_{at:02}', 'p{at:02}')"
        ));
    }
    made.run(
        "INSERT INTO project VALUES ('global', '/home/me/another'), ('', '/blank'), (5, '/five');
         INSERT INTO session (id, project_id) VALUES
           ('ses_a', 'global'), ('ses_b', 'unknown'), ('ses_c', NULL), ('ses_d', 5),
           ('ses_e', ''), ('ses_f', 'Global')",
    );
    let (sessions, _) = listing(&made.db, &[]);
    let mut expected: Vec<_> = worktrees
        .into_iter()
        .map(|(_, expected)| expected)
        .collect();
    expected.extend([
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
    ]);
    assert_eq!(each(&sessions, "worktree"), expected);
    assert_eq!(sessions[11]["projectId"], "global");
}

#[test]
fn a_session_without_a_directory_is_not_listed() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, directory) VALUES
           ('ses_a', '/w'), ('ses_b', NULL), ('ses_c', ''), ('ses_d', 5), ('ses_e', x'2f77'),
           ('ses_f', ' '), ('ses_g', CAST(x'2fff' AS TEXT)), ('ses_h', CAST(x'00' AS TEXT))",
    );
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(each(&sessions, "id"), ["ses_a", "ses_g", "ses_h"]);
    assert_eq!(each(&sessions, "directory"), ["/w", "/\u{fffd}", "\0"]);
    assert_eq!(end["skipped"], skipped(0, 0, 0));
}

#[test]
fn only_the_exact_placeholder_or_no_title_is_untitled() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, title) VALUES
           ('ses_a', 'New session - 2026-11-22T09:14:59.002Z'), ('ses_b', NULL), ('ses_c', ' '),
           ('ses_d', 'New session - 2026-11-22T09:14:59.002Z (fork #1)'), ('ses_e', 'Title')",
    );
    let (sessions, _) = listing(&made.db, &[]);
    let (yes, no) = (json!(true), Value::Null);
    assert_eq!(
        each(&sessions, "untitled"),
        [yes.clone(), yes.clone(), yes, no.clone(), no]
    );
    assert_eq!(
        sessions[0]["title"],
        "New session - 2026-11-22T09:14:59.002Z"
    );
}

#[test]
fn the_newest_message_is_of_either_table_and_found_by_a_seek() {
    let _limit = support::limit(30);
    let made = Made::new();
    for id in ["ses_a", "ses_b", "ses_c", "ses_d"] {
        made.session(id, 1);
    }
    made.run(
        "INSERT INTO message VALUES
           ('m1', 'ses_a', 10, 1, ''), ('m2', 'ses_a', 30, 1, ''), ('m3', 'ses_a', 20, 1, ''),
           ('m4', 'ses_b', 10, 1, ''), ('m5', 'ses_b', 'never', 1, ''),
           ('m6', 'ses_c', 7.9, 1, ''), ('m7', 'ses_d', x'00', 1, '');
         INSERT INTO session_message VALUES
           ('s1', 'ses_a', 'user', 1, 25, 1, ''), ('s2', 'ses_b', 'user', 1, 15, 1, '')",
    );
    let newest = || each(&listing(&made.db, &[]).0, "lastMessageAt");
    let null = Value::Null;
    assert_eq!(newest(), [json!(30), json!(15), json!(7), null.clone()]);

    let plan = explained(&made.db);
    for step in [
        "SEARCH message USING COVERING INDEX message_session_time_created_id_idx (session_id=?)",
        "SEARCH session_message USING COVERING INDEX \
         session_message_session_time_created_id_idx (session_id=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ] {
        assert!(plan.contains(step), "{step}: {plan}");
    }
    // The marker's pass has its own names for them.
    for scan in ["SCAN message", "SCAN session_message"] {
        assert!(!plan.contains(scan), "{scan}: {plan}");
    }

    made.run("DROP INDEX message_session_time_created_id_idx");
    assert_eq!(newest(), [json!(25), json!(15), null.clone(), null.clone()]);
    made.run("DROP INDEX session_message_session_time_created_id_idx");
    assert_eq!(newest(), [null.clone(), null.clone(), null.clone(), null]);
}

// Cells that hold anything.

#[test]
fn a_cell_of_another_type_is_null_and_no_failure() {
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
fn numbers_are_taken_as_far_as_they_go() {
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
fn a_model_that_does_not_parse_is_null() {
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
fn a_text_that_is_no_text_is_repaired_and_no_failure() {
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
            .any(|c| c != '\n' && opencode_sessions::text::unsafe_on_a_terminal(c))
    );
}

#[test]
fn a_row_without_a_valid_id_is_left_out_and_counted() {
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

#[test]
fn of_rows_with_one_id_the_newest_is_kept_and_the_others_are_counted() {
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
fn ids_that_are_one_only_in_utf8_are_one_session() {
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
fn a_text_longer_than_4_kib_is_cut_at_a_character_and_counted() {
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
fn a_large_worktree_is_cut_or_left_out_and_counted() {
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

// Memory.

/// The helper with at most so many KiB of address space, for everything: itself,
/// its libraries, its heap and its stack.
fn within(kib: u32, db: &Path, args: &[&str]) -> Option<Output> {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: only Linux limits the address space");
        return None;
    }
    let output = command(Path::new("/bin/sh"))
        .arg("-c")
        .arg("ulimit -v \"$1\" && shift && exec \"$@\"")
        .args(["sh", &kib.to_string()])
        .arg(lister())
        .arg("--db")
        .arg(db)
        .args(args)
        .output()
        .unwrap();
    Some(output)
}

/// The address space in which every listing must do: the program and the
/// memory that SQLite may take.
const ROOM: u32 = 36 << 10;

#[test]
fn cells_of_200_megabytes_take_no_memory() {
    let _limit = support::limit(120);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let conn = Connection::open(&db).unwrap();
    // Once on the disk, not twice.
    conn.pragma_update(None, "journal_mode", "off").unwrap();
    conn.pragma_update(None, "synchronous", "off").unwrap();
    conn.execute_batch(support::SCHEMA).unwrap();
    conn.execute_batch(
        "INSERT INTO session (id, project_id, slug, directory, title, version, revert,
           summary_diffs, model, time_created, time_updated)
           VALUES ('ses_a', 'p', '', '/w', 'A title', '', zeroblob(40000000),
             zeroblob(10000000), '{\"id\":\"m\",\"providerID\":\"p\"}', 1, 2);
         INSERT INTO session (id, project_id, slug, directory, title, version, time_created,
           time_updated)
           VALUES ('ses_b', 'p', '', '/w', CAST(zeroblob(20000000) AS TEXT), '', 1, 1);
         INSERT INTO part VALUES
           ('p', 'm', 'ses_a', 1, 1, CAST(zeroblob(100000000) AS TEXT)),
           ('q', 'm', 'ses_b', 1, 1, zeroblob(30000000))",
    )
    .unwrap();
    // No NUL, at which LIKE would stop; and a marker at the very end.
    let filled = |table: &str, column: &str, row: i64, end: &str| {
        let mut cell = conn.blob_open("main", table, column, row, false).unwrap();
        let piece = [b'x'; 65_536];
        let mut left = cell.len() - end.len();
        while left > 0 {
            let now = left.min(piece.len());
            cell.write_all(&piece[..now]).unwrap();
            left -= now;
        }
        cell.write_all(end.as_bytes()).unwrap();
    };
    filled("session", "title", 2, "end");
    filled("part", "data", 1, MARKER);
    filled("part", "data", 2, &MARKER[..MARKER.len() - 1]);
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    conn.close().unwrap();
    assert!(fs::metadata(&db).unwrap().len() > 200_000_000);

    let Some(output) = within(ROOM, &db, &["--memory-limit", "16"]) else {
        return;
    };
    let (sessions, end) = complete(&output);
    assert_eq!(each(&sessions, "id"), ["ses_a", "ses_b"]);
    assert_eq!(each(&sessions, "marked"), [true, false]);
    assert_eq!(sessions[0]["model"]["id"], "m");
    assert_eq!(sessions[1]["title"], "x".repeat(4096));
    assert_eq!(end["skipped"], skipped(0, 0, 1));
    // Every page once, and the large ones once more for their rows.
    let bytes = end["scan"]["bytes"].as_u64().unwrap();
    assert!((200_000_000..600_000_000).contains(&bytes), "{bytes}");
}

/// So many sessions in the directory `/w`, all alike.
fn many(count: usize, sql: &str) -> (tempfile::TempDir, PathBuf) {
    at_rest(&format!(
        "{LOOSE}; PRAGMA synchronous = off; {sql};
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO session (id, title, time_updated)
           SELECT printf('ses_%026d', i), 'A title of ' || i, i % 1000 FROM n"
    ))
}

#[test]
fn memory_does_not_grow_with_the_number_of_sessions() {
    let _limit = support::limit(120);
    let unique = "CREATE UNIQUE INDEX u ON session (id)";
    for count in [500, 30_000] {
        let (_directory, db) = many(count, unique);
        let Some(output) = within(24 << 10, &db, &[]) else {
            return;
        };
        let (sessions, end) = complete(&output);
        assert_eq!(sessions.len(), count);
        assert_eq!(end["sessions"], count);
    }
}

#[test]
fn more_than_200000_sessions_are_an_error_and_not_a_shorter_listing() {
    let _limit = support::limit(180);
    let (_directory, db) = many(200_001, "CREATE UNIQUE INDEX u ON session (id)");
    let output = helper(&db, &["--no-marker"]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last = stdout.lines().last().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["type"], "error");
    assert_eq!(last["kind"], "internal");
    assert!(
        last["message"].as_str().unwrap().contains("200000"),
        "{last}"
    );
    assert!(!stdout.contains("\"type\":\"end\""));
}

#[test]
fn a_memory_limit_that_is_too_low_is_an_error_of_that_kind() {
    let _limit = support::limit(60);
    // SQLite needs as much of the schema in memory as there is.
    let tables: String = (0..20)
        .map(|at| {
            format!(
                "CREATE TABLE t{at} (a text DEFAULT '{}');",
                "x".repeat(900_000)
            )
        })
        .collect();
    let (_directory, db) = at_rest(&format!("{ONE_SESSION}{tables}"));
    let (kind, message) = error(&db, &["--memory-limit", "8"]);
    assert_eq!(kind, "out_of_memory");
    assert!(message.contains("memory limit"), "{message}");
    assert_eq!(ids(&db, &["--memory-limit", "256"]), ["ses_a"]);
}

// What became of the file.

#[test]
fn where_there_is_no_file_the_database_is_missing() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    File::create(path("file")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    for name in [
        "nothing.db",
        "no/such/directory.db",
        "file/x.db",
        "dangling",
    ] {
        assert_eq!(state(&path(name)), "missing", "{name}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "none is made");
}

#[test]
fn a_file_of_zero_bytes_is_young_and_then_empty() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    File::create(&db).unwrap();
    assert_eq!(state(&db), "young");
    settle(&db);
    assert_eq!(state(&db), "empty");
    assert_eq!(fs::metadata(&db).unwrap().len(), 0);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn a_database_without_tables_is_empty() {
    let _limit = support::limit(30);
    let made = Made::of("");
    assert_eq!(state(&made.db), "empty");
    // As OpenCode leaves it between its first page and its first tables.
    let (_directory, db) = at_rest("");
    assert_eq!(fs::metadata(&db).unwrap().len(), 4096);
    assert_eq!(state(&db), "empty");
}

#[test]
fn the_log_beside_a_file_of_zero_bytes_is_left_alone() {
    let _limit = support::limit(30);
    let (_directory, db) = real_database("1.2.1");
    let log = beside(&db, "-wal");
    let before = fs::read(&log).unwrap();
    assert!(before.len() > 100_000);
    File::create(&db).unwrap();
    assert_eq!(state(&db), "young");
    assert_eq!(fs::read(&log).unwrap(), before);
    settle(&db);
    settle(&log);
    // SQLite itself would delete the log now.
    assert_eq!(state(&db), "empty");
    let explained = explained(&db);
    assert!(explained.contains("empty"), "{explained}");
    assert_eq!(fs::read(&log).unwrap(), before);
}

/// SQLite takes a file of one byte for one of none (`unixFileSize`).
#[test]
fn the_log_beside_a_file_of_one_byte_is_left_alone() {
    let _limit = support::limit(30);
    let (_directory, db) = real_database("1.2.1");
    let log = beside(&db, "-wal");
    let before = fs::read(&log).unwrap();
    for start in ["S", "x"] {
        fs::write(&db, start).unwrap();
        settle(&db);
        let _ = helper(&db, &[]);
        assert!(log.exists(), "the log beside {start:?} is gone");
        assert_eq!(fs::read(&log).unwrap(), before);
    }
}

#[test]
fn a_file_that_is_no_database_is_said_to_be_none_and_is_not_changed() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let mut like = b"SQLite format 3\0".to_vec();
    like.extend(noise(1).take(5000));
    for bytes in [
        &b"x"[..],
        b"\0",
        b"{\"sessions\":[]}",
        b"SQLite format 2\0, but not quite, and then as much as a header has, which is 100 bytes in all.......",
        &noise(2).take(100).collect::<Vec<_>>(),
        &noise(3).take(100_000).collect::<Vec<_>>(),
        &[0; 8192],
        // Like one at its start only.
        b"SQ",
        b"SQLite format 3\0",
        &like[..99],
        &like[..100],
        &like,
    ] {
        fs::write(&db, bytes).unwrap();
        settle(&db);
        let (kind, message) = error(&db, &[]);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        assert_eq!(kind, "not_a_database", "{shown:?}: {message}");
        assert!(message.contains("opencode.db"), "{message}");
        assert_eq!(fs::read(&db).unwrap(), bytes);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "{shown:?}");
    }
}

#[test]
fn something_else_in_the_place_of_the_file_is_no_database_and_nothing_hangs() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("directory")).unwrap();
    let made = Command::new("mkfifo").arg(path("fifo")).status().unwrap();
    assert!(made.success());
    for name in ["directory", "fifo"] {
        let (kind, _) = error(&path(name), &[]);
        assert_eq!(kind, "not_a_database", "{name}");
    }
    let (kind, _) = error(Path::new("/dev/null"), &[]);
    assert_eq!(kind, "not_a_database");
    // A socket cannot be opened at all, nor can a circle of links.
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    symlink("circle", path("circle")).unwrap();
    for name in ["socket", "circle"] {
        let (kind, _) = error(&path(name), &[]);
        assert_eq!(kind, "io", "{name}");
    }
}

#[test]
fn a_link_to_a_database_and_a_name_that_sqlite_would_read_otherwise_are_the_database() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    let link = made.directory.path().join("link.db");
    symlink(&made.db, &link).unwrap();
    assert_eq!(ids(&link, &[]), ["ses_a"]);

    let (directory, db) = at_rest(ONE_SESSION);
    for name in ["file:x.db?mode=memory", ":memory:", "a b%20#?.db", "é.db"] {
        fs::copy(&db, directory.path().join(name)).unwrap();
        let output = command(lister())
            .current_dir(&directory)
            .args(["--db", name])
            .output()
            .unwrap();
        let (sessions, _) = complete(&output);
        assert_eq!(each(&sessions, "id"), ["ses_a"], "{name}");
    }
}

/// A database of some 40 pages: sessions, content, indexes, overflow pages.
fn several_pages() -> (tempfile::TempDir, PathBuf) {
    at_rest(&format!(
        "PRAGMA page_size = 1024; {}
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
         INSERT INTO session (id, project_id, slug, directory, title, version, time_created,
             time_updated)
           SELECT printf('ses_%03d', i), 'p', 'slug', '/w', 'Title ' || i, 'v', i, i FROM n;
         INSERT INTO message SELECT 'm' || id, id, 1, 1, 'hello' FROM session;
         INSERT INTO part SELECT 'p' || id, 'm', id, 1, 1, printf('%.300c', 'x') FROM session;
         INSERT INTO part VALUES ('x', 'm', 'ses_001', 1, 1, printf('%.5000c', 'x')),
           ('y', 'm', 'ses_002', 1, 1, '{MARKER}');
         VACUUM",
        support::SCHEMA
    ))
}

#[test]
fn a_database_cut_off_anywhere_is_never_listed_in_part() {
    let _limit = support::limit(120);
    let (_directory, db) = several_pages();
    let whole = fs::read(&db).unwrap();
    let (whole_listing, _) = listing(&db, &[]);
    assert_eq!(whole_listing.len(), 60);
    let mut listed = 0;
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    let pages = whole.len() / page;
    assert!(pages > 20, "{pages}");
    let cuts = (1..pages)
        .map(|count| count * page)
        .chain([whole.len() - 1, 3 * page + 7, page + 1])
        .chain([page - 1, 512, 100, 99, 17]);
    for cut in cuts {
        fs::write(&db, &whole[..cut]).unwrap();
        settle(&db);
        let mut lines = lines(&helper(&db, &[]));
        let last = lines.pop().unwrap();
        if last["type"] == "end" {
            // All sessions are there, and what is not was optional.
            assert_same_but_degraded(&whole_listing, &lines.split_off(1), &last);
            listed += 1;
            continue;
        }
        let kind = last["kind"].as_str().unwrap();
        let expected = if cut > page {
            &["corrupt"][..]
        } else {
            &["corrupt", "not_a_database"]
        };
        assert!(expected.contains(&kind), "{cut} bytes: {last}");
        if kind == "corrupt" {
            assert!(
                last["message"].as_str().unwrap().contains("damaged"),
                "{last}"
            );
        }
    }
    assert!(listed < pages / 2, "{listed} of {pages}");
}

/// The same sessions but for the marks, for which content is read past SQLite, and for
/// what the end of the listing says could not be read, which is null.
fn assert_same_but_degraded(expected: &[Value], sessions: &[Value], end: &Value) {
    let degraded = end["degraded"].as_array().cloned().unwrap_or_default();
    let parts: Vec<_> = degraded
        .iter()
        .map(|part| part["what"].as_str().unwrap())
        .collect();
    assert_eq!(expected.len(), sessions.len());
    for (expected, session) in expected.iter().zip(sessions) {
        let mut session = session.clone();
        session["marked"] = expected["marked"].clone();
        for part in &parts {
            if session[part].is_null() {
                session[part] = expected[part].clone();
            }
        }
        assert_eq!(session, *expected, "{degraded:?}");
    }
}

#[test]
fn damage_to_any_page_is_said_or_does_not_matter() {
    let _limit = support::limit(180);
    let (_directory, db) = several_pages();
    let whole = fs::read(&db).unwrap();
    let (expected, _) = listing(&db, &[]);
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    let (mut corrupt, mut harmless) = (0, 0);
    for at in 1..whole.len() / page {
        for damage in [
            noise(at as u64).take(page).collect::<Vec<_>>(),
            vec![0; page],
        ] {
            let mut damaged = whole.clone();
            damaged[at * page..(at + 1) * page].copy_from_slice(&damage);
            fs::write(&db, damaged).unwrap();
            let output = helper(&db, &[]);
            let mut lines = lines(&output);
            let last = lines.pop().unwrap();
            if last["type"] == "end" {
                // The page was of an index that is not read, or in the middle
                // of a text, of which nobody can tell.
                assert_eq!(output.status.code(), Some(0));
                // Or it was optional, and the listing says so.
                assert_same_but_degraded(&expected, &lines.split_off(1), &last);
                harmless += 1;
            } else {
                assert_eq!(output.status.code(), Some(1));
                assert_eq!(last["kind"], "corrupt", "page {}: {last}", at + 1);
                corrupt += 1;
            }
        }
    }
    assert!(corrupt > 0 && harmless > 0, "{corrupt} {harmless}");
    // The header is what makes it a database.
    let mut damaged = whole;
    damaged[..page].copy_from_slice(&noise(0).take(page).collect::<Vec<_>>());
    fs::write(&db, damaged).unwrap();
    assert_eq!(error(&db, &[]).0, "not_a_database");
}

// Its owner does not notice.

#[test]
fn a_file_without_tables_is_left_alone_until_it_has_settled() {
    let _limit = support::limit(30);
    // Not even opened: who holds a lock does not matter.
    let made = rollback_mode("CREATE TABLE x (y); DROP TABLE x; VACUUM");
    made.run("BEGIN EXCLUSIVE");
    assert_eq!(state(&made.db), "young");
    made.run("ROLLBACK");
    settle(&made.db);
    assert_eq!(state(&made.db), "empty");
    // With its tables it is listed, however new it is, in either mode.
    let made = rollback_mode(ONE_SESSION);
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
    made.conn
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
}

#[test]
fn a_file_that_changed_in_the_future_is_not_young_for_ever() {
    let _limit = support::limit(30);
    let made = rollback_mode(ONE_SESSION);
    File::options()
        .append(true)
        .open(&made.db)
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_secs(3600))
        .unwrap();
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
}

/// A connection that nobody else can read beside.
fn locked(db: &Path) -> Connection {
    let conn = Connection::open(db).unwrap();
    conn.pragma_update(None, "locking_mode", "exclusive")
        .unwrap();
    conn.execute_batch("BEGIN IMMEDIATE; CREATE TABLE held (x); COMMIT")
        .unwrap();
    conn
}

#[test]
fn a_locked_database_is_busy_after_the_busy_timeout() {
    let _limit = support::limit(60);
    let (_directory, db) = at_rest(ONE_SESSION);
    let holder = locked(&db);
    for timeout in ["0", "100"] {
        let started = Instant::now();
        let (kind, message) = error(&db, &["--busy-timeout", timeout]);
        assert_eq!(kind, "busy");
        let holder = format!("locked by process {}", std::process::id());
        assert!(message.contains(&holder), "{message}");
        assert!(started.elapsed() < Duration::from_secs(4), "{timeout}");
    }
    let started = Instant::now();
    assert_eq!(error(&db, &["--busy-timeout", "1000"]).0, "busy");
    assert!(started.elapsed() >= Duration::from_millis(900));
    drop(holder);
    assert_eq!(ids(&db, &["--busy-timeout", "100"]), ["ses_a"]);

    let made = rollback_mode(ONE_SESSION);
    // Not later: closing any descriptor of the file drops this process's locks.
    settle(&made.db);
    made.run("BEGIN EXCLUSIVE");
    assert_eq!(error(&made.db, &["--busy-timeout", "100"]).0, "busy");
}

#[test]
fn a_lock_that_is_released_in_time_is_waited_for() {
    let _limit = support::limit(60);
    let (_directory, db) = at_rest(ONE_SESSION);
    let holder = locked(&db);
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(holder);
        });
        assert_eq!(ids(&db, &["--busy-timeout", "30000"]), ["ses_a"]);
    });
}

#[test]
fn only_what_is_committed_is_seen_while_another_writes() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.run("BEGIN IMMEDIATE");
    made.session("ses_b", 2);
    made.run("UPDATE session SET title = 'Changed'; DELETE FROM session WHERE id = 'ses_a'");
    // So much that uncommitted pages are in the log already.
    made.run("PRAGMA cache_spill = 1; PRAGMA cache_size = 1");
    made.part("ses_b", &"x".repeat(1 << 20));
    let (sessions, _) = listing(&made.db, &["--busy-timeout", "0"]);
    assert_eq!(each(&sessions, "title"), ["Title of ses_a"]);
    made.run("COMMIT");
    assert_eq!(ids(&made.db, &["--busy-timeout", "0"]), ["ses_b"]);
}

#[test]
fn a_listing_leaves_the_log_the_file_and_no_lock() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    let bytes = |db: &Path| {
        (
            fs::read(db).unwrap(),
            fs::read(beside(db, "-wal")).unwrap(),
            fs::metadata(db).unwrap().modified().unwrap(),
        )
    };
    let before = bytes(&made.db);
    assert!(!before.1.is_empty());
    assert_eq!(ids(&made.db, &[]), ["ses_a"]);
    explained(&made.db);
    assert!(bytes(&made.db) == before, "the owner's files changed");
    // The owner can do what needs every lock.
    made.conn.busy_timeout(Duration::ZERO).unwrap();
    let busy: i64 = made
        .conn
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(busy, 0);
    made.run("BEGIN EXCLUSIVE; DELETE FROM session; COMMIT");
    made.conn
        .pragma_update(None, "journal_mode", "delete")
        .unwrap();
}

#[test]
fn a_log_that_a_dead_owner_left_is_read_and_stays() {
    let _limit = support::limit(30);
    // Version 1.2.1 left everything in the log: the main file has no tables.
    for version in ["1.2.1", "1.18.33"] {
        let (_directory, db) = real_database(version);
        let log = beside(&db, "-wal");
        let before = (fs::read(&db).unwrap(), fs::read(&log).unwrap());
        for _ in 0..2 {
            assert_eq!(ids(&db, &[]).len(), 15);
        }
        let after = (fs::read(&db).unwrap(), fs::read(&log).unwrap());
        assert!(after == before, "{version}");
    }
}

/// A helper that may not write to `directory`, and the directory it runs from.
/// Root may write everywhere, so root's helper runs as nobody.
fn without_rights(directory: &Path) -> Option<(Command, tempfile::TempDir)> {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("opencode-lister");
    fs::copy(lister(), &program).unwrap();
    for path in [place.path(), &program] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let prepared = || {
        let mut command = command(&program);
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command
    };
    fs::set_permissions(directory, Permissions::from_mode(0o555)).unwrap();
    // A child that another test is just starting may hold the copy open.
    while matches!(prepared().arg("--version").output(), Err(error) if error.kind() == ErrorKind::ExecutableFileBusy)
    {
        thread::sleep(Duration::from_millis(5));
    }
    let runs = prepared()
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    let reaches = prepared()
        .arg("--db")
        .arg(directory.join("nothing.db"))
        .output()
        .is_ok_and(|output| output.status.success());
    if !(runs && reaches) {
        eprintln!("skipped: nobody cannot run a program in {place:?} or reach {directory:?}");
        return None;
    }
    Some((prepared(), place))
}

/// What the helper prints of this database in a directory that it cannot write
/// to; `None` where that cannot be had here.
fn in_a_read_only_directory(db: &Path) -> Option<Output> {
    let directory = db.parent().unwrap();
    let prepared = without_rights(directory);
    let output = prepared.map(|(mut command, _place)| {
        command
            .arg("--db")
            .arg(db)
            .args(["--busy-timeout", "200"])
            .output()
            .unwrap()
    });
    // To be deleted, and for an ordinary user to go on.
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    output
}

#[test]
fn in_a_read_only_directory_a_database_without_a_log_is_listed() {
    let _limit = support::limit(60);
    let (directory, db) = at_rest(ONE_SESSION);
    let before = fs::read(&db).unwrap();
    for log in [false, true] {
        if log {
            File::create(beside(&db, "-wal")).unwrap();
        }
        let Some(output) = in_a_read_only_directory(&db) else {
            return;
        };
        let (sessions, end) = complete(&output);
        assert_eq!(each(&sessions, "id"), ["ses_a"], "an empty log: {log}");
        assert_eq!(end["database"], "ready");
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            1 + usize::from(log)
        );
    }
    assert_eq!(fs::read(&db).unwrap(), before);
}

#[test]
fn in_a_read_only_directory_a_database_with_a_log_is_listed_whole_or_not_at_all() {
    let _limit = support::limit(60);
    for version in ["1.2.1", "1.18.33"] {
        let (_directory, db) = real_database(version);
        let Some(output) = in_a_read_only_directory(&db) else {
            return;
        };
        let last = lines(&output).pop().unwrap();
        assert_eq!(last["type"], "error", "{version}: {last}");
        assert_eq!(output.status.code(), Some(1));
        // With the wal-index of a listing that could make one, it can be read.
        assert_eq!(ids(&db, &[]).len(), 15);
        assert!(beside(&db, "-shm").exists());
        let output = in_a_read_only_directory(&db).unwrap();
        let lines = lines(&output);
        let last = lines.last().unwrap();
        assert!(
            last["type"] == "error" || last["sessions"] == 15,
            "{version}: {last}"
        );
    }
}

/// A database in rollback-journal mode whose writer died in the middle of a
/// transaction: some of its pages are in the file, the journal can undo them.
fn with_a_hot_journal() -> (tempfile::TempDir, PathBuf) {
    let made = Made::of(LOOSE);
    made.run(
        "PRAGMA journal_mode = delete; PRAGMA cache_size = 1; PRAGMA cache_spill = 1;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO session (id, title) SELECT printf('ses_%04d', i), printf('%.200c', 'x') FROM n;
         BEGIN IMMEDIATE; UPDATE session SET title = printf('%.200c', 'y')",
    );
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    for suffix in ["", "-journal"] {
        fs::copy(beside(&made.db, suffix), beside(&db, suffix)).unwrap();
        settle(&beside(&db, suffix));
    }
    // What the file says without its journal was never committed.
    let torn = Connection::open_with_flags(
        format!("file://{}?immutable=1", db.display()),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
    )
    .unwrap();
    let changed = "SELECT count(*) FROM session WHERE title LIKE 'y%'";
    let changed: i64 = torn.query_row(changed, [], |row| row.get(0)).unwrap();
    assert!(changed > 100, "{changed}");
    (directory, db)
}

#[test]
fn a_database_that_must_be_rolled_back_first_is_not_listed_as_it_lies_there() {
    let _limit = support::limit(30);
    let (_directory, db) = with_a_hot_journal();
    let before = fs::read(&db).unwrap();
    let (kind, message) = error(&db, &["--busy-timeout", "200"]);
    assert!(["permission", "busy"].contains(&kind.as_str()), "{message}");
    assert!(fs::read(&db).unwrap() == before, "it was rolled back");
}

#[test]
fn in_a_read_only_directory_a_database_that_must_be_rolled_back_is_not_listed_either() {
    let _limit = support::limit(30);
    let (_directory, db) = with_a_hot_journal();
    let Some(output) = in_a_read_only_directory(&db) else {
        return;
    };
    let last = lines(&output).pop().unwrap();
    assert_eq!(last["type"], "error", "{last}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_file_that_may_not_be_read_is_an_error_of_that_kind() {
    let _limit = support::limit(30);
    let (_directory, db) = at_rest(ONE_SESSION);
    fs::set_permissions(&db, Permissions::from_mode(0o000)).unwrap();
    let Some(output) = in_a_read_only_directory(&db) else {
        return;
    };
    let last = lines(&output).pop().unwrap();
    assert_eq!(last["kind"], "permission", "{last}");
}

// Run by hand.

#[test]
fn without_db_the_environment_says_which_database_is_listed() {
    let _limit = support::limit(60);
    let home = tempfile::tempdir().unwrap();
    let place = |path: &str, id: &str| {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (_directory, db) = at_rest(&ONE_SESSION.replace("ses_a", id));
        fs::copy(db, &path).unwrap();
        path
    };
    let listed = |variables: &[(&str, &str)]| {
        let output = command(lister())
            .env("HOME", home.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let (sessions, end) = complete(&output);
        let id = sessions.first().map(|session| session["id"].clone());
        (id.unwrap_or_default(), end["database"].clone())
    };
    let ready = |id: &str| (json!(id), json!("ready"));
    let missing = (Value::Null, json!("missing"));
    assert_eq!(listed(&[]), missing);
    place(".local/share/opencode/opencode-dev.db", "of_a_channel");
    assert_eq!(listed(&[]), ready("of_a_channel"));
    assert_eq!(listed(&[("OPENCODE_DISABLE_CHANNEL_DB", "true")]), missing);
    // Of several none is guessed: who asks again must get the same.
    let usual = place(".local/share/opencode/opencode.db", "of_home");
    for args in [&[][..], &["get", "x"], &["explain"], &["--pretty"]] {
        let output = command(lister())
            .env("HOME", home.path())
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("there are several databases, "),
            "{args:?}: {stderr}"
        );
        assert!(
            stderr.contains(usual.to_str().unwrap()),
            "{args:?}: {stderr}"
        );
    }
    assert_eq!(
        listed(&[("OPENCODE_DISABLE_CHANNEL_DB", "1")]),
        ready("of_home")
    );
    let data = home.path().join("data");
    let data = ("XDG_DATA_HOME", data.to_str().unwrap());
    assert_eq!(listed(&[data]), missing);
    place("data/opencode/opencode.db", "of_data_home");
    place("data/opencode/mine.db", "of_a_name");
    let named = place("elsewhere.db", "of_a_path");
    assert_eq!(listed(&[data]), ready("of_data_home"));
    assert_eq!(
        listed(&[data, ("OPENCODE_DB", "mine.db")]),
        ready("of_a_name")
    );
    assert_eq!(
        listed(&[data, ("OPENCODE_DB", named.to_str().unwrap())]),
        ready("of_a_path")
    );
    assert_eq!(listed(&[data, ("OPENCODE_DB", ":memory:")]), missing);
    // An argument says more than all of them.
    let output = command(lister())
        .env("HOME", home.path())
        .envs([data, ("OPENCODE_DB", "mine.db")])
        .arg("--db")
        .arg(&named)
        .output()
        .unwrap();
    assert_eq!(complete(&output).0[0]["id"], "of_a_path");
}

#[test]
fn pretty_prints_a_table_in_which_no_text_of_the_database_moves_the_cursor() {
    let _limit = support::limit(30);
    let made = Made::of(LOOSE);
    made.run(
        "INSERT INTO session (id, title, directory, time_updated) VALUES
           ('ses_a', 'Clear' || char(27) || '[2J and' || char(155) || '31m red' || char(10) || 'x',
            '/w' || char(27) || ']0;owned' || char(7), 2),
           ('ses_b', NULL, '/plain', 1)",
    );
    // Without colours the program's writer would hide what was missed.
    let output = command(lister())
        .env("CLICOLOR_FORCE", "1")
        .env("HOME", made.directory.path())
        .arg("--db")
        .arg(&made.db)
        .arg("--pretty")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<_> = stdout.lines().collect();
    assert!(rows[0].starts_with("\x1b[1mTITLE"), "{stdout:?}");
    assert_eq!(rows.len(), 3, "{stdout:?}");
    for row in &rows[1..] {
        assert!(!row.chars().any(char::is_control), "{row:?}");
    }
    assert!(
        rows[1].contains("Clear") && rows[1].contains("ses_a"),
        "{stdout}"
    );
    assert!(
        rows[2].contains("(untitled)") && rows[2].contains("/plain"),
        "{stdout}"
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("2 sessions in "), "{stderr}");
    // No colours where nobody asked for them.
    let plain = helper(&made.db, &["--pretty"]);
    assert!(!plain.stdout.contains(&0x1b));
}

#[test]
fn pretty_says_what_failed_and_where_there_is_nothing() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    let run = || {
        let output = helper(&db, &["--pretty"]);
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    };
    let (status, stderr) = run();
    assert_eq!(status, Some(0));
    assert!(stderr.contains("there is no database"), "{stderr}");
    File::create(&db).unwrap();
    assert!(run().1.contains("just being made"));
    fs::write(&db, "no database").unwrap();
    let (status, stderr) = run();
    assert_eq!(status, Some(1));
    assert!(
        stderr.starts_with("opencode-lister: cannot read"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// What `explain` prints of this database.
fn explained(db: &Path) -> String {
    let output = command(lister())
        .arg("explain")
        .arg("--db")
        .arg(db)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn explain_shows_the_state_the_tables_the_log_the_plan_and_the_phases() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.part("ses_a", MARKER);
    let log = fs::metadata(beside(&made.db, "-wal")).unwrap().len();
    let frames = (log - 32) / (4096 + 24);
    let text = explained(&made.db);
    for part in [
        &format!("database: {}\n", made.db.display()),
        "state:    ready\n",
        "journal:  wal\n",
        "page:     4096\n",
        &format!("log:      {log} bytes, {frames} frames committed, salts "),
        "\ntable session\n",
        "\ntable session_input\n",
        "  columns: id TEXT, session_id TEXT, time_created INTEGER, time_updated INTEGER, data TEXT",
        "  index part_session_idx (session_id)\n",
        "  unique index sqlite_autoindex_session_1 (id)\n",
        "\nkeys:\n  SELECT s.rowid, ",
        "SEARCH project USING INDEX sqlite_autoindex_project_1 (id=?)\n",
        "\nmarker:   full scan, ",
        " 100 % known\n",
        "\nsessions: 1, 1 of them marked; ",
        "\nphases:\n  open ",
        "  marker ",
        "  rows ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn explain_shows_what_there_is_instead_of_a_database_of_opencode() {
    let _limit = support::limit(30);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode.db");
    assert!(explained(&db).contains("state:    missing"));
    File::create(&db).unwrap();
    assert!(explained(&db).contains("state:    young"));
    settle(&db);
    assert!(explained(&db).contains("state:    empty"));
    let made = Made::of("CREATE TABLE message (id)");
    let text = explained(&made.db);
    assert!(text.contains("state:    empty (no session tables)"));
    assert!(text.contains("\ntable message\n") && text.contains("phases:"));

    fs::write(&db, "no database").unwrap();
    let output = command(lister())
        .args(["explain", "--db"])
        .arg(&db)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("(not_a_database)"), "{stderr}");
}

#[test]
fn explain_prints_no_name_of_the_database_that_moves_the_cursor() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.run(
        "DROP INDEX message_session_time_created_id_idx;
         CREATE INDEX \"i\u{1b}]0;owned\u{7}\" ON message (session_id, time_created);
         ALTER TABLE session ADD COLUMN \"c\u{1b}[2J\" \"t\u{9b}31m\";
         CREATE INDEX \"j\u{1b}[2J\" ON session (\"c\u{1b}[2J\")",
    );
    let text = explained(&made.db);
    let unsafe_line = text.lines().find(|line| line.chars().any(char::is_control));
    assert_eq!(unsafe_line, None);
}

/// Whoever reads `-shm` of an open database in a process that has it open, too,
/// loses its locks when it closes it.
#[test]
fn explain_leaves_the_locks_of_others_alone() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.session("ses_a", 1);
    made.run("BEGIN; SELECT * FROM session");
    explained(&made.db);
    let mut log = vec![0; 32];
    File::open(beside(&made.db, "-wal"))
        .unwrap()
        .read_exact_at(&mut log, 0)
        .unwrap();
    made.run("COMMIT");
    made.session("ses_b", 2);
    assert_eq!(ids(&made.db, &[]).len(), 2);
}
