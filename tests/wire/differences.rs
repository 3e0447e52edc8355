//! Differences: what is accepted, and that every other answer is refused.

use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use opencode_sessions::internals::helper::{Difference, HaveError};
use opencode_sessions::internals::line_hash::{HashKey, LineHash};
use opencode_sessions::internals::wire::{
    Checker, DatabaseState, End, HAVE_BYTES, Have, Known, Listing, ListingContent, PROTOCOL,
    PROTOCOL_OF_DIFFERENCES, Request, Verdict, Violation, Writer, decode_set, limits,
};
use opencode_sessions::row::Rows;

use crate::common::{end, session};
use crate::support::{self, Database, listing_of, write_difference};

fn database(sessions: &[(&str, &str)]) -> Database {
    let sessions = sessions.iter().map(|(id, title)| {
        let mut session = session(id);
        (session.title, session.untitled) = (Some((*title).to_owned()), false);
        (session.id.clone(), session)
    });
    sessions.collect()
}

/// What the caller has, and what the database has now: `same` and `too` are the same, `old` has
/// changed, `gone` is gone and `new` is new.
fn before_and_after() -> (Database, Database) {
    let before = [("same", "a"), ("old", "b"), ("gone", "c"), ("too", "d")];
    let after = [("same", "a"), ("old", "B"), ("new", "e"), ("too", "d")];
    (database(&before), database(&after))
}

/// What a caller has after a whole listing of this database.
fn known(database: &Database, key: HashKey) -> Known {
    let nothing = Known {
        rows: Arc::default(),
        key,
        set: None,
        generation: 1,
    };
    let content = ListingContent::default().sharing(Some(&nothing));
    let listing = listing(content, &listing_of(database)).unwrap();
    assert!(listing.end.difference.is_none());
    let rows = listing.rows.into_iter().map(|row| (row.id().clone(), row));
    let rows: Rows = rows.collect();
    let known = Known {
        rows: Arc::new(rows),
        ..nothing
    };
    let bytes = known.set_bytes();
    let (sessions, _) = bytes.as_chunks::<HAVE_BYTES>();
    let line = |session: &[u8; HAVE_BYTES]| LineHash::of(session[16..].try_into().unwrap());
    Known {
        set: Some(sessions.iter().map(line).collect()),
        ..known
    }
}

fn listing(content: ListingContent, answer: &[u8]) -> Result<Listing, Violation> {
    let mut checker = Checker::of(content);
    checker.push(answer)?;
    match checker.finish()? {
        Verdict::Whole(listing) => Ok(listing),
        Verdict::Refused { failure, .. } => panic!("an error: {failure:?}"),
    }
}

fn check(answer: &[u8], known: &Known) -> Result<Listing, Violation> {
    let content = ListingContent::default().sharing(Some(known));
    listing(content.differing(Some(known.clone())), answer)
}

/// The difference of a database to what is known, as the helper writes it.
fn answer(database: &Database, known: &Known) -> Vec<String> {
    let mut answer = Vec::new();
    let mut writer = Writer::new(&mut answer);
    writer.hello_of(PROTOCOL_OF_DIFFERENCES).unwrap();
    let mut set = Cursor::new(known.set_bytes());
    let have = known.have().unwrap();
    let mut difference = Difference::to(have, None, &mut set, &mut writer).unwrap();
    write_difference(database, &mut difference, writer);
    let answer = String::from_utf8(answer).unwrap();
    answer.split_inclusive('\n').map(str::to_owned).collect()
}

fn line_with(lines: &[String], text: &str) -> usize {
    let at = lines.iter().position(|line| line.contains(text));
    at.unwrap_or_else(|| panic!("no line has {text}: {lines:?}"))
}

