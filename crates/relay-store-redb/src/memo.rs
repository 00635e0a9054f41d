//! Queues that were looked at lately: their numbers, rows and owners, and the items of those that hold few, so that neither a request
//! nor the sweep has to look them up in every layer and in the index over and over.
//!
//! It says what the rows say, or nothing. Who changes a row of a queue keeps it up to date; who takes changes back has it forget.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use relay_core::{Recipient, Seq};

use crate::schema::{ItemRow, QueueRow};

/// How many queues a generation holds, and how many items. There are two generations: what is in use stays, and the rest goes when a
/// new one begins. A hash table of a power of two is filled to seven eighths.
const GENERATION_QUEUES: usize = 7 << 13;
const GENERATION_ITEMS: usize = 1 << 18;

/// What is known of queues.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    generations: RefCell<Generations>,
    /// How many damaged items were passed over on the way.
    passed_over: Cell<u64>,
}

#[derive(Debug, Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    names: HashMap<Recipient, u64>,
    queues: HashMap<u64, Known>,
    /// How many items `queues` hold.
    items: usize,
}

#[derive(Debug, Default)]
struct Known {
    row: Option<QueueRow>,
    owner: Option<Recipient>,
    /// All of them, in order, if they are known.
    items: Option<Vec<ItemRow>>,
}

impl Memo {
    pub(crate) fn note_passed_over(&self) {
        self.passed_over.set(self.passed_over.get() + 1);
    }

    pub(crate) fn passed_over(&self) -> u64 {
        self.passed_over.get()
    }

    pub(crate) fn name(&self, recipient: &Recipient) -> Option<u64> {
        let mut generations = self.generations.borrow_mut();
        if let Some(queue) = generations.young.names.get(recipient) {
            return Some(*queue);
        }
        let (recipient, queue) = generations.old.names.remove_entry(recipient)?;
        generations.keep_name(recipient, queue);
        Some(queue)
    }

    pub(crate) fn keep_name(&self, recipient: Recipient, queue: u64) {
        self.generations.borrow_mut().keep_name(recipient, queue);
    }

    pub(crate) fn forget_name(&self, recipient: &Recipient) {
        let Generations { young, old } = &mut *self.generations.borrow_mut();
        young.names.remove(recipient);
        old.names.remove(recipient);
    }

    pub(crate) fn row(&self, queue: u64) -> Option<QueueRow> {
        self.generations.borrow_mut().known(queue)?.row
    }

    pub(crate) fn keep_row(&self, queue: u64, row: QueueRow) {
        self.change(queue, |known| known.row = Some(row));
    }

    pub(crate) fn owner(&self, queue: u64) -> Option<Recipient> {
        self.generations.borrow_mut().known(queue)?.owner.clone()
    }

    pub(crate) fn keep_owner(&self, queue: u64, owner: Recipient) {
        self.change(queue, |known| known.owner = Some(owner));
    }

    /// What `look` finds in all items of the queue, in order; `None` when they are not known.
    pub(crate) fn items<T>(&self, queue: u64, look: impl FnOnce(&[ItemRow]) -> T) -> Option<T> {
        self.generations.borrow_mut().known(queue)?.items.as_deref().map(look)
    }

    /// Takes note of all items of a queue.
    pub(crate) fn keep_items(&self, queue: u64, items: Vec<ItemRow>) {
        self.change(queue, |known| known.items = Some(items));
    }

    /// An item was put at the end of the queue.
    pub(crate) fn add_item(&self, queue: u64, item: ItemRow) {
        self.change(queue, |known| {
            if let Some(items) = &mut known.items {
                items.push(item);
            }
        });
    }

    /// An item was taken out of the queue.
    pub(crate) fn remove_item(&self, queue: u64, seq: Seq) {
        self.change(queue, |known| {
            if let Some(items) = &mut known.items {
                items.retain(|item| item.seq != seq);
            }
        });
    }

    /// Its items are many now, or changed.
    pub(crate) fn forget_items(&self, queue: u64) {
        self.change(queue, |known| known.items = None);
    }

    pub(crate) fn forget_queue(&self, queue: u64) {
        let Generations { young, old } = &mut *self.generations.borrow_mut();
        young.take(queue);
        old.take(queue);
    }

    pub(crate) fn forget_all(&self) {
        self.generations.take();
    }

    fn change(&self, queue: u64, change: impl FnOnce(&mut Known)) {
        self.generations.borrow_mut().change(queue, change);
    }
}

impl Generations {
    fn keep_name(&mut self, recipient: Recipient, queue: u64) {
        if self.young.names.len() >= GENERATION_QUEUES {
            self.old.names = std::mem::take(&mut self.young.names);
        }
        self.young.names.insert(recipient, queue);
    }

