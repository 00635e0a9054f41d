//! Who goes when room is wanted: the tracked keys in the order in which they were last seen. It
//! holds each tracked key once and never looks at an entry itself; the caller judges.
//!
//! Keys are used far more often than they are forgotten, so a use does not touch the roster. Its
//! stamps are therefore lower bounds of the true times, and the lowest is put right when it comes
//! to the front. A key whose true stamp is in front has been idle longest. Keys with a ban in force
//! are put aside until it ends, so that none is looked at twice in vain however many there are. No
//! more than `banned_max` are put aside: beyond that, the ban that ends soonest gives way, so that
//! there is always room for newcomers.

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
    banned_max: usize,
}

/// What came of the search for room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room<K> {
    /// A key was struck, and the caller has forgotten it.
    Made,
    /// This key was struck, and the caller has yet to forget it and its ban.
    GivesWay(K),
    /// Nobody can go.
    None,
}

/// Orders by the stamp alone, and the other way round: the heap's greatest element is the earliest.
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

    /// Strikes keys wherever they are. It looks at every key of the roster.
    pub(crate) fn strike(&mut self, keys: &[K]) {
        self.idle.retain(|stamped| !keys.contains(&stamped.key));
        self.banned.retain(|stamped| !keys.contains(&stamped.key));
    }

    /// Strikes the key that has been idle longest and has no ban in force, or one whose ban gives
    /// way.
    ///
    /// `judge` is shown a key and its stamp. When it answers [`Fate::Forget`] it has already
    /// forgotten the key.
    pub(crate) fn make_room(&mut self, now_ns: u64, mut judge: impl FnMut(&K, u64) -> Fate) -> Room<K> {
        self.release(now_ns);
        // Each key needs to be put right at most once and put aside at most once, then the one in
        // front goes. More turns than that can only mean that the keys are in use faster than they
        // are looked at, and then none of them is idle.
        for _ in 0..=2 * self.idle.len() {
            let Some(mut first) = self.idle.peek_mut() else { return Room::None };
            match judge(&first.key, first.stamp_ns) {
                Fate::Forget => {
                    PeekMut::pop(first);
                    return Room::Made;
                }
                Fate::SeenAt(seen_ns) => first.stamp_ns = seen_ns,
                Fate::BannedUntil(end_ns) => {
                    let key = PeekMut::pop(first).key;
                    self.banned.push(Stamped { stamp_ns: end_ns, key });
                    if let Some(soonest) = self.surplus() {
                        return Room::GivesWay(soonest);
                    }
                }
            }
        }
        Room::None
    }

    /// The banned key that is one too many.
    fn surplus(&mut self) -> Option<K> {
        if self.banned.len() > self.banned_max { self.banned.pop().map(|soonest| soonest.key) } else { None }
    }

    /// Brings back the keys whose ban has ended. When they were last seen is put right as they come
    /// to the front.
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

    /// Makes room once, with fates by key, and returns who was looked at, in order, the struck one
    /// last.
    fn looked_at(
        roster: &mut Roster<u32>,
        now_ns: u64,
        fate: impl Fn(u32, u64) -> Fate,
    ) -> (Vec<u32>, Room<u32>) {
        let mut seen = Vec::new();
        let room = roster.make_room(now_ns, |&key, stamp_ns| {
            seen.push(key);
            fate(key, stamp_ns)
        });
        (seen, room)
    }

    fn roster(keys: impl IntoIterator<Item = u32>) -> Roster<u32> {
        let mut roster = Roster::new(1000);
        for key in keys {
            roster.add(key, u64::from(key));
        }
        roster
    }

    #[test]
    fn the_idlest_key_goes_first() {
        let mut roster = roster([3, 1, 2]);
        for key in [1, 2, 3] {
            assert_eq!(looked_at(&mut roster, 9, |_, _| Fate::Forget), (vec![key], Room::Made));
        }
        assert_eq!(looked_at(&mut roster, 9, |_, _| Fate::Forget), (vec![], Room::None));
    }

    #[test]
    fn a_stale_stamp_is_put_right_once() {
        let mut roster = roster([1, 2, 3]);
        let truth = |key, stamp_ns| if key == 1 && stamp_ns < 5 { Fate::SeenAt(5) } else { Fate::Forget };
        assert_eq!(looked_at(&mut roster, 9, truth), (vec![1, 2], Room::Made));
        assert_eq!(looked_at(&mut roster, 9, truth), (vec![3], Room::Made));
        assert_eq!(looked_at(&mut roster, 9, truth), (vec![1], Room::Made));
    }

    #[test]
    fn banned_keys_are_looked_at_once_until_their_ban_ends() {
        let mut roster = roster(1..=1000);
        let truth = |key, _| if key <= 998 { Fate::BannedUntil(5000 + u64::from(key)) } else { Fate::Forget };
        assert_eq!(looked_at(&mut roster, 2000, truth).0.len(), 999);
        assert_eq!(looked_at(&mut roster, 2000, truth), (vec![1000], Room::Made));
        assert_eq!(looked_at(&mut roster, 2000, truth), (vec![], Room::None));
        assert_eq!(roster.len(), 998, "nobody was lost");
        assert_eq!(looked_at(&mut roster, 5001, |_, _| Fate::Forget), (vec![1], Room::Made));
    }

    #[test]
    fn the_search_ends_even_if_every_key_is_in_use() {
        let mut roster = roster([1, 2, 3]);
        let (seen, room) = looked_at(&mut roster, 9, |_, stamp_ns| Fate::SeenAt(stamp_ns + 10));
        assert_eq!((seen.len(), room, roster.len()), (7, Room::None, 3));
    }

    #[test]
    fn beyond_the_bound_the_ban_that_ends_soonest_gives_way() {
        let mut roster = roster([1, 2, 3, 4]);
        roster.banned_max = 2;
        let ends = |key, _| Fate::BannedUntil([0, 700, 500, 600, 800][key as usize]);
        assert_eq!(looked_at(&mut roster, 9, ends), (vec![1, 2, 3], Room::GivesWay(2)));
        assert_eq!(looked_at(&mut roster, 9, ends), (vec![4], Room::GivesWay(3)));
        assert_eq!(roster.len(), 2);
    }

    #[test]
    fn keys_are_struck_wherever_they_are() {
        let mut roster = roster(1..=4);
        let banned = |key, _| if key <= 2 { Fate::BannedUntil(5000) } else { Fate::Forget };
        assert_eq!(looked_at(&mut roster, 9, banned), (vec![1, 2, 3], Room::Made));
        roster.strike(&[1, 4, 9]);
        assert_eq!(looked_at(&mut roster, 5000, |_, _| Fate::Forget), (vec![2], Room::Made));
        assert_eq!(roster.len(), 0);
    }
}
