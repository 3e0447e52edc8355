//! Looking sessions up in several sources: what one of them knows counts more than that
//! another could not be asked, and that more than that a third has no such session.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;

use super::{Reached, at_once, why_another_programs, why_empty};
use crate::lister::{Cancel, LookUpRequest, Outcome, until};
use crate::output::FoundOf;
use crate::project::Projects;
use crate::session::{Millis, SessionId};
use crate::source::{Place, SourceName};
use crate::text::one_line;
use crate::wire::{Answer, DatabaseState, LookUp, Unresolved, limits};

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
    /// Asks all sources: one answer an id, in order, also where something panics.
    #[must_use]
    pub fn run(&self, sources: &[Asked]) -> Vec<LookedUp> {
        let answers = catch_unwind(AssertUnwindSafe(|| self.ask_all(sources)));
        answers.unwrap_or_else(|_| {
            let failed = |id: &SessionId| {
                LookedUp::nowhere(FoundOf::Failed {
                    id: id.clone(),
                    message: "the thread that looked has failed".to_owned(),
                })
            };
            self.ids.iter().map(failed).collect()
        })
    }

    fn ask_all(&self, sources: &[Asked]) -> Vec<LookedUp> {
        let (until, now) = (until(self.deadline), Millis::now());
        let answers = at_once(sources, |asked| self.ask(asked), Err);
        let mut answers: Vec<_> = sources
            .iter()
            .zip(answers)
            .map(|(Asked { reached, .. }, answers)| {
                let projects = reached.projects();
                let found = answers.iter().flatten().filter_map(|answer| match answer {
                    Answer::Session(session) => Some(&**session),
                    _ => None,
                });
                projects.look(found, until);
                OfSource {
                    name: &reached.source.name,
                    is_only: sources.len() == 1,
                    place: &reached.source.place,
                    now,
                    projects,
                    answers: answers.map(Vec::into_iter),
                }
            })
            .collect();
        let one = |id| best(id, answers.iter_mut().filter_map(|of| of.next(id)));
        self.ids.iter().map(one).collect()
    }

    /// The answers of one source, or why nobody could look there, for people. Where there
    /// is no database nobody can say that there is no such session.
    fn ask(&self, Asked { reached, given_up }: &Asked) -> Result<Vec<Answer>, String> {
        if let Some(why) = given_up {
            return Err(why.clone());
        }
        let outcome = reached.lister.look_up(&LookUpRequest {
            db: reached.source.db(),
            what: self.what,
            ids: self.ids.clone(),
            deadline: self.deadline,
            first_prompt_limit: limits::FIRST_PROMPT,
            cancel: self.cancel.clone(),
        });
        let answers = match outcome {
            Outcome::Complete(answers) => answers,
            failed => return Err(failed.to_string()),
        };
        if let Some(why) = why_another_programs(&reached.source, &answers.end.other_tables) {
            return Err(why);
        }
        match answers.end.database {
            DatabaseState::Ready | DatabaseState::Empty => Ok(answers.answers),
            state @ (DatabaseState::Missing | DatabaseState::Young) => {
                Err(why_empty(&reached.source, state).unwrap_or_default())
            }
        }
    }
}

/// The answers of one source, or why there are none.
struct OfSource<'a, I> {
    name: &'a SourceName,
    is_only: bool,
    place: &'a Place,
    now: Millis,
    projects: Projects,
    answers: Result<I, String>,
}

impl<I: Iterator<Item = Answer>> OfSource<'_, I> {
    /// What it says of the id, and whether the time of that counts against other sources.
    fn next(&mut self, id: &SessionId) -> Option<(&SourceName, FoundOf, bool)> {
        let found = match &mut self.answers {
            Ok(answers) => FoundOf::answer(answers.next()?, &self.projects),
            Err(why) => FoundOf::Failed {
                id: id.clone(),
                message: match self.is_only {
                    true => why.clone(),
                    false => format!("{}: {}", self.name, one_line(why)),
                },
            },
        };
        let is_credible = match &found {
            FoundOf::Answer(Answer::Session(entry)) => {
                self.place.is_credible(entry.session.time_updated, self.now)
            }
            _ => true,
        };
        Some((self.name, found, is_credible))
    }
}

/// Of what the sources say of one id what says most, and which have it.
fn best<'a>(
    id: &SessionId,
    of_sources: impl Iterator<Item = (&'a SourceName, FoundOf, bool)>,
) -> LookedUp {
    let mut best: Option<LookedUp> = None;
    let mut is_best_credible = true;
    for (name, found, is_credible) in of_sources {
        let is_there = rank(&found) >= IN_A_SOURCE;
        let new = LookedUp {
            source: is_there.then(|| name.clone()),
            found,
            also: Vec::new(),
        };
        best = Some(match best {
            None => {
                is_best_credible = is_credible;
                new
            }
            Some(old) => {
                let is_new_better =
                    is_better((&new.found, is_credible), (&old.found, is_best_credible));
                let (mut best, other) = match is_new_better {
                    true => (new, old),
                    false => (old, new),
                };
                if is_new_better {
                    is_best_credible = is_credible;
                }
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

/// Of two sessions the newer one, as far as its time is credible.
fn is_better(
    (found, is_credible): (&FoundOf, bool),
    (than, was_credible): (&FoundOf, bool),
) -> bool {
    use Answer::Session;
    match (found, than) {
        (FoundOf::Answer(Session(found)), FoundOf::Answer(Session(than))) => {
            (is_credible, found.session.time_updated) > (was_credible, than.session.time_updated)
        }
        _ => rank(found) > rank(than),
    }
}
