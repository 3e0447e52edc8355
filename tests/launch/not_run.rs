//! Helpers that cannot be run, and where the helper is found.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use opencode_sessions::internals::wire::LookUp;
use opencode_sessions::launch::ProcessLister;
use opencode_sessions::lister::{FailureReason, ListRequest, Lister, LookUpRequest, Outcome};
use opencode_sessions::session::SessionId;

use crate::common::{LONG, broken, listing, timely};
use crate::support::{self, Made};

// ---- A helper that cannot be run.

#[track_caller]
fn breakage_of(lister: &Path) -> FailureReason {
    let lister = ProcessLister::at(lister);
    broken(timely(&lister, &ListRequest::of("/nowhere/opencode.db"))).reason
}

#[test]
fn missing_helper_is_reported_with_its_path() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    fs::write(here("file"), "").unwrap();
    symlink(here("nowhere"), here("dangling")).unwrap();
    for name in ["absent", "dangling", "file/opencode-lister", "a\x1bb"] {
        let what = breakage_of(&here(name));
        assert_eq!(what, FailureReason::NotFound(here(name)));
        let said = what.to_string();
        assert!(said.starts_with("helper not found at "), "{said:?}");
        assert!(said.contains("--lister"), "{said:?}");
    }
}

#[test]
fn helper_without_execute_permission_is_reported() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("opencode-lister");
    support::script(&file, "#!/bin/sh\n");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    for path in [file.as_path(), directory.path()] {
        let what = breakage_of(path);
        assert_eq!(what, FailureReason::NotExecutable(path.to_owned()));
        assert!(
            what.to_string().contains("cannot execute the helper"),
            "{what}"
        );
    }
}

#[test]
fn invalid_program_is_reported_with_the_os_error() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    support::script(&here("empty"), "");
    support::script(&here("no-shebang"), "echo hello\n");
    support::script(&here("not-installed"), "#!/nowhere/python9\n");
    symlink(here("loop"), here("loop")).unwrap();
    for (name, saying) in [
        ("empty", "format"),
        ("no-shebang", "format"),
        ("not-installed", "interpreter"),
        ("loop", "symbolic links"),
    ] {
        let FailureReason::Spawn { helper, message } = breakage_of(&here(name)) else {
            panic!("{name}");
        };
        assert_eq!(helper, here(name));
        assert!(message.contains(saying), "{name}: {message}");
    }
}

/// No program can be given such a path.
#[test]
fn database_path_with_a_nul_is_a_typed_error() {
    let _limit = support::limit(60);
    let made = Made::new();
    let nul = made.directory.path().join("a\0b");
    let long = made.directory.path().join("x".repeat(1 << 20));
    for db in [nul, long] {
        let lister = ProcessLister::at(support::lister());
        let what = broken(timely(&lister, &ListRequest::of(db))).reason;
        assert!(matches!(what, FailureReason::Spawn { .. }), "{what:?}");
    }
}

/// In any language.
#[test]
fn script_that_prints_a_listing_is_accepted() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"type":"hello","protocol":1,"lister":"script"}"#,
        r#"{"type":"session","id":"ses_1","store":"v1"}"#,
        r#"{"type":"end","sessions":1,"database":"ready","scan":{"mode":"none","progress":1,"frames":0,"bytes":0},"elapsedMs":0}"#,
    ]
    .join("\n");
    let shell = format!("#!/bin/sh\ncat <<'.'\n{lines}\n.\n");
    let python = format!("#!/usr/bin/env python3\nprint('''{lines}''')\n");
    for (interpreter, text) in [("sh", shell), ("python3", python)] {
        let found = support::command(Path::new("/bin/sh"))
            .args(["-c", &format!("command -v {interpreter}")])
            .output()
            .unwrap();
        if !found.status.success() {
            continue;
        }
        let path = directory.path().join(interpreter);
        support::script(&path, &text);
        let lister = ProcessLister::at(&path);
        let request = ListRequest::of("/nowhere/opencode.db").deadline(LONG);
        let listing = listing(timely(&lister, &request));
        assert_eq!(listing.helper_version, "script", "{interpreter}");
        assert_eq!(listing.rows.len(), 1, "{interpreter}");
    }
}

