//! `opencode-sessions list`, as a person or a program calls it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod support;

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use support::{Made, command, fixtures, real_database, sessions};

fn list(db: &Path, args: &[&str]) -> Output {
    command(sessions())
        .arg("list")
        .arg("--db")
        .arg(db)
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(db: &Path, args: &[&str]) -> Vec<Value> {
    let output = list(db, &[args, &["--format", "json"]].concat());
    match serde_json::from_str(&stdout(&output)).unwrap() {
        Value::Array(sessions) => sessions,
        other => panic!("{other}"),
    }
}

fn texts(sessions: &[Value], field: &str) -> Vec<String> {
    sessions
        .iter()
        .map(|session| session[field].as_str().unwrap_or("null").to_owned())
        .collect()
}

#[test]
fn a_real_database_lists_as_the_reference_but_the_global_project_shows_its_own_directories() {
    let _limit = support::limit(60);
    for version in ["1.2.1", "1.14.34", "1.18.33", "1.18.33-v2api"] {
        let (_directory, db) = real_database(version);
        let sessions = json(&db, &[]);
        let reference = fs::read(fixtures().join(format!("expected-{version}.json"))).unwrap();
        let reference: Value = serde_json::from_slice(&reference).unwrap();
        let reference = reference["rows"].as_array().unwrap();
        assert_eq!(
            texts(&sessions, "id"),
            texts(reference, "sessionId"),
            "{version}"
        );
        let mut global = 0;
        for (session, expected) in sessions.iter().zip(reference) {
            assert_eq!(session["marked"], expected["hasThreeViewsMarker"] == 1);
            if session["projectId"] == "global" {
                global += 1;
                assert_eq!(session["project"], session["directory"]);
            } else {
                assert_eq!(session["project"], expected["projectPath"]);
            }
        }
        assert_eq!(
            global,
            if version == "1.18.33-v2api" { 0 } else { 3 },
            "{version}"
        );
    }
}

#[test]
fn the_json_of_a_session_has_its_keys_and_the_details_the_database_has() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 2000);
    made.run(
        "UPDATE session SET model = '{\"id\":\"m\",\"providerID\":\"p\",\"variant\":null}', \
         cost = 0.5, tokens_input = 7, summary_additions = 1, summary_deletions = 2, \
         summary_files = 3, agent = 'build', time_updated = 2000.9",
    );
    let expected = r#"[
{"id":"ses_a","directory":"/usr","worktree":null,"projectId":"global","parentId":null,"title":"Title of ses_a","firstPrompt":null,"timeCreated":2000,"timeUpdated":2000,"timeArchived":null,"lastMessageAt":null,"marked":false,"store":"v1","agent":"build","version":"1.18.33","slug":"slug","model":{"id":"m","providerId":"p","variant":null},"cost":0.5,"tokens":{"input":7,"output":0,"reasoning":0,"cacheRead":0,"cacheWrite":0},"summary":{"additions":1,"deletions":2,"files":3},"project":"/usr","headline":"Title of ses_a","activity":2000,"source":"opencode.db"}
]
"#;
    assert_eq!(stdout(&list(&made.db, &["--format", "json"])), expected);
    let ndjson = stdout(&list(&made.db, &["--format", "ndjson"]));
    assert_eq!(format!("[\n{ndjson}]\n"), expected);
}

#[test]
fn tsv_and_ids_are_one_line_a_session_whatever_the_title_holds() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 2000);
    made.conn
        .execute(
            "UPDATE session SET title = ?1",
            ["a\tb\nc\\d\u{1b}[31m\u{202e}"],
        )
        .unwrap();
    assert_eq!(
        stdout(&list(&made.db, &["--format", "tsv"])),
        "id\ttimeUpdated\ttimeCreated\tmarked\tparentId\tproject\tdirectory\ttitle\tsources\n\
         ses_a\t2000\t2000\tfalse\t\t/usr\t/usr\ta\\tb\\nc\\\\d\\u{1b}[31m\\u{202e}\topencode.db\n"
    );
    assert_eq!(stdout(&list(&made.db, &["--format", "ids"])), "ses_a\n");
}

