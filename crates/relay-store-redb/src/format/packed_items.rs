//! The items of an inline queue, packed as in its row. Unpacked they would take twice the memory,
//! and every change of a queue copies all of them.

use memchr::memmem;
use relay_core::{ItemId, Seq, Timestamp};

use crate::error::StoreError;
use crate::format::fields::{Fields, put_numbers};
use crate::format::{End, Ends, ItemRow};

/// The spare capacity of a copy. One more item fits, unless it has a blob.
const SPARE_BYTES: usize = 48;

/// Items in the order of their seqs. Each seq and bound is stored as the difference to the item
/// before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedItems {
    bytes: Vec<u8>,
    len: usize,
    last: Option<End>,
}

impl PackedItems {
    /// Decodes the rest of a row.
    pub(crate) fn decode(row: &mut Fields<'_>) -> Result<Self, StoreError> {
        let bytes = row.rest();
        let mut items = Iter { rest: Fields::new(bytes, "queue"), previous: None };
        let (mut len, mut last) = (0, None::<End>);
        while let Some(item) = items.step()? {
            if last.is_some_and(|last| item.seq <= last.seq) {
                return Err(StoreError::Corrupted("queue: order"));
            }
            (len, last) = (len + 1, Some(item.as_end()));
        }
        Ok(Self { bytes: bytes.to_vec(), len, last })
    }

    /// The items as they are stored in the row.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter { rest: Fields::new(&self.bytes, "queue"), previous: None }
    }

    /// The first and the last item.
    pub(crate) fn ends(&self) -> Option<Ends> {
        let first = self.iter().next()?.as_end();
        self.last.map(|last| Ends { first, last })
    }

    /// The item with this seq.
    pub(crate) fn get(&self, seq: Seq) -> Option<ItemRow> {
        self.iter().find(|item| item.seq == seq)
    }

    /// The item with this id. Most lookups are for new items, whose message id appears nowhere in
    /// the bytes.
    pub(crate) fn find(&self, id: ItemId) -> Option<ItemRow> {
        memmem::find(&self.bytes, id.message_id.as_bytes())?;
        self.iter().find(|item| item.id == id)
    }

    /// Appends an item, whose bound is no earlier than that of the last item.
    pub(crate) fn push(&mut self, item: &ItemRow) {
        let (seq, bound) = self.last.map_or((0, 0), |last| (last.seq.as_u64(), last.bound.as_ms()));
        let seq_step = item.seq.as_u64().saturating_sub(seq);
        let bound_step = item.bound().as_ms().saturating_sub(bound);
        put_numbers(&mut self.bytes, [seq_step, bound_step]);
        item.encode_rest(&mut self.bytes);
        self.len += 1;
        let bound = Timestamp::from_ms(bound.saturating_add(bound_step));
        self.last = Some(End { seq: Seq::new(seq.saturating_add(seq_step)), bound });
    }

    /// The earliest deadline of an item that expires before one in front of it.
    pub(crate) fn early_from(&self) -> Option<Timestamp> {
        self.iter().filter(ItemRow::is_early).map(|item| item.deadline).min()
    }

    /// The item with this seq, and a copy without it. Only the following item is encoded again: the
    /// other differences stay the same.
    pub(crate) fn without(&self, seq: Seq) -> Option<(ItemRow, Self)> {
        let (mut items, mut previous, mut offset) = (self.iter(), None, 0);
        while let Some(item) = items.next() {
            if item.seq == seq {
                return Some((item, self.join(offset, previous, items)));
            }
            (previous, offset) = (Some(item.as_end()), items.offset(&self.bytes));
        }
        None
    }

    /// Joins the first `front_bytes`, which end with the item `last`, and the remaining `items`.
    fn join(&self, front_bytes: usize, last: Option<End>, mut items: Iter<'_>) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + SPARE_BYTES);
        bytes.extend_from_slice(self.bytes.get(..front_bytes).unwrap_or_default());
        let mut joined = Self { bytes, len: 0, last };
        if let Some(next) = items.next() {
            joined.push(&next);
            let rest = self.bytes.get(items.offset(&self.bytes)..).unwrap_or_default();
            joined.bytes.extend_from_slice(rest);
            joined.last = self.last;
        }
        joined.len = self.len.saturating_sub(1);
        joined
    }
}

impl Clone for PackedItems {
    /// A clone is usually made to add one item, so it has spare capacity.
    fn clone(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + SPARE_BYTES);
        bytes.extend_from_slice(&self.bytes);
        Self { bytes, len: self.len, last: self.last }
    }
}

impl FromIterator<ItemRow> for PackedItems {
    fn from_iter<T: IntoIterator<Item = ItemRow>>(items: T) -> Self {
        let mut packed = Self::default();
        items.into_iter().for_each(|item| packed.push(&item));
        packed
    }
}

