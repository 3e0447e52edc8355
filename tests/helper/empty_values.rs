//! Values that stand for none: OpenCode's clients cannot write null, and its own
//! programs ask whether a value counts as true. Each of them, in each column that can
//! be null, of both tables of sessions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::looked_up;
use crate::support::{self, Made, ids, listing};

/// What counts as false in SQLite's types.
const EMPTY: [&str; 6] = ["NULL", "0", "0.0", "''", "' '", "x''"];

/// The columns that can be null, and a value that is none of those. The tables declare
/// no types, so that a cell keeps any value.
const COLUMNS: [(&str, &str); 15] = [
    ("workspace_id", "'wrk_a'"),
    ("path", "'src'"),
    ("share_url", "'https://opencode.ai/s/a'"),
    ("summary_additions", "3"),
    ("summary_deletions", "4"),
    ("summary_files", "5"),
    ("summary_diffs", "'[]'"),
    ("metadata", "'{}'"),
    ("revert", "'{}'"),
    ("permission", "'{}'"),
    ("agent", "'build'"),
    ("model", "'{\"id\":\"m\",\"providerID\":\"p\"}'"),
    ("time_compacting", "7"),
    ("time_archived", "NULL"),
    ("parent_id", "NULL"),
];

/// Those that only the table of OpenCode 2 has.
const COLUMNS_V2: [(&str, &str); 7] = [
    ("title", "'A title'"),
    ("fork_session_id", "'ses_other'"),
    ("fork_boundary", "'{}'"),
    ("time_suspended", "8"),
    ("time_idle", "9"),
    ("time_viewed", "10"),
    ("idle_outcome", "'succeeded'"),
];

/// Those that are never null, but for a fault.
const ALWAYS: &str = "id, project_id, slug, directory, version, time_created, time_updated, \
                      cost, tokens_input, tokens_output";

fn columns(table: &str) -> Vec<(&'static str, &'static str)> {
    let v2: &[_] = if table == "session" { &[] } else { &COLUMNS_V2 };
    COLUMNS.iter().chain(v2).copied().collect()
}

/// A table, and a session in it for each of these columns and empty values, whose id
/// is that of the column and the value's number.
fn made_of(table: &str) -> Made {
    let columns = columns(table);
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let names = if table == "session" {
        format!("title, {}", names.join(", "))
    } else {
        names.join(", ")
    };
    let made = Made::of(&format!("CREATE TABLE {table} ({ALWAYS}, {names})"));
    let own_title = if table == "session" {
        "'A title', "
    } else {
        ""
    };
    for (column, _) in &columns {
        for (n, empty) in EMPTY.iter().enumerate() {
            let values: Vec<_> = columns
                .iter()
                .map(|(name, usual)| if name == column { empty } else { usual })
                .copied()
                .collect();
            made.run(&format!(
                "INSERT INTO {table} ({ALWAYS}, {names}) VALUES
                 ('{column} {n}', 'global', 'slug', '/usr', '1', 1, 2, 0.5, 1, 1, {own_title}{})",
                values.join(", ")
            ));
        }
    }
    made
}

fn by_id(sessions: Vec<Value>) -> BTreeMap<String, Value> {
    let pair = |session: Value| (session["id"].as_str().unwrap().to_owned(), session);
    sessions.into_iter().map(pair).collect()
}

fn without_id(session: &Value) -> Value {
    let mut session = session.clone();
    session.as_object_mut().unwrap().remove("id");
    session
}

/// What a number comes to that is not empty in a column of numbers.
fn is_a_count(column: &str, value: &str) -> bool {
    column.starts_with("summary_") && column != "summary_diffs" && value.starts_with('0')
}

#[test]
fn empty_value_in_any_column_is_null() {
    let _limit = support::limit(60);
    for table in ["session", "session_v2"] {
        let made = made_of(table);
        let (sessions, end) = listing(&made.db, &[]);
        let sessions = by_id(sessions);
        let none = json!({"invalidId": 0, "duplicateId": 0, "truncated": 0});
        assert_eq!(end["skipped"], none);
        let mut missing = Vec::new();
        for (column, _) in columns(table) {
            let of_null = without_id(&sessions[&format!("{column} 0")]);
            for (n, empty) in EMPTY.iter().enumerate() {
                let Some(session) = sessions.get(&format!("{column} {n}")) else {
                    missing.push(format!("{column} = {empty}"));
                    continue;
                };
                let mut session = without_id(session);
                if column == "title" {
                    assert_eq!(session["untitled"], true, "{empty}: {session}");
                    let title = session["title"].as_str().unwrap_or_default();
                    assert_eq!(title.trim(), "");
                    session["title"] = Value::Null;
                }
                if !is_a_count(column, empty) {
                    assert_eq!(session, of_null, "{table}.{column} = {empty}");
                }
            }
        }
        assert_eq!(missing, [""; 0], "{table}");
    }
}

#[test]
fn empty_value_is_null_in_look_ups_too() {
    let _limit = support::limit(60);
    for table in ["session", "session_v2"] {
        let made = made_of(table);
        let (sessions, _) = listing(&made.db, &["--children", "--archived", "--no-marker"]);
        let sessions = by_id(sessions);
        assert_eq!(sessions.len(), columns(table).len() * EMPTY.len());
        let ids: Vec<_> = sessions.keys().collect();
        let found = looked_up("get", &made.db, ids.iter().map(|id| id.as_str()));
        for (session, found) in sessions.values().zip(&found) {
            assert_eq!(found, session, "{table}");
        }
        // None of them has a parent.
        for (id, found) in ids.iter().zip(looked_up(
            "roots",
            &made.db,
            ids.iter().map(|id| id.as_str()),
        )) {
            assert_eq!(found["root"], **id, "{table}: {found}");
        }
        for session in sessions.values() {
            assert_eq!(session["parentId"], Value::Null, "{session}");
            assert_eq!(session["timeArchived"], Value::Null, "{session}");
        }
    }
}

