//! The rows of a memtable. Rows of queues, which nearly every change touches, lie in a hash map by
//! number, due rows in a map by time, and all others in a map by key.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, btree_map};
use std::ops::Bound;
use std::sync::Arc;
use std::vec;

use foldhash::fast::RandomState;
use relay_core::{ItemId, Seq, Timestamp};
use smallvec::SmallVec;

use crate::format::packed_items::PackedItems;
use crate::format::{self, Counters, Key, QueueRow, Section};

/// The encoded value of a row. Counters, which most values are, need no allocation.
type RowBytes = SmallVec<[u8; 16]>;

/// The rows of a memtable, and its tombstones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// Rows of queues change so often that only a checkpoint encodes and sorts them. The store
    /// assigns the numbers, so nobody can choose them to collide.
    queues: HashMap<u64, Option<Arc<QueueRow>>, RandomState>,
    /// False is a tombstone.
    due: BTreeMap<(Timestamp, u64), bool>,
    others: BTreeMap<Key, Option<RowBytes>>,
    /// The number of items in the rows of queues.
    pub(super) inline_items: usize,
}

/// The location of a row, and its content there: `None` for no entry, else a value or a tombstone.
#[derive(Debug)]
pub(crate) enum RowChange {
    Queue(u64, Option<Option<Arc<QueueRow>>>),
    Due(Timestamp, u64, Option<bool>),
    Other(Key, Option<Option<RowBytes>>),
}

