//! The counters of a service, as its status reports them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::source_task::ListingResult;
use super::status::{Latency, Status};

/// The latencies are those of at most this many listings, the last ones.
const MAX_LATENCIES: usize = 1024;

/// The counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    spawns: u64,
    complete: u64,
    failures: BTreeMap<&'static str, u64>,
    bytes_read: u64,
    durations: VecDeque<Duration>,
}

impl Counters {
    /// Counts launched helpers.
    pub(super) fn count_spawns(&mut self, helpers: usize) {
        self.spawns += helpers as u64;
    }

    /// Counts a listing that has ended.
    pub(super) fn count_listing(&mut self, listed: &ListingResult) {
        self.bytes_read += listed.bytes;
        let failure = listed.result.as_ref().err().map(|failure| failure.kind);
        // If nothing has changed, no helper was launched.
        if matches!(listed.result, Ok(None)) {
            return;
        }
        if failure != Some("thread") {
            // A refused difference was one more helper.
            self.count_spawns(1 + usize::from(listed.refused.is_some()));
        }
        match failure {
            None => self.complete += 1,
            Some(kind) => *self.failures.entry(kind).or_default() += 1,
        }
        if self.durations.len() == MAX_LATENCIES {
            self.durations.pop_front();
        }
        self.durations.push_back(listed.took);
    }

    /// Returns a status with the counts; the caller sets the other fields.
    pub(super) fn status(&self) -> Status {
        Status {
            version: crate::wire::VERSION.to_owned(),
            pid: std::process::id(),
            uptime_ms: 0,
            revision: 0,
            sessions: 0,
            sources: Vec::new(),
            spawns: self.spawns,
            listings: self.complete,
            failures: self.failures.clone(),
            latency: latency(self.durations.iter().copied().collect()),
            bytes_read: self.bytes_read,
            memory: resident_bytes(),
            subscribers: 0,
        }
    }
}

fn latency(mut durations: Vec<Duration>) -> Latency {
    durations.sort_unstable();
    let Some(max) = durations.last() else {
        return Latency::default();
    };
    // Nearest rank: the smallest value that this many percent do not exceed.
    let rank = |percent: usize| durations[(durations.len() * percent).div_ceil(100) - 1];
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Latency {
        count: durations.len(),
        p50: ms(rank(50)),
        p99: ms(rank(99)),
        max: ms(*max),
    }
}

/// Returns the resident memory of this process, or `None` on systems other than Linux.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_the_nearest_rank() {
        let of = |n: u64| latency((1..=n).rev().map(Duration::from_millis).collect());
        assert_eq!(of(0), Latency::default());
        assert_eq!(
            of(1),
            Latency {
                count: 1,
                p50: 1.0,
                p99: 1.0,
                max: 1.0
            }
        );
        assert_eq!(
            of(100),
            Latency {
                count: 100,
                p50: 50.0,
                p99: 99.0,
                max: 100.0
            }
        );
        assert_eq!(
            of(200),
            Latency {
                count: 200,
                p50: 100.0,
                p99: 198.0,
                max: 200.0
            }
        );
    }
}
