//! The storage interface. [`ReadTx`] and [`WriteTx`] describe queues and items, without rules:
//! those in [`queue`](crate::queue) run over these traits, so all stores behave the same.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::limits::Usage;
use crate::message::{Chunk, Envelope, ItemId, Kind, MessageId, Recipient, Seq};
use crate::time::Timestamp;

/// An item in a queue. `B` is the payload, or a store's handle to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<B> {
    /// The arrival number.
    pub seq: Seq,
    /// See [`Envelope::message_id`].
    pub message_id: MessageId,
    /// See [`Envelope::chunk`].
    pub chunk: Chunk,
    /// See [`Envelope::kind`].
    pub kind: Kind,
    /// See [`Envelope::total_len`].
    pub total_len: u64,
    /// See [`Envelope::sent_ms`].
    pub sent_ms: u64,
    /// When the push was accepted.
    pub arrival: Timestamp,
    /// When the item expires.
    pub deadline: Timestamp,
    /// The length of the payload.
    pub payload_bytes: u64,
    /// The payload, or a handle to it.
    pub body: B,
}

/// The properties of a queued item that the rules need. A store may load all others later.
pub trait Queued {
    /// The arrival number.
    fn seq(&self) -> Seq;

    /// The id within the queue.
    fn id(&self) -> ItemId;

    /// When the item expires.
    fn deadline(&self) -> Timestamp;

    /// The length of the payload.
    fn payload_bytes(&self) -> u64;

    /// Whether the item has not expired at `now`.
    fn is_live(&self, now: Timestamp) -> bool {
        now < self.deadline()
    }
}

/// What a store remembers about an item id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemStatus {
    /// The item is in the queue; it may have expired.
    Queued {
        /// The arrival number.
        seq: Seq,
        /// When the item expires.
        deadline: Timestamp,
        /// The length of the payload.
        payload_bytes: u64,
    },
    /// The item was acked. Until `until`, a push of it is a duplicate.
    Acked {
        /// The end of the dedup window.
        until: Timestamp,
    },
}

/// Where the live items of a queue begin, and what has expired. Items with a TTL of their own may
/// expire before the items in front of them, so expired items may follow live ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// No live item has a lower arrival number. If no item has expired, it is any number up to that
    /// of the first item.
    pub live_from: Seq,
    /// All expired items of the queue, which are not reclaimed yet.
    pub expired: Usage,
}

/// What [`WriteTx::remove_through`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedThrough {
    /// The items that had not expired.
    pub live: Usage,
    /// The items that had expired.
    pub expired: Usage,
}

/// An item that the sweep has to reclaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The item's queue.
    pub recipient: Recipient,
    /// The item's id.
    pub id: ItemId,
    /// The arrival number.
    pub seq: Seq,
    /// The length of the payload.
    pub payload_bytes: u64,
}

/// The result of [`SweepTx::due`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueItems {
    /// Items to reclaim, grouped by queue and in arrival order.
    pub items: Vec<Due>,
    /// Whether another call may find more.
    pub more: bool,
}

/// The result of [`SweepTx::forget_acked`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The number of forgotten item ids.
    pub item_ids: usize,
    /// Whether another call may forget more.
    pub more: bool,
}

/// A consistent view of a store. A request looks up its queue once, then uses the handle.
pub trait ReadTx {
    /// The error of this store.
    type Error;
    /// An item, or a store's handle to it.
    type Item: Queued;
    /// A handle to a queue. It may cache what the store read and what the transaction changed.
    type Queue;

    /// Looks up the queue of a recipient. An unknown recipient has an empty queue, which this call
    /// does not create.
    fn queue(&self, recipient: &Recipient) -> Result<Self::Queue, Self::Error>;

    /// The contents of the queue, with expired items that are not reclaimed yet.
    fn usage(&self, queue: &Self::Queue) -> Result<Usage, Self::Error>;

    /// Looks up an item id.
    fn locate(&self, queue: &Self::Queue, id: ItemId) -> Result<Option<ItemStatus>, Self::Error>;

