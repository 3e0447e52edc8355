//! A helper that runs the real one and changes what it prints. `tamper.json` beside it says how:
//! `helper` is the real one, `replace` a list of texts and of what takes their place, `refuses`
//! whether a request for differences is a usage error, as for a helper of 0.1. The file
//! `requests` beside it gets a line for each launch that says whether it was for differences, and
//! one at its end that says how many bytes of a set came.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and what starts processes here is the subject"
)]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

#[derive(Deserialize)]
struct Tamper {
    helper: String,
    replace: Vec<(String, String)>,
    refuses: bool,
}

fn main() {
    let program = std::env::args().next().unwrap();
    let place = Path::new(&program).parent().unwrap().to_owned();
    let tamper = std::fs::read(place.join("tamper.json")).unwrap();
    let tamper: Tamper = serde_json::from_slice(&tamper).unwrap();
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    // The parent of the real one is this process.
    if let Some(at) = arguments.iter().position(|word| word == "--parent") {
        arguments[at + 1] = std::process::id().to_string();
    }
    let mut stdin = BufReader::new(std::io::stdin());
    let mut request = Vec::new();
    if arguments.iter().any(|word| word == "--request-stdin") {
        stdin.read_until(b'\n', &mut request).unwrap();
    }
    let is_difference = String::from_utf8_lossy(&request).contains("\"have\"");
    if is_difference && tamper.refuses {
        log(&place, "refused");
        println!(r#"{{"type":"hello","protocol":1,"lister":"0.1.0"}}"#);
        println!(
            r#"{{"type":"error","kind":"usage","message":"invalid request: unknown field `have`"}}"#
        );
        exit(2);
    }
    // At once: a helper whose output is invalid is killed.
    log(
        &place,
        match is_difference {
            true => "difference",
            false => "everything",
        },
    );
    let mut child = Command::new(&tamper.helper)
        .args(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&request).unwrap();
    let set_bytes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&set_bytes);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = stdin.read(&mut buffer) {
            // The end of standard input ends the real one.
            if count == 0 || input.write_all(&buffer[..count]).is_err() {
                break;
            }
            counted.fetch_add(count as u64, Ordering::SeqCst);
        }
    });
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let mut line = line.unwrap();
        for (from, to) in &tamper.replace {
            line = line.replace(from, to);
        }
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    }
    let status = child.wait().unwrap();
    let set_bytes = set_bytes.load(Ordering::SeqCst);
    if is_difference {
        log(&place, &format!("set of {set_bytes}"));
    }
    exit(status.code().unwrap());
}

fn log(place: &Path, line: &str) {
    let mut log = OpenOptions::new();
    let log = log.create(true).append(true).open(place.join("requests"));
    writeln!(log.unwrap(), "{line}").unwrap();
}
