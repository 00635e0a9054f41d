//! A damaged row costs the requests that need it, and nobody else's.

use futures_util::future::join_all;
use redb::{ReadableDatabase as _, ReadableTable, TableDefinition};
use relay_core::{Ack, Envelope, Error, Pull, Recipient, Relay, Seq};
use relay_disk::{Disk, Survival};

use crate::story::{Ledger, Manner, Step};
use crate::world::{Index, QUEUES, World, envelope, id, payload, recipient, within_bounds};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

const NAMES: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");

/// So many items that they have rows of their own in each of three queues.
const MANY: u64 = 180;

/// Others, of which a queue holds as many.
const NEW: std::ops::Range<u64> = 200..260;

/// A closed store with so many items in three queues, and with one bit wrong in the first row that
/// `is_it`.
fn damaged(items: u64, is_it: impl Fn(&[u8]) -> bool) -> World {
    let world = World::new();
    let relay = world.open();
    assert!(Ledger::default().tell(&world, &relay, &[Step::Push(items, 100)], Manner::Once));
    drop(relay);
    Index::open(&world.disk).write(|tx| {
        let mut rows = tx.open_table(ROWS).unwrap();
        let found = rows.iter().unwrap().map(Result::unwrap).find(|(key, _)| is_it(key.value())).unwrap();
        let (key, mut value) = (found.0.value().to_vec(), found.1.value().to_vec());
        drop(found);
        *value.first_mut().unwrap() ^= 1;
        rows.insert(key.as_slice(), value.as_slice()).unwrap();
    });
    world
}

/// The row of queue number 1, which is the first queue.
fn is_queue_row(key: &[u8]) -> bool {
    key == [2, 0, 0, 0, 0, 0, 0, 0, 1]
}

