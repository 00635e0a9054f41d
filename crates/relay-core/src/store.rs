//! The seam to a store: what it has to remember, and how it is asked and told.
//!
//! [`ReadTx`] and [`WriteTx`] speak of queues and items and hold no logic: the rules in
//! [`queue`](crate::queue) run over them, so that two stores cannot disagree.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::limits::Usage;
use crate::message::{Chunk, Envelope, ItemId, Kind, MessageId, Recipient, Seq};
use crate::time::Timestamp;

/// An item as it lies in a queue. `B` is the payload, or a store's handle to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<B> {
    /// Its arrival number.
    pub seq: Seq,
    /// The message that it is a part of.
    pub message_id: MessageId,
    /// Which part.
    pub chunk: Chunk,
    /// The sender's word for the payload.
    pub kind: Kind,
    /// The sender's word for the length of the whole message.
    pub total_len: u64,
    /// The sender's clock.
    pub sent_ms: u64,
    /// When the push was accepted.
    pub arrival: Timestamp,
    /// From when on it is gone.
    pub deadline: Timestamp,
    /// The length of the payload.
    pub payload_bytes: u64,
    /// The payload, or where it is.
    pub body: B,
}

/// What the rules know of an item in a queue. The rest is between those who push and those who
/// pull, and a store need not have it at hand.
pub trait Queued {
    /// Its arrival number.
    fn seq(&self) -> Seq;

    /// Its name within the queue.
    fn id(&self) -> ItemId;

    /// From when on it is gone.
    fn deadline(&self) -> Timestamp;

    /// The length of its payload.
    fn payload_bytes(&self) -> u64;

    /// Whether it is not expired at `now`.
    fn is_live(&self, now: Timestamp) -> bool {
        now < self.deadline()
    }
}

/// What a store remembers of an item's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemStatus {
    /// The item lies in the queue, although it may be expired.
    Queued {
        /// Its arrival number.
        seq: Seq,
        /// From when on it is gone.
        deadline: Timestamp,
        /// The length of its payload.
        payload_bytes: u64,
    },
    /// The item was acked, and a push of it is a duplicate before `until`.
    Acked {
        /// The end of the dedup window.
        until: Timestamp,
    },
}

/// Where the live part of a queue begins. Deadlines never decrease along a queue, so the expired
/// items lie before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// No item before this one is live. When nothing is expired it may be any number up to the
    /// first item's.
    pub live_from: Seq,
    /// What lies before it: expired, and not reclaimed yet.
    pub expired: Usage,
}

/// An item that the sweep has to reclaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The queue that it lies in.
    pub recipient: Recipient,
    /// Its name.
    pub id: ItemId,
    /// Its arrival number.
    pub seq: Seq,
    /// The length of its payload.
    pub payload_bytes: u64,
}

/// What the sweep finds in one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueItems {
    /// Items to reclaim, those of one queue together and in arrival order.
    pub items: Vec<Due>,
    /// Whether another look may find more.
    pub more: bool,
}

/// What one look at acked names has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many names.
    pub names: usize,
    /// Whether another look may forget more.
    pub more: bool,
}

/// A consistent view of a store. A request looks its queue up once, and asks all else of what it
/// got.
pub trait ReadTx {
    /// How this store fails.
    type Error;
    /// An item, or a handle by which the store finds all of it.
    type Item: Queued;
    /// A queue that was looked up. It may remember what was found of it, and what was changed
    /// through it.
    type Queue;

    /// Looks up the queue of a recipient. An unknown one has an empty queue, and this leaves no
    /// trace.
    fn queue(&self, recipient: &Recipient) -> Result<Self::Queue, Self::Error>;

    /// What the queue holds, expired items that are not reclaimed yet included.
    fn usage(&self, queue: &Self::Queue) -> Result<Usage, Self::Error>;

    /// What is known of an item's name.
    fn locate(&self, queue: &Self::Queue, id: ItemId) -> Result<Option<ItemStatus>, Self::Error>;

