//! The caller's side of the wire: every byte a helper sends is checked here.
//!
//! A helper can be of another version, cut off, confused, or hostile. What
//! [`Checker`] accepts is a listing that is whole and within its limits; for
//! everything else it says which rule was broken. Memory is bounded by the
//! limits, whatever is pushed in.

use serde::de::DeserializeOwned;

use super::parse::{LineError, parse};
use super::violation::{invalid, shown};
use super::{
    Hello, HelperError, Listing, ListingContent, Message, PROTOCOL, Progress, Violation, limits,
};
use crate::text;

/// What a checked output was.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<T = Listing> {
    /// All that was asked for.
    Whole(T),
    /// The helper said that, and why, it failed.
    Refused {
        /// The helper's version.
        lister: String,
        /// Its reason.
        failure: HelperError,
    },
}

/// Checks an output as it arrives: a listing, or what else a helper is asked for.
///
/// After the first [`Violation`] the checker is spent: drop it.
#[derive(Debug)]
pub struct Checker<C: Content = ListingContent> {
    /// The part of a line whose end has not arrived.
    partial: Vec<u8>,
    /// Bytes so far.
    total: usize,
    /// The most of them that there may be.
    most: usize,
    /// Lines so far.
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

/// What an output has between its `hello` and its end, and what its `end` says.
pub trait Content {
    /// One line, after the first.
    type Line: DeserializeOwned;
    /// What its `end` says.
    type End: std::fmt::Debug;
    /// All of it.
    type Whole;

    /// The types of lines.
    const KNOWN: &'static [&'static str];

    /// Takes a line, the `at`th from 1.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    fn take(&mut self, line: Self::Line, at: usize) -> Result<LineKind<Self::End>, Violation>;

    /// How much has come.
    fn count(&self) -> usize;

    /// All of it, of a helper of this version, in so many bytes.
    fn whole(self, end: Self::End, lister: String, bytes: u64) -> Self::Whole;
}

/// What a line was.
#[derive(Debug)]
pub enum LineKind<E> {
    /// A `hello`.
    Hello,
    /// One of several.
    More,
    /// The `end`.
    End(E),
    /// An `error`.
    Error(HelperError),
}

impl<C: Content> Checker<C> {
    /// A checker of this content.
    #[must_use]
    pub fn of(content: C) -> Self {
        Self {
            partial: Vec::new(),
            total: 0,
            most: limits::TOTAL,
            lines: 0,
            hello: None,
            content,
            last: None,
        }
    }

    /// With this limit for all lines together, in bytes.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.total
    }

    /// How many sessions or answers have come.
    #[must_use]
    pub fn count(&self) -> usize {
        self.content.count()
    }

    /// How far the output has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match (&self.last, &self.hello) {
            (Some(_), _) => Progress::Complete,
            (None, Some(_)) => Progress::Sessions(self.content.count()),
            (None, None) => Progress::Nothing,
        }
    }

    /// Takes the next bytes, cut anywhere.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        self.total += bytes.len();
        if self.total > self.most {
            return Err(Violation::TooMuch(self.most));
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

    /// The output has ended.
    ///
    /// # Errors
    ///
    /// Where it ended too early.
    pub fn finish(self) -> Result<Verdict<C::Whole>, Violation> {
        if !self.partial.is_empty() {
            return Err(Violation::PartialLine(self.lines + 1));
        }
        let Some(Hello { lister, .. }) = self.hello else {
            return Err(Violation::NoOutput);
        };
        match self.last {
            None => Err(Violation::NoEnd(self.content.count())),
            Some(Last::Error(failure)) => Ok(Verdict::Refused { lister, failure }),
            Some(Last::End(end)) => {
                let whole = self.content.whole(end, lister, self.total as u64);
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

    /// Takes one line; `from_line` begins with it, and has what came after it.
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
            self.hello = Some(first_line(line, from_line)?);
            return Ok(());
        };
        match parse(line) {
            Ok(line) => match self.content.take(line, at)? {
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
                    lister: shown(hello.lister.as_bytes()),
                },
                _ => invalid(at, &error.to_string()),
            }),
        }
    }
}

impl Checker {
    /// A checker of a listing.
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

/// What a line says its type is.
fn kind(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kind {
        r#type: String,
    }
    parse::<Kind>(line).ok().map(|kind| kind.r#type)
}

fn first_line(line: &[u8], from_line: &[u8]) -> Result<Hello, Violation> {
    match parse(line) {
        Ok(Message::Hello(hello)) if hello.lister.len() > limits::TEXT => {
            Err(Violation::NoHello(shown(hello.lister.as_bytes())))
        }
        Ok(Message::Hello(hello)) if hello.protocol == PROTOCOL => Ok(hello),
        Ok(Message::Hello(hello)) => Err(Violation::Protocol {
            theirs: hello.protocol,
            lister: shown(hello.lister.as_bytes()),
        }),
        // It is a line of a helper, and only its ends are wrong.
        Err(error @ (LineError::CarriageReturn | LineError::Blanks)) => {
            Err(invalid(1, &error.to_string()))
        }
        // In UTF-16 a byte of ten is not always a line feed.
        _ if text::begins_in_utf16(from_line) => {
            let said = text::decoded(from_line);
            let mut lines = said.lines().map(text::one_line);
            let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
            Err(Violation::Utf16(shown(first.as_bytes())))
        }
        _ => Err(Violation::NoHello(shown(line))),
    }
}
