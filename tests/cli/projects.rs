//! Projects of sessions whose directories are on disks that do not answer.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use wait_timeout::ChildExt as _;

use crate::support::{self, Host, Made, preload, serve, text};

/// A database whose sessions are of these directories.
fn made_of(directories: &[impl AsRef<Path>]) -> Made {
    let made = Made::new();
    add(&made, "ses", directories);
    made
}

fn add(made: &Made, prefix: &str, directories: &[impl AsRef<Path>]) {
    for (n, directory) in directories.iter().enumerate() {
        let id = format!("{prefix}_{n}");
        made.session(&id, 1_000 - i64::try_from(n).unwrap());
        let update = "UPDATE session SET directory = ?1 WHERE id = ?2";
        let directory = directory.as_ref().to_str().unwrap();
        made.conn.execute(update, (directory, &id)).unwrap();
    }
}

fn repository(at: &Path) {
    fs::create_dir_all(at.join(".git")).unwrap();
    fs::create_dir_all(at.join("deep")).unwrap();
    fs::write(at.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
}

fn projects(output: &Output) -> Vec<String> {
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let sessions = lines.lines().map(serde_json::from_str::<Value>);
    let mut sessions: Vec<_> = sessions
        .map(|session| text(&session.unwrap()["project"]))
        .collect();
    sessions.sort();
    sessions
}

fn list(databases: &[&Made], deadline: &str, disk: &preload::Library) -> Command {
    let mut list = list_of(databases, deadline);
    list.env("LD_PRELOAD", disk.path());
    list
}

fn list_of(databases: &[&Made], deadline: &str) -> Command {
    let mut list = support::command(support::sessions());
    list.args([
        "list",
        "--format",
        "ndjson",
        "--no-service",
        "--deadline",
        deadline,
    ]);
    for made in databases {
        list.arg("--db").arg(&made.db);
    }
    list
}

#[test]
fn dead_directories_delay_only_themselves() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let at = place.path().canonicalize().unwrap();
    let disk = preload::Library::of("hanging_disk.c");
    let mut directories: Vec<_> = (0..8)
        .map(|n| at.join(format!("dead-disk/{n}/deep")))
        .collect();
    let mut expected = directories.clone();
    for n in 0..8 {
        repository(&at.join(format!("repository {n}")));
        // Also one after another in time and by name.
        directories.insert(n * 2, at.join(format!("repository {n}/deep")));
        expected.push(at.join(format!("repository {n}")));
    }
    let made = made_of(&directories);
    let started = Instant::now();
    let output = list(&[&made], "15s", &disk).output().unwrap();
    let took = started.elapsed();
    let mut expected: Vec<_> = expected
        .iter()
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    expected.sort();
    assert_eq!(projects(&output), expected);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn many_dead_directories_share_one_deadline() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let at = place.path().canonicalize().unwrap();
    let disk = preload::Library::of("hanging_disk.c");
    repository(&at.join("repository"));
    let databases: Vec<_> = (0..20)
        .map(|n| {
            let dead = at.join(format!("dead-disk {n}/deep"));
            made_of(&[dead, at.join("repository/deep")])
        })
        .collect();
    for (n, made) in databases.iter().enumerate() {
        made.run(&format!("UPDATE session SET id = id || '_{n}'"));
    }
    let databases: Vec<_> = databases.iter().collect();
    let started = Instant::now();
    let output = list(&databases, "3s", &disk).output().unwrap();
    let took = started.elapsed();
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    let projects = projects(&output);
    assert_eq!(projects.len(), 40, "{output:?}");
    let repository = at.join("repository");
    let found = projects
        .iter()
        .filter(|found| Path::new(found) == repository);
    assert_eq!(found.count(), 20, "{projects:?}");
}

/// Where there is a worktree, too, and whoever is asked.
#[test]
fn missing_directories_are_reported_as_gone() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let at = place.path().canonicalize().unwrap();
    let names = [
        "there",
        "gone",
        "file/below",
        "worktree",
        "gone-worktree",
        "workspace",
        // Of this one the system says neither.
        "loop",
    ];
    let made = made_of(&names.map(|name| at.join(name)));
    fs::write(at.join("file"), "").unwrap();
    std::os::unix::fs::symlink("loop", at.join("loop")).unwrap();
    fs::create_dir(at.join("there")).unwrap();
    fs::create_dir(at.join("worktree")).unwrap();
    let insert = "INSERT INTO project VALUES ('p', ?1, 'git', NULL, 1, 1, '[]')";
    let worktree = at.join("worktree");
    made.conn.execute(insert, [worktree.to_str()]).unwrap();
    made.run("UPDATE session SET project_id = 'p' WHERE id IN ('ses_3', 'ses_4')");
    made.run("UPDATE session SET workspace_id = 'wrk_1' WHERE id = 'ses_5'");
    let gone = |sessions: &mut dyn Iterator<Item = Value>| {
        let gone = sessions.filter(|session| session["gone"] == true);
        let mut gone: Vec<_> = gone.map(|session| text(&session["id"])).collect();
        gone.sort();
        gone
    };
    let listed = || {
        let output = list_of(&[&made], "30s").output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        gone(
            &mut lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap()),
        )
    };
    assert_eq!(listed(), ["ses_1", "ses_2", "ses_4"]);
    let mut host = Host::well(&mut serve(&made.db, &made.directory.path().join("state")));
    let known = gone(&mut host.model.sessions.values().cloned());
    assert_eq!(known, ["ses_1", "ses_2", "ses_4"]);
    host.leave();
    host.end();
    fs::create_dir(at.join("gone")).unwrap();
    fs::remove_dir(at.join("there")).unwrap();
    assert_eq!(listed(), ["ses_0", "ses_2", "ses_4"]);
}

