//! The caller's side of the wire: checks every byte that a helper sends.
//!
//! A helper can be of another version, cut off, broken, or hostile. [`Checker`] accepts an output
//! that is complete and within the limits, and returns the first [`Violation`] of any other. The
//! limits bound its memory, whatever arrives.

use serde::de::DeserializeOwned;

use super::parse::{LineError, parse};
use super::violation::{invalid, shown};
use super::{
    Hello, HelperError, Listing, ListingContent, Message, PROTOCOL, Progress, Violation, limits,
};
use crate::text;

/// A valid output.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<T = Listing> {
    /// The complete answer.
    Whole(T),
    /// The helper reported an error.
    Refused {
        /// The helper's version.
        helper_version: String,
        /// The `error` line.
        failure: HelperError,
    },
}

/// Checks the output of a listing or a look-up as it arrives.
///
/// After the first [`Violation`] the checker must not be used any more.
#[derive(Debug)]
pub struct Checker<C: Content = ListingContent> {
    /// The beginning of a line whose line feed has not arrived.
    partial: Vec<u8>,
    total_bytes: usize,
    limit_bytes: usize,
    lines: usize,
    hello: Option<Hello>,
    content: C,
    last: Option<Last<C::End>>,
}

#[derive(Debug)]
enum Last<E> {
    End(E),
    Error(HelperError),
}

/// What an output contains between its `hello` and its last line.
pub trait Content {
    /// A line after the first one.
    type Line: DeserializeOwned;
    /// The `end` line.
    type End: std::fmt::Debug;
    /// The whole content.
    type Whole;

    /// The known types of lines.
    const KNOWN: &'static [&'static str];

    /// Returns the newest protocol in which the answer may be.
    fn protocol(&self) -> u32 {
        PROTOCOL
    }

    /// Takes the first line.
    fn begin(&mut self, _hello: &Hello) {}

    /// Returns what the caller must send to the helper now, if a line asked for it.
    fn reply(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Takes line number `at`, counted from 1, which has these bytes.
    ///
    /// # Errors
    ///
    /// Returns the rule that the line breaks.
    fn take(
        &mut self,
        line: Self::Line,
        bytes: &[u8],
        at: usize,
    ) -> Result<LineKind<Self::End>, Violation>;

    /// Returns how many sessions or answers have arrived.
    fn count(&self) -> usize;

    /// Returns the whole content, from a helper of version `helper_version`, that was `bytes` long.
    fn whole(self, end: Self::End, helper_version: String, bytes: u64) -> Self::Whole;
}

/// The kind of a line.
#[derive(Debug)]
pub enum LineKind<E> {
    /// A `hello`.
    Hello,
    /// A session or an answer.
    More,
    /// The `end`.
    End(E),
    /// An `error`.
    Error(HelperError),
}

impl<C: Content> Checker<C> {
    /// Creates a checker of this content.
    #[must_use]
    pub fn of(content: C) -> Self {
        Self {
            partial: Vec::new(),
            total_bytes: 0,
            limit_bytes: limits::TOTAL,
            lines: 0,
            hello: None,
            content,
            last: None,
        }
    }

