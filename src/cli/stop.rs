//! `opencode-sessions stop`.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::sessions::NAME;
use super::status::places;
use super::{FAILED, report_error};
use crate::service::client::{self, Client, ConnectError};

#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    /// The state directory that the service was started with, where that was named
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(args: &StopArgs) -> io::Result<u8> {
    let until = Instant::now() + client::PATIENCE;
    let stopped = match Client::find(&places(args.state_dir.as_ref()), until) {
        Ok(service) => {
            let pid = service.hello().pid;
            service
                .stop()
                .map_err(|_| format!("process {pid} is the service and does not end: end it"))
        }
        Err(ConnectError::None) => Err("no service is running".to_owned()),
        Err(why) => Err(why.to_string()),
    };
    match stopped {
        Ok(()) => Ok(0),
        Err(why) => {
            report_error(NAME, &why);
            Ok(FAILED)
        }
    }
}
