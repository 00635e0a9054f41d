//! Counts what each address uses: connections, memory, and waiting requests. So one address cannot
//! use up what is there for all. An address is forgotten when it uses nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// With several shards, threads rarely wait for each other.
const SHARDS: usize = 16;

/// All addresses that use something. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct AddressBook(Arc<Book>);

#[derive(Debug)]
struct Book {
    shards: [Mutex<HashMap<IpAddr, Arc<AddressUse>>>; SHARDS],
    hasher: RandomState,
}

/// What one address uses.
#[derive(Debug, Default)]
pub(crate) struct AddressUse {
    /// Bytes in flight.
    pub(crate) bytes: AtomicUsize,
    /// Open connections.
    pub(crate) connections: AtomicUsize,
    /// Requests that wait for the rate limit.
    pub(crate) waiting: AtomicUsize,
    /// Requests that wait for arrivals.
    pub(crate) parked: AtomicUsize,
    /// Bytes that HTTP/2 streams use besides bodies and pages.
    #[cfg(feature = "tls")]
    pub(crate) streams: AtomicUsize,
}

/// An address in use. The book remembers it until the last clone is dropped. Exempt addresses have
/// none.
#[derive(Debug)]
pub(crate) struct Address {
    book: AddressBook,
    key: IpAddr,
    /// `None` only in `drop`.
    usage: Option<Arc<AddressUse>>,
}

impl AddressBook {
    pub(crate) fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self(Arc::new(Book { shards, hasher: RandomState::new() }))
    }

    /// Looks up or adds an address, or a network that counts as one.
    pub(crate) fn enter(&self, key: IpAddr) -> Address {
        let usage = Arc::clone(self.shard(&key).entry(key).or_default());
        Address { book: self.clone(), key, usage: Some(usage) }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: &IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Arc<AddressUse>>> {
        let index = usize::try_from(self.0.hasher.hash_one(key)).unwrap_or_default() % SHARDS;
        lock(self.0.shards.get(index).expect("the remainder is below the number of shards"))
    }
}

impl Address {
    pub(crate) fn usage(&self) -> &Arc<AddressUse> {
        self.usage.as_ref().expect("only `drop` takes it")
    }
}

impl Clone for Address {
    fn clone(&self) -> Self {
        Self { book: self.book.clone(), key: self.key, usage: self.usage.clone() }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let mut shard = self.book.shard(&self.key);
        // Dropped while the map is locked, so that of two simultaneous drops the second one sees
        // that it is the last.
        self.usage = None;
        if shard.get(&self.key).is_some_and(|usage| Arc::strong_count(usage) == 1) {
            shard.remove(&self.key);
        }
    }
}

/// Adds `more` unless the sum would exceed `max`. Returns whether it was added.
pub(crate) fn try_add(sum: &AtomicUsize, more: usize, max: usize) -> bool {
    let grown = |sum: usize| sum.checked_add(more).filter(|sum| *sum <= max);
    sum.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
}

/// The network that counts as one address. A single customer usually has a whole IPv6 network.
pub(crate) fn network(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let host_bits = 128_u32.saturating_sub(u32::from(ipv6_prefix));
            let network = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & network).into()
        }
    }
}

/// Ignores poisoning: a panic under this lock leaves no partial change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_forgotten_with_its_last_user() {
        let book = AddressBook::new();
        let first = book.enter([192, 0, 2, 1].into());
        let second = book.enter([192, 0, 2, 1].into());
        let other = book.enter([192, 0, 2, 2].into());
        assert_eq!(book.len(), 2);
        assert!(Arc::ptr_eq(first.usage(), second.usage()) && !Arc::ptr_eq(first.usage(), other.usage()));
        let third = second.clone();
        drop((first, second));
        assert_eq!(book.len(), 2);
        drop((third, other));
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn a_sum_never_exceeds_its_maximum() {
        let counter = AtomicUsize::new(0);
        let counted = (0..10).filter(|_| try_add(&counter, 1, 3)).count();
        assert_eq!((counted, counter.load(Ordering::Relaxed)), (3, 3));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let check = |prefix, expected: &str| {
            let address = "2001:db8:1:2:3:4:5:6".parse().unwrap();
            assert_eq!(network(address, prefix), expected.parse::<IpAddr>().unwrap(), "/{prefix}");
        };
        check(128, "2001:db8:1:2:3:4:5:6");
        check(255, "2001:db8:1:2:3:4:5:6");
        check(64, "2001:db8:1:2::");
        check(56, "2001:db8:1::");
        check(0, "::");
        assert_eq!(network([192, 0, 2, 1].into(), 0), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap(), 64), IpAddr::from([192, 0, 2, 1]));
    }
}