/// What a program printed. It is killed where that takes longer than this.
fn output_within(command: &mut Command, patience: Duration) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = child.wait_timeout(patience).unwrap();
    if status.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(status.is_some(), "not done after {patience:?}: {output:?}");
    output
}

#[test]
fn project_filter_on_a_dead_disk_ends_at_the_deadline() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let at = place.path().canonicalize().unwrap();
    let disk = preload::Library::of("hanging_disk.c");
    let made = made_of(&[at.join("repository/deep")]);
    for dead in ["dead-disk/project", "hanging-disk/project"] {
        let dead = at.join(dead);
        let started = Instant::now();
        let mut command = list(&[&made], "1s", &disk);
        let command = command.arg("--project").arg(&dead);
        let output = output_within(command, Duration::from_secs(20));
        let took = started.elapsed();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(output.stdout.is_empty(), "{error}");
        let expected = format!(
            "opencode-sessions: cannot find the project of --project {}: its disk did not answer \
             within 1s (check the disk, or list without --project)\n",
            dead.display()
        );
        assert_eq!(error, expected);
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}

#[test]
fn project_filter_waits_for_a_slow_disk() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let at = place.path().canonicalize().unwrap();
    let disk = preload::Library::of("hanging_disk.c");
    repository(&at.join("slow-disk"));
    let made = made_of(&[at.join("slow-disk"), at.join("other")]);
    let mut command = list(&[&made], "15s", &disk);
    let command = command.arg("--project").arg(at.join("slow-disk/deep"));
    let output = output_within(command, Duration::from_secs(40));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        projects(&output),
        [at.join("slow-disk").to_str().unwrap()],
        "{output:?}"
    );
}

#[test]
fn service_leaves_no_threads_at_a_dead_disk() {
    let _limit = support::limit(60);
    let place = tempfile::tempdir().unwrap();
    let at = place.path().canonicalize().unwrap();
    let disk = preload::Library::of("hanging_disk.c");
    repository(&at.join("repository"));
    let mut directories: Vec<_> = (0..6).map(|n| at.join(format!("dead-disk/{n}"))).collect();
    directories.push(at.join("repository/deep"));
    let made = made_of(&directories);
    let mut command = serve(&made.db, &made.directory.path().join("state"));
    let mut host = Host::well(command.env("LD_PRELOAD", disk.path()));
    let project = |host: &Host, id: &str| text(&host.model.sessions[id]["project"]);
    let repository_text = at.join("repository").to_str().unwrap().to_owned();
    assert_eq!(project(&host, "ses_6"), repository_text);
    let threads = |host: &Host| {
        let tasks = fs::read_dir(format!("/proc/{}/task", host.pid()));
        tasks.unwrap().count()
    };
    let get = |host: &mut Host, n: usize| {
        let ask = format!(
            "{{\"type\":\"get\",\"ids\":[\"ses_{}\",\"ses_6\"],\"id\":\"q{n}\"}}\n",
            n % 6
        );
        host.say(ask.as_bytes());
        host.until("the answer", |model| {
            model.events.last().unwrap()["id"] == format!("q{n}")
        });
        let answers = host.model.events.last().unwrap()["answers"].clone();
        host.model.events.push(serde_json::json!({"type": "none"}));
        assert_eq!(answers[0]["type"], "session", "{answers}");
        assert_eq!(text(&answers[1]["project"]), repository_text);
    };
    for n in 0..6 {
        get(&mut host, n);
    }
    let before = threads(&host);
    let since = Instant::now();
    for n in 6..30 {
        get(&mut host, n);
    }
    assert!(threads(&host) <= before + 2, "{before} {}", threads(&host));
    assert!(
        since.elapsed() < Duration::from_secs(12),
        "{:?}",
        since.elapsed()
    );
    // A new directory is found all the same, and what was found stays.
    repository(&at.join("new"));
    add(&made, "new", &[at.join("new/deep")]);
    host.until("the session", |model| model.sessions.contains_key("new_0"));
    assert_eq!(Path::new(&project(&host, "new_0")), at.join("new"));
    assert_eq!(project(&host, "ses_6"), repository_text);
}
