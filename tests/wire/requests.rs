//! What the helper is asked, by arguments and on standard input.

use std::io::Write as _;
use std::process::{Output, Stdio};

use opencode_sessions::internals::wire::{ErrorKind, Verdict, limits};

use crate::common::{VERSION, accepted, check};
use crate::support::{self, Made, helper};

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
        format!(r#"{{"type":"hello","protocol":1,"lister":"{VERSION}","upTo":2}}"#)
    );
    assert_eq!(lines.len(), 2, "{stdout}");
    assert!(stdout.ends_with('\n'));
    let Ok(Verdict::Refused { failure, .. }) = check(stdout.as_bytes()) else {
        panic!("no refusal: {stdout}");
    };
    assert_eq!(failure.kind, ErrorKind::Usage);
    (failure.message, stderr)
}

/// The right usage is on standard error.
#[test]
fn usage_error_is_a_hello_and_an_error() {
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
fn help_and_version_are_not_usage_errors() {
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
pub(crate) fn asked(made: &Made, args: &[&str], request: &[u8]) -> Output {
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
fn request_on_stdin_is_used() {
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
            .sessions()
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
fn invalid_request_is_a_usage_error_and_lists_nothing() {
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
