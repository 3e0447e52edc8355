//! The helper as a process.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use super::guard::{Ending, Guard, SpawnError};
use super::pipes::{Conversation, Over, converse};
use super::reaper::Ticket;
use super::{
    Breakage, Broke, Cancel, ListRequest, Lister, LookUpRequest, Outcome, Timeout, beside,
    default_threads, outcome_of, until,
};
use crate::wire::{
    Answers, Asked, Checker, Content, LookUp, MarkerText, Request, Sessions, Verdict, line,
};

/// The largest `--cpu-limit` the helper takes: a day.
const MOST_CPU_SECONDS: u64 = 86_400;

/// Lists by launching `opencode-lister`, one process a listing.
///
/// It may be shared between threads. A clone counts the same children.
#[derive(Debug, Clone)]
pub struct ProcessLister {
    lister: PathBuf,
    ticket: Ticket,
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
            lister,
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

    /// The program it launches.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.lister
    }

    /// A helper that does what the arguments say, dies with this process, and keeps
    /// to limits.
    fn command(&self, arguments: &[OsString], deadline: Duration) -> Command {
        let mut command = Command::new(&self.lister);
        // One thread cannot use more CPU time than the deadline has.
        let cpu_seconds = (deadline.as_secs().saturating_add(1))
            .saturating_mul(default_threads() as u64)
            .min(MOST_CPU_SECONDS);
        command
            .args(arguments)
            .args(["--parent", &std::process::id().to_string(), "--parent-pipe"])
            .args(["--background", "--cpu-limit", &cpu_seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Launches a helper, hands it `request`, and checks what it says.
    fn run<C: Content>(
        &self,
        arguments: &[OsString],
        request: &[u8],
        content: C,
        deadline: Duration,
        cancel: &Cancel,
    ) -> Outcome<C::Whole> {
        let until = until(deadline);
        if self.stuck() > 0 {
            return Outcome::Broken(Broke::Stuck.into());
        }
        let mut guard = match Guard::spawn(self.command(arguments, deadline), self.ticket.clone()) {
            Ok(guard) => guard,
            Err(SpawnError::SigchldIgnored) => {
                return Outcome::Broken(Broke::SigchldIgnored.into());
            }
            Err(SpawnError::Io(error)) => return Outcome::Broken(self.broken_by(&error).into()),
        };
        let conversation = converse(&mut guard, request, Checker::of(content), until, cancel);
        let ending = guard.end();
        judge(conversation, ending, deadline)
    }

    fn broken_by(&self, error: &io::Error) -> Broke {
        let lister = self.lister.clone();
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
        let on_stdin = request_line(request);
        let arguments = arguments(request, !on_stdin.is_empty());
        let (sessions, deadline) = (Sessions::default(), request.deadline);
        self.run(&arguments, &on_stdin, sessions, deadline, &request.cancel)
    }

    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers> {
        let ids = request.ids.clone();
        let (command, on_stdin) = match request.what {
            LookUp::Get => ("get", Request::Get { ids }),
            LookUp::Roots => ("roots", Request::Roots { ids }),
        };
        let arguments = [
            command.into(),
            "--db".into(),
            absolute(&request.db),
            "--busy-timeout".into(),
            request.busy_timeout().as_millis().to_string().into(),
            "--request-stdin".into(),
        ];
        let asked = Asked::new(request.what, &request.ids);
        let (on_stdin, deadline) = (line(&on_stdin), request.deadline);
        self.run(&arguments, &on_stdin, asked, deadline, &request.cancel)
    }

    fn stuck(&self) -> usize {
        self.ticket.stuck()
    }
}

/// The arguments of a listing.
fn arguments(request: &ListRequest, on_stdin: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "--db".into(),
        absolute(&request.db),
        "--busy-timeout".into(),
        request.busy_timeout().as_millis().to_string().into(),
        "--threads".into(),
        default_threads().to_string().into(),
    ];
    for (is_asked, flag) in [
        (request.children, "--children"),
        (request.archived, "--archived"),
        (request.marker.is_none(), "--no-marker"),
        (on_stdin, "--request-stdin"),
    ] {
        arguments.extend(is_asked.then(|| flag.into()));
    }
    if let Some(cache) = &request.scan_cache {
        arguments.extend(["--scan-cache".into(), absolute(cache)]);
    }
    if let Some(budget) = &request.scan_budget {
        let budget = budget.as_millis().to_string();
        arguments.extend(["--scan-budget".into(), budget.into()]);
    }
    arguments
}

/// The request for standard input, where the arguments do not say it all: a
/// marker that is not the default.
fn request_line(request: &ListRequest) -> Vec<u8> {
    match &request.marker {
        Some(marker) if *marker != MarkerText::default() => line(&Request::List {
            marker: Some(marker.clone()),
        }),
        _ => Vec::new(),
    }
}

/// The helper may not take a name that begins with `-` for an option.
fn absolute(path: &Path) -> OsString {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .into()
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
                Verdict::Whole(_) => (0, "a complete listing"),
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
