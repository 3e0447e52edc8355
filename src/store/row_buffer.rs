//! Rows in the form that the wire carries, in little memory: the texts of all rows are in one
//! text, and their numbers in one list.

use rusqlite::types::ValueRef;

use super::row::{TextTruncator, parse_id, to_integer};
use crate::session::{Millis, Store, Summary, Tokens, is_untitled};
use crate::wire::{ModelLine, SessionLine, limits};

/// How many texts a row has: [`super::row::TEXT_COLUMNS`], of which the model is three.
const TEXTS: usize = 15;

/// How many numbers a row has: [`super::row::NUMBER_COLUMNS`] and the time of the newest
/// message.
const NUMBERS: usize = 17;

/// The length of a text that is null.
const NULL: u16 = u16::MAX;

const _: () = assert!(limits::TEXT < NULL as usize);

/// Rows of sessions.
#[derive(Debug, Default)]
pub(super) struct RowBuffer {
    rows: Vec<BufferedRow>,
    texts: String,
    /// The numbers that are not null.
    numbers: Vec<i64>,
}

#[derive(Debug)]
struct BufferedRow {
    /// The offset of the first text.
    texts_at: u32,
    /// The index of the first number.
    numbers_at: u32,
    text_lens: [u16; TEXTS],
    /// The number with index `n` is not null if bit `n` is set.
    set_numbers: u32,
    truncated: u8,
    store: Store,
}

impl RowBuffer {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.texts.clear();
        self.numbers.clear();
    }

    /// Returns how much memory the rows take.
    pub(super) fn size_bytes(&self) -> usize {
        self.texts.len() + size_of_val(self.numbers.as_slice()) + size_of_val(self.rows.as_slice())
    }

    /// Begins a row. It is added by [`NewRow::finish`].
    pub(super) fn begin(&mut self, store: Store) -> NewRow<'_> {
        let offset = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        NewRow {
            row: BufferedRow {
                texts_at: offset(self.texts.len()),
                numbers_at: offset(self.numbers.len()),
                text_lens: [NULL; TEXTS],
                set_numbers: 0,
                truncated: 0,
                store,
            },
            texts: 0,
            bit: 1,
            truncator: TextTruncator::default(),
            buffer: self,
        }
    }

    /// Returns the row with this index, without its optional parts except `last_message_at`.
    /// Also returns how many of its texts were truncated.
    pub(super) fn get(&self, index: usize) -> Option<(SessionLine<'_>, u64)> {
        let row = self.rows.get(index)?;
        let mut rest = self.texts.get(row.texts_at as usize..)?;
        let mut texts = [None; TEXTS];
        for (text, len) in texts.iter_mut().zip(row.text_lens) {
            if len != NULL {
                let (first, after) = rest.split_at_checked(usize::from(len))?;
                (*text, rest) = (Some(first), after);
            }
        }
        let mut rest = self.numbers.get(row.numbers_at as usize..)?.iter();
        let mut numbers = [None; NUMBERS];
        for (bit, number) in numbers.iter_mut().enumerate() {
            if row.set_numbers & 1 << bit != 0 {
                *number = Some(*rest.next()?);
            }
        }
        Some((line(row.store, texts, numbers)?, row.truncated.into()))
    }
}

fn line<'a>(
    store: Store,
    texts: [Option<&'a str>; TEXTS],
    numbers: [Option<i64>; NUMBERS],
) -> Option<SessionLine<'a>> {
    let [
        id,
        directory,
        project_id,
        parent_id,
        title,
        agent,
        version,
        slug,
        share_url,
        workspace_id,
        model_id,
        provider_id,
        variant,
        idle_outcome,
        forked_from,
    ] = texts;
    let [
        created,
        updated,
        archived,
        cost,
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
        newest_message,
    ] = numbers;
    Some(SessionLine {
        id: id?,
        directory,
        worktree: None,
        project_id,
        parent_id,
        title,
        untitled: is_untitled(title),
        first_prompt: None,
        time_created: created.map(Millis),
        time_updated: updated.map(Millis),
        time_archived: non_zero_time(archived),
        last_message_at: newest_message.map(Millis),
        marked: None,
        store,
        agent,
        version,
        slug,
        share_url,
        workspace_id,
        model: model_id
            .zip(provider_id)
            .map(|(id, provider_id)| ModelLine {
                id,
                provider_id,
                variant,
            }),
        cost: cost.map(|bits| f64::from_bits(bits.cast_unsigned())),
        tokens: input.map(|input| Tokens {
            input,
            output: output.unwrap_or(0),
            reasoning: reasoning.unwrap_or(0),
            cache_read: cache_read.unwrap_or(0),
            cache_write: cache_write.unwrap_or(0),
        }),
        summary: additions
            .zip(deletions)
            .map(|(additions, deletions)| Summary {
                additions,
                deletions,
                files: files.unwrap_or(0),
            }),
        time_compacting: non_zero_time(compacting),
        time_suspended: non_zero_time(suspended),
        forked_from,
        time_idle: non_zero_time(idle),
        time_viewed: non_zero_time(viewed),
        idle_outcome,
    })
}

