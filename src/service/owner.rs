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
use super::schedule::{Ask, News, Went};
use super::subscriber::{Outbox, ReaderId};
use super::watch::{Looks, Watcher};
use super::work::{Listed, Work};
use super::{Beat, Config, Inbox, MakeLister, Message, Pulse};
use crate::index::{Again, Difference, Health, Index, Known, Merged, Moment, View};
use crate::lister::{Bounded, Cancel, ListRequest, LookUpRequest, SCAN_BUDGET};
use crate::marker_text::MarkerText;
use crate::query::{self, Asked, LookUpJob, LookedUp, Reached};
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
    reader: Option<ReaderId>,
    id: Option<CommandId>,
    left: usize,
    done: Vec<Refreshed>,
}

pub(super) struct Owner {
    sources: Vec<Source>,
    index: Index,
    work: BTreeMap<SourceName, Work>,
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
    readers: BTreeMap<ReaderId, Outbox>,
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
    pulse: Option<Pulse>,
    next_beat: Duration,
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
            work: BTreeMap::new(),
            numbers: 0,
            in_flight: 0,
            make_lister: config.lister,
            watcher: Watcher::start()?,
            state_dir,
            marker: config.marker,
            view: config.view,
            deadline: config.deadline,
            inbox,
            readers: BTreeMap::new(),
            built: BTreeMap::new(),
            refreshes: BTreeMap::new(),
            next_refresh: 0,
            looking_up: 0,
            end_of_look_ups: Cancel::default(),
            stats: Stats::default(),
            started: Instant::now(),
            saver,
            pulse: config.pulse,
            next_beat: Duration::ZERO,
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
        let reached = Reached {
            lister: Arc::new(Bounded::new((self.make_lister)(&source))),
            source,
        };
        let name = reached.source.name.clone();
        self.numbers += 1;
        let work = Work::begin(
            reached,
            self.numbers,
            self.state_dir.as_deref(),
            &self.watcher,
            &self.inbox,
            self.now(),
        );
        self.work.insert(name, work);
    }

    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        self.beat(Beat::Ready);
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
            Message::Looked(source, number, looks) => self.looked(&source, number, looks),
            Message::Turned(source, number, to) => self.turned(&source, number, to),
            Message::Watched(source, number, how) => self.watched(&source, number, how),
            Message::Listed(listed) => self.listed(*listed),
            Message::Saved(result) => self.saved(result),
            Message::Subscribe(reader, outbox) => self.subscribe(reader, outbox),
            Message::CaughtUp(reader) => self.caught_up(reader),
            Message::Gone(reader) => self.gone(reader),
            Message::Command(reader, command) => self.command(reader, command),
            Message::LookedUp(reader, id, answers) => self.looked_up(reader, id, answers),
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
        let listings = self.work.values().filter_map(|work| work.schedule.due());
        let save = self
            .saver
            .as_ref()
            .and_then(|saver| saver.due(self.index.changes()));
        let beat = self.pulse.as_ref().map(|_| self.next_beat);
        let news = self.work.values().filter_map(Work::news_due);
        let far = self.now() + Duration::from_secs(3600);
        let all = listings.chain(save).chain(beat).chain(news);
        all.min().unwrap_or(far)
    }

    fn do_what_is_due(&mut self) {
        let now = self.now();
        let due: Vec<_> = self
            .work
            .iter_mut()
            .filter_map(|(name, work)| work.schedule.start(now).then(|| name.clone()))
            .collect();
        for source in due {
            self.list(&source);
        }
        let is_due = |work: &Work| work.news_due().is_some_and(|due| due <= now);
        let told = self.work.iter().filter(|(_, work)| is_due(work));
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
        if self.pulse.is_some() && self.next_beat <= now {
            self.beat(Beat::Alive);
        }
    }

    fn beat(&mut self, beat: Beat<'_>) {
        let now = self.now();
        if let Some(pulse) = &mut self.pulse {
            (pulse.beat)(beat);
            // Only this one keeps a watchdog quiet.
            if beat == Beat::Alive {
                self.next_beat = now + pulse.every;
            }
        }
    }

    // Sources.

    /// From now on these are the sources. Those that stay as they are go on undisturbed.
    fn set_sources(&mut self, sources: &[Source]) {
        self.sources = sources.to_vec();
        let is_same = |work: &Work| sources.contains(&work.reached.source);
        let gone: Vec<_> = self.work.extract_if(.., |_, work| !is_same(work)).collect();
        let new: Vec<_> = sources
            .iter()
            .filter(|source| !self.work.contains_key(&source.name))
            .cloned()
            .collect();
        let order = self.index.sources().map(Known::name);
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
        for (name, work) in gone {
            work.cancel.cancel();
            let refreshes = work.waiting.into_iter().chain(work.running);
            waiting.insert(name, refreshes.collect::<Vec<_>>());
        }
        self.index.set_sources(sources);
        for source in new {
            let name = source.name.clone();
            self.begin(source);
            if let Some(work) = self.work.get_mut(&name) {
                // It goes on under this name.
                let refreshes = waiting.remove(&name).unwrap_or_default();
                if !refreshes.is_empty() {
                    work.waiting = refreshes;
                    work.schedule.ask(Ask::Now, self.started.elapsed());
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
            for work in self.work.values_mut() {
                work.schedule.ask(Ask::Now, now);
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
    fn turned(&mut self, source: &SourceName, number: u64, to: PathBuf) {
        if self.work_of(source, number).is_none() {
            return;
        }
        info!(%source, "its path leads to another database now");
        let mut sources = self.sources.clone();
        if let Some(turned) = sources.iter_mut().find(|one| one.name == *source) {
            turned.place = Place::Database(to);
        }
        self.set_sources(&sources);
    }

    /// Adds the sources that were discovered since the last time.
    fn found(&mut self, found: &[Source]) {
        let sources = with_found(&self.sources, found);
        if sources != self.sources {
            self.set_sources(&sources);
        }
        let is_elsewhere = |known: &Source, found: &Source| {
            known.written.first() == found.written.first() && known.place != found.place
        };
        for work in self.work.values() {
            let source = &work.reached.source;
            if found.iter().any(|found| is_elsewhere(source, found))
                && let Some(watch) = &work.watch
            {
                // It reports the new place when that is certain.
                let _ = watch.look();
            }
        }
    }

    fn lists_archived(&self) -> bool {
        query::lists_archived(self.index.sources().count())
    }

    /// The work on the source of that name and number, if it is still one.
    fn work_of(&mut self, source: &SourceName, number: u64) -> Option<&mut Work> {
        let work = self.work.get_mut(source);
        work.filter(|work| work.number == number)
    }

    fn looked(&mut self, source: &SourceName, number: u64, looks: Looks) {
        let now = self.now();
        let Some(work) = self.work_of(source, number) else {
            return;
        };
        work.looks = Some(looks);
        if let Some(ask) = work.asked_for_by(&looks) {
            work.schedule.ask(ask, now);
        }
    }

    fn watched(&mut self, source: &SourceName, number: u64, how: String) {
        let Some(work) = self.work_of(source, number) else {
            return;
        };
        if how.starts_with("polling") {
            info!(%source, how = %one_line(&how), "watching");
        }
        work.how_watched = how;
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
        let Some(work) = self.work.get_mut(source) else {
            return;
        };
        self.in_flight += 1;
        work.list(request, &self.inbox);
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
        let work = self.work.get_mut(&source);
        let Some(work) = work.filter(|work| work.number == number) else {
            return;
        };
        let running = std::mem::take(&mut work.running);
        let chance = fastrand::f64();
        let (outcome, reason) = match result {
            Ok(None) => {
                self.index.set_as_of(&source, moment.wall.before(took));
                let went = Went::Well(News::default());
                work.schedule.done(went, took, now, chance);
                (RefreshOutcome::Ok, None)
            }
            Ok(Some(found)) => {
                let scan = found.scan;
                let merged = self.index.merge(&source, found.found, moment);
                let went = if merged.again.is_some() {
                    Went::Again
                } else {
                    self.index.set_as_of(&source, moment.wall.before(took));
                    Went::Well(News {
                        changed: !merged.difference.is_empty() || !merged.others.is_empty(),
                        frames: scan.frames,
                        unfinished: scan.progress < 1.0 && !scan.stalled,
                    })
                };
                work.scan = Some(scan);
                work.listed = work.listing.filter(|_| merged.again.is_none());
                work.schedule.done(went, took, now, chance);
                // What changed while it ran is news that the listing may have missed.
                if let (Some(looks), Some(listed)) = (work.looks, work.listed)
                    && looks != listed
                    && let Some(ask) = work.asked_for_by(&looks)
                {
                    work.schedule.ask(ask, now);
                }
                let outcome = match merged.again {
                    None => RefreshOutcome::Ok,
                    Some(Again::Unconfirmed) => RefreshOutcome::Unconfirmed,
                    Some(Again::Young) => RefreshOutcome::Young,
                };
                self.announce(&source, merged);
                (outcome, None)
            }
            Err(failure) => {
                work.listed = None;
                work.schedule.done(Went::Badly, took, now, chance);
                let next = work.schedule.due().map(|due| {
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
                    work.has_news = true;
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
        let Some(known) = self.index.source(source) else {
            return;
        };
        let health = known.health().clone();
        match &health {
            // Why was said with its kind; a reason for people can name paths.
            Health::Failing(_) => {}
            health => info!(%source, sessions = known.count(), "{}", health.name()),
        }
        let health = health_of(known);
        let now = self.now();
        if let Some(work) = self.work.get_mut(source) {
            (work.has_news, work.told) = (false, now);
        }
        self.broadcast(Event::Health(health));
    }

    // Readers.

    fn subscribe(&mut self, reader: ReaderId, mut outbox: Outbox) {
        if !outbox.is_peer {
            outbox.view = self.view;
        }
        outbox.send(&Arc::new(self.hello()));
        outbox.send(&self.snapshot(outbox.view));
        self.readers.insert(reader, outbox);
    }

    fn view_of(&self, reader: ReaderId) -> View {
        let outbox = self.readers.get(&reader);
        outbox.map_or(View::default(), |outbox| outbox.view)
    }

    /// The views of all readers.
    fn views(&self) -> BTreeSet<View> {
        self.readers.values().map(|outbox| outbox.view).collect()
    }

    fn caught_up(&mut self, reader: ReaderId) {
        let snapshot = self.snapshot(self.view_of(reader));
        if let Some(outbox) = self.readers.get(&reader) {
            outbox.catch_up(&snapshot);
        }
    }

    /// From now on this reader sees this.
    fn look_at(&mut self, reader: ReaderId, view: View) -> Result<(), CommandError> {
        if !self.view.includes(view) {
            let what = match view.children && !self.view.children {
                true => "child sessions are not listed here: start the service with --children",
                false => "archived sessions are not listed here: start the service with --archived",
            };
            return Err(CommandError::new(ErrorCode::Invalid, what));
        }
        let snapshot = self.snapshot(view);
        if let Some(outbox) = self.readers.get_mut(&reader) {
            outbox.look_at(view, &snapshot);
        }
        Ok(())
    }

    fn gone(&mut self, reader: ReaderId) {
        self.readers.remove(&reader);
    }

    fn broadcast(&mut self, event: Event) {
        let event = Arc::new(event);
        self.readers.retain(|_, outbox| outbox.send(&event));
        self.show_status();
    }

    fn send_to(&mut self, view: View, event: &Arc<Event>) {
        self.readers
            .retain(|_, outbox| outbox.view != view || outbox.send(event));
    }

    fn reply(&self, reader: Option<ReaderId>, id: Option<CommandId>, answer: Answer) {
        if let Some(outbox) = reader.and_then(|reader| self.readers.get(&reader)) {
            outbox.send(&Arc::new(Event::Reply(Reply { id, answer })));
        }
    }

    fn hello(&self) -> Event {
        let sources = self
            .index
            .sources()
            .filter_map(|known| self.work.get(known.name()));
        let sources = sources.map(|work| SourcePlace::of(&work.reached.source));
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

    fn command(&mut self, reader: ReaderId, CommandLine { id, command }: CommandLine) {
        match command {
            Ok(Command::Refresh) => self.refresh(Some(reader), id),
            Ok(Command::Snapshot) => {
                let snapshot = self.snapshot(self.view_of(reader));
                if let Some(outbox) = self.readers.get(&reader) {
                    outbox.snapshot(&snapshot);
                }
                self.reply(Some(reader), id, Answer::Done(true));
            }
            Ok(Command::Subscribe(view)) => {
                let answer = match self.look_at(reader, view) {
                    Ok(()) => Answer::Done(true),
                    Err(error) => Answer::Error(error),
                };
                self.reply(Some(reader), id, answer);
            }
            Ok(Command::Status) => {
                let status = self.status();
                self.reply(Some(reader), id, Answer::Status(Box::new(status)));
            }
            Ok(Command::Get(ids)) => self.look_up(LookUp::Get, ids, reader, id),
            Ok(Command::Roots(ids)) => self.look_up(LookUp::Roots, ids, reader, id),
            Ok(Command::Shutdown) => {
                self.reply(Some(reader), id, Answer::Done(true));
                self.shut_down(reader);
            }
            Ok(Command::Stop) => {
                self.reply(Some(reader), id, Answer::Done(true));
                let why = "it was told to stop".to_owned();
                self.inbox.send(Message::End(ByeCode::Stopped, why));
            }
            Err(error) => self.reply(Some(reader), id, Answer::Error(error)),
        }
    }

    /// Ends what this reader is a part of.
    fn shut_down(&mut self, reader: ReaderId) {
        let (code, reason) = (ByeCode::Shutdown, "it was told to".to_owned());
        if self
            .readers
            .get(&reader)
            .is_none_or(|outbox| !outbox.is_peer)
        {
            self.inbox.send(Message::End(code, reason));
        } else if let Some(outbox) = self.readers.remove(&reader) {
            // Dropping it ends the queue after this.
            outbox.send(&Arc::new(Event::Bye { code, reason }));
        }
    }

    fn look_up(
        &mut self,
        what: LookUp,
        ids: Vec<SessionId>,
        reader: ReaderId,
        id: Option<CommandId>,
    ) {
        let begun = self.begin_look_up(what, ids, reader, id.clone());
        match begun {
            Ok(()) => {
                self.looking_up += 1;
                self.work.values().for_each(|_| self.stats.spawned());
            }
            Err(error) => self.reply(Some(reader), id, Answer::Error(error)),
        }
    }

    fn begin_look_up(
        &self,
        what: LookUp,
        ids: Vec<SessionId>,
        reader: ReaderId,
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
        let asked = self.index.sources().filter_map(|known| {
            let work = self.work.get(known.name())?;
            Some(Asked {
                reached: work.reached.clone(),
                given_up: work.given_up(known.health()),
            })
        });
        let asked: Vec<_> = asked.collect();
        let inbox = self.inbox.clone();
        thread::Builder::new()
            .name("look-ups".into())
            .spawn(move || inbox.send(Message::LookedUp(reader, id, job.run(&asked))))
            .map_err(|error| {
                let message = format!("no thread to look with: {error}");
                CommandError::new(ErrorCode::NoThread, message)
            })?;
        Ok(())
    }

    fn looked_up(&mut self, reader: ReaderId, id: Option<CommandId>, answers: Vec<LookedUp>) {
        self.looking_up -= 1;
        self.reply(Some(reader), id, Answer::Answers(answers));
    }

    fn refresh(&mut self, reader: Option<ReaderId>, id: Option<CommandId>) {
        let number = self.next_refresh;
        self.next_refresh += 1;
        let now = self.now();
        for work in self.work.values_mut() {
            work.schedule.ask(Ask::Now, now);
            work.waiting.push(number);
        }
        let refresh = Refresh {
            reader,
            id,
            left: self.work.len(),
            done: Vec::new(),
        };
        self.refreshes.insert(number, refresh);
        self.end_refresh(number);
    }

    /// A full refresh that a supervisor asked for.
    fn reload(&mut self) {
        info!("refreshing");
        self.beat(Beat::Reloading);
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
            self.reply(refresh.reader, refresh.id, Answer::Refreshed(refresh.done));
            if self.reloading == Some(number) {
                self.reloading = None;
                self.beat(Beat::Ready);
            }
        }
    }

    fn status(&self) -> Status {
        let sources = self.index.sources().filter_map(|known| {
            let work = self.work.get(known.name())?;
            Some(SourceStatus {
                health: health_of(known),
                sessions: known.count(),
                watch: work.how_watched.clone(),
                listing: work.schedule.is_in_flight(),
                scan: work.scan,
                stuck: work.reached.lister.stuck(),
            })
        });
        Status {
            uptime_ms: u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX),
            revision: self.index.revision(),
            sessions: self.index.shown_count(),
            sources: sources.collect(),
            readers: self.readers.len(),
            ..self.stats.status()
        }
    }

    /// One line for people who look at the supervisor's list.
    fn show_status(&mut self) {
        if self.pulse.is_none() {
            return;
        }
        let sessions = self.index.shown_count();
        let mut line = format!("{sessions} sessions");
        for known in self.index.sources() {
            if *known.health() != Health::Ok {
                line.push_str(&format!(
                    "; {} is {}",
                    one_line(known.name().as_str()),
                    known.health().name()
                ));
            }
        }
        if line != self.status_line {
            self.beat(Beat::Status(&line));
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
        self.beat(Beat::Ending);
        let until = Instant::now() + END;
        for work in self.work.values() {
            work.cancel.cancel();
        }
        self.end_of_look_ups.cancel();
        // The threads that launched helpers kill and reap them.
        while self.looking_up > 0 || self.in_flight > 0 {
            match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Listed(_)) => self.in_flight -= 1,
                Ok(Message::LookedUp(reader, id, answers)) => self.looked_up(reader, id, answers),
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
        for outbox in self.readers.values() {
            outbox.close();
        }
        for outbox in self.readers.values() {
            outbox.drain(until);
        }
    }
}

fn health_of(known: &Known) -> SourceHealth {
    SourceHealth {
        source: known.name().clone(),
        health: known.health().clone(),
        as_of: known.as_of(),
    }
}
