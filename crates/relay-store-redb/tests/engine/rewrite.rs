//! The store rewrites an index that is mostly holes. A power cut during the rewrite loses nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use redb::{ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use relay_core::{Envelope, Recipient, Relay};
use relay_disk::{Call, Class, Fault, SimDisk, Survival};
use relay_store_redb::{Options, RedbRelay};

use crate::index::{Index, META, NAMES, ROWS};
use crate::story::{Ledger, OnFailure, STORY};
use crate::world::{World, envelope, positions, run_slow_tests, with_timeout};

/// The store does not rewrite an index below this length.
const REWRITE_BYTES_MIN: usize = 16 * 1024 * 1024;

/// A closed store whose index is mostly holes, and the ledger of its items.
fn with_holes(world: World) -> (World, Ledger) {
    let relay = world.open();
    let mut ledger = Ledger::default();
    assert!(ledger.run(&world, &relay, &STORY[..4], OnFailure::Stop));
    drop(relay);
    // Several transactions: later pieces keep the file from shrinking when the first one is freed.
    let index = Index::open(&world.disk);
    let ballast = TableDefinition::<u64, &[u8]>::new("ballast");
    for number in 0..20 {
        index.write(|tx| {
            tx.open_table(ballast).unwrap().insert(number, vec![1; 1 << 20].as_slice()).unwrap();
        });
    }
    drop(index);
    assert!(world.disk.contents("relay.redb").unwrap().len() > REWRITE_BYTES_MIN);
    (world, ledger)
}

fn index_bytes(disk: &SimDisk) -> usize {
    disk.contents("relay.redb").unwrap().len()
}

#[test]
fn an_index_with_holes_is_rewritten() {
    expect_rewritten(World::new);
}

#[test]
fn an_index_with_holes_is_rewritten_with_blobs() {
    expect_rewritten(World::with_blobs);
}

fn expect_rewritten(new: fn() -> World) {
    with_timeout(move || {
        let (world, mut ledger) = with_holes(new());
        let relay = world.open();
        assert!(ledger.run(&world, &relay, &STORY[4..], OnFailure::Stop));
        ledger.audit(&world, &relay);
        assert!(index_bytes(&world.disk) < REWRITE_BYTES_MIN / 8, "{} bytes", index_bytes(&world.disk));
        drop(relay);
        let relay = world.open();
        ledger.audit(&world, &relay);
        ledger.expect_usable(&world, &relay);
    });
}

