//! The README and the guide: every example runs, every link and topic exists, and nothing
//! that the programs have is missing.
//!
//! Of a `console` block each `$ …` line is run by a shell, on a sample database in a home of
//! its own. Where output is shown it must be the real one: a line `…` stands for any lines, a
//! `…` within a line for any text. An exit status other than 0 is named in the comment of the
//! line, as `# exit status 4`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{self, command, example, sessions};
use opencode_sessions::guide::{TOPICS, Topic};
use opencode_sessions::internals::config;
use serde_json::Value;

/// The lines that no test can run, exactly as they are written, but for their comments.
const CANNOT_RUN: [(&str, &str); 6] = [
    ("cargo install --locked --path .", "builds and installs"),
    (
        "cargo uninstall opencode-sessions",
        "removes what is installed",
    ),
    ("./scripts/run demo", "builds for release"),
    (
        "cd /home/sample/shop && opencode -s ses_sample00000000000000000000",
        "starts OpenCode",
    ),
    (
        "ssh -o BatchMode=yes devbox opencode-lister",
        "needs another machine",
    ),
    (
        "systemctl --user restart opencode-sessions",
        "needs an installed unit",
    ),
];

/// The programs that an example may need and a machine may lack.
const MAY_BE_MISSING: [&str; 1] = ["jq"];

// ---- Pages and their blocks.

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and the pages of the guide, each with its name.
fn pages() -> Vec<(String, String)> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let topics = TOPICS.iter().map(|topic| {
        let name = format!("src/guide/{}.md", topic.name);
        (name, topic.text.to_owned())
    });
    std::iter::once(("README.md".to_owned(), readme))
        .chain(topics)
        .collect()
}

/// A fenced block.
#[derive(Debug)]
struct Block {
    /// The page and the line where it begins, for messages.
    place: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    pages()
        .iter()
        .flat_map(|(name, text)| blocks_of(name, text))
        .collect()
}

fn blocks_of(name: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block {
                    place: format!("{name}:{}", at + 1),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: a block is not closed");
    blocks
}

fn blocks_in(language: &str) -> Vec<Block> {
    let mut blocks = blocks();
    blocks.retain(|block| block.language == language);
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

fn is_there(program: &str) -> bool {
    let found = command(Path::new(program)).arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

// ---- A home with a sample database.

struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join(".local/share/opencode");
        fs::create_dir_all(&data).unwrap();
        let made = command(&example("sample-database"))
            .arg(data.join("opencode.db"))
            .status()
            .unwrap();
        assert!(made.success());
        Self { directory }
    }

    /// A command in this home, with the programs under test in its `PATH`.
    fn command(&self, program: &Path) -> Command {
        let mut run = command(program);
        let mut path = sessions().parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        run.env("HOME", self.directory.path())
            .env("PATH", path)
            .current_dir(root())
            .stdin(Stdio::null());
        run
    }

    /// What a shell prints for this line, both streams in one.
    fn shell(&self, line: &str) -> Output {
        self.command(Path::new("sh"))
            .args(["-c", &format!("exec 2>&1\n{line}")])
            .output()
            .unwrap()
    }
}

/// A service in the background, which is killed if it is not stopped.
struct Service(Child);

impl Service {
    fn start(home: &Home) -> Self {
        let child = home
            .command(sessions())
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self(child);
        support::eventually(Duration::from_secs(30), "a service that is ready", || {
            let status = home.shell("opencode-sessions status");
            String::from_utf8_lossy(&status.stdout).contains("health    ok")
        });
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- Console blocks.

/// One command of a console block, and the output that is shown for it.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    line: String,
    /// Its exit status.
    status: i32,
    shown: Vec<String>,
}

fn examples(block: &Block) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (Some(line), _) => {
                let (line, comment) = line.split_once("  #").unwrap_or((line, ""));
                let status = comment.trim().strip_prefix("exit status ");
                examples.push(Example {
                    line: line.trim_end().to_owned(),
                    status: status.map_or(0, |status| status.parse().unwrap()),
                    shown: Vec::new(),
                });
            }
            (None, Some(example)) => example.shown.push(line.to_owned()),
            (None, None) => panic!("{}: output before a command", block.place),
        }
    }
    examples
}

