//! A snapshot is the store as it was, whatever becomes of the store meanwhile, and a backup of it
//! is whole or is none, wherever the power goes or a call fails.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use relay_core::{Clock as _, Relay as _};
use relay_disk::{Call, Class, Disk as _, Fault, HookedDisk, SimDisk, Survival};
use relay_store_redb::{Copied, CopyError, OpenError, Options, RedbRelay, Snapshot};

use crate::story::{Ledger, Manner, STORY, Step};
use crate::world::{World, positions, small_options, within_bounds};

/// Where in the story the backup is made.
const MIDDLE: usize = 6;

/// No checkpoint but those that are asked for.
fn when_asked() -> World {
    let options = Options { checkpoint_rows: 100_000, checkpoint_bytes: 1 << 30, ..small_options() };
    World::new().with_options(options)
}

/// A store in the middle of its story, and what it holds.
fn in_the_middle(world: &World) -> (RedbRelay, Ledger) {
    let relay = world.open();
    let mut ledger = Ledger::default();
    assert!(ledger.tell(world, &relay, &STORY[..MIDDLE], Manner::Once));
    (relay, ledger)
}

fn take(world: &World, relay: &RedbRelay) -> Snapshot {
    world.block_on(relay.snapshots().take()).unwrap()
}

fn write(snapshot: Snapshot, disk: &SimDisk) -> Result<Copied, CopyError> {
    snapshot.write_on(Arc::new(disk.clone()), Path::new("/backup"), &mut |_| ControlFlow::Continue(()))
}

/// The store that a whole backup is, as a restore would make it.
fn restored(world: &World, backup: &SimDisk) -> World {
    let restored = world.on(backup.after_crash(Survival::All));
    assert!(matches!(restored.try_open(), Err(OpenError::Backup { .. })));
    restored.disk.remove("relay.backup").unwrap();
    restored
}

#[test]
fn a_snapshot_stays_as_it_was_while_everything_goes_on() {
    stays(World::new);
}

#[test]
fn a_snapshot_stays_as_it_was_with_payloads_aside() {
    stays(World::aside);
}

fn stays(new: fn() -> World) {
    within_bounds(move || {
        let world = new();
        let (relay, mut ledger) = in_the_middle(&world);
        let (snapshot, mut then) = (take(&world, &relay), ledger.clone());
        let then_at = world.clock.now();
        assert!(ledger.tell(&world, &relay, &STORY[MIDDLE..], Manner::Once));
        world.block_on(relay.compact()).unwrap();
        let backup = SimDisk::new();
        let copied = write(snapshot, &backup).unwrap();
        assert_eq!(copied.files + 1, backup.list().unwrap().len() as u64);
        ledger.audit(&world, &relay);

        let copy = restored(&world, &backup);
        let copy = World { clock: Arc::default(), ..copy };
        copy.clock.set(then_at);
        let copied = copy.open();
        then.audit(&copy, &copied);
        then.go_on(&copy, &copied);
    });
}

#[test]
fn files_are_given_back_once_nobody_looks_at_a_snapshot() {
    within_bounds(|| {
        let world = World::new();
        let (relay, mut ledger) = in_the_middle(&world);
        let snapshot = take(&world, &relay);
        let before = world.segments();
        assert!(ledger.tell(&world, &relay, &STORY[MIDDLE..], Manner::Once));
        let kept = |before: &[String]| before.iter().filter(|name| world.segments().contains(name)).count();
        assert_eq!(kept(&before), before.len());
        drop(snapshot);
        world.block_on(relay.compact()).unwrap();
        assert!(kept(&before) < before.len());
        ledger.audit(&world, &relay);
    });
}

