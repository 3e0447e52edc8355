//! The events of the other service, on their way to the host.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use serde::Deserialize;

use super::{OwnCommand, RelayEnd, Shared};
use crate::service::client;
use crate::service::{ByeCode, CommandId};

/// Forwards events to the host until the last one. A host that subscribes to another view
/// than the default receives none before the snapshot of its view.
///
/// # Errors
///
/// Returns an error if `out` fails.
pub(super) fn forward_events(
    shared: &Shared,
    mut from: impl BufRead,
    out: impl Write,
    is_default_view: bool,
) -> io::Result<RelayEnd> {
    let mut forwarder = EventForwarder {
        shared,
        out,
        own_ids: OwnCommand::ALL.map(OwnCommand::id),
        view_id: OwnCommand::View.id(),
        is_view_current: is_default_view,
        snapshot: Vec::new(),
    };
    let mut line = Vec::new();
    loop {
        shared.lock().silent_since = Some(Instant::now());
        let read = client::read_line(&mut from, &mut line);
        shared.lock().silent_since = None;
        if read.is_err() {
            return Ok(RelayEnd::ServiceEnded);
        }
        if let Some(end) = forwarder.forward(&mut line)? {
            return Ok(end);
        }
    }
}

struct EventForwarder<'a, W> {
    shared: &'a Shared,
    out: W,
    own_ids: [Option<CommandId>; 3],
    view_id: Option<CommandId>,
    /// Whether the events are those of the host's view.
    is_view_current: bool,
    /// The last snapshot before that.
    snapshot: Vec<u8>,
}

/// The fields of an event that decide whether it is forwarded.
#[derive(Default, Deserialize)]
#[serde(default)]
struct EventFields {
    id: Option<CommandId>,
    code: Option<ByeCode>,
}

impl<W: Write> EventForwarder<'_, W> {
    /// Forwards one event if it is for the host. Returns why the relay ends if it was the
    /// last event.
    fn forward(&mut self, line: &mut Vec<u8>) -> io::Result<Option<RelayEnd>> {
        let fields = |line: &[u8]| serde_json::from_slice::<EventFields>(line).unwrap_or_default();
        match client::event_type(line).as_deref() {
            Some("reply") => {
                let id = fields(line).id;
                self.shared.remove_pending(&id);
                if id == self.view_id {
                    self.is_view_current = true;
                    let snapshot = std::mem::take(&mut self.snapshot);
                    self.write(&snapshot)?;
                }
                if self.own_ids.contains(&id) {
                    return Ok(None);
                }
            }
            Some("snapshot") if !self.is_view_current => {
                std::mem::swap(&mut self.snapshot, line);
                return Ok(None);
            }
            Some("change") if !self.is_view_current => return Ok(None),
            Some("bye") => {
                return match fields(line).code {
                    Some(ByeCode::Stopped | ByeCode::Shutdown) => {
                        self.write(line)?;
                        Ok(Some(RelayEnd::HostDone))
                    }
                    // The next service continues: the host must not receive a `bye`.
                    _ => Ok(Some(RelayEnd::ServiceEnded)),
                };
            }
            _ => {}
        }
        self.write(line)?;
        Ok(None)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.out.write_all(line)?;
        self.out.flush()
    }
}
