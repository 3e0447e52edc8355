//! Why a helper, or what was to launch it, did not work.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::text::{DisplayPath, one_line};
use crate::wire::{Progress, Violation};

/// The helper did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// What broke.
    pub reason: FailureReason,
    /// The end of what the helper wrote to standard error.
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
            // It is what was said, and a shell's word for it would only mislead.
            FailureReason::StdinNotPassedOn => Ok(()),
            _ => write_stderr_tail(&self.stderr_tail, f),
        }
    }
}

/// The last line of what a helper wrote to standard error, for a message.
pub(crate) fn write_stderr_tail(stderr: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match stderr.lines().map(one_line).rfind(|line| !line.is_empty()) {
        Some(line) => write!(f, "; it said: {line}"),
        None => Ok(()),
    }
}

/// What broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureReason {
    /// There is no helper at this path.
    NotFound(PathBuf),
    /// The file at this path may not be executed.
    NotExecutable(PathBuf),
    /// The helper could not be started, for this reason of the system.
    Spawn {
        /// The helper.
        lister: PathBuf,
        /// The reason.
        why: String,
    },
    /// SIGCHLD is ignored in this process: its children cannot be waited for.
    SigchldIgnored,
    /// There is no thread to launch it from, or that one has failed, for this reason.
    NoThread(String),
    /// The command's program cannot be started, for this reason.
    NoCommand {
        /// The program.
        program: String,
        /// The reason.
        why: String,
    },
    /// This argument for the helper is not one to hand to another machine's shell.
    NotPlain(OsString),
    /// The command said this before the helper said anything.
    Banner(String),
    /// The command said this in UTF-16, which the helper does not write.
    CommandSaid(String),
    /// The command does not pass standard input on: it ended for the helper, and not here.
    StdinNotPassedOn,
    /// The command exited before the helper said anything.
    NotReached {
        /// The exit status.
        status: i32,
    },
    /// The command was killed, and not by us, before the helper said anything.
    CommandKilled {
        /// The signal.
        signal: i32,
    },
    /// A helper launched before cannot be killed: the kernel holds it. Nothing
    /// more is launched until it is gone.
    Stuck,
    /// Its output broke the rules of the wire.
    Wire(Violation),
    /// It exited with a status that does not go with its last line.
    Status {
        /// The exit status.
        status: i32,
        /// What its last line was.
        after: &'static str,
    },
    /// It exited with a status other than 0 before its output was complete.
    Exited {
        /// The exit status.
        status: i32,
        /// What its output was.
        output: Violation,
    },
    /// It was killed, and not by us: by this signal.
    Killed {
        /// The signal.
        signal: i32,
        /// How far it had come.
        progress: Progress,
    },
    /// It exited, but another process still held its output half a second later.
    OutputHeld,
    /// Its pipes could not be read, for this reason of the system.
    Pipe(String),
    /// It ended, but the system does not say how, for this reason.
    NoStatus(String),
    /// A host's own lister panicked.
    Panicked,
    /// A host's own lister did not return, long after this deadline.
    Overdue(Duration),
    /// An earlier call of a host's own lister has not returned. There is no other until it
    /// has.
    NotReturned,
}

