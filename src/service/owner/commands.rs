//! Runs the commands: refreshes, look-ups, the status, the end.

use tracing::info;

use super::Owner;
use crate::service::command::Command;
use crate::service::config::Notice;
use crate::service::inbox::Message;
use crate::service::protocol::{Answer, ByeCode, Event, RefreshOutcome, Refreshed, Reply};
use crate::service::refreshes::RefreshId;
use crate::service::reply_to::ReplyTo;
use crate::service::status::{SourceHealth, SourceStatus, Status};
use crate::session::SessionId;
use crate::source::SourceName;
use crate::wire::LookUp;

impl Owner {
    pub(super) fn command(&mut self, reply_to: ReplyTo, command: Command) {
        let answer = match command {
            Command::Refresh => return self.refresh(reply_to),
            Command::Get(ids) => return self.look_up(LookUp::Get, ids, reply_to),
            Command::Roots(ids) => return self.look_up(LookUp::Roots, ids, reply_to),
            Command::Snapshot => {
                if let ReplyTo::Subscriber(id, _) = reply_to {
                    self.subscribers.send_snapshot(id, &self.index);
                }
                Answer::Done(true)
            }
            Command::Subscribe(view) => match reply_to {
                ReplyTo::Subscriber(id, _) => {
                    match self.subscribers.set_view(id, view, &self.index) {
                        Ok(()) => Answer::Done(true),
                        Err(error) => Answer::Error(error),
                    }
                }
                _ => Answer::Done(true),
            },
            Command::Status => Answer::Status(Box::new(self.status())),
            Command::Shutdown => {
                self.reply(reply_to.clone(), Answer::Done(true));
                return self.shut_down(&reply_to);
            }
            Command::Stop => {
                let why = "stop command".to_owned();
                self.inbox.send(Message::End(ByeCode::Stopped, why));
                Answer::Done(true)
            }
        };
        self.reply(reply_to, answer);
    }

    pub(super) fn reply(&self, reply_to: ReplyTo, answer: Answer) {
        match reply_to {
            ReplyTo::Subscriber(to, id) => {
                self.subscribers
                    .send(to, Event::Reply(Reply { id, answer }));
            }
            // The caller may have stopped waiting.
            ReplyTo::Caller(to) => drop(to.send(answer)),
            ReplyTo::Supervisor => {}
        }
    }

    /// Ends the connection that sent the command, or the service if the host sent it.
    fn shut_down(&mut self, from: &ReplyTo) {
        let (code, reason) = (ByeCode::Shutdown, "shutdown command".to_owned());
        match from {
            ReplyTo::Subscriber(id, _) if self.subscribers.is_peer(*id) => {
                self.subscribers.send(*id, Event::Bye { code, reason });
                self.subscribers.remove(*id);
            }
            _ => self.inbox.send(Message::End(code, reason)),
        }
    }

    fn look_up(&mut self, what: LookUp, ids: Vec<SessionId>, reply_to: ReplyTo) {
        let sources = self.index.sources().filter_map(|source| {
            let task = self.tasks.by_name(source.name())?;
            Some(task.to_look_up(source.health()))
        });
        let sources: Vec<_> = sources.collect();
        let count = sources.len();
        let (inbox, to) = (self.inbox.clone(), reply_to.clone());
        let done = move |answers| inbox.send(Message::LookedUp(to, answers));
        match self.look_ups.begin(what, ids, sources, done) {
            Ok(()) => self.counters.count_spawns(count),
            Err(error) => self.reply(reply_to, Answer::Error(error)),
        }
    }

    fn refresh(&mut self, reply_to: ReplyTo) {
        let id = self.refreshes.begin(reply_to, self.tasks.len());
        let now = self.now();
        self.tasks.refresh_all(id, now);
        self.end_refresh(id);
    }

    /// Refreshes all sources for the supervisor.
    pub(super) fn reload(&mut self) {
        info!("refreshing");
        self.heartbeat.notify(Notice::Reloading, self.now());
        self.refresh(ReplyTo::Supervisor);
    }

    pub(super) fn refreshed(
        &mut self,
        id: RefreshId,
        source: &SourceName,
        outcome: RefreshOutcome,
        reason: Option<String>,
    ) {
        let refreshed = Refreshed {
            source: source.clone(),
            outcome,
            reason,
        };
        self.refreshes.take(id, refreshed);
        self.end_refresh(id);
    }

    /// Replies to a refresh if it waits for no more listings.
    fn end_refresh(&mut self, id: RefreshId) {
        if let Some((reply_to, refreshed)) = self.refreshes.ended(id) {
            if matches!(reply_to, ReplyTo::Supervisor) && !self.refreshes.are_for_supervisor() {
                self.heartbeat.notify(Notice::Ready, self.now());
            }
            self.reply(reply_to, Answer::Refreshed(refreshed));
        }
    }

    fn status(&self) -> Status {
        let sources = self.index.sources().filter_map(|source| {
            let task = self.tasks.by_name(source.name())?;
            Some(SourceStatus {
                health: SourceHealth::of(source),
                sessions: source.count(),
                watch: task.watch_mode.clone(),
                listing: task.schedule.is_in_flight(),
                scan: task.scan,
                stuck: task.source_lister.lister.stuck(),
            })
        });
        Status {
            uptime_ms: u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX),
            revision: self.index.revision(),
            sessions: self.index.shown_count(),
            sources: sources.collect(),
            subscribers: self.subscribers.count(),
            ..self.counters.status()
        }
    }
}
