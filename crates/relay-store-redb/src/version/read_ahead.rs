//! Reads the rows of the index that the writer will need, so that it finds them in memory.

use relay_core::{ItemId, Recipient, Timestamp};

use crate::error::StoreError;
use crate::format::{self, Key, QueueRow};
use crate::index::snapshot::IndexSnapshot;
use crate::memtable::dedup_filter::DedupFilter;

/// Reads the rows that a request about these items needs.
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
        if row.inline().is_none()
            && let Some(value) = index_snapshot.get(&Key::by_id(queue, *id))?
        {
            index_snapshot.get(&Key::item(queue, format::decode_seq(&value.bytes()?)?))?;
        }
        if row.remembers_until > Timestamp::default() {
            for slot in acked.slots_of(queue, *id) {
                index_snapshot.get(&Key::acked(slot, queue, *id))?;
            }
        }
    }
    Ok(())
}
