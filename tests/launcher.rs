//! The launcher against helpers that misbehave, helpers that cannot be run, and
//! the real one. `spawns.rs` looks for what they could leave behind in the
//! caller; here every test sees to it that no process is left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use opencode_sessions::helper::InProcessLister;

use opencode_sessions::launch::ProcessLister;

use opencode_sessions::lister::{
    Failure, FailureReason, ListRequest, Lister, LookUpRequest, Outcome, Refusal, Timeout,
};
use opencode_sessions::marker_text::MarkerText;
use opencode_sessions::session::SessionId;
use opencode_sessions::text::unsafe_on_a_terminal;
use opencode_sessions::wire::{
    DatabaseState, ErrorKind, Listing, LookUp, OptionalPart, PROTOCOL, Progress, VERSION, Violation,
};
use rustix::process::{Pid, Signal};
use support::Made;

/// For a helper that is not done by then.
const SHORT: Duration = Duration::from_millis(1500);

/// For one that is done long before, on a machine that is busy.
const LONG: Duration = Duration::from_secs(20);

/// What the caller is promised on top of the deadline.
const GRACE: Duration = Duration::from_secs(1);

/// Where one misbehaving helper lives. Nothing it started survives it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The helper, and the processes it started.
    fn pids(&self) -> Vec<Pid> {
        let pids = fs::read_to_string(self.0.path().join("pids")).unwrap_or_default();
        pids.lines()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .collect()
    }

    /// The helper is reaped, and what else it started is at its end: who reaps
    /// that is not ours to say.
    fn assert_no_process_is_left(&self) {
        let pids = self.pids();
        for (at, pid) in pids.into_iter().enumerate() {
            assert!(at > 0 || !is_child(pid), "the helper is not reaped");
            let until = Instant::now() + Duration::from_secs(5);
            while is_running(pid) {
                assert!(Instant::now() < until, "process {at} of {pid} runs on");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.pids() {
            if is_running(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// True for a child of this process, also a dead one that is not reaped.
fn is_child(pid: Pid) -> bool {
    if cfg!(target_os = "linux") {
        let parent = stat(pid).map(|(_, parent)| parent);
        parent == Some(std::process::id())
    } else {
        rustix::process::test_kill_process(pid).is_ok()
    }
}

/// True for a process of a misbehaving helper that lives.
fn is_running(pid: Pid) -> bool {
    if cfg!(target_os = "linux") {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("misbehaving-lister")
            && stat(pid).is_some_and(|(state, _)| !"ZX".contains(state))
    } else {
        rustix::process::test_kill_process(pid).is_ok()
    }
}

/// A process's state and its parent.
fn stat(pid: Pid) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets can hold anything.
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace();
    let state = after_name.next()?.chars().next()?;
    Some((state, after_name.next()?.parse().ok()?))
}

/// Lists with the helper that misbehaves in this way, and sees to it that the
/// promises that hold for all of them are kept.
fn outcome(way: &str, deadline: Duration) -> Outcome {
    let place = Place::new();
    let outcome = outcome_in(&place, way, deadline);
    place.assert_no_process_is_left();
    outcome
}

fn outcome_in(place: &Place, way: &str, deadline: Duration) -> Outcome {
    let lister = ProcessLister::at(support::misbehaving(place.0.path(), way));
    let request = ListRequest {
        deadline,
        ..ListRequest::of("/nowhere/opencode.db")
    };
    let outcome = timely(&lister, &request);
    assert_eq!(lister.stuck(), 0, "{way}: {outcome}");
    outcome
}

/// Lists, and sees to it that it does not take longer than promised.
fn timely(lister: &impl Lister, request: &ListRequest) -> Outcome {
    let started = Instant::now();
    let outcome = lister.list(request);
    let took = started.elapsed();
    assert!(took <= request.deadline + GRACE, "{took:?}: {outcome}");
    if !matches!(outcome, Outcome::Complete(_)) {
        assert_is_one_sentence(&outcome);
    }
    outcome
}

#[track_caller]
fn assert_is_one_sentence(outcome: &Outcome) {
    let said = outcome.to_string();
    let one_line = !said.chars().any(unsafe_on_a_terminal);
    assert!(one_line && said.len() > 10, "{said:?}");
    assert!(!said.ends_with('.') && said.trim() == said, "{said:?}");
}

#[track_caller]
fn listing(outcome: Outcome) -> Listing {
    match outcome {
        Outcome::Complete(listing) => listing,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn broken(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn timed_out(outcome: Outcome) -> Timeout {
    match outcome {
        Outcome::TimedOut(timeout) => timeout,
        other => panic!("{other:?}"),
    }
}

/// The helper that misbehaves in this way breaks like this, and the sentence
/// says so.
#[track_caller]
fn assert_breaks(way: &str, what: &FailureReason, saying: &str) {
    let outcome = outcome(way, LONG);
    let said = outcome.to_string();
    assert_eq!(broken(outcome).reason, *what, "{way}");
    assert!(said.contains(saying), "{way}: {said:?}");
}

/// The helper that misbehaves in this way is stopped at its deadline.
#[track_caller]
fn assert_times_out(way: &str, progress: Progress, saying: &str) {
    let outcome = outcome(way, SHORT);
    let said = outcome.to_string();
    let timeout = timed_out(outcome);
    assert_eq!(timeout.progress, progress, "{way}");
    assert_eq!(timeout.deadline, SHORT, "{way}");
    for part in ["not done within 1.5s", saying] {
        assert!(said.contains(part), "{way}: {said:?}");
    }
}

// ---- A helper that is listened to.

#[test]
fn a_helper_that_behaves_is_listened_to() {
    let _limit = support::limit(60);
    for way in ["behaves", "exits-late"] {
        let listing = listing(outcome(way, LONG));
        assert_eq!(ids(&listing), ["ses_0", "ses_1", "ses_2"], "{way}");
        assert_eq!(listing.end.sessions, 3);
        assert_eq!(listing.lister, VERSION);
    }
}

#[test]
fn a_helper_that_does_not_read_its_request_is_listened_to() {
    let _limit = support::limit(60);
    let place = Place::new();
    let lister = ProcessLister::at(support::misbehaving(place.0.path(), "reads-no-stdin"));
    let request = ListRequest {
        marker: Some(MarkerText::new("another tool's marker").unwrap()),
        ..ListRequest::of("/nowhere/opencode.db")
    };
    assert_eq!(listing(timely(&lister, &request)).sessions.len(), 3);
    place.assert_no_process_is_left();
}

// ---- A helper that does not come to an end.

#[test]
fn a_helper_that_hangs_is_stopped_at_the_deadline_wherever_it_hangs() {
    let _limit = support::limit(60);
    assert_times_out(
        "hangs-before-output",
        Progress::Nothing,
        "before its first line",
    );
    assert_times_out(
        "hangs-after-hello",
        Progress::Sessions(0),
        "after 0 sessions",
    );
    assert_times_out(
        "hangs-after-half-the-rows",
        Progress::Sessions(3),
        "after 3 sessions",
    );
}

#[test]
fn a_helper_that_ignores_signals_or_stops_itself_is_stopped_at_the_deadline() {
    let _limit = support::limit(60);
    for way in ["ignores-every-signal", "stops-itself"] {
        assert_times_out(way, Progress::Sessions(0), "after 0 sessions");
    }
}

#[test]
fn a_helper_that_uses_all_cpu_or_drips_is_stopped_at_the_deadline() {
    let _limit = support::limit(60);
    for way in ["uses-all-cpu", "drips"] {
        assert_times_out(way, Progress::Sessions(0), "after 0 sessions");
    }
}

#[test]
fn a_helper_that_stays_alive_after_its_listing_is_stopped_and_its_listing_does_not_count() {
    let _limit = support::limit(60);
    for way in [
        "prints-end-and-stays-alive",
        "closes-output-and-stays-alive",
    ] {
        assert_times_out(way, Progress::Complete, "after its last line");
    }
}

#[test]
fn a_helper_that_leaves_its_process_group_is_stopped_all_the_same() {
    let _limit = support::limit(60);
    assert_times_out(
        "leaves-its-group",
        Progress::Sessions(0),
        "after 0 sessions",
    );
}

#[test]
fn a_deadline_that_is_over_at_once_is_a_timeout() {
    let _limit = support::limit(60);
    for deadline in [Duration::ZERO, Duration::from_nanos(1)] {
        timed_out(outcome("hangs-before-output", deadline));
    }
}

// ---- A helper that ends without a listing.

#[test]
fn a_listing_without_its_end_is_none_though_the_helper_exited_with_0() {
    let _limit = support::limit(60);
    for (way, violation, saying) in [
        ("exits-0-without-output", Violation::NoOutput, "nothing"),
        (
            "exits-0-without-end",
            Violation::NoEnd(2),
            "after 2 sessions, without an end",
        ),
        (
            "exits-0-within-a-line",
            Violation::PartialLine(2),
            "the middle of line 2",
        ),
    ] {
        assert_breaks(way, &FailureReason::Wire(violation), saying);
    }
}

#[test]
fn a_helper_that_exits_with_another_status_before_its_end_is_told_by_that_status() {
    let _limit = support::limit(60);
    for (way, status, output, saying) in [
        (
            "exits-127-without-output",
            127,
            Violation::NoOutput,
            "status 127: it printed nothing; it said: opencode-lister: command not found",
        ),
        (
            "exits-1-without-end",
            1,
            Violation::NoEnd(2),
            "status 1: it stopped after 2 sessions",
        ),
        (
            "says-much-and-exits-3",
            3,
            Violation::NoOutput,
            "status 3: it printed nothing",
        ),
    ] {
        assert_breaks(way, &FailureReason::Exited { status, output }, saying);
    }
}

#[test]
fn a_helper_that_a_signal_kills_is_told_by_the_signal_and_how_far_it_came() {
    let _limit = support::limit(60);
    for (way, signal, progress, saying) in [
        (
            "killed-by-signal",
            libc::SIGKILL,
            Progress::Sessions(2),
            "SIGKILL (out of memory?) after 2 sessions",
        ),
        (
            "segfaults",
            libc::SIGSEGV,
            Progress::Sessions(0),
            "SIGSEGV after 0 sessions",
        ),
        (
            "aborts",
            libc::SIGABRT,
            Progress::Sessions(0),
            "it said: thread 'main' panicked at the disco",
        ),
        (
            "prints-end-and-dies-of-sigterm",
            libc::SIGTERM,
            Progress::Complete,
            "SIGTERM after its last line",
        ),
    ] {
        assert_breaks(way, &FailureReason::Killed { signal, progress }, saying);
    }
}

#[test]
fn a_status_that_does_not_go_with_the_last_line_is_neither_a_listing_nor_a_refusal() {
    let _limit = support::limit(60);
    for (way, status, after, saying) in [
        (
            "prints-end-and-exits-3",
            3,
            "a complete answer",
            "status 3 after a complete answer",
        ),
        (
            "prints-error-and-exits-0",
            0,
            "an error",
            "status 0 after an error",
        ),
        (
            "prints-usage-error-and-exits-1",
            1,
            "an error",
            "status 1 after an error",
        ),
    ] {
        assert_breaks(way, &FailureReason::Status { status, after }, saying);
    }
}

// ---- A helper that says something else.

#[test]
fn an_output_that_breaks_the_wire_is_told_by_the_rule_it_breaks() {
    let _limit = support::limit(60);
    for (way, violation, saying) in [
        (
            "prints-other-protocol",
            Violation::Protocol {
                theirs: 2,
                lister: "9.9.9".into(),
            },
            "version 9.9.9 and speaks protocol 2",
        ),
        (
            "prints-unknown-type",
            Violation::UnknownType {
                line: 2,
                name: "progress".into(),
                lister: VERSION.into(),
            },
            "the unknown type progress",
        ),
        (
            "counts-wrong",
            Violation::WrongCount { got: 2, said: 3 },
            "its end counts 3, but 2 came",
        ),
        (
            "goes-on-after-end",
            Violation::AfterEnd,
            "went on after its last line",
        ),
        (
            "over-long-line",
            Violation::LongLine(2),
            "line 2 is longer than 1048576 bytes",
        ),
        (
            "floods-stdout-without-newline",
            Violation::LongLine(2),
            "line 2 is longer than 1048576 bytes",
        ),
    ] {
        assert_breaks(way, &FailureReason::Wire(violation), saying);
    }
}

#[test]
fn another_programs_output_is_shown_without_its_escape_sequences() {
    let _limit = support::limit(60);
    let outcome = outcome("not-a-listing", LONG);
    assert!(outcome.to_string().contains("opencode-lister"), "{outcome}");
    let FailureReason::Wire(Violation::NoHello(start)) = broken(outcome).reason else {
        panic!("no NoHello");
    };
    assert_eq!(start, r"sh: 1: opencode-lister: \u{1b}[31mnot found");
}

#[test]
fn a_flood_of_sessions_ends_at_the_limit() {
    let _limit = support::limit(180);
    // The checker of an unoptimised build takes its time.
    let outcome = outcome("floods-stdout-with-sessions", Duration::from_secs(120));
    assert!(
        outcome.to_string().contains("more than 200000"),
        "{outcome}"
    );
    assert_eq!(
        broken(outcome).reason,
        FailureReason::Wire(Violation::TooMany)
    );
}

#[test]
fn a_usage_error_of_another_version_names_both_versions() {
    let _limit = support::limit(60);
    let outcome = outcome("usage-error-of-another-version", LONG);
    let said = outcome.to_string();
    for part in [
        "unexpected argument '--background' found",
        "9.9.9",
        VERSION,
        &format!("protocol {PROTOCOL}"),
    ] {
        assert!(said.contains(part), "{said:?}");
    }
    let refusal = refused(outcome);
    assert_eq!(refusal.failure.kind, ErrorKind::Usage);
    assert_eq!(refusal.lister, "9.9.9");
}

#[test]
fn a_refusal_comes_through_with_its_kind() {
    let _limit = support::limit(60);
    for kind in [
        ErrorKind::Busy,
        ErrorKind::Corrupt,
        ErrorKind::NotADatabase,
        ErrorKind::Permission,
        ErrorKind::Io,
        ErrorKind::Schema,
        ErrorKind::OutOfMemory,
        ErrorKind::Usage,
        ErrorKind::Internal,
    ] {
        let way = format!("exits-with-error-{}", kind.as_str());
        let outcome = outcome(&way, LONG);
        let message = format!("the helper says {}", kind.as_str());
        assert!(outcome.to_string().starts_with(&message), "{outcome}");
        assert_eq!(refused(outcome).failure.kind, kind);
    }
}

#[test]
fn a_refusal_without_a_message_still_has_a_sentence() {
    let _limit = support::limit(60);
    let outcome = outcome("refuses-without-a-word", LONG);
    assert!(outcome.to_string().contains("corrupt"), "{outcome}");
    assert_eq!(refused(outcome).failure.kind, ErrorKind::Corrupt);
}

// ---- Standard error.

#[test]
fn a_flood_of_standard_error_holds_nothing_up_and_is_not_kept() {
    let _limit = support::limit(60);
    listing(outcome("floods-stderr-then-behaves", LONG));
    let outcome = outcome("floods-stderr", SHORT);
    assert!(outcome.to_string().contains("; it said: "), "{outcome}");
    let timeout = timed_out(outcome);
    assert_eq!(timeout.progress, Progress::Sessions(0));
    assert!(
        timeout.stderr_tail.len() <= 8 << 10,
        "{}",
        timeout.stderr_tail.len()
    );
}

#[test]
fn the_last_8_kib_of_standard_error_are_kept_and_its_last_line_is_shown_safely() {
    let _limit = support::limit(60);
    let outcome = outcome("says-much-and-exits-3", LONG);
    let said = outcome.to_string();
    let stderr = broken(outcome).stderr_tail;
    assert_eq!(stderr.len(), 8 << 10);
    assert!(stderr.contains("line 9999\nthe \x1b]0;last\x07 word"));
    assert!(!stderr.contains("line 9000\n"));
    let shown = "it said: the \u{fffd}]0;last\u{fffd} word\u{fffd}31m";
    assert!(said.ends_with(shown), "{said:?}");
}

// ---- Grandchildren.

#[test]
fn a_grandchild_dies_with_the_group() {
    let _limit = support::limit(60);
    let held = outcome("grandchild-holds-the-pipe", LONG);
    let said = held.to_string();
    assert_eq!(broken(held).reason, FailureReason::OutputHeld);
    assert!(said.contains("another process still holds"), "{said:?}");
    let hanging = outcome("grandchild-of-a-hanging-helper", SHORT);
    assert_eq!(timed_out(hanging).progress, Progress::Sessions(0));
}

#[test]
fn a_grandchild_of_another_group_that_holds_the_pipe_holds_nobody_up() {
    let _limit = support::limit(60);
    let place = Place::new();
    let way = "grandchild-of-another-group-holds-the-pipe";
    let started = Instant::now();
    let outcome = outcome_in(&place, way, LONG);
    assert_eq!(broken(outcome).reason, FailureReason::OutputHeld);
    assert!(started.elapsed() < LONG, "it was not waited for");
    let [helper, grandchild] = place.pids()[..] else {
        panic!("{:?}", place.pids());
    };
    assert!(!is_child(helper));
    assert!(is_running(grandchild), "it is in no group of ours");
}

#[test]
fn a_pipe_that_is_still_held_at_the_deadline_is_a_timeout() {
    let _limit = support::limit(60);
    let place = Place::new();
    let way = "grandchild-of-another-group-holds-the-pipe";
    match outcome_in(&place, way, Duration::from_millis(300)) {
        Outcome::TimedOut(_) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grandchild_that_holds_only_standard_error_takes_nothing_from_the_listing() {
    let _limit = support::limit(60);
    let listing = listing(outcome("grandchild-holds-only-stderr", LONG));
    assert_eq!(listing.sessions.len(), 3);
}

#[test]
fn an_output_that_ends_a_moment_after_the_helper_is_waited_for() {
    let _limit = support::limit(60);
    let listing = listing(outcome("grandchild-prints-the-end", LONG));
    assert_eq!(listing.sessions.len(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn the_group_is_killed_before_its_leader_is_reaped() {
    let _limit = support::limit(60);
    let place = Place::new();
    thread::scope(|scope| {
        let listing = scope.spawn(|| outcome_in(&place, "grandchild-holds-the-pipe", LONG));
        let mut seen_dead = false;
        while !listing.is_finished() {
            if let [leader, grandchild] = place.pids()[..] {
                // The leader first: both may end between the two looks.
                let leader = stat(leader).map(|(state, _)| state);
                let alive = is_running(grandchild);
                assert!(
                    leader.is_some() || !alive,
                    "the leader's id is free, and may soon be another group's"
                );
                seen_dead |= leader == Some('Z') && alive;
            }
            thread::sleep(Duration::from_millis(2));
        }
        assert!(seen_dead, "the test saw nothing");
        assert_eq!(
            broken(listing.join().unwrap()).reason,
            FailureReason::OutputHeld
        );
    });
    place.assert_no_process_is_left();
}

// ---- A helper that cannot be run.

#[track_caller]
fn breakage_of(lister: &Path) -> FailureReason {
    let lister = ProcessLister::at(lister);
    broken(timely(&lister, &ListRequest::of("/nowhere/opencode.db"))).reason
}

#[test]
fn a_helper_that_is_not_there_is_told_with_its_path() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    fs::write(here("file"), "").unwrap();
    symlink(here("nowhere"), here("dangling")).unwrap();
    for name in ["absent", "dangling", "file/opencode-lister", "a\x1bb"] {
        let what = breakage_of(&here(name));
        assert_eq!(what, FailureReason::NotFound(here(name)));
        let said = what.to_string();
        assert!(said.starts_with("there is no helper at "), "{said:?}");
        assert!(said.contains("--lister"), "{said:?}");
    }
}

#[test]
fn a_helper_that_may_not_be_executed_is_told_as_such() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("opencode-lister");
    support::script(&file, "#!/bin/sh\n");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    for path in [file.as_path(), directory.path()] {
        let what = breakage_of(path);
        assert_eq!(what, FailureReason::NotExecutable(path.to_owned()));
        assert!(what.to_string().contains("may not be executed"), "{what}");
    }
}

#[test]
fn a_file_that_is_no_program_is_told_with_the_systems_reason() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    support::script(&here("empty"), "");
    support::script(&here("no-shebang"), "echo hello\n");
    support::script(&here("not-installed"), "#!/nowhere/python9\n");
    symlink(here("loop"), here("loop")).unwrap();
    for (name, saying) in [
        ("empty", "format"),
        ("no-shebang", "format"),
        ("not-installed", "interpreter"),
        ("loop", "symbolic links"),
    ] {
        let FailureReason::Spawn { lister, why } = breakage_of(&here(name)) else {
            panic!("{name}");
        };
        assert_eq!(lister, here(name));
        assert!(why.contains(saying), "{name}: {why}");
    }
}

#[test]
fn a_database_path_that_no_program_can_be_given_is_a_typed_error() {
    let _limit = support::limit(60);
    let made = Made::new();
    let nul = made.directory.path().join("a\0b");
    let long = made.directory.path().join("x".repeat(1 << 20));
    for db in [nul, long] {
        let lister = ProcessLister::at(support::lister());
        let what = broken(timely(&lister, &ListRequest::of(db))).reason;
        assert!(matches!(what, FailureReason::Spawn { .. }), "{what:?}");
    }
}

#[test]
fn a_script_in_any_language_that_prints_a_listing_is_listened_to() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"type":"hello","protocol":1,"lister":"script"}"#,
        r#"{"type":"session","id":"ses_1","store":"v1"}"#,
        r#"{"type":"end","sessions":1,"database":"ready","scan":{"mode":"none","progress":1,"frames":0,"bytes":0},"elapsedMs":0}"#,
    ]
    .join("\n");
    let shell = format!("#!/bin/sh\ncat <<'.'\n{lines}\n.\n");
    let python = format!("#!/usr/bin/env python3\nprint('''{lines}''')\n");
    for (interpreter, text) in [("sh", shell), ("python3", python)] {
        let found = support::command(Path::new("/bin/sh"))
            .args(["-c", &format!("command -v {interpreter}")])
            .output()
            .unwrap();
        if !found.status.success() {
            continue;
        }
        let path = directory.path().join(interpreter);
        support::script(&path, &text);
        let lister = ProcessLister::at(&path);
        let request = ListRequest {
            deadline: LONG,
            ..ListRequest::of("/nowhere/opencode.db")
        };
        let listing = listing(timely(&lister, &request));
        assert_eq!(listing.lister, "script", "{interpreter}");
        assert_eq!(listing.sessions.len(), 1, "{interpreter}");
    }
}

/// The limit of first prompts is that of the request, not that of the helper.
#[test]
fn first_prompt_longer_than_requested_is_refused() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let helper = directory.path().join("helper");
    let session = format!(
        r#"{{"type":"session","id":"ses_1","store":"v1","untitled":true,"firstPrompt":"{}"}}"#,
        "x".repeat(1_000)
    );
    let [hello, listed, answered] = [
        r#"{"type":"hello","protocol":1,"lister":"script"}"#,
        r#"{"type":"end","sessions":1,"database":"ready","scan":{"mode":"none","progress":1,"frames":0,"bytes":0},"elapsedMs":0}"#,
        r#"{"type":"end","answers":1,"database":"ready","elapsedMs":0}"#,
    ];
    support::script(
        &helper,
        &format!(
            "#!/bin/sh\necho '{hello}'\necho '{session}'\n\
             if [ \"$1\" = get ]; then echo '{answered}'; else echo '{listed}'; fi\n"
        ),
    );
    let lister = ProcessLister::at(&helper);
    for (first_prompt_limit, is_valid) in [(200, false), (999, false), (1_000, true), (4_000, true)]
    {
        let outcome = timely(
            &lister,
            &ListRequest {
                first_prompt_limit,
                ..ListRequest::of("/nowhere/opencode.db")
            },
        );
        let id = SessionId::new("ses_1").unwrap();
        let looked_up = lister.look_up(&LookUpRequest {
            first_prompt_limit,
            deadline: LONG,
            ..LookUpRequest::of("/nowhere/opencode.db", LookUp::Get, vec![id])
        });
        if is_valid {
            assert_eq!(listing(outcome).sessions.len(), 1);
            assert!(matches!(looked_up, Outcome::Complete(_)), "{looked_up}");
            continue;
        }
        let why = format!("its firstPrompt is longer than {first_prompt_limit} characters");
        for said in [outcome.to_string(), looked_up.to_string()] {
            assert!(said.contains(&why), "{said}");
        }
        assert!(matches!(broken(outcome).reason, FailureReason::Wire(_)));
    }
}

// ---- Where the helper is found.

#[test]
fn the_helper_is_the_one_beside_the_running_program() {
    let _limit = support::limit(60);
    let lister = ProcessLister::beside_this_program().unwrap();
    let beside = std::env::current_exe()
        .unwrap()
        .with_file_name("opencode-lister");
    assert_eq!(lister.program(), Some(&*beside));
}

#[test]
fn the_helper_is_never_found_by_path() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_1", 1);
    let home = made.directory.path().join("bin");
    let elsewhere = made.directory.path().join("elsewhere");
    fs::create_dir(&home).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    support::script(
        &elsewhere.join("opencode-lister"),
        "#!/bin/sh\necho found by PATH\n",
    );
    let copied = Command::new("cp")
        .arg(support::sessions())
        .arg(&home)
        .status();
    assert!(copied.unwrap().success());
    let path = format!(
        "{}:{}",
        elsewhere.display(),
        support::lister().parent().unwrap().display()
    );
    let list = |extra: &[&str]| {
        let output = support::command(&home.join("opencode-sessions"))
            .env("PATH", &path)
            .args(["list", "--format", "ids", "--db"])
            .arg(&made.db)
            .args(extra)
            .current_dir(&home)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    for extra in [&[][..], &["--lister", "opencode-lister"]] {
        let (status, stdout, stderr) = list(extra);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{stderr}");
        let absent = home.join("opencode-lister").display().to_string();
        let expected = format!("opencode-sessions: there is no helper at {absent}: ");
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    symlink(support::lister(), home.join("opencode-lister")).unwrap();
    for extra in [&[][..], &["--lister", "opencode-lister"]] {
        let (status, stdout, stderr) = list(extra);
        assert_eq!((status, stdout.as_str()), (Some(0), "ses_1\n"), "{stderr}");
    }
}

// ---- The real helper.

/// A made database with two sessions, one of them with `marker`.
fn two_sessions(marker: &str) -> Made {
    let made = Made::new();
    made.session("ses_1", 1_000);
    made.session("ses_2", 2_000);
    made.part("ses_1", &format!(r#"{{"type":"text","text":"{marker}"}}"#));
    made
}

fn ids(listing: &Listing) -> Vec<String> {
    let ids = listing.sessions.iter().map(|session| session.id.into());
    ids.collect()
}

fn marked(listing: &Listing) -> Vec<Option<bool>> {
    let marked = listing.sessions.iter().map(|session| session.marked);
    marked.collect()
}

/// A made database that is locked as long as it lives.
fn locked() -> Made {
    let made = two_sessions("");
    made.run(
        "PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; UPDATE session SET title = 'locked'",
    );
    made
}

#[test]
fn the_real_helper_lists_a_database() {
    let _limit = support::limit(60);
    let made = two_sessions(MarkerText::DEFAULT);
    let lister = ProcessLister::at(support::lister());
    let listing = listing(timely(&lister, &ListRequest::of(&made.db)));
    assert_eq!(ids(&listing), ["ses_2", "ses_1"]);
    assert_eq!(marked(&listing), [Some(false), Some(true)]);
    assert_eq!(listing.end.database, DatabaseState::Ready);
    assert_eq!(listing.lister, VERSION);
}

#[test]
fn what_is_asked_for_reaches_the_helper() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = two_sessions(MarkerText::DEFAULT);
    made.run("UPDATE session SET time_archived = 1 WHERE id = 'ses_1'");
    made.session("ses_child", 3_000);
    made.run("UPDATE session SET parent_id = 'ses_2' WHERE id = 'ses_child'");
    for lister in [
        &ProcessLister::at(support::lister()) as &dyn Lister,
        &InProcessLister,
    ] {
        let list = |children, archived| {
            let listing = listing(lister.list(&ListRequest {
                children,
                archived,
                ..ListRequest::of(&made.db)
            }));
            ids(&listing).join(" ")
        };
        assert_eq!(list(false, false), "ses_2");
        assert_eq!(list(true, false), "ses_child ses_2");
        assert_eq!(list(false, true), "ses_2 ses_1");
        assert_eq!(list(true, true), "ses_child ses_2 ses_1");
        let unmarked = listing(lister.list(&ListRequest {
            marker: None,
            ..ListRequest::of(&made.db)
        }));
        assert_eq!(marked(&unmarked), [None]);
    }
}

#[test]
fn a_marker_that_is_not_the_default_goes_by_standard_input() {
    let _limit = support::limit(60);
    let text = "it's $(another) \"marker\"";
    let made = two_sessions(r#"it's $(another) \"marker\""#);
    made.part("ses_2", text);
    let arguments = made.directory.path().join("arguments");
    let lister = ProcessLister::at(with_arguments_in(&arguments));
    let request = ListRequest {
        marker: Some(MarkerText::new(text).unwrap()),
        deadline: LONG,
        ..ListRequest::of(&made.db)
    };
    let listing = listing(timely(&lister, &request));
    // LIKE sees the JSON as it is stored, with its backslashes.
    assert_eq!(marked(&listing), [Some(true), Some(false)]);
    let arguments = fs::read_to_string(arguments).unwrap();
    assert!(arguments.contains("--request-stdin"), "{arguments}");
    assert!(!arguments.contains("another"), "{arguments}");
}

/// A helper that writes its arguments to this file first.
fn with_arguments_in(file: &Path) -> PathBuf {
    let wrapper = file.with_extension("wrapper");
    let [to, helper] = [file, support::lister()].map(Path::display);
    support::script(
        &wrapper,
        &format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > '{to}'\nexec '{helper}' \"$@\"\n"),
    );
    wrapper
}

/// Else a listing whose deadline is shorter than the two seconds of the scan fails each
/// time, and what it has found out by then is lost.
#[test]
fn list_gives_the_scan_at_most_half_of_its_deadline() {
    let _limit = support::limit(60);
    let made = two_sessions(MarkerText::DEFAULT);
    let arguments = made.directory.path().join("arguments");
    let wrapper = with_arguments_in(&arguments);
    for (deadline, most) in [("20s", 2000), ("3s", 1500)] {
        let output = support::command(support::sessions())
            .args(["list", "--format", "ids", "--deadline", deadline, "--db"])
            .arg(&made.db)
            .arg("--lister")
            .arg(&wrapper)
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"ses_2\nses_1\n", "{output:?}");
        let arguments = fs::read_to_string(&arguments).unwrap();
        let (_, budget) = arguments.split_once("\n--scan-budget\n").unwrap();
        let budget: u32 = budget.lines().next().unwrap().parse().unwrap();
        // What the command had done before is missing.
        assert!((most / 2..=most).contains(&budget), "{arguments}");
    }
}

#[test]
fn a_locked_database_is_said_to_be_busy_before_the_deadline() {
    let _limit = support::limit(60);
    let made = locked();
    let lister = ProcessLister::at(support::lister());
    let request = ListRequest {
        deadline: Duration::from_secs(4),
        ..ListRequest::of(&made.db)
    };
    let outcome = timely(&lister, &request);
    let said = outcome.to_string();
    assert!(said.contains("it is locked by process"), "{said:?}");
    assert_eq!(refused(outcome).failure.kind, ErrorKind::Busy);
    made.run("COMMIT; PRAGMA locking_mode = normal; SELECT count(*) FROM session");
    assert_eq!(ids(&listing(timely(&lister, &request))), ["ses_2", "ses_1"]);
}

#[test]
fn what_the_real_helper_refuses_comes_through() {
    let _limit = support::limit(60);
    let made = Made::new();
    let text = made.directory.path().join("text.db");
    fs::write(&text, "this is no database, whatever its name says").unwrap();
    let lister = ProcessLister::at(support::lister());
    for db in [text.as_path(), made.directory.path()] {
        let refusal = refused(timely(&lister, &ListRequest::of(db)));
        assert_eq!(refusal.failure.kind, ErrorKind::NotADatabase);
        assert_eq!(refusal.lister, VERSION);
    }
    let absent = made.directory.path().join("absent.db");
    let listing = listing(timely(&lister, &ListRequest::of(absent)));
    assert_eq!(listing.end.database, DatabaseState::Missing);
}

#[test]
fn the_path_of_a_database_may_hold_anything() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let plain = two_sessions("");
    plain.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let up: PathBuf = std::env::current_dir()
        .unwrap()
        .components()
        .skip(1)
        .map(|_| "..")
        .collect();
    let lister = ProcessLister::at(support::lister());
    for name in [
        &b"two words.db"[..],
        b"it's \"quoted\" $(x) `y`.db",
        b"-rf",
        b"--help",
        b"caf\xe9 \xff.db",
        b"line\nend.db",
        b"100%?mode=memory#x.db",
        b"file:x?mode=memory",
        b" ",
    ] {
        let db = directory.path().join(OsStr::from_bytes(name));
        fs::copy(&plain.db, &db).unwrap();
        let relative = up.join(db.strip_prefix("/").unwrap());
        assert!(relative.is_relative());
        for db in [db, relative] {
            let listing = listing(timely(&lister, &ListRequest::of(&db)));
            assert_eq!(ids(&listing), ["ses_2", "ses_1"], "{db:?}");
        }
    }
    // And as a relative name, which only a process with that directory can have.
    for name in ["--db=-rf", "--db=--help", "--db=two words.db"] {
        let output = support::command(support::sessions())
            .args(["list", "--format", "ids", name])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"ses_2\nses_1\n", "{name}: {output:?}");
    }
}

#[test]
fn the_longest_deadline_is_one() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = two_sessions("");
    let output = support::command(support::sessions())
        .args(["list", "--format", "ids", "--deadline", "24h", "--db"])
        .arg(&made.db)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"ses_2\nses_1\n", "{output:?}");
    for deadline in [Duration::from_secs(1_000_000), Duration::MAX] {
        let request = ListRequest {
            deadline,
            ..ListRequest::of(&made.db)
        };
        let lister = ProcessLister::at(support::lister());
        assert_eq!(ids(&listing(lister.list(&request))).len(), 2);
        assert_eq!(ids(&listing(InProcessLister.list(&request))).len(), 2);
    }
}

/// A database whose listing never ends: it looks for a project that is none of
/// endlessly many.
fn endless() -> Made {
    let made = Made::of(&support::SCHEMA.replace("CREATE TABLE project", "CREATE TABLE ignored"));
    made.session("ses_1", 1);
    made.run(
        "UPDATE session SET project_id = 'p';
         CREATE VIEW project AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
         SELECT i AS id, '/usr' AS worktree FROM n WHERE i < 0",
    );
    made
}

#[test]
fn the_real_helper_in_an_endless_query_is_stopped_at_the_deadline() {
    let _limit = support::limit(60);
    let made = endless();
    let lister = ProcessLister::at(support::lister());
    let request = ListRequest {
        deadline: SHORT,
        ..ListRequest::of(&made.db)
    };
    let timeout = timed_out(timely(&lister, &request));
    assert_eq!(timeout.progress, Progress::Sessions(0));
    assert_eq!(lister.stuck(), 0);
}

#[test]
fn a_helper_past_its_cpu_limit_is_told_as_such() {
    let _limit = support::limit(120);
    let made = endless();
    // A limit lower than the launcher's comes from outside.
    let wrapper = made.directory.path().join("wrapper");
    let helper = support::lister().display();
    support::script(
        &wrapper,
        &format!("#!/bin/sh\nulimit -S -t 1\nexec '{helper}' \"$@\"\n"),
    );
    let lister = ProcessLister::at(wrapper);
    let request = ListRequest {
        // In the background a second of CPU can take long.
        deadline: Duration::from_secs(90),
        ..ListRequest::of(&made.db)
    };
    let outcome = timely(&lister, &request);
    let said = outcome.to_string();
    assert!(said.contains("more CPU than its deadline"), "{said:?}");
    let (signal, progress) = (libc::SIGXCPU, Progress::Sessions(0));
    assert_eq!(
        broken(outcome).reason,
        FailureReason::Killed { signal, progress }
    );
}

#[test]
fn threads_may_share_a_lister() {
    let _limit = support::limit(90);
    let made = two_sessions("");
    let place = Place::new();
    let real = ProcessLister::at(support::lister());
    let hangs = ProcessLister::at(support::misbehaving(place.0.path(), "hangs-after-hello"));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let listing = listing(timely(&real, &ListRequest::of(&made.db)));
                    assert_eq!(ids(&listing), ["ses_2", "ses_1"]);
                }
            });
            scope.spawn(|| {
                for _ in 0..5 {
                    let deadline = Duration::from_millis(100);
                    let request = ListRequest {
                        deadline,
                        ..ListRequest::of(&made.db)
                    };
                    timed_out(timely(&hangs, &request));
                }
            });
        }
    });
    assert_eq!(real.stuck() + hangs.stuck(), 0);
    place.assert_no_process_is_left();
}

