//! Write transactions, memtables, checkpoints and the index below them show the same rows as one
//! sorted map. Random changes are made, some rolled back, some never published, while checkpoints
//! begin, fail and end.

#[path = "write_model.rs"]
mod write_model;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::proptest;
use relay_core::{ItemId, Seq, Timestamp, Usage};
use relay_disk::{Class, Fault, SimDisk, Survival};
use relay_journal::{Location, Position};

use super::*;
use crate::format::record::{FrontSum, ItemRecord, item_head};
use crate::format::{Ends, ItemRow, SPILL_FROM_ITEMS};
use crate::index::Index;
use crate::naming::Naming;
use write_model::{
    Model, ModelChange, ModelStep, Request, change, expect, expect_excerpts, recipient, steps,
};

/// A version over an index on a disk in memory.
struct Stack {
    index: Index,
    version: Version,
    cache: QueueCache,
    at: Position,
}

impl Stack {
    fn on(disk: &SimDisk) -> Self {
        let index = Index::open(Arc::new(disk.clone()), Naming::Plain, 1 << 20).unwrap();
        let at = Position { segment: 1, offset: 36 };
        let version = Version::open(Arc::new(index.index_snapshot().unwrap()), at).unwrap();
        Self { index, version, cache: QueueCache::default(), at }
    }

    fn batch(&mut self, model: &mut Model, requests: &[Request], is_synced: bool) {
        let mut changed = model.clone();
        let mut txn = WriteTxn::new(&self.version, &self.cache);
        for request in requests {
            let previous = changed.clone();
            let numbers = txn.savepoint();
            request.changes.iter().for_each(|made| change(&mut txn, &mut changed, made));
            expect(txn.view(), &changed);
            if request.is_rolled_back {
                txn.rollback(numbers);
                changed = previous;
                expect(txn.view(), &changed);
            }
        }
        let memtable = txn.memtable;
        if is_synced {
            self.at.offset += 1;
            self.version.publish(memtable, self.at);
            *model = changed;
        } else {
            self.cache.forget_all();
        }
    }

    fn checkpoint(&mut self, is_known: bool) -> bool {
        let Some(sealed) = self.version.seal() else { return false };
        self.index.checkpoint(&sealed).unwrap();
        if is_known {
            self.version.install(Arc::new(self.index.index_snapshot().unwrap()));
        } else {
            self.version.install(Arc::new(self.index.reopen().unwrap()));
        }
        assert_eq!(self.version.index_snapshot().position, Some(sealed.position));
        true
    }

    /// Afterwards the index contains everything.
    fn rewrite(&mut self, model: &mut Model, mut batches: Vec<Vec<Request>>) {
        while self.checkpoint(true) {}
        let placeholder = Index::open(Arc::new(SimDisk::new()), Naming::Plain, 1 << 20).unwrap();
        let mut index = std::mem::replace(&mut self.index, placeholder);
        let index_snapshot = Arc::clone(self.version.index_snapshot());
        let rewritten = index.rewrite(index_snapshot, &mut |index| {
            let Some(requests) = batches.pop() else { return Ok(None) };
            self.batch(model, &requests, true);
            let Some(sealed) = self.version.seal() else { return Ok(None) };
            index.checkpoint(&sealed)?;
            let index_snapshot = Arc::new(index.index_snapshot()?);
            self.version.install(Arc::clone(&index_snapshot));
            Ok(Some((sealed, index_snapshot)))
        });
        drop(rewritten.unwrap());
        self.index = index;
        self.version.install(Arc::new(self.index.index_snapshot().unwrap()));
    }

    fn restart(&mut self) {
        let index_snapshot = Arc::new(self.index.reopen().unwrap());
        self.at = index_snapshot.position.unwrap_or(self.at);
        self.version = Version::open(index_snapshot, self.at).unwrap();
        self.cache.forget_all();
    }
}