#[test]
fn the_power_goes_while_a_backup_is_written() {
    within_bounds(|| {
        let world = World::aside();
        let (relay, ledger) = in_the_middle(&world);
        let whole = SimDisk::new();
        write(take(&world, &relay), &whole).unwrap();
        let (mut unfinished, mut complete) = (0, 0);
        for n in positions(whole.syncs(), 30) {
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
fn a_call_fails_while_a_backup_is_written() {
    within_bounds(|| {
        let world = World::aside();
        let (relay, ledger) = in_the_middle(&world);
        let mut failed = 0;
        for at in positions(200, 100) {
            let target = SimDisk::new();
            target.fail(Fault { at, ..Fault::next(None, io::ErrorKind::Other) });
            if write(take(&world, &relay), &target).is_err() {
                failed += 1;
                let names = target.list().unwrap();
                // The last call of all makes it durable that the mark is gone. When that fails, the
                // backup is whole and is not said to be; after a power cut the mark may be back.
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

/// redb writes for the last time when it is closed. The file is opened by another handle then,
/// which hears of nothing that has failed.
#[test]
fn a_backup_whose_index_cannot_be_closed_is_not_whole() {
    within_bounds(|| {
        let world = World::new();
        let (relay, ledger) = in_the_middle(&world);
        let syncs = Arc::new(AtomicUsize::new(0));
        let write_hooked = |failing: usize| {
            let (target, counted) = (SimDisk::new(), Arc::clone(&syncs));
            counted.store(0, Ordering::SeqCst);
            let disk = HookedDisk::new(target.clone(), move |call| match call {
                Call::Sync("relay.redb.new") if counted.fetch_add(1, Ordering::SeqCst) == failing => {
                    Err(io::Error::other("this sync is to fail"))
                }
                _ => Ok(()),
            });
            let written = take(&world, &relay)
                .write_on(Arc::new(disk), Path::new("/backup"), &mut |_| ControlFlow::Continue(()));
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

/// After a failure the index is opened anew, and uses pages that the snapshot still reads.
#[test]
fn a_snapshot_that_a_failure_overtakes_is_no_backup() {
    within_bounds(|| {
        let world = when_asked();
        drop(world.open());
        let fails = Arc::new(AtomicBool::new(false));
        let is_failing = Arc::clone(&fails);
        let relay = world.open_hooked(move |call| match call {
            Call::Sync("relay.redb") if is_failing.swap(false, Ordering::SeqCst) => {
                Err(io::Error::other("this sync is to fail"))
            }
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.tell(&world, &relay, &[Step::Push(6, 100)], Manner::Once));
        let snapshot = take(&world, &relay);
        assert!(ledger.tell(&world, &relay, &[Step::Push(6, 100)], Manner::Once));
        fails.store(true, Ordering::SeqCst);
        world.block_on(relay.snapshots().take()).unwrap_err();
        assert!(matches!(write(snapshot, &SimDisk::new()), Err(CopyError::Overtaken)));
        let backup = SimDisk::new();
        write(take(&world, &relay), &backup).unwrap();
        let copy = restored(&world, &backup);
        ledger.audit(&copy, &copy.open());
    });
}

#[test]
fn an_index_that_cannot_be_written_anew_overtakes_no_snapshot() {
    within_bounds(|| {
        let world = World::new();
        drop(world.open());
        let relay = world.open_hooked(|call| match call {
            Call::Write("relay.redb.new") => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        });
        let mut ledger = Ledger::default();
        assert!(ledger.tell(&world, &relay, &STORY[..MIDDLE], Manner::Once));
        let (snapshot, mut then, then_at) = (take(&world, &relay), ledger.clone(), world.clock.now());
        world.block_on(relay.compact()).unwrap_err();
        assert!(ledger.tell(&world, &relay, &STORY[MIDDLE..], Manner::Once));
        let backup = SimDisk::new();
        write(snapshot, &backup).unwrap();
        ledger.audit(&world, &relay);
        let copy = World { clock: Arc::default(), ..restored(&world, &backup) };
        copy.clock.set(then_at);
        then.audit(&copy, &copy.open());
    });
}

/// redb refuses everything after a read that failed.
#[test]
fn an_index_that_could_not_be_read_to_be_written_anew_is_opened_again() {
    within_bounds(|| {
        // Nothing is remembered of the pages.
        let world = World::new().with_options(Options { cache_bytes: 0, ..small_options() });
        let (relay, mut ledger) = in_the_middle(&world);
        drop(relay);
        let fails = Arc::new(AtomicUsize::new(0));
        let is_failing = Arc::clone(&fails);
        let relay = world.open_hooked(move |call| match call {
            Call::Create("relay.redb.new") => {
                // A read is made twice.
                is_failing.store(2, Ordering::SeqCst);
                Ok(())
            }
            Call::Read("relay.redb", _) if is_failing.load(Ordering::SeqCst) > 0 => {
                is_failing.fetch_sub(1, Ordering::SeqCst);
                Err(io::Error::other("this read is to fail"))
            }
            _ => Ok(()),
        });
        world.block_on(relay.compact()).unwrap_err();
        assert_eq!(fails.load(Ordering::SeqCst), 0, "a read has failed");
        ledger.audit(&world, &relay);
        ledger.go_on(&world, &relay);
    });
}

/// A checkpoint that failed is tried again with what it should have written, and not with what came
/// since.
#[test]
fn a_snapshot_behind_a_failed_checkpoint_lacks_nothing() {
    within_bounds(|| {
        let world = when_asked();
        let relay = world.open();
        let mut ledger = Ledger::default();
        assert!(ledger.tell(&world, &relay, &[Step::Push(6, 100)], Manner::Once));
        world.disk.fail(Fault::next(Some(Class::Sync), io::ErrorKind::Other));
        assert!(world.block_on(relay.compact()).is_err());
        assert!(ledger.tell(&world, &relay, &[Step::Push(6, 100)], Manner::Once));
        let backup = SimDisk::new();
        write(take(&world, &relay), &backup).unwrap();
        let copy = restored(&world, &backup);
        ledger.audit(&copy, &copy.open());
    });
}

#[test]
fn a_closed_store_gives_no_snapshots_and_is_not_held_open_by_who_may_ask() {
    let world = World::new();
    let relay = world.open();
    let snapshots = relay.snapshots();
    drop(relay);
    assert!(world.block_on(snapshots.take()).is_err());
    drop(world.open());
}

#[test]
fn compacting_an_empty_store_does_no_harm() {
    let world = World::new();
    let relay = world.open();
    world.block_on(relay.sweep()).unwrap();
    world.block_on(relay.compact()).unwrap();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}
