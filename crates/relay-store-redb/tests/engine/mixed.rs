//! An index that leads to items of other recipients, because of a bug or of corruption that no
//! checksum detects. The store never delivers an item to another recipient than its record
//! contains, and reports such items as corrupt.

use std::ops::ControlFlow;

use redb::WriteTransaction;
use relay_core::{Ack, Error, Relay};
use relay_store_redb::Options;

use crate::index::{Index, ROWS, assign_queue, put_recipient, put_row};
use crate::world::{QUEUES, World, envelope, id, payload, recipient, small_options};

/// How many items the first two queues have: inline, and spilled.
const SIZES: [u64; 2] = [3, 60];

const BYTES: usize = 300;

/// One world with its payloads in the journal, and one with blobs.
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

/// The first two recipients lead to each other's queues.
fn exchange_recipients(tx: &WriteTransaction) {
    put_recipient(tx, QUEUES[0], 2);
    put_recipient(tx, QUEUES[1], 1);
}

/// The owners are exchanged as well, so the index is consistent.
fn exchange_all(tx: &WriteTransaction) {
    assign_queue(tx, QUEUES[0], 2);
    assign_queue(tx, QUEUES[1], 1);
}

#[test]
fn a_pull_shows_no_items_of_another_recipient() {
    for exchange in [exchange_recipients, exchange_all] {
        for (world, items) in
            worlds().into_iter().zip(SIZES).chain(worlds().into_iter().zip(SIZES.into_iter().rev()))
        {
            let world = filled(world, items);
            Index::open(&world.disk).write(exchange);
            let relay = world.open();
            for queue in [0, 1] {
                assert_eq!(world.pull_numbers(&relay, queue), Vec::<u64>::new());
            }
            assert_eq!(relay.damaged_items(), 2 * items, "the items count as corrupt");
            assert!(!relay.verify().unwrap().is_empty());
            // New items are shown.
            for queue in [0, 1] {
                let number = 1_000 + queue as u64;
                assert!(world.block_on(relay.push(envelope(queue, number, BYTES))).unwrap().is_stored());
                assert_eq!(world.pull_numbers(&relay, queue), [number]);
            }
        }
    }
}

#[test]
fn a_pull_skips_only_the_item_whose_row_is_in_the_wrong_queue() {
    for world in worlds() {
        let world = filled(world, 60);
        Index::open(&world.disk).write(|tx| {
            let mut rows = tx.open_table(ROWS).unwrap();
            let item =
                |queue: u64, seq: u64| [&[3][..], &queue.to_be_bytes(), &[1], &seq.to_be_bytes()].concat();
            let row = rows.remove(item(2, 2).as_slice()).unwrap().unwrap().value().to_vec();
            drop(rows.remove(item(1, 3).as_slice()).unwrap());
            drop(rows);
            put_row(tx, &item(1, 2), &row[..row.len() - 4]);
        });
        let relay = world.open();
        // Item numbers start at 0, arrival numbers at 1: item 2 is missing, and item 1 belongs to
        // the other queue.
        let expected: Vec<_> = (0..120).step_by(2).filter(|number| *number != 2).collect();
        assert_eq!(world.pull_numbers(&relay, 0), expected);
        assert!(relay.damaged_items() > 0);
    }
}

#[test]
fn neither_a_duplicate_nor_an_export_reveals_an_item_of_another_recipient() {
    for world in worlds() {
        let world = filled(world, 3);
        Index::open(&world.disk).write(exchange_all);
        let relay = world.open();
        // The item would be a duplicate, and the store would compare its payload.
        let outcome = world.block_on(relay.push(envelope(1, 0, BYTES)));
        assert!(matches!(outcome, Err(Error::Storage(_))), "{outcome:?}");
        let mut exported = 0;
        let export = relay.export(|_, _| {
            exported += 1;
            ControlFlow::Continue(())
        });
        let skipped = export.unwrap();
        assert_eq!((exported, skipped.len()), (0, 6), "{skipped:?}");
        assert!(skipped.iter().all(|finding| finding.contains("the index leads to the")), "{skipped:?}");
        assert_eq!(relay.stats().unwrap().contents.usage.items, 6);
    }
}

/// A closed store with sparse segments. The numbers that are divisible by three remain.
fn sparse() -> World {
    let [world, _] = worlds();
    let world = filled(world, 30);
    let relay = world.open();
    for queue in [0, 1] {
        let acked = (0..60).filter(|number| number % 2 == queue && number % 3 != 0).map(id).collect();
        let ack = Ack::new(recipient(usize::try_from(queue).unwrap()), acked).unwrap();
        assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 20);
    }
    drop(world.block_on(relay.snapshots().take()).unwrap());
    drop(relay);
    world
}

/// How many records of moved items the journal contains.
fn moved(world: &World) -> usize {
    world.frames().iter().filter(|frame| frame.kind == 2).count()
}

/// The moved record would contain the wrong recipient.
#[test]
fn no_record_is_moved_to_another_recipient() {
    let world = sparse();
    let moved_before = moved(&world);
    world.block_on(world.open().compact()).unwrap();
    assert!(moved(&world) > moved_before, "nothing is moved in a consistent store");

    let world = sparse();
    let moved_before = moved(&world);
    Index::open(&world.disk).write(exchange_all);
    world.block_on(world.open().compact()).unwrap();
    assert_eq!(moved(&world), moved_before);
    // With a correct index, all items are shown again.
    Index::open(&world.disk).write(|tx| {
        assign_queue(tx, QUEUES[0], 1);
        assign_queue(tx, QUEUES[1], 2);
    });
    let relay = world.open();
    for queue in [0, 1] {
        let expected = (0..60).filter(|number| number % 2 == queue && number % 3 == 0);
        let expected: Vec<_> = expected.map(|number| (number, payload(number, BYTES))).collect();
        assert_eq!(world.pull_all(&relay, usize::try_from(queue).unwrap()).unwrap(), expected);
    }
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}
