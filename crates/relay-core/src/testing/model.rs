//! A naive model of a relay: one list, and linear searches. It shares types with the rules, but no
//! code.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::error::{QuotaKind, Rejection};
use crate::limits::{Limits, Usage};
use crate::message::{Envelope, ItemId, Recipient, Seq};
use crate::queue::{Ack, AckOutcome, Page, Pull, PushOutcome, Swept};
use crate::store::Item;
use crate::time::Timestamp;

/// The expected behaviour of a relay. Its arrival numbers differ from those of a store, which may
/// have gaps.
#[derive(Clone, Debug)]
pub struct Model {
    limits: Limits,
    now: Timestamp,
    arrivals: u64,
    /// All items in arrival order, with expired ones that are not swept yet.
    items: Vec<(Recipient, Item<Bytes>)>,
    /// Acked item ids, and until when they are remembered.
    acked: Vec<(Recipient, ItemId, Timestamp)>,
}

impl Model {
    /// An empty relay.
    pub const fn new(limits: Limits) -> Self {
        let now = Timestamp::from_ms(0);
        Self { limits, now, arrivals: 0, items: Vec::new(), acked: Vec::new() }
    }

    /// The latest observed time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Sets the time. Earlier times than the latest are ignored.
    pub fn observe(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Sets the limits for all later requests.
    pub fn reopen(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Performs a push.
    ///
    /// # Errors
    /// The expected refusal.
    pub fn push(&mut self, envelope: Envelope) -> Result<PushOutcome, Rejection> {
        if envelope.payload.len() as u64 > self.limits.message_bytes_max {
            return Err(Rejection::MessageTooLarge { limit: self.limits.message_bytes_max });
        }
        let recipient = envelope.recipient.clone();
        let (id, bytes) = (envelope.id(), envelope.payload.len() as u64);
        let live = self.live(&recipient);
        let usage = usage(&live);
        if let Some(item) = live.iter().find(|item| item.id() == id) {
            let conflict = item.body != envelope.payload;
            return Ok(PushOutcome::Duplicate { usage, conflict, deadline: Some(item.deadline) });
        }
        let is_acked = |(queue, acked, until): &(Recipient, ItemId, Timestamp)| {
            *queue == recipient && *acked == id && self.now < *until
        };
        if self.acked.iter().any(is_acked) {
            return Ok(PushOutcome::Duplicate { usage, conflict: false, deadline: None });
        }
        let refuse = |reason, limit, used| Err(Rejection::QuotaExceeded { reason, limit, used });
        if usage.items + 1 > self.limits.queue_items_max {
            return refuse(QuotaKind::Count, self.limits.queue_items_max, usage.items);
        }
        if usage.bytes + bytes > self.limits.queue_bytes_max {
            return refuse(QuotaKind::Bytes, self.limits.queue_bytes_max, usage.bytes);
        }
        let ttl_ms = envelope.ttl_ms.unwrap_or(u64::MAX).min(self.limits.ttl_ms);
        let deadline = Timestamp::from_ms(self.now.as_ms() + ttl_ms);
        self.arrivals += 1;
        self.forget(&recipient, id);
        self.items.push((recipient, Item::new(envelope, Seq::new(self.arrivals), self.now, deadline)));
        let usage = Usage { items: usage.items + 1, bytes: usage.bytes + bytes };
        Ok(PushOutcome::Stored { usage, deadline })
    }

    /// Performs a pull.
    pub fn pull(&self, pull: &Pull) -> Page {
        let after = pull.after.unwrap_or(Seq::ZERO);
        let mut rest: Vec<Item<Bytes>> = self.live(&pull.recipient);
        rest.retain(|item| item.seq > after);

        let items_max = pull.items_max.map_or(u64::MAX, NonZeroU64::get).min(self.limits.page_items_max);
        let mut items: Vec<Item<Bytes>> = Vec::new();
        while let Some(item) = rest.first() {
            let too_many = items.len() as u64 + 1 > items_max;
            let too_large = usage(&items).bytes + item.payload_bytes > self.limits.page_bytes_max;
            if !items.is_empty() && (too_many || too_large) {
                break;
            }
            items.push(rest.remove(0));
        }
        let next = if rest.is_empty() { None } else { items.last().map(|item| item.seq) };
        Page { items, next, remaining: rest.len() as u64 }
    }

    /// Performs an ack.
    pub fn ack(&mut self, ack: &Ack) -> AckOutcome {
        let recipient = ack.recipient();
        let mut deleted = 0;
        for &id in ack.items() {
            deleted += u64::from(self.ack_item(recipient, id));
        }
        let missing = ack.items().len() as u64 - deleted;
        if let Some(through) = ack.through() {
            for item in self.live(recipient) {
                deleted += u64::from(item.seq <= through && self.ack_item(recipient, item.id()));
            }
            self.items.retain(|(queue, item)| queue != recipient || item.seq > through);
        }
        AckOutcome { deleted, missing, remaining: usage(&self.live(recipient)).items }
    }

    /// Returns whether the item was in the queue.
    fn ack_item(&mut self, recipient: &Recipient, id: ItemId) -> bool {
        if self.live(recipient).iter().all(|item| item.id() != id) {
            return false;
        }
        self.forget(recipient, id);
        if self.limits.dedup_window_ms > 0 {
            let until = self.now.plus_ms(self.limits.dedup_window_ms);
            self.acked.push((recipient.clone(), id, until));
        }
        true
    }

    /// Performs a whole sweep.
    pub fn sweep(&mut self) -> Swept {
        let (items, acked) = (self.items.len(), self.acked.len());
        self.items.retain(|(_, item)| self.now < item.deadline);
        self.acked.retain(|(_, _, until)| self.now < *until);
        Swept { items: (items - self.items.len()) as u64, forgotten: (acked - self.acked.len()) as u64 }
    }

    /// The live items of a queue, in arrival order.
    fn live(&self, recipient: &Recipient) -> Vec<Item<Bytes>> {
        let live = self.items.iter().filter(|(queue, item)| queue == recipient && self.now < item.deadline);
        live.map(|(_, item)| item.clone()).collect()
    }

    /// Removes an item and its acked id.
    fn forget(&mut self, recipient: &Recipient, id: ItemId) {
        self.items.retain(|(queue, item)| queue != recipient || item.id() != id);
        self.acked.retain(|(queue, acked, _)| queue != recipient || *acked != id);
    }
}

fn usage(items: &[Item<Bytes>]) -> Usage {
    Usage { items: items.len() as u64, bytes: items.iter().map(|item| item.payload_bytes).sum() }
}
