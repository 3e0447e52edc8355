//! Lists the sessions of [OpenCode](https://opencode.ai), the terminal coding agent, without
//! getting in its way.
//!
//! OpenCode keeps all sessions in one SQLite database that grows to many gigabytes and is written
//! to all the time. A program that shows a sidebar of sessions and reads that database itself
//! freezes during each read, and hangs when the disk does not answer. Here a helper
//! process, `opencode-lister`, reads the database. The main process checks every byte that the
//! helper prints, and kills it at a deadline.
//!
//! # A host: all sessions, all the time
//!
//! [`service::Service`] keeps the index of sessions in your program and tells it what changes.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use opencode_sessions::launch::ProcessLister;
//! use opencode_sessions::service::{Config, Event, Service};
//! use opencode_sessions::source::sources_of;
//!
//! let helper = ProcessLister::beside_this_program()?;
//! let sources = sources_of(&["/home/me/.local/share/opencode/opencode.db".into()]);
//! let service = Service::start(Config::new(sources, move |source| Arc::new(helper.of(source))))?;
//! for event in service.subscribe() {
//!     match &*event {
//!         Event::Snapshot(snapshot) => println!("{} sessions", snapshot.sessions.len()),
//!         Event::Change(change) => println!("{} sessions changed", change.upserted.len()),
//!         Event::Health(source) => println!("{}: {}", source.source, source.health.name()),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! From any other thread, a [`service::Handle`] refreshes, looks sessions up and asks for the
//! status; each call returns its value. A host with an event loop polls
//! [`service::Subscription::ready_fd`] and takes events by
//! [`try_next`](service::Subscription::try_next).
//!
//! # One listing
//!
//! Call it on a thread that may block: it blocks until the deadline at most, and a second.
//!
//! ```no_run
//! use opencode_sessions::launch::ProcessLister;
//! use opencode_sessions::lister::{ListRequest, Lister, Outcome};
//!
//! let lister = ProcessLister::beside_this_program()?;
//! let request = ListRequest::of("/home/me/.local/share/opencode/opencode.db");
//! match lister.list(&request) {
//!     Outcome::Complete(listing) => println!("{} sessions", listing.rows.len()),
//!     failed => eprintln!("kept the known sessions: {failed}"),
//! }
//! # Ok::<(), opencode_sessions::lister::Failure>(())
//! ```
//!
//! # What it promises
//!
//! 1. Every answer is right: what a listing says was true in one snapshot of the database. What is
//!    not known is `None`.
//! 2. Nothing is lost: a session disappears only when a complete, valid listing no longer has it.
//! 3. Nothing blocks: the main process opens no database (unless it lists in-process), and no client,
//!    source or disk holds up another.
//! 4. OpenCode never notices: the database is opened read-only, only when that cannot disturb
//!    OpenCode, and never checkpointed.
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `in-process` | SQLite, and `in_process::InProcessLister`, which lists without a helper process |
//! | `cli` | the two programs, `opencode-sessions` and `opencode-lister`; includes `in-process` |
//!
//! Both are on by default. A host that spawns the helper needs neither, and can then use another
//! version of `rusqlite`.
//!
//! # How it is built
//!
//! ```text
//! opencode.db → store, marker → helper → wire ⇒ pipe ⇒ wire → launch → lister → query → index → service
//!               (in the helper process)                (in the main process)
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`session`], [`entry`], [`row`], [`source`], [`marker_text`] | the words of the domain |
//! | [`lister`] | the trait, its requests and outcomes: what a host reads first |
//! | [`launch`] | spawning the helper, bounding and killing it |
//! | [`service`] | the index of sessions, kept up to date, and its subscribers |
//! | [`guide`] | the long documentation |
//! | `wire` (private) | what crosses the pipe: messages, their encoding and their checks; a checked session becomes a [`row::Row`] |
//! | `store`, `marker`, `helper` (private) | reading the databases, in the helper process only |
//! | `query`, `index` (private) | several sources at once; the known sessions and their differences |
//! | `locate`, `config`, `project` (private) | databases that are discovered, those that are configured, the projects of sessions |
//! | `output`, `cli` (private) | tables and JSON for people and programs; the commands |
//! | `codec`, `files`, `dirs`, `json`, `text`, `strict`, `signals` (private) | bytes with a checksum, atomic files, directories, safe JSON, untrusted text, strict parsing, signals |

#![cfg_attr(
    not(feature = "cli"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "only the programs use all of it"
    )
)]

#[cfg(not(unix))]
compile_error!(
    "opencode-sessions needs process groups and POSIX signals: build it for Linux or macOS"
);

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod codec;
#[cfg(feature = "cli")]
mod config;
mod dirs;
pub mod entry;
mod files;
pub mod guide;
#[cfg(feature = "in-process")]
mod helper;
mod index;
mod json;
pub mod launch;
mod line_hash;
pub mod lister;
mod locate;
#[cfg(feature = "in-process")]
mod marker;
pub mod marker_text;
#[cfg(feature = "cli")]
mod output;
mod project;
mod query;
pub mod row;
pub mod service;
pub mod session;
mod signals;
pub mod source;
mod stamp;
#[cfg(feature = "in-process")]
mod store;
mod strict;
mod text;
mod threads;
mod wire;

/// Listing within this process, for programs that cannot spawn processes.
#[cfg(feature = "in-process")]
pub mod in_process {
    pub use crate::helper::InProcessLister;
}

/// What the tests and benches of this crate need of its private modules. It can change in every
/// release.
#[doc(hidden)]
pub mod internals {
    pub mod client {
        pub use crate::service::client::*;
    }
    pub mod codec {
        pub use crate::codec::*;
    }
    #[cfg(feature = "cli")]
    pub mod config {
        pub use crate::config::*;
    }
    #[cfg(feature = "in-process")]
    pub mod helper {
        pub use crate::helper::difference::*;
    }
    pub mod index {
        pub use crate::index::*;
    }
    pub mod line_hash {
        pub use crate::line_hash::*;
    }
    #[cfg(feature = "in-process")]
    pub mod marker {
        pub use crate::marker::*;
    }
    pub mod project {
        pub use crate::project::*;
    }
    pub mod query {
        pub use crate::query::*;
    }
    #[cfg(feature = "in-process")]
    pub mod store {
        pub use crate::store::*;
    }
    pub mod text {
        pub use crate::text::*;
    }
    pub mod wire {
        pub use crate::wire::*;
    }
}
