//! One sample of each format that outlives the program that wrote it: the index
//! snapshot, the scan cache, the wire, the events of a service.
//!
//! A format of this version is pinned: the encoding of a fixed value is its sample, byte
//! by byte, and the sample decodes to that value. A sample of an older format on disk is
//! refused as another version. So a change of an encoded type cannot be made without a
//! new format version: see `fixtures/golden/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

#[path = "support/serving.rs"]
mod serving;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use opencode_sessions::codec::Unreadable;
use opencode_sessions::entry::Entry;
use opencode_sessions::index::{Failing, Health, Index, ListedEntries, Moment, View, snapshot};
use opencode_sessions::marker_text::MarkerText;
use opencode_sessions::packed::Packed;
use opencode_sessions::service::client::{Client, ConnectError};
use opencode_sessions::service::{
    self, ByeCode, Change, CommandLine, Event, Hello, Latency, RefreshOutcome, Refreshed, Reply,
    Snapshot, SourceHealth, SourcePlace, SourceStatus, Status,
};
use opencode_sessions::session::{Millis, Model, Session, SessionId, Store, Summary, Tokens};
use opencode_sessions::source::{Source, sources_of};
use opencode_sessions::wire::{
    Answer, AnswersEnd, Checker, Content, DatabaseState, Degraded, End, ErrorKind, HelperError,
    LookUp, LookUpContent, OptionalPart, PROTOCOL, Scan, ScanMode, Skipped, Unresolved, VERSION,
    Verdict, Writer,
};
use rustix::process::Signal;
use serving::{Host, serve};
use support::Made;

// ---- Samples.

/// Set to anything, it makes the tests write the samples of this version.
const WRITE: &str = "GOLDEN_WRITE";

fn directory() -> PathBuf {
    support::fixtures().join("golden")
}

fn sample(name: &str) -> Vec<u8> {
    let path = directory().join(name);
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; {WRITE}=1 writes it", path.display()))
}

/// The sample of this name is exactly these bytes.
#[track_caller]
fn assert_is_sample(name: &str, encoded: &[u8]) {
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(directory()).unwrap();
        fs::write(directory().join(name), encoded).unwrap();
    }
    let sample = sample(name);
    let differs = sample.iter().zip(encoded).position(|(a, b)| a != b);
    assert!(
        sample == encoded,
        "{name}: the encoding differs from byte {} on. A format that was released needs a new \
         version: raise it, keep this sample, and write the new one with {WRITE}=1",
        differs.unwrap_or(sample.len().min(encoded.len()))
    );
}

/// The samples `KIND-VERSION.bin`, by their versions.
fn samples(kind: &str) -> BTreeMap<u32, Vec<u8>> {
    let version = |name: &str| {
        let rest = name.strip_prefix(kind)?.strip_prefix('-')?;
        rest.strip_suffix(".bin")?.parse().ok()
    };
    let names = fs::read_dir(directory()).unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.into_string().unwrap()
    });
    names
        .filter_map(|name| Some((version(&name)?, sample(&name))))
        .collect()
}

/// The format version in the header of a file.
fn version(file: &[u8]) -> u32 {
    u32::from_le_bytes(file[8..12].try_into().unwrap())
}

/// A format on disk is pinned: `encoded` is the sample of its version. Each older sample
/// is one of the same kind of file and is refused by `decode` as another version.
#[track_caller]
fn assert_is_pinned(
    kind: &str,
    encoded: &[u8],
    mut decode: impl FnMut(&[u8]) -> Result<(), Unreadable>,
) {
    let known = version(encoded);
    assert_is_sample(&format!("{kind}-{known}.bin"), encoded);
    let samples = samples(kind);
    assert_eq!(
        samples.keys().copied().max(),
        Some(known),
        "the version of {kind} went back"
    );
    for (found, bytes) in &samples {
        assert_eq!(version(bytes), *found, "{kind}-{found}.bin");
        assert_eq!(bytes[..8], encoded[..8], "{kind}-{found}.bin");
        let expected = match *found == known {
            true => Ok(()),
            false => Err(Unreadable::Version {
                found: *found,
                known,
            }),
        };
        assert_eq!(decode(bytes), expected, "{kind}-{found}.bin");
    }
}

// ---- Values.

