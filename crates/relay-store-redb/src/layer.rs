//! What is newer than the index on disk, in memory: rows, names, and what that does to the segments of the journal.
//!
//! Layers lie on top of each other, and the newer one wins: a batch that is being decided, on the batches since the last
//! checkpoint began, on those that it is writing, on the index. A row that is gone leaves a gravestone, so that older layers do not
//! show it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use relay_core::{Recipient, Seq};
use relay_journal::Location;
use smallvec::SmallVec;

use crate::schema::{Key, ParsedKey, QueueRow};

/// Rows that are newer than those below. `None` is a gravestone.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) names: HashMap<Recipient, Option<u64>>,
    pub(crate) rows: BTreeMap<Key, Option<Row>>,
    pub(crate) segments: BTreeMap<u32, Change>,
    pub(crate) numbers: Numbers,
    /// How many items lie in the rows of queues, of those that were published.
    items_here: usize,
}

/// The value of a row, in memory.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    /// As it is stored. Numbers, which most values are, take no memory of their own.
    Bytes(SmallVec<[u8; 16]>),
    /// That of a queue, which changes so often that it is encoded for a checkpoint only.
    Queue(Arc<QueueRow>),
}

/// So many items in the rows of queues count as a row. They take more memory than one, but a checkpoint that begins earlier for them writes
/// the same queues again.
const ITEMS_OF_A_ROW: usize = 4;

/// The last numbers given away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) seq: Seq,
    pub(crate) queue: u64,
}

/// What came to and went from the live frames of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) items: i64,
    pub(crate) bytes: i64,
}

impl Layer {
    /// An empty layer on top of one that has given away `numbers`.
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self { numbers, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.names.is_empty()
    }

    /// How much it holds, in rows without items: what it takes of the memory, and a checkpoint to write.
    pub(crate) fn weight(&self) -> usize {
        self.rows.len().saturating_add(self.names.len()).saturating_add(self.items_here / ITEMS_OF_A_ROW)
    }

    pub(crate) fn count(&mut self, segment: u32, change: Change) {
        let sum = self.segments.entry(segment).or_default();
        *sum = sum.plus(change);
    }

    /// Takes over what a newer layer says. `below` are the numbers that were given away when this one began: what has a later one is not
    /// in any older layer and needs no gravestone.
    pub(crate) fn absorb(&mut self, newer: Self, below: Numbers) {
        self.numbers = newer.numbers;
        self.names.extend(newer.names);
        for (key, value) in newer.rows {
            self.items_here += items_here(&value);
            let before = if value.is_none() && is_newer(&key, below) {
                self.rows.remove(&key)
            } else {
                self.rows.insert(key, value)
            };
            self.items_here -= before.as_ref().map_or(0, items_here);
        }
        for (segment, change) in newer.segments {
            self.count(segment, change);
        }
    }

    /// Makes of the layer of a batch, however large, one that lies on older ones, where `below` had been given away: as
    /// [`Layer::absorb`] does to an empty one.
    pub(crate) fn settle(&mut self, below: Numbers) {
        self.rows.retain(|key, value| value.is_some() || !is_newer(key, below));
        self.items_here = self.rows.values().map(items_here).sum();
    }

    /// Takes over what a layer says that began on the same one, and has changed other queues.
    pub(crate) fn join(&mut self, mut other: Self) {
        let (ours, theirs) = (self.numbers, other.numbers);
        self.numbers = Numbers { seq: ours.seq.max(theirs.seq), queue: ours.queue.max(theirs.queue) };
        for (name, queue) in other.names {
            // A recipient whose queue was forgotten may have got another since. (After damage one that should have been forgotten may be
            // found again, and what is in it.)
            let known = self.names.entry(name).or_default();
            *known = (*known).max(queue);
        }
        self.rows.append(&mut other.rows);
        self.items_here += other.items_here;
        for (segment, change) in other.segments {
            self.count(segment, change);
        }
    }
}

fn items_here(value: &Option<Row>) -> usize {
    match value {
        Some(Row::Queue(row)) => row.here().map_or(0, <[_]>::len),
        _ => 0,
    }
}

fn is_newer(key: &Key, below: Numbers) -> bool {
    key.about() > below.queue || matches!(key.parse(), Ok(ParsedKey::Item(_, seq)) if seq > below.seq)
}

impl Row {
    /// As it is stored.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Queue(row) => Cow::Owned(row.encode()),
        }
    }
}

impl Change {
    /// One more live frame.
    pub(crate) fn added(location: Location) -> Self {
        Self { items: 1, bytes: i64::from(location.length) }
    }

    /// One live frame less.
    pub(crate) fn removed(location: Location) -> Self {
        Self::added(location).negated()
    }

    pub(crate) fn negated(self) -> Self {
        Self { items: -self.items, bytes: -self.bytes }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }
}
