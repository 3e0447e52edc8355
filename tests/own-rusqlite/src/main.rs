//! `own-rusqlite HELPER`: makes a database with a rusqlite of its own, and keeps the index of its
//! sessions with this crate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opencode_sessions::launch::{ProcessLister, restore_sigchld};
use opencode_sessions::service::{Config, Event, Service};
use opencode_sessions::source::sources_of;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    restore_sigchld();
    let helper = PathBuf::from(std::env::args_os().nth(1).ok_or("the helper is missing")?);
    let place = std::env::temp_dir().join(format!("own-rusqlite-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let result = run(helper, place.join("opencode.db"));
    std::fs::remove_dir_all(&place)?;
    result
}

fn run(helper: PathBuf, db: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let own = rusqlite::Connection::open(&db)?;
    own.execute_batch(
        "PRAGMA journal_mode = wal;
         CREATE TABLE session (id text PRIMARY KEY, title text, directory text, time_updated integer);
         INSERT INTO session VALUES ('ses_1', 'Fix the build', '/home/me', 1);",
    )?;
    let lister = ProcessLister::at(helper);
    let service = Service::start(Config::new(sources_of(&[db]), move |source| {
        Arc::new(lister.of(source))
    }))?;
    let mut events = service.subscribe();
    let until = Instant::now() + Duration::from_secs(30);
    let mut sessions = 0;
    let mut has_written = false;
    while sessions < 2 {
        match events.next_within(until.saturating_duration_since(Instant::now())) {
            None => return Err("no session within 30 s".into()),
            Some(event) => match &*event {
                Event::Snapshot(snapshot) => sessions = snapshot.sessions.len(),
                Event::Change(change) => sessions += change.upserted.len(),
                _ => {}
            },
        }
        if sessions == 1 && !has_written {
            // The connection of the host goes on writing.
            own.execute("INSERT INTO session VALUES ('ses_2', 'Next', '/home/me', 2)", [])?;
            has_written = true;
        }
    }
    let status = service.handle().status()?;
    assert_eq!(status.sessions, 2);
    println!("SQLite {} and {} sessions", rusqlite::version(), status.sessions);
    Ok(())
}
