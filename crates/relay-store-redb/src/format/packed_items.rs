//! The items of a queue of few, packed as its row holds them: half of the memory that they take as
//! what they mean, and what changes a queue copies all of them.

use memchr::memmem;
use relay_core::{ItemId, Seq, Timestamp};

use crate::error::StoreError;
use crate::format::fields::{Fields, put_number};
use crate::format::{End, Ends, ItemRow};

/// So much room a copy has beside what it copies: an item takes less, unless it lies aside.
const ITEM_BYTES: usize = 48;

/// Items in the order of their numbers. Counters and deadlines are told as how much larger they are
/// than those before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedItems {
    bytes: Vec<u8>,
    len: usize,
    last: Option<End>,
}

impl PackedItems {
    /// Reads the rest of a row.
    pub(crate) fn decode(row: &mut Fields<'_>) -> Result<Self, StoreError> {
        let bytes = row.slice(row.rest_bytes() as u64)?;
        let mut items = Iter { rest: Fields::new(bytes, "queue"), before: None };
        let (mut len, mut last) = (0, None::<End>);
        while let Some(item) = items.step()? {
            if last.is_some_and(|last| item.seq <= last.seq) {
                return Err(StoreError::Corrupted("queue: order"));
            }
            (len, last) = (len + 1, Some(item.as_end()));
        }
        Ok(Self { bytes: bytes.to_vec(), len, last })
    }

    /// As it lies in the row.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter { rest: Fields::new(&self.bytes, "queue"), before: None }
    }

    /// The first and the last one.
    pub(crate) fn ends(&self) -> Option<Ends> {
        let first = self.iter().next()?.as_end();
        self.last.map(|last| Ends { first, last })
    }

    /// The item with this number.
    pub(crate) fn get(&self, seq: Seq) -> Option<ItemRow> {
        self.iter().find(|item| item.seq == seq)
    }

    /// The item of this name. Most names that are looked for are new, and found nowhere in the
    /// bytes.
    pub(crate) fn find(&self, id: ItemId) -> Option<ItemRow> {
        memmem::find(&self.bytes, id.message_id.as_bytes())?;
        self.iter().find(|item| item.id == id)
    }

    /// Puts an item behind all others. It goes no earlier than those.
    pub(crate) fn push(&mut self, item: &ItemRow) {
        let (seq, deadline) = self.last.map_or((0, 0), |last| (last.seq.as_u64(), last.deadline.as_ms()));
        let later = (item.seq.as_u64().saturating_sub(seq), item.deadline.as_ms().saturating_sub(deadline));
        put_number(&mut self.bytes, later.0);
        put_number(&mut self.bytes, later.1);
        item.encode_rest(&mut self.bytes);
        self.len += 1;
        let deadline = Timestamp::from_ms(deadline.saturating_add(later.1));
        self.last = Some(End { seq: Seq::new(seq.saturating_add(later.0)), deadline });
    }

    /// The item with this number, and a copy without it. Only the one behind it is told anew: the
    /// others are as far apart as they were.
    pub(crate) fn without(&self, seq: Seq) -> Option<(ItemRow, Self)> {
        let (mut items, mut before, mut begin) = (self.iter(), None, 0);
        while let Some(item) = items.next() {
            if item.seq == seq {
                return Some((item, self.join(begin, before, items)));
            }
            (before, begin) = (Some(item.as_end()), items.position(&self.bytes));
        }
        None
    }

    /// The first `begin` bytes, of which `last` is the last item, and behind them what is left of
    /// `items`.
    fn join(&self, begin: usize, last: Option<End>, mut items: Iter<'_>) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + ITEM_BYTES);
        bytes.extend_from_slice(self.bytes.get(..begin).unwrap_or_default());
        let mut joined = Self { bytes, len: 0, last };
        if let Some(next) = items.next() {
            joined.push(&next);
            let rest = self.bytes.get(items.position(&self.bytes)..).unwrap_or_default();
            joined.bytes.extend_from_slice(rest);
            joined.last = self.last;
        }
        joined.len = self.len.saturating_sub(1);
        joined
    }
}

impl Clone for PackedItems {
    /// A row of a queue is cloned to be changed, mostly for one more item.
    fn clone(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + ITEM_BYTES);
        bytes.extend_from_slice(&self.bytes);
        Self { bytes, len: self.len, last: self.last }
    }
}