impl FailureReason {
    /// One word for a count of failures.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::NotExecutable(_) => "not_executable",
            Self::Spawn { .. } => "spawn",
            Self::SigchldIgnored => "sigchld_ignored",
            Self::NoThread(_) => "thread",
            Self::NoCommand { .. } => "no_command",
            Self::NotPlain(_) => "not_plain",
            Self::Banner(_) => "banner",
            Self::NotReached { .. } | Self::CommandKilled { .. } | Self::CommandSaid(_) => {
                "not_reached"
            }
            Self::StdinNotPassedOn => "no_stdin",
            Self::Stuck => "stuck",
            Self::Wire(_) => "wire",
            Self::Status { .. } | Self::Exited { .. } => "exit_status",
            Self::Killed { .. } => "killed",
            Self::OutputHeld => "output_held",
            Self::Pipe(_) => "pipe",
            Self::NoStatus(_) => "no_status",
            Self::Panicked => "panic",
            Self::Overdue(_) => "timeout",
            Self::NotReturned => "stuck",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(path) => write!(
                f,
                "there is no helper at {}: install both programs side by side, or name it with \
                 --lister",
                DisplayPath(path)
            ),
            Self::NotExecutable(path) => {
                write!(
                    f,
                    "the helper {} may not be executed: see its permissions",
                    DisplayPath(path)
                )
            }
            Self::Spawn { lister, why } => {
                write!(
                    f,
                    "the helper {} cannot be started: {why}",
                    DisplayPath(lister)
                )
            }
            Self::SigchldIgnored => f.write_str(
                "SIGCHLD is ignored in this process, so that no child can be waited for: set it to \
                 its default before listing",
            ),
            Self::NoThread(why) => f.write_str(why),
            Self::NoCommand { program, why } => write!(
                f,
                "the command's program {} cannot be started: {why}",
                DisplayPath(Path::new(program))
            ),
            Self::NotPlain(argument) => write!(
                f,
                "{} is not told to a helper elsewhere, since a shell may be on the way: only \
                 letters, digits and _ . / = : - are",
                DisplayPath(Path::new(argument))
            ),
            Self::Banner(said) => write!(
                f,
                "the command printed \"{said}\" before the helper said anything: nothing there may \
                 print to standard output, such as a greeting in a shell's start-up file; let that \
                 file print only where there is a terminal (`[ -t 1 ] || return`)"
            ),
            Self::CommandSaid(said) => {
                write!(
                    f,
                    "the command failed before the helper said anything; it said: {said}"
                )
            }
            Self::StdinNotPassedOn => f.write_str(
                "the command does not pass standard input on, and the helper ends when that ends: \
                 write `docker exec -i` or `kubectl exec -i`, and leave out -n of ssh",
            ),
            Self::NotReached { status } => {
                write!(
                    f,
                    "the command exited with status {status} before the helper said anything"
                )?;
                match status {
                    0 => {
                        f.write_str(": does it run opencode-lister, and pass on what that prints?")
                    }
                    126 | 127 => f.write_str(
                        ": is opencode-lister installed there, and in the PATH of a shell that is \
                         not interactive? Else name it by its whole path",
                    ),
                    _ => Ok(()),
                }
            }
            Self::CommandKilled { signal } => write!(
                f,
                "the command was killed by {} before the helper said anything",
                Signal(*signal)
            ),
            Self::Stuck => f.write_str(
                "an earlier helper cannot be killed, the system holds it (a hanging disk?); no \
                 other is started until it is gone",
            ),
            Self::Wire(violation) => write!(f, "the helper's output is not valid: {violation}"),
            Self::Status { status, after } => {
                write!(f, "the helper exited with status {status} after {after}")
            }
            Self::Exited { status, output } => {
                write!(f, "the helper exited with status {status}: {output}")
            }
            Self::Killed { signal, progress } => {
                write!(f, "the helper was killed by {} {progress}", Signal(*signal))
            }
            Self::OutputHeld => {
                f.write_str("the helper exited, but another process still holds its output")
            }
            Self::Pipe(why) => write!(f, "the helper's output cannot be read: {why}"),
            Self::NoStatus(why) => write!(
                f,
                "the helper's exit status is lost: {why} (does something else in this process \
                 wait for its children?)"
            ),
            Self::Panicked => {
                f.write_str("the lister panicked: see standard error for the message")
            }
            Self::Overdue(deadline) => write!(
                f,
                "the lister did not return, though its deadline was {deadline:?}"
            ),
            Self::NotReturned => f.write_str(
                "an earlier call of the lister has not returned; there is no other until it has",
            ),
        }
    }
}

/// A signal's name, as far as it is one that ends programs.
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
            libc::SIGXCPU => "SIGXCPU (it used more CPU than its deadline allows)",
            other => return write!(f, "signal {other}"),
        };
        f.write_str(name)
    }
}
