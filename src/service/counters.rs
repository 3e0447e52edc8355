//! What a service counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::protocol::{Latency, Status};
use super::source_task::ListingResult;

/// How many of the last listings the latencies are of.
const REMEMBERED: usize = 1024;

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    spawns: u64,
    complete: u64,
    failures: BTreeMap<&'static str, u64>,
    bytes: u64,
    took: VecDeque<Duration>,
}

impl Counters {
    /// Counts helpers that were launched.
    pub(super) fn spawned(&mut self, helpers: usize) {
        self.spawns += helpers as u64;
    }

    /// Counts a listing.
    pub(super) fn listed(&mut self, listed: &ListingResult) {
        self.bytes += listed.bytes;
        let failure = listed.result.as_ref().err().map(|failure| failure.kind);
        // If nothing has changed, no helper was launched.
        if matches!(listed.result, Ok(None)) {
            return;
        }
        if failure != Some("thread") {
            self.spawned(1);
        }
        match failure {
            None => self.complete += 1,
            Some(kind) => *self.failures.entry(kind).or_default() += 1,
        }
        if self.took.len() == REMEMBERED {
            self.took.pop_front();
        }
        self.took.push_back(listed.took);
    }

    /// The status, as far as it is counted here.
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
            latency: latency(self.took.iter().copied().collect()),
            bytes_read: self.bytes,
            memory: resident_memory(),
            subscribers: 0,
        }
    }
}

fn latency(mut took: Vec<Duration>) -> Latency {
    took.sort_unstable();
    let Some(max) = took.last() else {
        return Latency::default();
    };
    // The smallest value that so many percent do not exceed.
    let rank = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Latency {
        count: took.len(),
        p50: ms(rank(50)),
        p99: ms(rank(99)),
        max: ms(*max),
    }
}

fn resident_memory() -> Option<u64> {
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
    fn a_percentile_is_a_value_that_so_many_do_not_exceed() {
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
