//! Streams, messages, and what is said when something takes long.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{fs, thread};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::common::stderr;
use crate::support::{self, Made, command, sessions};

// ---- Streams and messages.

#[test]
fn slow_reader_of_a_nonblocking_pipe_gets_everything() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.run("BEGIN");
    for n in 0..3000 {
        made.session(&format!("ses_{n:05}"), n);
    }
    made.run("COMMIT");
    for (program, args) in [
        (sessions(), &["list", "--format", "json"][..]),
        (sessions(), &["list"]),
        (support::lister(), &[]),
        (support::lister(), &["--pretty"]),
    ] {
        let run = |stdout: Stdio| {
            let mut command = command(program);
            command.args(args).arg("--db").arg(&made.db);
            command
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let expected = run(Stdio::piped()).wait_with_output().unwrap().stdout;
        assert!(lines(&expected) >= 3000);
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        let child = run(OwnedFd::from(writer.try_clone().unwrap()).into());
        support::eventually(Duration::from_secs(30), "a full pipe", || {
            support::is_full(&writer)
        });
        drop(writer);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            stderr(&output)
        );
        assert_eq!(lines(&all), lines(&expected), "{args:?}");
        assert_eq!(all.last(), Some(&b'\n'), "{args:?}");
    }
}

#[test]
fn unwritable_output_is_reported_as_an_error() {
    let _limit = support::limit(60);
    if !Path::new("/dev/full").exists() {
        support::skip("/dev/full: there is none");
        return;
    }
    let made = Made::new();
    made.session("ses_a", 1);
    let db = made.db.to_str().unwrap();
    for args in [
        &["list", "--db", db][..],
        &["list", "--format", "json", "--db", db],
        &["get", "ses_a", "--db", db],
        &["doctor", "--db", db],
        &["list", "--help"],
        &["--version"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = command(sessions());
        let output = command.args(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = stderr(&output);
        assert!(
            said.starts_with("opencode-sessions: cannot write the result: No space left"),
            "{args:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Each write to a datagram socket is one message there.
#[test]
fn each_message_is_one_write_after_the_table() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    made.session("ses_b", 2);
    let nowhere = made.directory.path().join("nowhere.db");
    let writes = |program: &Path, args: &[&str], is_both: bool| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut command = command(program);
        command.args(args);
        if is_both {
            command.stdout(OwnedFd::from(theirs.try_clone().unwrap()));
        } else {
            command.stdout(Stdio::null());
        }
        command.stderr(OwnedFd::from(theirs)).status().unwrap();
        drop(command);
        ours.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut writes = Vec::new();
        while let Ok(count @ 1..) = ours.recv(&mut buffer) {
            writes.push(String::from_utf8(buffer[..count].to_vec()).unwrap());
        }
        writes
    };
    let db = made.db.to_str().unwrap();
    let both = writes(sessions(), &["list", "--limit", "1", "--db", db], true);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0].starts_with("TITLE") && both[0].ends_with('\n'),
        "{both:?}"
    );
    assert_eq!(both[1], "opencode-sessions: 1 of 2 sessions\n");
    for (program, args) in [
        (sessions(), &["list", "--db", nowhere.to_str().unwrap()][..]),
        (
            sessions(),
            &["get", "ses_a", "--db", nowhere.to_str().unwrap()],
        ),
        (sessions(), &["list", "--nonsense"]),
        (sessions(), &["list", "--lister", "/no/such/helper"]),
        (support::lister(), &["--nonsense"]),
        (support::lister(), &["--pretty", "--db", db]),
        (support::lister(), &["--pretty", "--db", "/dev/null"]),
    ] {
        let writes = writes(program, args, false);
        assert_eq!(writes.len(), 1, "{args:?}: {writes:?}");
        assert!(writes[0].ends_with('\n'), "{writes:?}");
    }
}

#[test]
fn removed_current_directory_is_reported() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_a", 1);
    let place = tempfile::tempdir().unwrap();
    let gone = place.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let line = format!(
        "cd {0} && rmdir {0} && exec {1} list --project . --db {2}",
        gone.display(),
        sessions().display(),
        made.db.display()
    );
    let output = command(Path::new("/bin/sh"))
        .args(["-c", &line])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "opencode-sessions: cannot find the project of --project .: the current directory no \
         longer exists\n"
    );
}

