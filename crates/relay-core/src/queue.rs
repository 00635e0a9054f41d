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
use crate::store::{Item, ItemStatus, Queued, ReadTx, SweepTx, WriteTx};
use crate::time::Timestamp;

pub use requests::{Ack, AckOutcome, Page, Pull, PushOutcome, SweepStep, Swept};

/// The decision about a push, before its payload is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The item is in the queue, or was acked within the dedup window.
    Known {
        /// The queue's live items.
        usage: Usage,
        /// The arrival number, if the item is in the queue.
        queued: Option<Seq>,
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

/// The times of an item. The deadline is at least that of the previous item in the queue.
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

/// Appends an item to its queue, unless the queue holds it or recently held it.
///
/// An item lives from `now` for the TTL, and at least as long as the previous item. So deadlines
/// never decrease along a queue, and items expire from its front. This holds even after the TTL was
/// lowered or the clock was set back.
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
    append(tx, limits, now, envelope, Lifetime { arrival: now, deadline: now.plus_ms(limits.ttl_ms) })
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
    let deadline = lifetime.deadline.max(tx.last_deadline(&queue)?.unwrap_or_default());
    let seq = tx.next_seq()?;
    tx.insert(&mut queue, Item::new(envelope, seq, lifetime.arrival, deadline))?;
    tx.close(queue, usage.plus(unreclaimed))?;
    Ok(Ok(PushOutcome::Stored { usage }))
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
        Some(seq) => tx.items_from(&queue, seq)?,
    };
    let next = first_omitted.and_then(|_| items.last().map(Queued::seq));
    Ok(Page { items, next, remaining })
}

/// Removes items from a queue and remembers their ids for the dedup window.
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
    let expired = tx.front(&queue, now)?.expired;
    let mut usage = tx.usage(&queue)?;
    let mut deleted = 0;
    for &id in request.items() {
        let (seq, payload_bytes) = match tx.locate(&queue, id)? {
            Some(ItemStatus::Queued { seq, deadline, payload_bytes }) if now < deadline => {
                (seq, payload_bytes)
            }
            _ => continue,
        };
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