fn id(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

/// A session with every field.
fn full() -> Session {
    let text = |text: &str| Some(text.to_owned());
    Session {
        id: id("ses_full"),
        directory: text("/home/me/a \"b\"\t\u{1b}[0m"),
        worktree: text("/home/me"),
        project_id: text("43aa"),
        parent_id: text("ses_parent"),
        title: text("Naïve 日本 🚀"),
        untitled: false,
        first_prompt: None,
        time_created: Some(Millis(1_795_338_894_119)),
        time_updated: Some(Millis(-1)),
        time_archived: Some(Millis(i64::MAX)),
        last_message_at: Some(Millis(i64::MIN)),
        marked: Some(true),
        store: Store::V2,
        agent: text("build"),
        version: text("1.18.33"),
        slug: text("kind-forest"),
        share_url: text("https://opncd.ai/s/x"),
        workspace_id: text("wrk_1"),
        model: Some(Model {
            id: "claude".to_owned(),
            provider_id: "anthropic".to_owned(),
            variant: text("high"),
        }),
        cost: Some(0.1 + 0.2),
        tokens: Some(Tokens {
            input: 1,
            output: 300,
            reasoning: 70_000,
            cache_read: 5_000_000_000,
            cache_write: -5,
        }),
        summary: Some(Summary {
            additions: 6,
            deletions: 7,
            files: 8,
        }),
        time_compacting: Some(Millis(11)),
        time_suspended: Some(Millis(12)),
        forked_from: text("ses_original"),
        time_idle: Some(Millis(9)),
        time_viewed: Some(Millis(10)),
        idle_outcome: text("interrupted"),
    }
}

/// A session with no field that can be absent, and a first prompt.
fn untitled() -> Session {
    Session {
        id: id("ses_untitled"),
        directory: None,
        worktree: None,
        project_id: None,
        parent_id: None,
        title: None,
        untitled: true,
        first_prompt: Some("Fix it".to_owned()),
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
        time_compacting: None,
        time_suspended: None,
        forked_from: None,
        time_idle: None,
        time_viewed: None,
        idle_outcome: None,
    }
}

/// An `end` with every field.
fn end() -> End {
    let degraded = [
        (OptionalPart::LastMessageAt, "the index is damaged"),
        (OptionalPart::FirstPrompt, "the table \"part\" is damaged"),
        (OptionalPart::Worktree, "there is no column \"worktree\""),
        (OptionalPart::Marked, "the scan was interrupted"),
        (OptionalPart::Deleted, "the table \"kv\" is damaged"),
    ];
    End {
        sessions: 2,
        database: DatabaseState::Ready,
        tables: vec!["session".to_owned(), "session_v2".to_owned()],
        flat: true,
        skipped: Skipped {
            invalid_id: 1,
            duplicate_id: 2,
            truncated: 3,
        },
        scan: Scan {
            mode: ScanMode::Tail,
            progress: 0.5,
            frames: 7,
            bytes: 8_000_000_000,
            stalled: true,
        },
        degraded: degraded
            .map(|(what, reason)| Degraded {
                what,
                reason: reason.to_owned(),
            })
            .into(),
        log_elsewhere: true,
        other_tables: Vec::new(),
        elapsed_ms: 9,
    }
}

// ---- The index snapshot.

fn sources() -> Vec<Source> {
    sources_of(&["/nowhere/opencode.db".into(), "/nowhere/empty.db".into()])
}

fn entries() -> Vec<Entry> {
    vec![
        Entry {
            session: full(),
            project: Some("/home/me".to_owned()),
            gone: true,
        },
        Entry {
            session: untitled(),
            project: None,
            gone: false,
        },
    ]
}

fn index() -> Index {
    let sources = sources();
    let mut index = Index::new(&sources);
    let now = Moment {
        wall: Millis(0),
        monotonic: Duration::ZERO,
    };
    let found = |entries: Vec<Entry>| ListedEntries {
        database: DatabaseState::Ready,
        entries: entries.into_iter().collect(),
    };
    index.merge(&sources[0].name, found(entries()), now);
    index.merge(&sources[1].name, found(Vec::new()), now);
    index
}

fn entries_of(index: &Index) -> Vec<Vec<Entry>> {
    let entries = |known: &opencode_sessions::index::SourceState| {
        known.entries().map(Packed::unpack).collect()
    };
    index.sources().map(entries).collect()
}

#[test]
fn index_snapshot_format_is_pinned() {
    let _limit = support::limit(60);
    let marker = MarkerText::default();
    let encoded = snapshot::encode(&index(), Some(&marker)).unwrap();
    let nothing = Index::new(&sources());
    assert_is_pinned("index", &encoded, |bytes| {
        let mut into = Index::new(&sources());
        let restored = snapshot::restore(&mut into, bytes, Some(&marker), Millis::now());
        match restored {
            Ok(()) => assert_eq!(entries_of(&into), [entries(), Vec::new()]),
            Err(_) => assert_eq!(entries_of(&into), entries_of(&nothing)),
        }
        restored
    });
}

/// As the service does it: the old file is moved away unread and the index is rebuilt.
#[test]
fn service_sets_old_index_snapshots_aside() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_new", 1);
    let encoded = snapshot::encode(&index(), None).unwrap();
    let known = version(&encoded);
    let old = samples("index").into_iter();
    let old: Vec<_> = old.filter(|(found, _)| *found != known).collect();
    assert!(!old.is_empty());
    for (found, bytes) in old {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("index");
        fs::write(&file, &bytes).unwrap();
        let host = Host::well(&mut serve(&made.db, state.path()));
        assert_eq!(host.model.ids(), ["ses_new"]);
        let (status, _, log) = host.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{log}");
        let aside = fs::read(file.with_extension("set-aside")).unwrap();
        assert_eq!(aside, bytes, "index-{found}.bin");
        assert!(log.contains(&format!("format {found}")), "{log}");
        assert_eq!(version(&fs::read(&file).unwrap()), known);
    }
}