#[test]
fn a_damaged_queue_fails_alone() {
    let world = damaged(12, is_queue_row);
    let relay = world.open();
    // All of them wait for the same batch.
    let pushes = (0..30).map(|number| relay.push(envelope(number % 3, 100 + number as u64, 10)));
    let outcomes = world.block_on(join_all(pushes));
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(Error::Storage(_)) => {
                assert_eq!(number % 3, 0, "push {number} has nothing to do with the damage");
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
fn the_sweep_passes_a_damaged_queue_over() {
    let world = damaged(12, is_queue_row);
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

/// However many there are, and they come first.
#[test]
fn the_sweep_comes_past_many_damaged_queues() {
    const DAMAGED: u64 = 300;
    const SOUND: u64 = 50;
    within_bounds(|| {
        let world = World::new();
        let relay = world.open();
        for number in 0..DAMAGED + SOUND {
            let recipient = Recipient::parse(&format!("recipient {number}")).unwrap();
            let envelope = Envelope { recipient, ..envelope(0, number, 10) };
            assert!(world.block_on(relay.push(envelope)).unwrap().is_stored());
            world.clock.advance_ms(1);
        }
        drop(relay);
        Index::open(&world.disk).write(|tx| {
            let mut rows = tx.open_table(ROWS).unwrap();
            for queue in 1..=DAMAGED {
                let key = [&[2][..], &queue.to_be_bytes()].concat();
                rows.insert(key.as_slice(), [0; 9].as_slice()).unwrap();
            }
        });
        let relay = world.open();
        world.clock.advance_ms(world.limits.ttl_ms);
        for swept in [SOUND, 0] {
            assert_eq!(world.block_on(relay.sweep()).unwrap().items, swept);
        }
    });
}

/// A queue that only remembers what was acked is forgotten in time, and takes a damaged name with
/// it.
#[test]
fn a_damaged_name_is_gone_with_its_queue() {
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

/// An item of the first queue: tag 1.
fn is_item_row(key: &[u8]) -> bool {
    key.starts_with(&[3, 0, 0, 0, 0, 0, 0, 0, 1, 1])
}

#[test]
fn a_damaged_item_keeps_neither_acks_nor_the_sweep_from_the_others() {
    let world = damaged(MANY, is_item_row);
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

/// The damaged one is the first, where the queue begins.
#[test]
fn a_front_that_begins_with_a_damaged_item_goes_all_the_same() {
    let world = damaged(MANY, is_item_row);
    let relay = world.open();
    world.clock.advance_ms(world.limits.ttl_ms);
    for swept in [MANY - 1, 0] {
        assert_eq!(world.block_on(relay.sweep()).unwrap().items, swept);
    }
    assert_eq!(relay.contents().unwrap().queues, 0);
    drop(relay);
    // Neither its row is left, nor its name's.
    let index = Index::open(&world.disk);
    let rows = index.database().begin_read().unwrap().open_table(ROWS).unwrap();
    let keys: Vec<_> = rows.iter().unwrap().map(|row| row.unwrap().0.value().to_vec()).collect();
    assert_eq!(keys, Vec::<Vec<u8>>::new());
}

#[test]
fn an_ack_that_names_a_damaged_item_takes_out_the_others() {
    let world = damaged(MANY, is_item_row);
    let relay = world.open();
    let all: Vec<_> = (0..MANY).step_by(3).collect();
    let ack = Ack::new(recipient(0), all.iter().copied().map(id).collect()).unwrap();
    let outcome = world.block_on(relay.ack(ack)).unwrap();
    assert_eq!((outcome.deleted, outcome.missing), (MANY / 3 - 1, 1));
    // Nothing is left of the damaged one, not even its name, when the queue gets as large again.
    for number in all.iter().copied().chain(NEW) {
        let is_new = number == 0 || number >= NEW.start;
        assert_eq!(
            world.block_on(relay.push(envelope(0, number, 100))).unwrap().is_stored(),
            is_new,
            "{number}"
        );
    }
    // Dead rows are buried by a checkpoint.
    drop(world.block_on(relay.snapshots().take()).unwrap());
    assert!(!relay.verify().unwrap().iter().any(|finding| finding.contains("checksum")));
    let expected: Vec<_> = [0].into_iter().chain(NEW).map(|number| (number, payload(number, 100))).collect();
    assert_eq!(world.pull_all(&relay, 0).unwrap(), expected);
}

/// A name of the first queue: tag 2.
fn is_name_row(key: &[u8]) -> bool {
    key.starts_with(&[3, 0, 0, 0, 0, 0, 0, 0, 1, 2])
}

#[test]
fn an_item_whose_name_is_damaged_is_found_all_the_same() {
    let world = damaged(MANY, is_name_row);
    let relay = world.open();
    assert!(!world.block_on(relay.push(envelope(0, 0, 100))).unwrap().is_stored());
    let all: Vec<_> = (0..MANY).step_by(3).map(id).collect();
    let acked = all.len() as u64;
    let outcome = world.block_on(relay.ack(Ack::new(recipient(0), all).unwrap())).unwrap();
    assert_eq!((outcome.deleted, outcome.missing, outcome.remaining), (acked, 0, 0));
    assert_eq!(world.pull_all(&relay, 0).unwrap(), []);
}

#[test]
fn a_damaged_item_is_left_out_and_hides_none_behind_it() {
    let world = damaged(MANY, is_item_row);
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
fn a_missing_segment_costs_its_items_alone() {
    let world = World::new();
    let relay = world.open();
    // One by one, so that each is a batch.
    for number in 0..MANY {
        let queue = usize::try_from(number % 3).unwrap();
        assert!(world.block_on(relay.push(envelope(queue, number, 100))).unwrap().is_stored());
    }
    let whole = world.pull_all(&relay, 0).unwrap();
    // So that no start reads it.
    drop(world.block_on(relay.snapshots().take()).unwrap());
    drop(relay);
    world.disk.remove(&world.segments()[0]).unwrap();

    let relay = world.open();
    let left = world.pull_all(&relay, 0).unwrap();
    let lost = whole.len() - left.len();
    assert!(lost > 0 && !left.is_empty() && left == whole[lost..], "{lost} of {} are lost", whole.len());
    assert!(relay.damaged_items() > 0 && !relay.verify().unwrap().is_empty());
    for queue in [0, 1, 2] {
        let before = world.pull_all(&relay, queue).unwrap().len() as u64;
        let everything = (0..MANY).filter(|number| number % 3 == queue as u64).map(id).collect();
        let acked = world.block_on(relay.ack(Ack::new(recipient(queue), everything).unwrap())).unwrap();
        assert!(acked.deleted == MANY / 3 && before < MANY / 3, "{before} of {} were left", acked.deleted);
    }
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}

/// A slot that begins with the last moment there is has none behind it.
#[test]
fn an_acked_name_at_the_end_of_time_keeps_no_store_from_opening() {
    within_bounds(|| {
        let world = World::new();
        assert!(world.block_on(world.open().push(envelope(1, 100, 10))).unwrap().is_stored());
        for (number, slot) in [u64::MAX, u64::MAX - 1, 1 << 63].into_iter().enumerate() {
            let key = [&[5][..], &slot.to_be_bytes(), &[0xff; 28]].concat();
            let value = [&[1][..], &crc32c::crc32c_append(crc32c::crc32c(&key), &[1]).to_le_bytes()].concat();
            Index::open(&world.disk).write(|tx| {
                tx.open_table(ROWS).unwrap().insert(key.as_slice(), value.as_slice()).unwrap();
            });
            let relay = world.open();
            assert!(world.block_on(relay.push(envelope(0, number as u64, 10))).unwrap().is_stored());
            world.block_on(relay.sweep()).unwrap();
        }
    });
}
