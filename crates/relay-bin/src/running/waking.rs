//! The gateway that wakes clients: its key, and the task that calls it.

use std::sync::Arc;

use relay_core::Relay;
use relay_wake::{GatewayUrl, Wakes, WakingRelay};

use crate::clock::SystemClock;
use crate::config::WakeConfig;
use crate::deferred_store::DeferredStore;
use crate::error::RelayError;
use crate::key_file;
use crate::wiring;

/// The wakes of this configuration; `None` without `wake.url`.
pub(super) fn wakes(wake: &WakeConfig) -> Result<Option<Wakes>, RelayError> {
    // `validate` has refused a URL that cannot be parsed.
    let Ok(url) = GatewayUrl::parse(&wake.url) else { return Ok(None) };
    let key = key_file::read_wake_key(&wake.key_path)?;
    let wakes = Wakes::new(&wiring::wake_options(wake, url, key), Arc::new(SystemClock))?;
    Ok(Some(wakes))
}

/// Calls the gateway. The future never resolves.
pub(super) async fn wake<R: Relay>(store: Arc<DeferredStore<WakingRelay<R>>>) {
    store.opened().await.call_gateway().await;
}
