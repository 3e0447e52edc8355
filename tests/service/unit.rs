//! The units that ship: what they say, the program under the restrictions of the one for
//! systemd, as far as they can be had without a manager, and the unit in a real manager where
//! there is one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

#[cfg(target_os = "linux")]
use crate::support::Host;
use crate::support::{self, ask_at};

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// The settings of a unit; of one that is given twice the last.
fn settings(unit: &str) -> BTreeMap<&str, &str> {
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn unit_restarts_only_what_a_restart_can_mend() {
    let unit = script("systemd/opencode-sessions.service");
    let settings = settings(&unit);
    for (setting, value) in [
        ("Type", "notify"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "2 78"),
        // A host keeps the index for as long as it runs.
        ("StartLimitIntervalSec", "0"),
        ("WatchdogSec", "30"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "read-only"),
        ("PrivateTmp", "yes"),
        ("RuntimeDirectory", "opencode-sessions"),
        ("RuntimeDirectoryPreserve", "yes"),
        (
            "RestrictAddressFamilies",
            "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        ),
    ] {
        assert_eq!(settings.get(setting), Some(&value), "{setting}");
    }
    let seconds: u32 = settings["RestartSec"].parse().unwrap();
    assert!(
        (5..=60).contains(&seconds),
        "neither a loop nor a long wait"
    );
}

/// It finds the commands of sources by that.
#[test]
fn launchd_agent_waits_before_a_restart_and_has_a_path() {
    let plist = script("launchd/io.github.opencode-sessions.plist");
    let after = |key: &str| {
        let (_, rest) = plist.split_once(&format!("<key>{key}</key>")).unwrap();
        rest.trim_start().lines().next().unwrap().trim().to_owned()
    };
    assert_eq!(after("SuccessfulExit"), "<false/>");
    assert_eq!(after("ThrottleInterval"), "<integer>60</integer>");
    assert!(after("PATH").contains("/usr/local/bin"), "docker is there");
}

/// What the unit leaves writable, and everything else read-only.
const RESTRICTED: &str = r#"
mount --make-rprivate / || exit 99
for directory in "$1" "$2" "$3"; do
    mount --bind "$directory" "$directory" || exit 99
done
mount -o remount,bind,ro / || exit 99
mount -t tmpfs tmpfs /var/tmp || exit 99
case "$1" in
    # What is needed is in there.
    /tmp/*) ;;
    *) mount -t tmpfs tmpfs /tmp || exit 99 ;;
esac
shift 3
exec "$@""#;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn unit_restrictions_allow_200000_sessions() {
    const SESSIONS: u64 = 200_000;
    let _limit = support::limit(180);
    // Mostly not in /tmp, which is another one there.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| -> PathBuf { home.path().join(name) };
    for directory in ["data", "state", "run"] {
        fs::create_dir(at(directory)).unwrap();
    }
    let db = at("data/opencode.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = off;
         CREATE TABLE session (id text PRIMARY KEY, directory text, title text, parent_id text,
           time_created integer, time_updated integer, time_archived integer);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {SESSIONS})
         INSERT INTO session SELECT 'ses_' || n, '/home/me/shop', 'Session number ' || n, NULL,
           n, abs(random() % 1000000), NULL FROM n"
    ))
    .unwrap();
    let mut command = support::command(Path::new("unshare"));
    let is_root = rustix::process::geteuid().is_root();
    command
        .arg(if is_root { "-m" } else { "-rm" })
        .args(["sh", "-c", RESTRICTED, "sh"])
        .args([at("data"), at("state"), at("run")])
        .arg(support::sessions())
        .args(["serve", "--db"])
        .arg(&db)
        .arg("--state-dir")
        .arg(at("state"))
        .env("XDG_RUNTIME_DIR", at("run"))
        .env_remove("TMPDIR")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let socket = at("state/socket");
    let limit = Duration::from_secs(120);
    let ended_or_listed = support::within(limit, "the sessions", || {
        if let Some(status) = running.0.try_wait().unwrap() {
            return Some(Err(status));
        }
        let (reply, _) = socket.exists().then(|| ask_at(&socket, "status"))?;
        let source = &reply["status"]["sources"][0];
        assert_ne!(source["health"]["state"], "failing", "{source}");
        let is_listed = reply["status"]["sessions"].as_u64() == Some(SESSIONS);
        is_listed.then(|| Ok(reply["status"].clone()))
    });
    let status = match ended_or_listed {
        Ok(status) => status,
        Err(status) if status.code() == Some(99) || status.code() == Some(1) => {
            support::skip("private mounts: none can be made here");
            return;
        }
        Err(status) => panic!("it ended: {status}"),
    };
    let memory = status["memory"].as_u64().unwrap() >> 20;
    println!("{memory} MiB");
    assert!(memory < 256, "{memory} MiB are more than the unit allows");
    // And they are kept for the next start.
    let index = at("state/index");
    support::eventually(limit, "the index", || {
        fs::metadata(&index).is_ok_and(|about| about.len() >= 1 << 20)
    });
}

/// A manager of user units in namespaces of its own, so that nothing of it is left when its
/// standard input ends: `systemd` must not be process 1 to be one. Arguments: where it says
/// its process id, a new control group, and the program.
#[cfg(target_os = "linux")]
const MANAGER: &str = r#"
mount --make-rprivate / &&
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system &&
mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 99
group=/sys/fs/cgroup/$2
mkdir "$group" || exit 99
sh -c 'echo $$ > "$1/cgroup.procs" && echo $$ > "$2" || exit 99; shift 2; exec "$@"' \
    sh "$group" "$1" unshare --pid --fork --kill-child --mount-proc \
    sh -c '"$1" --user --log-target=console --unit=basic.target < /dev/null & cat > /dev/null' \
    sh "$3"
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    find "$group" -depth -type d -exec rmdir {} + && break
    sleep 0.1
done"#;

/// See [`MANAGER`].
#[cfg(target_os = "linux")]
struct Manager {
    home: tempfile::TempDir,
    child: Child,
}

#[cfg(target_os = "linux")]
impl Manager {
    const UNIT: &str = "opencode-sessions.service";

    /// `None`, and said why, where there is none to be had.
    fn start(home: tempfile::TempDir) -> Option<Self> {
        let skipped = |why: &str| {
            support::skip(&format!("systemd: {why}"));
            None
        };
        let programs = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
        let Some(program) = programs.iter().find(|program| Path::new(program).exists()) else {
            return skipped(
                "it is not installed (Debian: apt-get install --no-install-recommends systemd)",
            );
        };
        if !rustix::process::geteuid().is_root() {
            return skipped("only root has mounts of its own");
        }
        let [_, (_, run)] = environment(home.path());
        let socket = run.join("systemd/private");
        if socket.as_os_str().len() > 107 {
            return skipped("the path is too long for a socket");
        }
        let group = format!("opencode-sessions-test-{}", std::process::id());
        let log = fs::File::create(home.path().join("manager.log")).unwrap();
        let mut command = support::command(Path::new("unshare"));
        command
            .args(["--mount", "sh", "-c", MANAGER, "sh"])
            .args([home.path().join("manager"), group.into(), program.into()])
            .envs(environment(home.path()))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut manager = Self { home, child };
        let until = Instant::now() + Duration::from_secs(20);
        let runs = support::wait_for("the manager", || {
            let state = manager.ctl(&["is-system-running"]).1;
            let runs = ["running", "degraded"].contains(&state.as_str());
            let is_over = manager.child.try_wait().unwrap().is_some() || Instant::now() > until;
            (runs || is_over).then_some(runs)
        });
        if !runs {
            let log = fs::read_to_string(manager.home.path().join("manager.log")).unwrap();
            eprintln!("{log}");
            return skipped("it does not start");
        }
        Some(manager)
    }

    /// The exit status of `systemctl`, and what it printed.
    fn ctl(&self, args: &[&str]) -> (Option<i32>, String) {
        let pid = fs::read_to_string(self.home.path().join("manager")).unwrap_or_default();
        let namespaces = format!("/proc/{}/ns", pid.trim());
        let output = support::command(Path::new("nsenter"))
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .args(["timeout", "30", "systemctl", "--user"])
            .args(args)
            .envs(environment(self.home.path()))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said.trim().to_owned())
    }

    #[track_caller]
    fn well(&self, args: &[&str]) -> String {
        let (status, said) = self.ctl(args);
        assert_eq!(status, Some(0), "{args:?}: {said}\n{}", self.log());
        said
    }

    /// This property of the unit.
    fn show(&self, property: &str) -> String {
        self.well(&["show", Self::UNIT, "--value", "--property", property])
    }

    fn log(&self) -> String {
        self.ctl(&["status", Self::UNIT, "--no-pager", "--full"]).1
    }

    /// Settings beside those of the unit, from now on.
    fn with(&self, settings: &str) {
        let directory = self.home.path().join(".config/systemd/user");
        let directory = directory.join(format!("{}.d", Self::UNIT));
        fs::create_dir_all(&directory).unwrap();
        let settings = format!("[Service]\nRestartSec=500ms\n{settings}\n");
        fs::write(directory.join("test.conf"), settings).unwrap();
        self.well(&["daemon-reload"]);
    }

    /// Waits until the unit runs as another process than this one, which is the one that
    /// answers, and returns that.
    #[track_caller]
    fn until_another_than(&self, old: &str) -> String {
        let socket = self.home.path().join("run/opencode-sessions/socket");
        support::wait_for("the service", || {
            let pid = self.show("MainPID");
            let is_active = self.show("ActiveState") == "active" && pid != old;
            if !is_active || std::os::unix::net::UnixStream::connect(&socket).is_err() {
                return None;
            }
            let (reply, _) = ask_at(&socket, "status");
            let answers = reply["status"]["pid"].to_string();
            (answers == pid).then_some(pid)
        })
    }

    /// Waits until the unit has failed with this exit status; it must not be started again.
    #[track_caller]
    fn until_failed(&self, exit_status: &str) {
        support::wait_for("the failure", || {
            (self.show("ActiveState") == "failed").then_some(())
        });
        assert_eq!(self.show("ExecMainStatus"), exit_status);
        // Four times as long as the manager waits before a restart.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(self.show("ActiveState"), "failed", "{}", self.log());
        assert_eq!(self.show("NRestarts"), "0");
    }
}

#[cfg(target_os = "linux")]
impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[cfg(target_os = "linux")]
fn environment(home: &Path) -> [(&'static str, PathBuf); 2] {
    [
        ("HOME", home.to_owned()),
        ("XDG_RUNTIME_DIR", home.join("run").canonicalize().unwrap()),
    ]
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_keeps_the_unit_running_beside_a_host() {
    let _limit = support::limit(180);
    // Not in /tmp, which is another one for the unit.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| home.path().join(name);
    // As the unit's first lines say.
    for directory in [
        ".cargo/bin",
        ".config/systemd/user",
        ".local/share/opencode",
        ".local/state/opencode-sessions",
    ] {
        fs::create_dir_all(at(directory)).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(at(directory), private).unwrap();
    }
    // In memory, as a user's is: systemd removes no directory of a disk.
    let memory = Path::new("/dev/shm");
    let run = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir_in(home.path()),
    };
    let run = run.unwrap();
    std::os::unix::fs::symlink(run.path(), at("run")).unwrap();
    // Another process copies them: what is open for writing here cannot be run.
    let status = support::command(Path::new("/bin/sh"))
        .args([
            "-c",
            r#"ln "$1" "$2" "$3" 2> /dev/null || cp "$1" "$2" "$3""#,
            "sh",
        ])
        .args([support::sessions(), support::lister()])
        .arg(at(".cargo/bin"))
        .status()
        .unwrap();
    assert!(status.success());
    let unit = script("systemd/opencode-sessions.service");
    fs::write(at(".config/systemd/user").join(Manager::UNIT), unit).unwrap();
    let conn = Connection::open(at(".local/share/opencode/opencode.db")).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = wal; {} INSERT INTO session (id, project_id, slug, directory, \
         title, version, time_created, time_updated) \
         VALUES ('ses_1', 'global', 's', '/work', 'before', '1', 1, 1)",
        support::SCHEMA
    ))
    .unwrap();
    let rename = |title: &str| {
        let update = "UPDATE session SET title = ?1, time_updated = time_updated + 1";
        conn.execute(update, [title]).unwrap();
    };
    let shows = |host: &mut Host, title: &str| {
        host.until(title, |model| {
            let session = model.sessions.get("ses_1");
            session.is_some_and(|session| session["title"] == title)
        });
    };
    let config = at(".config/opencode-sessions/config.toml");
    let of_the_unit = run.path().join("opencode-sessions");
    let mut command = support::command(support::sessions());
    command
        .args(["serve", "--stdio"])
        .envs(environment(home.path()));
    let Some(manager) = Manager::start(home) else {
        return;
    };
    manager.with("");
    manager.well(&["start", Manager::UNIT]);
    let first = manager.until_another_than("0");

    // It is started again, and a host that comes then gets its events.
    let kill = ["kill", "--signal=KILL", "--kill-who=main", Manager::UNIT];
    manager.well(&kill);
    let second = manager.until_another_than(&first);
    assert_eq!(manager.show("NRestarts"), "1");
    let mut host = Host::well(&mut command);
    assert_eq!(host.model.events[0]["pid"].to_string(), second);
    rename("with a service");
    shows(&mut host, "with a service");

    // The host goes on when the service is killed, is found where that was, and gives the
    // index back at its end.
    let in_its_directory = of_the_unit.join("kept");
    fs::write(&in_its_directory, "").unwrap();
    manager.well(&kill);
    rename("without a service");
    shows(&mut host, "without a service");
    support::wait_for("the service to try again and again", || {
        (manager.show("NRestarts").parse::<u32>().unwrap() > 3).then_some(())
    });
    assert!(in_its_directory.exists(), "the directory was made again");
    let (reply, _) = ask_at(&of_the_unit.join("socket"), "status");
    assert_eq!(reply["status"]["pid"], host.pid());
    host.leave();
    assert_eq!(host.end().0.code(), Some(0));
    let third = manager.until_another_than(&second);

    // It says that it lists again, which a reload waits for.
    manager.well(&["reload", Manager::UNIT]);
    assert_eq!(manager.show("MainPID"), third);
    // One that stands still is ended and started again.
    manager.with("WatchdogSec=5");
    manager.well(&["restart", Manager::UNIT]);
    let fourth = manager.until_another_than(&third);
    manager.well(&["kill", "--signal=STOP", "--kill-who=main", Manager::UNIT]);
    manager.until_another_than(&fourth);

    // What cannot be mended by that is not tried again.
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "not = [toml").unwrap();
    manager.ctl(&["restart", Manager::UNIT]);
    manager.until_failed("78");
    fs::remove_file(&config).unwrap();
    manager.with("ExecStart=\nExecStart=%h/.cargo/bin/opencode-sessions serve --unknown");
    manager.ctl(&["restart", Manager::UNIT]);
    manager.until_failed("2");
    manager.with("");
    manager.well(&["restart", Manager::UNIT]);
    manager.until_another_than("0");
    // It ends in order.
    manager.well(&["stop", Manager::UNIT]);
    assert_eq!(manager.show("Result"), "success");
    assert_eq!(manager.show("ExecMainStatus"), "0");
}
