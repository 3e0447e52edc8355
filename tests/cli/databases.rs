//! What a list says of a database that is missing, foreign, incomplete or in the way.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{list, stderr, stdout};
use crate::support::{self, Made, command, sessions};

/// `list` for somebody whose data directory this is.
fn list_of_data(data: &Path, args: &[&str]) -> Output {
    let mut command = command(sessions());
    command.env("XDG_DATA_HOME", data).arg("list").args(args);
    command.output().unwrap()
}

#[test]
fn list_without_a_database_is_empty_with_a_hint() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("my data");
    fs::create_dir_all(data.join("opencode")).unwrap();
    let missing = data.join("opencode/opencode.db");
    for format in ["table", "json", "ndjson", "ids"] {
        let output = list_of_data(&data, &["--format", format]);
        assert_eq!(stdout(&output), if format == "json" { "[]\n" } else { "" });
        let hint = stderr(&output);
        assert!(hint.contains(&format!("'{}'", missing.display())), "{hint}");
        assert!(hint.contains("(run OpenCode once, or name "), "{hint}");
        assert_eq!(hint.lines().count(), 1);
    }
    let empty = place.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    assert!(stderr(&list(&empty, &[])).contains("is being created or restored"));
    support::settle(&empty);
    let output = list(&empty, &[]);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("has no sessions yet"));
}

#[test]
fn named_database_that_is_missing_is_an_error() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let made = Made::new();
    made.session("ses_a", 1);
    let typo = place.path().join("typo.db");
    let run = |args: &[&str], variable: Option<(&str, &Path)>| {
        let mut command = command(sessions());
        command.env("XDG_DATA_HOME", place.path()).args(args);
        command.envs(variable);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), output)
    };
    let sentence = format!(
        "no database at {} (check the path that --db names)",
        typo.display()
    );
    let named = ["--db", typo.to_str().unwrap()];
    for format in ["table", "json", "ids"] {
        let (status, output) = run(&[&["list", "--format", format], &named[..]].concat(), None);
        assert_eq!((status, &*output.stdout), (1, &b""[..]));
        assert_eq!(stderr(&output), format!("opencode-sessions: {sentence}\n"));
    }
    // The other one is listed.
    let both = [&named[..], &["--db", made.db.to_str().unwrap()]].concat();
    let (status, output) = run(&[&["list", "--format", "ids"], &both[..]].concat(), None);
    assert_eq!((status, &*output.stdout), (1, &b"ses_a\n"[..]));
    let expected = format!("opencode-sessions: typo.db: {sentence}\n");
    assert_eq!(stderr(&output), expected);
    let (status, output) = run(&[&["doctor"], &named[..]].concat(), None);
    assert_eq!(status, 1);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("WRONG     {sentence}\n")), "{said}");
    // The usual place, written out.
    let usual = place.path().join("opencode/opencode.db");
    let named = ["--db", usual.to_str().unwrap()];
    for command in ["list", "doctor"] {
        let (status, output) = run(&[&[command], &named[..]].concat(), None);
        assert_eq!(status, 1, "{output:?}");
        assert_eq!(run(&[command], None).0, 0, "nobody named it");
    }
    // Named by the environment.
    let variable = Some(("OPENCODE_DB", &*typo));
    let sentence = format!("OPENCODE_DB names {}, which does not exist", typo.display());
    let (status, output) = run(&["list"], variable);
    assert_eq!(status, 0);
    assert_eq!(stderr(&output), format!("opencode-sessions: {sentence}\n"));
    let (_, output) = run(&["doctor"], variable);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("missing   {sentence}\n")), "{said}");
}

