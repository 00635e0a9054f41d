//! Gives the databases of a store other slots, after one of them was copied. What a database then
//! no longer holds is removed from it, but only if the database that holds it now has it.
//!
//! A relay with the old map may still write. It locks rows of `queue` first, and reads the slots of
//! the database behind that, in the same transaction. So whoever changes the slots while nobody
//! else has locked that table sees all that was written before, and nothing is written after.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::connect::Connector;
use crate::convert::unsigned;
use crate::error::PostgresError;
use crate::naming;
use crate::options::{Options, ShardOptions};
use crate::slots::{SlotMap, Slots};

/// How many queues one statement looks at, and how many rows one removes.
const QUEUES: i64 = 1_000;
const REMOVED: i64 = 2_000;

/// Taken in each database at once, so it also shows that no two shards are the same one.
const ONLY_ONE: &str = "SELECT pg_try_advisory_lock(8245928655720965996)";

const SESSION: &str = "SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = '60s'";
const BEGIN: &str = "BEGIN; LOCK TABLE queue IN EXCLUSIVE MODE";

const QUEUES_FROM: &str = "SELECT q, last_seq FROM queue WHERE q BETWEEN $1 AND $2 ORDER BY q LIMIT $3";

/// How many of these queues are not there, or have got no item that was the last one elsewhere. One
/// that a sweep has forgotten is below the floor; one that was never copied is above it.
const MISSING: &str = "\
SELECT count(*) FROM unnest($1::uuid[], $2::bigint[]) AS k (q, last_seq)
WHERE k.last_seq > (SELECT seq_floor FROM meta)
AND NOT EXISTS (SELECT FROM queue u WHERE u.q = k.q AND u.last_seq >= k.last_seq)";

/// Removes rows of a range of queues, as long as the database does not belong to them. The queues
/// go last, so that an interrupted removal goes on later.
const REMOVE_ITEMS: &str = "\
DELETE FROM item WHERE (SELECT slots FROM meta) = $4 AND (q, seq) IN (
    SELECT q, seq FROM item WHERE q BETWEEN $1 AND $2 ORDER BY q, seq LIMIT $3)";
const REMOVE_ACKED: &str = "\
DELETE FROM acked WHERE (SELECT slots FROM meta) = $4 AND (q, message_id, chunk_index) IN (
    SELECT q, message_id, chunk_index FROM acked WHERE q BETWEEN $1 AND $2
    ORDER BY q, message_id, chunk_index LIMIT $3)";
const REMOVE_QUEUES: &str = "\
DELETE FROM queue WHERE (SELECT slots FROM meta) = $4 AND q IN (
    SELECT q FROM queue WHERE q BETWEEN $1 AND $2 ORDER BY q LIMIT $3)";

/// What a database holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Its slots before; `None` if no relay has used it yet.
    pub from: Option<String>,
    /// Its slots now.
    pub to: String,
    /// The queues of other slots that were removed.
    pub queues_removed: u64,
}

/// A database, over one connection.
struct Database<'a> {
    number: Option<usize>,
    options: &'a ShardOptions,
    client: Client,
    /// As the database writes them.
    slots: String,
}

/// Writes the slots of the options into all databases, and removes the queues of other slots from
/// each, in short transactions. Relays with another map are refused from then on. Safe to repeat.
/// Blocks.
///
/// # Errors
/// [`PostgresError`]. As long as a queue is not in the database that is to hold it, nothing is
/// removed.
pub fn set_slots(options: &Options) -> Result<Vec<Assigned>, PostgresError> {
    let map = SlotMap::new(options.shards.iter().map(|shard| &shard.slots))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PostgresError::Threads)?;
    runtime.block_on(async {
        let mut databases = Vec::with_capacity(options.shards.len());
        for (number, shard) in options.numbered() {
            let database = Database::connect(options, number, shard).await;
            databases.push(database.map_err(|error| error.of_shard(number))?);
        }
        // Before anything changes. It is looked at again behind the lock.
        let mut known = Vec::with_capacity(databases.len());
        for database in &databases {
            let checked = database.check(&databases, &map).await;
            known.extend(checked.map_err(|error| error.of_shard(database.number))?);
        }
        Slots::all_are_in(&known)?;
        let mut assigned = Vec::with_capacity(databases.len());
        for database in &databases {
            let done = database.assign(&databases, &map).await;
            assigned.push(done.map_err(|error| error.of_shard(database.number))?);
        }
        // Only now: until here, each queue may still be needed where it was.
        for (database, assigned) in databases.iter().zip(&mut assigned) {
            let removed = database.remove_foreign(&databases, &map).await;
            assigned.queues_removed = removed.map_err(|error| error.of_shard(database.number))?;
        }
        Ok(assigned)
    })
}

