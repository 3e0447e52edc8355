//! Tables of odd columns, and their rows.

use rusqlite::Connection;

use super::Random;
use super::cells::{self, cell};

/// The columns of a session, and what OpenCode stores there.
const SESSION: [(&str, &str); 31] = [
    ("id", "id"),
    ("directory", "directory"),
    ("project_id", "project"),
    ("parent_id", "null"),
    ("title", "title"),
    ("agent", "agent"),
    ("version", "version"),
    ("slug", "slug"),
    ("share_url", "null"),
    ("workspace_id", "null"),
    ("model", "model"),
    ("idle_outcome", "outcome"),
    ("fork_session_id", "null"),
    ("time_created", "time"),
    ("time_updated", "time"),
    ("time_archived", "null"),
    ("cost", "real"),
    ("tokens_input", "number"),
    ("tokens_output", "number"),
    ("tokens_reasoning", "number"),
    ("tokens_cache_read", "number"),
    ("tokens_cache_write", "number"),
    ("summary_additions", "number"),
    ("summary_deletions", "number"),
    ("summary_files", "number"),
    ("time_idle", "time"),
    ("time_viewed", "time"),
    ("time_compacting", "null"),
    ("time_suspended", "null"),
    ("revert", "null"),
    ("a column of later", "x"),
];

/// A table: its name, its columns with what they hold, and the columns of its indexes.
type Other = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

/// The other tables, each with the indexes that it has of OpenCode and others.
const OTHERS: [Other; 9] = [
    (
        "project",
        &[("id", "project"), ("worktree", "directory")],
        &["id", "worktree"],
    ),
    (
        "message",
        &[
            ("id", "message"),
            ("session_id", "id"),
            ("time_created", "time"),
            ("data", "role"),
        ],
        &[
            "session_id, time_created, id",
            "session_id, time_created",
            "session_id, time_created DESC",
            "session_id",
            "time_created, session_id",
        ],
    ),
    (
        "session_message",
        &[
            ("id", "message"),
            ("session_id", "id"),
            ("type", "type"),
            ("seq", "number"),
            ("time_created", "time"),
            ("data", "prompt"),
        ],
        &[
            "session_id, time_created, id",
            "session_id, seq",
            "session_id, type, seq",
        ],
    ),
    (
        "part",
        &[
            ("id", "part"),
            ("message_id", "message"),
            ("session_id", "id"),
            ("data", "prompt"),
        ],
        &["message_id, id", "message_id"],
    ),
    (
        "session_input",
        &[
            ("session_id", "id"),
            ("prompt", "prompt"),
            ("admitted_seq", "number"),
        ],
        &["session_id, admitted_seq", "session_id"],
    ),
    (
        "session_inbox",
        &[
            ("session_id", "id"),
            ("type", "type"),
            ("payload", "prompt"),
            ("enqueued_seq", "number"),
        ],
        &["session_id, enqueued_seq", "session_id, type, enqueued_seq"],
    ),
    (
        "session_pending",
        &[
            ("session_id", "id"),
            ("type", "type"),
            ("data", "prompt"),
            ("admitted_seq", "number"),
        ],
        &["session_id, admitted_seq"],
    ),
    (
        "kv",
        &[("key", "key"), ("value", "value"), ("time_updated", "time")],
        &["key"],
    ),
    (
        "event_sequence",
        &[("aggregate_id", "id"), ("seq", "number")],
        &["aggregate_id"],
    ),
];

/// Returns the statements that make the tables.
pub(super) fn statements(random: &mut Random) -> Vec<String> {
    let mut all = Vec::new();
    let (v1, v2) = match random.below(10) {
        0..=4 => (true, false),
        5 | 6 => (false, true),
        _ => (true, true),
    };
    for name in [v1.then_some("session"), v2.then_some("session_v2")] {
        all.extend(
            name.into_iter()
                .flat_map(|name| session_table(name, random)),
        );
    }
    for (name, columns, indexes) in OTHERS {
        if random.one_in(6) {
            continue;
        }
        if random.one_in(25) {
            let from = *random.pick(&["nothing", "session", "sqlite_schema"]);
            all.push(format!("CREATE VIEW {name} AS SELECT * FROM {from}"));
            continue;
        }
        all.push(table(name, columns, 30, random));
        for index in indexes {
            if !random.one_in(4) {
                all.push(index_on(name, index, random));
            }
        }
    }
    all
}

fn session_table(name: &str, random: &mut Random) -> Vec<String> {
    let columns: Vec<_> = match random.one_in(3) {
        // OpenCode's own, nearly.
        true => SESSION.to_vec(),
        false => SESSION.into_iter().filter(|_| !random.one_in(7)).collect(),
    };
    let name = match random.one_in(9) {
        true => name.to_uppercase(),
        false => name.to_owned(),
    };
    let mut all = vec![table(&name, &columns, 8, random)];
    for index in ["id", "project_id", "parent_id, id", "time_updated, id"] {
        if random.one_in(3) {
            all.push(index_on(&name, index, random));
        }
    }
    all
}

