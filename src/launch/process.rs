//! The helper as a process, here or elsewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use super::arguments::{Runs, Told};
use super::guard::{Ending, Guard, SpawnError};
use super::pipes::{Conversation, Over, converse};
use super::reaper::Ticket;
use crate::lister::{
    Breakage, Broke, Cancel, ListRequest, Lister, LookUpRequest, Outcome, Timeout, outcome_of,
    until,
};
use crate::source::{Place, Remote, Source};
use crate::wire::{
    Answers, Asked, Checker, Content, Progress, STDIN_ENDED, Sessions, Verdict, Violation, limits,
};

/// Lists by launching `opencode-lister`, one process a listing, or a command that
/// runs it elsewhere.
///
/// It may be shared between threads. A clone counts the same children.
#[derive(Debug, Clone)]
pub struct ProcessLister {
    launches: Launches,
    ticket: Ticket,
}

#[derive(Debug, Clone)]
enum Launches {
    Helper(PathBuf),
    Command(Arc<[String]>),
}

impl Launches {
    fn runs(&self) -> Runs {
        match self {
            Self::Helper(_) => Runs::Here,
            Self::Command(_) => Runs::Elsewhere,
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
            launches: Launches::Helper(lister),
            ticket: Ticket::default(),
        }
    }

    /// A lister that launches the `opencode-lister` beside the running program.
    ///
    /// # Errors
    ///
    /// Where the system does not say which program is running.
    pub fn beside_this_program() -> Result<Self, Breakage> {
        match std::env::current_exe() {
            Ok(program) => Ok(Self::at(beside(&program))),
            Err(error) => Err(Broke::Spawn {
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
            launches: Launches::Command(remote.command.as_slice().into()),
            ticket: Ticket::default(),
        }
    }

    /// A lister for this source alone: what it launched that does not die holds up no
    /// other's. It launches the same helper as this one, or the source's command.
    #[must_use]
    pub fn of(&self, source: &Source) -> Self {
        match &source.place {
            Place::Remote(remote) => Self::remote(remote),
            Place::Database(_) => Self {
                launches: self.launches.clone(),
                ticket: Ticket::default(),
            },
        }
    }

    /// The program of the helper it launches, where that is one of this machine.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        match &self.launches {
            Launches::Helper(lister) => Some(lister),
            Launches::Command(_) => None,
        }
    }

    /// Launches a helper, tells it what to do, and checks what it says.
    fn run<C: Content>(
        &self,
        told: &Told,
        content: C,
        deadline: Duration,
        cancel: &Cancel,
    ) -> Outcome<C::Whole> {
        let until = until(deadline);
        if self.stuck() > 0 {
            return Outcome::Broken(Broke::Stuck.into());
        }
        let mut command = match &self.launches {
            Launches::Helper(lister) => Command::new(lister),
            Launches::Command(words) => {
                if let Some(argument) = told.not_plain() {
                    return Outcome::Broken(Broke::NotPlain(argument.clone()).into());
                }
                let mut words = words.iter();
                let mut command = Command::new(words.next().map_or("", |word| word));
                command.args(words);
                command
            }
        };
        command
            .args(&told.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = match self.launches {
            Launches::Helper(_) => Guard::spawn(command, self.ticket.clone()),
            // Only the helper knows of its parent's death by itself.
            Launches::Command(_) => Guard::spawn_to_die_with_us(command, self.ticket.clone()),
        };
        let mut guard = match spawned {
            Ok(guard) => guard,
            Err(SpawnError::SigchldIgnored) => {
                return Outcome::Broken(Broke::SigchldIgnored.into());
            }
            Err(SpawnError::Io(error)) => return Outcome::Broken(self.broken_by(&error).into()),
        };
        let checker = Checker::of(content).at_most(match self.launches {
            Launches::Helper(_) => limits::TOTAL,
            Launches::Command(_) => limits::TOTAL_OF_COMMAND,
        });
        let conversation = converse(&mut guard, &told.on_stdin, checker, until, cancel);
        let ending = guard.end();
        let outcome = judge(conversation, ending, deadline);
        match self.launches {
            Launches::Helper(_) => outcome,
            Launches::Command(_) => of_a_command(outcome),
        }
    }

    fn broken_by(&self, error: &io::Error) -> Broke {
        let lister = match &self.launches {
            Launches::Helper(lister) => lister.clone(),
            Launches::Command(words) => {
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
                return Broke::NoCommand { program, why };
            }
        };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !lister.exists() => {
                Broke::NotFound(lister)
            }
            io::ErrorKind::PermissionDenied => Broke::NotExecutable(lister),
            // The file is there, so what it is to be run with is not.
            io::ErrorKind::NotFound => Broke::Spawn {
                lister,
                why: "the interpreter it names, or the loader it needs, is not there".to_owned(),
            },
            _ => Broke::Spawn {
                lister,
                why: error.to_string(),
            },
        }
    }
}

