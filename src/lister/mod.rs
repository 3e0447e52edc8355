//! Getting a listing: launch the helper, check what it says, and be rid of it by
//! the deadline, whatever it does.
//!
//! A [`Lister`] answers with an [`Outcome`], and never with half a listing. What
//! the helper *said* went wrong ([`Outcome::Refused`]) and what went wrong *with
//! the helper* ([`Outcome::Broken`], [`Outcome::TimedOut`]) are different
//! things; none of them says anything about which sessions exist.
//!
//! [`ProcessLister`] is the one to use. [`InProcessLister`] is for tests, and for
//! embedders that know what they give up.
//!
//! Only this room starts processes.

mod arguments;
mod bounded;
mod guard;
mod in_process;
mod leader;
mod pipes;
mod process;
mod reaper;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::file;
use crate::session::SessionId;
use crate::text::{Shown, one_line};
use crate::wire::{
    Answers, ErrorKind, Failure, Listing, LookUp, MarkerText, PROTOCOL, Progress, VERSION, Verdict,
    Violation, limits,
};

pub use crate::signals::restore_sigchld;
pub(crate) use bounded::Bounded;
pub use in_process::InProcessLister;
pub use process::ProcessLister;

/// Something that lists sessions.
///
/// A [service](crate::service) goes on where a lister panics, or blocks for longer than
/// the next method says; that is then a failed listing, and while the call does not
/// return, no other of its kind is made.
pub trait Lister {
    /// One listing. Blocks until the request's deadline, and at most one second
    /// longer: call it from a thread that may wait.
    ///
    /// That thread must live as long as the call, which it does by itself: on
    /// Linux a helper dies with the *thread* that launched it.
    fn list(&self, request: &ListRequest) -> Outcome;

    /// Looks sessions up by their ids. As [`list`](Self::list) otherwise.
    fn look_up(&self, request: &LookUpRequest) -> Outcome<Answers>;

    /// How many helpers of earlier listings were killed and do not die, because
    /// the kernel holds them.
    fn stuck(&self) -> usize {
        0
    }
}

/// What to list.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// The database; without it the one that the helper finds, where it runs.
    pub db: Option<PathBuf>,
    /// The marker to look for; `None` leaves `marked` unknown.
    pub marker: Option<MarkerText>,
    /// Child sessions too, not just roots.
    pub children: bool,
    /// Archived sessions too.
    pub archived: bool,
    /// How long the listing may take, from spawn to exit.
    pub deadline: Duration,
    /// Where the helper remembers what it knows about the marker, so that the next
    /// listing reads only what is new.
    pub scan_cache: Option<ScanCache>,
    /// How long it may look for the marker; what it does not know by then is
    /// unknown. Never more than half of the deadline or 10 minutes, which is also what
    /// it may take without a budget.
    pub scan_budget: Option<Duration>,
    /// How many characters of a first prompt are wanted, 1 to
    /// [`limits::FIRST_PROMPT_MOST`]; a number outside of that is taken for the nearest.
    pub first_prompt_limit: usize,
    /// Ends the listing early.
    pub cancel: Cancel,
}

/// Where a helper remembers what it knows about the marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanCache {
    /// In this file.
    At(PathBuf),
    /// In a file of its own choice, in its user's cache directory, where it runs.
    Auto,
}

impl ScanCache {
    /// The file, in this process, for the database at `db`; its directory is made where
    /// it is not there. `None` where none can be had.
    #[must_use]
    pub fn prepare(self, db: &Path) -> Option<PathBuf> {
        match self {
            Self::At(path) => Some(path),
            Self::Auto => file::own_scan_cache(db),
        }
    }
}

/// A file that is called `auto` is `./auto`.
impl From<OsString> for ScanCache {
    fn from(text: OsString) -> Self {
        match text.to_str() {
            Some("auto") => Self::Auto,
            _ => Self::At(text.into()),
        }
    }
}

/// Ends a listing early: its helper is killed and reaped within a second.
/// Clones end the same listing.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the listing, now or when it begins.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True once it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl ListRequest {
    /// The default deadline: 15 seconds.
    pub const DEADLINE: Duration = Duration::from_secs(15);

    /// The root sessions of the database at `db`, with the default marker and
    /// deadline.
    #[must_use]
    pub fn of(db: impl Into<PathBuf>) -> Self {
        Self {
            db: Some(db.into()),
            marker: Some(MarkerText::default()),
            children: false,
            archived: false,
            deadline: Self::DEADLINE,
            scan_cache: None,
            scan_budget: None,
            first_prompt_limit: limits::FIRST_PROMPT,
            cancel: Cancel::default(),
        }
    }

    /// How long the helper may look for the marker where the listing has `left` until
    /// its deadline: the budget, but at most half of that, so that the sessions can be
    /// read in the rest; 1 millisecond to 10 minutes, as the helper's option takes it.
    fn bounded_scan_budget(&self, left: Duration) -> Duration {
        self.scan_budget
            .unwrap_or(Duration::MAX)
            .min(left / 2)
            .clamp(SHORTEST_SCAN, LONGEST_SCAN)
    }

    fn bounded_first_prompt_limit(&self) -> usize {
        bounded_first_prompt_limit(self.first_prompt_limit)
    }

    fn busy_timeout(&self) -> Duration {
        busy_timeout(self.deadline, Duration::from_secs(5))
    }
}