proptest! {
    #![proptest_config(crate::samples::config())]

    #[test]
    fn a_version_shows_the_same_rows_as_a_map(steps in steps()) {
        let (mut stack, mut model) = (Stack::on(&SimDisk::new()), Model::default());
        let (mut sealed, mut durable) = (None, Model::default());
        for step in steps {
            match step {
                ModelStep::Batch(requests, is_synced) => stack.batch(&mut model, &requests, is_synced),
                ModelStep::Seal => {
                    if stack.version.seal().is_some() {
                        sealed.get_or_insert_with(|| model.clone());
                    }
                }
                ModelStep::Checkpoint(is_known) => {
                    if stack.checkpoint(is_known) {
                        durable = sealed.take().unwrap_or_else(|| model.clone());
                    }
                }
                ModelStep::Rewrite(batches) => {
                    stack.rewrite(&mut model, batches);
                    (durable, sealed) = (model.clone(), None);
                }
                ModelStep::Restart => {
                    stack.restart();
                    (model, sealed) = (durable.clone(), None);
                }
            }
            expect(stack.version.synced(), &model);
            expect_excerpts(&stack.version, &model);
            assert_eq!(stack.version.numbers(), model.numbers);
        }
    }
}

/// One sync of a checkpoint fails, whichever. The position in the reopened index is also there
/// after a power cut: maintenance relies on it to delete segments.
#[test]
fn the_position_of_a_reopened_index_is_durable() {
    for at in 0.. {
        let disk = SimDisk::new();
        let mut stack = Stack::on(&disk);
        for value in [1, 2] {
            let changes = vec![ModelChange::Row(1, 2, Some(value))];
            stack.batch(&mut Model::default(), &[Request { changes, is_rolled_back: false }], true);
            let sealed = stack.version.seal().unwrap();
            if value == 1 {
                stack.index.checkpoint(&sealed).unwrap();
                drop(stack.version.install(Arc::new(stack.index.index_snapshot().unwrap())));
                disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
            } else if stack.index.checkpoint(&sealed).is_ok() {
                assert!(at > 1, "a checkpoint syncs more than once");
                return;
            }
        }
        let held = stack.index.reopen().unwrap().position;
        let left = Index::open(Arc::new(disk.after_crash(Survival::None)), Naming::Plain, 1 << 20).unwrap();
        assert_eq!(left.index_snapshot().unwrap().position, held, "sync {at} failed");
    }
}

/// One sync of a rewrite of the index fails, whichever. The position of a later checkpoint is also
/// there after a power cut, whichever of the two files then has the name.
#[test]
fn the_position_of_an_index_after_a_failed_rewrite_is_durable() {
    for at in 0.. {
        let disk = SimDisk::new();
        let mut stack = Stack::on(&disk);
        let checkpoint = |stack: &mut Stack, value| {
            let changes = vec![ModelChange::Row(1, 2, Some(value))];
            stack.batch(&mut Model::default(), &[Request { changes, is_rolled_back: false }], true);
            assert!(stack.checkpoint(true));
        };
        checkpoint(&mut stack, 1);
        disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
        let index_snapshot = Arc::clone(stack.version.index_snapshot());
        if stack.index.rewrite(index_snapshot, &mut |_| Ok(None)).is_ok() {
            assert!(at > 1, "a rewrite syncs the file and its name");
            return;
        }
        let index_snapshot = stack.index.reopen().unwrap();
        drop(stack.version.install(Arc::new(index_snapshot)));
        checkpoint(&mut stack, 2);
        let left = Index::open(Arc::new(disk.after_crash(Survival::None)), Naming::Plain, 1 << 20).unwrap();
        assert_eq!(left.index_snapshot().unwrap().position, Some(stack.at), "sync {at} failed");
    }
}

