//! The loop: it owns the index, takes one message at a time, and never waits for
//! anything but the next message or the next thing that is due.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::command::{Command, CommandError, CommandId, CommandLine, ErrorCode};
use super::counters::{SourceStatus, Stats, Status};
use super::protocol::{
    Answer, ByeCode, Change, Event, Hello, PROTOCOL, RefreshOutcome, Refreshed, Reply, Snapshot,
    SourceHealth, SourcePlace, capabilities,
};
use super::saver::{Saver, restore};
use super::schedule::{Activity, Finished, Urgency};
use super::source_task::{Listed, SourceTask};
use super::subscriber::{Outbox, SubscriberId};
use super::watch::{SourceStamp, Watcher};
use super::{Config, Inbox, MakeLister, Message, Notice, Supervisor};
use crate::index::{Difference, Health, Index, Merged, Moment, Recheck, SourceState, View};
use crate::lister::{Bounded, Cancel, ListRequest, LookUpRequest, SCAN_BUDGET};
use crate::marker_text::MarkerText;
use crate::query::{self, LookUpJob, LookUpSource, LookedUp, SourceLister};
use crate::session::{Millis, SessionId};
use crate::source::{Place, Source, SourceName, with_found};
use crate::text::one_line;
use crate::wire::{LookUp, VERSION, limits};

/// Look-ups at once: each launches a helper for every source.
const LOOK_UPS: usize = 8;

/// How long ending may take for what is in flight.
const END: Duration = Duration::from_millis(1200);

/// A refresh that somebody asked for.
struct Refresh {
    subscriber: Option<SubscriberId>,
    id: Option<CommandId>,
    left: usize,
    done: Vec<Refreshed>,
}

pub(super) struct Owner {
    sources: Vec<Source>,
    index: Index,
    tasks: BTreeMap<SourceName, SourceTask>,
    /// How many sources there ever were.
    numbers: u64,
    /// Listings whose threads have not come back.
    in_flight: usize,
    make_lister: Box<MakeLister>,
    watcher: Watcher,
    state_dir: Option<PathBuf>,
    marker: Option<MarkerText>,
    /// All that is listed, and the most that a reader can see.
    view: View,
    deadline: Duration,
    inbox: Inbox,
    subscribers: BTreeMap<SubscriberId, Outbox>,
    /// The snapshots of now of each view, once somebody has asked for it.
    built: BTreeMap<View, Arc<Event>>,
    refreshes: BTreeMap<u64, Refresh>,
    next_refresh: u64,
    /// Look-ups on their way, and what ends them.
    looking_up: usize,
    end_of_look_ups: Cancel,
    stats: Stats,
    started: Instant,
    saver: Option<Saver>,
    supervisor: Option<Supervisor>,
    next_notice: Duration,
    status_line: String,
    reloading: Option<u64>,
}

impl Owner {
    pub(super) fn new(config: Config, inbox: Inbox) -> io::Result<Self> {
        let mut index = Index::showing(&config.sources, config.view);
        let state_dir = config.state.as_ref().map(|state| state.path().to_owned());
        let saver = match config.state {
            None => None,
            Some(state) => {
                restore(&mut index, &state, config.marker.as_ref());
                Some(Saver::start(state, index.changes(), inbox.clone())?)
            }
        };
        let mut owner = Self {
            sources: config.sources.clone(),
            index,
            tasks: BTreeMap::new(),
            numbers: 0,
            in_flight: 0,
            make_lister: config.lister,
            watcher: Watcher::start()?,
            state_dir,
            marker: config.marker,
            view: config.view,
            deadline: config.deadline,
            inbox,
            subscribers: BTreeMap::new(),
            built: BTreeMap::new(),
            refreshes: BTreeMap::new(),
            next_refresh: 0,
            looking_up: 0,
            end_of_look_ups: Cancel::default(),
            stats: Stats::default(),
            started: Instant::now(),
            saver,
            supervisor: config.supervisor,
            next_notice: Duration::ZERO,
            status_line: String::new(),
            reloading: None,
        };
        for source in config.sources {
            owner.begin(source);
        }
        Ok(owner)
    }

