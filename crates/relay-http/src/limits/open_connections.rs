//! Counts open connections, and chooses the one to close when a new one needs its slot. A
//! connection is quiet while it has no request in flight. The one that has been quiet longest is
//! closed first. This file closes nothing itself, but asks the task of the connection to do so.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::addresses::{Address, AddressUse, try_add};

/// The value of `quiet_since_ms` while a request is in flight.
const BUSY: u64 = u64::MAX;

/// The open connections of a server. Clones share it.
#[derive(Clone)]
pub(crate) struct OpenConnections(Arc<ConnectionTable>);

struct ConnectionTable {
    max: AtomicUsize,
    per_address_max: AtomicUsize,
    origin: Instant,
    slots: Mutex<Slots>,
    closed: Notify,
}

#[derive(Default)]
struct Slots {
    next: u64,
    open: HashMap<u64, Arc<Slot>>,
}

/// What other tasks see of a connection.
struct Slot {
    /// Milliseconds since the origin of the table, or [`BUSY`].
    quiet_since_ms: AtomicU64,
    is_close_requested: AtomicBool,
    task: AtomicWaker,
    /// Empty for an exempt address, and until a proxy has named its client.
    address: OnceLock<Address>,
}

/// An open connection, until this is dropped.
pub(crate) struct OpenConnection {
    connections: OpenConnections,
    number: u64,
    slot: Arc<Slot>,
}

/// The result of an attempt to open a connection.
pub(crate) enum Opened {
    Yes(OpenConnection),
    /// The address has as many connections as it may, and all are busy.
    AddressIsFull,
    /// There are as many connections as there may be, and all are busy.
    Full(Option<Address>),
}

impl OpenConnections {
    pub(crate) fn new(max: usize, per_address_max: usize, now: Instant) -> Self {
        let (slots, closed) = (Mutex::default(), Notify::new());
        let (max, per_address_max) = (max.into(), per_address_max.into());
        Self(Arc::new(ConnectionTable { max, per_address_max, origin: now, slots, closed }))
    }

    /// Applies other limits. If more are open than one of them allows, those that have been quiet
    /// longest are asked to close. Busy ones stay.
    pub(crate) fn set_limits(&self, max: usize, per_address_max: usize) {
        self.0.max.store(max, Ordering::Relaxed);
        self.0.per_address_max.store(per_address_max, Ordering::Relaxed);
        let slots = self.slots();
        // Those that were asked to close before make room as well.
        let stays = |slot: &&Arc<Slot>| !slot.is_close_requested.load(Ordering::Relaxed);
        let mut total = slots.open.values().filter(stays).count();
        let mut of_addresses: HashMap<*const AddressUse, usize> = HashMap::new();
        for address in slots.open.values().filter(stays).filter_map(|slot| slot.address.get()) {
            *of_addresses.entry(Arc::as_ptr(address.usage())).or_default() += 1;
        }
        let mut quiet: Vec<_> = slots.open.values().filter(|slot| slot.is_candidate(None)).collect();
        quiet.sort_by_key(|slot| slot.quiet_since_ms.load(Ordering::Relaxed));
        for slot in quiet {
            let of = slot.address.get().map(|address| Arc::as_ptr(address.usage()));
            let of_address = of.and_then(|of| of_addresses.get_mut(&of));
            if total > max || of_address.as_ref().is_some_and(|count| **count > per_address_max) {
                total -= 1;
                if let Some(count) = of_address {
                    *count -= 1;
                }
                slot.ask_to_close();
            }
        }
    }

    /// The number of open connections.
    pub(crate) fn count(&self) -> usize {
        self.slots().open.len()
    }

