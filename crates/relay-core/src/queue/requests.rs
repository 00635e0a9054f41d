//! Requests to a queue and their outcomes.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::error::Rejection;
use crate::limits::Usage;
use crate::message::{ItemId, Recipient, Seq};
use crate::store::Item;
use crate::time::Reading;

/// The outcome of a push that was not refused. `usage` counts the queue's live items afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The item is now in the queue.
    Stored {
        /// The usage with the new item.
        usage: Usage,
    },
    /// The item was in the queue already, or was acked within the dedup window. Nothing changed.
    Duplicate {
        /// The unchanged usage.
        usage: Usage,
        /// Whether the item in the queue has another payload, which stays. It is `false` for an
        /// acked item, whose payload is no longer known.
        conflict: bool,
    },
}

/// A request for a page of a queue.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The queue.
    pub recipient: Recipient,
    /// Only items that arrived after this one.
    pub after: Option<Seq>,
    /// The maximum number of items, within [`Limits::page_items_max`](crate::Limits).
    pub items_max: Option<NonZeroU64>,
}

/// A page of a queue. `I` is an item, or a store's handle to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<I = Item<Bytes>> {
    /// Live items in arrival order.
    pub items: Vec<I>,
    /// The last item of this page, where the next page continues. `None` if no live item follows.
    pub next: Option<Seq>,
    /// The number of live items that follow this page.
    pub remaining: u64,
}

/// A request to remove items from a queue: at most [`Ack::ITEMS_MAX`] items, each of them once.
#[derive(Clone, Debug)]
pub struct Ack {
    recipient: Recipient,
    items: Vec<ItemId>,
}

/// The outcome of an ack. `deleted + missing` is the number of items in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// Items that the ack removed from the queue.
    pub deleted: u64,
    /// Items that were not in the queue: unknown, acked earlier, or expired.
    pub missing: u64,
    /// Live items left in the queue.
    pub remaining: u64,
}

/// The outcome of a sweep, or of one step of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired items that were reclaimed.
    pub items: u64,
    /// Acked item ids that were forgotten.
    pub forgotten: u64,
}

/// The outcome of one step of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepStep {
    /// What this step reclaimed.
    pub swept: Swept,
    /// Whether another step may find more.
    pub more: bool,
}

impl PushOutcome {
    /// Whether the item is new.
    pub const fn is_stored(&self) -> bool {
        matches!(self, Self::Stored { .. })
    }

    /// The queue's live items after the push.
    pub const fn usage(&self) -> Usage {
        match self {
            Self::Stored { usage } | Self::Duplicate { usage, .. } => *usage,
        }
    }
}

impl Page {
    /// Converts the times of the items to the machine's clock, for clients.
    #[must_use]
    pub fn outside(mut self, reading: Reading) -> Self {
        if reading.disagrees() {
            for item in &mut self.items {
                item.arrival = reading.outside(item.arrival);
                item.deadline = reading.outside(item.deadline);
            }
        }
        self
    }
}

impl Ack {
    /// The maximum number of items in one ack.
    pub const ITEMS_MAX: usize = 10_000;

    /// An ack of `items`, which may contain repetitions.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] for more than [`Ack::ITEMS_MAX`] entries, repetitions included.
    pub fn new(recipient: Recipient, mut items: Vec<ItemId>) -> Result<Self, Rejection> {
        if items.len() > Self::ITEMS_MAX {
            let reason = format!("must have at most {} entries, has {}", Self::ITEMS_MAX, items.len());
            return Err(Rejection::invalid("ack", reason));
        }
        items.sort_unstable();
        items.dedup();
        Ok(Self { recipient, items })
    }

    /// The queue.
    pub const fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The same ack of another queue.
    #[must_use]
    pub fn map_recipient(self, map: impl FnOnce(Recipient) -> Recipient) -> Self {
        Self { recipient: map(self.recipient), items: self.items }
    }

    /// The items, sorted and without repetitions.
    pub fn items(&self) -> &[ItemId] {
        &self.items
    }

    /// Splits the ack into at least one part of at most `items_max` items each, so that a store can
    /// do other work between them. [`AckOutcome::then`] joins the outcomes.
    pub fn into_parts(self, items_max: usize) -> impl ExactSizeIterator<Item = Self> + Send {
        let Self { recipient, items } = self;
        let items_max = items_max.max(1);
        (0..items.len().div_ceil(items_max).max(1)).map(move |part| {
            let part = items.iter().skip(part * items_max).take(items_max).copied().collect();
            Self { recipient: recipient.clone(), items: part }
        })
    }
}

impl AckOutcome {
    /// Adds the outcome of the next part of the same ack.
    #[must_use]
    pub const fn then(self, next: Self) -> Self {
        Self {
            deleted: self.deleted.saturating_add(next.deleted),
            missing: self.missing.saturating_add(next.missing),
            remaining: next.remaining,
        }
    }
}

impl Swept {
    /// The saturating sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            forgotten: self.forgotten.saturating_add(other.forgotten),
        }
    }
}
