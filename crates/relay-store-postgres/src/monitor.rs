//! Watches a database: whether it can be reached, whether its standby confirms, which server is the
//! primary, and whether it still has the slots of this relay. What it sees decides whether the
//! relay is ready.

use std::time::Duration;

use relay_core::DatabaseFigures;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::connect::{Connection, Connector};
use crate::convert::unsigned;
use crate::error::PostgresError;
use crate::health::Health;
use crate::naming;

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a probe may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A transaction that writes a lock into the log of the database, so that it ends only when the
/// standby has it. Relays do not wait for each other here.
const PROBE: &str = "SELECT FROM meta FOR KEY SHARE";

/// The size of the database in bytes, the age in milliseconds of the oldest transaction that keeps
/// dead rows, and the slots that the database belongs to.
const MEASURE: &str = "\
SELECT pg_database_size(current_database()), (
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)) * 1000, 0)::bigint
    FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()),
    (SELECT slots FROM meta)";

/// Knows which server is the primary.
pub(crate) struct Monitor {
    primary: watch::Sender<String>,
    /// The largest size of the database; 0: any.
    bytes_max: u64,
    /// By the last look.
    measured: watch::Sender<DatabaseFigures>,
}

/// A probe, and the connection that it uses.
type Probe = JoinHandle<(Connection, Result<DatabaseFigures, PostgresError>)>;

impl Monitor {
    pub(crate) fn new(primary: String, bytes_max: u64) -> Self {
        Self { primary: watch::Sender::new(primary), bytes_max, measured: watch::Sender::default() }
    }

    /// What the last look found.
    pub(crate) fn measured(&self) -> DatabaseFigures {
        *self.measured.borrow()
    }

    /// Whether this server is the primary, as far as is known.
    pub(crate) fn is_primary(&self, server: &str) -> bool {
        *self.primary.borrow() == server
    }

    /// Resolves when another server than this one is the primary, or the same one after a restart.
    pub(crate) async fn moved_from(&self, server: &str) {
        let mut primary = self.primary.subscribe();
        // The sender is a field of `self`, so this does not fail.
        drop(primary.wait_for(|primary| primary != server).await);
    }

    /// Looks from time to time, for ever.
    pub(crate) async fn run(&self, connector: &Connector, health: &Health) {
        let mut connection = None;
        loop {
            if let Err(error) = self.watch(connector, health, &mut connection).await {
                health.failed(&error);
            }
            sleep(INTERVAL).await;
        }
    }

    /// One look. A connection whose probe has succeeded is kept for the next one.
    async fn watch(
        &self,
        connector: &Connector,
        health: &Health,
        kept: &mut Option<Connection>,
    ) -> Result<(), PostgresError> {
        let connection = connector.connect_again(kept.take()).await?;
        self.note(&connection.server);
        let replicated = connector.is_replicated();
        let (server, slots) = (connection.server.clone(), connector.slots.clone());
        let mut probe: Probe = tokio::spawn(async move {
            let probed = probe(&connection, replicated, &slots).await;
            (connection, probed)
        });
        loop {
            match timeout(PATIENCE, &mut probe).await {
                Ok(ended) => {
                    let (connection, probed) = ended.map_err(|_| PostgresError::Ending)?;
                    let measured = probed?;
                    health.is_well();
                    health.set_full(self.bytes_max > 0 && measured.bytes > self.bytes_max);
                    self.measured.send_replace(measured);
                    *kept = Some(connection);
                    return Ok(());
                }
                // It waits for the standby. Another one would do the same, and keep another
                // connection of the server. But the primary may be another server now.
                Err(_) => match connector.connect().await {
                    Ok(other) if other.server != server => {
                        self.note(&other.server);
                        probe.abort();
                        *kept = Some(other);
                        return Ok(());
                    }
                    Ok(_) => health.waits_for_standby(),
                    Err(error) => health.failed(&error),
                },
            }
        }
    }

    /// Notes that this server is the primary.
    fn note(&self, server: &str) {
        self.primary.send_if_modified(|primary| {
            let has_moved = primary != server;
            if has_moved {
                server.clone_into(primary);
            }
            has_moved
        });
    }
}

async fn probe(
    connection: &Connection,
    is_replicated: bool,
    slots: &str,
) -> Result<DatabaseFigures, PostgresError> {
    connection.client.batch_execute(PROBE).await?;
    if connection.take_warning() {
        return Err(PostgresError::Unconfirmed);
    }
    if is_replicated && !connection.has_standby().await? {
        return Err(PostgresError::no_standby());
    }
    let row = connection.client.query_one(MEASURE, &[]).await?;
    naming::check_slots(slots, row.try_get(2)?)?;
    let (bytes, oldest_transaction_ms) = (unsigned(row.try_get(0)?), unsigned(row.try_get(1)?));
    Ok(DatabaseFigures { is_available: true, bytes, oldest_transaction_ms })
}
