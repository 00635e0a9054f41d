//! Watches the database while nobody uses it: whether it can be reached, whether its standby
//! confirms, and which server is the primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::connect::{Connection, Connector};
use crate::error::PostgresError;
use crate::health::Health;

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A transaction that writes a lock into the log of the database, so that it ends only when the
/// standby has it. Relays do not wait for each other here.
const PROBE: &str = "SELECT FROM meta FOR KEY SHARE";

/// Knows which server is the primary.
pub(crate) struct Monitor {
    primary: watch::Sender<String>,
}

impl Monitor {
    pub(crate) fn new(primary: String) -> Self {
        Self { primary: watch::Sender::new(primary) }
    }

    /// Resolves when another server than this one is the primary, or the same one after a restart.
    pub(crate) async fn moved_from(&self, server: &str) {
        let mut primary = self.primary.subscribe();
        // The sender is a field of `self`, so this does not fail.
        drop(primary.wait_for(|primary| primary != server).await);
    }

    /// Looks from time to time, for ever.
    pub(crate) async fn run(&self, connector: &Connector, health: &Arc<Health>) {
        let mut connection = None;
        loop {
            match timeout(PATIENCE, self.look(connector, &mut connection)).await {
                Ok(Ok(())) => health.is_well(),
                Ok(Err(error)) => {
                    connection = None;
                    health.failed(&error);
                }
                // It is abandoned and not cancelled, so the server goes on waiting for the standby.
                Err(_) => match connection.take() {
                    Some(_) => health.waits_for_standby(),
                    None => health.failed(&PostgresError::Timeout),
                },
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look(
        &self,
        connector: &Connector,
        connection: &mut Option<Connection>,
    ) -> Result<(), PostgresError> {
        let connected = match connection.take() {
            Some(connected) if !connected.is_closed() => connected,
            _ => connector.connect().await?,
        };
        let connected = connection.insert(connected);
        self.primary.send_if_modified(|primary| {
            let has_moved = *primary != connected.server;
            if has_moved {
                primary.clone_from(&connected.server);
            }
            has_moved
        });
        connected.client.batch_execute(PROBE).await?;
        if connected.take_warning() { Err(PostgresError::Unconfirmed) } else { Ok(()) }
    }
}
