//! Hosts that go on while a helper sleeps, and what a host or its supervisor may do to SIGCHLD,
//! to SIGPIPE, to its children and to its descriptors.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use opencode_sessions::internals::wire::{LookUp, limits};
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{FailureReason, ListRequest, Lister, LookUpRequest, Outcome};
use opencode_sessions::session::SessionId;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::processes::{Started, one_session, wait_for};
use crate::support;

// ---- The host goes on.

#[test]
fn main_thread_stays_free_while_a_helper_sleeps() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let lister = ProcessLister::at(support::misbehaving(directory.path(), "hangs-after-hello"));
    let request = ListRequest::of("/nowhere/opencode.db").deadline(Duration::from_millis(1500));
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
fn list_works_with_sigchld_ignored_or_blocked() {
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
fn timeout_works_with_sigchld_ignored_or_blocked() {
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
            stderr.contains("the helper did not finish within "),
            "{stderr}"
        );
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn program_resets_sigchld() {
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
        .args([
            "--exact",
            &format!("sigchld::{name}"),
            "--ignored",
            "--nocapture",
        ])
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
            matches!(&outcome, Outcome::Complete(l) if l.rows.len() == 1),
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
        let request = ListRequest::of("/nowhere/opencode.db").deadline(Duration::from_millis(100));
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
            Outcome::Failed(b) if matches!(b.reason, FailureReason::StatusUnavailable(_)) => {}
            other => panic!("{other:?}"),
        }
        let request = ListRequest::of("/nowhere/opencode.db").deadline(Duration::from_millis(50));
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
    let request = ListRequest::of("/nowhere/opencode.db").deadline(Duration::from_millis(1500));
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
fn host_with_default_sigpipe_survives_dying_helpers() {
    let _limit = support::limit(60);
    assert_passes(&host(
        "host_that_has_sigpipe_at_its_default",
        Sigchld::Default,
    ));
}

#[test]
fn host_that_ignores_sigchld_gets_a_typed_error() {
    let _limit = support::limit(60);
    assert_passes(&host("host_that_inherits_sigchld", Sigchld::Ignored));
    assert_passes(&host("host_that_ignores_sigchld_itself", Sigchld::Default));
    assert_passes(&host(
        "host_that_does_not_wait_for_children",
        Sigchld::Default,
    ));
}

#[test]
fn host_that_blocks_sigchld_can_list() {
    let _limit = support::limit(60);
    assert_passes(&host("host_that_inherits_sigchld", Sigchld::Blocked));
    assert_passes(&host(
        "host_that_blocks_sigchld_in_one_thread",
        Sigchld::Default,
    ));
}

#[test]
fn host_that_reaps_every_child_does_not_crash() {
    let _limit = support::limit(60);
    assert_passes(&host("host_that_reaps_every_child", Sigchld::Default));
    assert_passes(&host(
        "host_that_reaps_every_child_in_a_handler",
        Sigchld::Default,
    ));
}

#[test]
fn helper_is_killed_when_descriptors_run_out() {
    let _limit = support::limit(60);
    for name in [
        "host_that_runs_out_of_descriptors_later",
        "host_that_runs_out_of_descriptors_at_its_first_listing",
    ] {
        assert_passes(&host(name, Sigchld::Default));
    }
}
