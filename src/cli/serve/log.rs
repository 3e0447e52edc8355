//! The log of a service, on standard error.
//!
//! Lines pass through a queue, so that a supervisor that does not read its pipe cannot block
//! the service. Lines that do not fit the queue are lost, and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::cli::streams::Stderr;

/// The number of lines that can wait to be written.
const QUEUE_LENGTH: usize = 1024;

/// How long a dropped [`Flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Starts to log. When the returned guard is dropped, it waits a short time until the queue
/// is empty. Without a thread the process runs without a log.
pub(super) fn start(format: LogFormat, debug: bool) -> Flush {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_LENGTH);
    let pending = Arc::new(AtomicUsize::new(0));
    let lost = Arc::new(AtomicUsize::new(0));
    let flush = Flush {
        pending: Arc::clone(&pending),
    };
    let queue = Queue {
        sender,
        pending: Arc::clone(&pending),
        lost: Arc::clone(&lost),
    };
    if thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&receiver, &pending, &lost))
        .is_err()
    {
        return flush;
    }
    let level = if debug {
        tracing::Level::DEBUG
    } else {
        tracing::Level::INFO
    };
    let log = tracing_subscriber::fmt()
        .with_writer(queue)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false);
    // A subscriber that is installed already stays.
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(log.finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().finish()),
    };
    flush
}

fn write_lines(lines: &Receiver<Vec<u8>>, pending: &AtomicUsize, lost: &AtomicUsize) {
    for line in lines {
        let _ = Stderr.write_all(&line);
        let lost = lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let message = format!("{lost} log lines lost: stderr was not read in time\n");
            let _ = Stderr.write_all(message.as_bytes());
        }
        pending.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits, when dropped, until the queue is empty, for [`FLUSH_TIMEOUT`] at most.
#[derive(Debug)]
pub(super) struct Flush {
    pending: Arc<AtomicUsize>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        let until = Instant::now() + FLUSH_TIMEOUT;
        while self.pending.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[derive(Debug, Clone)]
struct Queue {
    sender: SyncSender<Vec<u8>>,
    pending: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Queue {
    /// Queues one line: tracing writes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.pending.fetch_add(1, Ordering::AcqRel);
        match self.sender.try_send(line.to_vec()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.pending.fetch_sub(1, Ordering::AcqRel);
                self.lost.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
