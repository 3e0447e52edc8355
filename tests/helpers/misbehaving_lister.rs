//! A helper that misbehaves in the way its name says: tests link it under the
//! name of one of the [`WAYS`]. Called by another name it prints them all.
//!
//! Before anything else it writes its process id to the file `pids` beside its
//! name, and those of the processes it starts, so that a test can see that none
//! is left. Whatever a test does, SIGALRM ends each of them after two minutes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and what starts processes here is the subject"
)]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio, exit};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{self, Pid, Resource, Rlimit, Signal};

const WAYS: &[(&str, fn())] = &[
    ("behaves", behaves),
    ("reads-no-stdin", behaves),
    ("exits-late", || {
        listing();
        sleep(Duration::from_millis(300));
    }),
    // It never comes to an end.
    ("hangs-before-output", || hang()),
    ("hangs-after-hello", || {
        hello();
        hang();
    }),
    ("hangs-after-half-the-rows", || {
        hello();
        sessions(3);
        hang();
    }),
    ("ignores-every-signal", || {
        for signal in (1..32).filter(|signal| *signal != libc::SIGALRM) {
            ignore(signal);
        }
        hello();
        hang();
    }),
    ("stops-itself", || {
        // SIGALRM does not end what is stopped; the end of the launching thread does.
        #[cfg(target_os = "linux")]
        process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
        hello();
        raise(Signal::STOP);
    }),
    ("uses-all-cpu", || {
        hello();
        loop {
            std::hint::spin_loop();
        }
    }),
    ("drips", || {
        hello();
        say(r#"{"type":"session","id":"#);
        loop {
            say(" ");
            sleep(Duration::from_millis(50));
        }
    }),
    ("prints-end-and-stays-alive", || {
        listing();
        hang();
    }),
    ("closes-output-and-stays-alive", || {
        listing();
        close(libc::STDOUT_FILENO);
        close(libc::STDERR_FILENO);
        hang();
    }),
    ("leaves-its-group", || {
        let parent = process::getppid();
        process::setpgid(None, Some(process::getpgid(parent).unwrap())).unwrap();
        hello();
        hang();
    }),
    // It ends without a listing.
    ("exits-0-without-output", || {}),
    ("exits-0-without-end", || {
        hello();
        sessions(2);
    }),
    ("exits-0-within-a-line", || {
        hello();
        say(r#"{"type":"session","id":"ses_"#);
    }),
    ("exits-127-without-output", || {
        complain("opencode-lister: command not found\n");
        exit(127);
    }),
    ("exits-1-without-end", || {
        hello();
        sessions(2);
        exit(1);
    }),
    ("killed-by-signal", || {
        hello();
        sessions(2);
        raise(Signal::KILL);
    }),
    ("segfaults", || {
        hello();
        // The first one ends in the handler that looks for stack overflows.
        loop {
            raise(Signal::SEGV);
        }
    }),
    ("aborts", || {
        hello();
        complain("thread 'main' panicked at the disco\n");
        std::process::abort();
    }),
    ("prints-end-and-dies-of-sigterm", || {
        listing();
        raise(Signal::TERM);
    }),
    // Its status and its last line disagree.
    ("prints-end-and-exits-3", || {
        listing();
        exit(3);
    }),
    ("prints-error-and-exits-0", || {
        hello();
        error("busy", "it is locked");
    }),
    ("prints-usage-error-and-exits-1", || {
        hello();
        error("usage", "unexpected argument");
        exit(1);
    }),
    // It says something else.
    ("not-a-listing", || {
        say("sh: 1: opencode-lister: \x1b[31mnot found\n");
        exit(127);
    }),
    ("prints-other-protocol", || {
        say("{\"type\":\"hello\",\"protocol\":2,\"lister\":\"9.9.9\"}\n");
        sessions(2);
        end(2);
    }),
    ("usage-error-of-another-version", || {
        say("{\"type\":\"hello\",\"protocol\":1,\"lister\":\"9.9.9\"}\n");
        error("usage", "unexpected argument '--background' found");
        exit(2);
    }),
    ("prints-unknown-type", || {
        hello();
        say("{\"type\":\"progress\",\"percent\":50}\n");
        end(0);
    }),
    ("counts-wrong", || {
        hello();
        sessions(2);
        end(3);
    }),
    ("goes-on-after-end", || {
        listing();
        end(3);
    }),
    ("over-long-line", || {
        hello();
        say(&"x".repeat((1 << 20) + 1));
        say("\n");
        end(0);
    }),
    ("floods-stdout-without-newline", || {
        hello();
        loop {
            say(&"x".repeat(1 << 16));
        }
    }),
    ("floods-stdout-with-sessions", || {
        hello();
        for block in 0.. {
            let lines = (0..1000).map(|n| session(block * 1000 + n));
            say(&lines.collect::<String>());
        }
    }),
    // Standard error.
    ("floods-stderr", || {
        hello();
        loop {
            complain(&"all is lost\n".repeat(1 << 12));
        }
    }),
    ("floods-stderr-then-behaves", || {
        complain(&"all is lost\n".repeat((1 << 20) / 12 + 1));
        listing();
    }),
    ("says-much-and-exits-3", || {
        for line in 0..10_000 {
            complain(&format!("line {line}\n"));
        }
        complain("the \x1b]0;last\x07 word\u{9b}31m\n \n");
        exit(3);
    }),
    // Grandchildren.
    ("grandchild-holds-the-pipe", || {
        start("sleeps", |_| {});
        listing();
    }),
    ("grandchild-of-another-group-holds-the-pipe", || {
        start("sleeps", |command| {
            command.process_group(0);
        });
        listing();
    }),
    ("grandchild-of-a-hanging-helper", || {
        start("sleeps", |_| {});
        hello();
        hang();
    }),
    ("grandchild-holds-only-stderr", || {
        start("sleeps", |command| {
            command.stdout(Stdio::null());
        });
        listing();
    }),
    ("grandchild-prints-the-end", || {
        hello();
        sessions(3);
        start("prints-the-end-of-three", |_| {});
    }),
    // It refuses.
    ("exits-with-error-busy", || refuse("busy", 1)),
    ("exits-with-error-corrupt", || refuse("corrupt", 1)),
    ("exits-with-error-not_a_database", || {
        refuse("not_a_database", 1);
    }),
    ("exits-with-error-permission", || refuse("permission", 1)),
    ("exits-with-error-io", || refuse("io", 1)),
    ("exits-with-error-schema", || refuse("schema", 1)),
    ("exits-with-error-out_of_memory", || {
        refuse("out_of_memory", 1);
    }),
    ("exits-with-error-usage", || refuse("usage", 2)),
    ("exits-with-error-internal", || refuse("internal", 1)),
    ("refuses-without-a-word", || {
        hello();
        error("corrupt", "");
        exit(1);
    }),
];

fn main() {
    alarm(120);
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    process::setrlimit(Resource::Core, no_core).unwrap();
    let name = called();
    match name.file_name().unwrap().to_str().unwrap() {
        // The grandchildren.
        "sleeps" => hang(),
        "prints-the-end-of-three" => {
            sleep(Duration::from_millis(200));
            end(3);
        }
        name => match WAYS.iter().find(|(way, _)| *way == name) {
            Some((_, misbehave)) => {
                record(process::getpid());
                misbehave();
            }
            None => WAYS.iter().for_each(|(way, _)| println!("{way}")),
        },
    }
}

/// The name it is called by.
fn called() -> PathBuf {
    std::env::args_os().next().unwrap().into()
}

fn record(pid: Pid) {
    let pids = called().with_file_name("pids");
    let mut pids = File::options()
        .append(true)
        .create(true)
        .open(pids)
        .unwrap();
    writeln!(pids, "{pid}").unwrap();
}

/// Starts this program under another name, in the same group.
fn start(name: &str, how: fn(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg0(called().with_file_name(name));
    how(&mut command);
    record(Pid::from_child(&command.spawn().unwrap()));
}

fn behaves() {
    listing();
}

fn refuse(kind: &str, status: i32) {
    hello();
    error(kind, &format!("the helper says {kind}"));
    exit(status);
}

fn listing() {
    hello();
    sessions(3);
    end(3);
}

fn hello() {
    let version = env!("CARGO_PKG_VERSION");
    say(&format!(
        "{{\"type\":\"hello\",\"protocol\":1,\"lister\":\"{version}\"}}\n"
    ));
}

fn sessions(count: usize) {
    say(&(0..count).map(session).collect::<String>());
}

fn session(n: usize) -> String {
    format!("{{\"type\":\"session\",\"id\":\"ses_{n}\",\"title\":\"T\",\"store\":\"v1\"}}\n")
}

fn end(sessions: usize) {
    say(&format!(
        "{{\"type\":\"end\",\"sessions\":{sessions},\"database\":\"ready\",\"elapsedMs\":1,\
         \"scan\":{{\"mode\":\"none\",\"progress\":1.0,\"frames\":0,\"bytes\":0}}}}\n"
    ));
}

fn error(kind: &str, message: &str) {
    say(&format!(
        "{{\"type\":\"error\",\"kind\":\"{kind}\",\"message\":\"{message}\"}}\n"
    ));
}

fn say(text: &str) {
    write(io::stdout(), text);
}

fn complain(text: &str) {
    write(io::stderr(), text);
}

/// Where nobody reads any more, it is over.
fn write(mut out: impl Write, text: &str) {
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        exit(9);
    }
}

fn hang() -> ! {
    loop {
        sleep(Duration::from_secs(120));
    }
}

fn raise(signal: Signal) {
    process::kill_process(process::getpid(), signal).unwrap();
}

fn alarm(seconds: u32) {
    // SAFETY: alarm touches no memory of ours.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    unsafe {
        libc::alarm(seconds);
    }
}

/// SIGKILL and SIGSTOP cannot be ignored; that is as well.
fn ignore(signal: libc::c_int) {
    // SAFETY: "ignore" is a valid action for every signal.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a signal's action")]
    unsafe {
        libc::signal(signal, libc::SIG_IGN);
    }
}

fn close(descriptor: libc::c_int) {
    // SAFETY: nothing here uses standard output or error after it.
    #[expect(unsafe_code, reason = "std keeps these open")]
    unsafe {
        libc::close(descriptor);
    }
}
