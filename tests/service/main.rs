//! The service as its hosts and its clients see it: what it says, when it lists, what it costs, how
//! it ends, and that it survives whatever happens to the helper, to the database and to itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

mod bad_snapshots;
mod common;
mod cost;
#[cfg(target_os = "linux")]
mod day;
mod differences;
mod end;
mod half_clients;
mod handle;
mod hosts;
mod log;
mod look_ups;
mod node;
mod own_listers;
mod protocol;
mod restarts;
mod schedule;
mod second_host;
mod shared_place;
mod sidebar;
mod socket;
mod subscribers;
mod supervisors;
mod support;
mod survive_database;
mod survive_helper;
mod systemd;
mod unit;
#[cfg(target_os = "linux")]
mod watching;
