//! A sweep of very many expired items during pushes: it removes all, no push waits long, and the
//! counts stay exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use relay_core::testing::ManualClock;
use relay_core::{Chunk, Envelope, Kind, Limits, MessageId, Recipient, Relay as _};
use relay_store_redb::{Options, RedbRelay};
use relay_tests::{Client, Relay, push_body};

use super::super::stopwatch::Stopwatch;

const EXPIRED: u128 = 50_000;

/// The number of expired items in one queue. The others are spread over queues of ten.
const IN_ONE_QUEUE: u128 = 25_000;

/// The longest allowed wait of a push during the sweep.
const WAIT_MAX: Duration = Duration::from_millis(100);

const TTL_MS: u64 = 1_000_000;

#[test]
fn pushes_wait_at_most_100_ms_during_a_sweep_of_50_000_items() {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<ManualClock> = Arc::default();
    let limits = Limits { ttl_ms: TTL_MS, ..Limits::default() };
    let store = RedbRelay::open(directory.path(), limits, Arc::clone(&clock) as _, Options::default());
    let store = Arc::new(store.unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |config| config.relay.gc_interval_seconds = 1_000_000);
    relay.runtime().block_on(fill(&store));
    clock.advance_ms(TTL_MS);

    let is_over = AtomicBool::new(false);
    let (swept, longest) = thread::scope(|scope| {
        // One client pushes to the queue that is being swept, the others to new ones.
        let pushers: Vec<_> = ["deep", "b", "c", "d"]
            .into_iter()
            .map(|recipient| {
                let (mut client, is_over) = (relay.connect().unwrap(), &is_over);
                scope.spawn(move || push_until(&mut client, recipient, || is_over.load(Ordering::SeqCst)))
            })
            .collect();
        let swept = relay.runtime().block_on(store.sweep()).unwrap();
        is_over.store(true, Ordering::SeqCst);
        (swept, pushers.into_iter().map(|pusher| pusher.join().unwrap()).max().unwrap())
    });
    println!("the longest wait of a push was {longest:?}");
    assert_eq!(u128::from(swept.items), EXPIRED);
    assert!(longest <= WAIT_MAX, "a push waited {longest:?}");
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}

/// Pushes at least once, until `is_over`. The queue counts these pushes and no expired item.
/// Returns the longest wait.
fn push_until(client: &mut Client, recipient: &str, is_over: impl Fn() -> bool) -> Duration {
    let mut longest = Duration::ZERO;
    let mut pushes = 0_u64;
    loop {
        let body = push_body(recipient, u128::from(pushes), b"fresh");
        let watch = Stopwatch::start();
        let response = client.post("/push", &body).unwrap();
        longest = longest.max(watch.elapsed());
        pushes += 1;
        assert_eq!(response.json()["queue_len"], pushes, "{recipient}: {}", response.json());
        assert_eq!(response.json()["queue_bytes"], pushes * 5);
        if is_over() {
            return longest;
        }
    }
}

async fn fill(store: &RedbRelay) {
    let numbers: Vec<u128> = (0..EXPIRED).collect();
    for numbers in numbers.chunks(1000) {
        let pushes = numbers.iter().map(|number| store.push(envelope(*number)));
        for outcome in futures_util::future::join_all(pushes).await {
            assert!(outcome.unwrap().is_stored());
        }
    }
}

fn envelope(number: u128) -> Envelope {
    let queue = if number < IN_ONE_QUEUE { "deep".to_owned() } else { format!("shallow {}", number / 10) };
    Envelope {
        recipient: Recipient::parse(&queue).unwrap(),
        // Other message ids than those of the fresh pushes.
        message_id: MessageId::from_bytes((number | 1 << 100).to_be_bytes()),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 100,
        sent_ms: 0,
        ttl_ms: None,
        payload: vec![b'x'; 100].into(),
    }
}
