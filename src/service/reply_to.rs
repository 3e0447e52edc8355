//! Where the reply to a command goes.

use std::sync::mpsc::Sender;

use super::command::CommandId;
use super::protocol::Answer;
use super::subscriber::SubscriberId;

/// Who gets the reply to a command.
#[derive(Debug, Clone)]
pub(super) enum ReplyTo {
    /// A subscriber, with the id of its command.
    Subscriber(SubscriberId, Option<CommandId>),
    /// A waiting thread of the host.
    Caller(Sender<Answer>),
    /// The supervisor, to which no reply is sent.
    Supervisor,
}
