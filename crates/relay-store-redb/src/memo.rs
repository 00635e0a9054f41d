//! Queues that were looked at lately: their numbers, rows and owners, so that neither a request nor the sweep has to look them up in
//! every layer and in the index over and over.
//!
//! It says what the rows say, or nothing. Who changes a row of a queue keeps it up to date; who takes changes back has it forget.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use relay_core::Recipient;

use crate::schema::QueueRow;

/// How many queues a generation holds, and how many items in their rows. There are two generations: what is in use stays, and the rest goes when a
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
    row: Option<Arc<QueueRow>>,
    owner: Option<Recipient>,
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

    pub(crate) fn row(&self, queue: u64) -> Option<Arc<QueueRow>> {
        self.generations.borrow_mut().known(queue)?.row.clone()
    }

    pub(crate) fn keep_row(&self, queue: u64, row: Arc<QueueRow>) {
        self.change(queue, |known| known.row = Some(row));
    }

    pub(crate) fn owner(&self, queue: u64) -> Option<Recipient> {
        self.generations.borrow_mut().known(queue)?.owner.clone()
    }

    pub(crate) fn keep_owner(&self, queue: u64, owner: Recipient) {
        self.change(queue, |known| known.owner = Some(owner));
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
        self.row.as_ref().and_then(|row| row.here()).map_or(0, <[_]>::len)
    }
}

#[cfg(test)]
mod tests {
    use relay_core::Seq;

    use super::*;
    use crate::schema::ItemRow;

    fn row(acked: u64) -> Arc<QueueRow> {
        Arc::new(QueueRow { acked, ..QueueRow::default() })
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
    fn it_holds_so_many_items_and_no_more() {
        let memo = Memo::default();
        let queues = 4 * GENERATION_ITEMS as u64 / 16;
        for queue in 0..queues {
            memo.keep_row(queue, Arc::new(QueueRow::holding((0..16).map(item).collect())));
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
        assert!(memo.row(queues - 1).is_some() && memo.row(0).is_none());
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
        assert_eq!(memo.generations.borrow().old.queues.get(&1).map(|known| known.row.clone()), None);
        assert_eq!((memo.row(2), memo.name(&name(2))), (None, None));
        memo.forget_all();
        assert_eq!((memo.row(1), memo.name(&name(10))), (None, None));
    }
}
