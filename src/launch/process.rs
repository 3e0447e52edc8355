//! [`ProcessLister`]: lists by spawning a helper process, local or remote.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use super::arguments::{HelperArgs, Location};
use super::guard::{ProcessGuard, ReapOutcome, SpawnError};
use super::pipes::{ExchangeEnd, ExchangeResult, exchange};
use super::reaper::StuckProcesses;
use crate::lister::{
    Cancel, Failure, FailureReason, ListRequest, Lister, LookUpRequest, Outcome, Timeout,
    outcome_of, until,
};
use crate::source::{Place, Remote, Source};
use crate::wire::{
    Answers, Checker, Content, ListingContent, LookUpContent, Progress, STDIN_ENDED, Verdict,
    Violation, limits,
};

/// Lists by spawning `opencode-lister`, one process per listing, or a command that runs it
/// elsewhere.
///
/// It may be shared between threads. Clones share the count of stuck children.
#[derive(Debug, Clone)]
pub struct ProcessLister {
    target: Target,
    stuck: StuckProcesses,
}

#[derive(Debug, Clone)]
enum Target {
    Local(PathBuf),
    Command(Arc<[String]>),
}

impl Target {
    fn location(&self) -> Location {
        match self {
            Self::Local(_) => Location::Local,
            Self::Command(_) => Location::Remote,
        }
    }
}

impl ProcessLister {
    /// Creates a lister that spawns the helper at this path. The path is not searched for in
    /// `PATH`.
    #[must_use]
    pub fn at(helper: impl Into<PathBuf>) -> Self {
        let helper = helper.into();
        // The system would search PATH for a name without a slash.
        let helper = std::path::absolute(&helper).unwrap_or(helper);
        Self {
            target: Target::Local(helper),
            stuck: StuckProcesses::default(),
        }
    }

    /// Creates a lister that spawns the `opencode-lister` in the directory of the running
    /// program.
    ///
    /// # Errors
    ///
    /// Returns [`FailureReason::Spawn`] if the path of the running program cannot be
    /// determined.
    pub fn beside_this_program() -> Result<Self, Failure> {
        match std::env::current_exe() {
            Ok(program) => Ok(Self::at(beside(&program))),
            Err(error) => Err(FailureReason::Spawn {
                helper: "opencode-lister".into(),
                message: format!("cannot determine the path of the running program: {error}"),
            }
            .into()),
        }
    }

    /// Creates a lister that spawns a command which runs the helper elsewhere.
    #[must_use]
    pub fn remote(remote: &Remote) -> Self {
        Self {
            target: Target::Command(remote.command.as_slice().into()),
            stuck: StuckProcesses::default(),
        }
    }

    /// Creates a lister for one source. It spawns the same helper as this lister, or the
    /// source's command. It has a count of stuck children of its own, so that a stuck child
    /// of one source does not block another source.
    #[must_use]
    pub fn of(&self, source: &Source) -> Self {
        match &source.place {
            Place::Remote(remote) => Self::remote(remote),
            Place::Database(_) => Self {
                target: self.target.clone(),
                stuck: StuckProcesses::default(),
            },
        }
    }

    /// Returns the path of the helper; `None` if a command runs it.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        match &self.target {
            Target::Local(helper) => Some(helper),
            Target::Command(_) => None,
        }
    }

    /// Spawns a helper, sends it the request and checks its output.
    fn run<C: Content>(
        &self,
        args: HelperArgs,
        content: C,
        deadline: Duration,
        cancel: &Cancel,
    ) -> Outcome<C::Whole> {
        let until = until(deadline);
        if self.stuck() > 0 {
            return Outcome::Failed(FailureReason::Stuck.into());
        }
        let mut command = match &self.target {
            Target::Local(helper) => Command::new(helper),
            Target::Command(words) => {
                if let Some(argument) = args.unsafe_argument() {
                    return Outcome::Failed(FailureReason::UnsafeArgument(argument.clone()).into());
                }
                let mut words = words.iter();
                let mut command = Command::new(words.next().map_or("", |word| word));
                command.args(words);
                command
            }
        };
        command
            .args(&args.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = match self.target {
            Target::Local(_) => ProcessGuard::spawn(command, self.stuck.clone()),
            // A command does not watch its parent as the helper does.
            Target::Command(_) => {
                ProcessGuard::spawn_with_parent_death_signal(command, self.stuck.clone())
            }
        };
        let mut guard = match spawned {
            Ok(guard) => guard,
            Err(SpawnError::SigchldIgnored) => {
                return Outcome::Failed(FailureReason::SigchldIgnored.into());
            }
            Err(SpawnError::Io(error)) => {
                return Outcome::Failed(self.spawn_failure(&error).into());
            }
        };
        let checker = Checker::of(content).with_limit_bytes(match self.target {
            Target::Local(_) => limits::TOTAL,
            Target::Command(_) => limits::TOTAL_OF_COMMAND,
        });
        let result = exchange(&mut guard, args.request, checker, until, cancel);
        let reaped = guard.finish();
        let outcome = outcome_of_exchange(result, reaped, deadline);
        match self.target {
            Target::Local(_) => outcome,
            Target::Command(_) => outcome_of_command(outcome),
        }
    }

    fn spawn_failure(&self, error: &io::Error) -> FailureReason {
        let helper = match &self.target {
            Target::Local(helper) => helper.clone(),
            Target::Command(words) => {
                let program = words.first().cloned().unwrap_or_default();
                let message = match error.kind() {
                    io::ErrorKind::NotFound if program.contains('/') => {
                        "no such file (~ and $ are not expanded in a command)".to_owned()
                    }
                    io::ErrorKind::NotFound => {
                        "not found in PATH; install it, or give its full path".to_owned()
                    }
                    io::ErrorKind::PermissionDenied => {
                        "permission denied (check its execute permission)".to_owned()
                    }
                    _ => error.to_string(),
                };
                return FailureReason::CommandSpawn { program, message };
            }
        };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !helper.exists() => {
                FailureReason::NotFound(helper)
            }
            io::ErrorKind::PermissionDenied => FailureReason::NotExecutable(helper),
            // The file exists, so its interpreter or loader does not.
            io::ErrorKind::NotFound => FailureReason::Spawn {
                helper,
                message: "its interpreter or dynamic loader is missing".to_owned(),
            },
            _ => FailureReason::Spawn {
                helper,
                message: error.to_string(),
            },
        }
    }
}

