//! An index that is mostly holes is written anew, and a power cut at any moment of that costs nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redb::TableDefinition;
use relay_disk::{Call, Class, Fault, SimDisk, Survival};

use crate::story::{Ledger, Manner, STORY};
use crate::world::{Index, World, positions, run_slow_tests, within_bounds};

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

/// After a failed sync of the names nobody knows which of the two files a crash would leave, whatever is synced later.
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
