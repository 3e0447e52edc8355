//! Notifies systemd of readiness, status and the watchdog (`sd_notify`).

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use crate::service::{Notice, Supervisor};

/// The number of notices that can wait to be sent.
const QUEUE_LENGTH: usize = 64;

/// How long the service waits until the last notice is sent.
const LAST_NOTICE_TIMEOUT: Duration = Duration::from_millis(100);

/// The interval of [`Notice::Alive`] if no watchdog is enabled.
const IDLE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Returns the supervisor if systemd started this process, otherwise `None`.
///
/// The service calls it from its loop, and a thread sends the notices: a send blocks while
/// the supervisor does not read.
///
/// # Errors
///
/// Returns an error if the thread cannot be spawned.
pub(super) fn supervisor() -> io::Result<Option<Supervisor>> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(None);
    }
    let (sender, notices) = mpsc::sync_channel::<String>(QUEUE_LENGTH);
    let (done, all_sent) = mpsc::channel::<()>();
    thread::Builder::new()
        .name("notify".into())
        .spawn(move || {
            let _done = done;
            let stopping = NotifyState::Stopping.to_string();
            for state in notices {
                if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&state)]) {
                    debug!(%error, "sd_notify failed");
                }
                if state == stopping {
                    break;
                }
            }
        })?;
    let watchdog = sd_notify::watchdog_enabled();
    let notify = move |notice: Notice<'_>| {
        let Some(state) = notify_state(notice, watchdog.is_some()) else {
            return;
        };
        // A supervisor that does not read misses notices.
        let _ = sender.try_send(state);
        if notice == Notice::Ending {
            let _ = all_sent.recv_timeout(LAST_NOTICE_TIMEOUT);
        }
    };
    Ok(Some(Supervisor {
        every: watchdog.map_or(IDLE_INTERVAL, |timeout| timeout / 2),
        notify: Box::new(notify),
    }))
}

/// Returns the notice in the protocol of `sd_notify`, or `None` if it is not sent.
fn notify_state(notice: Notice<'_>, has_watchdog: bool) -> Option<String> {
    match notice {
        Notice::Alive => has_watchdog.then(|| NotifyState::Watchdog.to_string()),
        Notice::Ready => Some(NotifyState::Ready.to_string()),
        Notice::Status(line) => Some(NotifyState::Status(line).to_string()),
        Notice::Ending => Some(NotifyState::Stopping.to_string()),
        Notice::Reloading => {
            let now = NotifyState::monotonic_usec_now().ok()?;
            Some(format!("{}\n{now}", NotifyState::Reloading))
        }
    }
}
