//! What ends a service, and how soon.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal};
use serde_json::json;

use crate::common::{END, made, socket, start, state, until_listed};
use crate::support::{self, Helper, Host, exit_of, is_full, serve, wait_for};
use crate::systemd::full_pipe;

#[test]
fn end_of_stdin_ends_the_service_with_a_bye() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    // A last command without a line end is one.
    host.say(b"{\"type\":\"status\",\"id\":\"last\"}");
    host.leave();
    let (status, model, log) = host.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(model.of_type("reply", 0).len(), 1);
    let bye = model.events.last().unwrap();
    assert_eq!(
        *bye,
        json!({"type": "bye", "code": "ended", "reason": "stdin closed"})
    );
    assert!(!socket(&made).exists());
}

#[test]
fn shutdown_is_answered_and_ends_the_service() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut host = start(&made);
    host.tell("shutdown");
    let (status, model, log) = host.end();
    assert_eq!(status.code(), Some(0), "{log}");
    let [.., reply, bye] = &model.events[..] else {
        panic!();
    };
    assert_eq!(*reply, json!({"type": "reply", "id": 1, "done": true}));
    assert_eq!(bye["type"], "bye");
}

#[test]
fn signal_ends_the_service_while_a_helper_hangs() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let hanging = [
        "ignores-every-signal",
        "stops-itself",
        "drips",
        "grandchild-of-a-hanging-helper",
    ];
    for (way, signal) in hanging
        .into_iter()
        .zip([Signal::TERM, Signal::INT].into_iter().cycle())
    {
        let helper = Helper::new();
        helper.becomes(way);
        let mut command = serve(&made.db, &state(&made));
        let host = Host::greeted(command.arg("--lister").arg(helper.program()));
        wait_for("the helper", || {
            (!helper.running().is_empty()).then_some(())
        });
        let asked = Instant::now();
        let (status, model, log) = host.end_by(signal);
        assert!(asked.elapsed() < END, "{way}: {:?}", asked.elapsed());
        assert_eq!(status.code(), Some(0), "{way}: {log}");
        let name = if signal == Signal::TERM {
            "SIGTERM"
        } else {
            "SIGINT"
        };
        assert_eq!(
            *model.events.last().unwrap(),
            json!({"type": "bye", "code": "ended", "reason": name})
        );
        wait_for("the helper's end", || {
            helper.running().is_empty().then_some(())
        });
    }
}

#[test]
fn service_ends_in_time_with_unread_output() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for n in 0..500 {
        made.session(&format!("ses_more_{n}"), n);
    }
    for leaves in [true, false] {
        let mut host = start(&made);
        let unread = host.stop_reading();
        // The reader may have begun a line, which it reads to its end, and snapshots that wait
        // are one: it is told until nothing more fits into the pipe.
        #[cfg(target_os = "linux")]
        wait_for("a full pipe", || {
            host.tell("snapshot");
            let path = format!("/proc/{}/fd/1", host.pid());
            let stdout = fs::File::options().write(true).open(path).unwrap();
            is_full(stdout).then_some(())
        });
        let asked = Instant::now();
        if leaves {
            host.leave();
        } else {
            host.signal(Signal::TERM);
        }
        wait_for("the end", || (!socket(&made).exists()).then_some(()));
        wait_for("its exit", || host.has_exited().then_some(()));
        assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
        drop(unread);
    }
}

#[test]
fn service_ends_in_time_with_unread_stdout_and_stderr() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    for n in 0..500 {
        made.session(&format!("ses_more_{n}"), n);
    }
    let (_unread, full) = full_pipe();
    let (_unread_stdout, stdout) = std::io::pipe().unwrap();
    let mut child = serve(&made.db, &state(&made))
        .stdin(Stdio::piped())
        .stdout(stdout.try_clone().unwrap())
        .stderr(full)
        .spawn()
        .unwrap();
    until_listed(&socket(&made));
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..20 {
        stdin.write_all(b"{\"type\":\"snapshot\"}\n").unwrap();
    }
    // More than that fits into no pipe, and nobody reads it.
    wait_for("a full pipe", || is_full(&stdout).then_some(()));
    drop(stdout);
    let asked = Instant::now();
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(exit_of(&mut child).code(), Some(0));
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

#[test]
fn host_that_closes_stdout_ends_the_service() {
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    let mut child = serve(&made.db, &state(&made))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    drop(lines);
    made.session("ses_2", 2);
    assert_eq!(exit_of(&mut child).code(), Some(0));
}