/// Whether this is the text, where each `…` of `shown` stands for any text.
fn line_matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether these are the lines, where each line `…` of `shown` stands for any lines.
fn output_matches(shown: &[String], lines: &[&str]) -> bool {
    match (shown.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((first, others)), _) if first == "…" => {
            (0..=lines.len()).any(|skipped| output_matches(others, &lines[skipped..]))
        }
        (Some((first, others)), Some((line, rest))) => {
            line_matches(first, line) && output_matches(others, rest)
        }
        _ => false,
    }
}

fn check(home: &Home, place: &str, example: &Example) {
    let Example {
        line,
        status,
        shown,
    } = example;
    let output = home.shell(line);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(*status),
        "{place}: `{line}` printed:\n{printed}"
    );
    let lines: Vec<_> = printed.lines().collect();
    assert!(
        shown.is_empty() || output_matches(shown, &lines),
        "{place}: `{line}` prints:\n{printed}\nand is shown with:\n{}",
        shown.join("\n")
    );
}

#[test]
fn console_examples_print_what_is_shown() {
    let _limit = support::limit(300);
    let missing: Vec<_> = MAY_BE_MISSING
        .into_iter()
        .filter(|program| !is_there(program))
        .collect();
    let mut unused: BTreeSet<_> = CANNOT_RUN.iter().map(|(line, _)| *line).collect();
    for block in blocks_in("console") {
        let home = Home::new();
        let mut service = None;
        for example in examples(&block) {
            let line = example.line.as_str();
            if CANNOT_RUN.iter().any(|(known, _)| *known == line) {
                unused.remove(line);
            } else if let Some(program) = missing.iter().find(|one| line.contains(*one)) {
                skipped(&format!("{}: `{line}` needs {program}", block.place));
            } else if line == "opencode-sessions serve" {
                service = Some(Service::start(&home));
            } else if line == "opencode-sessions stop" {
                let mut service = service.take().unwrap_or_else(|| Service::start(&home));
                check(&home, &block.place, &example);
                assert!(service.0.wait().unwrap().success(), "{}", block.place);
            } else {
                check(&home, &block.place, &example);
            }
        }
        assert!(service.is_none(), "{}: it is not stopped", block.place);
    }
    assert!(unused.is_empty(), "no page has {unused:?}");
}

#[test]
fn ellipses_stand_for_text_and_lines() {
    for (shown, line, expected) in [
        ("a b", "a b", true),
        ("a b", "a c", false),
        ("a …", "a c", true),
        ("a … d", "a b c d", true),
        ("a … d", "a b c", false),
        ("…b…d", "abcd", true),
        ("ab…ab", "ab", false),
    ] {
        assert_eq!(line_matches(shown, line), expected, "{shown} {line}");
    }
    let shown = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for (pattern, lines, expected) in [
        ("a …", &["a"][..], true),
        ("a …", &["a", "b", "c"], true),
        ("a … c", &["a", "b", "c"], true),
        ("a … d", &["a", "b", "c"], false),
        ("a", &["a", "b"], false),
    ] {
        let matches = output_matches(&shown(pattern), lines);
        assert_eq!(matches, expected, "{pattern} {lines:?}");
    }
}

// ---- Other blocks.

#[test]
fn every_block_has_a_language_that_is_checked() {
    for block in blocks() {
        let known = [
            "console",
            "toml",
            "json",
            "js",
            "bash",
            "text",
            "rust,no_run",
        ];
        assert!(
            known.contains(&block.language.as_str()),
            "{}: {:?}",
            block.place,
            block.language
        );
        // Rustdoc compiles those of the guide, and does not see the README.
        let is_readme = block.place.starts_with("README");
        assert!(
            !(is_readme && block.language.starts_with("rust")),
            "{}",
            block.place
        );
    }
}