#[test]
fn difference_is_what_changed() {
    let (before, after) = before_and_after();
    let known = known(&before, HashKey::random());
    let lines = answer(&after, &known);
    // The hello, two sessions, one that is gone, the end.
    assert_eq!(lines.len(), 5, "{lines:?}");
    let listing = check(lines.concat().as_bytes(), &known).unwrap();
    let ids: Vec<_> = listing.rows.iter().map(|row| row.id().as_str()).collect();
    assert_eq!(ids, ["new", "old"]);
    let counts = listing.end.difference.unwrap();
    assert_eq!((counts.same, counts.sent, counts.gone), (2, 2, 1));
    assert_eq!(listing.end.sessions, 4);
    let now = self::known(&after, known.key);
    assert_eq!(Some(counts.set), now.set);
    // Nothing to say, and nothing left.
    assert_eq!(answer(&before, &known).len(), 2);
    assert_eq!(answer(&Database::new(), &known).len(), 6);
    check(answer(&before, &known).concat().as_bytes(), &known).unwrap();
    check(answer(&Database::new(), &known).concat().as_bytes(), &known).unwrap();
}

#[test]
fn difference_to_a_set_of_other_lines_sends_everything() {
    // As a helper of another version, which writes other lines.
    let (before, after) = before_and_after();
    let key = HashKey::random();
    let other = database(&[("same", "A"), ("old", "x"), ("gone", "C"), ("too", "D")]);
    let known = known(&other, key);
    let lines = answer(&after, &known);
    let listing = check(lines.concat().as_bytes(), &known).unwrap();
    assert_eq!(listing.rows.len(), 4);
    assert_eq!(listing.end.difference.unwrap().same, 0);
    // A helper that does not know differences answers in protocol 1, with everything.
    let whole = self::known(&before, key);
    let mut answer = Vec::new();
    let mut writer = Writer::new(&mut answer);
    writer.hello().unwrap();
    writer.session(&session("only")).unwrap();
    writer.end(end(1)).unwrap();
    let listing = check(&answer, &whole).unwrap();
    assert_eq!((listing.rows.len(), listing.end.difference), (1, None));
}

#[test]
fn difference_that_was_changed_is_refused() {
    let (before, after) = before_and_after();
    let known = known(&before, HashKey::random());
    let valid = answer(&after, &known);
    let gone = line_with(&valid, "\"gone\",\"session\"");
    let hash = |id: &str| serde_json::to_string(&known.key.hash(id.as_bytes())).unwrap();
    let gone_of = |id: &str| format!("{{\"type\":\"gone\",\"session\":{}}}\n", hash(id));
    let line_of = |id: &str| {
        let lines = answer(&after, &self::known(&Database::new(), known.key));
        lines[line_with(&lines, &format!("\"id\":\"{id}\""))].clone()
    };
    type Change<'a> = Box<dyn Fn(&mut Vec<String>) + 'a>;
    let replaced = |from: &'static str, to: &'static str| -> Change<'_> {
        Box::new(move |lines: &mut Vec<String>| {
            let at = line_with(lines, from);
            lines[at] = lines[at].replacen(from, to, 1);
        })
    };
    let inserted = |at: usize, line: String| -> Change<'_> {
        Box::new(move |lines: &mut Vec<String>| lines.insert(at, line.clone()))
    };
    let table: Vec<(&str, Change<'_>)> = vec![
        (
            "counts 3 sent sessions, not 2",
            replaced("\"sent\":2", "\"sent\":3"),
        ),
        (
            "counts 0 gone sessions, not 1",
            replaced("\"gone\":1", "\"gone\":0"),
        ),
        (
            "counts 3 same sessions, not 2",
            replaced("\"same\":2", "\"same\":3"),
        ),
        (
            "counts 18446744073709551615 same",
            replaced("\"same\":2", "\"same\":18446744073709551615"),
        ),
        (
            "counts 5, but 4",
            replaced("\"sessions\":4", "\"sessions\":5"),
        ),
        (
            "more than 200000 sessions",
            replaced("\"sessions\":4", "\"sessions\":200001"),
        ),
        (
            "not the one that results",
            replaced("\"title\":\"e\"", "\"title\":\"f\""),
        ),
        (
            "not the one that results",
            Box::new(|lines| change_set(lines)),
        ),
        ("32 lower-case", replaced("\"set\":\"", "\"set\":\"0")),
        ("does not have", inserted(gone, gone_of("never"))),
        ("does not have", inserted(gone, gone_of("new"))),
        ("gone twice", inserted(gone, gone_of("gone"))),
        ("gone that was sent", inserted(gone, gone_of("old"))),
        (
            "also gone",
            inserted(gone + 1, line_of("same").replace("\"same\"", "\"gone\"")),
        ),
        ("repeats the id", inserted(gone, line_of("new"))),
        ("has this line", inserted(gone, line_of("same"))),
        (
            "was sent already",
            inserted(1, "{\"type\":\"want\"}\n".to_owned()),
        ),
        (
            "difference is missing",
            Box::new(|lines| remove_field(lines, "difference")),
        ),
        (
            "has no difference",
            replaced("\"database\":\"ready\"", "\"database\":\"missing\""),
        ),
        (
            "were not asked for",
            replaced("\"protocol\":2", "\"protocol\":1"),
        ),
        ("protocol 3", replaced("\"protocol\":2", "\"protocol\":3")),
        ("protocol 0", replaced("\"protocol\":2", "\"protocol\":0")),
    ];
    for (why, change) in table {
        let mut lines = valid.clone();
        change(&mut lines);
        assert_ne!(lines, valid, "{why}");
        let violation = check(lines.concat().as_bytes(), &known).unwrap_err();
        assert!(violation.to_string().contains(why), "{why}: {violation}");
    }
}

