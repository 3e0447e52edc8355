//! Several hosts side by side: they start, end, are killed and hang at random, while the
//! database changes. One of them keeps the index, and whoever is left goes on. So it is
//! beside a service that a supervisor keeps running, also while that and the hosts are of
//! versions that do not understand each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{self, Made, preload};

/// How long a change may take to be shown by one of the hosts that are left: three times
/// what is promised.
const SHOWN: Duration = Duration::from_secs(6);

/// How long a supervisor waits before it starts a service again that had to give way.
const RESTART: Duration = Duration::from_millis(300);

/// How long a program that hangs does so.
const HANGS: Duration = Duration::from_secs(4);

/// The exit status of a service where another one keeps the index.
const HELD: i32 = 75;

/// Which protocol a program speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    This,
    Other,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::This, Self::Other];

    fn other(self) -> Self {
        match self {
            Self::This => Self::Other,
            Self::Other => Self::This,
        }
    }
}

/// The titles of all sessions, by id.
type Titles = BTreeMap<String, String>;

/// What a host was told.
#[derive(Default)]
struct Seen {
    titles: Titles,
    hellos: usize,
    bye: Option<String>,
}

impl Seen {
    fn take(&mut self, event: &Value) {
        let of = |session: &Value| {
            let text = |field: &str| session[field].as_str().unwrap_or_default().to_owned();
            (text("id"), text("title"))
        };
        match event["type"].as_str() {
            Some("hello") => self.hellos += 1,
            Some("snapshot") => {
                let sessions = event["sessions"].as_array().unwrap();
                self.titles = sessions.iter().map(of).collect();
            }
            Some("change") => {
                let upserted = event["upserted"].as_array().unwrap();
                self.titles.extend(upserted.iter().map(of));
                for gone in event["removed"].as_array().unwrap() {
                    self.titles.remove(gone.as_str().unwrap());
                }
            }
            Some("bye") => self.bye = event["code"].as_str().map(str::to_owned),
            _ => {}
        }
    }
}

/// A host. Nothing of it is left when this is dropped.
struct Host {
    child: Child,
    protocol: Protocol,
    seen: Arc<Mutex<Seen>>,
    /// Since when it stands still.
    stopped: Option<Instant>,
}

