//! What one transaction knows of the queues that it has locked, in memory. The rules of relay-core
//! run over it, and it collects what they change.

use std::collections::HashMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{
    Front, Item, ItemId, ItemStatus, ReadTx, Recipient, RemovedThrough, Seq, Timestamp, Usage, WriteTx,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::convert::{first_seq, queue_key, seq};
use crate::error::PostgresError;

/// The row of a queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueRow {
    pub(crate) usage: Usage,
    /// 0 if the queue is new and has had no item.
    pub(crate) last_seq: i64,
    pub(crate) due: Timestamp,
}

/// An item that was found by its id.
#[derive(Clone, Debug)]
pub(crate) struct FoundItem {
    pub(crate) seq: Seq,
    pub(crate) deadline: Timestamp,
    pub(crate) payload_bytes: u64,
    pub(crate) ticket: i64,
    /// The SHA-256 of its payload, if a push is to be compared with it.
    pub(crate) digest: Option<Vec<u8>>,
}

/// The items up to one, for an ack of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ThroughCounts {
    pub(crate) live: Usage,
    pub(crate) expired: Usage,
    /// Item ids that an earlier attempt of the same ack has remembered.
    pub(crate) own: u64,
}

/// A removal of all items up to one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Through {
    pub(crate) seq: Seq,
    pub(crate) until: Option<Timestamp>,
    pub(crate) ticket: i64,
}

/// A new item, as it will be stored.
#[derive(Debug)]
pub(crate) struct NewItem {
    pub(crate) item: Item<Bytes>,
    pub(crate) ticket: i64,
}

/// An item id to remember.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remembered {
    pub(crate) id: ItemId,
    pub(crate) until: Timestamp,
    pub(crate) ticket: i64,
}

/// A queue, and what the transaction changes of it.
#[derive(Debug)]
pub(crate) struct QueueImage {
    pub(crate) row: QueueRow,
    /// Whose it is, if it is not stored yet.
    pub(crate) created_for: Option<Box<str>>,
    pub(crate) is_changed: bool,
    pub(crate) inserted: Vec<NewItem>,
    pub(crate) removed: Vec<Seq>,
    pub(crate) through: Option<Through>,
    pub(crate) remembered: Vec<Remembered>,
    pub(crate) forgotten: Vec<ItemId>,
    expired: Usage,
    counts: ThroughCounts,
    statuses: HashMap<ItemId, ItemStatus>,
    found: HashMap<Seq, FoundItem>,
    acked_tickets: HashMap<ItemId, i64>,
}

/// All queues of a transaction.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) now: Timestamp,
    pub(crate) queues: HashMap<Uuid, QueueImage>,
    seq_floor: i64,
    /// Identifies the request that is being decided.
    ticket: i64,
}

impl QueueImage {
    pub(crate) fn stored(row: QueueRow) -> Self {
        Self::new(row, None)
    }

    /// A queue that is stored if the rules put something into it.
    pub(crate) fn created(recipient: &str) -> Self {
        let row = QueueRow { usage: Usage::ZERO, last_seq: 0, due: Timestamp::from_ms(u64::MAX) };
        Self::new(row, Some(recipient.into()))
    }

    fn new(row: QueueRow, created_for: Option<Box<str>>) -> Self {
        Self {
            row,
            created_for,
            is_changed: false,
            inserted: Vec::new(),
            removed: Vec::new(),
            through: None,
            remembered: Vec::new(),
            forgotten: Vec::new(),
            expired: Usage::ZERO,
            counts: ThroughCounts::default(),
            statuses: HashMap::new(),
            found: HashMap::new(),
            acked_tickets: HashMap::new(),
        }
    }

    /// Whether something was found in a queue that did not exist when the others were locked. It
    /// was created meanwhile, and is not locked.
    pub(crate) fn is_mixed(&self) -> bool {
        self.created_for.is_some() && (!self.statuses.is_empty() || self.expired != Usage::ZERO)
    }

    pub(crate) fn set_expired(&mut self, expired: Usage) {
        self.expired = expired;
    }

