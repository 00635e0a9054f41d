//! A transaction over a batch of requests, in two round trips. The first locks the queues and reads
//! what the rules need; the rules decide; the second writes what they changed, and commits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::join_all;
use relay_core::import::import;
use relay_core::{
    Ack, AckOutcome, ImportOutcome, ItemId, Limits, PushOutcome, Seq, SharedLimits, Timestamp, queue,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::changes::Changes;
use crate::connect::Connection;
use crate::convert::{item_id, message_uuid, seq, seq_number, timestamp, unsigned, usage};
use crate::error::PostgresError;
use crate::image::{FoundItem, Image, QueueImage, QueueRow, ThroughCounts};
use crate::job::{Job, Outcome, Task};
use crate::naming;
use crate::options::Durability;

/// What the rules need besides the requests.
pub(crate) struct Rules {
    pub(crate) limits: Arc<SharedLimits>,
    pub(crate) durability: Durability,
    /// The slots that the database must belong to, as it writes them.
    pub(crate) slots: String,
}

/// What the requests of a batch ask of the first round trip.
#[derive(Default)]
struct Demand<'a> {
    queues: BTreeMap<Uuid, &'a str>,
    /// Those that are created if they do not exist.
    creatable: BTreeSet<Uuid>,
    item_queues: Vec<Uuid>,
    message_ids: Vec<Uuid>,
    chunks: Vec<i64>,
    /// The lengths of the payloads that pushes bring; -1 for acks.
    lengths: Vec<i64>,
    /// The one ack of all items up to one: its queue, the last item, and its ticket if it is
    /// repeated.
    through: Option<(Uuid, Seq, Option<i64>)>,
}

type Params<'a> = [&'a (dyn ToSql + Sync)];

/// Begins a transaction and decides the requests. Their outcomes are valid once
/// [`commit`] has succeeded.
pub(crate) async fn decide(
    connection: &Connection,
    rules: &Rules,
    now: Option<Timestamp>,
    jobs: &[Job],
) -> Result<(Image, Vec<Outcome>), PostgresError> {
    let demand = Demand::of(jobs);
    let mut image = demand.load(connection, rules, now).await?;
    let outcomes = jobs.iter().map(|job| decide_one(&mut image, job));
    let outcomes = outcomes.collect::<Result<Vec<_>, _>>()?;
    Ok((image, outcomes))
}

/// Writes what the rules changed, and commits. An error may come after the commit.
pub(crate) async fn commit(
    connection: &Connection,
    image: &Image,
    durability: Durability,
) -> Result<(), PostgresError> {
    let changes = Changes::of(image);
    let mut writing = pin!(changes.write(connection));
    // All is sent at once, in this order. If a statement fails, the server refuses those after it,
    // and makes the commit a rollback. One that could not be sent must not be left out.
    if let Poll::Ready(Err(error)) = poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx))).await {
        return Err(error);
    }
    connection.take_warning();
    let committing = connection.client.batch_execute("COMMIT");
    // The wait ends with a success, too, if it is no longer asked for.
    let asking = async {
        if durability == Durability::Replicated { connection.has_standby().await } else { Ok(true) }
    };
    let (committed, is_confirmed) = match changes.is_empty() {
        true => tokio::join!(biased; committing, asking),
        false => {
            let (written, committed, is_confirmed) = tokio::join!(biased; writing, committing, asking);
            written?;
            (committed, is_confirmed)
        }
    };
    committed?;
    let is_confirmed = is_confirmed?;
    if connection.take_warning() || !is_confirmed { Err(PostgresError::Unconfirmed) } else { Ok(()) }
}

/// Ends a transaction that has failed.
pub(crate) async fn roll_back(connection: &Connection) -> Result<(), PostgresError> {
    Ok(connection.client.batch_execute("ROLLBACK").await?)
}

