//! The rows of session tables as sessions. No large cell is loaded.
//!
//! There are two ways to read a row. [`RowReader`] borrows the texts of a row as they are, and
//! refuses a row with a text that the wire does not carry as it is. [`SessionRows`] reads any row
//! by its rowid, and changes such texts.

use std::io::Read;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row};

use super::cell_limit::{CellLimit, RowById};
use super::row::{LARGE_TEXT, NUMBER_COLUMNS, RowQuery, TEXT_COLUMNS, index_of};
use super::value::{TextTruncator, parse_id, to_integer, to_millis};
use crate::session::{Millis, SessionId, Store, Summary, Tokens, is_untitled};
use crate::wire::{ModelLine, SessionLine, limits};

/// The columns that are read in another way than those around them.
const TITLE: usize = index_of("title", &TEXT_COLUMNS);
const MODEL: usize = index_of("model", &TEXT_COLUMNS);

/// Reads the sessions of one table by their rowids, whatever their cells hold.
pub(super) struct SessionRows<'a> {
    query: &'a RowQuery<'a>,
    conn: &'a Connection,
    row: RowById<'a>,
}

impl<'a> SessionRows<'a> {
    /// Prepares the statement.
    pub(super) fn new(query: &'a RowQuery<'a>, conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            query,
            conn,
            row: RowById::new(conn, &query.row, query.large_row.clone())?,
        })
    }

    /// As [`new`](Self::new), but the statement is prepared when it is needed.
    pub(super) fn lazy(query: &'a RowQuery<'a>, conn: &'a Connection) -> Self {
        Self {
            query,
            conn,
            row: RowById::lazy(conn, query.row.clone(), query.large_row.clone()),
        }
    }

    /// Reads the row with this rowid. Returns `None` if it has no valid id. The limit must be
    /// [`MAX_LOADED_BYTES`].
    pub(super) fn read(
        &mut self,
        rowid: i64,
        limit: &CellLimit<'_>,
    ) -> rusqlite::Result<Option<SessionRow>> {
        let Self { query, conn, .. } = *self;
        let start = |column: &str| read_text_start(conn, query, rowid, column);
        let row = self.row.read(rowid, limit, |_, row| {
            SessionRow::read(query.store, row, start)
        })?;
        Ok(row.flatten())
    }
}

/// A row whose texts are in the form that the wire carries.
pub(super) struct SessionRow {
    store: Store,
    texts: [Option<String>; TEXT_COLUMNS.len()],
    model: StoredModel,
    numbers: [ValueRef<'static>; NUMBER_COLUMNS.len()],
    /// How many texts were truncated.
    pub(super) truncated: u64,
}

impl SessionRow {
    /// Returns `None` if the row has no valid id. Of a text that is too large to be loaded,
    /// `start` returns the start.
    fn read(
        store: Store,
        row: &Row<'_>,
        start: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> rusqlite::Result<Option<Self>> {
        let Some(id) = parse_id(row.get_ref(0)?) else {
            return Ok(None);
        };
        let mut truncator = TextTruncator::default();
        let mut texts = [const { None }; TEXT_COLUMNS.len()];
        texts[0] = Some(id.to_owned());
        let mut model = StoredModel::default();
        for (index, text) in texts.iter_mut().enumerate().skip(1) {
            *text = match row.get_ref(index)? {
                ValueRef::Text(json) if index == MODEL => {
                    model = StoredModel::parse(json).truncated(&mut truncator);
                    None
                }
                _ if index == MODEL => None,
                ValueRef::Text(bytes) => Some(truncator.truncate(bytes)),
                ValueRef::Blob(bytes) if bytes == LARGE_TEXT.as_bytes() => {
                    let start = start(TEXT_COLUMNS[index]);
                    truncator.count += u64::from(start.is_none());
                    start.map(|start| truncator.truncate(&start))
                }
                _ => None,
            };
        }
        let mut numbers = [ValueRef::Null; NUMBER_COLUMNS.len()];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = match row.get_ref(TEXT_COLUMNS.len() + index)? {
                ValueRef::Integer(value) => ValueRef::Integer(value),
                ValueRef::Real(value) => ValueRef::Real(value),
                _ => ValueRef::Null,
            };
        }
        Ok(Some(Self {
            store,
            texts,
            model,
            numbers,
            truncated: truncator.count,
        }))
    }

