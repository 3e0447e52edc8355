//! Looks sessions up in several sources. A source that has the session decides; otherwise the
//! failure of a source hides that the others do not have it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;

use super::{LookUpResult, SourceLister, empty_message, for_each_source, foreign_database_message};
use crate::lister::{Cancel, LookUpRequest, Outcome, until};
use crate::project::Projects;
use crate::session::{Millis, SessionId, SessionPlace};
use crate::source::{Place, SourceName};
use crate::text::one_line;
use crate::wire::{Answer, DatabaseState, LookUp, Unresolved, limits};

/// The result for one id, and the sources that have the session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookedUp {
    /// The result.
    #[serde(flatten)]
    pub result: LookUpResult,
    /// The source that the result is from. If several have the session, the one with the
    /// newest row, or for a root the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// The other sources that have the session.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<SourceName>,
}

impl LookedUp {
    /// Creates the result of an id that no source has.
    #[must_use]
    pub fn in_no_source(result: LookUpResult) -> Self {
        Self {
            result,
            source: None,
            also: Vec::new(),
        }
    }
}

/// A source to look in.
#[derive(Clone)]
pub struct LookUpSource {
    /// The source and its lister.
    pub source_lister: SourceLister,
    /// Why the source is not asked, for people; `None` if it is asked.
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

/// One look-up to run.
#[derive(Debug, Clone)]
pub struct LookUpJob {
    /// What to look up for each id.
    pub what: LookUp,
    /// The ids, at most [`limits::IDS`].
    pub ids: Vec<SessionId>,
    /// The time limit for each source.
    pub deadline: Duration,
    /// Cancels the look-up.
    pub cancel: Cancel,
}

impl LookUpJob {
    /// Asks all sources. Returns one result for each id, in order; if a thread panics, a
    /// failure.
    #[must_use]
    pub fn run(&self, sources: &[LookUpSource]) -> Vec<LookedUp> {
        let results = catch_unwind(AssertUnwindSafe(|| self.ask_all(sources)));
        results.unwrap_or_else(|_| {
            let failed = |id: &SessionId| {
                LookedUp::in_no_source(LookUpResult::Failed {
                    id: id.clone(),
                    message: "the thread of the look-up has panicked".to_owned(),
                })
            };
            self.ids.iter().map(failed).collect()
        })
    }

    fn ask_all(&self, sources: &[LookUpSource]) -> Vec<LookedUp> {
        let (until, now) = (until(self.deadline), Millis::now());
        let answers = for_each_source(sources, |source| self.ask(source), Err);
        let mut answers: Vec<_> = sources
            .iter()
            .zip(answers)
            .map(|(LookUpSource { source_lister, .. }, answers)| {
                let projects = source_lister.projects();
                let places = answers.iter().flatten().filter_map(|answer| match answer {
                    Answer::Session(session) => Some(SessionPlace::of(session)),
                    _ => None,
                });
                let places: Vec<_> = places.collect();
                projects.resolve(&places, until);
                SourceAnswers {
                    name: &source_lister.source.name,
                    is_only: sources.len() == 1,
                    place: &source_lister.source.place,
                    now,
                    projects,
                    answers: answers.map(Vec::into_iter),
                }
            })
            .collect();
        let looked_up = |id| best(id, answers.iter_mut().filter_map(|one| one.next(id)));
        self.ids.iter().map(looked_up).collect()
    }

    /// Returns the answers of one source, or why it has none, for people. A missing database
    /// is such a failure: it does not say that a session does not exist.
    fn ask(
        &self,
        LookUpSource {
            source_lister,
            skip_reason,
        }: &LookUpSource,
    ) -> Result<Vec<Answer>, String> {
        if let Some(reason) = skip_reason {
            return Err(reason.clone());
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
        let source = &source_lister.source;
        if let Some(message) = foreign_database_message(source, &answers.end.other_tables) {
            return Err(message);
        }
        match answers.end.database {
            DatabaseState::Ready | DatabaseState::Empty => Ok(answers.answers),
            state @ (DatabaseState::Missing | DatabaseState::Young) => {
                Err(empty_message(source, state).unwrap_or_default())
            }
        }
    }
}

/// The answers of one source, or why it has none.
struct SourceAnswers<'a, I> {
    name: &'a SourceName,
    is_only: bool,
    place: &'a Place,
    now: Millis,
    projects: Projects,
    answers: Result<I, String>,
}

/// The result of one source for one id.
struct SourceResult<'a> {
    name: &'a SourceName,
    result: LookUpResult,
    /// Whether the time of the session counts against those of other sources.
    is_credible: bool,
}

