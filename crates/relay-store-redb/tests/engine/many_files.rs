//! A store with a hundred thousand blobs: a start and a checkpoint do little for each of them.
//!
//! The files are empty, but the index counts a live item in each. Nothing reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_core::Relay;
use relay_disk::{Call, Disk};
use relay_store_redb::Options;

use crate::index::{Index, META, SEGMENTS, update_meta_checksum};
use crate::world::{World, envelope, small_options, with_timeout};

const FILES: u32 = 100_000;

/// Inserts a row for each blob.
fn fill(tx: &redb::WriteTransaction) {
    let mut segments = tx.open_table(SEGMENTS).unwrap();
    for file in 1..=FILES {
        segments.insert(1 << 31 | file, (1, 100)).unwrap();
    }
    drop(segments);
    tx.open_table(META).unwrap().insert("payloads_through", u64::from(FILES)).unwrap();
    update_meta_checksum(tx);
}

fn with_many_files() -> World {
    let world = World::with_blobs();
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
fn a_start_reads_the_length_of_each_blob_and_opens_none() {
    with_timeout(|| {
        let world = with_many_files();
        let calls_before = world.disk.calls();
        let relay = world.open();
        let calls = world.disk.calls() - calls_before;
        let files = u64::from(FILES);
        assert!((files..files + files / 10).contains(&calls), "{calls} disk calls");
        let blob_files = relay.figures().files.into_iter().find(|files| files.kind == "payload").unwrap();
        assert_eq!((blob_files.files, blob_files.bytes), (files, 0));
    });
}

#[test]
fn a_checkpoint_reads_only_the_rows_that_it_changes() {
    with_timeout(|| {
        let world = with_many_files();
        // Without a cache, every read of the index is a read of the disk.
        let world = world.with_options(Options { cache_bytes: 0, blob_bytes: 250, ..small_options() });
        let reads = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&reads);
        let relay = world.open_hooked(move |call| {
            counted.fetch_add(u64::from(matches!(call, Call::Read("relay.redb", _))), Ordering::SeqCst);
            Ok(())
        });
        let start_reads = reads.load(Ordering::SeqCst);
        assert!(start_reads > 500, "a start reads all rows, but only {start_reads} pages");
        for number in 2..5 {
            let reads_before = reads.load(Ordering::SeqCst);
            world.block_on(relay.push(envelope(0, number, 1000))).unwrap();
            drop(world.block_on(relay.snapshots().take()).unwrap());
            let pages = reads.load(Ordering::SeqCst) - reads_before;
            assert!(pages < start_reads / 5, "{pages} pages for a checkpoint, {start_reads} at the start");
        }
        drop(relay);
        let relay = world.open();
        assert_eq!(world.pull_all(&relay, 0).unwrap().len(), 4);
    });
}

/// Each sweep lists all blobs, and deletes those without a live item.
#[test]
fn a_sweep_deletes_the_only_unused_blob() {
    with_timeout(|| {
        let world = with_many_files();
        world.disk.create(&format!("payload-{:010}.seg", FILES + 1)).unwrap();
        let relay = world.open();
        assert_eq!(world.blob_files().len(), FILES as usize + 1);
        world.block_on(relay.sweep()).unwrap();
        assert_eq!(world.blob_files().len(), FILES as usize);
        assert_eq!(relay.figures().reclaim_lag_ms, Some(0));
    });
}
