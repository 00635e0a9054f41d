//! A power cut at every sync and during every write of a story loses no answered request.
//!
//! The maintenance thread runs concurrently with the writer, so the n-th sync differs between runs.
//! The tests cover the interleavings that occur, which are many.

use std::collections::BTreeSet;

use relay_disk::Survival;
use relay_store_redb::verify_index_on;

use crate::story::{Ledger, OnFailure, STORY};
use crate::world::{World, positions, with_timeout};

/// What a power cut may leave of unsynced data.
const SURVIVALS: [Survival; 3] = [Survival::None, Survival::All, Survival::Torn(1)];

/// Runs the story to its end, or until the power cut.
fn run_story(world: &World) -> Ledger {
    let mut ledger = Ledger::default();
    if let Ok(relay) = world.try_open() {
        ledger.run(world, &relay, STORY, OnFailure::Stop);
    }
    ledger
}

/// How many runs of the story together contain all kinds of records. The timing of the maintenance
/// thread decides whether a single run moves items.
const RUNS: usize = 4;

/// Otherwise the other tests prove little.
#[test]
fn the_story_contains_all_kinds_of_records() {
    expect_kinds(World::new, &[1, 2, 3, 4, 5, 8]);
}

#[test]
fn the_story_contains_all_kinds_of_records_with_blobs() {
    for world in expect_kinds(World::with_blobs, &[1, 2, 3, 4, 5, 6, 8]) {
        let files = world.blob_files();
        assert!(!files.is_empty() && !files.contains(&"payload-0000000001.seg".to_owned()), "{files:?}");
    }
}

fn expect_kinds(new: fn() -> World, expected: &[u8]) -> Vec<World> {
    let mut kinds = BTreeSet::new();
    let worlds: Vec<_> = (0..RUNS).map(|_| new()).collect();
    for world in &worlds {
        kinds.extend(kinds_of_a_run(world));
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "the kinds of records in the journal");
    worlds
}

fn kinds_of_a_run(world: &World) -> BTreeSet<u8> {
    let relay = world.open();
    let mut ledger = Ledger::default();
    let mut kinds = BTreeSet::new();
    for step in STORY {
        assert!(ledger.run(world, &relay, &[*step], OnFailure::Stop));
        ledger.audit(world, &relay);
        kinds.extend(world.frames().iter().map(|frame| frame.kind));
    }
    assert!(ledger.live_items(world) > 10, "the story leaves too few items");
    drop(relay);
    let segments = world.segments();
    assert!(segments.len() > 1, "{segments:?}: the journal has only one segment");
    assert!(!segments.contains(&"journal-0000000001.seg".to_owned()), "no segment was freed");
    kinds
}

#[test]
fn answered_requests_survive_a_power_cut_at_any_sync() {
    cut_at_syncs(World::new);
}

#[test]
fn answered_requests_survive_a_power_cut_at_any_sync_with_blobs() {
    cut_at_syncs(World::with_blobs);
}

fn cut_at_syncs(new: fn() -> World) {
    with_timeout(move || {
        let world = new();
        run_story(&world);
        let syncs = world.disk.syncs();
        assert!(syncs > 50, "only {syncs} syncs");
        for n in positions(syncs, 16) {
            let world = new();
            world.disk.cut_at_sync(n);
            check_after_crash(&world, &run_story(&world), &format!("power cut at sync {n}"), n);
        }
    });
}

#[test]
fn answered_requests_survive_a_power_cut_during_any_write() {
    cut_at_writes(World::new);
}

#[test]
fn answered_requests_survive_a_power_cut_during_any_write_with_blobs() {
    cut_at_writes(World::with_blobs);
}

fn cut_at_writes(new: fn() -> World) {
    with_timeout(move || {
        let world = new();
        run_story(&world);
        let writes = world.disk.writes();
        assert!(writes > 100, "only {writes} writes");
        for n in positions(writes, 20) {
            let world = new();
            world.disk.cut_at_write(n);
            check_after_crash(&world, &run_story(&world), &format!("power cut at write {n}"), n);
        }
    });
}

/// Opens the store in each state that the crash may leave, audits it, uses it, and opens it again.
fn check_after_crash(crashed: &World, ledger: &Ledger, what: &str, seed: u64) {
    let torn = Survival::Torn(1000 + seed);
    for survival in SURVIVALS.into_iter().chain([torn]) {
        eprintln!("{what}, {survival:?}");
        let world = crashed.after_crash(survival);
        // A crash corrupts no pages.
        let page_findings = verify_index_on(&world.disk, "/store".as_ref(), world.options.cache_bytes);
        assert_eq!(page_findings.unwrap(), Vec::<String>::new());
        let mut ledger = ledger.clone();
        let relay = world.open();
        ledger.audit(&world, &relay);
        ledger.expect_usable(&world, &relay);
        drop(relay);
        let relay = world.open();
        ledger.audit(&world, &relay);
    }
}