/// Changes the last digit of the set's hash.
fn change_set(lines: &mut [String]) {
    let last = lines.last_mut().unwrap();
    let at = last.find("\"set\":\"").unwrap() + "\"set\":\"".len() + 31;
    let digit = if last.as_bytes()[at] == b'0' {
        "1"
    } else {
        "0"
    };
    last.replace_range(at..=at, digit);
}

/// Removes an object from the last line.
fn remove_field(lines: &mut Vec<String>, name: &str) {
    let last = lines.pop().unwrap();
    let mut end: serde_json::Value = serde_json::from_str(&last).unwrap();
    end.as_object_mut().unwrap().remove(name).unwrap();
    lines.push(format!("{end}\n"));
}

#[test]
fn damaged_difference_is_refused_at_every_byte() {
    let _limit = support::limit(120);
    let (before, after) = before_and_after();
    let known = known(&before, HashKey::random());
    let lines = answer(&after, &known);
    let whole = lines.concat().into_bytes();
    let expected = check(&whole, &known).unwrap();
    for cut in 0..whole.len() {
        assert!(check(&whole[..cut], &known).is_err(), "cut at byte {cut}");
    }
    for at in 0..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(at);
        assert!(
            check(fewer.concat().as_bytes(), &known).is_err(),
            "without line {at}"
        );
        let mut more = lines.clone();
        more.insert(at, lines[at].clone());
        assert!(
            check(more.concat().as_bytes(), &known).is_err(),
            "line {at} twice"
        );
    }
    // A changed byte is refused, or it is in a field that decides nothing.
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            if let Ok(listing) = check(&changed, &known) {
                assert_eq!(listing.rows, expected.rows, "byte {at}, bit {bit}");
                assert_eq!(
                    listing.end.difference, expected.end.difference,
                    "byte {at}, bit {bit}"
                );
            }
        }
    }
    // It leads from these rows only.
    let others = self::known(&after, known.key);
    assert!(check(&whole, &others).is_err());
}

#[test]
fn database_without_sessions_has_no_difference() {
    let (before, _) = before_and_after();
    let known = known(&before, HashKey::random());
    for state in [
        DatabaseState::Missing,
        DatabaseState::Empty,
        DatabaseState::Young,
    ] {
        let mut answer = Vec::new();
        let mut writer = Writer::new(&mut answer);
        writer.hello_of(PROTOCOL_OF_DIFFERENCES).unwrap();
        writer.end(End::new(0, state)).unwrap();
        let listing = check(&answer, &known).unwrap();
        assert_eq!(listing.end.database, state);
        assert!(listing.end.difference.is_none() && listing.rows.is_empty());
    }
}

