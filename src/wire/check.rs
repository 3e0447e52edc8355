//! The caller's side of the wire: every byte a helper sends is checked here.
//!
//! A helper can be of another version, cut off, confused, or hostile. What
//! [`Checker`] accepts is a listing that is whole and within its limits; for
//! everything else it says which rule was broken. Memory is bounded by the
//! limits, whatever is pushed in.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use super::parse::{LineError, parse};
use super::{Degraded, End, Failure, Hello, Message, OptionalPart, PROTOCOL, VERSION, limits};
use crate::packed::PackedList;
use crate::session::{Session, SessionId};
use crate::text;

/// A complete listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The helper's version.
    pub lister: String,
    /// The sessions, in the helper's order: newest activity first.
    pub sessions: PackedList<Session>,
    /// What the helper said about them.
    pub end: End,
    /// How many bytes it sent.
    pub bytes: u64,
}

/// What a checked output was.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<T = Listing> {
    /// All that was asked for.
    Whole(T),
    /// The helper said that, and why, it failed.
    Refused {
        /// The helper's version.
        lister: String,
        /// Its reason.
        failure: Failure,
    },
}

/// Which rule of the wire an output broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It ended without a line.
    #[error("it printed nothing")]
    NoOutput,
    /// The first line is no `hello`.
    #[error("its first line is no hello but {0}")]
    NoHello(String),
    /// The first line is in UTF-16, which no helper writes; decoded, safe to show.
    #[error("its first line is no hello but UTF-16: {0}")]
    Utf16(String),
    /// It speaks another protocol.
    #[error(
        "it is version {lister} and speaks protocol {theirs}; this is version {VERSION} and \
         speaks protocol {PROTOCOL}: install both programs from one version"
    )]
    Protocol {
        /// Its protocol.
        theirs: u32,
        /// Its version.
        lister: String,
    },
    /// A line has a type that this version does not know.
    #[error(
        "line {line} has the unknown type {name}; it is version {lister}, this is version \
         {VERSION}: install both programs from one version"
    )]
    UnknownType {
        /// The line, from 1.
        line: usize,
        /// The type, as shown to people.
        name: String,
        /// Its version.
        lister: String,
    },
    /// A line is not what it should be.
    #[error("line {line} is not valid: {why}")]
    Invalid {
        /// The line, from 1.
        line: usize,
        /// Why.
        why: String,
    },
    /// Two sessions have one id.
    #[error("line {line} repeats the id {id}")]
    DuplicateId {
        /// The line, from 1.
        line: usize,
        /// The id.
        id: SessionId,
    },
    /// A second `hello`.
    #[error("line {0} is a second hello")]
    SecondHello(usize),
    /// The count of the `end` is not what came.
    #[error("its end counts {said}, but {got} came")]
    WrongCount {
        /// Sessions received.
        got: u64,
        /// Sessions its `end` counts.
        said: u64,
    },
    /// Something follows the last line.
    #[error("it went on after its last line")]
    AfterEnd,
    /// The output stopped before an `end` or an `error`.
    #[error("it stopped after {0} sessions, without an end")]
    NoEnd(usize),
    /// The output stopped within a line.
    #[error("it stopped in the middle of line {0}")]
    PartialLine(usize),
    /// A line is longer than 1 MiB.
    #[error("line {0} is longer than {limit} bytes", limit = limits::LINE)]
    LongLine(usize),
    /// All lines together are larger than so many bytes.
    #[error("its output is larger than {0} bytes")]
    TooMuch(usize),
    /// There are more sessions than a listing may have.
    #[error("it sent more than {limit} sessions", limit = limits::SESSIONS)]
    TooMany,
}

/// How far an output has come, for a message about one that went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No line yet.
    Nothing,
    /// So many sessions.
    Sessions(usize),
    /// The last line is there.
    Complete,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("before its first line"),
            Self::Sessions(1) => f.write_str("after 1 session"),
            Self::Sessions(count) => write!(f, "after {count} sessions"),
            Self::Complete => f.write_str("after its last line"),
        }
    }
}

/// Checks an output as it arrives: a listing, or what else a helper is asked for.
///
/// After the first [`Violation`] the checker is spent: drop it.
#[derive(Debug)]
pub struct Checker<C: Content = Sessions> {
    /// The part of a line whose end has not arrived.
    partial: Vec<u8>,
    /// Bytes so far.
    total: usize,
    /// The most of them that there may be.
    most: usize,
    /// Lines so far.
    lines: usize,
    hello: Option<Hello>,
    content: C,
    last: Option<Last<C::End>>,
}

