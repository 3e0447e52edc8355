//! The helper as a process, here or elsewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use super::arguments::{HelperArgs, Location};
use super::guard::{Ending, ProcessGuard, SpawnError};
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

/// Lists by launching `opencode-lister`, one process a listing, or a command that
/// runs it elsewhere.
///
/// It may be shared between threads. A clone counts the same children.
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
    /// A lister that launches the program at `lister`. It is taken as it is and
    /// never looked for in `PATH`.
    #[must_use]
    pub fn at(lister: impl Into<PathBuf>) -> Self {
        let lister = lister.into();
        // A name without a slash would be looked for in PATH.
        let lister = std::path::absolute(&lister).unwrap_or(lister);
        Self {
            target: Target::Local(lister),
            stuck: StuckProcesses::default(),
        }
    }

    /// A lister that launches the `opencode-lister` beside the running program.
    ///
    /// # Errors
    ///
    /// Where the system does not say which program is running.
    pub fn beside_this_program() -> Result<Self, Failure> {
        match std::env::current_exe() {
            Ok(program) => Ok(Self::at(beside(&program))),
            Err(error) => Err(FailureReason::Spawn {
                lister: "opencode-lister".into(),
                why: format!("the system does not say where this program is: {error}"),
            }
            .into()),
        }
    }

    /// A lister that launches a command which runs the helper elsewhere.
    #[must_use]
    pub fn remote(remote: &Remote) -> Self {
        Self {
            target: Target::Command(remote.command.as_slice().into()),
            stuck: StuckProcesses::default(),
        }
    }

    /// A lister for this source alone: what it launched that does not die holds up no
    /// other's. It launches the same helper as this one, or the source's command.
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

    /// The program of the helper it launches, where that is one of this machine.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        match &self.target {
            Target::Local(lister) => Some(lister),
            Target::Command(_) => None,
        }
    }

    /// Launches a helper, tells it what to do, and checks what it says.
    fn run<C: Content>(
        &self,
        args: &HelperArgs,
        content: C,
        deadline: Duration,
        cancel: &Cancel,
    ) -> Outcome<C::Whole> {
        let until = until(deadline);
        if self.stuck() > 0 {
            return Outcome::Failed(FailureReason::Stuck.into());
        }
        let mut command = match &self.target {
            Target::Local(lister) => Command::new(lister),
            Target::Command(words) => {
                if let Some(argument) = args.not_plain() {
                    return Outcome::Failed(FailureReason::NotPlain(argument.clone()).into());
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
            // Only the helper knows of its parent's death by itself.
            Target::Command(_) => ProcessGuard::spawn_to_die_with_us(command, self.stuck.clone()),
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
        let checker = Checker::of(content).at_most(match self.target {
            Target::Local(_) => limits::TOTAL,
            Target::Command(_) => limits::TOTAL_OF_COMMAND,
        });
        let result = exchange(&mut guard, &args.on_stdin, checker, until, cancel);
        let ending = guard.end();
        let outcome = outcome_of_exchange(result, ending, deadline);
        match self.target {
            Target::Local(_) => outcome,
            Target::Command(_) => of_a_command(outcome),
        }
    }

    fn spawn_failure(&self, error: &io::Error) -> FailureReason {
        let lister = match &self.target {
            Target::Local(lister) => lister.clone(),
            Target::Command(words) => {
                let program = words.first().cloned().unwrap_or_default();
                let why = match error.kind() {
                    io::ErrorKind::NotFound if program.contains('/') => {
                        "it is not there (~ and $ mean nothing in a command)".to_owned()
                    }
                    io::ErrorKind::NotFound => {
                        "it is not in PATH; install it, or name it by its whole path".to_owned()
                    }
                    io::ErrorKind::PermissionDenied => {
                        "it may not be executed: see its permissions".to_owned()
                    }
                    _ => error.to_string(),
                };
                return FailureReason::NoCommand { program, why };
            }
        };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !lister.exists() => {
                FailureReason::NotFound(lister)
            }
            io::ErrorKind::PermissionDenied => FailureReason::NotExecutable(lister),
            // The file is there, so what it is to be run with is not.
            io::ErrorKind::NotFound => FailureReason::Spawn {
                lister,
                why: "the interpreter it names, or the loader it needs, is not there".to_owned(),
            },
            _ => FailureReason::Spawn {
                lister,
                why: error.to_string(),
            },
        }
    }
}

impl Lister for ProcessLister {
    fn list(&self, request: &ListRequest) -> Outcome {
        let args = HelperArgs::to_list(request, self.target.location());
        self.run(
            &args,
            ListingContent::new(request.bounded_first_prompt_limit())
                .sharing(request.known.clone()),
            request.deadline,
            &request.cancel,
        )
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let args = HelperArgs::to_look_up(request, self.target.location());
        let asked = LookUpContent::new(request.what, &request.ids)
            .first_prompt_limit(request.bounded_first_prompt_limit());
        self.run(&args, asked, request.deadline, &request.cancel)
    }

    fn stuck(&self) -> usize {
        self.stuck.count()
    }
}

/// What breaks before the helper has said a word is the command's doing: the way to
/// the helper, not the helper. So is a standard input that ends: this process holds the
/// other end of it.
fn of_a_command<T>(outcome: Outcome<T>) -> Outcome<T> {
    let said = match &outcome {
        Outcome::Refused(refusal) => &refusal.failure.message,
        Outcome::Failed(Failure { stderr_tail, .. })
        | Outcome::TimedOut(Timeout { stderr_tail, .. }) => stderr_tail,
        Outcome::Complete(_) | Outcome::Cancelled => "",
    };
    if said.contains(STDIN_ENDED) {
        return Outcome::Failed(Failure {
            stderr_tail: said.to_owned(),
            reason: FailureReason::StdinNotPassedOn,
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
    let nothing =
        |output: &Violation| matches!(output, Violation::NoOutput | Violation::PartialLine(1));
    let reason = match failure.reason {
        FailureReason::Wire(Violation::NoHello(said)) => FailureReason::Banner(said),
        FailureReason::Wire(Violation::Utf16(said)) => FailureReason::CommandSaid(said),
        FailureReason::Wire(output) if nothing(&output) => FailureReason::NotReached { status: 0 },
        FailureReason::Exited { status, output } if nothing(&output) => {
            FailureReason::NotReached { status }
        }
        FailureReason::Killed {
            signal,
            progress: Progress::Nothing,
        } => FailureReason::CommandKilled { signal },
        other => other,
    };
    Outcome::Failed(Failure { reason, ..failure })
}

/// The outcome of an exchange and of how the child ended.
fn outcome_of_exchange<C: Content>(
    result: ExchangeResult<C>,
    ending: io::Result<Ending>,
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
        ExchangeEnd::Broken(violation) => return failed(FailureReason::Wire(violation)),
        ExchangeEnd::Failed(error) => return failed(FailureReason::Pipe(error.to_string())),
        ExchangeEnd::Deadline => {
            return Outcome::TimedOut(Timeout {
                deadline,
                progress,
                is_command: false,
                stderr_tail,
            });
        }
        ExchangeEnd::Cancelled => return Outcome::Cancelled,
        ExchangeEnd::Held => return failed(FailureReason::OutputHeld),
        ExchangeEnd::Exited => {}
    }
    let status = match ending {
        Ok(Ending::Reaped(status)) => status,
        Ok(Ending::Stuck) => return failed(FailureReason::Stuck),
        Err(error) => return failed(FailureReason::NoStatus(error.to_string())),
    };
    if let Some(signal) = status.signal() {
        return failed(FailureReason::Killed { signal, progress });
    }
    let status = code(status);
    match checker.finish() {
        Err(output) if status != 0 => failed(FailureReason::Exited { status, output }),
        Err(violation) => failed(FailureReason::Wire(violation)),
        Ok(verdict) => {
            let (expected, after) = match &verdict {
                Verdict::Whole(_) => (0, "a complete answer"),
                Verdict::Refused { failure, .. } => (failure.kind.exit_status(), "an error"),
            };
            if status == i32::from(expected) {
                outcome_of(verdict)
            } else {
                failed(FailureReason::Status { status, after })
            }
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}

/// The path of the helper that belongs to the program at `program`: beside it.
fn beside(program: &Path) -> PathBuf {
    program.with_file_name("opencode-lister")
}
