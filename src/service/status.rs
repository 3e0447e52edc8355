//! How a service is doing: the answer to the command `status`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::index::{Health, SourceState};
use crate::session::Millis;
use crate::source::SourceName;
use crate::wire::Scan;

/// The health of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceHealth {
    /// The name of the source.
    pub source: SourceName,
    /// Its health.
    pub health: Health,
    /// When the listing began that its sessions are from.
    #[serde(rename = "asOf", skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Millis>,
}

impl SourceHealth {
    /// Returns the health of a source of the index.
    #[must_use]
    pub fn of(state: &SourceState) -> Self {
        Self {
            source: state.name().clone(),
            health: state.health().clone(),
            as_of: state.as_of(),
        }
    }
}

/// The status of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// How long the service has been running, in milliseconds.
    pub uptime_ms: u64,
    /// The revision of the default view.
    pub revision: u64,
    /// How many sessions the default view shows, each counted once.
    pub sessions: usize,
    /// The sources.
    pub sources: Vec<SourceStatus>,
    /// How many helpers were launched, for listings and look-ups.
    pub spawns: u64,
    /// How many listings were complete.
    pub listings: u64,
    /// How many listings failed, by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long the last listings took.
    pub latency: Latency,
    /// How many bytes the helpers sent.
    pub bytes_read: u64,
    /// The resident memory of the process in bytes, if the system reports it.
    pub memory: Option<u64>,
    /// How many subscribers there are.
    #[serde(rename = "readers")]
    pub subscribers: usize,
}

/// The status of one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SourceStatus {
    /// The name and health of the source.
    #[serde(flatten)]
    pub health: SourceHealth,
    /// How many roots it has that are not archived.
    pub sessions: usize,
    /// How changes are noticed: `events`, `polling: ` and the reason, or `asked every ` and the
    /// interval of a command; `not yet` before the first inspection.
    pub watch: String,
    /// A listing is running.
    pub listing: bool,
    /// How the last complete listing searched for the marker.
    pub scan: Option<Scan>,
    /// How many helpers were killed and have not exited.
    pub stuck: usize,
}

impl SourceStatus {
    /// Returns the status of a source that was never listed.
    #[must_use]
    pub fn new(health: SourceHealth) -> Self {
        Self {
            health,
            sessions: 0,
            watch: String::new(),
            listing: false,
            scan: None,
            stuck: 0,
        }
    }
}

/// The durations of the last listings, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many listings are counted: up to 1024.
    pub count: usize,
    /// The duration that half of them did not exceed.
    pub p50: f64,
    /// The duration that 99 of 100 did not exceed.
    pub p99: f64,
    /// The longest duration.
    pub max: f64,
}
