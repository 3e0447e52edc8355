//! A running service, and the handle with which other threads use it.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use super::command::{Command, CommandError, CommandLine, ErrorCode};
use super::config::Config;
use super::inbox::{Inbox, Message};
use super::owner::Owner;
use super::protocol::{Answer, ByeCode, Refreshed};
use super::reply_to::ReplyTo;
use super::status::Status;
use super::subscriber::{self, ReplyQueue, Report, SubscriberId, Subscription};
use crate::query::LookedUp;
use crate::session::SessionId;
use crate::source::Source;
use crate::wire::limits;

/// A running service. Dropping it ends the service and waits for the end.
#[derive(Debug)]
pub struct Service {
    inbox: Inbox,
    owner: Option<JoinHandle<()>>,
}

/// A handle of a running service. It can be cloned and sent to other threads.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: Inbox,
}

/// Why a request of a [`Handle`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The service has ended.
    #[error("the service has ended")]
    Ended,
    /// The service rejected the request.
    #[error("{}", .0.message)]
    Refused(CommandError),
}

impl Service {
    /// Starts a service.
    ///
    /// # Errors
    ///
    /// Returns an error if a thread cannot be spawned, and [`io::ErrorKind::InvalidInput`] if
    /// two sources have the same name.
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

    /// Returns a handle for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            inbox: self.inbox.clone(),
        }
    }

    /// Subscribes to the events: first a `hello`, then a `snapshot`.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.handle().subscribe()
    }

    /// Waits until the service has ended by itself. Returns false if its loop panicked, which
    /// is a bug of this crate.
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
            self.handle().end("the host dropped the service");
            self.join();
        }
    }
}

impl Handle {
    /// Subscribes to the events: first a `hello`, then a `snapshot`.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_as(false)
    }

    /// Subscribes a connection, whose `shutdown` ends only itself.
    pub(super) fn subscribe_peer(&self) -> Subscription {
        self.subscribe_as(true)
    }

    fn subscribe_as(&self, is_peer: bool) -> Subscription {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SubscriberId(NEXT.fetch_add(1, Ordering::Relaxed));
        let inbox = self.inbox.clone();
        let report = move |report| {
            inbox.send(match report {
                Report::CaughtUp => Message::CaughtUp(id),
                Report::Gone => Message::Gone(id),
            });
        };
        let (outbox, subscription) = subscriber::queue(id, is_peer, report);
        self.inbox.send(Message::Subscribe(id, outbox));
        subscription
    }

    /// Lists every source whose database may have changed, and waits for that: at most about
    /// the deadline of a listing and two seconds. Returns how each listing went.
    ///
    /// # Errors
    ///
    /// Returns [`RequestError::Ended`] if the service has ended.
    pub fn refresh(&self) -> Result<Vec<Refreshed>, RequestError> {
        match self.ask(Command::Refresh)? {
            Answer::Refreshed(refreshed) => Ok(refreshed),
            other => Err(unexpected(other)),
        }
    }

    /// Looks up sessions by their ids, 1 to 1000 of them, in all sources. Waits at most about
    /// three seconds. Returns one answer for each id, in order.
    ///
    /// # Errors
    ///
    /// Returns [`RequestError::Refused`] for another number of ids or if 8 look-ups are
    /// running, and [`RequestError::Ended`] if the service has ended.
    pub fn get(&self, ids: Vec<SessionId>) -> Result<Vec<LookedUp>, RequestError> {
        self.look_up(ids, Command::Get)
    }

    /// Finds the root sessions of sessions, otherwise as [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub fn roots(&self, ids: Vec<SessionId>) -> Result<Vec<LookedUp>, RequestError> {
        self.look_up(ids, Command::Roots)
    }

    fn look_up(
        &self,
        ids: Vec<SessionId>,
        command: fn(Vec<SessionId>) -> Command,
    ) -> Result<Vec<LookedUp>, RequestError> {
        if !(1..=limits::IDS).contains(&ids.len()) {
            let message = format!("{} ids; expected 1 to {}", ids.len(), limits::IDS);
            let error = CommandError::new(ErrorCode::Invalid, message);
            return Err(RequestError::Refused(error));
        }
        match self.ask(command(ids))? {
            Answer::Answers(answers) => Ok(answers),
            other => Err(unexpected(other)),
        }
    }

    /// Returns the status of the service.
    ///
    /// # Errors
    ///
    /// Returns [`RequestError::Ended`] if the service has ended.
    pub fn status(&self) -> Result<Status, RequestError> {
        match self.ask(Command::Status)? {
            Answer::Status(status) => Ok(*status),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a command and waits for its answer.
    fn ask(&self, command: Command) -> Result<Answer, RequestError> {
        let (to, answer) = mpsc::channel();
        self.inbox
            .send(Message::Command(ReplyTo::Caller(to), command));
        // After the end, the owner drops the sender.
        answer.recv().map_err(|_| RequestError::Ended)
    }

    /// Sends a command; its reply comes to that subscription. Returns false if 64 replies wait
    /// to be read there; then the command is not taken.
    pub fn command(&self, to: &ReplyQueue, command: impl Into<CommandLine>) -> bool {
        self.take(to, command.into(), false)
    }

    /// The same, but waits for room. Returns false if the subscription has ended.
    pub(super) fn command_in_turn(&self, to: &ReplyQueue, command: CommandLine) -> bool {
        self.take(to, command, true)
    }

    fn take(&self, to: &ReplyQueue, command: CommandLine, waits: bool) -> bool {
        let is_taken = to.take_room(waits);
        if is_taken {
            self.inbox.send(Message::Line(to.id, command));
        }
        is_taken
    }

    /// Ends this subscription, as if it had been dropped.
    pub fn forget(&self, subscriber: &ReplyQueue) {
        self.inbox.send(Message::Gone(subscriber.id));
    }

    /// Lists all sources now. If `sources` are given, they replace the current ones.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::InvalidInput`] if two sources have the same name; then nothing
    /// changes.
    pub fn reload(&self, sources: Option<Vec<Source>>) -> io::Result<()> {
        check_names(sources.as_deref().unwrap_or_default())?;
        self.inbox.send(Message::Reload(sources));
        Ok(())
    }

    /// Replaces the sources. Sessions of sources that stay are kept.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::InvalidInput`] if two sources have the same name; then nothing
    /// changes.
    pub fn set_sources(&self, sources: Vec<Source>) -> io::Result<()> {
        check_names(&sources)?;
        self.inbox.send(Message::SetSources(sources));
        Ok(())
    }

    /// Adds the sources that are new ([`merge_found`](crate::source::merge_found)).
    pub fn add_found(&self, sources: Vec<Source>) {
        self.inbox.send(Message::AddSources(sources));
    }

    /// Ends the service.
    pub fn end(&self, reason: &str) {
        let end = Message::End(ByeCode::Ended, reason.to_owned());
        self.inbox.send(end);
    }
}

/// Returns the error in an answer. The owner never sends the answer to another command.
fn unexpected(answer: Answer) -> RequestError {
    match answer {
        Answer::Error(error) => RequestError::Refused(error),
        _ => RequestError::Ended,
    }
}

/// Returns an error if two sources have the same name: the index identifies sources by name.
fn check_names(sources: &[Source]) -> io::Result<()> {
    let mut names = BTreeSet::new();
    match sources.iter().find(|source| !names.insert(&source.name)) {
        None => Ok(()),
        Some(duplicate) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "duplicate source name {}; give each source a different name",
                duplicate.name
            ),
        )),
    }
}