impl Lister for ProcessLister {
    fn list(&self, request: &ListRequest) -> Outcome {
        let told = Told::to_list(request, self.launches.runs());
        self.run(
            &told,
            Sessions::new(request.bounded_first_prompt_limit()),
            request.deadline,
            &request.cancel,
        )
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let told = Told::to_look_up(request, self.launches.runs());
        let asked = Asked::new(request.what, &request.ids)
            .first_prompt_limit(request.bounded_first_prompt_limit());
        self.run(&told, asked, request.deadline, &request.cancel)
    }

    fn stuck(&self) -> usize {
        self.ticket.stuck()
    }
}

/// What breaks before the helper has said a word is the command's doing: the way to
/// the helper, not the helper. So is a standard input that ends: this process holds the
/// other end of it.
fn of_a_command<T>(outcome: Outcome<T>) -> Outcome<T> {
    let said = match &outcome {
        Outcome::Refused(refusal) => &refusal.failure.message,
        Outcome::Broken(Breakage { stderr, .. }) | Outcome::TimedOut(Timeout { stderr, .. }) => {
            stderr
        }
        Outcome::Complete(_) | Outcome::Cancelled => "",
    };
    if said.contains(STDIN_ENDED) {
        return Outcome::Broken(Breakage {
            stderr: said.to_owned(),
            what: Broke::StdinNotPassedOn,
        });
    }
    let breakage = match outcome {
        Outcome::Broken(breakage) => breakage,
        Outcome::TimedOut(timeout) => {
            return Outcome::TimedOut(Timeout {
                elsewhere: true,
                ..timeout
            });
        }
        other => return other,
    };
    let nothing =
        |output: &Violation| matches!(output, Violation::NoOutput | Violation::PartialLine(1));
    let what = match breakage.what {
        Broke::Wire(Violation::NoHello(said)) => Broke::Banner(said),
        Broke::Wire(Violation::Utf16(said)) => Broke::CommandSaid(said),
        Broke::Wire(output) if nothing(&output) => Broke::NotReached { status: 0 },
        Broke::Exited { status, output } if nothing(&output) => Broke::NotReached { status },
        Broke::Killed {
            signal,
            progress: Progress::Nothing,
        } => Broke::CommandKilled { signal },
        other => other,
    };
    Outcome::Broken(Breakage { what, ..breakage })
}

/// What a conversation and an ending come to.
fn judge<C: Content>(
    conversation: Conversation<C>,
    ending: io::Result<Ending>,
    deadline: Duration,
) -> Outcome<C::Whole> {
    let Conversation {
        over,
        checker,
        stderr,
    } = conversation;
    let progress = checker.progress();
    let broken = |what| {
        Outcome::Broken(Breakage {
            what,
            stderr: stderr.clone(),
        })
    };
    match over {
        Over::Broken(violation) => return broken(Broke::Wire(violation)),
        Over::Failed(error) => return broken(Broke::Pipe(error.to_string())),
        Over::Deadline => {
            return Outcome::TimedOut(Timeout {
                deadline,
                progress,
                elsewhere: false,
                stderr,
            });
        }
        Over::Cancelled => return Outcome::Cancelled,
        Over::Held => return broken(Broke::OutputHeld),
        Over::Exited => {}
    }
    let status = match ending {
        Ok(Ending::Reaped(status)) => status,
        Ok(Ending::Stuck) => return broken(Broke::Stuck),
        Err(error) => return broken(Broke::NoStatus(error.to_string())),
    };
    if let Some(signal) = status.signal() {
        return broken(Broke::Killed { signal, progress });
    }
    let status = code(status);
    match checker.finish() {
        Err(output) if status != 0 => broken(Broke::Exited { status, output }),
        Err(violation) => broken(Broke::Wire(violation)),
        Ok(verdict) => {
            let (expected, after) = match &verdict {
                Verdict::Whole(_) => (0, "a complete answer"),
                Verdict::Refused { failure, .. } => (failure.kind.exit_status(), "an error"),
            };
            if status == i32::from(expected) {
                outcome_of(verdict)
            } else {
                broken(Broke::Status { status, after })
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
