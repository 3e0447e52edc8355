//! The `session` line of the wire, written without an allocation for each text.
//!
//! The line is, byte for byte, that of a [`Message::Session`](super::Message::Session) with the
//! same values. Writing it field by field takes less than half of the instructions that serde
//! takes.

use crate::json::append_json;
use crate::session::{InvalidId, Millis, Model, Session, SessionId, Store, Summary, Tokens};

/// A session whose texts are borrowed. The fields are those of [`Session`].
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "see the fields of `Session`")]
pub struct SessionLine<'a> {
    pub id: &'a str,
    pub directory: Option<&'a str>,
    pub worktree: Option<&'a str>,
    pub project_id: Option<&'a str>,
    pub parent_id: Option<&'a str>,
    pub title: Option<&'a str>,
    pub untitled: bool,
    pub first_prompt: Option<&'a str>,
    pub time_created: Option<Millis>,
    pub time_updated: Option<Millis>,
    pub time_archived: Option<Millis>,
    pub last_message_at: Option<Millis>,
    pub marked: Option<bool>,
    pub store: Store,
    pub agent: Option<&'a str>,
    pub version: Option<&'a str>,
    pub slug: Option<&'a str>,
    pub share_url: Option<&'a str>,
    pub workspace_id: Option<&'a str>,
    pub model: Option<ModelLine<'a>>,
    pub cost: Option<f64>,
    pub tokens: Option<Tokens>,
    pub summary: Option<Summary>,
    pub time_compacting: Option<Millis>,
    pub time_suspended: Option<Millis>,
    pub forked_from: Option<&'a str>,
    pub time_idle: Option<Millis>,
    pub time_viewed: Option<Millis>,
    pub idle_outcome: Option<&'a str>,
}

/// The model of a [`SessionLine`]. The fields are those of [`Model`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "see the fields of `Model`")]
pub struct ModelLine<'a> {
    pub id: &'a str,
    pub provider_id: &'a str,
    pub variant: Option<&'a str>,
}