#[test]
fn foreign_database_is_an_error_that_names_its_tables() {
    let _limit = support::limit(60);
    let many: String = (0..20).map(|n| format!("CREATE TABLE t{n} (x);")).collect();
    for (sql, tables) in [
        ("CREATE TABLE moz_places (id)", Some("moz_places")),
        (
            "CREATE TABLE project (id); CREATE TABLE session_old (id); CREATE INDEX i ON project (id)",
            Some("project, session_old"),
        ),
        (&*many, Some("t0, t1, t2, t3, t4, t5, t6, t7, …")),
        (
            "CREATE TABLE \"a\u{1b}[2J\u{200b}\" (x)",
            Some("a\u{fffd}[2J\u{fffd}"),
        ),
        // Not yet one of OpenCode's.
        ("", None),
        (
            "CREATE TABLE __drizzle_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT)",
            None,
        ),
        (
            "CREATE TABLE migration (id); CREATE TABLE data_migration (id)",
            None,
        ),
    ] {
        let made = Made::of(sql);
        let listed = list(&made.db, &[]);
        let db = made.db.to_str().unwrap();
        let mut doctor = command(sessions());
        let doctor = doctor.args(["doctor", "--db", db]).output().unwrap();
        let report = String::from_utf8_lossy(&doctor.stdout);
        let status = i32::from(tables.is_some());
        assert_eq!(listed.status.code(), Some(status), "{sql}: {listed:?}");
        assert_eq!(doctor.status.code(), Some(status), "{sql}: {report}");
        let sentence = match tables {
            Some(tables) => format!(
                "{db} has no table session or session_v2, but: {tables} (check that it is a \
                 database of OpenCode)"
            ),
            None => format!("the database at {db} has no sessions yet"),
        };
        let said = format!("opencode-sessions: {sentence}\n");
        assert_eq!(stderr(&listed), said);
        assert!(report.contains(&sentence), "{report}");
        assert_eq!(listed.stdout, b"");
        for what in ["get", "roots"] {
            let mut look_up = command(sessions());
            let output = look_up.args([what, "ses_1", "--db", db]).output().unwrap();
            let (status, said) = match tables.is_some() {
                true => (1, &*said),
                // Nothing is wrong with a database of nothing.
                false => (4, ""),
            };
            assert_eq!(output.status.code(), Some(status), "{what}: {output:?}");
            assert_eq!(stderr(&output), said, "{what}");
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(answer["type"] == "failed", tables.is_some(), "{answer}");
        }
    }
}

/// A helper that prints this as the last fields of its `end`, whatever the database.
fn lacking(at: &Path, fields: &str) {
    let text = format!(
        r#"#!/bin/sh
cat <<'.'
{{"type":"hello","protocol":1,"lister":"0.1.0"}}
{{"type":"session","id":"ses_1","store":"v1","directory":"/usr"}}
{{"type":"end","sessions":1,"database":"ready","scan":{{"mode":"none","progress":1,"frames":0,"bytes":0}},"elapsedMs":1{fields}}}
.
"#
    );
    support::script(at, &text);
}

const ELSEWHERE: &str = "the newest sessions may be missing: the database is in WAL mode, no -wal \
     file is next to it, and the file has another hard link or is itself a mount point (mount or \
     share its directory, not the file alone)";

#[test]
fn incomplete_listing_warns_and_succeeds() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let helper = place.path().join("helper");
    let run = |databases: &[&str], fields: &str| {
        lacking(&helper, fields);
        let mut list = command(sessions());
        list.args(["list", "--format", "ids", "--lister"])
            .arg(&helper);
        for database in databases {
            list.arg("--db").arg(database);
        }
        let output = list.output().unwrap();
        assert_eq!(stdout(&output), "ses_1\n");
        let said = stderr(&output);
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let one = ["/nowhere/opencode.db"];
    let two = ["/nowhere/a/x.db", "/nowhere/b/x.db"];
    let degraded =
        r#","degraded":[{"what":"lastMessageAt","reason":"the index\nis \u001b damaged"},
        {"what":"deleted","reason":"no table"}]"#
            .replace('\n', "");
    assert_eq!(run(&one, ""), [] as [&str; 0]);
    assert_eq!(
        run(&one, &degraded),
        [
            "opencode-sessions: opencode.db: lastMessageAt is missing: the index is \u{fffd} damaged",
            "opencode-sessions: opencode.db: deleted sessions may be listed: no table",
        ]
    );
    assert_eq!(
        run(&one, r#","logElsewhere":true"#),
        [format!("opencode-sessions: opencode.db: {ELSEWHERE}")]
    );
    let marked = r#","degraded":[{"what":"marked","reason":"x"}],"logElsewhere":true"#;
    assert_eq!(
        run(&two, marked),
        [
            "opencode-sessions: a/x.db: marked is missing: x".to_owned(),
            format!("opencode-sessions: a/x.db: {ELSEWHERE}"),
            "opencode-sessions: b/x.db: marked is missing: x".to_owned(),
            format!("opencode-sessions: b/x.db: {ELSEWHERE}"),
        ]
    );
}

