//! Events and commands as lines of JSON: the same on standard input and output and on the
//! socket.

use std::io::{self, BufRead, Read, Write};

use super::{CommandLine, Handle, ReplyQueue, Subscription};

/// The length of the longest command, in bytes with its newline.
pub(crate) const MAX_COMMAND_BYTES: u64 = 1 << 20;

/// Writes events until the subscription ends. Each is flushed at once.
///
/// # Errors
///
/// Returns the errors of `out`, for instance [`io::ErrorKind::BrokenPipe`] if its other end is
/// closed.
pub(crate) fn write_events(events: Subscription, out: impl Write) -> io::Result<()> {
    // The buffer holds a part of a snapshot at a time, which can be megabytes long.
    let mut out = io::BufWriter::with_capacity(16 << 10, out);
    for event in events {
        event.write_line(&mut out)?;
        out.flush()?;
    }
    Ok(())
}

/// Submits each line of `input` as a command, until the input or the subscription ends.
/// Stops reading while too many replies are unread; see [`submit`].
///
/// # Errors
///
/// Returns the errors of `input`.
pub(crate) fn read_commands(
    mut input: impl BufRead,
    service: &Handle,
    reply_to: &ReplyQueue,
) -> io::Result<()> {
    let mut line = Vec::new();
    while read_line(&mut input, &mut line)? {
        if !submit(&line, service, reply_to) {
            break;
        }
    }
    Ok(())
}

/// Reads the next line. A newline is added if the input ends without one. A line longer than
/// [`MAX_COMMAND_BYTES`] is cut after one more byte, so that [`submit`] rejects it. Returns
/// false at the end of the input.
///
/// # Errors
///
/// Returns the errors of `input`.
pub(crate) fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if input.take(MAX_COMMAND_BYTES + 1).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() != Some(&b'\n') {
        if line.len() as u64 > MAX_COMMAND_BYTES {
            input.skip_until(b'\n')?;
        }
        line.push(b'\n');
    }
    Ok(true)
}

/// Submits the command in one line to the service, and waits while
/// [`UNANSWERED`](super::UNANSWERED) commands wait for their replies to be read. A line that
/// is not a command gets an error as its reply. An empty line is ignored. Returns false if the
/// subscription has ended.
pub(crate) fn submit(line: &[u8], service: &Handle, reply_to: &ReplyQueue) -> bool {
    if line.trim_ascii().is_empty() {
        return true;
    }
    let command = match line.len() as u64 > MAX_COMMAND_BYTES {
        true => CommandLine::too_long(MAX_COMMAND_BYTES),
        false => CommandLine::parse(line),
    };
    service.command_in_turn(reply_to, command)
}