/// Each item expires before the one in front of it.
#[test]
fn items_expire_before_those_in_front_of_them() {
    let stack = Stack::on(&SimDisk::new());
    let mut txn = WriteTxn::new(&stack.version, &stack.cache);
    let item = crate::samples::item_row();
    for number in 1..=2 * SPILL_FROM_ITEMS as u64 {
        let id = ItemId { chunk_index: u32::try_from(number).unwrap(), ..item.id };
        let deadline = Timestamp::from_ms(1000 - number);
        let item = ItemRow { seq: Seq::new(number), id, deadline, ..item.clone() };
        let open = txn.open(1).unwrap();
        let mut open = open.unwrap_or_else(|| txn.create_queue(1, recipient(1)));
        txn.add_item(&mut open, item, None).unwrap();
        txn.close(open).unwrap();
        let (rows, mut items) = (txn.rows(1).unwrap().unwrap(), Vec::new());
        rows.scan(Seq::ZERO, &mut |item| {
            items.push(item);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(items.len() as u64, number);
        let times = items.iter().map(|item| (item.deadline.as_ms(), item.bound().as_ms()));
        assert!(times.eq((1..=number).map(|number| (1000 - number, 999))), "with {number} items");
        assert_eq!(rows.row.ends, Ends::of(&items));
        for now in [1000 - number - 1, 1000 - number, 998, 999] {
            let front = rows.front(Timestamp::from_ms(now)).unwrap();
            let expired = items.iter().filter(|item| item.deadline.as_ms() <= now);
            assert_eq!(front.expired, expired.map(|item| Usage::of(item.payload_bytes)).sum(), "at {now}");
        }
    }
    let (now, mut left) = (Timestamp::from_ms(960), 2 * SPILL_FROM_ITEMS as u64);
    while left > 39 {
        let mut open = txn.open(1).unwrap().unwrap();
        let found = txn.find_early(&open, now, 10).unwrap();
        left -= txn.remove_early(&mut open, &found.items, found.next).unwrap() as u64;
        txn.close(open).unwrap();
        let rows = txn.rows(1).unwrap().unwrap();
        assert_eq!(rows.row.usage.items, left);
        assert_eq!(rows.front(now).unwrap().expired.items, left - 39);
    }
    assert_eq!(left, 39);
    let row = txn.rows(1).unwrap().unwrap().row;
    assert_eq!((row.early_from, row.due()), (Some(Timestamp::from_ms(961)), Some(Timestamp::from_ms(961))));
}

#[test]
fn an_item_moves_only_with_its_own_record() {
    let stack = Stack::on(&SimDisk::new());
    let mut txn = WriteTxn::new(&stack.version, &stack.cache);
    let (item, to) = (crate::samples::item(), Location { segment: 2, offset: 36, length: 1 });
    let mut open = txn.create_queue(1, recipient(1));
    txn.add_item(&mut open, crate::samples::item_row(), None).unwrap();
    txn.close(open).unwrap();
    let mut move_by = |queue, owner, item: &relay_core::Item<()>| {
        let body = item_head(queue, &recipient(owner), item);
        txn.move_item(&ItemRecord::parse(&body).unwrap(), None, to).unwrap()
    };
    let other = relay_core::Item { message_id: relay_core::MessageId::from_bytes([7; 16]), ..item.clone() };
    assert!(!move_by(1, 2, &item), "another recipient");
    assert!(!move_by(2, 1, &item), "another queue");
    assert!(!move_by(1, 1, &other), "another item");
    assert!(move_by(1, 1, &item));
    let moved = txn.rows(1).unwrap().unwrap().read_item(item.seq).unwrap().unwrap();
    assert_eq!(moved.location, to);
}

/// The record that removed the items in front of an expired one is lost. Removing them again leaves
/// so few that the queue is inline before its front is trimmed.
#[test]
fn a_front_is_trimmed_from_a_queue_that_is_inline_again() {
    let stack = Stack::on(&SimDisk::new());
    let mut txn = WriteTxn::new(&stack.version, &stack.cache);
    let mut open = txn.create_queue(1, recipient(1));
    let mut sum = FrontSum { first: Seq::new(50), ..FrontSum::default() };
    for number in 1..=60 {
        let id = ItemId { chunk_index: number, ..crate::samples::item_row().id };
        let item = ItemRow { seq: Seq::new(number.into()), id, ..crate::samples::item_row() };
        txn.add_item(&mut open, item.clone(), None).unwrap();
        if (50..=55).contains(&number) {
            sum.add(&ItemRow { position: u64::from(number) - 1, ..item });
        }
    }
    txn.trim(&mut open, Seq::new(55), Some(&sum)).unwrap();
    txn.close(open).unwrap();
    let (rows, mut left) = (txn.rows(1).unwrap().unwrap(), Vec::new());
    rows.scan(Seq::ZERO, &mut |item| {
        left.push(item.seq.as_u64());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((left, rows.row.usage.items), ((56..=60).collect(), 5));
}
