//! Damage to what a listing can do without: the messages, the prompts, the projects,
//! and what tells which sessions were deleted. The sessions themselves are listed,
//! what is lost is null, and the listing says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::{INBOX, MARKER};
use crate::support::{self, command, complete, error, helper, lines, lister, settle};

/// What OpenCode 2 adds beside its prompts.
const SCHEMA_V2: &str = "
CREATE TABLE session_v2 (id text PRIMARY KEY, project_id text NOT NULL, parent_id text,
  fork_session_id text, directory text NOT NULL, title text, version text NOT NULL,
  time_created integer NOT NULL, time_updated integer NOT NULL, time_archived integer,
  time_suspended integer, time_idle integer, time_viewed integer, idle_outcome text);
CREATE TABLE kv (key text PRIMARY KEY, value text NOT NULL, time_created integer NOT NULL,
  time_updated integer NOT NULL);
CREATE TABLE event_sequence (aggregate_id text PRIMARY KEY, seq integer NOT NULL, owner_id text);
";

/// The tables that a listing can do without, and what is lost with each.
const OPTIONAL: [(&str, &[&str]); 9] = [
    ("message", &["lastMessageAt", "firstPrompt", "marked"]),
    ("part", &["firstPrompt", "marked"]),
    (
        "session_message",
        &["lastMessageAt", "firstPrompt", "marked"],
    ),
    ("session_input", &["firstPrompt", "marked"]),
    ("session_inbox", &["firstPrompt", "marked"]),
    ("session_pending", &["firstPrompt", "marked"]),
    ("project", &["worktree"]),
    ("kv", &["deleted"]),
    ("event_sequence", &["deleted"]),
];

/// The fields of a session that can be lost.
const FIELDS: [&str; 4] = ["lastMessageAt", "firstPrompt", "worktree", "marked"];

/// So many sessions in each table. Each table and index has several pages.
const SESSIONS: i64 = 80;

fn fill(conn: &Connection) {
    let run = |sql: &str, n: i64, text: &str| {
        conn.execute(sql, (n, text)).unwrap();
    };
    let placeholder = "New session - 2026-11-22T09:14:59.002Z";
    for n in 0..SESSIONS {
        let title = if n % 2 == 0 { placeholder } else { "A title" };
        run(
            "INSERT INTO project VALUES ('project ' || ?1, '/usr/tree ' || ?1, 'git', ?2, 1, 1, '[]')",
            n,
            &"a name ".repeat(10),
        );
        run(
            "INSERT INTO session (id, project_id, slug, directory, title, version, time_created, time_updated)
             VALUES (printf('ses_1_%03d', ?1), 'project ' || ?1, 'slug', '/usr/' || ?1, ?2, '1.18.33', ?1, 1000 + ?1)",
            n,
            title,
        );
        run(
            "INSERT INTO session_v2 (id, project_id, directory, title, version, time_created, time_updated)
             VALUES (printf('ses_2_%03d', ?1), 'project ' || ?1, '/usr/' || ?1, nullif(?2, ''), '2.0.3', ?1, 2000 + ?1)",
            n,
            if n % 2 == 0 { "" } else { title },
        );
        // What was said: by the older routes in the first half of the sessions, by the
        // newer ones in the others. One row of each table has the marker.
        let said = |marked: i64| {
            let marker = if n == marked { MARKER } else { "" };
            let text = format!("Prompt {n} {}", "so ".repeat(20));
            json!({"type": "text", "text": text, "role": "user", "x": marker}).to_string()
        };
        if n < SESSIONS / 2 {
            run(
                "INSERT INTO message VALUES
                   (printf('msg_%03d', ?1), printf('ses_1_%03d', ?1), 5000 + ?1, 1, ?2)",
                n,
                &said(13),
            );
            run(
                "INSERT INTO part VALUES
                   (printf('prt_%03d', ?1), printf('msg_%03d', ?1), printf('ses_1_%03d', ?1), 1, 1, ?2)",
                n,
                &said(3),
            );
            run(
                "INSERT INTO session_inbox VALUES
                   (printf('inb_%03d', ?1), printf('ses_2_%03d', ?1), 'user', ?2, 'steer', ?1, 1)",
                n,
                &said(3),
            );
        } else {
            run(
                "INSERT INTO session_input VALUES
                   (printf('inp_%03d', ?1), printf('ses_1_%03d', ?1), ?2, 'steer', ?1, ?1, 1)",
                n,
                &said(63),
            );
            run(
                "INSERT INTO session_pending VALUES
                   (printf('pen_%03d', ?1), printf('ses_2_%03d', ?1), 'user', ?2, 'steer', ?1, 1)",
                n,
                &said(63),
            );
        }
        for session in [1, 2] {
            run(
                &format!(
                    "INSERT INTO session_message VALUES (printf('mes_%03d_{session}', ?1), printf('ses_{session}_%03d', ?1),
                       'assistant', 1, 4000 + ?1, 1, ?2)"
                ),
                n,
                &said(33),
            );
            run(
                &format!(
                    "INSERT INTO event_sequence VALUES (printf('ses_{session}_%03d', ?1), ?1, ?2)"
                ),
                n,
                &"owner ".repeat(5),
            );
        }
        run(
            "INSERT INTO kv VALUES (printf('key %03d', ?1), ?2, 1, 1)",
            n,
            &"a value ".repeat(10),
        );
    }
    conn.execute_batch(
        "INSERT INTO kv VALUES ('migration.v1-v2', '{\"phase\":\"completed\"}', 1, 100000);
         INSERT INTO session (id, project_id, slug, directory, title, version, time_created, time_updated)
           VALUES ('ses_deleted', 'project 1', 'slug', '/usr', 'Deleted', '1.18.33', 1, 1)",
    )
    .unwrap();
}

