//! Imports an item from another store. The rules are those of a push, but the item keeps its
//! arrival time and its deadline.

use crate::error::Rejection;
use crate::limits::Limits;
use crate::message::Envelope;
use crate::queue::{self, Lifetime, PushOutcome};
use crate::store::WriteTx;
use crate::time::Timestamp;

/// An item from another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportItem {
    /// The item as it was pushed.
    pub envelope: Envelope,
    /// When its push was accepted.
    pub arrival: Timestamp,
    /// When it expires.
    pub deadline: Timestamp,
}

/// The outcome of an import that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportOutcome {
    /// The item is at the end of its queue.
    Stored,
    /// The item is in the queue already, or was acked within the dedup window. Nothing changed.
    Known {
        /// Whether the item in the queue has another payload, which stays.
        conflict: bool,
    },
    /// The item has expired. Nothing changed.
    Expired,
}

/// The outcome of an import, counted by item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Items appended to their queues.
    pub stored: u64,
    /// Items that were queued already, or acked within the dedup window.
    pub known: u64,
    /// Known items that are queued with a different payload, which was kept.
    pub conflicts: u64,
    /// Items whose deadline had passed.
    pub expired: u64,
    /// Why the first rejected item was rejected. The import stops there, so that a retry keeps the
    /// order.
    pub refused: Option<Rejection>,
}

impl Imported {
    /// The number of processed items, whatever their outcome.
    #[must_use]
    pub const fn items(&self) -> u64 {
        self.stored.saturating_add(self.known).saturating_add(self.expired)
    }

    /// The sum of this outcome and the one of a later import.
    #[must_use]
    pub fn plus(self, later: Self) -> Self {
        Self {
            stored: self.stored.saturating_add(later.stored),
            known: self.known.saturating_add(later.known),
            conflicts: self.conflicts.saturating_add(later.conflicts),
            expired: self.expired.saturating_add(later.expired),
            refused: self.refused.or(later.refused),
        }
    }

    /// Counts the outcome of one more item.
    pub fn note(&mut self, outcome: ImportOutcome) {
        match outcome {
            ImportOutcome::Stored => self.stored += 1,
            ImportOutcome::Known { conflict } => {
                self.known += 1;
                self.conflicts += u64::from(conflict);
            }
            ImportOutcome::Expired => self.expired += 1,
        }
    }
}

