//! The content of a listing, and the checks of its fields.

use std::collections::HashSet;
use std::sync::Arc;

use super::difference::DifferenceContent;
use super::frame::{Content, LineKind};
use super::violation::{invalid, overlong_text};
use super::{
    DatabaseState, Degraded, End, Hello, Known, ListingDifference, Message, OptionalPart, PROTOCOL,
    PROTOCOL_OF_DIFFERENCES, VERSION, Violation, limits,
};
use crate::line_hash::HashKey;
use crate::row::{Row, RowMaker};
use crate::session::{Session, SessionId};

/// A complete listing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Listing {
    /// The helper's version.
    pub helper_version: String,
    /// The sessions, in the helper's order: newest activity first. With a difference, only those
    /// that are new or changed.
    pub rows: Vec<Row>,
    /// What else differs from the rows that the caller has; `None` if `rows` are all sessions.
    pub(crate) difference: Option<ListingDifference>,
    /// Whether the helper can send differences.
    pub(crate) can_send_differences: bool,
    /// The `end` line.
    pub end: End,
    /// How many bytes the helper sent.
    pub bytes: u64,
}

/// The content of a listing.
#[derive(Debug)]
pub struct ListingContent {
    first_prompt_limit: usize,
    rows: RowMaker,
    sessions: Vec<Row>,
    ids: HashSet<SessionId>,
    /// The key of the hashes of lines, if the caller wants them.
    key: Option<HashKey>,
    /// The difference, if the caller asked for it; dropped if the helper sends everything.
    difference: Option<DifferenceContent>,
    up_to: u32,
}

impl Listing {
    /// Returns a listing of these sessions, for a lister of a host's own.
    #[must_use]
    pub fn new(sessions: impl IntoIterator<Item = Session>, end: End) -> Self {
        let mut rows = RowMaker::default();
        Self {
            helper_version: VERSION.to_owned(),
            rows: sessions
                .into_iter()
                .map(|session| rows.row(&session))
                .collect(),
            difference: None,
            can_send_differences: false,
            end,
            bytes: 0,
        }
    }

    /// Returns the sessions, newest activity first. Each is parsed from its row.
    pub fn sessions(&self) -> impl Iterator<Item = Session> {
        self.rows.iter().map(|row| row.entry().session)
    }
}

impl ListingContent {
    /// Creates the content of a listing whose first prompts have at most this many characters.
    #[must_use]
    pub fn new(first_prompt_limit: usize) -> Self {
        Self {
            first_prompt_limit,
            rows: RowMaker::default(),
            sessions: Vec::new(),
            ids: HashSet::new(),
            key: None,
            difference: None,
            up_to: PROTOCOL,
        }
    }

    /// Lets rows that are equal to one of `known` share its memory, and hashes their lines.
    #[must_use]
    pub fn sharing(self, known: Option<&Known>) -> Self {
        Self {
            rows: RowMaker::sharing(known.map(|known| Arc::clone(&known.rows))),
            key: known.map(|known| known.key),
            ..self
        }
    }

    /// Accepts the difference to the rows of `known`, which the request asked for.
    #[must_use]
    pub fn differing(self, known: Option<Known>) -> Self {
        Self {
            difference: known.and_then(DifferenceContent::new),
            ..self
        }
    }
}

/// Has the default limit of first prompts.
impl Default for ListingContent {
    fn default() -> Self {
        Self::new(limits::FIRST_PROMPT)
    }
}

impl Content for ListingContent {
    type Line = Message;
    type End = End;
    type Whole = Listing;

