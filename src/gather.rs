//! Asking several sources at once, each with a lister and a deadline of its own: it
//! takes as long as the slowest, and none speaks for another.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::index::Found;
use crate::lister::{Broke, Cancel, ListRequest, Lister, LookUpRequest, Outcome};
use crate::locate;
use crate::output::{Entry, FoundOf};
use crate::project::Projects;
use crate::session::SessionId;
use crate::source::{Place, Source, SourceName};
use crate::text::{Shown, one_line};
use crate::wire::{Answer, DatabaseState, Listing, LookUp, Unresolved};

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

/// Whether so many sources are to list archived sessions, too, also where these are not
/// shown: that a session is archived hides its older copies in other sources.
#[must_use]
pub fn lists_archived(sources: usize) -> bool {
    sources > 1
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
fn at_once<S: Sync, T: Send>(
    sources: &[S],
    ask: impl Fn(&S) -> T + Sync,
    failed: impl Fn(String) -> T,
) -> Vec<T> {
    let ask = &ask;
    thread::scope(|scope| {
        let threads = sources.iter().map(|source| {
            thread::Builder::new()
                .name("asking".into())
                .spawn_scoped(scope, move || ask(source))
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

/// What to say where sessions are, but not in a database.
pub const OLD_STORE: &str = "there are sessions of OpenCode 1.1 or earlier beside it, in \
     storage/session: starting OpenCode 1.2 to 1.15 imports them";

/// Why a source whose database is in this state has no sessions, for people, with the
/// way out; `None` where it can have some.
#[must_use]
pub fn why_empty(source: &Source, state: DatabaseState) -> Option<String> {
    let (database, none, elsewhere) = match &source.place {
        Place::Database(path) => {
            let path_shown = Shown(path);
            (
                format!("the database at {path_shown}"),
                format!("there is no database at {path_shown}"),
                "has OpenCode been run? Name another with --db, or in the configuration",
            )
        }
        Place::Remote(_) => (
            format!("the database of {}", source.name),
            format!("{} has no database", source.name),
            "has OpenCode been run there? Name another with `db` in the configuration",
        ),
    };
    let has_old_store = || match &source.place {
        Place::Database(path) => locate::has_old_store(path),
        Place::Remote(_) => false,
    };
    match state {
        DatabaseState::Ready => None,
        DatabaseState::Missing if has_old_store() => Some(format!("{none}; {OLD_STORE}")),
        DatabaseState::Missing => Some(format!("{none}; {elsewhere}")),
        DatabaseState::Empty if has_old_store() => {
            Some(format!("{database} has no sessions yet; {OLD_STORE}"))
        }
        DatabaseState::Empty => Some(format!("{database} has no sessions yet")),
        DatabaseState::Young => Some(format!(
            "{database} is just being made or restored; try again in a second"
        )),
    }
}

/// What was found of an id, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookedUp {
    /// What was found.
    #[serde(flatten)]
    pub found: FoundOf,
    /// The source it was found in: of several the one with the newest row, and for a root
    /// the first.
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

/// A source to look in.
#[derive(Clone)]
pub struct Asked {
    /// The source.
    pub reached: Reached,
    /// Why it is not asked, where it is known not to answer.
    pub given_up: Option<String>,
}

impl From<Reached> for Asked {
    fn from(reached: Reached) -> Self {
        Self {
            reached,
            given_up: None,
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
    pub fn run(&self, sources: &[Asked]) -> Vec<LookedUp> {
        let answers = at_once(sources, |asked| self.ask(asked), Err);
        let found_any = answers.iter().any(|answers| matches!(answers, Ok(Some(_))));
        let mut answers: Vec<_> = sources
            .iter()
            .zip(answers)
            .map(|(Asked { reached, .. }, answers)| OfSource {
                name: &reached.source.name,
                is_only: sources.len() == 1,
                projects: reached.projects(),
                answers: match answers {
                    Ok(Some(answers)) => Ok(answers.into_iter()),
                    // Where others have one it is no reason to doubt their word.
                    Ok(None) if found_any => Ok(Vec::new().into_iter()),
                    Ok(None) => {
                        Err(why_empty(&reached.source, DatabaseState::Missing).unwrap_or_default())
                    }
                    Err(why) => Err(why),
                },
            })
            .collect();
        let one = |id| best(id, answers.iter_mut().filter_map(|of| of.next(id)));
        self.ids.iter().map(one).collect()
    }

    /// The answers of one source; nothing where it has no database.
    fn ask(&self, Asked { reached, given_up }: &Asked) -> Result<Option<Vec<Answer>>, String> {
        if let Some(why) = given_up {
            return Err(why.clone());
        }
        let outcome = reached.lister.look_up(&LookUpRequest {
            db: reached.source.db(),
            what: self.what,
            ids: self.ids.clone(),
            deadline: self.deadline,
            cancel: self.cancel.clone(),
        });
        let answers = match outcome {
            Outcome::Complete(answers) => answers,
            failed => return Err(failed.to_string()),
        };
        match answers.end.database {
            DatabaseState::Ready | DatabaseState::Empty => Ok(Some(answers.answers)),
            DatabaseState::Missing => Ok(None),
            state @ DatabaseState::Young => {
                Err(why_empty(&reached.source, state).unwrap_or_default())
            }
        }
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
                if let (FoundOf::Failed { message, .. }, FoundOf::Failed { message: more, .. }) =
                    (&mut best.found, &other.found)
                {
                    message.push_str("; ");
                    message.push_str(more);
                }
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
