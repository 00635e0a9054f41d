//! Power cuts: at every sync, and during every write, of a story in which everything happens.
//! Whatever was answered is there.
//!
//! The maintenance thread runs beside the writer, so the n-th sync is not the same one in each run.
//! What is proven holds for the interleavings that were met, and they are many.

use std::collections::BTreeSet;

use relay_disk::Survival;
use relay_store_redb::verify_index_on;

use crate::story::{Ledger, Manner, STORY};
use crate::world::{World, positions, within_bounds};

/// What may be left of what was not synced.
const SURVIVALS: [Survival; 3] = [Survival::None, Survival::All, Survival::Torn(1)];

/// Tells the story to its end, or until the power goes. What may be left is for [`judge`].
fn tell(world: &World) -> Ledger {
    let mut ledger = Ledger::default();
    if let Ok(relay) = world.try_open() {
        ledger.tell(world, &relay, STORY, Manner::Once);
    }
    ledger
}

/// How often the story is told to see all that can happen in it: whether the maintenance thread
/// moves something in one telling, or comes too late for it, is not for the story to say.
const TELLINGS: usize = 4;

/// Everything that the engine can do happens in the story, else the other tests prove little.
#[test]
fn the_story_is_rich() {
    expect_rich(World::new, &[1, 2, 3, 4, 5, 8]);
}

#[test]
fn the_story_is_rich_with_payloads_aside() {
    for world in expect_rich(World::aside, &[1, 2, 3, 4, 5, 6, 8]) {
        let files = world.payload_files();
        assert!(!files.is_empty() && !files.contains(&"payload-0000000001.seg".to_owned()), "{files:?}");
    }
}

fn expect_rich(new: fn() -> World, expected: &[u8]) -> Vec<World> {
    let mut kinds = BTreeSet::new();
    let worlds: Vec<_> = (0..TELLINGS).map(|_| new()).collect();
    for world in &worlds {
        kinds.extend(kinds_of_a_telling(world));
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "the kinds of records that were seen");
    worlds
}

fn kinds_of_a_telling(world: &World) -> BTreeSet<u8> {
    let relay = world.open();
    let mut ledger = Ledger::default();
    let mut kinds = BTreeSet::new();
    for step in STORY {
        assert!(ledger.tell(world, &relay, &[*step], Manner::Once));
        ledger.audit(world, &relay);
        kinds.extend(world.frames().iter().map(|frame| frame.kind));
    }
    assert!(ledger.live_items(world) > 10, "little is left to lose");
    drop(relay);
    let segments = world.segments();
    assert!(segments.len() > 1, "{segments:?}: the journal is in one piece");
    assert!(!segments.contains(&"journal-0000000001.seg".to_owned()), "no segment was given back");
    kinds
}

#[test]
fn what_was_answered_survives_a_power_cut_at_any_sync() {
    cut_at_syncs(World::new);
}

#[test]
fn what_was_answered_survives_a_power_cut_at_any_sync_with_payloads_aside() {
    cut_at_syncs(World::aside);
}

fn cut_at_syncs(new: fn() -> World) {
    within_bounds(move || {
        let world = new();
        tell(&world);
        let syncs = world.disk.syncs();
        assert!(syncs > 50, "only {syncs} syncs");
        for n in positions(syncs, 16) {
            let world = new();
            world.disk.cut_at_sync(n);
            judge(&world, &tell(&world), &format!("power cut at sync {n}"), n);
        }
    });
}

#[test]
fn what_was_answered_survives_a_power_cut_during_any_write() {
    cut_at_writes(World::new);
}

#[test]
fn what_was_answered_survives_a_power_cut_during_any_write_with_payloads_aside() {
    cut_at_writes(World::aside);
}

fn cut_at_writes(new: fn() -> World) {
    within_bounds(move || {
        let world = new();
        tell(&world);
        let writes = world.disk.writes();
        assert!(writes > 100, "only {writes} writes");
        for n in positions(writes, 20) {
            let world = new();
            world.disk.cut_at_write(n);
            judge(&world, &tell(&world), &format!("power cut at write {n}"), n);
        }
    });
}

/// Opens what may be left, audits it, goes on with it, and opens it again.
fn judge(crashed: &World, ledger: &Ledger, what: &str, seed: u64) {
    let torn = Survival::Torn(1000 + seed);
    for survival in SURVIVALS.into_iter().chain([torn]) {
        eprintln!("{what}, {survival:?}");
        let world = crashed.after_crash(survival);
        // A crash is no damage.
        let pages = verify_index_on(&world.disk, "/store".as_ref(), world.options.cache_bytes);
        assert_eq!(pages.unwrap(), Vec::<String>::new());
        let mut ledger = ledger.clone();
        let relay = world.open();
        ledger.audit(&world, &relay);
        ledger.go_on(&world, &relay);
        drop(relay);
        let relay = world.open();
        ledger.audit(&world, &relay);
    }
}