/// How long the helper waits for another program's lock: `usual`, but at most two thirds of
/// the deadline, so that a locked database is said to be one. Where a quarter of the deadline
/// is longer it is that: the message of a locked database names `--deadline` as the way out,
/// so a longer one must wait longer. Never more than the helper's `--busy-timeout` takes.
fn busy_timeout(deadline: Duration, usual: Duration) -> Duration {
    let most = deadline / 3 * 2;
    usual.min(most).max(deadline / 4).min(LONGEST_WAIT)
}

/// The most that the helper's `--busy-timeout` takes.
const LONGEST_WAIT: Duration = Duration::from_millis(600_000);

/// What to look up.
#[derive(Debug, Clone)]
pub struct LookUpRequest {
    /// The database; without it the one that the helper finds, where it runs.
    pub db: Option<PathBuf>,
    /// What is asked of each id.
    pub what: LookUp,
    /// The ids, at most [`limits::IDS`].
    pub ids: Vec<SessionId>,
    /// How long it may take, from spawn to exit.
    pub deadline: Duration,
    /// As [`ListRequest::first_prompt_limit`].
    pub first_prompt_limit: usize,
    /// Ends it early.
    pub cancel: Cancel,
}

impl LookUpRequest {
    /// The default deadline: 2 seconds.
    pub const DEADLINE: Duration = Duration::from_secs(2);

    /// Looks up these ids in the database at `db`, with the default deadline.
    #[must_use]
    pub fn of(db: impl Into<PathBuf>, what: LookUp, ids: Vec<SessionId>) -> Self {
        Self {
            db: Some(db.into()),
            what,
            ids,
            deadline: Self::DEADLINE,
            first_prompt_limit: limits::FIRST_PROMPT,
            cancel: Cancel::default(),
        }
    }

    fn bounded_first_prompt_limit(&self) -> usize {
        bounded_first_prompt_limit(self.first_prompt_limit)
    }

    fn busy_timeout(&self) -> Duration {
        busy_timeout(self.deadline, Duration::from_millis(500))
    }
}

/// The moment of a deadline, from now. One beyond what a clock can tell is a year
/// away.
pub(crate) fn until(deadline: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + deadline.min(YEAR)
}

/// How long a listing looks for the marker at most, where what it does not know
/// by then may wait for the next one.
pub const SCAN_BUDGET: Duration = Duration::from_secs(2);

/// The least and the most that the helper's `--scan-budget` takes.
const SHORTEST_SCAN: Duration = Duration::from_millis(1);
const LONGEST_SCAN: Duration = Duration::from_millis(600_000);

/// A limit that the helper's `--first-prompt-limit` takes.
fn bounded_first_prompt_limit(limit: usize) -> usize {
    limit.clamp(1, limits::FIRST_PROMPT_MOST)
}

/// The most threads a helper reads with where nobody says how many.
const MOST_THREADS: usize = 4;

/// How many threads a helper reads with: as many as the machine has, up to 4.
#[must_use]
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(MOST_THREADS))
}

/// How a listing, or a look-up, ended.
#[derive(Debug)]
pub enum Outcome<T = Listing> {
    /// All that was asked for, and valid.
    Complete(T),
    /// The helper worked and said why it could not list.
    Refused(Refusal),
    /// The helper did not work, or could not be launched.
    Broken(Breakage),
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
            Self::Broken(breakage) => breakage.fmt(f),
            Self::TimedOut(timeout) => timeout.fmt(f),
            Self::Cancelled => f.write_str("the listing was cancelled"),
        }
    }
}

/// The helper's own `error` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it said.
    pub failure: Failure,
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
    pub elsewhere: bool,
    /// The end of what it wrote to standard error.
    pub stderr: String,
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
        let there = match (self.elsewhere, self.progress) {
            (true, Progress::Nothing) => {
                write!(
                    f,
                    "the command said nothing within {deadline:?} and was stopped; does it wait for \
                     a password or for a new host key? Run it by hand; with -o BatchMode=yes ssh \
                     asks nothing and says why"
                )?;
                return last_words(&self.stderr, f);
            }
            (true, Progress::Complete) => {
                write!(
                    f,
                    "the helper was done, and the command was not within {deadline:?}: with \
                     -o ControlMaster=no ssh serves no other connections"
                )?;
                return last_words(&self.stderr, f);
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
        last_words(&self.stderr, f)
    }
}

/// The helper did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Breakage {
    /// What broke.
    pub what: Broke,
    /// The end of what the helper wrote to standard error.
    pub stderr: String,
}

impl From<Broke> for Breakage {
    fn from(what: Broke) -> Self {
        Self {
            what,
            stderr: String::new(),
        }
    }
}

