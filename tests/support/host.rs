//! A running service as its host sees it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::support::{self, Model, PATIENCE, eventually, exit_of, list};

/// `serve --stdio` with this database and state directory.
pub(crate) fn serve(db: &Path, state: &Path) -> Command {
    let mut command = support::command(support::sessions());
    command
        .args(["serve", "--stdio"])
        .args([OsStr::new("--db"), db.as_os_str()])
        .args([OsStr::new("--state-dir"), state.as_os_str()]);
    command
}

/// A service and its host. It does not survive the test.
pub(crate) struct Host {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) events: Receiver<Value>,
    pub(crate) model: Model,
    log: Arc<Mutex<String>>,
    /// Ends with the standard error of the service.
    logging: Option<JoinHandle<()>>,
    /// Held by whoever does not want the events to be read.
    pub(crate) gate: Arc<Mutex<()>>,
    asked: i64,
}

impl Host {
    /// Starts it, and does not wait for anything.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, events) = mpsc::channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut host = Self {
            stdin: child.stdin.take(),
            child,
            events,
            model: Model::default(),
            log: Arc::default(),
            logging: None,
            gate: Arc::default(),
            asked: 0,
        };
        let open = Arc::clone(&host.gate);
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
        let lines = Arc::clone(&host.log);
        host.logging = Some(thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        }));
        host
    }

    /// Starts it, and waits for its first snapshot.
    pub(crate) fn greeted(command: &mut Command) -> Self {
        let mut host = Self::start(command);
        host.until("the first snapshot", |model| model.events.len() > 1);
        host
    }

    /// Starts it, and waits until its only source is well.
    pub(crate) fn well(command: &mut Command) -> Self {
        let mut host = Self::greeted(command);
        host.until("the first listing", |model| model.state() == "ok");
        host
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Takes events until it is so.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Model) -> bool) {
        self.until_within(PATIENCE, what, done);
    }

    /// Takes events until it is so, for so long at most.
    #[track_caller]
    pub(crate) fn until_within(
        &mut self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Model) -> bool,
    ) {
        let until = Instant::now() + limit;
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

    /// Takes events for so long.
    pub(crate) fn take_for(&mut self, time: Duration) {
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
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Gives a command, and does not wait; the id its reply will have.
    pub(crate) fn tell(&mut self, command: &str) -> i64 {
        self.asked += 1;
        let command = json!({"type": command, "id": self.asked});
        self.say(format!("{command}\n").as_bytes());
        self.asked
    }

    /// Waits for the reply with this id; it is the last event then.
    #[track_caller]
    pub(crate) fn reply(&mut self, id: i64) -> Value {
        self.until("a reply", |model| {
            let last = model.events.last();
            last.is_some_and(|last| last["type"] == "reply" && last["id"] == id)
        });
        self.model.events.last().unwrap().clone()
    }

    /// Gives a command, and waits for its reply.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> Value {
        let id = self.tell(command);
        self.reply(id)
    }

    /// Refreshes; the outcome of the only source.
    #[track_caller]
    pub(crate) fn refresh(&mut self) -> Value {
        let reply = self.ask("refresh");
        let [outcome] = list(&reply["refreshed"]) else {
            panic!("{reply}");
        };
        outcome.clone()
    }

    pub(crate) fn status(&mut self) -> Value {
        self.ask("status")["status"].clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends its standard input.
    pub(crate) fn leave(&mut self) {
        self.stdin.take();
    }

    /// Takes the rest of the events, and waits for the end.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Model, String) {
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
        let logging = self.logging.take();
        eventually(PATIENCE, "the end of the log", || {
            logging.as_ref().is_none_or(JoinHandle::is_finished)
        });
        (status, std::mem::take(&mut self.model), self.log())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
