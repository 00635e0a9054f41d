//! `relay-bin drain`: stops the running relay, and waits until its store is closed.

use serde::Deserialize;

use super::running::RunningRelay;
use super::{CommandError, Outcome};
use crate::config::RelayConfig;

#[derive(Deserialize)]
struct Drained {
    pid: u32,
}

pub(super) fn run(config: &RelayConfig) -> Result<Outcome, CommandError> {
    let Drained { pid } = RunningRelay::connect(config)?.ask("drain", &(), |_| {})?;
    Ok(Outcome::success(format!("the relay has stopped (process {pid})\n")))
}
