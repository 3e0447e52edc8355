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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureReason {
    /// No file exists at the helper's path.
    NotFound(PathBuf),
    /// The file at this path may not be executed.
    NotExecutable(PathBuf),
    /// The system could not spawn the helper.
    Spawn {
        /// The path of the helper.
        helper: PathBuf,
        /// The error.
        message: String,
    },
    /// SIGCHLD is ignored in this process, so its children cannot be waited for.
    SigchldIgnored,
    /// A thread for the call could not be spawned, or it panicked. Holds the whole message.
    Thread(String),
    /// The system could not spawn the command.
    CommandSpawn {
        /// The command's program.
        program: String,
        /// The error.
        message: String,
    },
    /// This argument could be interpreted by another machine's shell, so it is not sent to a
    /// remote helper.
    UnsafeArgument(OsString),
    /// The command printed this line before the helper's first line.
    Banner(String),
    /// The command printed this line in UTF-16, which the helper never writes.
    CommandMessage(String),
    /// The command does not forward standard input: the helper read its end while this
    /// process held it open.
    StdinNotForwarded,
    /// The command exited before the helper printed a line.
    CommandExited {
        /// The exit status.
        status: i32,
    },
    /// A signal that this process did not send killed the command before the helper printed
    /// a line.
    CommandKilled {
        /// The signal.
        signal: i32,
    },
    /// A killed helper has not exited, because it is in an uninterruptible system call. No
    /// other helper is spawned until it exits.
    Stuck,
    /// The helper's output broke a rule of the wire.
    Wire(Violation),
    /// The helper's exit status contradicts its last line.
    StatusMismatch {
        /// The exit status.
        status: i32,
        /// What the last line was, for a message.
        last_line: &'static str,
    },
    /// The helper exited with a status other than 0 before its output was complete.
    Exited {
        /// The exit status.
        status: i32,
        /// How the output is incomplete.
        output: Violation,
    },
    /// A signal that this process did not send killed the helper.
    Killed {
        /// The signal.
        signal: i32,
        /// How far the output had come.
        progress: Progress,
    },
    /// The helper exited, but half a second later another process still held its output
    /// open.
    OutputHeld,
    /// The helper's pipes could not be read; holds the system's error.
    Pipe(String),
    /// The helper ended, but its exit status is unavailable; holds the system's error.
    StatusUnavailable(String),
    /// A host's implementation of [`Lister`](super::Lister) panicked.
    Panicked,
    /// A host's implementation of [`Lister`](super::Lister) had not returned two seconds
    /// after this deadline.
    DeadlineIgnored(Duration),
    /// An earlier call of a host's implementation of [`Lister`](super::Lister) has not
    /// returned. No other call is made until it does.
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

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(path) => write!(
                f,
                "helper not found at {}: install both programs in one directory, or name the \
                 helper with --lister",
                DisplayPath(path)
            ),
            Self::NotExecutable(path) => write!(
                f,
                "cannot execute the helper {}: permission denied (check its execute permission)",
                DisplayPath(path)
            ),
            Self::Spawn { helper, message } => {
                write!(
                    f,
                    "cannot start the helper {}: {message}",
                    DisplayPath(helper)
                )
            }
            Self::SigchldIgnored => f.write_str(
                "SIGCHLD is ignored in this process, so its children cannot be waited for: reset \
                 it to its default before listing",
            ),
            Self::Thread(message) => f.write_str(message),
            Self::CommandSpawn { program, message } => write!(
                f,
                "cannot start the command {}: {message}",
                DisplayPath(Path::new(program))
            ),
            Self::UnsafeArgument(argument) => write!(
                f,
                "argument {} may not be sent to a remote helper: only letters, digits and \
                 _ . / = : - are allowed",
                DisplayPath(Path::new(argument))
            ),
            Self::Banner(line) => write!(
                f,
                "the command printed \"{line}\" before the helper's output: only the helper may \
                 write to standard output; if a shell's start-up file prints a greeting, let it \
                 do so on a terminal only (`[ -t 1 ] || return`)"
            ),
            Self::CommandMessage(line) => {
                write!(
                    f,
                    "the command failed before the helper printed anything: {line}"
                )
            }
            Self::StdinNotForwarded => f.write_str(
                "the command does not forward standard input, so the helper exited: use \
                 `docker exec -i` or `kubectl exec -i`, or ssh without -n",
            ),
            Self::CommandExited { status } => {
                write!(
                    f,
                    "the command exited with status {status} before the helper printed anything"
                )?;
                match status {
                    0 => {
                        f.write_str(": check that it runs opencode-lister and forwards its output")
                    }
                    126 | 127 => f.write_str(
                        ": check that opencode-lister is installed there and in the PATH of a \
                         non-interactive shell, or give its full path",
                    ),
                    _ => Ok(()),
                }
            }
            Self::CommandKilled { signal } => write!(
                f,
                "the command was killed by {} before the helper printed anything",
                Signal(*signal)
            ),
            Self::Stuck => f.write_str(
                "a previous helper is stuck in an uninterruptible system call (does the disk not \
                 respond?); not starting another until it exits",
            ),
            Self::Wire(violation) => write!(f, "invalid helper output: {violation}"),
            Self::StatusMismatch { status, last_line } => {
                write!(
                    f,
                    "the helper exited with status {status} after {last_line}"
                )
            }
            Self::Exited { status, output } => {
                write!(f, "the helper exited with status {status}: {output}")
            }
            Self::Killed { signal, progress } => {
                write!(f, "the helper was killed by {} {progress}", Signal(*signal))
            }
            Self::OutputHeld => {
                f.write_str("the helper exited, but another process still holds its output open")
            }
            Self::Pipe(message) => write!(f, "cannot read the helper's output: {message}"),
            Self::StatusUnavailable(message) => write!(
                f,
                "cannot get the helper's exit status: {message} (does other code in this process \
                 wait for child processes?)"
            ),
            Self::Panicked => f.write_str("the lister panicked (see standard error)"),
            Self::DeadlineIgnored(deadline) => write!(
                f,
                "the lister did not return by its deadline of {deadline:?}"
            ),
            Self::PreviousCallPending => f.write_str(
                "a previous call of the lister has not returned; not starting another until it \
                 does",
            ),
        }
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
