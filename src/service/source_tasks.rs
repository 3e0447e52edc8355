//! The sources of a service, and the task of each.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::config::MakeLister;
use super::inbox::{Inbox, Message};
use super::refreshes::RefreshId;
use super::schedule::Urgency;
use super::source_task::{SourceKey, SourceTask};
use super::watch::Watcher;
use crate::lister::{Bounded, ListRequest};
use crate::query::SourceLister;
use crate::source::{Place, Source, SourceName, merge_found};
use crate::wire::Known;

/// The sources and their tasks.
pub(super) struct SourceTasks {
    sources: Vec<Source>,
    tasks: BTreeMap<SourceName, SourceTask>,
    /// How many tasks were ever created.
    numbers: u64,
    /// Listings whose results have not come back.
    in_flight: usize,
    make_lister: Box<MakeLister>,
    watcher: Watcher,
    state_dir: Option<PathBuf>,
    inbox: Inbox,
}

/// The result of replacing the sources.
pub(super) struct Replaced {
    pub(super) new: usize,
    pub(super) gone: usize,
    /// The refreshes that wait for removed sources.
    pub(super) orphans: Vec<(SourceName, RefreshId)>,
}

impl SourceTasks {
    /// Creates an empty set of tasks.
    ///
    /// # Errors
    ///
    /// Returns an error if the watcher's threads cannot be spawned.
    pub(super) fn new(
        make_lister: Box<MakeLister>,
        state_dir: Option<PathBuf>,
        inbox: Inbox,
    ) -> io::Result<Self> {
        Ok(Self {
            sources: Vec::new(),
            tasks: BTreeMap::new(),
            numbers: 0,
            in_flight: 0,
            make_lister,
            watcher: Watcher::start()?,
            state_dir,
            inbox,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Returns the task of a source by its name.
    pub(super) fn by_name(&self, name: &SourceName) -> Option<&SourceTask> {
        self.tasks.get(name)
    }

    /// Returns the task of a source, unless the source was removed.
    pub(super) fn get(&mut self, key: &SourceKey) -> Option<&mut SourceTask> {
        let task = self.tasks.get_mut(&key.name);
        task.filter(|task| task.key.number == key.number)
    }

    /// Replaces the sources. The tasks of unchanged sources continue. A refresh that waits for a
    /// removed source waits for the new source of that name. Returns `None` if nothing changed.
    pub(super) fn replace(&mut self, sources: &[Source], now: Duration) -> Option<Replaced> {
        let is_same_order = self
            .sources
            .iter()
            .map(|one| &one.name)
            .eq(sources.iter().map(|one| &one.name));
        self.sources = sources.to_vec();
        let is_kept = |task: &SourceTask| sources.contains(&task.source_lister.source);
        let gone: Vec<_> = self
            .tasks
            .extract_if(.., |_, task| !is_kept(task))
            .collect();
        let is_new = |source: &&Source| !self.tasks.contains_key(&source.name);
        let new: Vec<_> = sources.iter().filter(is_new).cloned().collect();
        if gone.is_empty() && new.is_empty() && is_same_order {
            return None;
        }
        let mut replaced = Replaced {
            new: new.len(),
            gone: gone.len(),
            orphans: Vec::new(),
        };
        for source in new {
            self.begin(source, now);
        }
        for (name, task) in gone {
            let refreshes = task.end();
            match self.tasks.get_mut(&name) {
                Some(task) if !refreshes.is_empty() => {
                    task.waiting = refreshes;
                    task.schedule.request(Urgency::Now, now);
                }
                Some(_) => {}
                None => {
                    let orphans = refreshes.into_iter().map(|id| (name.clone(), id));
                    replaced.orphans.extend(orphans);
                }
            }
        }
        Some(replaced)
    }

    fn begin(&mut self, source: Source, now: Duration) {
        self.numbers += 1;
        let key = SourceKey {
            name: source.name.clone(),
            number: self.numbers,
        };
        let source_lister = SourceLister {
            lister: Arc::new(Bounded::new((self.make_lister)(&source))),
            source,
        };
        let (inbox, watched) = (self.inbox.clone(), key.clone());
        let report = move |event| inbox.send(Message::Watch(watched.clone(), event));
        let task = SourceTask::begin(
            source_lister,
            key.clone(),
            self.state_dir.as_deref(),
            &self.watcher,
            report,
            now,
        );
        self.tasks.insert(key.name, task);
    }

    /// Returns the sources with one of them at another place.
    pub(super) fn with_place(&self, name: &SourceName, place: Place) -> Vec<Source> {
        let mut sources = self.sources.clone();
        if let Some(source) = sources.iter_mut().find(|source| source.name == *name) {
            source.place = place;
        }
        sources
    }

    /// Returns the sources with those that were discovered, if there are new ones.
    pub(super) fn with_discovered(&self, found: &[Source]) -> Option<Vec<Source>> {
        let sources = merge_found(&self.sources, found);
        (sources != self.sources).then_some(sources)
    }

    /// Inspects the sources that were discovered at another place than the current one.
    pub(super) fn inspect_moved(&self, found: &[Source]) {
        let is_elsewhere = |known: &Source, found: &Source| {
            known.written.first() == found.written.first() && known.place != found.place
        };
        for task in self.tasks.values() {
            let source = &task.source_lister.source;
            if found.iter().any(|found| is_elsewhere(source, found)) {
                // The watcher reports the new place when it is confirmed.
                task.inspect();
            }
        }
    }

    /// Requests a listing of every source, now.
    pub(super) fn request_all(&mut self, now: Duration) {
        for task in self.tasks.values_mut() {
            task.schedule.request(Urgency::Now, now);
        }
    }

    /// Requests a listing of every source for this refresh.
    pub(super) fn refresh_all(&mut self, id: RefreshId, now: Duration) {
        self.request_all(now);
        for task in self.tasks.values_mut() {
            task.waiting.push(id);
        }
    }

    /// Returns when a listing or an announcement of health is due.
    pub(super) fn due(&self) -> Option<Duration> {
        let listings = self.tasks.values().filter_map(|task| task.schedule.due());
        let health = self.tasks.values().filter_map(SourceTask::health_due);
        listings.chain(health).min()
    }

    /// Begins the listings that are due. Each is compared with what `known` returns.
    pub(super) fn list_due(
        &mut self,
        now: Duration,
        request: impl Fn() -> ListRequest,
        known: impl Fn(&SourceName) -> Option<Known>,
    ) {
        for task in self.tasks.values_mut() {
            if task.schedule.start(now) {
                self.in_flight += 1;
                let inbox = self.inbox.clone();
                let done = move |result| inbox.send(Message::Listed(Box::new(result)));
                let known = known(&task.key.name);
                task.list(request(), known, done);
            }
        }
    }

    /// Returns the sources whose health is to be announced again.
    pub(super) fn stale_health(&self, now: Duration) -> Vec<SourceName> {
        let is_due = |task: &&SourceTask| task.health_due().is_some_and(|due| due <= now);
        let stale = self.tasks.values().filter(is_due);
        stale.map(|task| task.key.name.clone()).collect()
    }

    /// Records that the health of a source was announced.
    pub(super) fn announced(&mut self, name: &SourceName, now: Duration) {
        if let Some(task) = self.tasks.get_mut(name) {
            task.announced(now);
        }
    }

    /// Records that the result of a listing has arrived.
    pub(super) fn listing_ended(&mut self) {
        self.in_flight -= 1;
    }

    pub(super) fn are_listing(&self) -> bool {
        self.in_flight > 0
    }

    /// Cancels all listings. Their results still arrive.
    pub(super) fn cancel(&self) {
        for task in self.tasks.values() {
            task.cancel();
        }
    }
}
