//! Events and commands as lines: the same on standard input and output and on
//! the socket.

use std::io::{self, BufRead, Read, Write};

use super::{CommandLine, Handle, ReplyQueue, Subscription};

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
        event.write_line(&mut out)?;
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
    reply_to: &ReplyQueue,
) -> io::Result<()> {
    let mut line = Vec::new();
    while read(&mut input, &mut line)? {
        if !command(&line, service, reply_to) {
            break;
        }
    }
    Ok(())
}

/// Reads the next line, with its newline also where the input ends before; false at the
/// end. Of one that is longer than any command what is too much is left out, but for a
/// byte.
///
/// # Errors
///
/// Where `input` fails.
pub fn read(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if input.take(LONGEST + 1).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() != Some(&b'\n') {
        if line.len() as u64 > LONGEST {
            input.skip_until(b'\n')?;
        }
        line.push(b'\n');
    }
    Ok(true)
}

/// Hands the command of one line to the service when it has room for it; false where
/// nobody reads the replies any more.
pub fn command(line: &[u8], service: &Handle, reply_to: &ReplyQueue) -> bool {
    if line.trim_ascii().is_empty() {
        return true;
    }
    let command = match line.len() as u64 > LONGEST {
        true => CommandLine::too_long(LONGEST),
        false => CommandLine::parse(line),
    };
    service.command_in_turn(reply_to, command)
}
