//! Events and commands as lines: the same on standard input and output and on
//! the socket.

use std::io::{self, BufRead, Read, Write};

use super::{Command, Handle, ReplyTo, Subscription};
use crate::wire::to_json;

/// The longest command, in bytes.
const LONGEST: u64 = 1 << 20;

/// Writes events until there are no more, each pushed out at once.
///
/// # Errors
///
/// Where `out` fails, for instance because nobody reads any more.
pub fn write_events(events: Subscription, out: impl Write) -> io::Result<()> {
    // A snapshot is never in memory as a whole line.
    let mut out = io::BufWriter::with_capacity(16 << 10, out);
    for event in events {
        to_json(&*event, &mut out)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// Hands commands to the service until there are no more. A line that is none
/// gets an error for a reply; an empty one is passed over.
///
/// # Errors
///
/// Where `input` fails.
pub fn read_commands(
    mut input: impl BufRead,
    service: &Handle,
    reply_to: ReplyTo,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if input.by_ref().take(LONGEST).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        if bytes.last() != Some(&b'\n') && bytes.len() as u64 == LONGEST {
            service.command(
                reply_to,
                Err("this line is longer than any command".to_owned()),
            );
            input.skip_until(b'\n')?;
        } else if !bytes.trim_ascii().is_empty() {
            service.command(reply_to, Command::parse(&bytes));
        }
    }
}
