//! A service whose host has a lister of its own, which panics, blocks or comes late.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opencode_sessions::internals::index::Health;
use opencode_sessions::internals::query::LookUpResult;
use opencode_sessions::internals::query::LookedUp;
use opencode_sessions::internals::wire::Answers;
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{ListRequest, Lister, LookUpRequest, Outcome};
use opencode_sessions::service::{Answer, Command, Config, Event, Service, Status, Subscription};
use opencode_sessions::session::SessionId;
use opencode_sessions::source::sources_of;

use crate::support::{self, Made};

const DEADLINE: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Behaves,
    Panics,
    Blocks,
}

/// A lister that does what a test says.
struct Own {
    way: Mutex<Way>,
    changed: Condvar,
    real: ProcessLister,
    /// Calls in it now, and the most there ever were.
    calls: AtomicUsize,
    most: AtomicUsize,
}

impl Own {
    fn new(way: Way) -> Arc<Self> {
        Arc::new(Self {
            way: Mutex::new(way),
            changed: Condvar::new(),
            real: ProcessLister::at(support::lister()),
            calls: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn becomes(&self, way: Way) {
        *self.way.lock().unwrap() = way;
        self.changed.notify_all();
    }

    fn call<T>(&self, ask: impl FnOnce() -> T) -> T {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(calls, Ordering::SeqCst);
        let way = self.way.lock().unwrap();
        let now = *way;
        let way = self.changed.wait_while(way, |way| *way == Way::Blocks);
        drop(way.unwrap());
        self.calls.fetch_sub(1, Ordering::SeqCst);
        assert_ne!(now, Way::Panics, "as the test wants it");
        ask()
    }
}

struct Shared(Arc<Own>);

impl Lister for Shared {
    fn list(&self, request: &ListRequest) -> Outcome {
        self.0.call(|| self.0.real.list(request))
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        self.0.call(|| self.0.real.look_up(request))
    }
}

fn serve(db: &Path, own: &Arc<Own>) -> Service {
    let own = Arc::clone(own);
    Service::start(
        Config::new(sources_of(&[db.to_owned()]), move |_| {
            Arc::new(Shared(Arc::clone(&own)))
        })
        .deadline(DEADLINE),
    )
    .unwrap()
}

/// Takes events until the only source is well, or fails in this way.
#[track_caller]
fn until(events: &mut Subscription, expected: &str) {
    let is_it = |health: &Health| match health {
        Health::Failing(failing) => failing.kind == expected,
        health => health.name() == expected,
    };
    let found = events.any(|event| match &*event {
        Event::Health(source) => is_it(&source.health),
        Event::Snapshot(snapshot) => snapshot.sources.iter().any(|source| is_it(&source.health)),
        _ => false,
    });
    assert!(found, "it ended");
}

fn command(service: &Service, events: &mut Subscription, command: Command) -> Answer {
    assert!(service.handle().command(&events.reply_to(), command));
    let reply = events.find_map(|event| match &*event {
        Event::Reply(reply) => Some(reply.answer.clone()),
        _ => None,
    });
    reply.unwrap()
}

fn get(service: &Service, events: &mut Subscription) -> Vec<LookedUp> {
    let ids = vec![SessionId::new("ses_1").unwrap()];
    match command(service, events, Command::Get(ids)) {
        Answer::Answers(answers) => answers,
        other => panic!("{other:?}"),
    }
}

fn status(service: &Service, events: &mut Subscription) -> Status {
    match command(service, events, Command::Status) {
        Answer::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn made() -> Made {
    let made = Made::new();
    made.session("ses_1", 1);
    made
}

#[test]
fn panicking_lister_fails_and_recovers() {
    let _limit = support::limit(60);
    let (made, own) = (made(), Own::new(Way::Panics));
    let service = serve(&made.db, &own);
    let mut events = service.subscribe();
    until(&mut events, "panic");
    let answers = get(&service, &mut events);
    assert!(
        matches!(&answers[0].result, LookUpResult::Failed { message, .. } if message.contains("panicked")),
        "{answers:?}"
    );
    own.becomes(Way::Behaves);
    until(&mut events, "ok");
    let answers = get(&service, &mut events);
    assert!(
        matches!(&answers[0].result, LookUpResult::Answer(_)),
        "{answers:?}"
    );
    // Its counts go on as well: the end waits for nothing.
    drop(events);
    let since = Instant::now();
    drop(service);
    assert!(since.elapsed() < Duration::from_secs(1));
}

/// It returns late in the end, and what it says then does not count any more.
#[test]
fn blocking_lister_fails_and_recovers_on_return() {
    let _limit = support::limit(60);
    let (made, own) = (made(), Own::new(Way::Blocks));
    let service = serve(&made.db, &own);
    let mut events = service.subscribe();
    until(&mut events, "timeout");
    // While that call does not return there is no other.
    until(&mut events, "stuck");
    // Time for a call that must not come.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(own.most.load(Ordering::SeqCst), 1);
    let stuck = status(&service, &mut events).sources[0].stuck;
    assert_eq!(stuck, 1);
    own.becomes(Way::Behaves);
    until(&mut events, "ok");
    assert_eq!(status(&service, &mut events).sources[0].stuck, 0);
    drop(service);
}

/// They are answered.
#[test]
fn look_ups_of_a_blocking_lister_leave_one_thread() {
    let _limit = support::limit(60);
    let (made, own) = (made(), Own::new(Way::Behaves));
    let service = serve(&made.db, &own);
    let mut events = service.subscribe();
    until(&mut events, "ok");
    own.becomes(Way::Blocks);
    for _ in 0..5 {
        let answers = get(&service, &mut events);
        assert!(
            matches!(&answers[0].result, LookUpResult::Failed { .. }),
            "{answers:?}"
        );
    }
    // The first, and perhaps a listing.
    assert!(own.most.load(Ordering::SeqCst) <= 2);
    own.becomes(Way::Behaves);
    support::eventually(Duration::from_secs(20), "an answer", || {
        matches!(
            get(&service, &mut events)[0].result,
            LookUpResult::Answer(_)
        )
    });
}