#[test]
fn an_index_is_not_rewritten_without_space_for_both_files() {
    with_timeout(|| {
        let (world, mut ledger) = with_holes(World::new());
        let rewrites = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&rewrites);
        let relay = world.open_hooked(move |call| {
            if let Call::Create("relay.redb.new") = call {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        world.disk.space_limit(Some(world.disk.bytes_used() + REWRITE_BYTES_MIN as u64 / 2));
        assert!(ledger.run(&world, &relay, &STORY[4..5], OnFailure::Stop));
        assert_eq!(rewrites.load(Ordering::SeqCst), 0);
        world.disk.space_limit(None);
        assert!(ledger.run(&world, &relay, &STORY[5..], OnFailure::Stop));
        ledger.audit(&world, &relay);
        assert!(rewrites.load(Ordering::SeqCst) > 0 && index_bytes(&world.disk) < REWRITE_BYTES_MIN / 8);
    });
}

/// After a failed sync of the directory, a crash may leave either of the two files, whatever is
/// synced later.
#[test]
fn a_failed_sync_during_a_rewrite_and_a_later_power_cut_lose_nothing() {
    with_timeout(|| {
        let (start, ledger) = with_holes(World::new());
        // The checkpoint of the first sweep rewrites the index.
        for at in positions(24, 6) {
            let world = World { clock: Arc::default(), ..start.after_crash(Survival::All) };
            let mut ledger = ledger.clone();
            let relay = world.open();
            world.disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
            ledger.run(&world, &relay, &STORY[4..], OnFailure::Retry);
            let world = world.after_crash(Survival::None);
            ledger.audit(&world, &world.open());
        }
    });
}

/// After a rewrite, the store deletes segments according to the new index.
#[test]
fn no_power_cut_brings_back_the_old_index_after_a_rewrite() {
    with_timeout(|| {
        let (world, mut ledger) = (World::new(), Ledger::default());
        let relay = world.open();
        assert!(ledger.run(&world, &relay, &STORY[..4], OnFailure::Stop));
        world.block_on(relay.compact()).unwrap();
        let index = world.disk.contents("relay.redb");
        let world = world.after_crash(Survival::None);
        assert!(world.disk.contents("relay.redb") == index, "a power cut has brought back another index");
        ledger.audit(&world, &world.open());
    });
}

#[test]
fn a_power_cut_during_a_rewrite_loses_nothing() {
    with_timeout(|| {
        let (start, ledger) = with_holes(World::new());
        let disk = start.disk.after_crash(Survival::All);
        let world = start.on(disk);
        let relay = world.open();
        assert!(ledger.clone().run(&world, &relay, &STORY[4..8], OnFailure::Stop));
        drop(relay);
        assert!(index_bytes(&world.disk) < REWRITE_BYTES_MIN);
        let syncs = world.disk.syncs();
        // Each copy of a disk of this size is slow.
        let sample = if run_slow_tests() { 12 } else { 6 };
        for n in (0..syncs).step_by(usize::try_from(syncs).unwrap().div_ceil(sample)) {
            let world = World { clock: Arc::default(), ..start.after_crash(Survival::All) };
            let mut ledger = ledger.clone();
            world.disk.cut_at_sync(n);
            if let Ok(relay) = world.try_open() {
                ledger.run(&world, &relay, &STORY[4..8], OnFailure::Stop);
            }
            for survival in [Survival::None, Survival::All, Survival::Torn(n)] {
                eprintln!("power cut at sync {n}, {survival:?}");
                let (world, mut ledger) = (world.after_crash(survival), ledger.clone());
                let relay = world.open();
                ledger.audit(&world, &relay);
                ledger.expect_usable(&world, &relay);
            }
        }
    });
}

/// The bytes of the keys and values of all rows: as the store recorded them, and as redb counts
/// them.
fn rows_bytes(disk: &SimDisk) -> (Option<u64>, u64) {
    let index = Index::open(disk);
    let tx = index.database().begin_read().unwrap();
    let recorded = tx.open_table(META).unwrap().get("rows_bytes").unwrap().map(|bytes| bytes.value());
    let rows = tx.open_table(ROWS).unwrap().stats().unwrap().stored_bytes();
    (recorded, rows + tx.open_table(NAMES).unwrap().stats().unwrap().stored_bytes())
}

#[test]
fn each_checkpoint_records_the_bytes_of_all_rows() {
    for new in [World::new, World::with_blobs] {
        let world = new();
        let mut ledger = Ledger::default();
        for step in STORY {
            let relay = world.open();
            assert!(ledger.run(&world, &relay, &[*step], OnFailure::Stop));
            drop(relay);
            let (recorded, bytes) = rows_bytes(&world.disk);
            assert_eq!(recorded, Some(bytes), "{step:?}");
        }
        let relay = world.open();
        world.block_on(relay.compact()).unwrap();
        drop(relay);
        let (recorded, bytes) = rows_bytes(&world.disk);
        assert!(recorded == Some(bytes) && bytes > 0, "after a rewrite: {recorded:?}, {bytes} bytes");
    }
}

/// Earlier versions of the store did not record the bytes of the rows.
#[test]
fn a_large_index_without_recorded_bytes_is_counted() {
    with_timeout(|| {
        let (world, mut ledger) = with_holes(World::new());
        Index::open(&world.disk).write(|tx| {
            tx.open_table(META).unwrap().remove("rows_bytes").unwrap();
        });
        let relay = world.open();
        assert!(ledger.run(&world, &relay, &STORY[4..], OnFailure::Stop));
        ledger.audit(&world, &relay);
        drop(relay);
        assert!(index_bytes(&world.disk) < REWRITE_BYTES_MIN / 8, "{} bytes", index_bytes(&world.disk));
        let (recorded, bytes) = rows_bytes(&world.disk);
        assert_eq!(recorded, Some(bytes));
    });
}

/// Queues, and items of each, that make an index of more than 16 MiB.
const QUEUES: u64 = 8_000;
const ITEMS: u64 = 40;

/// A closed store whose index has no more holes than usual.
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
    assert!(index_bytes(&world.disk) > REWRITE_BYTES_MIN);
    world
}

async fn push(relay: &RedbRelay, queue: u64, number: u64) -> bool {
    let recipient = Recipient::parse(&format!("queue {queue:05}")).unwrap();
    relay.push(Envelope { recipient, ..envelope(0, number, 10) }).await.unwrap().is_stored()
}

/// They write 4 MiB for an index of 100 MB.
#[test]
fn a_start_and_its_first_checkpoint_write_little_with_a_large_index() {
    with_timeout(|| {
        let world = dense();
        for number in [1, 2, 3] {
            let (written_before, index_bytes) = (world.disk.written_bytes(), index_bytes(&world.disk) as u64);
            let relay = world.open();
            assert!(world.block_on(push(&relay, 0, QUEUES * ITEMS + number)));
            drop(world.block_on(relay.snapshots().take()).unwrap());
            drop(relay);
            let written_bytes = world.disk.written_bytes() - written_before;
            assert!(written_bytes < index_bytes / 25, "{written_bytes} bytes for an index of {index_bytes}");
        }
    });
}

/// The size of the file after the last rewrite is its size without holes. Such a file is not
/// rewritten again.
#[test]
fn an_index_is_not_rewritten_if_the_last_rewrite_gained_nothing() {
    with_timeout(|| {
        let world = dense();
        let bytes = index_bytes(&world.disk) as u64;
        for (per_1000, expected) in [(bytes / 1800, 0), (bytes / 2200, 1)] {
            Index::open(&world.disk).write(|tx| {
                let mut meta = tx.open_table(META).unwrap();
                meta.insert("rows_bytes", 1_000_000).unwrap();
                meta.insert("file_bytes_per_1000", per_1000).unwrap();
            });
            let rewrites = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&rewrites);
            let relay = world.open_hooked(move |call| {
                counted.fetch_add(usize::from(call == Call::Create("relay.redb.new")), Ordering::SeqCst);
                Ok(())
            });
            for _ in 0..3 {
                world.block_on(relay.sweep()).unwrap();
            }
            assert_eq!(
                rewrites.load(Ordering::SeqCst),
                expected,
                "{per_1000} bytes of file per 1,000 after the last rewrite"
            );
        }
    });
}
