use proptest::prelude::*;

use super::*;

const REMOTE: &str = "[[source]]\nname = \"devbox\"\ncommand = [\"ssh\", \"devbox\"]\n";

/// The line and the message of the error.
fn rejected(text: &str) -> String {
    let error = parse(text, Some(Path::new("/home/me"))).unwrap_err();
    format!(
        "{}: {}",
        line_of(text.as_bytes(), error.offset),
        error.message
    )
}

#[track_caller]
fn check_rejected<T: AsRef<str>>(cases: &[(T, &str)]) {
    for (text, expected) in cases {
        let text = text.as_ref();
        assert_eq!(rejected(text), *expected, "{text}");
    }
}

#[test]
fn invalid_toml_is_rejected() {
    check_rejected(&[
        (
            "[[source]]\nname = devbox\n",
            "2: invalid TOML: string values must be quoted, expected literal string",
        ),
        (
            "[[source]]\nname = \"a\"\nname = \"b\"\n",
            "3: invalid TOML: duplicate key",
        ),
    ]);
}

#[test]
fn unknown_keys_are_rejected() {
    check_rejected(&[
        (
            "[[sources]]\ndb = \"/a\"\n",
            "1: unknown key `sources`; start each source with [[source]]",
        ),
        (
            "discover = true\n\n[sources]\ndb = \"/a\"\n",
            "3: unknown key `sources`; start each source with [[source]]",
        ),
        (
            "colour = 1\n",
            "1: unknown key `colour`; expected `discover` or `source`",
        ),
        (
            "[[source]]\ncomand = []\ndatabase = 1\n",
            "2: unknown key `comand`; expected one of `name`, `db`, `command`, `every`",
        ),
        (
            "\"\\u001b[31m, expected \\\\\" = 1\n",
            "1: unknown key `\\u{1b}[31m, expected \\\\`; expected `discover` or `source`",
        ),
    ]);
}

#[test]
fn values_of_another_type_are_rejected() {
    let name = "`name` must be a string such as \"devbox\"";
    let command =
        "`command` must be a list of strings such as [\"ssh\", \"devbox\", \"opencode-lister\"]";
    let every = "`every` must be a duration in quotes such as \"15s\"";
    for (line, text, expected, found) in [
        (2, "[[source]]\nname = 3\n", name, "an integer"),
        (2, "[[source]]\nname = [\"a\"]\n", name, "a list"),
        (2, "[[source]]\nname.x = \"a\"\n", name, "a table"),
        (2, "[[source]]\n[source.name]\n", name, "a table"),
        (
            2,
            "[[source]]\ndb = 5\n",
            "`db` must be a path in quotes",
            "an integer",
        ),
        (
            3,
            "[[source]]\nname = \"x\"\ncommand = \"ssh x\"\n",
            command,
            "a string",
        ),
        (
            4,
            "[[source]]\nname = \"x\"\ncommand = [\"ssh\",\n 22]\n",
            command,
            "an integer",
        ),
        (
            3,
            "[[source]]\nname = \"x\"\ncommand = [[\"ssh\"]]\n",
            command,
            "a list",
        ),
        (4, &format!("{REMOTE}every = 15\n"), every, "an integer"),
        (4, &format!("{REMOTE}every = 1.5\n"), every, "a float"),
        (
            4,
            &format!("{REMOTE}every = 00:00:15\n"),
            every,
            "a datetime",
        ),
        (4, &format!("{REMOTE}every = true\n"), every, "a boolean"),
        (
            4,
            &format!("{REMOTE}every = 1{}\n", "0".repeat(50)),
            every,
            "an integer",
        ),
    ] {
        let message = format!("{line}: {expected}, not {found}");
        assert_eq!(rejected(text), message, "{text}");
    }
}

#[test]
fn invalid_discover_is_rejected() {
    let discover = "`discover` must be true, false or a list such as [\"opencode\", \"kilo\"]";
    check_rejected(&[
        (
            "discover = \"yes\"\n",
            &*format!("1: {discover}, not a string"),
        ),
        (
            "discover = [\n  \"opencode\",\n  1,\n]\n",
            &format!("3: {discover}, not an integer"),
        ),
        (
            "discover = 2026-01-01\n",
            &format!("1: {discover}, not a datetime"),
        ),
        (
            "discover = [\n  \"opencode\",\n  \"cursor\",\n]\n",
            "3: unknown program `cursor`; expected one of `opencode`, `kilo`, `mimocode`",
        ),
        (
            "discover = [\"\\u001b[31m\"]\n",
            "1: unknown program `\\u{1b}[31m`; expected one of `opencode`, `kilo`, `mimocode`",
        ),
    ]);
}