/// The value of a row of a memtable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemtableValue<'a> {
    /// The encoded value.
    Bytes(&'a [u8]),
    Queue(&'a Arc<QueueRow>),
}

/// The value of a row, or `None` for a tombstone.
pub(crate) type RowEntry<'a> = Option<MemtableValue<'a>>;

/// The rows in a range of keys, from either end.
pub(crate) enum Range<'a> {
    Due(btree_map::Range<'a, (Timestamp, u64), bool>),
    Others(btree_map::Range<'a, Key, Option<RowBytes>>),
    /// Rows of several kinds.
    Mixed(vec::IntoIter<(Key, RowEntry<'a>)>),
}

impl Rows {
    /// Has capacity for as many rows of queues as `other` has, because growing later takes time.
    pub(super) fn with_capacity_of(other: &Self) -> Self {
        let queues = HashMap::with_capacity_and_hasher(other.queues.len(), RandomState::default());
        Self { queues, ..Self::default() }
    }

    /// The number of rows, including tombstones.
    pub(super) fn len(&self) -> usize {
        self.queues.len() + self.due.len() + self.others.len()
    }

    /// The entry of a row, if there is one.
    pub(crate) fn get(&self, key: &Key) -> Option<RowEntry<'_>> {
        match key.section() {
            Section::Queue(queue) => Some(queue_entry(self.queues.get(&queue)?)),
            Section::Due(at, queue) => self.due.get(&(at, queue)).copied().map(due_entry),
            Section::Other => self.others.get(key).map(other_entry),
        }
    }

    /// The row of a queue, or its tombstone.
    pub(crate) fn queue(&self, queue: u64) -> Option<Option<&Arc<QueueRow>>> {
        self.queues.get(&queue).map(Option::as_ref)
    }

    /// The arrival number of the item with this id.
    pub(crate) fn seq_of_id(&self, queue: u64, id: ItemId) -> Option<Seq> {
        format::decode_seq(self.others.get(&Key::by_id(queue, id))?.as_deref()?).ok()
    }

    /// Copies a row that is neither a row of a queue nor a due row.
    pub(crate) fn copy(&self, key: &Key, to: &mut Self) {
        if let Some(row) = self.others.get(key) {
            to.others.insert(*key, row.clone());
        }
    }

    /// Copies the rows of items from `from` to before `end`, at most `max`. Returns the key of the
    /// first row that it did not copy, if any.
    pub(crate) fn copy_range(&self, from: &Key, end: &Key, max: usize, to: &mut Self) -> Option<Key> {
        let mut rows = self.items(from, end);
        let copied = rows.by_ref().take(max).map(|(key, row)| (*key, row.clone()));
        if to.others.is_empty() {
            // Building the map at once takes a third of the time.
            to.others = copied.collect();
        } else {
            to.others.extend(copied);
        }
        rows.next().map(|(key, _)| *key)
    }

    /// The arrival number of the first item with an entry from `from` to before `end`.
    pub(crate) fn first_item(&self, from: &Key, end: &Key) -> Option<Seq> {
        self.items(from, end).next()?.0.seq()
    }

    /// Whether there are more than `max` rows of items from `from` to before `end`.
    pub(crate) fn has_more_than(&self, max: usize, from: &Key, end: &Key) -> bool {
        self.items(from, end).nth(max).is_some()
    }

    fn items(&self, from: &Key, end: &Key) -> btree_map::Range<'_, Key, Option<RowBytes>> {
        self.others.range(from..end.max(from))
    }

    /// Makes a change, and returns the change that reverts it.
    pub(crate) fn swap(&mut self, change: RowChange) -> RowChange {
        match change {
            RowChange::Queue(queue, row) => {
                self.inline_items += inline_items(row.as_ref());
                let previous = match row {
                    Some(row) => self.queues.insert(queue, row),
                    None => self.queues.remove(&queue),
                };
                self.inline_items -= inline_items(previous.as_ref());
                RowChange::Queue(queue, previous)
            }
            RowChange::Due(at, queue, is_due) => {
                RowChange::Due(at, queue, replace(&mut self.due, (at, queue), is_due))
            }
            RowChange::Other(key, row) => RowChange::Other(key, replace(&mut self.others, key, row)),
        }
    }

    /// The rows from `from` to before `to`, in order. Looks at all rows if the range contains rows
    /// of queues, or of several kinds.
    pub(crate) fn range(&self, from: &Key, to: &Key) -> Range<'_> {
        if from >= to {
            Range::Mixed(Vec::new().into_iter())
        } else if *from >= Key::due_start() && *to <= Key::acked_start() {
            let end =
                if *to == Key::acked_start() { Bound::Unbounded } else { Bound::Excluded(to.due_parts()) };
            Range::Due(self.due.range((Bound::Included(from.due_parts()), end)))
        } else if *to <= Key::queues_start()
            || *from >= Key::queues_end() && *to <= Key::due_start()
            || *from >= Key::acked_start()
        {
            Range::Others(self.others.range(*from..*to))
        } else {
            let rows: Vec<_> = self.in_order().filter(|(key, _)| (*from..*to).contains(key)).collect();
            Range::Mixed(rows.into_iter())
        }
    }

    /// All rows, by key.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (Key, RowEntry<'_>)> {
        let mut queues: Vec<_> = self.queues.iter().collect();
        queues.sort_unstable_by_key(|(queue, _)| **queue);
        let queues = queues.into_iter().map(|(queue, row)| (Key::queue(*queue), queue_entry(row)));
        let others = |from, to| self.others.range(from..to).map(other_row);
        others(Key::start(), Key::queues_start())
            .chain(queues)
            .chain(others(Key::queues_end(), Key::due_start()))
            .chain(self.due.iter().map(due_row))
            .chain(others(Key::acked_start(), Key::end()))
    }

    /// Merges newer rows into these: see [`Memtable::absorb`](super::Memtable::absorb).
    pub(super) fn absorb(&mut self, newer: Self, below: Counters) {
        for (queue, row) in newer.queues {
            let is_needed = row.is_some() || queue <= below.queue;
            self.swap(RowChange::Queue(queue, is_needed.then_some(row)));
        }
        for ((at, queue), is_due) in newer.due {
            let is_needed = is_due || queue <= below.queue;
            self.swap(RowChange::Due(at, queue, is_needed.then_some(is_due)));
        }
        for (key, row) in newer.others {
            let is_needed = row.is_some() || !is_newer(&key, below);
            self.swap(RowChange::Other(key, is_needed.then_some(row)));
        }
    }

    /// Removes the tombstones that are not needed on top of memtables that had assigned `below`.
    pub(crate) fn prune_tombstones(&mut self, below: Counters) {
        self.queues.retain(|queue, row| row.is_some() || *queue <= below.queue);
        self.due.retain(|(_, queue), is_due| *is_due || *queue <= below.queue);
        self.others.retain(|key, row| row.is_some() || !is_newer(key, below));
    }

    /// Adds rows of other queues.
    pub(super) fn merge_disjoint(&mut self, mut other: Self) {
        self.queues.extend(other.queues);
        self.due.append(&mut other.due);
        self.others.append(&mut other.others);
        self.inline_items += other.inline_items;
    }
}

