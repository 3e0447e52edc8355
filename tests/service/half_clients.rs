//! Clients of the socket that do half of what clients do.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{END, made, settle, socket, start};
use crate::support::{self, PATIENCE, quick_status, wait_for};

/// Does with a connection what a client is not to do.
#[cfg(target_os = "linux")]
type HalfClient = fn(UnixStream) -> Leave;

/// Ends a client, after it has seen what it was to see.
#[cfg(target_os = "linux")]
type Leave = Box<dyn FnOnce()>;

/// A program whose standard input is this connection. It is killed, whatever state it is in.
#[cfg(target_os = "linux")]
struct Program(Child);

#[cfg(target_os = "linux")]
impl Program {
    fn start(script: &str, stream: UnixStream) -> Self {
        let mut command = support::command(Path::new("/bin/sh"));
        let command = command.args(["-c", script]);
        let command = command.stdin(std::os::fd::OwnedFd::from(stream));
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }
}

#[cfg(target_os = "linux")]
impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until the reply with this id.
#[cfg(target_os = "linux")]
fn read_reply(stream: &UnixStream, id: &str) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = format!("\"id\":\"{id}\"");
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("{\"type\":\"reply\"") && line.contains(&end)));
}

/// The other half comes at the end, and counts.
#[cfg(target_os = "linux")]
fn half_a_line(mut stream: UnixStream) -> Leave {
    stream.write_all(b"{\"type\":\"status\",").unwrap();
    Box::new(move || {
        stream.write_all(b"\"id\":\"half\"}\n").unwrap();
        read_reply(&stream, "half");
    })
}

#[cfg(target_os = "linux")]
fn half_a_line_and_no_more(mut stream: UnixStream) -> Leave {
    stream.write_all(b"{\"type\":\"status\"").unwrap();
    Box::new(move || drop(stream))
}

/// Far more than the longest command.
#[cfg(target_os = "linux")]
fn line_without_an_end(mut stream: UnixStream) -> Leave {
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for _ in 0..16 {
            writing.write_all(&[b'x'; 1 << 20]).unwrap();
        }
    });
    Box::new(move || {
        writer.join().unwrap();
        stream
            .write_all(b"\n{\"type\":\"status\",\"id\":\"next\"}\n")
            .unwrap();
        read_reply(&stream, "next");
    })
}

/// As one byte a second, but that nobody waits so long for the end of it.
#[cfg(target_os = "linux")]
fn byte_after_byte(stream: UnixStream) -> Leave {
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for byte in b"{\"type\":\"status\",\"id\":\"slow\"}\n" {
            writing.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
    });
    Box::new(move || {
        read_reply(&stream, "slow");
        writer.join().unwrap();
    })
}

/// It still gets the changes.
#[cfg(target_os = "linux")]
fn no_more_commands(stream: UnixStream) -> Leave {
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Box::new(move || {
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.starts_with("{\"type\":\"change\"")));
    })
}

/// Nothing can be said to it any more, so its connection is over.
#[cfg(target_os = "linux")]
fn no_more_events(stream: UnixStream) -> Leave {
    stream.shutdown(Shutdown::Read).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let writer = thread::spawn(move || {
        let mut stream = stream;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Err(error) = stream.write_all(b"{\"type\":\"snapshot\"}\n") {
                return Some(error.kind());
            }
        }
        None
    });
    Box::new(move || {
        let ended = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        let error = writer.join().unwrap();
        assert!(error.is_some_and(|kind| ended.contains(&kind)), "{error:?}");
    })
}

#[cfg(target_os = "linux")]
fn stopped_with_a_full_buffer(mut stream: UnixStream) -> Leave {
    stream.set_nonblocking(true).unwrap();
    // More than the service takes without being read.
    while stream.write_all(b"{\"type\":\"snapshot\"}\n").is_ok() {}
    stream.set_nonblocking(false).unwrap();
    let program = Program::start("exec cat > /dev/null", stream);
    kill_process(Pid::from_child(&program.0), Signal::STOP).unwrap();
    Box::new(move || drop(program))
}

#[cfg(target_os = "linux")]
fn killed_in_a_snapshot(stream: UnixStream) -> Leave {
    let mut program = Program::start("head -c 100000 > /dev/null; echo; exec sleep 1000", stream);
    let mut word = [0];
    let mut output = program.0.stdout.take().unwrap();
    output.read_exact(&mut word).unwrap();
    Box::new(move || drop(program))
}

/// Threads and descriptors of a process.
#[cfg(target_os = "linux")]
fn kept_by(pid: u32) -> [usize; 2] {
    ["task", "fd"].map(|what| {
        let entries = fs::read_dir(format!("/proc/{pid}/{what}"));
        entries.unwrap().count()
    })
}