    /// Begins to work on a source.
    fn begin(&mut self, source: Source) {
        let source_lister = SourceLister {
            lister: Arc::new(Bounded::new((self.make_lister)(&source))),
            source,
        };
        let name = source_lister.source.name.clone();
        self.numbers += 1;
        let task = SourceTask::begin(
            source_lister,
            self.numbers,
            self.state_dir.as_deref(),
            &self.watcher,
            &self.inbox,
            self.now(),
        );
        self.tasks.insert(name, task);
    }

    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        self.notify(Notice::Ready);
        let (code, reason) = loop {
            self.do_what_is_due();
            let pause = self.next_due().saturating_sub(self.now());
            match inbox.recv_timeout(pause) {
                Ok(Message::End(code, reason)) => break (code, reason),
                Ok(message) => self.take(message),
                // Nobody has asked for it for a while.
                Err(RecvTimeoutError::Timeout) => self.built.clear(),
                Err(RecvTimeoutError::Disconnected) => {
                    break (ByeCode::Ended, "nobody is left".to_owned());
                }
            }
        };
        self.end(code, reason, inbox);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Inspected(source, number, stamp) => self.inspected(&source, number, stamp),
            Message::Moved(source, number, to) => self.moved(&source, number, to),
            Message::Watched(source, number, how) => self.watched(&source, number, how),
            Message::Listed(listed) => self.listed(*listed),
            Message::Saved(result) => self.saved(result),
            Message::Subscribe(subscriber, outbox) => self.subscribe(subscriber, outbox),
            Message::CaughtUp(subscriber) => self.caught_up(subscriber),
            Message::Gone(subscriber) => self.gone(subscriber),
            Message::Command(subscriber, command) => self.command(subscriber, command),
            Message::LookedUp(subscriber, id, answers) => self.looked_up(subscriber, id, answers),
            Message::Reload(sources) => {
                if let Some(sources) = sources {
                    self.set_sources(&sources);
                }
                self.reload();
            }
            Message::Sources(sources) => self.set_sources(&sources),
            Message::Found(sources) => self.found(&sources),
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

    fn next_due(&self) -> Duration {
        let listings = self.tasks.values().filter_map(|task| task.schedule.due());
        let save = self
            .saver
            .as_ref()
            .and_then(|saver| saver.due(self.index.changes()));
        let notify = self.supervisor.as_ref().map(|_| self.next_notice);
        let news = self.tasks.values().filter_map(SourceTask::health_due);
        let far = self.now() + Duration::from_secs(3600);
        let all = listings.chain(save).chain(notify).chain(news);
        all.min().unwrap_or(far)
    }

    fn do_what_is_due(&mut self) {
        let now = self.now();
        let due: Vec<_> = self
            .tasks
            .iter_mut()
            .filter_map(|(name, task)| task.schedule.start(now).then(|| name.clone()))
            .collect();
        for source in due {
            self.list(&source);
        }
        let is_due = |task: &SourceTask| task.health_due().is_some_and(|due| due <= now);
        let told = self.tasks.iter().filter(|(_, task)| is_due(task));
        let told: Vec<_> = told.map(|(name, _)| name.clone()).collect();
        for source in told {
            self.announce_health(&source);
        }
        if self
            .saver
            .as_ref()
            .and_then(|saver| saver.due(self.index.changes()))
            .is_some_and(|due| due <= now)
        {
            self.save();
        }
        if self.supervisor.is_some() && self.next_notice <= now {
            self.notify(Notice::Alive);
        }
    }

    fn notify(&mut self, notice: Notice<'_>) {
        let now = self.now();
        if let Some(supervisor) = &mut self.supervisor {
            (supervisor.notify)(notice);
            // Only this one keeps a watchdog quiet.
            if notice == Notice::Alive {
                self.next_notice = now + supervisor.every;
            }
        }
    }

    // Sources.

