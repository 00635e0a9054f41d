//! What the rules cost by themselves: push, ack and a full page, over tables in memory. No store,
//! no protocol.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use relay_core::memory::MemoryTables;
use relay_core::{
    Ack, Chunk, Envelope, ItemId, Kind, Limits, MessageId, Page, Pull, PushOutcome, Recipient, Timestamp,
    queue,
};

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

/// The items of a page, and of one measured step: single calls are too short to be measured apart.
const ITEMS: u64 = 256;

const PAYLOAD: Bytes = Bytes::from_static(&[0; 1024]);

/// How many items lie in the queue already.
const DEPTHS: [u64; 2] = [0, 10_000];

criterion_group!(rules, push, ack, pull);
criterion_main!(rules);

fn push(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push");
    group.throughput(Throughput::Elements(ITEMS));
    for depth in DEPTHS {
        group.bench_function(format!("on {depth}"), |bencher| {
            let envelopes: Vec<Envelope> = (depth..depth + ITEMS).map(envelope).collect();
            let fresh = || (filled(depth), envelopes.clone());
            let work = |(mut tables, envelopes): (MemoryTables, Vec<Envelope>)| {
                for envelope in envelopes {
                    black_box(push_one(&mut tables, envelope));
                }
                tables
            };
            bencher.iter_batched(fresh, work, BatchSize::LargeInput);
        });
    }
}

fn ack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ack");
    group.throughput(Throughput::Elements(ITEMS));
    for depth in DEPTHS {
        group.bench_function(format!("{ITEMS} at once of {}", depth + ITEMS), |bencher| {
            let ack =
                Ack::new(recipient(), (0..ITEMS).map(id).collect()).expect("fewer than an ack may have");
            let work = |mut tables: MemoryTables| {
                let Ok(outcome) = queue::ack(&mut tables, &Limits::default(), NOW, &ack);
                assert_eq!(outcome.deleted, ITEMS);
                tables
            };
            bencher.iter_batched(|| filled(depth + ITEMS), work, BatchSize::LargeInput);
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

/// Tables with so many items in one queue.
fn filled(items: u64) -> MemoryTables {
    let mut tables = MemoryTables::default();
    for number in 0..items {
        push_one(&mut tables, envelope(number));
    }
    tables
}

fn push_one(tables: &mut MemoryTables, envelope: Envelope) -> PushOutcome {
    let Ok(outcome) = queue::push(tables, &Limits::default(), NOW, envelope);
    outcome.expect("the default quotas hold all that is pushed here")
}

fn envelope(number: u64) -> Envelope {
    let ItemId { message_id, .. } = id(number);
    Envelope {
        recipient: recipient(),
        message_id,
        chunk: Chunk::new(0, 1).expect("the first of one"),
        kind: Kind::parse("opaque").expect("short enough and not blank"),
        total_len: PAYLOAD.len() as u64,
        sent_ms: 0,
        payload: PAYLOAD,
    }
}

fn id(number: u64) -> ItemId {
    ItemId { message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()), chunk_index: 0 }
}

fn recipient() -> Recipient {
    Recipient::parse("alice").expect("short enough and not blank")
}
