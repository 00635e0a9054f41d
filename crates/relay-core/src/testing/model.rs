//! A relay that is too simple to be wrong: one list, searched from end to end. It shares the types
//! of this crate with the rules and not a line of their code, and it is never fast.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::error::{QuotaKind, Rejection};
use crate::limits::{Limits, Usage};
use crate::message::{Envelope, ItemId, Recipient, Seq};
use crate::queue::{Ack, AckOutcome, Page, Pull, PushOutcome, Swept};
use crate::store::Item;
use crate::time::Timestamp;

/// What a relay has to do, spelled out. Its arrival numbers are its own: those of a store may have
/// gaps.
#[derive(Clone, Debug)]
pub struct Model {
    limits: Limits,
    now: Timestamp,
    arrivals: u64,
    /// Everything in arrival order, with what is expired and not swept.
    items: Vec<(Recipient, Item<Bytes>)>,
    /// Acked names, and until when they are remembered.
    acked: Vec<(Recipient, ItemId, Timestamp)>,
}

impl Model {
    /// An empty relay.
    pub const fn new(limits: Limits) -> Self {
        let now = Timestamp::from_ms(0);
        Self { limits, now, arrivals: 0, items: Vec::new(), acked: Vec::new() }
    }

    /// The latest time that it was told.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Tells it the time. An earlier time than one before is not believed.
    pub fn observe(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Changes the rules for everything that comes.
    pub fn reopen(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What a push has to do.
    ///
    /// # Errors
    /// The refusal that a relay has to give.
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
            return Ok(PushOutcome::Duplicate { usage, conflict });
        }
        if self
            .acked
            .iter()
            .any(|(queue, acked, until)| *queue == recipient && *acked == id && self.now < *until)
        {
            return Ok(PushOutcome::Duplicate { usage, conflict: false });
        }
        if usage.items + 1 > self.limits.queue_items_max {
            let (reason, limit) = (QuotaKind::Count, self.limits.queue_items_max);
            return Err(Rejection::QuotaExceeded { reason, limit, used: usage.items });
        }
        if usage.bytes + bytes > self.limits.queue_bytes_max {
            let (reason, limit) = (QuotaKind::Bytes, self.limits.queue_bytes_max);
            return Err(Rejection::QuotaExceeded { reason, limit, used: usage.bytes });
        }
        let last_deadline = live.iter().map(|item| item.deadline).max().unwrap_or_default();
        let deadline = Timestamp::from_ms(self.now.as_ms() + self.limits.ttl_ms).max(last_deadline);
        self.arrivals += 1;
        self.forget(&recipient, id);
        self.items.push((recipient, Item::new(envelope, Seq::new(self.arrivals), self.now, deadline)));
        Ok(PushOutcome::Stored { usage: Usage { items: usage.items + 1, bytes: usage.bytes + bytes } })
    }

    /// What a pull has to show.
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

    /// What an ack has to do.
    pub fn ack(&mut self, ack: &Ack) -> AckOutcome {
        let recipient = ack.recipient();
        let mut deleted = 0;
        for &id in ack.items() {
            if self.live(recipient).iter().all(|item| item.id() != id) {
                continue;
            }
            self.forget(recipient, id);
            deleted += 1;
            if self.limits.dedup_window_ms > 0 {
                let until = self.now.plus_ms(self.limits.dedup_window_ms);
                self.acked.push((recipient.clone(), id, until));
            }
        }
        let missing = ack.items().len() as u64 - deleted;
        AckOutcome { deleted, missing, remaining: usage(&self.live(recipient)).items }
    }

    /// What a sweep has to reclaim.
    pub fn sweep(&mut self) -> Swept {
        let (items, acked) = (self.items.len(), self.acked.len());
        self.items.retain(|(_, item)| self.now < item.deadline);
        self.acked.retain(|(_, _, until)| self.now < *until);
        Swept { items: (items - self.items.len()) as u64, forgotten: (acked - self.acked.len()) as u64 }
    }

    /// The items of a queue that are not expired, in arrival order.
    fn live(&self, recipient: &Recipient) -> Vec<Item<Bytes>> {
        let live = self.items.iter().filter(|(queue, item)| queue == recipient && self.now < item.deadline);
        live.map(|(_, item)| item.clone()).collect()
    }

    /// Drops an item and the memory of one.
    fn forget(&mut self, recipient: &Recipient, id: ItemId) {
        self.items.retain(|(queue, item)| queue != recipient || item.id() != id);
        self.acked.retain(|(queue, acked, _)| queue != recipient || *acked != id);
    }
}

fn usage(items: &[Item<Bytes>]) -> Usage {
    Usage { items: items.len() as u64, bytes: items.iter().map(|item| item.payload_bytes).sum() }
}