#[test]
fn created_and_updated_times_keep_a_zero() {
    let _limit = support::limit(60);
    for table in ["session", "session_v2"] {
        let made = Made::of(&format!(
            "CREATE TABLE {table} (id, directory, time_created, time_updated)"
        ));
        let values = [
            ("NULL", Value::Null),
            ("0", json!(0)),
            ("0.0", json!(0)),
            ("-0.5", json!(-1)),
            ("''", Value::Null),
            ("' '", Value::Null),
            ("'7'", Value::Null),
            ("x''", Value::Null),
            ("x'37'", Value::Null),
        ];
        for (n, (value, _)) in values.iter().enumerate() {
            made.run(&format!(
                "INSERT INTO {table} VALUES ('ses_{n}', '/usr', {value}, {value})"
            ));
        }
        let sessions = by_id(listing(&made.db, &[]).0);
        for (session, (value, expected)) in sessions.values().zip(values) {
            assert_eq!(session["timeCreated"], expected, "{table}: {value}");
            assert_eq!(session["timeUpdated"], expected, "{table}: {value}");
        }
    }
}

#[test]
fn optional_times_are_null_where_zero() {
    let _limit = support::limit(60);
    let columns = [
        ("time_archived", "timeArchived"),
        ("time_idle", "timeIdle"),
        ("time_viewed", "timeViewed"),
        ("time_compacting", "timeCompacting"),
        ("time_suspended", "timeSuspended"),
    ];
    let names = columns.map(|(name, _)| name).join(", ");
    let made = Made::of(&format!(
        "CREATE TABLE session_v2 (id, directory, fork_session_id, {names})"
    ));
    let values = [
        ("0", None),
        ("0.0", None),
        ("-0.0", None),
        // Floored.
        ("0.9", None),
        ("1", Some(1)),
        ("1.5", Some(1)),
        ("-1", Some(-1)),
        ("'1'", None),
        ("x'31'", None),
        ("NULL", None),
    ];
    for (n, (value, _)) in values.iter().enumerate() {
        made.run(&format!(
            "INSERT INTO session_v2 VALUES ('ses_{n}', '/usr', NULL{})",
            format!(", {value}").repeat(columns.len())
        ));
    }
    let sessions = by_id(listing(&made.db, &["--archived"]).0);
    assert_eq!(sessions.len(), values.len());
    for (session, (value, expected)) in sessions.values().zip(values) {
        for (_, field) in columns {
            let found = session.get(field).and_then(Value::as_i64);
            assert_eq!(found, expected, "{field}: {value}");
        }
    }
    // What is archived is what has a time of it.
    for (n, (value, expected)) in values.iter().enumerate() {
        let listed = ids(&made.db, &[]).contains(&format!("ses_{n}"));
        assert_eq!(listed, expected.is_none(), "{value}");
    }
}

#[test]
fn newer_row_with_an_empty_value_restores_a_session() {
    let _limit = support::limit(60);
    let made = Made::of(
        "CREATE TABLE session (id, directory, time_updated, parent_id, time_archived);
         CREATE TABLE session_v2 (id, directory, time_updated, parent_id, time_archived, fork_session_id)",
    );
    for (n, empty) in EMPTY.iter().enumerate() {
        made.run(&format!(
            "INSERT INTO session VALUES ('in_2 {n}', '/usr', 1, 'ses_x', 5), ('in_1 {n}', '/usr', 2, {empty}, {empty});
             INSERT INTO session_v2 VALUES ('in_2 {n}', '/usr', 2, {empty}, {empty}, NULL), ('in_1 {n}', '/usr', 1, 'ses_x', 5, NULL)"
        ));
    }
    let sessions = by_id(listing(&made.db, &[]).0);
    let expected: Vec<_> = [("in_1", "v1"), ("in_2", "v2")]
        .iter()
        .flat_map(|(id, store)| (0..EMPTY.len()).map(move |n| (format!("{id} {n}"), *store)))
        .collect();
    let found = sessions
        .iter()
        .map(|(id, session)| (id.clone(), session["store"].as_str().unwrap()));
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let ids: Vec<_> = sessions.keys().collect();
    for (id, answer) in ids.iter().zip(looked_up(
        "roots",
        &made.db,
        ids.iter().map(|id| id.as_str()),
    )) {
        assert_eq!(answer["root"], **id);
    }
}

#[test]
fn parent_with_an_empty_parent_is_the_root() {
    let _limit = support::limit(60);
    let made = Made::of("CREATE TABLE session (id, directory, parent_id)");
    for (n, empty) in EMPTY.iter().enumerate() {
        made.run(&format!(
            "INSERT INTO session VALUES ('top {n}', '/usr', {empty}), ('child {n}', '/usr', 'top {n}'),
               ('grandchild {n}', '/usr', 'child {n}')"
        ));
    }
    let ids: Vec<_> = (0..EMPTY.len())
        .map(|n| format!("grandchild {n}"))
        .collect();
    let answers = looked_up("roots", &made.db, ids.iter().map(String::as_str));
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["root"], format!("top {n}"), "{answer}");
    }
    let listed = support::ids(&made.db, &[]);
    assert_eq!(listed.len(), EMPTY.len(), "{listed:?}");
}
