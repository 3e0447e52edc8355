//! Looking sessions up: one line an id, in the order in which they were asked for.
//!
//! | asked | a line | means |
//! | --- | --- | --- |
//! | `get` | `session` | this is it, whatever it is: archived, a child, without a directory |
//! | | `absent` | there is no such session |
//! | `roots` | `root` | the session at the top of this one's parents, or itself |
//! | | `unresolved` | there is none, and why |
//!
//! Then an `end` that counts the answers, or an `error`: nothing could be looked up.

use serde::{Deserialize, Serialize};

use super::listing::{check_other_tables, check_session};
use super::violation::{invalid, overlong_text};
use super::{Content, DatabaseState, Hello, HelperError, LineKind, Violation, limits};
use crate::session::{Session, SessionId};
use crate::strict;

/// What is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookUp {
    /// The sessions themselves.
    Get,
    /// The sessions at the top of their parents.
    Roots,
}

/// What is known of one id; of a session, what `S` holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Answer<S = Session> {
    /// It is this session.
    Session(Box<S>),
    /// There is no such session.
    Absent {
        /// The id that was asked for.
        id: SessionId,
    },
    /// The session at the top of its parents.
    Root {
        /// The id that was asked for.
        id: SessionId,
        /// That one's; the same where it has no parent.
        root: SessionId,
        /// The working directory of the session that was asked for.
        directory: Option<String>,
    },
    /// It has none.
    Unresolved {
        /// The id that was asked for.
        id: SessionId,
        /// Why.
        reason: Unresolved,
    },
}

/// Why a session has no root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unresolved {
    /// There is no such session.
    Absent,
    /// It is among its own parents.
    Cycle,
    /// One of its parents is missing.
    Orphan,
}

impl Answer {
    /// The id that was asked for.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        match self {
            Self::Session(session) => &session.id,
            Self::Absent { id } | Self::Root { id, .. } | Self::Unresolved { id, .. } => id,
        }
    }

    /// The answer with what `of` makes of its session.
    pub fn map<T>(self, of: impl FnOnce(Session) -> T) -> Answer<T> {
        match self {
            Self::Session(session) => Answer::Session(Box::new(of(*session))),
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

    fn is_to(&self, what: LookUp) -> bool {
        matches!(
            (self, what),
            (Self::Session(_) | Self::Absent { .. }, LookUp::Get)
                | (Self::Root { .. } | Self::Unresolved { .. }, LookUp::Roots)
        )
    }
}

/// The last line, after all answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "end", rename_all = "camelCase")]
pub struct AnswersEnd {
    /// How many answers came before.
    pub answers: u64,
    /// What was found where the database should be.
    #[serde(deserialize_with = "strict::name")]
    pub database: DatabaseState,
    /// As [`End::other_tables`](super::End::other_tables).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_tables: Vec<String>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// One line of an output with answers. The answers are spelled out: an untagged
/// variant would lose what is wrong with a line.
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
        /// The id that was asked for.
        id: SessionId,
    },
    /// [`Answer::Root`].
    Root {
        /// The id that was asked for.
        id: SessionId,
        /// The id of its root.
        root: SessionId,
        /// Its working directory; absent in the output of older helpers.
        #[serde(default)]
        directory: Option<String>,
    },
    /// [`Answer::Unresolved`].
    Unresolved {
        /// The id that was asked for.
        id: SessionId,
        /// Why it has no root.
        #[serde(deserialize_with = "strict::name")]
        reason: Unresolved,
    },
}

/// The answers of one look-up.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// One for each id, in the order in which they were asked for.
    pub answers: Vec<Answer>,
    /// What the helper said about them.
    pub end: AnswersEnd,
}

/// The content of an output with answers to these.
#[derive(Debug)]
pub struct LookUpContent {
    what: LookUp,
    ids: Vec<SessionId>,
    first_prompt_limit: usize,
    answers: Vec<Answer>,
}

impl LookUpContent {
    /// What was asked for.
    #[must_use]
    pub fn new(what: LookUp, ids: &[SessionId]) -> Self {
        Self {
            what,
            ids: ids.to_vec(),
            first_prompt_limit: limits::FIRST_PROMPT,
            answers: Vec::new(),
        }
    }

    /// With the limit for first prompts that the request names, in characters.
    #[must_use]
    pub fn first_prompt_limit(self, first_prompt_limit: usize) -> Self {
        Self {
            first_prompt_limit,
            ..self
        }
    }

    fn answer(&mut self, answer: Answer, at: usize) -> Result<LineKind<AnswersEnd>, Violation> {
        if self.ids.get(self.answers.len()) != Some(answer.id()) {
            return Err(invalid(
                at,
                "it answers what was not asked, or not in order",
            ));
        }
        if !answer.is_to(self.what) {
            return Err(invalid(at, "it answers another question"));
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

    fn take(&mut self, line: AnswerLine, at: usize) -> Result<LineKind<AnswersEnd>, Violation> {
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
                    return Err(invalid(at, "it did not answer all that was asked"));
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
