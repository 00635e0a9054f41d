//! An index that is mostly holes is written anew, and a power cut at any moment of that costs
//! nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition};
use relay_core::{Envelope, Recipient, Relay};
use relay_disk::{Call, Class, Fault, SimDisk, Survival};
use relay_store_redb::{Options, RedbRelay};

use crate::story::{Ledger, Manner, STORY};
use crate::world::{Index, World, envelope, positions, run_slow_tests, within_bounds};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const NAMES: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("names");

/// An index is not written anew below this length.
const SMALL_BYTES: usize = 16 * 1024 * 1024;

/// A store whose index is mostly holes, and what it holds.
fn wasteful(world: World) -> (World, Ledger) {
    let relay = world.open();
    let mut ledger = Ledger::default();
    assert!(ledger.tell(&world, &relay, &STORY[..4], Manner::Once));
    drop(relay);
    // Two pieces: the later one keeps the file from shrinking when the first one goes.
    let index = Index::open(&world.disk);
    let ballast = TableDefinition::<u64, &[u8]>::new("ballast");
    for number in 0..20 {
        index.write(|tx| {
            tx.open_table(ballast).unwrap().insert(number, vec![1; 1 << 20].as_slice()).unwrap();
        });
    }
    drop(index);
    assert!(world.disk.contents("relay.redb").unwrap().len() > SMALL_BYTES);
    (world, ledger)
}

fn index_bytes(disk: &SimDisk) -> usize {
    disk.contents("relay.redb").unwrap().len()
}

#[test]
fn a_wasteful_index_is_written_anew() {
    write_anew(World::new);
}

#[test]
fn a_wasteful_index_is_written_anew_with_payloads_aside() {
    write_anew(World::aside);
}

fn write_anew(new: fn() -> World) {
    within_bounds(move || {
        let (world, mut ledger) = wasteful(new());
        let relay = world.open();
        assert!(ledger.tell(&world, &relay, &STORY[4..], Manner::Once));
        ledger.audit(&world, &relay);
        assert!(index_bytes(&world.disk) < SMALL_BYTES / 8, "{} bytes", index_bytes(&world.disk));
        drop(relay);
        let relay = world.open();
        ledger.audit(&world, &relay);
        ledger.go_on(&world, &relay);
    });
}

