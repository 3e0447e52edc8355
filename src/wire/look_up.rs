//! Look-ups: one answer line per id, in the order of the request.
//!
//! | request | line | meaning |
//! | --- | --- | --- |
//! | `get` | `session` | the session, even if it is archived, a child or without a directory |
//! | | `absent` | no session has this id |
//! | `roots` | `root` | the topmost ancestor of the session, or the session itself |
//! | | `unresolved` | the session has no root; the line says why |
//!
//! The last line is an `end` that counts the answers, or an `error`: the look-up failed.

use serde::{Deserialize, Serialize};

use super::listing::{check_other_tables, check_session};
use super::violation::{invalid, overlong_text};
use super::{Content, DatabaseState, Hello, HelperError, LineKind, Violation, limits};
use crate::session::{Session, SessionId};
use crate::strict;

/// The kind of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookUp {
    /// Finds the sessions themselves.
    Get,
    /// Finds the topmost ancestors of the sessions.
    Roots,
}

/// The answer for one requested id. `S` is the type of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Answer<S = Session> {
    /// The session with this id.
    Session(Box<S>),
    /// No session has this id.
    Absent {
        /// The requested id.
        id: SessionId,
    },
    /// The topmost ancestor of the session.
    Root {
        /// The requested id.
        id: SessionId,
        /// The id of the root; equals `id` if the session has no parent.
        root: SessionId,
        /// The working directory of the requested session.
        directory: Option<String>,
    },
    /// The session has no root.
    Unresolved {
        /// The requested id.
        id: SessionId,
        /// Why it has none.
        reason: Unresolved,
    },
}

/// Why a session has no root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Unresolved {
    /// No session has this id.
    Absent,
    /// The chain of parents contains a cycle.
    Cycle,
    /// An ancestor of the session is missing.
    Orphan,
}

impl Answer {
    /// Returns the requested id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        match self {
            Self::Session(session) => &session.id,
            Self::Absent { id } | Self::Root { id, .. } | Self::Unresolved { id, .. } => id,
        }
    }

    /// Applies `f` to the session of the answer, if it has one.
    pub fn map<T>(self, f: impl FnOnce(Session) -> T) -> Answer<T> {
        match self {
            Self::Session(session) => Answer::Session(Box::new(f(*session))),
            Self::Absent { id } => Answer::Absent { id },
            Self::Root {
                id,
                root,
                directory,
            } => Answer::Root {
                id,
                root,
                directory,
            },
            Self::Unresolved { id, reason } => Answer::Unresolved { id, reason },
        }
    }

    /// Returns true if a look-up of this kind can have this answer.
    fn matches(&self, what: LookUp) -> bool {
        matches!(
            (self, what),
            (Self::Session(_) | Self::Absent { .. }, LookUp::Get)
                | (Self::Root { .. } | Self::Unresolved { .. }, LookUp::Roots)
        )
    }
}

/// The last line of a complete look-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "end", rename_all = "camelCase")]
pub struct AnswersEnd {
    /// The number of answers before this line.
    pub answers: u64,
    /// The state of the database.
    #[serde(deserialize_with = "strict::name")]
    pub database: DatabaseState,
    /// As [`End::other_tables`](super::End::other_tables).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_tables: Vec<String>,
    /// How long the look-up took, in milliseconds.
    pub elapsed_ms: u64,
}

/// One line of a look-up's output.
///
/// It repeats the variants of [`Answer`]: with an untagged variant serde would lose the
/// reason why a line is invalid.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum AnswerLine {
    /// The first line.
    Hello(Hello),
    /// The last line.
    End(AnswersEnd),
    /// The last line of a failed look-up.
    Error(HelperError),
    /// [`Answer::Session`].
    Session(Box<Session>),
    /// [`Answer::Absent`].
    Absent {
        /// The requested id.
        id: SessionId,
    },
    /// [`Answer::Root`].
    Root {
        /// The requested id.
        id: SessionId,
        /// The id of its root.
        root: SessionId,
        /// Its working directory; absent in the output of older helpers.
        #[serde(default)]
        directory: Option<String>,
    },
    /// [`Answer::Unresolved`].
    Unresolved {
        /// The requested id.
        id: SessionId,
        /// Why it has no root.
        #[serde(deserialize_with = "strict::name")]
        reason: Unresolved,
    },
}

