//! Requests to a queue and their outcomes.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::error::Rejection;
use crate::limits::Usage;
use crate::message::{ItemId, Recipient, Seq};
use crate::store::Item;
use crate::time::{Reading, Timestamp};

/// The outcome of a push that was not refused. `usage` counts the queue's live items afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The item is now in the queue.
    Stored {
        /// The usage with the new item.
        usage: Usage,
        /// When the item expires.
        deadline: Timestamp,
    },
    /// The item was in the queue already, or was acked within the dedup window. Nothing changed.
    Duplicate {
        /// The unchanged usage.
        usage: Usage,
        /// Whether the item in the queue has another payload, which stays. It is `false` for an
        /// acked item, whose payload is no longer known.
        conflict: bool,
        /// When the item in the queue expires; `None` if it was acked.
        deadline: Option<Timestamp>,
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

/// A request to remove items from a queue: at most [`Ack::ITEMS_MAX`] named items, each of them
/// once, and, if asked for, all items up to one.
#[derive(Clone, Debug)]
pub struct Ack {
    recipient: Recipient,
    items: Vec<ItemId>,
    through: Option<Seq>,
}

/// The outcome of an ack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// Items that the ack removed from the queue.
    pub deleted: u64,
    /// Named items that were not in the queue: unknown, acked earlier, or expired.
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
            Self::Stored { usage, .. } | Self::Duplicate { usage, .. } => *usage,
        }
    }

    /// When the item in the queue expires; `None` if it was acked.
    pub const fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Stored { deadline, .. } => Some(*deadline),
            Self::Duplicate { deadline, .. } => *deadline,
        }
    }

    /// Converts the time of the item to the machine's clock, for clients.
    #[must_use]
    pub fn outside(self, reading: Reading) -> Self {
        if !reading.disagrees() {
            return self;
        }
        match self {
            Self::Stored { usage, deadline } => Self::Stored { usage, deadline: reading.outside(deadline) },
            Self::Duplicate { usage, conflict, deadline } => {
                let deadline = deadline.map(|deadline| reading.outside(deadline));
                Self::Duplicate { usage, conflict, deadline }
            }
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
        Ok(Self { recipient, items, through: None })
    }

    /// An ack of all items that a queue holds when the ack is decided.
    pub const fn everything(recipient: Recipient) -> Self {
        Self { recipient, items: Vec::new(), through: Some(Seq::new(u64::MAX)) }
    }

    /// The same ack, and all items up to `through`, which need not be in the queue any more.
    #[must_use]
    pub fn and_through(self, through: Seq) -> Self {
        Self { through: self.through.max(Some(through)), ..self }
    }

    /// The queue.
    pub const fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The same ack of another queue.
    #[must_use]
    pub fn map_recipient(self, map: impl FnOnce(Recipient) -> Recipient) -> Self {
        Self { recipient: map(self.recipient), ..self }
    }

    /// The same ack, of no items behind `last`.
    #[must_use]
    pub fn through_at_most(self, last: Seq) -> Self {
        Self { through: self.through.map(|through| through.min(last)), ..self }
    }

    /// All items up to this one are acked, too.
    pub const fn through(&self) -> Option<Seq> {
        self.through
    }

    /// The items, sorted and without repetitions.
    pub fn items(&self) -> &[ItemId] {
        &self.items
    }

    /// Splits the ack into at least one part of at most `items_max` items each, so that a store can
    /// do other work between them. [`AckOutcome::then`] joins the outcomes.
    pub fn into_parts(self, items_max: usize) -> impl ExactSizeIterator<Item = Self> + Send {
        let Self { recipient, items, through } = self;
        let items_max = items_max.max(1);
        let parts = items.len().div_ceil(items_max).max(1);
        (0..parts).map(move |part| {
            let through = through.filter(|_| part + 1 == parts);
            let items = items.iter().skip(part * items_max).take(items_max).copied().collect();
            Self { recipient: recipient.clone(), items, through }
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
