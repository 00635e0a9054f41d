//! The table of commands.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::output::Output;
use super::protocol::{Refusal, Request};
use super::relay::ControlledRelay;
use super::{backup, drain, log_level, stats, status, verify};

/// Runs a command.
pub(super) async fn run(
    relay: &Arc<ControlledRelay>,
    request: Request,
    output: &Output,
) -> Result<Value, Refusal> {
    let Request { command, arguments, .. } = request;
    match command.as_str() {
        "backup" => backup::run(relay, parse(arguments)?, output).await,
        "drain" => drain::run(relay).await,
        "log-level" => log_level::run(relay, parse(arguments)?),
        "stats" => stats::run(relay).await,
        "status" => status::run(relay).await,
        "verify" => verify::run(relay, output).await,
        _ => Err(Refusal::new("unknown_command", "this relay does not know the command")),
    }
}

/// Whether a command outlives the store, because it reports the end of the relay.
pub(super) fn waits_for_end(command: &str) -> bool {
    command == "drain"
}

/// The arguments of a command.
fn parse<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|_| Refusal::new("invalid_request", "the arguments are not those of the command"))
}