#[test]
fn nothing_that_a_terminal_acts_on_is_printed_in_any_format() {
    let _limit = support::limit(60);
    let made = Made::new();
    let hostile = "\u{1b}]0;x\u{7}\u{9b}31m\u{7f}\u{202e}\u{2028}\r\0end";
    made.session("ses_a", 2000);
    made.session("ses_b'$(x)", 1000);
    made.conn
        .execute(
            "UPDATE session SET title = ?1, directory = '/w' || ?1",
            [hostile],
        )
        .unwrap();
    for format in ["table", "json", "ndjson", "tsv", "ids"] {
        let output = stdout(&list(&made.db, &["--format", format]));
        assert!(output.contains("ses_b'$(x)"), "{format}");
        let bad = |c: &char| *c != '\n' && opencode_sessions::text::unsafe_on_a_terminal(*c);
        let bad: Vec<char> = output
            .chars()
            .filter(|c| bad(c) && !(format == "tsv" && *c == '\t'))
            .collect();
        assert_eq!(bad, [], "{format}: {output:?}");
    }
    assert_eq!(json(&made.db, &[])[0]["title"], hostile);
}

#[test]
fn marked_sessions_are_hidden_in_the_table_only() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_plain", 2000);
    made.session("ses_marked", 1000);
    made.part(
        "ses_marked",
        "x <FRESHELL-session-metadata origin=3-views> y",
    );
    let table = list(&made.db, &[]);
    assert!(stdout(&table).contains("ses_plain"));
    assert!(!stdout(&table).contains("ses_marked"));
    assert!(
        stderr(&table).contains("1 that carries the marker is hidden"),
        "{}",
        stderr(&table)
    );
    assert!(stdout(&list(&made.db, &["--all-marked"])).contains("ses_marked"));
    let marks = |args: &[&str]| -> Vec<Value> {
        json(&made.db, args)
            .iter()
            .map(|session| session["marked"].clone())
            .collect()
    };
    assert_eq!(marks(&[]), [Value::Bool(false), Value::Bool(true)]);
    assert_eq!(marks(&["--no-marker"]), [Value::Null, Value::Null]);
    assert_eq!(
        marks(&["--marker", "another marker text"]),
        [Value::Bool(false), Value::Bool(false)]
    );
    assert_eq!(
        marks(&["--marker", "x <freshell-session"]),
        [Value::Bool(false), Value::Bool(true)]
    );
    assert!(stdout(&list(&made.db, &["--no-marker"])).contains("ses_marked"));
}

#[test]
fn sorting_limiting_and_filtering_do_what_they_say() {
    let _limit = support::limit(60);
    let made = Made::new();
    for (id, updated) in [
        ("ses_1", 100),
        ("ses_2", 300),
        ("ses_3", 200),
        ("ses_4", 300),
    ] {
        made.session(id, updated);
    }
    made.run(
        "UPDATE session SET time_created = 9 - substr(id, 5), \
         title = CASE id WHEN 'ses_1' THEN 'b' WHEN 'ses_2' THEN 'A' WHEN 'ses_3' THEN 'C' \
         ELSE 'a' END;
         INSERT INTO session (id, project_id, parent_id, slug, directory, title, version, \
           time_created, time_updated) VALUES ('ses_child', 'p', 'ses_1', '', '/usr', 'z', '', 0, 50);
         INSERT INTO session (id, project_id, slug, directory, title, version, \
           time_created, time_updated, time_archived) \
           VALUES ('ses_old', 'p', '', '/usr', 'y', '', 0, 40, 41);",
    );
    let ids = |args: &[&str]| texts(&json(&made.db, args), "id");
    assert_eq!(ids(&[]), ["ses_2", "ses_4", "ses_3", "ses_1"]);
    assert_eq!(
        ids(&["--sort", "created"]),
        ["ses_1", "ses_2", "ses_3", "ses_4"]
    );
    assert_eq!(
        ids(&["--sort", "title"]),
        ["ses_2", "ses_4", "ses_1", "ses_3"]
    );
    // The newest message counts, whatever OpenCode says of the session.
    made.run(
        "INSERT INTO message (id, session_id, time_created, time_updated, data)
         VALUES ('msg_1', 'ses_1', 999, 1, ''), ('msg_2', 'ses_2', 1, 1, '')",
    );
    assert_eq!(
        ids(&["--sort", "activity"]),
        ["ses_1", "ses_2", "ses_4", "ses_3"]
    );
    assert_eq!(ids(&[]), ["ses_2", "ses_4", "ses_3", "ses_1"]);
    assert_eq!(ids(&["--limit", "2"]), ["ses_2", "ses_4"]);
    assert_eq!(ids(&["--limit", "0"]), [] as [&str; 0]);
    assert_eq!(
        ids(&["--children"]),
        ["ses_2", "ses_4", "ses_3", "ses_1", "ses_child"]
    );
    assert_eq!(
        ids(&["--archived"]),
        ["ses_2", "ses_4", "ses_3", "ses_1", "ses_old"]
    );
    assert_eq!(
        ids(&["--archived", "--children", "--sort", "title"]).len(),
        6
    );
}

