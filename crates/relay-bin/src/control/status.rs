//! `status`: what the relay does at the moment. It also answers while the relay starts and stops.

use std::sync::Arc;

use relay_http::Unready;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::protocol::Refusal;
use super::relay::ControlledRelay;
use crate::config::StorageKind;

/// What a running relay says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// `ready`, `starting`, `full`, `database`, `standby` or `draining`.
    pub(crate) state: String,
    /// How much of the journal is replayed, while the relay starts.
    pub(crate) replayed_percent: Option<u8>,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started_ms: u64,
    pub(crate) uptime_ms: u64,
    /// Where clients connect.
    pub(crate) url: String,
    /// Where metrics are; empty if nowhere.
    pub(crate) admin_address: String,
    /// `redb`, `postgres` or `memory`.
    pub(crate) store: String,
    /// The storage directory, if there is one.
    pub(crate) path: Option<String>,
    /// The items of all queues.
    pub(crate) items: Option<u64>,
    /// The space that the items take in the store.
    pub(crate) item_bytes: Option<u64>,
    /// The file system of the storage directory.
    pub(crate) disk_free_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
}

pub(super) async fn run(relay: &Arc<ControlledRelay>) -> Result<Value, Refusal> {
    let relay = Arc::clone(relay);
    // The disk may not answer.
    let status = tokio::task::spawn_blocking(move || status(&relay)).await.map_err(Refusal::failed)?;
    serde_json::to_value(status).map_err(Refusal::failed)
}

fn status(relay: &ControlledRelay) -> Status {
    let store = relay.facts.store.upgrade();
    let readiness = store.as_ref().map_or(Err(Unready::Draining), |store| store.readiness());
    let (state, replayed_percent) = match readiness {
        Ok(()) => ("ready", None),
        Err(Unready::Starting) => ("starting", None),
        Err(Unready::Replaying { percent }) => ("starting", Some(percent)),
        Err(Unready::StorageFull) => ("full", None),
        Err(Unready::Database) => ("database", None),
        Err(Unready::Standby) => ("standby", None),
        Err(Unready::Draining) => ("draining", None),
    };
    let live = store.filter(|store| store.is_open()).and_then(|store| store.figures().live);
    let config = &relay.facts.config;
    let path = (config.storage.kind == StorageKind::Redb).then_some(&config.storage.path);
    let disk = path.and_then(|path| rustix::fs::statvfs(path).ok());
    Status {
        state: state.to_owned(),
        replayed_percent,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_ms: relay.started.as_ms(),
        uptime_ms: relay.uptime_ms(),
        url: relay.facts.base_url.clone(),
        admin_address: config.admin.address.clone(),
        store: config.storage.kind.name().to_owned(),
        path: path.map(|path| path.to_string_lossy().into_owned()),
        items: live.map(|live| live.items),
        item_bytes: live.map(|live| live.bytes),
        disk_free_bytes: disk.as_ref().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        disk_bytes: disk.map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
    }
}