impl SessionLine<'_> {
    /// Appends the line with its line feed.
    pub fn append_to(&self, line: &mut Vec<u8>) {
        // Without `..` a new field does not compile until it is written.
        let Self {
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
        } = self;
        let mut out = Fields(line);
        out.raw(br#"{"type":"session","id":"#);
        out.string(id);
        out.nullable(br#","directory":"#, *directory);
        out.nullable(br#","worktree":"#, *worktree);
        out.nullable(br#","projectId":"#, *project_id);
        out.nullable(br#","parentId":"#, *parent_id);
        out.nullable(br#","title":"#, *title);
        if *untitled {
            out.raw(br#","untitled":true"#);
        }
        out.nullable(br#","firstPrompt":"#, *first_prompt);
        out.nullable_time(br#","timeCreated":"#, *time_created);
        out.nullable_time(br#","timeUpdated":"#, *time_updated);
        out.nullable_time(br#","timeArchived":"#, *time_archived);
        out.nullable_time(br#","lastMessageAt":"#, *last_message_at);
        out.raw(match marked {
            None => br#","marked":null"#,
            Some(true) => br#","marked":true"#,
            Some(false) => br#","marked":false"#,
        });
        out.raw(match store {
            Store::V1 => br#","store":"v1""#,
            Store::V2 => br#","store":"v2""#,
        });
        out.text(br#","agent":"#, *agent);
        out.text(br#","version":"#, *version);
        out.text(br#","slug":"#, *slug);
        out.text(br#","shareUrl":"#, *share_url);
        out.text(br#","workspaceId":"#, *workspace_id);
        out.model(*model);
        if let Some(cost) = cost {
            out.raw(br#","cost":"#);
            append_json(cost, out.0);
        }
        out.tokens(*tokens);
        out.summary(*summary);
        out.time(br#","timeCompacting":"#, *time_compacting);
        out.time(br#","timeSuspended":"#, *time_suspended);
        out.text(br#","forkedFrom":"#, *forked_from);
        out.time(br#","timeIdle":"#, *time_idle);
        out.time(br#","timeViewed":"#, *time_viewed);
        out.text(br#","idleOutcome":"#, *idle_outcome);
        out.raw(b"}\n");
    }
}

/// Appends fields to a line. A `key` includes the comma before it and its colon.
///
/// The functions for one field are always inlined, so that the length of the key is known where
/// it is copied.
struct Fields<'l>(&'l mut Vec<u8>);

impl Fields<'_> {
    #[inline(always)]
    fn raw(&mut self, text: &[u8]) {
        self.0.extend_from_slice(text);
    }

    fn string(&mut self, text: &str) {
        if !is_plain(text.as_bytes()) {
            return append_json(&text, self.0);
        }
        self.0.reserve(text.len() + 2);
        self.0.push(b'"');
        self.raw(text.as_bytes());
        self.0.push(b'"');
    }

    #[inline(always)]
    fn integer(&mut self, key: &[u8], value: i64) {
        self.raw(key);
        append_json(&value, self.0);
    }

    /// Appends a text or null.
    #[inline(always)]
    fn nullable(&mut self, key: &[u8], text: Option<&str>) {
        self.raw(key);
        match text {
            Some(text) => self.string(text),
            None => self.raw(b"null"),
        }
    }

    /// Appends a text, or nothing if it is null.
    #[inline(always)]
    fn text(&mut self, key: &[u8], text: Option<&str>) {
        if text.is_some() {
            self.nullable(key, text);
        }
    }

    /// Appends a time or null.
    #[inline(always)]
    fn nullable_time(&mut self, key: &[u8], time: Option<Millis>) {
        match time {
            Some(time) => self.integer(key, time.0),
            None => {
                self.raw(key);
                self.raw(b"null");
            }
        }
    }

    /// Appends a time, or nothing if it is null.
    #[inline(always)]
    fn time(&mut self, key: &[u8], time: Option<Millis>) {
        if time.is_some() {
            self.nullable_time(key, time);
        }
    }

    fn model(&mut self, model: Option<ModelLine<'_>>) {
        let Some(model) = model else {
            return self.raw(br#","model":null"#);
        };
        let ModelLine {
            id,
            provider_id,
            variant,
        } = model;
        self.nullable(br#","model":{"id":"#, Some(id));
        self.nullable(br#","providerId":"#, Some(provider_id));
        self.nullable(br#","variant":"#, variant);
        self.raw(b"}");
    }

    fn tokens(&mut self, tokens: Option<Tokens>) {
        let Some(tokens) = tokens else { return };
        let Tokens {
            input,
            output,
            reasoning,
            cache_read,
            cache_write,
        } = tokens;
        self.integer(br#","tokens":{"input":"#, input);
        self.integer(br#","output":"#, output);
        self.integer(br#","reasoning":"#, reasoning);
        self.integer(br#","cacheRead":"#, cache_read);
        self.integer(br#","cacheWrite":"#, cache_write);
        self.raw(b"}");
    }

    fn summary(&mut self, summary: Option<Summary>) {
        let Some(summary) = summary else { return };
        let Summary {
            additions,
            deletions,
            files,
        } = summary;
        self.integer(br#","summary":{"additions":"#, additions);
        self.integer(br#","deletions":"#, deletions);
        self.integer(br#","files":"#, files);
        self.raw(b"}");
    }
}

/// Returns true if the text consists of ASCII characters that JSON and terminals show as they
/// are.
fn is_plain(text: &[u8]) -> bool {
    // Eight bytes at a time. The last eight overlap those before them.
    match (text.as_chunks(), text.last_chunk()) {
        ((chunks, _), Some(last)) => chunks.iter().chain([last]).fold(true, |all, chunk| {
            all & is_plain_word(u64::from_ne_bytes(*chunk))
        }),
        _ => text
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')),
    }
}

/// As [`is_plain`], for eight bytes. See "Determine if a word has a byte less than n"
/// (<https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>).
fn is_plain_word(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH_BITS: u64 = ONES << 7;
    let each = |byte: u8| ONES * u64::from(byte);
    let has_less = |word: u64, than: u8| word.wrapping_sub(each(than)) & !word;
    let has = |byte: u8| has_less(word ^ each(byte), 1);
    let is_del_or_more = word | word.wrapping_add(ONES);
    (has_less(word, b' ') | has(b'"') | has(b'\\') | is_del_or_more) & HIGH_BITS == 0
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

#[cfg(test)]
mod tests;
