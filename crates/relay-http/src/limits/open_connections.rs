//! All open connections, from their accept on: how many there are, and which one goes when another
//! has to be let in. A connection is quiet while no request of it is in work; the one that has been
//! quiet longest goes first. It closes nothing itself: it asks the task of the connection to.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::addresses::{Address, AddressUse, try_count};

/// Stands for "not quiet".
const BUSY: u64 = u64::MAX;

/// The connections of a server. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct OpenConnections(Arc<ConnectionTable>);

struct ConnectionTable {
    max: usize,
    per_address_max: usize,
    origin: Instant,
    slots: Mutex<Slots>,
    closed: Notify,
}

#[derive(Default)]
struct Slots {
    next: u64,
    open: HashMap<u64, Arc<Slot>>,
}

/// What is known of a connection from outside its task.
struct Slot {
    /// Milliseconds from the origin on, or [`BUSY`].
    quiet_since_ms: AtomicU64,
    is_told_to_close: AtomicBool,
    task: AtomicWaker,
    address: Option<Address>,
}

/// A connection that counts as open until this is dropped.
pub(crate) struct OpenConnection {
    connections: OpenConnections,
    number: u64,
    slot: Arc<Slot>,
}

/// What became of an attempt to open one.
pub(crate) enum Opened {
    Yes(OpenConnection),
    /// The address has as many as it may, and each of them is in use.
    AddressIsFull,
    /// There are as many as there may be, and each of them is in use.
    Full(Option<Address>),
}

impl OpenConnections {
    pub(crate) fn new(max: usize, per_address_max: usize, now: Instant) -> Self {
        let shared = ConnectionTable {
            max,
            per_address_max,
            origin: now,
            slots: Mutex::default(),
            closed: Notify::new(),
        };
        Self(Arc::new(shared))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.slots().open.len()
    }

    /// Resolves when there is none.
    pub(crate) async fn empty(&self) {
        loop {
            let closed = self.0.closed.notified();
            if self.count() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Resolves when one was closed, or soon.
    pub(crate) async fn one_closed(&self) {
        const SOON: Duration = Duration::from_millis(50);
        // Late is as good: whoever waits looks again.
        let _ = tokio::time::timeout(SOON, self.0.closed.notified()).await;
    }

    /// Counts a connection of `address` that was accepted at `now`. Where there are too many, the
    /// one that has been quiet longest is told to close: of the same address, or of all.
    pub(crate) fn open(&self, address: Option<Address>, now: Instant) -> Opened {
        if let Some(of) = &address {
            let count = &of.usage().connections;
            if !try_count(count, self.0.per_address_max) {
                if !self.close_idlest(Some(of.usage())) {
                    return Opened::AddressIsFull;
                }
                // The other one is on its way out.
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.count() >= self.0.max && !self.close_idlest(None) {
            if let Some(of) = &address {
                of.usage().connections.fetch_sub(1, Ordering::Relaxed);
            }
            return Opened::Full(address);
        }
        let slot = Arc::new(Slot {
            quiet_since_ms: AtomicU64::new(self.millis(now)),
            is_told_to_close: AtomicBool::new(false),
            task: AtomicWaker::new(),
            address,
        });
        let mut slots = self.slots();
        let number = slots.next;
        slots.next += 1;
        slots.open.insert(number, Arc::clone(&slot));
        Opened::Yes(OpenConnection { connections: self.clone(), number, slot })
    }

    /// Tells the connection that has been quiet longest, of this address or of all, to close. False
    /// if none is quiet.
    fn close_idlest(&self, of: Option<&Arc<AddressUse>>) -> bool {
        let slots = self.slots();
        let candidates = slots.open.iter().filter(|(_, slot)| slot.is_candidate(of));
        let rank =
            |(number, slot): &(&u64, &Arc<Slot>)| (slot.quiet_since_ms.load(Ordering::Relaxed), **number);
        let Some((_, idlest)) = candidates.min_by_key(rank) else { return false };
        idlest.is_told_to_close.store(true, Ordering::Release);
        idlest.task.wake();
        true
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0.origin).as_millis();
        u64::try_from(since).unwrap_or(BUSY - 1)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A map that counts is not left half done.
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn is_candidate(&self, of: Option<&Arc<AddressUse>>) -> bool {
        let is_of = match (of, &self.address) {
            (Some(of), Some(address)) => Arc::ptr_eq(of, address.usage()),
            (Some(_), None) => false,
            (None, _) => true,
        };
        is_of
            && self.quiet_since_ms.load(Ordering::Relaxed) != BUSY
            && !self.is_told_to_close.load(Ordering::Relaxed)
    }
}

impl OpenConnection {
    /// The address of the peer, unless it is exempt.
    pub(crate) fn address(&self) -> Option<&Address> {
        self.slot.address.as_ref()
    }

    /// From now on a request is in work.
    pub(crate) fn set_busy(&self) {
        self.slot.quiet_since_ms.store(BUSY, Ordering::Relaxed);
    }

    /// From now on no request is in work.
    pub(crate) fn set_quiet(&self, now: Instant) {
        self.slot.quiet_since_ms.store(self.connections.millis(now), Ordering::Relaxed);
    }

    /// Whether another connection needs the place of this one.
    pub(crate) fn is_told_to_close(&self) -> bool {
        self.slot.is_told_to_close.load(Ordering::Acquire)
    }

    /// The same, and wakes the task once that is so.
    pub(crate) fn poll_told_to_close(&self, cx: &Context<'_>) -> Poll<()> {
        self.slot.task.register(cx.waker());
        if self.is_told_to_close() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Resolves once another connection needs the place of this one.
    pub(crate) async fn told_to_close(&self) {
        poll_fn(|cx| self.poll_told_to_close(cx)).await;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.slots().open.remove(&self.number);
        if let Some(address) = &self.slot.address {
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
            Opened::Full(_) => panic!("it is full"),
        }
    }

    #[test]
    fn the_idlest_quiet_connection_gives_way() {
        let start = monotonic::now();
        let connections = OpenConnections::new(3, 3, start);
        let open = |second| connections.open(None, start + Duration::from_secs(second));
        let held: Vec<_> = (0..3).map(|second| yes(open(second))).collect();
        held[0].set_busy();
        let newcomer = yes(open(3));
        assert_eq!([0, 1, 2].map(|at| held[at].is_told_to_close()), [false, true, false]);
        newcomer.set_busy();
        held[2].set_busy();
        assert!(matches!(open(4), Opened::Full(_)), "one is told already, the others are in use");
        drop(held);
        assert_eq!(connections.count(), 1);
    }

    #[test]
    fn an_address_gives_way_to_itself_alone() {
        let start = monotonic::now();
        let (book, connections) = (AddressBook::new(), OpenConnections::new(10, 2, start));
        let hog = book.enter([192, 0, 2, 1].into());
        let other = yes(connections.open(Some(book.enter([192, 0, 2, 2].into())), start));
        let mut held: Vec<_> = (0..2).map(|_| yes(connections.open(Some(hog.clone()), start))).collect();
        held.push(yes(connections.open(Some(hog.clone()), start)));
        assert_eq!(held.iter().filter(|connection| connection.is_told_to_close()).count(), 1);
        assert!(!other.is_told_to_close());
        held.iter().for_each(OpenConnection::set_busy);
        assert!(matches!(connections.open(Some(hog.clone()), start), Opened::AddressIsFull));
        drop(held);
        assert_eq!(hog.usage().connections.load(Ordering::Relaxed), 0);
    }
}
