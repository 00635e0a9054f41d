//! A sweep of very many expired items while pushes go on: it reclaims them all, nobody waits long,
//! and the counts are exact all the while.

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

/// How many of them lie in one queue; the others are spread over queues of ten.
const IN_ONE_QUEUE: u128 = 25_000;

/// The longest that a push may wait while the sweep runs.
const WAIT_MAX: Duration = Duration::from_millis(100);

const TTL_MS: u64 = 1_000_000;

#[test]
fn pushes_hardly_notice_a_sweep_of_50_000_items() {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<ManualClock> = Arc::default();
    let limits = Limits { ttl_ms: TTL_MS, ..Limits::default() };
    let store = RedbRelay::open(directory.path(), limits, Arc::clone(&clock) as _, Options::default());
    let store = Arc::new(store.unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |config| config.relay.gc_interval_seconds = 1_000_000);
    relay.runtime().block_on(fill(&store));
    clock.advance_ms(TTL_MS);

    let over = AtomicBool::new(false);
    let (swept, longest) = thread::scope(|scope| {
        // One pusher goes to the queue that is being reclaimed, the others to new ones.
        let pushers: Vec<_> = ["deep", "b", "c", "d"]
            .into_iter()
            .map(|recipient| {
                let (mut client, over) = (relay.connect().unwrap(), &over);
                scope.spawn(move || push_until(&mut client, recipient, || over.load(Ordering::SeqCst)))
            })
            .collect();
        let swept = relay.runtime().block_on(store.sweep()).unwrap();
        over.store(true, Ordering::SeqCst);
        (swept, pushers.into_iter().map(|pusher| pusher.join().unwrap()).max().unwrap())
    });
    println!("the longest wait of a push was {longest:?}");
    assert_eq!(u128::from(swept.items), EXPIRED);
    assert!(longest <= WAIT_MAX, "a push waited {longest:?}");
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}

/// Pushes until told otherwise, at least once. The queue counts these pushes and no expired item.
/// Tells the longest wait.
fn push_until(client: &mut Client, recipient: &str, over: impl Fn() -> bool) -> Duration {
    let mut longest = Duration::ZERO;
    let mut pushes = 0_u64;
    loop {
        let body = push_body(recipient, u128::from(pushes), b"fresh");
        let watch = Stopwatch::start();
        let answer = client.post("/push", &body).unwrap();
        longest = longest.max(watch.elapsed());
        pushes += 1;
        assert_eq!(answer.json()["queue_len"], pushes, "{recipient}: {}", answer.json());
        assert_eq!(answer.json()["queue_bytes"], pushes * 5);
        if over() {
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
        // Other names than those of the fresh pushes.
        message_id: MessageId::from_bytes((number | 1 << 100).to_be_bytes()),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 100,
        sent_ms: 0,
        payload: vec![b'x'; 100].into(),
    }
}
