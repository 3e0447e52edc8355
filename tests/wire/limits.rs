//! How long a line, a text and a listing may be.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use opencode_sessions::internals::wire::{
    Checker, Content, ListingContent, LookUp, LookUpContent, Verdict, Violation, limits,
};
use opencode_sessions::session::SessionId;

use crate::common::{
    ERROR, HELLO, accepted, check, end_line, lines, refused, session_line, session_with,
};
use crate::support;

#[test]
fn line_has_at_most_one_mebibyte() {
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
fn text_has_at_most_four_kibibytes() {
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
fn first_prompt_is_one_line_within_the_requested_limit() {
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
            Some(limit) => (
                ListingContent::new(limit),
                asked.with_first_prompt_limit(limit),
            ),
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
        (Some(limits::FIRST_PROMPT_MAX), limits::FIRST_PROMPT_MAX),
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
fn unknown_fields_are_ignored_in_every_line() {
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
fn endless_line_is_rejected_after_one_mebibyte() {
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

/// Little of them is kept.
#[test]
fn endless_lines_are_rejected_after_256_mebibytes() {
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
fn session_200001_is_rejected() {
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
fn unknown_field_of_many_values_takes_bounded_memory() {
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
