//! A session as the JSON text that is sent ([`Row`]).
//!
//! A row is made once, when the session arrives. The index keeps its text, and an event copies
//! it. Rows share the text, the project and the place of sessions that did not change.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::entry::{Entry, Sourced};
use crate::json::{
    append_json, append_short_json, short_key_start, short_value, to_json, write_long_keys,
};
use crate::line_hash::LineHash;
use crate::session::{Millis, Session, SessionId, SessionPlace};

/// The rows of one source, by the ids of their sessions.
pub type Rows = BTreeMap<SessionId, Row>;

/// A session as the JSON text that is sent, with what the index decides by. Two rows are equal
/// if the same bytes are sent for them and they count the same, also if they were made from
/// different lines: a line can lack a mark that the row keeps.
///
/// Sent is the JSON object of an [`Entry`]. Kept of it are the id, the fields of the place,
/// which the rows of one place share, and the fields from `parentId` on. `project`, `headline`,
/// `activity` and `gone` are added when the row is written. Field names are kept as one byte
/// each: with 10,000 sessions the service takes 13 MiB of memory, and 17 MiB with whole texts.
#[derive(Clone)]
pub struct Row {
    id: SessionId,
    place: Arc<RowPlace>,
    fields: Arc<[u8]>,
    project: Option<Arc<str>>,
    updated: Option<Millis>,
    activity: Option<Millis>,
    marked: Option<bool>,
    is_untitled: bool,
    is_archived: bool,
    is_child: bool,
    is_gone: bool,
    is_credible: bool,
    line_hash: Option<LineHash>,
}

/// The place of sessions, and its fields as they are sent.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RowPlace {
    fields: Vec<u8>,
    place: SessionPlace,
}

impl Row {
    /// Returns the id of the session.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns [`Session::time_updated`].
    #[must_use]
    pub fn updated(&self) -> Option<Millis> {
        self.updated
    }

    /// Returns [`Session::marked`].
    #[must_use]
    pub fn marked(&self) -> Option<bool> {
        self.marked
    }

    /// Returns true if the session is archived.
    #[must_use]
    pub fn is_archived(&self) -> bool {
        self.is_archived
    }

    /// Returns true if the session has a parent.
    #[must_use]
    pub fn is_child(&self) -> bool {
        self.is_child
    }

    /// Returns false if the clock of the row's source seems to be ahead; see
    /// [`Place::is_credible`](crate::source::Place::is_credible).
    #[must_use]
    pub fn is_credible(&self) -> bool {
        self.is_credible
    }

    /// Sets whether the time of the row counts against the times of other sources.
    pub(crate) fn set_credible(&mut self, is_credible: bool) {
        self.is_credible = is_credible;
    }

    /// Returns the hash of the line that the row was made from; `None` if that is unknown.
    #[must_use]
    pub(crate) fn line_hash(&self) -> Option<LineHash> {
        self.line_hash
    }

    /// Sets the hash of the line that the row was made from.
    pub(crate) fn set_line_hash(&mut self, line_hash: LineHash) {
        self.line_hash = Some(line_hash);
    }

    /// Returns what decides the project of the session.
    #[must_use]
    pub fn place(&self) -> &SessionPlace {
        &self.place.place
    }

    /// Returns what tells the places of one listing apart.
    pub(crate) fn place_key(&self) -> *const RowPlace {
        Arc::as_ptr(&self.place)
    }

    /// Sets what the main process found out about the session's directory.
    pub(crate) fn set_project(&mut self, project: Option<Arc<str>>, is_gone: bool) {
        (self.project, self.is_gone) = (project, is_gone);
    }

    /// Returns true if this is what was found out about the session's directory.
    pub(crate) fn has_project(&self, project: Option<&str>, is_gone: bool) -> bool {
        self.project.as_deref() == project && self.is_gone == is_gone
    }

    /// Sets a mark that was not known.
    pub(crate) fn set_mark(&mut self, marked: bool) {
        if self.marked.is_none() {
            self.replace_mark(Some(marked));
        }
    }

    /// Forgets the mark.
    pub(crate) fn forget_mark(&mut self) {
        if self.marked.is_some() {
            self.replace_mark(None);
        }
    }

    fn replace_mark(&mut self, marked: Option<bool>) {
        let Some(value) = short_value(&self.fields, "marked") else {
            return;
        };
        let mut fields = self.fields[..value.start].to_vec();
        append_json(&marked, &mut fields);
        fields.extend_from_slice(&self.fields[value.end..]);
        (self.marked, self.fields) = (marked, fields.into());
    }

    /// Parses the row.
    ///
    /// # Panics
    ///
    /// Never: every row was made of a session.
    #[must_use]
    pub fn entry(&self) -> Entry {
        #[expect(clippy::expect_used, reason = "writing to memory cannot fail")]
        let parse = || {
            let mut text = Vec::with_capacity(1024);
            self.write_session(&mut text).expect("a text in memory");
            text.push(b'}');
            serde_json::from_slice(&text).expect("a row is made of a session")
        };
        Entry {
            session: parse(),
            project: self.project.as_deref().map(str::to_owned),
            gone: self.is_gone,
        }
    }