impl<'a> MemtableValue<'a> {
    /// The encoded value.
    pub(crate) fn bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Queue(row) => Cow::Owned(row.encode()),
        }
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (Key, RowEntry<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Due(range) => range.next().map(due_row),
            Self::Others(range) => range.next().map(other_row),
            Self::Mixed(rows) => rows.next(),
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Due(range) => range.next_back().map(due_row),
            Self::Others(range) => range.next_back().map(other_row),
            Self::Mixed(rows) => rows.next_back(),
        }
    }
}

fn due_row<'a>((&(at, queue), &is_due): (&(Timestamp, u64), &bool)) -> (Key, RowEntry<'a>) {
    (Key::due(at, queue), due_entry(is_due))
}

fn other_row<'a>((key, row): (&Key, &'a Option<RowBytes>)) -> (Key, RowEntry<'a>) {
    (*key, other_entry(row))
}

fn queue_entry(row: &Option<Arc<QueueRow>>) -> RowEntry<'_> {
    row.as_ref().map(MemtableValue::Queue)
}

fn due_entry<'a>(is_due: bool) -> RowEntry<'a> {
    is_due.then_some(MemtableValue::Bytes(&[]))
}

fn other_entry(row: &Option<RowBytes>) -> RowEntry<'_> {
    row.as_deref().map(MemtableValue::Bytes)
}

/// Inserts or, without a value, removes an entry, and returns the previous value.
fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

fn inline_items(row: Option<&Option<Arc<QueueRow>>>) -> usize {
    row.and_then(Option::as_ref).and_then(|row| row.inline()).map_or(0, PackedItems::len)
}

fn is_newer(key: &Key, below: Counters) -> bool {
    key.queue_number() > below.queue || key.seq().is_some_and(|seq| seq > below.seq)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq};
    use proptest::{collection, option, proptest};

    use super::*;
    use crate::format::ItemRow;

    /// A queue, and no entry, a tombstone, or a row with so many items.
    type Put = (u64, Option<Option<u64>>);

    fn change((queue, items): Put) -> RowChange {
        let item = |seq| ItemRow { seq: Seq::new(seq), ..crate::samples::item_row() };
        let row = |items| Arc::new(QueueRow::holding((1..=items).map(item).collect()));
        RowChange::Queue(queue, items.map(|items| items.map(row)))
    }

    /// The rows after these changes, some of which are reverted.
    fn rows(puts: Vec<(Put, bool)>) -> Rows {
        let mut rows = Rows::default();
        for (put, is_reverted) in puts {
            let previous = rows.swap(change(put));
            if is_reverted {
                rows.swap(previous);
            }
        }
        rows
    }

    fn count_items(rows: &Rows) -> usize {
        let items = rows.in_order().map(|(_, row)| match row {
            Some(MemtableValue::Queue(row)) => row.inline().map_or(0, PackedItems::len),
            _ => 0,
        });
        items.sum()
    }

    proptest! {
        #![proptest_config(crate::samples::config())]

        #[test]
        fn inline_items_counts_the_items_in_rows(
            ours in collection::vec(((0..4_u64, option::of(option::of(0..4_u64))), any::<bool>()), 0..12),
            newer in collection::vec(((0..4_u64, option::of(option::of(0..4_u64))), any::<bool>()), 0..12),
            others in collection::vec(((4..8_u64, option::of(option::of(0..4_u64))), any::<bool>()), 0..12),
            below in 0..5_u64,
        ) {
            let below = Counters { queue: below, ..Counters::default() };
            let (mut ours, newer, mut others) = (rows(ours), rows(newer), rows(others));
            prop_assert_eq!(ours.inline_items, count_items(&ours));
            ours.absorb(newer, below);
            prop_assert_eq!(ours.inline_items, count_items(&ours));
            others.prune_tombstones(below);
            ours.merge_disjoint(others);
            prop_assert_eq!(ours.inline_items, count_items(&ours));
        }
    }
}
