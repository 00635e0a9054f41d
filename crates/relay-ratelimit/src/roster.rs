//! The tracked keys in the order in which they were last seen. It picks the key to forget when the
//! limiter is full.
//!
//! Keys are used far more often than they are forgotten, so a use does not touch the roster. Its
//! stamps are therefore lower bounds of the true times. The roster corrects a stamp when its key
//! reaches the front. A key at the front with its true stamp has been idle longest.
//!
//! Banned keys have a heap of their own until their ban ends, so that a search visits each at most
//! once. That heap holds at most `banned_max` keys. Beyond that, the roster evicts the one whose
//! ban ends soonest, so new keys always find space.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// The state of the key at the front, from the caller. Times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyStatus {
    /// The key was not seen after its stamp, and the caller has removed it.
    Idle,
    /// The key was last seen at this time, which is later than its stamp.
    SeenAt(u64),
    BannedUntil(u64),
}

#[derive(Debug)]
pub(crate) struct Roster<K> {
    /// By the time when they were last seen, or earlier.
    idle: BinaryHeap<Stamped<K>>,
    /// By the end of their ban, or earlier.
    banned: BinaryHeap<Stamped<K>>,
    banned_max: usize,
}

/// The result of [`Roster::evict`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Eviction<K> {
    /// An idle key left, and the caller has removed it.
    Idle,
    /// This banned key left; the caller has to remove it.
    Banned(K),
    /// All keys are in use.
    None,
}

/// Orders by the stamp alone, in reverse: the heap's greatest element is the earliest.
#[derive(Debug)]
pub(crate) struct Stamped<K> {
    pub(crate) stamp_ns: u64,
    pub(crate) key: K,
}

impl<K: Eq> Roster<K> {
    pub(crate) fn new(banned_max: usize) -> Self {
        Self { idle: BinaryHeap::new(), banned: BinaryHeap::new(), banned_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.idle.len() + self.banned.len()
    }

    /// Adds a key that is not in the roster.
    pub(crate) fn add(&mut self, key: K, seen_ns: u64) {
        self.idle.push(Stamped { stamp_ns: seen_ns, key });
    }

    /// Removes the given keys. It visits every key of the roster.
    pub(crate) fn remove(&mut self, keys: &[K]) {
        self.idle.retain(|stamped| !keys.contains(&stamped.key));
        self.banned.retain(|stamped| !keys.contains(&stamped.key));
    }

    /// Removes the key that has been idle longest and is not banned, or a banned one if there are
    /// too many.
    ///
    /// `status` gets a key and its stamp. If it returns [`KeyStatus::Idle`], it has already removed
    /// the key on its side.
    pub(crate) fn evict(&mut self, now_ns: u64, mut status: impl FnMut(&K, u64) -> KeyStatus) -> Eviction<K> {
        self.release(now_ns);
        // Each key needs at most one correction and one move to `banned`. More steps mean that
        // other threads use the keys faster than this loop visits them, so none is idle.
        for _ in 0..=2 * self.idle.len() {
            let Some(mut first) = self.idle.peek_mut() else { return Eviction::None };
            match status(&first.key, first.stamp_ns) {
                KeyStatus::Idle => {
                    PeekMut::pop(first);
                    return Eviction::Idle;
                }
                KeyStatus::SeenAt(seen_ns) => first.stamp_ns = seen_ns,
                KeyStatus::BannedUntil(end_ns) => {
                    let key = PeekMut::pop(first).key;
                    self.banned.push(Stamped { stamp_ns: end_ns, key });
                    if self.banned.len() > self.banned_max
                        && let Some(soonest) = self.banned.pop()
                    {
                        return Eviction::Banned(soonest.key);
                    }
                }
            }
        }
        Eviction::None
    }

    /// Moves the keys whose ban has ended back to `idle`, with a stamp that is corrected later.
    pub(crate) fn release(&mut self, now_ns: u64) {
        while let Some(first) = self.banned.peek_mut()
            && first.stamp_ns <= now_ns
        {
            let key = PeekMut::pop(first).key;
            self.idle.push(Stamped { stamp_ns: 0, key });
        }
    }
}

impl<K> Ord for Stamped<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.stamp_ns.cmp(&self.stamp_ns)
    }
}

