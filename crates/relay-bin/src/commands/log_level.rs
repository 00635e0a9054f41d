//! `relay-bin log-level [FILTER]`: shows or changes what the running relay logs.

use super::running::RunningRelay;
use super::{CommandError, Outcome};
use crate::config::RelayConfig;
use crate::control::{LogLevel, LogsNow};

pub(super) fn run(config: &RelayConfig, filter: Option<String>) -> Result<Outcome, CommandError> {
    let LogsNow { filter } = RunningRelay::connect(config)?.ask("log-level", &LogLevel { filter }, |_| {})?;
    Ok(Outcome::success(format!("{filter}\n")))
}
