//! One database under several names.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use opencode_sessions::launch::ProcessLister;
use serde_json::Value;

use crate::place::{Machine, Place, copy_of, database, ids, remote, stderr, stdout};
use crate::support::{self, Host, Made, list, preload, text};

#[test]
fn clock_ahead_on_another_machine_hides_no_session() {
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
fn service_and_list_agree_on_a_foreign_database() {
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
fn service_follows_a_retargeted_link() {
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
    host.until_within(Duration::from_secs(70), "the one", |model| {
        model.ids() == ["ses_late", "ses_play"]
    });
    host.until("its listing", |model| model.state() == "ok");
    // What the one has was never shown with what the other has.
    let mut model = support::Model::default();
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
fn refresh_waits_for_a_slow_path_to_resolve() {
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
fn library_host_follows_a_database_turned_link() {
    use opencode_sessions::service::{Config, Event, Service};
    let _limit = support::limit(60);
    let (place, made) = (Place::new(), Made::new());
    made.session("ses_1", 1);
    let db = place.path("opencode.db");
    let service = Service::start(
        Config::new(
            opencode_sessions::source::sources_of(std::slice::from_ref(&db)),
            |_| std::sync::Arc::new(ProcessLister::at(support::lister())),
        )
        .deadline(Duration::from_secs(10)),
    );
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
fn service_sees_names_split_and_merge() {
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
    host.until("what is new", |model| {
        model.sessions.len() == 4 && model.health.len() == 3
    });
    assert_eq!(
        host.model.ids(),
        ["ses_loud", "ses_one", "ses_other", "ses_quiet"]
    );
    assert_eq!(sources(&host), ["linked", "one", "quiet"]);

    turn(&link, one.directory.path());
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
pub(crate) fn mounted(from: &Path, to: &Path, program: &Command) -> Option<Command> {
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
fn second_name_of_a_database_is_not_a_second_source() {
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
            support::skip("private mounts: none can be made here");
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
            let warns = stderr(&output).contains("the newest sessions may be missing");
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
fn hard_link_with_the_log_is_the_one_read() {
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
fn databases_with_non_utf8_names_are_all_listed() {
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