/// A helper of version 0.1.0 names its own option.
#[test]
fn hint_for_a_locked_database_names_own_options() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let helper = place.path().join("helper");
    let text = r#"#!/bin/sh
cat <<'.'
{"type":"hello","protocol":1,"lister":"0.1.0"}
{"type":"error","kind":"busy","message":"cannot list x: it is locked by another program: try again, or wait longer with --busy-timeout"}
.
exit 1
"#;
    support::script(&helper, text);
    for args in [
        &["list"][..],
        &["get", "ses_a"],
        &["roots", "ses_a"],
        &["doctor"],
    ] {
        let mut run = command(sessions());
        run.args(args).args(["--db", "/nowhere/x.db", "--lister"]);
        let output = run.arg(&helper).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let mut said = stderr(&output);
        if args == ["doctor"] {
            said = String::from_utf8(output.stdout).unwrap();
        }
        assert!(
            said.contains("wait longer with --deadline"),
            "{args:?}: {said}"
        );
        assert!(!said.contains("busy-timeout"), "{args:?}: {said}");
    }
}

// ---- What takes long.

/// A terminal: what is written to the one end comes out of the other.
pub(crate) fn terminal() -> (fs::File, fs::File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let options = fs::File::options().read(true).write(true).clone();
    (ours.into(), options.open(name.to_str().unwrap()).unwrap())
}

/// What was written to a terminal, once nobody has its other end any more.
pub(crate) fn shown_on(mut ours: fs::File) -> String {
    let mut shown = Vec::new();
    // It ends with EIO.
    let _ = ours.read_to_end(&mut shown);
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

/// What a command that takes two seconds says on standard error, on a terminal or not.
fn said_by_a_slow(command: &str, is_terminal: bool) -> String {
    let place = tempfile::tempdir().unwrap();
    let slow = place.path().join("slow");
    let made = Made::new();
    made.session("ses_a", 1000);
    let text = format!("#!/bin/sh\nsleep 2\nexec {:?} \"$@\"\n", support::lister());
    support::script(&slow, &text);
    let config = place.path().join("config.toml");
    let text = format!(
        "[[source]]\nname = \"far\"\ncommand = [{slow:?}]\ndb = {:?}\n\
         [[source]]\nname = \"near\"\ndb = {:?}\n",
        made.db, made.db
    );
    fs::write(&config, text).unwrap();
    let mut run = support::command(sessions());
    run.args([command, "--deadline", "30s", "--config"])
        .arg(&config);
    if command != "list" && command != "doctor" {
        run.arg("ses_a");
    }
    run.stdout(Stdio::null()).stdin(Stdio::null());
    if !is_terminal {
        return stderr(&run.stderr(Stdio::piped()).output().unwrap());
    }
    let (ours, theirs) = terminal();
    let mut child = run.stderr(theirs).spawn().unwrap();
    drop(run);
    let said = shown_on(ours);
    assert!(child.wait().unwrap().success() || command == "doctor");
    said
}

#[test]
fn terminal_shows_what_is_awaited_after_a_second() {
    let _limit = support::limit(120);
    let said = |command: &'static str, is_terminal| {
        thread::spawn(move || (command, said_by_a_slow(command, is_terminal)))
    };
    let commands = ["list", "get", "roots", "doctor"];
    let (on_one, without) = (
        commands.map(|command| said(command, true)),
        commands.map(|command| said(command, false)),
    );
    for (command, said) in on_one.map(|said| said.join().unwrap()) {
        let lines = said.lines().filter(|line| line.contains("waiting"));
        let [line] = lines.collect::<Vec<_>>()[..] else {
            panic!("{command}: {said}");
        };
        // Who has answered is not waited for; look-ups tell at the end who has.
        let names = match command {
            "list" | "doctor" => "far",
            _ => "far, near",
        };
        let left = line.strip_prefix(&format!("opencode-sessions: waiting for {names}, "));
        let seconds = left.and_then(|left| left.strip_suffix(" s at most"));
        let seconds: u64 = seconds.expect(line).parse().expect(line);
        assert!((20..30).contains(&seconds), "{line}");
    }
    for (command, said) in without.map(|said| said.join().unwrap()) {
        assert!(!said.contains("waiting"), "{command}: {said}");
    }
}
