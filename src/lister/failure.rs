//! Why a run of the helper, or of the command that runs it, failed.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::text::{DisplayPath, one_line};
use crate::wire::{Progress, Violation};

/// A failed run of the helper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Failure {
    /// What failed.
    pub reason: FailureReason,
    /// The last 8 KiB that the helper wrote to standard error.
    pub stderr_tail: String,
}

impl From<FailureReason> for Failure {
    fn from(reason: FailureReason) -> Self {
        Self {
            reason,
            stderr_tail: String::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        match self.reason {
            // The tail explains this reason no further: it is the helper's own notice, or
            // a misleading message of a shell such as "Killed".
            FailureReason::StdinNotForwarded => Ok(()),
            _ => write_stderr_tail(&self.stderr_tail, f),
        }
    }
}

/// Appends the last line of standard error to a message.
pub(crate) fn write_stderr_tail(stderr: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match stderr.lines().map(one_line).rfind(|line| !line.is_empty()) {
        Some(line) => write!(f, "; stderr: {line}"),
        None => Ok(()),
    }
}

/// What failed in a run of the helper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureReason {
    /// No file exists at the helper's path.
    #[error(
        "helper not found at {}: install both programs in one directory, or name the helper with \
         --lister",
        DisplayPath(.0)
    )]
    NotFound(PathBuf),
    /// The file at this path may not be executed.
    #[error(
        "cannot execute the helper {}: permission denied (check its execute permission)",
        DisplayPath(.0)
    )]
    NotExecutable(PathBuf),
    /// The system could not spawn the helper.
    #[error("cannot start the helper {}: {message}", DisplayPath(.helper))]
    Spawn {
        /// The path of the helper.
        helper: PathBuf,
        /// The error.
        message: String,
    },
    /// SIGCHLD is ignored in this process, so its children cannot be waited for.
    #[error(
        "SIGCHLD is ignored in this process, so its children cannot be waited for: reset it to \
         its default before listing"
    )]
    SigchldIgnored,
    /// A thread for the call could not be spawned, or it panicked. Holds the whole message.
    #[error("{0}")]
    Thread(String),
    /// The system could not spawn the command.
    #[error("cannot start the command {}: {message}", DisplayPath(Path::new(.program)))]
    CommandSpawn {
        /// The command's program.
        program: String,
        /// The error.
        message: String,
    },
    /// This argument could be interpreted by another machine's shell, so it is not sent to a
    /// remote helper.
    #[error(
        "argument {} may not be sent to a remote helper: only letters, digits and _ . / = : - are \
         allowed",
        DisplayPath(Path::new(.0))
    )]
    UnsafeArgument(OsString),
    /// The command printed this line before the helper's first line.
    #[error(
        "the command printed \"{0}\" before the helper's output: only the helper may write to \
         standard output; if a shell's start-up file prints a greeting, let it do so on a terminal \
         only (`[ -t 1 ] || return`)"
    )]
    Banner(String),
    /// The command printed this line in UTF-16, which the helper never writes.
    #[error("the command failed before the helper printed anything: {0}")]
    CommandMessage(String),
    /// The command does not forward standard input: the helper read its end while this
    /// process held it open.
    #[error(
        "the command does not forward standard input, so the helper exited: use \
         `docker exec -i` or `kubectl exec -i`, or ssh without -n"
    )]
    StdinNotForwarded,
    /// The command exited before the helper printed a line.
    #[error(
        "the command exited with status {status} before the helper printed anything{}",
        command_exit_advice(*.status)
    )]
    CommandExited {
        /// The exit status.
        status: i32,
    },
    /// A signal that this process did not send killed the command before the helper printed
    /// a line.
    #[error(
        "the command was killed by {} before the helper printed anything",
        Signal(*.signal)
    )]
    CommandKilled {
        /// The signal.
        signal: i32,
    },
    /// A killed helper has not exited, because it is in an uninterruptible system call. No
    /// other helper is spawned until it exits.
    #[error(
        "a previous helper is stuck in an uninterruptible system call (does the disk not \
         respond?); not starting another until it exits"
    )]
    Stuck,
    /// The helper's output broke a rule of the wire.
    #[error("invalid helper output: {0}")]
    Wire(Violation),
    /// The helper's exit status contradicts its last line.
    #[error("the helper exited with status {status} after {last_line}")]
    StatusMismatch {
        /// The exit status.
        status: i32,
        /// What the last line was, for a message.
        last_line: &'static str,
    },
    /// The helper exited with a status other than 0 before its output was complete.
    #[error("the helper exited with status {status}: {output}")]
    Exited {
        /// The exit status.
        status: i32,
        /// How the output is incomplete.
        output: Violation,
    },
    /// A signal that this process did not send killed the helper.
    #[error("the helper was killed by {} {progress}", Signal(*.signal))]
    Killed {
        /// The signal.
        signal: i32,
        /// How far the output had come.
        progress: Progress,
    },
    /// The helper exited, but half a second later another process still held its output
    /// open.
    #[error("the helper exited, but another process still holds its output open")]
    OutputHeld,
    /// The helper's pipes could not be read; holds the system's error.
    #[error("cannot read the helper's output: {0}")]
    Pipe(String),
    /// The helper ended, but its exit status is unavailable; holds the system's error.
    #[error(
        "cannot get the helper's exit status: {0} (does other code in this process wait for child \
         processes?)"
    )]
    StatusUnavailable(String),
    /// A host's implementation of [`Lister`](super::Lister) panicked.
    #[error("the lister panicked (see standard error)")]
    Panicked,
    /// A host's implementation of [`Lister`](super::Lister) had not returned two seconds
    /// after this deadline.
    #[error("the lister did not return by its deadline of {0:?}")]
    DeadlineIgnored(Duration),
    /// An earlier call of a host's implementation of [`Lister`](super::Lister) has not
    /// returned. No other call is made until it does.
    #[error("a previous call of the lister has not returned; not starting another until it does")]
    PreviousCallPending,
}

