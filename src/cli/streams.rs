//! Standard output and standard error, which somebody else has opened: they may be a pipe
//! that does not block, slow, full, or closed at the other end.
//!
//! A stream that would block is waited for, however long its reader takes: that is no
//! error. Any other error says that it is about the output; a caller knows that it was
//! closed by its kind.

use std::io::{self, BufWriter, LineWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// What is written at once, in bytes.
const PIECE: usize = 64 << 10;

/// The longest message that is surely one write, in bytes.
const MESSAGE: usize = 16 << 10;

/// Standard output, without a buffer.
#[derive(Debug)]
pub(super) struct Stdout;

/// Standard error, without a buffer.
#[derive(Debug)]
pub(super) struct Stderr;

/// Standard output for results. Flush it: a drop hides its errors.
pub(super) fn results() -> BufWriter<Stdout> {
    BufWriter::with_capacity(PIECE, Stdout)
}

/// Standard error for messages: each line is one write, so that no other program's output
/// comes between its parts.
pub(super) fn messages() -> LineWriter<Stderr> {
    LineWriter::with_capacity(MESSAGE, Stderr)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write the result: {0}")]
struct CannotWrite(io::Error);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = write(io::stdout().as_fd(), bytes);
        written.map_err(|error| io::Error::new(error.kind(), CannotWrite(error)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(io::stderr().as_fd(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(to: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(to, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for_room(to)?,
            result => return Ok(result?),
        }
    }
}

/// Waits until something can be written, or until writing says why not.
fn wait_for_room(to: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(&to, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            bytes = &bytes[write(to, bytes)?..];
        }
        Ok(())
    }

    #[test]
    fn full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let sent = vec![7; 1 << 20];
        let expected = sent.len();
        let reading = thread::spawn(move || {
            // The pipe is full by now.
            thread::sleep(Duration::from_millis(200));
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all.len())
        });
        write_all(writer.as_fd(), &sent).unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap(), expected);
    }

    #[test]
    fn reader_that_leaves_a_full_pipe_ends_the_wait() {
        let (reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let leaving = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(reader);
        });
        let error = write_all(writer.as_fd(), &vec![7; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        leaving.join().unwrap();
    }
}