/// A repository with a linked worktree and a submodule, made of the files that
/// git makes; a bare repository with a worktree; and what looks like one.
fn repositories(at: &Path) {
    let put = |path: &str, text: &str| {
        let path = at.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("main/.git/HEAD", "ref: refs/heads/main\n");
    put("main/.git/worktrees/linked/HEAD", "ref: refs/heads/x\n");
    put("main/.git/worktrees/linked/commondir", "../..\n");
    put("main/.git/modules/sub/HEAD", "ref: refs/heads/main\n");
    put("main/deep/er/file", "");
    put("main/sub/.git", "gitdir: ../.git/modules/sub\n");
    put("main/sub/inner/file", "");
    put("main/fake/.git/not-a-head", "");
    put(
        "linked/.git",
        &format!("gitdir: {}/main/.git/worktrees/linked\n", at.display()),
    );
    put("linked/inner/file", "");
    put("bare.git/HEAD", "ref: refs/heads/main\n");
    put("bare.git/worktrees/w/commondir", "../..\n");
    put(
        "from-bare/.git",
        &format!("gitdir: {}/bare.git/worktrees/w\n", at.display()),
    );
    put("plain/file", "");
    let fifo = at.join("fifo/.git");
    fs::create_dir(fifo.parent().unwrap()).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn the_project_is_the_worktree_else_the_git_root_else_the_directory() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let at = place.path().canonicalize().unwrap();
    repositories(&at);
    let made = Made::new();
    let directories = [
        ("main", "main"),
        ("main/deep/er", "main"),
        ("main/gone/since", "main"),
        ("main/fake", "main"),
        ("main/sub/inner", "main/sub"),
        ("linked/inner", "main"),
        ("from-bare", "bare.git"),
        ("plain", "plain"),
        ("fifo", "fifo"),
    ];
    for (n, (directory, _)) in directories.iter().enumerate() {
        made.session(&format!("ses_{n}"), 1000 - i64::try_from(n).unwrap());
        made.conn
            .execute(
                "UPDATE session SET directory = ?1 WHERE id = ?2",
                (at.join(directory).to_str().unwrap(), format!("ses_{n}")),
            )
            .unwrap();
    }
    made.run(
        "INSERT INTO project VALUES ('p', '/somewhere/else', NULL, NULL, 0, 0, '[]');
         UPDATE session SET project_id = 'p' WHERE id = 'ses_0'",
    );
    let expected: Vec<_> = [PathBuf::from("/somewhere/else")]
        .into_iter()
        .chain(directories[1..].iter().map(|(_, project)| at.join(project)))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts(&json(&made.db, &[]), "project"), expected);

    let of = |path: &Path| {
        texts(
            &json(&made.db, &["--project", path.to_str().unwrap()]),
            "id",
        )
    };
    assert_eq!(
        of(&at.join("main/deep")),
        ["ses_0", "ses_1", "ses_2", "ses_3", "ses_5"]
    );
    assert_eq!(of(&at.join("main/../plain/")), ["ses_7"]);
    assert_eq!(of(Path::new("/somewhere/else")), ["ses_0"]);
    assert_eq!(of(&at), [] as [&str; 0]);
}

/// `list` for somebody whose data directory this is.
fn list_of_data(data: &Path, args: &[&str]) -> Output {
    let mut command = command(sessions());
    command.env("XDG_DATA_HOME", data).arg("list").args(args);
    command.output().unwrap()
}

#[test]
fn no_database_is_an_empty_list_a_hint_and_no_failure() {
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
        assert!(hint.contains("has OpenCode been run?"), "{hint}");
        assert_eq!(hint.lines().count(), 1);
    }
    let empty = place.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    assert!(stderr(&list(&empty, &[])).contains("just being made"));
    support::settle(&empty);
    let output = list(&empty, &[]);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("has no sessions yet"));
}

