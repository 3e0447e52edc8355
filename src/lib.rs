//! Lists the sessions of [OpenCode](https://opencode.ai), the terminal coding
//! agent, from a process of their own, so that nothing else has to wait.
//!
//! OpenCode keeps every session in one SQLite database that grows to many
//! gigabytes and is written to all the time. A program that shows a sidebar of
//! sessions reads it every few seconds; done inside that program, each reading
//! freezes it, and one stuck reading hangs it. Here the reading is done by a
//! helper process, `opencode-lister`: it prints one JSON object a line, and the
//! main process checks every byte of it and kills the helper at a deadline.
//!
//! Three promises, in this order:
//!
//! 1. Nothing is lost: a failed listing is told apart from an empty one, and
//!    says nothing about which sessions exist.
//! 2. Nothing blocks: no database is opened in the main process (`doctor` reads the header
//!    of one that its helper has just read).
//! 3. OpenCode never notices: the database is opened read-only, only when that
//!    cannot disturb its owner, and never checkpointed.
//!
//! # The rooms
//!
//! ```text
//! opencode.db → store, marker → helper → wire ⇒ pipe ⇒ wire → lister → gather → index → output
//!               (in the helper process)                (in the main process)
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`session`], [`source`] | the words of the domain: a session, its id, its times; where sessions come from |
//! | [`wire`] | what crosses the pipe: messages, their encoding, their checking |
//! | [`store`] | reading OpenCode's databases; used by the helper alone |
//! | [`marker`] | which sessions carry the 3-views marker; used by the helper alone |
//! | [`helper`] | what `opencode-lister` does: one listing, then exit |
//! | [`lister`] | launching the helper: spawn, deadline, limits, outcome |
//! | [`gather`] | asking several sources at once |
//! | [`index`] | the known sessions: merge, difference, health, snapshot |
//! | [`service`] | the long-lived loop: watch, schedule, list, tell |
//! | [`config`], [`locate`] | the sources that are written down, and those that are found |
//! | [`database_files`], [`aliases`] | the names of a database's files; one database under several names |
//! | [`project`] | which project a session is of |
//! | [`output`] | how people and programs see sessions |
//! | [`codec`], [`packed`], [`mod@file`] | values as bytes; values that stay in memory so; files that are kept |
//! | [`text`] | untrusted text on its way to a person |
//! | [`cli`] | the arguments of both programs, and the commands |
//! | [`guide`] | the pages of `opencode-sessions help`: sources, service, hosts, protocol and others |
//!
//! # One listing
//!
//! A host lists from a thread that may wait; the deadline bounds how long.
//!
//! ```no_run
//! use opencode_sessions::lister::{Lister, ListRequest, Outcome, ProcessLister};
//!
//! let lister = ProcessLister::beside_this_program()?;
//! let request = ListRequest::of("/home/me/.local/share/opencode/opencode.db");
//! match lister.list(&request) {
//!     Outcome::Complete(listing) => println!("{} sessions", listing.rows.len()),
//!     failed => eprintln!("kept what was known: {failed}"),
//! }
//! # Ok::<(), opencode_sessions::lister::Breakage>(())
//! ```
//!
//! # All sessions, all the time
//!
//! A host that wants to be told what changes runs the service within itself.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use opencode_sessions::helper::InProcessLister;
//! use opencode_sessions::service::{Config, Event, Service};
//! use opencode_sessions::source::sources_of;
//!
//! let service = Service::start(Config {
//!     sources: sources_of(&["/nowhere/opencode.db".into()]),
//!     marker: None,
//!     view: opencode_sessions::index::View::default(),
//!     deadline: Duration::from_secs(5),
//!     // A real host launches the helper: `ProcessLister::beside_this_program()`.
//!     lister: Box::new(|_| Arc::new(InProcessLister)),
//!     state: None,
//!     pulse: None,
//! })?;
//! for event in service.subscribe() {
//!     match &*event {
//!         Event::Snapshot(snapshot) => assert!(snapshot.sessions.is_empty()),
//!         Event::Change(change) => println!("{} sessions changed", change.upserted.len()),
//!         Event::Health(source) => {
//!             assert_eq!(source.health.name(), "missing");
//!             break;
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

#[cfg(not(unix))]
compile_error!(
    "opencode-sessions needs process groups and POSIX signals: build it for Linux or macOS"
);

pub mod cli;
pub mod codec;
pub mod config;
pub mod dirs;
pub mod entry;
pub mod files;
pub mod guide;
pub mod helper;
pub mod index;
pub mod json;
pub mod launch;
pub mod lister;
pub mod locate;
pub mod marker;
pub mod marker_text;
pub mod output;
pub mod project;
pub mod query;
pub mod service;
pub mod session;
mod signals;
pub mod source;
pub mod store;
mod strict;
pub mod text;
pub mod wire;
