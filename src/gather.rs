//! Asking several sources at once, each with a lister and a deadline of its own: it
//! takes as long as the slowest, and none speaks for another.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::index::Found;
use crate::lister::{Broke, Cancel, ListRequest, Lister, LookUpRequest, Outcome};
use crate::output::{Entry, FoundOf};
use crate::project::Projects;
use crate::session::SessionId;
use crate::source::{Place, Source, SourceName};
use crate::text::one_line;
use crate::wire::{Answer, Listing, LookUp, Unresolved};

/// A source, and what asks it.
#[derive(Clone)]
pub struct Reached {
    /// The source.
    pub source: Source,
    /// Its lister.
    pub lister: Arc<dyn Lister + Send + Sync>,
}

impl Reached {
    /// What finds the projects of this source's sessions: of another machine's no
    /// directory is looked at here.
    #[must_use]
    pub fn projects(&self) -> Projects {
        match self.source.place {
            Place::Database(_) => Projects::new(),
            Place::Remote(_) => Projects::of_another_machine(),
        }
    }
}

/// The entries of a listing, for the index.
#[must_use]
pub fn found(listing: Listing, projects: &mut Projects) -> Found {
    projects.refresh();
    Found {
        database: listing.end.database,
        entries: listing
            .sessions
            .into_values()
            .map(|session| Entry {
                project: projects.of(&session),
                session,
            })
            .collect(),
    }
}

/// Lists each source, and waits for all: one outcome a source, in order.
#[must_use]
pub fn list(sources: &[Reached], request: impl Fn(&Source) -> ListRequest + Sync) -> Vec<Outcome> {
    at_once(
        sources,
        |reached| reached.lister.list(&request(&reached.source)),
        |why| Outcome::Broken(Broke::NoThread(why).into()),
    )
}

/// Does `ask` for each source on a thread of its own, and waits for all. The thread
/// that launches a helper must outlive it.
fn at_once<T: Send>(
    sources: &[Reached],
    ask: impl Fn(&Reached) -> T + Sync,
    failed: impl Fn(String) -> T,
) -> Vec<T> {
    let ask = &ask;
    thread::scope(|scope| {
        let threads = sources.iter().map(|reached| {
            thread::Builder::new()
                .name("asking".into())
                .spawn_scoped(scope, move || ask(reached))
        });
        let threads: Vec<_> = threads.collect();
        let results = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|_| failed("the thread that asked has failed".to_owned())),
            Err(error) => failed(format!("there is no thread to ask with: {error}")),
        });
        results.collect()
    })
}

/// What was found of an id, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookedUp {
    /// What was found.
    #[serde(flatten)]
    pub found: FoundOf,
    /// The source it was found in: of several the one with the newest row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// The others that have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<SourceName>,
}

impl LookedUp {
    /// Found in no source.
    #[must_use]
    pub fn nowhere(found: FoundOf) -> Self {
        Self {
            found,
            source: None,
            also: Vec::new(),
        }
    }
}

/// What is to be looked up.
#[derive(Debug, Clone)]
pub struct LookUpJob {
    /// What is asked of each id.
    pub what: LookUp,
    /// The ids, at most [`limits::IDS`](crate::wire::limits::IDS).
    pub ids: Vec<SessionId>,
    /// How long each source may take.
    pub deadline: Duration,
    /// Ends it early.
    pub cancel: Cancel,
}

impl LookUpJob {
    /// Asks all sources: one answer an id, in order.
    #[must_use]
    pub fn run(&self, sources: &[Reached]) -> Vec<LookedUp> {
        let answers = at_once(
            sources,
            |reached| {
                let request = LookUpRequest {
                    db: reached.source.db(),
                    what: self.what,
                    ids: self.ids.clone(),
                    deadline: self.deadline,
                    cancel: self.cancel.clone(),
                };
                request.answers(&*reached.lister)
            },
            Err,
        );
        let mut answers: Vec<_> = sources
            .iter()
            .zip(answers)
            .map(|(reached, answers)| OfSource {
                name: &reached.source.name,
                is_only: sources.len() == 1,
                projects: reached.projects(),
                answers: answers.map(Vec::into_iter),
            })
            .collect();
        let one = |id| best(id, answers.iter_mut().filter_map(|of| of.next(id)));
        self.ids.iter().map(one).collect()
    }
}

/// The answers of one source, or why there are none.
struct OfSource<'a, I> {
    name: &'a SourceName,
    is_only: bool,
    projects: Projects,
    answers: Result<I, String>,
}

impl<I: Iterator<Item = Answer>> OfSource<'_, I> {
    fn next(&mut self, id: &SessionId) -> Option<(&SourceName, FoundOf)> {
        let found = match &mut self.answers {
            Ok(answers) => FoundOf::answer(answers.next()?, &mut self.projects),
            Err(why) => FoundOf::Failed {
                id: id.clone(),
                message: match self.is_only {
                    true => why.clone(),
                    false => format!("{}: {}", self.name, one_line(why)),
                },
            },
        };
        Some((self.name, found))
    }
}

/// Of what the sources say of one id what says most, and which have it.
fn best<'a>(
    id: &SessionId,
    of_sources: impl Iterator<Item = (&'a SourceName, FoundOf)>,
) -> LookedUp {
    let mut best: Option<LookedUp> = None;
    for (name, found) in of_sources {
        let is_there = rank(&found) >= IN_A_SOURCE;
        let new = LookedUp {
            source: is_there.then(|| name.clone()),
            found,
            also: Vec::new(),
        };
        best = Some(match best {
            None => new,
            Some(old) => {
                let (mut best, other) = match is_better(&new.found, &old.found) {
                    true => (new, old),
                    false => (old, new),
                };
                best.also.extend(other.also);
                best.also.extend(other.source);
                best
            }
        });
    }
    best.unwrap_or_else(|| {
        LookedUp::nowhere(FoundOf::Failed {
            id: id.clone(),
            message: "there are no sources".to_owned(),
        })
    })
}

/// How much it says: what was found more than that nobody could look, and that more
/// than that there is none elsewhere.
fn rank(found: &FoundOf) -> u8 {
    match found {
        FoundOf::Answer(Answer::Session(_) | Answer::Root { .. }) => 3,
        FoundOf::Answer(Answer::Unresolved { reason, .. }) if *reason != Unresolved::Absent => {
            IN_A_SOURCE
        }
        FoundOf::Failed { .. } => 1,
        FoundOf::Answer(Answer::Absent { .. } | Answer::Unresolved { .. }) => 0,
    }
}

/// From this rank on the session is in the source.
const IN_A_SOURCE: u8 = 2;

/// Of two sessions the newer one.
fn is_better(found: &FoundOf, than: &FoundOf) -> bool {
    use Answer::Session;
    match (found, than) {
        (FoundOf::Answer(Session(found)), FoundOf::Answer(Session(than))) => {
            found.session.time_updated > than.session.time_updated
        }
        _ => rank(found) > rank(than),
    }
}
