//! A queue of few items has them in its row, and one of many has rows for each: neither is seen
//! from outside, before a restart or after it.

use relay_core::{Ack, PushOutcome, Relay};
use relay_disk::Survival;
use relay_store_redb::RedbRelay;

use crate::world::{Index, World, envelope, id, recipient};

/// Enough for items to have rows, and to cross the border in both directions.
const ITEMS: u64 = 60;

fn push(world: &World, relay: &RedbRelay, number: u64) -> bool {
    world.block_on(relay.push(envelope(0, number, 3))).unwrap().is_stored()
}

fn ack(world: &World, relay: &RedbRelay, number: u64) -> u64 {
    let ack = Ack::new(recipient(0), vec![id(number)]).unwrap();
    world.block_on(relay.ack(ack)).unwrap().deleted
}

/// How many rows of names the last checkpoint wrote.
fn names(world: &World) -> u64 {
    use redb::{ReadableDatabase, ReadableTable};
    let index = Index::open(&world.disk);
    let tx = index.database().begin_read().unwrap();
    let rows = tx.open_table(redb::TableDefinition::<&[u8], &[u8]>::new("rows")).unwrap();
    rows.iter().unwrap().filter(|row| row.as_ref().unwrap().0.value().get(9) == Some(&2)).count() as u64
}

#[test]
fn items_are_known_with_rows_and_without() {
    let mut world = World::new();
    let mut relay = world.open();
    for number in 1..=ITEMS {
        assert!(push(&world, &relay, number));
        for known in [1, number / 2 + 1, number] {
            let outcome = world.block_on(relay.push(envelope(0, known, 3))).unwrap();
            assert!(matches!(outcome, PushOutcome::Duplicate { conflict: false, .. }), "{known} of {number}");
        }
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new(), "with {number} items");
    }
    drop(relay);
    assert_eq!(names(&world), ITEMS);
    for number in 1..=ITEMS {
        // What a replay makes of it goes on as what it was made by.
        world = world.after_crash(Survival::None);
        relay = world.open();
        assert_eq!((ack(&world, &relay, number), ack(&world, &relay, number)), (1, 0));
        assert!(!push(&world, &relay, number), "acked names are remembered");
        assert!(number == ITEMS || !push(&world, &relay, ITEMS), "the last one is still there");
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new(), "without {number} items");
    }
    drop(world.open());
    assert_eq!(names(&world), 0);
}

/// What was done to a queue and could not be written is not remembered of it.
#[test]
fn what_failed_leaves_no_trace_in_what_is_remembered() {
    let world = World::new();
    let relay = world.open();
    assert!(push(&world, &relay, 1));
    let fault = relay_disk::Fault::next(Some(relay_disk::Class::Sync), std::io::ErrorKind::Other);
    world.disk.fail(fault);
    world.block_on(relay.push(envelope(0, 2, 3))).unwrap_err();
    assert!(push(&world, &relay, 2), "it was not stored, so it is new");
    world.disk.fail(fault);
    world.block_on(relay.push(envelope(1, 3, 3))).unwrap_err();
    assert!(world.block_on(relay.push(envelope(1, 3, 3))).unwrap().is_stored());
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    assert_eq!(relay.contents().unwrap().usage.items, 3);
}
