//! The owner's loop: it has the index, takes one message at a time, and waits only for the next
//! message or the next due time. It does no I/O that can hang.

mod commands;
mod listings;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::command::CommandLine;
use super::config::{Config, Notice};
use super::counters::Counters;
use super::heartbeat::Heartbeat;
use super::inbox::{Inbox, Message};
use super::look_ups::LookUps;
use super::protocol::{Answer, ByeCode, Change, Event, Hello, PROTOCOL, SourcePlace, capabilities};
use super::refreshes::Refreshes;
use super::reply_to::ReplyTo;
use super::saver::{Saver, restore};
use super::source_tasks::SourceTasks;
use super::status::SourceHealth;
use super::subscribers::Subscribers;
use crate::index::{Difference, Health, Index, MergeResult, Moment, View};
use crate::lister::{Cancel, ListRequest, SCAN_BUDGET};
use crate::query;
use crate::session::Millis;
use crate::source::SourceName;
use crate::text::one_line;
use crate::wire::VERSION;

/// How long the owner waits at its end for helpers, the last write and the subscribers.
const END_TIMEOUT: Duration = Duration::from_millis(1200);

/// How long the owner waits if nothing is due.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

pub(super) struct Owner {
    index: Index,
    tasks: SourceTasks,
    /// The request for the listing of every source.
    request: ListRequest,
    subscribers: Subscribers,
    refreshes: Refreshes,
    look_ups: LookUps,
    counters: Counters,
    heartbeat: Heartbeat,
    saver: Option<Saver>,
    inbox: Inbox,
    started: Instant,
}

