//! Several sources: found ones, named ones, and commands that run the helper elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

#[cfg(target_os = "linux")]
#[path = "support/preload.rs"]
mod preload;
#[path = "support/serving.rs"]
mod serving;
#[path = "support/sshd.rs"]
mod sshd;
mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use opencode_sessions::launch::ProcessLister;

use opencode_sessions::lister::{ListRequest, Lister, Outcome};
use opencode_sessions::source::Remote;
use opencode_sessions::wire::STDIN_ENDED;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use serving::{Host, list, text, wait_for};
use sshd::Sshd;
use support::Made;
use support::script;

/// A place for one test: a home, a configuration, state.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn config(&self, text: &str) -> PathBuf {
        let path = self.path("config.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// `serve --stdio` with the configuration.
    fn serve(&self) -> Command {
        let mut command = self.command(&["serve", "--stdio", "--config"]);
        command.arg(self.path("config.toml"));
        command.arg("--state-dir").arg(self.path("state"));
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = support::command(support::sessions());
        command.env("HOME", self.0.path()).args(args);
        command
    }

    /// A command of `list`, `get` and others with the configuration.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.arg("--config").arg(self.path("config.toml"));
        command.output().unwrap()
    }

    /// A program that a source can be.
    fn program(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        script(&path, text);
        path.to_str().unwrap().to_owned()
    }

    fn misbehaving(&self, way: &str) -> String {
        let path = support::misbehaving(&self.path(""), way);
        path.to_str().unwrap().to_owned()
    }
}

/// A database with these sessions at this path, without a log, made a while ago.
fn copy_of(ids: &[&str], path: &Path) {
    let made = Made::new();
    for (at, id) in (1..).zip(ids) {
        made.session(id, at);
    }
    made.run("PRAGMA wal_checkpoint(truncate)");
    fs::copy(&made.db, path).unwrap();
    support::settle(path);
}

/// Another machine: a data home with a database, and a cache of its own.
struct Machine {
    place: Place,
    made: Made,
}

impl Machine {
    fn new(ids: &[&str]) -> Self {
        let (place, made) = (Place::new(), Made::new());
        made.run("PRAGMA synchronous = off");
        for (at, id) in (1..).zip(ids) {
            made.session(id, at);
        }
        let data = place.path("data");
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(made.directory.path(), data.join("opencode")).unwrap();
        Self { place, made }
    }

    /// The words that run the helper there.
    fn words(&self) -> Vec<String> {
        let path = |name| self.place.path(name).to_str().unwrap().to_owned();
        vec![
            "env".into(),
            format!("HOME={}", path("")),
            format!("XDG_DATA_HOME={}", path("data")),
            format!("XDG_CACHE_HOME={}", path("cache")),
            support::lister().to_str().unwrap().to_owned(),
        ]
    }

    /// How many scan caches the helper keeps there.
    fn caches(&self) -> usize {
        let caches = fs::read_dir(self.place.path("cache/opencode-sessions"));
        caches.map_or(0, Iterator::count)
    }
}

/// As ssh does it: the words after the first are joined, and a shell takes them apart.
const SHELL: [&str; 4] = ["sh", "-c", "eval \"$*\"", "sh"];

fn remote(name: &str, words: &[String], every: &str) -> String {
    let words = serde_json::to_string(words).unwrap();
    format!("[[source]]\nname = \"{name}\"\ncommand = {words}\nevery = \"{every}\"\n")
}

fn database(name: &str, path: &Path) -> String {
    format!(
        "[[source]]\nname = \"{name}\"\ndb = \"{}\"\n",
        path.display()
    )
}

fn stdout(output: &Output) -> Vec<Value> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn ids(sessions: &[Value]) -> Vec<&str> {
    sessions
        .iter()
        .map(|session| session["id"].as_str().unwrap())
        .collect()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, after)| !after.trim_start().starts_with(['Z', 'X']))
}

// ---- Commands.

