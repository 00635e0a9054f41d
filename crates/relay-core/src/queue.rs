//! The rules of a queue: push, pull, ack, expire. Each reads, decides, then writes, over a
//! transaction that somebody else begins and commits, at a time that somebody else tells.
//!
//! An expired item is gone from the instant of its deadline: it is not shown, not counted, and no
//! duplicate of anything, whether or not [`expire`] has reclaimed it.

use std::num::NonZeroU64;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::error::Rejection;
use crate::limits::{Limits, Usage};
use crate::message::{Envelope, ItemId, Recipient, Seq};
use crate::store::{Item, ItemStatus, Queued, ReadTx, SweepTx, WriteTx};
use crate::time::{Reading, Timestamp};

/// What became of a push that was not refused. `usage` is what the queue holds afterwards, in live
/// items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The item is in the queue.
    Stored {
        /// The queue with the new item.
        usage: Usage,
    },
    /// The item was in the queue already, or was acked within the dedup window. Nothing changed.
    Duplicate {
        /// The queue as it is.
        usage: Usage,
        /// The item in the queue has another payload, which stays. Of an acked item the payload is
        /// not known any more.
        conflict: bool,
    },
}

/// What reading alone tells of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Its item is in the queue, or was acked within the dedup window.
    Known {
        /// The queue as it is.
        usage: Usage,
        /// Where the item is, if it is in the queue.
        queued: Option<Seq>,
    },
    /// It fits.
    Fits {
        /// What the queue will hold, in live items.
        usage: Usage,
        /// What has expired and is still there.
        expired: Usage,
        /// An expired item of the same name, and its payload bytes. It has to go first.
        replaces: Option<(Seq, u64)>,
    },
}

/// From when until when an item is in its queue; at least until the one before it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub(crate) arrival: Timestamp,
    pub(crate) until: Timestamp,
}

/// A request for a page of a queue.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The queue.
    pub recipient: Recipient,
    /// Only items that arrived after this one.
    pub after: Option<Seq>,
    /// The most items wanted; [`Limits::page_items_max`] holds in any case.
    pub items_max: Option<NonZeroU64>,
}

/// A page of a queue. `I` is an item, or a store's handle to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<I = Item<Bytes>> {
    /// Live items in arrival order.
    pub items: Vec<I>,
    /// Where to go on: the last item of this page. `None` when no live item follows.
    pub next: Option<Seq>,
    /// How many live items follow this page.
    pub remaining: u64,
}

impl Page {
    /// The page as it is shown to others, with times by the clock of the machine.
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

/// A request to take items out of a queue. No item is named twice, and at most [`Ack::ITEMS_MAX`]
/// are.
#[derive(Clone, Debug)]
pub struct Ack {
    recipient: Recipient,
    items: Vec<ItemId>,
}

/// What became of an ack. `deleted + missing` is the number of items named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// Items that were taken out of the queue.
    pub deleted: u64,
    /// Items that were not in the queue: unknown, acked before, or expired.
    pub missing: u64,
    /// Live items left in the queue.
    pub remaining: u64,
}

/// What a sweep did, or one step of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired items that were reclaimed.
    pub items: u64,
    /// Acked names that were forgotten.
    pub forgotten: u64,
}

/// One step of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepStep {
    /// What it did.
    pub swept: Swept,
    /// Whether another step may find more to do.
    pub more: bool,
}

impl PushOutcome {
    /// Whether the item is new.
    pub const fn is_stored(&self) -> bool {
        matches!(self, Self::Stored { .. })
    }

    /// What the queue holds afterwards.
    pub const fn usage(&self) -> Usage {
        match self {
            Self::Stored { usage } | Self::Duplicate { usage, .. } => *usage,
        }
    }
}

impl Ack {
    /// The most items that one ack may name.
    pub const ITEMS_MAX: usize = 10_000;

    /// An ack of these items; one that is named twice counts once.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`] for more than [`Ack::ITEMS_MAX`] entries, counted as given.
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

    /// The items, each once.
    pub fn items(&self) -> &[ItemId] {
        &self.items
    }