    /// Shows the items from `from` on, in arrival order, until `visit` breaks.
    fn scan(
        &self,
        queue: &Self::Queue,
        from: Seq,
        visit: &mut dyn FnMut(Self::Item) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// The deadline of the queue's last item.
    fn last_deadline(&self, queue: &Self::Queue) -> Result<Option<Timestamp>, Self::Error>;

    /// Whether the queued item `seq` has this payload.
    fn has_payload(&self, queue: &Self::Queue, seq: Seq, payload: &[u8]) -> Result<bool, Self::Error>;

    /// How many items the queue holds from `from` on. The given implementation walks there; a store
    /// that keeps deep queues counts faster.
    fn items_from(&self, queue: &Self::Queue, from: Seq) -> Result<u64, Self::Error> {
        let mut items = 0;
        self.scan(queue, from, &mut |_| {
            items += 1;
            ControlFlow::Continue(())
        })?;
        Ok(items)
    }

    /// Where the live part of the queue begins at `now`. The given implementation walks over the
    /// expired items.
    fn front(&self, queue: &Self::Queue, now: Timestamp) -> Result<Front, Self::Error> {
        let mut front = Front::default();
        self.scan(queue, Seq::ZERO, &mut |item| {
            if item.is_live(now) {
                return ControlFlow::Break(());
            }
            front.live_from = item.seq().next();
            front.expired = front.expired.plus(Usage::of(item.payload_bytes()));
            ControlFlow::Continue(())
        })?;
        Ok(front)
    }
}

/// A view that can be changed. All changes of a transaction become visible and durable together, or
/// none. Those of a queue go through one lookup of it, which is closed before the queue is looked
/// up again.
pub trait WriteTx: ReadTx {
    /// A new arrival number, larger than every one before, also those of items that are gone.
    fn next_seq(&mut self) -> Result<Seq, Self::Error>;

    /// Puts an item at the end of a queue, which is made if there is none, and remembers its name.
    fn insert(&mut self, queue: &mut Self::Queue, item: Item<Bytes>) -> Result<(), Self::Error>;

    /// Takes the queued item `seq`, whose name is `id`, out of its queue and forgets the name.
    fn remove(&mut self, queue: &mut Self::Queue, id: ItemId, seq: Seq) -> Result<(), Self::Error>;

    /// Remembers until `until` that the item, which was removed just now, was acked.
    fn remember_acked(
        &mut self,
        queue: &mut Self::Queue,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), Self::Error>;

    /// Ends the changes of a queue, which holds so much now. Once that is nothing and no acked name
    /// is remembered, the store forgets the queue.
    fn close(&mut self, queue: Self::Queue, usage: Usage) -> Result<(), Self::Error>;
}

/// A transaction over which [`expire`](crate::queue::expire) can reclaim what has expired, step by
/// step. A store that has a better way, such as to let go of whole ranges, sweeps on its own and
/// needs none of this: an expired item is gone from the instant of its deadline, whoever reclaims
/// it.
pub trait SweepTx: WriteTx {
    /// Finds at most `max` items whose deadline is not after `now`, of whatever queues. When this
    /// look's work is used up without reaching the end, it says that there may be more.
    fn due(&mut self, now: Timestamp, max: usize) -> Result<DueItems, Self::Error>;

    /// Forgets at most `max` acked names whose time is over at `now`. When this look's work is used
    /// up without reaching the end, it says that there may be more.
    fn forget_acked(&mut self, now: Timestamp, max: usize) -> Result<Forgotten, Self::Error>;
}

impl<B> Item<B> {
    /// The name of the item within its queue.
    pub const fn id(&self) -> ItemId {
        ItemId { message_id: self.message_id, chunk_index: self.chunk.index() }
    }

    /// The same item with another body.
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
    /// What lies in the queue once `envelope` is accepted.
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