/// Appends an item to its queue, unless the queue holds it or recently held it.
///
/// The item keeps its deadline, if that is no later than that of a push now. The arrival time is
/// never in the future.
///
/// # Errors
/// The outer error is the store's, and the caller must then abandon the transaction. The inner one
/// is a refusal, for the item's size or a quota; nothing was written.
pub fn import<T: WriteTx>(
    tx: &mut T,
    limits: &Limits,
    now: Timestamp,
    item: ImportItem,
) -> Result<Result<ImportOutcome, Rejection>, T::Error> {
    let ImportItem { envelope, arrival, deadline } = item;
    if deadline <= now {
        return Ok(Ok(ImportOutcome::Expired));
    }
    let lifetime = Lifetime { arrival: arrival.min(now), deadline: deadline.min(now.plus_ms(limits.ttl_ms)) };
    let outcome = queue::append(tx, limits, now, envelope, lifetime)?;
    Ok(outcome.map(|outcome| match outcome {
        PushOutcome::Stored { .. } => ImportOutcome::Stored,
        PushOutcome::Duplicate { conflict, .. } => ImportOutcome::Known { conflict },
    }))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::error::QuotaKind;
    use crate::limits::Usage;
    use crate::memory::MemoryTables;
    use crate::message::{Chunk, ItemId, Kind, MessageId, Recipient, Seq};
    use crate::queue::{Ack, ack, push};
    use crate::store::ReadTx;
    use crate::verify::recount;

    const NOW: Timestamp = Timestamp::from_ms(10_000);

    fn limits() -> Limits {
        Limits { ttl_ms: 1_000, dedup_window_ms: 50, queue_items_max: 3, ..Limits::default() }
    }

    fn envelope(number: u8, payload: &'static str) -> Envelope {
        Envelope {
            recipient: Recipient::parse("a").unwrap(),
            message_id: MessageId::from_bytes([number; 16]),
            chunk: Chunk::new(0, 1).unwrap(),
            kind: Kind::parse("opaque").unwrap(),
            total_len: 1,
            sent_ms: 2,
            ttl_ms: None,
            payload: payload.into(),
        }
    }

    fn item(number: u8, arrival_ms: u64, deadline_ms: u64) -> ImportItem {
        let (arrival, deadline) = (Timestamp::from_ms(arrival_ms), Timestamp::from_ms(deadline_ms));
        ImportItem { envelope: envelope(number, "x"), arrival, deadline }
    }

    fn import_item(tables: &mut MemoryTables, item: ImportItem) -> Result<ImportOutcome, Rejection> {
        let Ok(outcome) = import(tables, &limits(), NOW, item);
        let Ok(findings) = recount(tables);
        assert_eq!(findings, [""; 0]);
        outcome
    }

    /// First byte of the message id, arrival and deadline of each item in the queue.
    fn queue(tables: &MemoryTables) -> Vec<(u8, u64, u64)> {
        let mut found = Vec::new();
        let Ok(()) = tables.scan(&Recipient::parse("a").unwrap(), Seq::ZERO, &mut |item| {
            found.push((item.message_id.as_bytes()[0], item.arrival.as_ms(), item.deadline.as_ms()));
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn an_item_keeps_its_times_and_goes_to_the_end_of_its_queue() {
        let mut tables = MemoryTables::default();
        assert_eq!(import_item(&mut tables, item(2, 9_500, 10_500)), Ok(ImportOutcome::Stored));
        assert_eq!(import_item(&mut tables, item(1, 9_600, 10_600)), Ok(ImportOutcome::Stored));
        assert_eq!(queue(&tables), [(2, 9_500, 10_500), (1, 9_600, 10_600)]);
    }

    #[test]
    fn a_deadline_is_bounded_by_that_of_a_push() {
        let mut tables = MemoryTables::default();
        assert_eq!(import_item(&mut tables, item(1, 9_999_999, u64::MAX)), Ok(ImportOutcome::Stored));
        assert_eq!(import_item(&mut tables, item(2, 9_000, 10_001)), Ok(ImportOutcome::Stored));
        assert_eq!(queue(&tables), [(1, 10_000, 11_000), (2, 9_000, 10_001)]);
    }

    #[test]
    fn an_expired_item_is_not_stored() {
        let mut tables = MemoryTables::default();
        assert_eq!(import_item(&mut tables, item(1, 9_000, 10_000)), Ok(ImportOutcome::Expired));
        assert_eq!(queue(&tables), []);
    }

    #[test]
    fn a_known_item_changes_nothing() {
        let mut tables = MemoryTables::default();
        let Ok(Ok(_)) = push(&mut tables, &limits(), NOW, envelope(1, "x")) else {
            panic!("the push was refused")
        };
        let Ok(Ok(_)) = push(&mut tables, &limits(), NOW, envelope(2, "y")) else {
            panic!("the push was refused")
        };
        let id = ItemId { message_id: MessageId::from_bytes([1; 16]), chunk_index: 0 };
        let before = queue(&tables);
        assert_eq!(
            import_item(&mut tables, item(1, 1, 10_500)),
            Ok(ImportOutcome::Known { conflict: false })
        );
        assert_eq!(import_item(&mut tables, item(2, 1, 10_500)), Ok(ImportOutcome::Known { conflict: true }));
        assert_eq!(queue(&tables), before);
        let acked = Ack::new(Recipient::parse("a").unwrap(), vec![id]).unwrap();
        let Ok(_) = ack(&mut tables, &limits(), NOW, &acked);
        assert_eq!(
            import_item(&mut tables, item(1, 1, 10_500)),
            Ok(ImportOutcome::Known { conflict: false })
        );
        assert_eq!(queue(&tables).len(), 1);
    }

    #[test]
    fn quotas_apply_to_imports() {
        let mut tables = MemoryTables::default();
        for number in 0..3 {
            assert_eq!(import_item(&mut tables, item(number, 1, 10_500)), Ok(ImportOutcome::Stored));
        }
        let full = Rejection::QuotaExceeded { reason: QuotaKind::Count, limit: 3, used: 3 };
        assert_eq!(import_item(&mut tables, item(4, 1, 10_500)), Err(full));
        let Ok(usage) = tables.usage(&Recipient::parse("a").unwrap());
        assert_eq!(usage, Usage { items: 3, bytes: 3 });
    }
}