    /// The same as acks of at most `items_max` items each, at least one, for a store that does
    /// other work in between. Their outcomes [together](AckOutcome::then) are that of the whole.
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
    /// What became of an ack whose parts before have come to this, and whose next one came to
    /// `next`.
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
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            forgotten: self.forgotten.saturating_add(other.forgotten),
        }
    }
}

/// Whether a push would be stored: the first half of [`push`], which only reads, and no payload. A
/// store that wants to know before it goes to any trouble may ask, too; what counts is what
/// [`push`] then says.
///
/// # Errors
/// The outer error is the store's. The inner one is a refusal.
pub fn admit<T: ReadTx>(
    tx: &T,
    limits: &Limits,
    now: Timestamp,
    envelope: &Envelope,
) -> Result<Result<Admission, Rejection>, T::Error> {
    admit_to(tx, &tx.queue(&envelope.recipient)?, limits, now, envelope)
}

fn admit_to<T: ReadTx>(
    tx: &T,
    queue: &T::Queue,
    limits: &Limits,
    now: Timestamp,
    envelope: &Envelope,
) -> Result<Result<Admission, Rejection>, T::Error> {
    let payload_bytes = envelope.payload_bytes();
    if payload_bytes > limits.message_bytes_max {
        return Ok(Err(Rejection::MessageTooLarge { limit: limits.message_bytes_max }));
    }
    let usage = tx.usage(queue)?;
    let expired = tx.front(queue, now)?.expired;
    let live = usage.minus(expired);
    let replaces = match tx.locate(queue, envelope.id())? {
        Some(ItemStatus::Queued { seq, deadline, .. }) if now < deadline => {
            return Ok(Ok(Admission::Known { usage: live, queued: Some(seq) }));
        }
        Some(ItemStatus::Acked { until }) if now < until => {
            return Ok(Ok(Admission::Known { usage: live, queued: None }));
        }
        Some(ItemStatus::Queued { seq, payload_bytes, .. }) => Some((seq, payload_bytes)),
        Some(ItemStatus::Acked { .. }) | None => None,
    };
    let admitted = live.admit(payload_bytes, limits);
    Ok(admitted.map(|usage| Admission::Fits { usage, expired, replaces }))
}

/// Puts an item into its queue, unless it is or recently was there.
///
/// An item lives from `now` for the TTL, and no shorter than what lies before it in the queue:
/// deadlines never decrease along a queue, so that expiry takes it from the front, also after the
/// TTL was lowered or the clock was set back.
///
/// # Errors
/// The outer error is the store's, and the transaction must then be abandoned. The inner one is a
/// refusal; nothing was written.
pub fn push<T: WriteTx>(
    tx: &mut T,
    limits: &Limits,
    now: Timestamp,
    envelope: Envelope,
) -> Result<Result<PushOutcome, Rejection>, T::Error> {
    put(tx, limits, now, envelope, Lifetime { arrival: now, until: now.plus_ms(limits.ttl_ms) })
}

/// As [`push`], for another stay than that from now on.
pub(crate) fn put<T: WriteTx>(
    tx: &mut T,
    limits: &Limits,
    now: Timestamp,
    envelope: Envelope,
    lifetime: Lifetime,
) -> Result<Result<PushOutcome, Rejection>, T::Error> {
    let (mut queue, id) = (tx.queue(&envelope.recipient)?, envelope.id());
    let (usage, mut unreclaimed, replaces) = match admit_to(tx, &queue, limits, now, &envelope)? {
        Err(rejection) => return Ok(Err(rejection)),
        Ok(Admission::Known { usage, queued }) => {
            let conflict = match queued {
                Some(seq) => !tx.has_payload(&queue, seq, &envelope.payload)?,
                None => false,
            };
            return Ok(Ok(PushOutcome::Duplicate { usage, conflict }));
        }
        Ok(Admission::Fits { usage, expired, replaces }) => (usage, expired, replaces),
    };

    if let Some((seq, payload_bytes)) = replaces {
        tx.remove(&mut queue, id, seq)?;
        unreclaimed = unreclaimed.minus(Usage::of(payload_bytes));
    }
    let deadline = lifetime.until.max(tx.last_deadline(&queue)?.unwrap_or_default());
    let seq = tx.next_seq()?;
    tx.insert(&mut queue, Item::new(envelope, seq, lifetime.arrival, deadline))?;
    tx.close(queue, usage.plus(unreclaimed))?;
    Ok(Ok(PushOutcome::Stored { usage }))
}