#[test]
fn large_set_is_sent_only_if_it_is_wanted() {
    let _limit = support::limit(60);
    let ids: Vec<_> = (0..=limits::HAVE_DIRECT)
        .map(|at| format!("ses_{at}"))
        .collect();
    let sessions: Vec<_> = ids.iter().map(|id| (id.as_str(), "t")).collect();
    let directory = tempfile::tempdir().unwrap();
    let scan_cache = directory.path().join("scan");
    let mut after = database(&sessions);
    let mut known = known(&after, HashKey::random());
    assert!(!known.have().unwrap().follows);
    // The first answer asks for it; the later ones have kept it.
    for is_wanted in [true, false, false] {
        let title = after.values_mut().next().unwrap();
        title.title = title.title.as_ref().map(|title| format!("{title}!"));
        let (sent, listing) = exchange(&after, &known, Some(&scan_cache));
        assert_eq!(sent > 0, is_wanted);
        assert_eq!(listing.rows.len(), 1);
        let mut rows = Rows::clone(&known.rows);
        rows.extend(listing.rows.into_iter().map(|row| (row.id().clone(), row)));
        known.rows = Arc::new(rows);
        known.set = Some(listing.end.difference.unwrap().set);
    }
    // What was kept is of another caller, damaged, or gone.
    let other = self::known(&after, HashKey::random());
    assert!(exchange(&after, &other, Some(&scan_cache)).0 > 0);
    assert!(exchange(&after, &known, Some(&scan_cache)).0 > 0);
    let kept = directory.path().join("scan.lines");
    let inode = || std::fs::metadata(&kept).unwrap().ino();
    let before = inode();
    assert_eq!(exchange(&after, &known, Some(&scan_cache)).0, 0);
    assert_eq!(inode(), before, "the same lines are not written again");
    let mut bytes = std::fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    assert!(exchange(&after, &known, Some(&scan_cache)).0 > 0);
    assert!(exchange(&after, &known, None).0 > 0);
}

