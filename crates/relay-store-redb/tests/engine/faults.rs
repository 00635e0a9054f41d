//! Failing I/O: every call of a story fails, up to three times in a row, and the store recovers.
//! Failed requests are repeated, and each one succeeds within seconds.
//!
//! Not promised: that a request near the failure succeeds. The store retries a failed checkpoint
//! after a second, and until then rejects what does not fit in memory.

use std::io;
use std::sync::Mutex;

use relay_disk::{Class, Fault, Survival};
use relay_store_redb::RedbRelay;

use crate::story::{Ledger, OnFailure, STORY};
use crate::world::{World, positions, with_timeout};

/// How many times a test tries to open the store.
const OPENS_MAX: usize = 5;

#[test]
fn the_store_recovers_when_any_call_fails_once() {
    with_timeout(|| fail_each_call(World::new, None, 1, 30));
}

#[test]
fn the_store_recovers_when_any_call_fails_once_with_blobs() {
    with_timeout(|| fail_each_call(World::with_blobs, None, 1, 30));
}

/// How many stories run in parallel. A store mostly waits until its next retry.
const PARALLEL_STORIES: usize = 4;

#[test]
fn the_store_recovers_when_any_call_fails_three_times() {
    with_timeout(|| {
        for class in [Class::Write, Class::Sync] {
            fail_each_call(World::new, Some(class), 3, 10);
        }
    });
}

#[test]
fn the_store_recovers_when_any_call_fails_three_times_with_blobs() {
    with_timeout(|| {
        for class in [Class::Write, Class::Sync] {
            fail_each_call(World::with_blobs, Some(class), 3, 10);
        }
    });
}

/// A failed read changes nothing on disk, but redb rejects every call after one.
#[test]
fn the_store_recovers_when_reads_fail() {
    with_timeout(|| {
        for times in [2, 3] {
            fail_each_call(World::new, Some(Class::Read), times, 15);
        }
    });
}

#[test]
fn the_store_recovers_when_reads_fail_with_blobs() {
    with_timeout(|| {
        for times in [2, 3] {
            fail_each_call(World::with_blobs, Some(Class::Read), times, 15);
        }
    });
}

/// After a failed sync the state on disk is unknown, and a later successful sync does not change
/// that. The store has to write the same data again, to another location.
#[test]
fn a_failed_sync_and_a_much_later_power_cut_lose_nothing() {
    fail_and_cut(World::new);
}

#[test]
fn a_failed_sync_and_a_much_later_power_cut_lose_nothing_with_blobs() {
    fail_and_cut(World::with_blobs);
}

fn fail_and_cut(new: fn() -> World) {
    with_timeout(move || {
        let world = new();
        run_story(&world);
        for at in positions(world.disk.syncs(), 10) {
            let world = new();
            world.disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
            let mut ledger = Ledger::default();
            let relay = open_with_retries(&world);
            for (number, step) in STORY.iter().enumerate() {
                ledger.run(&world, &relay, &[*step], OnFailure::Retry);
                eprintln!("sync {at} fails, power cut after step {number}");
                let world = world.after_crash(Survival::None);
                ledger.audit(&world, &world.open());
            }
        }
    });
}

/// Fails calls of the story: each time another one, and the `times - 1` calls after it.
fn fail_each_call(new: fn() -> World, class: Option<Class>, times: u64, sample: u64) {
    let world = new();
    run_story(&world);
    let calls = match class {
        None => world.disk.calls(),
        Some(Class::Write) => world.disk.writes(),
        Some(Class::Sync) => world.disk.syncs(),
        Some(Class::Read) => world.disk.calls() - world.disk.writes() - world.disk.syncs(),
    };
    let run = |at| {
        eprintln!("{class:?} call {at} fails {times} times");
        let world = new();
        let partly = [0, 7, usize::MAX][usize::try_from(at % 3).unwrap()];
        world.disk.fail(Fault { class, at, times, kind: io::ErrorKind::Other, partly });
        run_story(&world);
    };
    let positions = Mutex::new(positions(calls, sample));
    let next = || positions.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_STORIES {
            scope.spawn(|| std::iter::from_fn(next).for_each(run));
        }
    });
}

/// Runs the story with a restart in it, and repeats what fails. Then audits the store, before and
/// after another restart.
fn run_story(world: &World) {
    let mut ledger = Ledger::default();
    let (first_half, second_half) = STORY.split_at(STORY.len() / 2);
    let relay = open_with_retries(world);
    ledger.run(world, &relay, first_half, OnFailure::Retry);
    drop(relay);
    let relay = open_with_retries(world);
    ledger.run(world, &relay, second_half, OnFailure::Retry);
    world.disk.heal();
    ledger.audit_with_retries(world, &relay);
    drop(relay);
    let relay = world.open();
    ledger.audit(world, &relay);
    ledger.expect_usable(world, &relay);
}

fn open_with_retries(world: &World) -> RedbRelay {
    let mut last_error = String::new();
    for _ in 0..OPENS_MAX {
        match world.try_open() {
            Ok(relay) => return relay,
            Err(error) => last_error = error.to_string(),
        }
    }
    panic!("the store does not open any more: {last_error}");
}
