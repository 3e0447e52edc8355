//! `opencode-sessions status`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use serde::Deserialize;

use super::service_sockets;
use super::streams::results;
use crate::json::line;
use crate::service::client::{self, Client};
use crate::text::name_line;

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The state directory of the service, if it was started with --state-dir
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<u8> {
    let until = Instant::now() + client::DEFAULT_TIMEOUT;
    let mut service = Client::connect_first(&service_sockets(args.state_dir.as_deref()), until)
        .map_err(|error| anyhow!("{error}"))?;
    let status = service.status().context("the service does not answer")?;
    let mut out = results();
    if args.json {
        out.write_all(&line(&status))?;
    } else {
        let status = serde_json::from_value(status).context("invalid status of the service")?;
        print(&status, &mut out)?;
    }
    out.flush()?;
    Ok(0)
}

/// The printed fields of a service's [`Status`](crate::service::Status).
///
/// The service can be of another version with the same protocol: any field may be missing,
/// and names of states and modes may be unknown.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusFields {
    version: Option<String>,
    pid: Option<u32>,
    uptime_ms: f64,
    /// In bytes; `None` if the system does not report it.
    memory: Option<f64>,
    sessions: Option<u64>,
    revision: Option<u64>,
    listings: Option<u64>,
    spawns: Option<u64>,
    latency: LatencyFields,
    failures: BTreeMap<String, u64>,
    readers: Option<u64>,
    sources: Vec<SourceFields>,
}