/// Lists, looks up and looks for a marker through this transport.
fn speaks(transport: &[String]) {
    let machine = Machine::new(&["ses_1", "ses_2"]);
    let stolen = machine.place.path("stolen").display().to_string();
    let marker = format!("'; touch {stolen}; echo $(touch {stolen}) #");
    let data = json!({"type": "text", "text": marker}).to_string();
    machine.made.part("ses_2", &data);
    let place = Place::new();
    let words = [transport, &machine.words()].concat();
    place.config(&remote("devbox", &words, "15s"));

    let output = place.run(&["list", "--format", "ndjson"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let sessions = stdout(&output);
    assert_eq!(ids(&sessions), ["ses_2", "ses_1"]);
    assert_eq!(sessions[0]["source"], "devbox");
    assert_eq!(sessions[0]["marked"], false);
    assert_eq!(machine.caches(), 1, "it keeps its cache there");
    assert!(!place.path(".cache").exists(), "and not here");

    // A text that no shell may see.
    let output = place.run(&["list", "--format", "ndjson", "--marker", &marker]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let marked: Vec<_> = stdout(&output)
        .iter()
        .map(|session| session["marked"].clone())
        .collect();
    assert_eq!(marked, [json!(true), json!(false)]);

    let output = place.run(&["get", "ses_1", &format!("ses $(touch {stolen})")]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let found = stdout(&output);
    assert_eq!(
        (&found[0]["type"], &found[0]["source"]),
        (&json!("session"), &json!("devbox"))
    );
    assert_eq!(found[1]["type"], "absent");
    let output = place.run(&["roots", "ses_2"]);
    assert_eq!(stdout(&output)[0]["root"], "ses_2");
    assert!(!Path::new(&stolen).exists());
}

#[test]
fn a_command_is_a_source_like_any_other() {
    let _limit = support::limit(60);
    speaks(&[]);
}

#[test]
fn a_shell_on_the_way_changes_nothing() {
    let _limit = support::limit(60);
    speaks(&SHELL.map(str::to_owned));
}

#[test]
fn a_source_through_a_real_sshd_is_like_any_other() {
    let _limit = support::limit(120);
    let Some(sshd) = Sshd::start() else {
        eprintln!("skipped: there is no OpenSSH server here; the test with a shell stands for it");
        return;
    };
    speaks(&sshd.client());
    // With a key that may not log in.
    let (place, machine) = (Place::new(), Machine::new(&["ses_1"]));
    let mut words = sshd.client();
    let at = words.iter().position(|word| word.ends_with("key")).unwrap();
    words[at].push_str(".pub");
    place.config(&remote("devbox", &[words, machine.words()].concat(), "15s"));
    let output = place.run(&["list"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("exited with status 255 before the helper said anything"),
        "{said}"
    );
}

#[test]
fn what_keeps_a_command_from_the_helper_is_said_with_the_way_out() {
    let _limit = support::limit(60);
    let place = Place::new();
    let lister = support::lister().display();
    let banner = "the command printed \"Welcome to devbox!\" before the helper said anything: nothing \
        there may print to standard output, such as a greeting in a shell's start-up file; let that \
        file print only where there is a terminal (`[ -t 1 ] || return`)";
    let not_found = "the command exited with status 127 before the helper said anything: is \
        opencode-lister installed there, and in the PATH of a shell that is not interactive? Else \
        name it by its whole path; it said: sh: opencode-lister: not found";
    for (name, text, expected) in [
        ("motd", format!("echo 'Welcome to devbox!'; exec {lister} \"$@\""), banner),
        ("not-found", "echo 'sh: opencode-lister: not found' >&2; exit 127".to_owned(), not_found),
        (
            "refused",
            "echo 'ssh: connect to host devbox port 22: Connection refused' >&2; exit 255".to_owned(),
            "the command exited with status 255 before the helper said anything; it said: ssh: \
             connect to host devbox port 22: Connection refused",
        ),
        (
            "newer",
            "echo '{\"type\":\"hello\",\"protocol\":2,\"lister\":\"9.9.9\"}'".to_owned(),
            "the helper's output is not valid: it is version 9.9.9 and speaks protocol 2; this is \
             version 0.1.0 and speaks protocol 1: install both programs from one version",
        ),
        (
            "older",
            "echo '{\"type\":\"hello\",\"protocol\":1,\"lister\":\"0.0.1\"}'\n\
             echo '{\"type\":\"error\",\"kind\":\"usage\",\"message\":\"unexpected argument\"}'; exit 2"
                .to_owned(),
            "unexpected argument; the helper is version 0.0.1 and this is version 0.1.0 (protocol \
             1): install both programs from one version",
        ),
        (
            "silent",
            "exit 0".to_owned(),
            "the command exited with status 0 before the helper said anything: does it run \
             opencode-lister, and pass on what that prints?",
        ),
    ] {
        let program = place.program(name, &format!("#!/bin/sh\n{text}\n"));
        place.config(&remote("devbox", &[program], "15s"));
        let output = place.run(&["list"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stderr(&output), format!("opencode-sessions: {expected}\n"), "{name}");
    }
    for (program, why) in [
        (
            "no such program",
            "'no such program' cannot be started: it is not in PATH; install it, or name it by its \
             whole path",
        ),
        (
            "~/lister",
            "~/lister cannot be started: it is not there (~ and $ mean nothing in a command)",
        ),
        (
            "/etc/passwd",
            "/etc/passwd cannot be started: it may not be executed: see its permissions",
        ),
    ] {
        place.config(&remote("devbox", &[program.to_owned()], "15s"));
        assert_eq!(
            stderr(&place.run(&["list"])),
            format!("opencode-sessions: the command's program {why}\n")
        );
    }
    let hangs = place.misbehaving("hangs-before-output");
    place.config(&remote("devbox", &[hangs], "15s"));
    let said = place.run(&["list", "--deadline", "300ms"]);
    for part in [
        "the command said nothing within ",
        " and was stopped; does it wait for a password",
    ] {
        assert!(stderr(&said).contains(part), "{said:?}");
    }
    // Arguments of its own that the helper does not have.
    let words = [support::lister().to_str().unwrap(), "--pretty"].map(str::to_owned);
    place.config(&remote("devbox", &words, "15s"));
    let said = place.run(&["list"]);
    assert_eq!(
        stderr(&said),
        "opencode-sessions: the argument '--pretty' cannot be used with '--parent-pipe'\n"
    );
    // Of several databases there it takes none: which one could change.
    let machine = Machine::new(&["ses_1"]);
    let dev = machine.made.directory.path().join("opencode-dev.db");
    fs::copy(&machine.made.db, dev).unwrap();
    place.config(&remote("devbox", &machine.words(), "15s"));
    let said = place.run(&["list"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(
        stderr(&said)
            .ends_with("name one with --db, or for a command with `db` in the configuration\n"),
        "{said:?}"
    );
    // What a server says on standard error does not matter.
    let program = place.program(
        "banner",
        &format!("#!/bin/sh\necho Authorized use only >&2\nexec {lister} \"$@\"\n"),
    );
    place.config(&(remote("devbox", &[program], "15s") + "db = \"/nowhere/opencode.db\"\n"));
    let output = place.run(&["list"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = "opencode-sessions: devbox has no database; has OpenCode been run there? Name \
        another with `db` in the configuration\n";
    assert_eq!(stderr(&output), expected);
    let output = place.run(&["get", "ses_1"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), expected));
}

/// A database that the helper waits for: it is locked until this is dropped.
fn locked() -> Made {
    let made = Made::new();
    made.session("ses_1", 1);
    made.run("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; UPDATE session SET title = 'x'");
    made
}

#[test]
fn command_without_standard_input_is_said_to_be_one() {
    let _limit = support::limit(120);
    let sentence = "the command does not pass standard input on, and the helper ends when that \
        ends: write `docker exec -i` or `kubectl exec -i`, and leave out -n of ssh";
    let place = Place::new();
    let made = locked();
    let lister = support::lister().display();
    let hello = r#"echo '{"type":"hello","protocol":1,"lister":"0.1.0"}'"#;
    let notice = format!("echo 'opencode-lister: {STDIN_ENDED}' >&2");
    let marker = ["--marker", "<some other text that marks>"];
    for (name, text) in [
        // The helper, with ways to pass on how it ended.
        ("killed", format!("exec {lister} \"$@\" </dev/null")),
        ("passed-on", format!("{lister} \"$@\" </dev/null; exit $?")),
        (
            "word",
            format!("{lister} \"$@\" </dev/null; echo Killed >&2; exit 255"),
        ),
        ("piped", format!("{lister} \"$@\" </dev/null | cat")),
        // As far as a helper can come before it ends.
        ("no-hello", format!("{notice}; kill -9 $$")),
        ("hello", format!("{hello}; {notice}; kill -9 $$")),
        (
            "half-a-line",
            format!("{hello}; printf '{{\"type\"'; {notice}; exit 137"),
        ),
        ("hangs", format!("{hello}; {notice}; exec sleep 60")),
    ] {
        let program = place.program(name, &format!("#!/bin/sh\n{text}\n"));
        let db = format!("db = \"{}\"\n", made.db.display());
        place.config(&(remote("box", &[program], "15s") + &db));
        let plain: &[&str] = &["list", "--deadline", "1s"];
        for args in [
            plain,
            &[plain, &marker].concat(),
            &["get", "ses_1", "--deadline", "1s"],
            &["roots", "ses_1", "--deadline", "1s"],
        ] {
            let output = place.run(args);
            assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {output:?}");
            let expected = format!("opencode-sessions: {sentence}\n");
            assert_eq!(stderr(&output), expected, "{name} {args:?}");
        }
        let output = place.run(&["doctor", "--deadline", "1s"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(sentence), "{name}: {said}");
    }
}

#[test]
fn helper_says_that_standard_input_ended_and_ends_at_once() {
    let _limit = support::limit(60);
    let made = locked();
    let start = |stderr: std::process::Stdio| {
        let mut helper = support::command(support::lister());
        helper.args(["--parent-pipe", "--busy-timeout", "30000", "--db"]);
        helper.arg(&made.db).stdin(std::process::Stdio::null());
        helper.stdout(std::process::Stdio::null()).stderr(stderr);
        helper.spawn().unwrap()
    };
    let killed = |status: std::process::ExitStatus| {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(9), "{status}");
    };
    let output = start(std::process::Stdio::piped())
        .wait_with_output()
        .unwrap();
    killed(output.status);
    assert_eq!(stderr(&output), format!("opencode-lister: {STDIN_ENDED}\n"));
    // Nobody reads standard error, and it is full, or closed.
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    killed(start(writer.try_clone().unwrap().into()).wait().unwrap());
    drop(reader);
    killed(start(writer.into()).wait().unwrap());
}

#[test]
fn what_a_command_says_in_utf16_is_readable() {
    let _limit = support::limit(60);
    let place = Place::new();
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| {
        text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
    };
    let no_hello = "the command exited with status 255 before the helper said anything";
    for (said, shown) in [
        (
            "There is no such distribution.\r\n",
            "There is no such distribution.",
        ),
        ("Es gibt kein „x“.\r\n", "Es gibt kein „x“."),
        (
            "没有具有所提供名称的分发。\r\n",
            "没有具有所提供名称的分发。",
        ),
        ("上一个\r\n", "上一个"),
    ] {
        for mark in ["", "\u{feff}"] {
            for (order, bytes) in [
                ("le", u16::to_le_bytes as fn(u16) -> [u8; 2]),
                ("be", u16::to_be_bytes),
            ] {
                let file = place.path("said");
                fs::write(&file, utf16(&format!("{mark}{said}"), bytes)).unwrap();
                let cat = format!("cat '{}'", file.display());
                for (text, expected) in [
                    (
                        format!("{cat}; exit 255"),
                        format!(
                            "the command failed before the helper said anything; it said: {shown}"
                        ),
                    ),
                    (
                        format!("{cat} >&2; exit 255"),
                        format!("{no_hello}; it said: {shown}"),
                    ),
                    (
                        format!("echo Welcome. >&2; {cat} >&2; exit 255"),
                        format!("{no_hello}; it said: {shown}"),
                    ),
                    (
                        format!("{cat} >&2; echo 'And more: naïve.' >&2; exit 255"),
                        format!("{no_hello}; it said: And more: naïve."),
                    ),
                ] {
                    let program = place.program("wsl", &format!("#!/bin/sh\n{text}\n"));
                    place.config(&remote("windows", &[program], "15s"));
                    let output = place.run(&["list"]);
                    assert_eq!(output.status.code(), Some(1), "{text}");
                    let expected = format!("opencode-sessions: {expected}\n");
                    assert_eq!(stderr(&output), expected, "{order} {mark:?} {text}");
                }
            }
        }
    }
    // More than is kept of it: it is cut between two characters.
    let file = place.path("said");
    for length in [4095, 4096, 4097, 40_000] {
        let text = format!("{}\r\n没有分发。\r\n", "x".repeat(length));
        fs::write(&file, utf16(&text, u16::to_le_bytes)).unwrap();
        let text = format!("#!/bin/sh\ncat '{}' >&2; exit 255\n", file.display());
        place.config(&remote("windows", &[place.program("wsl", &text)], "15s"));
        let expected = format!("opencode-sessions: {no_hello}; it said: 没有分发。\n");
        assert_eq!(stderr(&place.run(&["list"])), expected, "{length}");
    }
}

#[test]
fn command_may_send_less_than_a_helper_of_this_machine() {
    let _limit = support::limit(120);
    let place = Place::new();
    // Each session has 900,000 bytes in a field that nobody knows.
    let text = |count: usize| {
        format!(
            r#"#!/bin/sh
filler=$(head -c 900000 /dev/zero | tr '\0' x)
echo '{{"type":"hello","protocol":1,"lister":"0.1.0"}}'
n=0
while [ $n -lt {count} ]; do
    printf '{{"type":"session","id":"ses_%d","store":"v1","new":"%s"}}\n' $n "$filler"
    n=$((n + 1))
done
echo '{{"type":"end","sessions":{count},"database":"ready","scan":{{"mode":"none","progress":1,"frames":0,"bytes":0}},"elapsedMs":1}}'
"#
        )
    };
    let refused = "opencode-sessions: the helper's output is not valid: its output is larger than \
        67108864 bytes\n";
    for (count, status) in [(74, 0), (75, 1)] {
        let program = place.program("much", &text(count));
        place.config(&remote("box", std::slice::from_ref(&program), "15s"));
        let output = place.run(&["list", "--format", "ids", "--deadline", "60s"]);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{count}: {}",
            stderr(&output)
        );
        assert_eq!(stderr(&output), if status == 0 { "" } else { refused });
        let mut here = place.command(&["list", "--format", "ids", "--deadline", "60s"]);
        let here = here
            .args(["--db", "/nowhere/x.db", "--lister", &program])
            .output()
            .unwrap();
        assert_eq!(here.status.code(), Some(0), "{count}: {}", stderr(&here));
    }
}

#[test]
fn nothing_that_a_shell_could_take_for_something_else_is_an_argument() {
    let _limit = support::limit(60);
    let place = Place::new();
    let program = place.program("never", "#!/bin/sh\ntouch \"${0%/*}/launched\"\n");
    let lister = ProcessLister::remote(&Remote {
        command: vec![program],
        db: None,
        every: Remote::EVERY,
    });
    let outcome = lister.list(&ListRequest::of("/srv/$(reboot)/opencode.db"));
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(failure.reason.kind(), "not_plain");
    assert!(!place.path("launched").exists());
}

#[test]
fn directories_of_another_machine_are_not_looked_at_here() {
    let _limit = support::limit(60);
    let (place, machine) = (Place::new(), Machine::new(&["ses_1"]));
    fs::create_dir_all(place.path("repo/.git")).unwrap();
    fs::write(place.path("repo/.git/HEAD"), "").unwrap();
    fs::create_dir(place.path("repo/sub")).unwrap();
    let directory = place.path("repo/sub");
    machine
        .made
        .conn
        .execute("UPDATE session SET directory = ?1", [directory.to_str()])
        .unwrap();
    let both = database("here", &machine.made.db) + &remote("there", &machine.words(), "15s");
    for (config, project) in [
        (&*both, place.path("repo")),
        (&remote("there", &machine.words(), "15s"), directory.clone()),
    ] {
        place.config(config);
        for command in [&["list", "--format", "ndjson"][..], &["get", "ses_1"]] {
            let output = place.run(command);
            assert_eq!(
                stdout(&output)[0]["project"],
                *project.to_str().unwrap(),
                "{command:?}"
            );
        }
    }
}

#[test]
fn a_session_with_a_workspace_has_no_local_git_root() {
    let _limit = support::limit(60);
    let (place, made) = (Place::new(), Made::new());
    fs::create_dir_all(place.path("repo/.git")).unwrap();
    fs::write(place.path("repo/.git/HEAD"), "").unwrap();
    fs::create_dir(place.path("repo/sub")).unwrap();
    let (root, sub) = (place.path("repo"), place.path("repo/sub"));
    made.run("INSERT INTO project VALUES ('own', '/worktree', NULL, NULL, 1, 1, '[]')");
    let cases = [
        ("NULL", "global", root.as_path()),
        ("' '", "global", &root),
        ("'wrk_1'", "global", &sub),
        ("'wrk_1'", "own", Path::new("/worktree")),
    ];
    for (at, (workspace, project, _)) in (1..).zip(cases) {
        let id = format!("ses_{at}");
        made.session(&id, 10 - at);
        made.run(&format!(
            "UPDATE session SET workspace_id = {workspace}, project_id = '{project}', \
             directory = '{}' WHERE id = '{id}'",
            sub.display()
        ));
    }
    place.config(&database("here", &made.db));
    let sessions = stdout(&place.run(&["list", "--format", "ndjson"]));
    let looked_up = stdout(&place.run(&["get", "ses_1", "ses_2", "ses_3", "ses_4"]));
    let mut host = Host::well(&mut place.serve());
    for (at, (workspace, project, expected)) in cases.into_iter().enumerate() {
        let id = format!("ses_{}", at + 1);
        let known = &host.model.sessions[&id];
        for session in [&sessions[at], &looked_up[at], known] {
            assert_eq!(session["id"], *id);
            assert_eq!(
                session["project"],
                *expected.to_str().unwrap(),
                "{workspace} {project}"
            );
        }
    }
    host.leave();
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "there is no parent-death signal")]
fn a_command_dies_with_the_service_however_that_ends() {
    let _limit = support::limit(60);
    for signal in [Signal::KILL, Signal::TERM] {
        let place = Place::new();
        let program = place.misbehaving("ignores-every-signal");
        place.config(&remote("devbox", &[program], "1s"));
        let mut host = Host::greeted(&mut place.serve());
        let pids = || {
            let pids = fs::read_to_string(place.path("pids")).unwrap_or_default();
            let pids = pids
                .lines()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
            pids.collect::<Vec<_>>()
        };
        wait_until("the command", || !pids().is_empty());
        assert!(is_alive(pids()[0]));
        host.signal(signal);
        wait_until("the end of the command", || {
            !pids().into_iter().any(is_alive)
        });
        wait_until("the end of the service", || host.has_exited());
    }
}

// ---- Several sources in a service.

#[test]
fn of_three_sources_one_hangs_one_lies_and_one_is_fine() {
    let _limit = support::limit(90);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let config = [
        remote(
            "hangs",
            &[place.misbehaving("hangs-after-half-the-rows")],
            "1s",
        ),
        remote("lies", &[place.misbehaving("counts-wrong")], "1s"),
        database("fine", &fine.made.db),
        remote("far", &fine.words(), "1s"),
    ];
    place.config(&config.concat());

    // One listing: what can be had, and what cannot.
    let output = place.run(&["list", "--format", "ndjson", "--deadline", "1s"]);
    assert_eq!(output.status.code(), Some(1), "it is not all there is");
    let sessions = stdout(&output);
    assert_eq!(ids(&sessions), ["ses_1"]);
    assert_eq!(
        (&sessions[0]["source"], &sessions[0]["also"]),
        (&json!("fine"), &json!(["far"]))
    );
    let said = stderr(&output);
    assert!(
        said.contains("opencode-sessions: hangs: the helper was not done within "),
        "{said}"
    );
    assert!(
        said.contains("opencode-sessions: lies: the helper's output is not valid"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
    // One id is there, of the other nobody knows.
    let output = place.run(&["get", "ses_1", "ses_x", "--deadline", "1s"]);
    assert_eq!(output.status.code(), Some(1));
    let found = stdout(&output);
    assert_eq!(
        (&found[0]["type"], &found[0]["also"]),
        (&json!("session"), &json!(["far"]))
    );
    assert_eq!(found[1]["type"], "failed");
    let message = found[1]["message"].as_str().unwrap();
    assert!(
        message.starts_with("hangs: ") && message.contains("; lies: "),
        "{message}"
    );

    let mut command = place.serve();
    let mut host = Host::greeted(command.args(["--deadline", "3s"]));
    let state = |host: &Host, source: &str| host.model.health[source]["state"].clone();
    host.until("the fine ones", |model| {
        ["fine", "far"]
            .iter()
            .all(|name| model.health[*name]["state"] == "ok")
    });
    assert_eq!(state(&host, "hangs"), "starting", "nobody waits for it");
    let mut latest = Duration::ZERO;
    for n in 0..5 {
        let id = format!("ses_new_{n}");
        fine.made.session(&id, 10 + n);
        let since = Instant::now();
        host.until("the change", |model| model.sessions.contains_key(&id));
        latest = latest.max(since.elapsed());
    }
    // At the pace, while the other hangs all the time.
    assert!(latest < Duration::from_millis(2500), "{latest:?}");
    host.until("the failures", |model| {
        ["hangs", "lies"]
            .iter()
            .all(|name| model.health[*name]["state"] == "failing")
    });
    assert_eq!(host.model.health["hangs"]["kind"], "timeout");
    assert_eq!(host.model.health["lies"]["kind"], "wire");
    let reply = host.ask("refresh");
    let outcomes: BTreeMap<_, _> = list(&reply["refreshed"])
        .iter()
        .map(|one| (text(&one["source"]), text(&one["outcome"])))
        .collect();
    let outcome = |name: &str| outcomes[name].as_str();
    assert_eq!(
        ["hangs", "lies", "fine", "far"].map(outcome),
        ["failed", "failed", "ok", "ok"]
    );
    let status = host.status();
    let names: Vec<_> = list(&status["sources"])
        .iter()
        .map(|source| text(&source["source"]))
        .collect();
    assert_eq!(
        names,
        ["hangs", "lies", "fine", "far"],
        "in the order of the file"
    );
    assert_eq!(status["sources"][3]["watch"], "asked every 1s");
    assert_eq!(status["sessions"], 6, "each once");
    // And found where it is.
    host.say(b"{\"type\":\"get\",\"ids\":[\"ses_1\"],\"id\":\"q\"}\n");
    host.until("the answer", |model| {
        model.events.last().unwrap()["id"] == "q"
    });
    let answer = &host.model.events.last().unwrap()["answers"][0];
    assert_eq!(
        (&answer["type"], &answer["also"]),
        (&json!("session"), &json!(["far"]))
    );
}

#[test]
fn a_command_is_asked_at_its_pace() {
    let _limit = support::limit(60);
    let (place, machine) = (Place::new(), Machine::new(&["ses_1"]));
    let launches = place.path("launches");
    let words: Vec<_> = machine
        .words()
        .iter()
        .map(|word| format!("'{word}'"))
        .collect();
    let program = place.program(
        "asks",
        &format!(
            "#!/bin/sh\necho >> {}\nexec {} \"$@\"\n",
            launches.display(),
            words.join(" ")
        ),
    );
    place.config(&remote("devbox", &[program], "2s"));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the first listing", |model| model.state() == "ok");
    let count = || fs::read_to_string(&launches).unwrap().lines().count();
    let before = count();
    host.take_for(Duration::from_millis(5000));
    let more = count() - before;
    assert!((1..=3).contains(&more), "{more} in five seconds");
    machine.made.session("ses_2", 5);
    host.until("the change", |model| model.sessions.len() == 2);
    // After a restart it is known before it is asked.
    host.leave();
    host.end();
    fs::write(place.path("asks"), "#!/bin/sh\nsleep 60\n").unwrap();
    let host = Host::greeted(&mut place.serve());
    assert_eq!(host.model.ids(), ["ses_1", "ses_2"]);
    assert_eq!(host.model.state(), "stale");
}

#[test]
fn sighup_takes_a_new_configuration_and_refuses_a_bad_one() {
    let _limit = support::limit(60);
    let place = Place::new();
    let (one, two) = (
        Machine::new(&["ses_one", "ses_both"]),
        Machine::new(&["ses_both", "ses_two"]),
    );
    one.made
        .run("UPDATE session SET time_updated = 9 WHERE id = 'ses_both'");
    place.config(&database("one", &one.made.db));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the first listing", |model| model.state() == "ok");

    place.config(&(database("one", &one.made.db) + &remote("two", &two.words(), "1s")));
    host.signal(Signal::HUP);
    host.until("the other source", |model| model.sessions.len() == 3);
    assert_eq!(host.model.ids(), ["ses_both", "ses_one", "ses_two"]);
    let both = &host.model.sessions["ses_both"];
    assert_eq!(
        (&both["source"], &both["also"]),
        (&json!("one"), &json!(["two"]))
    );
    assert_eq!(host.model.health["one"]["state"], "ok", "it went on");

    let bad = place.config("[[source]]\nname = \"one\"\npath = \"/x\"\n");
    host.signal(Signal::HUP);
    let expected = format!(
        "{}:3: unknown key `path`; expected one of `name`, `db`, `command`, `every`",
        bad.display()
    );
    wait_until("the report", || host.log().contains(&expected));
    two.made.session("ses_more", 9);
    host.until("the old ones go on", |model| {
        model.sessions.contains_key("ses_more")
    });

    // Of equal rows the first source's is shown; the order is that of the file.
    two.made
        .run("UPDATE session SET time_updated = 9 WHERE id = 'ses_both'");
    one.made.session("ses_last", 10);
    host.until("all", |model| model.sessions.len() == 5);
    place.config(&(remote("two", &two.words(), "1s") + &database("one", &one.made.db)));
    host.signal(Signal::HUP);
    host.until("the other order", |model| {
        model.sessions["ses_both"]["source"] == "two"
    });

    // The same database under another name, and nothing else.
    place.config(&database("renamed", &two.made.db));
    host.signal(Signal::HUP);
    host.until("the new source", |model| {
        model.health.keys().eq(["renamed"])
    });
    host.until("its listing", |model| model.sessions.len() == 3);
    assert_eq!(host.model.ids(), ["ses_both", "ses_more", "ses_two"]);
    assert_eq!(host.model.sessions["ses_both"]["also"], Value::Null);
    let refreshed = host.ask("refresh");
    assert_eq!(
        refreshed["refreshed"],
        json!([{"source": "renamed", "outcome": "ok"}])
    );
}

#[test]
fn a_refresh_of_a_source_that_is_taken_away_is_answered() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let hangs = remote("hangs", &[place.misbehaving("hangs-after-hello")], "1s");
    place.config(&(database("fine", &fine.made.db) + &hangs));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the fine one", |model| {
        model.health["fine"]["state"] == "ok"
    });
    let refresh = host.tell("refresh");
    place.config(&database("fine", &fine.made.db));
    host.signal(Signal::HUP);
    host.until("the reply", |model| {
        model.events.iter().any(|event| event["id"] == refresh)
    });
    let reply = host.model.of_type("reply", 0)[0].clone();
    let gone = list(&reply["refreshed"])
        .iter()
        .find(|one| one["source"] == "hangs");
    assert_eq!(gone.unwrap()["reason"], "it is no source any more");
    // Where only the pace is another it goes on.
    let refresh = host.tell("refresh");
    place.config(&(database("fine", &fine.made.db) + &remote("far", &fine.words(), "1s")));
    host.signal(Signal::HUP);
    host.until("the new one", |model| model.health.contains_key("far"));
    let again = host.tell("refresh");
    place.config(&(database("fine", &fine.made.db) + &remote("far", &fine.words(), "2s")));
    host.signal(Signal::HUP);
    for refresh in [refresh, again] {
        host.until("the replies", |model| {
            model.events.iter().any(|event| event["id"] == refresh)
        });
        let reply = host
            .model
            .events
            .iter()
            .find(|event| event["id"] == refresh);
        let outcomes = list(&reply.unwrap()["refreshed"]).iter();
        let outcomes: Vec<_> = outcomes.map(|one| text(&one["outcome"])).collect();
        assert!(outcomes.iter().all(|outcome| outcome == "ok"), "{reply:?}");
    }
    host.leave();
    let (status, _, _) = host.end();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn another_command_of_the_same_name_is_not_taken_for_the_old_one() {
    let _limit = support::limit(60);
    let (place, one) = (Place::new(), Machine::new(&["ses_old"]));
    place.config(&remote("devbox", &one.words(), "1s"));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the first listing", |model| model.state() == "ok");
    let hangs = place.misbehaving("hangs-after-hello");
    place.config(&remote("devbox", &[hangs], "1s"));
    host.signal(Signal::HUP);
    host.until("the other one", |model| model.state() == "stale");
    assert_eq!(host.model.ids(), ["ses_old"], "nothing is lost");
    let two = Machine::new(&["ses_new"]);
    place.config(&remote("devbox", &two.words(), "1s"));
    host.signal(Signal::HUP);
    host.until("its listing", |model| model.state() == "ok");
    assert_eq!(host.model.ids(), ["ses_new"]);
    // That the old listings were ended says nothing of the new source.
    host.take_for(Duration::from_millis(300));
    let health = host.model.of_type("health", 0);
    assert!(
        health
            .iter()
            .all(|event| event["health"]["kind"] != "cancelled"),
        "{health:?}"
    );
}

#[test]
fn a_source_that_is_known_to_fail_delays_no_look_up() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let hangs = remote("hangs", &[place.misbehaving("hangs-before-output")], "1s");
    place.config(&(database("fine", &fine.made.db) + &hangs));
    let mut command = place.serve();
    let mut host = Host::greeted(command.args(["--deadline", "1s"]));
    host.until("the failure", |model| {
        model.health["hangs"]["state"] == "failing"
    });
    let since = Instant::now();
    for n in 0..20 {
        host.say(
            format!("{{\"type\":\"get\",\"ids\":[\"ses_1\",\"ses_x\"],\"id\":\"q{n}\"}}\n")
                .as_bytes(),
        );
        let id = format!("q{n}");
        host.until("the answer", |model| {
            model.events.last().unwrap()["id"] == *id
        });
        let answers = &host.model.events.last().unwrap()["answers"];
        assert_eq!(answers[0]["type"], "session", "{answers}");
        assert_eq!(answers[1]["type"], "failed", "nobody knows: {answers}");
    }
    // One would take two seconds.
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "{:?}",
        since.elapsed()
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_does_not_answer_holds_up_its_own_source_only() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    let disk = preload::Library::of("hanging_disk.c");
    let hangs = place.path("hanging-disk");
    fs::create_dir(&hangs).unwrap();
    place.config(&(database("hangs", &hangs.join("x.db")) + &database("fine", &fine.made.db)));
    let mut command = place.command(&["list", "--format", "ids", "--deadline", "2s", "--config"]);
    command.arg(place.path("config.toml"));
    let output = command.env("LD_PRELOAD", disk.path()).output().unwrap();
    assert_eq!(output.stdout, b"ses_1\n", "{output:?}");
    // Neither does it keep the paths behind it from being resolved.
    let link = place.path("link.db");
    std::os::unix::fs::symlink(&fine.made.db, &link).unwrap();
    let mut command = place.command(&["list", "--format", "ndjson", "--deadline", "2s", "--db"]);
    command.arg(hangs.join("x.db")).arg("--db").arg(&link);
    command.arg("--db").arg(&fine.made.db);
    let output = command.env("LD_PRELOAD", disk.path()).output().unwrap();
    assert_eq!(stdout(&output)[0]["also"], Value::Null, "{output:?}");
    let mut host = Host::greeted(place.serve().env("LD_PRELOAD", disk.path()));
    host.until("the fine one", |model| {
        model.health["fine"]["state"] == "ok"
    });
    for n in 0..2 {
        let id = format!("ses_new_{n}");
        fine.made.session(&id, 5);
        host.signal(Signal::HUP);
        host.until("the change", |model| model.sessions.contains_key(&id));
    }
}

#[test]
fn a_database_that_nobody_named_and_that_is_not_there_is_no_source_among_others() {
    let _limit = support::limit(60);
    let (place, fine) = (Place::new(), Machine::new(&["ses_1"]));
    place.config(&(format!("discover = true\n{}", remote("far", &fine.words(), "15s"))));
    let output = place.run(&["get", "ses_1", "ses_x"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(stdout(&output)[1], json!({"type": "absent", "id": "ses_x"}));
    // Of one that was named nobody knows what it has.
    let away = database("away", &place.path("away.db"));
    place.config(&(away + &remote("far", &fine.words(), "15s")));
    let output = place.run(&["get", "ses_1", "ses_x"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = stdout(&output)[1]["message"].to_string();
    assert!(
        message.contains("away: there is no database at "),
        "{message}"
    );
}

#[test]
fn an_archived_session_stays_hidden_after_a_restart_without_its_source() {
    let _limit = support::limit(60);
    let place = Place::new();
    let (live, copied) = (Machine::new(&["ses_1"]), Machine::new(&["ses_1"]));
    copied.made.run("PRAGMA wal_checkpoint(truncate)");
    live.made
        .run("UPDATE session SET time_archived = 1, time_updated = 9");
    let words: Vec<_> = live
        .words()
        .iter()
        .map(|word| format!("'{word}'"))
        .collect();
    let program = place.program(
        "live",
        &format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")),
    );
    let copy = place.path("copy.db");
    place.config(&(remote("live", &[program], "1s") + &database("copy", &copy)));
    let mut host = Host::greeted(&mut place.serve());
    host.until("the live one", |model| {
        model.health["live"]["state"] == "ok"
    });
    // The copy comes when that is known.
    fs::copy(&copied.made.db, &copy).unwrap();
    support::settle(&copy);
    host.until("the copy", |model| model.health["copy"]["state"] == "ok");
    assert!(host.model.ids().is_empty());
    host.leave();
    host.end();
    // Nothing that is shown has changed, and what is hidden is known all the same.
    place.program("live", "#!/bin/sh\nexit 1\n");
    let mut host = Host::greeted(&mut place.serve());
    host.until("the failure", |model| {
        model.health["live"]["state"] == "failing"
    });
    host.until("the copy", |model| model.health["copy"]["state"] == "ok");
    assert!(host.model.ids().is_empty());
    assert!(host.model.of_type("change", 0).is_empty());
}

// ---- One session in two places.

#[test]
fn a_copied_database_shows_each_session_once_and_names_both() {
    let _limit = support::limit(60);
    let (place, live) = (Place::new(), Machine::new(&["ses_1", "ses_2", "ses_3"]));
    live.made.run("PRAGMA wal_checkpoint(truncate)");
    let copy = place.path("copy.db");
    fs::copy(&live.made.db, &copy).unwrap();
    support::settle(&copy);
    place.config(&(database("copy", &copy) + &database("live", &live.made.db)));
    live.made.run(
        "UPDATE session SET title = 'newer', time_updated = 10 WHERE id = 'ses_1';
         UPDATE session SET time_archived = 10, time_updated = 10 WHERE id = 'ses_2';
         DELETE FROM session WHERE id = 'ses_3'",
    );
    let sessions = stdout(&place.run(&["list", "--format", "ndjson"]));
    assert_eq!(
        ids(&sessions),
        ["ses_1", "ses_3"],
        "an archived one is not there by its copy"
    );
    assert_eq!(sessions[0]["title"], "newer");
    assert_eq!(
        (&sessions[0]["source"], &sessions[0]["also"]),
        (&json!("live"), &json!(["copy"]))
    );
    assert_eq!(
        (&sessions[1]["source"], &sessions[1]["also"]),
        (&json!("copy"), &Value::Null)
    );
    let all = stdout(&place.run(&["list", "--format", "ndjson", "--archived"]));
    assert_eq!(ids(&all), ["ses_1", "ses_2", "ses_3"]);
    let table = place.run(&["list"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.lines().next().unwrap().ends_with(" SOURCE"),
        "{table}"
    );
    assert!(table.contains("live, copy"), "{table}");

    let mut host = Host::greeted(&mut place.serve());
    host.until("both", |model| {
        model.health.values().all(|health| health["state"] == "ok")
    });
    let listed: BTreeMap<_, _> = sessions
        .iter()
        .map(|session| (text(&session["id"]), session.clone()))
        .collect();
    assert_eq!(host.model.sessions, listed, "as list has them");
    // The copy is left behind, and the other way round.
    live.made
        .run("UPDATE session SET time_archived = NULL, time_updated = 11 WHERE id = 'ses_2'");
    host.until("its return", |model| model.sessions.contains_key("ses_2"));
    live.made.run("DELETE FROM session WHERE id = 'ses_1'");
    host.until("its copy", |model| {
        model.sessions["ses_1"]["source"] == "copy"
    });
    assert_eq!(host.model.sessions["ses_1"]["title"], "Title of ses_1");
    assert_eq!(host.model.sessions["ses_1"]["also"], Value::Null);
}

// ---- One database under several names.

#[test]
fn another_machines_clock_that_is_far_ahead_hides_no_session_of_this_one() {
    let _limit = support::limit(120);
    const HOUR: i64 = 3_600_000;
    let now = opencode_sessions::session::Millis::now().0;
    let (here, there) = (Machine::new(&["ses_1"]), Machine::new(&["ses_1"]));
    let place = Place::new();
    let set = |machine: &Machine, ahead: i64, archived: &str| {
        let time = now.saturating_add(ahead);
        machine.made.run(&format!(
            "UPDATE session SET time_updated = {time}, time_archived = {archived}"
        ));
    };
    // By how much the times are ahead of now, here and there, and whose row is shown.
    for (local, far, shown) in [
        (-HOUR, -2 * HOUR, "here"),
        (-2 * HOUR, -HOUR, "far"),
        (-HOUR, HOUR, "far"),
        (-HOUR, 23 * HOUR, "far"),
        (-HOUR, 25 * HOUR, "here"),
        (-HOUR, 1 << 61, "here"),
        // This machine's clock is its own.
        (1 << 61, -HOUR, "here"),
        (30 * HOUR, 25 * HOUR, "here"),
        (30 * HOUR, 40 * HOUR, "here"),
    ] {
        for far_first in [false, true] {
            set(&here, local, "NULL");
            set(&there, far, "NULL");
            let mut sources = [
                database("here", &here.made.db),
                remote("far", &there.words(), "15s"),
            ];
            if far_first {
                sources.reverse();
            }
            place.config(&sources.concat());
            let listed = place.run(&["list", "--format", "ndjson"]);
            let found = place.run(&["get", "ses_1"]);
            for output in [&listed, &found] {
                let what = format!("{local} {far} {far_first}: {output:?}");
                assert_eq!(output.status.code(), Some(0), "{what}");
                let session = &stdout(output)[0];
                assert_eq!(session["source"], shown, "{what}");
                assert_eq!(list(&session["also"]).len(), 1, "{what}");
            }
            // Neither does it by its archived row.
            set(&there, far, "1");
            let listed = place.run(&["list", "--format", "ids"]);
            let expected = if shown == "here" { "ses_1\n" } else { "" };
            assert_eq!(
                String::from_utf8_lossy(&listed.stdout),
                expected,
                "{local} {far}"
            );
        }
    }
    // A service shows the same, before and after a restart without the other machine.
    set(&here, -HOUR, "NULL");
    set(&there, 1 << 61, "1");
    for is_there in [true, false] {
        let words = match is_there {
            true => there.words(),
            false => vec!["false".to_owned()],
        };
        // The same source under the same name, through a program of this place.
        let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let text = format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "));
        let program = place.program("far", &text);
        place.config(&(remote("far", &[program], "1s") + &database("here", &here.made.db)));
        let mut host = Host::greeted(&mut place.serve());
        let state = if is_there { "ok" } else { "failing" };
        host.until("the far one", |model| model.health["far"]["state"] == state);
        host.until("the one here", |model| {
            model.health["here"]["state"] == "ok"
        });
        assert_eq!(host.model.ids(), ["ses_1"], "{is_there}");
        host.leave();
        host.end();
    }
}

#[test]
fn service_says_of_another_programs_database_what_list_says() {
    let _limit = support::limit(60);
    let place = Place::new();
    let made = Made::of("CREATE TABLE moz_places (id)");
    let (near, far) = (made.db.canonicalize().unwrap(), Machine::new(&[]));
    far.made
        .run("DROP TABLE session; CREATE TABLE moz_hosts (id)");
    place.config(&(database("near", &near) + &remote("far", &far.words(), "1s")));
    let listed = place.run(&["list"]);
    assert_eq!(listed.status.code(), Some(1));
    let mut host = Host::greeted(&mut place.serve());
    for name in ["near", "far"] {
        host.until(name, |model| model.health[name]["state"] == "failing");
        let health = &host.model.health[name];
        assert_eq!(health["kind"], "schema", "{health}");
        let line = format!("opencode-sessions: {name}: {}\n", text(&health["reason"]));
        assert!(stderr(&listed).contains(&line), "{listed:?}: {line}");
        assert!(
            line.contains("has no table session or session_v2, but: "),
            "{line}"
        );
    }
    host.say(b"{\"type\":\"get\",\"ids\":[\"ses_1\"],\"id\":99}\n");
    let reply = host.reply(99);
    let answer = &reply["answers"][0];
    assert_eq!(answer["type"], "failed", "{reply}");
    for name in ["near", "far"] {
        let reason = text(&host.model.health[name]["reason"]);
        assert!(text(&answer["message"]).contains(&reason), "{answer}");
    }
}

#[test]
fn links_to_one_database_share_its_scan_cache() {
    let _limit = support::limit(60);
    let (place, machine) = (Place::new(), Machine::new(&["ses_1"]));
    let db = &machine.made.db;
    let link = |target: &Path, name: &str| {
        let path = place.path(name);
        std::os::unix::fs::symlink(target, &path).unwrap();
        path
    };
    let directory = link(db.parent().unwrap(), "directory");
    let file = link(db, "file.db");
    let chain = link(&file, "chain.db");
    for path in [db, &directory.join("opencode.db"), &file, &chain] {
        let mut command = support::command(support::lister());
        command.env("HOME", place.path("")).arg("--db").arg(path);
        let _ = support::complete(&command.args(["--scan-cache", "auto"]).output().unwrap());
        let caches = fs::read_dir(place.path(".cache/opencode-sessions")).unwrap();
        assert_eq!(caches.count(), 1, "{}", path.display());
    }
}

/// Turns a link to a directory.
fn turn(link: &Path, to: &Path) {
    let new = link.with_extension("new");
    std::os::unix::fs::symlink(to, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

#[test]
fn service_follows_a_link_that_is_turned() {
    let _limit = support::limit(120);
    let (place, work, play) = (Place::new(), Made::new(), Made::new());
    work.session("ses_work", 1);
    play.session("ses_play", 1);
    let link = place.path("data");
    turn(&link, work.directory.path());
    place.config(&database("mine", &link.join("opencode.db")));
    let mut host = Host::well(&mut place.serve());
    assert_eq!(host.model.ids(), ["ses_work"]);

    // A refresh notices it at once.
    turn(&link, play.directory.path());
    assert_eq!(host.refresh()["outcome"], "ok");
    assert_eq!(host.model.ids(), ["ses_play"]);
    assert_eq!(host.model.state(), "ok");
    // So does a look at the files, here since the old one is written to.
    turn(&link, work.directory.path());
    let since = Instant::now();
    play.session("ses_late", 2);
    host.until("the other one", |model| model.ids() == ["ses_work"]);
    assert!(since.elapsed() < Duration::from_secs(10));
    // And by itself it is noticed within a minute.
    turn(&link, play.directory.path());
    let since = Instant::now();
    while host.model.ids() != ["ses_late", "ses_play"] {
        assert!(since.elapsed() < Duration::from_secs(70));
        host.take_for(Duration::from_secs(1));
    }
    host.until("its listing", |model| model.state() == "ok");
    // What the one has was never shown with what the other has.
    let mut model = serving::Model::default();
    for event in &host.model.events {
        model.take(event.clone());
        let has = |id: &str| model.sessions.contains_key(id);
        assert!(
            !has("ses_work") || !(has("ses_play") || has("ses_late")),
            "{event}"
        );
    }
    // What is kept for the next start is of the database that the link leads to.
    host.leave();
    host.end();
    let host = Host::greeted(&mut place.serve());
    assert_eq!(host.model.ids(), ["ses_late", "ses_play"]);
}

#[test]
#[cfg(target_os = "linux")]
fn refresh_waits_for_where_a_slow_path_leads() {
    let _limit = support::limit(60);
    let (place, work, play) = (Place::new(), Made::new(), Made::new());
    work.session("ses_work", 1);
    play.session("ses_play", 1);
    let disk = preload::Library::of("hanging_disk.c");
    let link = place.path("slow-disk");
    turn(&link, work.directory.path());
    place.config(&database("mine", &link.join("opencode.db")));
    let mut host = Host::well(place.serve().env("LD_PRELOAD", disk.path()));
    assert_eq!(host.model.ids(), ["ses_work"]);
    turn(&link, play.directory.path());
    assert_eq!(host.refresh()["outcome"], "ok");
    assert_eq!(host.model.ids(), ["ses_play"]);
}

#[test]
fn library_host_follows_a_database_that_becomes_a_link() {
    use opencode_sessions::service::{Config, Event, Service};
    let _limit = support::limit(60);
    let (place, made) = (Place::new(), Made::new());
    made.session("ses_1", 1);
    let db = place.path("opencode.db");
    let service = Service::start(Config {
        sources: opencode_sessions::source::sources_of(std::slice::from_ref(&db)),
        marker: None,
        view: opencode_sessions::index::View::default(),
        deadline: Duration::from_secs(10),
        lister: Box::new(|_| std::sync::Arc::new(ProcessLister::at(support::lister()))),
        state: None,
        supervisor: None,
    });
    let service = service.unwrap();
    let mut events = service.subscribe();
    let mut is_linked = false;
    let is_listed = events.any(|event| match &*event {
        Event::Health(source) if source.health.name() == "missing" && !is_linked => {
            std::os::unix::fs::symlink(&made.db, &db).unwrap();
            is_linked = true;
            false
        }
        Event::Change(change) => change.upserted.len() == 1,
        _ => false,
    });
    assert!(is_listed);
    // Its log is watched where it is.
    made.session("ses_2", 2);
    let since = Instant::now();
    assert!(events.any(|event| matches!(&*event, Event::Change(_))));
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn service_sees_names_part_and_meet() {
    let _limit = support::limit(120);
    let place = Place::new();
    let (one, other) = (Made::new(), Made::new());
    one.session("ses_one", 1);
    other.session("ses_other", 1);
    let link = place.path("data");
    turn(&link, one.directory.path());
    // A third name has no log yet.
    let (quiet, hard) = (place.path("quiet.db"), place.path("hard.db"));
    copy_of(&["ses_quiet"], &quiet);
    fs::hard_link(&quiet, &hard).unwrap();
    place.config(
        &(database("one", &one.db)
            + &database("linked", &link.join("opencode.db"))
            + &database("quiet", &quiet)
            + &database("hard", &hard)),
    );
    let mut host = Host::greeted(&mut place.serve());
    let sources = |host: &Host| host.model.health.keys().cloned().collect::<Vec<_>>();
    host.until("both", |model| model.sessions.len() == 2);
    assert_eq!(sources(&host), ["one", "quiet"]);

    turn(&link, other.directory.path());
    let conn = rusqlite::Connection::open(&hard).unwrap();
    let insert = "INSERT INTO session SELECT 'ses_loud', project_id, workspace_id, parent_id, slug, \
        directory, path, title, version, share_url, summary_additions, summary_deletions, \
        summary_files, summary_diffs, metadata, cost, tokens_input, tokens_output, tokens_reasoning, \
        tokens_cache_read, tokens_cache_write, revert, permission, agent, model, time_created, \
        time_updated, time_compacting, time_archived FROM session";
    conn.execute(insert, ()).unwrap();
    host.take_for(Duration::from_secs(6));
    host.until("what is new", |model| model.sessions.len() == 4);
    assert_eq!(
        host.model.ids(),
        ["ses_loud", "ses_one", "ses_other", "ses_quiet"]
    );
    assert_eq!(sources(&host), ["linked", "one", "quiet"]);

    turn(&link, one.directory.path());
    host.take_for(Duration::from_secs(6));
    host.until("one name less", |model| model.health.len() == 2);
    assert_eq!(sources(&host), ["one", "quiet"]);
    assert_eq!(host.model.ids(), ["ses_loud", "ses_one", "ses_quiet"]);
}

/// Where its mounts are its own: the words before a program, or none where there are no
/// private mounts.
fn own_mounts() -> Option<Vec<String>> {
    let ways = [&["unshare", "-m"][..], &["unshare", "-r", "-m"]];
    let works = |way: &&&[&str]| {
        let mut command = support::command(Path::new(way[0]));
        command
            .args(&way[1..])
            .args(["mount", "-t", "tmpfs", "none", "/tmp"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let way = ways.iter().find(works)?;
    Some(way.iter().map(|&word| word.to_owned()).collect())
}

/// Runs this program where `to` is a second mount of the file `from`.
fn mounted(from: &Path, to: &Path, program: &Command) -> Option<Command> {
    let own = own_mounts()?;
    let mut command = support::command(Path::new(&own[0]));
    let script = "mount --bind \"$0\" \"$1\"; shift; exec \"$@\"";
    command
        .args(&own[1..])
        .args(["sh", "-ec", script])
        .args([from, to]);
    command.arg(program.get_program()).args(program.get_args());
    let variables = program.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    Some(command)
}

#[test]
fn another_name_of_the_database_is_not_another_database() {
    let _limit = support::limit(120);
    for kind in [
        "link",
        "absolute link",
        "chain",
        "hard link",
        "dangling link",
        "mount",
    ] {
        let place = Place::new();
        let data = place.path("data/opencode");
        fs::create_dir_all(&data).unwrap();
        let (db, alias) = (data.join("opencode.db"), data.join("opencode-dev.db"));
        copy_of(&["ses_1"], &db);
        let link = |target: &Path, link: &Path| std::os::unix::fs::symlink(target, link).unwrap();
        match kind {
            "link" => link(Path::new("opencode.db"), &alias),
            "absolute link" => link(&db, &alias),
            "chain" => {
                link(&data, &place.path("elsewhere"));
                link(&place.path("elsewhere/opencode.db"), &alias);
            }
            "hard link" => fs::hard_link(&db, &alias).unwrap(),
            "dangling link" => link(Path::new("none.db"), &alias),
            _ => fs::write(&alias, "").unwrap(),
        }
        let with_kind = |mut command: Command| {
            command.env("XDG_DATA_HOME", place.path("data"));
            match kind {
                "mount" => mounted(&db, &alias, &command),
                _ => Some(command),
            }
        };
        let mut helper = support::command(support::lister());
        helper.env("HOME", place.path(""));
        let Some(mut helper) = with_kind(helper) else {
            eprintln!("skipped: private mounts, which cannot be made here");
            continue;
        };
        let (sessions, _) = support::complete(&helper.output().unwrap());
        assert_eq!(ids(&sessions), ["ses_1"], "{kind}");

        let command = |args: &[&str]| with_kind(place.command(args)).unwrap();
        let list = |args: &[&str]| {
            let args = [&["list", "--format", "ndjson"], args].concat();
            let output = command(&args).output().unwrap();
            // The file has two names, and no log beside either.
            let is_linked = kind == "hard link";
            let warns = stderr(&output).contains("the newest sessions can be missing");
            assert_eq!(output.status.code(), Some(0), "{kind}");
            assert_eq!(warns, !stderr(&output).is_empty(), "{kind}");
            // A mount has none beside it, either, where it is the one that is read.
            assert!(warns == is_linked || kind == "mount", "{kind}");
            let sessions = stdout(&output);
            assert_eq!(ids(&sessions), ["ses_1"], "{kind}");
            assert_eq!(sessions[0]["also"], Value::Null, "{kind} {args:?}");
        };
        list(&[]);
        if kind != "dangling link" {
            let both = database("mine", &alias) + &database("yours", &db);
            let config = place.config(&both);
            list(&["--config", config.to_str().unwrap()]);
            let names = [&alias, &db].map(|path| path.to_str().unwrap());
            list(&["--db", names[0], "--db", names[1]]);
        }
        let output = command(&["doctor"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.matches("source    ").count(), 1, "{kind}: {said}");
        let also = format!("also      {}\n", alias.display());
        assert_eq!(
            said.contains(&also),
            kind != "dangling link",
            "{kind}: {said}"
        );
        let mut host = Host::greeted(&mut command(&["serve", "--stdio"]));
        host.until("the only source", |model| model.state() == "ok");
        host.leave();
        host.end();
    }
}

#[test]
fn the_hard_link_with_the_log_is_the_one_that_is_read() {
    let _limit = support::limit(60);
    let (place, machine) = (Place::new(), Machine::new(&["ses_1"]));
    // What is only in the log.
    let names = ["first.db", "last.db"].map(|name| place.path(name));
    for name in &names {
        fs::hard_link(&machine.made.db, name).unwrap();
    }
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut command = place.command(&["list", "--format", "ids"]);
        for at in order {
            let all = [&machine.made.db, &names[0], &names[1]];
            command.arg("--db").arg(all[at]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"ses_1\n", "{output:?}");
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "file names must be UTF-8")]
fn databases_that_differ_in_odd_bytes_are_all_listed() {
    let _limit = support::limit(60);
    let place = Place::new();
    let names: [&[u8]; 3] = [b"a\xff.db", b"a\xfe.db", br"a\xff.db"];
    let shown = [r"a\xff.db", r"a\xfe.db", r"a\\xff.db"];
    let with_dbs = |mut command: Command| {
        for (name, id) in names.iter().zip(["ses_0", "ses_1", "ses_2"]) {
            let path = place.path("").join(OsStr::from_bytes(name));
            if !path.exists() {
                copy_of(&[id], &path);
            }
            command.arg("--db").arg(&path);
        }
        command
    };
    let by_source = |sessions: &[Value]| {
        let pairs = sessions
            .iter()
            .map(|one| (text(&one["source"]), text(&one["id"])));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let expected = shown.into_iter().zip(["ses_0", "ses_1", "ses_2"]);
    let expected: BTreeMap<_, _> = expected
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect();

    let list = || {
        with_dbs(place.command(&["list", "--format", "ndjson"]))
            .output()
            .unwrap()
    };
    let output = list();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(by_source(&stdout(&output)), expected);

    let serve = || {
        let mut command = place.command(&["serve", "--stdio"]);
        command.env("XDG_RUNTIME_DIR", place.path(""));
        with_dbs(command)
    };
    let known = |host: &Host| by_source(&host.model.sessions.values().cloned().collect::<Vec<_>>());
    let mut host = Host::greeted(&mut serve());
    host.until("all", |model| {
        model.health.values().all(|health| health["state"] == "ok")
    });
    assert_eq!(known(&host), expected);
    // Other commands recognise its sources.
    let mut command = place.command(&["doctor"]);
    command.env("XDG_RUNTIME_DIR", place.path(""));
    let output = with_dbs(command).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("with these sources\n"), "{said}");
    // Each comes back from the snapshot.
    host.leave();
    host.end();
    for name in names {
        fs::remove_file(place.path("").join(OsStr::from_bytes(name))).unwrap();
        fs::create_dir(place.path("").join(OsStr::from_bytes(name))).unwrap();
    }
    assert_eq!(known(&Host::greeted(&mut serve())), expected);
}

// ---- What is found, and what is written down.

#[test]
fn every_channel_is_listed_and_opencode_db_alone_where_it_is_set() {
    let _limit = support::limit(60);
    let place = Place::new();
    let data = place.path("data/opencode");
    fs::create_dir_all(&data).unwrap();
    for name in [
        "opencode.db",
        "opencode-dev.db",
        "opencode-local.db",
        "other.db",
    ] {
        let made = Made::new();
        made.session(&format!("ses_{name}"), 1);
        made.run("PRAGMA wal_checkpoint(truncate)");
        fs::copy(&made.db, data.join(name)).unwrap();
        support::settle(&data.join(name));
    }
    let listed = |variables: &[(&str, &str)]| {
        let mut command = place.command(&["list", "--format", "ids"]);
        command.env("XDG_DATA_HOME", place.path("data"));
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let ids = String::from_utf8(output.stdout).unwrap();
        ids.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let channels = ["ses_opencode-dev.db", "ses_opencode-local.db"];
    let all = [&channels[..], &["ses_opencode.db"]].concat();
    assert_eq!(listed(&[]), all);
    let other = data.join("other.db");
    for alone in ["other.db", other.to_str().unwrap()] {
        assert_eq!(listed(&[("OPENCODE_DB", alone)]), ["ses_other.db"]);
    }
    for off in ["1", "true"] {
        assert_eq!(
            listed(&[("OPENCODE_DISABLE_CHANNEL_DB", off)]),
            ["ses_opencode.db"]
        );
    }
    assert_eq!(listed(&[("OPENCODE_DISABLE_CHANNEL_DB", "0")]), all);
    assert!(listed(&[("OPENCODE_DB", ":memory:")]).is_empty());
    // A configuration is all there is, unless it wants the others too.
    let config = place.path(".config/opencode-sessions");
    fs::create_dir_all(&config).unwrap();
    let named = database("mine", &other);
    fs::write(config.join("config.toml"), &named).unwrap();
    assert_eq!(listed(&[("OPENCODE_DB", "opencode.db")]), ["ses_other.db"]);
    fs::write(
        config.join("config.toml"),
        format!("discover = true\n{named}"),
    )
    .unwrap();
    assert_eq!(listed(&[]), [&all[..], &["ses_other.db"]].concat());
    assert_eq!(listed(&[("OPENCODE_DB", ":memory:")]), ["ses_other.db"]);
    fs::rename(data.join("opencode.db"), data.join("away")).unwrap();
    assert_eq!(listed(&[]), [&channels[..], &["ses_other.db"]].concat());
}

#[test]
fn forks_are_listed_only_where_the_configuration_says_so() {
    let _limit = support::limit(60);
    let place = Place::new();
    let [opencode, kilo, mimo] = ["opencode", "kilo", "mimocode"].map(|program| {
        let path = place.path(&format!("data/{program}/{program}.db"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        copy_of(&[&format!("ses_{program}")], &path);
        path
    });
    let config = place.path(".config/opencode-sessions/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let command = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("XDG_DATA_HOME", place.path("data"));
        command
    };
    let note = |path: &Path, programs: &str| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        format!(
            "note      the database of {name} at {} is not listed; to list it, write \
             `discover = [{programs}]` in the configuration\n",
            path.display()
        )
    };
    let all = r#""opencode", "kilo", "mimocode""#;
    let named = database("mine", &kilo);
    for (text, ids, notes) in [
        (
            None,
            &["opencode"][..],
            &[note(&kilo, all), note(&mimo, all)][..],
        ),
        (
            Some("discover = true"),
            &["opencode"],
            &[note(&kilo, all), note(&mimo, all)],
        ),
        (
            Some("discover = [\"kilo\"]"),
            &["kilo"],
            &[note(&mimo, r#""kilo", "mimocode""#)],
        ),
        (
            Some("discover = [\"opencode\", \"kilo\", \"mimocode\"]"),
            &["kilo", "mimocode", "opencode"],
            &[],
        ),
        (Some(&named), &["kilo"], &[note(&mimo, r#""mimocode""#)]),
        (
            Some(&format!("discover = [\"kilo\"]\n{named}")),
            &["kilo"],
            &[note(&mimo, r#""kilo", "mimocode""#)],
        ),
    ] {
        match text {
            None => drop(fs::remove_file(&config)),
            Some(text) => fs::write(&config, text).unwrap(),
        }
        let output = command(&["list", "--format", "ids"]).output().unwrap();
        let expected: String = ids.iter().map(|id| format!("ses_{id}\n")).collect();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            expected,
            "{text:?}"
        );
        assert_eq!(output.status.code(), Some(0), "{text:?}");
        let output = command(&["doctor"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let found = said
            .lines()
            .filter(|line| line.contains(" is not listed; "));
        let found: Vec<_> = found.map(|line| format!("{line}\n")).collect();
        assert_eq!(found, notes, "{text:?}: {said}");
    }
    // `--db` asks about that database alone.
    let output = command(&["doctor", "--db"])
        .arg(&opencode)
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains(" is not listed; "));
    let mut helper = support::command(support::lister());
    helper.env("XDG_DATA_HOME", place.path("data"));
    let (sessions, _) = support::complete(&helper.output().unwrap());
    assert_eq!(ids(&sessions), ["ses_opencode"]);
    // What is not there is no source, unless it is the only one.
    fs::write(&config, "discover = [\"mimocode\", \"kilo\"]").unwrap();
    fs::remove_file(&mimo).unwrap();
    let output = command(&["get", "ses_x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    fs::remove_file(&kilo).unwrap();
    let output = command(&["list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let expected = format!(
        "opencode-sessions: there is no database at {}",
        mimo.display()
    );
    assert!(stderr(&output).starts_with(&expected), "{output:?}");
    // A service does as `list` does.
    copy_of(&["ses_late"], &kilo);
    let mut host = Host::greeted(&mut command(&["serve", "--stdio"]));
    host.until("the fork", |model| model.sessions.contains_key("ses_late"));
    host.leave();
}

#[test]
fn a_channel_that_comes_later_is_found_by_a_running_service() {
    let _limit = support::limit(90);
    let place = Place::new();
    let data = place.path("data/opencode");
    fs::create_dir_all(&data).unwrap();
    let made = Made::new();
    made.session("ses_1", 1);
    made.run("PRAGMA wal_checkpoint(truncate)");
    fs::copy(&made.db, data.join("opencode-dev.db")).unwrap();
    let mut command = place.command(&["serve", "--stdio", "--state-dir"]);
    command
        .arg(place.path("state"))
        .env("XDG_DATA_HOME", place.path("data"));
    let mut host = Host::greeted(&mut command);
    host.until("the one", |model| model.state() == "ok");
    made.session("ses_2", 2);
    made.run("PRAGMA wal_checkpoint(truncate)");
    fs::copy(&made.db, data.join("opencode.db")).unwrap();
    // It is looked for every five seconds.
    for _ in 0..60 {
        if host.model.sessions.contains_key("ses_2") {
            break;
        }
        host.take_for(Duration::from_secs(1));
    }
    assert_eq!(host.model.sessions["ses_1"]["also"], json!(["opencode.db"]));
    // A directory that is away takes no source with it.
    fs::rename(&data, place.path("away")).unwrap();
    host.take_for(Duration::from_secs(6));
    assert_eq!(host.model.health.len(), 2);
}

#[test]
fn invalid_configuration_is_reported_with_file_and_line() {
    let _limit = support::limit(60);
    let place = Place::new();
    let path = place.config("discover = true\n\n[[source]]\nname = \"x\"\nevrey = \"5s\"\n");
    let expected = format!(
        "opencode-sessions: {}:5: unknown key `evrey`; expected one of `name`, `db`, `command`, `every`\n",
        path.display()
    );
    for (command, status) in [(&["list"][..], 1), (&["serve"], 78)] {
        let output = place.run(command);
        assert_eq!(output.status.code(), Some(status), "{command:?}");
        assert_eq!(stderr(&output), expected, "{command:?}");
        assert!(output.stdout.is_empty());
    }
    let output = place.run(&["get", "ses_1"]);
    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(1), &*expected)
    );
    assert_eq!(stdout(&output)[0]["type"], "failed");
    let reports = |expected: &str| {
        let output = place.run(&["list"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let expected = expected.replace("FILE", path.to_str().unwrap());
        assert_eq!(stderr(&output), format!("opencode-sessions: {expected}\n"));
    };
    fs::write(&path, b"# \xc3\xa9\n# \xff\n").unwrap();
    reports("FILE:2: not valid UTF-8; save the file as UTF-8");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    reports("cannot read the configuration FILE: it is larger than 1 MiB");
    fs::remove_file(&path).unwrap();
    reports("there is no configuration at FILE");
    let made = support::command(Path::new("mkfifo")).arg(&path).status();
    assert!(made.unwrap().success());
    reports("cannot read the configuration FILE: it is not a regular file");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    reports("cannot read the configuration FILE: it is not a regular file");
    let output = place.run(&["list", "--db", "/x"]);
    assert_eq!(output.status.code(), Some(2), "one or the other");
}

// ---- The doctor.

#[test]
fn the_doctor_says_of_each_source_how_it_is_and_what_to_do() {
    let _limit = support::limit(60);
    let (place, well) = (Place::new(), Machine::new(&["ses_1"]));
    let old = place.path("old");
    fs::create_dir_all(old.join("storage/session/global")).unwrap();
    let broken = place.path("broken.db");
    fs::write(&broken, vec![b'x'; 8192]).unwrap();
    support::settle(&broken);
    place.config(&(database("well", &well.made.db) + &database("old", &old.join("opencode.db"))));
    let said = doctor(&place, 1);
    for expected in [
        "program   version 0.1.0\n",
        "service   none is running\n",
        "source    well\n",
        "ok        1 session, archived ones and children too, read in ",
        "source    old\n",
        "WRONG     there is no database at ",
        "storage/session: starting OpenCode 1.2 to 1.15 imports them\n",
    ] {
        assert!(said.contains(expected), "{expected:?}: {said}");
    }
    place.config(&(database("well", &well.made.db) + &database("broken", &broken)));
    let said = doctor(&place, 1);
    let expected = format!(
        "WRONG     cannot read {}: it does not begin like",
        broken.display()
    );
    assert!(said.contains(&expected), "{said}");
    assert!(
        said.contains("ok        1 session,"),
        "the other one is well: {said}"
    );
    place.config("x");
    let said = doctor(&place, 1);
    assert!(said.contains("config.toml:1: invalid TOML: "), "{said}");
    place.config(&(database("well", &well.made.db) + &remote("far", &well.words(), "90m")));
    let said = doctor(&place, 0);
    assert!(said.contains("asked     every 1h 30m\n"), "{said}");
    // What is only looked for may be missing, or nowhere.
    for (variable, expected) in [
        ("opencode.db", "missing   OPENCODE_DB names "),
        (":memory:", "note      OPENCODE_DB is :memory:"),
    ] {
        let output = place
            .command(&["doctor"])
            .env("OPENCODE_DB", variable)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn doctor_warns_where_the_log_can_be_elsewhere() {
    let _limit = support::limit(60);
    let place = Place::new();
    let machine = Machine::new(&["ses_1"]);
    let live = &machine.made.db;
    let (closed, mount, hard, link) = (
        place.path("closed.db"),
        place.path("mount.db"),
        place.path("hard.db"),
        place.path("link.db"),
    );
    copy_of(&["ses_1"], &closed);
    fs::write(&mount, "").unwrap();
    std::os::unix::fs::symlink(live, &link).unwrap();
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let doctor = |db: &Path| place.command(&["doctor", "--db", db.to_str().unwrap()]);
    let warning = "warning   the log of this database can be elsewhere";
    match mounted(live, &mount, &doctor(&mount)) {
        Some(mut mounted) => assert!(said(&mut mounted).contains(warning)),
        None => eprintln!("skipped: private mounts, which cannot be made here"),
    }
    fs::hard_link(live, &hard).unwrap();
    // Twice: the first listing leaves an empty log.
    for (db, expected) in [
        (&hard, true),
        (&hard, true),
        (&closed, false),
        (live, false),
        (&link, false),
    ] {
        let said = said(&mut doctor(db));
        assert_eq!(said.contains(warning), expected, "{}: {said}", db.display());
    }
}

/// What the doctor says, who ends with this status.
fn doctor(place: &Place, status: i32) -> String {
    let output = place.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