    pub(crate) fn set_counts(&mut self, counts: ThroughCounts) {
        self.counts = counts;
    }

    pub(crate) fn add_item(&mut self, id: ItemId, item: FoundItem) {
        let FoundItem { seq, deadline, payload_bytes, .. } = item;
        self.statuses.insert(id, ItemStatus::Queued { seq, deadline, payload_bytes });
        let known = self.found.entry(seq).or_insert_with(|| item.clone());
        // Several requests may name it, of which only pushes ask for the digest.
        known.digest = known.digest.take().or(item.digest);
    }

    pub(crate) fn add_acked(&mut self, id: ItemId, until: Timestamp, ticket: i64) {
        self.statuses.insert(id, ItemStatus::Acked { until });
        self.acked_tickets.insert(id, ticket);
    }

    /// How many of these items an earlier attempt of the request with this ticket has acked.
    pub(crate) fn named_before(&self, ids: &[ItemId], ticket: i64) -> u64 {
        ids.iter().filter(|id| self.acked_tickets.get(id) == Some(&ticket)).count() as u64
    }

    /// How many items, named or not, an earlier attempt of an ack up to an item has acked.
    pub(crate) const fn acked_before(&self) -> u64 {
        self.counts.own
    }

    /// The usage of an item that has expired.
    fn expired_item(&self, id: ItemId, now: Timestamp) -> Option<Usage> {
        match self.statuses.get(&id)? {
            ItemStatus::Queued { deadline, payload_bytes, .. } if *deadline <= now => {
                Some(Usage::of(*payload_bytes))
            }
            _ => None,
        }
    }
}

impl Image {
    pub(crate) fn new(now: Timestamp, seq_floor: i64, queues: HashMap<Uuid, QueueImage>) -> Self {
        Self { now, queues, seq_floor, ticket: 0 }
    }

    /// The changes that follow are those of this request.
    pub(crate) const fn begin(&mut self, ticket: i64) {
        self.ticket = ticket;
    }

    /// The queue's live items and the item's deadline, if an earlier attempt of the same push has
    /// stored it.
    pub(crate) fn stored_before(&self, queue: Uuid, id: ItemId, ticket: i64) -> Option<(Usage, Timestamp)> {
        let queue = self.queues.get(&queue)?;
        let ItemStatus::Queued { seq, deadline, .. } = queue.statuses.get(&id)? else { return None };
        let is_own = queue.found.get(seq)?.ticket == ticket;
        is_own.then(|| (queue.row.usage.minus(queue.expired), *deadline))
    }

    fn queue_mut(&mut self, queue: Uuid) -> Result<&mut QueueImage, PostgresError> {
        self.queues.get_mut(&queue).ok_or(NOT_LOCKED)
    }
}

/// A rule uses only queues that its request names, and all of those are locked before.
const NOT_LOCKED: PostgresError = PostgresError::Corrupted("a queue that was not locked");

impl ReadTx for Image {
    type Error = PostgresError;
    type Item = Item<Bytes>;
    type Queue = Uuid;

    fn queue(&self, recipient: &Recipient) -> Result<Uuid, PostgresError> {
        Ok(queue_key(recipient))
    }

    fn usage(&self, queue: &Uuid) -> Result<Usage, PostgresError> {
        Ok(self.queues.get(queue).map_or(Usage::ZERO, |queue| queue.row.usage))
    }

    fn locate(&self, queue: &Uuid, id: ItemId) -> Result<Option<ItemStatus>, PostgresError> {
        Ok(self.queues.get(queue).and_then(|queue| queue.statuses.get(&id).copied()))
    }

