//! The limiter finds or creates the entry of a key, which decides. It only waits for its own short
//! locks.
//!
//! The order of locks is: rules, roster, then a shard of `entries`. A request of a known key takes
//! only the shard, and shares the rules, which only a new policy locks. Keys are added and removed
//! only under the roster's lock. So roster and entries contain the same keys, and a key cannot
//! return during its removal. One lock of the shard covers both the check that a key is idle and
//! its removal, so no request comes in between. `networks` has its own locks; no thread enters it
//! with one of those of the roster and of a shard.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use dashmap::DashMap;

use crate::decision::{Connection, Decision, Refusal, Reservation};
use crate::entry::{Entry, Owner};
use crate::key::Key;
use crate::lock::lock;
use crate::networks::Networks;
use crate::policy::{Endpoint, Policy, Rules};
use crate::roster::{Eviction, KeyStatus, Roster};
use crate::tokens::nanos;

/// How many entries the keys without space share.
const OVERFLOWS: u64 = 256;

/// Token buckets and bans for up to [`Policy::tracked_keys_max`] keys. The crate's documentation
/// contains the rules.
///
/// Each `now` is the time since an origin that never changes, from a clock that does not run
/// backwards. Times of different threads may be slightly out of order. The largest time is 136
/// years.
pub struct Limiter<K> {
    rules: RwLock<Rules>,
    entries: DashMap<K, Entry>,
    roster: Mutex<Roster<K>>,
    networks: Networks<K>,
    /// For keys without space, by their neighbourhood.
    overflow: Box<[Mutex<Entry>]>,
}

impl<K: Key> Limiter<K> {
    /// A limiter that tracks no key yet.
    pub fn new(policy: Policy) -> Self {
        let rules = Rules::from(policy);
        let bans_max = rules.tracked_keys_max / 2;
        Self {
            entries: DashMap::new(),
            roster: Mutex::new(Roster::new(bans_max)),
            networks: Networks::new(bans_max),
            overflow: (0..OVERFLOWS).map(|_| Mutex::new(Entry::new(&rules))).collect(),
            rules: RwLock::new(rules),
        }
    }

