//! A filter in memory that says in which time slots an acked item id may be remembered. Nearly
//! every push looks up an item id that was never acked, and the filter spares it every row. It has
//! false positives, but no false negatives.
//!
//! The index keeps the rows of acked item ids by *slots*: stretches of the time at which they
//! expire, a few dozen for a dedup window. So the item ids of one checkpoint lie side by side,
//! instead of one in the leaf of each queue, and expired ones lie side by side as well. In return,
//! a lookup covers every slot. Each slot has a blocked Bloom filter (Putze, Sanders, Singler:
//! Cache-, Hash- and Space-Efficient Bloom Filters, 2007). It takes two bytes for each item id, a
//! lookup reads one cache line, and one answer in some hundreds is wrong.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use relay_core::{ItemId, Timestamp};

/// The number of slots in the dedup window. With more, each push looks through more of them. With
/// fewer, each slot is larger, and a checkpoint writes to more of its pages.
const SLOTS_PER_WINDOW: u64 = 32;

/// The least capacity of the first part of a slot's filter. Each further part is twice as large.
const ITEM_IDS_MIN: usize = 1024;

const ITEM_IDS_PER_BLOCK: usize = 32;
const BLOCK_WORDS: usize = 8;

/// The bits that are set for each item id.
const BITS: u32 = 6;

/// The length of a slot for a dedup window of `window_ms`.
pub(crate) fn slot_ms(window_ms: u64) -> u64 {
    (window_ms / SLOTS_PER_WINDOW).max(1)
}

/// The start of the slot for item ids that are remembered until `until`.
pub(crate) fn slot_of(until: Timestamp, slot_ms: u64) -> Timestamp {
    Timestamp::from_ms(until.as_ms() - until.as_ms() % slot_ms.max(1))
}

/// The filters of all slots, by their start.
#[derive(Debug, Default)]
pub(crate) struct DedupFilter {
    hasher: RandomState,
    slots: Mutex<BTreeMap<Timestamp, Slot>>,
}

/// The filter of a slot.
#[derive(Debug, Default)]
struct Slot {
    /// The slot has rows that are not in the filter, so it may contain every item id.
    has_unknown: bool,
    /// All but the last are full.
    parts: Vec<Bloom>,
    item_ids: usize,
}

/// The item ids of an unknown slot, as far as they were read.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    known: Slot,
    /// About how many there will be: as many as in the previous slot.
    expected: usize,
}

#[derive(Debug)]
struct Bloom {
    blocks: Box<[[u64; BLOCK_WORDS]]>,
    capacity_left: usize,
}

impl DedupFilter {
    /// Adds a slot of unknown content, which [`DedupFilter::learn`] and [`DedupFilter::complete`]
    /// add later.
    pub(crate) fn add_unknown(&self, slot: Timestamp) {
        self.slots().entry(slot).or_default().has_unknown = true;
    }

    pub(crate) fn add(&self, slot: Timestamp, queue: u64, id: ItemId) {
        let hash = self.hash(queue, id);
        let mut slots = self.slots();
        // The next slot will be about as full as the previous one.
        let expected = slots.last_key_value().map_or(0, |(_, last)| last.item_ids + last.item_ids / 4);
        slots.entry(slot).or_default().add(hash, expected);
    }

    /// Adds some of the item ids of an unknown slot.
    pub(crate) fn learn(&self, learned: &mut Learned, item_ids: &[(u64, ItemId)]) {
        for (queue, id) in item_ids {
            learned.known.add(self.hash(*queue, *id), learned.expected);
        }
    }

    /// Makes an unknown slot known: `learned` contains all of its item ids. Returns an empty
    /// `Learned` for the next slot.
    pub(crate) fn complete(&self, slot: Timestamp, Learned { known, .. }: Learned) -> Learned {
        let next = Learned { known: Slot::default(), expected: known.item_ids + known.item_ids / 4 };
        if let Some(slot) = self.slots().get_mut(&slot) {
            slot.has_unknown = false;
            slot.item_ids += known.item_ids;
            // Only the last part has capacity left.
            slot.parts.splice(0..0, known.parts);
        }
        next
    }

    /// The slots that may contain the item id, the oldest first.
    pub(crate) fn slots_of(&self, queue: u64, id: ItemId) -> Vec<Timestamp> {
        let slots = self.slots();
        if slots.is_empty() {
            return Vec::new();
        }
        let hash = self.hash(queue, id);
        slots.iter().filter(|(_, slot)| slot.may_hold(hash)).map(|(start, _)| *start).collect()
    }

    /// All slots, the oldest first.
    pub(crate) fn all_slots(&self) -> Vec<Timestamp> {
        self.slots().keys().copied().collect()
    }

    /// The slots whose item ids are not in the filter yet.
    pub(crate) fn unknown_slots(&self) -> Vec<Timestamp> {
        self.slots().iter().filter(|(_, slot)| slot.has_unknown).map(|(start, _)| *start).collect()
    }

