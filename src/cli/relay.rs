//! Passing on the events of a service that another process keeps, and the commands to it.
//!
//! The service may end, be killed, or hang: its host does not. Then [`relay`] returns
//! what was not answered, for whoever takes over. A service counts as hanging when it has
//! said nothing for a second though it was asked.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use signal_hook::consts::SIGHUP;

use super::host::{Signalled, name_of};
use super::streams::Stdout;
use crate::index::View;
use crate::json::line;
use crate::service::client::{self, Client};
use crate::service::{ByeCode, Command, CommandId, CommandLine, Event, UNANSWERED};

/// How often the service is asked whether it is there.
const ASK: Duration = Duration::from_millis(400);

/// How long it may say nothing then.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked at whether this is over.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked on nobody's behalf: whether the service is there, to see the host's view,
/// and to list again after a reload.
const OWN: [&str; 3] = ["ping", "view", "reload"];

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The host has what it wants: its last event was written.
    Done,
    /// The service is gone, or has no answer for its host any more.
    Gone,
    /// The service does not answer.
    Hangs,
    /// SIGHUP: what is to be done is to be found out anew.
    Reload,
}

/// What a host's process keeps from one service to the next.
pub(super) struct Host {
    /// Its commands.
    pub(super) lines: Receiver<Vec<u8>>,
    /// Commands that a service has not answered, which the next one is asked first.
    pub(super) unanswered: VecDeque<Vec<u8>>,
    /// It was said hello.
    pub(super) is_greeted: bool,
    /// What it sees.
    pub(super) view: View,
    /// The next service is to list again.
    pub(super) reloads: bool,
}

/// What both directions know.
struct Shared {
    state: Mutex<State>,
    /// Nothing more is passed on.
    is_over: AtomicBool,
}

struct State {
    /// Commands that were sent and not answered, oldest first; `None` for what was asked
    /// on nobody's behalf.
    waiting: VecDeque<(Option<CommandId>, Option<Vec<u8>>)>,
    /// Since when the service has owed a word; `None` while it is not read from.
    silent_since: Option<Instant>,
    /// Why it ends, where this end decides it.
    ended: Option<Ended>,
    /// The last word, where this end says it.
    bye: Option<(ByeCode, String)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest command of this id has its reply.
    fn answered(&self, id: &Option<CommandId>) {
        let mut state = self.lock();
        let at = state.waiting.iter().position(|(asked, _)| asked == id);
        at.and_then(|at| state.waiting.remove(at));
    }

    /// Asks this on nobody's behalf.
    fn ask(&self, mut stream: &UnixStream, what: &str, mut command: Value) -> io::Result<()> {
        let id = own_id(what);
        command["id"] = json!(id);
        self.lock().waiting.push_back((id, None));
        stream.write_all(&line(&command))
    }

    /// This is over, for this reason; the first one counts.
    fn end(&self, stream: &UnixStream, ended: Ended, bye: Option<(ByeCode, String)>) {
        let mut state = self.lock();
        if state.ended.is_none() {
            (state.ended, state.bye) = (Some(ended), bye);
        }
        drop(state);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Passes everything on, both ways.
///
/// # Errors
///
/// Where the system gives no thread, or standard output fails.
pub(super) fn relay(other: Client, host: &mut Host, signals: &Signalled) -> io::Result<Ended> {
    let mut out = Stdout;
    if !host.is_greeted {
        out.write_all(&Event::Hello(other.hello().clone()).line())?;
        out.flush()?;
        host.is_greeted = true;
    }
    let (read, stream) = other.into_stream()?;
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            waiting: VecDeque::new(),
            silent_since: None,
            ended: None,
            bye: None,
        }),
        is_over: AtomicBool::new(false),
    });
    let (to_end, of_signals) = (Arc::clone(&shared), stream.try_clone()?);
    signals.go_to(move |signal| match signal {
        SIGHUP => to_end.end(&of_signals, Ended::Reload, None),
        signal => {
            let bye = (ByeCode::Ended, name_of(signal).to_owned());
            to_end.end(&of_signals, Ended::Done, Some(bye));
        }
    });
    let commands = stream.try_clone()?;
    let is_usual = host.view == View::default();
    // Where asking fails, so does the first read.
    if !is_usual {
        let View { children, archived } = host.view;
        let subscribe = json!({"type": "subscribe", "children": children, "archived": archived});
        let _ = shared.ask(&commands, "view", subscribe);
    }
    if std::mem::take(&mut host.reloads) {
        let _ = shared.ask(&commands, "reload", json!({"type": "refresh"}));
    }
    let written = thread::scope(|scope| {
        let lines = &mut host.lines;
        let unanswered = std::mem::take(&mut host.unanswered);
        let sending = thread::Builder::new().name("commands".into());
        let sending = sending.spawn_scoped(scope, || {
            send_commands(&shared, &commands, lines, unanswered)
        })?;
        let from = BufReader::new(read.as_slice().chain(&stream));
        let written = pass_on(&shared, from, &mut out, is_usual);
        shared.is_over.store(true, Ordering::Release);
        let _ = stream.shutdown(Shutdown::Both);
        let left = sending.join().unwrap_or_default();
        let asked = std::mem::take(&mut shared.lock().waiting);
        let asked = asked.into_iter().filter_map(|(_, line)| line);
        host.unanswered = asked.chain(left).collect();
        written
    });
    // Whoever is next says where signals go; until then they are remembered.
    signals.go_to(|_| {});
    let state = shared.lock();
    let ended = match (&state.ended, written) {
        // Nobody reads what this says.
        (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Ended::Done),
        (_, Err(error)) => return Err(error),
        (Some(ended), Ok(_)) => *ended,
        (None, Ok(ended)) => ended,
    };
    if let Some((code, reason)) = state.bye.clone() {
        out.write_all(&Event::Bye { code, reason }.line())?;
        out.flush()?;
    }
    Ok(ended)
}

