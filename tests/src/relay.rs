//! A relay in this process, on its own runtime, so that a test can be plain blocking code.

use std::io;

use relay_bin::config::{RelayConfig, StorageKind};
use relay_bin::{RelayError, RunningRelay};
use relay_core as core;
use tokio::runtime::Runtime;

use crate::client::Client;

/// A running relay. Dropping it stops the relay and waits for its end.
#[derive(Debug)]
pub struct Relay {
    /// The base URL of the public server.
    pub base_url: String,
    runtime: Option<(Runtime, RunningRelay)>,
}

impl Relay {
    /// Starts a relay in memory, without rate limits.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// Like [`Relay::start`], with changes to the configuration.
    pub fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        Self::run(relay_bin::start(config(change)))
    }

    /// Like [`Relay::with`], on a store that the test provides.
    pub fn with_store<R: core::Relay>(store: R, change: impl FnOnce(&mut RelayConfig)) -> Self {
        Self::run(relay_bin::start_with_store(store, config(change)))
    }

    /// Opens a new connection.
    pub fn connect(&self) -> io::Result<Client> {
        Client::connect(&self.base_url)
    }

    /// The runtime of the relay.
    pub fn runtime(&self) -> &Runtime {
        let (runtime, _) = self.runtime.as_ref().expect("only drop takes the runtime");
        runtime
    }

    fn run(start: impl Future<Output = Result<RunningRelay, RelayError>>) -> Self {
        let runtime = Runtime::new().expect("the runtime starts");
        let mut running = runtime.block_on(start).expect("the relay starts");
        let base_url = std::mem::take(&mut running.base_url);
        Self { base_url, runtime: Some((runtime, running)) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some((runtime, running)) = self.runtime.take() {
            let _: Result<(), ()> = running.shutdown.send(());
            drop(runtime.block_on(running.handle));
        }
    }
}

fn config(change: impl FnOnce(&mut RelayConfig)) -> RelayConfig {
    let mut config = RelayConfig::default();
    config.storage.kind = StorageKind::Memory;
    config.rate_limit.enabled = false;
    config.server.drain_seconds = 5;
    change(&mut config);
    config
}
