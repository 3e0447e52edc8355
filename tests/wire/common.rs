//! Lines, and what the checker makes of them.

use std::process::Output;

use opencode_sessions::internals::wire::{
    Checker, DatabaseState, End, Listing, Scan, Verdict, Violation,
};
use opencode_sessions::session::{Session, SessionId, Store};

use crate::support::{helper, real_database};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) const HELLO: &str = r#"{"type":"hello","protocol":1,"lister":"0.1.0"}"#;

pub(crate) fn session_line(id: &str) -> String {
    format!(r#"{{"type":"session","id":"{id}","store":"v1"}}"#)
}

/// A session line with these fields in front.
pub(crate) fn session_with(fields: &str) -> String {
    format!(r#"{{"type":"session",{fields},"id":"ses_a","store":"v1"}}"#)
}

pub(crate) fn end_line(sessions: usize) -> String {
    format!(
        r#"{{"type":"end","sessions":{sessions},"database":"ready","scan":{{"mode":"none","progress":1.0,"frames":0,"bytes":0}},"elapsedMs":1}}"#
    )
}

pub(crate) const ERROR: &str = r#"{"type":"error","kind":"busy","message":"locked"}"#;

/// These lines, each ended.
pub(crate) fn lines(lines: &[&str]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| [line.as_bytes(), b"\n"].concat())
        .collect()
}

pub(crate) fn check(output: &[u8]) -> Result<Verdict, Violation> {
    let mut checker = Checker::new();
    checker.push(output)?;
    checker.finish()
}

#[track_caller]
pub(crate) fn accepted(output: &[u8]) -> Listing {
    match check(output) {
        Ok(Verdict::Whole(mut listing)) => {
            assert_eq!(listing.bytes, output.len() as u64);
            // What is compared is what was said, not in how many bytes.
            listing.bytes = 0;
            listing
        }
        other => panic!("no listing: {other:?}: {}", String::from_utf8_lossy(output)),
    }
}

#[track_caller]
pub(crate) fn refused(output: &[u8]) -> Violation {
    match check(output) {
        Err(violation) => violation,
        Ok(verdict) => panic!(
            "taken for {verdict:?}: {}",
            String::from_utf8_lossy(&output[..output.len().min(400)])
        ),
    }
}

pub(crate) fn session(id: &str) -> Session {
    let mut session = Session::new(SessionId::new(id).unwrap(), Store::V1);
    session.untitled = true;
    session
}

pub(crate) fn end(sessions: u64) -> End {
    let mut end = End::new(sessions, DatabaseState::Ready);
    end.tables = vec!["session".to_owned()];
    end.scan = Scan::NONE;
    end.elapsed_ms = 1;
    end
}

/// What a real helper prints of a database that a real OpenCode wrote.
pub(crate) fn real_listing() -> Vec<u8> {
    let (_directory, db) = real_database("1.18.33");
    let output = helper(&db, &[]);
    assert_eq!(output.status.code(), Some(0));
    output.stdout
}

/// The helper's output, with `elapsedMs` as 0.
pub(crate) fn stable(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let (before, after) = text.split_once("\"elapsedMs\":").expect("an end");
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}\"elapsedMs\":0{after}")
}
