//! Which acked item_ids may be remembered, and in which slot of time: a filter in memory, so that
//! looking for a name that was never acked, as nearly every push does, touches no row. It may be
//! wrong in one direction only: what it does not know was not acked.
//!
//! The rows of acked item_ids lie in the index by *slots*, stretches of the time at which they are
//! over, a few dozen for a dedup window. So the item_ids of one checkpoint are written side by side,
//! instead of one into the leaf of each queue, and what is over lies side by side as well. The
//! price is that a name has to be looked for in every slot. Each slot has a blocked Bloom filter
//! (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007): one cache line
//! for each name, two bytes for each name, one answer in some hundreds wrong.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use relay_core::{ItemId, Timestamp};

/// How many slots the dedup window is divided into: more are looked through for each push, fewer
/// are larger, and a checkpoint writes to more of the pages of one.
const SLOTS_PER_WINDOW: u64 = 32;

/// The item_ids that the first part of a slot's filter is made for, at least. What comes after it is
/// twice as large.
const ITEM_IDS_MIN: usize = 1024;

/// Names that share one block.
const NAMES_PER_BLOCK: usize = 32;
const BLOCK_WORDS: usize = 8;

/// How many bits are set for each name.
const BITS: u32 = 6;

/// How long the slots are in which item_ids are put that are remembered for `window_ms`.
pub(crate) fn slot_ms(window_ms: u64) -> u64 {
    (window_ms / SLOTS_PER_WINDOW).max(1)
}

/// When the slot begins in which a name is put that is over at `until`.
pub(crate) fn slot_of(until: Timestamp, slot_ms: u64) -> Timestamp {
    Timestamp::from_ms(until.as_ms() - until.as_ms() % slot_ms.max(1))
}

/// The filters of all slots that hold item_ids, by when they begin.
#[derive(Debug, Default)]
pub(crate) struct DedupFilter {
    hasher: RandomState,
    slots: Mutex<BTreeMap<Timestamp, Slot>>,
}

/// What is known of a slot.
#[derive(Debug, Default)]
struct Slot {
    /// It holds rows that are not in the filter, so every name may be in it.
    has_unknown: bool,
    /// Each but the last is full.
    parts: Vec<Bloom>,
    item_ids: usize,
}

/// The item_ids of a slot that is not known, as far as they were read.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    known: Slot,
    /// How many there will be, about: as many as in the slot before.
    expected: usize,
}

#[derive(Debug)]
struct Bloom {
    blocks: Box<[[u64; BLOCK_WORDS]]>,
    room: usize,
}

impl DedupFilter {
    /// Knows that there is a slot, and not what is in it. [`DedupFilter::learn`] and
    /// [`DedupFilter::complete`] tell.
    pub(crate) fn add_unknown(&self, slot: Timestamp) {
        self.slots().entry(slot).or_default().has_unknown = true;
    }

    /// Adds a name.
    pub(crate) fn add(&self, slot: Timestamp, queue: u64, id: ItemId) {
        let hash = self.hash(queue, id);
        let mut slots = self.slots();
        // The next slot will be about as full as the one before.
        let expected = slots.last_key_value().map_or(0, |(_, last)| last.item_ids + last.item_ids / 4);
        slots.entry(slot).or_default().add(hash, expected);
    }

    /// Adds some of the item_ids of a slot that is not known.
    pub(crate) fn learn(&self, learned: &mut Learned, item_ids: &[(u64, ItemId)]) {
        for (queue, id) in item_ids {
            learned.known.add(self.hash(*queue, *id), learned.expected);
        }
    }

    /// A slot that was not known is learned: these are all of its item_ids. Returns where the item_ids of
    /// the next one go.
    pub(crate) fn complete(&self, slot: Timestamp, learned: Learned) -> Learned {
        let Learned { known, .. } = learned;
        let next = Learned { known: Slot::default(), expected: known.item_ids + known.item_ids / 4 };
        if let Some(slot) = self.slots().get_mut(&slot) {
            slot.has_unknown = false;
            slot.item_ids += known.item_ids;
            // The last part is the one that takes more.
            slot.parts.splice(0..0, known.parts);
        }
        next
    }

