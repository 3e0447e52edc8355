//! Writes the wire: the helper's side.

use std::io::{self, Write};

use serde::Serialize;

use crate::json::line;

use super::{
    Answer, AnswersEnd, Degraded, End, Hello, HelperError, Message, PROTOCOL, SessionLine, limits,
};
use crate::line_hash::LineHash;
use crate::text;

/// Writes one listing or look-up, line by line, within the limits of the wire. A
/// [`Checker`](super::Checker) rejects its output for its size only if it has a lower limit, as
/// for another machine ([`limits::TOTAL_OF_COMMAND`]).
///
/// The caller must observe the order (`hello`, sessions, `end` or `error`). The writer does
/// not buffer, so pass a buffered `out`. It flushes after the first and the last line.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// How many sessions were written.
    sessions: usize,
    /// How many sessions were left out, because the caller has their lines.
    left_out: usize,
    bytes: usize,
}

/// Why a line was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed or was closed.
    #[error("cannot write the listing")]
    Io(#[from] io::Error),
    /// The output would exceed a limit of the wire. Holds the message for people.
    #[error("{0}")]
    TooLarge(&'static str),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) => error,
            WriteError::TooLarge(_) => Self::other(error),
        }
    }
}

/// The bytes that remain reserved for the last line.
const LAST_LINE_BYTES: usize = limits::LINE + 1;

const _: () = assert!(LAST_LINE_BYTES < limits::TOTAL);

impl<W: Write> Writer<W> {
    /// Creates a writer to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            sessions: 0,
            left_out: 0,
            bytes: 0,
        }
    }

    /// Returns how many sessions were written.
    pub fn sessions(&self) -> u64 {
        self.sessions as u64
    }

    /// Returns how many sessions were not written, because the caller has their lines.
    pub fn left_out(&self) -> u64 {
        self.left_out as u64
    }

    /// Writes the first line and flushes it, so that the caller receives it even if opening
    /// the database then blocks.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` fails.
    pub fn hello(&mut self) -> Result<(), WriteError> {
        self.hello_of(PROTOCOL)
    }

    /// As [`hello`](Self::hello), for an answer in this protocol.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` fails.
    pub fn hello_of(&mut self, protocol: u32) -> Result<(), WriteError> {
        self.put(&Message::Hello(Hello::of(protocol)), limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    /// Asks for the set that the request announced, and flushes (protocol 2).
    ///
    /// # Errors
    ///
    /// Returns an error if `out` fails.
    pub fn want(&mut self) -> Result<(), WriteError> {
        self.put(&Message::Want, limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    /// Writes that a session is gone (protocol 2); `session` is the hash of its id.
    ///
    /// # Errors
    ///
    /// As [`session`](Self::session).
    pub fn gone(&mut self, session: LineHash) -> Result<(), WriteError> {
        let limit_bytes = limits::TOTAL - LAST_LINE_BYTES;
        self.put(&Message::Gone { session }, limit_bytes)
    }

    /// Writes one session.
    ///
    /// # Errors
    ///
    /// As [`session_line`](Self::session_line).
    pub fn session<'s>(&mut self, session: impl Into<SessionLine<'s>>) -> Result<(), WriteError> {
        let mut line = Vec::new();
        session.into().append_to(&mut line);
        self.session_line(&line)
    }

    /// Writes one session, given its line ([`SessionLine::append_to`]).
    ///
    /// # Errors
    ///
    /// Returns [`WriteError::Io`] if `out` fails, and [`WriteError::TooLarge`] if the session
    /// would exceed a limit. After an error only [`error`](Self::error) can end the listing.
    pub fn session_line(&mut self, line: &[u8]) -> Result<(), WriteError> {
        self.session_line_unless(line, |_| false)
    }

    /// Writes one session, unless the caller has its line: `is_known` gets it without its line
    /// feed.
    ///
    /// # Errors
    ///
    /// As [`session_line`](Self::session_line).
    pub fn session_line_unless(
        &mut self,
        line: &[u8],
        is_known: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(), WriteError> {
        if self.sessions + self.left_out == limits::SESSIONS {
            return Err(WriteError::TooLarge(
                "the database has more than 200000 sessions, too many for one listing; \
                 archive or delete some in OpenCode",
            ));
        }
        if is_known(line.strip_suffix(b"\n").unwrap_or(line)) {
            self.left_out += 1;
            return Ok(());
        }
        self.put_line(line, limits::TOTAL - LAST_LINE_BYTES)?;
        self.sessions += 1;
        Ok(())
    }

    /// Writes one answer.
    ///
    /// # Errors
    ///
    /// Returns [`WriteError::Io`] if `out` fails, and [`WriteError::TooLarge`] if the answer
    /// would exceed the size limit.
    pub fn answer(&mut self, answer: &Answer) -> Result<(), WriteError> {
        self.put(answer, limits::TOTAL - LAST_LINE_BYTES)
    }

    /// Writes the last line of a complete look-up and flushes.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` fails.
    pub fn end_answers(mut self, end: &AnswersEnd) -> Result<(), WriteError> {
        self.put(end, limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    /// Writes the last line of a complete listing and flushes. Cuts a reason that is too long
    /// for the wire.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` fails.
    pub fn end(mut self, mut end: End) -> Result<(), WriteError> {
        for Degraded { reason, .. } in &mut end.degraded {
            cut(reason);
        }
        self.put(&Message::End(end), limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    /// Writes the last line of a failed listing or look-up and flushes. Cuts a message that
    /// is too long for the wire.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` fails.
    pub fn error(mut self, mut failure: HelperError) -> Result<(), WriteError> {
        cut(&mut failure.message);
        self.put(&Message::Error(failure), limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    /// Writes a message unless the output would exceed `limit_bytes`.
    fn put(&mut self, message: &impl Serialize, limit_bytes: usize) -> Result<(), WriteError> {
        self.put_line(&line(message), limit_bytes)
    }

    fn put_line(&mut self, line: &[u8], limit_bytes: usize) -> Result<(), WriteError> {
        // Texts are cut to 4 KiB before, so that no line comes near its limit, even if every
        // byte is escaped.
        debug_assert!(line.len() <= limits::LINE);
        if self.bytes + line.len() > limit_bytes {
            return Err(WriteError::TooLarge(
                "the listing is larger than 256 MiB, too large for one listing; \
                 archive or delete some sessions in OpenCode",
            ));
        }
        self.bytes += line.len();
        Ok(self.out.write_all(line)?)
    }
}

/// Cuts a text to [`limits::TEXT`] bytes, at a character boundary.
fn cut(text: &mut String) {
    text.truncate(text::cut(text, limits::TEXT).len());
}
