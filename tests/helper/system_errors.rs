//! What the system refuses when a database is opened, and what is said of it: the true
//! cause, the file that it is about, and no way out that is not there. Linux: the
//! system's refusals are made by a library that is loaded before its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use crate::support::preload::Library;
use crate::support::{self, Made, command, complete, lines, lister, sessions};

/// A call that fails.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    call: &'static str,
    /// How the file's path ends.
    path: &'static str,
    errno: i32,
    /// The first call that fails, and how many do.
    from: u32,
    times: u32,
}

impl Refusal {
    const ALWAYS: u32 = 1_000_000;

    fn of(call: &'static str, path: &'static str, errno: i32) -> Self {
        Self {
            call,
            path,
            errno,
            from: 1,
            times: Self::ALWAYS,
        }
    }

    fn output(self, library: &Library, program: &Path, args: &[&str], db: &Path) -> Output {
        let _ = fs::remove_file(library.beside("log"));
        let mut command = command(program);
        command.args(args).arg("--db").arg(db);
        command.env("LD_PRELOAD", library.path());
        command.env("FAIL_LOG", library.beside("log"));
        command
            .env("FAIL_CALL", self.call)
            .env("FAIL_PATH", self.path);
        command.env("FAIL_ERRNO", self.errno.to_string());
        command.env("FAIL_FROM", self.from.to_string());
        command.env("FAIL_TIMES", self.times.to_string());
        command.output().unwrap()
    }

    /// What the helper says.
    fn helper(self, library: &Library, db: &Path) -> Output {
        self.output(library, lister(), &["--busy-timeout=50"], db)
    }
}

/// A database in WAL mode with something in its log.
fn database() -> Made {
    let made = Made::new();
    made.session("ses_a", 1);
    made
}

/// The options that a text names.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let named = words.filter(|word| word.starts_with("--") && word.len() > 2);
    named.map(str::to_owned).collect()
}

fn options_of(program: &Path, args: &[&str]) -> BTreeSet<String> {
    let output = command(program).args(args).output().unwrap();
    options(&String::from_utf8(output.stdout).unwrap())
}

/// The kind and the message of a listing that must fail, about this database.
fn failure(output: &Output, what: &str) -> (String, String) {
    let last = lines(output).pop().unwrap();
    assert_eq!(last["type"], "error", "{what}: {last}");
    assert_eq!(output.status.code(), Some(1), "{what}: {last}");
    let text = |field: &str| last[field].as_str().unwrap().to_owned();
    let (kind, message) = (text("kind"), text("message"));
    assert!(message.contains("opencode.db"), "{what}: {message}");
    (kind, message)
}

/// Where the disk, or the room on it, is the cause.
fn is_of_the_disk(errno: i32) -> bool {
    [libc::EIO, libc::ENOSPC].contains(&errno)
}

fn assert_true_cause(refusal: Refusal, message: &str) {
    let message = message.to_lowercase();
    if !is_of_the_disk(refusal.errno) {
        assert!(!message.contains("disk"), "{refusal:?}: {message}");
    }
    assert!(!message.contains("damaged"), "{refusal:?}: {message}");
}

/// What a refusal to open anything is, by its number.
const OPENING: [(i32, &[&str]); 13] = [
    (libc::EACCES, &["permission"]),
    (libc::EPERM, &["permission"]),
    (libc::EIO, &["io"]),
    (libc::EMFILE, &["io"]),
    (libc::ENFILE, &["io"]),
    (libc::ENOMEM, &["out_of_memory"]),
    (libc::ELOOP, &["io"]),
    (libc::ENAMETOOLONG, &["io"]),
    (libc::ESTALE, &["io"]),
    (libc::ENOSPC, &["io"]),
    (libc::EROFS, &["io", "permission"]),
    (libc::EOVERFLOW, &["io"]),
    (libc::ENXIO, &["io"]),
];

#[test]
fn refused_open_of_the_database_names_the_cause() {
    let _limit = support::limit(120);
    let library = Library::of("failing_calls.c");
    let made = database();
    for (errno, kinds) in OPENING {
        // To look at it, and then by SQLite, which tells less of why.
        for from in [1, 2] {
            let refusal = {
                let mut refusal = Refusal::of("open", "opencode.db", errno);
                refusal.from = from;
                refusal
            };
            let (kind, message) =
                failure(&refusal.helper(&library, &made.db), &format!("{refusal:?}"));
            let is = kinds.contains(&&*kind) || from == 2 && kind == "io";
            assert!(is, "{refusal:?}: {kind}, {message}");
            assert_true_cause(refusal, &message);
        }
    }
}

