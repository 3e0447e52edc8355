//! A running service as its host sees it, and a helper that can be exchanged
//! while the service runs.

#![allow(dead_code, unreachable_pub, reason = "every test file uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::support;

/// How long anything is waited for that should come by itself.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// Three times what the service promises for an answer.
const QUICK: Duration = Duration::from_millis(150);

// ---- What a host knows.

/// What follows from the events so far. Taking one checks that it goes with
/// those before it.
#[derive(Debug, Default)]
pub struct Model {
    pub revision: u64,
    pub sessions: BTreeMap<String, Value>,
    pub health: BTreeMap<String, Value>,
    pub events: Vec<Value>,
}

impl Model {
    pub fn take(&mut self, event: Value) {
        let kind = event["type"].as_str().expect("an event has a type");
        match self.events.len() {
            0 => assert_eq!(kind, "hello", "{event}"),
            1 => assert_eq!(kind, "snapshot", "{event}"),
            _ => {}
        }
        assert!(
            self.events.last().is_none_or(|last| last["type"] != "bye"),
            "nothing comes after the bye: {event}"
        );
        match kind {
            "snapshot" => self.snapshot(&event),
            "change" => self.change(&event),
            "health" => {
                let new = event["health"].clone();
                let old = self.health.insert(text(&event["source"]), new.clone());
                assert_ne!(old, Some(new), "it is no news: {event}");
            }
            "hello" | "reply" | "bye" => {}
            other => panic!("an event of the type {other}"),
        }
        self.events.push(event);
    }

    fn snapshot(&mut self, event: &Value) {
        // Of another service than before, where that one has ended.
        let revision = event["revision"].as_u64().unwrap();
        let sessions = list(&event["sessions"]).iter().map(|session| {
            assert!(session["source"].is_string(), "{session}");
            (key(session), session.clone())
        });
        let sessions: BTreeMap<_, _> = sessions.collect();
        assert_eq!(
            sessions.len(),
            list(&event["sessions"]).len(),
            "each is there once"
        );
        self.sessions = sessions;
        self.revision = revision;
        self.health = list(&event["sources"])
            .iter()
            .map(|source| (text(&source["source"]), source["health"].clone()))
            .collect();
    }

    fn change(&mut self, event: &Value) {
        let revision = event["revision"].as_u64().unwrap();
        assert_eq!(revision, self.revision + 1, "{event}");
        self.revision = revision;
        let (upserted, removed) = (list(&event["upserted"]), list(&event["removed"]));
        assert!(
            !upserted.is_empty() || !removed.is_empty(),
            "nothing is no change"
        );
        for session in upserted {
            let old = self.sessions.insert(key(session), session.clone());
            assert_ne!(old.as_ref(), Some(session), "it was so before");
        }
        for gone in removed {
            assert!(self.sessions.remove(&text(gone)).is_some(), "{gone}");
        }
    }

    /// The ids of all sessions, sorted.
    pub fn ids(&self) -> Vec<&str> {
        self.sessions.keys().map(String::as_str).collect()
    }

    /// The health of the only source.
    pub fn only_health(&self) -> &Value {
        assert_eq!(self.health.len(), 1, "{:?}", self.health);
        self.health.values().next().unwrap()
    }

    /// The name of that health.
    pub fn state(&self) -> &str {
        self.only_health()["state"].as_str().unwrap()
    }

    /// The events of this type, from the one at `from`.
    pub fn of_type(&self, kind: &str, from: usize) -> Vec<&Value> {
        let events = self.events[from..].iter();
        events.filter(|event| event["type"] == kind).collect()
    }

    /// How many sessions were said to be removed, ever.
    pub fn removed(&self) -> usize {
        let changes = self.of_type("change", 0);
        changes
            .iter()
            .map(|change| list(&change["removed"]).len())
            .sum()
    }
}

fn key(session: &Value) -> String {
    text(&session["id"])
}

pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

// ---- The host.

/// `serve --stdio` with this database and state directory.
pub fn serve(db: &Path, state: &Path) -> Command {
    let mut command = support::command(support::sessions());
    command
        .args(["serve", "--stdio"])
        .args([OsStr::new("--db"), db.as_os_str()])
        .args([OsStr::new("--state-dir"), state.as_os_str()]);
    command
}

/// A service and its host. It does not survive the test.
pub struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    pub model: Model,
    log: Arc<Mutex<String>>,
    /// Held by whoever does not want the events to be read.
    gate: Arc<Mutex<()>>,
    asked: i64,
}

