//! The rows of a memtable: those of queues, which nearly every change is about, by number; what is
//! due by time; all others by key.

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

/// The value of a row as it is stored. Counters, which most values are, take no memory of their own.
pub(crate) type Bytes = SmallVec<[u8; 16]>;

/// The rows of a memtable, and tombstones of those that are gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// Rows of queues change so often that they are encoded for a checkpoint only. Nothing that is
    /// in a hurry goes through them in order. The numbers are the store's own, so that nobody can
    /// choose them to collide.
    queues: HashMap<u64, Option<Arc<QueueRow>>, RandomState>,
    /// What is due when, or was.
    due: BTreeMap<(Timestamp, u64), bool>,
    others: BTreeMap<Key, Option<Bytes>>,
    /// How many items lie in the rows of queues.
    inline_items: usize,
}

/// A place for a row, and what lies there: nothing, a tombstone, or a value.
#[derive(Debug)]
pub(crate) enum RowChange {
    Queue(u64, Option<Option<Arc<QueueRow>>>),
    Due(Timestamp, u64, Option<bool>),
    Other(Key, Option<Option<Bytes>>),
}

/// The value of a row of a memtable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fresh<'a> {
    /// As it is stored.
    Bytes(&'a [u8]),
    Queue(&'a Arc<QueueRow>),
}

/// A row or a tombstone.
pub(crate) type Found<'a> = Option<Fresh<'a>>;

/// Rows from one key on and before another, from either end.
pub(crate) enum Range<'a> {
    Due(btree_map::Range<'a, (Timestamp, u64), bool>),
    Others(btree_map::Range<'a, Key, Option<Bytes>>),
    /// Of several kinds.
    Mixed(vec::IntoIter<(Key, Found<'a>)>),
}

impl Rows {
    /// With room for as many as `other` has, where it takes time to make some later.
    pub(crate) fn with_room_of(other: &Self) -> Self {
        let queues = HashMap::with_capacity_and_hasher(other.queues.len(), RandomState::default());
        Self { queues, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are, tombstones included.
    pub(crate) fn len(&self) -> usize {
        self.queues.len() + self.due.len() + self.others.len()
    }

    /// How many items lie in the rows of queues.
    pub(crate) const fn inline_items(&self) -> usize {
        self.inline_items
    }

    /// What there is of a row.
    pub(crate) fn get(&self, key: &Key) -> Option<Found<'_>> {
        match key.section() {
            Section::Queue(queue) => self.queues.get(&queue).map(|row| row.as_ref().map(Fresh::Queue)),
            Section::Due(at, queue) => self.due.get(&(at, queue)).copied().map(due),
            Section::Other => self.others.get(key).map(other),
        }
    }

    /// The row of a queue, or its tombstone.
    pub(crate) fn queue(&self, queue: u64) -> Option<Option<&Arc<QueueRow>>> {
        self.queues.get(&queue).map(Option::as_ref)
    }

    /// The arrival number that the name of an item leads to.
    pub(crate) fn traced(&self, queue: u64, id: ItemId) -> Option<Seq> {
        format::decode_seq(self.others.get(&Key::by_id(queue, id))?.as_deref()?).ok()
    }

    /// Copies a row that is none of a queue's own.
    pub(crate) fn copy(&self, key: &Key, to: &mut Self) {
        if let Some(row) = self.others.get(key) {
            to.others.insert(*key, row.clone());
        }
    }

    /// Copies the rows of items from `from` on and before `end`, at most so many. Where there are
    /// more, tells which one was not copied any more.
    pub(crate) fn copy_range(&self, from: &Key, end: &Key, max: usize, to: &mut Self) -> Option<Key> {
        if from >= end {
            return None;
        }
        let mut rows = self.others.range(*from..*end);
        let copied = rows.by_ref().take(max).map(|(key, row)| (*key, row.clone()));
        if to.others.is_empty() {
            // Made at once, it takes a third of the time.
            to.others = copied.collect();
        } else {
            to.others.extend(copied);
        }
        rows.next().map(|(key, _)| *key)
    }

    /// The arrival number of the first of the items from `from` on and before `end` that it says
    /// anything of.
    pub(crate) fn first_item(&self, from: &Key, end: &Key) -> Option<Seq> {
        if from >= end {
            return None;
        }
        self.others.range(*from..*end).next()?.0.item_seq()
    }

    /// Whether there are more than so many rows of items from `from` on and before `end`.
    pub(crate) fn has_more_than(&self, max: usize, from: &Key, end: &Key) -> bool {
        self.others.range(*from..*end).nth(max).is_some()
    }

    /// Puts there what the slot holds, and returns it with what lay there before.
    pub(crate) fn swap(&mut self, slot: RowChange) -> RowChange {
        match slot {
            RowChange::Queue(queue, row) => {
                self.inline_items += inline_items(row.as_ref());
                let before = match row {
                    Some(row) => self.queues.insert(queue, row),
                    None => self.queues.remove(&queue),
                };
                self.inline_items -= inline_items(before.as_ref());
                RowChange::Queue(queue, before)
            }
            RowChange::Due(at, queue, is_due) => {
                let before = match is_due {
                    Some(is_due) => self.due.insert((at, queue), is_due),
                    None => self.due.remove(&(at, queue)),
                };
                RowChange::Due(at, queue, before)
            }
            RowChange::Other(key, row) => {
                let before = match row {
                    Some(row) => self.others.insert(key, row),
                    None => self.others.remove(&key),
                };
                RowChange::Other(key, before)
            }
        }
    }

    /// The rows from `from` on and before `to`, in order. It takes a look at all there are if they
    /// are of several kinds, or rows of queues.
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

    /// All of them, by key.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (Key, Found<'_>)> {
        let mut queues: Vec<_> = self.queues.iter().collect();
        queues.sort_unstable_by_key(|(queue, _)| **queue);
        let queues =
            queues.into_iter().map(|(queue, row)| (Key::queue(*queue), row.as_ref().map(Fresh::Queue)));
        let due_rows = self.due.iter().map(|((at, queue), is_due)| (Key::due(*at, *queue), due(*is_due)));
        let others = |from, to| self.others.range(from..to).map(|(key, row)| (*key, other(row)));
        others(Key::start(), Key::queues_start())
            .chain(queues)
            .chain(others(Key::queues_end(), Key::due_start()))
            .chain(due_rows)
            .chain(others(Key::acked_start(), Key::end()))
    }

    /// Takes over newer rows. Where `below` had been given away when this memtable began, what has
    /// a later number is not in any older memtable and needs no tombstone.
    pub(crate) fn absorb(&mut self, newer: Self, below: Counters) {
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

    /// Takes tombstones away that are not needed: see [`Rows::absorb`].
    pub(crate) fn settle(&mut self, below: Counters) {
        self.queues.retain(|queue, row| row.is_some() || *queue <= below.queue);
        self.due.retain(|(_, queue), is_due| *is_due || *queue <= below.queue);
        self.others.retain(|key, row| row.is_some() || !is_newer(key, below));
    }

    /// Takes over rows of other queues.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.queues.extend(other.queues);
        self.due.append(&mut other.due);
        self.others.append(&mut other.others);
        self.inline_items += other.inline_items;
    }
}

impl<'a> Fresh<'a> {
    /// As it is stored.
    pub(crate) fn bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Queue(row) => Cow::Owned(row.encode()),
        }
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (Key, Found<'a>);

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

fn due_row<'a>((&(at, queue), &is_due): (&(Timestamp, u64), &bool)) -> (Key, Found<'a>) {
    (Key::due(at, queue), due(is_due))
}

fn other_row<'a>((key, row): (&Key, &'a Option<Bytes>)) -> (Key, Found<'a>) {
    (*key, other(row))
}

fn due<'a>(is_due: bool) -> Found<'a> {
    is_due.then_some(Fresh::Bytes(&[]))
}

fn other(row: &Option<Bytes>) -> Found<'_> {
    row.as_deref().map(Fresh::Bytes)
}

fn inline_items(row: Option<&Option<Arc<QueueRow>>>) -> usize {
    row.and_then(Option::as_ref).and_then(|row| row.inline()).map_or(0, PackedItems::len)
}

fn is_newer(key: &Key, below: Counters) -> bool {
    key.about() > below.queue || key.item_seq().is_some_and(|seq| seq > below.seq)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq};
    use proptest::{collection, option, proptest};

    use super::*;
    use crate::format::ItemRow;

    /// A queue, and how many items lie in its row: nothing, a tombstone, or a row.
    type Put = (u64, Option<Option<u64>>);

    fn slot((queue, items): Put) -> RowChange {
        let item = |seq| ItemRow { seq: Seq::new(seq), ..crate::samples::item_row() };
        let row = |items| Arc::new(QueueRow::holding((1..=items).map(item).collect()));
        RowChange::Queue(queue, items.map(|items| items.map(row)))
    }

    /// The rows that were put, but for those that were taken back.
    fn rows(puts: Vec<(Put, bool)>) -> Rows {
        let mut rows = Rows::default();
        for (put, is_taken_back) in puts {
            let before = rows.swap(slot(put));
            if is_taken_back {
                rows.swap(before);
            }
        }
        rows
    }

    fn recounted(rows: &Rows) -> usize {
        let items = rows.in_order().map(|(_, row)| match row {
            Some(Fresh::Queue(row)) => row.inline().map_or(0, PackedItems::len),
            _ => 0,
        });
        items.sum()
    }

    proptest! {
        #![proptest_config(crate::samples::config())]

        #[test]
        fn the_items_in_rows_are_counted(
            ours in collection::vec(((0..4_u64, option::of(option::of(0..4_u64))), any::<bool>()), 0..12),
            newer in collection::vec(((0..4_u64, option::of(option::of(0..4_u64))), any::<bool>()), 0..12),
            others in collection::vec(((4..8_u64, option::of(option::of(0..4_u64))), any::<bool>()), 0..12),
            below in 0..5_u64,
        ) {
            let below = Counters { queue: below, ..Counters::default() };
            let (mut ours, newer, mut others) = (rows(ours), rows(newer), rows(others));
            prop_assert_eq!(ours.inline_items(), recounted(&ours));
            ours.absorb(newer, below);
            prop_assert_eq!(ours.inline_items(), recounted(&ours));
            others.settle(below);
            ours.join(others);
            prop_assert_eq!(ours.inline_items(), recounted(&ours));
        }
    }
}
