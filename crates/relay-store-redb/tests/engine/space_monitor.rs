//! SpaceMonitor that is kept free: with too little of it pushes are refused, and nothing else; and
//! they are taken again by themselves.
//!
//! Not promised: that the bound is never passed. What is written between two looks passes it, and
//! what frees space may.

use relay_core::{Ack, Error, Limits, PushOutcome, Relay};
use relay_disk::Disk;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, id, small_options, within_bounds};

const BYTES: usize = 900;
/// So large that it lies in a file of its own.
const LARGE: usize = 5_000;

const FREE_BYTES_MIN: u64 = 400_000;
const STORE_BYTES_MAX: u64 = 2_200_000;

/// How far a bound is passed by: a look comes after a sixteenth of it, and a checkpoint may be
/// under way.
const SLACK_BYTES: u64 = 200_000;

/// More than the index takes, whose file may grow to twice its length by one checkpoint, and
/// shrinks when it is closed.
const INDEX_BYTES: u64 = 1_000_000;

/// What a small disk has beside what is to be kept free. When all is acked the index keeps its
/// length: up to two thirds of this.
const ROOM_BYTES: u64 = 1_200_000;

/// So many pushes are more than any of these stores takes.
const MANY: u64 = 2_000;

fn world(free_bytes_min: u64, store_bytes_max: u64) -> World {
    let options = Options { free_bytes_min, store_bytes_max, blob_bytes: 4_000, ..small_options() };
    let mut world = World::new().with_options(options);
    world.limits = Limits { ttl_ms: 3_600_000, ..Limits::default() };
    world
}

/// A disk on which there is little more than what is to be kept free.
fn small_disk() -> World {
    let world = world(FREE_BYTES_MIN, 0);
    drop(world.open());
    world.disk.space_limit(Some(world.disk.bytes_used() + FREE_BYTES_MIN + ROOM_BYTES));
    world
}

fn push(world: &World, relay: &RedbRelay, number: u64, bytes: usize) -> Result<PushOutcome, Error> {
    world.block_on(relay.push(envelope(0, number, bytes)))
}

/// Pushes from `first` on until one is refused; tells which.
fn fill(world: &World, relay: &RedbRelay, first: u64, bytes: usize) -> u64 {
    for number in first..first + MANY {
        match push(world, relay, number, bytes) {
            Ok(outcome) => assert!(outcome.is_stored()),
            Err(Error::StorageFull) => return number,
            Err(error) => panic!("push {number}: {error:?}"),
        }
    }
    panic!("it is never full")
}

/// What the files take, in words.
fn sizes(world: &World) -> String {
    let index_bytes = world.disk.contents("relay.redb").unwrap().len();
    let (used_bytes, free_bytes) = (world.disk.bytes_used(), world.disk.free_bytes().unwrap());
    format!("{used_bytes} bytes are used, {index_bytes} by the index, and {free_bytes:?} are free")
}

fn numbers(world: &World, relay: &RedbRelay) -> Vec<u64> {
    world.pull_all(relay, 0).unwrap().into_iter().map(|item| item.0).collect()
}

fn ack_and_sweep(world: &World, relay: &RedbRelay, numbers: impl Iterator<Item = u64>) {
    let ack = Ack::new(crate::world::recipient(0), numbers.map(id).collect()).unwrap();
    let named = ack.items().len() as u64;
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, named, "an ack is no push");
    world.block_on(relay.sweep()).unwrap();
}

