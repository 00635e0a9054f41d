//! The memtable: what is newer than the index on disk, in memory.
//!
//! Memtables lie on top of each other, and the newer one wins: a batch that is being decided; the
//! batches since the last checkpoint began; those that it is writing; then the index. A deleted row
//! leaves a tombstone, which hides the row in older memtables.

pub(crate) mod dedup_filter;
pub(crate) mod queue_cache;
pub(crate) mod rows;

use std::collections::BTreeMap;

use relay_core::Recipient;
use relay_journal::Position;

use crate::format::{Counters, LiveChange};
use crate::memtable::rows::Rows;

/// Changes on top of older memtables and the index. `None` is a tombstone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memtable {
    pub(crate) recipients: BTreeMap<Recipient, Option<u64>>,
    pub(crate) rows: Rows,
    pub(crate) segments: BTreeMap<u32, LiveChange>,
    pub(crate) numbers: Counters,
}

/// So many items in the rows of queues weigh as much as a row, because they take about as much
/// memory.
const ITEMS_PER_ROW: usize = 4;

/// A memtable that no longer changes, until a checkpoint has written it to the index.
pub(crate) struct SealedMemtable {
    pub(crate) memtable: Memtable,
    /// The position in the journal that it reflects.
    pub(crate) position: Position,
    /// The payload files up to this number are decided.
    pub(crate) blobs_through: u32,
}

impl Memtable {
    /// An empty memtable on top of one that has assigned `numbers`.
    pub(crate) fn new(numbers: Counters) -> Self {
        Self { numbers, ..Self::default() }
    }

    /// An empty memtable on top of this one, with capacity for as many queues.
    pub(crate) fn next(&self) -> Self {
        Self { rows: Rows::with_capacity_of(&self.rows), ..Self::new(self.numbers) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 0 && self.recipients.is_empty()
    }

    /// A measure, in rows, of its memory and of the work of the checkpoint that writes it.
    pub(crate) fn weight(&self) -> usize {
        let items = self.rows.inline_items / ITEMS_PER_ROW;
        self.rows.len().saturating_add(self.recipients.len()).saturating_add(items)
    }

    pub(crate) fn count(&mut self, segment: u32, change: LiveChange) {
        let sum = self.segments.entry(segment).or_default();
        *sum = sum.plus(change);
    }

    /// Merges a newer memtable into this one. `below` are the numbers that were assigned when this
    /// one began: a row with a later number is in no older memtable and needs no tombstone.
    pub(crate) fn absorb(&mut self, newer: Self, below: Counters) {
        // Its own numbers may have been raised since the newer one began.
        self.numbers = self.numbers.max(newer.numbers);
        self.recipients.extend(newer.recipients);
        self.rows.absorb(newer.rows, below);
        for (segment, change) in newer.segments {
            self.count(segment, change);
        }
    }

    /// Merges a memtable on top of the same version that has changed other queues.
    pub(crate) fn merge_disjoint(&mut self, other: Self) {
        self.numbers = self.numbers.max(other.numbers);
        for (recipient, queue) in other.recipients {
            // A recipient whose queue was dropped may have got a later one. (After corruption, a
            // queue that should be dropped may come back with its items.)
            let known = self.recipients.entry(recipient).or_default();
            *known = (*known).max(queue);
        }
        self.rows.merge_disjoint(other.rows);
        for (segment, change) in other.segments {
            self.count(segment, change);
        }
    }
}