fn decide_one(image: &mut Image, job: &Job) -> Result<Outcome, PostgresError> {
    image.begin(job.ticket);
    let limits = &*job.limits;
    match &job.task {
        Task::Push(envelope, _) => {
            if let Some((usage, deadline)) = image.stored_before(job.queue, envelope.id(), job.ticket) {
                return Ok(Outcome::Push(Ok(PushOutcome::Stored { usage, deadline })));
            }
            let now = image.now;
            let outcome = queue::push(image, limits, now, envelope.clone())?;
            Ok(Outcome::Push(outcome.map_err(Into::into)))
        }
        Task::Import(item, _) => {
            if image.stored_before(job.queue, item.envelope.id(), job.ticket).is_some() {
                return Ok(Outcome::Import(Ok(ImportOutcome::Stored)));
            }
            let now = image.now;
            let outcome = import(image, limits, now, item.clone())?;
            Ok(Outcome::Import(outcome.map_err(Into::into)))
        }
        Task::Ack(ack, _) => Ok(Outcome::Ack(Ok(decide_ack(image, limits, job, ack)?))),
    }
}

fn decide_ack(image: &mut Image, limits: &Limits, job: &Job, ack: &Ack) -> Result<AckOutcome, PostgresError> {
    let queue = image.queues.get(&job.queue);
    // An earlier attempt, whose outcome was unknown, has acked these.
    let named = queue.map_or(0, |queue| queue.named_before(ack.items(), job.ticket));
    let own = match ack.through() {
        Some(_) => queue.map_or(0, QueueImage::acked_before),
        None => named,
    };
    let now = image.now;
    let outcome = queue::ack(image, limits, now, ack)?;
    Ok(AckOutcome {
        deleted: outcome.deleted.saturating_add(own),
        missing: outcome.missing.saturating_sub(named),
        ..outcome
    })
}

impl<'a> Demand<'a> {
    fn of(jobs: &'a [Job]) -> Self {
        let mut demand = Self::default();
        for job in jobs {
            let recipient = job.recipient().as_str();
            demand.queues.insert(job.queue, recipient);
            if job.brings_item() {
                demand.creatable.insert(job.queue);
            }
            for id in job.item_ids() {
                demand.item_queues.push(job.queue);
                demand.message_ids.push(message_uuid(id.message_id));
                demand.chunks.push(i64::from(id.chunk_index));
                demand.lengths.push(job.payload_bytes());
            }
            if let Task::Ack(ack, _) = &job.task
                && let Some(through) = ack.through()
            {
                demand.through = Some((job.queue, through, job.is_repeated.then_some(job.ticket)));
            }
        }
        demand
    }

    async fn load(
        &self,
        connection: &Connection,
        rules: &Rules,
        now: Option<Timestamp>,
    ) -> Result<Image, PostgresError> {
        let Connection { client, statements, .. } = connection;
        let keys: Vec<Uuid> = self.queues.keys().copied().collect();
        let now = now.map(crate::convert::ms);
        let (ticket, through) = match self.through {
            Some((_, through, ticket)) => (ticket, seq_number(through)),
            None => (None, 0),
        };
        let through_queue = self.through.map(|(queue, ..)| queue);
        let (items, acked) = (&self.item_queues, &self.message_ids);
        let parameters: [&Params<'_>; 5] = [
            &[&keys],
            &[items, acked, &self.chunks, &self.lengths],
            &[items, acked, &self.chunks],
            &[&keys, &now],
            &[&through_queue, &through, &now, &ticket],
        ];
        let reads = [
            Some(&statements.lock_queues),
            Some(&statements.find_items).filter(|_| !items.is_empty()),
            Some(&statements.find_acked).filter(|_| !items.is_empty()),
            Some(&statements.expired),
            Some(&statements.count_through).filter(|_| self.through.is_some()),
        ];
        let begin = async {
            client.batch_execute("BEGIN").await?;
            Ok::<_, tokio_postgres::Error>(())
        };
        let reads = reads.into_iter().zip(parameters).map(async |(statement, parameters)| match statement {
            Some(statement) => client.query(statement, parameters).await,
            None => Ok(Vec::new()),
        });
        // `join` polls in this order, so the server gets the statements in it, all at once.
        let (begun, rows) = tokio::join!(biased; begin, join_all(reads));
        begun?;
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
        let [queues, items, acked, expired, counts] =
            <[Vec<Row>; 5]>::try_from(rows).map_err(|_| PostgresError::Corrupted("the number of answers"))?;
        self.image(&queues, &items, &acked, &expired, &counts, rules)
    }

