//! How a listing or a look-up ended.

use std::fmt;
use std::time::Duration;

use super::failure::{Failure, write_stderr_tail};
use crate::text::one_line;
use crate::wire::{ErrorKind, HelperError, Listing, PROTOCOL, Progress, VERSION, Verdict};

/// The outcome of a listing or a look-up.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome<T = Listing> {
    /// The whole, valid answer.
    Complete(T),
    /// The helper ran and reported an error.
    Refused(Refusal),
    /// The helper could not be spawned, or its run failed.
    Failed(Failure),
    /// The helper had not finished at the deadline and was killed.
    TimedOut(Timeout),
    /// The caller cancelled the request.
    Cancelled,
}

impl<T> fmt::Display for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete(_) => f.write_str("complete"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
            Self::TimedOut(timeout) => timeout.fmt(f),
            Self::Cancelled => f.write_str("the listing was cancelled"),
        }
    }
}

/// An error that the helper reported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The helper's `error` line.
    pub error: HelperError,
    /// The helper's version.
    pub helper_version: String,
}

impl Refusal {
    /// Creates the refusal of a helper of this version.
    #[must_use]
    pub fn new(error: HelperError, helper_version: impl Into<String>) -> Self {
        Self {
            error,
            helper_version: helper_version.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An older helper names its own option; a caller can set only the deadline.
        let message = self.error.message.replace("--busy-timeout", "--deadline");
        match &*one_line(&message) {
            "" => write!(
                f,
                "the helper reported {} without a message",
                self.error.kind.as_str()
            )?,
            message => f.write_str(message)?,
        }
        // Programs of one version agree about the arguments.
        if self.error.kind == ErrorKind::Usage && self.helper_version != VERSION {
            write!(
                f,
                "; the helper is version {} and this program is version {VERSION} (protocol \
                 {PROTOCOL}): install both programs from one version",
                one_line(&self.helper_version)
            )?;
        }
        Ok(())
    }
}

/// A helper that had not finished at its deadline and was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeout {
    /// The deadline.
    pub deadline: Duration,
    /// How far its output had come.
    pub progress: Progress,
    /// Whether a command that runs the helper elsewhere was killed.
    pub is_command: bool,
    /// The last 8 KiB that it wrote to standard error.
    pub stderr_tail: String,
}

/// Rounds a deadline to two significant digits: what is left of a command's deadline is an
/// odd number of microseconds.
fn round_deadline(deadline: Duration) -> Duration {
    let micros = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
    let step = 10_u64.pow(micros.checked_ilog10().unwrap_or(0).saturating_sub(1));
    Duration::from_micros(micros.saturating_add(step / 2) / step * step)
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deadline = round_deadline(self.deadline);
        let place = match (self.is_command, self.progress) {
            (true, Progress::Nothing) => {
                write!(
                    f,
                    "the command printed nothing within {deadline:?} and was killed (is it waiting \
                     for a password or for a new host key?); run it by hand, or let ssh fail with \
                     a message instead with -o BatchMode=yes"
                )?;
                return write_stderr_tail(&self.stderr_tail, f);
            }
            (true, Progress::Complete) => {
                write!(
                    f,
                    "the helper finished, but the command did not exit within {deadline:?}: with \
                     -o ControlMaster=no ssh does not stay for other connections"
                )?;
                return write_stderr_tail(&self.stderr_tail, f);
            }
            (true, _) => " there",
            (false, _) => "",
        };
        write!(
            f,
            "the helper did not finish within {deadline:?} and was killed {}; raise --deadline, or \
             run `opencode-lister explain`{place} to see which phase is slow",
            self.progress
        )?;
        write_stderr_tail(&self.stderr_tail, f)
    }
}

/// Returns the outcome of a checked output.
pub(crate) fn outcome_of<T>(verdict: Verdict<T>) -> Outcome<T> {
    match verdict {
        Verdict::Whole(whole) => Outcome::Complete(whole),
        Verdict::Refused {
            helper_version: lister,
            failure,
        } => Outcome::Refused(Refusal {
            error: failure,
            helper_version: lister,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_is_rounded_to_two_digits() {
        for (micros, expected) in [
            (14_998_213, "15s"),
            (1_499_999, "1.5s"),
            (999_100, "1s"),
            (297_000, "300ms"),
            (119_900_000, "120s"),
            (9, "9µs"),
            (0, "0ns"),
        ] {
            let rounded = round_deadline(Duration::from_micros(micros));
            assert_eq!(format!("{rounded:?}"), expected);
        }
    }
}
