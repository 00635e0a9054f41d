//! A full disk: pushes report it, pulls continue, no answered push is lost, and the store recovers
//! without a restart when there is space again.

use relay_core::{Error, Relay};
use relay_disk::Survival;
use relay_store_redb::RedbRelay;

use crate::story::{Ledger, OnFailure, STORY};
use crate::world::{World, envelope, retry, run_slow_tests, with_timeout};

/// How many pushes must be rejected, one after the other.
const REJECTED: u64 = 300;

#[test]
fn a_store_recovers_from_a_full_disk() {
    fill(World::new);
}

#[test]
fn a_store_recovers_from_a_full_disk_with_blobs() {
    fill(World::with_blobs);
}

/// With different amounts of free space, so sometimes the journal fills the disk first, and
/// sometimes a checkpoint does.
fn fill(new: fn() -> World) {
    with_timeout(move || {
        let step = if run_slow_tests() { 2_000 } else { 6_000 };
        for free_bytes in (0..12_000).step_by(step) {
            eprintln!("{free_bytes} bytes are free");
            fill_and_recover(&new(), free_bytes);
        }
    });
}

fn fill_and_recover(world: &World, free_bytes: u64) {
    let relay = world.open();
    let mut ledger = Ledger::default();
    assert!(ledger.run(world, &relay, &STORY[..3], OnFailure::Stop));
    world.disk.space_limit(Some(world.disk.bytes_used() + free_bytes));
    let mut stored = Vec::new();
    let mut rejected = 0;
    for number in 2_000.. {
        match world.block_on(relay.push(envelope(0, number, 900))) {
            Ok(_) => stored.push(number),
            Err(Error::StorageFull) => rejected += 1,
            Err(error) => panic!("expected a full disk, got {error:?}"),
        }
        world.pull_all(&relay, 0).unwrap();
        if rejected == REJECTED {
            break;
        }
    }
    let shown = numbers(world, &relay);
    assert!(shown.ends_with(&stored), "a pull on a full disk shows {shown:?}");
    let crashed = world.after_crash(Survival::None);
    assert_eq!(numbers(&crashed, &crashed.open()), shown, "after a power cut");

    world.disk.space_limit(None);
    retry(|| world.block_on(relay.push(envelope(0, 1_000, 900)))).unwrap();
    drop(relay);
    let relay = world.open();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    let shown: Vec<u64> = shown.into_iter().chain([1_000]).collect();
    assert_eq!(numbers(world, &relay), shown, "when there is space again");
}

/// The items of the first queue.
fn numbers(world: &World, relay: &RedbRelay) -> Vec<u64> {
    retry(|| world.pull_all(relay, 0)).unwrap().into_iter().map(|item| item.0).collect()
}
