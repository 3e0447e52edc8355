//! Every schema that can be there: older and newer ones, those in between while
//! OpenCode upgrades, and those that no OpenCode makes.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::{Value, json};

use crate::common::{ALL, MARKER};
use crate::support::{self, Made, helper, ids, listing, real_database};

/// The columns of `session` in OpenCode 1.18.33.
const SESSION: [(&str, &str); 29] = [
    ("id", "text PRIMARY KEY"),
    ("project_id", "text NOT NULL"),
    ("workspace_id", "text"),
    ("parent_id", "text"),
    ("slug", "text NOT NULL"),
    ("directory", "text NOT NULL"),
    ("path", "text"),
    ("title", "text NOT NULL"),
    ("version", "text NOT NULL"),
    ("share_url", "text"),
    ("summary_additions", "integer"),
    ("summary_deletions", "integer"),
    ("summary_files", "integer"),
    ("summary_diffs", "text"),
    ("metadata", "text"),
    ("cost", "real DEFAULT 0 NOT NULL"),
    ("tokens_input", "integer DEFAULT 0 NOT NULL"),
    ("tokens_output", "integer DEFAULT 0 NOT NULL"),
    ("tokens_reasoning", "integer DEFAULT 0 NOT NULL"),
    ("tokens_cache_read", "integer DEFAULT 0 NOT NULL"),
    ("tokens_cache_write", "integer DEFAULT 0 NOT NULL"),
    ("revert", "text"),
    ("permission", "text"),
    ("agent", "text"),
    ("model", "text"),
    ("time_created", "integer NOT NULL"),
    ("time_updated", "integer NOT NULL"),
    ("time_compacting", "integer"),
    ("time_archived", "integer"),
];

const IDS: [&str; 5] = ["ses_c", "ses_b", "ses_a", "ses_child", "ses_gone"];

