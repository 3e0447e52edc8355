//! Sources that are commands, which run the helper elsewhere.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use opencode_sessions::internals::wire::STDIN_ENDED;
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{ListRequest, Lister, Outcome};
use opencode_sessions::source::Remote;
use rustix::process::{Pid, Signal};
use serde_json::json;

use crate::place::{
    Machine, Place, SHELL, database, ids, is_alive, remote, stderr, stdout, wait_until,
};
use crate::support::sshd::Sshd;
use crate::support::{self, Host, Made};

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
fn command_source_lists_like_any_other() {
    let _limit = support::limit(60);
    speaks(&[]);
}

#[test]
fn command_source_works_through_a_shell() {
    let _limit = support::limit(60);
    speaks(&SHELL.map(str::to_owned));
}

#[test]
fn command_source_works_through_a_real_sshd() {
    let _limit = support::limit(120);
    let Some(sshd) = Sshd::start() else {
        support::skip("OpenSSH: there is no server here; a shell stands for it");
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
        said.contains("exited with status 255 before the helper printed anything"),
        "{said}"
    );
}

/// A command that never reaches the helper fails with what stopped it and what to do about it.
#[test]
fn command_failure_names_its_cause_and_the_way_out() {
    let _limit = support::limit(60);
    let place = Place::new();
    let lister = support::lister().display();
    let banner = "the command printed \"Welcome to devbox!\" before the helper's output: only the \
        helper may write to standard output; if a shell's start-up file prints a greeting, let it \
        do so on a terminal only (`[ -t 1 ] || return`)";
    let not_found = "the command exited with status 127 before the helper printed anything: check \
        that opencode-lister is installed there and in the PATH of a non-interactive shell, or \
        give its full path; stderr: sh: opencode-lister: not found";
    for (name, text, expected) in [
        ("motd", format!("echo 'Welcome to devbox!'; exec {lister} \"$@\""), banner),
        ("not-found", "echo 'sh: opencode-lister: not found' >&2; exit 127".to_owned(), not_found),
        (
            "refused",
            "echo 'ssh: connect to host devbox port 22: Connection refused' >&2; exit 255".to_owned(),
            "the command exited with status 255 before the helper printed anything; stderr: ssh: \
             connect to host devbox port 22: Connection refused",
        ),
        (
            "newer",
            "echo '{\"type\":\"hello\",\"protocol\":2,\"lister\":\"9.9.9\"}'".to_owned(),
            concat!(
                "invalid helper output: the helper is version 9.9.9 (protocol 2) and this program \
                 is version ",
                env!("CARGO_PKG_VERSION"),
                " (protocol 1): install both programs from one version"
            ),
        ),
        (
            "older",
            "echo '{\"type\":\"hello\",\"protocol\":1,\"lister\":\"0.0.1\"}'\n\
             echo '{\"type\":\"error\",\"kind\":\"usage\",\"message\":\"unexpected argument\"}'; exit 2"
                .to_owned(),
            concat!(
                "unexpected argument; the helper is version 0.0.1 and this program is version ",
                env!("CARGO_PKG_VERSION"),
                " (protocol 1): install both programs from one version"
            ),
        ),
        (
            "silent",
            "exit 0".to_owned(),
            "the command exited with status 0 before the helper printed anything: check that it \
             runs opencode-lister and forwards its output",
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
            "'no such program': not found in PATH; install it, or give its full path",
        ),
        (
            "~/lister",
            "~/lister: no such file (~ and $ are not expanded in a command)",
        ),
        (
            "/etc/passwd",
            "/etc/passwd: permission denied (check its execute permission)",
        ),
    ] {
        place.config(&remote("devbox", &[program.to_owned()], "15s"));
        assert_eq!(
            stderr(&place.run(&["list"])),
            format!("opencode-sessions: cannot start the command {why}\n")
        );
    }
    let hangs = place.misbehaving("hangs-before-output");
    place.config(&remote("devbox", &[hangs], "15s"));
    let said = place.run(&["list", "--deadline", "300ms"]);
    for part in [
        "the command printed nothing within ",
        " and was killed (is it waiting for a password",
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
    let expected = "opencode-sessions: devbox has no database (run OpenCode there once, or name \
        another database with `db` in the configuration)\n";
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
fn command_without_stdin_is_reported_as_such() {
    let _limit = support::limit(120);
    let sentence = "the command does not forward standard input, so the helper exited: use \
        `docker exec -i` or `kubectl exec -i`, or ssh without -n";
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
fn helper_ends_at_once_when_stdin_ends() {
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
fn command_stderr_in_utf16_is_readable() {
    let _limit = support::limit(60);
    let place = Place::new();
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| {
        text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
    };
    let no_hello = "the command exited with status 255 before the helper printed anything";
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
                        format!("the command failed before the helper printed anything: {shown}"),
                    ),
                    (
                        format!("{cat} >&2; exit 255"),
                        format!("{no_hello}; stderr: {shown}"),
                    ),
                    (
                        format!("echo Welcome. >&2; {cat} >&2; exit 255"),
                        format!("{no_hello}; stderr: {shown}"),
                    ),
                    (
                        format!("{cat} >&2; echo 'And more: naïve.' >&2; exit 255"),
                        format!("{no_hello}; stderr: And more: naïve."),
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
        let expected = format!("opencode-sessions: {no_hello}; stderr: 没有分发。\n");
        assert_eq!(stderr(&place.run(&["list"])), expected, "{length}");
    }
}

#[test]
fn command_may_send_less_than_a_local_helper() {
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
    let refused = "opencode-sessions: invalid helper output: output is larger than \
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

/// No argument contains anything that a shell could interpret.
#[test]
fn command_arguments_need_no_shell_quoting() {
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
fn directories_of_another_machine_are_not_inspected() {
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
fn workspace_session_has_no_local_git_root() {
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
fn command_dies_with_its_service_however_that_ends() {
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
