//! `opencode-sessions list`, as a person or a program calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{json, list, stderr, stdout, texts};
use crate::support::{self, Made, fixtures, real_database};

/// The project is another than in the reference for sessions of the project "global": they show
/// their own directories.
#[test]
fn real_database_lists_as_its_reference() {
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
fn json_of_a_session_has_all_keys_and_details() {
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
fn tsv_and_ids_are_one_line_whatever_the_title() {
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
fn no_format_prints_terminal_control_characters() {
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
        let bad =
            |c: &char| *c != '\n' && opencode_sessions::internals::text::is_unsafe_on_terminal(*c);
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
        stderr(&table).contains("1 Freshell subagent hidden (--all-marked shows it)"),
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
fn list_sorts_limits_and_filters() {
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
fn project_is_worktree_else_git_root_else_directory() {
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