    /// From now on these are the sources. Those that stay as they are go on undisturbed.
    fn set_sources(&mut self, sources: &[Source]) {
        self.sources = sources.to_vec();
        let is_same = |task: &SourceTask| sources.contains(&task.source_lister.source);
        let gone: Vec<_> = self
            .tasks
            .extract_if(.., |_, task| !is_same(task))
            .collect();
        let new: Vec<_> = sources
            .iter()
            .filter(|source| !self.tasks.contains_key(&source.name))
            .cloned()
            .collect();
        let order = self.index.sources().map(SourceState::name);
        let is_in_order = order.eq(sources.iter().map(|source| &source.name));
        if gone.is_empty() && new.is_empty() && is_in_order {
            return;
        }
        let listed_archived = self.lists_archived();
        info!(
            sources = sources.len(),
            new = new.len(),
            gone = gone.len(),
            "the sources have changed"
        );
        let mut waiting = BTreeMap::new();
        for (name, task) in gone {
            task.cancel.cancel();
            let refreshes = task.waiting.into_iter().chain(task.running);
            waiting.insert(name, refreshes.collect::<Vec<_>>());
        }
        self.index.set_sources(sources);
        for source in new {
            let name = source.name.clone();
            self.begin(source);
            if let Some(task) = self.tasks.get_mut(&name) {
                // It goes on under this name.
                let refreshes = waiting.remove(&name).unwrap_or_default();
                if !refreshes.is_empty() {
                    task.waiting = refreshes;
                    task.schedule.ask(Urgency::Now, self.started.elapsed());
                }
            }
        }
        for (name, refreshes) in waiting {
            for refresh in refreshes {
                self.refreshed(
                    refresh,
                    Refreshed {
                        source: name.clone(),
                        outcome: RefreshOutcome::Failed,
                        reason: Some("it is no source any more".to_owned()),
                    },
                );
            }
        }
        if listed_archived != self.lists_archived() {
            let now = self.now();
            for task in self.tasks.values_mut() {
                task.schedule.ask(Urgency::Now, now);
            }
        }
        // Who knows the old ones begins anew.
        self.built.clear();
        for view in self.views() {
            let snapshot = self.snapshot(view);
            self.send_to(view, &snapshot);
        }
        self.show_status();
    }

    /// The path of a source leads to another database: that is the source now.
    fn moved(&mut self, source: &SourceName, number: u64, to: PathBuf) {
        if self.task_of(source, number).is_none() {
            return;
        }
        info!(%source, "its path leads to another database now");
        let mut sources = self.sources.clone();
        if let Some(moved) = sources.iter_mut().find(|one| one.name == *source) {
            moved.place = Place::Database(to);
        }
        self.set_sources(&sources);
    }

    /// Adds the sources that were discovered since the last time.
    fn found(&mut self, found: &[Source]) {
        let sources = with_found(&self.sources, found);
        if sources != self.sources {
            self.set_sources(&sources);
        }
        let is_elsewhere = |state: &Source, found: &Source| {
            state.written.first() == found.written.first() && state.place != found.place
        };
        for task in self.tasks.values() {
            let source = &task.source_lister.source;
            if found.iter().any(|found| is_elsewhere(source, found))
                && let Some(watch) = &task.watch
            {
                // It reports the new place when that is certain.
                let _ = watch.inspect();
            }
        }
    }

    fn lists_archived(&self) -> bool {
        query::lists_archived(self.index.sources().count())
    }

    /// The work on the source of that name and number, if it is still one.
    fn task_of(&mut self, source: &SourceName, number: u64) -> Option<&mut SourceTask> {
        let task = self.tasks.get_mut(source);
        task.filter(|task| task.number == number)
    }

    fn inspected(&mut self, source: &SourceName, number: u64, stamp: SourceStamp) {
        let now = self.now();
        let Some(task) = self.task_of(source, number) else {
            return;
        };
        task.stamp = Some(stamp);
        if let Some(ask) = task.asked_for_by(&stamp) {
            task.schedule.ask(ask, now);
        }
    }

    fn watched(&mut self, source: &SourceName, number: u64, how: String) {
        let Some(task) = self.task_of(source, number) else {
            return;
        };
        if how.starts_with("polling") {
            info!(%source, how = %one_line(&how), "watching");
        }
        task.how_watched = how;
    }

