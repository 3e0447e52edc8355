//! Looking sessions up in several sources: what one of them knows counts more than that
//! another could not be asked, and that more than that a third has no such session.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;

use super::{LookUpResult, SourceLister, at_once, why_another_programs, why_empty};
use crate::lister::{Cancel, LookUpRequest, Outcome, until};
use crate::project::Projects;
use crate::session::{Millis, SessionId, SessionPlace};
use crate::source::{Place, SourceName};
use crate::text::one_line;
use crate::wire::{Answer, DatabaseState, LookUp, Unresolved, limits};

/// What was found of an id, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookedUp {
    /// What was found.
    #[serde(flatten)]
    pub found: LookUpResult,
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
    pub fn nowhere(found: LookUpResult) -> Self {
        Self {
            found,
            source: None,
            also: Vec::new(),
        }
    }
}

/// A source to look in.
#[derive(Clone)]
pub struct LookUpSource {
    /// The source.
    pub source_lister: SourceLister,
    /// Why it is not asked, where it is known not to answer.
    pub skip_reason: Option<String>,
}

impl From<SourceLister> for LookUpSource {
    fn from(source_lister: SourceLister) -> Self {
        Self {
            source_lister,
            skip_reason: None,
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
    pub fn run(&self, sources: &[LookUpSource]) -> Vec<LookedUp> {
        let answers = catch_unwind(AssertUnwindSafe(|| self.ask_all(sources)));
        answers.unwrap_or_else(|_| {
            let failed = |id: &SessionId| {
                LookedUp::nowhere(LookUpResult::Failed {
                    id: id.clone(),
                    message: "the thread that looked has failed".to_owned(),
                })
            };
            self.ids.iter().map(failed).collect()
        })
    }

    fn ask_all(&self, sources: &[LookUpSource]) -> Vec<LookedUp> {
        let (until, now) = (until(self.deadline), Millis::now());
        let answers = at_once(sources, |asked| self.ask(asked), Err);
        let mut answers: Vec<_> = sources
            .iter()
            .zip(answers)
            .map(|(LookUpSource { source_lister, .. }, answers)| {
                let projects = source_lister.projects();
                let found = answers.iter().flatten().filter_map(|answer| match answer {
                    Answer::Session(session) => Some(SessionPlace::of(session)),
                    _ => None,
                });
                let found: Vec<_> = found.collect();
                projects.resolve(&found, until);
                OfSource {
                    name: &source_lister.source.name,
                    is_only: sources.len() == 1,
                    place: &source_lister.source.place,
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
    fn ask(
        &self,
        LookUpSource {
            source_lister,
            skip_reason,
        }: &LookUpSource,
    ) -> Result<Vec<Answer>, String> {
        if let Some(why) = skip_reason {
            return Err(why.clone());
        }
        let outcome = source_lister.lister.look_up(&LookUpRequest {
            db: source_lister.source.db(),
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
        if let Some(why) = why_another_programs(&source_lister.source, &answers.end.other_tables) {
            return Err(why);
        }
        match answers.end.database {
            DatabaseState::Ready | DatabaseState::Empty => Ok(answers.answers),
            state @ (DatabaseState::Missing | DatabaseState::Young) => {
                Err(why_empty(&source_lister.source, state).unwrap_or_default())
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
    fn next(&mut self, id: &SessionId) -> Option<(&SourceName, LookUpResult, bool)> {
        let found = match &mut self.answers {
            Ok(answers) => LookUpResult::answer(answers.next()?, &self.projects),
            Err(why) => LookUpResult::Failed {
                id: id.clone(),
                message: match self.is_only {
                    true => why.clone(),
                    false => format!("{}: {}", self.name, one_line(why)),
                },
            },
        };
        let is_credible = match &found {
            LookUpResult::Answer(Answer::Session(entry)) => {
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
    of_sources: impl Iterator<Item = (&'a SourceName, LookUpResult, bool)>,
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
                if let (
                    LookUpResult::Failed { message, .. },
                    LookUpResult::Failed { message: more, .. },
                ) = (&mut best.found, &other.found)
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
        LookedUp::nowhere(LookUpResult::Failed {
            id: id.clone(),
            message: "there are no sources".to_owned(),
        })
    })
}

/// How much it says: what was found more than that nobody could look, and that more
/// than that there is none elsewhere.
fn rank(found: &LookUpResult) -> u8 {
    match found {
        LookUpResult::Answer(Answer::Session(_) | Answer::Root { .. }) => 3,
        LookUpResult::Answer(Answer::Unresolved { reason, .. })
            if *reason != Unresolved::Absent =>
        {
            IN_A_SOURCE
        }
        LookUpResult::Failed { .. } => 1,
        LookUpResult::Answer(Answer::Absent { .. } | Answer::Unresolved { .. }) => 0,
    }
}

/// From this rank on the session is in the source.
const IN_A_SOURCE: u8 = 2;

/// Of two sessions the newer one, as far as its time is credible.
fn is_better(
    (found, is_credible): (&LookUpResult, bool),
    (than, was_credible): (&LookUpResult, bool),
) -> bool {
    use Answer::Session;
    match (found, than) {
        (LookUpResult::Answer(Session(found)), LookUpResult::Answer(Session(than))) => {
            (is_credible, found.session.time_updated) > (was_credible, than.session.time_updated)
        }
        _ => rank(found) > rank(than),
    }
}
