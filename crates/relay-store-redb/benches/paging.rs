//! The cost of a page at the start, in the middle and at the end of a queue of 100,000 items, with
//! and without holes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::ops::RangeInclusive;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use relay_core::testing::ManualClock;
use relay_core::{Ack, Chunk, Envelope, ItemId, Kind, Limits, MessageId, Pull, Recipient, Relay, Seq};
use relay_store_redb::{Options, RedbRelay};
use tokio::runtime::Runtime;

const ITEMS: u64 = 100_000;
const PAGE: u64 = 256;

fn recipient() -> Recipient {
    Recipient::parse("alice").unwrap()
}

fn id(number: u64) -> ItemId {
    ItemId { message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()), chunk_index: 0 }
}

fn envelope(number: u64) -> Envelope {
    Envelope {
        recipient: recipient(),
        message_id: id(number).message_id,
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 1024,
        sent_ms: 0,
        ttl_ms: None,
        payload: vec![b'x'; 1024].into(),
    }
}

async fn fill(relay: &RedbRelay, numbers: RangeInclusive<u64>) {
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(1000) {
        let pushes = numbers.iter().map(|number| relay.push(envelope(*number)));
        for outcome in futures_util::future::join_all(pushes).await {
            assert!(outcome.unwrap().is_stored());
        }
    }
}

/// Acks every second item, so that arrival numbers alone do not give positions.
async fn punch_holes(relay: &RedbRelay, items: u64) {
    let odd: Vec<ItemId> = (1..=items).step_by(2).map(id).collect();
    for ids in odd.chunks(1000) {
        relay.ack(Ack::new(recipient(), ids.to_vec()).unwrap()).await.unwrap();
    }
}

fn pages(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<ManualClock> = Arc::default();
    let limits = Limits { queue_items_max: 2 * ITEMS, ..Limits::default() };
    let relay = RedbRelay::open(directory.path(), limits, clock, Options::default()).unwrap();
    runtime.block_on(fill(&relay, 1..=ITEMS));
    measure(criterion, &runtime, &relay, "page", ITEMS - PAGE);
    runtime.block_on(fill(&relay, ITEMS + 1..=2 * ITEMS));
    runtime.block_on(punch_holes(&relay, 2 * ITEMS));
    measure(criterion, &runtime, &relay, "page_with_holes", 2 * ITEMS - 2 * PAGE);
}

/// Measures pages after different cursors. Arrival numbers equal the message numbers, because
/// nothing else pushes.
fn measure(criterion: &mut Criterion, runtime: &Runtime, relay: &RedbRelay, name: &str, last: u64) {
    let mut group = criterion.benchmark_group(name);
    for (position, after) in [("first", None), ("middle", Some(last / 2)), ("last", Some(last))] {
        group.bench_function(position, |bencher| {
            let pull = || Pull { recipient: recipient(), after: after.map(Seq::new), items_max: None };
            bencher.iter(|| {
                let page = runtime.block_on(relay.pull(pull())).unwrap();
                assert_eq!(page.items.len() as u64, PAGE);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
