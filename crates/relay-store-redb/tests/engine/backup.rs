//! A snapshot does not change while the store does. After a power cut or a failed call, an
//! incomplete backup is never accepted as complete.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use relay_core::{Clock as _, Relay as _};
use relay_disk::{Call, Class, Disk as _, Fault, HookedDisk, SimDisk, Survival};
use relay_store_redb::{Copied, CopyError, OpenError, Options, RedbRelay, Snapshot};

use crate::story::{Ledger, OnFailure, STORY, Step};
use crate::world::{World, positions, small_options, with_timeout};

/// The step of the story before which the tests take a snapshot.
const MIDDLE: usize = 6;

/// A world with explicit checkpoints only.
fn explicit_checkpoints() -> World {
    let options = Options { checkpoint_rows: 100_000, checkpoint_bytes: 1 << 30, ..small_options() };
    World::new().with_options(options)
}

/// A store in the middle of its story, and the ledger of its items.
fn in_the_middle(world: &World) -> (RedbRelay, Ledger) {
    let relay = world.open();
    let mut ledger = Ledger::default();
    assert!(ledger.run(world, &relay, &STORY[..MIDDLE], OnFailure::Stop));
    (relay, ledger)
}

fn take(world: &World, relay: &RedbRelay) -> Snapshot {
    world.block_on(relay.snapshots().take()).unwrap()
}

fn write(snapshot: Snapshot, disk: &SimDisk) -> Result<Copied, CopyError> {
    snapshot.write_on(Arc::new(disk.clone()), Path::new("/backup"), None, &mut |_| ControlFlow::Continue(()))
}

/// The store that a restore makes from a complete backup.
fn restored(world: &World, backup: &SimDisk) -> World {
    let restored = world.on(backup.after_crash(Survival::All));
    assert!(matches!(restored.try_open(), Err(OpenError::Backup { .. })));
    restored.disk.remove("relay.backup").unwrap();
    restored
}

#[test]
fn a_snapshot_does_not_change_with_the_store() {
    expect_unchanged(World::new);
}

#[test]
fn a_snapshot_does_not_change_with_the_store_with_blobs() {
    expect_unchanged(World::with_blobs);
}

fn expect_unchanged(new: fn() -> World) {
    with_timeout(move || {
        let world = new();
        let (relay, mut ledger) = in_the_middle(&world);
        let (snapshot, mut ledger_then) = (take(&world, &relay), ledger.clone());
        let taken_at = world.clock.now();
        assert!(ledger.run(&world, &relay, &STORY[MIDDLE..], OnFailure::Stop));
        world.block_on(relay.compact()).unwrap();
        let backup = SimDisk::new();
        let copied = write(snapshot, &backup).unwrap();
        assert_eq!(copied.files + 1, backup.list().unwrap().len() as u64);
        ledger.audit(&world, &relay);

        let copy = restored(&world, &backup);
        let copy = World { clock: Arc::default(), ..copy };
        copy.clock.set(taken_at);
        let restored = copy.open();
        ledger_then.audit(&copy, &restored);
        ledger_then.expect_usable(&copy, &restored);
    });
}

#[test]
fn files_are_freed_when_a_snapshot_is_dropped() {
    with_timeout(|| {
        let world = World::new();
        let (relay, mut ledger) = in_the_middle(&world);
        let snapshot = take(&world, &relay);
        let segments = world.segments();
        assert!(ledger.run(&world, &relay, &STORY[MIDDLE..], OnFailure::Stop));
        let count_kept = || segments.iter().filter(|name| world.segments().contains(name)).count();
        assert_eq!(count_kept(), segments.len());
        drop(snapshot);
        world.block_on(relay.compact()).unwrap();
        assert!(count_kept() < segments.len());
        ledger.audit(&world, &relay);
    });
}