    /// Returns the session, without its optional parts.
    pub(super) fn line(&self) -> SessionLine<'_> {
        let texts = self.texts.each_ref().map(Option::as_deref);
        line(self.store, texts, self.model.line(), self.numbers)
    }
}

/// Reads rows of one table without a large cell, without copying their texts.
#[derive(Debug)]
pub(super) struct RowReader {
    store: Store,
    /// Which columns the table has.
    has_text: [bool; TEXT_COLUMNS.len()],
    has_number: [bool; NUMBER_COLUMNS.len()],
    /// Most rows have the model of the row before.
    last_json: Vec<u8>,
    last_model: StoredModel,
}

impl RowReader {
    pub(super) fn new(query: &RowQuery<'_>) -> Self {
        Self {
            store: query.store,
            has_text: TEXT_COLUMNS.map(|column| query.table.has_column(column)),
            has_number: NUMBER_COLUMNS.map(|column| query.table.has_column(column)),
            last_json: Vec::new(),
            last_model: StoredModel::default(),
        }
    }

    /// Reads the columns of a row, which begin with this one. Returns `None` if the row must be
    /// read by [`SessionRows`]: it has no valid id, or a text that must be changed for the wire.
    pub(super) fn read<'r>(
        &'r mut self,
        row: &'r Row<'_>,
        first: usize,
    ) -> rusqlite::Result<Option<SessionLine<'r>>> {
        let mut texts = [None; TEXT_COLUMNS.len()];
        let mut has_model = false;
        for (index, text) in texts.iter_mut().enumerate() {
            if !self.has_text[index] {
                continue;
            }
            match row.get_ref(first + index)? {
                ValueRef::Text(json) if index == MODEL => {
                    if self.last_json != json {
                        self.last_model = StoredModel::parse(json);
                        self.last_json = json.to_owned();
                    }
                    has_model = true;
                }
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(valid) if bytes.len() <= limits::TEXT => *text = Some(valid),
                    _ => return Ok(None),
                },
                // It looks like the placeholder of a large text, of which there are none here.
                ValueRef::Blob(bytes) if bytes == LARGE_TEXT.as_bytes() => return Ok(None),
                _ => {}
            }
        }
        let model = has_model.then_some(&self.last_model);
        let is_long = |model: &&StoredModel| !model.fits();
        let is_invalid = |id: &str| SessionId::check(id).is_err();
        if texts[0].is_none_or(is_invalid) || model.as_ref().is_some_and(is_long) {
            return Ok(None);
        }
        let mut numbers = [ValueRef::Null; NUMBER_COLUMNS.len()];
        for (index, number) in numbers.iter_mut().enumerate() {
            if self.has_number[index] {
                *number = row.get_ref(first + TEXT_COLUMNS.len() + index)?;
            }
        }
        let model = model.and_then(StoredModel::line);
        Ok(Some(line(self.store, texts, model, numbers)))
    }
}

/// The model in the form that OpenCode stores.
#[derive(Debug, Default, serde::Deserialize)]
struct StoredModel {
    id: String,
    #[serde(rename = "providerID")]
    provider_id: String,
    variant: Option<String>,
    /// False if the JSON is invalid.
    #[serde(skip, default = "yes")]
    is_valid: bool,
}

fn yes() -> bool {
    true
}

impl StoredModel {
    fn parse(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }

    fn truncated(self, truncator: &mut TextTruncator) -> Self {
        Self {
            id: truncator.truncate(self.id.as_bytes()),
            provider_id: truncator.truncate(self.provider_id.as_bytes()),
            variant: self
                .variant
                .map(|variant| truncator.truncate(variant.as_bytes())),
            is_valid: self.is_valid,
        }
    }

