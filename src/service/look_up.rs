//! Looking sessions up in all sources at once, on a thread of its own for each
//! look-up: as long as the slowest source takes, up to its deadline.

use std::sync::Arc;
use std::thread;

use serde::Serialize;

use crate::lister::{Cancel, Lister, LookUpRequest};
use crate::output::FoundOf;
use crate::project::Projects;
use crate::session::SessionId;
use crate::source::{Source, SourceName};
use crate::text::one_line;
use crate::wire::{Answer, LookUp, Unresolved, limits};

/// So many at once; each launches a helper for every source.
pub(super) const MOST: usize = 8;

/// What was found of an id, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookedUp {
    /// What was found.
    #[serde(flatten)]
    pub found: FoundOf,
    /// The source it was found in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
}

/// One look-up.
pub(super) struct Job {
    pub(super) what: LookUp,
    pub(super) ids: Vec<SessionId>,
    pub(super) sources: Vec<(Source, Arc<dyn Lister + Send + Sync>)>,
    pub(super) cancel: Cancel,
}

/// What is wrong with a request for these.
pub(super) fn check(ids: &[SessionId]) -> Result<(), String> {
    match ids.len() {
        1..=limits::IDS => Ok(()),
        count => Err(format!("1 to {} ids at once, not {count}", limits::IDS)),
    }
}

impl Job {
    /// Asks all sources and waits for them.
    pub(super) fn run(&self) -> Vec<LookedUp> {
        let by_source: Vec<_> = thread::scope(|scope| {
            let asked = self.sources.iter().map(|(source, lister)| {
                let request = LookUpRequest {
                    cancel: self.cancel.clone(),
                    ..LookUpRequest::of(&source.path, self.what, self.ids.clone())
                };
                // The thread that launches a helper must outlive it.
                let thread = thread::Builder::new()
                    .name("look-up".into())
                    .spawn_scoped(scope, move || request.answers(&**lister));
                (source, thread)
            });
            let asked: Vec<_> = asked.collect();
            let answers = asked.into_iter().map(|(source, thread)| {
                let answers = match thread {
                    Ok(thread) => thread
                        .join()
                        .unwrap_or_else(|_| Err("the thread that looked has failed".to_owned())),
                    Err(error) => Err(format!("no thread to look with: {error}")),
                };
                (source, answers.map(Vec::into_iter))
            });
            answers.collect()
        });
        self.merge(by_source)
    }

    fn merge(
        &self,
        mut by_source: Vec<(&Source, Result<impl Iterator<Item = Answer>, String>)>,
    ) -> Vec<LookedUp> {
        let mut projects = Projects::new();
        let merged = self.ids.iter().map(|id| {
            let mut best: Option<LookedUp> = None;
            for (source, answers) in &mut by_source {
                let found = match answers {
                    Ok(answers) => answers
                        .next()
                        .map(|answer| FoundOf::answer(answer, &mut projects)),
                    Err(why) => Some(FoundOf::Failed {
                        id: id.clone(),
                        message: format!("{}: {}", source.name, one_line(why)),
                    }),
                };
                let Some(found) = found else { continue };
                if best
                    .as_ref()
                    .is_none_or(|best| is_better(&found, &best.found))
                {
                    let is_there = rank(&found) >= IN_A_SOURCE;
                    best = Some(LookedUp {
                        source: is_there.then(|| source.name.clone()),
                        found,
                    });
                }
            }
            best.unwrap_or_else(|| LookedUp {
                found: FoundOf::Failed {
                    id: id.clone(),
                    message: "there are no sources".to_owned(),
                },
                source: None,
            })
        });
        merged.collect()
    }
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