#[test]
fn after_a_power_cut_a_backup_is_complete_or_marked_unfinished() {
    with_timeout(|| {
        let world = World::with_blobs();
        let (relay, ledger) = in_the_middle(&world);
        let reference = SimDisk::new();
        write(take(&world, &relay), &reference).unwrap();
        let (mut unfinished, mut complete) = (0, 0);
        for n in positions(reference.syncs(), 30) {
            for survival in [Survival::None, Survival::All, Survival::Torn(n)] {
                let target = SimDisk::new();
                target.cut_at_sync(n);
                drop(write(take(&world, &relay), &target));
                let target = target.after_crash(survival);
                let names = target.list().unwrap();
                if names.iter().any(|name| name == "relay.unfinished") {
                    unfinished += 1;
                    assert!(matches!(world.on(target.clone()).try_open(), Err(OpenError::Unfinished { .. })));
                } else if !names.is_empty() {
                    complete += 1;
                    let copy = restored(&world, &target);
                    ledger.clone().audit(&copy, &copy.open());
                    continue;
                }
                write(take(&world, &relay), &target).unwrap();
                let copy = restored(&world, &target);
                ledger.clone().audit(&copy, &copy.open());
            }
        }
        assert!(unfinished > 0 && complete > 0, "{unfinished} unfinished, {complete} complete");
    });
}

#[test]
fn a_backup_can_be_repeated_after_a_failed_call() {
    with_timeout(|| {
        let world = World::with_blobs();
        let (relay, ledger) = in_the_middle(&world);
        let mut failed = 0;
        for at in positions(200, 100) {
            let target = SimDisk::new();
            target.fail(Fault { at, ..Fault::next(None, io::ErrorKind::Other) });
            if write(take(&world, &relay), &target).is_err() {
                failed += 1;
                let names = target.list().unwrap();
                // The last call makes the removal of the mark durable. If it fails, the backup is
                // complete but reported as failed, and a power cut may bring the mark back.
                if names.is_empty() || names.iter().any(|name| name == "relay.unfinished") {
                    write(take(&world, &relay), &target).unwrap();
                }
            }
            let copy = restored(&world, &target);
            ledger.clone().audit(&copy, &copy.open());
        }
        assert!(failed > 10, "{failed}");
    });
}

/// redb writes once more when it is closed. A file that is opened again after that does not report
/// this failure.
#[test]
fn a_backup_fails_if_its_index_cannot_be_closed() {
    with_timeout(|| {
        let world = World::new();
        let (relay, ledger) = in_the_middle(&world);
        let syncs = Arc::new(AtomicUsize::new(0));
        let write_hooked = |failing: usize| {
            let (target, counted) = (SimDisk::new(), Arc::clone(&syncs));
            counted.store(0, Ordering::SeqCst);
            let disk = HookedDisk::new(target.clone(), move |call| match call {
                Call::Sync("relay.redb.new") if counted.fetch_add(1, Ordering::SeqCst) == failing => {
                    Err(io::Error::other("injected failure"))
                }
                _ => Ok(()),
            });
            let written =
                take(&world, &relay)
                    .write_on(Arc::new(disk), Path::new("/backup"), None, &mut |_| ControlFlow::Continue(()));
            (target, written)
        };
        write_hooked(usize::MAX).1.unwrap();
        let all = syncs.load(Ordering::SeqCst);
        for failing in 0..all {
            let (target, written) = write_hooked(failing);
            assert!(matches!(written, Err(CopyError::Index { .. })), "sync {failing} of {all}: {written:?}");
            write(take(&world, &relay), &target).unwrap();
            let copy = restored(&world, &target);
            ledger.clone().audit(&copy, &copy.open());
        }
    });
}

