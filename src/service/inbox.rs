//! The owner's inbox. Every event in a service is one message in it.

use std::sync::mpsc::Sender;

use super::command::{Command, CommandLine};
use super::protocol::ByeCode;
use super::reply_to::ReplyTo;
use super::source_task::{ListingResult, SourceKey};
use super::subscriber::{Outbox, SubscriberId};
use super::watch::WatchEvent;
use crate::query::LookedUp;
use crate::source::Source;

/// A message for the owner.
#[derive(Debug)]
pub(super) enum Message {
    /// The watcher reports about a source.
    Watch(SourceKey, WatchEvent),
    /// A listing has ended.
    Listed(Box<ListingResult>),
    /// The write of a snapshot has ended, with this result.
    Saved(Result<(), String>),
    /// A subscriber is added.
    Subscribe(SubscriberId, Outbox),
    /// A subscriber has read all events and is owed a snapshot.
    CaughtUp(SubscriberId),
    /// A subscriber is gone.
    Gone(SubscriberId),
    /// A line of a subscriber: a command or an invalid one.
    Line(SubscriberId, CommandLine),
    /// A command of the host.
    Command(ReplyTo, Command),
    /// A look-up has ended.
    LookedUp(ReplyTo, Vec<LookedUp>),
    /// List all sources, as on SIGHUP, after replacing them if others are given.
    Reload(Option<Vec<Source>>),
    /// Replace the sources.
    SetSources(Vec<Source>),
    /// Add these discovered sources.
    AddSources(Vec<Source>),
    /// End, for this reason.
    End(ByeCode, String),
}

/// The sending end of the inbox.
#[derive(Debug, Clone)]
pub(super) struct Inbox(pub(super) Sender<Message>);

impl Inbox {
    /// Sends a message. After the owner has ended it is dropped.
    pub(super) fn send(&self, message: Message) {
        let _ = self.0.send(message);
    }
}
