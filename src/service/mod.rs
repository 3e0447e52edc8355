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

pub mod client;
mod command;
mod counters;
pub mod lines;
mod owner;
mod peer;
mod protocol;
mod saver;
pub mod schedule;
pub mod socket;
mod source_task;
mod state;
mod subscriber;
mod watch;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::index::View;
use crate::lister::Lister;
use crate::marker_text::MarkerText;
use crate::query::LookedUp;
use crate::source::{Source, SourceName};

pub use command::{Command, CommandError, CommandId, CommandLine, ErrorCode};
pub use counters::{Latency, SourceStatus, Status};
pub use protocol::{
    Answer, ByeCode, Change, Event, Hello, PROTOCOL, RefreshOutcome, Refreshed, Reply, Snapshot,
    SourceHealth, SourcePlace, capabilities,
};
pub use state::{Hold, StateDir, StateError, slots};
pub use subscriber::{ReplyTo, Subscription, UNANSWERED};

use owner::Owner;
use subscriber::SubscriberId;
use watch::SourceStamp;

/// What a service is to do.
pub struct Config {
    /// The sources, each with a name of its own.
    pub sources: Vec<Source>,
    /// The marker to look for, if any.
    pub marker: Option<MarkerText>,
    /// What it lists: roots that are not archived, and what else is asked for.
    pub view: View,
    /// How long one listing may take.
    pub deadline: Duration,
    /// Makes the lister of each source, also of those that come later; for commands
    /// see [`ProcessLister::of`](crate::launch::ProcessLister::of).
    pub lister: Box<MakeLister>,
    /// Where the snapshot is kept; without it nothing is known after a restart.
    pub state: Option<StateDir>,
    /// Called by the loop about twice as often as `watchdog` says, for as long
    /// as it is not stuck, and with a line for people when something changed.
    pub supervisor: Option<Supervisor>,
}

/// Makes the lister of a source.
pub type MakeLister = dyn Fn(&Source) -> Arc<dyn Lister + Send + Sync> + Send;

/// A sign of life from the loop itself.
pub struct Supervisor {
    /// How often.
    pub every: Duration,
    /// What to do. Must not block.
    pub notify: Box<dyn FnMut(Notice<'_>) + Send>,
}

/// What the loop has to say to a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// It is alive.
    Alive,
    /// Its state, for people, has changed.
    Status(&'a str),
    /// A full refresh has begun.
    Reloading,
    /// The refresh has ended, or the start.
    Ready,
    /// The service ends.
    Ending,
}

/// A running service. Dropping it ends the service and waits for that.
#[derive(Debug)]
pub struct Service {
    inbox: Inbox,
    owner: Option<JoinHandle<()>>,
}

/// Something for the owner's one inbox.
#[derive(Debug)]
enum Message {
    /// A watcher saw something new at the source of this name and number.
    Inspected(SourceName, u64, SourceStamp),
    /// The path of the source of this name and number leads to this database now.
    Moved(SourceName, u64, PathBuf),
    /// A source is watched in another way now.
    Watched(SourceName, u64, String),
    /// A listing has ended.
    Listed(Box<source_task::Listed>),
    /// A snapshot was written, or not.
    Saved(Result<(), String>),
    /// Somebody wants events.
    Subscribe(SubscriberId, subscriber::Outbox),
    /// A reader has read all and is owed a snapshot.
    CaughtUp(SubscriberId),
    /// A reader is gone.
    Gone(SubscriberId),
    /// A command of a reader, or what was none.
    Command(SubscriberId, CommandLine),
    /// A look-up has ended.
    LookedUp(SubscriberId, Option<CommandId>, Vec<LookedUp>),
    /// List everything, as on SIGHUP; from now on of these sources, where they are known.
    Reload(Option<Vec<Source>>),
    /// From now on these are the sources.
    Sources(Vec<Source>),
    /// These sources have been found.
    Found(Vec<Source>),
    /// End, for this reason.
    End(ByeCode, String),
}

/// The owner's inbox, for everybody else.
#[derive(Debug, Clone)]
struct Inbox(Sender<Message>);

impl Inbox {
    // Where the owner has ended, nobody needs to know anything any more.
    fn send(&self, message: Message) {
        let _ = self.0.send(message);
    }

    fn inspected(&self, source: SourceName, number: u64, stamp: SourceStamp) {
        self.send(Message::Inspected(source, number, stamp));
    }

