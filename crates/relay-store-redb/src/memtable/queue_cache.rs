//! A cache of recently used queues: their numbers, rows, owners and fronts. It spares requests
//! repeated lookups in every memtable and in the index.
//!
//! It agrees with the rows. Code that changes the row of a queue updates the cache too, and code
//! that reverts changes clears what they touched.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{UnitWeighter, Weighter};
use relay_core::{Front, Recipient, Seq, Timestamp, Usage};

use crate::format::QueueRow;
use crate::format::packed_items::PackedItems;

/// The capacity for recipients.
const RECIPIENTS: usize = 1 << 17;

/// The capacity for queues, in weight: 100,000 queues of seven items.
const ROWS_WEIGHT: u64 = 3 << 19;
/// The weight of a queue without items. It takes as much memory as so many items.
const QUEUE_WEIGHT: u64 = 8;
const QUEUES: usize = (ROWS_WEIGHT / QUEUE_WEIGHT) as usize;

/// The cache. Entries that were not used lately make space for others.
pub(crate) struct QueueCache {
    recipients: RefCell<Cache<Recipient, u64>>,
    /// The recipient of the last lookup, and its queue: a request looks up one many times.
    latest: RefCell<Option<(Recipient, Option<u64>)>>,
    /// The store assigns the numbers, so nobody can choose them to collide.
    queues: RefCell<Cache<u64, CachedQueue, ByItems, RandomState>>,
    skipped_items: Cell<u64>,
}

#[derive(Clone, Debug, Default)]
struct CachedQueue {
    row: Option<Arc<QueueRow>>,
    owner: Option<Recipient>,
    front: Option<Box<CachedFront>>,
}

/// Where the live part of a queue begins. A spilled queue must be searched for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CachedFront {
    pub(crate) front: Front,
    /// The deadline of the first live item. Until then the front stays where it is, although items
    /// in front of it may be removed.
    pub(crate) until: Timestamp,
}

/// A queue weighs [`QUEUE_WEIGHT`], and one for each item in its row.
#[derive(Clone, Copy, Debug)]
struct ByItems;

impl Weighter<u64, CachedQueue> for ByItems {
    fn weight(&self, _: &u64, known: &CachedQueue) -> u64 {
        let items = known.row.as_ref().and_then(|row| row.inline()).map_or(0, PackedItems::len);
        QUEUE_WEIGHT + items as u64
    }
}

impl Default for QueueCache {
    /// An empty cache, which allocates memory as it fills.
    fn default() -> Self {
        let (hasher, lifecycle) = (RandomState::default(), DefaultLifecycle::default());
        let queues = Cache::with(QUEUES, ROWS_WEIGHT, ByItems, hasher, lifecycle);
        Self {
            recipients: RefCell::new(Cache::with_weighter(RECIPIENTS, RECIPIENTS as u64, UnitWeighter)),
            latest: RefCell::default(),
            queues: RefCell::new(queues),
            skipped_items: Cell::default(),
        }
    }
}

impl QueueCache {
    /// An empty cache with all of its memory. Growing a large one would take 10 to 50 ms.
    pub(crate) fn preallocated() -> Self {
        let cache = Self::default();
        cache.recipients.borrow_mut().reserve(RECIPIENTS);
        cache.queues.borrow_mut().reserve(QUEUES);
        cache
    }

    pub(crate) fn note_skipped_item(&self) {
        self.skipped_items.set(self.skipped_items.get() + 1);
    }

    /// The number of corrupt items that reads through this cache have skipped.
    pub(crate) fn skipped_items(&self) -> u64 {
        self.skipped_items.get()
    }

    /// The number of the recipient's queue, if that is known; `Some(None)` if it is known that
    /// there is no queue.
    pub(crate) fn queue_number(&self, recipient: &Recipient) -> Option<Option<u64>> {
        let mut latest = self.latest.borrow_mut();
        if let Some((known, queue)) = &*latest
            && known == recipient
        {
            return Some(*queue);
        }
        let queue = self.recipients.borrow().get(recipient).copied()?;
        *latest = Some((recipient.clone(), Some(queue)));
        Some(Some(queue))
    }

    /// The recipient has no queue. This is remembered until another one is looked up.
    pub(crate) fn note_missing(&self, recipient: Recipient) {
        *self.latest.borrow_mut() = Some((recipient, None));
    }

    pub(crate) fn keep_recipient(&self, recipient: Recipient, queue: u64) {
        *self.latest.borrow_mut() = None;
        self.recipients.borrow_mut().insert(recipient, queue);
    }

    pub(crate) fn forget_recipient(&self, recipient: &Recipient) {
        *self.latest.borrow_mut() = None;
        self.recipients.borrow_mut().remove(recipient);
    }

    pub(crate) fn row(&self, queue: u64) -> Option<Arc<QueueRow>> {
        self.queues.borrow().get(&queue)?.row.clone()
    }

    pub(crate) fn keep_row(&self, queue: u64, row: Arc<QueueRow>) {
        self.update(queue, |known| known.row = Some(row));
    }

    pub(crate) fn owner(&self, queue: u64) -> Option<Recipient> {
        self.queues.borrow().get(&queue)?.owner.clone()
    }