    /// Begins the listing that the schedule has started.
    fn list(&mut self, source: &SourceName) {
        let request = ListRequest {
            db: None,
            marker: self.marker.clone(),
            children: self.view.children,
            archived: self.view.archived || self.lists_archived(),
            deadline: self.deadline,
            scan_cache: None,
            scan_budget: Some(SCAN_BUDGET),
            first_prompt_limit: limits::FIRST_PROMPT,
            cancel: Cancel::default(),
        };
        let Some(task) = self.tasks.get_mut(source) else {
            return;
        };
        self.in_flight += 1;
        task.list(request, &self.inbox);
    }

    fn listed(&mut self, listed: Listed) {
        let Listed {
            source,
            number,
            result,
            took,
            bytes,
        } = listed;
        let (now, moment) = (self.now(), self.moment());
        // Also when it was last listed is a part of the snapshot.
        self.built.clear();
        self.in_flight -= 1;
        self.stats.read(bytes);
        let failure = result.as_ref().err().map(|failure| failure.kind);
        // Where nothing is new nothing was launched.
        if !matches!(result, Ok(None)) {
            if failure != Some("thread") {
                self.stats.spawned();
            }
            self.stats.listed(took, failure);
        }
        let task = self.tasks.get_mut(&source);
        let Some(task) = task.filter(|task| task.number == number) else {
            return;
        };
        let running = std::mem::take(&mut task.running);
        let chance = fastrand::f64();
        let (outcome, reason) = match result {
            Ok(None) => {
                self.index.set_as_of(&source, moment.wall.before(took));
                let finished = Finished::Ok(Activity::default());
                task.schedule.done(finished, took, now, chance);
                (RefreshOutcome::Ok, None)
            }
            Ok(Some(found)) => {
                let scan = found.scan;
                let merged = self.index.merge(&source, found.found, moment);
                let finished = if merged.recheck.is_some() {
                    Finished::Retry
                } else {
                    self.index.set_as_of(&source, moment.wall.before(took));
                    Finished::Ok(Activity {
                        changed: !merged.difference.is_empty() || !merged.others.is_empty(),
                        frames: scan.frames,
                        unfinished: scan.progress < 1.0 && !scan.stalled,
                    })
                };
                task.scan = Some(scan);
                task.listed = task.listing.filter(|_| merged.recheck.is_none());
                task.schedule.done(finished, took, now, chance);
                // What changed while it ran is news that the listing may have missed.
                if let (Some(stamp), Some(listed)) = (task.stamp, task.listed)
                    && stamp != listed
                    && let Some(ask) = task.asked_for_by(&stamp)
                {
                    task.schedule.ask(ask, now);
                }
                let outcome = match merged.recheck {
                    None => RefreshOutcome::Ok,
                    Some(Recheck::Unconfirmed) => RefreshOutcome::Unconfirmed,
                    Some(Recheck::Young) => RefreshOutcome::Young,
                };
                self.announce(&source, merged);
                (outcome, None)
            }
            Err(failure) => {
                task.listed = None;
                task.schedule.done(Finished::Failed, took, now, chance);
                let next = task.schedule.due().map(|due| {
                    let left =
                        i64::try_from(due.saturating_sub(now).as_millis()).unwrap_or(i64::MAX);
                    Millis(moment.wall.0.saturating_add(left))
                });
                if self
                    .index
                    .fail(&source, failure.kind, &failure.reason, next, moment)
                {
                    warn!(%source, kind = failure.kind, "failing; what was known is kept");
                    debug!(%source, reason = %one_line(&failure.reason));
                    self.announce_health(&source);
                } else {
                    task.health_is_stale = true;
                }
                (RefreshOutcome::Failed, Some(failure.reason))
            }
        };
        // After the events that the listing caused.
        for refresh in running {
            self.refreshed(
                refresh,
                Refreshed {
                    source: source.clone(),
                    outcome,
                    reason: reason.clone(),
                },
            );
        }
    }