    fn moved(&self, source: SourceName, number: u64, to: PathBuf) {
        self.send(Message::Moved(source, number, to));
    }

    fn watched(&self, source: SourceName, number: u64, how: String) {
        self.send(Message::Watched(source, number, how));
    }

    fn caught_up(&self, subscriber: SubscriberId) {
        self.send(Message::CaughtUp(subscriber));
    }

    fn gone(&self, subscriber: SubscriberId) {
        self.send(Message::Gone(subscriber));
    }
}

/// Asks things of a running service; may be cloned and sent anywhere.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: Inbox,
}

impl Service {
    /// Starts a service.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread, or two sources have one name.
    pub fn start(config: Config) -> io::Result<Self> {
        check_names(&config.sources)?;
        let (sender, receiver) = mpsc::channel();
        let inbox = Inbox(sender);
        let owner = Owner::new(config, inbox.clone())?;
        let thread = thread::Builder::new()
            .name("owner".into())
            .spawn(move || owner.run(&receiver))?;
        Ok(Self {
            inbox,
            owner: Some(thread),
        })
    }

    /// For asking things of it from other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            inbox: self.inbox.clone(),
        }
    }

    /// Its events from now on: first a `hello`, then a `snapshot`.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.handle().subscribe()
    }

    /// Waits until the service has ended by itself. False where its loop panicked, which
    /// is a fault of this crate: nothing more comes from it.
    #[must_use]
    pub fn wait(mut self) -> bool {
        self.join()
    }

    fn join(&mut self) -> bool {
        let owner = self.owner.take();
        owner.is_none_or(|owner| owner.join().is_ok())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.owner.is_some() {
            self.handle().end("the host has no more use for it");
            self.join();
        }
    }
}

impl Handle {
    /// Its events from now on: first a `hello`, then a `snapshot`.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_as(false)
    }

    /// For a connection, which can end no more than itself.
    fn subscribe_peer(&self) -> Subscription {
        self.subscribe_as(true)
    }

    fn subscribe_as(&self, is_peer: bool) -> Subscription {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SubscriberId(NEXT.fetch_add(1, Ordering::Relaxed));
        let (outbox, subscription) = subscriber::queue(id, self.inbox.clone(), is_peer);
        self.inbox.send(Message::Subscribe(id, outbox));
        subscription
    }

    /// A command; its reply comes to that subscription. False where 64 replies wait to
    /// be read there: then it is not taken.
    pub fn command(&self, to: &ReplyTo, command: impl Into<CommandLine>) -> bool {
        self.take(to, command.into(), false)
    }

    /// The same, but it waits for room; false where nobody reads the replies any more.
    fn command_in_turn(&self, to: &ReplyTo, command: CommandLine) -> bool {
        self.take(to, command, true)
    }

    fn take(&self, to: &ReplyTo, command: CommandLine, waits: bool) -> bool {
        let is_taken = to.take_room(waits);
        if is_taken {
            self.inbox.send(Message::Command(to.id, command));
        }
        is_taken
    }

    /// Ends this subscription, as if it had been dropped.
    pub fn forget(&self, subscriber: &ReplyTo) {
        self.inbox.gone(subscriber.id);
    }

    /// Lists all sources now; where others are given, each with a name of its own, these
    /// from now on.
    pub fn reload(&self, sources: Option<Vec<Source>>) {
        self.inbox.send(Message::Reload(sources));
    }

    /// From now on these are the sources, each with a name of its own. What is known of
    /// those that stay stays.
    ///
    /// # Errors
    ///
    /// Where two have one name; then nothing changes.
    pub fn set_sources(&self, sources: Vec<Source>) -> io::Result<()> {
        check_names(&sources)?;
        self.inbox.send(Message::Sources(sources));
        Ok(())
    }

    /// Adds what of these sources is not known yet ([`with_found`](crate::source::with_found)).
    pub fn add_found(&self, sources: Vec<Source>) {
        self.inbox.send(Message::Found(sources));
    }

    /// Ends the service.
    pub fn end(&self, reason: &str) {
        self.inbox
            .send(Message::End(ByeCode::Ended, reason.to_owned()));
    }
}

/// What is known is kept by the sources' names: of two with one name one would be lost.
fn check_names(sources: &[Source]) -> io::Result<()> {
    let mut names = BTreeSet::new();
    match sources.iter().find(|source| !names.insert(&source.name)) {
        None => Ok(()),
        Some(twice) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "two sources are called {}: give each a name of its own",
                twice.name
            ),
        )),
    }
}
