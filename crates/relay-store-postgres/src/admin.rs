//! Operations on the whole store, over one connection. Relays may use the store meanwhile.

use relay_core::Usage;
use tokio::runtime::Runtime;

use crate::connect::{Connection, Connector};
use crate::convert::{unsigned, usage};
use crate::error::PostgresError;
use crate::options::Options;
use crate::verify::verify;

const CONTENTS: &str = "\
SELECT count(*), coalesce(sum(items), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
    (SELECT count(*) FROM acked),
    pg_total_relation_size('queue') + pg_total_relation_size('item') + pg_total_relation_size('acked'),
    (SELECT coalesce(is_hashed, false) FROM meta)
FROM queue";

/// A connection for the operator.
pub struct Admin {
    runtime: Runtime,
    connection: Connection,
}

/// What a store contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Queues with items, or with ids of acked items.
    pub queues: u64,
    /// The items and their payloads, with expired ones that are not deleted yet.
    pub usage: Usage,
    /// Ids of acked items.
    pub acked: u64,
    /// The size of the tables and their indexes, in bytes.
    pub table_bytes: u64,
    /// Whether recipients are keyed hashes.
    pub is_hashed: bool,
}

impl Admin {
    /// Connects to a database with tables. Blocks.
    ///
    /// # Errors
    /// [`PostgresError`], with a message for the operator.
    pub fn connect(options: &Options) -> Result<Self, PostgresError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(PostgresError::Threads)?;
        let connector = Connector::new(options)?;
        let connection = runtime.block_on(connector.connect())?;
        Ok(Self { runtime, connection })
    }

    /// Checks all queues, and lists what is inconsistent. It reads a queue at a time. While relays
    /// write, it may find what is about to be right.
    ///
    /// # Errors
    /// Those of the database.
    pub fn verify(&self) -> Result<Vec<String>, PostgresError> {
        self.runtime.block_on(verify(&self.connection.client))
    }

    /// Counts what the store contains. Reads one row for each queue.
    ///
    /// # Errors
    /// Those of the database.
    pub fn contents(&self) -> Result<Contents, PostgresError> {
        let row = self.runtime.block_on(self.connection.client.query_one(CONTENTS, &[]))?;
        Ok(Contents {
            queues: unsigned(row.try_get(0)?),
            usage: usage(row.try_get(1)?, row.try_get(2)?),
            acked: unsigned(row.try_get(3)?),
            table_bytes: unsigned(row.try_get(4)?),
            is_hashed: row.try_get(5)?,
        })
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("connection", &self.connection).finish_non_exhaustive()
    }
}
