//! The long-lived loop: it knows every session, through every failure.
//!
//! One thread owns the [index](crate::index) and takes messages from one inbox;
//! it does no I/O that can hang. Around it: one watcher with a few threads for all
//! sources, a thread for each listing and each look-up in flight, one that writes the
//! snapshot, and two for each connection. What it promises:
//!
//! * A source is listed when its files changed and for a while after that, at its pace if
//!   it is a command, when somebody asks, and again when the last listing failed or was
//!   not final; one listing at a time, and no wake-up is lost. A database that nobody
//!   writes to or looks up in is not opened.
//! * A source whose path leads to another database, since a link was turned, is that
//!   database within about a minute, and at a refresh at once.
//! * One source's trouble never delays another's, nor any answer.
//! * A change is announced at once, as a difference; nothing is announced when
//!   nothing changed. A reader that stops reading holds up nobody.
//! * Nothing waits without a bound: of each reader at most 64 commands, as many replies
//!   and 256 events; of each source one listing and what its watcher saw; 8 look-ups; one
//!   snapshot to be written.
//! * When it ends, its helpers are gone and the snapshot is written.
//!
//! [`Service::start`] runs it within any Rust program; `opencode-sessions serve`
//! is a thin layer around that.

pub(crate) mod client;
mod command;
mod config;
mod counters;
mod handle;
mod heartbeat;
mod inbox;
pub(crate) mod lines;
mod look_ups;
mod owner;
mod peer;
mod protocol;
mod refreshes;
mod saver;
mod schedule;
pub(crate) mod socket;
mod source_task;
mod source_tasks;
mod state;
mod subscriber;
mod subscribers;
mod watch;

pub use crate::index::{Failing, Health, View};
pub use crate::query::{LookUpResult, LookedUp};
pub use command::{Command, CommandError, CommandId, CommandLine, ErrorCode};
pub use config::{Config, MakeLister, Notice, Supervisor};
pub use handle::{Handle, RequestError, Service};
pub use protocol::{
    Answer, ByeCode, Change, Event, Hello, Latency, PROTOCOL, RefreshOutcome, Refreshed, Reply,
    Snapshot, SourceHealth, SourcePlace, SourceStatus, Status, capabilities,
};
pub use state::{Hold, StateDir, StateError, slots};
pub use subscriber::{ReplyQueue, Subscription, UNANSWERED};
