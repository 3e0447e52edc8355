//! What a service says and is told, pinned.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use opencode_sessions::internals::client::{Client, ConnectError};
use opencode_sessions::internals::index::{Failing, Health, View};
use opencode_sessions::internals::wire::{Scan, ScanMode};
use opencode_sessions::marker_text::MarkerText;
use opencode_sessions::service::{
    self, ByeCode, Change, CommandLine, Event, Hello, Latency, RefreshOutcome, Refreshed, Reply,
    Snapshot, SourceHealth, SourcePlace, SourceStatus, Status,
};
use opencode_sessions::session::Millis;

use crate::golden::{assert_is_sample, id};
use crate::golden_index::{index, sources};
use crate::support::{self, sample};

fn events() -> Vec<Event> {
    let index = index();
    let source = |at: usize| sources()[at].name.clone();
    let sessions = || index.sessions(View::ALL);
    let failing = Health::Failing({
        let mut failing = Failing::new(
            "timeout",
            "the helper was not done within 15s".to_owned(),
            Millis(1_795_338_894_119),
        );
        failing.attempts = 3;
        failing.next_try = Some(Millis(1_795_338_898_119));
        failing
    });
    let health = |at: usize, health: Health, as_of: Option<i64>| SourceHealth {
        source: source(at),
        health,
        as_of: as_of.map(Millis),
    };
    let scan = {
        let mut scan = Scan::new(ScanMode::Tail);
        scan.progress = 1.0;
        scan.frames = 7;
        scan.bytes = 28_672;
        scan
    };
    let status = {
        let mut status = Status::default();
        status.version = "1.2.3".to_owned();
        status.pid = 1;
        status.uptime_ms = 60_000;
        status.revision = 2;
        status.sessions = 2;
        status.sources = vec![{
            let mut source = SourceStatus::new(health(0, Health::Ok, Some(1_795_338_894_119)));
            source.sessions = 2;
            source.watch = "events".to_owned();
            source.scan = Some(scan);
            source.stuck = 0;
            source
        }];
        status.spawns = 5;
        status.listings = 4;
        status.failures = BTreeMap::from([("timeout", 1)]);
        status.latency = Latency {
            count: 4,
            p50: 8.5,
            p99: 9.5,
            max: 9.5,
        };
        status.bytes_read = 4096;
        status.memory = Some(6 << 20);
        status.subscribers = 1;
        status
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
        event.write_line(&mut encoded).unwrap();
    }
    assert_is_sample(&name("events"), &encoded);
    let mut lines = commands().join("\n");
    lines.push('\n');
    assert_is_sample(&name("commands"), lines.as_bytes());
}

/// What the release before said. Its service is told apart from one that does not answer,
/// and from none.
#[test]
fn service_of_the_previous_protocol_is_recognized() {
    let _limit = support::limit(30);
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sample("events-2.jsonl")).unwrap();
    });
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let unreached = Client::connect(&socket, until).unwrap_err();
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
        said.contains("the service (process 1)") && said.contains("restart the service"),
        "{said}"
    );
    serving.join().unwrap();
}
