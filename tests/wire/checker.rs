//! What is refused: every output that is not a whole listing.

use opencode_sessions::internals::wire::{
    Checker, ErrorKind, Progress, Verdict, Violation, limits,
};
use opencode_sessions::session::SessionId;

use crate::common::{
    ERROR, HELLO, VERSION, accepted, check, end_line, lines, real_listing, refused, session_line,
    session_with,
};
use crate::samples::{SAMPLES, golden};
use crate::support;

#[test]
fn real_listing_cut_at_any_byte_is_rejected() {
    let _limit = support::limit(120);
    let whole = real_listing();
    let count = accepted(&whole).rows.len();
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
fn real_listing_with_a_line_missing_or_twice_is_rejected() {
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
fn listing_is_the_same_in_pieces_of_every_size() {
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
fn progress_is_known_at_every_line() {
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
fn wrong_count_is_rejected_with_both_numbers() {
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
fn two_sessions_with_one_id_are_rejected() {
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
fn first_line_must_be_a_hello() {
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
fn other_protocol_is_rejected_with_both_versions() {
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
            &format!("(protocol {protocol})"),
            "(protocol 1):",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains('\x1b'), "{message:?}");
    }
}

#[test]
fn unknown_type_is_rejected_with_both_versions() {
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
fn second_hello_is_rejected() {
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
    let Ok(Verdict::Refused {
        failure,
        helper_version: lister,
    }) = verdict
    else {
        panic!("{verdict:?}");
    };
    assert_eq!(failure.kind, ErrorKind::Busy);
    assert_eq!(failure.message, "locked");
    assert_eq!(lister, "0.1.0");
}

#[test]
fn invalid_utf8_is_rejected_anywhere() {
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
fn line_that_is_not_one_valid_message_is_rejected() {
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
fn invalid_end_or_error_is_not_a_last_line() {
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
fn array_of_values_is_not_a_line() {
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
fn line_is_one_object_from_first_to_last_byte() {
    let _limit = support::limit(60);
    for sample in SAMPLES {
        let output = golden(sample.name);
        let all: Vec<_> = output.lines().collect();
        assert_eq!(sample.check(&lines(&all)), None);
        for at in 0..all.len() {
            for (before, after, why) in [
                ("", "\r", "CR LF"),
                ("", " ", "white space"),
                ("", "\t", "white space"),
                ("", "\r\r", "white space"),
                ("", " \r", "white space"),
                (" ", "", "white space"),
                ("\t", "", "white space"),
                ("\r", "", "white space"),
                (" ", "\r", "white space"),
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