    /// Decides by another policy from now on. Keys keep the tokens that they have spent or
    /// reserved, their debts and their bans, but nothing lasts longer than it may under the new
    /// policy: without bans, it ends all. [`Policy::tracked_keys_max`] and the endpoints stay as
    /// they are; those of the new policy must be the same, in the same order.
    ///
    /// If rates change, this visits all keys, which takes about 5 ms for 100,000. Requests wait
    /// meanwhile.
    pub fn set_policy(&self, policy: Policy, now: Duration) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let new = Rules { tracked_keys_max: rules.tracked_keys_max, ..Rules::from(policy) };
        if new == *rules {
            return;
        }
        let change = new.change(nanos(now));
        self.entries.iter_mut().for_each(|mut entry| entry.carry(&rules, &new, &change));
        self.overflow.iter().for_each(|entry| lock(entry).carry(&rules, &new, &change));
        self.networks.shorten(change.banned_until_max_ns);
        // The stamps of banned keys may be later than the ends of their bans.
        lock(&self.roster).release(u64::MAX);
        *rules = new;
    }

    /// Decides on one request of `key`, and counts it.
    ///
    /// Without an `endpoint`, the request uses only the shared bucket. A request that waits has
    /// reserved its tokens and passes after the wait, without a second check. If its client hangs
    /// up earlier, [`Limiter::give_back`] frees them.
    pub fn check(&self, key: &K, endpoint: Option<Endpoint>, now: Duration) -> Decision {
        let (rules, now_ns) = (&*self.rules(), nanos(now));
        if let Some(until_ns) = self.networks.banned_until_ns(key, now_ns) {
            return Decision::Refused(network_refusal(rules, until_ns, now_ns));
        }
        self.with_entry(key, rules, now_ns, |entry, owner| {
            let decision = entry.check(rules, owner, endpoint, now_ns);
            let began = matches!(&decision, Decision::Refused(refusal) if refusal.ban_began);
            (decision, began)
        })
    }

    /// Takes the tokens of a request of `key` that would pass at once. Unlike [`Limiter::check`],
    /// it neither reserves anything nor counts a refusal, so it suits work of the relay's own that
    /// can wait.
    ///
    /// # Errors
    /// When to ask again, if the request would not pass. Never zero.
    pub fn try_take(&self, key: &K, endpoint: Option<Endpoint>, now: Duration) -> Result<(), Duration> {
        let (rules, now_ns) = (&*self.rules(), nanos(now));
        if let Some(until_ns) = self.networks.banned_until_ns(key, now_ns) {
            return Err(Duration::from_nanos(until_ns.saturating_sub(now_ns).max(1)));
        }
        self.with_entry(key, rules, now_ns, |entry, _| (entry.try_take(rules, endpoint, now_ns), false))
    }

    /// Frees the reservation of a request of `key` whose client has hung up. Later requests get it;
    /// requests that wait already keep their times. A reservation whose time has come stays taken,
    /// and so does a token that was available at once.
    pub fn give_back(&self, key: &K, reservation: Reservation, now: Duration) {
        let (rules, now_ns) = (&*self.rules(), nanos(now));
        if reservation.in_overflow {
            lock(self.overflow(key)).give_back(rules, &reservation, now_ns);
        } else if let Some(mut entry) = self.entries.get_mut(key) {
            entry.give_back(rules, &reservation, now_ns);
        }
    }

    /// Decides on a connection that `key` opens, and counts it.
    pub fn connection(&self, key: &K, now: Duration) -> Connection {
        let (rules, now_ns) = (&*self.rules(), nanos(now));
        match self.networks.answer(key, now_ns) {
            Some((until_ns, true)) => Connection::RefuseOnce(network_refusal(rules, until_ns, now_ns)),
            Some((_, false)) => Connection::Drop { banned: true },
            None => self.with_entry(key, rules, now_ns, |entry, owner| {
                let connection = entry.connection(rules, owner, now_ns);
                let began = matches!(connection, Connection::RefuseOnce(refusal) if refusal.ban_began);
                (connection, began)
            }),
        }
    }

    /// The ban of the shared bucket of `key`, or of a network around it, if one is in force. It
    /// counts nothing.
    pub fn is_banned(&self, key: &K, now: Duration) -> Option<Refusal> {
        let (rules, now_ns) = (&*self.rules(), nanos(now));
        if let Some(until_ns) = self.networks.banned_until_ns(key, now_ns) {
            return Some(network_refusal(rules, until_ns, now_ns));
        }
        self.entries.get(key)?.banned(rules, now_ns)
    }

    /// Whether `key` is free of what a request that counts otherwise must not escape: a ban of the
    /// shared bucket or of a network around it, and a debt that `endpoint` waits for. It
    /// counts nothing.
    pub fn is_clear(&self, key: &K, endpoint: Endpoint, now: Duration) -> bool {
        let (rules, now_ns) = (&*self.rules(), nanos(now));
        self.networks.banned_until_ns(key, now_ns).is_none()
            && self.entries.get(key).is_none_or(|entry| entry.is_clear(rules, endpoint, now_ns))
    }

    /// Counts a request of `key` that passed as one that its endpoint refused, because the caller
    /// refused it later. Returns whether that bans the endpoint.
    pub fn count_refusal(&self, key: &K, endpoint: Endpoint, now: Duration) -> bool {
        let (rules, now_ns) = (&*self.rules(), nanos(now));
        self.networks.banned_until_ns(key, now_ns).is_none()
            && self.with_entry(key, rules, now_ns, |entry, owner| {
                (entry.count_refusal(rules, owner, endpoint, now_ns), false)
            })
    }

    /// Counts bytes that `key` has sent. The debt delays the next request to an endpoint of
    /// [`Policy::add_endpoint_with_debts`]. Does nothing without [`Policy::bytes`].
    pub fn charge_bytes(&self, key: &K, bytes: u64, now: Duration) {
        let rules = &*self.rules();
        if let Some(rate) = &rules.bytes {
            self.charge(key, rules, now, |entry, now_ns| entry.charge_bytes(rate, bytes, now_ns));
        }
    }

    /// The same for items, with [`Policy::items`].
    pub fn charge_items(&self, key: &K, items: u64, now: Duration) {
        let rules = &*self.rules();
        if let Some(rate) = &rules.items {
            self.charge(key, rules, now, |entry, now_ns| entry.charge_items(rate, items, now_ns));
        }
    }

    fn charge(&self, key: &K, rules: &Rules, now: Duration, charge: impl Fn(&mut Entry, u64)) {
        let now_ns = nanos(now);
        // No request of a banned network passes, so there is nothing to delay.
        if self.networks.banned_until_ns(key, now_ns).is_none() {
            self.with_entry(key, rules, now_ns, |entry, _| (charge(entry, now_ns), false));
        }
    }

    /// How many keys the limiter tracks, at most [`Policy::tracked_keys_max`].
    pub fn tracked(&self) -> usize {
        lock(&self.roster).len()
    }

    /// Runs `act` on the entry for the key. The second result of `act` is whether it started a ban.
    fn with_entry<T>(
        &self,
        key: &K,
        rules: &Rules,
        now_ns: u64,
        act: impl Fn(&mut Entry, Owner) -> (T, bool),
    ) -> T {
        let act = |entry: &mut Entry, owner| {
            let (result, began) = act(entry, owner);
            (result, began.then(|| entry.shared_banned_until_ns(now_ns)).flatten())
        };
        let known = self.with_known(key, act);
        let (result, banned_until_ns) = known.unwrap_or_else(|| self.with_new(key, rules, now_ns, act));
        if let Some(until_ns) = banned_until_ns {
            self.forget(&self.networks.note_ban(key, until_ns, now_ns));
        }
        result
    }

    fn with_known<T>(&self, key: &K, act: impl Fn(&mut Entry, Owner) -> T) -> Option<T> {
        let mut entry = self.entries.get_mut(key)?;
        Some(act(&mut entry, Owner::Key))
    }

    fn with_new<T>(&self, key: &K, rules: &Rules, now_ns: u64, act: impl Fn(&mut Entry, Owner) -> T) -> T {
        let mut roster = lock(&self.roster);
        // Another request of the same key may have added it.
        if let Some(result) = self.with_known(key, &act) {
            return result;
        }
        if roster.len() >= rules.tracked_keys_max && !self.evict(&mut roster, now_ns) {
            drop(roster);
            return act(&mut lock(self.overflow(key)), Owner::Overflow);
        }
        let mut entry = Entry::new(rules);
        let result = act(&mut entry, Owner::Key);
        roster.add(key.clone(), now_ns);
        self.entries.insert(key.clone(), entry);
        result
    }

    fn evict(&self, roster: &mut Roster<K>, now_ns: u64) -> bool {
        let eviction = roster.evict(now_ns, |key, stamp_ns| {
            let mut status = KeyStatus::Idle;
            self.entries.remove_if(key, |_, entry| {
                status = entry.status(stamp_ns, now_ns);
                status == KeyStatus::Idle
            });
            status
        });
        if let Eviction::Banned(key) = &eviction {
            self.entries.remove(key);
        }
        eviction != Eviction::None
    }

    fn forget(&self, keys: &[K]) {
        if keys.is_empty() {
            return;
        }
        let mut roster = lock(&self.roster);
        roster.remove(keys);
        for key in keys {
            self.entries.remove(key);
        }
    }

    fn overflow(&self, key: &K) -> &Mutex<Entry> {
        let index = usize::try_from(key.neighbourhood() % OVERFLOWS).unwrap_or(0);
        self.overflow.get(index).expect("the overflow has OVERFLOWS entries")
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        // A panic under this lock leaves buckets whose tokens are worth something else, no more.
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The refusal of a key in a banned network.
fn network_refusal(rules: &Rules, until_ns: u64, now_ns: u64) -> Refusal {
    Refusal { banned: true, ..rules.shared.refusal(until_ns.saturating_sub(now_ns)) }
}

/// Hides the keys, which may identify a person.
impl<K: Key> fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("rules", &*self.rules()).finish_non_exhaustive()
    }
}
