//! The words of the domain: a session as OpenCode stores it, its id, its times.
//!
//! [`Session`] is also the `session` line of the [wire](crate::wire), field by
//! field. The types hold what was stored; whether a value may cross the pipe is
//! the wire's to check.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::strict;
use crate::text;

/// The id of a session. OpenCode makes it of `ses_` and 26 or more letters and
/// digits, and checks only that it begins with `ses`.
///
/// A database can hold anything, so this type promises less: 1 to 256 bytes of
/// UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SessionId(Arc<str>);

/// Why a text is no [`SessionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// It has no bytes.
    #[error("a session id is empty")]
    Empty,
    /// It has more than [`SessionId::MAX_BYTES`].
    #[error("a session id has {0} bytes, more than {max}", max = SessionId::MAX_BYTES)]
    TooLong(usize),
    /// It has a control character.
    #[error("a session id holds a control character")]
    Control,
}

impl SessionId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Checks `id`.
    ///
    /// # Errors
    ///
    /// Where it is empty, too long, or holds a control character.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        let id = id.into();
        if id.is_empty() {
            Err(InvalidId::Empty)
        } else if id.len() > Self::MAX_BYTES {
            Err(InvalidId::TooLong(id.len()))
        } else if id.chars().any(char::is_control) {
            Err(InvalidId::Control)
        } else {
            Ok(Self(id.into()))
        }
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidId;

    fn try_from(id: String) -> Result<Self, InvalidId> {
        Self::new(id)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.as_str().to_owned()
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment, in milliseconds since 1970-01-01T00:00:00Z, as OpenCode stores it.
///
/// Any 64-bit value can come from a database; a reader that turns it into a
/// date must be ready for one that no calendar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// So long before this.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(ms))
    }

    /// Now, by a clock that may be wrong, also by thousands of years.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self(match since {
            Ok(since) => ms(since),
            Err(before) => -ms(before.duration()),
        })
    }
}

/// Which generation of OpenCode's tables a session came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// The table `session`, of OpenCode 1.2 and later.
    V1,
    /// The table `session_v2`, of OpenCode 2.
    V2,
}

/// The model a session last used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The model's name within its provider.
    pub id: String,
    /// The provider's name.
    pub provider_id: String,
    /// A variant of the model, where one was chosen.
    pub variant: Option<String>,
}

/// Tokens a session used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Sent to the model.
    pub input: i64,
    /// Answered by the model.
    pub output: i64,
    /// Spent on reasoning.
    pub reasoning: i64,
    /// Read from the provider's cache.
    pub cache_read: i64,
    /// Written to the provider's cache.
    pub cache_write: i64,
}

/// What a session changed in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Lines added.
    pub additions: i64,
    /// Lines deleted.
    pub deletions: i64,
    /// Files changed.
    pub files: i64,
}

/// One session, as the database has it.
///
/// `None` means that the database has no value of the right type, except where
/// a field says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// OpenCode's id.
    pub id: SessionId,
    /// The working directory.
    pub directory: Option<String>,
    /// The worktree of the session's project; `None` also where it would mean
    /// nothing: empty, blank, `/`, or that of the project `global`, which
    /// OpenCode shares between all directories without a git history.
    pub worktree: Option<String>,
    /// The project's id.
    pub project_id: Option<String>,
    /// The parent session's id; a session without one is a root.
    pub parent_id: Option<String>,
    /// The title as stored, which may be a placeholder.
    pub title: Option<String>,
    /// The title is OpenCode's placeholder, or there is none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untitled: bool,
    /// For an untitled session, the start of its first prompt: one line, at
    /// most as many characters as the request names, 200 by default.
    pub first_prompt: Option<String>,
    /// When it was created.
    pub time_created: Option<Millis>,
    /// When OpenCode says it was last active. Stale during turns, and for
    /// sessions driven by the newer routes.
    pub time_updated: Option<Millis>,
    /// When it was archived; `None` for a session that is not. OpenCode's clients
    /// write 0 to restore a session, which is read as `None`.
    pub time_archived: Option<Millis>,
    /// When its newest message was created, where an index makes that a seek.
    pub last_message_at: Option<Millis>,
    /// It carries the 3-views marker; `None` where that is not known, or was
    /// not asked for.
    pub marked: Option<bool>,
    /// The tables it came from.
    #[serde(deserialize_with = "strict::name")]
    pub store: Store,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The version of OpenCode that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Where it is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_url: Option<String>,
    /// The workspace's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The model; `None` also where what is stored does not parse.
    #[serde(default, deserialize_with = "strict::object_or_null")]
    pub model: Option<Model>,
    /// What it cost, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The tokens it used.
    #[serde(
        default,
        deserialize_with = "strict::object_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub tokens: Option<Tokens>,
    /// What it changed.
    #[serde(
        default,
        deserialize_with = "strict::object_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub summary: Option<Summary>,
    /// When a compaction of it began that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_compacting: Option<Millis>,
    /// When its turn began that has not ended: it is at work, or its program was
    /// killed. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_suspended: Option<Millis>,
    /// The session that it is a copy of. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// When its last turn ended. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_idle: Option<Millis>,
    /// The newest `time_idle` that a person has seen. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_viewed: Option<Millis>,
    /// How its last turn ended: `succeeded`, `failed` or `interrupted`. OpenCode 2
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_outcome: Option<String>,
}