/// The items, in order.
pub(crate) struct Iter<'a> {
    rest: Fields<'a>,
    previous: Option<End>,
}

impl Iter<'_> {
    /// Its offset in `bytes`, which it began with.
    const fn offset(&self, bytes: &[u8]) -> usize {
        bytes.len().saturating_sub(self.rest.rest_bytes())
    }

    fn step(&mut self) -> Result<Option<ItemRow>, StoreError> {
        if self.rest.rest_bytes() == 0 {
            return Ok(None);
        }
        let (seq, bound) = self.previous.map_or((0, 0), |end| (end.seq.as_u64(), end.bound.as_ms()));
        let (seq, bound) = (seq.checked_add(self.rest.number()?), bound.checked_add(self.rest.number()?));
        let (Some(seq), Some(bound)) = (seq, bound) else {
            return Err(StoreError::Corrupted("queue: order"));
        };
        let (seq, bound) = (Seq::new(seq), Timestamp::from_ms(bound));
        let item = ItemRow::decode_rest(&mut self.rest, seq, bound, 0)?;
        self.previous = Some(item.as_end());
        Ok(Some(item))
    }
}

impl Iterator for Iter<'_> {
    type Item = ItemRow;

    /// Cannot fail: the bytes were packed or checked by `decode`.
    fn next(&mut self) -> Option<ItemRow> {
        self.step().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq};
    use proptest::sample::Index;
    use proptest::{collection, proptest};
    use relay_core::MessageId;
    use relay_journal::Location;

    use super::*;

    /// Parts of an item: seq gap, message id, chunk, and whether it has a blob. Small numbers, so
    /// that ids collide.
    type SampleItem = (u8, u8, u8, bool);

    /// Its deadline may be before the bound of the previous item.
    fn item(number: usize, (gap, message, chunk, is_blob): SampleItem, previous: Option<End>) -> ItemRow {
        let (seq, deadline) = previous.map_or((0, 5), |end| (end.seq.as_u64(), end.bound.as_ms()));
        let segment = if is_blob { 1 << 31 | 7 } else { 300 };
        let location = Location { segment, offset: 4096, length: 333 };
        let id =
            ItemId { message_id: MessageId::from_bytes([message % 8; 16]), chunk_index: (chunk % 3).into() };
        let (seq, deadline) = (seq + 1 + u64::from(gap), (deadline + u64::from(gap % 4)).saturating_sub(1));
        let payload_bytes = number as u64;
        let sample = ItemRow::new(&crate::samples::item(), location);
        ItemRow { seq: Seq::new(seq), id, deadline: Timestamp::from_ms(deadline), payload_bytes, ..sample }
    }

    proptest! {
        #![proptest_config(crate::samples::config())]

        #[test]
        fn packed_items_equal_a_list(samples in collection::vec(any::<SampleItem>(), 0..12), removals in collection::vec(any::<Index>(), 12)) {
            let (mut packed, mut list) = (PackedItems::default(), Vec::<ItemRow>::new());
            for (number, sample) in samples.into_iter().enumerate() {
                let previous = list.last().map(ItemRow::as_end);
                let item = item(number, sample, previous).behind(previous.map(|previous| previous.bound));
                packed = packed.clone();
                packed.push(&item);
                list.push(item);
            }
            for removal in removals {
                prop_assert_eq!(packed.iter().collect::<Vec<_>>(), &list[..]);
                prop_assert_eq!((packed.len(), packed.ends()), (list.len(), Ends::of(&list)));
                let early = list.iter().filter(|item| item.bound() > item.deadline);
                prop_assert_eq!(packed.early_from(), early.map(|item| item.deadline).min());
                for message in 0..9 {
                    for chunk_index in 0..3 {
                        let id = ItemId { message_id: MessageId::from_bytes([message; 16]), chunk_index };
                        prop_assert_eq!(packed.find(id), list.iter().find(|item| item.id == id).cloned());
                    }
                }
                for item in &list {
                    prop_assert_eq!(packed.get(item.seq), Some(item.clone()));
                    prop_assert_eq!(packed.get(item.seq.next()), list.iter().find(|other| other.seq == item.seq.next()).cloned());
                }
                prop_assert_eq!(&PackedItems::decode(&mut Fields::new(packed.bytes(), "queue")).unwrap(), &packed);
                prop_assert_eq!(packed.iter().collect::<PackedItems>(), packed.clone());
                if !list.is_empty() {
                    let removed = list.remove(removal.index(list.len()));
                    let (taken, left) = packed.without(removed.seq).unwrap();
                    prop_assert_eq!((taken, left.without(removed.seq)), (removed, None));
                    packed = left;
                }
            }
        }
    }
}
