//! A table of bounded size: sets of a few slots each, with one lock for each set. The users of the
//! table decide which slot of a full set a new entry replaces.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard};

use crate::lock::lock;

/// How many slots a set has.
const SLOTS: usize = 8;

/// The most sets that a table has.
const SETS_MAX: usize = 1 << 20;

pub(crate) struct Sets<T> {
    sets: Box<[Mutex<Vec<T>>]>,
    /// How many slots each set has.
    slots: usize,
}

impl<T> Sets<T> {
    /// A table of at most `tracked_max` slots, and never more than 8,388,608. A slot takes memory
    /// once it is used, and a set 32 bytes before.
    pub(crate) fn new(tracked_max: NonZeroUsize) -> Self {
        let sets = (tracked_max.get() / SLOTS).clamp(1, SETS_MAX);
        let sets = (0..sets).map(|_| Mutex::new(Vec::new())).collect();
        Self { sets, slots: tracked_max.get().min(SLOTS) }
    }

    /// Locks the set of a hash that no client can choose.
    pub(crate) fn lock(&self, hash: u64) -> MutexGuard<'_, Vec<T>> {
        let sets = u64::try_from(self.sets.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(hash % sets).unwrap_or(0);
        lock(self.sets.get(index).expect("the remainder is below the number of sets"))
    }

    /// Changes every slot that is used.
    pub(crate) fn for_each_mut(&self, mut change: impl FnMut(&mut T)) {
        self.sets.iter().for_each(|set| lock(set).iter_mut().for_each(&mut change));
    }

    /// How many slots are used.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sets.iter().map(|set| lock(set).len()).sum()
    }

    /// Whether a set has no free slot.
    pub(crate) const fn is_full(&self, set: &[T]) -> bool {
        set.len() >= self.slots
    }
}
