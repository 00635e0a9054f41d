//! Item ids are known whether a queue is inline or spilled, before a restart and after it.

use relay_core::{Ack, PushOutcome, Relay};
use relay_disk::Survival;
use relay_store_redb::RedbRelay;

use crate::index::Index;
use crate::world::{World, envelope, id, recipient};

/// Enough items that the queue becomes spilled, and inline again.
const ITEMS: u64 = 60;

fn push(world: &World, relay: &RedbRelay, number: u64) -> bool {
    world.block_on(relay.push(envelope(0, number, 3))).unwrap().is_stored()
}

fn ack(world: &World, relay: &RedbRelay, number: u64) -> u64 {
    let ack = Ack::new(recipient(0), vec![id(number)]).unwrap();
    world.block_on(relay.ack(ack)).unwrap().deleted
}

/// How many rows of item ids (tag 2) the last checkpoint left.
fn item_id_rows(world: &World) -> u64 {
    Index::open(&world.disk).rows().iter().filter(|(key, _)| key.get(9) == Some(&2)).count() as u64
}

#[test]
fn item_ids_are_known_inline_and_spilled() {
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
    assert_eq!(item_id_rows(&world), ITEMS);
    for number in 1..=ITEMS {
        // The queue behaves the same after a replay.
        world = world.after_crash(Survival::None);
        relay = world.open();
        assert_eq!((ack(&world, &relay, number), ack(&world, &relay, number)), (1, 0));
        assert!(!push(&world, &relay, number), "an acked item id is remembered");
        assert!(number == ITEMS || !push(&world, &relay, ITEMS), "the last item is still queued");
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new(), "without {number} items");
    }
    drop(world.open());
    assert_eq!(item_id_rows(&world), 0);
}

/// The store caches queues in memory. The cache must not keep changes that were not written.
#[test]
fn a_failed_push_leaves_no_trace_in_the_cache() {
    let world = World::new();
    let relay = world.open();
    assert!(push(&world, &relay, 1));
    let fault = relay_disk::Fault::next(Some(relay_disk::Class::Sync), std::io::ErrorKind::Other);
    world.disk.fail(fault);
    world.block_on(relay.push(envelope(0, 2, 3))).unwrap_err();
    assert!(push(&world, &relay, 2), "the item was not stored, so it is new");
    world.disk.fail(fault);
    world.block_on(relay.push(envelope(1, 3, 3))).unwrap_err();
    assert!(world.block_on(relay.push(envelope(1, 3, 3))).unwrap().is_stored());
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    assert_eq!(relay.contents().unwrap().usage.items, 3);
}