/// Or its directory, where that is the cause.
#[test]
fn refused_open_of_the_wal_index_names_it() {
    let _limit = support::limit(120);
    let library = Library::of("failing_calls.c");
    let made = database();
    for (errno, kinds) in OPENING {
        let refusal = Refusal::of("open", "opencode.db-shm", errno);
        let output = refusal.helper(&library, &made.db);
        // The log may be read without it.
        if output.status.success() {
            assert_eq!(complete(&output).0.len(), 1);
            continue;
        }
        let (kind, message) = failure(&output, &format!("{refusal:?}"));
        assert!(
            kinds.contains(&&*kind) || kind == "io",
            "{refusal:?}: {kind}, {message}"
        );
        if [libc::EACCES, libc::EPERM, libc::EROFS].contains(&errno) {
            assert_eq!(kind, "permission", "{refusal:?}: {message}");
        }
        let names = ["-shm", "director"]
            .iter()
            .any(|name| message.contains(name));
        assert!(names, "{refusal:?}: {message}");
        assert_true_cause(refusal, &message);
    }
}

#[test]
fn refused_open_of_the_log_names_it() {
    let _limit = support::limit(120);
    let library = Library::of("failing_calls.c");
    let made = database();
    for (errno, kinds) in OPENING {
        let refusal = Refusal::of("open", "opencode.db-wal", errno);
        let (kind, message) = failure(&refusal.helper(&library, &made.db), &format!("{refusal:?}"));
        assert!(
            kinds.contains(&&*kind) || kind == "io",
            "{refusal:?}: {kind}, {message}"
        );
        let names = ["-wal", "log", "director"]
            .iter()
            .any(|name| message.contains(name));
        assert!(names, "{refusal:?}: {message}");
        assert_true_cause(refusal, &message);
    }
}

#[test]
fn path_through_a_file_is_a_missing_database() {
    let _limit = support::limit(60);
    let library = Library::of("failing_calls.c");
    let made = database();
    let refusal = Refusal::of("open", "opencode.db", libc::ENOTDIR);
    let (sessions, end) = complete(&refusal.helper(&library, &made.db));
    assert_eq!((sessions.len(), &end["database"]), (0, &"missing".into()));
}

#[test]
fn refused_read_of_the_database_names_the_cause() {
    let _limit = support::limit(120);
    let library = Library::of("failing_calls.c");
    for journal in ["wal", "delete"] {
        let made = database();
        let mode = format!("PRAGMA journal_mode = {journal}");
        made.conn.query_row(&mode, [], |_| Ok(())).unwrap();
        made.conn.close().unwrap();
        support::settle(&made.db);
        for (errno, kinds) in [
            (libc::EIO, &["io"][..]),
            (libc::ESTALE, &["io"]),
            (libc::ENOMEM, &["out_of_memory", "io"]),
            (libc::EOVERFLOW, &["io"]),
            (libc::EACCES, &["permission", "io"]),
            (libc::EPERM, &["permission", "io"]),
        ] {
            // The header, what SQLite reads first, and later pages.
            for from in [1, 2, 3, 4] {
                let refusal = {
                    let mut refusal = Refusal::of("read", "opencode.db", errno);
                    refusal.from = from;
                    refusal
                };
                let output = refusal.helper(&library, &made.db);
                // Only what is optional was read so late.
                if from > 2 && output.status.success() {
                    assert_eq!(complete(&output).0.len(), 1);
                    continue;
                }
                let (kind, message) = failure(&output, &format!("{refusal:?}, {journal}"));
                assert!(
                    kinds.contains(&&*kind),
                    "{refusal:?}, {journal}: {kind}, {message}"
                );
                assert_true_cause(refusal, &message);
            }
        }
    }
}

#[test]
fn refused_lock_names_the_cause() {
    let _limit = support::limit(120);
    let places = [
        ("wal", "opencode.db"),
        ("wal", "opencode.db-shm"),
        ("delete", "opencode.db"),
    ];
    let errors = [
        (libc::ENOLCK, &["io", "busy"][..]),
        (libc::EDEADLK, &["io", "busy"]),
        (libc::EIO, &["io"]),
        (libc::ESTALE, &["io"]),
        (libc::EPERM, &["permission", "io"]),
        (libc::ENOSYS, &["io", "busy"]),
    ];
    // SQLite tries a lock of a wal-index again for ten seconds: all at once.
    std::thread::scope(|scope| {
        for (journal, path) in places {
            for (errno, kinds) in errors {
                scope.spawn(move || refused_lock(journal, path, errno, kinds));
            }
        }
    });
}

