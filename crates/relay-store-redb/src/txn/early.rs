//! Removes items that have expired before one in front of them.

use std::sync::Arc;

use relay_core::{Queued as _, Seq, Timestamp};

use crate::error::StoreError;
use crate::format::{ItemRow, Key, ParsedKey};
use crate::txn::queue_handle::OpenQueue;
use crate::txn::write::WriteTxn;

/// What [`WriteTxn::find_early`] has found.
#[derive(Debug, Default)]
pub(crate) struct FoundEarly {
    pub(crate) items: Vec<Seq>,
    /// How many rows of items that are gone were deleted.
    pub(crate) gone: usize,
    /// The earliest deadline of the others, expired or not; `None` if there are none.
    pub(crate) next: Option<Timestamp>,
}

impl WriteTxn<'_> {
    /// Finds at most `max` items that have expired at `now` before one in front of them. Of a
    /// spilled queue, it also deletes the rows that it passes of items that are gone. The queue has
    /// no floor.
    pub(crate) fn find_early(
        &mut self,
        open: &OpenQueue,
        now: Timestamp,
        max: usize,
    ) -> Result<FoundEarly, StoreError> {
        let Some(early_from) = open.row.early_from.filter(|early| *early <= now) else {
            return Ok(FoundEarly { next: open.row.early_from, ..FoundEarly::default() });
        };
        if let Some(items) = open.row.inline() {
            let (expired, left): (Vec<_>, Vec<_>) =
                items.iter().filter(ItemRow::is_early).partition(|item| !item.is_live(now));
            let next = left.iter().map(|item| item.deadline).min();
            let items = expired.iter().map(|item| item.seq).collect();
            return Ok(FoundEarly { items, gone: 0, next });
        }
        let (mut found, mut gone, mut passed) = (FoundEarly::default(), Vec::new(), 0);
        let rows = open.rows(self.view());
        let (first, end) = (rows.first(), Key::rows_end(open.number));
        for row in rows.view.range(&Key::early(open.number, early_from, Seq::ZERO), &end)? {
            // The bytes of the value have the checksum of the key, too.
            let parsed = row.and_then(|(key, value)| {
                value.bytes()?;
                Ok((key, key.parse()?))
            });
            let (key, deadline, seq) = match parsed {
                Ok((key, ParsedKey::Early(_, deadline, seq))) => (key, deadline, seq),
                // Its item stays until the sweep reaches it.
                Ok(_) | Err(StoreError::Corrupted(_)) => continue,
                Err(error) => return Err(error),
            };
            if deadline > now || passed == max {
                found.next = Some(deadline);
                break;
            }
            passed += 1;
            if seq < first {
                gone.push(key);
            } else {
                found.items.push(seq);
            }
        }
        found.gone = gone.len();
        gone.into_iter().for_each(|key| self.put(key, None));
        Ok(found)
    }

    /// Removes such items, and returns how many of them were there. The earliest deadline of the
    /// others is `next`. A corrupt one does not keep the others in the queue.
    pub(crate) fn remove_early(
        &mut self,
        open: &mut OpenQueue,
        items: &[Seq],
        next: Option<Timestamp>,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        for seq in items {
            match self.remove_item(open, *seq, None) {
                Ok(item) => removed += usize::from(item.is_some()),
                Err(StoreError::Corrupted(what)) => {
                    tracing::error!(what, "cannot remove an item that has expired");
                }
                Err(error) => return Err(error),
            }
        }
        if !open.row.usage.is_empty() {
            Arc::make_mut(&mut open.row).early_from = next;
        }
        Ok(removed)
    }
}
