//! Which sessions of OpenCode 2 count as deleted.

use std::collections::BTreeSet;

use crate::common::{ALL, looked_up};
use crate::support::{self, Made, ids};

/// Tables without declared types, so that a cell keeps any value.
const LOOSE: &str = "
CREATE TABLE session (id, directory, time_updated, parent_id);
CREATE TABLE session_v2 (id, directory, time_updated, parent_id, fork_session_id);
CREATE TABLE kv (key, value, time_created, time_updated);
CREATE TABLE event_sequence (aggregate_id, seq);
";

/// The import was completed at 100.
const COMPLETED: &str =
    r#"INSERT INTO kv VALUES ('migration.v1-v2', '{"phase":"completed"}', 1, 100);"#;

/// What is done to the tables, and whether it can be told then what was deleted.
const STATES: [(&str, &str, bool); 32] = [
    ("completed", "", true),
    (
        "with more fields",
        r#"UPDATE kv SET value = '{"cursor":"ses_a","phase":"completed","x":[1]}'"#,
        true,
    ),
    (
        "with spaces",
        r#"UPDATE kv SET value = ' { "phase" : "completed" } '"#,
        true,
    ),
    (
        "other keys",
        "INSERT INTO kv VALUES ('a', '{}', 1, 1), ('z', '{\"phase\":\"sessions\"}', 1, 1)",
        true,
    ),
    ("a real time", "UPDATE kv SET time_updated = 100.5", true),
    (
        "sessions",
        r#"UPDATE kv SET value = '{"phase":"sessions"}'"#,
        false,
    ),
    (
        "a cursor",
        r#"UPDATE kv SET value = '{"phase":"sessions","cursor":"ses_a"}'"#,
        false,
    ),
    (
        "another phase",
        r#"UPDATE kv SET value = '{"phase":"Completed"}'"#,
        false,
    ),
    ("no phase", "UPDATE kv SET value = '{}'", false),
    (
        "a phase within",
        r#"UPDATE kv SET value = '{"old":{"phase":"completed"}}'"#,
        false,
    ),
    ("a number", r#"UPDATE kv SET value = '{"phase":1}'"#, false),
    ("null", r#"UPDATE kv SET value = '{"phase":null}'"#, false),
    ("a text", r#"UPDATE kv SET value = '"completed"'"#, false),
    (
        "a list",
        r#"UPDATE kv SET value = '["phase","completed"]'"#,
        false,
    ),
    (
        "cut off",
        r#"UPDATE kv SET value = '{"phase":"completed"'"#,
        false,
    ),
    ("no JSON", "UPDATE kv SET value = 'phase: completed'", false),
    ("nothing", "UPDATE kv SET value = ''", false),
    ("NULL", "UPDATE kv SET value = NULL", false),
    (
        "invalid UTF-8",
        "UPDATE kv SET value = CAST(x'7b22ff' AS TEXT)",
        false,
    ),
    ("no time", "UPDATE kv SET time_updated = NULL", false),
    (
        "time is a text",
        "UPDATE kv SET time_updated = '100'",
        false,
    ),
    (
        "another key",
        "UPDATE kv SET key = 'migration.v2-v3'",
        false,
    ),
    ("no row", "DELETE FROM kv", false),
    ("no table", "DROP TABLE kv", false),
    ("no value", "ALTER TABLE kv DROP COLUMN value", false),
    ("no key", "ALTER TABLE kv RENAME COLUMN key TO name", false),
    (
        "no time_updated",
        "ALTER TABLE kv DROP COLUMN time_updated",
        false,
    ),
    (
        "a view",
        "ALTER TABLE kv RENAME TO other; CREATE VIEW kv AS SELECT * FROM other",
        false,
    ),
    ("no counters", "DROP TABLE event_sequence", false),
    (
        "counters of nothing",
        "ALTER TABLE event_sequence DROP COLUMN aggregate_id",
        false,
    ),
    ("no session_v2", "DROP TABLE session_v2", false),
    (
        "no time of sessions",
        "ALTER TABLE session DROP COLUMN time_updated",
        false,
    ),
];

/// When a session was last updated, and whether that is not later than 100.
const UPDATED: [(&str, bool); 10] = [
    ("99", true),
    ("100", true),
    ("101", false),
    ("0", true),
    ("-5", true),
    ("99.5", true),
    ("101.5", false),
    ("NULL", false),
    ("'99'", false),
    ("x'39'", false),
];

#[test]
fn session_is_deleted_only_if_all_conditions_hold() {
    let _limit = support::limit(120);
    for (state, sql, can_be_told) in STATES {
        let made = Made::of(LOOSE);
        made.run(COMPLETED);
        let mut expected = BTreeSet::new();
        let mut all = Vec::new();
        for (n, (updated, is_old)) in UPDATED.iter().enumerate() {
            for (is_counted, is_in_v2) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let id = format!("ses_{n}_{is_counted}_{is_in_v2}");
                made.run(&format!(
                    "INSERT INTO session (id, directory, time_updated) VALUES ('{id}', '/w', {updated})"
                ));
                if is_counted {
                    made.run(&format!("INSERT INTO event_sequence VALUES ('{id}', 1)"));
                }
                if is_in_v2 {
                    made.run(&format!(
                        "INSERT INTO session_v2 (id, directory, time_updated) VALUES ('{id}', '/w', 50)"
                    ));
                }
                let is_deleted = can_be_told && *is_old && !is_counted && !is_in_v2;
                if !is_deleted {
                    expected.insert(id.clone());
                }
                all.push(id);
            }
        }
        made.run(sql);
        let found: BTreeSet<_> = ids(&made.db, &[]).into_iter().collect();
        assert_eq!(found, expected, "{state}");
        // One answer, however it is asked for.
        let answers = looked_up("get", &made.db, all.iter().map(String::as_str));
        for (id, answer) in all.iter().zip(answers) {
            let is = if expected.contains(id) {
                "session"
            } else {
                "absent"
            };
            assert_eq!(answer["type"], is, "{state}: {id}");
        }
        let answers = looked_up("roots", &made.db, all.iter().map(String::as_str));
        for (id, answer) in all.iter().zip(answers) {
            let is = if expected.contains(id) {
                "root"
            } else {
                "unresolved"
            };
            assert_eq!(answer["type"], is, "{state}: {id}");
        }
    }
}

#[test]
fn child_of_a_deleted_session_is_an_orphan() {
    let _limit = support::limit(60);
    let made = Made::of(LOOSE);
    made.run(COMPLETED);
    made.run(
        "INSERT INTO session VALUES ('ses_deleted', '/w', 1, NULL), ('ses_child', '/w', 1, 'ses_deleted');
         INSERT INTO session_v2 (id, directory, time_updated, parent_id) VALUES ('ses_child', '/w', 1, 'ses_deleted')",
    );
    assert_eq!(ids(&made.db, &ALL), ["ses_child"]);
    let answers = looked_up("roots", &made.db, ["ses_child", "ses_deleted"]);
    assert_eq!(answers[0]["reason"], "orphan");
    assert_eq!(answers[1]["reason"], "absent");
}
