//! Commands over the socket of a service.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::PATIENCE;

/// Three times what the service promises for an answer.
const QUICK: Duration = Duration::from_millis(150);

/// The reply to one command over the socket, and how long it all took.
pub(crate) fn ask_at(socket: &Path, command: &str) -> (Value, Duration) {
    let started = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("{}\n", json!({"type": command})).as_bytes())
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let reply = lines.find(|line| line.starts_with(r#"{"type":"reply""#));
    let took = started.elapsed();
    (
        serde_json::from_str(&reply.expect("a reply")).unwrap(),
        took,
    )
}

/// The status over the socket, which must be quick: the best of three is.
#[track_caller]
pub(crate) fn quick_status(socket: &Path) -> Value {
    let (reply, took) = (0..3)
        .map(|_| ask_at(socket, "status"))
        .min_by_key(|(_, took)| *took)
        .unwrap();
    assert!(took < QUICK, "{took:?}");
    reply["status"].clone()
}