/// After a failure the store reopens the index, which then reuses pages that the snapshot reads.
#[test]
fn a_snapshot_from_before_a_failure_cannot_be_copied() {
    with_timeout(|| {
        let world = explicit_checkpoints();
        drop(world.open());
        let is_failing = Arc::new(AtomicBool::new(false));
        let fails_once = Arc::clone(&is_failing);
        let relay = world.open_hooked(move |call| match call {
            Call::Sync("relay.redb") if fails_once.swap(false, Ordering::SeqCst) => {
                Err(io::Error::other("injected failure"))
            }
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.run(&world, &relay, &[Step::Push(6, 100)], OnFailure::Stop));
        let snapshot = take(&world, &relay);
        assert!(ledger.run(&world, &relay, &[Step::Push(6, 100)], OnFailure::Stop));
        is_failing.store(true, Ordering::SeqCst);
        world.block_on(relay.snapshots().take()).unwrap_err();
        assert!(matches!(write(snapshot, &SimDisk::new()), Err(CopyError::Overtaken)));
        let backup = SimDisk::new();
        write(take(&world, &relay), &backup).unwrap();
        let copy = restored(&world, &backup);
        ledger.audit(&copy, &copy.open());
    });
}

#[test]
fn a_failed_rewrite_of_the_index_leaves_a_snapshot_valid() {
    with_timeout(|| {
        let world = World::new();
        drop(world.open());
        let relay = world.open_hooked(|call| match call {
            Call::Write("relay.redb.new") => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.run(&world, &relay, &STORY[..MIDDLE], OnFailure::Stop));
        let (snapshot, mut ledger_then, taken_at) = (take(&world, &relay), ledger.clone(), world.clock.now());
        world.block_on(relay.compact()).unwrap_err();
        assert!(ledger.run(&world, &relay, &STORY[MIDDLE..], OnFailure::Stop));
        let backup = SimDisk::new();
        write(snapshot, &backup).unwrap();
        ledger.audit(&world, &relay);
        let copy = World { clock: Arc::default(), ..restored(&world, &backup) };
        copy.clock.set(taken_at);
        ledger_then.audit(&copy, &copy.open());
    });
}

/// redb rejects every call after a failed read.
#[test]
fn the_index_is_reopened_after_a_failed_read_during_a_rewrite() {
    with_timeout(|| {
        // Without a cache, the rewrite reads the index from the disk.
        let world = World::new().with_options(Options { cache_bytes: 0, ..small_options() });
        let (relay, mut ledger) = in_the_middle(&world);
        drop(relay);
        let failures_left = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&failures_left);
        let relay = world.open_hooked(move |call| match call {
            Call::Create("relay.redb.new") => {
                // The store reads once more if a read fails.
                left.store(2, Ordering::SeqCst);
                Ok(())
            }
            Call::Read("relay.redb", _) if left.load(Ordering::SeqCst) > 0 => {
                left.fetch_sub(1, Ordering::SeqCst);
                Err(io::Error::other("injected failure"))
            }
            _ => Ok(()),
        });
        world.block_on(relay.compact()).unwrap_err();
        assert_eq!(failures_left.load(Ordering::SeqCst), 0, "no read failed");
        ledger.audit(&world, &relay);
        ledger.expect_usable(&world, &relay);
    });
}

/// The retry of a failed checkpoint writes only what the failed one should have written. The
/// snapshot must contain the items after that as well.
#[test]
fn a_snapshot_after_a_failed_checkpoint_is_complete() {
    with_timeout(|| {
        let world = explicit_checkpoints();
        let relay = world.open();
        let mut ledger = Ledger::default();
        assert!(ledger.run(&world, &relay, &[Step::Push(6, 100)], OnFailure::Stop));
        world.disk.fail(Fault::next(Some(Class::Sync), io::ErrorKind::Other));
        assert!(world.block_on(relay.compact()).is_err());
        assert!(ledger.run(&world, &relay, &[Step::Push(6, 100)], OnFailure::Stop));
        let backup = SimDisk::new();
        write(take(&world, &relay), &backup).unwrap();
        let copy = restored(&world, &backup);
        ledger.audit(&copy, &copy.open());
    });
}

#[test]
fn a_handle_for_snapshots_does_not_keep_a_closed_store_open() {
    let world = World::new();
    let relay = world.open();
    let snapshots = relay.snapshots();
    drop(relay);
    assert!(world.block_on(snapshots.take()).is_err());
    drop(world.open());
}

#[test]
fn an_empty_store_can_be_compacted() {
    let world = World::new();
    let relay = world.open();
    world.block_on(relay.sweep()).unwrap();
    world.block_on(relay.compact()).unwrap();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}
