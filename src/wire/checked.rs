//! Checks the output of a writer in the same process.

use super::{Checker, Content, ListingContent, Verdict, Violation};

/// A [`Checker`] that a [`Writer`](super::Writer) in the same process can write to.
///
/// A violation fails the write, and [`finish`](Self::finish) returns it.
#[derive(Debug)]
pub struct Checked<C: Content = ListingContent> {
    checker: Checker<C>,
    violation: Option<Violation>,
}

impl Default for Checked {
    fn default() -> Self {
        Self::of(ListingContent::default())
    }
}

impl<C: Content> Checked<C> {
    /// Creates a checker of this content.
    #[must_use]
    pub fn of(content: C) -> Self {
        Self {
            checker: Checker::of(content),
            violation: None,
        }
    }

    /// Returns how many sessions or answers were written so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.checker.count()
    }

    /// Checks that the output is complete and returns it.
    ///
    /// # Errors
    ///
    /// Returns the first violation.
    pub fn finish(self) -> Result<Verdict<C::Whole>, Violation> {
        match self.violation {
            Some(violation) => Err(violation),
            None => self.checker.finish(),
        }
    }
}

impl<C: Content> std::io::Write for Checked<C> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.violation.is_none() {
            self.violation = self.checker.push(bytes).err();
        }
        match &self.violation {
            None => Ok(bytes.len()),
            Some(violation) => Err(std::io::Error::other(violation.clone())),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
