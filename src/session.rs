//! The domain types: a session as OpenCode stores it, its id and its times.
//!
//! [`Session`] is also the `session` line of the wire, field by field. The
//! types hold stored values without checking them; the wire checks the values that cross the
//! pipe.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::strict;
use crate::text;

/// The id of a session. OpenCode creates ids of `ses_` and 26 or more letters and digits,
/// and checks only that an id begins with `ses`.
///
/// A database can hold any text, so this type guarantees less: 1 to 256 bytes of UTF-8
/// without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SessionId(Arc<str>);

/// Why a text is not a valid [`SessionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The text is empty.
    #[error("session id is empty")]
    Empty,
    /// The text is longer than [`SessionId::MAX_BYTES`]. Holds its length in bytes.
    #[error("session id has {0} bytes, more than {max}", max = SessionId::MAX_BYTES)]
    TooLong(usize),
    /// The text contains a control character.
    #[error("session id contains a control character")]
    Control,
}

impl SessionId {
    /// The maximum length of an id in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Creates an id from its text.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is empty, too long, or contains a control character.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        let id = id.into();
        Self::check(&id)?;
        Ok(Self(id.into()))
    }

    /// Returns an error if the text is not a valid id.
    pub(crate) fn check(id: &str) -> Result<(), InvalidId> {
        if id.is_empty() {
            Err(InvalidId::Empty)
        } else if id.len() > Self::MAX_BYTES {
            Err(InvalidId::TooLong(id.len()))
        } else if id.chars().any(char::is_control) {
            Err(InvalidId::Control)
        } else {
            Ok(())
        }
    }

    /// Returns the text of the id.
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

/// A time in milliseconds since 1970-01-01T00:00:00Z, as OpenCode stores it.
///
/// A database can hold any 64-bit value, so a conversion to a date must handle values
/// outside of the calendar's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// Returns the time this much earlier, saturating at the earliest time.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(ms))
    }

    /// Returns the current time of the system's clock, which may be wrong by any amount.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(match since_epoch {
            Ok(since_epoch) => ms(since_epoch),
            Err(before_epoch) => -ms(before_epoch.duration()),
        })
    }
}

/// The generation of OpenCode's tables that a session was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Store {
    /// The table `session`, of OpenCode 1.2 and later.
    V1,
    /// The table `session_v2`, of OpenCode 2.
    V2,
}

/// The model that a session used last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The model's name within its provider.
    pub id: String,
    /// The provider's name.
    pub provider_id: String,
    /// The chosen variant of the model; `None` if none was chosen.
    pub variant: Option<String>,
}

/// The numbers of tokens that a session used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Sent to the model.
    pub input: i64,
    /// Received from the model.
    pub output: i64,
    /// Used for reasoning.
    pub reasoning: i64,
    /// Read from the provider's cache.
    pub cache_read: i64,
    /// Written to the provider's cache.
    pub cache_write: i64,
}

/// The size of a session's changes in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The number of lines added.
    pub additions: i64,
    /// The number of lines deleted.
    pub deletions: i64,
    /// The number of files changed.
    pub files: i64,
}

