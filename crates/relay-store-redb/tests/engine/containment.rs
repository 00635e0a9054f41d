//! A corrupt row fails the requests that need it, and no others.

use futures_util::future::join_all;
use redb::ReadableTable as _;
use relay_core::{Ack, Envelope, Error, Pull, Recipient, Relay, Seq};
use relay_disk::{Disk, Survival};

use crate::index::{Index, NAMES, OWNER, ROWS, put_row};
use crate::story::{Ledger, OnFailure, Step};
use crate::world::{QUEUES, World, envelope, id, payload, push_many, recipient, short_lived, with_timeout};

/// So many items that each of three queues is spilled.
const MANY: u64 = 180;

/// Other items, as many as each of those queues holds.
const NEW: std::ops::Range<u64> = 200..260;

/// A closed store with items in three queues, and a flipped bit in the first row whose key matches
/// `is_match`.
fn corrupted(items: u64, is_match: impl Fn(&[u8]) -> bool) -> World {
    let world = World::new();
    let relay = world.open();
    assert!(Ledger::default().run(&world, &relay, &[Step::Push(items, 100)], OnFailure::Stop));
    drop(relay);
    Index::open(&world.disk).write(|tx| {
        let mut rows = tx.open_table(ROWS).unwrap();
        let found = rows.iter().unwrap().map(Result::unwrap).find(|(key, _)| is_match(key.value())).unwrap();
        let (key, mut value) = (found.0.value().to_vec(), found.1.value().to_vec());
        drop(found);
        *value.first_mut().unwrap() ^= 1;
        rows.insert(key.as_slice(), value.as_slice()).unwrap();
    });
    world
}

/// Matches the row of queue number 1, the first queue.
fn is_queue_row(key: &[u8]) -> bool {
    key == [2, 0, 0, 0, 0, 0, 0, 0, 1]
}

#[test]
fn a_corrupt_queue_row_affects_no_other_queue() {
    let world = corrupted(12, is_queue_row);
    let relay = world.open();
    // One batch decides all of them.
    let pushes = (0..30).map(|number| relay.push(envelope(number % 3, 100 + number as u64, 10)));
    let outcomes = world.block_on(join_all(pushes));
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(Error::Storage(_)) => {
                assert_eq!(number % 3, 0, "push {number} does not need the corrupt row");
            }
            outcome => assert!(number % 3 != 0 && outcome.unwrap().is_stored(), "push {number}"),
        }
    }
    assert!(matches!(world.pull_all(&relay, 0), Err(Error::Storage(_))));
    for queue in [1, 2] {
        assert_eq!(world.pull_all(&relay, queue).unwrap().len(), 4 + 10);
    }
    let findings = relay.verify().unwrap();
    assert!(
        findings.contains(&"the index: a row of the index has a wrong checksum".to_owned()),
        "{findings:?}"
    );
}

#[test]
fn the_sweep_skips_a_corrupt_queue() {
    let world = corrupted(12, is_queue_row);
    let relay = world.open();
    world.clock.advance_ms(world.limits.ttl_ms);
    for swept in [8, 0] {
        assert_eq!(world.block_on(relay.sweep()).unwrap().items, swept);
    }
    for queue in [1, 2] {
        assert_eq!(world.pull_all(&relay, queue).unwrap(), []);
        assert!(world.block_on(relay.push(envelope(queue, 500, 10))).unwrap().is_stored());
    }
}

/// The corrupt queues expire first.
#[test]
fn the_sweep_skips_many_corrupt_queues() {
    const CORRUPT: u64 = 300;
    const INTACT: u64 = 50;
    with_timeout(|| {
        let world = World::new();
        let relay = world.open();
        for number in 0..CORRUPT + INTACT {
            let recipient = Recipient::parse(&format!("recipient {number}")).unwrap();
            let envelope = Envelope { recipient, ..envelope(0, number, 10) };
            assert!(world.block_on(relay.push(envelope)).unwrap().is_stored());
            world.clock.advance_ms(1);
        }
        drop(relay);
        Index::open(&world.disk).write(|tx| {
            let mut rows = tx.open_table(ROWS).unwrap();
            for queue in 1..=CORRUPT {
                let key = [&[2][..], &queue.to_be_bytes()].concat();
                rows.insert(key.as_slice(), [0; 9].as_slice()).unwrap();
            }
        });
        let relay = world.open();
        world.clock.advance_ms(world.limits.ttl_ms);
        for swept in [INTACT, 0] {
            assert_eq!(world.block_on(relay.sweep()).unwrap().items, swept);
        }
    });
}