// ---- The scan cache.

/// A helper that is given a cache of any version lists the marked sessions that there
/// are, and leaves a cache of its own in its place.
#[test]
fn helper_replaces_every_scan_cache_sample() {
    let _limit = support::limit(60);
    let samples = samples("cache");
    assert!(samples.contains_key(&1));
    let newest = samples.keys().copied().max();
    for (found, bytes) in samples {
        let (place, db) = support::real_database("1.18.33");
        let (expected, _) = support::listing(&db, &[]);
        let cache = place.path().join("cache");
        fs::write(&cache, &bytes).unwrap();
        let with_cache = ["--scan-cache", cache.to_str().unwrap()];
        let (sessions, end) = support::listing(&db, &with_cache);
        assert_eq!(sessions, expected, "cache-{found}.bin");
        assert_eq!(end["scan"]["mode"], "full", "cache-{found}.bin");
        let marked = |session: &&serde_json::Value| session["marked"] == true;
        assert_eq!(sessions.iter().filter(marked).count(), 1);
        let replaced = fs::read(&cache).unwrap();
        assert_ne!(replaced, bytes, "cache-{found}.bin");
        assert_eq!(replaced[..8], bytes[..8], "cache-{found}.bin");
        assert_eq!(
            newest,
            Some(version(&replaced)),
            "a new version needs a sample: let a helper write it with --scan-cache"
        );
        let (sessions, end) = support::listing(&db, &with_cache);
        assert_eq!(sessions, expected, "cache-{found}.bin");
        assert_eq!(end["scan"]["mode"], "unchanged", "cache-{found}.bin");
    }
}

// ---- The wire.

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
        writer.session(full()).unwrap();
        writer.session(untitled()).unwrap();
        writer.end(end()).unwrap();
    });
    assert_is_sample(&name, &encoded);
    let listing = whole(checked(
        opencode_sessions::wire::ListingContent::default(),
        &sample(&name),
    ));
    assert!(listing.sessions.iter().eq([full(), untitled()]));
    assert_eq!(listing.end, end());
    assert_eq!(listing.lister, "1.2.3");
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
        opencode_sessions::wire::ListingContent::default(),
        &sample(&name),
    );
    let lister = "1.2.3".to_owned();
    assert_eq!(verdict, Verdict::Refused { lister, failure });
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
        opencode_sessions::wire::ListingContent::default(),
        &sample(&name),
    ));
    assert_eq!(listing.sessions.len(), 19);
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

// ---- Events and commands.

