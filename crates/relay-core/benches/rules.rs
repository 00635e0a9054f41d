//! Benchmarks of the rules alone: push, ack and a full page over tables in memory, without a store
//! or a protocol.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use relay_core::memory::MemoryTables;
use relay_core::{
    Ack, Chunk, Envelope, ItemId, Kind, Limits, MessageId, Page, Pull, PushOutcome, Recipient, Timestamp,
    queue,
};

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

/// The items of a page, and of one measured step. A single call is too short to measure.
const ITEMS: u64 = 256;

const PAYLOAD: Bytes = Bytes::from_static(&[0; 1024]);

/// The number of earlier items in the queue.
const DEPTHS: [u64; 2] = [0, 10_000];

criterion_group!(rules, push, ack, pull);
criterion_main!(rules);

fn push(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push");
    group.throughput(Throughput::Elements(ITEMS));
    for depth in DEPTHS {
        group.bench_function(format!("on {depth}"), |bencher| {
            let envelopes: Vec<Envelope> = (depth..depth + ITEMS).map(envelope).collect();
            let setup = || (filled(depth), envelopes.clone());
            let routine = |(mut tables, envelopes): (MemoryTables, Vec<Envelope>)| {
                for envelope in envelopes {
                    black_box(push_one(&mut tables, envelope));
                }
                tables
            };
            bencher.iter_batched(setup, routine, BatchSize::LargeInput);
        });
    }
}

fn ack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ack");
    group.throughput(Throughput::Elements(ITEMS));
    for depth in DEPTHS {
        group.bench_function(format!("{ITEMS} at once of {}", depth + ITEMS), |bencher| {
            let ack =
                Ack::new(recipient(), (0..ITEMS).map(id).collect()).expect("fewer items than the maximum");
            let routine = |mut tables: MemoryTables| {
                let Ok(outcome) = queue::ack(&mut tables, &Limits::default(), NOW, &ack);
                assert_eq!(outcome.deleted, ITEMS);
                tables
            };
            bencher.iter_batched(|| filled(depth + ITEMS), routine, BatchSize::LargeInput);
        });
    }
}

fn pull(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pull");
    group.throughput(Throughput::Elements(ITEMS));
    for depth in DEPTHS {
        group.bench_function(format!("a page of {ITEMS} of {}", depth + ITEMS), |bencher| {
            let tables = filled(depth + ITEMS);
            let pull = Pull { recipient: recipient(), after: None, items_max: None };
            bencher.iter(|| {
                let Ok(page): Result<Page, _> = queue::pull(&tables, &Limits::default(), NOW, &pull);
                assert_eq!((page.items.len() as u64, page.remaining), (ITEMS, depth));
                page
            });
        });
    }
}

/// Tables with `items` items in one queue.
fn filled(items: u64) -> MemoryTables {
    let mut tables = MemoryTables::default();
    for number in 0..items {
        push_one(&mut tables, envelope(number));
    }
    tables
}

fn push_one(tables: &mut MemoryTables, envelope: Envelope) -> PushOutcome {
    let Ok(outcome) = queue::push(tables, &Limits::default(), NOW, envelope);
    outcome.expect("the default quotas exceed the pushed items")
}

fn envelope(number: u64) -> Envelope {
    Envelope {
        recipient: recipient(),
        message_id: id(number).message_id,
        chunk: Chunk::new(0, 1).expect("the index is less than the count"),
        kind: Kind::parse("opaque").expect("short enough and not blank"),
        total_len: PAYLOAD.len() as u64,
        sent_ms: 0,
        ttl_ms: None,
        payload: PAYLOAD,
    }
}

fn id(number: u64) -> ItemId {
    ItemId { message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()), chunk_index: 0 }
}

fn recipient() -> Recipient {
    Recipient::parse("alice").expect("short enough and not blank")
}