impl Host {
    fn start(mut command: Command, protocol: Protocol) -> Self {
        command
            .arg("--stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (output, sees) = (child.stdout.take().unwrap(), Arc::clone(&seen));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap();
                sees.lock().unwrap().take(&event);
            }
        });
        Self {
            child,
            protocol,
            seen,
            stopped: None,
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// True where this host shows these sessions.
    fn shows(&self, titles: &Titles) -> bool {
        self.stopped.is_none() && self.seen.lock().unwrap().titles == *titles
    }

    /// It ends by one of the ways in which hosts end, and in no other. True where it was killed.
    fn end(mut self, way: u32) -> bool {
        let expected = match way {
            0 => {
                self.signal(Signal::KILL);
                None
            }
            1 => {
                self.signal(Signal::TERM);
                Some(0)
            }
            _ => {
                drop(self.child.stdin.take());
                Some(0)
            }
        };
        let status = exit_of(&mut self.child);
        // One that has not said a word may not know yet what a signal means.
        let is_new = self.seen.lock().unwrap().hellos == 0;
        let is_killed = is_new && way == 1 && status.signal() == Some(Signal::TERM.as_raw());
        assert!(
            status.code() == expected || is_killed,
            "way {way}: {status}"
        );
        status.code().is_none()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exit_of(child: &mut Child) -> ExitStatus {
    let limit = Duration::from_secs(15);
    support::within(limit, "its end", || child.try_wait().unwrap())
}

/// A service that a supervisor keeps running. Nothing of it is left when this is dropped.
struct Service {
    child: Child,
    protocol: Protocol,
    /// Since when it stands still.
    stopped: Option<Instant>,
    /// Since when it is not there, since another one keeps the index.
    ended: Option<Instant>,
}

impl Service {
    fn start(mut command: Command, protocol: Protocol) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            child: command.spawn().unwrap(),
            protocol,
            stopped: None,
            ended: None,
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn go_on(&mut self) {
        if self.stopped.take().is_some() {
            self.signal(Signal::CONT);
        }
    }

    /// True where it is there; it ends by itself only to give way.
    fn is_there(&mut self) -> bool {
        if self.ended.is_none()
            && let Some(status) = self.child.try_wait().unwrap()
        {
            assert_eq!(status.code(), Some(HELD), "the service ended by itself");
            self.ended = Some(Instant::now());
        }
        self.ended.is_none()
    }

    /// It ends as its supervisor wants. True where it was killed.
    fn end(mut self, by: Signal) -> bool {
        if !self.is_there() {
            return false;
        }
        self.go_on();
        self.signal(by);
        let status = exit_of(&mut self.child);
        let is_ended = match by {
            Signal::TERM => matches!(status.code(), Some(0 | HELD)),
            _ => matches!(status.code(), Some(HELD)),
        };
        // It may have only just begun.
        let is_ended = is_ended || status.signal() == Some(by.as_raw());
        assert!(is_ended, "{by:?}: {status}");
        status.code().is_none()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Hosts {
    made: Made,
    state: tempfile::TempDir,
    /// What makes a program speak the other protocol, where there are such programs.
    other: Option<preload::Library>,
    service: Option<Service>,
    /// How often a service of a protocol kept the index while there was a host of the other.
    beside: [usize; 2],
    hosts: Vec<Host>,
    /// What those that were killed may have left.
    sockets_left: BTreeSet<PathBuf>,
    most: usize,
    titles: Titles,
    random: Rng,
    /// How long each change took to be shown.
    took: Vec<Duration>,
}

impl Hosts {
    fn new(seed: u64, most: usize) -> Self {
        Self {
            made: Made::new(),
            state: tempfile::tempdir().unwrap(),
            other: None,
            service: None,
            beside: [0; 2],
            hosts: Vec::new(),
            sockets_left: BTreeSet::new(),
            most,
            titles: Titles::new(),
            random: Rng::with_seed(seed),
            took: Vec::new(),
        }
    }

    /// Beside a service of this protocol, with a host of the other.
    #[cfg(target_os = "linux")]
    fn supervised(seed: u64, most: usize, protocol: Protocol) -> Self {
        let mut hosts = Self::new(seed, most);
        hosts.other = Some(preload::Library::of("other_protocol.c"));
        hosts.begin_anew(protocol);
        hosts
    }

    /// As when a user logs in again: the service is there first.
    fn begin_anew(&mut self, protocol: Protocol) {
        self.end_all();
        self.service = Some(Service::start(self.serve(protocol), protocol));
        support::eventually(Duration::from_secs(15), "the service", || {
            self.service_keeps_the_index()
        });
        self.start_one(protocol.other());
    }

    fn state(&self) -> PathBuf {
        self.state.path().join("state")
    }

    fn serve(&self, protocol: Protocol) -> Command {
        let mut command = support::command(support::sessions());
        command
            .args(["serve", "--db"])
            .arg(&self.made.db)
            .arg("--state-dir")
            .arg(self.state());
        if protocol == Protocol::Other {
            let library = self.other.as_ref().unwrap();
            command.env("LD_PRELOAD", library.path());
        }
        command
    }

    fn start(&mut self) {
        let is_other = self.other.is_some() && self.random.bool();
        self.start_one(Protocol::ALL[usize::from(is_other)]);
    }

    fn start_one(&mut self, protocol: Protocol) {
        let host = Host::start(self.serve(protocol), protocol);
        self.hosts.push(host);
    }

    /// Whether the service is there and has the index, and not a host.
    fn service_keeps_the_index(&mut self) -> bool {
        let Some(service) = &mut self.service else {
            return false;
        };
        let keeper = fs::read_to_string(self.state.path().join("state/lock"));
        let keeper = keeper.unwrap_or_default();
        service.is_there() && keeper.trim() == service.child.id().to_string()
    }

    /// What its supervisor does: starts the service again that gave way, some time later.
    fn supervise(&mut self) {
        let Some(service) = &mut self.service else {
            return;
        };
        if service.stopped.is_some_and(|since| since.elapsed() > HANGS) {
            service.go_on();
        }
        let protocol = service.protocol;
        if !service.is_there() && service.ended.is_some_and(|since| since.elapsed() > RESTART) {
            self.service = Some(Service::start(self.serve(protocol), protocol));
        }
    }

    /// One thing happens to the service: mostly it is exchanged for one of the other
    /// protocol.
    fn exchange(&mut self) {
        let Some(mut service) = self.service.take() else {
            return;
        };
        let (by, protocol) = match self.random.u32(0..10) {
            0..4 => (Signal::TERM, service.protocol.other()),
            4..6 => (Signal::KILL, service.protocol),
            6 if service.ended.is_none() && service.stopped.is_none() => {
                service.signal(Signal::STOP);
                service.stopped = Some(Instant::now());
                self.service = Some(service);
                return;
            }
            7..9 => {
                let protocol = service.protocol.other();
                self.service = Some(service);
                self.begin_anew(protocol);
                return;
            }
            _ => {
                self.service = Some(service);
                return;
            }
        };
        self.end_service(service, by);
        self.service = Some(Service::start(self.serve(protocol), protocol));
    }

    /// One thing happens to one of them, and one to the database.
    fn round(&mut self) {
        let alive = self.hosts.iter().filter(|host| host.stopped.is_none());
        let alive = alive.count();
        match self.random.u32(0..10) {
            0..4 if self.hosts.len() < self.most => self.start(),
            // Somebody must be left to show it.
            way @ 4..8 if alive > 1 => {
                let at = self.random.usize(0..self.hosts.len());
                let mut host = self.hosts.swap_remove(at);
                if host.stopped.take().is_some() {
                    host.signal(Signal::CONT);
                }
                self.end_host(host, way - 4);
            }
            8.. if alive > 1 => {
                let at = self.random.usize(0..self.hosts.len());
                let host = &mut self.hosts[at];
                if host.stopped.is_none() {
                    host.signal(Signal::STOP);
                    host.stopped = Some(Instant::now());
                }
            }
            _ => {}
        }
        while self.hosts.iter().all(|host| host.stopped.is_some()) {
            self.start();
        }
        // One that hangs goes on some time.
        for host in &mut self.hosts {
            if host.stopped.is_some_and(|since| since.elapsed() > HANGS) {
                host.signal(Signal::CONT);
                host.stopped = None;
            }
        }
        self.exchange();
        self.change();
        self.until_shown();
        if self.service_keeps_the_index()
            && let Some(Service {
                protocol,
                stopped: None,
                ..
            }) = self.service
            && self.hosts.iter().any(|host| host.protocol != protocol)
        {
            self.beside[usize::from(protocol == Protocol::Other)] += 1;
        }
        for host in &mut self.hosts {
            assert!(
                host.child.try_wait().unwrap().is_none(),
                "one ended by itself"
            );
            let seen = host.seen.lock().unwrap();
            assert_eq!(seen.bye, None, "one said that it ends");
            assert!(seen.hellos <= 1, "one said hello again");
        }
    }

    fn change(&mut self) {
        let n = self.took.len();
        let id = format!("ses_{}", n % 20);
        if n >= 20 && self.random.u32(0..4) == 0 {
            self.made
                .run(&format!("DELETE FROM session WHERE id = '{id}'"));
            self.titles.remove(&id);
            return;
        }
        if !self.titles.contains_key(&id) {
            self.made.session(&id, i64::try_from(n).unwrap());
        }
        let title = format!("change {n}");
        self.made.run(&format!(
            "UPDATE session SET title = '{title}', time_updated = {n} WHERE id = '{id}'"
        ));
        self.titles.insert(id, title);
    }

    /// Whether, of the hosts of each protocol, one shows what is.
    fn is_shown(&self) -> bool {
        Protocol::ALL.into_iter().all(|protocol| {
            let is_of_it = |host: &&Host| host.protocol == protocol && host.stopped.is_none();
            let mut hosts = self.hosts.iter().filter(is_of_it).peekable();
            hosts.peek().is_none() || hosts.any(|host| host.shows(&self.titles))
        })
    }

    fn until_shown(&mut self) {
        let began = Instant::now();
        while !self.is_shown() {
            assert!(
                began.elapsed() < SHOWN,
                "round {}: nobody shows it; {} hosts",
                self.took.len(),
                self.hosts.len()
            );
            self.supervise();
            thread::sleep(Duration::from_millis(5));
        }
        self.took.push(began.elapsed());
    }

    /// All go on and end.
    fn end_all(&mut self) {
        for host in std::mem::take(&mut self.hosts) {
            if host.stopped.is_some() {
                host.signal(Signal::CONT);
            }
            let way = self.random.u32(1..3);
            self.end_host(host, way);
        }
        if let Some(service) = self.service.take() {
            self.end_service(service, Signal::TERM);
        }
    }

    fn end_host(&mut self, host: Host, way: u32) {
        let pid = host.child.id();
        let is_killed = host.end(way);
        self.has_ended(pid, is_killed);
    }

    fn end_service(&mut self, service: Service, by: Signal) {
        let pid = service.child.id();
        let is_killed = service.end(by);
        self.has_ended(pid, is_killed);
    }

    /// Of a process that is killed the socket is left, until the next one has its place.
    fn has_ended(&mut self, pid: u32, is_killed: bool) {
        for place in opencode_sessions::service::slots(&self.state()) {
            let keeper = fs::read_to_string(place.join("lock")).unwrap_or_default();
            if keeper.trim() != pid.to_string() {
                continue;
            }
            match is_killed {
                true => self.sockets_left.insert(place.join("socket")),
                false => self.sockets_left.remove(&place.join("socket")),
            };
        }
    }

    /// All end, and nothing is left of them.
    fn end(mut self) -> Vec<Duration> {
        self.end_all();
        support::eventually(Duration::from_secs(15), "the end of all", || {
            running_on(&self.made.db).is_none()
        });
        let mut left = vec![self.state.path().to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let is_socket = entry.file_name() == "socket";
                assert!(
                    !is_socket || self.sockets_left.contains(&entry.path()),
                    "{entry:?}"
                );
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
        self.took
    }
}

/// A process that was started for this database, where there is one. Linux.
fn running_on(db: &Path) -> Option<String> {
    let lines = fs::read_dir("/proc").into_iter().flatten();
    let mut lines = lines.filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    let db = db.to_str().unwrap();
    lines.find(|line| line.split(' ').any(|each| each == db))
}

fn rounds(count: usize, most: usize, seed: u64) -> Vec<Duration> {
    println!("HOSTS_SEED={seed}, at most {most} hosts");
    let mut hosts = Hosts::new(seed, most);
    hosts.start();
    for _ in 0..count {
        hosts.round();
    }
    hosts.end()
}

fn seed() -> u64 {
    let set = std::env::var("HOSTS_SEED").ok();
    set.map_or_else(|| fastrand::u64(..1 << 48), |seed| seed.parse().unwrap())
}

#[test]
fn surviving_host_shows_the_truth() {
    let _limit = support::limit(240);
    for most in [2, 3, 10] {
        rounds(12, most, seed());
    }
}

/// So many rounds beside a service that is exchanged; it begins with this protocol.
#[cfg(target_os = "linux")]
fn supervised_rounds(count: usize, most: usize, protocol: Protocol) -> (Vec<Duration>, [usize; 2]) {
    let seed = seed();
    println!("HOSTS_SEED={seed}, at most {most} hosts beside a service of {protocol:?} protocol");
    let mut hosts = Hosts::supervised(seed, most, protocol);
    for _ in 0..count {
        hosts.round();
    }
    let beside = hosts.beside;
    println!("{beside:?} rounds beside a service of the other protocol");
    (hosts.end(), beside)
}

#[cfg(target_os = "linux")]
#[test]
fn hosts_work_beside_a_service_of_another_protocol() {
    let _limit = support::limit(240);
    let mut beside = 0;
    for protocol in Protocol::ALL {
        beside += supervised_rounds(12, 4, protocol).1.iter().sum::<usize>();
    }
    assert!(beside > 0, "they were never beside each other");
}

/// For 300 rounds.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes minutes: run by ./scripts/soak hosts"]
fn soak_hosts_beside_a_service_of_another_protocol() {
    let _limit = support::limit(1800);
    let (mut took, mut beside) = (Vec::new(), [0; 2]);
    for (count, most) in [(50, 2), (50, 4), (50, 8)] {
        for protocol in Protocol::ALL {
            let (mut of_run, counted) = supervised_rounds(count, most, protocol);
            took.append(&mut of_run);
            beside = [beside[0] + counted[0], beside[1] + counted[1]];
        }
    }
    assert!(beside.iter().all(|count| *count >= 10), "{beside:?}");
    tell(took);
}

#[test]
#[ignore = "takes minutes: run by ./scripts/soak hosts"]
fn soak_surviving_host_shows_the_truth() {
    let _limit = support::limit(1800);
    let mut took = Vec::new();
    for (count, most) in [(100, 2), (150, 3), (250, 10)] {
        took.append(&mut rounds(count, most, seed()));
    }
    tell(took);
}

/// Says how long changes took to be shown.
fn tell(mut took: Vec<Duration>) {
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    let late = took.iter().filter(|took| **took > Duration::from_secs(2));
    println!(
        "{} rounds: half within {:?}, 99 of 100 within {:?}, all within {:?}; {} later than 2 s",
        took.len(),
        at(50),
        at(99),
        at(100),
        late.count()
    );
}
