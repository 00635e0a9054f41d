//! Queues by the time at which something is to be done for them. Each has one slot, so a schedule
//! never holds more than there are queues.

use std::collections::BTreeMap;

use relay_core::Recipient;

/// The place of a queue in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) at_ms: u64,
    /// Queues of the same time are served in the order of their arrival.
    number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    slots: BTreeMap<Slot, Recipient>,
    next_number: u64,
}

impl Schedule {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn insert(&mut self, at_ms: u64, recipient: Recipient) -> Slot {
        let slot = Slot { at_ms, number: self.next_number };
        self.next_number += 1;
        self.slots.insert(slot, recipient);
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Recipient> {
        self.slots.remove(&slot)
    }

    /// Moves a queue to another time.
    pub(super) fn move_to(&mut self, slot: Slot, at_ms: u64) -> Slot {
        match self.remove(slot) {
            Some(recipient) => self.put_back(slot, at_ms, recipient),
            None => slot,
        }
    }

    /// Inserts a queue that was in `slot`, which keeps its rank.
    pub(super) fn put_back(&mut self, slot: Slot, at_ms: u64, recipient: Recipient) -> Slot {
        let slot = Slot { at_ms, ..slot };
        self.slots.insert(slot, recipient);
        slot
    }

    pub(super) fn first_ms(&self) -> Option<u64> {
        self.slots.first_key_value().map(|(slot, _)| slot.at_ms)
    }

    pub(super) fn is_first(&self, slot: Slot) -> bool {
        self.slots.first_key_value().is_some_and(|(first, _)| *first == slot)
    }

    pub(super) fn pop_first(&mut self) -> Option<(Slot, Recipient)> {
        self.slots.pop_first()
    }
}
