//! The model of the random runs in `write.rs`: one sorted map, and changes that both the store and
//! the model make.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{collection, option};
use relay_core::{Recipient, Seq, Timestamp};

use crate::error::StoreError;
use crate::format::{Counters, Key, QueueRow};
use crate::memtable::rows::RowChange;
use crate::txn::write::WriteTxn;
use crate::version::Version;
use crate::version::read_snapshot::Wanted;
use crate::version::view::{Merger, ReadView};

/// Few of each, so that changes collide.
const QUEUES: u64 = 3;
const NUMBERS: u64 = 6;
/// The numbers for the row of a queue and for its due row. Those from `EARLY` on are rows of items
/// that expire early. The others are items.
const ROW: u64 = 0;
const DUE: u64 = 1;
const EARLY: u64 = 4;

/// A step of a random run.
#[derive(Clone, Debug)]
pub(super) enum ModelStep {
    /// Requests that are decided together; whether they are published.
    Batch(Vec<Request>, bool),
    /// Begins a checkpoint, if none is in progress.
    Seal,
    /// Writes the sealed memtable; whether the store learns of it, or believes that it failed and
    /// reopens the index.
    Checkpoint(bool),
    /// Rewrites the index. These batches come between its steps, with a checkpoint after each.
    Rewrite(Vec<Vec<Request>>),
    /// Loses everything in memory. Only what a checkpoint wrote is left.
    Restart,
}

/// Changes that are made together; whether they are rolled back.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) changes: Vec<ModelChange>,
    pub(super) is_rolled_back: bool,
}

#[derive(Clone, Debug)]
pub(super) enum ModelChange {
    Row(u64, u64, Option<u8>),
    Recipient(u64, Option<u64>),
}

/// The expected content.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    rows: BTreeMap<Key, Vec<u8>>,
    recipients: BTreeMap<u64, u64>,
    pub(super) numbers: Counters,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<ModelStep>> {
    let change = prop_oneof![
        4 => (0..QUEUES, 0..NUMBERS, option::of(any::<u8>())).prop_map(|(queue, number, value)| ModelChange::Row(queue, number, value)),
        1 => (0..QUEUES, option::of(0..QUEUES)).prop_map(|(number, queue)| ModelChange::Recipient(number, queue)),
    ];
    let request = (collection::vec(change, 0..5), any::<bool>())
        .prop_map(|(changes, is_rolled_back)| Request { changes, is_rolled_back });
    let batches = collection::vec(collection::vec(request.clone(), 0..4), 0..6);
    let step = prop_oneof![
        1 => batches.prop_map(ModelStep::Rewrite),
        4 => (collection::vec(request, 0..4), any::<bool>()).prop_map(|(requests, is_synced)| ModelStep::Batch(requests, is_synced)),
        2 => any::<()>().prop_map(|()| ModelStep::Seal),
        2 => any::<bool>().prop_map(ModelStep::Checkpoint),
        1 => any::<()>().prop_map(|()| ModelStep::Restart),
    ];
    collection::vec(step, 1..24)
}

fn key(queue: u64, number: u64) -> Key {
    match number {
        ROW => Key::queue(queue),
        DUE => Key::due(due_at(queue), queue),
        EARLY.. => Key::early(queue, Timestamp::from_ms(number), Seq::new(number)),
        _ => Key::item(queue, Seq::new(number)),
    }
}

/// Some queues are due at the same time.
fn due_at(queue: u64) -> Timestamp {
    Timestamp::from_ms(queue / 2)
}

pub(super) fn recipient(number: u64) -> Recipient {
    Recipient::parse(&format!("recipient {number}")).unwrap()
}

/// Changes rows as requests do, including the numbers that these assign.
pub(super) fn change(txn: &mut WriteTxn<'_>, model: &mut Model, change: &ModelChange) {
    match *change {
        ModelChange::Row(queue, number, value) => {
            let value = match number {
                ROW => {
                    let row = value.map(|until| {
                        let remembers_until = Timestamp::from_ms(until.into());
                        QueueRow { remembers_until, ..QueueRow::default() }
                    });
                    txn.put_row(queue, RowChange::Queue(queue, Some(row.clone().map(Arc::new))));
                    txn.cache.forget_queue(queue);
                    row.map(|row| row.encode())
                }
                DUE => {
                    txn.put_due(due_at(queue), queue, value.is_some());
                    value.map(|_| Vec::new())
                }
                _ => {
                    let value = value.map(|value| vec![value; usize::from(value % 7)]);
                    txn.put(key(queue, number), value.clone());
                    value
                }
            };
            let numbers = Counters {
                seq: model.numbers.seq.max(Seq::new(number)),
                queue: model.numbers.queue.max(queue),
                ..model.numbers
            };
            (txn.memtable.numbers, model.numbers) = (numbers, numbers);
            match value {
                Some(value) => drop(model.rows.insert(key(queue, number), value)),
                None => drop(model.rows.remove(&key(queue, number))),
            }
        }
        ModelChange::Recipient(number, queue) => {
            txn.put_recipient(recipient(number), queue);
            match queue {
                Some(queue) => drop(model.recipients.insert(number, queue)),
                None => drop(model.recipients.remove(&number)),
            }
        }
    }
}

