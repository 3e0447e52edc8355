//! The host's commands, on their way to the other service, and the pings that show whether it
//! still answers.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{OwnCommand, RelayEnd, Shared};
use crate::cli::serve::stdio::STDIN_CLOSED;
use crate::service::{ByeCode, Command, CommandLine, UNANSWERED};

/// The interval at which the service is asked whether it still answers.
const PING_INTERVAL: Duration = Duration::from_millis(400);

/// How long the service may send nothing while a ping is unanswered.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);

/// How often [`forward_commands`] checks whether the relay has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Forwards the host's commands to the service, `first` before the others, and pings the
/// service. Returns the lines that were taken from the host and not sent.
pub(super) fn forward_commands(
    shared: &Shared,
    mut stream: &UnixStream,
    lines: &mut Receiver<Vec<u8>>,
    mut first: VecDeque<Vec<u8>>,
) -> VecDeque<Vec<u8>> {
    let ping = (OwnCommand::Ping.id(), None);
    let mut pinged = Instant::now();
    while !shared.is_over.load(Ordering::Acquire) {
        let (pending, is_ping_pending, silence) = {
            let state = shared.lock();
            let silence = state.silent_since.map(|since| since.elapsed());
            (state.pending.len(), state.pending.contains(&ping), silence)
        };
        let is_too_long = |time: Duration| time > SILENCE_LIMIT;
        if is_ping_pending && is_too_long(pinged.elapsed()) && silence.is_some_and(is_too_long) {
            shared.end(stream, RelayEnd::ServiceHangs, None);
            break;
        }
        if !is_ping_pending && pinged.elapsed() >= PING_INTERVAL {
            pinged = Instant::now();
            let status = json!({"type": "status"});
            if shared.send(stream, OwnCommand::Ping, status).is_err() {
                break;
            }
        }
        if pending >= UNANSWERED {
            thread::sleep(POLL_INTERVAL);
            continue;
        }
        let line = match first.pop_front() {
            Some(line) => line,
            None => match lines.recv_timeout(POLL_INTERVAL) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    let bye = (ByeCode::Ended, STDIN_CLOSED.to_owned());
                    shared.end(stream, RelayEnd::HostDone, Some(bye));
                    break;
                }
            },
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let CommandLine { id, command } = CommandLine::parse(&line);
        // A `shutdown` is not sent again: it ended the connection to this service.
        let is_shutdown = command == Ok(Command::Shutdown);
        let pending = (id, (!is_shutdown).then(|| line.clone()));
        shared.lock().pending.push_back(pending);
        if stream.write_all(&line).is_err() {
            break;
        }
    }
    first
}
