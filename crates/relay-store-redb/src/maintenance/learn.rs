//! Reads the acked item ids of the previous process, in small steps, so that pushes need not look
//! them up in the index. A waiting task is delayed by one step at most.

use std::collections::VecDeque;
use std::sync::Arc;

use relay_core::Timestamp;

use crate::engine::shared::Shared;
use crate::error::StoreError;
use crate::format::Key;
use crate::memtable::dedup_filter::Learned;

/// How many item ids one step reads.
const STEP_ITEM_IDS: usize = 2048;

/// The progress of learning.
#[derive(Debug)]
pub(super) struct Learning {
    /// The slots that are not complete. The first one is in progress.
    slots: VecDeque<Timestamp>,
    /// Where to continue in the first slot; `None` at its start.
    from: Option<Key>,
    learned: Learned,
}

impl Learning {
    /// Begins to learn these slots.
    pub(super) fn new(slots: Vec<Timestamp>) -> Self {
        Self { slots: slots.into(), from: None, learned: Learned::default() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.slots.is_empty()
    }

    /// Skips the rest. Pushes look up their item ids in those slots until the slots expire.
    pub(super) fn give_up(&mut self) {
        self.slots.clear();
    }

    /// Reads the next item ids from the current index snapshot. The filter already knows the item
    /// ids that came in after the start, and need not know those that have expired since.
    pub(super) fn step(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let Some(&slot) = self.slots.front() else { return Ok(()) };
        let index_snapshot = Arc::clone(shared.version().index_snapshot());
        let from = self.from.unwrap_or_else(|| Key::acked_in(slot));
        let (item_ids, next) = index_snapshot.acked_ids(&from, slot, STEP_ITEM_IDS)?;
        drop(index_snapshot);
        let version = shared.version();
        version.acked().learn(&mut self.learned, &item_ids);
        self.from = next;
        if next.is_none() {
            self.slots.pop_front();
            self.learned = version.acked().complete(slot, std::mem::take(&mut self.learned));
        }
        Ok(())
    }
}