impl FromIterator<ItemRow> for PackedItems {
    fn from_iter<T: IntoIterator<Item = ItemRow>>(items: T) -> Self {
        let mut few = Self::default();
        items.into_iter().for_each(|item| few.push(&item));
        few
    }
}

/// The items, in order.
pub(crate) struct Iter<'a> {
    rest: Fields<'a>,
    before: Option<End>,
}

impl Iter<'_> {
    /// How far it has come in the bytes that it began with.
    const fn position(&self, bytes: &[u8]) -> usize {
        bytes.len().saturating_sub(self.rest.rest_bytes())
    }

    fn step(&mut self) -> Result<Option<ItemRow>, StoreError> {
        if self.rest.rest_bytes() == 0 {
            return Ok(None);
        }
        let (seq, deadline) = self.before.map_or((0, 0), |end| (end.seq.as_u64(), end.deadline.as_ms()));
        let (seq, deadline) =
            (seq.checked_add(self.rest.number()?), deadline.checked_add(self.rest.number()?));
        let (Some(seq), Some(deadline)) = (seq, deadline) else {
            return Err(StoreError::Corrupted("queue: order"));
        };
        let (seq, deadline) = (Seq::new(seq), Timestamp::from_ms(deadline));
        let item = ItemRow::decode_rest(&mut self.rest, seq, deadline, 0)?;
        self.before = Some(item.as_end());
        Ok(Some(item))
    }
}

impl Iterator for Iter<'_> {
    type Item = ItemRow;

    /// What was packed or decoded can be read.
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

    /// What is told of an item, in small numbers, so that names and parts of names meet.
    type SampleItem = (u8, u8, u8, bool);

    /// Its deadline may be before the last one.
    fn item(number: usize, (gap, name, chunk, is_aside): SampleItem, before: Option<End>) -> ItemRow {
        let (seq, deadline) = before.map_or((0, 5), |end| (end.seq.as_u64(), end.deadline.as_ms()));
        let segment = if is_aside { 1 << 31 | 7 } else { 300 };
        let location = Location { segment, offset: 4096, length: 333 };
        let id =
            ItemId { message_id: MessageId::from_bytes([name % 8; 16]), chunk_index: (chunk % 3).into() };
        let (seq, deadline) = (seq + 1 + u64::from(gap), (deadline + u64::from(gap % 4)).saturating_sub(1));
        let payload_bytes = number as u64;
        let sample = ItemRow::new(&crate::samples::item(), location);
        ItemRow { seq: Seq::new(seq), id, deadline: Timestamp::from_ms(deadline), payload_bytes, ..sample }
    }

    proptest! {
        #![proptest_config(crate::samples::config())]

        #[test]
        fn it_holds_what_a_list_would_hold(told in collection::vec(any::<SampleItem>(), 0..12), gone in collection::vec(any::<Index>(), 12)) {
            let (mut few, mut list) = (PackedItems::default(), Vec::<ItemRow>::new());
            for (number, told) in told.into_iter().enumerate() {
                let before = list.last().map(ItemRow::as_end);
                let item = item(number, told, before);
                few = few.clone();
                few.push(&item);
                let deadline = before.map_or(item.deadline, |before| item.deadline.max(before.deadline));
                list.push(ItemRow { deadline, ..item });
            }
            for gone in gone {
                prop_assert_eq!(few.iter().collect::<Vec<_>>(), &list[..]);
                prop_assert_eq!((few.len(), few.ends()), (list.len(), Ends::of(&list)));
                for name in 0..9 {
                    for chunk_index in 0..3 {
                        let id = ItemId { message_id: MessageId::from_bytes([name; 16]), chunk_index };
                        prop_assert_eq!(few.find(id), list.iter().find(|item| item.id == id).cloned());
                    }
                }
                for item in &list {
                    prop_assert_eq!(few.get(item.seq), Some(item.clone()));
                    prop_assert_eq!(few.get(item.seq.next()), list.iter().find(|other| other.seq == item.seq.next()).cloned());
                }
                prop_assert_eq!(&PackedItems::decode(&mut Fields::new(few.bytes(), "queue")).unwrap(), &few);
                prop_assert_eq!(few.iter().collect::<PackedItems>(), few.clone());
                if !list.is_empty() {
                    let gone = list.remove(gone.index(list.len()));
                    let (taken, left) = few.without(gone.seq).unwrap();
                    prop_assert_eq!((taken, left.without(gone.seq)), (gone, None));
                    few = left;
                }
            }
        }
    }
}
