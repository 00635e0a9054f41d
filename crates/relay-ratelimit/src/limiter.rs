//! The limiter finds or creates the entry of a key, which decides. It only waits for its own short
//! locks.
//!
//! The order of locks is: roster, then a shard of `entries`. A request of a known key takes only
//! the shard. Keys are added and removed only under the roster's lock. So roster and entries
//! contain the same keys, and a key cannot return during its removal. One lock of the shard covers
//! both the check that a key is idle and its removal, so no request comes in between. `networks`
//! has its own locks; no thread enters it with one of the others.

use std::fmt;
use std::sync::Mutex;
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
    rules: Rules,
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
            rules,
        }
    }

    /// Decides on one request of `key`, and counts it.
    ///
    /// Without an `endpoint`, the request uses only the shared bucket. A request that waits has
    /// reserved its tokens and passes after the wait, without a second check. If its client hangs
    /// up earlier, [`Limiter::give_back`] frees them.
    pub fn check(&self, key: &K, endpoint: Option<Endpoint>, now: Duration) -> Decision {
        let now_ns = nanos(now);
        if let Some(until_ns) = self.networks.banned_until_ns(key, now_ns) {
            return Decision::Refused(self.network_refusal(until_ns, now_ns));
        }
        self.with_entry(key, now_ns, |entry, owner| {
            let decision = entry.check(&self.rules, owner, endpoint, now_ns);
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
        let now_ns = nanos(now);
        if let Some(until_ns) = self.networks.banned_until_ns(key, now_ns) {
            return Err(Duration::from_nanos(until_ns.saturating_sub(now_ns).max(1)));
        }
        self.with_entry(key, now_ns, |entry, _| (entry.try_take(&self.rules, endpoint, now_ns), false))
    }

    /// Frees the reservation of a request of `key` whose client has hung up. Later requests get it;
    /// requests that wait already keep their times. A reservation whose time has come stays taken,
    /// and so does a token that was available at once.
    pub fn give_back(&self, key: &K, reservation: Reservation, now: Duration) {
        let now_ns = nanos(now);
        if reservation.in_overflow {
            lock(self.overflow(key)).give_back(&self.rules, &reservation, now_ns);
        } else if let Some(mut entry) = self.entries.get_mut(key) {
            entry.give_back(&self.rules, &reservation, now_ns);
        }
    }

    /// Decides on a connection that `key` opens, and counts it.
    pub fn connection(&self, key: &K, now: Duration) -> Connection {
        let now_ns = nanos(now);
        match self.networks.answer(key, now_ns) {
            Some((until_ns, true)) => Connection::RefuseOnce(self.network_refusal(until_ns, now_ns)),
            Some((_, false)) => Connection::Drop { banned: true },
            None => self.with_entry(key, now_ns, |entry, owner| {
                let connection = entry.connection(&self.rules, owner, now_ns);
                let began = matches!(connection, Connection::RefuseOnce(refusal) if refusal.ban_began);
                (connection, began)
            }),
        }
    }

    /// The ban of the shared bucket of `key`, or of a network around it, if one is in force. It
    /// counts nothing.
    pub fn is_banned(&self, key: &K, now: Duration) -> Option<Refusal> {
        let now_ns = nanos(now);
        if let Some(until_ns) = self.networks.banned_until_ns(key, now_ns) {
            return Some(self.network_refusal(until_ns, now_ns));
        }
        self.entries.get(key)?.banned(&self.rules, now_ns)
    }

    /// Whether `key` is free of what a request that counts otherwise must not escape: a ban of the
    /// shared bucket or of a network around it, and a debt that `endpoint` waits for. It
    /// counts nothing.
    pub fn is_clear(&self, key: &K, endpoint: Endpoint, now: Duration) -> bool {
        let now_ns = nanos(now);
        self.networks.banned_until_ns(key, now_ns).is_none()
            && self.entries.get(key).is_none_or(|entry| entry.is_clear(&self.rules, endpoint, now_ns))
    }

    /// Counts a request of `key` that passed as one that its endpoint refused, because the caller
    /// refused it later. Returns whether that bans the endpoint.
    pub fn count_refusal(&self, key: &K, endpoint: Endpoint, now: Duration) -> bool {
        let now_ns = nanos(now);
        self.networks.banned_until_ns(key, now_ns).is_none()
            && self.with_entry(key, now_ns, |entry, owner| {
                (entry.count_refusal(&self.rules, owner, endpoint, now_ns), false)
            })
    }

    /// Counts bytes that `key` has sent. The debt delays the next request to an endpoint of
    /// [`Policy::add_endpoint_with_debts`]. Does nothing without [`Policy::bytes`].
    pub fn charge_bytes(&self, key: &K, bytes: u64, now: Duration) {
        if let Some(rate) = &self.rules.bytes {
            self.charge(key, now, |entry, now_ns| entry.charge_bytes(rate, bytes, now_ns));
        }
    }

    /// The same for items, with [`Policy::items`].
    pub fn charge_items(&self, key: &K, items: u64, now: Duration) {
        if let Some(rate) = &self.rules.items {
            self.charge(key, now, |entry, now_ns| entry.charge_items(rate, items, now_ns));
        }
    }

    fn charge(&self, key: &K, now: Duration, charge: impl Fn(&mut Entry, u64)) {
        let now_ns = nanos(now);
        // No request of a banned network passes, so there is nothing to delay.
        if self.networks.banned_until_ns(key, now_ns).is_none() {
            self.with_entry(key, now_ns, |entry, _| (charge(entry, now_ns), false));
        }
    }

    /// How many keys the limiter tracks, at most [`Policy::tracked_keys_max`].
    pub fn tracked(&self) -> usize {
        lock(&self.roster).len()
    }

    /// Runs `act` on the entry for the key. The second result of `act` is whether it started a ban.
    fn with_entry<T>(&self, key: &K, now_ns: u64, act: impl Fn(&mut Entry, Owner) -> (T, bool)) -> T {
        let act = |entry: &mut Entry, owner| {
            let (result, began) = act(entry, owner);
            (result, began.then(|| entry.shared_banned_until_ns(now_ns)).flatten())
        };
        let known = self.with_known(key, act);
        let (result, banned_until_ns) = known.unwrap_or_else(|| self.with_new(key, now_ns, act));
        if let Some(until_ns) = banned_until_ns {
            self.forget(&self.networks.note_ban(key, until_ns, now_ns));
        }
        result
    }

    fn with_known<T>(&self, key: &K, act: impl Fn(&mut Entry, Owner) -> T) -> Option<T> {
        let mut entry = self.entries.get_mut(key)?;
        Some(act(&mut entry, Owner::Key))
    }

    fn with_new<T>(&self, key: &K, now_ns: u64, act: impl Fn(&mut Entry, Owner) -> T) -> T {
        let mut roster = lock(&self.roster);
        // Another request of the same key may have added it.
        if let Some(result) = self.with_known(key, &act) {
            return result;
        }
        if roster.len() >= self.rules.tracked_keys_max && !self.evict(&mut roster, now_ns) {
            drop(roster);
            return act(&mut lock(self.overflow(key)), Owner::Overflow);
        }
        let mut entry = Entry::new(&self.rules);
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

    /// The refusal of a key in a banned network.
    fn network_refusal(&self, until_ns: u64, now_ns: u64) -> Refusal {
        Refusal { banned: true, ..self.rules.shared.refusal(until_ns.saturating_sub(now_ns)) }
    }
}

/// Hides the keys, which may identify a person.
impl<K> fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("rules", &self.rules).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::num::{NonZeroU32, NonZeroUsize};
    use std::thread;

    use super::*;

    /// Twenty hosts to a network; the neighbourhood is the host's last digit.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Host(u64);

    impl Key for Host {
        fn parent(&self) -> Option<Self> {
            (self.0 < 1000).then(|| Self(1000 + self.0 / 20))
        }

        fn neighbourhood(&self) -> u64 {
            self.0 % 10
        }
    }

    /// One token, one per second, no waits, and a ban after one second of excess.
    fn policy(tracked_keys_max: usize, ban: Duration) -> Policy {
        let mut policy = Policy::new(NonZeroU32::MIN, NonZeroU32::MIN);
        policy.max_wait = Duration::ZERO;
        policy.tracked_keys_max = NonZeroUsize::new(tracked_keys_max).unwrap();
        policy.ban_threshold = NonZeroU32::MIN;
        policy.ban = ban;
        policy
    }

    fn passes(decision: &Decision) -> bool {
        matches!(decision, Decision::Allowed(_))
    }

    #[test]
    fn two_first_requests_of_a_key_share_one_entry() {
        let limiter = Limiter::new(policy(9, Duration::ZERO));
        // As if both threads had found the key unknown before either added it.
        let check_new =
            || limiter.with_new(&1_u8, 0, |entry, owner| entry.check(&limiter.rules, owner, None, 0));
        assert!(passes(&check_new()));
        assert!(!passes(&check_new()));
        assert_eq!(limiter.tracked(), 1);
    }

    /// A limiter for one key, which stays banned and tracked.
    fn full_limiter(max_wait: Duration) -> Limiter<Host> {
        let mut policy = policy(1, Duration::from_secs(1000));
        policy.max_wait = max_wait;
        let mut limiter = Limiter::new(policy);
        limiter.roster = Mutex::new(Roster::new(usize::MAX));
        for second in [0, 0, 0, 0, 1, 1, 1, 1, 1] {
            let _ = limiter.check(&Host(0), None, Duration::from_secs(second));
        }
        assert!(limiter.is_banned(&Host(0), Duration::from_secs(1)).is_some());
        limiter
    }

    #[test]
    fn keys_without_space_share_a_limit_with_their_neighbourhood_and_are_never_banned() {
        let limiter = full_limiter(Duration::ZERO);
        for second in 1..100 {
            let now = Duration::from_secs(second);
            let passed = (100..200).filter(|&host| passes(&limiter.check(&Host(host), None, now)));
            assert_eq!(passed.count(), 10, "one for each of ten neighbourhoods");
            let served = (100..200).filter(|&host| limiter.connection(&Host(host), now) == Connection::Serve);
            assert_eq!(served.count(), 40);
        }
        assert!((100..200).all(|host| limiter.is_banned(&Host(host), Duration::from_secs(99)).is_none()));
        assert_eq!(limiter.tracked(), 1);
    }

    #[test]
    fn a_reservation_in_the_overflow_is_given_back_there() {
        let limiter = full_limiter(Duration::from_secs(1));
        let check = |host| limiter.check(&Host(host), None, Duration::from_secs(1));
        assert!(passes(&check(100)));
        let Decision::Wait(wait) = check(100) else { panic!("the second waits for a second") };
        assert!(matches!(check(110), Decision::Refused(_)));
        limiter.give_back(&Host(100), wait.reservation, Duration::from_secs(1));
        assert!(matches!(check(110), Decision::Wait(_)));
    }

    #[test]
    fn roster_and_entries_agree_after_concurrent_evictions() {
        let limiter = Limiter::new(policy(50, Duration::from_millis(50)));
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let limiter = &limiter;
                scope.spawn(move || {
                    for step in 0..20_000_u64 {
                        // Sixty keys for a limit of fifty, in a different order on each thread.
                        let key = Host((step * (thread + 1) + step / 60) % 60);
                        let now = Duration::from_millis(step);
                        let _ = limiter.check(&key, None, now);
                        let _ = limiter.connection(&key, now);
                        assert!(limiter.tracked() <= 50);
                    }
                });
            }
        });
        let mut roster = lock(&limiter.roster);
        assert_eq!(roster.len(), limiter.entries.len());
        let forget = |key: &Host, _| {
            assert!(limiter.entries.remove(key).is_some(), "each key of the roster has an entry");
            KeyStatus::Idle
        };
        while roster.evict(u64::MAX, forget) != Eviction::None {}
        assert!(limiter.entries.is_empty(), "each entry has its key in the roster");
    }
}
