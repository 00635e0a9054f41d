//! Takes in an item that has waited in another store. It goes to the end of its queue, under the
//! same rules as a push, but keeps the times that it had: it is no older and no younger for having
//! moved.

use crate::error::Rejection;
use crate::limits::Limits;
use crate::message::Envelope;
use crate::queue::{self, Lifetime, PushOutcome};
use crate::store::WriteTx;
use crate::time::Timestamp;

/// An item on its way from one store to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportItem {
    /// What was pushed.
    pub envelope: Envelope,
    /// When its push was accepted.
    pub arrival: Timestamp,
    /// From when on it is gone.
    pub deadline: Timestamp,
}

/// What became of an item that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportOutcome {
    /// It lies at the end of its queue.
    Stored,
    /// It lies in the queue already, or was acked within the dedup window. Nothing changed.
    Known {
        /// The item in the queue has another payload, which stays.
        conflict: bool,
    },
    /// Its time is over. Nothing changed.
    Expired,
}

/// Puts an item at the end of its queue, unless it is or recently was there.
///
/// Its deadline is the one that it had, but no later than that of a push of now, so that one item
/// cannot make all behind it stay for ever, and no earlier than that of the item before it:
/// deadlines never decrease along a queue. Its arrival is what it was, but not in the future.
///
/// # Errors
/// The outer error is the store's, and the transaction must then be abandoned. The inner one is a
/// refusal, for its size or a quota; nothing was written.
pub fn import<T: WriteTx>(
    tx: &mut T,
    limits: &Limits,
    now: Timestamp,
    carried: ImportItem,
) -> Result<Result<ImportOutcome, Rejection>, T::Error> {
    let ImportItem { envelope, arrival, deadline } = carried;
    if deadline <= now {
        return Ok(Ok(ImportOutcome::Expired));
    }
    let lifetime = Lifetime { arrival: arrival.min(now), until: deadline.min(now.plus_ms(limits.ttl_ms)) };
    let outcome = queue::put(tx, limits, now, envelope, lifetime)?;
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
            payload: payload.into(),
        }
    }

    fn carried(number: u8, arrival_ms: u64, deadline_ms: u64) -> ImportItem {
        let (arrival, deadline) = (Timestamp::from_ms(arrival_ms), Timestamp::from_ms(deadline_ms));
        ImportItem { envelope: envelope(number, "x"), arrival, deadline }
    }

    fn take(tables: &mut MemoryTables, carried: ImportItem) -> Result<ImportOutcome, Rejection> {
        let Ok(outcome) = import(tables, &limits(), NOW, carried);
        let Ok(findings) = recount(tables);
        assert_eq!(findings, [""; 0]);
        outcome
    }

    /// First byte of the name, arrival and deadline of each item in the queue.
    fn queue(tables: &MemoryTables) -> Vec<(u8, u64, u64)> {
        let mut found = Vec::new();
        let Ok(()) = tables.scan(&Recipient::parse("a").unwrap(), Seq::ZERO, &mut |item| {
            found.push((item.message_id.as_bytes()[0], item.arrival.as_ms(), item.deadline.as_ms()));
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn an_item_keeps_its_times_and_its_place_in_the_line() {
        let mut tables = MemoryTables::default();
        assert_eq!(take(&mut tables, carried(2, 9_500, 10_500)), Ok(ImportOutcome::Stored));
        assert_eq!(take(&mut tables, carried(1, 9_600, 10_600)), Ok(ImportOutcome::Stored));
        assert_eq!(queue(&tables), [(2, 9_500, 10_500), (1, 9_600, 10_600)]);
    }

    #[test]
    fn a_deadline_is_no_later_than_that_of_a_push_and_no_earlier_than_the_one_before() {
        let mut tables = MemoryTables::default();
        assert_eq!(take(&mut tables, carried(1, 9_999_999, u64::MAX)), Ok(ImportOutcome::Stored));
        assert_eq!(take(&mut tables, carried(2, 9_000, 10_001)), Ok(ImportOutcome::Stored));
        assert_eq!(queue(&tables), [(1, 10_000, 11_000), (2, 9_000, 11_000)]);
    }

    #[test]
    fn what_is_over_is_left_out() {
        let mut tables = MemoryTables::default();
        assert_eq!(take(&mut tables, carried(1, 9_000, 10_000)), Ok(ImportOutcome::Expired));
        assert_eq!(queue(&tables), []);
    }

    #[test]
    fn what_is_known_changes_nothing() {
        let mut tables = MemoryTables::default();
        let Ok(Ok(_)) = push(&mut tables, &limits(), NOW, envelope(1, "x")) else { panic!("it fits") };
        let Ok(Ok(_)) = push(&mut tables, &limits(), NOW, envelope(2, "y")) else { panic!("it fits") };
        let id = ItemId { message_id: MessageId::from_bytes([1; 16]), chunk_index: 0 };
        let before = queue(&tables);
        assert_eq!(take(&mut tables, carried(1, 1, 10_500)), Ok(ImportOutcome::Known { conflict: false }));
        assert_eq!(take(&mut tables, carried(2, 1, 10_500)), Ok(ImportOutcome::Known { conflict: true }));
        assert_eq!(queue(&tables), before);
        let acked = Ack::new(Recipient::parse("a").unwrap(), vec![id]).unwrap();
        let Ok(_) = ack(&mut tables, &limits(), NOW, &acked);
        assert_eq!(take(&mut tables, carried(1, 1, 10_500)), Ok(ImportOutcome::Known { conflict: false }));
        assert_eq!(queue(&tables).len(), 1);
    }

    #[test]
    fn quotas_hold() {
        let mut tables = MemoryTables::default();
        for number in 0..3 {
            assert_eq!(take(&mut tables, carried(number, 1, 10_500)), Ok(ImportOutcome::Stored));
        }
        let full = Rejection::QuotaExceeded { reason: QuotaKind::Count, limit: 3, used: 3 };
        assert_eq!(take(&mut tables, carried(4, 1, 10_500)), Err(full));
        let Ok(usage) = tables.usage(&Recipient::parse("a").unwrap());
        assert_eq!(usage, Usage { items: 3, bytes: 3 });
    }
}
