//! The tables of a relay in memory, and a count of the bytes that they take.
//!
//! The maps are trees, because trees release memory when they shrink. Hash tables do not, and the
//! count would miss that.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::limits::Usage;
use crate::message::{Envelope, ItemId, Kind, Recipient, Seq};
use crate::store::{
    Due, DueItems, Forgotten, Front, Item, ItemStatus, Queued as _, ReadTx, SweepTx, WriteTx,
};
use crate::time::Timestamp;
use crate::verify::Inspect;

/// The bytes of an empty queue: its entry in the map of queues, and the first node of each of its
/// trees, which has space for eleven entries.
///
/// This and the next two constants are rather too large than too small. They assume that tree nodes
/// are half empty.
const QUEUE_BYTES: u64 = 2560;

/// The bytes of an item without its kind and payload: its entries among the items, the item ids and
/// the deadlines.
const ITEM_BYTES: u64 = 640;

/// The bytes of an acked item id: its entries among the item ids of its queue and in the expiry
/// index.
const ACKED_ID_BYTES: u64 = 288;

/// The bytes of the entry of an item that expires before one in front of it.
const EARLY_BYTES: u64 = 320;

/// The tables of a store in memory. A transaction is all work under one `&mut`, and cannot fail.
#[derive(Debug, Default)]
pub struct MemoryTables {
    queues: BTreeMap<Recipient, Queue>,
    deadlines: BTreeSet<(Timestamp, Seq, Recipient)>,
    acked: BTreeSet<(Timestamp, Recipient, ItemId)>,
    last_seq: Seq,
    /// The memory of all tables, by the constants above.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Queue {
    usage: Usage,
    items: BTreeMap<Seq, Item<Bytes>>,
    statuses: BTreeMap<ItemId, ItemStatus>,
    /// The latest deadline of an item since the queue was empty.
    latest: Timestamp,
    /// The items whose deadline was before `latest`, and their payload bytes. The deadlines of all
    /// others never decrease along the queue.
    early: BTreeMap<(Timestamp, Seq), u64>,
}

impl ReadTx for MemoryTables {
    type Error = Infallible;
    type Item = Item<Bytes>;
    type Queue = Recipient;

    fn queue(&self, recipient: &Recipient) -> Result<Recipient, Infallible> {
        Ok(recipient.clone())
    }