#[test]
fn a_failed_listing_is_one_sentence_on_standard_error_and_exit_status_1() {
    let _limit = support::limit(60);
    for way in [
        "exits-0-without-end",
        "prints-end-and-exits-3",
        "killed-by-signal",
        "not-a-listing",
        "says-much-and-exits-3",
        "exits-with-error-busy",
        "hangs-after-half-the-rows",
    ] {
        let place = Place::new();
        let output = support::command(support::sessions())
            .args(["list", "--deadline", "1s", "--db", "/nowhere", "--lister"])
            .arg(support::misbehaving(place.0.path(), way))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{way}: {output:?}");
        assert_eq!(output.stdout, b"", "{way}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let sentence = stderr.strip_suffix('\n').unwrap();
        assert!(sentence.starts_with("opencode-sessions: "), "{sentence:?}");
        assert!(!sentence.chars().any(unsafe_on_a_terminal), "{sentence:?}");
        place.assert_no_process_is_left();
    }
}

// ---- Within this process.

/// Listings within the process wait for each other: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn listing_within_the_process_gives_what_the_helper_gives() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = two_sessions(MarkerText::DEFAULT);
    let empty = Made::of("CREATE TABLE unrelated (x)");
    let absent = made.directory.path().join("absent.db");
    for db in [&made.db, &empty.db, &absent] {
        let request = ListRequest::of(db);
        let lister = ProcessLister::at(support::lister());
        let theirs = listing(timely(&lister, &request));
        let mut ours = listing(timely(&InProcessLister, &request));
        // The time differs, and with it the number of its digits.
        ours.end.elapsed_ms = theirs.end.elapsed_ms;
        assert!(ours.bytes.abs_diff(theirs.bytes) < 8);
        ours.bytes = theirs.bytes;
        assert_eq!(ours, theirs);
    }
    let refusal = refused(timely(
        &InProcessLister,
        &ListRequest::of(made.directory.path()),
    ));
    assert_eq!(refusal.failure.kind, ErrorKind::NotADatabase);
}