impl Owner {
    pub(super) fn new(config: Config, inbox: Inbox) -> io::Result<Self> {
        let mut index = Index::with_view(&config.sources, config.view);
        let state_dir = config.state.as_ref().map(|state| state.path().to_owned());
        let saver = match config.state {
            None => None,
            Some(state) => {
                restore(&mut index, &state, config.marker.as_ref());
                let done = inbox.clone();
                let done = move |result| done.send(Message::Saved(result));
                Some(Saver::start(state, index.changes(), done)?)
            }
        };
        let mut tasks = SourceTasks::new(config.lister, state_dir, inbox.clone())?;
        tasks.replace(&config.sources, Duration::ZERO);
        Ok(Self {
            index,
            tasks,
            request: ListRequest {
                db: None,
                marker: config.marker,
                children: config.view.children,
                archived: config.view.archived,
                deadline: config.deadline,
                scan_budget: Some(SCAN_BUDGET),
                ..ListRequest::of("")
            },
            subscribers: Subscribers::with_view(config.view),
            refreshes: Refreshes::default(),
            look_ups: LookUps::default(),
            counters: Counters::default(),
            heartbeat: Heartbeat::new(config.supervisor),
            saver,
            inbox,
            started: Instant::now(),
        })
    }

    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        self.heartbeat.notify(Notice::Ready, self.now());
        let (code, reason) = loop {
            self.run_due();
            let pause = self.next_due().saturating_sub(self.now());
            match inbox.recv_timeout(pause) {
                Ok(Message::End(code, reason)) => break (code, reason),
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => self.subscribers.clear_snapshots(),
                Err(RecvTimeoutError::Disconnected) => {
                    break (ByeCode::Ended, "all handles were dropped".to_owned());
                }
            }
        };
        self.end(code, reason, inbox);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Watch(source, event) => self.watch_event(&source, event),
            Message::Listed(listed) => self.listed(*listed),
            Message::Saved(result) => self.saved(result),
            Message::Subscribe(id, outbox) => {
                let hello = self.hello();
                self.subscribers.add(id, outbox, hello, &self.index);
            }
            Message::CaughtUp(id) => self.subscribers.catch_up(id, &self.index),
            Message::Gone(id) => drop(self.subscribers.remove(id)),
            Message::Line(from, CommandLine { id, command }) => {
                let reply_to = ReplyTo::Subscriber(from, id);
                match command {
                    Ok(command) => self.command(reply_to, command),
                    Err(error) => self.reply(reply_to, Answer::Error(error)),
                }
            }
            Message::Command(reply_to, command) => self.command(reply_to, command),
            Message::LookedUp(reply_to, answers) => {
                self.look_ups.ended();
                self.reply(reply_to, Answer::Answers(answers));
            }
            Message::Reload(sources) => {
                if let Some(sources) = sources {
                    self.set_sources(&sources);
                }
                self.reload();
            }
            Message::SetSources(sources) => self.set_sources(&sources),
            Message::AddSources(found) => {
                if let Some(sources) = self.tasks.with_discovered(&found) {
                    self.set_sources(&sources);
                }
                self.tasks.inspect_moved(&found);
            }
            Message::End(..) => {}
        }
    }

    // Time.

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: Millis::now(),
            monotonic: self.now(),
        }
    }

    fn save_due(&self) -> Option<Duration> {
        self.saver.as_ref()?.due(self.index.changes())
    }

    fn next_due(&self) -> Duration {
        let due = [self.tasks.due(), self.save_due(), self.heartbeat.due()];
        let idle = self.now() + IDLE_WAIT;
        due.into_iter().flatten().min().unwrap_or(idle)
    }

    fn run_due(&mut self) {
        let now = self.now();
        let archived = self.request.archived || query::lists_archived(self.tasks.len());
        let request = || ListRequest {
            archived,
            // Each listing can be cancelled separately.
            cancel: Cancel::default(),
            ..self.request.clone()
        };
        let known = |name: &SourceName| Some(self.index.source(name)?.known());
        self.tasks.list_due(now, request, known);
        for source in self.tasks.stale_health(now) {
            self.announce_health(&source);
        }
        if self.save_due().is_some_and(|due| due <= now) {
            self.save();
        }
        if self.heartbeat.due().is_some_and(|due| due <= now) {
            self.heartbeat.notify(Notice::Alive, now);
        }
    }

    // Events.

    fn announce(&mut self, source: &SourceName, merged: MergeResult) {
        let default = (View::default(), merged.difference);
        let differences = std::iter::once(default).chain(merged.others);
        for (view, difference) in differences.filter(|(_, found)| !found.is_empty()) {
            // The sessions of a change are copied, which can be all.
            if self.subscribers.has_view(view) {
                let change = self.change(view, difference);
                self.subscribers.send_to_view(view, Event::Change(change));
            }
        }
        if merged.has_new_health {
            self.announce_health(source);
        } else {
            self.heartbeat.show(&self.index);
        }
    }

    fn change(&self, view: View, difference: Difference) -> Change {
        let upserted = difference.inserted.iter().chain(&difference.updated);
        let upserted = upserted.filter_map(|id| self.index.session(id, view));
        Change {
            revision: self.index.revision_of(view),
            upserted: upserted.collect(),
            removed: difference.removed,
        }
    }

    fn announce_health(&mut self, source: &SourceName) {
        let Some(state) = self.index.source(source) else {
            return;
        };
        match state.health() {
            // The failure itself was logged; its reason can name paths.
            Health::Failing(_) => {}
            health => info!(%source, sessions = state.count(), "{}", health.name()),
        }
        let health = SourceHealth::of(state);
        let now = self.now();
        self.tasks.announced(source, now);
        self.subscribers.broadcast(Event::Health(health));
        self.heartbeat.show(&self.index);
    }

    fn hello(&self) -> Event {
        let sources = self.index.sources();
        let sources = sources.filter_map(|source| self.tasks.by_name(source.name()));
        let sources = sources.map(|task| SourcePlace::of(&task.source_lister.source));
        let view = View {
            children: self.request.children,
            archived: self.request.archived,
        };
        Event::Hello(Hello {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            marker: self.request.marker.clone(),
            sources: sources.collect(),
            capabilities: capabilities(view),
        })
    }

    // The snapshot.

    fn save(&mut self) {
        let now = self.now();
        if let Some(saver) = &mut self.saver {
            saver.save(&self.index, self.request.marker.as_ref(), now);
        }
    }

    fn saved(&mut self, result: Result<(), String>) {
        let now = self.now();
        if let Some(saver) = &mut self.saver {
            saver.done(result, now);
        }
    }

    // The end.

    fn end(mut self, code: ByeCode, reason: String, inbox: &Receiver<Message>) {
        info!(reason = %one_line(&reason), "ending");
        self.heartbeat.notify(Notice::Ending, self.now());
        let until = Instant::now() + END_TIMEOUT;
        self.tasks.cancel();
        self.look_ups.cancel();
        // The threads that launched the helpers kill and reap them.
        while self.look_ups.are_running() || self.tasks.are_listing() {
            match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Listed(_)) => self.tasks.listing_ended(),
                Ok(message @ (Message::LookedUp(..) | Message::Saved(_))) => self.take(message),
                Ok(_) => {}
                Err(_) => {
                    error!(timeout = ?END_TIMEOUT, "helpers still running, exiting anyway");
                    break;
                }
            }
        }
        self.subscribers.broadcast(Event::Bye { code, reason });
        let changes = self.index.changes();
        if self
            .saver
            .as_ref()
            .is_some_and(|saver| !saver.has_queued(changes))
        {
            self.save();
        }
        while self.saver.as_ref().is_some_and(Saver::is_writing) {
            match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Saved(result)) => self.saved(result),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.subscribers.drain(until);
    }
}
