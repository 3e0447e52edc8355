//! Databases of OpenCode 2, beside and instead of those of OpenCode 1: as references say, and at
//! each step of the import of the old sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::{ALL, looked_up, opencode2_table};
use crate::support::{self, Made, complete, fixtures, listing, real_database};

fn reference(version: &str) -> Value {
    let path = fixtures().join(format!("expected-{version}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn rows<'v>(reference: &'v Value, field: &str) -> &'v [Value] {
    reference[field].as_array().unwrap()
}

pub(crate) fn id(row: &Value) -> &str {
    row["sessionId"].as_str().unwrap()
}

/// A session as the helper prints it, against its row of the reference.
fn assert_is(session: &Value, expected: &Value) {
    let field = |name: &str| session.get(name).cloned().unwrap_or_default();
    for (ours, theirs) in [
        ("id", "sessionId"),
        ("directory", "cwd"),
        ("title", "title"),
        ("timeCreated", "createdAt"),
        ("timeUpdated", "lastActivityAt"),
        ("timeArchived", "archivedAt"),
        ("parentId", "parentId"),
        ("store", "store"),
        ("firstPrompt", "firstPrompt"),
        ("timeIdle", "timeIdle"),
        ("timeViewed", "timeViewed"),
        ("idleOutcome", "idleOutcome"),
        ("timeSuspended", "timeSuspended"),
        ("timeCompacting", "timeCompacting"),
        ("forkedFrom", "forkedFrom"),
        ("workspaceId", "workspaceId"),
    ] {
        assert_eq!(field(ours), expected[theirs], "{ours}: {session}");
    }
    assert_eq!(field("untitled") == true, expected["untitled"] == true);
    let times = ["timeUpdated", "lastMessageAt", "timeIdle"];
    let active = times.map(|name| field(name).as_i64()).into_iter().max();
    assert_eq!(
        active.flatten(),
        expected["activityAt"].as_i64(),
        "{session}"
    );
}

fn assert_marked(session: &Value, expected: &Value) {
    let marked = expected["hasThreeViewsMarker"] == 1;
    assert_eq!(session["marked"], marked, "{session}");
}

fn assert_lists_as_its_reference(version: &str, tables: &[&str]) {
    let (_directory, db) = real_database(version);
    let reference = reference(version);
    let (roots, others) = (rows(&reference, "rows"), rows(&reference, "others"));
    let absent: Vec<_> = rows(&reference, "absent")
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();

    let (sessions, end) = listing(&db, &[]);
    let ids: Vec<_> = sessions.iter().map(|session| &session["id"]).collect();
    let expected: Vec<_> = roots.iter().map(|row| &row["sessionId"]).collect();
    assert_eq!(ids, expected);
    for (session, expected) in sessions.iter().zip(roots) {
        assert_is(session, expected);
        assert_marked(session, expected);
    }
    assert_eq!(end["database"], "ready");
    assert_eq!(end["tables"], json!(tables));
    assert_eq!(end["flat"], reference["schemaMissingParentId"]);
    assert_eq!(end.get("degraded"), None, "{end}");
    let none = json!({"invalidId": 0, "duplicateId": 0, "truncated": 0});
    assert_eq!(end["skipped"], none);

    // Archived ones and children too.
    let (sessions, _) = listing(&db, &ALL);
    let all: BTreeMap<_, _> = roots
        .iter()
        .chain(others)
        .map(|row| (id(row), row))
        .collect();
    assert_eq!(sessions.len(), all.len());
    for session in &sessions {
        let expected = all[session["id"].as_str().unwrap()];
        assert_is(session, expected);
        assert_marked(session, expected);
    }
    let newest_first = |pair: &[Value]| {
        let key = |session: &Value| {
            (
                -session["timeUpdated"].as_i64().unwrap(),
                session["id"].to_string(),
            )
        };
        key(&pair[0]) < key(&pair[1])
    };
    assert!(sessions.windows(2).all(newest_first));

    // By their ids.
    let found = looked_up("get", &db, all.keys().copied().chain(absent.clone()));
    let (sessions, unknown) = found.split_at(all.len());
    for (session, expected) in sessions.iter().zip(all.values()) {
        assert_is(session, expected);
    }
    assert!(
        unknown.iter().all(|answer| answer["type"] == "absent"),
        "{unknown:?}"
    );

    // And their roots.
    let children = reference["roots"].as_object().unwrap();
    let found = looked_up("roots", &db, all.keys().copied().chain(absent));
    for answer in found {
        let id = answer["id"].as_str().unwrap();
        let is = match children.get(id).and_then(Value::as_str) {
            Some("orphan") => ("reason", "orphan"),
            Some(root) => ("root", root),
            None if all.contains_key(id) => ("root", id),
            None => ("reason", "absent"),
        };
        assert_eq!(answer[is.0], is.1, "{answer}");
    }
}

#[test]
fn fresh_database_lists_as_its_reference() {
    let _limit = support::limit(60);
    assert_lists_as_its_reference("2.0-fresh", &["session_v2"]);
}

#[test]
fn upgraded_database_lists_as_its_reference() {
    let _limit = support::limit(60);
    assert_lists_as_its_reference("2.0-upgraded", &["session", "session_v2"]);
}

#[test]
fn database_amid_its_import_lists_as_its_reference() {
    let _limit = support::limit(60);
    assert_lists_as_its_reference("2.0-importing", &["session", "session_v2"]);
}

#[test]
fn database_after_a_resumed_import_lists_as_its_reference() {
    let _limit = support::limit(60);
    assert_lists_as_its_reference("2.0-resumed", &["session", "session_v2"]);
}

/// The main process finds the project: nothing of these directories is there.
#[test]
fn projects_match_the_references() {
    let _limit = support::limit(60);
    for version in ["2.0-fresh", "2.0-upgraded", "2.0-importing", "2.0-resumed"] {
        let (_directory, db) = real_database(version);
        let mut command = support::command(support::sessions());
        command.args(["list", "--no-service", "--format", "json"]);
        command.args(ALL).arg("--db").arg(&db);
        let output = command.output().unwrap();
        let sessions: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let project = |session: &Value| (session["id"].clone(), session["project"].clone());
        let found: BTreeMap<_, _> = sessions.iter().map(project).map(text).collect();
        let reference = reference(version);
        let expected = rows(&reference, "rows")
            .iter()
            .chain(rows(&reference, "others"));
        let project = |row: &Value| (row["sessionId"].clone(), row["projectPath"].clone());
        let expected: BTreeMap<_, _> = expected.map(project).map(text).collect();
        assert_eq!(found, expected, "{version}");
    }
}

/// Its directory is a path at the place of execution, and says nothing here.
#[test]
fn workspace_session_keeps_its_directory_as_project() {
    let _limit = support::limit(60);
    let (_directory, db) = real_database("2.0-fresh");
    let place = tempfile::tempdir().unwrap();
    let inside = place.path().canonicalize().unwrap().join("repository/src");
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::create_dir_all(place.path().join("repository/.git/refs")).unwrap();
    std::fs::create_dir_all(place.path().join("repository/.git/objects")).unwrap();
    std::fs::write(
        place.path().join("repository/.git/HEAD"),
        "ref: refs/heads/main\n",
    )
    .unwrap();
    let conn = Connection::open(&db).unwrap();
    let project = |workspace: Option<&str>| {
        let update = "UPDATE session_v2 SET project_id = 'global', directory = ?1, workspace_id = ?2 \
                      WHERE title = 'Restored'";
        let directory = inside.to_str().unwrap();
        assert_eq!(conn.execute(update, (directory, workspace)).unwrap(), 1);
        let mut command = support::command(support::sessions());
        command.args(["list", "--no-service", "--format", "json", "--archived"]);
        let output = command.arg("--db").arg(&db).output().unwrap();
        let sessions: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let mut sessions = sessions.into_iter();
        let session = sessions.find(|session| session["title"] == "Restored");
        session.unwrap()["project"].as_str().unwrap().to_owned()
    };
    let root = inside.parent().unwrap().to_str().unwrap();
    assert_eq!(project(None), root);
    assert_eq!(project(Some("wrk_a")), inside.to_str().unwrap());
}

pub(crate) fn text((id, project): (Value, Value)) -> (String, String) {
    (id.to_string(), project.to_string())
}

// ---- The import, step by step.

const PHASE: &str = "migration.v1-v2";

/// The phase of the import, and since when.
fn set_phase(conn: &Connection, phase: &Value, time: i64) {
    let sql = "INSERT INTO kv VALUES (?1, ?2, ?3, ?3) \
               ON CONFLICT (key) DO UPDATE SET value = excluded.value, time_updated = excluded.time_updated";
    conn.execute(sql, (PHASE, phase.to_string(), time)).unwrap();
}

/// What a list of everything must be: of each session the newer row, that of OpenCode
/// 2 of equally new ones.
fn union(conn: &Connection, but: &BTreeSet<String>) -> Vec<(String, String, String)> {
    let mut newest: BTreeMap<String, (i64, &str, String)> = BTreeMap::new();
    for (table, store) in [("session", "v1"), ("session_v2", "v2")] {
        let sql = format!("SELECT id, time_updated, coalesce(title, '') FROM {table}");
        let mut rows = conn.prepare(&sql).unwrap();
        let rows = rows.query_map([], |row| {
            Ok((row.get(0)?, (row.get(1)?, store, row.get(2)?)))
        });
        for row in rows.unwrap() {
            let (id, row) = row.unwrap();
            let first = newest.entry(id).or_insert_with(|| row.clone());
            if first.0 <= row.0 {
                *first = row;
            }
        }
    }
    let mut sorted: Vec<_> = newest
        .into_iter()
        .filter(|(id, _)| !but.contains(id))
        .collect();
    sorted.sort_by_key(|(id, (updated, ..))| (-updated, id.clone()));
    sorted
        .into_iter()
        .map(|(id, (_, store, title))| (id, store.to_owned(), title))
        .collect()
}

fn listed(db: &Path) -> Vec<(String, String, String)> {
    let (sessions, end) = listing(db, &ALL);
    assert_eq!(end.get("degraded"), None, "{end}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |session: &Value| {
        let [id, store, title] = ["id", "store", "title"].map(|field| text(&session[field]));
        (id, store, title)
    };
    sessions.iter().map(row).collect()
}

fn strings(conn: &Connection, sql: &str) -> Vec<String> {
    let mut rows = conn.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn import_hides_no_session_at_any_step() {
    let _limit = support::limit(120);
    let (_directory, db) = real_database("2.0-upgraded");
    let conn = Connection::open(&db).unwrap();
    let run = |sql: &str| conn.execute_batch(sql).unwrap();
    // As it was before: what was imported is taken out again, and put aside.
    run(
        "CREATE TABLE imported AS SELECT * FROM session_v2 WHERE id IN (SELECT id FROM session);
         DELETE FROM session_v2 WHERE id IN (SELECT id FROM session);
         DELETE FROM kv",
    );
    // Two rows were deleted in OpenCode 2: their counters are gone.
    let deleted = strings(
        &conn,
        "SELECT id FROM session WHERE id NOT IN (SELECT id FROM imported) \
         AND id NOT IN (SELECT aggregate_id FROM event_sequence)",
    );
    assert_eq!(deleted.len(), 2);
    let (none, mut steps) = (BTreeSet::new(), 0);
    let mut check = |step: &str, hidden: &BTreeSet<String>| {
        assert_eq!(listed(&db), union(&conn, hidden), "{step}");
        steps += 1;
    };
    check("before", &none);
    run("BEGIN; DELETE FROM event");
    check("events deleted, not committed", &none);
    set_phase(&conn, &json!({"phase": "sessions"}), 1_795_420_801_000);
    run("COMMIT");
    check("begun", &none);
    let columns = strings(&conn, "SELECT name FROM pragma_table_info('session_v2')").join(", ");
    let old = strings(&conn, "SELECT id FROM session ORDER BY id DESC");
    let mut imported = 0;
    for (n, id) in old.iter().enumerate() {
        // What OpenCode 1 made after the import was never imported.
        let updated: i64 = conn
            .query_row(
                "SELECT time_created FROM session WHERE id = ?1",
                [id],
                |row| row.get(0),
            )
            .unwrap();
        if updated > 1_795_420_801_136 {
            continue;
        }
        run("BEGIN");
        let inserted = conn
            .execute(
                &format!("INSERT INTO session_v2 ({columns}) SELECT {columns} FROM imported WHERE id = ?1"),
                [id],
            )
            .unwrap();
        if inserted == 1 {
            imported += 1;
            let counter = "INSERT OR IGNORE INTO event_sequence (aggregate_id, seq) VALUES (?1, 0)";
            conn.execute(counter, [id]).unwrap();
        }
        let time = 1_795_420_801_001 + i64::try_from(n).unwrap();
        set_phase(&conn, &json!({"phase": "sessions", "cursor": id}), time);
        run("COMMIT");
        check(id, &none);
        if imported == 3 {
            // Deleted in OpenCode 2 while the import goes on: nobody can tell yet.
            for table in ["session_v2", "imported"] {
                run(&format!("DELETE FROM {table} WHERE id = '{id}'"));
            }
            run(&format!(
                "DELETE FROM event_sequence WHERE aggregate_id = '{id}'"
            ));
            check("deleted meanwhile", &none);
            imported += 100;
        }
    }
    assert!(imported > 110, "{imported}");
    set_phase(&conn, &json!({"phase": "completed"}), 1_795_420_801_136);
    let hidden: BTreeSet<_> = strings(
        &conn,
        "SELECT id FROM session WHERE id NOT IN (SELECT id FROM session_v2) \
         AND id NOT IN (SELECT aggregate_id FROM event_sequence)",
    )
    .into_iter()
    .collect();
    assert_eq!(hidden.len(), 3);
    check("completed", &hidden);
    // OpenCode 1 goes on with one of them: it is there again.
    let mut hidden = hidden;
    let first = hidden.pop_first().unwrap();
    run(&format!(
        "UPDATE session SET time_updated = 1795420801137 WHERE id = '{first}'"
    ));
    check("continued in OpenCode 1", &hidden);
    assert!(steps > 20, "{steps}");
}

// ---- A table of OpenCode 2 under the name of OpenCode 1's.

#[test]
fn session_table_of_a_beta_counts_as_opencode_2() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("opencode-next.db");
    let conn = Connection::open(&db).unwrap();
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    // As betas left it in `opencode-next.db`.
    conn.execute_batch(&opencode2_table("session", "")).unwrap();
    conn.execute_batch(
        "INSERT INTO session (id, project_id, fork_session_id, slug, directory, version, time_created,
           time_updated, time_suspended)
         VALUES ('ses_a', 'global', 'ses_b', 'slug', '/w', '2.0.0-beta', 1, 2, 3)",
    )
    .unwrap();
    let (sessions, end) = complete(&support::helper(&db, &[]));
    assert_eq!(end["tables"], json!(["session"]));
    let session = &sessions[0];
    assert_eq!(session["store"], "v2");
    assert_eq!(session["title"], Value::Null);
    assert_eq!(session["untitled"], true);
    assert_eq!(session["forkedFrom"], "ses_b");
    assert_eq!(session["timeSuspended"], 3);
    for absent in ["timeIdle", "timeViewed", "idleOutcome"] {
        assert_eq!(session.get(absent), None);
    }
    assert_eq!(looked_up("get", &db, ["ses_a"])[0]["store"], "v2");
    // The table of an OpenCode 1, whatever its order of columns.
    let made = Made::new();
    made.session("ses_a", 1);
    assert_eq!(listing(&made.db, &[]).0[0]["store"], "v1");
}
