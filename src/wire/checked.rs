//! Checking what a writer of the same process writes.

use super::{Checker, Content, ListingContent, Verdict, Violation};

/// A [`Checker`] that a [`Writer`](super::Writer) of the same process writes to.
///
/// A violation fails the write, and is kept for [`finish`](Self::finish).
#[derive(Debug)]
pub struct Checked<C: Content = ListingContent> {
    checker: Checker<C>,
    broken: Option<Violation>,
}

impl Default for Checked {
    fn default() -> Self {
        Self::of(ListingContent::default())
    }
}

impl<C: Content> Checked<C> {
    /// A checker of this content.
    #[must_use]
    pub fn of(content: C) -> Self {
        Self {
            checker: Checker::of(content),
            broken: None,
        }
    }

    /// How many sessions or answers have come.
    #[must_use]
    pub fn count(&self) -> usize {
        self.checker.count()
    }

    /// The output has ended.
    ///
    /// # Errors
    ///
    /// The first rule that was broken.
    pub fn finish(self) -> Result<Verdict<C::Whole>, Violation> {
        match self.broken {
            Some(violation) => Err(violation),
            None => self.checker.finish(),
        }
    }
}

impl<C: Content> std::io::Write for Checked<C> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.broken.is_none() {
            self.broken = self.checker.push(bytes).err();
        }
        match &self.broken {
            None => Ok(bytes.len()),
            Some(violation) => Err(std::io::Error::other(violation.clone())),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
