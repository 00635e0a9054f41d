//! The limiter: finds the entry of a key, makes one if there is room, and lets it decide. It never
//! waits for anything but its own short locks.
//!
//! Locks are taken in one order: roster, then a shard of `entries`, then nothing. A request of a
//! known key takes only the shard. Keys come and go under the roster's lock alone, so that roster
//! and entries hold the same keys, and a key cannot come back while it is being forgotten. Whether
//! a key is idle is judged, and the entry dropped, under one lock of its shard, so that no request
//! slips in between. `networks` has locks of its own, and nobody holds one of the others while
//! asking there.

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
use crate::roster::{Fate, Room, Roster};
use crate::tokens::nanos;

/// How many entries newcomers share while there is no room.
const OVERFLOWS: u64 = 256;

/// Token buckets and bans for up to [`Policy::tracked_keys_max`] keys. The crate's own page has the
/// rules.
///
/// Each `now` is the time since any origin that stays the same for this limiter, from a clock that
/// does not run backwards; small disorder between threads is harmless. It counts 136 years.
pub struct Limiter<K> {
    rules: Rules,
    entries: DashMap<K, Entry>,
    roster: Mutex<Roster<K>>,
    networks: Networks<K>,
    /// Shared by the newcomers that there is no room for, by their neighbourhood.
    overflow: Box<[Mutex<Entry>]>,
}

impl<K: Key> Limiter<K> {
    /// A limiter that tracks nobody yet.
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
    /// A request of no `endpoint` draws on the shared bucket alone. One that is to wait has its
    /// tokens and passes after the wait without asking again; if its client gives up before,
    /// [`Limiter::give_back`] frees its place.
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

    /// Frees the place of a request of `key` that waits no longer, because its client has hung up.
    /// Those who come later get it; those who wait already keep their times. A place whose turn has
    /// come stays taken, and so does a token that was there at once.
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

    /// The ban of `key` as a whole, if there is one: that of its shared bucket, or of a network
    /// around it. It counts nothing.
    pub fn is_banned(&self, key: &K, now: Duration) -> Option<Refusal> {
        let now_ns = nanos(now);
        if let Some(until_ns) = self.networks.banned_until_ns(key, now_ns) {
            return Some(self.network_refusal(until_ns, now_ns));
        }
        self.entries.get(key)?.banned(&self.rules, now_ns)
    }

    /// Notes that `key` has sent so many bytes. It never refuses what has begun: the debt delays
    /// the next request to an endpoint of [`Policy::add_endpoint_with_bytes`]. Does nothing without
    /// [`Policy::bytes`].
    pub fn charge_bytes(&self, key: &K, bytes: u64, now: Duration) {
        let now_ns = nanos(now);
        let Some(rate) = &self.rules.bytes else { return };
        // Nothing of a banned network can begin, so there is nothing to delay.
        if self.networks.banned_until_ns(key, now_ns).is_none() {
            self.with_entry(key, now_ns, |entry, _| (entry.charge_bytes(rate, bytes, now_ns), false));
        }
    }

    /// How many keys are remembered. At most [`Policy::tracked_keys_max`].
    pub fn tracked(&self) -> usize {
        lock(&self.roster).len()
    }

    /// Runs `act` on the entry that answers for the key. It also tells if it has set off a ban.
    fn with_entry<T>(&self, key: &K, now_ns: u64, act: impl Fn(&mut Entry, Owner) -> (T, bool)) -> T {
        let act = |entry: &mut Entry, owner| {
            let (result, began) = act(entry, owner);
            let shared_until_ns = if began { entry.shared_banned_until_ns(now_ns) } else { None };
            (result, shared_until_ns)
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
        // Another request of the same key may have come first.
        if let Some(result) = self.with_known(key, &act) {
            return result;
        }
        if roster.len() >= self.rules.tracked_keys_max && !self.make_room(&mut roster, now_ns) {
            drop(roster);
            return act(&mut lock(self.overflow(key)), Owner::Overflow);
        }
        let mut entry = Entry::new(&self.rules);
        let result = act(&mut entry, Owner::Key);
        roster.add(key.clone(), now_ns);
        self.entries.insert(key.clone(), entry);
        result
    }

    fn make_room(&self, roster: &mut Roster<K>, now_ns: u64) -> bool {
        let room = roster.make_room(now_ns, |key, stamp_ns| {
            let mut fate = Fate::Forget;
            self.entries.remove_if(key, |_, entry| {
                fate = entry.fate(stamp_ns, now_ns);
                fate == Fate::Forget
            });
            fate
        });
        if let Room::GivesWay(key) = &room {
            self.entries.remove(key);
        }
        room != Room::None
    }

    fn forget(&self, keys: &[K]) {
        if keys.is_empty() {
            return;
        }
        let mut roster = lock(&self.roster);
        roster.strike(keys);
        for key in keys {
            self.entries.remove(key);
        }
    }

    fn overflow(&self, key: &K) -> &Mutex<Entry> {
        let at = usize::try_from(key.neighbourhood() % OVERFLOWS).unwrap_or(0);
        self.overflow.get(at).expect("there are OVERFLOWS of them, and the remainder is below")
    }

    /// What a key is told while a network around it is banned.
    fn network_refusal(&self, until_ns: u64, now_ns: u64) -> Refusal {
        Refusal { banned: true, ..self.rules.shared.refusal(until_ns.saturating_sub(now_ns)) }
    }
}

/// Tells nothing of the keys: they may say who somebody is.
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
    fn of_two_first_requests_of_a_key_the_later_is_the_second() {
        let limiter = Limiter::new(policy(9, Duration::ZERO));
        // Both threads have found the key unknown before either could add it.
        let check_new =
            || limiter.with_new(&1_u8, 0, |entry, owner| entry.check(&limiter.rules, owner, None, 0));
        assert!(passes(&check_new()));
        assert!(!passes(&check_new()));
        assert_eq!(limiter.tracked(), 1);
    }

    /// A limiter whose only place is held by a ban that does not give way.
    fn without_room(max_wait: Duration) -> Limiter<Host> {
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
    fn newcomers_without_room_share_a_limit_with_their_neighbourhood_and_are_never_banned() {
        let limiter = without_room(Duration::ZERO);
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
    fn a_place_in_the_overflow_is_given_back_there() {
        let limiter = without_room(Duration::from_secs(1));
        let check = |host| limiter.check(&Host(host), None, Duration::from_secs(1));
        assert!(passes(&check(100)));
        let Decision::Wait(wait) = check(100) else { panic!("the second waits for a second") };
        assert!(matches!(check(110), Decision::Refused(_)));
        limiter.give_back(&Host(100), wait.reservation, Duration::from_secs(1));
        assert!(matches!(check(110), Decision::Wait(_)));
    }

    #[test]
    fn roster_and_entries_agree_after_a_scramble_for_room() {
        let limiter = Limiter::new(policy(50, Duration::from_millis(50)));
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let limiter = &limiter;
                scope.spawn(move || {
                    for step in 0..20_000_u64 {
                        // Sixty keys for fifty places, in another order on each thread.
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
            assert!(limiter.entries.remove(key).is_some(), "a key of the roster has an entry");
            Fate::Forget
        };
        while roster.make_room(u64::MAX, forget) != Room::None {}
        assert!(limiter.entries.is_empty(), "an entry has its key in the roster");
    }
}
