//! Several hosts side by side: they start, end, are killed and hang at random, while the
//! database changes. One of them keeps the index, and whoever is left goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::Made;

/// How long a change may take to be shown by one of the hosts that are left: three times
/// what is promised.
const SHOWN: Duration = Duration::from_secs(6);

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
    seen: Arc<Mutex<Seen>>,
    /// Since when it stands still.
    stopped: Option<Instant>,
}

impl Host {
    fn start(made: &Made, state: &Path) -> Self {
        let mut command = support::command(support::sessions());
        command
            .args(["serve", "--stdio", "--db"])
            .arg(&made.db)
            .arg("--state-dir")
            .arg(state)
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
            seen,
            stopped: None,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// True where this host shows these sessions.
    fn shows(&self, titles: &Titles) -> bool {
        self.stopped.is_none() && self.seen.lock().unwrap().titles == *titles
    }

    /// It ends by one of the ways in which hosts end, and in no other.
    fn end(mut self, way: u32) {
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
        let until = Instant::now() + Duration::from_secs(15);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end, way {way}");
            thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(status.code(), expected, "way {way}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Hosts {
    made: Made,
    state: tempfile::TempDir,
    hosts: Vec<Host>,
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
            hosts: Vec::new(),
            most,
            titles: Titles::new(),
            random: Rng::with_seed(seed),
            took: Vec::new(),
        }
    }

    fn start(&mut self) {
        let host = Host::start(&self.made, &self.state.path().join("state"));
        self.hosts.push(host);
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
                host.end(way - 4);
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
            if host
                .stopped
                .is_some_and(|since| since.elapsed() > Duration::from_secs(4))
            {
                host.signal(Signal::CONT);
                host.stopped = None;
            }
        }
        self.change();
        self.until_shown();
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

    fn until_shown(&mut self) {
        let began = Instant::now();
        while !self.hosts.iter().any(|host| host.shows(&self.titles)) {
            assert!(
                began.elapsed() < SHOWN,
                "round {}: nobody shows it; {} hosts",
                self.took.len(),
                self.hosts.len()
            );
            thread::sleep(Duration::from_millis(5));
        }
        self.took.push(began.elapsed());
    }

    /// All go on and end, and nothing is left of them.
    fn end(mut self) -> Vec<Duration> {
        for host in self.hosts.drain(..) {
            if host.stopped.is_some() {
                host.signal(Signal::CONT);
            }
            let way = self.random.u32(1..3);
            host.end(way);
        }
        let mut left = vec![self.state.path().to_owned()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                assert_ne!(entry.file_name(), "socket", "{entry:?}");
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
        self.took
    }
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
fn whatever_happens_to_hosts_somebody_who_is_left_shows_what_is() {
    let _limit = support::limit(240);
    for most in [2, 3, 10] {
        rounds(12, most, seed());
    }
}

#[test]
#[ignore = "takes minutes: run by ./scripts/soak hosts"]
fn for_500_rounds_somebody_who_is_left_shows_what_is() {
    let _limit = support::limit(1800);
    let mut took = Vec::new();
    for (count, most) in [(100, 2), (150, 3), (250, 10)] {
        took.append(&mut rounds(count, most, seed()));
    }
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
