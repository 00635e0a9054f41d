//! `log-level`: shows what the relay logs, and changes it until the next start.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::protocol::Refusal;
use super::relay::ControlledRelay;

/// The arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogLevel {
    /// The new filter; `None` only shows the current one.
    pub(crate) filter: Option<String>,
}

/// The result.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogsNow {
    /// The filter in force.
    pub(crate) filter: String,
}

pub(super) fn run(relay: &ControlledRelay, arguments: LogLevel) -> Result<Value, Refusal> {
    let log = relay.facts.log.as_ref().ok_or_else(|| {
        Refusal::new("no_log", "the log belongs to the program that the relay is a part of")
    })?;
    if let Some(filter) = arguments.filter {
        log.set(&filter).map_err(|error| Refusal::new("invalid_filter", error))?;
    }
    Ok(json!(LogsNow { filter: log.directives() }))
}
