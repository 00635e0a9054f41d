//! A hundred thousand payload files: what a start and a checkpoint do does not become as much for
//! each of them.
//!
//! The files are empty, and the index says that something lives in each. Nothing reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{ReadableTable, TableDefinition};
use relay_core::Relay;
use relay_disk::{Call, Disk};
use relay_store_redb::Options;

use crate::world::{Index, World, envelope, small_options, within_bounds};

const FILES: u32 = 100_000;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SEGMENTS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("segments");

/// Notes a row for each payload file, and the checksum over all of them.
fn fill(tx: &redb::WriteTransaction) {
    let (mut meta, mut segments) = (tx.open_table(META).unwrap(), tx.open_table(SEGMENTS).unwrap());
    for file in 1..=FILES {
        segments.insert(1 << 31 | file, (1, 100)).unwrap();
    }
    meta.insert("payloads_through", u64::from(FILES)).unwrap();
    let names =
        ["last_seq", "last_queue", "time_ms", "journal_segment", "journal_offset", "payloads_through"];
    let mut numbers = names.map(|name| meta.get(name).unwrap().unwrap().value()).to_vec();
    for row in segments.iter().unwrap().map(Result::unwrap) {
        let (items, bytes) = row.1.value();
        numbers.extend([u64::from(row.0.value()), items, bytes]);
    }
    let checksum = numbers.iter().fold(0, |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()));
    meta.insert("checksum", u64::from(checksum)).unwrap();
}

fn with_many_files() -> World {
    let world = World::aside();
    let relay = world.open();
    world.block_on(relay.push(envelope(0, 1, 10))).unwrap();
    drop(relay);
    Index::open(&world.disk).write(fill);
    for file in 1..=FILES {
        world.disk.create(&format!("payload-{file:010}.seg")).unwrap();
    }
    world.disk.sync().unwrap();
    world
}

#[test]
fn a_start_asks_for_the_length_of_each_and_opens_none() {
    within_bounds(|| {
        let world = with_many_files();
        let before = world.disk.calls();
        let relay = world.open();
        let calls = world.disk.calls() - before;
        let files = u64::from(FILES);
        assert!((files..files + files / 10).contains(&calls), "{calls} calls of the disk");
        let payload_files = relay.figures().files.into_iter().find(|files| files.kind == "payload").unwrap();
        assert_eq!((payload_files.files, payload_files.bytes), (files, 0));
    });
}

#[test]
fn a_checkpoint_reads_the_rows_that_it_changes() {
    within_bounds(|| {
        let world = with_many_files();
        // Whatever is read of the index is read from the disk.
        let world = world.with_options(Options { cache_bytes: 0, blob_bytes: 250, ..small_options() });
        let reads = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&reads);
        let relay = world.open_hooked(move |call| {
            counted.fetch_add(u64::from(matches!(call, Call::Read("relay.redb", _))), Ordering::SeqCst);
            Ok(())
        });
        let at_the_start = reads.load(Ordering::SeqCst);
        assert!(at_the_start > 500, "a start reads all of them, in {at_the_start} pages");
        for number in 2..5 {
            let before = reads.load(Ordering::SeqCst);
            world.block_on(relay.push(envelope(0, number, 1000))).unwrap();
            drop(world.block_on(relay.snapshots().take()).unwrap());
            let pages = reads.load(Ordering::SeqCst) - before;
            assert!(pages < at_the_start / 5, "{pages} pages for a checkpoint, {at_the_start} at the start");
        }
        drop(relay);
        let found = world.open();
        assert_eq!(world.pull_all(&found, 0).unwrap().len(), 4);
    });
}

/// All are listed with each sweep, and those that nothing leads to go.
#[test]
fn a_sweep_finds_the_one_that_is_dead() {
    within_bounds(|| {
        let world = with_many_files();
        world.disk.create(&format!("payload-{:010}.seg", FILES + 1)).unwrap();
        let relay = world.open();
        assert_eq!(world.payload_files().len(), FILES as usize + 1);
        world.block_on(relay.sweep()).unwrap();
        assert_eq!(world.payload_files().len(), FILES as usize);
        assert_eq!(relay.figures().reclaim_lag_ms, Some(0));
    });
}