    /// Returns true if the wire carries the texts as they are.
    fn fits(&self) -> bool {
        let texts = [
            Some(&self.id),
            Some(&self.provider_id),
            self.variant.as_ref(),
        ];
        let mut texts = texts.into_iter().flatten();
        texts.all(|text| text.len() <= limits::TEXT)
    }

    fn line(&self) -> Option<ModelLine<'_>> {
        self.is_valid.then(|| ModelLine {
            id: &self.id,
            provider_id: &self.provider_id,
            variant: self.variant.as_deref(),
        })
    }
}

/// Returns the session with these columns, without its optional parts.
fn line<'a>(
    store: Store,
    texts: [Option<&'a str>; TEXT_COLUMNS.len()],
    model: Option<ModelLine<'a>>,
    numbers: [ValueRef<'_>; NUMBER_COLUMNS.len()],
) -> SessionLine<'a> {
    let title = texts[TITLE];
    let [
        id,
        directory,
        project_id,
        parent_id,
        _,
        agent,
        version,
        slug,
        share_url,
        workspace_id,
        _,
        idle_outcome,
        forked_from,
    ] = texts.map(non_blank);
    let [created, updated, archived, cost, counts @ ..] = numbers;
    let [
        input,
        output,
        reasoning,
        cache_read,
        cache_write,
        additions,
        deletions,
        files,
        idle,
        viewed,
        compacting,
        suspended,
    ] = counts.map(to_integer);
    let tokens = input.map(|input| Tokens {
        input,
        output: output.unwrap_or(0),
        reasoning: reasoning.unwrap_or(0),
        cache_read: cache_read.unwrap_or(0),
        cache_write: cache_write.unwrap_or(0),
    });
    let summary = additions
        .zip(deletions)
        .map(|(additions, deletions)| Summary {
            additions,
            deletions,
            files: files.unwrap_or(0),
        });
    SessionLine {
        // An id of blanks is an id.
        id: texts[0].or(id).unwrap_or_default(),
        directory,
        worktree: None,
        parent_id,
        untitled: is_untitled(title),
        title,
        project_id,
        first_prompt: None,
        time_created: to_millis(created),
        time_updated: to_millis(updated),
        time_archived: non_zero_time(to_integer(archived)),
        last_message_at: None,
        marked: None,
        store,
        agent,
        version,
        slug,
        share_url,
        workspace_id,
        model,
        cost: match cost {
            #[expect(clippy::cast_precision_loss, reason = "dollars are small numbers")]
            ValueRef::Integer(cost) => Some(cost as f64),
            ValueRef::Real(cost) => Some(cost).filter(|cost| cost.is_finite()),
            _ => None,
        },
        tokens,
        summary,
        time_compacting: non_zero_time(compacting),
        time_suspended: non_zero_time(suspended),
        forked_from,
        time_idle: non_zero_time(idle),
        time_viewed: non_zero_time(viewed),
        idle_outcome,
    }
}

/// Returns the text of a nullable column, in which a blank text means null.
fn non_blank(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.bytes().all(|byte| byte.is_ascii_whitespace()))
}

/// Converts a time of a nullable column, in which 0 means null.
fn non_zero_time(value: Option<i64>) -> Option<Millis> {
    value.filter(|value| *value != 0).map(Millis)
}

/// Reads the start of a large text. Returns `None` after any failure: the text is then null
/// and counts as truncated.
fn read_text_start(
    conn: &Connection,
    query: &RowQuery<'_>,
    rowid: i64,
    column: &str,
) -> Option<Vec<u8>> {
    if !query.is_utf8 {
        return None;
    }
    let table = query.table.name.as_str();
    let cell = conn.blob_open(MAIN_DB, table, column, rowid, true).ok()?;
    let mut start = Vec::with_capacity(2 * limits::TEXT);
    cell.take(2 * limits::TEXT as u64)
        .read_to_end(&mut start)
        .ok()?;
    Some(start)
}
