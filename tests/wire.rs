//! What crosses the pipe: the exact lines, and what the caller's side refuses.
//!
//! One rule stands behind all of it: what is not a whole listing is never taken
//! for one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;
use std::process::{Output, Stdio};

use opencode_sessions::session::{
    Millis, Model, Session, SessionId, Store, Summary, Tokens, is_untitled,
};
use opencode_sessions::wire::{
    Checker, Content, DatabaseState, Degraded, End, ErrorKind, HelperError, Listing,
    ListingContent, LookUp, LookUpContent, OptionalPart, Progress, Scan, ScanMode, Skipped,
    Verdict, Violation, WriteError, Writer, limits, other_tables_line,
};
use serde_json::{Value, json};
use support::{Made, helper, real_database};

const VERSION: &str = env!("CARGO_PKG_VERSION");

const HELLO: &str = r#"{"type":"hello","protocol":1,"lister":"0.1.0"}"#;

fn session_line(id: &str) -> String {
    format!(r#"{{"type":"session","id":"{id}","store":"v1"}}"#)
}

/// A session line with these fields in front.
fn session_with(fields: &str) -> String {
    format!(r#"{{"type":"session",{fields},"id":"ses_a","store":"v1"}}"#)
}

fn end_line(sessions: usize) -> String {
    format!(
        r#"{{"type":"end","sessions":{sessions},"database":"ready","scan":{{"mode":"none","progress":1.0,"frames":0,"bytes":0}},"elapsedMs":1}}"#
    )
}

const ERROR: &str = r#"{"type":"error","kind":"busy","message":"locked"}"#;

/// These lines, each ended.
fn lines(lines: &[&str]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| [line.as_bytes(), b"\n"].concat())
        .collect()
}

fn check(output: &[u8]) -> Result<Verdict, Violation> {
    let mut checker = Checker::new();
    checker.push(output)?;
    checker.finish()
}

#[track_caller]
fn accepted(output: &[u8]) -> Listing {
    match check(output) {
        Ok(Verdict::Whole(listing)) => {
            assert_eq!(listing.bytes, output.len() as u64);
            // What is compared is what was said, not in how many bytes.
            Listing {
                bytes: 0,
                ..listing
            }
        }
        other => panic!("no listing: {other:?}: {}", String::from_utf8_lossy(output)),
    }
}

#[track_caller]
fn refused(output: &[u8]) -> Violation {
    match check(output) {
        Err(violation) => violation,
        Ok(verdict) => panic!(
            "taken for {verdict:?}: {}",
            String::from_utf8_lossy(&output[..output.len().min(400)])
        ),
    }
}

fn session(id: &str) -> Session {
    Session {
        id: SessionId::new(id).unwrap(),
        directory: None,
        worktree: None,
        project_id: None,
        parent_id: None,
        title: None,
        untitled: true,
        first_prompt: None,
        time_created: None,
        time_updated: None,
        time_archived: None,
        last_message_at: None,
        marked: None,
        store: Store::V1,
        agent: None,
        version: None,
        slug: None,
        share_url: None,
        workspace_id: None,
        model: None,
        cost: None,
        tokens: None,
        summary: None,
        time_idle: None,
        time_viewed: None,
        time_compacting: None,
        time_suspended: None,
        forked_from: None,
        idle_outcome: None,
    }
}

fn end(sessions: u64) -> End {
    End {
        sessions,
        database: DatabaseState::Ready,
        tables: vec!["session".to_owned()],
        flat: false,
        skipped: Skipped::default(),
        scan: Scan::NONE,
        degraded: Vec::new(),
        log_elsewhere: false,
        other_tables: Vec::new(),
        elapsed_ms: 1,
    }
}

/// What a real helper prints of a database that a real OpenCode wrote.
fn real_listing() -> Vec<u8> {
    let (_directory, db) = real_database("1.18.33");
    let output = helper(&db, &[]);
    assert_eq!(output.status.code(), Some(0));
    output.stdout
}

/// The helper's output, with `elapsedMs` as 0.
fn stable(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let (before, after) = text.split_once("\"elapsedMs\":").expect("an end");
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}\"elapsedMs\":0{after}")
}