#[test]
fn database_that_was_named_and_is_missing_is_an_error() {
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
        "there is no database at {} (check the path that --db names)",
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
    let sentence = format!("OPENCODE_DB names {}, which is not there", typo.display());
    let (status, output) = run(&["list"], variable);
    assert_eq!(status, 0);
    assert_eq!(stderr(&output), format!("opencode-sessions: {sentence}\n"));
    let (_, output) = run(&["doctor"], variable);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("missing   {sentence}\n")), "{said}");
}

#[test]
fn database_of_another_program_is_an_error_that_names_its_tables() {
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

const ELSEWHERE: &str = "the newest sessions can be missing: the database is in WAL mode, no -wal \
     file is beside it, and the file has another name or is a mount of its own (mount or share \
     its directory, not the file alone)";

#[test]
fn what_a_listing_lacks_is_said_and_is_no_failure() {
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
            "opencode-sessions: opencode.db: deleted sessions can be listed: no table",
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
fn each_program_says_what_a_listing_lacks() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_1", 1);
    made.run(
        "UPDATE session SET project_id = 'p';
         DROP TABLE project; CREATE VIEW project AS SELECT id, worktree FROM gone",
    );
    let Made {
        directory,
        db,
        conn,
    } = made;
    // The last one to leave removes the log.
    drop(conn);
    let link = directory.path().join("elsewhere.db");
    fs::hard_link(&db, &link).unwrap();
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

#[test]
fn a_failed_listing_is_one_sentence_and_exit_1_and_nothing_on_standard_output() {
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
            "opencode-sessions: cannot read {}: it does not begin like an SQLite database \
             (check that the path names the right file)\n",
            noise.display()
        )
    );
    let output = list(&noise, &["--lister", "/no/such/helper"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no helper at /no/such/helper"));
}

/// Whatever is in the place of the helper's cache, it lists, and leaves there what is not
/// its own.
#[test]
fn helper_lists_with_anything_in_place_of_its_scan_cache() {
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
fn wrong_usage_is_exit_2_and_says_the_right_usage() {
    let _limit = support::limit(60);
    for args in [
        &["--nonsense"][..],
        &["list", "--format", "xml"],
        &["list", "--limit", "-1"],
        &["list", "--deadline", "soon"],
        &["list", "--deadline", "0s"],
        &["list", "--deadline", "-3s"],
        &["list", "--deadline", "25h"],
        &["list", "--marker", "short"],
        &[
            "list",
            "--marker",
            "not ascii: \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ],
        &["list", "--marker", "0123456789abcdef", "--no-marker"],
        &[],
    ] {
        let output = command(sessions()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let help = command(sessions())
        .args(["list", "--help"])
        .output()
        .unwrap();
    assert!(stdout(&help).contains("--all-marked"));
}

#[test]
fn without_db_the_environment_says_which_database() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let data = tempfile::tempdir().unwrap();
    fs::create_dir_all(data.path().join("opencode")).unwrap();
    let run = |variables: &[(&str, &Path)]| {
        let mut command = command(sessions());
        for (name, value) in variables {
            command.env(name, value);
        }
        command.args(["list", "--format", "ids"]).output().unwrap()
    };
    assert_eq!(stdout(&run(&[("OPENCODE_DB", &made.db)])), "ses_a\n");
    let link = data.path().join("opencode/opencode-dev.db");
    fs::copy(&made.db, &link).unwrap();
    fs::copy(
        made.directory.path().join("opencode.db-wal"),
        link.with_extension("db-wal"),
    )
    .unwrap();
    assert_eq!(stdout(&run(&[("XDG_DATA_HOME", data.path())])), "ses_a\n");
    let home = tempfile::tempdir().unwrap();
    let nowhere = run(&[("HOME", home.path())]);
    assert_eq!(stdout(&nowhere), "");
    assert!(stderr(&nowhere).contains(".local/share/opencode/opencode.db"));
    let memory = run(&[("OPENCODE_DB", Path::new(":memory:"))]);
    assert_eq!(stdout(&memory), "");
    assert!(stderr(&memory).contains(":memory:"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let _limit = support::limit(60);
    let made = Made::new();
    for n in 0..5000 {
        made.session(&format!("ses_{n:05}"), n);
    }
    for program in [sessions(), support::lister()] {
        let mut command = command(program);
        if program == sessions() {
            command.args(["list", "--format", "ndjson"]);
        }
        let mut child = command
            .arg("--db")
            .arg(&made.db)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
}

/// What a command shows on a terminal of so many columns.
fn on_terminal(width: u16, run: &mut Command) -> String {
    let (ours, theirs) = terminal();
    let size = Winsize {
        ws_row: 24,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&theirs, size).unwrap();
    run.env("TERM", "xterm").stdin(Stdio::null());
    let mut child = run.stdout(theirs).spawn().unwrap();
    run.stdout(Stdio::null());
    let shown = shown_on(ours);
    assert!(child.wait().unwrap().success(), "{shown}");
    shown
}

#[test]
fn a_table_is_as_wide_as_its_terminal_and_coloured_only_there() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_0123456789012345678901234567", 2000);
    made.run("UPDATE session SET title = replace(hex(zeroblob(60)), '0', 'long ')");
    let in_terminal = |width: u16, environment: &[(&str, &str)]| {
        let mut run = command(sessions());
        run.env_remove("NO_COLOR").envs(environment.iter().copied());
        on_terminal(width, run.args(["list", "--db"]).arg(&made.db))
    };
    let wide = in_terminal(120, &[]);
    assert!(wide.contains("\u{1b}[1m"), "{wide:?}");
    for width in [30, 40, 60, 70, 80, 120, 200] {
        let table = in_terminal(width, &[("NO_COLOR", "1")]);
        assert!(!table.contains('\u{1b}'), "{table:?}");
        assert_eq!(
            table.contains("ses_0123456789012345678901234567"),
            width >= 120,
            "{table}"
        );
        assert!(table.contains("long long"), "{table}");
        for line in table.lines() {
            assert!(
                line.chars().count() <= usize::from(width),
                "{width}: {line:?}"
            );
        }
        assert_eq!(table.lines().count(), 2, "{table}");
    }
    let piped = stdout(&list(&made.db, &[]));
    assert!(!piped.contains('\u{1b}') && piped.len() > 300, "{piped:?}");
}

#[test]
fn a_path_that_is_no_utf8_is_listed() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let odd = made
        .directory
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd \xff.db"));
    made.conn
        .execute(
            "VACUUM INTO ?1",
            [made.directory.path().join("copy.db").to_str().unwrap()],
        )
        .unwrap();
    fs::rename(made.directory.path().join("copy.db"), &odd).unwrap();
    support::settle(&odd);
    assert_eq!(stdout(&list(&odd, &["--format", "ids"])), "ses_a\n");
}

#[test]
fn sessions_of_an_old_opencode_are_said_to_be_there() {
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

// ---- What the table tells.

#[test]
fn source_is_shown_wherever_there_can_be_several() {
    let _limit = support::limit(60);
    let (old, new) = (Made::new(), Made::new());
    old.session("ses_old", 1);
    new.session("ses_new", 2);
    let table = |databases: &[&Made], args: &[&str]| {
        let mut list = command(sessions());
        list.arg("list").args(args);
        for made in databases {
            list.arg("--db").arg(&made.db);
        }
        stdout(&list.output().unwrap())
    };
    let both = table(&[&old, &new], &[]);
    assert!(both.contains("SOURCE"), "{both}");
    // The rows that are shown are all of one.
    let one = table(&[&old, &new], &["--limit", "1"]);
    assert!(one.contains("ses_new") && !one.contains("ses_old"), "{one}");
    assert!(
        one.contains("SOURCE") && one.contains("/opencode.db"),
        "{one}"
    );
    let alone = table(&[&old], &[]);
    assert!(!alone.contains("SOURCE"), "{alone}");
}

#[test]
fn what_a_table_does_not_show_is_counted() {
    let _limit = support::limit(60);
    let made = Made::new();
    for n in 1..=5 {
        made.session(&format!("ses_{n}"), n);
    }
    made.part("ses_5", "<freshell-session-metadata origin=3-views");
    let hidden = "; 1 that carries the marker is hidden, --all-marked shows it";
    for (args, rows, footer) in [
        (&["--limit", "2"][..], 2, format!("2 of 5 sessions{hidden}")),
        (&[], 4, format!("4 of 5 sessions{hidden}")),
        (
            &["--limit", "2", "--all-marked"],
            2,
            "2 of 5 sessions".to_owned(),
        ),
        (&["--all-marked"], 5, String::new()),
        (&["--limit", "9", "--all-marked"], 5, String::new()),
        (
            &["--project", "/"],
            0,
            "no sessions of this project".to_owned(),
        ),
    ] {
        let output = list(&made.db, args);
        let expected = match &*footer {
            "" => String::new(),
            footer => format!("opencode-sessions: {footer}\n"),
        };
        assert_eq!(stderr(&output), expected, "{args:?}");
        assert_eq!(
            stdout(&output).lines().count().saturating_sub(1),
            rows,
            "{args:?}"
        );
    }
    let output = list(&made.db, &["--format", "ids", "--limit", "2"]);
    assert_eq!(stderr(&output), "");
}

#[test]
fn rows_of_another_kind_and_the_sort_key_are_visible() {
    let _limit = support::limit(60);
    let made = Made::new();
    for id in ["ses_plain", "ses_old", "ses_child", "ses_marked"] {
        made.session(id, 2000);
    }
    made.part("ses_marked", "<freshell-session-metadata origin=3-views");
    made.run(
        "UPDATE session SET time_archived = 9 WHERE id = 'ses_old';
         UPDATE session SET parent_id = 'ses_plain' WHERE id = 'ses_child'",
    );
    let table = stdout(&list(
        &made.db,
        &[
            "--archived",
            "--children",
            "--all-marked",
            "--sort",
            "created",
        ],
    ));
    for expected in [
        "TITLE",
        "Title of ses_plain ",
        "[archived] Title of ses_old ",
        "[child] Title of ses_child ",
        "[subagent] Title of ses_marked ",
    ] {
        let mut lines = table.lines();
        assert!(lines.any(|line| line.starts_with(expected)), "{table}");
    }
    for (sort, header) in [
        ("updated", "UPDATED"),
        ("created", "CREATED"),
        ("activity", "ACTIVITY"),
        ("title", "UPDATED"),
    ] {
        let table = stdout(&list(&made.db, &["--sort", sort]));
        let shown = ["UPDATED", "CREATED", "ACTIVITY"].map(|name| table.contains(name));
        let expected = ["UPDATED", "CREATED", "ACTIVITY"].map(|name| name == header);
        assert_eq!(shown, expected, "{table}");
    }
}

#[test]
fn invisible_title_is_none_and_names_show_what_is_hidden_in_them() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 3);
    made.session("ses_b", 2);
    made.run(
        "UPDATE session SET title = char(8203, 12644, 173) WHERE id = 'ses_a';
         UPDATE session SET title = 'x' || char(8288) || 'y', directory = '/w' || char(8203)
           WHERE id = 'ses_b'",
    );
    let table = stdout(&list(&made.db, &[]));
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[1].starts_with("(untitled) "), "{table}");
    assert!(
        lines[2].starts_with("[gone] xy ") && lines[2].contains("/w\u{fffd}"),
        "{table}"
    );
    // Programs get what is stored.
    let stored = json(&made.db, &[]);
    assert_eq!(stored[0]["title"], "\u{200b}\u{3164}\u{ad}");
    assert_eq!(stored[0]["untitled"], true);
    assert_eq!(stored[1]["title"], "x\u{2060}y");
    // Its first prompt stands for it.
    made.run(
        r#"INSERT INTO message VALUES ('msg_1', 'ses_a', 1, 1, '{"role":"user"}');
           INSERT INTO part VALUES ('prt_1', 'msg_1', 'ses_a', 1, 1,
             '{"type":"text","text":"Fix the build"}')"#,
    );
    let table = stdout(&list(&made.db, &[]));
    assert!(table.contains("\nFix the build "), "{table}");
}

// ---- Streams and messages.

#[test]
fn slow_reader_of_a_pipe_that_does_not_block_gets_everything() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.run("BEGIN");
    for n in 0..3000 {
        made.session(&format!("ses_{n:05}"), n);
    }
    made.run("COMMIT");
    for (program, args) in [
        (sessions(), &["list", "--format", "json"][..]),
        (sessions(), &["list"]),
        (support::lister(), &[]),
        (support::lister(), &["--pretty"]),
    ] {
        let run = |stdout: Stdio| {
            let mut command = command(program);
            command.args(args).arg("--db").arg(&made.db);
            command
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let expected = run(Stdio::piped()).wait_with_output().unwrap().stdout;
        assert!(lines(&expected) >= 3000);
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        let child = run(OwnedFd::from(writer).into());
        // The pipe fills.
        thread::sleep(Duration::from_millis(1500));
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            stderr(&output)
        );
        assert_eq!(lines(&all), lines(&expected), "{args:?}");
        assert_eq!(all.last(), Some(&b'\n'), "{args:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error_that_says_so() {
    let _limit = support::limit(60);
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full here");
        return;
    }
    let made = Made::new();
    made.session("ses_a", 1);
    let db = made.db.to_str().unwrap();
    for args in [
        &["list", "--db", db][..],
        &["list", "--format", "json", "--db", db],
        &["get", "ses_a", "--db", db],
        &["doctor", "--db", db],
        &["list", "--help"],
        &["--version"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = command(sessions());
        let output = command.args(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = stderr(&output);
        assert!(
            said.starts_with("opencode-sessions: cannot write the result: No space left"),
            "{args:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Each write to a datagram socket is one message there.
#[test]
fn each_message_is_one_write_after_the_table() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    made.session("ses_b", 2);
    let nowhere = made.directory.path().join("nowhere.db");
    let writes = |program: &Path, args: &[&str], is_both: bool| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut command = command(program);
        command.args(args);
        if is_both {
            command.stdout(OwnedFd::from(theirs.try_clone().unwrap()));
        } else {
            command.stdout(Stdio::null());
        }
        command.stderr(OwnedFd::from(theirs)).status().unwrap();
        drop(command);
        ours.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut writes = Vec::new();
        while let Ok(count @ 1..) = ours.recv(&mut buffer) {
            writes.push(String::from_utf8(buffer[..count].to_vec()).unwrap());
        }
        writes
    };
    let db = made.db.to_str().unwrap();
    let both = writes(sessions(), &["list", "--limit", "1", "--db", db], true);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0].starts_with("TITLE") && both[0].ends_with('\n'),
        "{both:?}"
    );
    assert_eq!(both[1], "opencode-sessions: 1 of 2 sessions\n");
    for (program, args) in [
        (sessions(), &["list", "--db", nowhere.to_str().unwrap()][..]),
        (
            sessions(),
            &["get", "ses_a", "--db", nowhere.to_str().unwrap()],
        ),
        (sessions(), &["list", "--nonsense"]),
        (sessions(), &["list", "--lister", "/no/such/helper"]),
        (support::lister(), &["--nonsense"]),
        (support::lister(), &["--pretty", "--db", db]),
        (support::lister(), &["--pretty", "--db", "/dev/null"]),
    ] {
        let writes = writes(program, args, false);
        assert_eq!(writes.len(), 1, "{args:?}: {writes:?}");
        assert!(writes[0].ends_with('\n'), "{writes:?}");
    }
}

#[test]
fn removed_current_directory_is_said_to_be_removed() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let place = tempfile::tempdir().unwrap();
    let gone = place.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let line = format!(
        "cd {0} && rmdir {0} && exec {1} list --project . --db {2}",
        gone.display(),
        sessions().display(),
        made.db.display()
    );
    let output = command(Path::new("/bin/sh"))
        .args(["-c", &line])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "opencode-sessions: cannot tell which project --project . is: the current directory is \
         not there any more\n"
    );
}

/// A helper of version 0.1.0 names its own option.
#[test]
fn way_out_of_a_lock_names_options_of_this_program() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let helper = place.path().join("helper");
    let text = r#"#!/bin/sh
cat <<'.'
{"type":"hello","protocol":1,"lister":"0.1.0"}
{"type":"error","kind":"busy","message":"cannot list x: it is locked by another program: try again, or wait longer with --busy-timeout"}
.
exit 1
"#;
    support::script(&helper, text);
    for args in [
        &["list"][..],
        &["get", "ses_a"],
        &["roots", "ses_a"],
        &["doctor"],
    ] {
        let mut run = command(sessions());
        run.args(args).args(["--db", "/nowhere/x.db", "--lister"]);
        let output = run.arg(&helper).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let mut said = stderr(&output);
        if args == ["doctor"] {
            said = String::from_utf8(output.stdout).unwrap();
        }
        assert!(
            said.contains("wait longer with --deadline"),
            "{args:?}: {said}"
        );
        assert!(!said.contains("busy-timeout"), "{args:?}: {said}");
    }
}

// ---- What takes long.

/// A terminal: what is written to the one end comes out of the other.
fn terminal() -> (fs::File, fs::File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let options = fs::File::options().read(true).write(true).clone();
    (ours.into(), options.open(name.to_str().unwrap()).unwrap())
}

/// What was written to a terminal, once nobody has its other end any more.
fn shown_on(mut ours: fs::File) -> String {
    let mut shown = Vec::new();
    // It ends with EIO.
    let _ = ours.read_to_end(&mut shown);
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

/// What a command that takes two seconds says on standard error, on a terminal or not.
fn said_by_a_slow(command: &str, is_terminal: bool) -> String {
    let place = tempfile::tempdir().unwrap();
    let slow = place.path().join("slow");
    let made = Made::new();
    made.session("ses_a", 1000);
    let text = format!("#!/bin/sh\nsleep 2\nexec {:?} \"$@\"\n", support::lister());
    support::script(&slow, &text);
    let config = place.path().join("config.toml");
    let text = format!(
        "[[source]]\nname = \"far\"\ncommand = [{slow:?}]\ndb = {:?}\n\
         [[source]]\nname = \"near\"\ndb = {:?}\n",
        made.db, made.db
    );
    fs::write(&config, text).unwrap();
    let mut run = support::command(sessions());
    run.args([command, "--deadline", "30s", "--config"])
        .arg(&config);
    if command != "list" && command != "doctor" {
        run.arg("ses_a");
    }
    run.stdout(Stdio::null()).stdin(Stdio::null());
    if !is_terminal {
        return stderr(&run.stderr(Stdio::piped()).output().unwrap());
    }
    let (ours, theirs) = terminal();
    let mut child = run.stderr(theirs).spawn().unwrap();
    drop(run);
    let said = shown_on(ours);
    assert!(child.wait().unwrap().success() || command == "doctor");
    said
}

#[test]
fn what_is_waited_for_is_said_on_a_terminal_after_a_second() {
    let _limit = support::limit(120);
    let said = |command: &'static str, is_terminal| {
        thread::spawn(move || (command, said_by_a_slow(command, is_terminal)))
    };
    let commands = ["list", "get", "roots", "doctor"];
    let (on_one, without) = (
        commands.map(|command| said(command, true)),
        commands.map(|command| said(command, false)),
    );
    for (command, said) in on_one.map(|said| said.join().unwrap()) {
        let lines = said.lines().filter(|line| line.contains("waiting"));
        let [line] = lines.collect::<Vec<_>>()[..] else {
            panic!("{command}: {said}");
        };
        // Who has answered is not waited for; look-ups tell at the end who has.
        let names = match command {
            "list" | "doctor" => "far",
            _ => "far, near",
        };
        let left = line.strip_prefix(&format!("opencode-sessions: waiting for {names}, "));
        let seconds = left.and_then(|left| left.strip_suffix(" s at most"));
        let seconds: u64 = seconds.expect(line).parse().expect(line);
        assert!((20..30).contains(&seconds), "{line}");
    }
    for (command, said) in without.map(|said| said.join().unwrap()) {
        assert!(!said.contains("waiting"), "{command}: {said}");
    }
}

// ---- Options.

#[test]
fn repeated_option_counts_as_written_last() {
    let _limit = support::limit(60);
    let made = Made::new();
    for n in 1..=3 {
        made.session(&format!("ses_{n}"), n);
    }
    let output = list(
        &made.db,
        &[
            "--limit", "1", "--format", "json", "--format", "ids", "--limit", "2",
        ],
    );
    assert_eq!(stdout(&output), "ses_3\nses_2\n");
    // Several databases are several sources, as before.
    let other = Made::new();
    other.session("ses_4", 4);
    let output = list(
        &made.db,
        &["--format", "ids", "--db", other.db.to_str().unwrap()],
    );
    assert_eq!(stdout(&output), "ses_4\nses_3\nses_2\nses_1\n");
}

#[test]
fn help_fits_its_terminal_and_help_has_help() {
    let _limit = support::limit(60);
    for program in [sessions(), support::lister()] {
        let output = command(program).args(["help", "--help"]).output().unwrap();
        assert!(stdout(&output).contains("help"), "{output:?}");
        let args: &[&str] = match program == sessions() {
            true => &[
                "--help",
                "list --help",
                "serve --help",
                "get --help",
                "doctor --help",
            ],
            false => &["--help", "explain --help", "get --help"],
        };
        for args in args {
            for width in [60, 80] {
                let mut run = command(program);
                run.env("NO_COLOR", "1").args(args.split(' '));
                let help = on_terminal(width, &mut run);
                assert!(help.contains("Usage:"), "{help}");
                for line in help.lines() {
                    assert!(
                        line.chars().count() <= width.into(),
                        "{args} {width}: {line}"
                    );
                }
            }
        }
    }
}
