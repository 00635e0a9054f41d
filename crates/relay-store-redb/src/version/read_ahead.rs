//! Reads the rows that the writer is about to look at, so that it finds them in memory.

use relay_core::{ItemId, Recipient, Timestamp};

use crate::error::StoreError;
use crate::format::{self, Key, QueueRow};
use crate::index::snapshot::IndexSnapshot;
use crate::memtable::dedup_filter::DedupFilter;

/// Reads what the writer looks at in the index for a request about these items.
pub(crate) fn read_ahead(
    index_snapshot: &IndexSnapshot,
    acked: &DedupFilter,
    recipient: &Recipient,
    items: &[ItemId],
) -> Result<(), StoreError> {
    let Some(queue) = index_snapshot.queue_number(recipient)? else { return Ok(()) };
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
