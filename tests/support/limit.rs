//! A time limit for every test.

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Ends the whole test program when a test takes longer than this.
pub(crate) struct Limit(Option<Sender<()>>);

/// The first line of every test: `let _limit = support::limit(30);`
#[must_use]
pub(crate) fn limit(seconds: u64) -> Limit {
    let (alive, gone) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::Builder::new()
        .name("limit".into())
        .spawn(move || {
            let waited = gone.recv_timeout(Duration::from_secs(seconds));
            if waited == Err(RecvTimeoutError::Timeout) {
                // Not eprintln: the test runner would keep it to itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "\n{name}: not done after {seconds} s, the test program ends here"
                );
                std::process::exit(101);
            }
        })
        .unwrap();
    Limit(Some(alive))
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.0.take();
    }
}
