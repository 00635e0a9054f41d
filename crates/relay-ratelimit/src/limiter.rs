//! The limiter: finds the entry of a key, makes one if there is room, and lets it decide. It never waits for anything
//! but its own short locks.
//!
//! Locks are taken in one order: roster, then a shard of `entries`, then nothing. A request of a known key takes only
//! the shard. Keys come and go under the roster's lock alone, so that roster and entries hold the same keys, and a
//! key cannot come back while it is being forgotten. Whether a key is idle is judged, and the entry dropped, under
//! one lock of its shard, so that no request slips in between.

use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use crate::bucket::nanos;
use crate::decision::Decision;
use crate::entry::Entry;
use crate::policy::{Endpoint, Policy, Rules};
use crate::roster::{Fate, Roster};

/// Token buckets and bans for up to [`Policy::tracked_keys_max`] keys. The crate's own page has the rules.
pub struct Limiter<K> {
    rules: Rules,
    entries: DashMap<K, Entry>,
    roster: Mutex<Roster<K>>,
    /// Shared by the newcomers that there is no room for.
    overflow: Mutex<Entry>,
}

impl<K: Eq + Hash + Clone> Limiter<K> {
    /// A limiter that tracks nobody yet.
    pub fn new(policy: Policy) -> Self {
        let rules = Rules::from(policy);
        let overflow = Mutex::new(Entry::new(&rules));
        Self { rules, entries: DashMap::new(), roster: Mutex::new(Roster::new()), overflow }
    }

    /// Decides on one request of `key`, and counts it.
    ///
    /// A request of no `endpoint` draws on the shared bucket alone. `now` is the time since any origin that stays the
    /// same for this limiter, from a clock that does not run backwards; small disorder between threads is harmless.
    pub fn check(&self, key: &K, endpoint: Option<Endpoint>, now: Duration) -> Decision {
        let now_ns = nanos(now);
        self.check_known(key, endpoint, now_ns).unwrap_or_else(|| self.check_new(key, endpoint, now_ns))
    }

    /// How many keys are remembered. At most [`Policy::tracked_keys_max`]; it does not shrink.
    pub fn tracked(&self) -> usize {
        lock(&self.roster).len()
    }

    fn check_known(&self, key: &K, endpoint: Option<Endpoint>, now_ns: u64) -> Option<Decision> {
        let mut entry = self.entries.get_mut(key)?;
        Some(entry.check(&self.rules, self.rules.ban.as_ref(), endpoint, now_ns))
    }

    fn check_new(&self, key: &K, endpoint: Option<Endpoint>, now_ns: u64) -> Decision {
        let mut roster = lock(&self.roster);
        // Another request of the same key may have come first.
        if let Some(decision) = self.check_known(key, endpoint, now_ns) {
            return decision;
        }
        if roster.len() >= self.rules.tracked_keys_max && !self.forget_idlest(&mut roster, now_ns) {
            drop(roster);
            return lock(&self.overflow).check(&self.rules, None, endpoint, now_ns);
        }
        let mut entry = Entry::new(&self.rules);
        let decision = entry.check(&self.rules, self.rules.ban.as_ref(), endpoint, now_ns);
        roster.add(key.clone(), now_ns);
        self.entries.insert(key.clone(), entry);
        decision
    }

    fn forget_idlest(&self, roster: &mut Roster<K>, now_ns: u64) -> bool {
        roster.make_room(now_ns, |key, stamp_ns| {
            let mut fate = Fate::Forget;
            self.entries.remove_if(key, |_, entry| {
                fate = entry.fate(stamp_ns, now_ns);
                fate == Fate::Forget
            });
            fate
        })
    }
}

/// Tells nothing of the keys: they may say who somebody is.
impl<K> fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// No code under these locks can leave something half done, so one that a panic has poisoned is used on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::num::{NonZeroU32, NonZeroUsize};
    use std::thread;

    use super::*;

    #[test]
    fn of_two_first_requests_of_a_key_the_later_is_the_second() {
        let limiter = Limiter::new(Policy::new(NonZeroU32::MIN, NonZeroU32::MIN));
        // Both threads have found the key unknown before either could add it.
        assert_eq!(limiter.check_new(&"key", None, 0), Decision::Allowed);
        assert_ne!(limiter.check_new(&"key", None, 0), Decision::Allowed);
        assert_eq!(limiter.tracked(), 1);
    }

    #[test]
    fn roster_and_entries_agree_after_a_scramble_for_room() {
        let mut policy = Policy::new(NonZeroU32::MIN, NonZeroU32::MIN);
        policy.tracked_keys_max = NonZeroUsize::new(7).unwrap();
        policy.ban_threshold = NonZeroU32::new(3).unwrap();
        policy.ban = Duration::from_micros(50);
        let limiter = Limiter::new(policy);
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let limiter = &limiter;
                scope.spawn(move || {
                    for step in 0..20_000_u64 {
                        // Nine keys for seven places, in another order on each thread.
                        let key = (step * (thread + 1) + step / 9) % 9;
                        let _ = limiter.check(&key, None, Duration::from_micros(step));
                        assert!(limiter.tracked() <= 7);
                    }
                });
            }
        });
        let mut roster = lock(&limiter.roster);
        assert_eq!((roster.len(), limiter.entries.len()), (7, 7));
        while roster.make_room(u64::MAX, |key, _| {
            assert!(limiter.entries.remove(key).is_some(), "a key of the roster has an entry");
            Fate::Forget
        }) {}
        assert!(limiter.entries.is_empty(), "an entry has its key in the roster");
    }
}
