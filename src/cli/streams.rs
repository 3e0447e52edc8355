//! Standard output and standard error. The parent process has opened them: they can be a
//! non-blocking pipe, and its reader can be slow or closed.
//!
//! A write waits as long as the reader takes; a pipe that would block is not an error. The
//! message of any other error on standard output says that the result cannot be written. The
//! kind of the error is that of the system, such as `BrokenPipe` for a closed reader.

use std::io::{self, BufWriter, LineWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// The size of a buffered write of results.
const RESULT_BUFFER_BYTES: usize = 64 << 10;

/// The longest message that is always written at once.
const MESSAGE_BUFFER_BYTES: usize = 16 << 10;

/// Standard output, without a buffer.
#[derive(Debug)]
pub(super) struct Stdout;

/// Standard error, without a buffer.
#[derive(Debug)]
pub(super) struct Stderr;

/// Returns buffered standard output. The caller must flush it: a drop ignores errors.
pub(super) fn results() -> BufWriter<Stdout> {
    BufWriter::with_capacity(RESULT_BUFFER_BYTES, Stdout)
}

/// Returns standard error, buffered by lines. Each line is one write, so that the output of
/// another program cannot come between its parts.
pub(super) fn messages() -> LineWriter<Stderr> {
    LineWriter::with_capacity(MESSAGE_BUFFER_BYTES, Stderr)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write the result: {0}")]
struct ResultWriteError(io::Error);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = write(io::stdout().as_fd(), bytes);
        written.map_err(|error| io::Error::new(error.kind(), ResultWriteError(error)))
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

/// Waits until the next write succeeds, in part at least, or returns an error other than
/// `EAGAIN`.
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
    fn full_nonblocking_pipe_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let sent = vec![7; 1 << 20];
        let expected = sent.len();
        let reading = thread::spawn(move || {
            // The pipe is full by then.
            thread::sleep(Duration::from_millis(200));
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all.len())
        });
        write_all(writer.as_fd(), &sent).unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap(), expected);
    }

    #[test]
    fn closed_reader_ends_the_wait() {
        let (reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let closing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(reader);
        });
        let error = write_all(writer.as_fd(), &vec![7; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        closing.join().unwrap();
    }
}