    fn announce(&mut self, source: &SourceName, merged: Merged) {
        let usual = (View::default(), merged.difference);
        let differences = std::iter::once(usual).chain(merged.others);
        for (view, difference) in differences.filter(|(_, found)| !found.is_empty()) {
            let change = Arc::new(Event::Change(self.change(view, difference)));
            self.send_to(view, &change);
        }
        if merged.health_changed {
            self.announce_health(source);
        }
        self.show_status();
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
        let health = state.health().clone();
        match &health {
            // Why was said with its kind; a reason for people can name paths.
            Health::Failing(_) => {}
            health => info!(%source, sessions = state.count(), "{}", health.name()),
        }
        let health = health_of(state);
        let now = self.now();
        if let Some(task) = self.tasks.get_mut(source) {
            (task.health_is_stale, task.told) = (false, now);
        }
        self.broadcast(Event::Health(health));
    }

    // Readers.

    fn subscribe(&mut self, subscriber: SubscriberId, mut outbox: Outbox) {
        if !outbox.is_peer {
            outbox.view = self.view;
        }
        outbox.send(&Arc::new(self.hello()));
        outbox.send(&self.snapshot(outbox.view));
        self.subscribers.insert(subscriber, outbox);
    }

    fn view_of(&self, subscriber: SubscriberId) -> View {
        let outbox = self.subscribers.get(&subscriber);
        outbox.map_or(View::default(), |outbox| outbox.view)
    }

    /// The views of all readers.
    fn views(&self) -> BTreeSet<View> {
        self.subscribers
            .values()
            .map(|outbox| outbox.view)
            .collect()
    }

    fn caught_up(&mut self, subscriber: SubscriberId) {
        let snapshot = self.snapshot(self.view_of(subscriber));
        if let Some(outbox) = self.subscribers.get(&subscriber) {
            outbox.catch_up(&snapshot);
        }
    }

    /// From now on this reader sees this.
    fn set_view(&mut self, subscriber: SubscriberId, view: View) -> Result<(), CommandError> {
        if !self.view.includes(view) {
            let what = match view.children && !self.view.children {
                true => "child sessions are not listed here: start the service with --children",
                false => "archived sessions are not listed here: start the service with --archived",
            };
            return Err(CommandError::new(ErrorCode::Invalid, what));
        }
        let snapshot = self.snapshot(view);
        if let Some(outbox) = self.subscribers.get_mut(&subscriber) {
            outbox.set_view(view, &snapshot);
        }
        Ok(())
    }

    fn gone(&mut self, subscriber: SubscriberId) {
        self.subscribers.remove(&subscriber);
    }

    fn broadcast(&mut self, event: Event) {
        let event = Arc::new(event);
        self.subscribers.retain(|_, outbox| outbox.send(&event));
        self.show_status();
    }

    fn send_to(&mut self, view: View, event: &Arc<Event>) {
        self.subscribers
            .retain(|_, outbox| outbox.view != view || outbox.send(event));
    }

    fn reply(&self, subscriber: Option<SubscriberId>, id: Option<CommandId>, answer: Answer) {
        if let Some(outbox) = subscriber.and_then(|subscriber| self.subscribers.get(&subscriber)) {
            outbox.send(&Arc::new(Event::Reply(Reply { id, answer })));
        }
    }

    fn hello(&self) -> Event {
        let sources = self
            .index
            .sources()
            .filter_map(|state| self.tasks.get(state.name()));
        let sources = sources.map(|task| SourcePlace::of(&task.source_lister.source));
        Event::Hello(Hello {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            marker: self.marker.clone(),
            sources: sources.collect(),
            capabilities: capabilities(self.view),
        })
    }

    /// All that this view shows, built once for all who ask until something changes.
    fn snapshot(&mut self, view: View) -> Arc<Event> {
        let build = || {
            Arc::new(Event::Snapshot(Snapshot {
                revision: self.index.revision_of(view),
                sources: self.index.sources().map(health_of).collect(),
                sessions: self.index.sessions(view),
            }))
        };
        Arc::clone(self.built.entry(view).or_insert_with(build))
    }