impl Host {
    /// Starts it, and does not wait for anything.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let gate = Arc::new(Mutex::new(()));
        let (to, events) = mpsc::channel();
        let (stdout, open) = (child.stdout.take().unwrap(), Arc::clone(&gate));
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            // A killed one may leave a part of a line.
            while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
                drop(open.lock().unwrap_or_else(PoisonError::into_inner));
                let event = serde_json::from_str(&line);
                let event = event.unwrap_or_else(|error| panic!("{error}: {line}"));
                if to.send(event).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            events,
            model: Model::default(),
            log,
            gate,
            asked: 0,
        }
    }

    /// Starts it, and waits for its first snapshot.
    pub fn greeted(command: &mut Command) -> Self {
        let mut host = Self::start(command);
        host.until("the first snapshot", |model| model.events.len() > 1);
        host
    }

    /// Starts it, and waits until its only source is well.
    pub fn well(command: &mut Command) -> Self {
        let mut host = Self::greeted(command);
        host.until("the first listing", |model| model.state() == "ok");
        host
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Takes events until it is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, done: impl Fn(&Model) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(&self.model) {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.model.take(event),
                Err(error) => {
                    let last = self.model.events.iter().rev().take(5);
                    panic!(
                        "waited for {what}: {error}; the last events: {:#?}; the log:\n{}",
                        last.collect::<Vec<_>>(),
                        self.log()
                    );
                }
            }
        }
    }

    /// Takes the events that have come, also of one that has ended.
    pub fn take_what_is_there(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.model.take(event);
        }
    }

    /// Takes events for so long.
    pub fn take_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.model.take(event),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("it has ended:\n{}", self.log()),
            }
        }
    }

    /// Writes to its standard input.
    pub fn say(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Gives a command, and does not wait; the id its reply will have.
    pub fn tell(&mut self, command: &str) -> i64 {
        self.asked += 1;
        let command = json!({"type": command, "id": self.asked});
        self.say(format!("{command}\n").as_bytes());
        self.asked
    }

    /// Waits for the reply with this id; it is the last event then.
    #[track_caller]
    pub fn reply(&mut self, id: i64) -> Value {
        self.until("a reply", |model| {
            let last = model.events.last();
            last.is_some_and(|last| last["type"] == "reply" && last["id"] == id)
        });
        self.model.events.last().unwrap().clone()
    }

    /// Gives a command, and waits for its reply.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> Value {
        let id = self.tell(command);
        self.reply(id)
    }

    /// Refreshes; the outcome of the only source.
    #[track_caller]
    pub fn refresh(&mut self) -> Value {
        let reply = self.ask("refresh");
        let [outcome] = list(&reply["refreshed"]) else {
            panic!("{reply}");
        };
        outcome.clone()
    }

    pub fn status(&mut self) -> Value {
        self.ask("status")["status"].clone()
    }

    /// Asks for the status until it is so.
    #[track_caller]
    pub fn until_status(&mut self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(Instant::now() < until, "waited for {what}: {status:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends its standard input.
    pub fn leave(&mut self) {
        self.stdin.take();
    }

    /// Nothing is read of its standard output for as long as this lives, but a
    /// line and a buffer full.
    pub fn stop_reading(&self) -> impl Drop + use<> {
        let gate = Arc::clone(&self.gate);
        let (held, is_held) = mpsc::channel();
        let (open, is_open) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _held: MutexGuard<'_, ()> = gate.lock().unwrap();
            held.send(()).unwrap();
            let _ = is_open.recv();
        });
        is_held.recv().unwrap();
        Gate(Some(open), Some(holder))
    }

    /// Takes the rest of the events, and waits for the end.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, Model, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.model.take(event),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.log()),
            }
        }
        let status = exit_of(&mut self.child);
        // The log's last lines are on their way through a thread.
        thread::sleep(Duration::from_millis(50));
        (status, std::mem::take(&mut self.model), self.log())
    }

    /// Ends it by this signal, in order.
    #[track_caller]
    pub fn end_by(self, signal: Signal) -> (ExitStatus, Model, String) {
        self.signal(signal);
        self.end()
    }

    /// Kills it; what it had said until then.
    pub fn kill(mut self) -> Model {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for event in &self.events {
            self.model.take(event);
        }
        std::mem::take(&mut self.model)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Gate(Option<mpsc::Sender<()>>, Option<thread::JoinHandle<()>>);

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.take();
        let _ = self.1.take().unwrap().join();
    }
}