#[test]
fn toml_examples_are_configurations() {
    for Block { place, text, .. } in blocks_in("toml") {
        let parsed = config::parse(&text, Some(Path::new("/home/me")));
        assert!(
            parsed
                .as_ref()
                .is_ok_and(|config| !config.sources.is_empty()),
            "{place}: {parsed:?}"
        );
    }
}

#[test]
fn json_examples_are_json() {
    for Block { place, text, .. } in blocks_in("json") {
        for line in text.lines() {
            let whole = line.replace(",…", "");
            let parsed = serde_json::from_str::<Value>(&whole);
            assert!(parsed.is_ok(), "{place}: {line}: {parsed:?}");
        }
    }
}

/// Each command of the page about the protocol is one that a service knows.
#[test]
fn commands_of_the_protocol_page_are_accepted() {
    let _limit = support::limit(60);
    let home = Home::new();
    let commands = blocks_in("json").into_iter();
    let commands: Vec<_> = commands
        .filter(|block| block.text.contains(r#""type":"refresh""#))
        .collect();
    let [Block { text: commands, .. }] = &*commands else {
        panic!("{commands:?}");
    };
    let mut service = home
        .command(sessions())
        .args(["serve", "--stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = service.stdin.take().unwrap();
    let lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    for command in commands.lines() {
        writeln!(stdin, "{command}").unwrap();
        let reply = lines.find(|event| event["type"] == "reply").unwrap();
        assert_eq!(reply["error"], Value::Null, "{command}: {reply}");
    }
    assert!(service.wait().unwrap().success());
}

#[test]
fn bash_examples_are_bash() {
    let _limit = support::limit(60);
    if !is_there("bash") {
        return skipped("bash is missing: its examples are not checked");
    }
    for Block { place, text, .. } in blocks_in("bash") {
        let mut bash = command(Path::new("bash"))
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(bash.wait().unwrap().success(), "{place}");
    }
}

/// The host of the guide runs as it is and shows the sample sessions. Its service ends with
/// it.
#[test]
fn host_in_node_shows_the_sessions() {
    let _limit = support::limit(60);
    if !is_there("node") {
        return skipped("node is missing: the host in Node is not run; .ci/run requires it");
    }
    for Block { place, text, .. } in blocks_in("js") {
        let home = Home::new();
        let script = home.directory.path().join("host.mjs");
        fs::write(&script, text).unwrap();
        let mut host = home
            .command(Path::new("node"))
            .arg(script)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(host.stdout.take().unwrap()).lines();
        let mut shown = lines.map(Result::unwrap);
        // Subagents are not shown.
        let expected = [
            "7 sessions",
            "  Sample: Find the leak in the connection pool",
        ];
        let is_shown = expected
            .iter()
            .all(|line| shown.any(|shown| shown == *line));
        host.kill().unwrap();
        host.wait().unwrap();
        assert!(is_shown, "{place}: the sessions are not shown");
        let lock = home
            .directory
            .path()
            .join(".local/state/opencode-sessions/lock");
        let is_free = || fs::File::open(&lock).unwrap().try_lock().is_ok();
        support::eventually(Duration::from_secs(30), "the end of the service", is_free);
    }
}

// ---- The picture.

#[test]
fn picture_shows_what_list_prints() {
    let _limit = support::limit(60);
    let home = Home::new();
    let script = fs::read_to_string(root().join("scripts/picture")).unwrap();
    let columns = script
        .split_once("terminal-picture\" ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .unwrap()
        .to_owned();
    let database = home
        .directory
        .path()
        .join(".local/share/opencode/opencode.db");
    let mut run = command(&example("terminal-picture"));
    // HOME is only a name here: the projects of the sample are below it.
    run.env("HOME", "/home/sample");
    for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
        run.env(name, home.directory.path());
    }
    let drawn = run
        .args([&columns, "opencode-sessions list"])
        .arg(sessions())
        .args(["list", "--db"])
        .arg(database)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&drawn.stderr).into_owned();
    assert!(drawn.status.success(), "{complaint}");
    let committed = fs::read(root().join("src/guide/list.svg")).unwrap();
    assert!(
        committed == drawn.stdout,
        "src/guide/list.svg is not what `list` prints now; `./scripts/picture` draws it"
    );
}

/// The picture and the table of the page about speed are of the same measurement.
#[test]
fn table_and_picture_of_scale_are_of_one_run() {
    let picture = fs::read_to_string(root().join("src/guide/scale.svg")).unwrap();
    let described = picture
        .split_once("<desc>")
        .and_then(|(_, rest)| rest.split_once("</desc>"));
    let (measured, _) = described.unwrap();
    let block = blocks_in("text")
        .into_iter()
        .find(|block| block.place.starts_with("src/guide/speed.md"));
    let table = block.unwrap().text;
    assert_eq!(
        table.lines().next(),
        Some(measured),
        "`./scripts/bench scale --guide` writes both"
    );
    for size in [
        "\n100 sessions ",
        "\n200000 sessions ",
        "\n16 MiB ",
        "\n50 of ",
    ] {
        assert!(table.contains(size), "{size:?}: {table}");
    }
    assert!(picture.contains("prefers-color-scheme"), "light and dark");
}

// ---- Links, topics, and what must be there.

/// The targets of the links of a page.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

#[test]
fn links_lead_somewhere() {
    for (name, text) in pages() {
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            // A page of the guide is shown in three places: a relative link would be right in
            // one of them.
            assert_eq!(name, "README.md", "{name}: {link}");
            let path = link.split('#').next().unwrap_or_default();
            assert!(root().join(path).exists(), "{name}: {link}");
        }
    }
}

#[test]
fn readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= 200, "{lines} lines");
}