/// The same when nothing has ended or begun for a while: listings have threads, too.
#[cfg(target_os = "linux")]
fn kept_at_rest(pid: u32) -> [usize; 2] {
    wait_for("rest", || {
        let before = kept_by(pid);
        let is_at_rest = (0..10).all(|_| {
            thread::sleep(Duration::from_millis(50));
            kept_by(pid) == before
        });
        is_at_rest.then_some(before)
    })
}

#[cfg(target_os = "linux")]
#[test]
fn half_clients_delay_nobody_and_leave_nothing() {
    const CLIENTS: usize = 8;
    let _limit = support::limit(240);
    let made = made(&["ses_1"]);
    made.run("BEGIN");
    // A snapshot is more than a buffer of the system holds.
    for n in 0..2_000 {
        made.session(&format!("ses_more_{n}"), n);
    }
    made.run("COMMIT");
    settle(&made);
    let mut host = start(&made);
    let socket = socket(&made);
    quick_status(&socket);
    host.until_status("one reader", |status| status["readers"] == 1);
    let before = kept_at_rest(host.pid());
    let clients: [(&str, HalfClient); 8] = [
        ("half a line", half_a_line),
        ("half a line and no more", half_a_line_and_no_more),
        ("a line without an end", line_without_an_end),
        ("byte after byte", byte_after_byte),
        ("no more commands", no_more_commands),
        ("no more events", no_more_events),
        ("stopped with a full buffer", stopped_with_a_full_buffer),
        ("killed in a snapshot", killed_in_a_snapshot),
    ];
    for (at, (what, client)) in clients.into_iter().enumerate() {
        println!("{what}");
        let memory = host.status()["memory"].as_u64().unwrap();
        let connected = (0..CLIENTS).map(|_| client(UnixStream::connect(&socket).unwrap()));
        let leave: Vec<_> = connected.collect();
        for n in 0..10 {
            let title = format!("{at}.{n}");
            made.run(&format!(
                "UPDATE session SET title = '{title}' WHERE id = 'ses_1'"
            ));
            assert_eq!(host.refresh()["outcome"], "ok");
            assert_eq!(host.model.sessions["ses_1"]["title"], title);
            quick_status(&socket);
        }
        let after = host.status()["memory"].as_u64().unwrap();
        assert!(
            after < memory + (32 << 20),
            "{what}: from {memory} to {after} bytes"
        );
        for leave in leave {
            leave();
        }
        host.until_status(what, |status| status["readers"] == 1);
        wait_for(what, || (kept_by(host.pid()) == before).then_some(()));
    }
    // Nor do they hold up the end.
    let those_that_stay = [half_a_line, no_more_commands, stopped_with_a_full_buffer];
    let connected = those_that_stay.map(|client| client(UnixStream::connect(&socket).unwrap()));
    let asked = Instant::now();
    let (status, ..) = host.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
    drop(connected);
}

/// As many of them as are accepted.
#[cfg(target_os = "linux")]
#[test]
fn silent_connections_leave_room_when_they_go() {
    const CONNECTIONS: usize = 64;
    let _limit = support::limit(60);
    let made = made(&["ses_1"]);
    settle(&made);
    let mut host = start(&made);
    let socket = socket(&made);
    let first_line = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (stream, serde_json::from_str::<Value>(&line).unwrap())
    };
    host.until_status("one reader", |status| status["readers"] == 1);
    let before = kept_at_rest(host.pid());
    let memory = host.status()["memory"].as_u64().unwrap();
    let mut silent: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let (stream, first) = first_line();
            assert_eq!(first["type"], "hello", "connection {n}: {first}");
            stream
        })
        .collect();
    for _ in 0..100 {
        let (mut stream, first) = first_line();
        assert_eq!(first["type"], "bye", "{first}");
        assert_eq!(first["code"], "full", "{first}");
        // Nothing follows.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    // The host's own is none of them.
    let asked = Instant::now();
    assert_eq!(host.status()["readers"], 1 + CONNECTIONS);
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    let after = host.status()["memory"].as_u64().unwrap();
    assert!(
        after < memory + (32 << 20),
        "from {memory} to {after} bytes"
    );
    drop(silent.pop());
    wait_for("the next to be served", || {
        let (stream, first) = first_line();
        (first["type"] == "hello").then_some(stream)
    });
    drop(silent);
    host.until_status("them to be forgotten", |status| status["readers"] == 1);
    wait_for("their threads to end", || {
        (kept_by(host.pid()) == before).then_some(())
    });
    assert_eq!(first_line().1["type"], "hello");
}