#[test]
fn an_index_is_not_written_anew_where_there_is_no_room_for_both() {
    within_bounds(|| {
        let (world, mut ledger) = wasteful(World::new());
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        let relay = world.open_hooked(move |call| {
            if let Call::Create("relay.redb.new") = call {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        world.disk.space_limit(Some(world.disk.bytes_used() + SMALL_BYTES as u64 / 2));
        assert!(ledger.tell(&world, &relay, &STORY[4..5], Manner::Once));
        assert_eq!(tries.load(Ordering::SeqCst), 0);
        world.disk.space_limit(None);
        assert!(ledger.tell(&world, &relay, &STORY[5..], Manner::Once));
        ledger.audit(&world, &relay);
        assert!(tries.load(Ordering::SeqCst) > 0 && index_bytes(&world.disk) < SMALL_BYTES / 8);
    });
}

/// After a failed sync of the names nobody knows which of the two files a crash would leave,
/// whatever is synced later.
#[test]
fn a_sync_fails_while_the_index_is_written_anew_and_later_the_power_goes() {
    within_bounds(|| {
        let (start, ledger) = wasteful(World::new());
        // The checkpoint at the end of the first sweep writes the index anew.
        for at in positions(24, 6) {
            let world = World { clock: Arc::default(), ..start.after_crash(Survival::All) };
            let mut ledger = ledger.clone();
            let relay = world.open();
            world.disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
            ledger.tell(&world, &relay, &STORY[4..], Manner::Again);
            let world = world.after_crash(Survival::None);
            ledger.audit(&world, &world.open());
        }
    });
}

/// From then on files go by what the new one says.
#[test]
fn no_power_cut_brings_back_an_index_that_was_written_anew() {
    within_bounds(|| {
        let (world, mut ledger) = (World::new(), Ledger::default());
        let relay = world.open();
        assert!(ledger.tell(&world, &relay, &STORY[..4], Manner::Once));
        world.block_on(relay.compact()).unwrap();
        let index = world.disk.contents("relay.redb");
        let world = world.after_crash(Survival::None);
        assert!(world.disk.contents("relay.redb") == index, "it is another one");
        ledger.audit(&world, &world.open());
    });
}

#[test]
fn the_power_goes_while_the_index_is_written_anew() {
    within_bounds(|| {
        let (start, ledger) = wasteful(World::new());
        let disk = start.disk.after_crash(Survival::All);
        let world = start.on(disk);
        let relay = world.open();
        assert!(ledger.clone().tell(&world, &relay, &STORY[4..8], Manner::Once));
        drop(relay);
        assert!(index_bytes(&world.disk) < SMALL_BYTES);
        let syncs = world.disk.syncs();
        // Copies of a disk of this size take their time.
        let sample = if run_slow_tests() { 12 } else { 6 };
        for n in (0..syncs).step_by(usize::try_from(syncs).unwrap().div_ceil(sample)) {
            let world = World { clock: Arc::default(), ..start.after_crash(Survival::All) };
            let mut ledger = ledger.clone();
            world.disk.cut_at_sync(n);
            if let Ok(relay) = world.try_open() {
                ledger.tell(&world, &relay, &STORY[4..8], Manner::Once);
            }
            for survival in [Survival::None, Survival::All, Survival::Torn(n)] {
                eprintln!("power cut at sync {n}, {survival:?}");
                let (world, mut ledger) = (world.after_crash(survival), ledger.clone());
                let relay = world.open();
                ledger.audit(&world, &relay);
                ledger.go_on(&world, &relay);
            }
        }
    });
}

/// What the keys and values of all rows have, in bytes: as the store has noted it, and as it is.
fn rows_bytes(disk: &SimDisk) -> (Option<u64>, u64) {
    let index = Index::open(disk);
    let tx = index.database().begin_read().unwrap();
    let noted = tx.open_table(META).unwrap().get("rows_bytes").unwrap().map(|noted| noted.value());
    let rows = tx.open_table(ROWS).unwrap().stats().unwrap().stored_bytes();
    (noted, rows + tx.open_table(NAMES).unwrap().stats().unwrap().stored_bytes())
}

#[test]
fn the_bytes_of_all_rows_are_noted_with_each_checkpoint() {
    for new in [World::new, World::aside] {
        let world = new();
        let mut ledger = Ledger::default();
        for step in STORY {
            let relay = world.open();
            assert!(ledger.tell(&world, &relay, &[*step], Manner::Once));
            drop(relay);
            let (noted, bytes) = rows_bytes(&world.disk);
            assert_eq!(noted, Some(bytes), "{step:?}");
        }
        let relay = world.open();
        world.block_on(relay.compact()).unwrap();
        drop(relay);
        let (noted, bytes) = rows_bytes(&world.disk);
        assert!(noted == Some(bytes) && bytes > 0, "written anew");
    }
}

/// As one was made by those who did not note them.
#[test]
fn an_index_that_notes_no_bytes_is_counted_when_it_is_large() {
    within_bounds(|| {
        let (world, mut ledger) = wasteful(World::new());
        Index::open(&world.disk).write(|tx| {
            tx.open_table(META).unwrap().remove("rows_bytes").unwrap();
        });
        let relay = world.open();
        assert!(ledger.tell(&world, &relay, &STORY[4..], Manner::Once));
        ledger.audit(&world, &relay);
        drop(relay);
        assert!(index_bytes(&world.disk) < SMALL_BYTES / 8, "{} bytes", index_bytes(&world.disk));
        let (noted, bytes) = rows_bytes(&world.disk);
        assert_eq!(noted, Some(bytes));
    });
}

/// So many queues of so many items have an index of more than 16 MiB.
const QUEUES: u64 = 8_000;
const ITEMS: u64 = 40;

/// An index without more holes than it has by nature.
fn dense() -> World {
    let options = Options { cache_bytes: 128 << 20, segment_bytes: 1 << 25, ..Options::default() };
    let mut world = World::new().with_options(options);
    world.limits.ttl_ms = 100_000_000;
    let relay = world.open();
    for number in (0..QUEUES * ITEMS).step_by(500) {
        let pushes = (number..number + 500).map(|number| push(&relay, number * 7919 % QUEUES, number));
        assert!(world.block_on(join_all(pushes)).into_iter().all(|is_stored| is_stored));
    }
    drop(world.block_on(relay.snapshots().take()).unwrap());
    drop(relay);
    assert!(index_bytes(&world.disk) > SMALL_BYTES);
    world
}

async fn push(relay: &RedbRelay, queue: u64, number: u64) -> bool {
    let recipient = Recipient::parse(&format!("queue {queue:05}")).unwrap();
    relay.push(Envelope { recipient, ..envelope(0, number, 10) }).await.unwrap().is_stored()
}

/// 4 MiB for 100 MB of index.
#[test]
fn a_start_and_its_first_checkpoint_write_little_however_large_the_rows_are() {
    within_bounds(|| {
        let world = dense();
        for number in [1, 2, 3] {
            let (before, index_bytes) = (world.disk.written_bytes(), index_bytes(&world.disk) as u64);
            let relay = world.open();
            assert!(world.block_on(push(&relay, 0, QUEUES * ITEMS + number)));
            drop(world.block_on(relay.snapshots().take()).unwrap());
            drop(relay);
            let written_bytes = world.disk.written_bytes() - before;
            assert!(written_bytes < index_bytes / 25, "{written_bytes} bytes for an index of {index_bytes}");
        }
    });
}

/// What its file took when it was last written anew is what it takes without holes, and no reason
/// to do that again.
#[test]
fn an_index_is_not_written_anew_again_where_that_won_nothing() {
    within_bounds(|| {
        let world = dense();
        let bytes = index_bytes(&world.disk) as u64;
        for (per_1000, expected) in [(bytes / 1800, 0), (bytes / 2200, 1)] {
            Index::open(&world.disk).write(|tx| {
                let mut meta = tx.open_table(META).unwrap();
                meta.insert("rows_bytes", 1_000_000).unwrap();
                meta.insert("file_bytes_per_1000", per_1000).unwrap();
            });
            let tries = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&tries);
            let relay = world.open_hooked(move |call| {
                counted.fetch_add(usize::from(call == Call::Create("relay.redb.new")), Ordering::SeqCst);
                Ok(())
            });
            for _ in 0..3 {
                world.block_on(relay.sweep()).unwrap();
            }
            assert_eq!(tries.load(Ordering::SeqCst), expected, "{per_1000} bytes for 1,000 before");
        }
    });
}