/// How the database lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Wal,
    Rollback,
}

const MODES: [Mode; 2] = [Mode::Wal, Mode::Rollback];

/// A database at rest, and what a listing of it says while nothing is damaged.
struct Whole {
    directory: tempfile::TempDir,
    db: PathBuf,
    mode: Mode,
    bytes: Vec<u8>,
    sessions: Sessions,
}

type Sessions = BTreeMap<String, Value>;

const PAGE: usize = 512;

impl Whole {
    fn new(mode: Mode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("opencode.db");
        let conn = Connection::open(&db).unwrap();
        let journal = if mode == Mode::Wal { "wal" } else { "delete" };
        conn.execute_batch(&format!(
            "PRAGMA page_size = {PAGE}; PRAGMA journal_mode = {journal}; BEGIN; {} {SCHEMA_V2} {INBOX}",
            support::SCHEMA
        ))
        .unwrap();
        fill(&conn);
        conn.execute_batch("COMMIT; VACUUM").unwrap();
        conn.close().unwrap();
        settle(&db);
        let (sessions, end) = listed(&db);
        assert_eq!(end.get("degraded"), None, "{end}");
        Self {
            bytes: fs::read(&db).unwrap(),
            directory,
            db,
            mode,
            sessions,
        }
    }

    /// The pages of a table or index: its root, then its leaves.
    fn pages(&self, name: &str) -> (usize, Vec<usize>) {
        let conn = Connection::open(&self.db).unwrap();
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let root: i64 = conn.query_row(root, [name], |row| row.get(0)).unwrap();
        let leaves =
            "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path";
        let mut leaves = conn.prepare(leaves).unwrap();
        let leaves = leaves
            .query_map([name], |row| row.get::<_, i64>(0))
            .unwrap();
        let page = |page: i64| usize::try_from(page).unwrap();
        (page(root), leaves.map(|leaf| page(leaf.unwrap())).collect())
    }

    /// The indexes of a table.
    fn indexes(&self, table: &str) -> Vec<String> {
        let conn = Connection::open(&self.db).unwrap();
        let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1";
        let mut names = conn.prepare(names).unwrap();
        let names = names.query_map([table], |row| row.get(0)).unwrap();
        names.collect::<Result<_, _>>().unwrap()
    }

    /// A database with other bytes on its pages.
    fn damaged(&self, damage: impl FnOnce(&mut Vec<u8>)) -> Damaged<'_> {
        let mut bytes = self.bytes.clone();
        damage(&mut bytes);
        let directory = tempfile::tempdir_in(self.directory.path()).unwrap();
        let db = directory.path().join("opencode.db");
        fs::write(&db, bytes).unwrap();
        settle(&db);
        Damaged {
            whole: self,
            directory,
            db,
        }
    }

    /// A database to which SQL did something.
    fn changed(&self, sql: &str) -> Damaged<'_> {
        let changed = self.damaged(|_| {});
        let conn = Connection::open(&changed.db).unwrap();
        conn.execute_batch(sql).unwrap();
        conn.close().unwrap();
        settle(&changed.db);
        changed
    }
}

struct Damaged<'w> {
    whole: &'w Whole,
    #[expect(dead_code, reason = "it is deleted with it")]
    directory: tempfile::TempDir,
    db: PathBuf,
}

fn by_id(sessions: Vec<Value>) -> Sessions {
    let pair = |session: Value| (session["id"].as_str().unwrap().to_owned(), session);
    sessions.into_iter().map(pair).collect()
}

fn listed(db: &Path) -> (Sessions, Value) {
    let (sessions, end) = complete(&helper(db, &[]));
    (by_id(sessions), end)
}

/// The columns of the session's own table.
fn own(session: &Value) -> Value {
    let mut session = session.clone();
    for field in FIELDS {
        session.as_object_mut().unwrap().remove(field);
    }
    session
}