#[test]
fn listing_within_the_process_a_locked_database_ends_by_the_deadline() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = locked();
    let request = ListRequest {
        deadline: SHORT,
        ..ListRequest::of(&made.db)
    };
    match timely(&InProcessLister, &request) {
        Outcome::Refused(refusal) => assert_eq!(refusal.failure.kind, ErrorKind::Busy),
        other => drop(timed_out(other)),
    }
}

#[test]
fn listing_within_the_process_an_endless_query_ends_by_the_deadline() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = endless();
    let request = ListRequest {
        deadline: SHORT,
        ..ListRequest::of(&made.db)
    };
    match timely(&InProcessLister, &request) {
        // What is interrupted is optional: the listing can also end without it.
        Outcome::Complete(listing) => {
            assert_eq!(listing.end.degraded[0].what, OptionalPart::Worktree);
        }
        other => assert_eq!(timed_out(other).progress, Progress::Sessions(0)),
    }
}

#[test]
fn listings_within_the_process_of_two_databases_do_not_wait_for_each_other() {
    let _limit = support::limit(60);
    let _turn = alone();
    let (slow, other) = (endless(), two_sessions(""));
    thread::scope(|scope| {
        let slow = ListRequest {
            deadline: Duration::from_secs(4),
            ..ListRequest::of(&slow.db)
        };
        let slow = scope.spawn(move || InProcessLister.list(&slow));
        thread::sleep(Duration::from_millis(200));
        assert!(!slow.is_finished());
        let listed = listing(timely(&InProcessLister, &ListRequest::of(&other.db)));
        assert_eq!(ids(&listed), ["ses_2", "ses_1"]);
        assert!(!slow.is_finished(), "it waited for the other database");
    });
}

#[test]
fn listing_within_the_process_does_not_wait_past_its_deadline_for_another_threads_listing() {
    let _limit = support::limit(60);
    let _turn = alone();
    let made = endless();
    let request = |deadline| ListRequest {
        deadline,
        ..ListRequest::of(&made.db)
    };
    thread::scope(|scope| {
        scope.spawn(|| timely(&InProcessLister, &request(Duration::from_secs(4))));
        thread::sleep(Duration::from_millis(200));
        let started = Instant::now();
        let outcome = InProcessLister.list(&request(SHORT));
        let took = started.elapsed();
        assert!(took <= SHORT + GRACE, "{took:?}: {outcome}");
    });
}