    // Commands.

    fn command(&mut self, subscriber: SubscriberId, CommandLine { id, command }: CommandLine) {
        match command {
            Ok(Command::Refresh) => self.refresh(Some(subscriber), id),
            Ok(Command::Snapshot) => {
                let snapshot = self.snapshot(self.view_of(subscriber));
                if let Some(outbox) = self.subscribers.get(&subscriber) {
                    outbox.snapshot(&snapshot);
                }
                self.reply(Some(subscriber), id, Answer::Done(true));
            }
            Ok(Command::Subscribe(view)) => {
                let answer = match self.set_view(subscriber, view) {
                    Ok(()) => Answer::Done(true),
                    Err(error) => Answer::Error(error),
                };
                self.reply(Some(subscriber), id, answer);
            }
            Ok(Command::Status) => {
                let status = self.status();
                self.reply(Some(subscriber), id, Answer::Status(Box::new(status)));
            }
            Ok(Command::Get(ids)) => self.look_up(LookUp::Get, ids, subscriber, id),
            Ok(Command::Roots(ids)) => self.look_up(LookUp::Roots, ids, subscriber, id),
            Ok(Command::Shutdown) => {
                self.reply(Some(subscriber), id, Answer::Done(true));
                self.shut_down(subscriber);
            }
            Ok(Command::Stop) => {
                self.reply(Some(subscriber), id, Answer::Done(true));
                let why = "it was told to stop".to_owned();
                self.inbox.send(Message::End(ByeCode::Stopped, why));
            }
            Err(error) => self.reply(Some(subscriber), id, Answer::Error(error)),
        }
    }

    /// Ends what this reader is a part of.
    fn shut_down(&mut self, subscriber: SubscriberId) {
        let (code, reason) = (ByeCode::Shutdown, "it was told to".to_owned());
        if self
            .subscribers
            .get(&subscriber)
            .is_none_or(|outbox| !outbox.is_peer)
        {
            self.inbox.send(Message::End(code, reason));
        } else if let Some(outbox) = self.subscribers.remove(&subscriber) {
            // Dropping it ends the queue after this.
            outbox.send(&Arc::new(Event::Bye { code, reason }));
        }
    }

    fn look_up(
        &mut self,
        what: LookUp,
        ids: Vec<SessionId>,
        subscriber: SubscriberId,
        id: Option<CommandId>,
    ) {
        let begun = self.begin_look_up(what, ids, subscriber, id.clone());
        match begun {
            Ok(()) => {
                self.looking_up += 1;
                self.tasks.values().for_each(|_| self.stats.spawned());
            }
            Err(error) => self.reply(Some(subscriber), id, Answer::Error(error)),
        }
    }

    fn begin_look_up(
        &self,
        what: LookUp,
        ids: Vec<SessionId>,
        subscriber: SubscriberId,
        id: Option<CommandId>,
    ) -> Result<(), CommandError> {
        if self.looking_up >= LOOK_UPS {
            let message =
                format!("{LOOK_UPS} look-ups are on their way; ask again when one is answered");
            return Err(CommandError::new(ErrorCode::Busy, message));
        }
        let job = LookUpJob {
            what,
            ids,
            deadline: LookUpRequest::DEADLINE,
            cancel: self.end_of_look_ups.clone(),
        };
        let asked = self.index.sources().filter_map(|state| {
            let task = self.tasks.get(state.name())?;
            Some(LookUpSource {
                source_lister: task.source_lister.clone(),
                skip_reason: task.skip_reason(state.health()),
            })
        });
        let asked: Vec<_> = asked.collect();
        let inbox = self.inbox.clone();
        thread::Builder::new()
            .name("look-ups".into())
            .spawn(move || inbox.send(Message::LookedUp(subscriber, id, job.run(&asked))))
            .map_err(|error| {
                let message = format!("no thread to look with: {error}");
                CommandError::new(ErrorCode::NoThread, message)
            })?;
        Ok(())
    }

