//! Failing I/O: every call of a story fails, once or three times in a row, and the store goes on.
//! What failed is sent again, so every request is answered in the end, within seconds.
//!
//! Not promised: that a request next to the failure succeeds. A checkpoint that failed is tried
//! again after a second, and until then what does not fit into memory is refused.

use std::io;
use std::sync::Mutex;

use relay_disk::{Class, Fault, Survival};
use relay_store_redb::RedbRelay;

use crate::story::{Ledger, Manner, STORY};
use crate::world::{World, positions, within_bounds};

/// How often an open is tried.
const OPENS_MAX: usize = 5;

#[test]
fn any_call_may_fail_once() {
    within_bounds(|| each_position_fails(World::new, None, 1, 30));
}

#[test]
fn any_call_may_fail_once_with_payloads_aside() {
    within_bounds(|| each_position_fails(World::aside, None, 1, 30));
}

/// So many stories are told side by side: most of a story's time its store waits until it tries
/// again.
const WORLDS_AT_ONCE: usize = 4;

#[test]
fn any_call_may_fail_three_times_in_a_row() {
    within_bounds(|| {
        for class in [Class::Write, Class::Sync] {
            each_position_fails(World::new, Some(class), 3, 10);
        }
    });
}

#[test]
fn any_call_may_fail_three_times_in_a_row_with_payloads_aside() {
    within_bounds(|| {
        for class in [Class::Write, Class::Sync] {
            each_position_fails(World::aside, Some(class), 3, 10);
        }
    });
}

/// A read that fails has changed nothing on disk; but redb takes one for the end of all.
#[test]
fn reads_may_fail() {
    within_bounds(|| {
        for times in [2, 3] {
            each_position_fails(World::new, Some(Class::Read), times, 15);
        }
    });
}

#[test]
fn reads_may_fail_with_payloads_aside() {
    within_bounds(|| {
        for times in [2, 3] {
            each_position_fails(World::aside, Some(Class::Read), times, 15);
        }
    });
}

/// After a sync that failed nobody knows what is on disk, and a later one does not tell. So
/// whatever it should have made durable has to be written again, elsewhere.
#[test]
fn a_sync_fails_and_much_later_the_power_goes() {
    fail_and_cut(World::new);
}

#[test]
fn a_sync_fails_and_much_later_the_power_goes_with_payloads_aside() {
    fail_and_cut(World::aside);
}

fn fail_and_cut(new: fn() -> World) {
    within_bounds(move || {
        let world = new();
        tell_all(&world);
        for at in positions(world.disk.syncs(), 10) {
            let world = new();
            world.disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
            let mut ledger = Ledger::default();
            let relay = open_at_last(&world);
            for (number, step) in STORY.iter().enumerate() {
                ledger.tell(&world, &relay, &[*step], Manner::Again);
                eprintln!("sync {at} failed, and the power goes after step {number}");
                let world = world.after_crash(Survival::None);
                ledger.audit(&world, &world.open());
            }
        }
    });
}

fn each_position_fails(new: fn() -> World, class: Option<Class>, times: u64, sample: u64) {
    let world = new();
    tell_all(&world);
    let calls = match class {
        None => world.disk.calls(),
        Some(Class::Write) => world.disk.writes(),
        Some(Class::Sync) => world.disk.syncs(),
        Some(Class::Read) => world.disk.calls() - world.disk.writes() - world.disk.syncs(),
    };
    let tell = |at| {
        eprintln!("{class:?} call {at} fails {times} times");
        let world = new();
        let partly = [0, 7, usize::MAX][usize::try_from(at % 3).unwrap()];
        world.disk.fail(Fault { class, at, times, kind: io::ErrorKind::Other, partly });
        tell_all(&world);
    };
    let positions = Mutex::new(positions(calls, sample));
    let next = || positions.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..WORLDS_AT_ONCE {
            scope.spawn(|| std::iter::from_fn(next).for_each(tell));
        }
    });
}

/// Tells the story, with a restart in it, until all of it was answered; then looks at what is
/// there, before and after another restart.
fn tell_all(world: &World) {
    let mut ledger = Ledger::default();
    let (before, after) = STORY.split_at(STORY.len() / 2);
    let relay = open_at_last(world);
    ledger.tell(world, &relay, before, Manner::Again);
    drop(relay);
    let relay = open_at_last(world);
    ledger.tell(world, &relay, after, Manner::Again);
    world.disk.heal();
    ledger.audit_patiently(world, &relay);
    drop(relay);
    let relay = world.open();
    ledger.audit(world, &relay);
    ledger.go_on(world, &relay);
}

fn open_at_last(world: &World) -> RedbRelay {
    let mut why = String::new();
    for _ in 0..OPENS_MAX {
        match world.try_open() {
            Ok(relay) => return relay,
            Err(error) => why = error.to_string(),
        }
    }
    panic!("it cannot be opened any more: {why}");
}
