//! Operations on the whole store, over one connection to each database. Relays may use the store
//! meanwhile.

use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::future::try_join_all;
use relay_core::{Item, Recipient, Seq, Usage};
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::connect::{Connection, Connector};
use crate::convert::{seq, seq_number, unsigned, usage};
use crate::error::PostgresError;
use crate::options::Options;
use crate::page::ReadPage;
use crate::slots::Slots;
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

/// Connections for the operator.
pub struct Admin {
    runtime: Runtime,
    databases: Vec<Database>,
}

/// A connection to one database.
struct Database {
    number: Option<usize>,
    slots: Slots,
    connection: Connection,
}

/// What a store contains, or one of its databases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

impl Contents {
    /// Those of two databases of one store, which have the same key.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            queues: self.queues.saturating_add(other.queues),
            usage: self.usage.plus(other.usage),
            acked: self.acked.saturating_add(other.acked),
            table_bytes: self.table_bytes.saturating_add(other.table_bytes),
            key_id: self.key_id.or(other.key_id),
            last_seq: self.last_seq.max(other.last_seq),
        }
    }
}

impl Admin {
    /// Connects to all databases, which must have their tables. Blocks.
    ///
    /// # Errors
    /// [`PostgresError`], with a message for the operator.
    pub fn connect(options: &Options) -> Result<Self, PostgresError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(PostgresError::Threads)?;
        let connecting = options.numbered().map(async |(number, shard)| {
            let connected = async { Connector::new(options, shard)?.connect().await }.await;
            let connection = connected.map_err(|error| error.of_shard(number))?;
            Ok::<_, PostgresError>(Database { number, slots: shard.slots.clone(), connection })
        });
        let databases = runtime.block_on(try_join_all(connecting))?;
        Ok(Self { runtime, databases })
    }

    /// Checks all queues, and lists what is inconsistent. It reads a queue at a time. While relays
    /// write, it may find what is about to be right.
    ///
    /// # Errors
    /// Those of the database.
    pub fn verify(&self) -> Result<Vec<String>, PostgresError> {
        let mut findings = Vec::new();
        for database in &self.databases {
            let found = self.runtime.block_on(verify(&database.connection.client, &database.slots));
            let found = found.map_err(|error| error.of_shard(database.number))?;
            findings.extend(found.into_iter().map(|finding| database.finding(finding)));
        }
        Ok(findings)
    }

    /// Counts what the store contains. Reads one row for each queue.
    ///
    /// # Errors
    /// Those of the databases.
    pub fn contents(&self) -> Result<Contents, PostgresError> {
        Ok(self.contents_of_each()?.into_iter().fold(Contents::default(), Contents::plus))
    }

    /// Counts what each database contains.
    ///
    /// # Errors
    /// Those of the databases.
    pub fn contents_of_each(&self) -> Result<Vec<Contents>, PostgresError> {
        let contents = self.databases.iter().map(|database| {
            let counted = self.runtime.block_on(database.contents());
            counted.map_err(|error| error.of_shard(database.number))
        });
        contents.collect()
    }

    /// Visits every live item, database by database, queue by queue and in arrival order, until
    /// `visit` breaks. It reads short pages, so it keeps no snapshot while it lasts, and items that
    /// come and go meanwhile may be there or not. Returns one finding for each queue that could not
    /// be read.
    ///
    /// # Errors
    /// Those of the database.
    pub fn export(
        &self,
        mut visit: impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<Vec<String>, PostgresError> {
        let mut findings = Vec::new();
        for database in &self.databases {
            let exported = self.runtime.block_on(database.export(&mut visit, &mut findings));
            if exported.map_err(|error| error.of_shard(database.number))?.is_break() {
                break;
            }
        }
        Ok(findings)
    }
}

impl Database {
    /// A finding with the number of the database, if there are several.
    fn finding(&self, text: String) -> String {
        match self.number {
            Some(number) => format!("shard {number}: {text}"),
            None => text,
        }
    }

    async fn contents(&self) -> Result<Contents, PostgresError> {
        let row = self.connection.client.query_one(CONTENTS, &[]).await?;
        Ok(Contents {
            queues: unsigned(row.try_get(0)?),
            usage: usage(row.try_get(1)?, row.try_get(2)?),
            acked: unsigned(row.try_get(3)?),
            table_bytes: unsigned(row.try_get(4)?),
            key_id: row.try_get::<_, Option<&[u8]>>(5)?.and_then(|id| id.try_into().ok()),
            last_seq: seq(row.try_get(6)?),
        })
    }

    async fn export(
        &self,
        visit: &mut impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
        findings: &mut Vec<String>,
    ) -> Result<ControlFlow<()>, PostgresError> {
        let (mut after, mut number) = (Uuid::nil(), 0_u64);
        loop {
            let rows = self.connection.client.query(QUEUES_AFTER, &[&after, &QUEUES]).await?;
            for row in &rows {
                after = row.try_get(0)?;
                let name = std::str::from_utf8(row.try_get(1)?).ok();
                let exported = match name.and_then(|name| Recipient::parse(name).ok()) {
                    Some(recipient) => self.export_queue(after, &recipient, visit).await,
                    None => Err(PostgresError::Corrupted("a queue without a valid recipient")),
                };
                match exported {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                    Err(PostgresError::Corrupted(what)) => {
                        findings.push(self.finding(format!("queue {number}: {what}")));
                    }
                    Err(error) => return Err(error),
                }
                number += 1;
            }
            if rows.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
        }
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
        f.debug_struct("Admin").field("databases", &self.databases.len()).finish_non_exhaustive()
    }
}
