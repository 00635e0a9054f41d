//! `Relay::figures` reports the work that the store did.

use relay_core::{Ack, Distribution, Figures, FileUse, Limits, Relay, Usage};
use relay_disk::Disk as _;

use crate::world::{World, envelope, id, recipient};

fn world() -> World {
    World { limits: Limits { dedup_window_ms: 0, ..Limits::default() }, ..World::new() }
}

fn totals(distribution: Option<Distribution>) -> (u64, u64) {
    distribution.map(|distribution| (distribution.count(), distribution.sum)).unwrap()
}

fn file_use(figures: &Figures, kind: &str) -> FileUse {
    *figures.files.iter().find(|files| files.kind == kind).unwrap()
}

/// The number of files whose name starts with `prefix`, and their bytes.
fn on_disk(world: &World, prefix: &str) -> (u64, u64) {
    let names = world.disk.list().unwrap().into_iter().filter(|name| name.starts_with(prefix));
    let lengths: Vec<u64> = names.map(|name| world.disk.open(&name).unwrap().len().unwrap()).collect();
    (lengths.len() as u64, lengths.iter().sum())
}

#[test]
fn requests_syncs_and_deliveries_are_counted() {
    let world = world();
    let relay = world.open();
    for number in 0..3 {
        assert!(world.block_on(relay.push(envelope(0, number, 100))).unwrap().is_stored());
    }
    world.clock.advance_ms(5_000);
    assert_eq!(world.pull_all(&relay, 0).unwrap().len(), 3);
    world.block_on(relay.ack(Ack::new(recipient(0), vec![id(0)]).unwrap())).unwrap();

    let figures = relay.figures();
    assert_eq!(totals(figures.batch_requests.clone()), (4, 4), "each sequential request is its own batch");
    assert_eq!(totals(figures.sync_us.clone()).0, 4);
    assert_eq!(totals(figures.delivery_age_ms.clone()), (3, 15_000));
    assert_eq!((figures.waiting_bytes, figures.checkpoints_failed), (Some(0), Some(0)));
    let Usage { items, bytes } = figures.live.unwrap();
    assert_eq!(items, relay.contents().unwrap().usage.items);
    assert!((200..400).contains(&bytes), "two payloads and their metadata: {bytes}");
}

#[test]
fn live_items_are_the_same_after_checkpoints_and_restarts() {
    let world = world();
    let live = |relay: &relay_store_redb::RedbRelay| relay.figures().live.unwrap();
    let relay = world.open();
    for number in 0..60 {
        world.block_on(relay.push(envelope(0, number, 300))).unwrap();
    }
    let usage = live(&relay);
    assert_eq!(usage.items, 60);
    drop(relay);
    let relay = world.open();
    assert_eq!(live(&relay), usage);
    world.block_on(relay.ack(Ack::new(recipient(0), (0..60).map(id).collect()).unwrap())).unwrap();
    assert_eq!(live(&relay), Usage::ZERO);
}

#[test]
fn files_are_reported_by_kind() {
    let world = World::with_blobs();
    let relay = world.open();
    for number in 0..5 {
        world.block_on(relay.push(envelope(0, number, 300))).unwrap();
        world.block_on(relay.push(envelope(1, 10 + number, 10))).unwrap();
    }
    let figures = relay.figures();
    for (kind, prefix) in [("journal", "journal-"), ("payload", "payload-")] {
        let reported = file_use(&figures, kind);
        assert_eq!((reported.files, reported.bytes), on_disk(&world, prefix), "{kind}");
    }
    assert_eq!(file_use(&figures, "payload").files, 5);
    // A sweep ends when the maintenance thread has freed space and measured the index.
    world.block_on(relay.sweep()).unwrap();
    let index = file_use(&relay.figures(), "index");
    assert_eq!((index.files, index.bytes), on_disk(&world, "relay.redb"));
}

#[test]
fn lags_grow_until_a_sweep_and_until_space_is_freed() {
    let world = world();
    let relay = world.open();
    for number in 0..60 {
        world.block_on(relay.push(envelope(0, number, 300))).unwrap();
    }
    world.clock.advance_ms(world.limits.ttl_ms + 1_000);
    let lag_ms = |figures: &Figures| figures.sweep_lag_ms.unwrap();
    assert_eq!(lag_ms(&relay.figures()), world.limits.ttl_ms + 1_000);
    assert_eq!(world.block_on(relay.sweep()).unwrap().items, 60);
    assert_eq!(lag_ms(&relay.figures()), 0);
    for _ in 0..1_000 {
        world.block_on(relay.sweep()).unwrap();
        let figures = relay.figures();
        if figures.reclaim_lag_ms == Some(0) {
            assert!(totals(figures.checkpoint_us).0 > 0, "space is freed by a checkpoint");
            return;
        }
    }
    panic!("the space is never freed: {:?}", relay.figures());
}
