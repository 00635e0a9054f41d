//! Whether reads of the index wait for the disk. As long as they do, who asks for something reads what the writer will look at before the
//! writer does: many wait side by side then, each for itself, and the writer, for which all wait, finds everything in memory.

use std::sync::atomic::{AtomicU32, Ordering};

use relay_core::{ItemId, Recipient, Timestamp};

use crate::dedup_filter::DedupFilter;
use crate::error::StoreError;
use crate::format::{self, Key, QueueRow};
use crate::index_snapshot::IndexSnapshot;

/// So many requests read ahead after a read that had to wait. Where all is in memory, none does.
const REQUESTS: u32 = 1024;

/// Counts down, and is wound up by each read that waits.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    left: AtomicU32,
}

impl Cold {
    /// A read had to wait for the disk.
    pub(crate) fn note(&self) {
        self.left.store(REQUESTS, Ordering::Relaxed);
    }

    /// Whether the next request reads ahead.
    pub(crate) fn is_for_next(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Reads what the writer looks at in the index for a request about these items.
pub(crate) fn read_ahead(
    index_snapshot: &IndexSnapshot,
    acked: &DedupFilter,
    recipient: &Recipient,
    items: &[ItemId],
) -> Result<(), StoreError> {
    let Some(queue) = index_snapshot.name(recipient)? else { return Ok(()) };
    let Some(row) = index_snapshot.get(&Key::queue(queue))? else { return Ok(()) };
    let row = QueueRow::decode(&row.bytes()?)?;
    for id in items {
        if row.inline().is_none() {
            let seq =
                index_snapshot.get(&Key::by_id(queue, *id))?.map(|trace| format::decode_seq(&trace.bytes()?));
            if let Some(seq) = seq.transpose()? {
                index_snapshot.get(&Key::item(queue, seq))?;
            }
        }
        if row.remembers_until > Timestamp::default() {
            for slot in acked.slots_of(queue, *id) {
                index_snapshot.get(&Key::acked(slot, queue, *id))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_ahead_for_a_while_after_a_read_that_waited() {
        let cold = Cold::default();
        assert!(!cold.is_for_next());
        for _ in 0..2 {
            cold.note();
            assert!((0..REQUESTS).all(|_| cold.is_for_next()) && !cold.is_for_next());
        }
    }
}