pub(super) fn expect(view: ReadView<'_>, model: &Model) {
    let show = |rows: Merger<'_>| -> Vec<(Key, Vec<u8>)> {
        rows.map(|row| row.map(|(key, value)| (key, value.bytes().unwrap().into_owned())).unwrap()).collect()
    };
    let expect_range = |from: Key, to: Key| {
        let part = model.rows.iter().filter(|(key, _)| (from..to).contains(key));
        let part: Vec<_> = part.map(|(key, value)| (*key, value.clone())).collect();
        let mut back = show(view.range_back(&from, &to).unwrap());
        back.reverse();
        assert_eq!(show(view.range(&from, &to).unwrap()), part, "{from:?} to {to:?}");
        assert_eq!(back, part, "{from:?} back from {to:?}");
    };
    expect_range(Key::start(), Key::end());
    for queue in 0..QUEUES {
        assert_eq!(view.queue_number(&recipient(queue)).unwrap(), model.recipients.get(&queue).copied());
        for number in 0..NUMBERS {
            let key = key(queue, number);
            let value = view.get(&key).unwrap().map(|value| value.bytes().unwrap().into_owned());
            assert_eq!(value, model.rows.get(&key).cloned());
            for to in [Key::queues_end(), Key::items_end(queue), Key::due(due_at(1), 1), Key::acked_start()] {
                expect_range(key, to);
            }
        }
    }
}

/// A snapshot shows the same rows of its queue as far as it covers them, and it covers all wanted
/// ones.
pub(super) fn expect_excerpts(version: &Version, model: &Model) {
    for (queue, from, (rows_max, may_skip_newer)) in (0..QUEUES).flat_map(|queue| {
        let copied = [(0, false), (1, false), (2, false), (100, false), (2, true), (100, true)];
        (0..=NUMBERS).flat_map(move |from| copied.map(|copied| (queue, from, copied)))
    }) {
        let number = model.recipients.get(&queue).copied();
        let now = Timestamp::from_ms(EARLY);
        let wanted = Wanted { from: Seq::new(from), id: None, rows_max, may_skip_newer };
        let snapshot = version.snapshot((&recipient(queue), number), wanted, now);
        let view = snapshot.view();
        assert_eq!(view.queue_number(&recipient(queue)).unwrap(), number);
        let Some(number) = number else { continue };
        let key = Key::queue(number);
        let row = view.get(&key).unwrap().map(|value| value.bytes().unwrap().into_owned());
        assert_eq!(row, model.rows.get(&key).cloned());
        let (mut seen, to) = (0, Key::items_end(number));
        let expected: Vec<_> = model.rows.range(Key::item(number, Seq::new(from))..to).collect();
        for row in view.range(&Key::item(number, Seq::new(from)), &to).into_iter().flatten() {
            match row {
                Ok((key, value)) => assert_eq!((&key, &value.bytes().unwrap().into_owned()), expected[seen]),
                Err(StoreError::Beyond) => {
                    // `rows_max` includes tombstones.
                    assert!(rows_max < 100 || may_skip_newer, "it does not cover a wanted row");
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            seen += 1;
        }
        assert!(seen == expected.len() || rows_max < 100 || may_skip_newer);
        let (from, to) = (Key::early_start(number), Key::early_end(number, now));
        let early: Vec<_> = view
            .range(&Key::early(number, Timestamp::default(), Seq::ZERO), &to)
            .unwrap()
            .map(|row| row.unwrap().0)
            .collect();
        assert!(early.iter().eq(model.rows.range(from..to).map(|(key, _)| key)));
        for seq in 0..NUMBERS {
            let key = Key::item(number, Seq::new(seq));
            match view.get(&key) {
                Err(StoreError::Beyond) => {}
                value => assert_eq!(
                    value.unwrap().map(|value| value.bytes().unwrap().into_owned()),
                    model.rows.get(&key).cloned()
                ),
            }
        }
    }
}