    fn image(
        &self,
        queues: &[Row],
        items: &[Row],
        acked: &[Row],
        expired: &[Row],
        counts: &[Row],
        rules: &Rules,
    ) -> Result<Image, PostgresError> {
        let mut images = self.locked(queues)?;
        for row in items {
            self.add_item(&mut images, row)?;
        }
        for row in acked {
            let (key, id) = self.item(row)?;
            if let Some(queue) = images.get_mut(&key) {
                queue.add_acked(id, timestamp(row.try_get(1)?), row.try_get(2)?);
            }
        }
        let (mut now, mut floor) = (Timestamp::default(), 0);
        for row in expired {
            now = timestamp(row.try_get(0)?);
            naming::check_slots(&rules.slots, row.try_get(3)?)?;
            if rules.durability == Durability::Replicated && !row.try_get::<_, bool>(1)? {
                return Err(PostgresError::no_standby());
            }
            floor = row.try_get(2)?;
            let key: Option<Uuid> = row.try_get(4)?;
            if let Some(queue) = key.and_then(|key| images.get_mut(&key)) {
                queue.set_expired(usage(row.try_get(5)?, row.try_get(6)?));
            }
        }
        for row in counts {
            if let Some(queue) = self.through.and_then(|(key, ..)| images.get_mut(&key)) {
                queue.set_counts(ThroughCounts {
                    live: usage(row.try_get(0)?, row.try_get(1)?),
                    expired: usage(row.try_get(2)?, row.try_get(3)?),
                    own: unsigned(row.try_get(4)?),
                });
                // All counts of this queue are of the same time.
                now = timestamp(row.try_get(5)?);
                queue.set_expired(usage(row.try_get(6)?, row.try_get(7)?));
            }
        }
        if images.values().any(QueueImage::is_mixed) {
            return Err(PostgresError::Statement(tokio_postgres::error::SqlState::T_R_SERIALIZATION_FAILURE));
        }
        Ok(Image::new(now, floor, images))
    }

    /// The queues that exist, and those that the transaction may create.
    fn locked(&self, rows: &[Row]) -> Result<HashMap<Uuid, QueueImage>, PostgresError> {
        let mut images = HashMap::with_capacity(self.queues.len());
        for row in rows {
            let (key, recipient): (Uuid, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            if self.queues.get(&key).is_none_or(|known| known.as_bytes() != recipient) {
                return Err(PostgresError::Corrupted("two recipients with the same hash"));
            }
            let queue = QueueRow {
                usage: usage(row.try_get(2)?, row.try_get(3)?),
                last_seq: row.try_get(4)?,
                due: timestamp(row.try_get(5)?),
            };
            images.insert(key, QueueImage::stored(queue));
        }
        for (key, recipient) in &self.queues {
            if self.creatable.contains(key) {
                images.entry(*key).or_insert_with(|| QueueImage::created(recipient));
            }
        }
        Ok(images)
    }

    fn add_item(&self, images: &mut HashMap<Uuid, QueueImage>, row: &Row) -> Result<(), PostgresError> {
        let (key, id) = self.item(row)?;
        if let Some(queue) = images.get_mut(&key) {
            let found = FoundItem {
                seq: seq(row.try_get(1)?),
                deadline: timestamp(row.try_get(2)?),
                payload_bytes: unsigned(row.try_get(3)?),
                ticket: row.try_get(4)?,
                digest: row.try_get(5)?,
            };
            queue.add_item(id, found);
        }
        Ok(())
    }

    /// The item that a row is about, by its position in the demand.
    fn item(&self, row: &Row) -> Result<(Uuid, ItemId), PostgresError> {
        let position: i64 = row.try_get(0)?;
        let index = usize::try_from(position - 1).unwrap_or(usize::MAX);
        let found = (self.item_queues.get(index), self.message_ids.get(index), self.chunks.get(index));
        match found {
            (Some(queue), Some(message_id), Some(chunk)) => Ok((*queue, item_id(*message_id, *chunk))),
            _ => Err(PostgresError::Corrupted("an answer to no question")),
        }
    }
}
