//! Counts open connections, and chooses the one to close when a new one needs its slot. A
//! connection is quiet while it has no request in flight. The one that has been quiet longest is
//! closed first. This file closes nothing itself, but asks the task of the connection to do so.
//!
//! A connection of a proxy that has not named its client yet counts apart, among a few: it may be
//! of anybody, so it never closes the connection of a client.

#[cfg(test)]
mod tests;

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
use crate::monotonic;

/// The value of `quiet_since_ms` while a request is in flight.
const BUSY: u64 = u64::MAX;

/// Of connections whose client is not known yet, there may be a twentieth of the maximum beside it,
/// and at least this many.
const UNNAMED_MIN: usize = 8;

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
    /// How many of them have a client that is not known yet.
    unnamed: usize,
}

/// What other tasks see of a connection.
struct Slot {
    /// Milliseconds since the origin of the table, or [`BUSY`].
    quiet_since_ms: AtomicU64,
    is_close_requested: AtomicBool,
    /// Changes under the lock of the table.
    is_unnamed: AtomicBool,
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
        let is_named = |slot: &&Arc<Slot>| !slot.is_unnamed.load(Ordering::Relaxed);
        let mut total = slots.open.values().filter(stays).filter(is_named).count();
        let mut of_addresses: HashMap<*const AddressUse, usize> = HashMap::new();
        for address in slots.open.values().filter(stays).filter_map(|slot| slot.address.get()) {
            *of_addresses.entry(Arc::as_ptr(address.usage())).or_default() += 1;
        }
        let mut quiet: Vec<_> =
            slots.open.values().filter(|slot| slot.may_be_closed()).filter(is_named).collect();
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
        let mut slots = self.slots();
        if !self.make_room(&slots) {
            drop(slots);
            if let Some(of) = &address {
                of.usage().connections.fetch_sub(1, Ordering::Relaxed);
            }
            return Opened::Full(address);
        }
        Opened::Yes(self.insert(&mut slots, address, false, now))
    }

    /// Adds a connection that was accepted at `now`, and whose client is not known yet. If there
    /// are too many of them, the oldest is asked to close. Returns `None` if all are asked already.
    pub(crate) fn open_unnamed(&self, now: Instant) -> Option<OpenConnection> {
        let mut slots = self.slots();
        let is_full = slots.unnamed >= (self.0.max.load(Ordering::Relaxed) / 20).max(UNNAMED_MIN);
        if is_full && !slots.close_idlest(|slot| slot.is_unnamed.load(Ordering::Relaxed)) {
            return None;
        }
        Some(self.insert(&mut slots, None, true, now))
    }

    /// Whether a client has a place, perhaps that of a connection which is now asked to close.
    fn make_room(&self, slots: &Slots) -> bool {
        slots.open.len() - slots.unnamed < self.0.max.load(Ordering::Relaxed)
            || slots.close_idlest(|slot| !slot.is_unnamed.load(Ordering::Relaxed))
    }

    fn insert(
        &self,
        slots: &mut Slots,
        address: Option<Address>,
        is_unnamed: bool,
        now: Instant,
    ) -> OpenConnection {
        let slot = Arc::new(Slot {
            quiet_since_ms: AtomicU64::new(self.millis(now)),
            is_close_requested: AtomicBool::new(false),
            is_unnamed: AtomicBool::new(is_unnamed),
            task: AtomicWaker::new(),
            address: address.map_or_else(OnceLock::new, OnceLock::from),
        });
        let number = slots.next;
        slots.next += 1;
        slots.unnamed += usize::from(is_unnamed);
        slots.open.insert(number, Arc::clone(&slot));
        OpenConnection { connections: self.clone(), number, slot }
    }

    /// Counts a connection for an address. Returns false if the address has as many as it may, and
    /// all are busy.
    fn count_for(&self, of: &Address) -> bool {
        let count = &of.usage().connections;
        if !try_add(count, 1, self.0.per_address_max.load(Ordering::Relaxed)) {
            if !self.slots().close_idlest(|slot| slot.is_of(of.usage())) {
                return false;
            }
            // The other connection is about to close.
            count.fetch_add(1, Ordering::Relaxed);
        }
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

impl Slots {
    /// Asks the one of these connections that has been quiet longest to close. Returns false if
    /// none is quiet.
    fn close_idlest(&self, is_one: impl Fn(&Slot) -> bool) -> bool {
        let candidates = self.open.iter().filter(|(_, slot)| is_one(slot) && slot.may_be_closed());
        let rank =
            |(number, slot): &(&u64, &Arc<Slot>)| (slot.quiet_since_ms.load(Ordering::Relaxed), **number);
        let Some((_, idlest)) = candidates.min_by_key(rank) else { return false };
        idlest.ask_to_close();
        true
    }
}

impl Slot {
    fn ask_to_close(&self) {
        self.is_close_requested.store(true, Ordering::Release);
        self.task.wake();
    }

    fn is_of(&self, of: &Arc<AddressUse>) -> bool {
        self.address.get().is_some_and(|address| Arc::ptr_eq(of, address.usage()))
    }

    fn may_be_closed(&self) -> bool {
        self.quiet_since_ms.load(Ordering::Relaxed) != BUSY
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

    /// Takes the place of a client, now that the proxy has named one and it is admitted. Waits
    /// while there is none.
    pub(crate) async fn take_place(&self) {
        while !self.try_take_place(monotonic::now()) {
            self.connections.one_closed().await;
        }
    }

    fn try_take_place(&self, now: Instant) -> bool {
        let mut slots = self.connections.slots();
        if !self.slot.is_unnamed.load(Ordering::Relaxed) {
            return true;
        }
        if !self.connections.make_room(&slots) {
            return false;
        }
        self.slot.is_unnamed.store(false, Ordering::Relaxed);
        slots.unnamed -= 1;
        drop(slots);
        self.set_quiet(now);
        true
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
        let mut slots = self.connections.slots();
        slots.open.remove(&self.number);
        slots.unnamed -= usize::from(self.slot.is_unnamed.load(Ordering::Relaxed));
        drop(slots);
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