/// What the column holds in the session `id`: another value in each column.
fn value(column: &str, kind: &str, id: &str) -> Sql {
    let number = SESSION.iter().position(|(name, _)| *name == column);
    match column {
        "id" => Sql::Text(id.to_owned()),
        "project_id" => Sql::Text("p1".to_owned()),
        "parent_id" if id == "ses_child" => Sql::Text("ses_b".to_owned()),
        "time_archived" if id == "ses_gone" => Sql::Integer(99),
        "parent_id" | "time_archived" => Sql::Null,
        "cost" => Sql::Real(0.25),
        "model" => Sql::Text(r#"{"id":"m","providerID":"p"}"#.to_owned()),
        // The order by time is not that by id.
        "time_updated" => Sql::Integer(match id {
            "ses_b" => 20,
            "ses_c" => 10,
            "ses_child" => 30,
            _ => 5,
        }),
        _ if kind.starts_with("integer") => {
            Sql::Integer(100 + i64::try_from(number.unwrap()).unwrap())
        }
        _ => Sql::Text(format!("{column} of {id}")),
    }
}

/// A database whose `session` has these columns, in this order, and five rows,
/// four of which are marked, each in another content table.
fn made_with(columns: &[(&str, &str)]) -> Made {
    let made = Made::new();
    made.run("DROP TABLE session");
    create_session(&made, columns);
    made
}

fn create_session(made: &Made, columns: &[(&str, &str)]) {
    let declared: Vec<_> = columns
        .iter()
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    made.run(&format!(
        "CREATE TABLE session ({});
         INSERT INTO project VALUES ('p1', '/usr', 'git', NULL, 1, 1, '[]')",
        declared.join(", ")
    ));
    let known: Vec<_> = columns
        .iter()
        .map(|(name, kind)| (name.to_ascii_lowercase(), kind))
        .filter(|(name, _)| SESSION.iter().any(|(known, _)| known == name))
        .collect();
    let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
    let insert = format!(
        "INSERT INTO session ({}) VALUES ({})",
        names.join(", "),
        vec!["?"; names.len()].join(", ")
    );
    for id in IDS {
        let values = known.iter().map(|(name, kind)| value(name, kind, id));
        made.conn
            .execute(&insert, rusqlite::params_from_iter(values))
            .unwrap();
    }
    made.run(&format!(
        "INSERT INTO part (id, message_id, session_id, time_created, time_updated, data)
           VALUES ('p', 'm', 'ses_a', 1, 1, '{MARKER}'), ('q', 'm', 'ses_c', 1, 1, 'nothing');
         INSERT INTO message (id, session_id, time_created, time_updated, data)
           VALUES ('m', 'ses_b', 7, 1, '{MARKER}'), ('n', 'ses_b', 8, 1, 'nothing');
         INSERT INTO session_message (id, session_id, type, seq, time_created, time_updated, data)
           VALUES ('m', 'ses_c', 'user', 1, 9, 1, '{MARKER}');
         INSERT INTO session_input (id, session_id, prompt, delivery, admitted_seq, time_created)
           VALUES ('i', 'ses_child', '{MARKER}', 'x', 1, 1);"
    ));
}

/// The session lines, byte by byte.
fn session_lines(db: &Path, args: &[&str]) -> Vec<String> {
    let output = helper(db, args);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    stdout
        .lines()
        .filter(|line| line.starts_with(r#"{"type":"session","#))
        .map(str::to_owned)
        .collect()
}

/// Each session's mark.
pub(crate) fn marks(db: &Path) -> BTreeMap<String, bool> {
    support::marks(&listing(db, &ALL).0)
}

/// What the definition says of each session.
pub(crate) fn oracle(conn: &Connection) -> BTreeMap<String, bool> {
    let any: Vec<_> = [
        ("part", "data"),
        ("message", "data"),
        ("session_message", "data"),
        ("session_input", "prompt"),
    ]
    .into_iter()
    .filter(|(table, column)| {
        conn.prepare(&format!("SELECT session_id, {column} FROM {table}"))
            .is_ok()
    })
    .map(|(table, column)| {
        format!(
            "EXISTS (SELECT 1 FROM {table} x WHERE x.session_id = s.id \
             AND x.{column} LIKE '%{MARKER}%')"
        )
    })
    .collect();
    conn.prepare(&format!("SELECT id, {} FROM session s", any.join(" OR ")))
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn without(session: &Value, field: &str) -> Value {
    let mut session = session.clone();
    session.as_object_mut().unwrap().remove(field);
    session
}

fn with(session: &Value, field: &str, value: Value) -> Value {
    let mut session = session.clone();
    session[field] = value;
    session
}

/// What a session comes to where `session` lacks this column.
fn lacking(session: &Value, column: &str) -> Value {
    let null = |field| with(session, field, Value::Null);
    let zero = |group: &str, field: &str| {
        let mut session = session.clone();
        assert_ne!(session[group][field], 0);
        session[group][field] = json!(0);
        session
    };
    match column {
        "project_id" => with(&null("projectId"), "worktree", Value::Null),
        "parent_id" => null("parentId"),
        "directory" | "model" => null(column),
        "title" => with(&null("title"), "untitled", json!(true)),
        "time_created" => null("timeCreated"),
        "time_updated" => null("timeUpdated"),
        "time_archived" => null("timeArchived"),
        "workspace_id" => without(session, "workspaceId"),
        "share_url" => without(session, "shareUrl"),
        "slug" | "version" | "agent" | "cost" => without(session, column),
        "summary_additions" | "summary_deletions" => without(session, "summary"),
        "summary_files" => zero("summary", "files"),
        "tokens_input" => without(session, "tokens"),
        "tokens_output" => zero("tokens", "output"),
        "tokens_reasoning" => zero("tokens", "reasoning"),
        "tokens_cache_read" => zero("tokens", "cacheRead"),
        "tokens_cache_write" => zero("tokens", "cacheWrite"),
        "time_compacting" => without(session, "timeCompacting"),
        "path" | "summary_diffs" | "metadata" | "revert" | "permission" => session.clone(),
        other => panic!("what does a session without {other} come to?"),
    }
}

#[test]
fn any_session_column_may_be_missing() {
    let _limit = support::limit(120);
    let (full, _) = listing(&made_with(&SESSION).db, &ALL);
    assert_eq!(full.len(), 5);
    let of = |id: &str| full.iter().find(|session| session["id"] == id).unwrap();
    for (missing, _) in SESSION {
        let columns: Vec<_> = SESSION
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect();
        let made = made_with(&columns);
        if missing == "id" {
            let (kind, message) = support::error(&made.db, &[]);
            assert_eq!(kind, "schema");
            assert!(message.contains("has no column id"), "{message}");
            continue;
        }
        let (sessions, end) = listing(&made.db, &[]);
        let expected_ids: &[&str] = match missing {
            // Every session is a root.
            "parent_id" => &["ses_child", "ses_b", "ses_c", "ses_a"],
            // Nothing is archived.
            "time_archived" => &["ses_b", "ses_c", "ses_a", "ses_gone"],
            // By id alone.
            "time_updated" => &["ses_a", "ses_b", "ses_c"],
            _ => &["ses_b", "ses_c", "ses_a"],
        };
        let expected: Vec<_> = expected_ids
            .iter()
            .map(|id| lacking(of(id), missing))
            .collect();
        assert_eq!(json!(sessions), json!(expected), "without {missing}");
        assert_eq!(end["flat"], missing == "parent_id", "without {missing}");
        assert_eq!(end["database"], "ready");
        assert_eq!(
            end["skipped"],
            json!({"invalidId": 0, "duplicateId": 0, "truncated": 0})
        );
        assert_eq!(ids(&made.db, &ALL).len(), 5, "without {missing}");
    }
}

#[test]
fn session_table_of_ids_alone_is_listed() {
    let _limit = support::limit(30);
    let made = made_with(&SESSION[..1]);
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(end["flat"], true);
    let ids: Vec<_> = sessions.iter().map(|session| &session["id"]).collect();
    assert_eq!(ids, ["ses_a", "ses_b", "ses_c", "ses_child", "ses_gone"]);
    assert_eq!(
        sessions[2],
        json!({
            "type": "session", "id": "ses_c", "directory": null, "worktree": null,
            "projectId": null, "parentId": null, "title": null, "untitled": true,
            "firstPrompt": null, "timeCreated": null, "timeUpdated": null, "timeArchived": null,
            "lastMessageAt": 9, "marked": true, "store": "v1", "model": null,
        })
    );
}

#[test]
fn database_without_a_session_table_is_empty() {
    let _limit = support::limit(30);
    for sql in [
        "DROP TABLE session",
        "ALTER TABLE session RENAME TO __old_session",
    ] {
        let made = made_with(&SESSION);
        made.run(sql);
        let (sessions, end) = listing(&made.db, &[]);
        assert_eq!(sessions, Vec::<Value>::new());
        assert_eq!(end["database"], "empty");
        assert_eq!(end["tables"], json!([]));
        assert_eq!(end["scan"]["mode"], "none");
    }
}

/// Or the table is missing.
#[test]
fn missing_project_columns_mean_no_worktree() {
    let _limit = support::limit(30);
    for sql in [
        "ALTER TABLE project RENAME COLUMN worktree TO tree",
        "ALTER TABLE project RENAME COLUMN id TO name_of_it",
        "DELETE FROM project",
        "DROP TABLE project",
    ] {
        let made = made_with(&SESSION);
        let (before, _) = listing(&made.db, &[]);
        assert_eq!(before[0]["worktree"], "/usr");
        let expected: Vec<_> = before
            .iter()
            .map(|session| with(session, "worktree", Value::Null))
            .collect();
        made.run(sql);
        assert_eq!(listing(&made.db, &[]).0, expected, "{sql}");
    }
}

/// Or a whole table of content is missing.
#[test]
fn missing_content_columns_mean_no_marks() {
    let _limit = support::limit(60);
    let all = ["ses_a", "ses_b", "ses_c", "ses_child"];
    let marked = |made: &Made| -> Vec<String> {
        let marks = marks(&made.db);
        assert_eq!(marks, oracle(&made.conn));
        marks
            .into_iter()
            .filter_map(|(id, marked)| marked.then_some(id))
            .collect()
    };
    assert_eq!(marked(&made_with(&SESSION)), all);
    for (table, column, only) in [
        ("part", "data", "ses_a"),
        ("message", "data", "ses_b"),
        ("session_message", "data", "ses_c"),
        ("session_input", "prompt", "ses_child"),
    ] {
        let rest: Vec<_> = all.iter().copied().filter(|id| *id != only).collect();
        for sql in [
            format!("ALTER TABLE {table} RENAME COLUMN {column} TO other"),
            format!("ALTER TABLE {table} RENAME COLUMN session_id TO other"),
            format!("DROP TABLE {table}"),
        ] {
            let made = made_with(&SESSION);
            made.run(&sql);
            assert_eq!(marked(&made), rest, "{sql}");
        }
    }
    let none = made_with(&SESSION);
    none.run(
        "DROP TABLE part; DROP TABLE message; DROP TABLE session_message;
         DROP TABLE session_input",
    );
    let (sessions, _) = listing(&none.db, &[]);
    assert_eq!(sessions.len(), 3);
    for session in sessions {
        assert_eq!(session["marked"], false);
        assert_eq!(session["lastMessageAt"], Value::Null);
    }
}

#[test]
fn column_order_changes_no_byte() {
    let _limit = support::limit(60);
    let expected = session_lines(&made_with(&SESSION).db, &ALL);
    assert_eq!(expected.len(), 5);
    let mut columns = SESSION.to_vec();
    let mut orders = vec![columns.iter().rev().copied().collect::<Vec<_>>()];
    for by in [1, 7, 13, 20] {
        columns.rotate_left(by);
        orders.push(columns.clone());
    }
    // 29 is a prime: each step visits every column, and tears neighbours apart.
    for step in [3, 11, 17] {
        orders.push((0..29).map(|at| SESSION[at * step % 29]).collect());
    }
    for order in orders {
        let made = made_with(&order);
        // And the other tables, in other orders, with fewer columns.
        made.run(
            "CREATE TABLE p AS SELECT data, time_updated, session_id, id FROM part;
             DROP TABLE part; ALTER TABLE p RENAME TO part;
             CREATE TABLE p AS SELECT sandboxes, worktree, name, id FROM project;
             DROP TABLE project; ALTER TABLE p RENAME TO project;
             CREATE TABLE p AS SELECT data, time_created, session_id FROM session_message;
             DROP TABLE session_message; ALTER TABLE p RENAME TO session_message;
             CREATE INDEX i ON session_message (session_id, time_created)",
        );
        assert_eq!(session_lines(&made.db, &ALL), expected, "{order:?}");
    }
}

#[test]
fn upper_case_names_are_the_same_names() {
    let _limit = support::limit(30);
    let expected = session_lines(&made_with(&SESSION).db, &ALL);
    let names: Vec<_> = SESSION
        .iter()
        .map(|(name, kind)| (name.to_ascii_uppercase(), *kind))
        .collect();
    let columns: Vec<_> = names
        .iter()
        .map(|(name, kind)| (name.as_str(), *kind))
        .collect();
    let made = Made::of(&support::SCHEMA.to_ascii_uppercase());
    made.run("DROP TABLE SESSION");
    create_session(&made, &columns);
    made.run("ALTER TABLE session RENAME TO x; ALTER TABLE x RENAME TO SESSION");
    assert_eq!(session_lines(&made.db, &ALL), expected);
    assert_eq!(listing(&made.db, &[]).1["tables"], json!(["SESSION"]));
}

#[test]
fn unknown_columns_are_ignored() {
    let _limit = support::limit(30);
    let expected = session_lines(&made_with(&SESSION).db, &[]);
    let mut columns = SESSION.to_vec();
    columns.insert(0, ("\"select\"", "text DEFAULT 'x'"));
    columns.insert(5, ("\"a\"\" b; DROP TABLE session\"", "text DEFAULT 'x'"));
    columns.push(("\"é \u{1b}[31m\"", "blob"));
    columns.push(("\"\"", "blob"));
    let made = made_with(&columns);
    assert_eq!(session_lines(&made.db, &[]), expected);
}

/// The migrations from 1.2.1 to 1.18.33, each committed by itself, as
/// facts/opencode.md has them; the last three as drizzle rebuilds a table, but
/// not in one transaction.
const UPGRADE: [&str; 33] = [
    "ALTER TABLE session ADD workspace_id text",
    "CREATE TABLE workspace (id text PRIMARY KEY, branch text, project_id text NOT NULL)",
    "ALTER TABLE session ADD path text",
    "ALTER TABLE session ADD agent text",
    "ALTER TABLE session ADD model text",
    "ALTER TABLE project ADD icon_url_override text",
    "CREATE INDEX session_workspace_idx ON session (workspace_id)",
    "DROP INDEX message_session_idx",
    "CREATE INDEX message_session_time_created_id_idx ON message (session_id, time_created, id)",
    "DROP INDEX part_message_idx",
    "CREATE INDEX part_message_id_id_idx ON part (message_id, id)",
    "CREATE TABLE event_sequence (aggregate_id text PRIMARY KEY, seq integer NOT NULL)",
    "CREATE TABLE event (id text PRIMARY KEY, aggregate_id text NOT NULL, data text NOT NULL)",
    "CREATE TABLE session_message (id text PRIMARY KEY, session_id text NOT NULL,
       type text NOT NULL, time_created integer NOT NULL, time_updated integer NOT NULL,
       data text NOT NULL)",
    "CREATE INDEX session_message_session_idx ON session_message (session_id)",
    "ALTER TABLE session ADD cost real DEFAULT 0 NOT NULL",
    "ALTER TABLE session ADD tokens_input integer DEFAULT 0 NOT NULL",
    "ALTER TABLE session ADD tokens_output integer DEFAULT 0 NOT NULL",
    "ALTER TABLE session ADD tokens_reasoning integer DEFAULT 0 NOT NULL",
    "ALTER TABLE session ADD tokens_cache_read integer DEFAULT 0 NOT NULL",
    "ALTER TABLE session ADD tokens_cache_write integer DEFAULT 0 NOT NULL",
    "ALTER TABLE session ADD metadata text",
    "DELETE FROM session_message",
    "ALTER TABLE session_message ADD seq integer NOT NULL DEFAULT 0",
    "CREATE UNIQUE INDEX session_message_session_seq_idx ON session_message (session_id, seq)",
    "DROP INDEX session_message_session_idx",
    "CREATE INDEX session_message_session_time_created_id_idx
       ON session_message (session_id, time_created, id)",
    "CREATE TABLE session_input (id text PRIMARY KEY, session_id text NOT NULL,
       prompt text NOT NULL, delivery text NOT NULL, admitted_seq integer NOT NULL,
       promoted_seq integer, time_created integer NOT NULL)",
    "CREATE TABLE session_context_epoch (session_id text PRIMARY KEY, data text)",
    "CREATE TABLE migration (id text PRIMARY KEY, time_completed integer NOT NULL)",
    "CREATE TABLE __new_session AS SELECT * FROM session",
    "DROP TABLE session",
    "ALTER TABLE __new_session RENAME TO session",
];

#[test]
fn every_intermediate_schema_lists_the_same_sessions() {
    let _limit = support::limit(120);
    let (_directory, db) = real_database("1.2.1");
    let stable = |sessions: &[Value]| -> Vec<Value> {
        sessions
            .iter()
            .map(|session| without(&without(session, "cost"), "tokens"))
            // They come and go with the indexes that find them.
            .map(|session| without(&session, "lastMessageAt"))
            .map(|session| without(&session, "firstPrompt"))
            .collect()
    };
    let expected = stable(&listing(&db, &ALL).0);
    assert!(expected.len() >= 15, "{}", expected.len());
    let conn = Connection::open(&db).unwrap();
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    let mut before = listing(&db, &ALL);
    for step in UPGRADE {
        // Uncommitted, it is as if it had not been.
        conn.execute_batch(&format!("BEGIN IMMEDIATE; {step}"))
            .unwrap();
        let during = listing(&db, &ALL);
        assert_eq!(during.0, before.0, "during {step}");
        conn.execute_batch("COMMIT").unwrap();
        let (after, end) = listing(&db, &ALL);
        assert_eq!(end["flat"], false);
        if step == "DROP TABLE session" {
            assert_eq!(end["database"], "empty", "after {step}");
            assert!(after.is_empty());
        } else {
            assert_eq!(end["database"], "ready", "after {step}");
            assert_eq!(stable(&after), expected, "after {step}");
        }
        before = (after, end);
    }
    let last = before.0;
    assert_eq!(last[0]["cost"], 0.0);
    assert_eq!(last[0]["tokens"]["cacheWrite"], 0);
    let times = last
        .iter()
        .filter(|session| session["lastMessageAt"].is_i64())
        .count();
    assert!(times > 10, "{times}");
}

#[test]
fn session_table_without_rowid_is_a_schema_error() {
    let _limit = support::limit(30);
    let columns = "id text PRIMARY KEY, directory text, time_updated integer";
    for sql in [
        format!("CREATE TABLE session ({columns}) WITHOUT ROWID"),
        format!("CREATE TABLE t ({columns}); CREATE VIEW session AS SELECT * FROM t"),
        "CREATE VIRTUAL TABLE session USING fts5 (id, directory, time_updated)".to_owned(),
        format!("CREATE TABLE session ({columns}, rowid, _rowid_, oid)"),
    ] {
        let made = Made::new();
        made.run("DROP TABLE session");
        made.run(&sql);
        let (kind, message) = support::error(&made.db, &[]);
        assert_eq!(kind, "schema", "{sql}");
        assert!(message.contains("rowid"), "{message}");
    }
}

#[test]
fn column_named_rowid_is_not_taken_for_the_rowid() {
    let _limit = support::limit(60);
    let expected = session_lines(&made_with(&SESSION).db, &[]);
    let names = ["rowid", "_rowid_", "oid"];
    // Rebuilds the tables with these columns more, which tell no row from another.
    let with_columns = |tables: &[&str], taken: &[&str]| {
        let made = made_with(&SESSION);
        for table in tables {
            let value = if *table == "session" { "1" } else { "NULL" };
            let more: String = taken
                .iter()
                .map(|name| format!(", {value} AS {}", name.to_ascii_uppercase()))
                .collect();
            made.run(&format!(
                "CREATE TABLE new AS SELECT *{more} FROM {table};
                 DROP TABLE {table}; ALTER TABLE new RENAME TO {table}"
            ));
        }
        made.run(
            "CREATE INDEX a ON message (session_id, time_created);
             CREATE INDEX b ON session_message (session_id, time_created)",
        );
        session_lines(&made.db, &[])
    };
    let content = ["message", "part", "session_message", "session_input"];
    for taken in [
        &names[..1],
        &names[1..2],
        &names[2..],
        &names[..2],
        &names[1..],
    ] {
        let tables = [&content[..], &["session"]].concat();
        assert_eq!(with_columns(&tables, taken), expected, "{taken:?}");
    }
    // With all three taken, the rows of a content table have no rowid.
    assert_eq!(with_columns(&content, &names), expected);
}

#[test]
fn broken_tables_of_others_are_ignored() {
    let _limit = support::limit(30);
    let made = made_with(&SESSION);
    let expected = session_lines(&made.db, &[]);
    made.run(
        "CREATE TABLE sessions (id text); CREATE TABLE \"session \" (id text);
         CREATE VIEW v AS SELECT something FROM nowhere;
         CREATE VIEW w AS SELECT * FROM w2; CREATE VIEW w2 AS SELECT * FROM w;
         CREATE VIRTUAL TABLE f USING fts5 (x);
         CREATE TRIGGER t AFTER INSERT ON session BEGIN SELECT something FROM nowhere; END",
    );
    assert_eq!(session_lines(&made.db, &[]), expected);
}

/// The newest message's time under this schema of `message`.
fn newest(sql: &str) -> Value {
    let made = Made::new();
    made.run("DROP TABLE message; DROP TABLE session_message");
    made.run(sql);
    made.session("ses_a", 1);
    made.run(
        "INSERT INTO message (id, session_id, time_created, data) VALUES
           ('m1', 'ses_a', 10, ''), ('m2', 'ses_a', 30, ''), ('m3', 'ses_a', 20, ''),
           ('m4', 'SES_A', 40, ''), ('m5', 'other', 50, '')",
    );
    let (sessions, end) = listing(&made.db, &[]);
    assert_eq!(end["sessions"], 1);
    sessions[0]["lastMessageAt"].clone()
}

#[test]
fn newest_message_needs_a_fitting_index() {
    let _limit = support::limit(60);
    let columns = "id text PRIMARY KEY, session_id text, time_created integer, data text";
    for index in [
        "CREATE INDEX i ON message (session_id, time_created, id)",
        "CREATE INDEX i ON message (session_id, time_created DESC)",
        "CREATE INDEX \"a \"\" b\" ON message (SESSION_ID, Time_Created)",
        "CREATE UNIQUE INDEX i ON message (session_id DESC, time_created)",
    ] {
        let sql = format!("CREATE TABLE message ({columns}); {index}");
        assert_eq!(newest(&sql), 30, "{index}");
    }
    for index in [
        "",
        "CREATE INDEX i ON message (session_id)",
        "CREATE INDEX i ON message (session_id, id, time_created)",
        "CREATE INDEX i ON message (time_created, session_id)",
        "CREATE INDEX i ON message (session_id, time_created) WHERE id > 'm'",
        "CREATE INDEX i ON message (lower(session_id), time_created)",
        "CREATE INDEX i ON message (session_id COLLATE NOCASE, time_created)",
    ] {
        let sql = format!("CREATE TABLE message ({columns}); {index}");
        assert_eq!(newest(&sql), Value::Null, "{index}");
    }
    let key = "id text, session_id text, time_created integer, data text, \
               PRIMARY KEY (session_id, time_created)";
    for kind in ["", "WITHOUT ROWID"] {
        let sql = format!("CREATE TABLE message ({key}) {kind}");
        assert_eq!(newest(&sql), 30, "{kind}");
    }
}

#[test]
fn unusable_index_fails_no_listing() {
    let _limit = support::limit(30);
    let time = newest(
        "CREATE TABLE message (id text PRIMARY KEY, session_id text COLLATE NOCASE,
           time_created integer, data text);
         CREATE INDEX i ON message (session_id COLLATE BINARY, time_created)",
    );
    assert!(time.is_null() || time.is_i64(), "{time}");
}