/// What the end of a listing says is lost.
fn degraded(end: &Value) -> BTreeSet<String> {
    let none = Vec::new();
    let degraded = end["degraded"].as_array().unwrap_or(&none);
    let names: BTreeSet<_> = degraded
        .iter()
        .map(|part| {
            assert!(!part["reason"].as_str().unwrap().is_empty(), "{end}");
            part["what"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(names.len(), degraded.len(), "each once: {end}");
    names
}

/// What SQLite notices of a damage when it reads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noticed {
    Yes,
    /// But the marker is looked for past SQLite, where a page is missing that had it.
    ButForMarks,
    No,
}

impl Damaged<'_> {
    /// Every session is listed, with its own columns; what cannot be lost with this
    /// table is as it was, and the rest is right, or null and named. Where SQLite
    /// cannot notice, nothing is asked of the rest; but no session is hidden that was
    /// not deleted, even where an index has lost the row that says so.
    fn assert_listed(&self, lost: &[&str], noticed: Noticed, what: &str) {
        let what = format!("{:?}, {what}", self.whole.mode);
        let output = helper(&self.db, &[]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{what}: {:?}",
            lines(&output).last()
        );
        let (sessions, end) = complete(&output);
        let mut sessions = by_id(sessions);
        let named = degraded(&end);
        if sessions.remove("ses_deleted").is_some() {
            assert!(lost.contains(&"deleted"), "{what}: a deleted one is listed");
            assert!(
                noticed == Noticed::No || named.contains("deleted"),
                "{what}: {end}"
            );
        }
        let keys = |sessions: &Sessions| sessions.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&sessions), keys(&self.whole.sessions), "{what}");
        for (session, expected) in sessions.values().zip(self.whole.sessions.values()) {
            assert_eq!(own(session), own(expected), "{what}");
            for field in FIELDS {
                let (value, right) = (&session[field], &expected[field]);
                if value == right {
                    continue;
                }
                assert!(
                    lost.contains(&field),
                    "{what}: {field} is {value}, not {right}"
                );
                if noticed == Noticed::Yes || noticed == Noticed::ButForMarks && field != "marked" {
                    assert_eq!(*value, Value::Null, "{what}: {field}, not {right}");
                    assert!(named.contains(field), "{what}: {field} is lost: {end}");
                }
            }
        }
        let lost: BTreeSet<_> = lost.iter().map(|name| (*name).to_owned()).collect();
        assert!(named.is_subset(&lost), "{what}: {end}");
    }

    /// Look-ups answer, too.
    fn assert_found(&self, what: &str) {
        let mut command = command(lister());
        command.args(["get", "--db"]).arg(&self.db);
        command.args(self.whole.sessions.keys());
        let output = command.output().unwrap();
        let mut answers = lines(&output);
        let what = format!("{:?}, {what}: {:?}", self.whole.mode, answers.last());
        assert_eq!(output.status.code(), Some(0), "{what}");
        answers.remove(0);
        answers.pop();
        for (answer, expected) in answers.iter().zip(self.whole.sessions.values()) {
            assert_eq!(own(answer), own(expected), "{what}");
        }
        assert_eq!(answers.len(), self.whole.sessions.len(), "{what}");
    }
}

/// The page with this number, from 1.
fn page(bytes: &mut [u8], number: usize) -> &mut [u8] {
    &mut bytes[(number - 1) * PAGE..number * PAGE]
}

/// Each optional table and each of its indexes, and what is lost with it.
fn objects(whole: &Whole) -> Vec<(String, bool, &'static [&'static str])> {
    let mut all = Vec::new();
    for (table, lost) in OPTIONAL {
        all.push((table.to_owned(), true, lost));
        let indexes = whole.indexes(table).into_iter();
        all.extend(indexes.map(|index| (index, false, lost)));
    }
    assert!(all.len() > 25, "{}", all.len());
    all
}

#[test]
fn undamaged_database_has_every_optional_part() {
    let _limit = support::limit(60);
    for mode in MODES {
        let sessions = Whole::new(mode).sessions;
        assert_eq!(i64::try_from(sessions.len()).unwrap(), 2 * SESSIONS);
        let with = |field: &str| {
            let is = |session: &&Value| !session[field].is_null() && session[field] != false;
            sessions.values().filter(is).count()
        };
        assert_eq!(FIELDS.map(with), [160, 80, 160, 7], "{mode:?}");
    }
}

#[test]
fn zeroed_root_of_an_optional_part_fails_no_listing() {
    let _limit = support::limit(120);
    for mode in MODES {
        let whole = Whole::new(mode);
        for (name, _, lost) in objects(&whole) {
            let (root, _) = whole.pages(&name);
            let damaged = whole.damaged(|bytes| page(bytes, root).fill(0));
            damaged.assert_listed(lost, Noticed::Yes, &format!("the root of {name} is zeroed"));
            damaged.assert_found(&format!("the root of {name} is zeroed"));
        }
    }
}