/// Waits for a child that is about to exit.
#[track_caller]
pub fn exit_of(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "it does not exit");
        thread::sleep(Duration::from_millis(2));
    }
}

// ---- The socket.

/// The reply to one command over the socket, and how long it all took.
pub fn ask_at(socket: &Path, command: &str) -> (Value, Duration) {
    let started = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("{}\n", json!({"type": command})).as_bytes())
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let reply = lines.find(|line| line.starts_with(r#"{"type":"reply""#));
    let took = started.elapsed();
    (
        serde_json::from_str(&reply.expect("a reply")).unwrap(),
        took,
    )
}

/// The status over the socket, which must be quick: the best of three is.
#[track_caller]
pub fn quick_status(socket: &Path) -> Value {
    let (reply, took) = (0..3)
        .map(|_| ask_at(socket, "status"))
        .min_by_key(|(_, took)| *took)
        .unwrap();
    assert!(took < QUICK, "{took:?}");
    reply["status"].clone()
}

/// Waits until there is something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

// ---- The helper.

/// A program that is the real helper, or one that misbehaves, as a test has it.
/// Nothing that it starts survives it.
pub struct Helper(tempfile::TempDir);

/// The name of the one that does not misbehave.
pub const REAL: &str = "opencode-lister";

impl Helper {
    /// The real one, for now.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        symlink(support::lister(), directory.path().join(REAL)).unwrap();
        // What a misbehaving helper does is in the name it is called by, and the
        // service calls this program always by the same.
        support::script(
            &directory.path().join("helper"),
            "#!/bin/sh\nread -r now < \"${0%/*}/now\"\nexec \"${0%/*}/$now\" \"$@\"\n",
        );
        let helper = Self(directory);
        helper.becomes(REAL);
        helper
    }

    pub fn program(&self) -> PathBuf {
        self.0.path().join("helper")
    }

    /// From the next launch on it is this one.
    pub fn becomes(&self, name: &str) {
        if !self.0.path().join(name).exists() {
            let _ = support::misbehaving(self.0.path(), name);
        }
        self.points_at(name);
    }

    /// From the next launch on there is none behind the script.
    pub fn becomes_nothing(&self) {
        self.points_at("nothing");
    }

    fn points_at(&self, name: &str) {
        let (new, now) = (self.0.path().join("new"), self.0.path().join("now"));
        fs::write(&new, format!("{name}\n")).unwrap();
        fs::rename(new, now).unwrap();
    }

    /// From the next launch on it is this program.
    pub fn becomes_script(&self, text: &str) {
        let name = format!("script-{}", fastrand::u64(..));
        support::script(&self.0.path().join(&name), text);
        self.becomes(&name);
    }

    /// The misbehaving helpers, and what they started.
    pub fn pids(&self) -> Vec<Pid> {
        let pids = fs::read_to_string(self.0.path().join("pids")).unwrap_or_default();
        pids.lines()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .collect()
    }

    pub fn running(&self) -> Vec<Pid> {
        let pids = self.pids().into_iter();
        pids.filter(|pid| is_misbehaving(*pid)).collect()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        for pid in self.running() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// True for a process of a misbehaving helper that lives.
fn is_misbehaving(pid: Pid) -> bool {
    if cfg!(target_os = "linux") {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("misbehaving-lister") && !is_zombie(pid)
    } else {
        rustix::process::test_kill_process(pid).is_ok()
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, after)| after.trim_start().starts_with(['Z', 'X']))
}

/// The processes that run the real helper on this database.
pub fn helpers_of(db: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    processes
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut arguments = line.split(|byte| *byte == 0);
            let is_helper = arguments.next()?.ends_with(b"opencode-lister");
            let lists_it = arguments.any(|each| each == db.as_os_str().as_encoded_bytes());
            (is_helper && lists_it).then_some(pid)
        })
        .collect()
}

/// What `list --no-service` prints of this database.
pub fn listed(db: &Path, args: &[&str]) -> Vec<u8> {
    let output = support::command(support::sessions())
        .args(["list", "--no-service", "--db"])
        .arg(db)
        .args(args)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout
}

/// The sessions of this database as the events of its only source have them.
pub fn expected(db: &Path) -> BTreeMap<String, Value> {
    let listed: Value = serde_json::from_slice(&listed(db, &["--format", "json"])).unwrap();
    list(&listed)
        .iter()
        .map(|session| (key(session), session.clone()))
        .collect()
}