    /// Resolves when no connection is open.
    pub(crate) async fn empty(&self) {
        loop {
            let closed = self.0.closed.notified();
            if self.count() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Resolves when a connection is closed, or after a short time.
    pub(crate) async fn one_closed(&self) {
        const SOON: Duration = Duration::from_millis(50);
        // After a timeout the caller tries again just the same.
        let _ = tokio::time::timeout(SOON, self.0.closed.notified()).await;
    }

    /// Adds a connection of `address` that was accepted at `now`. If there are too many, of this
    /// address or in total, the one of them that has been quiet longest is asked to close.
    pub(crate) fn open(&self, address: Option<Address>, now: Instant) -> Opened {
        if address.as_ref().is_some_and(|of| !self.count_for(of)) {
            return Opened::AddressIsFull;
        }
        if self.count() >= self.0.max.load(Ordering::Relaxed) && !self.close_idlest(None) {
            if let Some(of) = &address {
                of.usage().connections.fetch_sub(1, Ordering::Relaxed);
            }
            return Opened::Full(address);
        }
        let slot = Arc::new(Slot {
            quiet_since_ms: AtomicU64::new(self.millis(now)),
            is_close_requested: AtomicBool::new(false),
            task: AtomicWaker::new(),
            address: address.map_or_else(OnceLock::new, OnceLock::from),
        });
        let mut slots = self.slots();
        let number = slots.next;
        slots.next += 1;
        slots.open.insert(number, Arc::clone(&slot));
        Opened::Yes(OpenConnection { connections: self.clone(), number, slot })
    }

    /// Counts a connection for an address. Returns false if the address has as many as it may, and
    /// all are busy.
    fn count_for(&self, of: &Address) -> bool {
        let count = &of.usage().connections;
        if !try_add(count, 1, self.0.per_address_max.load(Ordering::Relaxed)) {
            if !self.close_idlest(Some(of.usage())) {
                return false;
            }
            // The other connection is about to close.
            count.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Asks the connection that has been quiet longest, of this address or of all, to close.
    /// Returns false if none is quiet.
    fn close_idlest(&self, of: Option<&Arc<AddressUse>>) -> bool {
        let slots = self.slots();
        let candidates = slots.open.iter().filter(|(_, slot)| slot.is_candidate(of));
        let rank =
            |(number, slot): &(&u64, &Arc<Slot>)| (slot.quiet_since_ms.load(Ordering::Relaxed), **number);
        let Some((_, idlest)) = candidates.min_by_key(rank) else { return false };
        idlest.ask_to_close();
        true
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0.origin).as_millis();
        u64::try_from(since).unwrap_or(BUSY - 1)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A panic under this lock leaves no partial change.
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn ask_to_close(&self) {
        self.is_close_requested.store(true, Ordering::Release);
        self.task.wake();
    }

    fn is_candidate(&self, of: Option<&Arc<AddressUse>>) -> bool {
        let is_of = |of| self.address.get().is_some_and(|address| Arc::ptr_eq(of, address.usage()));
        of.is_none_or(is_of)
            && self.quiet_since_ms.load(Ordering::Relaxed) != BUSY
            && !self.is_close_requested.load(Ordering::Relaxed)
    }
}

impl OpenConnection {
    /// The address of the peer, unless it is exempt.
    pub(crate) fn address(&self) -> Option<&Address> {
        self.slot.address.get()
    }

    /// Counts the connection for this address, which its proxy has named, if it has none yet.
    /// Returns false if the address has as many connections as it may, and all are busy.
    pub(crate) fn set_address(&self, address: Address) -> bool {
        // Nothing counts twice: only the task of the connection sets its address.
        self.slot.address.get().is_some()
            || self.connections.count_for(&address) && self.slot.address.set(address).is_ok()
    }

    /// Notes that a request is in flight.
    pub(crate) fn set_busy(&self) {
        self.slot.quiet_since_ms.store(BUSY, Ordering::Relaxed);
    }

    /// Notes that no request is in flight.
    pub(crate) fn set_quiet(&self, now: Instant) {
        self.slot.quiet_since_ms.store(self.connections.millis(now), Ordering::Relaxed);
    }

    /// Whether another connection needs this slot.
    pub(crate) fn is_close_requested(&self) -> bool {
        self.slot.is_close_requested.load(Ordering::Acquire)
    }

    /// Ready when another connection needs this slot.
    pub(crate) fn poll_close_request(&self, cx: &Context<'_>) -> Poll<()> {
        self.slot.task.register(cx.waker());
        if self.is_close_requested() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Resolves when another connection needs this slot.
    pub(crate) async fn close_requested(&self) {
        poll_fn(|cx| self.poll_close_request(cx)).await;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.slots().open.remove(&self.number);
        if let Some(address) = self.slot.address.get() {
            address.usage().connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.connections.0.closed.notify_waiters();
    }
}

impl fmt::Debug for OpenConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenConnections").field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::addresses::AddressBook;
    use crate::monotonic;

    fn yes(opened: Opened) -> OpenConnection {
        match opened {
            Opened::Yes(connection) => connection,
            Opened::AddressIsFull => panic!("the address is full"),
            Opened::Full(_) => panic!("the table is full"),
        }
    }

    #[test]
    fn the_connection_that_has_been_quiet_longest_closes() {
        let start = monotonic::now();
        let connections = OpenConnections::new(3, 3, start);
        let open = |second| connections.open(None, start + Duration::from_secs(second));
        let held: Vec<_> = (0..3).map(|second| yes(open(second))).collect();
        held[0].set_busy();
        let newcomer = yes(open(3));
        assert_eq!([0, 1, 2].map(|at| held[at].is_close_requested()), [false, true, false]);
        newcomer.set_busy();
        held[2].set_busy();
        assert!(matches!(open(4), Opened::Full(_)), "one is asked already, the others are busy");
        drop(held);
        assert_eq!(connections.count(), 1);
    }

    #[test]
    fn a_full_address_closes_its_own_connections_only() {
        let start = monotonic::now();
        let (book, connections) = (AddressBook::new(), OpenConnections::new(10, 2, start));
        let hog = book.enter([192, 0, 2, 1].into());
        let other = yes(connections.open(Some(book.enter([192, 0, 2, 2].into())), start));
        let mut held: Vec<_> = (0..2).map(|_| yes(connections.open(Some(hog.clone()), start))).collect();
        held.push(yes(connections.open(Some(hog.clone()), start)));
        assert_eq!(held.iter().filter(|connection| connection.is_close_requested()).count(), 1);
        assert!(!other.is_close_requested());
        held.iter().for_each(OpenConnection::set_busy);
        assert!(matches!(connections.open(Some(hog.clone()), start), Opened::AddressIsFull));
        let proxied = yes(connections.open(None, start));
        assert!(!proxied.set_address(hog.clone()));
        assert!(proxied.set_address(book.enter([192, 0, 2, 3].into())));
        drop(held);
        assert_eq!(hog.usage().connections.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn lower_limits_close_the_connections_that_have_been_quiet_longest() {
        let start = monotonic::now();
        let (book, connections) = (AddressBook::new(), OpenConnections::new(10, 5, start));
        let [hog, other] = [1, 2].map(|last| book.enter([192, 0, 2, last].into()));
        let open = |address: &Address, second| {
            yes(connections.open(Some(address.clone()), start + Duration::from_secs(second)))
        };
        let held = [&other, &hog, &hog, &hog, &other].map(|address| open(address, 0));
        let asked = || held.iter().map(OpenConnection::is_close_requested).collect::<Vec<_>>();
        for (second, connection) in (1..).zip(&held) {
            connection.set_quiet(start + Duration::from_secs(second));
        }
        held[1].set_busy();
        connections.set_limits(10, 2);
        assert_eq!(asked(), [false, false, true, false, false], "of the full address alone");
        connections.set_limits(3, 2);
        assert_eq!(asked(), [true, false, true, false, false], "busy ones stay");
        assert!(matches!(connections.open(None, start), Opened::Yes(_)), "for which another one closes");
        connections.set_limits(100, 100);
        assert!(matches!(connections.open(Some(hog), start), Opened::Yes(_)));
    }
}