/// The durations of the last listings, in milliseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LatencyFields {
    count: Option<u64>,
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SourceFields {
    source: Option<String>,
    health: HealthFields,
    sessions: Option<u64>,
    watch: Option<String>,
    scan: Option<ScanFields>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HealthFields {
    state: Option<String>,
    reason: Option<String>,
    attempts: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ScanFields {
    mode: Option<String>,
    /// From 0 to 1.
    progress: f64,
    frames: Option<u64>,
    bytes: Option<u64>,
}

/// Returns the value for people, or `?` if it is missing.
fn shown(value: Option<&impl Display>) -> String {
    value.map_or("?".to_owned(), |value| {
        name_line(&value.to_string()).into_owned()
    })
}

fn print(status: &StatusFields, mut out: impl Write) -> io::Result<()> {
    let version = shown(status.version.as_ref());
    let pid = shown(status.pid.as_ref());
    writeln!(out, "service   version {version}, process {pid}")?;
    writeln!(out, "running   {:.0} s", status.uptime_ms / 1000.0)?;
    let memory_mib = status.memory.unwrap_or_default() / f64::from(1 << 20);
    writeln!(out, "memory    {memory_mib:.1} MiB")?;
    let sessions = shown(status.sessions.as_ref());
    let revision = shown(status.revision.as_ref());
    writeln!(out, "sessions  {sessions}, revision {revision}")?;
    let LatencyFields {
        count,
        p50,
        p99,
        max,
    } = &status.latency;
    writeln!(
        out,
        "listings  {} complete, {} helpers launched in all; of the last {}: half within \
         {p50:.1} ms, 99 of 100 within {p99:.1} ms, all within {max:.1} ms",
        shown(status.listings.as_ref()),
        shown(status.spawns.as_ref()),
        shown(count.as_ref()),
    )?;
    if !status.failures.is_empty() {
        let failures = status.failures.iter();
        let failures = failures.map(|(kind, count)| format!("{count} {}", name_line(kind)));
        let failures: Vec<_> = failures.collect();
        writeln!(out, "failures  {}", failures.join(", "))?;
    }
    writeln!(out, "readers   {}", shown(status.readers.as_ref()))?;
    for source in &status.sources {
        print_source(source, &mut out)?;
    }
    Ok(())
}

fn print_source(source: &SourceFields, mut out: impl Write) -> io::Result<()> {
    writeln!(out, "\n{}", shown(source.source.as_ref()))?;
    let HealthFields {
        state,
        reason,
        attempts,
    } = &source.health;
    writeln!(out, "  health    {}", shown(state.as_ref()))?;
    if state.as_deref() == Some("failing") {
        writeln!(out, "  because   {}", shown(reason.as_ref()))?;
        writeln!(out, "  attempts  {}", shown(attempts.as_ref()))?;
    }
    writeln!(out, "  sessions  {}", shown(source.sessions.as_ref()))?;
    writeln!(out, "  changes   {}", shown(source.watch.as_ref()))?;
    if let Some(scan) = &source.scan {
        let known_percent = (scan.progress * 100.0).floor();
        writeln!(
            out,
            "  marker    {} scan, {} frames, {} bytes; {known_percent:.0} % known",
            shown(scan.mode.as_ref()),
            shown(scan.frames.as_ref()),
            shown(scan.bytes.as_ref()),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::index::{Failing, Health};
    use crate::service::{Latency, SourceHealth, SourceStatus, Status};
    use crate::session::Millis;
    use crate::wire::Scan;

    fn printed(status: Value) -> String {
        let mut out = Vec::new();
        print(&serde_json::from_value(status).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn source(name: &str, health: Health) -> SourceStatus {
        SourceStatus {
            health: SourceHealth {
                source: name.into(),
                health,
                as_of: None,
            },
            sessions: 7,
            watch: "events".to_owned(),
            listing: false,
            scan: None,
            stuck: 0,
        }
    }

    #[test]
    fn every_field_of_a_status_is_printed() {
        let failing = Health::Failing(Failing {
            since: Millis(1),
            kind: "busy",
            reason: "it is\nlocked".to_owned(),
            attempts: 3,
            next_try: None,
        });
        let status = Status {
            version: "0.1.0".to_owned(),
            pid: 4711,
            uptime_ms: 61_499,
            revision: 5,
            sessions: 14,
            sources: vec![
                SourceStatus {
                    scan: Some(Scan {
                        progress: 0.999,
                        ..Scan::NONE
                    }),
                    ..source("one", Health::Ok)
                },
                source("two", failing),
            ],
            spawns: 9,
            listings: 8,
            failures: [("busy", 1), ("wire", 2)].into(),
            latency: Latency {
                count: 8,
                p50: 1.25,
                p99: 20.0,
                max: 21.04,
            },
            bytes_read: 1,
            memory: Some(3 << 19),
            subscribers: 2,
        };
        assert_eq!(
            printed(serde_json::to_value(status).unwrap()),
            "service   version 0.1.0, process 4711\n\
             running   61 s\n\
             memory    1.5 MiB\n\
             sessions  14, revision 5\n\
             listings  8 complete, 9 helpers launched in all; of the last 8: half within 1.2 ms, \
             99 of 100 within 20.0 ms, all within 21.0 ms\n\
             failures  1 busy, 2 wire\n\
             readers   2\n\
             \n\
             one\n\
             \x20 health    ok\n\
             \x20 sessions  7\n\
             \x20 changes   events\n\
             \x20 marker    none scan, 0 frames, 0 bytes; 99 % known\n\
             \n\
             two\n\
             \x20 health    failing\n\
             \x20 because   it is locked\n\
             \x20 attempts  3\n\
             \x20 sessions  7\n\
             \x20 changes   events\n"
        );
    }

    /// As from a service of another version.
    #[test]
    fn missing_field_is_a_question_mark() {
        let text = printed(json!({
            "new": 1,
            "memory": null,
            "sources": [{"source": "one", "health": {"state": "resting"}, "scan": {"mode": "new"}}],
        }));
        assert!(
            text.starts_with("service   version ?, process ?\n"),
            "{text}"
        );
        assert!(text.contains("\nreaders   ?\n"), "{text}");
        assert!(text.contains("  health    resting\n"), "{text}");
        assert!(
            text.ends_with("  marker    new scan, ? frames, ? bytes; 0 % known\n"),
            "{text}"
        );
    }
}