#[test]
fn source_that_is_not_a_list_of_tables_is_rejected() {
    for (line, text, found) in [
        (2, "\n[source]\ndb = \"/a\"\n", "a table"),
        (1, "source = [1]\n", "an integer"),
        (1, "source = \"/a\"\n", "a string"),
        (2, "source = [{db = \"/a\"},\n [\"x\", \"/b\"]]\n", "a list"),
        (1, "source = [2026-01-01]\n", "a datetime"),
    ] {
        let message = format!(
            "{line}: `source` must be a list of tables (start each with [[source]], in double \
             brackets), not {found}"
        );
        assert_eq!(rejected(text), message, "{text}");
    }
}

#[test]
fn invalid_names_are_rejected() {
    let message = "2: `name` must be 1 to 64 printable characters and not start with /";
    let long = "x".repeat(65);
    for name in ["", " ", "a\\u001b[31m", "a\\u200bb", "/a", &long] {
        let text = format!("[[source]]\nname = \"{name}\"\ndb = \"/a\"\n");
        assert_eq!(rejected(&text), message, "{text}");
    }
    let text = format!("[[source]]\nname = \"{}\"\ndb = \"/a\"\n", &long[1..]);
    assert!(parse(&text, None).is_ok());
}

#[test]
fn invalid_paths_are_rejected() {
    let remote_db = "4: `db` with `command` passes through a remote shell; use only letters, \
        digits and _ . / : = - (not starting with = or -), and the full path instead of ~";
    check_rejected(&[
        (
            "[[source]]\ndb = \"opencode.db\"\n",
            "2: `db` must be a full path, starting with / or ~/",
        ),
        (
            "[[source]]\ndb = \"/a\\u0000\"\n",
            "2: `db` must not contain a NUL character",
        ),
        (&format!("{REMOTE}db = \"/srv/$(reboot)\"\n"), remote_db),
        (&format!("{REMOTE}db = \"~/opencode.db\"\n"), remote_db),
        (&format!("{REMOTE}db = \"-rf\"\n"), remote_db),
    ]);
    let error = parse("[[source]]\ndb = \"~/a\"\n", None).unwrap_err();
    assert_eq!(
        error.message,
        "cannot expand ~ in `db`: no home directory; write the full path"
    );
}

#[test]
fn invalid_intervals_are_rejected() {
    for every in ["15 parsecs", "10ms", "25h", ""] {
        assert_eq!(
            rejected(&format!("{REMOTE}every = \"{every}\"\n")),
            "4: `every` must be from \"1s\" to \"24h\", such as \"15s\"",
            "{every}"
        );
    }
}

#[test]
fn invalid_commands_are_rejected() {
    let no_program = "3: `command` must be a list of strings such as \
        [\"ssh\", \"devbox\", \"opencode-lister\"]; this one has no program";
    check_rejected(&[
        ("[[source]]\nname = \"x\"\ncommand = []\n", no_program),
        ("[[source]]\nname = \"x\"\ncommand = [\"\"]\n", no_program),
        (
            "[[source]]\nname = \"x\"\ncommand = [\"ssh\",\n \"\\u0000\"]\n",
            "4: `command` must not contain a NUL character",
        ),
    ]);
}

#[test]
fn keys_that_do_not_fit_together_are_rejected() {
    check_rejected(&[
        (
            "[[source]]\n",
            "1: this source has neither `db` nor `command`; add one of them",
        ),
        (
            "[[source]]\ndb = \"/a\"\nevery = \"5s\"\n",
            "3: `every` requires `command`; remove it (a local database is watched for changes)",
        ),
        (
            "[[source]]\ncommand = [\"ssh\"]\n",
            "1: `command` requires `name`; add one such as name = \"devbox\"",
        ),
    ]);
}

#[test]
fn duplicate_sources_are_rejected() {
    let name = "duplicate `name`: the source in line 1 has it too; give each source its own";
    let db = "duplicate `db`: the source in line 1 has it too; remove one of them";
    check_rejected(&[
        (&*format!("{REMOTE}{REMOTE}"), &*format!("5: {name}")),
        (
            "[[source]]\ndb = \"/a\"\n[[source]]\nname = \"b\"\ndb = \"/a\"\n",
            &format!("5: {db}"),
        ),
        (
            "[[source]]\ndb = \"/home/me/a\"\n\n[[source]]\ndb = \"~/a\"\n",
            &format!("5: {db}"),
        ),
    ]);
}

