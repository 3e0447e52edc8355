//! What a service counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::protocol::SourceHealth;
use crate::wire::Scan;

/// How many of the last listings the latencies are of.
const REMEMBERED: usize = 1024;

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Stats {
    spawns: u64,
    complete: u64,
    failures: BTreeMap<&'static str, u64>,
    bytes: u64,
    took: VecDeque<Duration>,
}

/// How a service is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// How long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// The revision of its index.
    pub revision: u64,
    /// How many sessions it shows, each once.
    pub sessions: usize,
    /// Its sources.
    pub sources: Vec<SourceStatus>,
    /// Helpers launched, to list and to look up.
    pub spawns: u64,
    /// Listings that were complete.
    pub listings: u64,
    /// Listings that failed, by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long listings take.
    pub latency: Latency,
    /// Bytes that helpers sent.
    pub bytes_read: u64,
    /// Its own resident memory in bytes, where the system says.
    pub memory: Option<u64>,
    /// Readers of its events.
    #[serde(rename = "readers")]
    pub subscribers: usize,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Its name and health.
    #[serde(flatten)]
    pub health: SourceHealth,
    /// How many sessions it has that are not archived.
    pub sessions: usize,
    /// How it learns of changes: `events`, or `polling` and why, or `asked every` so
    /// often.
    pub watch: String,
    /// A listing runs.
    pub listing: bool,
    /// How the last complete listing looked for the marker.
    pub scan: Option<Scan>,
    /// Helpers that were killed and do not die.
    pub stuck: usize,
}

/// How long the last listings took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many these are: up to 1024.
    pub count: usize,
    /// Half of them took at most this.
    pub p50: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl Stats {
    pub(super) fn spawned(&mut self) {
        self.spawns += 1;
    }

    pub(super) fn listed(&mut self, took: Duration, failure: Option<&'static str>) {
        match failure {
            None => self.complete += 1,
            Some(kind) => *self.failures.entry(kind).or_default() += 1,
        }
        if self.took.len() == REMEMBERED {
            self.took.pop_front();
        }
        self.took.push_back(took);
    }

    pub(super) fn read(&mut self, bytes: u64) {
        self.bytes += bytes;
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