/// The id of what is asked on nobody's behalf: no host uses it.
fn own_id(what: &str) -> Option<CommandId> {
    CommandId::new(format!("relay-{}-{what}", std::process::id()).into())
}

/// Events to the host, until there are no more: from the start, or from the snapshot on
/// that comes with the view that was subscribed to.
fn pass_on(
    shared: &Shared,
    mut from: impl BufRead,
    out: &mut impl Write,
    from_the_start: bool,
) -> io::Result<Ended> {
    let own = OWN.map(own_id);
    let [_, of_view, _] = &own;
    let (mut sees_its_view, mut snapshot) = (from_the_start, Vec::new());
    let mut line = Vec::new();
    loop {
        shared.lock().silent_since = Some(Instant::now());
        let read = client::read_line(&mut from, &mut line);
        shared.lock().silent_since = None;
        if read.is_err() {
            return Ok(Ended::Gone);
        }
        /// What is to be known of an event to pass it on.
        #[derive(Deserialize)]
        struct Known {
            #[serde(default)]
            id: Option<CommandId>,
            #[serde(default)]
            code: Option<ByeCode>,
        }
        let known = || serde_json::from_slice::<Known>(&line).ok();
        let mut is_last = false;
        match client::type_of(&line).as_deref() {
            Some("reply") => {
                let id = known().and_then(|known| known.id);
                shared.answered(&id);
                if id == *of_view {
                    sees_its_view = true;
                    out.write_all(&std::mem::take(&mut snapshot))?;
                    out.flush()?;
                }
                if own.contains(&id) {
                    continue;
                }
            }
            Some("snapshot") if !sees_its_view => {
                std::mem::swap(&mut snapshot, &mut line);
                continue;
            }
            Some("change") if !sees_its_view => continue,
            Some("bye") => {
                is_last = matches!(
                    known().and_then(|known| known.code),
                    Some(ByeCode::Stopped | ByeCode::Shutdown)
                );
                if !is_last {
                    // Not of what the host talks to: that goes on.
                    return Ok(Ended::Gone);
                }
            }
            _ => {}
        }
        out.write_all(&line)?;
        out.flush()?;
        if is_last {
            return Ok(Ended::Done);
        }
    }
}

/// The host's commands to the service, and a question now and then whether it is there.
/// Returns what was taken from the host and not sent.
fn send_commands(
    shared: &Shared,
    mut stream: &UnixStream,
    lines: &mut Receiver<Vec<u8>>,
    mut first: VecDeque<Vec<u8>>,
) -> VecDeque<Vec<u8>> {
    let ping = (own_id("ping"), None);
    let mut asked = Instant::now();
    while !shared.is_over.load(Ordering::Acquire) {
        let (waiting, is_owed, silent) = {
            let state = shared.lock();
            let silent = state.silent_since.map(|since| since.elapsed());
            (state.waiting.len(), state.waiting.contains(&ping), silent)
        };
        let is_late = |time: Duration| time > PATIENCE;
        if is_owed && is_late(asked.elapsed()) && silent.is_some_and(is_late) {
            shared.end(stream, Ended::Hangs, None);
            break;
        }
        if !is_owed && asked.elapsed() >= ASK {
            asked = Instant::now();
            if shared
                .ask(stream, "ping", json!({"type": "status"}))
                .is_err()
            {
                break;
            }
        }
        if waiting >= UNANSWERED {
            thread::sleep(LOOK);
            continue;
        }
        let line = match first.pop_front() {
            Some(line) => line,
            None => match lines.recv_timeout(LOOK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    let bye = (ByeCode::Ended, "its standard input ended".to_owned());
                    shared.end(stream, Ended::Done, Some(bye));
                    break;
                }
            },
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let CommandLine { id, command } = CommandLine::parse(&line);
        // A host ends what is its own.
        let is_end = command == Ok(Command::Shutdown);
        shared
            .lock()
            .waiting
            .push_back((id, (!is_end).then(|| line.clone())));
        if stream.write_all(&line).is_err() {
            break;
        }
    }
    first
}
