//! Operations on the whole store, over one connection. Relays may use the store meanwhile.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{Item, Recipient, Seq, Usage};
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::connect::{Connection, Connector};
use crate::convert::{seq, seq_number, unsigned, usage};
use crate::error::PostgresError;
use crate::options::Options;
use crate::page::ReadPage;
use crate::verify::verify;

const CONTENTS: &str = "\
SELECT count(*), coalesce(sum(items), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
    (SELECT count(*) FROM acked),
    pg_total_relation_size('queue') + pg_total_relation_size('item') + pg_total_relation_size('acked'),
    (SELECT CASE WHEN is_hashed THEN key_id END FROM meta),
    greatest(coalesce(max(last_seq), 0), (SELECT seq_floor FROM meta))
FROM queue";

/// How many queues one statement reads.
const QUEUES: i64 = 500;

/// How many items and payload bytes one statement reads.
const PAGE_ITEMS: i64 = 256;
const PAGE_BYTES: i64 = 8 << 20;

const QUEUES_AFTER: &str = "\
SELECT q, recipient FROM queue WHERE q > $1 AND items > 0 ORDER BY q LIMIT $2";

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
    /// The id of the key of which recipients are hashes; `None` if they are plain.
    pub key_id: Option<[u8; 8]>,
    /// The highest arrival number that any queue has given.
    pub last_seq: Seq,
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
            key_id: row.try_get::<_, Option<&[u8]>>(5)?.and_then(|id| id.try_into().ok()),
            last_seq: seq(row.try_get(6)?),
        })
    }

    /// Visits every live item, queue by queue and in arrival order, until `visit` breaks. It reads
    /// short pages, so it keeps no snapshot while it lasts, and items that come and go meanwhile
    /// may be there or not. Returns one finding for each queue that could not be read.
    ///
    /// # Errors
    /// Those of the database.
    pub fn export(
        &self,
        mut visit: impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<Vec<String>, PostgresError> {
        self.runtime.block_on(async {
            let (mut findings, mut after, mut number) = (Vec::new(), Uuid::nil(), 0_u64);
            loop {
                let rows = self.connection.client.query(QUEUES_AFTER, &[&after, &QUEUES]).await?;
                for row in &rows {
                    after = row.try_get(0)?;
                    let name = std::str::from_utf8(row.try_get(1)?).ok();
                    let exported = match name.and_then(|name| Recipient::parse(name).ok()) {
                        Some(recipient) => self.export_queue(after, &recipient, &mut visit).await,
                        None => Err(PostgresError::Corrupted("a queue without a valid recipient")),
                    };
                    match exported {
                        Ok(ControlFlow::Continue(())) => {}
                        Ok(ControlFlow::Break(())) => return Ok(findings),
                        Err(PostgresError::Corrupted(what)) => {
                            findings.push(format!("queue {number}: {what}"));
                        }
                        Err(error) => return Err(error),
                    }
                    number += 1;
                }
                if rows.is_empty() {
                    return Ok(findings);
                }
            }
        })
    }

    async fn export_queue(
        &self,
        key: Uuid,
        recipient: &Recipient,
        visit: &mut impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PostgresError> {
        let (mut after, now) = (-1_i64, None::<i64>);
        loop {
            let parameters: [&(dyn ToSql + Sync); 6] = [&key, &after, &PAGE_ITEMS, &PAGE_BYTES, &now, &true];
            let page = &self.connection.statements.read_page;
            let rows = self.connection.client.query(page, &parameters).await?;
            let mut items = ReadPage::of(&rows, recipient)?.into_items().peekable();
            if items.peek().is_none() {
                return Ok(ControlFlow::Continue(()));
            }
            for item in items {
                after = seq_number(item.seq);
                if visit(recipient, item).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("connection", &self.connection).finish_non_exhaustive()
    }
}
