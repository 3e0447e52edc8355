//! `./scripts/bench`: what listings, looking for the marker and a service cost, and how far the
//! goals of speed are reached.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark starts programs and makes databases"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "lengths and counts of a benchmark"
)]

mod budget;
mod copied;
mod fallback;
mod generate;
mod goals;
mod listing;
mod measure;
mod peers;
mod report;
mod scale;
mod scan;
mod service;
mod serving;
mod sizes;

use anyhow::Result;
use clap::Parser;
use opencode_sessions::launch::restore_sigchld;

/// Measures and prints the figures beside the targets.
#[derive(Debug, Parser)]
#[command(name = "./scripts/bench", bin_name = "./scripts/bench")]
enum Bench {
    Goals(goals::Args),
    Scale(scale::Args),
    Listing(listing::Args),
    Scan(scan::Args),
    Service(service::Args),
    Budget(budget::Args),
    Fallback(fallback::Args),
    #[command(hide = true)]
    FallbackWriter(fallback::WriterArgs),
}

fn main() -> Result<()> {
    restore_sigchld();
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let Some((job, words)) = measure::job(&words) {
        return measure::work(job, words);
    }
    match Bench::parse() {
        Bench::Goals(args) => goals::run(&args),
        Bench::Scale(args) => scale::run(&args),
        Bench::Listing(args) => listing::run(&args),
        Bench::Scan(args) => scan::run(&args),
        Bench::Service(args) => service::run(&args),
        Bench::Budget(args) => budget::run(&args),
        Bench::Fallback(args) => fallback::run(&args),
        Bench::FallbackWriter(args) => fallback::write(&args),
    }
}