#[test]
fn first_screen_of_the_readme_has_no_inner_words() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let first = readme.split("\n## ").next().unwrap().to_lowercase();
    for word in ["marker", "marked", "helper", "lister", "young", "flat"] {
        assert!(!first.contains(word), "{word}");
    }
}

/// The names of the commands of `opencode-sessions`, as its help lists them.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let names = commands
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

fn printed(arguments: &[&str]) -> String {
    let output = command(sessions()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn pages_and_topics_are_the_same() {
    let on_disk = fs::read_dir(root().join("src/guide")).unwrap();
    let on_disk = on_disk.map(|entry| PathBuf::from(entry.unwrap().file_name()));
    let on_disk: BTreeSet<_> = on_disk
        .filter(|name| name.extension().is_some_and(|extension| extension == "md"))
        .map(|name| name.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let topics: BTreeSet<_> = TOPICS.iter().map(|topic| topic.name.to_owned()).collect();
    assert_eq!(on_disk, topics);
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for topic in topics {
        let link = format!("(src/guide/{topic}.md)");
        assert!(readme.contains(&link), "the README has no {link}");
    }
}

#[test]
fn topics_that_are_mentioned_exist() {
    let commands = commands();
    for (name, text) in pages() {
        let text = text.replace('\n', " ");
        for rest in text.split("opencode-sessions help ").skip(1) {
            let end = |c: char| !(c.is_ascii_alphabetic() || c == '-');
            let about = rest.split(end).next().unwrap_or_default();
            assert!(
                ["", "TOPIC"].contains(&about)
                    || Topic::named(about).is_some()
                    || commands.iter().any(|command| command == about),
                "{name}: help {about}"
            );
        }
    }
}

/// Every long option is explained somewhere in the guide.
#[test]
fn guide_names_every_option() {
    let _limit = support::limit(60);
    let guide: String = TOPICS.iter().map(|topic| topic.text).collect();
    for command in commands() {
        let help = printed(&["help", &command]);
        let options = help
            .split_whitespace()
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options {
            assert!(
                option == "--help" || guide.contains(&format!("`{option}")),
                "{command} {option}"
            );
        }
    }
}

/// Every field that a session can have is explained.
#[test]
fn guide_names_every_field_of_a_session() {
    let page = Topic::named("listing").unwrap().text;
    let events = support::fixtures().join("golden/events-3.jsonl");
    let mut fields = BTreeSet::new();
    for line in fs::read_to_string(events).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        for list in ["sessions", "upserted"] {
            for session in event[list].as_array().into_iter().flatten() {
                fields.extend(session.as_object().unwrap().keys().cloned());
            }
        }
    }
    assert!(fields.len() > 25, "{fields:?}");
    for field in fields {
        assert!(page.contains(&format!("`{field}`")), "{field}");
    }
}

/// Every exit status that `--help` names is in the table.
#[test]
fn guide_names_every_exit_status() {
    let help = printed(&["--help"]);
    let (_, statuses) = help.split_once("Exit status:").unwrap();
    let (statuses, _) = statuses.split_once("\n\n").unwrap();
    let statuses: Vec<_> = statuses
        .split(|c: char| !c.is_ascii_digit())
        .filter(|number| !number.is_empty())
        .collect();
    assert!(statuses.contains(&"78"), "{statuses:?}");
    let page = Topic::named("guarantees").unwrap().text;
    for status in statuses {
        assert!(page.contains(&format!("\n| {status} | ")), "{status}");
    }
}

/// The text of all files of a directory.
fn sources(at: &Path) -> String {
    let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => sources(&path),
            false => fs::read_to_string(path).unwrap(),
        })
        .collect()
}

