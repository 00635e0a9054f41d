//! What JSON and base64 cost: a push from body to envelope and a pull from page to body, over the
//! wire types as they are.

#![expect(clippy::unwrap_used, reason = "a bench ends when something is wrong")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relay_core::{Chunk, Item, Kind, MessageId, Page, Recipient, Seq, Timestamp};
use relay_http::CursorKey;
use relay_http::fuzzing::{decode_cursor, decode_push, encode_cursor, encode_page};

fn push(payload_bytes: usize) -> Vec<u8> {
    let payload = "q83v".repeat(payload_bytes / 3);
    format!(
        r#"{{"recipient":"a3f9c0","message_id":"6f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11","ciphertext_b64":"{payload}",
        "meta":{{"kind":"opaque","total_len":5,"chunk_index":0,"chunk_count":1,"sent_ms":7}}}}"#
    )
    .into_bytes()
}

fn item(payload_bytes: usize) -> Item<Bytes> {
    Item {
        seq: Seq::new(7),
        message_id: MessageId::from_bytes([0x6f; 16]),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 7,
        sent_ms: 7,
        arrival: Timestamp::from_ms(7),
        deadline: Timestamp::from_ms(7),
        payload_bytes: payload_bytes as u64,
        body: Bytes::from(vec![0xab; payload_bytes]),
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_push");
    for payload_bytes in [1024, 8 * 1024 * 1024] {
        let body = push(payload_bytes);
        group.throughput(Throughput::Bytes(payload_bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(payload_bytes), &body, |bencher, body| {
            bencher.iter(|| decode_push(black_box(body), u64::MAX).unwrap());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("encode_page");
    let (recipient, cursors) = (Recipient::parse("a3f9c0").unwrap(), CursorKey::new(&[7; 32]));
    for (items, payload_bytes) in [(256, 1024), (1, 8 * 1024 * 1024)] {
        let page = Page { items: vec![item(payload_bytes); items], next: Some(Seq::new(7)), remaining: 7 };
        group.throughput(Throughput::Bytes((items * payload_bytes) as u64));
        group.bench_with_input(BenchmarkId::new(items.to_string(), payload_bytes), &page, |bencher, page| {
            bencher
                .iter(|| encode_page(&cursors, &recipient, black_box(page.clone())).map(black_box).count());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("cursor");
    // As long as a hash in hexadecimal digits, which real names are.
    let recipient = Recipient::parse(&"a3f9c0de".repeat(8)).unwrap();
    let text = encode_cursor(&cursors, &recipient, Seq::new(7));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| encode_cursor(&cursors, &recipient, black_box(Seq::new(7))));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode_cursor(&cursors, &recipient, black_box(&text)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
