//! What a helper prints, pinned.

use opencode_sessions::internals::wire::{
    Answer, AnswersEnd, Checker, Content, DatabaseState, ErrorKind, HelperError, LookUp,
    LookUpContent, PROTOCOL, Unresolved, VERSION, Verdict, Writer,
};

use crate::golden::{assert_is_sample, end, full, id, untitled};
use crate::support::{self, sample};

/// What `write` writes after the `hello`, of a helper whose version is 1.2.3.
fn written(write: impl FnOnce(Writer<&mut Vec<u8>>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.hello().unwrap();
    write(writer);
    // The version of the package is no part of the format.
    let out = String::from_utf8(out).unwrap();
    let ours = format!(r#""lister":"{VERSION}""#);
    assert!(out.contains(&ours), "{out}");
    out.replacen(&ours, r#""lister":"1.2.3""#, 1).into_bytes()
}

#[track_caller]
fn checked<C: Content>(content: C, output: &[u8]) -> Verdict<C::Whole> {
    let mut checker = Checker::of(content);
    checker.push(output).unwrap();
    checker.finish().unwrap()
}

#[track_caller]
fn whole<T>(verdict: Verdict<T>) -> T {
    match verdict {
        Verdict::Whole(whole) => whole,
        Verdict::Refused { failure, .. } => panic!("{failure:?}"),
    }
}

fn wire_sample(what: &str) -> String {
    format!("wire-{PROTOCOL}-{what}.jsonl")
}

#[test]
fn wire_listing_is_pinned() {
    let _limit = support::limit(30);
    let name = wire_sample("listing");
    let encoded = written(|mut writer| {
        writer.session(&full()).unwrap();
        writer.session(&untitled()).unwrap();
        writer.end(end()).unwrap();
    });
    assert_is_sample(&name, &encoded);
    let listing = whole(checked(
        opencode_sessions::internals::wire::ListingContent::default(),
        &sample(&name),
    ));
    assert!(listing.sessions().eq([full(), untitled()]));
    assert_eq!(listing.end, end());
    assert_eq!(listing.helper_version, "1.2.3");
}

#[test]
fn wire_error_is_pinned() {
    let _limit = support::limit(30);
    let name = wire_sample("error");
    let failure = HelperError {
        kind: ErrorKind::NotADatabase,
        message: "cannot list /x/opencode.db: it is empty".to_owned(),
    };
    let encoded = written(|writer| writer.error(failure.clone()).unwrap());
    assert_is_sample(&name, &encoded);
    let verdict = checked(
        opencode_sessions::internals::wire::ListingContent::default(),
        &sample(&name),
    );
    let lister = "1.2.3".to_owned();
    assert_eq!(
        verdict,
        Verdict::Refused {
            helper_version: lister,
            failure
        }
    );
}

#[test]
fn wire_look_ups_are_pinned() {
    let _limit = support::limit(30);
    let unresolved = |session: &str, reason| Answer::Unresolved {
        id: id(session),
        reason,
    };
    let root = |session: &str, directory: Option<&str>| Answer::Root {
        id: id(session),
        root: id("ses_root"),
        directory: directory.map(str::to_owned),
    };
    let get = vec![
        Answer::Session(Box::new(full())),
        Answer::Absent { id: id("ses_none") },
        Answer::Session(Box::new(untitled())),
    ];
    let roots = vec![
        root("ses_child", Some("/home/me/a \"b\"")),
        root("ses_root", None),
        unresolved("ses_none", Unresolved::Absent),
        unresolved("ses_circle", Unresolved::Cycle),
        unresolved("ses_orphan", Unresolved::Orphan),
    ];
    let none = vec![Answer::Absent { id: id("ses_none") }];
    let places = vec!["moz_places".to_owned()];
    let (ready, empty) = (DatabaseState::Ready, DatabaseState::Empty);
    for (what, name, answers, database, other_tables) in [
        (LookUp::Get, wire_sample("get"), get, ready, Vec::new()),
        (
            LookUp::Roots,
            wire_sample("roots"),
            roots,
            ready,
            Vec::new(),
        ),
        (
            LookUp::Get,
            wire_sample("get-other-tables"),
            none,
            empty,
            places,
        ),
    ] {
        let end = AnswersEnd {
            answers: answers.len() as u64,
            database,
            other_tables,
            elapsed_ms: 4,
        };
        let encoded = written(|mut writer| {
            for answer in &answers {
                writer.answer(answer).unwrap();
            }
            writer.end_answers(&end).unwrap();
        });
        assert_is_sample(&name, &encoded);
        let ids: Vec<_> = answers.iter().map(|answer| answer.id().clone()).collect();
        let found = whole(checked(LookUpContent::new(what, &ids), &sample(&name)));
        assert_eq!(found.answers, answers, "{name}");
        assert_eq!(found.end, end, "{name}");
    }
}

/// What the first helper of this protocol printed: it knows no field that came later.
#[test]
fn wire_of_the_first_helper_is_read() {
    let _limit = support::limit(30);
    let name = wire_sample("first-listing");
    let listing = whole(checked(
        opencode_sessions::internals::wire::ListingContent::default(),
        &sample(&name),
    ));
    assert_eq!(listing.rows.len(), 19);
    assert_eq!(listing.end.degraded, []);
    assert!(!listing.end.log_elsewhere);
    let ids = ["ses_dfd76748bffel3ZamY0N7W58B6", "ses_none"].map(id);
    let get = sample(&wire_sample("first-get"));
    let get = whole(checked(LookUpContent::new(LookUp::Get, &ids), &get));
    assert!(matches!(&get.answers[0], Answer::Session(_)));
    assert!(matches!(&get.answers[1], Answer::Absent { .. }));
    let roots = sample(&wire_sample("first-roots"));
    let roots = whole(checked(LookUpContent::new(LookUp::Roots, &ids), &roots));
    let root = Answer::Root {
        id: ids[0].clone(),
        root: id("ses_dfd767a5fffebm48Ee3AlFuCmk"),
        directory: None,
    };
    assert_eq!(roots.answers[0], root);
}