/// As above, of a real database: one whose projects cannot be read, under a second name,
/// beside which there is no log.
#[test]
fn each_program_warns_about_an_incomplete_listing() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_1", 1);
    made.run(
        "UPDATE session SET project_id = 'p';
         DROP TABLE project; CREATE VIEW project AS SELECT id, worktree FROM gone",
    );
    let link = made.directory.path().join("elsewhere.db");
    // The last one to leave removes the log.
    drop(made.conn);
    fs::hard_link(&made.db, &link).unwrap();
    let run = |program: &Path, args: &[&str]| {
        let mut command = command(program);
        let output = command.args(args).arg("--db").arg(&link).output().unwrap();
        (stdout(&output), stderr(&output))
    };
    let (_, listed) = run(sessions(), &["list"]);
    let (_, pretty) = run(support::lister(), &["--pretty"]);
    let (explained, _) = run(support::lister(), &["explain"]);
    for (said, before) in [
        (listed, "opencode-sessions: elsewhere.db: "),
        (pretty, "opencode-lister: "),
        (explained, "lacks:    "),
    ] {
        let notes = said.lines().filter_map(|line| line.strip_prefix(before));
        let [worktree, log] = notes.collect::<Vec<_>>()[..] else {
            panic!("{before}: {said}");
        };
        assert!(worktree.starts_with("worktree is missing: "), "{said}");
        assert!(worktree.contains("gone"), "{said}");
        assert_eq!(log, ELSEWHERE);
    }
}

/// A failed listing prints one sentence on standard error and nothing on standard output.
#[test]
fn failed_list_exits_1_with_one_sentence_and_no_stdout() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let noise = place.path().join("noise.db");
    fs::write(
        &noise,
        "no database at all, but long enough to have a header. ".repeat(9),
    )
    .unwrap();
    let output = list(&noise, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    assert_eq!(
        stderr(&output),
        format!(
            "opencode-sessions: cannot read {}: file is not an SQLite database \
             (check that the path names the right file)\n",
            noise.display()
        )
    );
    let output = list(&noise, &["--lister", "/no/such/helper"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("helper not found at /no/such/helper"));
}

/// Whatever is in the place of the helper's cache, it lists, and leaves there what is not
/// its own.
#[test]
fn helper_lists_whatever_replaces_its_scan_cache() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_marked", 2);
    made.session("ses_other", 1);
    made.part("ses_marked", "<freshell-session-metadata origin=3-views");
    let at = |name: &str| made.directory.path().join(name);
    fs::create_dir(at("directory")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let fifo = Command::new("mkfifo").arg(at("fifo")).status();
    assert!(fifo.unwrap().success());
    symlink("/dev/zero", at("zero")).unwrap();
    fs::write(at("empty"), "").unwrap();
    for (name, is_replaced) in [
        ("fifo", false),
        ("directory", false),
        ("socket", false),
        ("zero", true),
        ("empty", true),
        ("missing", true),
    ] {
        let cache = at(name);
        let args = ["--scan-cache", cache.to_str().unwrap()];
        for mode in ["full", if is_replaced { "unchanged" } else { "full" }] {
            let output = support::helper(&made.db, &args);
            let (sessions, end) = support::complete(&output);
            let marks: Vec<_> = sessions
                .iter()
                .map(|session| session["marked"].clone())
                .collect();
            assert_eq!(marks, [Value::Bool(true), Value::Bool(false)], "{name}");
            assert_eq!(end["scan"]["mode"], mode, "{name}");
            let said = stderr(&output);
            assert_eq!(said.lines().count(), usize::from(!is_replaced), "{said}");
            assert!(is_replaced || said.contains("scan cache"), "{said}");
        }
        let now = fs::symlink_metadata(&cache).unwrap();
        assert_eq!(now.is_file(), is_replaced, "{name}");
    }
}

#[test]
fn sessions_of_an_old_opencode_are_mentioned() {
    let _limit = support::limit(60);
    let made = Made::of("");
    let directory = made.directory.path();
    let nowhere = directory.join("nowhere.db");
    let said = |db: &Path, status: i32| {
        let output = list(db, &[]);
        assert_eq!(output.status.code(), Some(status));
        String::from_utf8(output.stderr).unwrap()
    };
    for (db, status) in [(&made.db, 0), (&nowhere, 1)] {
        let said = said(db, status);
        assert!(!said.contains("1.1"), "{said}");
    }
    let store = directory.join("storage/session");
    fs::create_dir_all(&store).unwrap();
    assert!(!said(&nowhere, 1).contains("1.1"), "it is empty");
    fs::create_dir(store.join("global")).unwrap();
    for (db, status) in [(&made.db, 0), (&nowhere, 1)] {
        let said = said(db, status);
        assert!(said.contains("OpenCode 1.1 or earlier"), "{said}");
        assert!(
            said.contains("starting OpenCode 1.2 to 1.15 imports them"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
