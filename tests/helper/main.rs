//! What the helper reads of a database, whatever is in it, whatever became of the file, and without
//! its owner noticing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs and makes databases"
)]

use opencode_sessions::internals::{text, wire};
use opencode_sessions::session;

mod cells;
mod common;
mod content;
mod degraded;
mod deleted;
mod empty_values;
mod files;
mod first_prompts;
mod locks;
mod memory;
mod no_rights;
mod odd;
mod opencode2;
mod oracle;
mod people;
mod real_databases;
mod rows;
mod same_lines;
mod schema;
mod states;
mod stores;
mod support;
#[cfg(target_os = "linux")]
mod system_errors;