#[derive(Debug)]
enum Last<E> {
    End(E),
    Error(Failure),
}

/// What an output has between its `hello` and its end, and what its `end` says.
pub trait Content {
    /// One line, after the first.
    type Line: DeserializeOwned;
    /// What its `end` says.
    type End: std::fmt::Debug;
    /// All of it.
    type Whole;

    /// The types of lines.
    const KNOWN: &'static [&'static str];

    /// Takes a line, the `at`th from 1.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    fn take(&mut self, line: Self::Line, at: usize) -> Result<Taken<Self::End>, Violation>;

    /// How much has come.
    fn count(&self) -> usize;

    /// All of it, of a helper of this version, in so many bytes.
    fn whole(self, end: Self::End, lister: String, bytes: u64) -> Self::Whole;
}

/// What a line was.
#[derive(Debug)]
pub enum Taken<E> {
    /// A `hello`.
    Hello,
    /// One of several.
    More,
    /// The `end`.
    End(E),
    /// An `error`.
    Error(Failure),
}

impl<C: Content> Checker<C> {
    /// A checker of this content.
    #[must_use]
    pub fn of(content: C) -> Self {
        Self {
            partial: Vec::new(),
            total: 0,
            most: limits::TOTAL,
            lines: 0,
            hello: None,
            content,
            last: None,
        }
    }