impl fmt::Display for Breakage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)?;
        match self.what {
            // It is what was said, and a shell's word for it would only mislead.
            Broke::StdinNotPassedOn => Ok(()),
            _ => last_words(&self.stderr, f),
        }
    }
}

/// The last line of what a helper wrote to standard error, for a message.
fn last_words(stderr: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match stderr.lines().map(one_line).rfind(|line| !line.is_empty()) {
        Some(line) => write!(f, "; it said: {line}"),
        None => Ok(()),
    }
}

/// What broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broke {
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

impl Broke {
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

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(path) => write!(
                f,
                "there is no helper at {}: install both programs side by side, or name it with \
                 --lister",
                Shown(path)
            ),
            Self::NotExecutable(path) => {
                write!(
                    f,
                    "the helper {} may not be executed: see its permissions",
                    Shown(path)
                )
            }
            Self::Spawn { lister, why } => {
                write!(f, "the helper {} cannot be started: {why}", Shown(lister))
            }
            Self::SigchldIgnored => f.write_str(
                "SIGCHLD is ignored in this process, so that no child can be waited for: set it to \
                 its default before listing",
            ),
            Self::NoThread(why) => f.write_str(why),
            Self::NoCommand { program, why } => write!(
                f,
                "the command's program {} cannot be started: {why}",
                Shown(Path::new(program))
            ),
            Self::NotPlain(argument) => write!(
                f,
                "{} is not told to a helper elsewhere, since a shell may be on the way: only \
                 letters, digits and _ . / = : - are",
                Shown(Path::new(argument))
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

/// What a checked output comes to.
fn outcome_of<T>(verdict: Verdict<T>) -> Outcome<T> {
    match verdict {
        Verdict::Whole(whole) => Outcome::Complete(whole),
        Verdict::Refused { lister, failure } => Outcome::Refused(Refusal { failure, lister }),
    }
}

/// The path of the helper that belongs to the program at `program`: beside it.
fn beside(program: &Path) -> PathBuf {
    program.with_file_name("opencode-lister")
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

    #[test]
    fn wait_for_a_lock_follows_the_deadline() {
        let ms = Duration::from_millis;
        // The deadline, the wait of a listing, that of a look-up.
        for (deadline, listing, look_up) in [
            (0, 0, 0),
            (1, 0, 0),
            (300, 200, 200),
            (1_500, 1_000, 500),
            // The default of a look-up.
            (2_000, 1_333, 500),
            (6_000, 4_000, 1_500),
            // The default of a listing.
            (15_000, 5_000, 3_750),
            (60_000, 15_000, 15_000),
            // As long as the option takes it.
            (86_400_000, 600_000, 600_000),
        ] {
            let list = ListRequest {
                deadline: ms(deadline),
                ..ListRequest::of("/x")
            };
            let get = LookUpRequest {
                deadline: ms(deadline),
                ..LookUpRequest::of("/x", LookUp::Get, Vec::new())
            };
            let waits = (
                list.busy_timeout().as_millis(),
                get.busy_timeout().as_millis(),
            );
            assert_eq!(waits, (listing, look_up), "{deadline}");
        }
        let endless = ListRequest {
            deadline: Duration::MAX,
            ..ListRequest::of("/x")
        };
        assert_eq!(endless.busy_timeout(), ms(600_000));
    }

    #[test]
    fn scan_budget_is_at_most_half_of_the_deadline() {
        let ms = Duration::from_millis;
        let (none, two_seconds) = (None, Some(SCAN_BUDGET));
        for (deadline, budget, expected) in [
            // The default.
            (ms(15_000), two_seconds, ms(2_000)),
            (ms(15_000), none, ms(7_500)),
            (ms(4_000), two_seconds, ms(2_000)),
            (ms(3_999), two_seconds, Duration::from_micros(1_999_500)),
            (ms(150), two_seconds, ms(75)),
            (ms(150), none, ms(75)),
            (ms(150), Some(ms(10)), ms(10)),
            // As short as `--deadline` takes it, and shorter.
            (ms(10), two_seconds, ms(5)),
            (ms(2), two_seconds, ms(1)),
            (ms(1), two_seconds, ms(1)),
            (Duration::ZERO, none, ms(1)),
            (Duration::from_nanos(1), none, ms(1)),
            (ms(15_000), Some(Duration::ZERO), ms(1)),
            // As long as it takes it, and longer.
            (Duration::from_secs(24 * 60 * 60), two_seconds, ms(2_000)),
            (Duration::from_secs(24 * 60 * 60), none, ms(600_000)),
            (Duration::MAX, none, ms(600_000)),
            (Duration::MAX, Some(Duration::MAX), ms(600_000)),
        ] {
            let request = ListRequest {
                deadline,
                scan_budget: budget,
                ..ListRequest::of("/x")
            };
            let bounded = request.bounded_scan_budget(request.deadline);
            assert_eq!(bounded, expected, "{budget:?} of {deadline:?}");
        }
    }
}