/// It is full; everything but a new item goes on; and once items were acked it is not full any
/// more.
fn fill_and_make_room(world: &World, bytes: usize) {
    let relay = world.open();
    assert!(!relay.is_full());
    let full_at = fill(world, &relay, 0, bytes);
    assert!(full_at > 20, "only {full_at} were stored");
    assert!(relay.is_full());
    let outcome = push(world, &relay, 0, bytes).unwrap();
    assert!(matches!(outcome, PushOutcome::Duplicate { conflict: false, .. }), "{outcome:?}");
    assert_eq!(
        numbers(world, &relay),
        (0..full_at).collect::<Vec<_>>(),
        "nothing was stored that was refused"
    );

    ack_and_sweep(world, &relay, 0..full_at - 5);
    assert_eq!(numbers(world, &relay), (full_at - 5..full_at).collect::<Vec<_>>());
    // It looks once a second.
    world.clock.advance_ms(1_000);
    assert!(!relay.is_full(), "{}", sizes(world));
    assert!(push(world, &relay, full_at, bytes).unwrap().is_stored());
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    drop(relay);
    assert_eq!(numbers(world, &world.open()), (full_at - 5..=full_at).collect::<Vec<_>>());
}

#[test]
fn a_disk_is_not_filled_to_the_last_byte() {
    within_bounds(|| {
        for bytes in [BYTES, LARGE] {
            let world = small_disk();
            fill_and_make_room(&world, bytes);
            let world = small_disk();
            let relay = world.open();
            fill(&world, &relay, 0, bytes);
            drop(relay);
            let free_bytes = world.disk.free_bytes().unwrap().unwrap();
            assert!(free_bytes > FREE_BYTES_MIN - SLACK_BYTES, "{}", sizes(&world));
        }
    });
}

#[test]
fn a_store_grows_no_further_than_it_may() {
    within_bounds(|| {
        for bytes in [BYTES, LARGE] {
            fill_and_make_room(&world(0, STORE_BYTES_MAX), bytes);
            let world = world(0, STORE_BYTES_MAX);
            let relay = world.open();
            fill(&world, &relay, 0, bytes);
            let allowed = STORE_BYTES_MAX - SLACK_BYTES..STORE_BYTES_MAX + SLACK_BYTES + INDEX_BYTES;
            assert!(allowed.contains(&world.disk.bytes_used()), "{}", sizes(&world));
        }
    });
}

#[test]
fn what_expires_makes_room() {
    within_bounds(|| {
        let world = small_disk();
        let relay = world.open();
        let full_at = fill(&world, &relay, 0, BYTES);
        world.clock.advance_ms(world.limits.ttl_ms);
        assert_eq!(world.block_on(relay.sweep()).unwrap().items, full_at);
        world.clock.advance_ms(1_000);
        assert!(push(&world, &relay, full_at, BYTES).unwrap().is_stored());
    });
}

/// Others fill the disk, and make room again. Nobody has to push for the store to notice.
#[test]
fn it_notices_what_others_do_to_the_disk() {
    within_bounds(|| {
        let world = small_disk();
        let relay = world.open();
        let mut was_full = false;
        for is_full in [true, false, true] {
            let room = if is_full { FREE_BYTES_MIN - 1 } else { 2 * FREE_BYTES_MIN };
            world.disk.space_limit(Some(world.disk.bytes_used() + room));
            assert_eq!(relay.is_full(), was_full, "it does not look with each question");
            world.clock.advance_ms(1_000);
            assert_eq!(relay.is_full(), is_full);
            was_full = is_full;
        }
        // Also when the clock was set back.
        world.disk.space_limit(None);
        world.clock.set(relay_core::Timestamp::from_ms(0));
        assert!(!relay.is_full());
    });
}

#[test]
fn a_store_that_begins_full_says_so() {
    let world = small_disk();
    world.disk.space_limit(Some(world.disk.bytes_used() + FREE_BYTES_MIN - 1));
    let relay = world.open();
    assert!(relay.is_full());
    assert!(matches!(push(&world, &relay, 0, BYTES), Err(Error::StorageFull)));
    assert_eq!(numbers(&world, &relay), Vec::<u64>::new());
}

#[test]
fn a_disk_that_cannot_tell_is_no_reason_to_refuse() {
    let world = world(FREE_BYTES_MIN, 0);
    let relay = world.open();
    assert!(push(&world, &relay, 0, BYTES).unwrap().is_stored());
    assert!(!relay.is_full());
}
