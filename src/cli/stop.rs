//! `opencode-sessions stop`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;

use super::service_sockets;
use crate::service::client::{self, Client, ConnectError};

#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    /// The state directory of the service, if it was started with --state-dir
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(args: &StopArgs) -> anyhow::Result<u8> {
    let until = Instant::now() + client::DEFAULT_TIMEOUT;
    let service = match Client::connect_first(&service_sockets(args.state_dir.as_deref()), until) {
        Ok(service) => service,
        // The message of this error explains how to start a service.
        Err(ConnectError::NotRunning) => bail!("no service is running"),
        Err(error) => bail!("{error}"),
    };
    let pid = service.hello().pid;
    if service.stop().is_err() {
        bail!("process {pid} is the service and does not stop: kill it");
    }
    Ok(0)
}
