//! A relay in this process, on a runtime of its own, so that a test can be plain blocking code.

use std::io;

use relay_bin::config::{RelayConfig, StorageKind};
use relay_bin::{RelayError, RunningRelay};
use relay_core as core;
use tokio::runtime::Runtime;

use crate::client::Client;

/// A running relay. It is stopped, and waited for, when it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it is reached.
    pub base_url: String,
    runtime: Option<(Runtime, RunningRelay)>,
}

impl Relay {
    /// A relay in memory without rate limits.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// As [`Relay::start`], with changes to the configuration.
    pub fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        Self::run(relay_bin::start(config(change)))
    }

    /// As [`Relay::with`], on a store that the test brings.
    pub fn with_store<R: core::Relay>(store: R, change: impl FnOnce(&mut RelayConfig)) -> Self {
        Self::run(relay_bin::start_with_store(store, config(change)))
    }

    /// A new connection to it.
    pub fn connect(&self) -> io::Result<Client> {
        Client::connect(&self.base_url)
    }

    /// The runtime that it runs on.
    pub fn runtime(&self) -> &Runtime {
        let (runtime, _) = self.runtime.as_ref().expect("it is there until the drop");
        runtime
    }

    fn run(start: impl Future<Output = Result<RunningRelay, RelayError>>) -> Self {
        let runtime = Runtime::new().expect("a test can have threads");
        let mut running = runtime.block_on(start).expect("the configuration of a test is good");
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
