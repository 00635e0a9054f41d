//! Reads, a few at a time, the acked names that the process before this one has written, so that
//! pushes need not look for each of theirs. It keeps nobody who has more to do waiting for longer
//! than a step.

use std::collections::VecDeque;
use std::sync::Arc;

use relay_core::Timestamp;

use crate::engine::shared::Shared;
use crate::error::StoreError;
use crate::format::Key;
use crate::memtable::dedup_filter::Learned;

/// How many names one step reads.
const STEP_NAMES: usize = 2048;

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Learning {
    /// The slots that are not learned yet. The first one is begun.
    slots: VecDeque<Timestamp>,
    /// Where it goes on in that one; `None` at its begin.
    from: Option<Key>,
    learned: Learned,
}

impl Learning {
    /// Of these slots, none of which was read.
    pub(crate) fn of(slots: Vec<Timestamp>) -> Self {
        Self { slots: slots.into(), from: None, learned: Learned::default() }
    }

    /// Whether all is learned.
    pub(crate) fn is_over(&self) -> bool {
        self.slots.is_empty()
    }

    /// Leaves the rest. Pushes look for their names in those slots until these are forgotten.
    pub(crate) fn give_up(&mut self) {
        self.slots.clear();
    }

    /// Reads the next names. They are those of the index as it is by now: what came into a slot
    /// since this began was told to the filter when it came, and what is gone need not be known.
    pub(crate) fn step(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let Some(&slot) = self.slots.front() else { return Ok(()) };
        let index_snapshot = Arc::clone(shared.version().index_snapshot());
        let from = self.from.unwrap_or_else(|| Key::acked_in(slot));
        let (names, next) = index_snapshot.acked_ids(&from, slot, STEP_NAMES)?;
        drop(index_snapshot);
        let version = shared.version();
        version.acked().learn(&mut self.learned, &names);
        self.from = next;
        if next.is_none() {
            self.slots.pop_front();
            self.learned = version.acked().complete(slot, std::mem::take(&mut self.learned));
        }
        Ok(())
    }
}
