//! What is newer than the index on disk, in memory: rows, names, and what that does to the segments
//! of the journal.
//!
//! Layers lie on top of each other, and the newer one wins: a batch that is being decided, on the
//! batches since the last checkpoint began, on those that it is writing, on the index. A row that
//! is gone leaves a tombstone, so that older memtables do not show it.

pub(crate) mod dedup_filter;
pub(crate) mod queue_cache;
pub(crate) mod rows;

use std::collections::BTreeMap;

use relay_core::Recipient;
use relay_journal::Position;

use crate::format::{Change, Counters};
use crate::memtable::rows::Rows;

/// What is newer than what lies below. `None` is a tombstone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memtable {
    pub(crate) recipients: BTreeMap<Recipient, Option<u64>>,
    pub(crate) rows: Rows,
    pub(crate) segments: BTreeMap<u32, Change>,
    pub(crate) numbers: Counters,
}

/// So many items in the rows of queues count as a row: they take about as much memory.
const ITEMS_OF_A_ROW: usize = 4;

/// A memtable that changes no more, until it is in the index.
pub(crate) struct SealedMemtable {
    pub(crate) memtable: Memtable,
    /// Where the journal goes on behind it.
    pub(crate) position: Position,
    /// Up to this number payload files are decided.
    pub(crate) payloads_through: u32,
}

impl Memtable {
    /// An empty memtable on top of one that has given away `numbers`.
    pub(crate) fn new(numbers: Counters) -> Self {
        Self { numbers, ..Self::default() }
    }

    /// An empty memtable on top of this one, which is about to become as large.
    pub(crate) fn next(&self) -> Self {
        Self { rows: Rows::with_room_of(&self.rows), ..Self::new(self.numbers) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.recipients.is_empty()
    }

    /// How much it holds, in rows without items: what it takes of the memory, and a checkpoint to
    /// write.
    pub(crate) fn weight(&self) -> usize {
        let items = self.rows.inline_items() / ITEMS_OF_A_ROW;
        self.rows.len().saturating_add(self.recipients.len()).saturating_add(items)
    }

    pub(crate) fn count(&mut self, segment: u32, change: Change) {
        let sum = self.segments.entry(segment).or_default();
        *sum = sum.plus(change);
    }

    /// Takes over what a newer memtable says. `below` are the numbers that were given away when
    /// this one began: what has a later one is not in any older memtable and needs no tombstone.
    pub(crate) fn absorb(&mut self, newer: Self, below: Counters) {
        // They may have been raised since it began.
        self.numbers = self.numbers.max(newer.numbers);
        self.recipients.extend(newer.recipients);
        self.rows.absorb(newer.rows, below);
        for (segment, change) in newer.segments {
            self.count(segment, change);
        }
    }

    /// Makes of the memtable of a batch, however large, one that lies on older ones, where `below`
    /// had been given away: as [`Memtable::absorb`] does to an empty one.
    pub(crate) fn settle(&mut self, below: Counters) {
        self.rows.settle(below);
    }

    /// Takes over what a memtable says that began on the same one, and has changed other queues.
    pub(crate) fn join(&mut self, other: Self) {
        self.numbers = self.numbers.max(other.numbers);
        for (name, queue) in other.recipients {
            // A recipient whose queue was forgotten may have got another since. (After damage one
            // that should have been forgotten may be found again, and what is in it.)
            let known = self.recipients.entry(name).or_default();
            *known = (*known).max(queue);
        }
        self.rows.join(other.rows);
        for (segment, change) in other.segments {
            self.count(segment, change);
        }
    }
}
