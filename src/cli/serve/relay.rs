//! Relays the events of another service to the host, and the host's commands to that service.
//!
//! The other service may end, be killed, or hang. [`relay`] then returns, and leaves the
//! commands without a reply to the next service. A service hangs if it has sent nothing for a
//! second although a command waits for its reply.

mod commands;
mod events;

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use signal_hook::consts::SIGHUP;

use super::signals::{SignalDispatcher, signal_name};
use super::stdio::HostConnection;
use crate::cli::is_broken_pipe;
use crate::cli::streams::Stdout;
use crate::index::View;
use crate::json::line;
use crate::service::client::Client;
use crate::service::{ByeCode, CommandId, Event};

use commands::forward_commands;
use events::forward_events;

/// The commands that the relay itself sends. The host does not receive their replies.
#[derive(Debug, Clone, Copy)]
enum OwnCommand {
    /// Asks whether the service still answers.
    Ping,
    /// Subscribes to the host's view.
    View,
    /// Lists all sources again after a reload.
    Refresh,
}

impl OwnCommand {
    const ALL: [Self; 3] = [Self::Ping, Self::View, Self::Refresh];

    /// Returns the id, which no host uses.
    fn id(self) -> Option<CommandId> {
        let name = match self {
            Self::Ping => "ping",
            Self::View => "view",
            Self::Refresh => "reload",
        };
        CommandId::new(format!("relay-{}-{name}", std::process::id()).into())
    }
}

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayEnd {
    /// The host needs no more events; the last one has been written.
    HostDone,
    /// The service has ended, or closed the connection.
    ServiceEnded,
    /// The service does not answer.
    ServiceHangs,
    /// SIGHUP: the sources must be selected again.
    Reload,
}

/// The state that the threads of a relay share.
struct Shared {
    state: Mutex<State>,
    /// Whether events are no longer forwarded.
    is_over: AtomicBool,
}

struct State {
    /// Commands that were sent and have no reply, oldest first. The line is `None` for
    /// commands that the next service must not receive.
    pending: VecDeque<(Option<CommandId>, Option<Vec<u8>>)>,
    /// Since when the relay has waited for the next line of the service; `None` while it
    /// forwards one.
    silent_since: Option<Instant>,
    /// Why this process ended the relay.
    end: Option<RelayEnd>,
    /// The last event, if this process writes it.
    bye: Option<(ByeCode, String)>,
}

impl Shared {
    fn new() -> Self {
        Self {
            state: Mutex::new(State {
                pending: VecDeque::new(),
                silent_since: None,
                end: None,
                bye: None,
            }),
            is_over: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the oldest pending command with this id: it has its reply.
    fn remove_pending(&self, id: &Option<CommandId>) {
        let mut state = self.lock();
        let at = state.pending.iter().position(|(sent, _)| sent == id);
        at.and_then(|at| state.pending.remove(at));
    }

    fn send(&self, mut stream: &UnixStream, own: OwnCommand, mut command: Value) -> io::Result<()> {
        let id = own.id();
        command["id"] = json!(id);
        self.lock().pending.push_back((id, None));
        stream.write_all(&line(&command))
    }

    /// Ends the relay. If it has been ended before, the first reason stays.
    fn end(&self, stream: &UnixStream, end: RelayEnd, bye: Option<(ByeCode, String)>) {
        let mut state = self.lock();
        if state.end.is_none() {
            (state.end, state.bye) = (Some(end), bye);
        }
        drop(state);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Relays events and commands until the host, the service or a signal ends it.
///
/// # Errors
///
/// Returns an error if the system refuses a thread or a descriptor, or if standard output
/// fails.
pub(super) fn relay(
    client: Client,
    host: &mut HostConnection,
    signals: &SignalDispatcher,
) -> anyhow::Result<RelayEnd> {
    let mut out = Stdout;
    if !host.is_greeted {
        out.write_all(&Event::Hello(client.hello().clone()).line())?;
        out.flush()?;
        host.is_greeted = true;
    }
    let refused = "cannot relay the events of another service";
    let (read, stream) = client.into_stream().context(refused)?;
    let commands = stream.try_clone().context(refused)?;
    let shared = Arc::new(Shared::new());
    end_at_signals(&shared, stream.try_clone().context(refused)?, signals);
    let is_default_view = host.view == View::default();
    send_own_commands(&shared, &commands, host);
    let end = thread::scope(|scope| {
        let lines = &mut host.lines;
        let unanswered = std::mem::take(&mut host.unanswered);
        let thread = thread::Builder::new().name("commands".into());
        let sender = thread
            .spawn_scoped(scope, || {
                forward_commands(&shared, &commands, lines, unanswered)
            })
            .context(refused)?;
        let from = BufReader::new(read.as_slice().chain(&stream));
        let end = forward_events(&shared, from, &mut out, is_default_view);
        shared.is_over.store(true, Ordering::Release);
        let _ = stream.shutdown(Shutdown::Both);
        let unsent = sender.join().unwrap_or_default();
        let pending = std::mem::take(&mut shared.lock().pending);
        let pending = pending.into_iter().filter_map(|(_, line)| line);
        host.unanswered = pending.chain(unsent).collect();
        Ok(end?)
    });
    // The next handler receives a termination signal that arrives until then.
    signals.set_handler(|_| {});
    let end = match end {
        Err(error) if is_broken_pipe(&error) => return Ok(RelayEnd::HostDone),
        Err(error) => return Err(error),
        Ok(end) => shared.lock().end.unwrap_or(end),
    };
    let bye = shared.lock().bye.take();
    if let Some((code, reason)) = bye {
        out.write_all(&Event::Bye { code, reason }.line())?;
        out.flush()?;
    }
    Ok(end)
}

/// Makes signals end the relay.
fn end_at_signals(shared: &Arc<Shared>, stream: UnixStream, signals: &SignalDispatcher) {
    let shared = Arc::clone(shared);
    signals.set_handler(move |signal| match signal {
        SIGHUP => shared.end(&stream, RelayEnd::Reload, None),
        signal => {
            let bye = (ByeCode::Ended, signal_name(signal).to_owned());
            shared.end(&stream, RelayEnd::HostDone, Some(bye));
        }
    });
}

/// Subscribes to the host's view, and requests a refresh if one is needed. Errors are
/// ignored: the first read of the stream reports them.
fn send_own_commands(shared: &Shared, stream: &UnixStream, host: &mut HostConnection) {
    let View { children, archived } = host.view;
    if host.view != View::default() {
        let subscribe = json!({"type": "subscribe", "children": children, "archived": archived});
        let _ = shared.send(stream, OwnCommand::View, subscribe);
    }
    if std::mem::take(&mut host.needs_refresh) {
        let _ = shared.send(stream, OwnCommand::Refresh, json!({"type": "refresh"}));
    }
}