    /// Forgets the slots that begin before `start`, which the caller has emptied.
    pub(crate) fn forget_before(&self, start: Timestamp) {
        let mut slots = self.slots();
        *slots = slots.split_off(&start);
    }

    fn hash(&self, queue: u64, id: ItemId) -> u64 {
        self.hasher.hash_one((queue, id))
    }

    /// A panic under the lock cannot leave a harmful state: a surplus item id does no harm.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<Timestamp, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn add(&mut self, hash: u64, expected: usize) {
        let is_full = self.parts.last().is_none_or(|last| last.capacity_left == 0);
        if is_full {
            self.parts.push(Bloom::new(expected.max(2 * self.item_ids).max(ITEM_IDS_MIN)));
        }
        if let Some(last) = self.parts.last_mut() {
            last.add(hash);
        }
        self.item_ids += 1;
    }

    fn may_hold(&self, hash: u64) -> bool {
        self.has_unknown || self.parts.iter().any(|part| part.may_hold(hash))
    }
}

impl Bloom {
    fn new(item_ids: usize) -> Self {
        let blocks = item_ids.div_ceil(ITEM_IDS_PER_BLOCK);
        let capacity_left = blocks * ITEM_IDS_PER_BLOCK;
        Self { blocks: vec![[0; BLOCK_WORDS]; blocks].into_boxed_slice(), capacity_left }
    }

    fn add(&mut self, hash: u64) {
        let index = self.block_of(hash);
        if let Some(block) = self.blocks.get_mut(index) {
            for (word, mask) in masks(hash) {
                if let Some(word) = block.get_mut(word) {
                    *word |= mask;
                }
            }
        }
        self.capacity_left = self.capacity_left.saturating_sub(1);
    }

    fn may_hold(&self, hash: u64) -> bool {
        let Some(block) = self.blocks.get(self.block_of(hash)) else { return false };
        masks(hash).all(|(word, mask)| block.get(word).is_some_and(|word| word & mask != 0))
    }

    /// The upper half of the hash chooses the block.
    fn block_of(&self, hash: u64) -> usize {
        let block = ((hash >> 32) * self.blocks.len() as u64) >> 32;
        usize::try_from(block).unwrap_or_default()
    }
}

/// The bits of an item id in its block. The lower half of the hash chooses them, independently of
/// the block.
fn masks(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    // Multiplying by an odd number spreads the half over the word. Nine bits choose one of 512.
    let spread = (hash & 0xffff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..BITS).map(move |number| {
        let bit = (spread >> (10 + 9 * number)) & 511;
        ((bit >> 6) as usize, 1 << (bit & 63))
    })
}

#[cfg(test)]
mod tests {
    use relay_core::MessageId;

    use super::*;

    fn id(number: u64) -> ItemId {
        ItemId { message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()), chunk_index: 0 }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn an_added_item_id_is_found_in_its_slot() {
        let filter = DedupFilter::default();
        for number in 0..10_000 {
            filter.add(at(number % 3), number, id(number));
        }
        for number in 0..10_000 {
            assert!(filter.slots_of(number, id(number)).contains(&at(number % 3)), "item id {number}");
        }
    }

    #[test]
    fn other_item_ids_are_rarely_found() {
        let filter = DedupFilter::default();
        for number in 0..100_000 {
            filter.add(at(0), number, id(number));
        }
        let wrong = (0..100_000_u64).filter(|number| !filter.slots_of(*number, id(number + 1)).is_empty());
        let wrong = wrong.count();
        assert!(wrong < 2000, "{wrong} of 100,000 item ids that were not added are found");
    }

    #[test]
    fn an_unknown_slot_may_contain_every_item_id() {
        let filter = DedupFilter::default();
        filter.add_unknown(at(5));
        filter.add(at(5), 1, id(1));
        assert_eq!(filter.slots_of(7, id(7)), [at(5)]);
        assert_eq!(filter.unknown_slots(), [at(5)]);
        let mut learned = Learned::default();
        filter.learn(&mut learned, &[(2, id(2))]);
        filter.learn(&mut learned, &[(3, id(3))]);
        assert_eq!(filter.unknown_slots(), [at(5)], "there may be more");
        filter.complete(at(5), learned);
        assert!(filter.unknown_slots().is_empty() && filter.slots_of(7, id(7)).is_empty());
        for number in [1, 2, 3] {
            assert_eq!(filter.slots_of(number, id(number)), [at(5)]);
        }
        filter.forget_before(at(6));
        assert!(filter.all_slots().is_empty());
        filter.complete(at(5), Learned::default());
        assert!(filter.all_slots().is_empty(), "a forgotten slot does not come back");
    }

    #[test]
    fn slots_divide_the_dedup_window() {
        assert_eq!(slot_ms(300_000), 9375);
        assert_eq!(slot_ms(1), 1);
        assert_eq!(slot_of(at(20_000), 9375), at(18_750));
        assert_eq!(slot_of(at(7), 0), at(7));
    }
}
