//! A full disk: pushes say so, pulls go on, nothing that was answered is lost, and once there is
//! space again the store works by itself.

use relay_core::{Error, Relay};
use relay_disk::Survival;
use relay_store_redb::RedbRelay;

use crate::story::{Ledger, Manner, STORY, again};
use crate::world::{World, envelope, run_slow_tests, within_bounds};

/// So many pushes are refused, one after the other, without anything piling up.
const REFUSED: u64 = 300;

/// With more or less room left, so that it is now the journal and now a checkpoint that first finds
/// none.
#[test]
fn a_full_disk_refuses_and_recovers() {
    fill(World::new);
}

#[test]
fn a_full_disk_refuses_and_recovers_with_payloads_aside() {
    fill(World::aside);
}

fn fill(new: fn() -> World) {
    within_bounds(move || {
        let step = if run_slow_tests() { 2_000 } else { 6_000 };
        for room_bytes in (0..12_000).step_by(step) {
            eprintln!("{room_bytes} bytes are left");
            fill_and_recover(&new(), room_bytes);
        }
    });
}

fn fill_and_recover(world: &World, room_bytes: u64) {
    let relay = world.open();
    let mut ledger = Ledger::default();
    assert!(ledger.tell(world, &relay, &STORY[..3], Manner::Once));
    world.disk.space_limit(Some(world.disk.bytes_used() + room_bytes));
    let mut stored = Vec::new();
    let mut refused = 0;
    for number in 2_000.. {
        match world.block_on(relay.push(envelope(0, number, 900))) {
            Ok(_) => stored.push(number),
            Err(Error::StorageFull) => refused += 1,
            Err(error) => panic!("expected that the disk is full, got {error:?}"),
        }
        world.pull_all(&relay, 0).unwrap();
        if refused == REFUSED {
            break;
        }
    }
    let shown = numbers(world, &relay);
    assert!(shown.ends_with(&stored), "while the disk is full a pull shows {shown:?}");
    let crashed = world.after_crash(Survival::None);
    assert_eq!(numbers(&crashed, &crashed.open()), shown, "what a power cut leaves");

    world.disk.space_limit(None);
    again(|| world.block_on(relay.push(envelope(0, 1_000, 900)))).unwrap();
    drop(relay);
    let relay = world.open();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    let shown: Vec<u64> = shown.into_iter().chain([1_000]).collect();
    assert_eq!(numbers(world, &relay), shown, "when there is space again");
}

/// What is in the first queue.
fn numbers(world: &World, relay: &RedbRelay) -> Vec<u64> {
    again(|| world.pull_all(relay, 0)).unwrap().into_iter().map(|item| item.0).collect()
}
