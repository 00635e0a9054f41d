//! Measures what wakes add to a push: when they are off, for a queue that is tracked already, for a
//! new queue each time, and for a queue in which somebody waits.

use std::hint::black_box;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pollster::block_on;
use relay_core::{
    Ack, AckOutcome, Chunk, Clock, Envelope, Error, Kind, MessageId, Page, Pull, PushOutcome, Recipient,
    Relay, Swept, Timestamp, TooManyWaiters, Usage, Waiter, Waiters,
};
use relay_wake::{GatewayUrl, Options, Rules, WakeKey, Wakes, WakingRelay};

/// A store that does nothing.
#[derive(Default)]
struct Nothing(Waiters);

impl Relay for Nothing {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        black_box(envelope);
        let deadline = Timestamp::default();
        Ok(PushOutcome::Stored { usage: Usage { items: 1, bytes: 1 }, deadline })
    }

    async fn pull(&self, _: Pull) -> Result<Page, Error> {
        Ok(Page { items: Vec::new(), next: None, remaining: 0 })
    }

    async fn ack(&self, _: Ack) -> Result<AckOutcome, Error> {
        Ok(AckOutcome::default())
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        Ok(Swept::default())
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        self.0.register(recipient).map(Some)
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.0.has(recipient)
    }
}

/// A clock that costs about as much as the system's.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.elapsed_ms())
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) / 1000
    }
}

fn wakes() -> Wakes {
    let options = Options {
        url: GatewayUrl::parse("http://localhost/").expect("a URL"),
        key: WakeKey::new(&[7; WakeKey::BYTES]),
        ca_path: None,
        rules: Rules {
            grace: Duration::from_secs(3600),
            confirm: Duration::from_secs(3600),
            quiet: Duration::from_secs(3600),
            attempts_max: NonZeroU32::MIN,
            queues_max: NonZeroUsize::new(10_000).unwrap_or(NonZeroUsize::MIN),
            calls_max: NonZeroUsize::MIN,
            calls_per_second: NonZeroU32::MIN,
        },
        timeout: Duration::from_secs(10),
    };
    Wakes::new(&options, Arc::new(Ticks::default())).expect("no files are needed")
}

fn envelope(recipient: Recipient) -> Envelope {
    Envelope {
        recipient,
        message_id: MessageId::from_bytes([1; 16]),
        chunk: Chunk::new(0, 1).expect("the only chunk"),
        kind: Kind::parse("opaque").expect("a kind"),
        total_len: 1,
        sent_ms: 1,
        ttl_ms: None,
        payload: Bytes::from_static(b"x"),
    }
}

fn name(number: u64) -> Recipient {
    Recipient::parse(&format!("a recipient of usual length, number {number}")).expect("a recipient")
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push");
    let mut measure = |what: &str, relay: &WakingRelay<Nothing>, mut next: Box<dyn FnMut() -> Recipient>| {
        group.bench_function(what, |bencher| {
            bencher.iter_batched(
                || envelope(next()),
                |envelope| block_on(relay.push(envelope)).is_ok(),
                BatchSize::SmallInput,
            );
        });
    };
    let off = WakingRelay::new(Nothing::default(), None);
    measure("wakes off", &off, Box::new(|| name(1)));
    let on = || WakingRelay::new(Nothing::default(), Some(wakes()));
    measure("a tracked queue", &on(), Box::new(|| name(1)));
    let mut number = 0;
    let new = move || {
        number += 1;
        name(number)
    };
    measure("new queues, most of them beyond the bound", &on(), Box::new(new));
    let mut turn = 0;
    let known = move || {
        turn = (turn + 1) % 10_000;
        name(turn)
    };
    measure("one of 10,000 tracked queues", &on(), Box::new(known));
    let waiting = on();
    let _waiter = waiting.waiter(&name(1));
    measure("a queue with a waiter", &waiting, Box::new(|| name(1)));
    group.finish();
}

criterion_group!(push, benches);
criterion_main!(push);