/// One column in `odd` is of an odd type.
fn table(name: &str, columns: &[(&str, &str)], odd: usize, random: &mut Random) -> String {
    const TYPES: [&str; 12] = [
        "integer",
        "real",
        "blob",
        "numeric",
        "varchar(9)",
        "text COLLATE NOCASE",
        "COLLATE RTRIM",
        "unknown DEFAULT 7",
        "text NOT NULL DEFAULT ' '",
        "any",
        "text GENERATED ALWAYS AS ('/g') VIRTUAL",
        "text GENERATED ALWAYS AS (printf('%.70000c', 'x')) VIRTUAL",
    ];
    let mut columns = columns.to_vec();
    if random.one_in(2) {
        random.shuffle(&mut columns);
    }
    let declared: Vec<_> = columns
        .iter()
        .map(|(column, kind)| {
            let declared = match (*column, *kind) {
                _ if random.one_in(odd) => *random.pick(&TYPES),
                ("id", "id") => *random.pick(&[
                    "text PRIMARY KEY",
                    "text PRIMARY KEY",
                    "text",
                    "",
                    "text COLLATE NOCASE PRIMARY KEY",
                    "integer PRIMARY KEY",
                ]),
                (_, "time" | "number") => *random.pick(&["integer", "integer", ""]),
                (_, "real") => *random.pick(&["real", "integer", ""]),
                _ => *random.pick(&["text", "text", ""]),
            };
            format!("\"{column}\" {declared}")
        })
        .collect();
    let without_rowid = match random.one_in(60) {
        true => " WITHOUT ROWID",
        false => "",
    };
    let declared = declared.join(", ");
    format!("CREATE TABLE \"{name}\" ({declared}){without_rowid}")
}

fn index_on(table: &str, columns: &str, random: &mut Random) -> String {
    let unique = match random.one_in(6) {
        true => "UNIQUE ",
        false => "",
    };
    let collated = match random.one_in(12) {
        true => columns.replacen(',', " COLLATE NOCASE,", 1),
        false => columns.to_owned(),
    };
    let partial = match random.one_in(15) {
        true => " WHERE rowid > 2",
        false => "",
    };
    let number = random.below(1_000_000);
    format!("CREATE {unique}INDEX i{number} ON \"{table}\" ({collated}){partial}")
}

/// Inserts rows into all tables. Some are refused.
pub(super) fn insert_rows(conn: &Connection, random: &mut Random) {
    for table in ["session", "session_v2"] {
        let count = random.below(24);
        insert(conn, table, &SESSION, count, random);
        if random.one_in(8) {
            // Rows older than the column.
            let large = match random.one_in(3) {
                true => "x".repeat(70_000),
                false => "later".to_owned(),
            };
            let column = random.pick(&SESSION).0;
            let add = format!("ALTER TABLE {table} ADD COLUMN \"{column}\" DEFAULT '{large}'");
            let _ = conn.execute_batch(&add);
            insert(conn, table, &SESSION, 3, random);
        }
        if random.one_in(8) {
            let _ = conn.execute_batch(&format!(
                "UPDATE {table} SET rowid = -rowid * 1000000007 WHERE rowid % 3 = 1;
                 UPDATE {table} SET rowid = -9223372036854775808 WHERE rowid = 2;
                 UPDATE {table} SET rowid = 9223372036854775807 WHERE rowid = 3"
            ));
        }
    }
    for (table, columns, _) in OTHERS {
        let count = match table {
            "kv" => 1,
            "project" => 6,
            _ => random.below(30),
        };
        insert(conn, table, columns, count, random);
    }
}

fn insert(
    conn: &Connection,
    table: &str,
    known: &[(&str, &str)],
    count: usize,
    random: &mut Random,
) {
    let columns = columns_of(conn, table);
    let known: Vec<_> = known
        .iter()
        .filter(|(name, _)| columns.iter().any(|column| column == name))
        .collect();
    if known.is_empty() {
        return;
    }
    let names: Vec<_> = known
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    for _ in 0..count {
        let values: Vec<_> = known.iter().map(|(_, kind)| value(kind, random)).collect();
        let _ = conn.execute_batch(&format!(
            "INSERT INTO \"{table}\" ({}) VALUES ({})",
            names.join(", "),
            values.join(", ")
        ));
    }
}

/// The names of the columns that can be written.
fn columns_of(conn: &Connection, table: &str) -> Vec<String> {
    let sql = "SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0";
    let mut statement = conn.prepare(sql).unwrap();
    let names = statement.query_map([table], |row| row.get(0));
    // A view of a table that is missing has no columns.
    names.and_then(Iterator::collect).unwrap_or_default()
}

fn value(kind: &str, random: &mut Random) -> String {
    let text = |json: &str| format!("'{json}'");
    match kind {
        "null" => match random.below(6) {
            0 => cells::id(random),
            1 => cell("time", random),
            2 => cell("x", random),
            _ => "NULL".to_owned(),
        },
        "message" => format!("'msg_{}'", random.below(20)),
        "type" => random
            .pick(&["'user'", "'user'", "'assistant'"])
            .to_string(),
        "key" => text("migration.v1-v2"),
        "value" => text(random.pick::<&str>(&[
            r#"{"phase":"completed"}"#,
            r#"{"phase":"completed"}"#,
            r#"{"phase":"running"}"#,
            "no JSON",
        ])),
        "role" => {
            text(random.pick::<&str>(&[r#"{"role":"user"}"#, r#"{"role":"assistant"}"#, "{}"]))
        }
        "prompt" => match random.below(8) {
            0 => cell("x", random),
            1 => text(r#"{"type":"text","text":"  "}"#),
            2 => text(r#"{"type":"text","text":"x","synthetic":true}"#),
            3 if random.one_in(3) => format!(
                r#"'{{"type":"text","text":"' || printf('%.{}c', 'p') || '"}}'"#,
                65_500 + random.below(80)
            ),
            _ => text(&format!(
                r#"{{"type":"text","text":"Prompt {}\nof two lines \u202e"}}"#,
                random.below(9)
            )),
        },
        kind => cell(kind, random),
    }
}
