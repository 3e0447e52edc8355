//! The long-lived service: it keeps the index of all sessions and reports every change.
//!
//! One thread, the owner, has the index. It takes messages from one inbox and
//! does no I/O that can hang. Besides it, a few watcher threads serve all sources, each listing
//! and each look-up in flight has threads of its own, one thread writes the snapshot, and each
//! connection has two. The service promises:
//!
//! * A database is listed after its files change, and a few more times as its log ages. A
//!   command is listed at its interval. Any source is listed at a refresh, and again after a
//!   listing that failed or was not final. Each source has one listing at a time, and no
//!   request is lost. A database is not opened while no program writes to it or requests a
//!   look-up.
//! * If a symbolic link in a source's path is redirected to another database, the service
//!   reads that database within about a minute, and at a refresh at once.
//! * A failing or slow source delays no other source and no answer.
//! * A change is announced at once, as a difference. Nothing is announced if nothing changed.
//!   A slow subscriber delays no other.
//! * Every queue is bounded: for each subscriber 64 commands, as many replies and 256 events;
//!   for each source one listing and the events of its watcher; 8 look-ups; one snapshot to be
//!   written.
//! * After the end, no helper runs and the snapshot is written.
//!
//! [`Service::start`] runs the service within any Rust program; `opencode-sessions serve` is a
//! thin layer around that.

pub(crate) mod client;
mod command;
mod config;
mod counters;
mod differences;
mod handle;
mod heartbeat;
mod inbox;
pub(crate) mod lines;
mod look_ups;
mod owner;
mod peer;
mod protocol;
mod refreshes;
mod reply_to;
mod saver;
mod schedule;
pub(crate) mod socket;
mod source_task;
mod source_tasks;
mod state;
mod status;
mod subscriber;
mod subscribers;
mod watch;

pub use crate::index::{Failing, Health, View};
pub use crate::query::{LookUpResult, LookedUp};
pub use command::{Command, CommandError, CommandId, CommandLine, ErrorCode};
pub use config::{Config, MakeLister, Notice, Supervisor};
pub use handle::{Handle, RequestError, Service};
pub use protocol::{
    Answer, ByeCode, Change, Event, Hello, PROTOCOL, RefreshOutcome, Refreshed, Reply, Snapshot,
    SourcePlace, capabilities,
};
pub use state::{StateDir, StateError, StateLock, slots};
pub use status::{Latency, SourceHealth, SourceStatus, Status};
pub use subscriber::{ReplyQueue, Subscription, UNANSWERED};