#[test]
fn each_line_the_writer_writes_is_exactly_as_documented() {
    let _limit = support::limit(30);
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    writer
        .session(Session {
            directory: Some("/home/me/a \"b\"".to_owned()),
            worktree: Some("/home/me".to_owned()),
            project_id: Some("43aa".to_owned()),
            parent_id: Some("ses_parent".to_owned()),
            title: Some("Naïve 日本 🚀".to_owned()),
            untitled: false,
            time_created: Some(Millis(1_795_338_894_119)),
            time_updated: Some(Millis(-1)),
            time_archived: Some(Millis(i64::MAX)),
            last_message_at: Some(Millis(i64::MIN)),
            marked: Some(true),
            store: Store::V2,
            agent: Some("build".to_owned()),
            version: Some("1.18.33".to_owned()),
            slug: Some("kind-forest".to_owned()),
            share_url: Some("https://opncd.ai/s/x".to_owned()),
            workspace_id: Some("wrk_1".to_owned()),
            model: Some(Model {
                id: "claude".to_owned(),
                provider_id: "anthropic".to_owned(),
                variant: None,
            }),
            cost: Some(0.25),
            tokens: Some(Tokens {
                input: 1,
                output: 2,
                reasoning: 3,
                cache_read: 4,
                cache_write: 5,
            }),
            summary: Some(Summary {
                additions: 6,
                deletions: 7,
                files: 8,
            }),
            time_idle: Some(Millis(9)),
            time_viewed: Some(Millis(10)),
            time_compacting: Some(Millis(7)),
            time_suspended: Some(Millis(8)),
            forked_from: Some("ses_of".to_owned()),
            idle_outcome: Some("completed".to_owned()),
            ..session("ses_full")
        })
        .unwrap();
    writer
        .session(Session {
            first_prompt: Some("Fix it".to_owned()),
            ..session("ses_min")
        })
        .unwrap();
    assert_eq!(writer.sessions(), 2);
    writer
        .end(End {
            skipped: Skipped {
                invalid_id: 1,
                duplicate_id: 2,
                truncated: 3,
            },
            flat: true,
            scan: Scan {
                mode: ScanMode::Full,
                progress: 0.5,
                frames: 7,
                bytes: 8,
                stalled: true,
            },
            degraded: vec![Degraded {
                what: OptionalPart::LastMessageAt,
                reason: "damaged".to_owned(),
            }],
            log_elsewhere: true,
            elapsed_ms: 9,
            ..end(2)
        })
        .unwrap();
    Writer::new(&mut out)
        .error(HelperError {
            kind: ErrorKind::NotADatabase,
            message: "it is none".to_owned(),
        })
        .unwrap();

    let expected = [
        &format!(r#"{{"type":"hello","protocol":1,"lister":"{VERSION}"}}"#),
        concat!(
            r#"{"type":"session","id":"ses_full","directory":"/home/me/a \"b\"","worktree":"/home/me","#,
            r#""projectId":"43aa","parentId":"ses_parent","title":"Naïve 日本 🚀","firstPrompt":null,"#,
            r#""timeCreated":1795338894119,"timeUpdated":-1,"timeArchived":9223372036854775807,"#,
            r#""lastMessageAt":-9223372036854775808,"marked":true,"store":"v2","agent":"build","#,
            r#""version":"1.18.33","slug":"kind-forest","shareUrl":"https://opncd.ai/s/x","#,
            r#""workspaceId":"wrk_1","model":{"id":"claude","providerId":"anthropic","variant":null},"#,
            r#""cost":0.25,"tokens":{"input":1,"output":2,"reasoning":3,"cacheRead":4,"cacheWrite":5},"#,
            r#""summary":{"additions":6,"deletions":7,"files":8},"#,
            r#""timeCompacting":7,"timeSuspended":8,"forkedFrom":"ses_of","timeIdle":9,"#,
            r#""timeViewed":10,"idleOutcome":"completed"}"#,
        ),
        concat!(
            r#"{"type":"session","id":"ses_min","directory":null,"worktree":null,"projectId":null,"#,
            r#""parentId":null,"title":null,"untitled":true,"firstPrompt":"Fix it","timeCreated":null,"#,
            r#""timeUpdated":null,"timeArchived":null,"lastMessageAt":null,"marked":null,"store":"v1","#,
            r#""model":null}"#,
        ),
        concat!(
            r#"{"type":"end","sessions":2,"database":"ready","tables":["session"],"flat":true,"#,
            r#""skipped":{"invalidId":1,"duplicateId":2,"truncated":3},"#,
            r#""scan":{"mode":"full","progress":0.5,"frames":7,"bytes":8,"stalled":true},"#,
            r#""degraded":[{"what":"lastMessageAt","reason":"damaged"}],"logElsewhere":true,"elapsedMs":9}"#,
        ),
        r#"{"type":"error","kind":"not_a_database","message":"it is none"}"#,
    ];
    let out = String::from_utf8(out).unwrap();
    assert!(out.ends_with('\n'));
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_the_writer_wrote_the_checker_reads_back_the_same() {
    let _limit = support::limit(30);
    let hostile = "a\x1b[31m\u{7f}\u{9b}\u{202e}\u{2028}\u{feff}\"\\\n\0日本🚀";
    let written = Session {
        title: Some(hostile.to_owned()),
        untitled: is_untitled(Some(hostile)),
        directory: Some(hostile.to_owned()),
        time_updated: Some(Millis(i64::MIN)),
        cost: Some(0.1 + 0.2),
        ..session("ses_é \u{301}")
    };
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    writer.session(written.clone()).unwrap();
    writer.end(end(1)).unwrap();
    let text = std::str::from_utf8(&out).unwrap();
    assert!(
        !text
            .chars()
            .any(|c| c != '\n' && opencode_sessions::text::unsafe_on_a_terminal(c)),
        "a terminal would act on it: {text:?}"
    );
    let listing = accepted(&out);
    assert!(listing.sessions.iter().eq([written]));
    assert_eq!(listing.end, end(1));
    assert_eq!(listing.lister, VERSION);
}

#[test]
fn an_error_message_is_cut_at_a_character_to_what_the_wire_carries() {
    let _limit = support::limit(30);
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    writer
        .error(HelperError {
            kind: ErrorKind::Io,
            message: format!("x{}", "é".repeat(4096)),
        })
        .unwrap();
    let Ok(Verdict::Refused { failure, lister }) = check(&out) else {
        panic!("no refusal");
    };
    assert_eq!(failure.message, format!("x{}", "é".repeat(2047)));
    assert_eq!(failure.kind, ErrorKind::Io);
    assert_eq!(lister, VERSION);
}

#[test]
fn reason_of_a_degraded_part_is_cut_at_a_character() {
    let _limit = support::limit(30);
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    writer
        .end(End {
            degraded: vec![Degraded {
                what: OptionalPart::Marked,
                reason: format!("x{}", "é".repeat(4096)),
            }],
            ..end(0)
        })
        .unwrap();
    let [degraded] = &accepted(&out).end.degraded[..] else {
        panic!("not one part");
    };
    assert_eq!(degraded.reason, format!("x{}", "é".repeat(2047)));
}

#[test]
fn other_tables_of_an_end_are_checked() {
    let _limit = support::limit(30);
    let verdict = |tables: Vec<String>| {
        let mut end: Value = serde_json::from_str(&end_line(0)).unwrap();
        end["otherTables"] = json!(tables);
        check(&lines(&[HELLO, &end.to_string()]))
    };
    let tables = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
    for (count, line) in [(2, "t0, t1"), (8, "t0, t1, t2, t3, t4, t5, t6, t7, …")] {
        let Ok(Verdict::Whole(listing)) = verdict(tables(count)) else {
            panic!("{count}");
        };
        assert_eq!(listing.end.other_tables, tables(count));
        assert_eq!(other_tables_line(&listing.end.other_tables), line);
    }
    // The end of a look-up has them too.
    let answers = |tables: Vec<String>| {
        let end = json!({"type": "end", "answers": 0, "database": "empty", "elapsedMs": 1,
            "otherTables": tables});
        let mut checker = Checker::of(LookUpContent::new(LookUp::Get, &[]));
        checker.push(&lines(&[HELLO, &end.to_string()]))?;
        checker.finish()
    };
    let Ok(Verdict::Whole(found)) = answers(tables(8)) else {
        panic!("not whole");
    };
    assert_eq!(found.end.other_tables, tables(8));
    for (tables, why) in [
        (tables(limits::OTHER_TABLES + 1), "more than 8 names"),
        (vec!["x".repeat(limits::TEXT + 1)], "otherTables"),
    ] {
        let message = verdict(tables.clone()).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
        let message = answers(tables).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn degraded_parts_of_an_end_are_checked() {
    let _limit = support::limit(30);
    let part = |what: &str, reason: &str| json!({"what": what, "reason": reason});
    let verdict = |degraded: Value, elsewhere: Value| {
        let mut end: Value = serde_json::from_str(&end_line(0)).unwrap();
        end["degraded"] = degraded;
        end["logElsewhere"] = elsewhere;
        check(&lines(&[HELLO, &end.to_string()]))
    };
    let parts = |count: usize| -> Value {
        let parts = (0..count).map(|n| part(&format!("new{n}"), ""));
        parts.collect()
    };
    let longest = "é".repeat(limits::TEXT / 2);
    for degraded in [
        json!([]),
        json!([part("marked", &longest)]),
        json!([
            part("lastMessageAt", "a"),
            part("firstPrompt", "a"),
            part("worktree", "a"),
            part("marked", "a"),
            part("deleted", "a")
        ]),
        // Of a newer helper.
        json!([part("colour", "a"), part("shape", "a"), {"what": "size", "reason": "", "new": 1}]),
        parts(limits::DEGRADED),
    ] {
        for elsewhere in [true, false] {
            let verdict = verdict(degraded.clone(), json!(elsewhere));
            let Ok(Verdict::Whole(listing)) = verdict else {
                panic!("{degraded}: {verdict:?}");
            };
            let count = degraded.as_array().unwrap().len();
            assert_eq!(listing.end.degraded.len(), count);
            assert_eq!(listing.end.log_elsewhere, elsewhere);
        }
    }
    for (degraded, elsewhere, why) in [
        (
            parts(limits::DEGRADED + 1),
            json!(true),
            "more than 32 parts",
        ),
        (
            json!([
                part("marked", "a"),
                part("worktree", "a"),
                part("marked", "b")
            ]),
            json!(true),
            "marked twice",
        ),
        (
            json!([part("marked", &format!("{longest}x"))]),
            json!(true),
            "its reason is longer than 4096 bytes",
        ),
        (
            json!([{"what": "marked"}]),
            json!(true),
            "missing field `reason`",
        ),
        (
            json!([{"reason": "a"}]),
            json!(true),
            "missing field `what`",
        ),
        (json!([]), json!("yes"), "invalid type"),
        (json!([]), Value::Null, "invalid type"),
    ] {
        let violation = verdict(degraded.clone(), elsewhere).unwrap_err();
        let named = matches!(violation, Violation::Invalid { line: 2, .. });
        let message = violation.to_string();
        assert!(named && message.contains(why), "{degraded}: {message}");
    }
}

#[test]
fn the_writer_refuses_what_the_checker_would_refuse_for_its_size() {
    let _limit = support::limit(120);
    struct Counted(usize);
    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut out = Counted(0);
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    // Six bytes each on the wire, which is the quickest way to 256 MiB.
    let text = Some("\u{1}".repeat(limits::TEXT));
    let large = Session {
        title: text.clone(),
        directory: text.clone(),
        worktree: text.clone(),
        project_id: text.clone(),
        parent_id: text.clone(),
        slug: text.clone(),
        agent: text.clone(),
        version: text.clone(),
        share_url: text.clone(),
        workspace_id: text.clone(),
        ..session("ses_large")
    };
    let medium = Session {
        title: text,
        ..session("ses_medium")
    };
    // Down to the last byte that there is room for.
    for next in [large, medium, session("ses_small")] {
        let refusal = (0..=limits::TOTAL / (10 * 6 * limits::TEXT))
            .find_map(|_| writer.session(next.clone()).err())
            .expect("256 MiB are the limit");
        assert!(matches!(refusal, WriteError::TooLarge(_)), "{refusal:?}");
        assert!(refusal.to_string().contains("256 MiB"), "{refusal}");
    }
    // The last line still has its place, also the longest.
    let longest = Degraded {
        what: OptionalPart::Unknown,
        reason: "\u{1}".repeat(limits::TEXT),
    };
    writer
        .end(End {
            degraded: vec![longest; limits::DEGRADED],
            ..end(0)
        })
        .unwrap();
    assert!(out.0 <= limits::TOTAL, "{}", out.0);
}

#[test]
fn the_helper_prints_exactly_these_lines() {
    let _limit = support::limit(30);
    let made = Made::new();
    made.run(
        "INSERT INTO project VALUES ('p1', '/usr', 'git', NULL, 1, 1, '[]');
         INSERT INTO session (id, project_id, parent_id, slug, directory, title, version, cost,
           agent, model, time_created, time_updated)
         VALUES ('ses_a', 'p1', NULL, 'calm-sea', '/usr/sub', 'A title', '1.18.33', 1.5, 'build',
           '{\"id\":\"m\",\"providerID\":\"p\",\"variant\":\"v\"}', 1000, 2000);",
    );
    made.part("ses_a", "0123456789");
    assert_eq!(
        stable(&helper(&made.db, &[])),
        format!(
            "{{\"type\":\"hello\",\"protocol\":1,\"lister\":\"{VERSION}\"}}\n{}\n{}\n",
            concat!(
                r#"{"type":"session","id":"ses_a","directory":"/usr/sub","worktree":"/usr","#,
                r#""projectId":"p1","parentId":null,"title":"A title","firstPrompt":null,"#,
                r#""timeCreated":1000,"timeUpdated":2000,"timeArchived":null,"lastMessageAt":null,"#,
                r#""marked":false,"store":"v1","agent":"build","version":"1.18.33","slug":"calm-sea","#,
                r#""model":{"id":"m","providerId":"p","variant":"v"},"cost":1.5,"#,
                r#""tokens":{"input":0,"output":0,"reasoning":0,"cacheRead":0,"cacheWrite":0}}"#,
            ),
            concat!(
                r#"{"type":"end","sessions":1,"database":"ready","tables":["session"],"flat":false,"#,
                r#""skipped":{"invalidId":0,"duplicateId":0,"truncated":0},"#,
                // One page is in the file, the others are in the log.
                r#""scan":{"mode":"full","progress":1.0,"frames":49,"bytes":204800},"elapsedMs":0}"#,
            ),
        )
    );
    let nowhere = made.directory.path().join("nowhere.db");
    assert_eq!(
        stable(&helper(&nowhere, &[])),
        format!(
            "{{\"type\":\"hello\",\"protocol\":1,\"lister\":\"{VERSION}\"}}\n{}\n",
            concat!(
                r#"{"type":"end","sessions":0,"database":"missing","tables":[],"flat":false,"#,
                r#""skipped":{"invalidId":0,"duplicateId":0,"truncated":0},"#,
                r#""scan":{"mode":"none","progress":1.0,"frames":0,"bytes":0},"elapsedMs":0}"#,
            ),
        )
    );
}

/// A `hello`, an `error` of kind usage and nothing else, exit status 2, and
/// something for a person; the message.
#[track_caller]
fn usage_error(output: &Output) -> (String, String) {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stdout} {stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(
        lines[0],
        format!(r#"{{"type":"hello","protocol":1,"lister":"{VERSION}"}}"#)
    );
    assert_eq!(lines.len(), 2, "{stdout}");
    assert!(stdout.ends_with('\n'));
    let Ok(Verdict::Refused { failure, .. }) = check(stdout.as_bytes()) else {
        panic!("no refusal: {stdout}");
    };
    assert_eq!(failure.kind, ErrorKind::Usage);
    (failure.message, stderr)
}

#[test]
fn wrong_usage_is_a_hello_and_an_error_and_says_the_right_usage_on_standard_error() {
    let _limit = support::limit(60);
    let made = Made::new();
    let cases: &[(&[&str], &str)] = &[
        (&["--nope"], "--nope"),
        (&["sing"], "sing"),
        (&["--db"], "--db"),
        (&["--busy-timeout", "soon"], "--busy-timeout"),
        (&["--busy-timeout", "-1"], "-1"),
        (&["--busy-timeout", "600001"], "--busy-timeout"),
        (&["--memory-limit", "7"], "--memory-limit"),
        (&["--marker", "fifteen letters"], "--marker"),
        (&["--marker", "sixteen l\u{e9}tters!"], "--marker"),
        (
            &["--marker", "sixteen letters!", "--no-marker"],
            "--no-marker",
        ),
        (&["--pretty", "--request-stdin"], "--pretty"),
        (&["--parent", "init"], "--parent"),
        (&["--cpu-limit", "0"], "--cpu-limit"),
        (&["--first-prompt-limit", "0"], "--first-prompt-limit"),
        (&["--first-prompt-limit", "4001"], "1 to 4000"),
        (&["--first-prompt-limit", "-1"], "-1"),
        (&["--first-prompt-limit", "all"], "--first-prompt-limit"),
        (&["get", "--first-prompt-limit", "4001", "x"], "1 to 4000"),
        (&["explain", "--first-prompt-limit", "0"], "1 to 4000"),
        (
            &["roots", "--first-prompt-limit", "9", "x"],
            "--first-prompt-limit",
        ),
        (&["--scan-budget", "0"], "--scan-budget"),
        (&["--scan-budget", "600001"], "--scan-budget"),
        (&["explain", "--nope"], "--nope"),
        (&["explain", "--pretty"], "--pretty"),
    ];
    for (args, named) in cases {
        let output = support::command(support::lister())
            .args(*args)
            .output()
            .unwrap();
        let (message, stderr) = usage_error(&output);
        assert!(message.contains(named), "{args:?}: {message}");
        assert!(stderr.contains(&message), "{args:?}: {stderr}");
        // Either the usage, or what the value must be, and where to read more.
        assert!(stderr.contains("--help"), "{args:?}: {stderr}");
    }
    // The database is not even looked at.
    let (message, stderr) = usage_error(&helper(&made.db, &["--colour", "red"]));
    assert_eq!(message, "unexpected argument '--colour' found");
    assert!(stderr.contains("Usage: opencode-lister"), "{stderr}");
}

#[test]
fn help_and_version_are_for_people_and_no_wrong_usage() {
    let _limit = support::limit(30);
    for (args, text) in [
        (["--help"], "Usage: opencode-lister"),
        (["--version"], VERSION),
    ] {
        let output = support::command(support::lister())
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(text), "{stdout}");
        assert!(output.stderr.is_empty());
    }
}

/// A title-less session whose first prompt is so long; the helper's lines about it, as
/// listed and as looked up.
fn first_prompts(characters: usize, args: &[&str]) -> [String; 2] {
    let made = Made::new();
    made.session("ses_a", 1);
    made.run(&format!(
        r#"UPDATE session SET title = '';
           INSERT INTO message (id, session_id, time_created, time_updated, data)
             VALUES ('m', 'ses_a', 1, 1, '{{"role":"user"}}');
           INSERT INTO part (id, message_id, session_id, time_created, time_updated, data)
             VALUES ('p', 'm', 'ses_a', 1, 1, '{{"type":"text","text":"{}"}}')"#,
        "日".repeat(characters)
    ));
    let prompt = |command: &[&str]| {
        let mut helper = support::command(support::lister());
        helper.args(command).arg("--db").arg(&made.db).args(args);
        let lines = support::lines(&helper.output().unwrap());
        lines[1]["firstPrompt"].as_str().unwrap().to_owned()
    };
    [prompt(&[]), prompt(&["get", "ses_a"])]
}

#[test]
fn first_prompt_is_whole_within_the_limit() {
    let _limit = support::limit(60);
    let whole = "日".repeat(150);
    for args in [
        &[][..],
        &["--first-prompt-limit", "150"],
        &["--first-prompt-limit", "4000"],
    ] {
        assert_eq!(
            first_prompts(150, args),
            [whole.as_str(), &whole],
            "{args:?}"
        );
    }
}

#[test]
fn first_prompt_is_cut_at_the_limit() {
    let _limit = support::limit(60);
    for (characters, limit) in [(5_000, 1), (5_000, 199), (5_000, 201), (5_000, 4_000)] {
        let args = ["--first-prompt-limit", &limit.to_string()];
        for prompt in first_prompts(characters, &args) {
            assert_eq!(prompt, "日".repeat(limit), "{limit}");
        }
    }
}

/// The helper with this on its standard input.
fn asked(made: &Made, args: &[&str], request: &[u8]) -> Output {
    let mut child = support::command(support::lister())
        .arg("--db")
        .arg(&made.db)
        .arg("--request-stdin")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(request);
    child.wait_with_output().unwrap()
}

#[test]
fn a_request_on_standard_input_is_obeyed() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_default", 2);
    made.session("ses_other", 1);
    made.part("ses_default", "…<freshell-session-metadata origin=3-views…");
    made.part("ses_other", "an $(other) `marker`; of \"mine\"");
    let other = r#"{"type":"list","marker":"OTHER) `marker`; of \"mine"}"#.to_owned() + "\n";
    let marked = |args: &[&str], request: &str| -> Vec<Option<bool>> {
        let output = asked(&made, args, request.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{request}");
        accepted(&output.stdout)
            .sessions
            .iter()
            .map(|session| session.marked)
            .collect()
    };
    assert_eq!(
        marked(&[], "{\"type\":\"list\"}\n"),
        [Some(true), Some(false)]
    );
    assert_eq!(
        marked(&[], "{\"type\":\"list\",\"marker\":null}\n"),
        [Some(true), Some(false)]
    );
    assert_eq!(marked(&[], &other), [Some(false), Some(true)]);
    assert_eq!(
        marked(&["--no-marker"], "{\"type\":\"list\"}\n"),
        [None, None]
    );
    // As long as a line may be, line end not counted.
    let request = "{\"type\":\"list\"}";
    let longest = request.replace(
        '}',
        &format!("{}}}\n", " ".repeat(limits::LINE - request.len())),
    );
    assert_eq!(marked(&[], &longest), [Some(true), Some(false)]);
}

#[test]
fn a_request_that_is_not_understood_is_wrong_usage_and_nothing_is_listed() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let long = format!(
        "{{\"type\":\"list\"{}}}\n",
        " ".repeat(limits::LINE - 15 + 1)
    );
    for request in [
        &b""[..],
        b"\n",
        b"{\"type\":\"list\"}",
        b"{\"type\":\"list\",\"colour\":1}\n",
        b"{\"type\":\"list\",\"marker\":\"short\"}\n",
        b"{\"type\":\"list\",\"marker\":\"sixteen letters\\n\"}\n",
        b"{\"type\":\"list\",\"marker\":\"sixteen letters\x1b\"}\n",
        b"{\"type\":\"list\",\"marker\":\"sixteen l\xc3\xa9tters\"}\n",
        b"{\"type\":\"list\",\"marker\":1234567890123456}\n",
        b"{\"type\":\"list\",\"type\":\"list\"}\n",
        b"{\"type\":\"sing\"}\n",
        b"{\"marker\":null}\n",
        b"{\"type\":\"list\"} {}\n",
        b"{\"type\":\"list\"}\r\n",
        b"{\"type\":\"list\"} \n",
        b" {\"type\":\"list\"}\n",
        b"[\"list\",{\"marker\":null}]\n",
        b"{\"type\":[\"list\"]}\n",
        b"{\"type\":{\"list\":null}}\n",
        b"{\"type\":0}\n",
        b"\xff\xfe\n",
        b"null\n",
        long.as_bytes(),
        &[b'x'; (2 << 20)],
    ] {
        let output = asked(&made, &[], request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]);
        let (message, stderr) = usage_error(&output);
        assert!(
            message.contains("request") && stderr.contains("request"),
            "{shown}: {message} {stderr}"
        );
        assert!(!stderr.contains('\x1b'), "{shown}: {stderr:?}");
    }
}

#[test]
fn a_real_listing_cut_at_any_byte_is_no_listing() {
    let _limit = support::limit(120);
    let whole = real_listing();
    let count = accepted(&whole).sessions.len();
    assert!(count >= 15);
    let mut sessions = 0;
    for cut in 0..whole.len() {
        let part = &whole[..cut];
        let lines = memchr::memchr_iter(b'\n', part).count();
        sessions = sessions.max(lines.saturating_sub(1));
        let expected = match part.last() {
            None => Violation::NoOutput,
            Some(b'\n') => Violation::NoEnd(lines - 1),
            Some(_) => Violation::PartialLine(lines + 1),
        };
        assert_eq!(check(part), Err(expected), "cut at byte {cut}");
    }
    assert_eq!(sessions, count);
}

#[test]
fn a_real_listing_without_any_one_line_or_with_one_twice_is_no_listing() {
    let _limit = support::limit(60);
    let whole = real_listing();
    let all: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..all.len() {
        let mut fewer = all.clone();
        fewer.remove(at);
        refused(&fewer.concat());
        let mut more = all.clone();
        more.insert(at, all[at]);
        refused(&more.concat());
    }
}

#[test]
fn a_listing_is_the_same_in_pieces_of_every_size() {
    let _limit = support::limit(120);
    let whole = real_listing();
    let expected = check(&whole);
    assert!(matches!(expected, Ok(Verdict::Whole(_))));
    for size in 1..=64 {
        let mut checker = Checker::new();
        for piece in whole.chunks(size) {
            checker.push(piece).unwrap();
        }
        assert_eq!(checker.bytes(), whole.len());
        assert_eq!(checker.progress(), Progress::Complete);
        assert_eq!(checker.finish(), expected, "pieces of {size}");
    }
}

#[test]
fn how_far_an_output_has_come_is_known_at_every_line() {
    let _limit = support::limit(30);
    let mut checker = Checker::new();
    assert_eq!(checker.progress(), Progress::Nothing);
    for (line, progress) in [
        (HELLO.to_owned(), Progress::Sessions(0)),
        (session_line("a"), Progress::Sessions(1)),
        (session_line("b"), Progress::Sessions(2)),
        (end_line(2), Progress::Complete),
    ] {
        let (half, rest) = line.split_at(line.len() / 2);
        let before = checker.progress();
        checker.push(half.as_bytes()).unwrap();
        assert_eq!(checker.progress(), before);
        checker.push(rest.as_bytes()).unwrap();
        assert_eq!(
            checker.progress(),
            before,
            "a line counts when it has ended"
        );
        checker.push(b"\n").unwrap();
        assert_eq!(checker.progress(), progress);
    }
}

#[test]
fn a_wrong_count_is_refused_and_both_numbers_are_said() {
    let _limit = support::limit(30);
    for (sent, said) in [(0, 1), (2, 1), (2, 3)] {
        let sessions: Vec<_> = (0..sent)
            .map(|at| session_line(&format!("s{at}")))
            .collect();
        let mut all = vec![HELLO];
        all.extend(sessions.iter().map(String::as_str));
        let end = end_line(said);
        all.push(&end);
        assert_eq!(
            refused(&lines(&all)),
            Violation::WrongCount {
                got: sent,
                said: said as u64
            }
        );
    }
}

#[test]
fn two_sessions_with_one_id_are_refused() {
    let _limit = support::limit(30);
    let violation = refused(&lines(&[
        HELLO,
        &session_line("a"),
        &session_line("b"),
        // The same id in other characters.
        &session_line("\\u0061"),
        &end_line(3),
    ]));
    let id = SessionId::new("a").unwrap();
    assert_eq!(violation, Violation::DuplicateId { line: 4, id });
}

#[test]
fn a_first_line_that_is_no_hello_is_refused() {
    let _limit = support::limit(30);
    for first in [
        &session_line("a"),
        &end_line(0),
        ERROR,
        "",
        "Welcome to this machine!",
        r#"{"protocol":1,"lister":"0.1.0"}"#,
        r#"{"type":"hello"}"#,
        r#"{"type":"hello","protocol":1}"#,
        r#"{"type":"hello","protocol":"1","lister":"0.1.0"}"#,
        r#"{"type":"hello","protocol":-1,"lister":"0.1.0"}"#,
        r#"{"type":"Hello","protocol":1,"lister":"0.1.0"}"#,
        r#"{"type":"hello","protocol":1,"protocol":1,"lister":"0.1.0"}"#,
        r#"{"type":"sing","protocol":1,"lister":"0.1.0"}"#,
        &format!("\u{feff}{HELLO}"),
        &format!(
            r#"{{"type":"hello","protocol":1,"lister":"{}"}}"#,
            "x".repeat(limits::TEXT + 1)
        ),
    ] {
        let violation = refused(&lines(&[first, &end_line(0)]));
        assert!(
            matches!(violation, Violation::NoHello(_)),
            "{first}: {violation:?}"
        );
        assert!(violation.to_string().len() < 400, "{violation}");
    }
    // The end alone is refused too, and so is a listing whose hello came late.
    refused(&lines(&[&end_line(0)]));
    refused(&lines(&[&session_line("a"), HELLO, &end_line(1)]));
    assert_eq!(refused(b""), Violation::NoOutput);
}

#[test]
fn another_protocol_is_refused_and_both_versions_are_named() {
    let _limit = support::limit(30);
    for protocol in [0, 2, u32::MAX] {
        let hello =
            format!(r#"{{"type":"hello","protocol":{protocol},"lister":"7.8.9\u001b[2J"}}"#);
        let violation = refused(&lines(&[&hello, &end_line(0)]));
        let message = violation.to_string();
        assert!(
            matches!(&violation, Violation::Protocol { theirs, .. } if *theirs == protocol),
            "{violation:?}"
        );
        for part in [
            "7.8.9",
            VERSION,
            &format!("protocol {protocol};"),
            "speaks protocol 1:",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains('\x1b'), "{message:?}");
    }
}

#[test]
fn an_unknown_type_is_refused_and_both_versions_are_named() {
    let _limit = support::limit(30);
    let hello = r#"{"type":"hello","protocol":1,"lister":"7.8.9"}"#;
    let unknown = r#"{"type":"sing\u001b","id":"x"}"#;
    let violation = refused(&lines(&[hello, unknown, &end_line(0)]));
    assert!(
        matches!(&violation, Violation::UnknownType { line: 2, .. }),
        "{violation:?}"
    );
    let message = violation.to_string();
    for part in ["sing", "7.8.9", VERSION] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains('\x1b'), "{message:?}");
}

#[test]
fn nothing_may_follow_the_last_line() {
    let _limit = support::limit(30);
    for last in [&end_line(0), ERROR] {
        for after in [
            "\n",
            " ",
            "\r\n",
            "\0",
            "x",
            "{",
            "{}\n",
            "\u{feff}",
            &format!("{HELLO}\n"),
            &format!("{}\n", session_line("a")),
            &format!("{}\n", end_line(0)),
            &format!("{ERROR}\n"),
        ] {
            let mut output = lines(&[HELLO, last]);
            output.extend_from_slice(after.as_bytes());
            assert_eq!(refused(&output), Violation::AfterEnd, "{after:?}");
        }
    }
}

#[test]
fn a_second_hello_is_refused() {
    let _limit = support::limit(30);
    assert_eq!(
        refused(&lines(&[HELLO, HELLO, &end_line(0)])),
        Violation::SecondHello(2)
    );
    assert_eq!(
        refused(&lines(&[HELLO, &session_line("a"), HELLO, &end_line(1)])),
        Violation::SecondHello(3)
    );
}

#[test]
fn sessions_before_an_error_do_not_count() {
    let _limit = support::limit(30);
    let verdict = check(&lines(&[HELLO, &session_line("a"), ERROR]));
    let Ok(Verdict::Refused { failure, lister }) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(failure.kind, ErrorKind::Busy);
    assert_eq!(failure.message, "locked");
    assert_eq!(lister, "0.1.0");
}

#[test]
fn invalid_utf8_is_refused_wherever_it_stands() {
    let _limit = support::limit(30);
    // A stray byte, an overlong `/`, a surrogate, a cut character, Latin-1.
    for bad in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x9a",
        b"\xe9t\xe9",
    ] {
        for (before, after) in [
            (r#"{"type":"session","id":""#, r#"","store":"v1"}"#),
            (
                r#"{"type":"session","id":"a","store":"v1","title":""#,
                r#""}"#,
            ),
            (
                r#"{"type":"session","id":"a","store":"v1","unknown":""#,
                r#""}"#,
            ),
            (r#"{"type":"session","id":"a","store":"v1",""#, r#"":1}"#),
            (r#"{"type":"session","id":"a","store":"v1"}"#, ""),
        ] {
            let line = [before.as_bytes(), bad, after.as_bytes()].concat();
            let output = [&lines(&[HELLO]), &line[..], b"\n", &lines(&[&end_line(1)])].concat();
            let violation = refused(&output);
            assert!(
                matches!(violation, Violation::Invalid { line: 2, .. }),
                "{bad:?} in {before}: {violation:?}"
            );
        }
    }
    // An escape can hold half a character, too.
    let line = r#"{"type":"session","id":"a","store":"v1","title":"\ud83d"}"#;
    refused(&lines(&[HELLO, line, &end_line(1)]));
}

#[test]
fn a_line_that_is_not_one_valid_message_is_refused() {
    let _limit = support::limit(30);
    let long_id = format!(
        r#"{{"type":"session","id":"{}","store":"v1"}}"#,
        "x".repeat(257)
    );
    let deep = format!(
        r#"{{"type":"session","id":"ses_a","store":"v1","new":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for line in [
        "",
        " ",
        "null",
        "1",
        "\"session\"",
        "{}",
        "[]",
        r#"{"type":null}"#,
        r#"{"type":["session"],"id":"ses_a","store":"v1"}"#,
        r#"{"id":"ses_a","store":"v1"}"#,
        r#"{"type":"session","id":"ses_a","store":"v1""#,
        r#"{"type":"session","id":"ses_a","store":"v1"}}"#,
        r#"{"type":"session","id":"ses_a","store":"v1"}{}"#,
        r#"{"type":"session","id":"ses_a","store":"v1"},"#,
        r#"{'type':'session','id':'ses_a','store':'v1'}"#,
        "\u{feff}{\"type\":\"session\",\"id\":\"ses_a\",\"store\":\"v1\"}",
        // The id.
        r#"{"type":"session","store":"v1"}"#,
        r#"{"type":"session","id":null,"store":"v1"}"#,
        r#"{"type":"session","id":1,"store":"v1"}"#,
        r#"{"type":"session","id":"","store":"v1"}"#,
        r#"{"type":"session","id":"a\nb","store":"v1"}"#,
        r#"{"type":"session","id":"a\u0000b","store":"v1"}"#,
        r#"{"type":"session","id":"a\u007f","store":"v1"}"#,
        r#"{"type":"session","id":"a\u009b31m","store":"v1"}"#,
        &long_id,
        // The other fields.
        r#"{"type":"session","id":"ses_a"}"#,
        r#"{"type":"session","id":"ses_a","store":"v3"}"#,
        &session_with(r#""id":"ses_b""#),
        &session_with(r#""title":"a","title":"a""#),
        &session_with(r#""title":1"#),
        &session_with(r#""directory":["/"]"#),
        &session_with(r#""marked":"yes""#),
        &session_with(r#""marked":1"#),
        &session_with(r#""timeUpdated":1.5"#),
        &session_with(r#""timeUpdated":"1""#),
        &session_with(r#""timeUpdated":9223372036854775808"#),
        &session_with(r#""timeCreated":-9223372036854775809"#),
        &session_with(r#""cost":"free""#),
        &session_with(r#""cost":1e999"#),
        &session_with(r#""cost":NaN"#),
        &session_with(r#""model":{"id":"m"}"#),
        &session_with(r#""model":"m""#),
        &session_with(r#""tokens":{"input":1}"#),
        &session_with(r#""summary":{"additions":1,"deletions":1}"#),
        &session_with(r#""untitled":null"#),
        &deep,
    ] {
        // Were the line ignored, one of the two would be a listing.
        for count in [0, 1] {
            let violation = refused(&lines(&[HELLO, line, &end_line(count)]));
            let Violation::Invalid { line: 2, .. } = violation else {
                panic!("{}: {violation:?}", &line[..line.len().min(100)]);
            };
            assert!(violation.to_string().len() < 400, "{violation}");
        }
    }
}

#[test]
fn an_end_or_an_error_that_is_not_valid_is_no_last_line() {
    let _limit = support::limit(30);
    let end = end_line(0);
    let broken = |from: &str, to: &str| {
        let broken = end.replace(from, to);
        assert_ne!(broken, end);
        broken
    };
    for line in [
        broken(r#""sessions":0,"#, ""),
        broken(r#""sessions":0"#, r#""sessions":-0.0"#),
        broken(r#""sessions":0"#, r#""sessions":"0""#),
        broken(r#""sessions":0"#, r#""sessions":0,"sessions":0"#),
        broken(r#""database":"ready","#, ""),
        broken("ready", "Ready"),
        broken("ready", "fine"),
        broken(r#""mode":"none""#, r#""mode":"some""#),
        broken(r#""progress":1.0"#, r#""progress":1.01"#),
        broken(r#""progress":1.0"#, r#""progress":-0.01"#),
        broken(r#""progress":1.0"#, r#""progress":null"#),
        broken(r#""frames":0"#, r#""frames":-1"#),
        broken(r#","elapsedMs":1"#, ""),
        broken(r#""elapsedMs":1"#, r#""elapsedMs":1.5"#),
        ERROR.replace("busy", "tired"),
        ERROR.replace(r#""kind":"busy","#, ""),
        ERROR.replace(r#","message":"locked""#, ""),
        ERROR.replace("locked", &"x".repeat(limits::TEXT + 1)),
    ] {
        let violation = refused(&lines(&[HELLO, &line]));
        assert!(
            matches!(violation, Violation::Invalid { line: 2, .. }),
            "{line}: {violation:?}"
        );
    }
    accepted(&lines(&[HELLO, &end]));
}

#[test]
fn a_line_is_an_object_and_never_an_array_of_its_values() {
    let _limit = support::limit(30);
    let session = session_line("a");
    let array = r#"["session",{"id":"a","store":"v1"}]"#;
    refused(&lines(&[
        r#"["hello",{"protocol":1,"lister":"0.1.0"}]"#,
        &end_line(0),
    ]));
    refused(&lines(&[r#"["hello",[1,"0.1.0"]]"#, &end_line(0)]));
    refused(&lines(&[r#"["hello",1,"0.1.0"]"#, &end_line(0)]));
    refused(&lines(&[HELLO, array, &end_line(1)]));
    refused(&lines(&[
        HELLO,
        &session,
        r#"["end",1,"ready",[],false,[0,0,0],["none",1.0,0,0],1]"#,
    ]));
}

/// Every line, of a listing and of a look-up, with something around it that JSON
/// ignores.
#[test]
fn line_is_one_object_from_its_first_byte_to_its_last() {
    let _limit = support::limit(60);
    for sample in SAMPLES {
        let output = golden(sample.name);
        let all: Vec<_> = output.lines().collect();
        assert_eq!(sample.check(&lines(&all)), None);
        for at in 0..all.len() {
            for (before, after, why) in [
                ("", "\r", "CR LF"),
                ("", " ", "blanks"),
                ("", "\t", "blanks"),
                ("", "\r\r", "blanks"),
                ("", " \r", "blanks"),
                (" ", "", "blanks"),
                ("\t", "", "blanks"),
                ("\r", "", "blanks"),
                (" ", "\r", "blanks"),
            ] {
                let mut changed = all.clone();
                let line = format!("{before}{}{after}", all[at]);
                changed[at] = &line;
                let violation = sample.refuses(&lines(&changed), &line);
                let message = violation.to_string();
                let named = matches!(violation, Violation::Invalid { line, .. } if line == at + 1);
                assert!(named && message.contains(why), "{line:?}: {message}");
            }
        }
        let with_cr = output.replace('\n', "\r\n");
        let violation = sample.refuses(with_cr.as_bytes(), "CR LF everywhere");
        assert!(violation.to_string().contains("line 1"), "{violation}");
        // A carriage return alone ends no line.
        sample.refuses(output.replace('\n', "\r").as_bytes(), "CR everywhere");
    }
    // A line of something else stays what it is: the greeting of a shell, say.
    let violation = refused(b"Welcome!\r\n");
    assert_eq!(violation, Violation::NoHello("Welcome!\\r".to_owned()));
}

/// An output with every field, and how it is checked.
struct Sample {
    name: &'static str,
    /// Nothing for a listing.
    asked: Option<(LookUp, &'static [&'static str])>,
}

const SAMPLES: [Sample; 4] = [
    Sample {
        name: "listing",
        asked: None,
    },
    Sample {
        name: "error",
        asked: None,
    },
    Sample {
        name: "get",
        asked: Some((LookUp::Get, &["ses_full", "ses_none", "ses_untitled"])),
    },
    Sample {
        name: "roots",
        asked: Some((
            LookUp::Roots,
            &[
                "ses_child",
                "ses_root",
                "ses_none",
                "ses_circle",
                "ses_orphan",
            ],
        )),
    },
];

impl Sample {
    /// What is wrong with this output.
    fn check(&self, output: &[u8]) -> Option<Violation> {
        fn violation<C: Content>(content: C, output: &[u8]) -> Option<Violation> {
            let mut checker = Checker::of(content);
            let pushed = checker.push(output);
            pushed.and_then(|()| checker.finish().map(|_| ())).err()
        }
        match self.asked {
            None => violation(ListingContent::default(), output),
            Some((what, ids)) => {
                let ids: Vec<_> = ids.iter().map(|id| SessionId::new(*id).unwrap()).collect();
                violation(LookUpContent::new(what, &ids), output)
            }
        }
    }

    #[track_caller]
    fn refuses(&self, output: &[u8], changed: &str) -> Violation {
        let violation = self.check(output);
        violation.unwrap_or_else(|| panic!("accepted in {}: {changed}", self.name))
    }
}

fn golden(name: &str) -> String {
    let path = support::fixtures().join(format!("golden/wire-1-{name}.jsonl"));
    std::fs::read_to_string(path).unwrap()
}

/// A place in a JSON value: the keys and positions that lead to it.
type Place = Vec<String>;

/// Every value within `value`, and where it is.
fn places(value: &Value, at: &Place, to: &mut Vec<(Place, Value)>) {
    let below = |key: String| [&at[..], &[key]].concat();
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                places(field, &below(key.clone()), to);
            }
        }
        Value::Array(values) => {
            for (position, value) in values.iter().enumerate() {
                places(value, &below(position.to_string()), to);
            }
        }
        _ => {}
    }
    to.push((at.clone(), value.clone()));
}

/// The same value in forms that are not the documented one, among them all that serde's
/// derives read as well. The derives read an array in the order of the line.
fn other_forms(value: &Value, line: &str) -> Vec<Value> {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| line.find(&format!("\"{key}\":")));
            let values: Vec<_> = fields.into_iter().map(|(_, value)| value).collect();
            vec![json!(values), json!([value]), json!(value.to_string())]
        }
        Value::Array(values) => {
            let mut fields = serde_json::Map::new();
            for (position, value) in values.iter().enumerate() {
                fields.insert(position.to_string(), value.clone());
            }
            vec![json!(fields), json!(value.to_string()), Value::Null]
        }
        Value::String(text) => vec![json!({text: null}), json!([text]), json!(0), json!(true)],
        Value::Number(number) => vec![json!(number.to_string()), json!([number]), json!(true)],
        Value::Bool(truth) => vec![json!(u8::from(*truth)), json!(truth.to_string())],
        Value::Null => Vec::new(),
    }
}

/// The samples have every struct and every enum of the wire, so a new one that is read
/// from another form as well fails here.
#[test]
fn value_in_another_form_is_refused_in_every_field() {
    let _limit = support::limit(60);
    let mut tried = 0;
    for sample in SAMPLES {
        let output = golden(sample.name);
        let all: Vec<_> = output.lines().collect();
        for at in 0..all.len() {
            let line: Value = serde_json::from_str(all[at]).unwrap();
            let mut found = Vec::new();
            places(&line, &Place::new(), &mut found);
            for (place, value) in found {
                for other in other_forms(&value, all[at]) {
                    let mut changed = line.clone();
                    let pointer: String = place.iter().map(|key| format!("/{key}")).collect();
                    *changed.pointer_mut(&pointer).unwrap() = other;
                    let changed = changed.to_string();
                    let mut lines_now = all.clone();
                    lines_now[at] = &changed;
                    let violation = sample.refuses(&lines(&lines_now), &changed);
                    match violation {
                        Violation::NoHello(_) => assert_eq!(at, 0, "{changed}"),
                        Violation::Invalid { line, .. } => assert_eq!(line, at + 1, "{changed}"),
                        other => panic!("{changed}: {other}"),
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn a_line_has_at_most_one_mebibyte() {
    let _limit = support::limit(60);
    let line = |bytes: usize| {
        let empty = session_with(r#""new":"""#);
        let line = session_with(&format!(r#""new":"{}""#, "x".repeat(bytes - empty.len())));
        assert_eq!(line.len(), bytes);
        line
    };
    let longest = lines(&[HELLO, &line(limits::LINE), &end_line(1)]);
    let longer = lines(&[HELLO, &line(limits::LINE + 1), &end_line(1)]);
    for piece in [usize::MAX, 65_536, limits::LINE, limits::LINE + 1] {
        let push = |output: &[u8]| {
            let mut checker = Checker::new();
            output
                .chunks(piece)
                .try_for_each(|piece| checker.push(piece))?;
            checker.finish()
        };
        assert!(push(&longest).is_ok(), "pieces of {piece}");
        assert_eq!(
            push(&longer),
            Err(Violation::LongLine(2)),
            "pieces of {piece}"
        );
    }
}

#[test]
fn a_text_has_at_most_four_kibibytes() {
    let _limit = support::limit(30);
    let exact = "é".repeat(limits::TEXT / 2);
    let longer = format!("{exact}x");
    for field in [
        "directory",
        "worktree",
        "projectId",
        "parentId",
        "title",
        "agent",
        "version",
        "slug",
        "shareUrl",
        "workspaceId",
    ] {
        let output = |text: &str| {
            let session = session_with(&format!(r#""{field}":"{text}""#));
            lines(&[HELLO, &session, &end_line(1)])
        };
        accepted(&output(&exact));
        let message = refused(&output(&longer)).to_string();
        assert!(message.contains(field), "{message}");
    }
    for part in ["id", "providerId", "variant"] {
        let output = |text: &str| {
            let model = r#""model":{"id":"a","providerId":"a","variant":"a"}"#.replace(
                &format!(r#""{part}":"a""#),
                &format!(r#""{part}":"{text}""#),
            );
            lines(&[HELLO, &session_with(&model), &end_line(1)])
        };
        accepted(&output(&exact));
        let message = refused(&output(&longer)).to_string();
        assert!(message.contains("model"), "{message}");
    }
}

/// In a listing and in a look-up.
#[test]
fn first_prompt_is_one_line_within_the_limit_of_the_request() {
    let _limit = support::limit(60);
    let check = |limit: Option<usize>, fields: &str| {
        fn verdict<C: Content>(content: C, output: &[u8]) -> Result<(), Violation> {
            let mut checker = Checker::of(content);
            checker.push(output)?;
            checker.finish().map(|_| ())
        }
        let session = session_with(fields);
        let answers = r#"{"type":"end","answers":1,"database":"ready","elapsedMs":1}"#;
        let asked = LookUpContent::new(LookUp::Get, &[SessionId::new("ses_a").unwrap()]);
        let (sessions, asked) = match limit {
            None => (ListingContent::default(), asked),
            Some(limit) => (ListingContent::new(limit), asked.first_prompt_limit(limit)),
        };
        let listing = verdict(sessions, &lines(&[HELLO, &session, &end_line(1)]));
        let look_up = verdict(asked, &lines(&[HELLO, &session, answers]));
        assert_eq!(listing, look_up, "{limit:?}: {fields}");
        listing
    };
    let prompt = |prompt: &str| format!(r#""untitled":true,"firstPrompt":"{prompt}""#);
    for (limit, longest) in [
        (None, limits::FIRST_PROMPT),
        (Some(1), 1),
        (Some(limits::FIRST_PROMPT), limits::FIRST_PROMPT),
        (Some(limits::FIRST_PROMPT_MOST), limits::FIRST_PROMPT_MOST),
    ] {
        // Characters, not bytes: other texts have at most 4 KiB.
        for character in ["x", "é", "日", "🚀", "\\u202e", "\\ud83d\\ude80"] {
            let fields = prompt(&character.repeat(longest));
            assert_eq!(check(limit, &fields), Ok(()), "{limit:?}: {character}");
            let fields = prompt(&character.repeat(longest + 1));
            let violation = check(limit, &fields).unwrap_err();
            let why = format!("its firstPrompt is longer than {longest} characters");
            let expected = Violation::Invalid { line: 2, why };
            assert_eq!(violation, expected, "{limit:?}: {character}");
        }
    }
    for (fields, why) in [
        (prompt("two\\nlines"), "several lines"),
        (prompt("two\\rlines"), "several lines"),
        (r#""firstPrompt":"a""#.to_owned(), "a title"),
        (
            r#""untitled":false,"title":"A title","firstPrompt":"a""#.to_owned(),
            "a title",
        ),
    ] {
        let violation = check(None, &fields).unwrap_err();
        assert!(violation.to_string().contains(why), "{fields}: {violation}");
    }
}

#[test]
fn fields_that_this_version_does_not_know_are_ignored_in_every_line() {
    let _limit = support::limit(30);
    let plain = [HELLO, &session_line("a"), &end_line(1)];
    let more: Vec<_> = plain
        .iter()
        .map(|line| {
            let fields = r#"{"new":{"a":[1,null,"x"]},"Type":"end","sessionId":7,"#;
            line.replacen('{', fields, 1)
        })
        .collect();
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    assert_eq!(accepted(&lines(&more)), accepted(&lines(&plain)));
    let deeper = end_line(1).replace(r#""mode""#, r#""new":1,"mode""#);
    accepted(&lines(&[HELLO, &session_line("a"), &deeper]));
    let error = ERROR.replacen('{', r#"{"new":1,"#, 1);
    assert_eq!(
        check(&lines(&[HELLO, &error])),
        check(&lines(&[HELLO, ERROR]))
    );
}

/// Counts what each thread holds, so that a test can say that memory is bounded.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Not in the last moments of a thread, when its variables are gone.
        let _ = HELD.try_with(|held| {
            held.set(held.get() + layout.size());
            MOST.with(|most| most.set(most.get().max(held.get())));
        });
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // What another thread allocated may be freed here.
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(layout.size())));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Pushes what `next` gives until it is refused; how, the bytes it took, and
/// the most memory that the checker held.
fn endless(mut next: impl FnMut(usize) -> Vec<u8>) -> (Violation, usize, usize) {
    let before = HELD.get();
    MOST.set(before);
    let mut checker = Checker::new();
    checker.push(&lines(&[HELLO])).unwrap();
    let violation = (0..)
        .find_map(|count| checker.push(&next(count)).err())
        .unwrap();
    (violation, checker.bytes(), MOST.get() - before)
}

const MIB: usize = 1 << 20;

#[test]
fn an_endless_line_is_refused_after_one_mebibyte() {
    let _limit = support::limit(60);
    for byte in [b'x', b' ', 0] {
        let (violation, taken, held) = endless(|_| vec![byte; 8192]);
        assert_eq!(violation, Violation::LongLine(2));
        assert!(taken <= limits::LINE + 2 * 8192, "{taken}");
        assert!(held <= 4 * MIB, "{held}");
    }
    // One line in one push.
    let (violation, _, held) = endless(|_| vec![b'x'; 2 * MIB]);
    assert_eq!(violation, Violation::LongLine(2));
    assert!(held <= 4 * MIB, "{held}");
}

#[test]
fn endless_lines_are_refused_after_256_mebibytes_of_which_little_is_kept() {
    let _limit = support::limit(120);
    let filler = "x".repeat(limits::LINE - 200);
    let first = format!(r#"{{"type":"session","new":"{filler}","#).into_bytes();
    // Each line in two pieces, of which the first must be held.
    let (violation, taken, held) = endless(|count| {
        if count % 2 == 0 {
            first.clone()
        } else {
            format!("\"id\":\"ses_{count}\",\"store\":\"v1\"}}\n").into_bytes()
        }
    });
    assert_eq!(violation, Violation::TooMuch(limits::TOTAL));
    assert!(taken <= limits::TOTAL + limits::LINE, "{taken}");
    assert!(held <= 16 * MIB, "{held}");
}

#[test]
fn the_200001st_session_is_refused() {
    let _limit = support::limit(120);
    let (violation, _, held) = endless(|count| lines(&[&session_line(&format!("ses_{count}"))]));
    assert_eq!(violation, Violation::TooMany);
    assert!(held <= 256 * MIB, "{held}");

    let mut most = Checker::new();
    most.push(&lines(&[HELLO])).unwrap();
    for count in 0..limits::SESSIONS {
        most.push(&lines(&[&session_line(&count.to_string())]))
            .unwrap();
    }
    most.push(&lines(&[&end_line(limits::SESSIONS)])).unwrap();
    assert!(matches!(most.finish(), Ok(Verdict::Whole(_))));
}

#[test]
fn an_unknown_field_of_many_small_values_takes_bounded_memory() {
    let _limit = support::limit(60);
    let values = "0,".repeat((limits::LINE - 200) / 2);
    let line = session_with(&format!(r#""new":[{values}0]"#));
    let (_, _, held) = endless(|count| {
        if count < 3 {
            lines(&[&line.replacen("ses_a", &format!("ses_{count}"), 1)])
        } else {
            lines(&[HELLO])
        }
    });
    // Half a million values are held while their line is parsed, and not longer.
    assert!(held <= 64 * MIB, "{held}");
}
