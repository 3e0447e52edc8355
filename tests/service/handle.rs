//! A handle returns values, and a subscription can be polled: what a host in Rust uses.

use std::sync::Arc;
use std::time::Duration;

use opencode_sessions::launch::ProcessLister;
use opencode_sessions::service::{
    Config, ErrorCode, Event, LookUpResult, RefreshOutcome, RequestError, Service, Subscription,
};
use opencode_sessions::session::SessionId;
use opencode_sessions::source::sources_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{self, Made};

fn serve(made: &Made) -> Service {
    let lister = ProcessLister::at(support::lister());
    let sources = sources_of(std::slice::from_ref(&made.db));
    Service::start(Config::new(sources, move |source| {
        Arc::new(lister.of(source))
    }))
    .unwrap()
}

fn id(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

#[test]
fn handle_returns_values() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_1", 1);
    let service = serve(&made);
    let handle = service.handle();
    let refreshed = handle.refresh().unwrap();
    assert_eq!(refreshed.len(), 1);
    assert_eq!(refreshed[0].outcome, RefreshOutcome::Ok);
    let status = handle.status().unwrap();
    assert_eq!((status.sessions, status.sources.len()), (1, 1));
    let found = handle.get(vec![id("ses_1"), id("ses_2")]).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json[0]["title"], "Title of ses_1");
    assert_eq!(json[1]["type"], "absent");
    let roots = handle.roots(vec![id("ses_1")]).unwrap();
    assert!(matches!(roots[0].result, LookUpResult::Answer(_)));
    // From several threads at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(handle.status().unwrap().sessions, 1));
        }
    });
}

#[test]
fn handle_refuses_too_few_and_too_many_ids() {
    let _limit = support::limit(60);
    let service = serve(&Made::new());
    for count in [0, 1001] {
        let refused = service.handle().get(vec![id("ses_1"); count]);
        let Err(RequestError::Refused(error)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(error.code, ErrorCode::Invalid);
    }
}

#[test]
fn handle_of_an_ended_service_returns_an_error() {
    let _limit = support::limit(60);
    let service = serve(&Made::new());
    let handle = service.handle();
    drop(service);
    assert_eq!(handle.status().unwrap_err(), RequestError::Ended);
    assert_eq!(handle.refresh().unwrap_err(), RequestError::Ended);
    let looked_up = handle.get(vec![id("ses_1")]);
    assert_eq!(looked_up.unwrap_err(), RequestError::Ended);
}

/// Whether the subscription's descriptor is readable within this time.
fn is_ready(events: &Subscription, within: Duration) -> bool {
    let fd = events.ready_fd().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: within.as_secs().try_into().unwrap(),
        tv_nsec: within.subsec_nanos().into(),
    };
    poll(&mut fds, Some(&timeout)).unwrap() == 1
}

#[test]
fn subscription_is_polled_by_a_loop() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_1", 1);
    let service = serve(&made);
    let mut events = service.subscribe();
    let soon = Duration::from_secs(30);
    // The hello and the snapshot, and what the first listing brings.
    assert!(is_ready(&events, soon));
    service.handle().refresh().unwrap();
    let mut seen = 0;
    while let Some(event) = events.try_next() {
        seen += 1;
        assert!(seen > 1 || matches!(*event, Event::Hello(_)));
    }
    assert!(seen > 1);
    assert!(!is_ready(&events, Duration::ZERO), "nothing waits");
    assert!(events.try_next().is_none() && !events.has_ended());
    made.session("ses_2", 2);
    assert!(is_ready(&events, soon), "a change waits");
    while let Some(event) = events.try_next() {
        if let Event::Change(change) = &*event {
            assert_eq!(change.upserted[0].entry.id().as_str(), "ses_2");
        }
    }
    drop(service);
    assert!(is_ready(&events, soon), "after the end it stays readable");
    while events.try_next().is_some() {}
    assert!(is_ready(&events, soon) && events.has_ended());
}
