//! The helper's side of the wire.

use std::io::{self, Write};

use serde::Serialize;

use crate::json::line;

use super::{Answer, AnswersEnd, Degraded, End, Hello, HelperError, Message, limits};
use crate::session::Session;

/// Writes one listing, line by line, and keeps to the limits of the wire: what
/// it has written is never refused for its size.
///
/// The order (`hello`, sessions, `end` or `error`) is the caller's to keep. It
/// neither buffers nor flushes: hand it a buffered writer.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    sessions: usize,
    bytes: usize,
}

/// Why a line was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The other end is gone, or failing.
    #[error("the listing cannot be written")]
    Io(#[from] io::Error),
    /// The listing would be larger than the wire allows.
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

/// What every listing keeps free for its last line.
const ROOM_FOR_THE_LAST_LINE: usize = limits::LINE + 1;

impl<W: Write> Writer<W> {
    /// A writer of one listing to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            sessions: 0,
            bytes: 0,
        }
    }

    /// How many sessions were written.
    pub fn sessions(&self) -> u64 {
        self.sessions as u64
    }

    /// Writes the first line, and pushes it out: the caller learns at once that
    /// it speaks with a helper, even where the database then hangs.
    ///
    /// # Errors
    ///
    /// Where `out` fails.
    pub fn hello(&mut self) -> Result<(), WriteError> {
        self.put(&Message::Hello(Hello::ours()), limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    /// Writes one session.
    ///
    /// # Errors
    ///
    /// Where `out` fails, or the session would make the listing too large. The
    /// listing can then only end in [`error`](Self::error).
    pub fn session(&mut self, session: Session) -> Result<(), WriteError> {
        if self.sessions == limits::SESSIONS {
            return Err(WriteError::TooLarge(
                "the database has more than 200000 sessions, too many for one listing; \
                 archive or delete some in OpenCode",
            ));
        }
        let room = limits::TOTAL - ROOM_FOR_THE_LAST_LINE;
        self.put(&Message::Session(Box::new(session)), room)?;
        self.sessions += 1;
        Ok(())
    }

    /// Writes one answer.
    ///
    /// # Errors
    ///
    /// Where `out` fails, or the answer would make the output too large.
    pub fn answer(&mut self, answer: &Answer) -> Result<(), WriteError> {
        self.put(answer, limits::TOTAL - ROOM_FOR_THE_LAST_LINE)
    }

    /// Writes the last line after all answers.
    ///
    /// # Errors
    ///
    /// Where `out` fails.
    pub fn end_answers(mut self, end: &AnswersEnd) -> Result<(), WriteError> {
        self.put(end, limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    /// Writes the last line of a complete listing. A reason too long for the wire is
    /// cut.
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

    /// Writes the last line of a failed listing. A message too long for the
    /// wire is cut.
    ///
    /// # Errors
    ///
    /// Where `out` fails.
    pub fn error(mut self, mut failure: HelperError) -> Result<(), WriteError> {
        cut(&mut failure.message);
        self.put(&Message::Error(failure), limits::TOTAL)?;
        Ok(self.out.flush()?)
    }

    fn put(&mut self, message: &impl Serialize, room: usize) -> Result<(), WriteError> {
        let line = line(message);
        // Texts are cut at 4 KiB before they come here, so that even escaped
        // byte by byte no line comes near its limit.
        debug_assert!(line.len() <= limits::LINE);
        if self.bytes + line.len() > room {
            return Err(WriteError::TooLarge(
                "the listing is larger than 256 MiB, too large for one listing; \
                 archive or delete some sessions in OpenCode",
            ));
        }
        self.bytes += line.len();
        Ok(self.out.write_all(&line)?)
    }
}

/// Cuts a text for people to the length that the wire carries.
fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(limits::TEXT));
}