    /// The rules that run over an image scan no queue.
    fn scan(
        &self,
        _: &Uuid,
        _: Seq,
        _: &mut dyn FnMut(Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<(), PostgresError> {
        Err(PostgresError::Corrupted("a scan of a queue that was not read"))
    }

    fn has_payload(&self, queue: &Uuid, seq: Seq, payload: &[u8]) -> Result<bool, PostgresError> {
        let Some(queue) = self.queues.get(queue) else { return Ok(false) };
        if let Some(new) = queue.inserted.iter().find(|new| new.item.seq == seq) {
            return Ok(new.item.body == payload);
        }
        let digest = queue.found.get(&seq).and_then(|found| found.digest.as_deref());
        Ok(digest == Some(Sha256::digest(payload).as_slice()))
    }

    fn front(&self, queue: &Uuid, _: Timestamp) -> Result<Front, PostgresError> {
        let expired = self.queues.get(queue).map_or(Usage::ZERO, |queue| queue.expired);
        Ok(Front { live_from: Seq::ZERO, expired })
    }
}

impl WriteTx for Image {
    fn next_seq(&mut self, queue: &Uuid) -> Result<Seq, PostgresError> {
        let (by_time, floor) = (first_seq(self.now), self.seq_floor);
        let queue = self.queue_mut(*queue)?;
        let last = if queue.row.last_seq == 0 { floor } else { queue.row.last_seq };
        queue.row.last_seq = last.saturating_add(1).max(by_time);
        Ok(seq(queue.row.last_seq))
    }

    fn insert(&mut self, queue: &mut Uuid, item: Item<Bytes>) -> Result<(), PostgresError> {
        let ticket = self.ticket;
        let queue = self.queue_mut(*queue)?;
        let (seq, id, deadline, payload_bytes) = (item.seq, item.id(), item.deadline, item.payload_bytes);
        let status = ItemStatus::Queued { seq, deadline, payload_bytes };
        if let Some(ItemStatus::Acked { .. }) = queue.statuses.insert(id, status) {
            queue.forgotten.push(id);
        }
        queue.row.due = queue.row.due.min(deadline);
        queue.inserted.push(NewItem { item, ticket });
        Ok(())
    }

    fn remove(&mut self, queue: &mut Uuid, id: ItemId, seq: Seq) -> Result<(), PostgresError> {
        let now = self.now;
        let queue = self.queue_mut(*queue)?;
        if let Some(expired) = queue.expired_item(id, now) {
            queue.expired = queue.expired.minus(expired);
        }
        queue.statuses.remove(&id);
        let before = queue.inserted.len();
        queue.inserted.retain(|new| new.item.seq != seq);
        if queue.inserted.len() == before {
            queue.removed.push(seq);
        }
        Ok(())
    }

    /// An ack of this kind is alone in its transaction.
    fn remove_through(
        &mut self,
        queue: &mut Uuid,
        through: Seq,
        _: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<RemovedThrough, PostgresError> {
        let ticket = self.ticket;
        // An ack creates no queue.
        let Some(queue) = self.queues.get_mut(queue) else { return Ok(RemovedThrough::default()) };
        let named = queue.removed.iter().filter(|seq| **seq <= through);
        // The rule has removed those that live by their names.
        let named: Usage =
            named.filter_map(|seq| queue.found.get(seq)).map(|item| Usage::of(item.payload_bytes)).sum();
        let removed = RemovedThrough { live: queue.counts.live.minus(named), expired: queue.counts.expired };
        queue.expired = queue.expired.minus(removed.expired);
        queue.through = Some(Through { seq: through, until, ticket });
        Ok(removed)
    }

    fn remember_acked(
        &mut self,
        queue: &mut Uuid,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), PostgresError> {
        let ticket = self.ticket;
        let queue = self.queue_mut(*queue)?;
        queue.statuses.insert(id, ItemStatus::Acked { until });
        queue.remembered.push(Remembered { id, until, ticket });
        Ok(())
    }

    fn close(&mut self, queue: Uuid, usage: Usage) -> Result<(), PostgresError> {
        let now = self.now;
        let queue = self.queue_mut(queue)?;
        queue.row.usage = usage;
        queue.is_changed = true;
        if usage.is_empty() {
            let remembered = queue.remembered.last().map(|remembered| remembered.until);
            let until = remembered.or(queue.through.and_then(|through| through.until));
            queue.row.due = queue.row.due.min(until.unwrap_or(now));
        }
        Ok(())
    }
}
