//! `opencode-sessions list`, as a person or a program calls it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
{"id":"ses_a","directory":"/work","worktree":null,"projectId":"global","parentId":null,"title":"Title of ses_a","firstPrompt":null,"timeCreated":2000,"timeUpdated":2000,"timeArchived":null,"lastMessageAt":null,"marked":false,"store":"v1","agent":"build","version":"1.18.33","slug":"slug","model":{"id":"m","providerId":"p","variant":null},"cost":0.5,"tokens":{"input":7,"output":0,"reasoning":0,"cacheRead":0,"cacheWrite":0},"summary":{"additions":1,"deletions":2,"files":3},"project":"/work","source":"opencode.db"}
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
         ses_a\t2000\t2000\tfalse\t\t/work\t/work\ta\\tb\\nc\\\\d\\u{1b}[31m\\u{202e}\topencode.db\n"
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
           time_created, time_updated) VALUES ('ses_child', 'p', 'ses_1', '', '/work', 'z', '', 0, 50);
         INSERT INTO session (id, project_id, slug, directory, title, version, \
           time_created, time_updated, time_archived) \
           VALUES ('ses_old', 'p', '', '/work', 'y', '', 0, 40, 41);",
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

#[test]
fn no_database_is_an_empty_list_a_hint_and_no_failure() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("no such.db");
    for format in ["table", "json", "ndjson", "ids"] {
        let output = list(&missing, &["--format", format]);
        assert_eq!(stdout(&output), if format == "json" { "[]\n" } else { "" });
        let hint = stderr(&output);
        assert!(hint.contains(&format!("'{}'", missing.display())), "{hint}");
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

/// A helper that prints this as the last fields of its `end`, whatever the database.
fn lacking(at: &Path, fields: &str) {
    let text = format!(
        r#"#!/bin/sh
cat <<'.'
{{"type":"hello","protocol":1,"lister":"0.1.0"}}
{{"type":"session","id":"ses_1","store":"v1","directory":"/work"}}
{{"type":"end","sessions":1,"database":"ready","scan":{{"mode":"none","progress":1,"frames":0,"bytes":0}},"elapsedMs":1{fields}}}
.
"#
    );
    // Another process writes it: were it open for writing here, a child of another thread
    // could inherit that, and running it would fail.
    let status = command(Path::new("/bin/sh"))
        .args(["-c", r#"printf %s "$1" > "$2" && chmod 755 "$2""#, "sh"])
        .args([text.as_ref(), at.as_os_str()])
        .status()
        .unwrap();
    assert!(status.success());
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

#[test]
fn a_table_is_as_wide_as_its_terminal_and_coloured_only_there() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_0123456789012345678901234567", 2000);
    made.run("UPDATE session SET title = replace(hex(zeroblob(60)), '0', 'long ')");
    // `script` gives the program a terminal.
    let in_terminal = |width: u16, environment: &str| {
        let line = format!(
            "stty cols {width}; {environment} {} list --db {}",
            sessions().display(),
            made.db.display()
        );
        let output = command(Path::new("script"))
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .output();
        output
            .ok()
            .filter(|output| output.status.success())
            .map(|output| {
                String::from_utf8(output.stdout)
                    .unwrap()
                    .replace("\r\n", "\n")
            })
    };
    let Some(wide) = in_terminal(120, "") else {
        eprintln!("skipped: `script` of util-linux gives no terminal here");
        return;
    };
    assert!(wide.contains("\u{1b}[1m"), "{wide:?}");
    for width in [30, 40, 60, 70, 80, 120, 200] {
        let table = in_terminal(width, "NO_COLOR=1").unwrap();
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
    let made = Made::of("CREATE TABLE other (x)");
    let directory = made.directory.path();
    let nowhere = directory.join("nowhere.db");
    let said = |db: &Path| {
        let output = list(db, &[]);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    for db in [&made.db, &nowhere] {
        assert!(!said(db).contains("1.1"), "{}", said(db));
    }
    let store = directory.join("storage/session");
    fs::create_dir_all(&store).unwrap();
    assert!(!said(&nowhere).contains("1.1"), "it is empty");
    fs::create_dir(store.join("global")).unwrap();
    for db in [&made.db, &nowhere] {
        let said = said(db);
        assert!(said.contains("OpenCode 1.1 or earlier"), "{said}");
        assert!(
            said.contains("starting OpenCode 1.2 to 1.15 imports them"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