/// Converts a time of a nullable column, in which 0 means null.
fn non_zero_time(value: Option<i64>) -> Option<Millis> {
    value.filter(|value| *value != 0).map(Millis)
}

/// A row that is being added to a buffer: its texts and its numbers, each in order.
pub(super) struct NewRow<'b> {
    buffer: &'b mut RowBuffer,
    row: BufferedRow,
    /// How many texts were added.
    texts: usize,
    /// The bit of the next number.
    bit: u32,
    truncator: TextTruncator,
}

impl NewRow<'_> {
    /// Adds the id. Returns false if it is not a valid id.
    pub(super) fn id(&mut self, value: ValueRef<'_>) -> bool {
        let Some(id) = parse_id(value) else {
            return false;
        };
        self.push(Some(id));
        true
    }

    /// Adds a text, cut to what the wire carries. A blank text becomes null if
    /// `blank_is_null` is true.
    pub(super) fn text(&mut self, text: Option<&[u8]>, blank_is_null: bool) {
        let is_blank = |text: &[u8]| text.iter().all(u8::is_ascii_whitespace);
        let is_null = |text: &[u8]| blank_is_null && is_blank(text);
        match text {
            None => self.push(None),
            Some(text) => match std::str::from_utf8(text) {
                Ok(whole) if text.len() <= limits::TEXT => {
                    self.push((!is_null(text)).then_some(whole));
                }
                _ => {
                    let cut = self.truncator.truncate(text);
                    self.push((!is_null(cut.as_bytes())).then_some(&cut));
                }
            },
        }
    }

    /// Counts a text that could not be read.
    pub(super) fn count_unreadable(&mut self) {
        self.truncator.count += 1;
    }

    fn push(&mut self, text: Option<&str>) {
        if let Some(text) = text {
            // Texts are cut to 4 KiB.
            self.row.text_lens[self.texts] = u16::try_from(text.len()).unwrap_or(NULL);
            self.buffer.texts.push_str(text);
        }
        self.texts += 1;
    }

    /// Adds an integer.
    pub(super) fn integer(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            self.row.set_numbers |= self.bit;
            self.buffer.numbers.push(value);
        }
        self.bit <<= 1;
    }

    /// Adds an amount of money.
    pub(super) fn cost(&mut self, value: ValueRef<'_>) {
        let cost = match value {
            #[expect(clippy::cast_precision_loss, reason = "dollars are small numbers")]
            ValueRef::Integer(cost) => Some(cost as f64),
            ValueRef::Real(cost) => Some(cost).filter(|cost| cost.is_finite()),
            _ => None,
        };
        self.integer(cost.map(|cost| cost.to_bits().cast_signed()));
    }

    /// Adds an integer or a REAL, which is rounded down.
    pub(super) fn number(&mut self, value: ValueRef<'_>) {
        self.integer(to_integer(value));
    }

    /// Removes what was added.
    pub(super) fn abandon(self) {
        self.buffer.texts.truncate(self.row.texts_at as usize);
        self.buffer.numbers.truncate(self.row.numbers_at as usize);
    }

    /// Adds the row to the buffer. Returns its index.
    pub(super) fn finish(mut self) -> usize {
        self.row.truncated = u8::try_from(self.truncator.count).unwrap_or(u8::MAX);
        self.buffer.rows.push(self.row);
        self.buffer.rows.len() - 1
    }
}