impl FailureReason {
    /// Returns a stable name of the reason, for counters and for `kind` fields.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::NotExecutable(_) => "not_executable",
            Self::Spawn { .. } => "spawn",
            Self::SigchldIgnored => "sigchld_ignored",
            Self::Thread(_) => "thread",
            Self::CommandSpawn { .. } => "no_command",
            Self::UnsafeArgument(_) => "not_plain",
            Self::Banner(_) => "banner",
            Self::CommandExited { .. } | Self::CommandKilled { .. } | Self::CommandMessage(_) => {
                "not_reached"
            }
            Self::StdinNotForwarded => "no_stdin",
            Self::Stuck => "stuck",
            Self::Wire(_) => "wire",
            Self::StatusMismatch { .. } | Self::Exited { .. } => "exit_status",
            Self::Killed { .. } => "killed",
            Self::OutputHeld => "output_held",
            Self::Pipe(_) => "pipe",
            Self::StatusUnavailable(_) => "no_status",
            Self::Panicked => "panic",
            Self::DeadlineIgnored(_) => "timeout",
            Self::PreviousCallPending => "stuck",
        }
    }
}

/// Returns how to fix a command that exited with this status before the helper's first line.
fn command_exit_advice(status: i32) -> &'static str {
    match status {
        0 => ": check that it runs opencode-lister and forwards its output",
        126 | 127 => {
            ": check that opencode-lister is installed there and in the PATH of a non-interactive \
             shell, or give its full path"
        }
        _ => "",
    }
}

/// Displays the name of a signal that ends programs; of another signal its number.
struct Signal(i32);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::SIGHUP => "SIGHUP",
            libc::SIGINT => "SIGINT",
            libc::SIGQUIT => "SIGQUIT",
            libc::SIGILL => "SIGILL",
            libc::SIGABRT => "SIGABRT (out of memory?)",
            libc::SIGBUS => "SIGBUS",
            libc::SIGFPE => "SIGFPE",
            libc::SIGKILL => "SIGKILL (out of memory?)",
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGPIPE => "SIGPIPE",
            libc::SIGTERM => "SIGTERM",
            libc::SIGXCPU => "SIGXCPU (it exceeded its CPU time limit)",
            other => return write!(f, "signal {other}"),
        };
        f.write_str(name)
    }
}