    /// Sets the limit of all lines together, in bytes.
    #[must_use]
    pub fn with_limit_bytes(self, limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            ..self
        }
    }

    /// Returns how many bytes have arrived.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.total_bytes
    }

    /// Returns how many sessions or answers have arrived.
    #[must_use]
    pub fn count(&self) -> usize {
        self.content.count()
    }

    /// Returns how far the output has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match (&self.last, &self.hello) {
            (Some(_), _) => Progress::Complete,
            (None, Some(_)) => Progress::Sessions(self.content.count()),
            (None, None) => Progress::Nothing,
        }
    }

    /// Returns what the caller must send to the helper now. Call it after each
    /// [`push`](Self::push).
    pub fn reply(&mut self) -> Option<Vec<u8>> {
        self.content.reply()
    }

    /// Takes the next bytes, which may begin and end anywhere in a line.
    ///
    /// # Errors
    ///
    /// Returns the first rule that is broken.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        self.total_bytes += bytes.len();
        if self.total_bytes > self.limit_bytes {
            return Err(Violation::TooMuch(self.limit_bytes));
        }
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
            let from_line = std::mem::replace(&mut bytes, rest);
            if self.partial.is_empty() {
                self.line(line, from_line)?;
            } else {
                self.hold(line)?;
                let line = std::mem::take(&mut self.partial);
                self.line(&line, &line)?;
                self.partial = line;
                self.partial.clear();
            }
        }
        self.hold(bytes)
    }

    /// Checks that the output is complete, and returns it.
    ///
    /// # Errors
    ///
    /// Returns an error if the output ended before its last line.
    pub fn finish(self) -> Result<Verdict<C::Whole>, Violation> {
        if !self.partial.is_empty() {
            return Err(Violation::PartialLine(self.lines + 1));
        }
        let Some(Hello {
            lister: helper_version,
            ..
        }) = self.hello
        else {
            return Err(Violation::NoOutput);
        };
        match self.last {
            None => Err(Violation::NoEnd(self.content.count())),
            Some(Last::Error(failure)) => Ok(Verdict::Refused {
                helper_version,
                failure,
            }),
            Some(Last::End(end)) => {
                let whole = self
                    .content
                    .whole(end, helper_version, self.total_bytes as u64);
                Ok(Verdict::Whole(whole))
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.partial.len() + bytes.len() > limits::LINE {
            return Err(Violation::LongLine(self.lines + 1));
        }
        if self.last.is_some() && !bytes.is_empty() {
            return Err(Violation::AfterEnd);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes one line; `from_line` begins with it and includes the bytes after it.
    fn line(&mut self, line: &[u8], from_line: &[u8]) -> Result<(), Violation> {
        self.lines += 1;
        let at = self.lines;
        if line.len() > limits::LINE {
            return Err(Violation::LongLine(at));
        }
        if self.last.is_some() {
            return Err(Violation::AfterEnd);
        }
        let Some(hello) = &self.hello else {
            let hello = first_line(line, from_line, self.content.protocol())?;
            self.content.begin(&hello);
            self.hello = Some(hello);
            return Ok(());
        };
        match parse(line) {
            Ok(message) => match self.content.take(message, line, at)? {
                LineKind::Hello => Err(Violation::SecondHello(at)),
                LineKind::More => Ok(()),
                LineKind::End(end) => {
                    self.last = Some(Last::End(end));
                    Ok(())
                }
                LineKind::Error(failure) if failure.message.len() > limits::TEXT => {
                    Err(invalid(at, "its message is too long"))
                }
                LineKind::Error(failure) => {
                    self.last = Some(Last::Error(failure));
                    Ok(())
                }
            },
            Err(error) => Err(match kind(line) {
                Some(name) if !C::KNOWN.contains(&name.as_str()) => Violation::UnknownType {
                    line: at,
                    name: shown(name.as_bytes()),
                    helper_version: shown(hello.lister.as_bytes()),
                },
                _ => invalid(at, &error.to_string()),
            }),
        }
    }
}

impl Checker {
    /// Creates a checker of a listing.
    #[must_use]
    pub fn new() -> Self {
        Self::of(ListingContent::default())
    }
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the type of a line.
fn kind(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kind {
        r#type: String,
    }
    parse::<Kind>(line).ok().map(|kind| kind.r#type)
}

/// Parses the first line of an answer in protocol 1, or up to the protocol `newest`.
fn first_line(line: &[u8], from_line: &[u8], newest: u32) -> Result<Hello, Violation> {
    match parse(line) {
        Ok(Message::Hello(hello)) if hello.lister.len() > limits::TEXT => {
            Err(Violation::NoHello(shown(hello.lister.as_bytes())))
        }
        Ok(Message::Hello(hello)) if (PROTOCOL..=newest).contains(&hello.protocol) => Ok(hello),
        Ok(Message::Hello(hello)) => Err(Violation::Protocol {
            theirs: hello.protocol,
            helper_version: shown(hello.lister.as_bytes()),
        }),
        // A line of a helper, in which only the ends are wrong.
        Err(error @ (LineError::CarriageReturn | LineError::Blanks)) => {
            Err(invalid(1, &error.to_string()))
        }
        // In UTF-16 a byte 10 is not always a line feed.
        _ if text::begins_in_utf16(from_line) => {
            let said = text::decoded(from_line);
            let mut lines = said.lines().map(text::one_line);
            let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
            Err(Violation::Utf16(shown(first.as_bytes())))
        }
        _ => Err(Violation::NoHello(shown(line))),
    }
}
