//! What each address uses just now: connections, memory, places in the line of the rate limit. So
//! one address cannot take what is there for all. An address is remembered as long as it uses
//! something, and no longer.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Threads that look up different addresses seldom wait for each other.
const SHARDS: usize = 16;

/// All addresses that use something. Clones are the same one.
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
    /// Bytes that streams of HTTP/2 take besides bodies and pages.
    #[cfg(feature = "tls")]
    pub(crate) streams: AtomicUsize,
}

/// An address that is remembered as long as this is held. Without one, the address is exempt from
/// all shares.
#[derive(Debug)]
pub(crate) struct Address {
    book: AddressBook,
    key: IpAddr,
    /// Taken in `drop` alone.
    usage: Option<Arc<AddressUse>>,
}

impl AddressBook {
    pub(crate) fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self(Arc::new(Book { shards, hasher: RandomState::new() }))
    }

    /// The address, or the network that counts as one.
    pub(crate) fn enter(&self, key: IpAddr) -> Address {
        let usage = Arc::clone(self.shard(&key).entry(key).or_default());
        Address { book: self.clone(), key, usage: Some(usage) }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: &IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Arc<AddressUse>>> {
        let at = usize::try_from(self.0.hasher.hash_one(key)).unwrap_or_default() % SHARDS;
        lock(self.0.shards.get(at).expect("the remainder is below the number of shards"))
    }
}

impl Address {
    pub(crate) fn usage(&self) -> &Arc<AddressUse> {
        self.usage.as_ref().expect("it is taken in `drop` alone")
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
        // Given back while the map is locked: of two that go at once, the second one sees that it
        // is the last.
        self.usage = None;
        if shard.get(&self.key).is_some_and(|usage| Arc::strong_count(usage) == 1) {
            shard.remove(&self.key);
        }
    }
}

/// Counts one more of something that must not be more than `max`. Tells whether there was room.
pub(crate) fn try_count(counter: &AtomicUsize, max: usize) -> bool {
    let one_more = |count: usize| (count < max).then_some(count + 1);
    counter.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

/// The network that counts as one: a single customer usually has a whole IPv6 network.
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

/// Counting under this lock leaves nothing half done.
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
    fn no_more_are_counted_than_there_is_room_for() {
        let counter = AtomicUsize::new(0);
        let counted = (0..10).filter(|_| try_count(&counter, 3)).count();
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
