//! The exact lines that are written.

use opencode_sessions::internals::wire::{
    Checker, Degraded, ErrorKind, HelperError, LookUp, LookUpContent, OptionalPart, Scan, ScanMode,
    Skipped, Verdict, Violation, WriteError, Writer, limits, other_tables_line,
};
use opencode_sessions::session::{Millis, Model, Store, Summary, Tokens, is_untitled};
use serde_json::{Value, json};

use crate::common::{HELLO, VERSION, accepted, check, end, end_line, lines, session, stable};
use crate::support::{self, Made, helper};

#[test]
fn writer_lines_are_exactly_as_documented() {
    let _limit = support::limit(30);
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    writer
        .session(&{
            let mut session = session("ses_full");
            session.directory = Some("/home/me/a \"b\"".to_owned());
            session.worktree = Some("/home/me".to_owned());
            session.project_id = Some("43aa".to_owned());
            session.parent_id = Some("ses_parent".to_owned());
            session.title = Some("Naïve 日本 🚀".to_owned());
            session.untitled = false;
            session.time_created = Some(Millis(1_795_338_894_119));
            session.time_updated = Some(Millis(-1));
            session.time_archived = Some(Millis(i64::MAX));
            session.last_message_at = Some(Millis(i64::MIN));
            session.marked = Some(true);
            session.store = Store::V2;
            session.agent = Some("build".to_owned());
            session.version = Some("1.18.33".to_owned());
            session.slug = Some("kind-forest".to_owned());
            session.share_url = Some("https://opncd.ai/s/x".to_owned());
            session.workspace_id = Some("wrk_1".to_owned());
            session.model = Some(Model {
                id: "claude".to_owned(),
                provider_id: "anthropic".to_owned(),
                variant: None,
            });
            session.cost = Some(0.25);
            session.tokens = Some(Tokens {
                input: 1,
                output: 2,
                reasoning: 3,
                cache_read: 4,
                cache_write: 5,
            });
            session.summary = Some(Summary {
                additions: 6,
                deletions: 7,
                files: 8,
            });
            session.time_idle = Some(Millis(9));
            session.time_viewed = Some(Millis(10));
            session.time_compacting = Some(Millis(7));
            session.time_suspended = Some(Millis(8));
            session.forked_from = Some("ses_of".to_owned());
            session.idle_outcome = Some("completed".to_owned());
            session
        })
        .unwrap();
    writer
        .session(&{
            let mut session = session("ses_min");
            session.first_prompt = Some("Fix it".to_owned());
            session
        })
        .unwrap();
    assert_eq!(writer.sessions(), 2);
    writer
        .end({
            let mut end = end(2);
            end.skipped = Skipped {
                invalid_id: 1,
                duplicate_id: 2,
                truncated: 3,
            };
            end.flat = true;
            end.scan = {
                let mut scan = Scan::new(ScanMode::Full);
                scan.progress = 0.5;
                scan.frames = 7;
                scan.bytes = 8;
                scan.stalled = true;
                scan
            };
            end.degraded = vec![Degraded {
                what: OptionalPart::LastMessageAt,
                reason: "damaged".to_owned(),
            }];
            end.log_elsewhere = true;
            end.elapsed_ms = 9;
            end
        })
        .unwrap();
    Writer::new(&mut out)
        .error(HelperError {
            kind: ErrorKind::NotADatabase,
            message: "it is none".to_owned(),
        })
        .unwrap();

    let expected = [
        &format!(r#"{{"type":"hello","protocol":1,"lister":"{VERSION}","upTo":2}}"#),
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
fn checker_reads_back_what_the_writer_wrote() {
    let _limit = support::limit(30);
    let hostile = "a\x1b[31m\u{7f}\u{9b}\u{202e}\u{2028}\u{feff}\"\\\n\0日本🚀";
    let written = {
        let mut session = session("ses_é \u{301}");
        session.title = Some(hostile.to_owned());
        session.untitled = is_untitled(Some(hostile));
        session.directory = Some(hostile.to_owned());
        session.time_updated = Some(Millis(i64::MIN));
        session.cost = Some(0.1 + 0.2);
        session
    };
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    writer.session(&written).unwrap();
    writer.end(end(1)).unwrap();
    let text = std::str::from_utf8(&out).unwrap();
    assert!(
        !text
            .chars()
            .any(|c| c != '\n' && opencode_sessions::internals::text::is_unsafe_on_terminal(c)),
        "a terminal would act on it: {text:?}"
    );
    let listing = accepted(&out);
    assert!(listing.sessions().eq([written]));
    assert_eq!(listing.end, end(1));
    assert_eq!(listing.helper_version, VERSION);
}

#[test]
fn error_message_is_cut_at_a_character() {
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
    let Ok(Verdict::Refused {
        failure,
        helper_version: lister,
    }) = check(&out)
    else {
        panic!("no refusal");
    };
    assert_eq!(failure.message, format!("x{}", "é".repeat(2047)));
    assert_eq!(failure.kind, ErrorKind::Io);
    assert_eq!(lister, VERSION);
}

#[test]
fn degraded_reason_is_cut_at_a_character() {
    let _limit = support::limit(30);
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    writer
        .end({
            let mut end = end(0);
            end.degraded = vec![Degraded {
                what: OptionalPart::Marked,
                reason: format!("x{}", "é".repeat(4096)),
            }];
            end
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
fn writer_rejects_what_the_checker_would_for_its_size() {
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
    let large = {
        let mut session = session("ses_large");
        session.title = text.clone();
        session.directory = text.clone();
        session.worktree = text.clone();
        session.project_id = text.clone();
        session.parent_id = text.clone();
        session.slug = text.clone();
        session.agent = text.clone();
        session.version = text.clone();
        session.share_url = text.clone();
        session.workspace_id = text.clone();
        session
    };
    let medium = {
        let mut session = session("ses_medium");
        session.title = text;
        session
    };
    // Down to the last byte that there is room for.
    for next in [large, medium, session("ses_small")] {
        let refusal = (0..=limits::TOTAL / (10 * 6 * limits::TEXT))
            .find_map(|_| writer.session(&next).err())
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
        .end({
            let mut end = end(0);
            end.degraded = vec![longest; limits::DEGRADED];
            end
        })
        .unwrap();
    assert!(out.0 <= limits::TOTAL, "{}", out.0);
}

#[test]
fn helper_prints_exactly_these_lines() {
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
            "{{\"type\":\"hello\",\"protocol\":1,\"lister\":\"{VERSION}\",\"upTo\":2}}\n{}\n{}\n",
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
            "{{\"type\":\"hello\",\"protocol\":1,\"lister\":\"{VERSION}\",\"upTo\":2}}\n{}\n",
            concat!(
                r#"{"type":"end","sessions":0,"database":"missing","tables":[],"flat":false,"#,
                r#""skipped":{"invalidId":0,"duplicateId":0,"truncated":0},"#,
                r#""scan":{"mode":"none","progress":1.0,"frames":0,"bytes":0},"elapsedMs":0}"#,
            ),
        )
    );
}