/// A queue without items is dropped when its acked item ids expire, and the corrupt row of its
/// recipient is deleted with it.
#[test]
fn a_corrupt_recipient_is_deleted_with_its_queue() {
    let world = World::new();
    let relay = world.open();
    world.block_on(relay.push(envelope(1, 100, 10))).unwrap();
    world.block_on(relay.ack(Ack::new(recipient(1), vec![id(100)]).unwrap())).unwrap();
    drop(relay);
    Index::open(&world.disk).write(|tx| {
        let mut names = tx.open_table(NAMES).unwrap();
        let (queue, checksum) = names.get(QUEUES[1]).unwrap().unwrap().value();
        names.insert(QUEUES[1], (queue, checksum ^ 1)).unwrap();
    });
    let relay = world.open();
    assert!(matches!(world.block_on(relay.push(envelope(1, 101, 10))), Err(Error::Storage(_))));
    world.clock.advance_ms(world.limits.dedup_window_ms + 100);
    world.block_on(relay.sweep()).unwrap();
    let crashed = world.after_crash(Survival::All);
    for (world, relay) in [(&crashed, crashed.open()), (&world, relay)] {
        assert!(world.block_on(relay.push(envelope(1, 101, 10))).unwrap().is_stored());
        assert_eq!(world.pull_all(&relay, 1).unwrap().len(), 1);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    }
}

/// Matches the row of an item (tag 1) of the first queue.
fn is_item_row(key: &[u8]) -> bool {
    key.starts_with(&[3, 0, 0, 0, 0, 0, 0, 0, 1, 1])
}

#[test]
fn acks_and_the_sweep_remove_the_items_beside_a_corrupt_one() {
    let world = corrupted(MANY, is_item_row);
    let relay = world.open();
    let ack = Ack::new(recipient(0), vec![id(3)]).unwrap();
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 1);
    world.clock.advance_ms(world.limits.ttl_ms);
    for swept in [MANY - 2, 0] {
        assert_eq!(world.block_on(relay.sweep()).unwrap().items, swept);
    }
    for queue in [0, 1, 2] {
        assert_eq!(world.pull_all(&relay, queue).unwrap(), []);
        assert!(world.block_on(relay.push(envelope(queue, 500, 10))).unwrap().is_stored());
    }
}

/// The corrupt item is the first of its queue.
#[test]
fn the_sweep_removes_a_front_that_begins_with_a_corrupt_item() {
    let world = corrupted(MANY, is_item_row);
    let relay = world.open();
    world.clock.advance_ms(world.limits.ttl_ms);
    for swept in [MANY - 1, 0] {
        assert_eq!(world.block_on(relay.sweep()).unwrap().items, swept);
    }
    assert_eq!(relay.contents().unwrap().queues, 0);
    drop(relay);
    assert_eq!(Index::open(&world.disk).rows(), []);
}

#[test]
fn an_ack_of_a_corrupt_item_and_others_removes_all_of_them() {
    let world = corrupted(MANY, is_item_row);
    let relay = world.open();
    let all: Vec<_> = (0..MANY).step_by(3).collect();
    let ack = Ack::new(recipient(0), all.iter().copied().map(id).collect()).unwrap();
    let outcome = world.block_on(relay.ack(ack)).unwrap();
    assert_eq!((outcome.deleted, outcome.missing), (MANY / 3 - 1, 1));
    // The item id of the corrupt item is new again, also when the queue is as large as before.
    for number in all.iter().copied().chain(NEW) {
        let is_new = number == 0 || number >= NEW.start;
        assert_eq!(
            world.block_on(relay.push(envelope(0, number, 100))).unwrap().is_stored(),
            is_new,
            "{number}"
        );
    }
    // A checkpoint deletes the removed rows.
    drop(world.block_on(relay.snapshots().take()).unwrap());
    assert!(!relay.verify().unwrap().iter().any(|finding| finding.contains("checksum")));
    let expected: Vec<_> = [0].into_iter().chain(NEW).map(|number| (number, payload(number, 100))).collect();
    assert_eq!(world.pull_all(&relay, 0).unwrap(), expected);
}

/// Matches the row of an item id (tag 2) of the first queue.
fn is_item_id_row(key: &[u8]) -> bool {
    key.starts_with(&[3, 0, 0, 0, 0, 0, 0, 0, 1, 2])
}

#[test]
fn an_item_whose_item_id_row_is_corrupt_is_still_found() {
    let world = corrupted(MANY, is_item_id_row);
    let relay = world.open();
    assert!(!world.block_on(relay.push(envelope(0, 0, 100))).unwrap().is_stored());
    let all: Vec<_> = (0..MANY).step_by(3).map(id).collect();
    let acked = all.len() as u64;
    let outcome = world.block_on(relay.ack(Ack::new(recipient(0), all).unwrap())).unwrap();
    assert_eq!((outcome.deleted, outcome.missing, outcome.remaining), (acked, 0, 0));
    assert_eq!(world.pull_all(&relay, 0).unwrap(), []);
}

#[test]
fn a_pull_skips_a_corrupt_item_and_shows_those_after_it() {
    let world = corrupted(MANY, is_item_row);
    let relay = world.open();
    let expected: Vec<_> = (3..MANY).step_by(3).map(|number| (number, payload(number, 100))).collect();
    assert_eq!(relay.damaged_items(), 0);
    assert_eq!(world.pull_all(&relay, 0).unwrap(), expected);
    assert!(relay.damaged_items() > 0);
    let after = Some(Seq::new(MANY - 10));
    let page = world.block_on(relay.pull(Pull { recipient: recipient(0), after, items_max: None })).unwrap();
    assert_eq!((page.items.len(), page.next), (3, None), "the last page");
    assert!(world.block_on(relay.push(envelope(0, 500, 10))).unwrap().is_stored());
    assert!(!relay.verify().unwrap().is_empty());
}

