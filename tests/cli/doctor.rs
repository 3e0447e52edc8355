//! The doctor.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::names::mounted;
use crate::place::{Machine, Place, copy_of, database, remote};
use crate::support;

#[test]
fn doctor_reports_each_source_and_what_to_do() {
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
        concat!("program   version ", env!("CARGO_PKG_VERSION"), "\n"),
        "service   none is running\n",
        "source    well\n",
        "ok        1 session, archived ones and children too, read in ",
        "source    old\n",
        "WRONG     no database at ",
        "storage/session: starting OpenCode 1.2 to 1.15 imports them\n",
    ] {
        assert!(said.contains(expected), "{expected:?}: {said}");
    }
    place.config(&(database("well", &well.made.db) + &database("broken", &broken)));
    let said = doctor(&place, 1);
    let expected = format!(
        "WRONG     cannot read {}: file is not an SQLite database",
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
fn doctor_warns_where_the_log_may_be_elsewhere() {
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
        None => support::skip("private mounts: none can be made here"),
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
pub(crate) fn doctor(place: &Place, status: i32) -> String {
    let output = place.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