#[test]
fn zeroed_leaf_of_an_optional_part_fails_no_listing() {
    let _limit = support::limit(120);
    for mode in MODES {
        let whole = Whole::new(mode);
        for (name, _, lost) in objects(&whole) {
            let (_, leaves) = whole.pages(&name);
            assert!(leaves.len() > 1, "{name} has {leaves:?}");
            for leaf in [leaves[0], leaves[leaves.len() - 1]] {
                let damaged = whole.damaged(|bytes| page(bytes, leaf).fill(0));
                damaged.assert_listed(
                    lost,
                    Noticed::ButForMarks,
                    &format!("a leaf of {name} is zeroed"),
                );
            }
        }
    }
}

#[test]
fn swapped_pages_of_an_optional_part_fail_no_listing() {
    let _limit = support::limit(120);
    for mode in MODES {
        let whole = Whole::new(mode);
        for (name, _, lost) in objects(&whole) {
            let (_, leaves) = whole.pages(&name);
            let damaged = whole.damaged(|bytes| {
                let first = page(bytes, leaves[0]).to_vec();
                let second = page(bytes, leaves[1]).to_vec();
                page(bytes, leaves[0]).copy_from_slice(&second);
                page(bytes, leaves[1]).copy_from_slice(&first);
            });
            // Keys in another order: nobody notices.
            damaged.assert_listed(lost, Noticed::No, &format!("leaves of {name} are swapped"));
        }
    }
}

#[test]
fn root_of_another_table_fails_no_listing() {
    let _limit = support::limit(120);
    for mode in MODES {
        let whole = Whole::new(mode);
        for (name, is_table, lost) in objects(&whole) {
            // Of a table the root of an index and the other way round, and of one kind.
            for (other, is_noticed) in [("session_project_idx", is_table), ("session", !is_table)] {
                let damaged = whole.changed(&format!(
                    "PRAGMA writable_schema = on;
                     UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = '{other}')
                     WHERE name = '{name}'"
                ));
                let what = format!("the root of {name} is that of {other}");
                let noticed = if is_noticed {
                    Noticed::Yes
                } else {
                    Noticed::No
                };
                damaged.assert_listed(lost, noticed, &what);
            }
        }
    }
}

/// That is no damage: the part is not there, as in other versions of OpenCode.
#[test]
fn missing_optional_part_is_null_and_not_degraded() {
    let _limit = support::limit(120);
    for mode in MODES {
        let whole = Whole::new(mode);
        for (table, lost) in OPTIONAL {
            let mut changes = vec![
                format!("DROP TABLE {table}"),
                format!("DROP TABLE {table}; CREATE TABLE {table} (x)"),
            ];
            let own = |index: &String| !index.starts_with("sqlite_");
            let indexes = whole.indexes(table).into_iter().filter(own);
            changes.extend(indexes.map(|index| format!("DROP INDEX {index}")));
            for change in changes {
                let changed = whole.changed(&change);
                changed.assert_listed(lost, Noticed::No, &change);
                let (_, end) = listed(&changed.db);
                assert_eq!(end.get("degraded"), None, "{mode:?}, {change}: {end}");
            }
        }
    }
}

#[test]
fn view_in_place_of_an_optional_table_fails_no_listing() {
    let _limit = support::limit(120);
    for mode in MODES {
        let whole = Whole::new(mode);
        for (table, lost) in OPTIONAL {
            for view in [
                format!(
                    "ALTER TABLE {table} RENAME TO other; CREATE VIEW {table} AS SELECT * FROM other"
                ),
                format!("DROP TABLE {table}; CREATE VIEW {table} AS SELECT 1 AS id"),
                format!("DROP TABLE {table}; CREATE VIEW {table} AS SELECT * FROM nowhere"),
                format!("DROP TABLE {table}; CREATE VIEW {table} AS SELECT * FROM {table}"),
            ] {
                whole.changed(&view).assert_listed(lost, Noticed::No, &view);
            }
        }
    }
}

#[test]
fn damaged_session_table_fails_the_listing() {
    let _limit = support::limit(60);
    for mode in MODES {
        let whole = Whole::new(mode);
        for table in ["session", "session_v2"] {
            let (root, leaves) = whole.pages(table);
            for number in [root, leaves[0], leaves[leaves.len() - 1]] {
                let damaged = whole.damaged(|bytes| page(bytes, number).fill(0));
                let (kind, message) = error(&damaged.db, &[]);
                assert_eq!(kind, "corrupt", "{mode:?}, {table}: {message}");
                assert!(message.contains("opencode.db"), "{message}");
            }
        }
    }
}