#[test]
fn file_without_sources_is_rejected() {
    let message = "1: no sources; add a [[source]], or `discover = true`, or remove the file";
    for text in ["", "discover = []\n", "discover = false\n", "source = []\n"] {
        assert_eq!(rejected(text), message, "{text}");
    }
}

#[test]
fn more_than_100_sources_are_rejected() {
    let text = |count| -> String {
        (0..count)
            .map(|n| format!("[[source]]\ndb = \"/{n}\"\n"))
            .collect()
    };
    assert_eq!(parse(&text(100), None).unwrap().sources.len(), 100);
    assert_eq!(
        rejected(&text(101)),
        "201: more than 100 sources; remove some"
    );
}

#[test]
fn sources_keep_their_order_and_get_names() {
    let text = "discover = true\n[[source]]\ndb = \"~/a/opencode.db\"\n[[source]]\n\
        name = \"devbox\"\ncommand = [\"ssh\", \"devbox\", \"opencode-lister\"]\n[[source]]\n\
        name = \"old\"\ndb = \"/nowhere/old.db\"\n";
    let config = parse(text, Some(Path::new("/nowhere/me"))).unwrap();
    let found = ["/nowhere/opencode.db", "/nowhere/old.db"].map(PathBuf::from);
    let sources = config.clone().sources(&found);
    let shown: Vec<_> = sources
        .iter()
        .map(|source| format!("{}: {}", source.name, source.place))
        .collect();
    assert_eq!(
        shown,
        [
            "a/opencode.db: /nowhere/me/a/opencode.db",
            "devbox: ssh devbox opencode-lister",
            "old: /nowhere/old.db",
            "nowhere/opencode.db: /nowhere/opencode.db",
        ]
    );
    let Place::Remote(remote) = &sources[1].place else {
        panic!("{sources:?}");
    };
    assert_eq!((remote.every, &remote.db), (Remote::EVERY, &None));
    let without = Config {
        discover: false,
        ..config
    };
    assert_eq!(without.sources(&found).len(), 3);
}

#[test]
fn remote_keeps_its_database_and_interval() {
    let text = format!("{REMOTE}db = \"/srv/a=b.db\"\nevery = \"90s\"\n");
    let config = parse(&text, None).unwrap();
    let expected = Remote {
        command: vec!["ssh".to_owned(), "devbox".to_owned()],
        db: Some("/srv/a=b.db".to_owned()),
        every: Duration::from_secs(90),
    };
    assert_eq!(config.sources[0].place, Place::Remote(expected));
}

#[test]
fn discovered_database_does_not_take_a_configured_name() {
    let text = "discover = true\n[[source]]\nname=\"b.db\"\ndb=\"/x/a.db\"";
    let sources = parse(text, None).unwrap().sources(&["/x/b.db".into()]);
    let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["b.db", "/x/b.db"]);
}

#[test]
fn discover_selects_programs() {
    use Program::{Kilo, MimoCode, OpenCode};
    for (value, expected) in [
        ("true", &[OpenCode][..]),
        ("false", &[]),
        ("[]", &[]),
        ("[\"opencode\"]", &[OpenCode]),
        ("[\"mimocode\", \"kilo\"]", &[MimoCode, Kilo]),
        ("[\"kilo\", \"kilo\"]", &[Kilo]),
    ] {
        let text = format!("discover = {value}\n[[source]]\ndb = \"/a\"\n");
        let config = parse(&text, None).unwrap();
        assert_eq!(config.programs, expected, "{value}");
        assert_eq!(config.discover, !expected.is_empty(), "{value}");
    }
}

#[test]
fn no_text_panics_or_leaks_a_message_of_serde() {
    let piece = prop_oneof![
        Just("[[source]]\n".to_owned()),
        Just("source = [".to_owned()),
        Just("discover = ".to_owned()),
        Just("name = \"a\"\n".to_owned()),
        Just("command = [".to_owned()),
        Just("every = ".to_owned()),
        Just("db.x = \"".to_owned()),
        Just("\"\n".to_owned()),
        Just("1]\n".to_owned()),
        Just("00:00:15\n".to_owned()),
        "[ -~\n\u{80}-\u{2fff}]{0,12}",
    ];
    proptest!(|(text in prop::collection::vec(piece, 0..12))| {
        let text = text.concat();
        if let Err(ParseError { offset, message }) = parse(&text, None) {
            prop_assert!(line_of(text.as_bytes(), offset) <= text.lines().count().max(1) + 1);
            prop_assert!(!message.chars().any(is_unsafe_on_terminal), "{message:?}");
            prop_assert!(!message.starts_with("invalid type"), "{message:?}");
        }
    });
}