    /// Writes the JSON object of the entry without its closing brace: an event adds fields.
    ///
    /// # Errors
    ///
    /// Returns the errors of `out`.
    pub fn write_open(&self, mut out: impl Write) -> io::Result<()> {
        self.write_session(&mut out)?;
        out.write_all(b",\"project\":")?;
        to_json(&self.project.as_deref(), &mut out)?;
        out.write_all(b",\"headline\":")?;
        let headline = match self.is_untitled {
            true => "firstPrompt",
            false => "title",
        };
        match short_value(&self.fields, headline) {
            Some(value) => out.write_all(&self.fields[value])?,
            None => out.write_all(b"null")?,
        }
        out.write_all(b",\"activity\":")?;
        to_json(&self.activity, &mut out)?;
        if self.is_gone {
            out.write_all(b",\"gone\":true")?;
        }
        Ok(())
    }

    /// Returns a size in bytes that the text of the row does not exceed.
    pub(crate) fn max_written_bytes(&self) -> usize {
        // The names of the fields, and what is added to them.
        const NAMES_BYTES: usize = 1024;
        let project_bytes = self.project.as_ref().map_or(0, |project| project.len());
        // A headline is one of the fields once more; a character is escaped as six bytes at most.
        let texts_bytes = 6 * (self.id.as_str().len() + project_bytes);
        NAMES_BYTES + texts_bytes + self.place.fields.len() + 2 * self.fields.len()
    }

    fn write_session(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(b"{\"id\":")?;
        to_json(&self.id, &mut out)?;
        write_long_keys(&self.place.fields, &mut out)?;
        write_long_keys(&self.fields, &mut out)
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        let is_same_text = Arc::ptr_eq(&self.fields, &other.fields) || self.fields == other.fields;
        let is_same_place = Arc::ptr_eq(&self.place, &other.place) || self.place == other.place;
        is_same_text
            && is_same_place
            && self.id == other.id
            && self.project == other.project
            && self.is_gone == other.is_gone
            && self.is_credible == other.is_credible
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry().fmt(f)
    }
}

impl Sourced<Row> {
    /// Writes the JSON object that an event has for this session.
    ///
    /// # Errors
    ///
    /// Returns the errors of `out`.
    pub fn write_json(&self, mut out: impl Write) -> io::Result<()> {
        self.entry.write_open(&mut out)?;
        out.write_all(b",\"source\":")?;
        to_json(&self.source, &mut out)?;
        if !self.also.is_empty() {
            out.write_all(b",\"also\":")?;
            to_json(&self.also, &mut out)?;
        }
        out.write_all(b"}")
    }

    /// Parses the row.
    #[must_use]
    pub fn parse(&self) -> Sourced {
        Sourced {
            entry: self.entry.entry(),
            source: self.source.clone(),
            also: self.also.clone(),
        }
    }
}

/// Makes rows that share what they have in common with each other, and with rows from before.
#[derive(Debug, Default)]
pub(crate) struct RowMaker {
    known: Option<Arc<Rows>>,
    places: HashSet<Arc<RowPlace>>,
    last_place: Option<Arc<RowPlace>>,
    projects: HashSet<Arc<str>>,
    text: Vec<u8>,
}

