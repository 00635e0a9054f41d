//! Who waits for arrivals in which queue, so that nobody has to poll.
//!
//! No wake-up is lost if a waiter *registers, then looks* into the queue, *then sleeps*, and a
//! store makes an item *visible, then wakes*. Whichever of the two comes second sees the other: the
//! look finds the item, or the store finds the waiter.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::message::Recipient;

/// With several shards, threads rarely wait for each other.
const SHARDS: usize = 16;

/// The table of all waiters. Clones share it.
#[derive(Clone, Default)]
pub struct Waiters(Arc<Table>);

#[derive(Default)]
struct Table {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// The number of waiters, so that a wake without any takes no lock.
    count: AtomicUsize,
}

type Shard = HashMap<Recipient, Vec<Arc<Slot>>>;

/// Waits for arrivals in one queue, until it is dropped.
pub struct Waiter {
    table: Arc<Table>,
    recipient: Recipient,
    slot: Arc<Slot>,
}

/// What a waiter and its wakers share.
#[derive(Default)]
struct Slot(Mutex<SlotState>);

#[derive(Default)]
struct SlotState {
    is_woken: bool,
    task: Option<Waker>,
}

/// The queue has as many waiters as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyWaiters {
    /// How many it may have.
    pub limit: usize,
}

impl Waiters {
    /// How many waiters one queue may have. A recipient rarely has more devices, and each push
    /// wakes all of them.
    pub const PER_RECIPIENT_MAX: usize = 8;

    /// A table without waiters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a waiter. The caller looks into the queue next, and only then sleeps.
    ///
    /// # Errors
    /// [`TooManyWaiters`] if the queue has [`Self::PER_RECIPIENT_MAX`] already.
    pub fn register(&self, recipient: &Recipient) -> Result<Waiter, TooManyWaiters> {
        let slot = Arc::<Slot>::default();
        let mut shard = self.0.shard(recipient);
        let slots = shard.entry(recipient.clone()).or_default();
        if slots.len() >= Self::PER_RECIPIENT_MAX {
            return Err(TooManyWaiters { limit: Self::PER_RECIPIENT_MAX });
        }
        slots.reserve_exact(1);
        slots.push(Arc::clone(&slot));
        self.0.count.fetch_add(1, Ordering::SeqCst);
        drop(shard);
        // With the one in `wake`: the caller's look sees the item, or `wake` sees the count.
        fence(Ordering::SeqCst);
        Ok(Waiter { table: Arc::clone(&self.0), recipient: recipient.clone(), slot })
    }

    /// Wakes all waiters of a queue. The store calls this after it has made an item visible.
    /// Returns whether there is any.
    pub fn wake(&self, recipient: &Recipient) -> bool {
        if self.is_idle() {
            return false;
        }
        let shard = self.0.shard(recipient);
        let Some(slots) = shard.get(recipient) else { return false };
        let tasks: Vec<Waker> = slots.iter().filter_map(|slot| slot.wake()).collect();
        // A waker may run code of its own, which could use this table.
        drop(shard);
        tasks.into_iter().for_each(Waker::wake);
        true
    }

    /// Whether anybody waits for arrivals in a queue, at this moment.
    #[must_use]
    pub fn has(&self, recipient: &Recipient) -> bool {
        !self.is_idle() && self.0.shard(recipient).contains_key(recipient)
    }

    /// Whether nobody waits. A store that has made items visible may skip [`Self::wake`] then.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        fence(Ordering::SeqCst);
        self.count() == 0
    }

    /// The number of waiters.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }
}

impl Table {
    fn shard(&self, recipient: &Recipient) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(recipient)).unwrap_or_default() % SHARDS;
        lock(self.shards.get(index).expect("the remainder is below the number of shards"))
    }
}

impl Waiter {
    /// Resolves when an item has arrived since the waiter registered, or since the last call
    /// resolved. The item may be gone already, so the caller looks into the queue again.
    pub async fn woken(&mut self) {
        poll_fn(|cx| {
            let mut state = lock(&self.slot.0);
            if std::mem::take(&mut state.is_woken) {
                return Poll::Ready(());
            }
            if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                state.task = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.recipient);
        if let Some(slots) = shard.get_mut(&self.recipient) {
            slots.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
            if slots.is_empty() {
                shard.remove(&self.recipient);
            }
        }
        self.table.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slot {
    /// Marks the waiter as woken. Returns its task, which the caller must wake.
    fn wake(&self) -> Option<Waker> {
        let mut state = lock(&self.0);
        state.is_woken = true;
        state.task.take()
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

/// Ignores poisoning: a panic under this lock leaves no partial change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