impl<'a, I: Iterator<Item = Answer>> SourceAnswers<'a, I> {
    /// Returns the result for `id`, which must be the next of the requested ids.
    fn next(&mut self, id: &SessionId) -> Option<SourceResult<'a>> {
        let result = match &mut self.answers {
            Ok(answers) => LookUpResult::answer(answers.next()?, &self.projects),
            Err(reason) => LookUpResult::Failed {
                id: id.clone(),
                message: match self.is_only {
                    true => reason.clone(),
                    false => format!("{}: {}", self.name, one_line(reason)),
                },
            },
        };
        let is_credible = match &result {
            LookUpResult::Answer(Answer::Session(entry)) => {
                self.place.is_credible(entry.session.time_updated, self.now)
            }
            _ => true,
        };
        Some(SourceResult {
            name: self.name,
            result,
            is_credible,
        })
    }
}

/// Returns the best of the sources' results for one id, with the names of all sources that
/// have the session.
fn best<'a>(id: &SessionId, results: impl Iterator<Item = SourceResult<'a>>) -> LookedUp {
    let mut best: Option<LookedUp> = None;
    let mut is_best_credible = true;
    for SourceResult {
        name,
        result,
        is_credible,
    } in results
    {
        let has_session = rank(&result) >= HAS_SESSION;
        let new = LookedUp {
            source: has_session.then(|| name.clone()),
            result,
            also: Vec::new(),
        };
        best = Some(match best {
            None => {
                is_best_credible = is_credible;
                new
            }
            Some(old) => {
                let is_new_better =
                    is_better((&new.result, is_credible), (&old.result, is_best_credible));
                let (mut best, other) = match is_new_better {
                    true => (new, old),
                    false => (old, new),
                };
                if is_new_better {
                    is_best_credible = is_credible;
                }
                if let (
                    LookUpResult::Failed { message, .. },
                    LookUpResult::Failed { message: other, .. },
                ) = (&mut best.result, &other.result)
                {
                    message.push_str("; ");
                    message.push_str(other);
                }
                best.also.extend(other.also);
                best.also.extend(other.source);
                best
            }
        });
    }
    best.unwrap_or_else(|| {
        LookedUp::in_no_source(LookUpResult::Failed {
            id: id.clone(),
            message: "no sources".to_owned(),
        })
    })
}

/// Returns the rank of a result. A session or a root outranks a session without a root, which
/// outranks a failure, which outranks the absence in another source.
fn rank(result: &LookUpResult) -> u8 {
    match result {
        LookUpResult::Answer(Answer::Session(_) | Answer::Root { .. }) => 3,
        LookUpResult::Answer(Answer::Unresolved { reason, .. })
            if *reason != Unresolved::Absent =>
        {
            HAS_SESSION
        }
        LookUpResult::Failed { .. } => 1,
        LookUpResult::Answer(Answer::Absent { .. } | Answer::Unresolved { .. }) => 0,
    }
}

/// The lowest rank of a source that has the session.
const HAS_SESSION: u8 = 2;

/// Returns true if `result` is better than `other`. Of two sessions the newer one is better; a
/// time that is not credible counts as older than any other.
fn is_better(
    (result, is_credible): (&LookUpResult, bool),
    (other, is_other_credible): (&LookUpResult, bool),
) -> bool {
    use Answer::Session;
    match (result, other) {
        (LookUpResult::Answer(Session(entry)), LookUpResult::Answer(Session(other))) => {
            (is_credible, entry.session.time_updated)
                > (is_other_credible, other.session.time_updated)
        }
        _ => rank(result) > rank(other),
    }
}
