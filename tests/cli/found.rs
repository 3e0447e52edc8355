//! Which sources there are: found ones, and those that are written down.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::place::{Place, copy_of, database, ids, stderr, stdout};
use crate::support::{self, Host, Made};

/// Where OPENCODE_DB is set, that database alone is listed.
#[test]
fn every_channel_is_listed_unless_opencode_db_is_set() {
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
fn forks_are_listed_only_if_configured() {
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
    let expected = format!("opencode-sessions: no database at {}", mimo.display());
    assert!(stderr(&output).starts_with(&expected), "{output:?}");
    // A service does as `list` does.
    copy_of(&["ses_late"], &kilo);
    let mut host = Host::greeted(&mut command(&["serve", "--stdio"]));
    host.until("the fork", |model| model.sessions.contains_key("ses_late"));
    host.leave();
}

#[test]
fn running_service_finds_a_new_channel() {
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
    host.until_within(Duration::from_secs(60), "the copy", |model| {
        model.sessions.contains_key("ses_2")
    });
    assert_eq!(host.model.sessions["ses_1"]["also"], json!(["opencode.db"]));
    // A directory that is away takes no source with it.
    fs::rename(&data, place.path("away")).unwrap();
    // Longer than it takes to look again.
    host.take_for(Duration::from_secs(6));
    assert_eq!(host.model.health.len(), 2);
}

/// An invalid configuration is one sentence.
#[test]
fn invalid_config_error_names_file_and_line() {
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
    reports("no configuration at FILE");
    let made = support::command(Path::new("mkfifo")).arg(&path).status();
    assert!(made.unwrap().success());
    reports("cannot read the configuration FILE: it is not a regular file");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    reports("cannot read the configuration FILE: it is not a regular file");
    let output = place.run(&["list", "--db", "/x"]);
    assert_eq!(output.status.code(), Some(2), "one or the other");
}
