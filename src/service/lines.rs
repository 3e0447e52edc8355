//! Events and commands as lines: the same on standard input and output and on
//! the socket.

use std::io::{self, BufRead, Read, Write};

use super::{CommandLine, Handle, ReplyTo, Subscription};
use crate::wire::to_json;

/// The longest command, in bytes with its newline.
pub const LONGEST: u64 = 1 << 20;

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

/// Hands commands to the service until there are no more, or nobody reads the replies
/// any more. A line that is none gets an error for a reply; an empty one is passed over.
/// While too many replies were not read, nothing is read.
///
/// # Errors
///
/// Where `input` fails.
pub fn read_commands(
    mut input: impl BufRead,
    service: &Handle,
    reply_to: &ReplyTo,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if input
            .by_ref()
            .take(LONGEST + 1)
            .read_until(b'\n', &mut bytes)?
            == 0
        {
            return Ok(());
        }
        if bytes.len() as u64 > LONGEST && bytes.last() != Some(&b'\n') {
            input.skip_until(b'\n')?;
        }
        if !command(&bytes, service, reply_to) {
            return Ok(());
        }
    }
}

/// Hands the command of one line to the service when it has room for it; false where
/// nobody reads the replies any more.
pub fn command(line: &[u8], service: &Handle, reply_to: &ReplyTo) -> bool {
    if line.trim_ascii().is_empty() {
        return true;
    }
    let command = match line.len() as u64 > LONGEST {
        true => CommandLine::too_long(LONGEST),
        false => CommandLine::parse(line),
    };
    let has_room = reply_to.wait_for_room();
    if has_room {
        service.command(reply_to, command);
    }
    has_room
}