/// One session as stored in the database.
///
/// `None` means that the database has no value of the right type, unless a field documents
/// another meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Session {
    /// OpenCode's id of the session.
    pub id: SessionId,
    /// The working directory.
    pub directory: Option<String>,
    /// The worktree of the session's project. `None` also if the stored value identifies no
    /// project: it is empty, blank or `/`, or belongs to the project `global`, which OpenCode
    /// shares between all directories without a git history.
    pub worktree: Option<String>,
    /// The id of the project.
    pub project_id: Option<String>,
    /// The id of the parent session; `None` for a root session.
    pub parent_id: Option<String>,
    /// The title as stored, which may be a placeholder.
    pub title: Option<String>,
    /// Whether the title is missing or OpenCode's placeholder, see [`is_untitled`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untitled: bool,
    /// For an untitled session, the start of its first prompt in one line. Its length is at
    /// most the limit of the request, by default 200 characters.
    pub first_prompt: Option<String>,
    /// When the session was created.
    pub time_created: Option<Millis>,
    /// When the session was last active, as stored by OpenCode. The value is stale during
    /// turns, and for sessions that use the newer routes.
    pub time_updated: Option<Millis>,
    /// When the session was archived; `None` if it is not archived. OpenCode's clients write
    /// 0 to restore a session, which is read as `None`.
    pub time_archived: Option<Millis>,
    /// When the newest message was created; `None` if no index makes that query a seek.
    pub last_message_at: Option<Millis>,
    /// Whether the session carries the 3-views marker; `None` if that is unknown or was not
    /// requested.
    pub marked: Option<bool>,
    /// The tables that the session was read from.
    #[serde(deserialize_with = "strict::name")]
    pub store: Store,
    /// The name of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The version of OpenCode that created the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// The URL at which the session is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_url: Option<String>,
    /// The id of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The model; `None` also if the stored value cannot be parsed.
    #[serde(default, deserialize_with = "strict::object_or_null")]
    pub model: Option<Model>,
    /// The cost in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The numbers of tokens used.
    #[serde(
        default,
        deserialize_with = "strict::object_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub tokens: Option<Tokens>,
    /// The size of the changes.
    #[serde(
        default,
        deserialize_with = "strict::object_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub summary: Option<Summary>,
    /// When the running compaction of the session began; `None` if none is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_compacting: Option<Millis>,
    /// When the unfinished turn of the session began: the turn is running, or its program was
    /// killed. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_suspended: Option<Millis>,
    /// The id of the session that this one was copied from. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// When the last turn ended. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_idle: Option<Millis>,
    /// The newest `time_idle` that a person has seen. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_viewed: Option<Millis>,
    /// How the last turn ended: `succeeded`, `failed` or `interrupted`. OpenCode 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_outcome: Option<String>,
}

impl Session {
    /// Returns true if the session ran in a workspace: its directory is one in a container or on
    /// another machine.
    #[must_use]
    pub fn is_in_workspace(&self) -> bool {
        let id = self.workspace_id.as_deref();
        id.is_some_and(|id| !id.trim().is_empty())
    }

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

    /// Returns a text to show as the session's name: its title; for an untitled session the
    /// start of its first prompt, else the placeholder.
    #[must_use]
    pub fn headline(&self) -> Option<&str> {
        self.own_headline().or(self.title.as_deref())
    }

    /// Returns a descriptive name: the title, or for an untitled session the start of its
    /// first prompt. Never the placeholder.
    #[must_use]
    pub fn own_headline(&self) -> Option<&str> {
        match self.untitled {
            true => self.first_prompt.as_deref(),
            false => self.title.as_deref(),
        }
    }

    /// Returns the time of the last recorded activity: the latest of `time_updated`,
    /// `last_message_at` and `time_idle`.
    #[must_use]
    pub fn active_at(&self) -> Option<Millis> {
        self.time_updated
            .max(self.last_message_at)
            .max(self.time_idle)
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
            is_in_workspace: session.is_in_workspace(),
        }
    }
}

/// Returns true if a title is missing, has no visible character, or is the placeholder that
/// OpenCode stores until it has generated a title. The placeholder is `New session - `,
/// `Child session - ` or `New Session - `, followed by the time of creation as
/// `YYYY-MM-DDTHH:MM:SS.mmmZ` and nothing else.
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

/// Returns true if the text has the form of JavaScript's `Date.prototype.toISOString` with a
/// four-digit year. Does not check the digits against a calendar.
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
    fn session_id_is_short_and_without_controls() {
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
    fn only_blank_titles_and_placeholders_are_untitled() {
        for untitled in [
            None,
            Some(""),
            Some(" \t"),
            Some("\u{200b}"),
            Some("\u{3164}\u{ad}"),
            Some("New session - 2026-11-22T09:14:59.002Z"),
            Some("Child session - 2026-11-22T09:14:59.002Z"),
            Some("New Session - 2026-11-22T09:14:59.002Z"),
        ] {
            assert!(is_untitled(untitled), "{untitled:?}");
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