impl Lister for ProcessLister {
    fn list(&self, request: &ListRequest) -> Outcome {
        let args = HelperArgs::for_listing(request, self.target.location());
        self.run(
            args,
            ListingContent::new(request.bounded_first_prompt_limit())
                .sharing(request.known.as_ref())
                .differing(request.base().cloned()),
            request.deadline,
            &request.cancel,
        )
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let args = HelperArgs::for_look_up(request, self.target.location());
        let content = LookUpContent::new(request.what, &request.ids)
            .with_first_prompt_limit(request.bounded_first_prompt_limit());
        self.run(args, content, request.deadline, &request.cancel)
    }

    fn stuck(&self) -> usize {
        self.stuck.count()
    }
}

/// Attributes a failure to the command if the command caused it.
///
/// It did if the failure came before the helper's first output, or if standard input ended
/// for the helper while this process holds the write end open.
fn outcome_of_command<T>(outcome: Outcome<T>) -> Outcome<T> {
    let message = match &outcome {
        Outcome::Refused(refusal) => &refusal.error.message,
        Outcome::Failed(Failure { stderr_tail, .. })
        | Outcome::TimedOut(Timeout { stderr_tail, .. }) => stderr_tail,
        Outcome::Complete(_) | Outcome::Cancelled => "",
    };
    if message.contains(STDIN_ENDED) {
        return Outcome::Failed(Failure {
            stderr_tail: message.to_owned(),
            reason: FailureReason::StdinNotForwarded,
        });
    }
    let failure = match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::TimedOut(timeout) => {
            return Outcome::TimedOut(Timeout {
                is_command: true,
                ..timeout
            });
        }
        other => return other,
    };
    let has_no_line =
        |output: &Violation| matches!(output, Violation::NoOutput | Violation::PartialLine(1));
    let reason = match failure.reason {
        FailureReason::Wire(Violation::NoHello(line)) => FailureReason::Banner(line),
        FailureReason::Wire(Violation::Utf16(line)) => FailureReason::CommandMessage(line),
        FailureReason::Wire(output) if has_no_line(&output) => {
            FailureReason::CommandExited { status: 0 }
        }
        FailureReason::Exited { status, output } if has_no_line(&output) => {
            FailureReason::CommandExited { status }
        }
        FailureReason::Killed {
            signal,
            progress: Progress::Nothing,
        } => FailureReason::CommandKilled { signal },
        other => other,
    };
    Outcome::Failed(Failure { reason, ..failure })
}

/// Returns the outcome of an exchange whose child was reaped with this result.
fn outcome_of_exchange<C: Content>(
    result: ExchangeResult<C>,
    reaped: io::Result<ReapOutcome>,
    deadline: Duration,
) -> Outcome<C::Whole> {
    let ExchangeResult {
        end,
        checker,
        stderr_tail,
    } = result;
    let progress = checker.progress();
    let failed = |reason| {
        Outcome::Failed(Failure {
            reason,
            stderr_tail: stderr_tail.clone(),
        })
    };
    match end {
        ExchangeEnd::InvalidOutput(violation) => return failed(FailureReason::Wire(violation)),
        ExchangeEnd::Io(error) => return failed(FailureReason::Pipe(error.to_string())),
        ExchangeEnd::Deadline => {
            return Outcome::TimedOut(Timeout {
                deadline,
                progress,
                is_command: false,
                stderr_tail,
            });
        }
        ExchangeEnd::Cancelled => return Outcome::Cancelled,
        ExchangeEnd::OutputHeld => return failed(FailureReason::OutputHeld),
        ExchangeEnd::Exited => {}
    }
    let status = match reaped {
        Ok(ReapOutcome::Reaped(status)) => status,
        Ok(ReapOutcome::Stuck) => return failed(FailureReason::Stuck),
        Err(error) => return failed(FailureReason::StatusUnavailable(error.to_string())),
    };
    if let Some(signal) = status.signal() {
        return failed(FailureReason::Killed { signal, progress });
    }
    let status = status.code().unwrap_or(-1);
    match checker.finish() {
        Err(output) if status != 0 => failed(FailureReason::Exited { status, output }),
        Err(violation) => failed(FailureReason::Wire(violation)),
        Ok(verdict) => {
            let (expected, last_line) = match &verdict {
                Verdict::Whole(_) => (0, "a complete answer"),
                Verdict::Refused { failure, .. } => (failure.kind.exit_status(), "an error"),
            };
            if status == i32::from(expected) {
                outcome_of(verdict)
            } else {
                failed(FailureReason::StatusMismatch { status, last_line })
            }
        }
    }
}

/// Returns the path of the helper in the directory of `program`.
fn beside(program: &Path) -> PathBuf {
    program.with_file_name("opencode-lister")
}
