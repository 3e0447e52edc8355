//! What a service tells a supervisor such as systemd.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal};

use crate::common::{Daemon, END, made, plain, socket, state, until_listed};
use crate::support::{self, Helper, Made, PATIENCE, REAL, ask_at, exit_of, quick_status, wait_for};

/// Where systemd would listen.
struct Notified(UnixDatagram);

impl Notified {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    /// The next one that is no sign of life.
    fn next_news(&self) -> String {
        loop {
            let message = self.next();
            if message.trim() != "WATCHDOG=1" {
                return message.trim().to_owned();
            }
        }
    }
}

/// A service of this database under systemd, and what it says to it.
fn under_systemd(made: &Made, command: &Command, watchdog: &str) -> (Notified, Daemon) {
    let path = made.directory.path().join("notify");
    let _ = fs::remove_file(&path);
    let notified = Notified::at(&path);
    let daemon = Daemon::start(&mut notifying(command, &path, watchdog));
    (notified, daemon)
}

/// The service as systemd starts it, which knows its process id.
fn notifying(command: &Command, notify: &Path, watchdog: &str) -> Command {
    let mut shell = support::command(Path::new("/bin/sh"));
    shell
        .args(["-c", &format!(r#"{watchdog} exec "$0" "$@""#)])
        .arg(command.get_program())
        .args(command.get_args())
        .env("NOTIFY_SOCKET", notify)
        .stdin(Stdio::null());
    shell
}

#[test]
fn systemd_is_notified_of_start_state_reload_and_end() {
    let _limit = support::limit(60);
    let made = made(&["ses_1", "ses_2"]);
    let helper = Helper::new();
    helper.becomes("hangs-before-output");
    let mut command = plain(&made.db, &state(&made));
    command
        .args(["--deadline", "3s", "--lister"])
        .arg(helper.program());
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=800000";
    let (notified, daemon) = under_systemd(&made, &command, watchdog);
    assert_eq!(notified.next().trim(), "READY=1");
    // Commands are answered, and nothing has been listed.
    let status = quick_status(&socket(&made));
    assert_eq!(status["latency"]["count"], 0);
    assert_eq!(status["sources"][0]["health"]["state"], "starting");
    // Also while the helper hangs it is alive, at half the interval.
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(notified.next().trim(), "WATCHDOG=1");
    }
    let pause = started.elapsed() / 5;
    assert!(
        (Duration::from_millis(130)..Duration::from_millis(1200)).contains(&pause),
        "{pause:?}"
    );
    assert_eq!(
        notified.next_news(),
        "STATUS=0 sessions; opencode.db is failing"
    );
    helper.becomes(REAL);
    let mut last = 0;
    for round in 0..2 {
        daemon.signal(Signal::HUP);
        let reloading = notified.next_news();
        let (word, time) = reloading.split_once('\n').unwrap();
        assert_eq!(word, "RELOADING=1");
        let time: u64 = time
            .strip_prefix("MONOTONIC_USEC=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(time > last);
        last = time;
        if round == 0 {
            // Two events; the line is sent when it has changed.
            let first = notified.next_news();
            if first != "STATUS=2 sessions" {
                assert_eq!(first, "STATUS=2 sessions; opencode.db is failing");
                assert_eq!(notified.next_news(), "STATUS=2 sessions");
            }
        }
        assert_eq!(notified.next_news(), "READY=1");
    }
    let (status, log) = daemon.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(notified.next_news(), "STOPPING=1");
}

#[test]
fn unread_notifications_delay_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let command = plain(&made.db, &state(&made));
    // A sign of life every five milliseconds: more than any queue holds.
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=10000";
    let (unread, daemon) = under_systemd(&made, &command, watchdog);
    until_listed(&socket(&made));
    // Nobody can send any more.
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    let queue = unread.0.local_addr().unwrap();
    wait_for("a full queue", || {
        let sent = other.send_to_addr(b"WATCHDOG=1", &queue);
        sent.is_err().then_some(())
    });
    quick_status(&socket(&made));
    let asked = Instant::now();
    let (status, log) = daemon.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

/// What is said of the state is no sign of life to systemd.
#[test]
fn busy_database_does_not_starve_the_watchdog() {
    let _limit = support::limit(60);
    let made = made(&["ses_0"]);
    let command = plain(&made.db, &state(&made));
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=1600000";
    let (notified, _daemon) = under_systemd(&made, &command, watchdog);
    notified.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let (mut alive, mut states) = (0, 0);
    for n in 1..450 {
        made.session(&format!("ses_{n}"), n);
        thread::sleep(Duration::from_millis(10));
        while let Ok(count) = notified.0.recv(&mut buffer) {
            alive += usize::from(buffer[..count].starts_with(b"WATCHDOG=1"));
            states += usize::from(buffer[..count].starts_with(b"STATUS="));
        }
    }
    // Every 0.8 seconds, in at least four and a half; and the state twice a second.
    assert!(states >= 3, "{states}");
    assert!(alive >= 2, "{alive} signs of life");
}

/// A thread of another program that stands still until this is dropped, while that
/// program's other threads go on.
#[cfg(target_os = "linux")]
struct Stopped(libc::pid_t);

#[cfg(target_os = "linux")]
impl Stopped {
    /// The thread of this name; `None` where the system does not let us.
    fn thread_of(pid: u32, name: &str) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut threads = threads.map(|thread| thread.unwrap().path());
        let thread = threads
            .find(|thread| fs::read_to_string(thread.join("comm")).unwrap().trim() == name)
            .expect("a thread of this name");
        let tid: libc::pid_t = thread.file_name()?.to_str()?.parse().unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory of this process, and the
        // thread is one of our own child's.
        #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
        unsafe {
            if libc::ptrace(libc::PTRACE_SEIZE, tid, none, none) != 0 {
                return None;
            }
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none), 0);
            assert_eq!(libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL), tid);
        }
        Some(Self(tid))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; the thread stands still.
        #[expect(unsafe_code, reason = "neither std nor rustix has this call")]
        unsafe {
            libc::ptrace(libc::PTRACE_DETACH, self.0, none, none);
        }
    }
}