impl<'a> Database<'a> {
    async fn connect(
        options: &Options,
        number: Option<usize>,
        shard: &'a ShardOptions,
    ) -> Result<Self, PostgresError> {
        let client = Connector::new(options, shard)?.connect_bare().await?;
        client.batch_execute(SESSION).await?;
        if !client.query_one(ONLY_ONE, &[]).await?.try_get::<_, bool>(0)? {
            return Err(PostgresError::Assigning);
        }
        Ok(Self { number, options: shard, client, slots: shard.slots.to_string() })
    }

    /// Writes the slots, unless they are these already.
    async fn assign(&self, all: &[Database<'_>], map: &SlotMap) -> Result<Assigned, PostgresError> {
        self.client.batch_execute(BEGIN).await?;
        let from = self.check(all, map).await?;
        if from.as_ref() != Some(&self.slots) {
            self.client.execute(naming::SET_SLOTS, &[&self.slots]).await?;
        }
        self.client.batch_execute("COMMIT").await?;
        Ok(Assigned { from, to: self.slots.clone(), queues_removed: 0 })
    }

    /// Returns the slots that it has. Refuses if it would lose queues that are nowhere else. An
    /// earlier call may have given it its slots, but not yet have removed the other queues.
    async fn check(&self, all: &[Database<'_>], map: &SlotMap) -> Result<Option<String>, PostgresError> {
        let from = self.client.query_one(naming::SLOTS, &[]).await?.try_get(0)?;
        let queues = self.not_copied(all, map).await?;
        if queues > 0 {
            return Err(PostgresError::NotCopied { queues });
        }
        Ok(from)
    }

    /// How many queues of other slots are missing in the databases that are to hold them.
    async fn not_copied(&self, all: &[Database<'_>], map: &SlotMap) -> Result<u64, PostgresError> {
        let (firsts, lasts) = self.options.slots.foreign_keys();
        let mut missing = 0;
        for (mut first, last) in firsts.into_iter().zip(lasts) {
            loop {
                let rows = self.client.query(QUEUES_FROM, &[&first, &last, &QUEUES]).await?;
                let mut by_holder = BTreeMap::<usize, (Vec<Uuid>, Vec<i64>)>::new();
                for row in &rows {
                    let queue: Uuid = row.try_get(0)?;
                    let (queues, last_seqs) = by_holder.entry(map.shard(queue)).or_default();
                    queues.push(queue);
                    last_seqs.push(row.try_get(1)?);
                    first = Uuid::from_u128(queue.as_u128().saturating_add(1));
                }
                for (holder, (queues, last_seqs)) in &by_holder {
                    let Some(holder) = all.get(*holder) else { continue };
                    let counted = holder.client.query_one(MISSING, &[queues, last_seqs]).await?;
                    missing += unsigned(counted.try_get(0)?);
                }
                if (rows.len() as u64) < QUEUES.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(missing)
    }

    /// Removes all queues of other slots. Returns how many there were.
    async fn remove_foreign(&self, all: &[Database<'_>], map: &SlotMap) -> Result<u64, PostgresError> {
        let stored = self.check(all, map).await?;
        naming::check_slots(&self.slots, stored.as_deref())?;
        let (firsts, lasts) = self.options.slots.foreign_keys();
        let mut queues = 0;
        for (first, last) in firsts.into_iter().zip(lasts) {
            self.remove(REMOVE_ITEMS, first, last).await?;
            self.remove(REMOVE_ACKED, first, last).await?;
            queues += self.remove(REMOVE_QUEUES, first, last).await?;
        }
        Ok(queues)
    }

    /// Removes rows step by step. Returns how many there were.
    async fn remove(&self, statement: &str, first: Uuid, last: Uuid) -> Result<u64, PostgresError> {
        let mut removed = 0;
        loop {
            let step = self.client.execute(statement, &[&first, &last, &REMOVED, &self.slots]).await?;
            removed += step;
            if step < REMOVED.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}
