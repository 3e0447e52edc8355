//! `opencode-sessions status`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use super::sessions::NAME;
use super::streams::results;
use super::{FAILED, report_error};
use crate::dirs;
use crate::json::line;
use crate::service::client::{self, Client};
use crate::service::socket;
use crate::text::name_line;

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The state directory that the service was started with, where that was named
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> io::Result<u8> {
    let until = Instant::now() + client::PATIENCE;
    let status = Client::find(&places(args.state_dir.as_ref()), until)
        .map_err(|why| why.to_string())
        .and_then(|mut service| {
            service
                .status()
                .map_err(|error| format!("the service does not answer: {error}"))
        });
    let status = match status {
        Ok(status) => status,
        Err(why) => {
            report_error(NAME, &why);
            return Ok(FAILED);
        }
    };
    let mut out = results();
    match args.json {
        true => out.write_all(&line(&status))?,
        false => print(&status, &mut out)?,
    }
    out.flush()?;
    Ok(0)
}

/// Where the service can be that this program is to ask.
pub(super) fn places(state_dir: Option<&PathBuf>) -> Vec<PathBuf> {
    match state_dir {
        Some(own) => vec![own.join("socket")],
        None => socket::places(dirs::state_dir().as_deref()),
    }
}

fn print(status: &Value, mut out: impl Write) -> io::Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) => name_line(text).into_owned(),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    };
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    writeln!(
        out,
        "service   version {}, process {}",
        text(&status["version"]),
        text(&status["pid"])
    )?;
    writeln!(
        out,
        "running   {:.0} s",
        number(&status["uptimeMs"]) / 1000.0
    )?;
    writeln!(
        out,
        "memory    {:.1} MiB",
        number(&status["memory"]) / f64::from(1 << 20)
    )?;
    writeln!(
        out,
        "sessions  {}, revision {}",
        text(&status["sessions"]),
        text(&status["revision"])
    )?;
    let latency = &status["latency"];
    writeln!(
        out,
        "listings  {} complete, {} helpers launched in all; of the last {}: half within {:.1} ms, 99 of 100 within {:.1} ms, all within {:.1} ms",
        text(&status["listings"]),
        text(&status["spawns"]),
        text(&latency["count"]),
        number(&latency["p50"]),
        number(&latency["p99"]),
        number(&latency["max"]),
    )?;
    if let Some(failures) = status["failures"]
        .as_object()
        .filter(|failures| !failures.is_empty())
    {
        let failures: Vec<_> = failures
            .iter()
            .map(|(kind, count)| format!("{} {}", text(count), name_line(kind)))
            .collect();
        writeln!(out, "failures  {}", failures.join(", "))?;
    }
    writeln!(out, "readers   {}", text(&status["readers"]))?;
    for source in status["sources"].as_array().into_iter().flatten() {
        writeln!(out, "\n{}", text(&source["source"]))?;
        let health = &source["health"];
        writeln!(out, "  health    {}", text(&health["state"]))?;
        if health["state"] == "failing" {
            writeln!(out, "  because   {}", text(&health["reason"]))?;
            writeln!(out, "  attempts  {}", text(&health["attempts"]))?;
        }
        writeln!(out, "  sessions  {}", text(&source["sessions"]))?;
        writeln!(out, "  changes   {}", text(&source["watch"]))?;
        let scan = &source["scan"];
        if scan.is_object() {
            let known = (number(&scan["progress"]) * 100.0).floor();
            writeln!(
                out,
                "  marker    {} scan, {} frames, {} bytes; {known:.0} % known",
                text(&scan["mode"]),
                text(&scan["frames"]),
                text(&scan["bytes"]),
            )?;
        }
    }
    Ok(())
}
