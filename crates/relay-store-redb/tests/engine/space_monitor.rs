//! The limits of disk space: when one is exceeded, the store rejects pushes and nothing else. It
//! accepts them again as soon as there is space.
//!
//! Not promised: that a limit is never exceeded. Writes between two checks may exceed it, and so
//! may the work that frees space.

use relay_core::{Ack, Error, Limits, PushOutcome, Relay};
use relay_disk::Disk;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, id, recipient, small_options, with_timeout};

const BYTES: usize = 900;
/// Large enough to become a blob.
const LARGE: usize = 5_000;

const FREE_BYTES_MIN: u64 = 400_000;
const STORE_BYTES_MAX: u64 = 2_200_000;

/// How far a limit may be exceeded: the store checks after writing a sixteenth of it, and a
/// checkpoint may be in progress.
const SLACK_BYTES: u64 = 200_000;

/// More than the index takes. One checkpoint may double the length of its file, which shrinks when
/// it is closed.
const INDEX_BYTES: u64 = 1_000_000;

/// The space of a small disk beyond the space to keep free. The index keeps its length, up to two
/// thirds of this, when all items are acked.
const SPARE_BYTES: u64 = 1_200_000;

/// More pushes than any of these stores accepts.
const PUSHES_MAX: u64 = 2_000;

fn world(free_bytes_min: u64, store_bytes_max: u64) -> World {
    let options = Options { free_bytes_min, store_bytes_max, blob_bytes: 4_000, ..small_options() };
    let mut world = World::new().with_options(options);
    world.limits = Limits { ttl_ms: 3_600_000, ..Limits::default() };
    world
}

/// A disk with little more space than the space to keep free.
fn small_disk() -> World {
    let world = world(FREE_BYTES_MIN, 0);
    drop(world.open());
    world.disk.space_limit(Some(world.disk.bytes_used() + FREE_BYTES_MIN + SPARE_BYTES));
    world
}

fn push(world: &World, relay: &RedbRelay, number: u64, bytes: usize) -> Result<PushOutcome, Error> {
    world.block_on(relay.push(envelope(0, number, bytes)))
}

/// Pushes items from `first` on. Returns the number of the first one that is rejected.
fn fill(world: &World, relay: &RedbRelay, first: u64, bytes: usize) -> u64 {
    for number in first..first + PUSHES_MAX {
        match push(world, relay, number, bytes) {
            Ok(outcome) => assert!(outcome.is_stored()),
            Err(Error::StorageFull) => return number,
            Err(error) => panic!("push {number}: {error:?}"),
        }
    }
    panic!("the store never becomes full")
}

/// Describes the used and free space, for messages.
fn sizes(world: &World) -> String {
    let index_bytes = world.disk.contents("relay.redb").unwrap().len();
    let (used_bytes, free_bytes) = (world.disk.bytes_used(), world.disk.free_bytes().unwrap());
    format!("{used_bytes} bytes are used, {index_bytes} by the index, and {free_bytes:?} are free")
}

fn ack_and_sweep(world: &World, relay: &RedbRelay, numbers: impl Iterator<Item = u64>) {
    let ack = Ack::new(recipient(0), numbers.map(id).collect()).unwrap();
    let count = ack.items().len() as u64;
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, count, "a full store accepts acks");
    world.block_on(relay.sweep()).unwrap();
}

/// Fills the store, checks that it rejects new items only, and that acks make it accept pushes
/// again.
fn fill_and_free(world: &World, bytes: usize) {
    let relay = world.open();
    assert!(!relay.is_full());
    let full_at = fill(world, &relay, 0, bytes);
    assert!(full_at > 20, "only {full_at} were stored");
    assert!(relay.is_full());
    let outcome = push(world, &relay, 0, bytes).unwrap();
    assert!(matches!(outcome, PushOutcome::Duplicate { conflict: false, .. }), "{outcome:?}");
    assert_eq!(world.pull_numbers(&relay, 0), (0..full_at).collect::<Vec<_>>(), "a rejected item was stored");

    ack_and_sweep(world, &relay, 0..full_at - 5);
    assert_eq!(world.pull_numbers(&relay, 0), (full_at - 5..full_at).collect::<Vec<_>>());
    // The store checks the space once a second.
    world.clock.advance_ms(1_000);
    assert!(!relay.is_full(), "{}", sizes(world));
    assert!(push(world, &relay, full_at, bytes).unwrap().is_stored());
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    drop(relay);
    assert_eq!(world.pull_numbers(&world.open(), 0), (full_at - 5..=full_at).collect::<Vec<_>>());
}

#[test]
fn pushes_leave_the_configured_space_free() {
    with_timeout(|| {
        for bytes in [BYTES, LARGE] {
            let world = small_disk();
            fill_and_free(&world, bytes);
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
fn pushes_keep_the_store_below_its_size_limit() {
    with_timeout(|| {
        for bytes in [BYTES, LARGE] {
            fill_and_free(&world(0, STORE_BYTES_MAX), bytes);
            let world = world(0, STORE_BYTES_MAX);
            let relay = world.open();
            fill(&world, &relay, 0, bytes);
            let allowed = STORE_BYTES_MAX - SLACK_BYTES..STORE_BYTES_MAX + SLACK_BYTES + INDEX_BYTES;
            assert!(allowed.contains(&world.disk.bytes_used()), "{}", sizes(&world));
        }
    });
}

#[test]
fn expired_items_free_space() {
    with_timeout(|| {
        let world = small_disk();
        let relay = world.open();
        let full_at = fill(&world, &relay, 0, BYTES);
        world.clock.advance_ms(world.limits.ttl_ms);
        assert_eq!(world.block_on(relay.sweep()).unwrap().items, full_at);
        world.clock.advance_ms(1_000);
        assert!(push(&world, &relay, full_at, BYTES).unwrap().is_stored());
    });
}

/// Other programs fill the disk and free space again. The store notices without a push.
#[test]
fn the_store_notices_space_that_others_use_or_free() {
    with_timeout(|| {
        let world = small_disk();
        let relay = world.open();
        let mut was_full = false;
        for is_full in [true, false, true] {
            let free_bytes = if is_full { FREE_BYTES_MIN - 1 } else { 2 * FREE_BYTES_MIN };
            world.disk.space_limit(Some(world.disk.bytes_used() + free_bytes));
            assert_eq!(relay.is_full(), was_full, "the store must not check on each call");
            world.clock.advance_ms(1_000);
            assert_eq!(relay.is_full(), is_full);
            was_full = is_full;
        }
        // Also after the clock is set back.
        world.disk.space_limit(None);
        world.clock.set(relay_core::Timestamp::from_ms(0));
        assert!(!relay.is_full());
    });
}

#[test]
fn a_store_that_opens_on_a_full_disk_reports_it() {
    let world = small_disk();
    world.disk.space_limit(Some(world.disk.bytes_used() + FREE_BYTES_MIN - 1));
    let relay = world.open();
    assert!(relay.is_full());
    assert!(matches!(push(&world, &relay, 0, BYTES), Err(Error::StorageFull)));
    assert_eq!(world.pull_numbers(&relay, 0), Vec::<u64>::new());
}

#[test]
fn a_disk_that_cannot_report_its_free_space_is_not_full() {
    let world = world(FREE_BYTES_MIN, 0);
    let relay = world.open();
    assert!(push(&world, &relay, 0, BYTES).unwrap().is_stored());
    assert!(!relay.is_full());
}