fn refused_lock(journal: &str, path: &'static str, errno: i32, kinds: &[&str]) {
    let library = Library::of("failing_calls.c");
    let made = database();
    let mode = format!("PRAGMA journal_mode = {journal}");
    made.conn.query_row(&mode, [], |_| Ok(())).unwrap();
    // Whatever else this process opens and closes, a lock of its own is not asked for.
    made.conn.close().unwrap();
    if journal == "delete" {
        support::settle(&made.db);
    }
    let refusal = Refusal::of("lock", path, errno);
    let output = refusal.helper(&library, &made.db);
    let (kind, message) = failure(&output, &format!("{refusal:?}, {journal}"));
    let is = kinds.contains(&&*kind) || path.ends_with("-shm") && kind == "busy";
    assert!(is, "{refusal:?}, {journal}: {kind}, {message}");
    assert_true_cause(refusal, &message);
    // Nobody holds one.
    let claims = ["by another program", "held by"]
        .iter()
        .find(|words| message.contains(**words));
    assert_eq!(claims, None, "{refusal:?}, {journal}: {message}");
}

/// A signal came meanwhile: it is tried again.
#[test]
fn interrupted_call_is_retried() {
    let _limit = support::limit(120);
    let library = Library::of("failing_calls.c");
    let made = database();
    for call in ["open", "read", "lock"] {
        for path in ["opencode.db", "opencode.db-wal", "opencode.db-shm"] {
            // Giving a lock back is not.
            let last = if call == "lock" { 2 } else { 3 };
            for from in 1..=last {
                let refusal = {
                    let mut refusal = Refusal::of(call, path, libc::EINTR);
                    refusal.from = from;
                    refusal.times = 1;
                    refusal
                };
                let output = refusal.output(&library, lister(), &["--busy-timeout=2000"], &made.db);
                let (sessions, _) = complete(&output);
                assert_eq!(sessions.len(), 1, "{refusal:?}");
            }
        }
    }
}

#[test]
fn hints_name_only_existing_options() {
    let _limit = support::limit(180);
    let library = Library::of("failing_calls.c");
    let made = database();
    let of_list = options_of(sessions(), &["list", "--help"]);
    let of_helper = options_of(lister(), &["--help"]);
    assert!(of_list.contains("--deadline") && of_helper.contains("--busy-timeout"));
    for (call, path, errno) in [
        ("open", "opencode.db", libc::EACCES),
        ("open", "opencode.db", libc::EMFILE),
        ("open", "opencode.db", libc::ENOMEM),
        ("open", "opencode.db", libc::EIO),
        ("open", "opencode.db-shm", libc::EACCES),
        ("read", "opencode.db", libc::EIO),
        ("lock", "opencode.db", libc::EACCES),
        ("lock", "opencode.db", libc::EDEADLK),
    ] {
        let refusal = Refusal::of(call, path, errno);
        let output = refusal.helper(&library, &made.db);
        let message = lines(&output).pop().unwrap()["message"].to_string();
        let foreign: Vec<_> = options(&message).difference(&of_helper).cloned().collect();
        assert_eq!(foreign, [""; 0], "{refusal:?}: {message}");
        // A person who lists sees the same sentence, and has other options.
        let output = refusal.output(&library, sessions(), &["list", "--no-service"], &made.db);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{refusal:?}: {said}");
        let foreign: Vec<_> = options(&said).difference(&of_list).cloned().collect();
        assert_eq!(foreign, [""; 0], "{refusal:?}: {said}");
        assert!(said.contains("opencode.db"), "{refusal:?}: {said}");
    }
}

/// That the library does what the tests take for granted.
#[test]
fn undisturbed_listing_is_complete() {
    let _limit = support::limit(30);
    let library = Library::of("failing_calls.c");
    let made = database();
    let refusal = Refusal::of("open", "nothing", libc::EIO);
    assert_eq!(complete(&refusal.helper(&library, &made.db)).0.len(), 1);
    assert!(!library.beside("log").exists());
    let refusal = Refusal::of("open", "opencode.db", libc::EIO);
    refusal.helper(&library, &made.db);
    assert!(library.beside("log").exists());
}
