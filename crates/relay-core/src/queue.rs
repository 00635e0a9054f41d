//! The rules of a queue: push, pull, ack and expire. Each one reads, decides, then writes. The
//! caller begins and commits the transaction, and passes in the time.
//!
//! An item expires at the instant of its deadline. From then on it is not shown, not counted and no
//! duplicate, even before [`expire`] reclaims it.

mod requests;

use std::num::NonZeroU64;
use std::ops::ControlFlow;

use crate::error::Rejection;
use crate::limits::{Limits, Usage};
use crate::message::{Envelope, Seq};
use crate::store::{Item, ItemStatus, Queued, ReadTx, RemovedThrough, SweepTx, WriteTx};
use crate::time::Timestamp;

pub use requests::{Ack, AckOutcome, Page, Pull, PushOutcome, SweepStep, Swept};

/// The decision about a push, before its payload is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The item is in the queue, or was acked within the dedup window.
    Known {
        /// The queue's live items.
        usage: Usage,
        /// The arrival number and the deadline, if the item is in the queue.
        queued: Option<(Seq, Timestamp)>,
    },
    /// The quotas have capacity for the item.
    Fits {
        /// The queue's live items, with the new one.
        usage: Usage,
        /// Expired items that are not reclaimed yet.
        expired: Usage,
        /// An expired item with the same id, and its payload bytes. The push must remove it first.
        replaces: Option<(Seq, u64)>,
    },
}

/// The times of an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub(crate) arrival: Timestamp,
    pub(crate) deadline: Timestamp,
}

/// Decides whether a push would be stored. It reads no payload, so a store may call it before
/// expensive work; the later decision of [`push`] is the valid one.
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
            return Ok(Ok(Admission::Known { usage: live, queued: Some((seq, deadline)) }));
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

/// Appends an item to its queue, unless the queue holds it or recently held it.
///
/// An item lives from `now` for its TTL, whatever else is in the queue.
///
/// # Errors
/// The outer error is the store's, and the caller must then abandon the transaction. The inner one
/// is a refusal; nothing was written.
pub fn push<T: WriteTx>(
    tx: &mut T,
    limits: &Limits,
    now: Timestamp,
    envelope: Envelope,
) -> Result<Result<PushOutcome, Rejection>, T::Error> {
    let deadline = envelope.deadline(now, limits);
    append(tx, limits, now, envelope, Lifetime { arrival: now, deadline })
}

/// Like [`push`], with a given lifetime.
pub(crate) fn append<T: WriteTx>(
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
                Some((seq, _)) => !tx.has_payload(&queue, seq, &envelope.payload)?,
                None => false,
            };
            let deadline = queued.map(|(_, deadline)| deadline);
            return Ok(Ok(PushOutcome::Duplicate { usage, conflict, deadline }));
        }
        Ok(Admission::Fits { usage, expired, replaces }) => (usage, expired, replaces),
    };

    if let Some((seq, payload_bytes)) = replaces {
        tx.remove(&mut queue, id, seq)?;
        unreclaimed = unreclaimed.minus(Usage::of(payload_bytes));
    }
    let (seq, Lifetime { arrival, deadline }) = (tx.next_seq(&queue)?, lifetime);
    tx.insert(&mut queue, Item::new(envelope, seq, arrival, deadline))?;
    tx.close(queue, usage.plus(unreclaimed))?;
    Ok(Ok(PushOutcome::Stored { usage, deadline }))
}

/// Reads a page: live items in arrival order, as many as fit, and at least one if there is one.
///
/// # Errors
/// Those of the store.
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
    let mut first_omitted = None;
    tx.scan(&queue, start, &mut |item| {
        if !item.is_live(now) {
            return ControlFlow::Continue(());
        }
        bytes = bytes.saturating_add(item.payload_bytes());
        let full = items.len() as u64 >= items_max || bytes > limits.page_bytes_max;
        if full && !items.is_empty() {
            first_omitted = Some(item.seq());
            return ControlFlow::Break(());
        }
        items.push(item);
        ControlFlow::Continue(())
    })?;

    let remaining = match first_omitted {
        None => 0,
        // The page starts at the first live item, so all live items that it omits follow it.
        Some(_) if start == front.live_from => {
            let live = tx.usage(&queue)?.minus(front.expired);
            live.items.saturating_sub(items.len() as u64)
        }
        Some(seq) => tx.live_items_from(&queue, seq, now)?,
    };
    let next = first_omitted.and_then(|_| items.last().map(Queued::seq));
    Ok(Page { items, next, remaining })
}

/// Removes items from a queue and remembers their ids for the dedup window: those that the request
/// names, and all up to [`Ack::through`].
///
/// # Errors
/// Those of the store; the caller must then abandon the transaction.
pub fn ack<T: WriteTx>(
    tx: &mut T,
    limits: &Limits,
    now: Timestamp,
    request: &Ack,
) -> Result<AckOutcome, T::Error> {
    let mut queue = tx.queue(request.recipient())?;
    let mut expired = tx.front(&queue, now)?.expired;
    let mut usage = tx.usage(&queue)?;
    let until = (limits.dedup_window_ms > 0).then(|| now.plus_ms(limits.dedup_window_ms));
    let mut deleted = 0;
    for &id in request.items() {
        let (seq, payload_bytes) = match tx.locate(&queue, id)? {
            Some(ItemStatus::Queued { seq, deadline, payload_bytes }) if now < deadline => {
                (seq, payload_bytes)
            }
            _ => continue,
        };
        tx.remove(&mut queue, id, seq)?;
        if let Some(until) = until {
            tx.remember_acked(&mut queue, id, until)?;
        }
        usage = usage.minus(Usage::of(payload_bytes));
        deleted += 1;
    }
    let missing = (request.items().len() as u64).saturating_sub(deleted);
    let mut is_changed = deleted > 0;
    if let Some(through) = request.through() {
        let removed = tx.remove_through(&mut queue, through, now, until)?;
        usage = usage.minus(removed.live).minus(removed.expired);
        expired = expired.minus(removed.expired);
        deleted += removed.live.items;
        is_changed |= removed != RemovedThrough::default();
    }
    if is_changed {
        tx.close(queue, usage)?;
    }
    Ok(AckOutcome { deleted, missing, remaining: usage.minus(expired).items })
}

/// One step of the sweep at `now`: reclaims at most `max` expired items, and forgets at most `max`
/// acked item ids whose dedup window is over.
///
/// # Errors
/// Those of the store; the caller must then abandon the transaction.
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
    let swept = Swept { items: due.items.len() as u64, forgotten: forgotten.item_ids as u64 };
    Ok(SweepStep { swept, more: due.more || forgotten.more })
}
