//! Removes dead rows from the index: rows of items before the first item of their queue. The sweep
//! leaves them behind, because it trims a queue with one record.

use std::sync::Arc;

use relay_core::Seq;

use crate::error::{StoreError, caught};
use crate::format::{self, ItemRow, Key, ParsedKey, QueueRow};
use crate::index::snapshot::IndexSnapshot;
use crate::maintenance::Maintenance;
use crate::memtable::dedup_filter::DedupFilter;
use crate::version::view::ReadView;

/// How many dead rows are found and removed at once, in about 0.2 s. No checkpoint can begin
/// meanwhile.
const ROWS_PER_STEP: usize = 65_536;

impl Maintenance {
    /// Removes dead rows until none is left or the writer requests a checkpoint.
    pub(super) fn remove_dead_rows(&mut self) {
        while !self.shared.throttle.is_checkpoint_requested() && self.remove_some_dead_rows() {}
    }

    /// Removes some dead rows. Returns whether there may be more. A failure is only logged: nothing
    /// is lost, and no caller waits for this.
    pub(super) fn remove_some_dead_rows(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let step = || {
            let index_snapshot = Arc::clone(shared.version().index_snapshot());
            let dead = dead_rows(&index_snapshot)?;
            self.remove_rows(&dead)?;
            Ok(!dead.is_empty())
        };
        caught(|| shared.while_no_checkpoint_begins(step)).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot remove dead rows; they stay in the index for now");
            false
        })
    }
}

/// Some dead rows and their item ids. When a queue has no more of them, also the row that marks it.
fn dead_rows(index_snapshot: &IndexSnapshot) -> Result<Vec<Key>, StoreError> {
    let acked = DedupFilter::default();
    let (view, mut dead) = (ReadView::new([None; 3], index_snapshot, &acked), Vec::new());
    for row in view.range(&Key::dead_start(), &Key::queues_start())? {
        let key = row?.0;
        let queue = match view.queue_row(key.queue_number()) {
            // Its first item is unknown.
            Err(StoreError::Corrupted(_)) => continue,
            row => row?,
        };
        if !add_dead_rows(&view, key.queue_number(), queue.as_deref(), &mut dead)? {
            break;
        }
        dead.push(key);
    }
    // Neighbours in the index are removed together.
    dead.sort_unstable();
    dead.dedup();
    Ok(dead)
}

/// Adds the dead rows of a queue. False if there are more.
fn add_dead_rows(
    view: &ReadView<'_>,
    queue: u64,
    row: Option<&QueueRow>,
    dead: &mut Vec<Key>,
) -> Result<bool, StoreError> {
    let first = row.filter(|row| row.inline().is_none()).and_then(|row| row.ends).map(|ends| ends.first.seq);
    let end = first.map_or_else(|| Key::items_end(queue), |first| Key::item(queue, first));
    let mut corrupt = Vec::new();
    for row in view.range(&Key::items_start(queue), &end)? {
        if dead.len() >= ROWS_PER_STEP {
            return Ok(false);
        }
        let (key, value) = row?;
        let Some(seq) = key.seq() else { continue };
        let Ok(item) = value.bytes().and_then(|bytes| ItemRow::decode(seq, &bytes)) else {
            corrupt.push(key);
            continue;
        };
        dead.push(key);
        if item.is_early() {
            dead.push(Key::early(queue, item.deadline, seq));
        }
        let by_id = Key::by_id(queue, item.id);
        match view.read(&by_id, format::decode_seq) {
            Ok(Some(found)) if found == seq => dead.push(by_id),
            Ok(_) | Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if !corrupt.is_empty() {
        // Last, because only these rows show that item ids are left.
        dead.append(&mut corrupt);
        add_dead_ids(view, queue, first.unwrap_or(Seq::new(u64::MAX)), dead)?;
    }
    Ok(true)
}

/// Adds the other rows of dead items: their item ids, and those of early items. A corrupt row does
/// not tell which these are, so this reads all of them.
fn add_dead_ids(view: &ReadView<'_>, queue: u64, first: Seq, dead: &mut Vec<Key>) -> Result<(), StoreError> {
    for row in view.range(&Key::early_start(queue), &Key::rows_end(queue))? {
        match row.and_then(|(key, _)| key.parse()) {
            Ok(ParsedKey::Early(_, deadline, seq)) if seq < first => {
                dead.push(Key::early(queue, deadline, seq));
            }
            Ok(_) | Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    for row in view.range(&Key::items_end(queue), &Key::by_id_end(queue))? {
        let (key, value) = row?;
        match value.bytes().and_then(|bytes| format::decode_seq(&bytes)) {
            Ok(seq) if seq < first => dead.push(key),
            Ok(_) | Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
