//! How a listing or a look-up ended.

use std::fmt;
use std::time::Duration;

use super::failure::{Failure, write_stderr_tail};
use crate::text::one_line;
use crate::wire::{ErrorKind, HelperError, Listing, PROTOCOL, Progress, VERSION, Verdict};

/// How a listing, or a look-up, ended.
#[derive(Debug)]
pub enum Outcome<T = Listing> {
    /// All that was asked for, and valid.
    Complete(T),
    /// The helper worked and said why it could not list.
    Refused(Refusal),
    /// The helper did not work, or could not be launched.
    Failed(Failure),
    /// The helper was not done at the deadline and was killed.
    TimedOut(Timeout),
    /// The caller ended it.
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

/// The helper's own `error` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it said.
    pub failure: HelperError,
    /// Its version.
    pub lister: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An older helper names its own option, which nobody can give it from here.
        let message = self.failure.message.replace("--busy-timeout", "--deadline");
        match &*one_line(&message) {
            "" => write!(
                f,
                "the helper says {}, and not why",
                self.failure.kind.as_str()
            )?,
            message => f.write_str(message)?,
        }
        // Of one version it is no misunderstanding.
        if self.failure.kind == ErrorKind::Usage && self.lister != VERSION {
            write!(
                f,
                "; the helper is version {} and this is version {VERSION} (protocol {PROTOCOL}): \
                 install both programs from one version",
                one_line(&self.lister)
            )?;
        }
        Ok(())
    }
}

/// The helper was not done at the deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeout {
    /// The deadline.
    pub deadline: Duration,
    /// How far it had come.
    pub progress: Progress,
    /// The helper runs elsewhere: a command was stopped.
    pub is_command: bool,
    /// The end of what it wrote to standard error.
    pub stderr_tail: String,
}

/// What was left of a command's deadline, as a person would say it: two digits of it.
fn rounded(deadline: Duration) -> Duration {
    let micros = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
    let step = 10_u64.pow(micros.checked_ilog10().unwrap_or(0).saturating_sub(1));
    Duration::from_micros(micros.saturating_add(step / 2) / step * step)
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deadline = rounded(self.deadline);
        let there = match (self.is_command, self.progress) {
            (true, Progress::Nothing) => {
                write!(
                    f,
                    "the command said nothing within {deadline:?} and was stopped; does it wait for \
                     a password or for a new host key? Run it by hand; with -o BatchMode=yes ssh \
                     asks nothing and says why"
                )?;
                return write_stderr_tail(&self.stderr_tail, f);
            }
            (true, Progress::Complete) => {
                write!(
                    f,
                    "the helper was done, and the command was not within {deadline:?}: with \
                     -o ControlMaster=no ssh serves no other connections"
                )?;
                return write_stderr_tail(&self.stderr_tail, f);
            }
            (true, _) => " there",
            (false, _) => "",
        };
        write!(
            f,
            "the helper was not done within {deadline:?} and was stopped {}; raise --deadline, or \
             see what holds it up with `opencode-lister explain`{there}",
            self.progress
        )?;
        write_stderr_tail(&self.stderr_tail, f)
    }
}

/// What a checked output comes to.
pub(crate) fn outcome_of<T>(verdict: Verdict<T>) -> Outcome<T> {
    match verdict {
        Verdict::Whole(whole) => Outcome::Complete(whole),
        Verdict::Refused { lister, failure } => Outcome::Refused(Refusal { failure, lister }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_is_said_in_two_digits() {
        for (micros, said) in [
            (14_998_213, "15s"),
            (1_499_999, "1.5s"),
            (999_100, "1s"),
            (297_000, "300ms"),
            (119_900_000, "120s"),
            (9, "9µs"),
            (0, "0ns"),
        ] {
            let rounded = rounded(Duration::from_micros(micros));
            assert_eq!(format!("{rounded:?}"), said);
        }
    }
}
