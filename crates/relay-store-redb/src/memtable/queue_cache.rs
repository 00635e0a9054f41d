//! Queues that were looked at lately: their numbers, rows and owners, so that neither a request nor
//! the sweep has to look them up in every memtable and in the index over and over.
//!
//! It says what the rows say, or nothing. Who changes a row of a queue keeps it up to date; who
//! takes changes back has it forget.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{UnitWeighter, Weighter};
use relay_core::{Front, Recipient, Seq, Timestamp, Usage};

use crate::format::QueueRow;
use crate::format::packed_items::PackedItems;

/// How many names are known.
const RECIPIENTS: usize = 1 << 17;

/// What the rows that are known may weigh: as much as 100,000 queues of seven items.
const ROWS_WEIGHT: u64 = 3 << 19;
/// What one weighs without items, as it is in memory: as much as so many of them.
const QUEUE_WEIGHT: u64 = 8;
const QUEUES: usize = (ROWS_WEIGHT / QUEUE_WEIGHT) as usize;

/// What is known of queues.
pub(crate) struct QueueCache {
    recipients: RefCell<Cache<Recipient, u64>>,
    /// The name that was asked for last, and its queue: a request asks for one name many times.
    latest: RefCell<Option<(Recipient, u64)>>,
    /// The numbers are the store's own, so that nobody can choose them to collide.
    queues: RefCell<Cache<u64, CachedQueue, ByItems, RandomState>>,
    /// How many damaged items were passed over on the way.
    passed_over: Cell<u64>,
}

#[derive(Clone, Debug, Default)]
struct CachedQueue {
    row: Option<Arc<QueueRow>>,
    owner: Option<Recipient>,
    front: Option<Box<CachedFront>>,
}

/// Where the live part of a queue begins, which takes a search where items lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CachedFront {
    pub(crate) front: Front,
    /// The deadline of the first live item: until then the front is where it is, although items
    /// before it may go.
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
    /// One that knows nothing. It takes memory as it learns.
    fn default() -> Self {
        let (hasher, lifecycle) = (RandomState::default(), DefaultLifecycle::default());
        let queues = Cache::with(QUEUES, ROWS_WEIGHT, ByItems, hasher, lifecycle);
        Self {
            recipients: RefCell::new(Cache::with_weighter(RECIPIENTS, RECIPIENTS as u64, UnitWeighter)),
            latest: RefCell::default(),
            queues: RefCell::new(queues),
            passed_over: Cell::default(),
        }
    }
}

impl QueueCache {
    /// One that has room for all that it will learn. To make more takes 10 to 50 ms, when it has
    /// learned much.
    pub(crate) fn with_room() -> Self {
        let cache = Self::default();
        cache.recipients.borrow_mut().reserve(RECIPIENTS);
        cache.queues.borrow_mut().reserve(QUEUES);
        cache
    }

    pub(crate) fn note_passed_over(&self) {
        self.passed_over.set(self.passed_over.get() + 1);
    }

    pub(crate) fn passed_over(&self) -> u64 {
        self.passed_over.get()
    }

    pub(crate) fn queue_number(&self, recipient: &Recipient) -> Option<u64> {
        let mut latest = self.latest.borrow_mut();
        if let Some((name, queue)) = &*latest
            && name == recipient
        {
            return Some(*queue);
        }
        let queue = self.recipients.borrow().get(recipient).copied()?;
        *latest = Some((recipient.clone(), queue));
        Some(queue)
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
        self.change(queue, |known| known.row = Some(row));
    }

    pub(crate) fn owner(&self, queue: u64) -> Option<Recipient> {
        self.queues.borrow().get(&queue)?.owner.clone()
    }

    pub(crate) fn keep_owner(&self, queue: u64, owner: Recipient) {
        self.change(queue, |known| known.owner = Some(owner));
    }

    pub(crate) fn front(&self, queue: u64) -> Option<CachedFront> {
        self.queues.borrow().get(&queue)?.front.as_deref().copied()
    }

    pub(crate) fn keep_front(&self, queue: u64, front: CachedFront) {
        self.change(queue, |known| known.front = Some(Box::new(front)));
    }

    /// An item is taken out of a queue.
    pub(crate) fn take_from_front(&self, queue: u64, seq: Seq, taken: Usage) {
        if let Some(mut known) = self.queues.borrow_mut().get_mut(&queue)
            && let Some(CachedFront { front, .. }) = known.front.as_deref_mut()
            && seq < front.live_from
        {
            front.expired = front.expired.minus(taken);
        }
    }

    /// All items of a queue up to `through` are taken out of it, which were expired.
    pub(crate) fn trim_front(&self, queue: u64, through: Seq, taken: Usage) {
        if let Some(mut known) = self.queues.borrow_mut().get_mut(&queue) {
            // One that was known before they were expired is of no use.
            known.front = known.front.take().filter(|known| through < known.front.live_from);
            if let Some(CachedFront { front, .. }) = known.front.as_deref_mut() {
                front.expired = front.expired.minus(taken);
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

    fn change(&self, queue: u64, change: impl FnOnce(&mut CachedQueue)) {
        let mut queues = self.queues.borrow_mut();
        if let Some(mut known) = queues.get_mut(&queue) {
            return change(&mut known);
        }
        let mut known = CachedQueue::default();
        change(&mut known);
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

    fn name(number: u64) -> Recipient {
        Recipient::parse(&format!("name {number}")).unwrap()
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = QueueCache::default();
        for queue in 0..3 * QUEUES as u64 {
            cache.keep_recipient(name(queue), queue);
            cache.keep_row(queue, row(queue % 49));
            assert_eq!((cache.queue_number(&name(0)), cache.row(0)), (Some(0), Some(row(0))), "at {queue}");
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
    fn it_says_what_was_kept_last_or_nothing() {
        let cache = QueueCache::default();
        cache.keep_row(1, row(1));
        cache.keep_owner(1, name(1));
        cache.keep_recipient(name(2), 2);
        cache.keep_row(1, row(7));
        assert_eq!(
            (cache.row(1), cache.owner(1), cache.queue_number(&name(2))),
            (Some(row(7)), Some(name(1)), Some(2))
        );
        cache.forget_queue(1);
        cache.forget_recipient(&name(2));
        assert_eq!((cache.row(1), cache.owner(1), cache.queue_number(&name(2))), (None, None, None));
        cache.keep_row(3, row(3));
        cache.keep_recipient(name(3), 3);
        cache.forget_all();
        assert_eq!((cache.row(3), cache.queue_number(&name(3))), (None, None));
    }
}