/// Reads a page: live items in arrival order, as many as fit, at least one if there is one.
///
/// # Errors
/// The store's.
pub fn pull<T: ReadTx>(
    tx: &T,
    limits: &Limits,
    now: Timestamp,
    request: &Pull,
) -> Result<Page<T::Item>, T::Error> {
    let queue = tx.queue(&request.recipient)?;
    let items_max = request.items_max.map_or(u64::MAX, NonZeroU64::get).min(limits.page_items_max).max(1);
    let front = tx.front(&queue, now)?;
    let start = request.after.map_or(Seq::ZERO, Seq::next).max(front.live_from);

    let mut items = Vec::new();
    let mut bytes = 0_u64;
    let mut follower = None;
    tx.scan(&queue, start, &mut |item| {
        bytes = bytes.saturating_add(item.payload_bytes());
        let full = items.len() as u64 >= items_max || bytes > limits.page_bytes_max;
        if full && !items.is_empty() {
            follower = Some(item.seq());
            return ControlFlow::Break(());
        }
        items.push(item);
        ControlFlow::Continue(())
    })?;

    let remaining = match follower {
        None => 0,
        // The page began where the live items begin, so all others come after it.
        Some(_) if start == front.live_from => {
            let live = tx.usage(&queue)?.minus(front.expired);
            live.items.saturating_sub(items.len() as u64)
        }
        Some(seq) => tx.items_from(&queue, seq)?,
    };
    let next = follower.and_then(|_| items.last().map(Queued::seq));
    Ok(Page { items, next, remaining })
}

/// Takes items out of a queue and remembers their names for the dedup window.
///
/// # Errors
/// The store's; the transaction must then be abandoned.
pub fn ack<T: WriteTx>(
    tx: &mut T,
    limits: &Limits,
    now: Timestamp,
    request: &Ack,
) -> Result<AckOutcome, T::Error> {
    let mut queue = tx.queue(request.recipient())?;
    let expired = tx.front(&queue, now)?.expired;
    let mut usage = tx.usage(&queue)?;
    let mut deleted = 0;
    for &id in request.items() {
        let Some(ItemStatus::Queued { seq, deadline, payload_bytes }) = tx.locate(&queue, id)? else {
            continue;
        };
        if deadline <= now {
            continue;
        }
        tx.remove(&mut queue, id, seq)?;
        if limits.dedup_window_ms > 0 {
            tx.remember_acked(&mut queue, id, now.plus_ms(limits.dedup_window_ms))?;
        }
        usage = usage.minus(Usage::of(payload_bytes));
        deleted += 1;
    }
    if deleted > 0 {
        tx.close(queue, usage)?;
    }
    let missing = (request.items().len() as u64).saturating_sub(deleted);
    Ok(AckOutcome { deleted, missing, remaining: usage.minus(expired).items })
}

/// One step of the sweep: reclaims at most `max` items and forgets at most `max` acked names whose
/// time is over at `now`.
///
/// # Errors
/// The store's; the transaction must then be abandoned.
pub fn expire<T: SweepTx>(tx: &mut T, now: Timestamp, max: usize) -> Result<SweepStep, T::Error> {
    let due = tx.due(now, max)?;
    for items in due.items.chunk_by(|a, b| a.recipient == b.recipient) {
        let Some(first) = items.first() else { continue };
        let mut queue = tx.queue(&first.recipient)?;
        let mut usage = tx.usage(&queue)?;
        for item in items {
            tx.remove(&mut queue, item.id, item.seq)?;
            usage = usage.minus(Usage::of(item.payload_bytes));
        }
        tx.close(queue, usage)?;
    }
    let forgotten = tx.forget_acked(now, max)?;
    let swept = Swept { items: due.items.len() as u64, forgotten: forgotten.names as u64 };
    Ok(SweepStep { swept, more: due.more || forgotten.more })
}