fn events() -> Vec<Event> {
    let index = index();
    let source = |at: usize| sources()[at].name.clone();
    let sessions = || index.sessions(View::ALL);
    let failing = Health::Failing(Failing {
        since: Millis(1_795_338_894_119),
        kind: "timeout",
        reason: "the helper was not done within 15s".to_owned(),
        attempts: 3,
        next_try: Some(Millis(1_795_338_898_119)),
    });
    let health = |at: usize, health: Health, as_of: Option<i64>| SourceHealth {
        source: source(at),
        health,
        as_of: as_of.map(Millis),
    };
    let scan = Scan {
        mode: ScanMode::Tail,
        progress: 1.0,
        frames: 7,
        bytes: 28_672,
        stalled: false,
    };
    let status = Status {
        version: "1.2.3".to_owned(),
        pid: 1,
        uptime_ms: 60_000,
        revision: 2,
        sessions: 2,
        sources: vec![SourceStatus {
            health: health(0, Health::Ok, Some(1_795_338_894_119)),
            sessions: 2,
            watch: "events".to_owned(),
            listing: false,
            scan: Some(scan),
            stuck: 0,
        }],
        spawns: 5,
        listings: 4,
        failures: BTreeMap::from([("timeout", 1)]),
        latency: Latency {
            count: 4,
            p50: 8.5,
            p99: 9.5,
            max: 9.5,
        },
        bytes_read: 4096,
        memory: Some(6 << 20),
        subscribers: 1,
    };
    let refreshed = |at: usize, outcome, reason: Option<&str>| Refreshed {
        source: source(at),
        outcome,
        reason: reason.map(str::to_owned),
    };
    let mut events = vec![
        Event::Hello(Hello {
            protocol: service::PROTOCOL,
            version: "1.2.3".to_owned(),
            pid: 1,
            marker: Some(MarkerText::default()),
            sources: sources().iter().map(SourcePlace::of).collect(),
            capabilities: service::capabilities(View::ALL),
        }),
        Event::Snapshot(Snapshot {
            revision: 1,
            sources: vec![
                health(0, Health::Ok, Some(1_795_338_894_119)),
                health(1, Health::Starting, None),
            ],
            sessions: sessions(),
        }),
        Event::Change(Change {
            revision: 2,
            upserted: sessions(),
            removed: vec![id("ses_gone")],
        }),
    ];
    events.extend(
        [
            Health::Ok,
            Health::Stale,
            Health::Missing,
            Health::Empty,
            failing,
        ]
        .map(|of| Event::Health(health(0, of, Some(1_795_338_894_119)))),
    );
    let answers = vec![
        service::Answer::Refreshed(vec![
            refreshed(0, RefreshOutcome::Ok, None),
            refreshed(0, RefreshOutcome::Unconfirmed, None),
            refreshed(0, RefreshOutcome::Young, None),
            refreshed(1, RefreshOutcome::Failed, Some("it is locked")),
        ]),
        service::Answer::Status(Box::new(status)),
        service::Answer::Done(true),
    ];
    let refused = commands().into_iter().filter_map(|line| {
        let line = CommandLine::parse(line.as_bytes());
        let error = line.command.err()?;
        Some((line.id, service::Answer::Error(error)))
    });
    let answered = answers.into_iter().map(|answer| {
        let id = CommandLine::with_id(service::Command::Status, "the question").id;
        (id, answer)
    });
    events.extend(
        answered
            .chain(refused)
            .map(|(id, answer)| Event::Reply(Reply { id, answer })),
    );
    events.extend(
        [
            ByeCode::Stopped,
            ByeCode::Shutdown,
            ByeCode::Ended,
            ByeCode::Full,
        ]
        .map(|code| Event::Bye {
            code,
            reason: "SIGTERM".to_owned(),
        }),
    );
    events
}

/// Every command, and every way to be none.
fn commands() -> Vec<&'static str> {
    vec![
        r#"{"type":"refresh","id":1}"#,
        r#"{"type":"snapshot","id":"a"}"#,
        r#"{"type":"subscribe","children":true,"archived":false}"#,
        r#"{"type":"status"}"#,
        r#"{"type":"get","ids":["ses_1","ses_2"],"id":2}"#,
        r#"{"type":"roots","ids":["ses_1"],"id":[3]}"#,
        r#"{"type":"shutdown","id":4}"#,
        r#"{"type":"stop","id":5,"unknown":true}"#,
        r#"{"type":"nope","id":6}"#,
        r#"{"id":7}"#,
        r#"{"type":"get","id":8}"#,
        r#"{"type":"roots","ids":[],"id":9}"#,
        "nothing",
    ]
}

#[test]
fn events_are_pinned() {
    let _limit = support::limit(30);
    let name = |what: &str| format!("{what}-{}.jsonl", service::PROTOCOL);
    let mut encoded = Vec::new();
    for event in events() {
        serde_json::to_writer(&mut encoded, &event).unwrap();
        encoded.push(b'\n');
    }
    assert_is_sample(&name("events"), &encoded);
    let mut lines = commands().join("\n");
    lines.push('\n');
    assert_is_sample(&name("commands"), lines.as_bytes());
}

/// What the release before said. Its service is told apart from one that does not answer,
/// and from none.
#[test]
fn a_service_of_the_protocol_before_is_known_as_one() {
    let _limit = support::limit(30);
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sample("events-2.jsonl")).unwrap();
    });
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let unreached = Client::at(&socket, until).unwrap_err();
    assert_eq!(
        unreached,
        ConnectError::OtherVersion {
            pid: 1,
            version: "0.1.0".to_owned(),
            protocol: 2
        }
    );
    let said = unreached.to_string();
    assert!(
        said.contains("process 1 is the service") && said.contains("restart it"),
        "{said}"
    );
    serving.join().unwrap();
}
