//! Requests that count by the name that their client has proven, instead of by its address. So
//! people behind one address do not disturb each other.
//!
//! A name costs its client nothing to make. So an address may have only so many names at once, a
//! name has to be introduced by a request that counts by the address, and all requests by names of
//! one address have a ceiling together.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::decision::{Decision, Reservation};
use crate::limiter::Limiter;
use crate::policy::Policy;
use crate::sets::Sets;
use crate::tokens::{Pace, SECOND_NS, Tokens, nanos};

/// The name of the bucket of a name.
pub const NAME_BUCKET: &str = "name";

/// All names of an address together may use this multiple of the rate and burst of the address.
pub const CEILING_FACTOR: NonZeroU32 = NonZeroU32::new(10).expect("10 is not zero");

/// An address loses a name that it has not used for this long.
const HOUR: u32 = 3600;

/// One bucket for each name, with the waits and bans of a [`Limiter`]; and for each address, the
/// names that it has introduced.
///
/// Names and addresses are hashes. All tables have a bound. An address or name that loses its space
/// counts by the address until it is introduced again.
pub struct NameLimiter {
    names: Limiter<u64>,
    rules: RwLock<AddressRules>,
    hasher: RandomState,
    addresses: Sets<Address>,
}

/// What an address may do with names.
#[derive(Clone, Copy)]
struct AddressRules {
    /// Of all of its names together.
    ceiling: Pace,
    names_max: usize,
}

/// An address, and the names that it has introduced.
struct Address {
    hash: u64,
    /// The tokens that are left for all of its names together.
    ceiling: Tokens,
    names: Vec<Name>,
    /// In seconds.
    last_used: u32,
}

/// Eight bytes, since there may be many.
struct Name {
    /// Half of its hash. Two names with one half may both count as introduced, which is harmless:
    /// each has its own bucket.
    half: u32,
    /// In seconds.
    last_used: u32,
}

impl NameLimiter {
    /// A limiter that knows no name yet. `names` are the limits of each name, `address` those of an
    /// address without names.
    pub fn new(names: Policy, address: &Policy, names_per_address: u32) -> Self {
        Self {
            rules: RwLock::new(AddressRules::new(address, names_per_address)),
            names: Limiter::new(names.named(NAME_BUCKET)),
            hasher: RandomState::new(),
            addresses: Sets::new(address.tracked_keys_max),
        }
    }

    /// Decides by other limits from now on, as [`Limiter::set_policy`]. The bounds of the tables
    /// stay. An address that has more names than it then may have keeps them.
    pub fn set_policy(&self, names: Policy, address: &Policy, names_per_address: u32, now: Duration) {
        self.names.set_policy(names.named(NAME_BUCKET), now);
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (rules.ceiling, AddressRules::new(address, names_per_address));
        if old != new.ceiling {
            self.addresses.for_each_mut(|address| {
                address.ceiling = address.ceiling.carried(&old, &new.ceiling, 0, nanos(now));
            });
        }
        *rules = new;
    }

    /// Decides on a request by its name, and counts it. `None` if it counts by the address: the
    /// address has not introduced the name, or its names have used up what they have together.
    pub fn check(&self, address: u64, name: u64, now: Duration) -> Option<Decision> {
        if !self.take(address, name, nanos(now)) {
            return None;
        }
        Some(self.names.check(&name, None, now))
    }

    /// Takes the tokens of a request that would pass at once by its name, as
    /// [`Limiter::try_take`]. `None` if it counts by the address.
    pub fn try_take(&self, address: u64, name: u64, now: Duration) -> Option<Result<(), Duration>> {
        if !self.is_introduced(address, name, nanos(now)) {
            return None;
        }
        let taken = self.names.try_take(&name, None, now);
        (taken.is_err() || self.take(address, name, nanos(now))).then_some(taken)
    }