    /// Visits the items in arrival order, starting at `from`, until `visit` breaks. They include
    /// expired ones.
    fn scan(
        &self,
        queue: &Self::Queue,
        from: Seq,
        visit: &mut dyn FnMut(Self::Item) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// Whether the queued item `seq` has this payload.
    fn has_payload(&self, queue: &Self::Queue, seq: Seq, payload: &[u8]) -> Result<bool, Self::Error>;

    /// Counts the items of the queue from `from` on that are live at `now`. `from` is not before
    /// [`Front::live_from`]. The default implementation scans; a store for deep queues should count
    /// faster.
    fn live_items_from(&self, queue: &Self::Queue, from: Seq, now: Timestamp) -> Result<u64, Self::Error> {
        let mut items = 0;
        self.scan(queue, from, &mut |item| {
            items += u64::from(item.is_live(now));
            ControlFlow::Continue(())
        })?;
        Ok(items)
    }

    /// Where the live items of the queue begin at `now`. The default implementation scans the whole
    /// queue; a store for deep queues should be faster.
    fn front(&self, queue: &Self::Queue, now: Timestamp) -> Result<Front, Self::Error> {
        let (mut front, mut is_before_live) = (Front::default(), true);
        self.scan(queue, Seq::ZERO, &mut |item| {
            is_before_live &= !item.is_live(now);
            if is_before_live {
                front.live_from = item.seq().next();
            }
            if !item.is_live(now) {
                front.expired = front.expired.plus(Usage::of(item.payload_bytes()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(front)
    }
}

/// A transaction. Its changes become visible and durable together, or not at all. All changes of a
/// queue use one handle; the caller closes it before it looks up the queue again.
pub trait WriteTx: ReadTx {
    /// A new arrival number for this queue, larger than all that a queue of the same recipient has
    /// ever had, including those of removed items.
    fn next_seq(&mut self, queue: &Self::Queue) -> Result<Seq, Self::Error>;

    /// Appends an item to a queue, which is created if necessary, and remembers the item's id.
    fn insert(&mut self, queue: &mut Self::Queue, item: Item<Bytes>) -> Result<(), Self::Error>;

    /// Removes the queued item `seq`, and forgets its `id`.
    fn remove(&mut self, queue: &mut Self::Queue, id: ItemId, seq: Seq) -> Result<(), Self::Error>;

    /// Removes all items up to `through`. Remembers the ids of those that are live at `now` until
    /// `until`, if there is such a time. The default implementation removes one after the other; a
    /// store for deep queues should be faster.
    fn remove_through(
        &mut self,
        queue: &mut Self::Queue,
        through: Seq,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<RemovedThrough, Self::Error> {
        let mut items = Vec::new();
        self.scan(queue, Seq::ZERO, &mut |item| {
            if item.seq() > through {
                return ControlFlow::Break(());
            }
            items.push((item.id(), item.seq(), item.is_live(now), Usage::of(item.payload_bytes())));
            ControlFlow::Continue(())
        })?;
        let mut removed = RemovedThrough::default();
        for (id, seq, is_live, usage) in items {
            self.remove(queue, id, seq)?;
            if let Some(until) = until.filter(|_| is_live) {
                self.remember_acked(queue, id, until)?;
            }
            let sum = if is_live { &mut removed.live } else { &mut removed.expired };
            *sum = sum.plus(usage);
        }
        Ok(removed)
    }

    /// Remembers until `until` that the item, which was just removed, was acked.
    fn remember_acked(
        &mut self,
        queue: &mut Self::Queue,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), Self::Error>;

    /// Ends the changes of a queue and records its new usage. The store forgets a queue that has no
    /// items and no acked item ids.
    fn close(&mut self, queue: Self::Queue, usage: Usage) -> Result<(), Self::Error>;
}

/// A transaction in which [`expire`](crate::queue::expire) reclaims expired items step by step. A
/// store with a faster way, such as the deletion of ranges, does not need this trait. The rules
/// hide expired items in any case.
pub trait SweepTx: WriteTx {
    /// Finds at most `max` items of all queues whose deadline is not after `now`.
    fn due(&mut self, now: Timestamp, max: usize) -> Result<DueItems, Self::Error>;

    /// Forgets at most `max` acked item ids whose dedup window is over at `now`.
    fn forget_acked(&mut self, now: Timestamp, max: usize) -> Result<Forgotten, Self::Error>;
}

impl<B> Item<B> {
    /// The item's id within its queue.
    pub const fn id(&self) -> ItemId {
        ItemId { message_id: self.message_id, chunk_index: self.chunk.index() }
    }

    /// Replaces the body.
    pub fn with_body<C>(self, body: C) -> Item<C> {
        Item {
            seq: self.seq,
            message_id: self.message_id,
            chunk: self.chunk,
            kind: self.kind,
            total_len: self.total_len,
            sent_ms: self.sent_ms,
            arrival: self.arrival,
            deadline: self.deadline,
            payload_bytes: self.payload_bytes,
            body,
        }
    }
}

impl<B> Queued for Item<B> {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn id(&self) -> ItemId {
        self.id()
    }

    fn deadline(&self) -> Timestamp {
        self.deadline
    }

    fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }
}

impl Item<Bytes> {
    /// The item that a queue holds once `envelope` is accepted.
    pub fn new(envelope: Envelope, seq: Seq, arrival: Timestamp, deadline: Timestamp) -> Self {
        Self {
            seq,
            message_id: envelope.message_id,
            chunk: envelope.chunk,
            kind: envelope.kind,
            total_len: envelope.total_len,
            sent_ms: envelope.sent_ms,
            arrival,
            deadline,
            payload_bytes: envelope.payload.len() as u64,
            body: envelope.payload,
        }
    }
}