    /// With this limit for all lines together, in bytes.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.total
    }

    /// How far the output has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match (&self.last, &self.hello) {
            (Some(_), _) => Progress::Complete,
            (None, Some(_)) => Progress::Sessions(self.content.count()),
            (None, None) => Progress::Nothing,
        }
    }

    /// Takes the next bytes, cut anywhere.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        self.total += bytes.len();
        if self.total > self.most {
            return Err(Violation::TooMuch(self.most));
        }
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
            let from_line = std::mem::replace(&mut bytes, rest);
            if self.partial.is_empty() {
                self.line(line, from_line)?;
            } else {
                self.hold(line)?;
                let line = std::mem::take(&mut self.partial);
                self.line(&line, &line)?;
                self.partial = line;
                self.partial.clear();
            }
        }
        self.hold(bytes)
    }

    /// The output has ended.
    ///
    /// # Errors
    ///
    /// Where it ended too early.
    pub fn finish(self) -> Result<Verdict<C::Whole>, Violation> {
        if !self.partial.is_empty() {
            return Err(Violation::PartialLine(self.lines + 1));
        }
        let Some(Hello { lister, .. }) = self.hello else {
            return Err(Violation::NoOutput);
        };
        match self.last {
            None => Err(Violation::NoEnd(self.content.count())),
            Some(Last::Error(failure)) => Ok(Verdict::Refused { lister, failure }),
            Some(Last::End(end)) => {
                let whole = self.content.whole(end, lister, self.total as u64);
                Ok(Verdict::Whole(whole))
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.partial.len() + bytes.len() > limits::LINE {
            return Err(Violation::LongLine(self.lines + 1));
        }
        if self.last.is_some() && !bytes.is_empty() {
            return Err(Violation::AfterEnd);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes one line; `from_line` begins with it, and has what came after it.
    fn line(&mut self, line: &[u8], from_line: &[u8]) -> Result<(), Violation> {
        self.lines += 1;
        let at = self.lines;
        if line.len() > limits::LINE {
            return Err(Violation::LongLine(at));
        }
        if self.last.is_some() {
            return Err(Violation::AfterEnd);
        }
        let Some(hello) = &self.hello else {
            self.hello = Some(first_line(line, from_line)?);
            return Ok(());
        };
        match parse(line) {
            Ok(line) => match self.content.take(line, at)? {
                Taken::Hello => Err(Violation::SecondHello(at)),
                Taken::More => Ok(()),
                Taken::End(end) => {
                    self.last = Some(Last::End(end));
                    Ok(())
                }
                Taken::Error(failure) if failure.message.len() > limits::TEXT => {
                    Err(invalid(at, "its message is too long"))
                }
                Taken::Error(failure) => {
                    self.last = Some(Last::Error(failure));
                    Ok(())
                }
            },
            Err(error) => Err(match kind(line) {
                Some(name) if !C::KNOWN.contains(&name.as_str()) => Violation::UnknownType {
                    line: at,
                    name: shown(name.as_bytes()),
                    lister: shown(hello.lister.as_bytes()),
                },
                _ => invalid(at, &error.to_string()),
            }),
        }
    }
}

/// The content of a listing.
#[derive(Debug)]
pub struct Sessions {
    first_prompt_limit: usize,
    sessions: PackedList<Session>,
    ids: HashSet<SessionId>,
}

impl Sessions {
    /// Of a listing whose request names this limit for first prompts, in characters.
    #[must_use]
    pub fn new(first_prompt_limit: usize) -> Self {
        Self {
            first_prompt_limit,
            sessions: PackedList::default(),
            ids: HashSet::new(),
        }
    }
}

/// With the default limit for first prompts.
impl Default for Sessions {
    fn default() -> Self {
        Self::new(limits::FIRST_PROMPT)
    }
}

impl Checker {
    /// A checker of a listing.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Sessions::default())
    }
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Content for Sessions {
    type Line = Message;
    type End = End;
    type Whole = Listing;

    const KNOWN: &'static [&'static str] = &["hello", "session", "end", "error"];

    fn take(&mut self, line: Message, at: usize) -> Result<Taken<End>, Violation> {
        match line {
            Message::Hello(_) => Ok(Taken::Hello),
            Message::Session(session) => self.session(*session, at),
            Message::End(end) => {
                let got = self.sessions.len() as u64;
                if end.sessions != got {
                    return Err(Violation::WrongCount {
                        got,
                        said: end.sessions,
                    });
                }
                if !(0.0..=1.0).contains(&end.scan.progress) {
                    return Err(invalid(at, "its progress is not between 0 and 1"));
                }
                check_degraded(&end.degraded, at)?;
                check_other_tables(&end.other_tables, at)?;
                Ok(Taken::End(end))
            }
            Message::Error(failure) => Ok(Taken::Error(failure)),
        }
    }

    fn count(&self) -> usize {
        self.sessions.len()
    }

    fn whole(self, end: End, lister: String, bytes: u64) -> Listing {
        Listing {
            lister,
            sessions: self.sessions,
            end,
            bytes,
        }
    }
}

impl Sessions {
    fn session(&mut self, session: Session, line: usize) -> Result<Taken<End>, Violation> {
        if self.sessions.len() == limits::SESSIONS {
            return Err(Violation::TooMany);
        }
        check_session(&session, self.first_prompt_limit, line)?;
        if !self.ids.insert(session.id.clone()) {
            return Err(Violation::DuplicateId {
                line,
                id: session.id,
            });
        }
        self.sessions.push(&session);
        Ok(Taken::More)
    }
}

/// Returns an error if there are too many names, or one is too long.
pub(super) fn check_other_tables(names: &[String], line: usize) -> Result<(), Violation> {
    if names.len() > limits::OTHER_TABLES {
        let limit = limits::OTHER_TABLES;
        return Err(invalid(
            line,
            &format!("its otherTables has more than {limit} names"),
        ));
    }
    match names.iter().any(|name| name.len() > limits::TEXT) {
        true => Err(overlong_text(line, "otherTables")),
        false => Ok(()),
    }
}

/// Returns an error if there are too many parts, a known one twice, or a reason that is
/// too long. A newer helper may name several parts that this version does not know.
fn check_degraded(degraded: &[Degraded], line: usize) -> Result<(), Violation> {
    if degraded.len() > limits::DEGRADED {
        let limit = limits::DEGRADED;
        return Err(invalid(
            line,
            &format!("its degraded has more than {limit} parts"),
        ));
    }
    let mut seen = HashSet::new();
    for Degraded { what, reason } in degraded {
        if *what != OptionalPart::Unknown && !seen.insert(what) {
            let part = what.as_str();
            return Err(invalid(line, &format!("its degraded has {part} twice")));
        }
        if reason.len() > limits::TEXT {
            return Err(overlong_text(line, "reason"));
        }
    }
    Ok(())
}

/// What holds of a session wherever it comes.
pub(super) fn check_session(
    session: &Session,
    first_prompt_limit: usize,
    line: usize,
) -> Result<(), Violation> {
    if let Some(field) = overlong(session) {
        return Err(overlong_text(line, field));
    }
    if let Some(prompt) = &session.first_prompt {
        if !session.untitled {
            return Err(invalid(line, "it has a title and a firstPrompt"));
        }
        if prompt.contains(['\n', '\r']) {
            return Err(invalid(line, "its firstPrompt has several lines"));
        }
        if prompt.chars().count() > first_prompt_limit {
            return Err(invalid(
                line,
                &format!("its firstPrompt is longer than {first_prompt_limit} characters"),
            ));
        }
    }
    Ok(())
}

/// A [`Checker`] that a [`Writer`](super::Writer) of the same process writes to.
///
/// A violation fails the write, and is kept for [`finish`](Self::finish).
#[derive(Debug)]
pub struct Checked<C: Content = Sessions> {
    checker: Checker<C>,
    broken: Option<Violation>,
}

impl Default for Checked {
    fn default() -> Self {
        Self::of(Sessions::default())
    }
}

impl<C: Content> Checked<C> {
    /// A checker of this content.
    #[must_use]
    pub fn of(content: C) -> Self {
        Self {
            checker: Checker::of(content),
            broken: None,
        }
    }

    /// How many sessions or answers have come.
    #[must_use]
    pub fn count(&self) -> usize {
        self.checker.content.count()
    }

    /// The output has ended.
    ///
    /// # Errors
    ///
    /// The first rule that was broken.
    pub fn finish(self) -> Result<Verdict<C::Whole>, Violation> {
        match self.broken {
            Some(violation) => Err(violation),
            None => self.checker.finish(),
        }
    }
}

impl<C: Content> std::io::Write for Checked<C> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.broken.is_none() {
            self.broken = self.checker.push(bytes).err();
        }
        match &self.broken {
            None => Ok(bytes.len()),
            Some(violation) => Err(std::io::Error::other(violation.clone())),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn invalid(line: usize, why: &str) -> Violation {
    Violation::Invalid {
        line,
        why: shown(why.as_bytes()),
    }
}

/// The violation of a line whose text `field` is longer than a text may be.
pub(super) fn overlong_text(line: usize, field: &str) -> Violation {
    let limit = limits::TEXT;
    invalid(line, &format!("its {field} is longer than {limit} bytes"))
}

/// What a line says its type is.
fn kind(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kind {
        r#type: String,
    }
    parse::<Kind>(line).ok().map(|kind| kind.r#type)
}

fn first_line(line: &[u8], from_line: &[u8]) -> Result<Hello, Violation> {
    match parse(line) {
        Ok(Message::Hello(hello)) if hello.lister.len() > limits::TEXT => {
            Err(Violation::NoHello(shown(hello.lister.as_bytes())))
        }
        Ok(Message::Hello(hello)) if hello.protocol == PROTOCOL => Ok(hello),
        Ok(Message::Hello(hello)) => Err(Violation::Protocol {
            theirs: hello.protocol,
            lister: shown(hello.lister.as_bytes()),
        }),
        // It is a line of a helper, and only its ends are wrong.
        Err(error @ (LineError::CarriageReturn | LineError::Blanks)) => {
            Err(invalid(1, &error.to_string()))
        }
        // In UTF-16 a byte of ten is not always a line feed.
        _ if text::begins_in_utf16(from_line) => {
            let said = text::decoded(from_line);
            let mut lines = said.lines().map(text::one_line);
            let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
            Err(Violation::Utf16(shown(first.as_bytes())))
        }
        _ => Err(Violation::NoHello(shown(line))),
    }
}

/// The start of something a helper said, quoted, safe to show.
fn shown(bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
    let dots = if bytes.len() > 120 { "…" } else { "" };
    format!("{}{dots}", text::escaped(&start))
}

/// The name of the first text of `session` that is longer than a text may be.
fn overlong(session: &Session) -> Option<&'static str> {
    // Taken apart without `..`: a new field does not compile before somebody
    // has decided whether it is a text.
    let Session {
        id: _, // checked by its type
        directory,
        worktree,
        project_id,
        parent_id,
        title,
        untitled: _,
        first_prompt: _, // its limit is the request's
        time_created: _,
        time_updated: _,
        time_archived: _,
        last_message_at: _,
        marked: _,
        store: _,
        agent,
        version,
        slug,
        share_url,
        workspace_id,
        model,
        cost: _,
        tokens: _,
        summary: _,
        time_idle: _,
        time_viewed: _,
        time_compacting: _,
        time_suspended: _,
        forked_from,
        idle_outcome,
    } = session;
    let model = model.as_ref();
    [
        ("directory", directory.as_deref()),
        ("worktree", worktree.as_deref()),
        ("projectId", project_id.as_deref()),
        ("parentId", parent_id.as_deref()),
        ("title", title.as_deref()),
        ("agent", agent.as_deref()),
        ("version", version.as_deref()),
        ("slug", slug.as_deref()),
        ("shareUrl", share_url.as_deref()),
        ("workspaceId", workspace_id.as_deref()),
        ("forkedFrom", forked_from.as_deref()),
        ("idleOutcome", idle_outcome.as_deref()),
        ("model", model.map(|model| model.id.as_str())),
        ("model", model.map(|model| model.provider_id.as_str())),
        ("model", model.and_then(|model| model.variant.as_deref())),
    ]
    .into_iter()
    .find(|(_, text)| text.is_some_and(|text| text.len() > limits::TEXT))
    .map(|(field, _)| field)
}
