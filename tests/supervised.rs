//! The processes around a listing: a host that goes on while a helper sleeps, a
//! supervisor that ignores or blocks SIGCHLD, a parent that dies, and the limits
//! a helper keeps to.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

mod support;

use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use opencode_sessions::launch::ProcessLister;

use opencode_sessions::lister::{FailureReason, ListRequest, Lister, LookUpRequest, Outcome};
use opencode_sessions::session::SessionId;
use opencode_sessions::wire::{LookUp, limits};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use support::Made;

// ---- Processes.

/// A process that a test started, which does not survive it.
struct Started(Child);

impl Started {
    fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A helper that something else started.
struct Seen(u32);

impl Seen {
    /// Neither gone nor a zombie, whoever reaps that.
    fn is_running(&self) -> bool {
        let is_dead = |stat: Vec<String>| matches!(stat[0].as_str(), "Z" | "X");
        is_helper(self.0) && !stat(self.0).is_none_or(is_dead)
    }

    #[track_caller]
    fn assert_is_gone_within(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.is_running() {
            assert!(Instant::now() < until, "the helper runs on");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // Looked at once more: whatever went wrong, nothing else is killed.
        if self.is_running() {
            let pid = Pid::from_raw(self.0.cast_signed()).unwrap();
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// True for a process that runs the helper under test.
fn is_helper(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == support::lister())
}

/// The fields of `/proc/PID/stat` after the name, from the third, the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split_terminator('\0').map(str::to_owned).collect()
}

/// Waits for the helper that is a child of `parent` and lists `db`.
#[track_caller]
fn helper_of(parent: u32, db: &Path) -> Seen {
    let pid = wait_for("a helper", || {
        fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid = entry.unwrap().file_name().to_str()?.parse().ok()?;
            let is_child = stat(pid)?[1] == parent.to_string();
            let lists_it = arguments(pid).iter().any(|each| Path::new(each) == db);
            (is_child && lists_it && is_helper(pid)).then_some(pid)
        })
    });
    Seen(pid)
}

/// Waits until the helper has done all that it does before it opens the database.
#[track_caller]
fn wait_until_it_reads(helper: u32, db: &Path) {
    wait_for("the database to be open", || {
        let open = fs::read_dir(format!("/proc/{helper}/fd")).ok()?;
        open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|file| file == db)
            .then_some(())
    });
}

#[track_caller]
fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

// ---- Databases.

fn one_session() -> Made {
    let made = Made::new();
    made.session("ses_1", 1);
    made
}

/// Locked until `COMMIT` and the end of its exclusive mode.
fn locked() -> Made {
    let made = one_session();
    made.run("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; UPDATE session SET title = 'x'");
    made
}

fn unlock(made: &Made) {
    made.run("COMMIT; PRAGMA locking_mode = normal; SELECT count(*) FROM session");
}

/// A database with a view in place of the table `project`.
fn with_projects(view: &str) -> Made {
    let made = Made::of(&support::SCHEMA.replace("CREATE TABLE project", "CREATE TABLE ignored"));
    made.session("ses_1", 1);
    made.run("UPDATE session SET project_id = 'p'");
    made.run(&format!("CREATE VIEW project AS {view}"));
    made
}

/// A database whose listing never ends.
fn endless() -> Made {
    with_projects(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
         SELECT i AS id, '/usr' AS worktree FROM n WHERE i < 0",
    )
}

// ---- The host goes on.

#[test]
fn the_main_thread_stays_free_while_a_helper_sleeps() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let lister = ProcessLister::at(support::misbehaving(directory.path(), "hangs-after-hello"));
    let request = ListRequest {
        deadline: Duration::from_millis(1500),
        ..ListRequest::of("/nowhere/opencode.db")
    };
    let mut ticks = 0;
    let mut largest = Duration::ZERO;
    let outcome = thread::scope(|scope| {
        let listing = scope.spawn(|| lister.list(&request));
        let mut last = Instant::now();
        while !listing.is_finished() {
            thread::sleep(Duration::from_millis(5));
            largest = largest.max(last.elapsed());
            last = Instant::now();
            ticks += 1;
        }
        listing.join().unwrap()
    });
    assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome:?}");
    assert!(ticks >= 100, "{ticks} ticks");
    assert!(
        largest < Duration::from_millis(250),
        "{largest:?} between two"
    );
}