/// The messages that the guide explains are messages of the programs.
#[test]
fn explained_messages_exist() {
    let page = Topic::named("troubleshooting").unwrap().text;
    let (_, messages) = page.split_once("\n## Messages\n").unwrap();
    let (messages, _) = messages.split_once("\n## ").unwrap();
    // A literal goes on after a backslash at the end of its line.
    let words = |text: &str| {
        let words = text.split_whitespace().filter(|word| *word != "\\");
        words.collect::<Vec<_>>().join(" ")
    };
    let mut programs = String::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("guide") => {}
            true => programs.push_str(&sources(&path)),
            false => programs.push_str(&fs::read_to_string(path).unwrap()),
        }
    }
    let programs = words(&programs);
    // Every other piece between asterisks is a message.
    let messages: Vec<_> = messages.split("**").skip(1).step_by(2).collect();
    assert!(messages.len() > 8, "{messages:?}");
    for message in messages {
        for piece in message.split('…') {
            let piece = words(piece);
            let is_said = piece.len() < 3 || programs.contains(piece.trim_matches([';', ',', ' ']));
            assert!(is_said, "{message}: {piece}");
        }
    }
}

// ---- The command `help`.

#[test]
fn help_prints_pages_and_commands() {
    let _limit = support::limit(60);
    for topic in TOPICS {
        assert_eq!(printed(&["help", topic.name]), topic.text);
    }
    for command in commands() {
        let usage = format!("Usage: opencode-sessions {command}");
        assert!(printed(&["help", &command]).contains(&usage), "{command}");
        assert_eq!(
            printed(&["help", &command]),
            printed(&[command.as_str(), "--help"])
        );
    }
    let overview = printed(&["help"]);
    assert_eq!(overview, printed(&["--help"]));
    for topic in TOPICS {
        assert!(overview.contains(topic.summary), "{}", topic.name);
    }
}

#[test]
fn unknown_topic_is_wrong_usage_and_lists_the_topics() {
    let _limit = support::limit(60);
    let output = command(sessions()).args(["help", "nope"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    for topic in TOPICS {
        assert!(said.contains(topic.name), "{said}");
    }
}
