//! Raised arrival numbers stay raised, whether or not an item is stored after that.

use std::io;

use futures_util::FutureExt;
use relay_core::{Relay, Seq};
use relay_disk::{Class, Fault, Survival};
use relay_store_redb::RedbRelay;

use crate::pressure::with_gated_syncs;
use crate::world::{World, envelope, with_timeout};

const RAISED: Seq = Seq::new(5_000);

fn push(world: &World, relay: &RedbRelay, number: u64) {
    assert!(world.block_on(relay.push(envelope(0, number, 10))).unwrap().is_stored());
}

#[test]
fn raised_numbers_survive_a_restart_without_new_items() {
    for had_items in [false, true] {
        let world = World::new();
        let relay = world.open();
        if had_items {
            push(&world, &relay, 1);
        }
        drop(relay);
        let relay = world.open();
        relay.raise_arrival_numbers(RAISED);
        assert_eq!(relay.last_arrival_number(), RAISED);
        drop(relay);
        for number in [2, 3] {
            let relay = world.open();
            assert_eq!(relay.last_arrival_number(), Seq::new(RAISED.as_u64() + number - 2));
            push(&world, &relay, number);
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_snapshot_makes_raised_numbers_durable_even_if_its_first_checkpoint_fails() {
    for fails in [false, true] {
        let world = World::new();
        let relay = world.open();
        push(&world, &relay, 1);
        drop(world.block_on(relay.snapshots().take()).unwrap());
        relay.raise_arrival_numbers(RAISED);
        if fails {
            world.disk.fail(Fault::next(Some(Class::Sync), io::ErrorKind::Other));
            world.block_on(relay.snapshots().take()).unwrap_err();
        }
        drop(world.block_on(relay.snapshots().take()).unwrap());
        let world = world.after_crash(Survival::None);
        assert_eq!(world.open().last_arrival_number(), RAISED);
    }
}

/// The batch takes its numbers before they are raised, and becomes visible after that.
#[test]
fn a_batch_in_progress_does_not_lower_raised_numbers() {
    with_timeout(|| {
        let world = World::new();
        let (relay, syncs, permit) = with_gated_syncs(&world);
        let mut push = Box::pin(relay.push(envelope(0, 1, 10)));
        assert!(push.as_mut().now_or_never().is_none());
        // The first sync is the one of the new segment, before the batch is decided.
        syncs.recv().unwrap();
        permit.send(()).unwrap();
        syncs.recv().unwrap();
        relay.raise_arrival_numbers(RAISED);
        drop(permit);
        assert!(world.block_on(push).unwrap().is_stored());
        assert_eq!(relay.last_arrival_number(), RAISED);
    });
}