/// Exchanges a request and its answer. Returns how many bytes of the set were sent.
fn exchange(database: &Database, known: &Known, scan_cache: Option<&Path>) -> (usize, Listing) {
    /// The caller's end: it sends the set when the checker says that it is wanted.
    struct Caller {
        checker: Checker,
        set: Vec<u8>,
    }
    impl std::io::Write for Caller {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.checker.push(bytes).unwrap();
            self.set.extend(self.checker.reply().unwrap_or_default());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let content = ListingContent::default().sharing(Some(known));
    let mut caller = Caller {
        checker: Checker::of(content.differing(Some(known.clone()))),
        set: Vec::new(),
    };
    let mut writer = Writer::new(&mut caller);
    writer.hello_of(PROTOCOL_OF_DIFFERENCES).unwrap();
    // The set is what the caller sends, or nothing: then reading it fails.
    let have = known.have().unwrap();
    let mut nothing = Cursor::new(Vec::new());
    let kept = Difference::to(have, scan_cache, &mut nothing, &mut writer);
    let mut difference = match kept {
        Ok(difference) => difference,
        Err(HaveError::Invalid(_)) => {
            let mut set = Cursor::new(known.set_bytes());
            let mut unheard = Writer::new(Vec::new());
            Difference::to(have, scan_cache, &mut set, &mut unheard).unwrap()
        }
        Err(error) => panic!("{error:?}"),
    };
    write_difference(database, &mut difference, writer);
    difference.save().unwrap();
    match caller.checker.finish().unwrap() {
        Verdict::Whole(listing) => (caller.set.len(), listing),
        Verdict::Refused { failure, .. } => panic!("an error: {failure:?}"),
    }
}

#[test]
fn want_is_refused_out_of_turn() {
    let ids: Vec<_> = (0..=limits::HAVE_DIRECT)
        .map(|at| format!("ses_{at}"))
        .collect();
    let sessions: Vec<_> = ids.iter().map(|id| (id.as_str(), "t")).collect();
    let known = known(&database(&sessions), HashKey::random());
    let content = || {
        let content = ListingContent::default().sharing(Some(&known));
        Checker::of(content.differing(Some(known.clone())))
    };
    let hello = "{\"type\":\"hello\",\"protocol\":2,\"lister\":\"x\",\"upTo\":2}\n";
    let (want, session) = (
        "{\"type\":\"want\"}\n",
        "{\"type\":\"session\",\"id\":\"new\",\"store\":\"v1\"}\n",
    );
    let mut checker = content();
    checker.push(hello.as_bytes()).unwrap();
    assert_eq!(checker.reply(), None);
    checker.push(want.as_bytes()).unwrap();
    assert_eq!(checker.reply(), Some(known.set_bytes()));
    assert_eq!(checker.reply(), None);
    let set = known.set_bytes();
    assert_eq!(set.len(), known.rows.len() * HAVE_BYTES);
    assert!(decode_set(&known.have().unwrap(), &set).is_ok());
    for lines in [[want, want], [session, want]] {
        let mut checker = content();
        let answer = [hello, lines[0], lines[1]].concat();
        let violation = checker.push(answer.as_bytes()).unwrap_err();
        assert!(violation.to_string().contains("too late"), "{violation}");
    }
}

#[test]
fn set_must_be_the_one_that_is_announced() {
    let (before, _) = before_and_after();
    let known = known(&before, HashKey::random());
    let (have, set) = (known.have().unwrap(), known.set_bytes());
    assert!(have.follows);
    assert!(decode_set(&have, &set).is_ok());
    let mut changed = set.clone();
    changed[HAVE_BYTES - 1] ^= 1;
    let mut twice = set[..HAVE_BYTES].repeat(2);
    twice.extend(&set[2 * HAVE_BYTES..]);
    let fewer = &set[..set.len() - HAVE_BYTES];
    let cut = &set[..set.len() - 1];
    for invalid in [changed.as_slice(), twice.as_slice(), fewer, cut, &[]] {
        assert!(decode_set(&have, invalid).is_err());
        let mut stdin = Cursor::new(invalid);
        let mut out = Vec::new();
        let result = Difference::to(have, None, &mut stdin, &mut Writer::new(&mut out));
        assert!(matches!(result, Err(HaveError::Invalid(_))));
        assert!(out.is_empty());
    }
    let too_many = Have {
        sessions: limits::SESSIONS as u64 + 1,
        ..have
    };
    assert!(too_many.size_bytes().is_err());
    assert!(have.size_bytes().is_ok_and(|bytes| bytes == set.len()));
}

#[test]
fn request_for_differences_has_exactly_its_fields() {
    let valid = r#"{"key":"00112233445566778899aabbccddeeff","sessions":3,"set":"ffeeddccbbaa99887766554433221100","follows":true}"#;
    let request = |have: &str| format!("{{\"type\":\"list\",\"have\":{have}}}");
    assert!(Request::parse(request(valid).as_bytes()).is_ok());
    assert!(Request::parse(request("null").as_bytes()).is_ok());
    for (from, to) in [
        ("\"sessions\":3", "\"sessions\":-1"),
        ("\"sessions\":3", "\"sessions\":3.5"),
        ("\"sessions\":3,", ""),
        ("\"follows\":true", "\"follows\":null"),
        ("\"follows\":true", "\"follows\":true,\"more\":1"),
        ("ddeeff", "DDEEFF"),
        ("ddeeff", "ddeef"),
        ("\"ffee", "\"+fee"),
    ] {
        let changed = valid.replacen(from, to, 1);
        assert_ne!(changed, valid);
        assert!(
            Request::parse(request(&changed).as_bytes()).is_err(),
            "{changed}"
        );
    }
    for have in ["[]", "1", "\"\"", "[\"00\",3,\"ff\",true]"] {
        assert!(Request::parse(request(have).as_bytes()).is_err(), "{have}");
    }
    assert_ne!(PROTOCOL, PROTOCOL_OF_DIFFERENCES);
}