// ---- Supervisors and SIGCHLD.

/// What a parent does to SIGCHLD before it runs another program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sigchld {
    Default,
    Ignored,
    Blocked,
    NoWait,
}

fn set(sigchld: Sigchld) {
    // SAFETY: each call gets valid, initialised arguments, and all of them may be
    // called between fork and exec.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a signal's action")]
    unsafe {
        match sigchld {
            Sigchld::Default => {}
            Sigchld::Ignored => {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            }
            Sigchld::Blocked => {
                let mut set = MaybeUninit::<libc::sigset_t>::uninit();
                libc::sigemptyset(set.as_mut_ptr());
                libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
                libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            }
            Sigchld::NoWait => {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_flags = libc::SA_NOCLDWAIT;
                libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

/// The program starts with SIGCHLD as this parent has it.
fn supervised(command: &mut Command, sigchld: Sigchld) -> &mut Command {
    let before = move || {
        set(sigchld);
        Ok(())
    };
    // SAFETY: `set` makes only calls that are allowed between fork and exec.
    #[expect(unsafe_code, reason = "what a program inherits is set before exec")]
    unsafe {
        command.pre_exec(before)
    }
}

/// True where SIGCHLD is in this mask of a thread's `/proc/TID/status`.
fn has_sigchld(thread: &str, mask: &str) -> bool {
    has_signal(libc::SIGCHLD, thread, mask)
}

fn has_signal(signal: libc::c_int, thread: &str, mask: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix(mask));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    mask & 1 << (signal - 1) != 0
}

#[test]
fn a_supervisor_that_ignores_or_blocks_sigchld_does_no_harm() {
    let _limit = support::limit(90);
    let made = one_session();
    for sigchld in [Sigchld::Ignored, Sigchld::Blocked] {
        for _ in 0..20 {
            let mut command = support::command(support::sessions());
            command.args(["list", "--format", "ids", "--db"]);
            let output = supervised(command.arg(&made.db), sigchld).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            assert_eq!(output.stdout, b"ses_1\n");
        }
    }
}

#[test]
fn a_timeout_under_a_supervisor_that_ignores_or_blocks_sigchld_is_one() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let lister = support::misbehaving(directory.path(), "hangs-after-hello");
    for sigchld in [Sigchld::Ignored, Sigchld::Blocked] {
        let mut command = support::command(support::sessions());
        command.args([
            "list",
            "--deadline",
            "500ms",
            "--db",
            "/nowhere",
            "--lister",
        ]);
        let started = Instant::now();
        let output = supervised(command.arg(&lister), sigchld).output().unwrap();
        let took = started.elapsed();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("the helper was not done within "),
            "{stderr}"
        );
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn the_program_ignores_and_blocks_sigchld_no_more() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    for sigchld in [Sigchld::Ignored, Sigchld::Blocked] {
        let mut command = support::command(support::sessions());
        command
            .args(["list", "--deadline", "20s", "--db", "/nowhere", "--lister"])
            .arg(directory.path().join("hangs-after-hello"))
            .stderr(Stdio::null());
        let lister = support::misbehaving(directory.path(), "hangs-after-hello");
        let list = Started::of(supervised(&mut command, sigchld));
        // With its helper running it has done what it does first.
        let pids = directory.path().join("pids");
        let helper = wait_for("the helper", || {
            let pids = fs::read_to_string(&pids).ok()?;
            pids.strip_suffix('\n')?.parse::<u32>().ok()
        });
        // Launching blocks every signal for a moment.
        for pid in [list.pid(), helper].map(|pid| pid.to_string()) {
            wait_for("SIGCHLD to be let through", || {
                let wrong = ["SigIgn:", "SigBlk:"].map(|mask| has_sigchld(&pid, mask));
                (wrong == [false; 2]).then_some(())
            });
        }
        // This one does not die with the program that launched it.
        let helper = Pid::from_raw(helper.cast_signed()).unwrap();
        rustix::process::kill_process(helper, Signal::KILL).unwrap();
        fs::remove_file(pids).unwrap();
        fs::remove_file(lister).unwrap();
    }
}

/// A host of the library is a process of its own: this test program, running
/// one of the tests named `host_…` below.
fn host(name: &str, sigchld: Sigchld) -> Output {
    let mut command = support::command(&std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(HOST, "1");
    supervised(&mut command, sigchld).output().unwrap()
}

const HOST: &str = "OPENCODE_SESSIONS_TEST_HOST";

fn is_host() -> bool {
    std::env::var_os(HOST).is_some()
}

#[track_caller]
fn assert_passes(output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let ran = stdout.contains("1 passed");
    assert!(output.status.success() && ran, "{output:?}");
}

fn lists() {
    let made = one_session();
    let lister = ProcessLister::at(support::lister());
    for _ in 0..20 {
        let outcome = lister.list(&ListRequest::of(&made.db));
        assert!(
            matches!(&outcome, Outcome::Complete(l) if l.sessions.len() == 1),
            "{outcome:?}"
        );
    }
}

fn is_told_that_sigchld_is_ignored() {
    let lister = ProcessLister::at(support::lister());
    // More than once: it is the first child's end that would crash.
    for _ in 0..3 {
        let outcome = lister.list(&ListRequest::of("/nowhere/opencode.db"));
        let said = outcome.to_string();
        let Outcome::Failed(failure) = outcome else {
            panic!("{said}");
        };
        assert_eq!(failure.reason, FailureReason::SigchldIgnored);
        assert!(
            said.starts_with("SIGCHLD is ignored in this process"),
            "{said}"
        );
    }
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_inherits_sigchld() {
    if is_host() {
        let _limit = support::limit(60);
        if has_sigchld("thread-self", "SigIgn:") {
            is_told_that_sigchld_is_ignored();
        } else {
            assert!(has_sigchld("thread-self", "SigBlk:"));
            lists();
            times_out();
        }
    }
}

/// Nothing is left to the reaper: the end of a killed child is seen, though no
/// handler tells of it.
fn times_out() {
    let directory = tempfile::tempdir().unwrap();
    let lister = ProcessLister::at(support::misbehaving(directory.path(), "hangs-after-hello"));
    for _ in 0..5 {
        let request = ListRequest {
            deadline: Duration::from_millis(100),
            ..ListRequest::of("/nowhere/opencode.db")
        };
        let outcome = lister.list(&request);
        assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome:?}");
        assert_eq!(lister.stuck(), 0);
    }
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_ignores_sigchld_itself() {
    if is_host() {
        let _limit = support::limit(60);
        lists();
        set(Sigchld::Ignored);
        is_told_that_sigchld_is_ignored();
    }
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_does_not_wait_for_children() {
    if is_host() {
        let _limit = support::limit(60);
        set(Sigchld::NoWait);
        is_told_that_sigchld_is_ignored();
    }
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_blocks_sigchld_in_one_thread() {
    if is_host() {
        let _limit = support::limit(60);
        set(Sigchld::Blocked);
        lists();
        times_out();
    }
}

/// Listings, of which the host may reap the helpers.
fn lists_whoever_reaps() {
    let directory = tempfile::tempdir().unwrap();
    let bad = |way| ProcessLister::at(support::misbehaving(directory.path(), way));
    let (behaves, hangs) = (bad("behaves"), bad("hangs-after-hello"));
    for _ in 0..20 {
        let outcome = behaves.list(&ListRequest::of("/nowhere/opencode.db"));
        match &outcome {
            Outcome::Complete(_) => {}
            Outcome::Failed(b) if matches!(b.reason, FailureReason::NoStatus(_)) => {}
            other => panic!("{other:?}"),
        }
        let request = ListRequest {
            deadline: Duration::from_millis(50),
            ..ListRequest::of("/nowhere/opencode.db")
        };
        let outcome = hangs.list(&request);
        assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome:?}");
    }
}

/// A process that is no child of this one and leads a group, as others of the host do.
fn bystander() -> u32 {
    let script = "setsid sleep 60 <&- >&- 2>&- & echo $!";
    let mut shell = support::command(Path::new("/bin/sh"));
    let output = shell.args(["-c", script]).output().unwrap();
    let pid = String::from_utf8(output.stdout).unwrap();
    pid.trim().parse().unwrap()
}

/// A handler that leaves no child to anybody else. What becomes of an id that another process
/// got is tested where the id can be chosen, beside the code.
#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_reaps_every_child_in_a_handler() {
    extern "C" fn reap(_: libc::c_int) {
        // SAFETY: waitpid may be called in a signal handler, and writes nothing here.
        #[expect(unsafe_code, reason = "nothing else may be called in a handler")]
        unsafe {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
    if is_host() {
        let _limit = support::limit(60);
        let bystander = bystander();
        // SAFETY: the handler makes only calls that are allowed in one.
        #[expect(unsafe_code, reason = "neither std nor rustix sets a signal's action")]
        unsafe {
            libc::signal(libc::SIGCHLD, reap as *const () as libc::sighandler_t);
        }
        lists_whoever_reaps();
        let pid = Pid::from_raw(bystander.cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).expect("it lives");
    }
}

/// As an init process does, and some servers do.
#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_reaps_every_child() {
    if is_host() {
        let _limit = support::limit(60);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let any = rustix::process::WaitOptions::empty();
                    if rustix::process::wait(any).is_err() {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            let listing = scope.spawn(lists_whoever_reaps);
            let listing = listing.join();
            done.store(true, Ordering::Relaxed);
            listing.unwrap();
        });
    }
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_runs_out_of_descriptors_at_its_first_listing() {
    if is_host() {
        let _limit = support::limit(60);
        times_out_without_descriptors();
    }
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_runs_out_of_descriptors_later() {
    if is_host() {
        let _limit = support::limit(60);
        lists();
        times_out_without_descriptors();
    }
}

/// Whatever is needed to be rid of a helper must be there when it is launched.
fn times_out_without_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let lister = ProcessLister::at(support::misbehaving(directory.path(), "hangs-after-hello"));
    let request = ListRequest {
        deadline: Duration::from_millis(1500),
        ..ListRequest::of("/nowhere/opencode.db")
    };
    let before = getrlimit(Resource::Nofile);
    let outcome = thread::scope(|scope| {
        let listing = scope.spawn(|| lister.list(&request));
        wait_for("the helper", || {
            directory.path().join("pids").exists().then_some(())
        });
        let none = Rlimit {
            current: Some(3),
            ..before
        };
        setrlimit(Resource::Nofile, none).unwrap();
        listing.join()
    });
    setrlimit(Resource::Nofile, before).unwrap();
    let outcome = outcome.expect("no panic");
    assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome:?}");
    let any = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert_eq!(
        any.err(),
        Some(rustix::io::Errno::CHILD),
        "it is not reaped"
    );
    lists();
}

/// As a program does that is to end quietly where its output is not read any more.
#[test]
#[ignore = "another test runs it in a process of its own"]
fn host_that_has_sigpipe_at_its_default() {
    if is_host() {
        let _limit = support::limit(60);
        // SAFETY: SIG_DFL is a valid action for SIGPIPE.
        #[expect(unsafe_code, reason = "neither std nor rustix sets a signal's action")]
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        let directory = tempfile::tempdir().unwrap();
        // More than a pipe holds, so that the end of it is written to a dead helper.
        let id = |n: usize| SessionId::new(format!("{n:0100}")).unwrap();
        let ids: Vec<_> = (0..limits::IDS).map(id).collect();
        let request = LookUpRequest::of("/nowhere/opencode.db", LookUp::Get, ids);
        for way in ["exits-1-without-end", "exits-0-without-output", "segfaults"] {
            let lister = ProcessLister::at(support::misbehaving(directory.path(), way));
            for _ in 0..20 {
                let outcome = lister.look_up(&request);
                assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
            }
        }
        // It is at its default again, and not blocked: the program's own output can end it.
        let mask = |name| has_signal(libc::SIGPIPE, "thread-self", name);
        assert!(
            !["SigBlk:", "SigIgn:", "SigPnd:", "ShdPnd:"]
                .into_iter()
                .any(mask)
        );
        lists();
    }
}

#[test]
fn host_that_has_sigpipe_at_its_default_survives_helpers_that_die() {
    let _limit = support::limit(60);
    assert_passes(&host(
        "host_that_has_sigpipe_at_its_default",
        Sigchld::Default,
    ));
}

#[test]
fn a_host_that_ignores_sigchld_gets_a_typed_error() {
    let _limit = support::limit(60);
    assert_passes(&host("host_that_inherits_sigchld", Sigchld::Ignored));
    assert_passes(&host("host_that_ignores_sigchld_itself", Sigchld::Default));
    assert_passes(&host(
        "host_that_does_not_wait_for_children",
        Sigchld::Default,
    ));
}

#[test]
fn a_host_that_blocks_sigchld_lists_all_the_same() {
    let _limit = support::limit(60);
    assert_passes(&host("host_that_inherits_sigchld", Sigchld::Blocked));
    assert_passes(&host(
        "host_that_blocks_sigchld_in_one_thread",
        Sigchld::Default,
    ));
}

#[test]
fn a_host_that_reaps_every_child_itself_does_not_crash() {
    let _limit = support::limit(60);
    assert_passes(&host("host_that_reaps_every_child", Sigchld::Default));
    assert_passes(&host(
        "host_that_reaps_every_child_in_a_handler",
        Sigchld::Default,
    ));
}

#[test]
fn a_host_that_runs_out_of_descriptors_is_rid_of_its_helper_all_the_same() {
    let _limit = support::limit(60);
    for name in [
        "host_that_runs_out_of_descriptors_later",
        "host_that_runs_out_of_descriptors_at_its_first_listing",
    ] {
        assert_passes(&host(name, Sigchld::Default));
    }
}

// ---- The helper dies with its parent.

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_helper_dies_when_the_program_that_lists_is_killed() {
    let _limit = support::limit(60);
    let made = endless();
    let mut list = support::command(support::sessions());
    list.args(["list", "--deadline", "60s", "--db"])
        .arg(&made.db)
        .stdout(Stdio::null());
    let mut list = Started::of(&mut list);
    let helper = helper_of(list.pid(), &made.db);
    wait_until_it_reads(helper.0, &made.db);
    list.0.kill().unwrap();
    helper.assert_is_gone_within(SOON);
}

/// A helper with these arguments, waiting for a lock; and its standard input.
fn waiting(made: &Made, arguments: &[&str]) -> (Started, Option<ChildStdin>) {
    let mut helper = support::command(support::lister());
    helper
        .args(["--busy-timeout", "30000", "--db"])
        .arg(&made.db)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut helper = Started::of(&mut helper);
    wait_until_it_reads(helper.pid(), &made.db);
    let stdin = helper.0.stdin.take();
    (helper, stdin)
}

#[test]
fn a_helper_with_a_parent_pipe_dies_when_it_ends() {
    let _limit = support::limit(60);
    let made = locked();
    let (helper, stdin) = waiting(&made, &["--parent-pipe"]);
    let helper_seen = Seen(helper.pid());
    thread::sleep(Duration::from_millis(200));
    assert!(helper_seen.is_running(), "its parent lives");
    drop(stdin);
    helper_seen.assert_is_gone_within(SOON);
}

#[test]
fn a_helper_without_a_parent_pipe_does_not_look_at_its_standard_input() {
    let _limit = support::limit(60);
    let made = locked();
    let (helper, stdin) = waiting(&made, &[]);
    drop(stdin);
    thread::sleep(Duration::from_millis(200));
    assert!(Seen(helper.pid()).is_running());
}

#[test]
fn a_helper_with_a_parent_dies_when_that_is_killed() {
    let _limit = support::limit(60);
    let made = locked();
    let mut parent = support::command(Path::new("/bin/sh"));
    parent
        .args([
            "-c",
            r#""$0" --busy-timeout 30000 --parent $$ --db "$1" & wait"#,
        ])
        .args([support::lister(), &made.db])
        .stdout(Stdio::null());
    let mut parent = Started::of(&mut parent);
    let helper = helper_of(parent.pid(), &made.db);
    wait_until_it_reads(helper.0, &made.db);
    parent.0.kill().unwrap();
    helper.assert_is_gone_within(SOON);
}

#[test]
fn a_helper_whose_parent_is_already_gone_lists_nothing() {
    let _limit = support::limit(60);
    let made = one_session();
    let us = std::process::id().to_string();
    let ours = support::helper(&made.db, &["--parent", &us]);
    assert_eq!(ours.status.code(), Some(0), "{ours:?}");
    // It would wait for the lock, would it begin.
    let made = locked();
    let started = Instant::now();
    let orphan = support::helper(&made.db, &["--busy-timeout", "30000", "--parent", "1"]);
    assert_eq!(orphan.status.code(), Some(1), "{orphan:?}");
    assert_eq!(orphan.stdout, b"");
    let stderr = String::from_utf8(orphan.stderr).unwrap();
    assert!(
        stderr.contains("process 1 is not this one's parent"),
        "{stderr}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}

// ---- Limits.

/// The soft and the hard limit of this name in `/proc/PID/limits`.
fn limits(pid: u32, name: &str) -> [String; 2] {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let mut values = line.unwrap().split_whitespace().map(str::to_owned);
    [values.next().unwrap(), values.next().unwrap()]
}

fn io_priority(pid: u32) -> i64 {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_get takes two integers and touches no memory of ours.
    #[expect(unsafe_code, reason = "neither std nor rustix has this system call")]
    unsafe {
        libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, pid)
    }
}

const BEST_EFFORT: i64 = 2 << 13;

#[test]
fn a_launched_helper_keeps_to_its_limits_and_is_told_who_its_parent_is() {
    let _limit = support::limit(60);
    let made = locked();
    let us = std::process::id();
    let request = ListRequest {
        deadline: Duration::from_secs(30),
        ..ListRequest::of(&made.db)
    };
    thread::scope(|scope| {
        let listing = scope.spawn(|| ProcessLister::at(support::lister()).list(&request));
        let helper = helper_of(us, &made.db);
        wait_until_it_reads(helper.0, &made.db);
        let pid = helper.0;
        // Nice is field 19, the process group field 5.
        let nice = |pid| stat(pid).unwrap()[16].parse::<i32>().unwrap();
        assert_eq!(nice(pid), (nice(us) + 10).min(19));
        let stat = stat(pid).unwrap();
        assert_eq!(stat[2], pid.to_string(), "the leader of its own group");
        assert_eq!(io_priority(pid), BEST_EFFORT | 7);
        let gib = (1 << 30).to_string();
        assert_eq!(limits(pid, "Max core file size"), ["0", "0"]);
        assert_eq!(limits(pid, "Max address space"), [gib.as_str(), &gib]);
        let seconds = 31 * opencode_sessions::lister::default_threads();
        let cpu = [seconds, seconds + 1].map(|seconds| seconds.to_string());
        assert_eq!(limits(pid, "Max cpu time"), cpu);
        let arguments = arguments(pid).join(" ");
        for part in [&format!("--parent {us} "), "--parent-pipe "] {
            assert!(arguments.contains(part), "{arguments}");
        }
        unlock(&made);
        let outcome = listing.join().unwrap();
        assert!(matches!(&outcome, Outcome::Complete(_)), "{outcome:?}");
    });
}

#[test]
fn a_helper_run_by_hand_has_no_limits_but_its_own_memory() {
    let _limit = support::limit(60);
    let made = locked();
    let (helper, _stdin) = waiting(&made, &[]);
    let us = std::process::id();
    let pid = helper.pid();
    assert_eq!(stat(pid).unwrap()[16], stat(us).unwrap()[16]);
    for name in ["Max core file size", "Max address space", "Max cpu time"] {
        assert_eq!(limits(pid, name), limits(us, name), "{name}");
    }
}

#[test]
fn a_limit_that_is_lower_already_stays() {
    let _limit = support::limit(60);
    let made = locked();
    let mut helper = support::command(Path::new("/bin/sh"));
    helper
        .args([
            "-c",
            r#"ulimit -S -v 524288; ulimit -S -t 7; exec "$0" "$@""#,
        ])
        .arg(support::lister())
        .args([
            "--busy-timeout",
            "30000",
            "--background",
            "--cpu-limit",
            "60",
            "--db",
        ])
        .arg(&made.db)
        .stdout(Stdio::null());
    let helper = Started::of(&mut helper);
    wait_until_it_reads(helper.pid(), &made.db);
    let [half, whole] = [512 << 20, 1 << 30].map(|bytes: u64| bytes.to_string());
    assert_eq!(limits(helper.pid(), "Max address space"), [half, whole]);
    assert_eq!(limits(helper.pid(), "Max cpu time"), ["7", "61"]);
}

#[test]
fn a_helper_past_its_cpu_limit_is_killed() {
    let _limit = support::limit(60);
    let made = endless();
    let output = support::helper(&made.db, &["--cpu-limit", "1"]);
    assert_eq!(output.status.signal(), Some(libc::SIGXCPU), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("\"end\""));
}

/// What is optional costs only itself, whatever limit it comes to.
#[test]
fn optional_part_past_a_memory_limit_is_left_out() {
    let _limit = support::limit(60);
    let is_left_out = |end: &serde_json::Value| {
        let degraded = end["degraded"].as_array().unwrap();
        assert_eq!(degraded.len(), 1, "{end}");
        assert_eq!(degraded[0]["what"], "worktree");
        let reason = degraded[0]["reason"].as_str().unwrap();
        assert!(reason.contains("memory"), "{reason}");
    };
    // Two hundred megabytes; then a gigabyte, which is all of the address space.
    let large = with_projects("SELECT 'p' AS id, hex(zeroblob(100000000)) AS worktree");
    let huge = with_projects("SELECT 'p' AS id, hex(zeroblob(499999000)) AS worktree");
    for (made, limit) in [
        (&large, &[][..]),
        (&large, &["--memory-limit", "8"]),
        (&large, &["--background"]),
        (&huge, &["--background", "--memory-limit", "65536"]),
    ] {
        let (sessions, end) = support::listing(&made.db, limit);
        assert_eq!(sessions.len(), 1);
        is_left_out(&end);
    }
    let (_, end) = support::listing(&large.db, &["--memory-limit", "1024"]);
    assert_eq!(end["degraded"], serde_json::Value::Null);
}

/// What every listing needs fails it cleanly.
#[test]
fn listing_past_its_memory_limit_fails_cleanly() {
    let _limit = support::limit(60);
    // As much as there is of the schema is in memory: hundred megabytes.
    let tables: String = (0..110)
        .map(|at| {
            format!(
                "CREATE TABLE t{at} (a text DEFAULT '{}');",
                "x".repeat(900_000)
            )
        })
        .collect();
    let made = Made::new();
    made.session("ses_a", 1);
    made.run(&tables);
    for limit in [&[][..], &["--memory-limit", "8"], &["--background"]] {
        let (kind, message) = support::error(&made.db, limit);
        assert_eq!(kind, "out_of_memory", "{message}");
    }
    let (sessions, _) = support::listing(&made.db, &["--memory-limit", "1024"]);
    assert_eq!(sessions.len(), 1);
    let lister = ProcessLister::at(support::lister());
    let outcome = lister.list(&ListRequest::of(&made.db));
    let Outcome::Refused(refusal) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(refusal.failure.kind.as_str(), "out_of_memory");
}