/// A thread that does nothing else could go on feeding the watchdog of a service
/// that answers nobody any more.
#[cfg(target_os = "linux")]
#[test]
fn stuck_loop_does_not_feed_the_watchdog() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let command = plain(&made.db, &state(&made));
    let watchdog = "WATCHDOG_PID=$$ WATCHDOG_USEC=200000";
    let (notified, daemon) = under_systemd(&made, &command, watchdog);
    until_listed(&socket(&made));
    let alive = |notified: &Notified| while notified.next().trim() != "WATCHDOG=1" {};
    alive(&notified);
    let Some(stuck) = Stopped::thread_of(daemon.child.id(), "owner") else {
        support::skip("a thread that is stopped: it may not be traced here");
        return;
    };
    notified.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while notified.0.recv(&mut buffer).is_ok() {}
    // Five times as long as it may be silent.
    thread::sleep(Duration::from_secs(1));
    let said = notified.0.recv(&mut buffer);
    assert!(
        said.is_err(),
        "{:?}",
        String::from_utf8_lossy(&buffer[..40])
    );
    notified.0.set_nonblocking(false).unwrap();
    drop(stuck);
    alive(&notified);
    let (status, log) = daemon.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn watchdog_of_another_process_is_not_fed() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for watchdog in ["WATCHDOG_PID=1 WATCHDOG_USEC=100000", ""] {
        let command = plain(&made.db, &state(&made));
        let (notified, daemon) = under_systemd(&made, &command, watchdog);
        assert_eq!(notified.next().trim(), "READY=1");
        assert_eq!(notified.next().trim(), "STATUS=1 sessions");
        // Seven times as long as a watchdog would have it say something.
        thread::sleep(Duration::from_millis(700));
        daemon.end_by(Signal::TERM);
        assert_eq!(notified.next().trim(), "STOPPING=1");
    }
}

/// A pipe that nobody reads and that takes no more.
pub(crate) fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (unread, mut full) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(&[b'x'; 512]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    (unread, full)
}

#[test]
fn unread_stderr_delays_nothing() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let (_unread, full) = full_pipe();
    let mut child = plain(&made.db, &state(&made))
        .arg("--debug")
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()
        .unwrap();
    until_listed(&socket(&made));
    let hangup = || rustix::process::kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    for n in 0..50 {
        hangup();
        made.session(&format!("ses_{n}_more"), n);
    }
    let (reply, _) = ask_at(&socket(&made), "refresh");
    assert_eq!(reply["refreshed"][0]["outcome"], "ok");
    assert_eq!(quick_status(&socket(&made))["sessions"], 51);
    let asked = Instant::now();
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(exit_of(&mut child).code(), Some(0));
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}
