//! Who goes when room is wanted: the tracked keys in the order in which they were last seen. It holds each tracked key
//! once and never looks at an entry itself; the caller judges.
//!
//! Keys are used far more often than they are forgotten, so a use does not touch the roster. Its stamps are therefore
//! lower bounds of the true times, and the lowest is put right when it comes to the front. A key whose true stamp is
//! in front has been idle longest. Keys with a ban in force are put aside until it ends, so that none is looked at twice
//! in vain however many there are.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// What the caller knows of the key in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has been idle since its stamp, and is forgotten.
    Forget,
    /// It was seen since, at this time.
    SeenAt(u64),
    /// It must be kept until this time.
    BannedUntil(u64),
}

#[derive(Debug)]
pub(crate) struct Roster<K> {
    /// By when they were last seen, or earlier.
    idle: BinaryHeap<Stamped<K>>,
    /// By when their ban ends, or earlier.
    banned: BinaryHeap<Stamped<K>>,
}

/// Orders by the stamp alone, and the other way round: the heap's greatest element is the earliest.
#[derive(Debug)]
struct Stamped<K> {
    stamp_ns: u64,
    key: K,
}

impl<K> Roster<K> {
    pub(crate) fn new() -> Self {
        Self { idle: BinaryHeap::new(), banned: BinaryHeap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.idle.len() + self.banned.len()
    }

    /// Adds a key that is not in the roster.
    pub(crate) fn add(&mut self, key: K, seen_ns: u64) {
        self.idle.push(Stamped { stamp_ns: seen_ns, key });
    }

    /// Strikes the key that has been idle longest and has no ban in force; false if there is none.
    ///
    /// `judge` is shown a key and its stamp. When it answers [`Fate::Forget`] it has already forgotten the key.
    pub(crate) fn make_room(&mut self, now_ns: u64, mut judge: impl FnMut(&K, u64) -> Fate) -> bool {
        self.release(now_ns);
        // Each key needs to be put right at most once, then the one in front goes. More turns than that can only mean
        // that the keys are in use faster than they are looked at, and then none of them is idle.
        for _ in 0..=self.idle.len() {
            let Some(mut first) = self.idle.peek_mut() else { return false };
            match judge(&first.key, first.stamp_ns) {
                Fate::Forget => {
                    PeekMut::pop(first);
                    return true;
                }
                Fate::SeenAt(seen_ns) => first.stamp_ns = seen_ns,
                Fate::BannedUntil(end_ns) => {
                    let key = PeekMut::pop(first).key;
                    self.banned.push(Stamped { stamp_ns: end_ns, key });
                }
            }
        }
        false
    }

    /// Brings back the keys whose ban has ended. When they were last seen is put right as they come to the front.
    fn release(&mut self, now_ns: u64) {
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

    /// Makes room once, with fates by key, and returns who was looked at, in order, the struck one last.
    fn looked_at(roster: &mut Roster<u32>, now_ns: u64, fate: impl Fn(u32, u64) -> Fate) -> (Vec<u32>, bool) {
        let mut seen = Vec::new();
        let found = roster.make_room(now_ns, |&key, stamp_ns| {
            seen.push(key);
            fate(key, stamp_ns)
        });
        (seen, found)
    }

    fn roster(keys: impl IntoIterator<Item = u32>) -> Roster<u32> {
        let mut roster = Roster::new();
        for key in keys {
            roster.add(key, u64::from(key));
        }
        roster
    }

    #[test]
    fn the_idlest_key_goes_first() {
        let mut roster = roster([3, 1, 2]);
        for key in [1, 2, 3] {
            assert_eq!(looked_at(&mut roster, 9, |_, _| Fate::Forget), (vec![key], true));
        }
        assert_eq!(looked_at(&mut roster, 9, |_, _| Fate::Forget), (vec![], false));
    }

    #[test]
    fn a_stale_stamp_is_put_right_once() {
        let mut roster = roster([1, 2, 3]);
        let truth = |key, stamp_ns| if key == 1 && stamp_ns < 5 { Fate::SeenAt(5) } else { Fate::Forget };
        assert_eq!(looked_at(&mut roster, 9, truth), (vec![1, 2], true));
        assert_eq!(looked_at(&mut roster, 9, truth), (vec![3], true));
        assert_eq!(looked_at(&mut roster, 9, truth), (vec![1], true));
    }

    #[test]
    fn banned_keys_are_looked_at_once_until_their_ban_ends() {
        let mut roster = roster(1..=1000);
        let truth = |key, _| if key <= 998 { Fate::BannedUntil(5000 + u64::from(key)) } else { Fate::Forget };
        assert_eq!(looked_at(&mut roster, 2000, truth).0.len(), 999);
        assert_eq!(looked_at(&mut roster, 2000, truth), (vec![1000], true));
        assert_eq!(looked_at(&mut roster, 2000, truth), (vec![], false));
        assert_eq!(roster.len(), 998, "nobody was lost");
        assert_eq!(looked_at(&mut roster, 5001, |_, _| Fate::Forget), (vec![1], true));
    }

    #[test]
    fn the_search_ends_even_if_every_key_is_in_use() {
        let mut roster = roster([1, 2, 3]);
        let (seen, found) = looked_at(&mut roster, 9, |_, stamp_ns| Fate::SeenAt(stamp_ns + 10));
        assert_eq!((seen.len(), found, roster.len()), (4, false, 3));
    }
}