    const KNOWN: &'static [&'static str] = &["hello", "session", "gone", "want", "end", "error"];

    fn protocol(&self) -> u32 {
        match self.difference {
            Some(_) => PROTOCOL_OF_DIFFERENCES,
            None => PROTOCOL,
        }
    }

    fn begin(&mut self, hello: &Hello) {
        self.up_to = hello.up_to;
        if hello.protocol < PROTOCOL_OF_DIFFERENCES {
            self.difference = None;
        }
    }

    fn reply(&mut self) -> Option<Vec<u8>> {
        self.difference.as_mut()?.take_wanted()
    }

    fn take(&mut self, line: Message, bytes: &[u8], at: usize) -> Result<LineKind<End>, Violation> {
        match line {
            Message::Hello(_) => Ok(LineKind::Hello),
            Message::Session(session) => self.session(&session, bytes, at),
            Message::Gone { session } => {
                let Some(difference) = &mut self.difference else {
                    return Err(invalid(at, NOT_ASKED_FOR));
                };
                let ids = &self.ids;
                difference.gone(session, |id| ids.contains(id), at)?;
                Ok(LineKind::More)
            }
            Message::Want => {
                let Some(difference) = &mut self.difference else {
                    return Err(invalid(at, NOT_ASKED_FOR));
                };
                difference.want(at)?;
                Ok(LineKind::More)
            }
            Message::End(end) => {
                self.check_counts(&end, at)?;
                if !(0.0..=1.0).contains(&end.scan.progress) {
                    return Err(invalid(at, "its progress is not between 0 and 1"));
                }
                check_degraded(&end.degraded, at)?;
                check_other_tables(&end.other_tables, at)?;
                Ok(LineKind::End(end))
            }
            Message::Error(failure) => Ok(LineKind::Error(failure)),
        }
    }

    fn count(&self) -> usize {
        self.sessions.len()
    }

    fn whole(self, end: End, helper_version: String, bytes: u64) -> Listing {
        let difference = self.difference.filter(|_| end.difference.is_some());
        Listing {
            helper_version,
            rows: self.sessions,
            difference: difference.map(DifferenceContent::whole),
            can_send_differences: self.up_to >= PROTOCOL_OF_DIFFERENCES,
            end,
            bytes,
        }
    }
}

/// Why a line of protocol 2 is invalid in an answer of protocol 1.
const NOT_ASKED_FOR: &str = "differences were not asked for";

impl ListingContent {
    fn session(
        &mut self,
        session: &Session,
        bytes: &[u8],
        line: usize,
    ) -> Result<LineKind<End>, Violation> {
        if self.sessions.len() == limits::SESSIONS {
            return Err(Violation::TooMany);
        }
        check_session(session, self.first_prompt_limit, line)?;
        if !self.ids.insert(session.id.clone()) {
            return Err(Violation::DuplicateId {
                line,
                id: session.id.clone(),
            });
        }
        let mut row = self.rows.row(session);
        if let Some(key) = self.key {
            row.set_line_hash(key.hash(bytes));
        }
        if let Some(difference) = &mut self.difference {
            difference.session(&row, line)?;
        }
        self.sessions.push(row);
        Ok(LineKind::More)
    }

    fn check_counts(&self, end: &End, at: usize) -> Result<(), Violation> {
        let got = self.sessions.len() as u64;
        match (&self.difference, end.difference) {
            (Some(difference), Some(counts)) => {
                if end.database != DatabaseState::Ready {
                    return Err(invalid(at, "a database without sessions has no difference"));
                }
                if end.sessions > limits::SESSIONS as u64 {
                    return Err(Violation::TooMany);
                }
                return difference.end(counts, end.sessions, at);
            }
            (Some(difference), None) => {
                if end.database == DatabaseState::Ready || !difference.is_empty() {
                    return Err(invalid(at, "its difference is missing"));
                }
            }
            (None, Some(_)) => return Err(invalid(at, NOT_ASKED_FOR)),
            (None, None) => {}
        }
        match end.sessions == got {
            true => Ok(()),
            false => Err(Violation::WrongCount {
                got,
                said: end.sessions,
            }),
        }
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

/// Returns an error if a known part is there twice, or if there are too many parts or a reason is
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

/// Checks a session of a listing or a look-up.
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

/// Returns the name of the first text of a session that is longer than [`limits::TEXT`].
fn overlong(session: &Session) -> Option<&'static str> {
    // Without `..` a new field does not compile until its author decides whether it is a text.
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