    /// What is known of the queue, in the young generation.
    fn known(&mut self, queue: u64) -> Option<&Known> {
        if !self.young.queues.contains_key(&queue) {
            let known = self.old.take(queue)?;
            self.insert(queue, known);
        }
        self.young.queues.get(&queue)
    }

    fn change(&mut self, queue: u64, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.young.queues.get_mut(&queue) {
            let before = known.items();
            change(known);
            self.young.items = (self.young.items + known.items()).saturating_sub(before);
            return;
        }
        let mut known = self.old.take(queue).unwrap_or_default();
        change(&mut known);
        self.insert(queue, known);
    }

    fn insert(&mut self, queue: u64, known: Known) {
        let young = &mut self.young;
        if young.queues.len() >= GENERATION_QUEUES || young.items >= GENERATION_ITEMS {
            self.old.queues = std::mem::take(&mut young.queues);
            self.old.items = std::mem::take(&mut young.items);
        }
        young.items += known.items();
        young.queues.insert(queue, known);
    }
}

impl Generation {
    fn take(&mut self, queue: u64) -> Option<Known> {
        let known = self.queues.remove(&queue)?;
        self.items = self.items.saturating_sub(known.items());
        Some(known)
    }
}

impl Known {
    fn items(&self) -> usize {
        self.items.as_ref().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use relay_core::Usage;

    use super::*;

    fn row(items: u64) -> QueueRow {
        QueueRow { usage: Usage { items, bytes: 0 }, ..QueueRow::default() }
    }

    fn name(number: u64) -> Recipient {
        Recipient::parse(&format!("name {number}")).unwrap()
    }

    #[test]
    fn what_is_used_outlives_generations_and_the_rest_goes() {
        let memo = Memo::default();
        let queues = 5 * GENERATION_QUEUES as u64;
        for queue in 0..queues {
            memo.keep_name(name(queue), queue);
            memo.keep_row(queue, row(queue));
            assert_eq!((memo.name(&name(0)), memo.row(0)), (Some(0), Some(row(0))), "at {queue}");
        }
        assert_eq!((memo.name(&name(1)), memo.row(1)), (None, None));
        let held = memo.generations.borrow();
        for generation in [&held.young, &held.old] {
            assert!(
                generation.names.len() <= GENERATION_QUEUES && generation.queues.len() <= GENERATION_QUEUES
            );
        }
    }

    fn item(seq: u64) -> ItemRow {
        let location = relay_journal::Location { segment: 1, offset: 0, length: 1 };
        ItemRow { seq: Seq::new(seq), ..ItemRow::new(&crate::samples::item(), location) }
    }

    #[test]
    fn items_are_known_all_or_not_at_all() {
        let memo = Memo::default();
        let seqs = || memo.items(1, |items| items.iter().map(|item| item.seq.as_u64()).collect::<Vec<_>>());
        memo.add_item(1, item(5));
        assert_eq!(seqs(), None, "there may be others before it");
        memo.keep_items(1, vec![item(5), item(6)]);
        memo.add_item(1, item(7));
        memo.remove_item(1, Seq::new(6));
        assert_eq!(seqs(), Some(vec![5, 7]));
        memo.forget_items(1);
        assert_eq!(seqs(), None);
    }

    #[test]
    fn it_holds_so_many_items_and_no_more() {
        let memo = Memo::default();
        let queues = 4 * GENERATION_ITEMS as u64 / 16;
        for queue in 0..queues {
            memo.keep_items(queue, (0..16).map(item).collect());
            let held = memo.generations.borrow();
            for generation in [&held.young, &held.old] {
                let items: usize = if queue % 4096 == 0 {
                    generation.queues.values().map(Known::items).sum()
                } else {
                    generation.items
                };
                assert_eq!(items, generation.items);
                assert!(items <= GENERATION_ITEMS + 16);
            }
        }
        assert!(memo.items(queues - 1, |_| ()).is_some() && memo.items(0, |_| ()).is_none());
    }

    #[test]
    fn what_is_changed_or_forgotten_does_not_come_back_from_the_old_generation() {
        let memo = Memo::default();
        memo.keep_row(1, row(1));
        memo.keep_owner(1, name(1));
        memo.keep_row(2, row(2));
        memo.keep_name(name(2), 2);
        for queue in 10..10 + GENERATION_QUEUES as u64 {
            memo.keep_row(queue, row(queue));
            memo.keep_name(name(queue), queue);
        }
        memo.keep_row(1, row(7));
        memo.forget_queue(2);
        memo.forget_name(&name(2));
        assert_eq!((memo.row(1), memo.owner(1)), (Some(row(7)), Some(name(1))));
        assert_eq!(memo.generations.borrow().old.queues.get(&1).map(|known| known.row), None);
        assert_eq!((memo.row(2), memo.name(&name(2))), (None, None));
        memo.forget_all();
        assert_eq!((memo.row(1), memo.name(&name(10))), (None, None));
    }
}
