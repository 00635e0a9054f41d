//! Reads the configuration again while the relay runs, and applies what can change. If any part of
//! it is invalid, nothing changes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relay_core::Relay;
use relay_wake::WakingRelay;
use tokio::sync::watch;
use tokio::task;

use crate::config::{Changes, ConfigErrors, Loaded, RelayConfig};
use crate::deferred_store::DeferredStore;
use crate::supervision::{LoadConfiguration, ReloadRequests};
use crate::wiring;

/// What became of a reload.
type Reloaded = Result<Changes, ConfigErrors>;

/// The parts of a running relay that a reload changes.
pub(super) struct Parts<R> {
    pub(super) in_force: RelayConfig,
    pub(super) http: relay_http::Reload,
    /// The options of the server with a configuration.
    pub(super) options: Box<dyn Fn(&RelayConfig) -> relay_http::Options + Send>,
    pub(super) store: Arc<DeferredStore<WakingRelay<R>>>,
    pub(super) sweep_interval: watch::Sender<Duration>,
}

/// Reloads the configuration at each of `requests`, once the store is open. Without `load`, the
/// requests are done at once. The future never resolves.
pub(super) async fn run<R: Relay>(
    load: Option<LoadConfiguration>,
    parts: Parts<R>,
    mut requests: ReloadRequests,
) {
    let store = Arc::clone(&parts.store);
    let parts = Arc::new(Mutex::new(parts));
    loop {
        // It is done when this is dropped.
        let _request = requests.next().await;
        let Some(load) = load.clone() else { continue };
        store.opened().await;
        let parts = Arc::clone(&parts);
        // Reads files, and may visit all addresses that the rate limit tracks.
        let reloading = task::spawn_blocking(move || {
            let loaded = load()?;
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.apply(loaded)
        });
        match reloading.await {
            Ok(outcome) => log(&outcome),
            Err(error) => tracing::error!(%error, "reload of the configuration crashed"),
        }
    }
}

impl<R: Relay> Parts<R> {
    fn apply(&mut self, Loaded { config, warnings }: Loaded) -> Reloaded {
        let (config, changes) = self.in_force.reloaded(config)?;
        for warning in &warnings {
            tracing::warn!("configuration: {warning}");
        }
        if !changes.live.is_empty() {
            // The store comes first: no request gets through the server by limits that the store
            // does not know. Stores of embedders have limits of their own.
            self.store.set_limits(&wiring::limits(&config.relay));
            self.http.apply((self.options)(&config));
            self.sweep_interval.send_replace(Duration::from_secs(config.relay.gc_interval_seconds));
            self.in_force = config;
        }
        Ok(changes)
    }
}

fn log(outcome: &Reloaded) {
    match outcome {
        Ok(Changes { live, need_restart }) => {
            tracing::info!(changed = live.join(", "), "configuration reloaded");
            if !need_restart.is_empty() {
                let keys = need_restart.join(", ");
                tracing::warn!("needs a restart: {keys}");
            }
        }
        Err(errors) => {
            for problem in errors.problems() {
                tracing::error!("configuration: {problem}");
            }
            tracing::error!("the configuration has mistakes; the former one stays in force");
        }
    }
}