    fn usage(&self, recipient: &Recipient) -> Result<Usage, Infallible> {
        Ok(self.queues.get(recipient).map_or(Usage::ZERO, |queue| queue.usage))
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<ItemStatus>, Infallible> {
        Ok(self.queues.get(recipient).and_then(|queue| queue.statuses.get(&id).copied()))
    }

    fn scan(
        &self,
        recipient: &Recipient,
        from: Seq,
        visit: &mut dyn FnMut(Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let items = self.queues.get(recipient).into_iter().flat_map(|queue| queue.items.range(from..));
        for (_, item) in items {
            if visit(item.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, Infallible> {
        let item = self.queues.get(recipient).and_then(|queue| queue.items.get(&seq));
        Ok(item.is_some_and(|item| item.body == payload))
    }

    fn live_items_from(&self, recipient: &Recipient, from: Seq, now: Timestamp) -> Result<u64, Infallible> {
        let Some(queue) = self.queues.get(recipient) else { return Ok(0) };
        let items = queue.items.range(from..).count() as u64;
        Ok(items.saturating_sub(queue.expired_early(from, now).items))
    }

    fn front(&self, recipient: &Recipient, now: Timestamp) -> Result<Front, Infallible> {
        let Some(queue) = self.queues.get(recipient) else { return Ok(Front::default()) };
        let expired = queue.items.values().take_while(|item| !item.is_live(now));
        let front = expired.fold(Front::default(), |front, item| Front {
            live_from: item.seq.next(),
            expired: front.expired.plus(Usage::of(item.payload_bytes)),
        });
        Ok(Front { expired: front.expired.plus(queue.expired_early(front.live_from, now)), ..front })
    }
}

impl WriteTx for MemoryTables {
    fn next_seq(&mut self, _: &Recipient) -> Result<Seq, Infallible> {
        self.last_seq = self.last_seq.next();
        Ok(self.last_seq)
    }

    fn insert(&mut self, recipient: &mut Recipient, item: Item<Bytes>) -> Result<(), Infallible> {
        let (seq, id, deadline) = (item.seq, item.id(), item.deadline);
        let status = ItemStatus::Queued { seq, deadline, payload_bytes: item.payload_bytes };
        self.bytes = self.bytes.saturating_add(item_bytes(&item.kind, item.payload_bytes));
        let (recipient, queue) = self.queue_mut(recipient);
        let is_early = deadline < queue.latest;
        if is_early {
            queue.early.insert((deadline, seq), item.payload_bytes);
        }
        queue.latest = queue.latest.max(deadline);
        queue.items.insert(seq, item);
        if let Some(ItemStatus::Acked { until }) = queue.statuses.insert(id, status)
            && self.acked.remove(&(until, recipient.clone(), id))
        {
            self.bytes = self.bytes.saturating_sub(ACKED_ID_BYTES);
        }
        self.deadlines.insert((deadline, seq, recipient));
        if is_early {
            self.bytes = self.bytes.saturating_add(EARLY_BYTES);
        }
        Ok(())
    }

    fn remove(&mut self, recipient: &mut Recipient, id: ItemId, seq: Seq) -> Result<(), Infallible> {
        let Some(queue) = self.queues.get_mut(recipient) else { return Ok(()) };
        queue.statuses.remove(&id);
        if let Some(item) = queue.items.remove(&seq) {
            self.bytes = self.bytes.saturating_sub(item_bytes(&item.kind, item.payload_bytes));
            if queue.early.remove(&(item.deadline, seq)).is_some() {
                self.bytes = self.bytes.saturating_sub(EARLY_BYTES);
            }
            if queue.items.is_empty() {
                queue.latest = Timestamp::default();
            }
            self.deadlines.remove(&(item.deadline, seq, recipient.clone()));
        }
        Ok(())
    }

    fn remember_acked(
        &mut self,
        recipient: &mut Recipient,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), Infallible> {
        let (recipient, queue) = self.queue_mut(recipient);
        queue.statuses.insert(id, ItemStatus::Acked { until });
        if self.acked.insert((until, recipient, id)) {
            self.bytes = self.bytes.saturating_add(ACKED_ID_BYTES);
        }
        Ok(())
    }

    fn close(&mut self, recipient: Recipient, usage: Usage) -> Result<(), Infallible> {
        if let Some(queue) = self.queues.get_mut(&recipient) {
            queue.usage = usage;
        }
        self.forget_if_empty(&recipient);
        Ok(())
    }
}

impl SweepTx for MemoryTables {
    fn due(&mut self, now: Timestamp, max: usize) -> Result<DueItems, Infallible> {
        let expired = self.deadlines.iter().take_while(|(deadline, ..)| *deadline <= now);
        let due = expired.take(max).filter_map(|(_, seq, recipient)| {
            let item = self.queues.get(recipient)?.items.get(seq)?;
            let recipient = recipient.clone();
            Some(Due { recipient, id: item.id(), seq: *seq, payload_bytes: item.payload_bytes })
        });
        let mut items: Vec<Due> = due.collect();
        items.sort_by(|a, b| (&a.recipient, a.seq).cmp(&(&b.recipient, b.seq)));
        let more = items.len() >= max;
        Ok(DueItems { items, more })
    }

    fn forget_acked(&mut self, now: Timestamp, max: usize) -> Result<Forgotten, Infallible> {
        let mut item_ids = 0;
        while item_ids < max && self.acked.first().is_some_and(|(until, ..)| *until <= now) {
            let Some((_, recipient, id)) = self.acked.pop_first() else { break };
            self.bytes = self.bytes.saturating_sub(ACKED_ID_BYTES);
            if let Some(queue) = self.queues.get_mut(&recipient) {
                queue.statuses.remove(&id);
            }
            self.forget_if_empty(&recipient);
            item_ids += 1;
        }
        Ok(Forgotten { item_ids, more: item_ids >= max })
    }
}

impl Inspect for MemoryTables {
    fn recipients(&self) -> Result<Vec<Recipient>, Infallible> {
        Ok(self.queues.keys().cloned().collect())
    }

    fn statuses(&self, recipient: &Recipient) -> Result<Vec<(ItemId, ItemStatus)>, Infallible> {
        let statuses = self.queues.get(recipient).into_iter().flat_map(|queue| &queue.statuses);
        Ok(statuses.map(|(id, status)| (*id, *status)).collect())
    }

    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, Infallible> {
        Ok(self.deadlines.iter().map(|(deadline, _, recipient)| (*deadline, recipient.clone())).collect())
    }

    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, Infallible> {
        Ok(self.acked.iter().cloned().collect())
    }
}

impl MemoryTables {
    /// All items, expired ones included, and the bytes that the tables take.
    pub(super) fn total(&self) -> Usage {
        Usage { items: self.deadlines.len() as u64, bytes: self.bytes }
    }

    /// The bytes that the tables would take in addition for this item.
    pub(super) fn bytes_to_store(&self, envelope: &Envelope) -> u64 {
        let is_new = !self.queues.contains_key(&envelope.recipient);
        let queue = if is_new { queue_bytes(&envelope.recipient) } else { 0 };
        let early = if envelope.ttl_ms.is_some() { EARLY_BYTES } else { 0 };
        queue.saturating_add(item_bytes(&envelope.kind, envelope.payload_bytes())).saturating_add(early)
    }

    /// The bytes that the tables take, counted again.
    pub(super) fn count_bytes(&self) -> u64 {
        let queues = self.queues.keys().map(queue_bytes);
        let items = self.queues.values().flat_map(|queue| queue.items.values());
        let items = items.map(|item| item_bytes(&item.kind, item.payload_bytes));
        let early: usize = self.queues.values().map(|queue| queue.early.len()).sum();
        let rest = self.acked.len() as u64 * ACKED_ID_BYTES + early as u64 * EARLY_BYTES;
        queues.chain(items).sum::<u64>() + rest
    }

    /// The queue, which is created if necessary, and the map's copy of its recipient. Use of that
    /// copy keeps the text in memory once.
    fn queue_mut(&mut self, recipient: &Recipient) -> (Recipient, &mut Queue) {
        let entry = self.queues.entry(recipient.clone());
        let recipient = entry.key().clone();
        if let Entry::Vacant(_) = entry {
            self.bytes = self.bytes.saturating_add(queue_bytes(&recipient));
        }
        (recipient, entry.or_default())
    }

    fn forget_if_empty(&mut self, recipient: &Recipient) {
        let empty =
            |queue: &Queue| queue.usage.is_empty() && queue.items.is_empty() && queue.statuses.is_empty();
        if self.queues.get(recipient).is_some_and(empty) {
            self.queues.remove(recipient);
            self.bytes = self.bytes.saturating_sub(queue_bytes(recipient));
        }
    }
}

impl Queue {
    /// The expired items among `early`, from `from` on.
    fn expired_early(&self, from: Seq, now: Timestamp) -> Usage {
        let expired = self.early.iter().take_while(|((deadline, _), _)| *deadline <= now);
        expired.filter(|((_, seq), _)| *seq >= from).map(|(_, bytes)| Usage::of(*bytes)).sum()
    }
}

/// An allocator rounds up and leaves parts of its pages unused: a quarter at worst.
fn item_bytes(kind: &Kind, payload_bytes: u64) -> u64 {
    let kind_bytes = kind.as_str().len() as u64;
    ITEM_BYTES.saturating_add(kind_bytes).saturating_add(payload_bytes).saturating_add(payload_bytes / 4)
}

fn queue_bytes(recipient: &Recipient) -> u64 {
    QUEUE_BYTES + recipient.as_str().len() as u64
}
