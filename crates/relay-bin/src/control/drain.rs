//! `drain`: stops the relay as SIGTERM does, and reports when its store is closed.

use serde_json::{Value, json};

use super::protocol::Refusal;
use super::relay::ControlledRelay;

pub(super) async fn run(relay: &ControlledRelay) -> Result<Value, Refusal> {
    tracing::info!("stopping at the request of a command: finishing accepted requests, rejecting new ones");
    relay.request_drain();
    relay.ended().await.map_err(Refusal::failed)?;
    Ok(json!({"pid": std::process::id()}))
}