impl RowMaker {
    /// Returns a maker whose rows share their memory with equal rows among `known`.
    #[must_use]
    pub(crate) fn sharing(known: Option<Arc<Rows>>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// Makes a row. Its project is not known yet.
    pub(crate) fn row(&mut self, session: &Session) -> Row {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        append_short_json(session, &mut text);
        text.pop();
        // The fields are in the order of `Session`: the id, the place, the others.
        let place = short_key_start(&text, "directory");
        let fields = short_key_start(&text, "parentId");
        let known = self.known.as_ref().and_then(|rows| rows.get(&session.id));
        let id = known.map_or(&session.id, |known| &known.id).clone();
        let same = known.filter(|known| *known.fields == text[fields..]);
        let same = same.map(|known| Arc::clone(&known.fields));
        let same_place = known.filter(|known| {
            known.place.fields == text[place..fields]
                && known.place.place.is_in_workspace == session.is_in_workspace()
        });
        let same_place = same_place.map(|known| Arc::clone(&known.place));
        let row = Row {
            id,
            place: same_place.unwrap_or_else(|| self.place(&text[place..fields], session)),
            fields: same.unwrap_or_else(|| text[fields..].into()),
            project: None,
            updated: session.time_updated,
            activity: session.active_at(),
            marked: session.marked,
            is_untitled: session.untitled,
            is_archived: session.time_archived.is_some(),
            is_child: session.parent_id.is_some(),
            is_gone: false,
            is_credible: true,
            line_hash: None,
        };
        self.text = text;
        row
    }

    /// Makes the row of an entry that was known before.
    pub(crate) fn restore(&mut self, entry: &Entry) -> Row {
        let mut row = self.row(&entry.session);
        let project = entry.project.as_deref().map(|project| {
            let shared = self.projects.get(project).cloned();
            shared.unwrap_or_else(|| {
                let project: Arc<str> = project.into();
                self.projects.insert(Arc::clone(&project));
                project
            })
        });
        row.set_project(project, entry.gone);
        row
    }

    /// Neighbours in a listing are often of one place.
    fn place(&mut self, fields: &[u8], session: &Session) -> Arc<RowPlace> {
        let is_in_workspace = session.is_in_workspace();
        let is_it = |place: &&Arc<RowPlace>| {
            place.fields == fields && place.place.is_in_workspace == is_in_workspace
        };
        if let Some(last) = self.last_place.as_ref().filter(is_it) {
            return Arc::clone(last);
        }
        let place = RowPlace {
            fields: fields.to_vec(),
            place: SessionPlace::of(session),
        };
        let place = match self.places.get(&place) {
            Some(shared) => Arc::clone(shared),
            None => {
                let place = Arc::new(place);
                self.places.insert(Arc::clone(&place));
                place
            }
        };
        self.last_place = Some(Arc::clone(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Model, Store, Summary, Tokens};

    fn session(title: &str, marked: Option<bool>) -> Session {
        Session {
            title: Some(title.to_owned()),
            marked,
            directory: Some("/home/me".to_owned()),
            ..Session::new(SessionId::new("ses_1").unwrap(), Store::V1)
        }
    }

    fn sent(row: &Row) -> String {
        let mut sent = Vec::new();
        row.write_open(&mut sent).unwrap();
        String::from_utf8(sent).unwrap() + "}"
    }

    /// A session with a value in every field.
    fn full() -> Session {
        let text = || Some("a \"b\"".to_owned());
        let time = |millis| Some(Millis(millis));
        Session {
            worktree: text(),
            project_id: text(),
            parent_id: text(),
            untitled: true,
            first_prompt: Some("Why\u{1b}".to_owned()),
            time_created: time(1),
            time_updated: time(2),
            time_archived: time(3),
            last_message_at: time(4),
            agent: text(),
            version: text(),
            slug: text(),
            share_url: text(),
            workspace_id: text(),
            model: Some(Model {
                id: "m".to_owned(),
                provider_id: "p".to_owned(),
                variant: text(),
            }),
            cost: Some(0.25),
            tokens: Some(Tokens {
                input: 1,
                output: 2,
                reasoning: 3,
                cache_read: 4,
                cache_write: 5,
            }),
            summary: Some(Summary {
                additions: 1,
                deletions: 2,
                files: 3,
            }),
            time_compacting: time(5),
            time_suspended: time(6),
            forked_from: text(),
            time_idle: time(7),
            time_viewed: time(8),
            idle_outcome: text(),
            ..session("New session", Some(true))
        }
    }

    fn serialized(entry: &Entry) -> String {
        let mut text = Vec::new();
        append_json(entry, &mut text);
        String::from_utf8(text).unwrap()
    }

    /// The oracle is serde's text of the parsed entry.
    #[test]
    fn row_is_sent_as_its_entry_serializes() {
        let mut sessions = vec![full()];
        for title in ["Fix", "\\\",\"marked\":null,\"\u{1b}", "\u{202e}日本", ""] {
            sessions.extend([None, Some(true), Some(false)].map(|marked| session(title, marked)));
        }
        for untitled in [true, false] {
            for title in [None, Some("New session")] {
                for first_prompt in [None, Some("Why")] {
                    sessions.push(Session {
                        untitled,
                        title: title.map(str::to_owned),
                        first_prompt: first_prompt.map(str::to_owned),
                        ..session("", None)
                    });
                }
            }
        }
        let places = [(None, false), (Some("/x \"y\""), true)];
        for (session, (project, is_gone)) in sessions
            .iter()
            .flat_map(|session| places.map(|place| (session, place)))
        {
            let mut row = RowMaker::default().row(session);
            row.set_project(project.map(Into::into), is_gone);
            let mut entry = Entry {
                session: session.clone(),
                project: project.map(str::to_owned),
                gone: is_gone,
            };
            assert_eq!(sent(&row), serialized(&entry));
            assert_eq!(row.entry(), entry);
            let mut forgotten = row.clone();
            forgotten.forget_mark();
            row.set_mark(true);
            entry.session.marked = Some(session.marked.unwrap_or(true));
            assert_eq!(sent(&row), serialized(&entry));
            assert_eq!(row.marked(), entry.session.marked);
            entry.session.marked = None;
            assert_eq!(sent(&forgotten), serialized(&entry));
            assert_eq!(forgotten.marked(), None);
        }
    }

    #[test]
    fn unchanged_session_shares_its_text() {
        let row = RowMaker::default().row(&session("Fix", None));
        let known = Arc::new(Rows::from([(row.id().clone(), row.clone())]));
        let mut maker = RowMaker::sharing(Some(known));
        let same = maker.row(&session("Fix", None));
        assert!(Arc::ptr_eq(&same.fields, &row.fields));
        let other = maker.row(&session("Fixed", None));
        assert_ne!(other, row);
        assert!(Arc::ptr_eq(&other.place, &same.place));
    }
}