    fn looked_up(
        &mut self,
        subscriber: SubscriberId,
        id: Option<CommandId>,
        answers: Vec<LookedUp>,
    ) {
        self.looking_up -= 1;
        self.reply(Some(subscriber), id, Answer::Answers(answers));
    }

    fn refresh(&mut self, subscriber: Option<SubscriberId>, id: Option<CommandId>) {
        let number = self.next_refresh;
        self.next_refresh += 1;
        let now = self.now();
        for task in self.tasks.values_mut() {
            task.schedule.ask(Urgency::Now, now);
            task.waiting.push(number);
        }
        let refresh = Refresh {
            subscriber,
            id,
            left: self.tasks.len(),
            done: Vec::new(),
        };
        self.refreshes.insert(number, refresh);
        self.end_refresh(number);
    }

    /// A full refresh that a supervisor asked for.
    fn reload(&mut self) {
        info!("refreshing");
        self.notify(Notice::Reloading);
        // It may have ended when it returns.
        self.reloading = Some(self.next_refresh);
        self.refresh(None, None);
    }

    fn refreshed(&mut self, number: u64, one: Refreshed) {
        if let Some(refresh) = self.refreshes.get_mut(&number) {
            refresh.done.push(one);
            refresh.left = refresh.left.saturating_sub(1);
            self.end_refresh(number);
        }
    }

    /// Replies to a refresh when nothing of it is left.
    fn end_refresh(&mut self, number: u64) {
        if self
            .refreshes
            .get(&number)
            .is_some_and(|refresh| refresh.left == 0)
            && let Some(refresh) = self.refreshes.remove(&number)
        {
            self.reply(
                refresh.subscriber,
                refresh.id,
                Answer::Refreshed(refresh.done),
            );
            if self.reloading == Some(number) {
                self.reloading = None;
                self.notify(Notice::Ready);
            }
        }
    }

    fn status(&self) -> Status {
        let sources = self.index.sources().filter_map(|state| {
            let task = self.tasks.get(state.name())?;
            Some(SourceStatus {
                health: health_of(state),
                sessions: state.count(),
                watch: task.how_watched.clone(),
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
            subscribers: self.subscribers.len(),
            ..self.stats.status()
        }
    }

    /// One line for people who look at the supervisor's list.
    fn show_status(&mut self) {
        if self.supervisor.is_none() {
            return;
        }
        let sessions = self.index.shown_count();
        let mut line = format!("{sessions} sessions");
        for state in self.index.sources() {
            if *state.health() != Health::Ok {
                line.push_str(&format!(
                    "; {} is {}",
                    one_line(state.name().as_str()),
                    state.health().name()
                ));
            }
        }
        if line != self.status_line {
            self.notify(Notice::Status(&line));
            self.status_line = line;
        }
    }

    // The snapshot.

    fn save(&mut self) {
        let now = self.now();
        if let Some(saver) = &mut self.saver {
            saver.save(&self.index, self.marker.as_ref(), now);
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
        self.notify(Notice::Ending);
        let until = Instant::now() + END;
        for task in self.tasks.values() {
            task.cancel.cancel();
        }
        self.end_of_look_ups.cancel();
        // The threads that launched helpers kill and reap them.
        while self.looking_up > 0 || self.in_flight > 0 {
            match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Listed(_)) => self.in_flight -= 1,
                Ok(Message::LookedUp(subscriber, id, answers)) => {
                    self.looked_up(subscriber, id, answers)
                }
                Ok(Message::Saved(result)) => self.saved(result),
                Ok(_) => {}
                Err(_) => {
                    error!("a helper does not end");
                    break;
                }
            }
        }
        self.broadcast(Event::Bye { code, reason });
        if self
            .saver
            .as_ref()
            .is_some_and(|saver| !saver.has_all(self.index.changes()))
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
        for outbox in self.subscribers.values() {
            outbox.close();
        }
        for outbox in self.subscribers.values() {
            outbox.drain(until);
        }
    }
}

fn health_of(state: &SourceState) -> SourceHealth {
    SourceHealth {
        source: state.name().clone(),
        health: state.health().clone(),
        as_of: state.as_of(),
    }
}