/// The limit of first prompts is that of the request, not that of the helper.
#[test]
fn first_prompt_longer_than_requested_is_refused() {
    let _limit = support::limit(60);
    let directory = tempfile::tempdir().unwrap();
    let helper = directory.path().join("helper");
    let session = format!(
        r#"{{"type":"session","id":"ses_1","store":"v1","untitled":true,"firstPrompt":"{}"}}"#,
        "x".repeat(1_000)
    );
    let [hello, listed, answered] = [
        r#"{"type":"hello","protocol":1,"lister":"script"}"#,
        r#"{"type":"end","sessions":1,"database":"ready","scan":{"mode":"none","progress":1,"frames":0,"bytes":0},"elapsedMs":0}"#,
        r#"{"type":"end","answers":1,"database":"ready","elapsedMs":0}"#,
    ];
    support::script(
        &helper,
        &format!(
            "#!/bin/sh\necho '{hello}'\necho '{session}'\n\
             if [ \"$1\" = get ]; then echo '{answered}'; else echo '{listed}'; fi\n"
        ),
    );
    let lister = ProcessLister::at(&helper);
    for (first_prompt_limit, is_valid) in [(200, false), (999, false), (1_000, true), (4_000, true)]
    {
        let outcome = timely(
            &lister,
            &ListRequest::of("/nowhere/opencode.db").first_prompt_limit(first_prompt_limit),
        );
        let id = SessionId::new("ses_1").unwrap();
        let looked_up = lister.look_up(
            &LookUpRequest::of("/nowhere/opencode.db", LookUp::Get, vec![id])
                .first_prompt_limit(first_prompt_limit)
                .deadline(LONG),
        );
        if is_valid {
            assert_eq!(listing(outcome).rows.len(), 1);
            assert!(matches!(looked_up, Outcome::Complete(_)), "{looked_up}");
            continue;
        }
        let why = format!("its firstPrompt is longer than {first_prompt_limit} characters");
        for said in [outcome.to_string(), looked_up.to_string()] {
            assert!(said.contains(&why), "{said}");
        }
        assert!(matches!(broken(outcome).reason, FailureReason::Wire(_)));
    }
}

// ---- Where the helper is found.

#[test]
fn helper_is_found_beside_the_running_program() {
    let _limit = support::limit(60);
    let lister = ProcessLister::beside_this_program().unwrap();
    let beside = std::env::current_exe()
        .unwrap()
        .with_file_name("opencode-lister");
    assert_eq!(lister.program(), Some(&*beside));
}

#[test]
fn helper_is_never_searched_in_path() {
    let _limit = support::limit(60);
    let made = Made::new();
    made.session("ses_1", 1);
    let home = made.directory.path().join("bin");
    let elsewhere = made.directory.path().join("elsewhere");
    fs::create_dir(&home).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    support::script(
        &elsewhere.join("opencode-lister"),
        "#!/bin/sh\necho found by PATH\n",
    );
    let copied = Command::new("cp")
        .arg(support::sessions())
        .arg(&home)
        .status();
    assert!(copied.unwrap().success());
    let path = format!(
        "{}:{}",
        elsewhere.display(),
        support::lister().parent().unwrap().display()
    );
    let list = |extra: &[&str]| {
        let output = support::command(&home.join("opencode-sessions"))
            .env("PATH", &path)
            .args(["list", "--format", "ids", "--db"])
            .arg(&made.db)
            .args(extra)
            .current_dir(&home)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    for extra in [&[][..], &["--lister", "opencode-lister"]] {
        let (status, stdout, stderr) = list(extra);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{stderr}");
        let absent = home.join("opencode-lister").display().to_string();
        let expected = format!("opencode-sessions: helper not found at {absent}: ");
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    symlink(support::lister(), home.join("opencode-lister")).unwrap();
    for extra in [&[][..], &["--lister", "opencode-lister"]] {
        let (status, stdout, stderr) = list(extra);
        assert_eq!((status, stdout.as_str()), (Some(0), "ses_1\n"), "{stderr}");
    }
}