#[test]
fn a_missing_segment_loses_only_its_items() {
    let world = World::new();
    let relay = world.open();
    // One by one, so each is its own batch.
    for number in 0..MANY {
        let queue = usize::try_from(number % 3).unwrap();
        assert!(world.block_on(relay.push(envelope(queue, number, 100))).unwrap().is_stored());
    }
    let all = world.pull_all(&relay, 0).unwrap();
    // After a checkpoint, a replay does not need the segment.
    drop(world.block_on(relay.snapshots().take()).unwrap());
    drop(relay);
    world.disk.remove(&world.segments()[0]).unwrap();

    let relay = world.open();
    let left = world.pull_all(&relay, 0).unwrap();
    let lost = all.len() - left.len();
    assert!(lost > 0 && !left.is_empty() && left == all[lost..], "{lost} of {} are lost", all.len());
    assert!(relay.damaged_items() > 0 && !relay.verify().unwrap().is_empty());
    for queue in [0, 1, 2] {
        let shown = world.pull_all(&relay, queue).unwrap().len() as u64;
        let items = (0..MANY).filter(|number| number % 3 == queue as u64).map(id).collect();
        let acked = world.block_on(relay.ack(Ack::new(recipient(queue), items).unwrap())).unwrap();
        assert!(acked.deleted == MANY / 3 && shown < MANY / 3, "{shown} of {} were shown", acked.deleted);
    }
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}

/// The row by deadline of an item that has expired is that of a live item.
#[test]
fn a_corrupt_row_of_an_early_item_removes_no_other_one() {
    let world = World::new();
    let relay = world.open();
    world.block_on(push_many(&relay, 0..100, 10));
    world.push_all(&relay, (100..110).map(|number| short_lived(0, number, 500)).collect());
    let live = world.pull_items(&relay, 0).unwrap()[50].seq;
    drop(relay);
    Index::open(&world.disk).write(|tx| {
        let mut rows = tx.open_table(ROWS).unwrap();
        let is_early = |key: &[u8]| key.starts_with(&[3, 0, 0, 0, 0, 0, 0, 0, 1, 4]);
        let found = rows.iter().unwrap().map(Result::unwrap).find(|(key, _)| is_early(key.value())).unwrap();
        let (mut key, value) = (found.0.value().to_vec(), found.1.value().to_vec());
        drop(found);
        drop(rows.remove(key.as_slice()).unwrap().unwrap());
        let seq = key.len() - 8;
        key[seq..].copy_from_slice(&live.as_u64().to_be_bytes());
        rows.insert(key.as_slice(), value.as_slice()).unwrap();
    });
    let relay = world.open();
    world.clock.advance_ms(500);
    assert_eq!(world.block_on(relay.sweep()).unwrap().items, 9);
    assert_eq!(world.pull_numbers(&relay, 0), (0..100).collect::<Vec<_>>());
    world.clock.advance_ms(world.limits.ttl_ms - 500);
    assert_eq!(world.block_on(relay.sweep()).unwrap().items, 101);
}

/// All of its items expire early, and the row of its owner is corrupt.
#[test]
fn the_sweep_skips_a_corrupt_queue_of_early_items() {
    let mut world = World::new();
    world.limits.dedup_window_ms = 0;
    let relay = world.open();
    for queue in [0, 1] {
        assert!(world.block_on(relay.push(envelope(queue, 0, 10))).unwrap().is_stored());
        world.push_all(&relay, (1..61).map(|number| short_lived(queue, number, 500)).collect());
        let first = Ack::new(recipient(queue), vec![id(0)]).unwrap();
        assert_eq!(world.block_on(relay.ack(first)).unwrap().deleted, 1);
    }
    drop(relay);
    Index::open(&world.disk).write(|tx| {
        let mut rows = tx.open_table(ROWS).unwrap();
        let owner = [&[OWNER][..], &1_u64.to_be_bytes()].concat();
        assert!(rows.insert(owner.as_slice(), [0; 9].as_slice()).unwrap().is_some());
    });
    let relay = world.open();
    world.clock.advance_ms(500);
    for swept in [60, 0] {
        assert_eq!(world.block_on(relay.sweep()).unwrap().items, swept);
    }
}

/// No slot follows one that begins at the largest timestamp.
#[test]
fn a_store_opens_with_an_acked_item_id_at_the_end_of_time() {
    with_timeout(|| {
        let world = World::new();
        assert!(world.block_on(world.open().push(envelope(1, 100, 10))).unwrap().is_stored());
        for (number, slot) in [u64::MAX, u64::MAX - 1, 1 << 63].into_iter().enumerate() {
            let key = [&[5][..], &slot.to_be_bytes(), &[0xff; 28]].concat();
            Index::open(&world.disk).write(|tx| put_row(tx, &key, &[1]));
            let relay = world.open();
            assert!(world.block_on(relay.push(envelope(0, number as u64, 10))).unwrap().is_stored());
            world.block_on(relay.sweep()).unwrap();
        }
    });
}
