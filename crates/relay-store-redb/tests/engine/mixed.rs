//! Queues that were mixed up, by a bug or by damage that no checksum tells. Nobody is given the
//! mail of somebody else: what a record says of its recipient counts, and the rest is told as
//! damage is.

use std::ops::ControlFlow;

use redb::{TableDefinition, WriteTransaction};
use relay_core::{Ack, Error, Relay};
use relay_store_redb::{Options, RedbRelay};

use crate::world::{Index, QUEUES, World, envelope, id, payload, recipient, small_options};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const NAMES: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");

/// How many items the first two queues have: few, which lie in the rows of their queues, and many,
/// which have rows of their own.
const SIZES: [u64; 2] = [3, 60];

const BYTES: usize = 300;

/// What the payloads are in: the journal, or files of their own.
fn worlds() -> [World; 2] {
    let options = Options { segment_bytes: 4096, ..small_options() };
    [
        World::new().with_options(options.clone()),
        World::new().with_options(Options { blob_bytes: 250, ..options }),
    ]
}

/// A closed store in which everything is in the index. Even numbers are for the first queue, odd
/// ones for the second.
fn filled(world: World, items: u64) -> World {
    let relay = world.open();
    for number in 0..2 * items {
        let queue = usize::try_from(number % 2).unwrap();
        assert!(world.block_on(relay.push(envelope(queue, number, BYTES))).unwrap().is_stored());
    }
    drop(world.block_on(relay.snapshots().take()).unwrap());
    drop(relay);
    world
}

fn put_recipient(tx: &WriteTransaction, name: &str, queue: u64) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), &queue.to_le_bytes());
    tx.open_table(NAMES).unwrap().insert(name, (queue, checksum)).unwrap();
}

fn put(tx: &WriteTransaction, key: &[u8], value: &[u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(key), value);
    let value = [value, &checksum.to_le_bytes()].concat();
    tx.open_table(ROWS).unwrap().insert(key, value.as_slice()).unwrap();
}

/// The names of the first two queues lead to each other's.
fn exchange_names(tx: &WriteTransaction) {
    put_recipient(tx, QUEUES[0], 2);
    put_recipient(tx, QUEUES[1], 1);
}

/// And their owners are exchanged as well, so that nothing in the index tells.
fn exchange_all(tx: &WriteTransaction) {
    exchange_names(tx);
    for (name, queue) in [(QUEUES[0], 2_u64), (QUEUES[1], 1)] {
        put(tx, &[&[0][..], &queue.to_be_bytes()].concat(), name.as_bytes());
    }
}

fn page(world: &World, relay: &RedbRelay, queue: usize) -> Vec<u64> {
    world.pull_all(relay, queue).unwrap().into_iter().map(|(number, _)| number).collect()
}

#[test]
fn a_pull_gives_nobody_the_mail_of_somebody_else() {
    for exchange in [exchange_names, exchange_all] {
        for (world, items) in
            worlds().into_iter().zip(SIZES).chain(worlds().into_iter().zip(SIZES.into_iter().rev()))
        {
            let world = filled(world, items);
            Index::open(&world.disk).write(exchange);
            let relay = world.open();
            for queue in [0, 1] {
                assert_eq!(page(&world, &relay, queue), Vec::<u64>::new());
            }
            assert_eq!(relay.damaged_items(), 2 * items, "they are counted as damage is");
            assert!(!relay.verify().unwrap().is_empty());
            // What comes now is right, and hidden by nothing.
            for queue in [0, 1] {
                let number = 1_000 + queue as u64;
                assert!(world.block_on(relay.push(envelope(queue, number, BYTES))).unwrap().is_stored());
                assert_eq!(page(&world, &relay, queue), [number]);
            }
        }
    }
}

/// An item's row in another queue.
#[test]
fn an_item_that_lies_in_the_wrong_queue_is_left_out_alone() {
    for world in worlds() {
        let world = filled(world, 60);
        Index::open(&world.disk).write(|tx| {
            let mut rows = tx.open_table(ROWS).unwrap();
            let item =
                |queue: u64, seq: u64| [&[3][..], &queue.to_be_bytes(), &[1], &seq.to_be_bytes()].concat();
            let taken = rows.remove(item(2, 2).as_slice()).unwrap().unwrap().value().to_vec();
            drop(rows.remove(item(1, 3).as_slice()).unwrap());
            drop(rows);
            put(tx, &item(1, 2), &taken[..taken.len() - 4]);
        });
        let relay = world.open();
        // Counters from 0, arrival numbers from 1: item 2 is missing, and item 1 is of the other
        // queue.
        let expected: Vec<_> = (0..120).step_by(2).filter(|number| *number != 2).collect();
        assert_eq!(page(&world, &relay, 0), expected);
        assert!(relay.damaged_items() > 0);
    }
}

#[test]
fn no_other_way_gives_it_away() {
    for world in worlds() {
        let world = filled(world, 3);
        Index::open(&world.disk).write(exchange_all);
        let relay = world.open();
        // As a duplicate, whose payload would be compared.
        let outcome = world.block_on(relay.push(envelope(1, 0, BYTES)));
        assert!(matches!(outcome, Err(Error::Storage(_))), "{outcome:?}");
        let mut shown = 0;
        let lost = relay.export(|_, _| {
            shown += 1;
            ControlFlow::Continue(())
        });
        let lost = lost.unwrap();
        assert_eq!((shown, lost.len()), (0, 6), "{lost:?}");
        let is_told = |lost: &String| lost.contains("the index leads to the");
        assert!(lost.iter().all(is_told), "{lost:?}");
        assert_eq!(relay.stats().unwrap().contents.usage.items, 6);
    }
}

/// A store with holes in its segments. What is left are the numbers that can be divided by three.
fn sparse() -> World {
    let [world, _] = worlds();
    let world = filled(world, 30);
    let relay = world.open();
    for queue in [0, 1] {
        let gone = (0..60).filter(|number| number % 2 == queue && number % 3 != 0).map(id).collect();
        let ack = Ack::new(recipient(usize::try_from(queue).unwrap()), gone).unwrap();
        assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 20);
    }
    drop(world.block_on(relay.snapshots().take()).unwrap());
    drop(relay);
    world
}

fn moved(world: &World) -> usize {
    world.frames().iter().filter(|frame| frame.kind == 2).count()
}

/// It would take a record along to where nobody looks for it.
#[test]
fn no_record_is_moved_for_somebody_else() {
    let world = sparse();
    let before = moved(&world);
    world.block_on(world.open().compact()).unwrap();
    assert!(moved(&world) > before, "where all is right, {} are moved", moved(&world));

    let world = sparse();
    let before = moved(&world);
    Index::open(&world.disk).write(exchange_all);
    world.block_on(world.open().compact()).unwrap();
    assert_eq!(moved(&world), before);
    // Once the index is right again, everything is there.
    Index::open(&world.disk).write(|tx| {
        for (name, queue) in [(QUEUES[0], 1_u64), (QUEUES[1], 2)] {
            put_recipient(tx, name, queue);
            put(tx, &[&[0][..], &queue.to_be_bytes()].concat(), name.as_bytes());
        }
    });
    let relay = world.open();
    for queue in [0, 1] {
        let expected = (0..60).filter(|number| number % 2 == queue && number % 3 == 0);
        let expected: Vec<_> = expected.map(|number| (number, payload(number, BYTES))).collect();
        assert_eq!(world.pull_all(&relay, usize::try_from(queue).unwrap()).unwrap(), expected);
    }
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}