    fn is_introduced(&self, address: u64, name: u64, now_ns: u64) -> bool {
        let second = second(now_ns);
        let set = self.set(address);
        let address = set.iter().find(|known| known.hash == address);
        address.is_some_and(|address| address.has(name, second))
    }

    fn take(&self, address: u64, name: u64, now_ns: u64) -> bool {
        let rules = self.rules();
        let mut set = self.set(address);
        let second = second(now_ns);
        let Some(address) = set.iter_mut().find(|known| known.hash == address) else { return false };
        let Some(name) =
            address.names.iter_mut().find(|known| known.half == half(name) && known.is_in_use(second))
        else {
            return false;
        };
        let has_token = address.ceiling.wait_ns(&rules.ceiling, now_ns) == 0;
        if has_token {
            address.ceiling.take(&rules.ceiling, now_ns);
            name.last_used = name.last_used.max(second);
            address.last_used = address.last_used.max(second);
        }
        has_token
    }

    /// Lets the requests of `name` from this address count by the name, after a request that did
    /// not. Does nothing while the address has as many names as it may have.
    pub fn introduce(&self, address: u64, name: u64, now: Duration) {
        let second = second(nanos(now));
        let rules = self.rules();
        let mut set = self.set(address);
        let known = set.iter().position(|known| known.hash == address);
        let index = known.unwrap_or_else(|| self.add(&mut set, address));
        let Some(address) = set.get_mut(index) else { return };
        address.last_used = address.last_used.max(second);
        if address.has(name, second) {
            return;
        }
        address.names.retain(|known| known.is_in_use(second));
        if address.names.len() < rules.names_max {
            address.names.push(Name { half: half(name), last_used: second });
        }
    }

    /// Makes the requests of `name` from this address count by the address again.
    pub fn withdraw(&self, address: u64, name: u64) {
        if let Some(address) = self.set(address).iter_mut().find(|known| known.hash == address) {
            address.names.retain(|known| known.half != half(name));
        }
    }

    /// Frees the reservation of a request whose client has hung up, as [`Limiter::give_back`].
    pub fn give_back(&self, name: u64, reservation: Reservation, now: Duration) {
        self.names.give_back(&name, reservation, now);
    }

    fn rules(&self) -> RwLockReadGuard<'_, AddressRules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, address: u64) -> MutexGuard<'_, Vec<Address>> {
        self.addresses.lock(self.hasher.hash_one(address))
    }

    /// Adds an address to its set. In a full set, it replaces the one that was used longest ago.
    fn add(&self, set: &mut Vec<Address>, hash: u64) -> usize {
        let address = Address { hash, ceiling: Tokens::default(), names: Vec::new(), last_used: 0 };
        if self.addresses.is_full(set) {
            let oldest = set.iter().enumerate().min_by_key(|(_, known)| known.last_used);
            set.swap_remove(oldest.map_or(0, |(index, _)| index));
        }
        set.push(address);
        set.len() - 1
    }
}

impl AddressRules {
    fn new(address: &Policy, names_per_address: u32) -> Self {
        let ceiling = Pace::new(
            address.per_second.saturating_mul(CEILING_FACTOR),
            address.burst.saturating_mul(CEILING_FACTOR),
        );
        Self { ceiling, names_max: usize::try_from(names_per_address).unwrap_or(usize::MAX) }
    }
}

impl Address {
    fn has(&self, name: u64, second: u32) -> bool {
        self.names.iter().any(|known| known.half == half(name) && known.is_in_use(second))
    }
}

fn second(now_ns: u64) -> u32 {
    u32::try_from(now_ns / SECOND_NS).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "half of the hash is enough")]
const fn half(hash: u64) -> u32 {
    hash as u32
}

impl Name {
    fn is_in_use(&self, second: u32) -> bool {
        second.saturating_sub(self.last_used) < HOUR
    }
}

/// Hides names and addresses.
impl fmt::Debug for NameLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameLimiter").field("names", &self.names).finish_non_exhaustive()
    }
}
