//! A session as the helper writes it: its texts are borrowed, so that a listing allocates no
//! memory for each of them. The line is that of a [`Session`] with the same values.

use serde::Serialize;

use crate::session::{InvalidId, Millis, Model, Session, SessionId, Store, Summary, Tokens};

/// The `session` line of the wire. The fields are those of [`Session`], in the same order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "session", rename_all = "camelCase")]
#[expect(missing_docs, reason = "see the fields of `Session`")]
pub struct SessionLine<'a> {
    pub id: &'a str,
    pub directory: Option<&'a str>,
    pub worktree: Option<&'a str>,
    pub project_id: Option<&'a str>,
    pub parent_id: Option<&'a str>,
    pub title: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untitled: bool,
    pub first_prompt: Option<&'a str>,
    pub time_created: Option<Millis>,
    pub time_updated: Option<Millis>,
    pub time_archived: Option<Millis>,
    pub last_message_at: Option<Millis>,
    pub marked: Option<bool>,
    pub store: Store,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<&'a str>,
    pub model: Option<ModelLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_compacting: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_suspended: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_idle: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_viewed: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_outcome: Option<&'a str>,
}

/// The model of a [`SessionLine`]. The fields are those of [`Model`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "see the fields of `Model`")]
pub struct ModelLine<'a> {
    pub id: &'a str,
    pub provider_id: &'a str,
    pub variant: Option<&'a str>,
}

impl SessionLine<'_> {
    /// Returns the session with copies of the texts.
    ///
    /// # Errors
    ///
    /// Returns an error if the id is invalid.
    pub fn to_session(&self) -> Result<Session, InvalidId> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let mut session = Session::new(SessionId::new(self.id)?, self.store);
        session.directory = owned(self.directory);
        session.worktree = owned(self.worktree);
        session.project_id = owned(self.project_id);
        session.parent_id = owned(self.parent_id);
        session.title = owned(self.title);
        session.untitled = self.untitled;
        session.first_prompt = owned(self.first_prompt);
        session.time_created = self.time_created;
        session.time_updated = self.time_updated;
        session.time_archived = self.time_archived;
        session.last_message_at = self.last_message_at;
        session.marked = self.marked;
        session.agent = owned(self.agent);
        session.version = owned(self.version);
        session.slug = owned(self.slug);
        session.share_url = owned(self.share_url);
        session.workspace_id = owned(self.workspace_id);
        session.model = self.model.map(|model| Model {
            id: model.id.to_owned(),
            provider_id: model.provider_id.to_owned(),
            variant: owned(model.variant),
        });
        session.cost = self.cost;
        session.tokens = self.tokens;
        session.summary = self.summary;
        session.time_compacting = self.time_compacting;
        session.time_suspended = self.time_suspended;
        session.forked_from = owned(self.forked_from);
        session.time_idle = self.time_idle;
        session.time_viewed = self.time_viewed;
        session.idle_outcome = owned(self.idle_outcome);
        Ok(session)
    }
}

impl<'a> From<&'a Session> for SessionLine<'a> {
    fn from(session: &'a Session) -> Self {
        // Without `..` a new field does not compile until it is written here, too.
        let Session {
            id,
            directory,
            worktree,
            project_id,
            parent_id,
            title,
            untitled,
            first_prompt,
            time_created,
            time_updated,
            time_archived,
            last_message_at,
            marked,
            store,
            agent,
            version,
            slug,
            share_url,
            workspace_id,
            model,
            cost,
            tokens,
            summary,
            time_compacting,
            time_suspended,
            forked_from,
            time_idle,
            time_viewed,
            idle_outcome,
        } = session;
        Self {
            id: id.as_str(),
            directory: directory.as_deref(),
            worktree: worktree.as_deref(),
            project_id: project_id.as_deref(),
            parent_id: parent_id.as_deref(),
            title: title.as_deref(),
            untitled: *untitled,
            first_prompt: first_prompt.as_deref(),
            time_created: *time_created,
            time_updated: *time_updated,
            time_archived: *time_archived,
            last_message_at: *last_message_at,
            marked: *marked,
            store: *store,
            agent: agent.as_deref(),
            version: version.as_deref(),
            slug: slug.as_deref(),
            share_url: share_url.as_deref(),
            workspace_id: workspace_id.as_deref(),
            model: model.as_ref().map(|model| ModelLine {
                id: &model.id,
                provider_id: &model.provider_id,
                variant: model.variant.as_deref(),
            }),
            cost: *cost,
            tokens: *tokens,
            summary: *summary,
            time_compacting: *time_compacting,
            time_suspended: *time_suspended,
            forked_from: forked_from.as_deref(),
            time_idle: *time_idle,
            time_viewed: *time_viewed,
            idle_outcome: idle_outcome.as_deref(),
        }
    }
}