    pub(crate) fn keep_owner(&self, queue: u64, owner: Recipient) {
        self.update(queue, |known| known.owner = Some(owner));
    }

    pub(crate) fn front(&self, queue: u64) -> Option<CachedFront> {
        self.queues.borrow().get(&queue)?.front.as_deref().copied()
    }

    pub(crate) fn keep_front(&self, queue: u64, front: CachedFront) {
        self.update(queue, |known| known.front = Some(Box::new(front)));
    }

    /// Updates the front for the removal of an item. After that of the last one it is unknown: the
    /// next one may have an earlier bound.
    pub(crate) fn remove_from_front(&self, queue: u64, seq: Seq, removed: Usage, is_last: bool) {
        let mut queues = self.queues.borrow_mut();
        let Some(mut known) = queues.get_mut(&queue) else { return };
        if is_last {
            known.front = None;
        } else if let Some(CachedFront { front, .. }) = known.front.as_deref_mut()
            && seq < front.live_from
        {
            front.expired = front.expired.minus(removed);
        }
    }

    /// Updates the front for the removal of all items up to `through`, which had expired.
    pub(crate) fn trim_front(&self, queue: u64, through: Seq, removed: Usage) {
        if let Some(mut known) = self.queues.borrow_mut().get_mut(&queue) {
            // A front from before they expired is useless.
            known.front = known.front.take().filter(|known| through < known.front.live_from);
            if let Some(CachedFront { front, .. }) = known.front.as_deref_mut() {
                front.expired = front.expired.minus(removed);
            }
        }
    }

    pub(crate) fn forget_queue(&self, queue: u64) {
        self.queues.borrow_mut().remove(&queue);
    }

    pub(crate) fn forget_all(&self) {
        *self.latest.borrow_mut() = None;
        self.recipients.borrow_mut().clear();
        self.queues.borrow_mut().clear();
    }

    fn update(&self, queue: u64, update: impl FnOnce(&mut CachedQueue)) {
        let mut queues = self.queues.borrow_mut();
        if let Some(mut known) = queues.get_mut(&queue) {
            return update(&mut known);
        }
        let mut known = CachedQueue::default();
        update(&mut known);
        queues.insert(queue, known);
    }
}

#[cfg(test)]
mod tests {
    use relay_core::Seq;

    use super::*;
    use crate::format::ItemRow;

    fn row(items: u64) -> Arc<QueueRow> {
        let item = crate::samples::item_row();
        let items = (0..items).map(|seq| ItemRow { seq: Seq::new(seq), ..item.clone() });
        Arc::new(QueueRow::holding(items.collect()))
    }

    fn recipient(number: u64) -> Recipient {
        Recipient::parse(&format!("recipient {number}")).unwrap()
    }

    #[test]
    fn used_entries_stay_within_the_capacity() {
        let cache = QueueCache::default();
        for queue in 0..3 * QUEUES as u64 {
            cache.keep_recipient(recipient(queue), queue);
            cache.keep_row(queue, row(queue % 49));
            assert_eq!(
                (cache.queue_number(&recipient(0)), cache.row(0)),
                (Some(Some(0)), Some(row(0))),
                "at {queue}"
            );
        }
        assert!(cache.recipients.borrow().len() <= RECIPIENTS);
        let queues = cache.queues.borrow();
        assert!(queues.weight() <= ROWS_WEIGHT);
        assert_eq!(
            queues.weight(),
            queues.iter().map(|(queue, known)| ByItems.weight(queue, known)).sum::<u64>()
        );
    }

    #[test]
    fn it_knows_that_there_is_no_queue_until_there_is_one() {
        let cache = QueueCache::default();
        assert_eq!(cache.queue_number(&recipient(1)), None);
        cache.note_missing(recipient(1));
        assert_eq!(cache.queue_number(&recipient(1)), Some(None));
        cache.keep_recipient(recipient(1), 7);
        assert_eq!(cache.queue_number(&recipient(1)), Some(Some(7)));
        cache.forget_recipient(&recipient(1));
        cache.note_missing(recipient(1));
        cache.forget_all();
        assert_eq!(cache.queue_number(&recipient(1)), None);
    }

    #[test]
    fn it_returns_the_last_value_or_nothing() {
        let cache = QueueCache::default();
        cache.keep_row(1, row(1));
        cache.keep_owner(1, recipient(1));
        cache.keep_recipient(recipient(2), 2);
        cache.keep_row(1, row(7));
        assert_eq!(
            (cache.row(1), cache.owner(1), cache.queue_number(&recipient(2))),
            (Some(row(7)), Some(recipient(1)), Some(Some(2)))
        );
        cache.forget_queue(1);
        cache.forget_recipient(&recipient(2));
        assert_eq!((cache.row(1), cache.owner(1), cache.queue_number(&recipient(2))), (None, None, None));
        cache.keep_row(3, row(3));
        cache.keep_recipient(recipient(3), 3);
        cache.forget_all();
        assert_eq!((cache.row(3), cache.queue_number(&recipient(3))), (None, None));
    }
}