impl<K> PartialOrd for Stamped<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> PartialEq for Stamped<K> {
    fn eq(&self, other: &Self) -> bool {
        self.stamp_ns == other.stamp_ns
    }
}

impl<K> Eq for Stamped<K> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evicts once, and also returns the visited keys in order.
    fn evict(
        roster: &mut Roster<u32>,
        now_ns: u64,
        status: impl Fn(u32, u64) -> KeyStatus,
    ) -> (Vec<u32>, Eviction<u32>) {
        let mut visited = Vec::new();
        let eviction = roster.evict(now_ns, |&key, stamp_ns| {
            visited.push(key);
            status(key, stamp_ns)
        });
        (visited, eviction)
    }

    fn roster(keys: impl IntoIterator<Item = u32>) -> Roster<u32> {
        let mut roster = Roster::new(1000);
        for key in keys {
            roster.add(key, u64::from(key));
        }
        roster
    }

    #[test]
    fn the_idlest_key_leaves_first() {
        let mut roster = roster([3, 1, 2]);
        for key in [1, 2, 3] {
            assert_eq!(evict(&mut roster, 9, |_, _| KeyStatus::Idle), (vec![key], Eviction::Idle));
        }
        assert_eq!(evict(&mut roster, 9, |_, _| KeyStatus::Idle), (vec![], Eviction::None));
    }

    #[test]
    fn a_stale_stamp_is_corrected_once() {
        let mut roster = roster([1, 2, 3]);
        let truth =
            |key, stamp_ns| if key == 1 && stamp_ns < 5 { KeyStatus::SeenAt(5) } else { KeyStatus::Idle };
        assert_eq!(evict(&mut roster, 9, truth), (vec![1, 2], Eviction::Idle));
        assert_eq!(evict(&mut roster, 9, truth), (vec![3], Eviction::Idle));
        assert_eq!(evict(&mut roster, 9, truth), (vec![1], Eviction::Idle));
    }

    #[test]
    fn banned_keys_are_visited_once_until_their_ban_ends() {
        let mut roster = roster(1..=1000);
        let truth =
            |key, _| if key <= 998 { KeyStatus::BannedUntil(5000 + u64::from(key)) } else { KeyStatus::Idle };
        assert_eq!(evict(&mut roster, 2000, truth).0.len(), 999);
        assert_eq!(evict(&mut roster, 2000, truth), (vec![1000], Eviction::Idle));
        assert_eq!(evict(&mut roster, 2000, truth), (vec![], Eviction::None));
        assert_eq!(roster.len(), 998, "no key was lost");
        assert_eq!(evict(&mut roster, 5001, |_, _| KeyStatus::Idle), (vec![1], Eviction::Idle));
    }

    #[test]
    fn the_search_ends_even_if_every_key_is_in_use() {
        let mut roster = roster([1, 2, 3]);
        let (visited, eviction) = evict(&mut roster, 9, |_, stamp_ns| KeyStatus::SeenAt(stamp_ns + 10));
        assert_eq!((visited.len(), eviction, roster.len()), (7, Eviction::None, 3));
    }

    #[test]
    fn beyond_the_bound_the_key_whose_ban_ends_soonest_leaves() {
        let mut roster = roster([1, 2, 3, 4]);
        roster.banned_max = 2;
        let ends = |key, _| KeyStatus::BannedUntil([0, 700, 500, 600, 800][key as usize]);
        assert_eq!(evict(&mut roster, 9, ends), (vec![1, 2, 3], Eviction::Banned(2)));
        assert_eq!(evict(&mut roster, 9, ends), (vec![4], Eviction::Banned(3)));
        assert_eq!(roster.len(), 2);
    }

    #[test]
    fn keys_are_removed_from_both_heaps() {
        let mut roster = roster(1..=4);
        let banned = |key, _| if key <= 2 { KeyStatus::BannedUntil(5000) } else { KeyStatus::Idle };
        assert_eq!(evict(&mut roster, 9, banned), (vec![1, 2, 3], Eviction::Idle));
        roster.remove(&[1, 4, 9]);
        assert_eq!(evict(&mut roster, 5000, |_, _| KeyStatus::Idle), (vec![2], Eviction::Idle));
        assert_eq!(roster.len(), 0);
    }
}