    /// The slots that may hold the name, the oldest first.
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

    /// The slots whose item_ids are not in the filter yet.
    pub(crate) fn unknown_slots(&self) -> Vec<Timestamp> {
        self.slots().iter().filter(|(_, slot)| slot.has_unknown).map(|(start, _)| *start).collect()
    }

    /// Forgets the slots that begin before `start`: there is nothing in them any more.
    pub(crate) fn forget_before(&self, start: Timestamp) {
        let mut slots = self.slots();
        *slots = slots.split_off(&start);
    }

    fn hash(&self, queue: u64, id: ItemId) -> u64 {
        self.hasher.hash_one((queue, id))
    }

    /// No code under the lock can leave it half changed in a way that matters: a name too many does
    /// no harm.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<Timestamp, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn add(&mut self, hash: u64, expected: usize) {
        let is_full = self.parts.last().is_none_or(|last| last.room == 0);
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
        let blocks = item_ids.div_ceil(NAMES_PER_BLOCK);
        Self { blocks: vec![[0; BLOCK_WORDS]; blocks].into_boxed_slice(), room: blocks * NAMES_PER_BLOCK }
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
        self.room = self.room.saturating_sub(1);
    }

    fn may_hold(&self, hash: u64) -> bool {
        let Some(block) = self.blocks.get(self.block_of(hash)) else { return false };
        masks(hash).all(|(word, mask)| block.get(word).is_some_and(|word| word & mask != 0))
    }

    /// By the upper half of the hash.
    fn block_of(&self, hash: u64) -> usize {
        let block = ((hash >> 32) * self.blocks.len() as u64) >> 32;
        usize::try_from(block).unwrap_or_default()
    }
}

/// The bits of a name in its block, by the lower half of the hash, which the choice of the block
/// says nothing about.
fn masks(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    // An odd number spreads the half over the whole word: nine bits of it choose one of 512.
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
    fn a_name_that_was_added_is_found_in_its_slot() {
        let item_ids = DedupFilter::default();
        for number in 0..10_000 {
            item_ids.add(at(number % 3), number, id(number));
        }
        for number in 0..10_000 {
            assert!(item_ids.slots_of(number, id(number)).contains(&at(number % 3)), "name {number}");
        }
    }

    #[test]
    fn other_names_are_rarely_found() {
        let item_ids = DedupFilter::default();
        for number in 0..100_000 {
            item_ids.add(at(0), number, id(number));
        }
        let wrong = (0..100_000_u64).filter(|number| !item_ids.slots_of(*number, id(number + 1)).is_empty());
        let wrong = wrong.count();
        assert!(wrong < 2000, "{wrong} of 100,000 item_ids that were not added are found");
    }

    #[test]
    fn a_slot_holds_everything_until_its_names_are_known() {
        let item_ids = DedupFilter::default();
        item_ids.add_unknown(at(5));
        item_ids.add(at(5), 1, id(1));
        assert_eq!(item_ids.slots_of(7, id(7)), [at(5)]);
        assert_eq!(item_ids.unknown_slots(), [at(5)]);
        let mut learned = Learned::default();
        item_ids.learn(&mut learned, &[(2, id(2))]);
        item_ids.learn(&mut learned, &[(3, id(3))]);
        assert_eq!(item_ids.unknown_slots(), [at(5)], "there may be more");
        item_ids.complete(at(5), learned);
        assert!(item_ids.unknown_slots().is_empty() && item_ids.slots_of(7, id(7)).is_empty());
        for number in [1, 2, 3] {
            assert_eq!(item_ids.slots_of(number, id(number)), [at(5)]);
        }
        item_ids.forget_before(at(6));
        assert!(item_ids.all_slots().is_empty());
        item_ids.complete(at(5), Learned::default());
        assert!(item_ids.all_slots().is_empty(), "a slot that was forgotten stays so");
    }

    #[test]
    fn slots_divide_the_window() {
        assert_eq!(slot_ms(300_000), 9375);
        assert_eq!(slot_ms(1), 1);
        assert_eq!(slot_of(at(20_000), 9375), at(18_750));
        assert_eq!(slot_of(at(7), 0), at(7));
    }
}
