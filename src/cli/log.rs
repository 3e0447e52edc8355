//! What a service says to people, on standard error: through a queue, so that a
//! supervisor that does not read its pipe holds up nothing. What does not fit
//! the queue is lost, and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::streams::Stderr;

/// Lines that wait to be written, at most.
const LINES: usize = 1024;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging. What is still queued is written when the returned guard is
/// dropped, if that is quick.
pub(super) fn start(format: LogFormat, debug: bool) -> Flush {
    let (to, from) = mpsc::sync_channel(LINES);
    let waiting = Arc::new(AtomicUsize::new(0));
    let lost = Arc::new(AtomicUsize::new(0));
    let flush = Flush(Arc::clone(&waiting));
    let queue = Queue {
        to,
        waiting: Arc::clone(&waiting),
        lost: Arc::clone(&lost),
    };
    if thread::Builder::new()
        .name("log".into())
        .spawn(move || write(&from, &waiting, &lost))
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
    // A host that logs already keeps its own.
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(log.finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().finish()),
    };
    flush
}

fn write(from: &Receiver<Vec<u8>>, waiting: &AtomicUsize, lost: &AtomicUsize) {
    for line in from {
        let _ = Stderr.write_all(&line);
        let lost = lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let sentence = format!("{lost} lines were lost: nobody read them in time\n");
            let _ = Stderr.write_all(sentence.as_bytes());
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits a little for what is queued.
#[derive(Debug)]
pub(super) struct Flush(Arc<AtomicUsize>);

impl Drop for Flush {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_millis(200);
        while self.0.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[derive(Debug, Clone)]
struct Queue {
    to: SyncSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Queue {
    /// tracing writes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        match self.to.try_send(line.to_vec()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                self.lost.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
