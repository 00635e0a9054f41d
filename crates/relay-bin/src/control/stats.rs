//! `stats`: what the store of the running relay holds and takes.

use serde_json::Value;

use super::protocol::Refusal;
use super::relay::ControlledRelay;
use crate::config::StorageKind;
use crate::reports::StatsReport;

pub(super) async fn run(relay: &ControlledRelay) -> Result<Value, Refusal> {
    let turn = relay.whole_store_turn().await?;
    let store = relay.open_store()?;
    if relay.facts.config.storage.kind == StorageKind::Postgres {
        return Err(Refusal::new("not_with_this_store", "ask the database instead of one of its relays"));
    }
    let reading = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        match store.redb() {
            Some(store) => StatsReport::of_redb(store).map_err(Refusal::failed),
            None => Ok(StatsReport::of_memory(&store.figures())),
        }
    });
    let report = reading.await.map_err(Refusal::failed)??;
    serde_json::to_value(report).map_err(Refusal::failed)
}
