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

use serde::{Deserialize, Serialize};
use serde_json::Value;
use signal_hook::consts::SIGHUP;

use super::host::{Signalled, name_of};
use super::streams::Stdout;
use crate::index::View;
use crate::service::client::Client;
use crate::service::{ByeCode, Command, CommandId, CommandLine, Event, Hello};
use crate::wire::line;

/// How often the service is asked whether it is there.
const ASK: Duration = Duration::from_millis(400);

/// How long it may say nothing then.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked at whether this is over.
const LOOK: Duration = Duration::from_millis(50);

/// Commands on their way at a time: as many as a service takes.
const UNANSWERED: usize = 64;

/// The longest line that is passed on, in bytes.
const LONGEST: u64 = 256 << 20;

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
    pub(super) signals: Signalled,
    /// Its commands.
    pub(super) lines: Receiver<Vec<u8>>,
    /// Commands that a service has not answered, which the next one is asked first.
    pub(super) unanswered: VecDeque<Vec<u8>>,
    /// It was said hello.
    pub(super) is_greeted: bool,
    /// What it sees.
    pub(super) view: View,
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
pub(super) fn relay(other: Client, host: &mut Host) -> io::Result<Ended> {
    let mut out = Stdout;
    if !host.is_greeted {
        out.write_all(&hello_line(other.hello()))?;
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
    host.signals.go_to(move |signal| match signal {
        SIGHUP => to_end.end(&of_signals, Ended::Reload, None),
        signal => {
            let bye = (ByeCode::Ended, name_of(signal).to_owned());
            to_end.end(&of_signals, Ended::Done, Some(bye));
        }
    });
    let commands = stream.try_clone()?;
    let is_usual = host.view == View::default();
    if !is_usual {
        let subscribe = subscribe_line(host.view);
        shared
            .lock()
            .waiting
            .push_back((CommandId::new(own_id("view")), None));
        // Where it fails, so does the first read.
        let _ = (&commands).write_all(&subscribe);
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
    host.signals.go_to(|_| {});
    let state = shared.lock();
    let ended = match (&state.ended, written) {
        // Nobody reads what this says.
        (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Ended::Done),
        (_, Err(error)) => return Err(error),
        (Some(ended), Ok(_)) => *ended,
        (None, Ok(ended)) => ended,
    };
    if let Some((code, reason)) = state.bye.clone() {
        out.write_all(&line(&Event::Bye { code, reason }))?;
        out.flush()?;
    }
    Ok(ended)
}

fn hello_line(hello: &Hello) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "hello")]
    struct Tagged<'a> {
        #[serde(flatten)]
        hello: &'a Hello,
    }
    line(&Tagged { hello })
}

/// The id of what is asked on nobody's behalf: no host uses it.
fn own_id(what: &str) -> Value {
    Value::from(format!("relay-{}-{what}", std::process::id()))
}

fn subscribe_line(View { children, archived }: View) -> Vec<u8> {
    let command = serde_json::json!({"type": "subscribe", "children": children,
        "archived": archived, "id": own_id("view")});
    line(&command)
}

/// Events to the host, until there are no more: from the start, or from the snapshot on
/// that comes with the view that was subscribed to.
fn pass_on(
    shared: &Shared,
    mut from: impl BufRead,
    out: &mut impl Write,
    from_the_start: bool,
) -> io::Result<Ended> {
    let own = ["ping", "view"].map(|what| CommandId::new(own_id(what)));
    let [_, of_view] = &own;
    let (mut sees_its_view, mut snapshot) = (from_the_start, Vec::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        shared.lock().silent_since = Some(Instant::now());
        let read = from.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        shared.lock().silent_since = None;
        if read.is_err() || line.last() != Some(&b'\n') {
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
        if line.starts_with(b"{\"type\":\"reply\"") {
            let id = known().and_then(|known| known.id);
            let mut state = shared.lock();
            let at = state.waiting.iter().position(|(asked, _)| *asked == id);
            if let Some(at) = at {
                state.waiting.remove(at);
            }
            if id == *of_view {
                sees_its_view = true;
                out.write_all(&std::mem::take(&mut snapshot))?;
                out.flush()?;
            }
            if own.contains(&id) {
                continue;
            }
        } else if !sees_its_view && line.starts_with(b"{\"type\":\"snapshot\"") {
            std::mem::swap(&mut snapshot, &mut line);
            continue;
        } else if !sees_its_view && line.starts_with(b"{\"type\":\"change\"") {
            continue;
        } else if line.starts_with(b"{\"type\":\"bye\"") {
            is_last = matches!(
                known().and_then(|known| known.code),
                Some(ByeCode::Stopped | ByeCode::Shutdown)
            );
            if !is_last {
                // Not of what the host talks to: that goes on.
                return Ok(Ended::Gone);
            }
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
    let mut asked = Instant::now();
    let mut is_asked = false;
    while !shared.is_over.load(Ordering::Acquire) {
        let now = Instant::now();
        let (waiting, silent) = {
            let state = shared.lock();
            (state.waiting.len(), state.silent_since)
        };
        let is_silent = silent.is_some_and(|since| now.saturating_duration_since(since) > PATIENCE);
        if is_asked && is_silent && now.saturating_duration_since(asked) > PATIENCE {
            shared.end(stream, Ended::Hangs, None);
            break;
        }
        let own = (CommandId::new(own_id("ping")), None);
        let is_answered = !shared.lock().waiting.contains(&own);
        if is_answered && now.saturating_duration_since(asked) >= ASK {
            let question = format!("{{\"type\":\"status\",\"id\":{}}}\n", own_id("ping"));
            shared.lock().waiting.push_back(own);
            (asked, is_asked) = (now, true);
            if stream.write_all(question.as_bytes()).is_err() {
                break;
            }
        } else if is_answered {
            is_asked = false;
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