impl Session {
    /// Returns a session of which nothing but the id is known.
    #[must_use]
    pub fn new(id: SessionId, store: Store) -> Self {
        Self {
            id,
            directory: None,
            worktree: None,
            project_id: None,
            parent_id: None,
            title: None,
            untitled: false,
            first_prompt: None,
            time_created: None,
            time_updated: None,
            time_archived: None,
            last_message_at: None,
            marked: None,
            store,
            agent: None,
            version: None,
            slug: None,
            share_url: None,
            workspace_id: None,
            model: None,
            cost: None,
            tokens: None,
            summary: None,
            time_compacting: None,
            time_suspended: None,
            forked_from: None,
            time_idle: None,
            time_viewed: None,
            idle_outcome: None,
        }
    }

    /// What to call it: its title, or without one how its first prompt begins, or
    /// the placeholder.
    #[must_use]
    pub fn headline(&self) -> Option<&str> {
        self.own_headline().or(self.title.as_deref())
    }

    /// What to call it where that says something: its title, or without one how its
    /// first prompt begins.
    #[must_use]
    pub fn own_headline(&self) -> Option<&str> {
        match self.untitled {
            true => self.first_prompt.as_deref(),
            false => self.title.as_deref(),
        }
    }

    /// When something last happened in it, as far as the database tells: the
    /// newest of its update, its newest message and its last turn's end.
    #[must_use]
    pub fn active_at(&self) -> Option<Millis> {
        self.time_updated
            .max(self.last_message_at)
            .max(self.time_idle)
    }

    /// True where it came to rest after a person last looked at it; `None` where the
    /// database does not tell, as that of OpenCode 1.
    #[must_use]
    pub fn is_unread(&self) -> Option<bool> {
        let idle = self.time_idle?;
        Some(self.time_viewed.is_none_or(|viewed| viewed < idle))
    }
}

/// What decides the project of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionPlace {
    /// The session's working directory.
    pub directory: Option<String>,
    /// The worktree of the session's project.
    pub worktree: Option<String>,
    /// True if the directory is a path of a workspace, in a container or on another machine.
    pub is_in_workspace: bool,
}

impl SessionPlace {
    /// Returns the place of a session.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        Self {
            directory: session.directory.clone(),
            worktree: session.worktree.clone(),
            is_in_workspace: is_in_workspace(session),
        }
    }

    /// Returns true if this is the place of `session`.
    pub(crate) fn is_of(&self, session: &Session) -> bool {
        self.directory == session.directory
            && self.worktree == session.worktree
            && self.is_in_workspace == is_in_workspace(session)
    }
}

fn is_in_workspace(session: &Session) -> bool {
    let id = session.workspace_id.as_deref();
    id.is_some_and(|id| !id.trim().is_empty())
}

/// True where a title is none: missing, without a visible character, or the placeholder
/// that OpenCode gives a new session until it has found a title, `New session - `,
/// `Child session - ` or `New Session - ` and the time of creation as
/// `YYYY-MM-DDTHH:MM:SS.mmmZ`, and nothing else.
#[must_use]
pub fn is_untitled(title: Option<&str>) -> bool {
    let Some(title) = title else { return true };
    if text::is_blank(title) {
        return true;
    }
    ["New session - ", "Child session - ", "New Session - "]
        .iter()
        .any(|prefix| title.strip_prefix(prefix).is_some_and(is_iso_time))
}

/// Exactly the form of JavaScript's `Date.prototype.toISOString` for four-digit
/// years; the digits are not checked against a calendar.
fn is_iso_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00.000Z";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, &form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_without_controls() {
        assert!(SessionId::new("ses_dfd765812ffeujTA1OX4aItHhj").is_ok());
        assert!(SessionId::new("é 'quoted' $(x)").is_ok());
        assert_eq!(SessionId::new(""), Err(InvalidId::Empty));
        assert_eq!(SessionId::new("a\nb"), Err(InvalidId::Control));
        assert_eq!(SessionId::new("a\u{9b}b"), Err(InvalidId::Control));
        assert!(SessionId::new("x".repeat(256)).is_ok());
        assert_eq!(
            SessionId::new("x".repeat(257)),
            Err(InvalidId::TooLong(257))
        );
    }

    #[test]
    fn only_the_exact_placeholder_is_untitled() {
        for none in [
            None,
            Some(""),
            Some(" \t"),
            Some("\u{200b}"),
            Some("\u{3164}\u{ad}"),
            Some("New session - 2026-11-22T09:14:59.002Z"),
            Some("Child session - 2026-11-22T09:14:59.002Z"),
            Some("New Session - 2026-11-22T09:14:59.002Z"),
        ] {
            assert!(is_untitled(none), "{none:?}");
        }
        for title in [
            "New session - 2026-11-22T09:14:59.002Z (fork #1)",
            "New session - 2026-11-22T09:14:59Z",
            "new session - 2026-11-22T09:14:59.002Z",
            " New session - 2026-11-22T09:14:59.002Z",
            "New session - ",
            "New session - 2026-11-22T09:14:5é.02Z",
            "Fix the build",
        ] {
            assert!(!is_untitled(Some(title)), "{title:?}");
        }
    }
}