/// The answers of one look-up.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// One answer per requested id, in the order of the request.
    pub answers: Vec<Answer>,
    /// The helper's last line.
    pub end: AnswersEnd,
}

/// Collects and checks the answers of one look-up.
#[derive(Debug)]
pub struct LookUpContent {
    what: LookUp,
    ids: Vec<SessionId>,
    first_prompt_limit: usize,
    answers: Vec<Answer>,
}

impl LookUpContent {
    /// Creates the content for a look-up of these ids.
    #[must_use]
    pub fn new(what: LookUp, ids: &[SessionId]) -> Self {
        Self {
            what,
            ids: ids.to_vec(),
            first_prompt_limit: limits::FIRST_PROMPT,
            answers: Vec::new(),
        }
    }

    /// Sets the request's limit for first prompts, in characters.
    #[must_use]
    pub fn with_first_prompt_limit(self, first_prompt_limit: usize) -> Self {
        Self {
            first_prompt_limit,
            ..self
        }
    }

    fn answer(&mut self, answer: Answer, at: usize) -> Result<LineKind<AnswersEnd>, Violation> {
        if self.ids.get(self.answers.len()) != Some(answer.id()) {
            return Err(invalid(at, "its id was not requested, or is out of order"));
        }
        if !answer.matches(self.what) {
            return Err(invalid(at, "it answers another kind of look-up"));
        }
        match &answer {
            Answer::Session(session) => check_session(session, self.first_prompt_limit, at)?,
            Answer::Root {
                directory: Some(directory),
                ..
            } if directory.len() > limits::TEXT => {
                return Err(overlong_text(at, "directory"));
            }
            Answer::Root { .. } | Answer::Absent { .. } | Answer::Unresolved { .. } => {}
        }
        self.answers.push(answer);
        Ok(LineKind::More)
    }
}

impl Content for LookUpContent {
    type Line = AnswerLine;
    type End = AnswersEnd;
    type Whole = Answers;

    const KNOWN: &'static [&'static str] = &[
        "hello",
        "session",
        "absent",
        "root",
        "unresolved",
        "end",
        "error",
    ];

    fn take(
        &mut self,
        line: AnswerLine,
        _bytes: &[u8],
        at: usize,
    ) -> Result<LineKind<AnswersEnd>, Violation> {
        let answer = match line {
            AnswerLine::Hello(_) => return Ok(LineKind::Hello),
            AnswerLine::Error(failure) => return Ok(LineKind::Error(failure)),
            AnswerLine::Session(session) => Answer::Session(session),
            AnswerLine::Absent { id } => Answer::Absent { id },
            AnswerLine::Root {
                id,
                root,
                directory,
            } => Answer::Root {
                id,
                root,
                directory,
            },
            AnswerLine::Unresolved { id, reason } => Answer::Unresolved { id, reason },
            AnswerLine::End(end) => {
                let got = self.answers.len() as u64;
                if end.answers != got {
                    let said = end.answers;
                    return Err(Violation::WrongCount { got, said });
                }
                if self.answers.len() < self.ids.len() {
                    return Err(invalid(at, "answers to some requested ids are missing"));
                }
                check_other_tables(&end.other_tables, at)?;
                return Ok(LineKind::End(end));
            }
        };
        self.answer(answer, at)
    }

    fn count(&self) -> usize {
        self.answers.len()
    }

    fn whole(self, end: AnswersEnd, _: String, _: u64) -> Answers {
        Answers {
            answers: self.answers,
            end,
        }
    }
}
