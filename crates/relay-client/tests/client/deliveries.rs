//! Order, chunks, bounds, and what is handed out once only.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_client::{Client, OnSkipped, Options, SkipReason, Uuid};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::support::{Fake, PATIENCE, deliver, eventually, is_quiet, next, options, refusal};

type Skipped = Arc<Mutex<Vec<(Uuid, SkipReason)>>>;

/// A client that writes down what it skips.
fn noting(fake: &Fake, options: Options) -> (Client, Skipped) {
    let skipped = Skipped::default();
    let noted = Arc::clone(&skipped);
    let on_skipped = OnSkipped::new(move |id, reason| noted.lock().unwrap().push((id, reason)));
    (Client::new(&fake.url, Options { on_skipped: Some(on_skipped), ..options }).unwrap(), skipped)
}

#[tokio::test]
async fn messages_come_in_the_order_of_their_last_chunks() {
    let fake = Fake::start();
    fake.arrive(1, 1, 2, 4, b"cd");
    fake.arrive_alone(2, b"two");
    fake.arrive(3, 0, 2, 4, b"wx");
    fake.arrive(3, 1, 2, 4, b"yz");
    fake.arrive(4, 1, 3, 4, b"lost");
    fake.arrive(1, 0, 2, 4, b"ab");
    fake.arrive_alone(5, b"");
    let client = fake.client();
    let mut deliveries = deliver(&client);
    for (id, payload) in [(2, "two"), (3, "wxyz"), (1, "abcd"), (5, "")] {
        let message = next(&mut deliveries).await;
        assert_eq!((message.message_id.as_u128(), &*message.payload), (id, payload.as_bytes()));
        assert_eq!((&*message.kind, message.sent_ms), ("opaque", 5));
        message.ack().await.unwrap();
    }
    assert!(is_quiet(&mut deliveries).await);
    fake.arrive_alone(6, b"later");
    assert_eq!(next(&mut deliveries).await.payload, "later");
    assert_eq!(fake.state(|state| state.items.len()), 2, "the chunk of 4, and 6");
}

#[tokio::test]
async fn nonsense_is_skipped_once_and_stays() {
    let fake = Fake::start();
    fake.arrive(1, 0, 65_537, 4, b"ab");
    fake.arrive(2, 2, 2, 4, b"ab");
    fake.arrive(3, 0, 0, 4, b"ab");
    fake.arrive(1, 1, 65_537, 4, b"ab");
    fake.arrive_alone(4, b"good");
    let (client, skipped) = noting(&fake, options());
    let mut deliveries = deliver(&client);
    next(&mut deliveries).await.ack().await.unwrap();
    let skipped = skipped.lock().unwrap().clone();
    assert_eq!(skipped, [1, 2, 3].map(|id| (Uuid::from_u128(id), SkipReason::Malformed)));
    assert_eq!(fake.state(|state| state.items.len()), 4);
}

#[tokio::test]
async fn a_message_larger_than_the_memory_is_reported() {
    let fake = Fake::start();
    fake.arrive(1, 0, 2, 11, b"12345");
    fake.arrive_alone(2, b"12345678901");
    fake.arrive_alone(3, b"1234567890");
    let (client, skipped) = noting(&fake, Options { memory_bytes: 10, ..options() });
    assert_eq!(next(&mut deliver(&client)).await.message_id.as_u128(), 3);
    assert_eq!(*skipped.lock().unwrap(), [1, 2].map(|id| (Uuid::from_u128(id), SkipReason::TooLarge)));
}

#[tokio::test]
async fn what_did_not_fit_comes_when_the_queue_is_read_again() {
    let fake = Fake::start();
    for index in 0..2 {
        for id in 1..=3 {
            fake.arrive(id, index, 2, 8, b"1234");
        }
    }
    let client = Client::new(&fake.url, Options { memory_bytes: 8, ..options() }).unwrap();
    let mut deliveries = deliver(&client);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let message = next(&mut deliveries).await;
        ids.push(message.message_id.as_u128());
        message.ack().await.unwrap();
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    assert!(is_quiet(&mut deliveries).await);
}

#[tokio::test]
async fn an_unfinished_message_is_given_up_in_time() {
    let fake = Fake::start();
    fake.arrive(1, 0, 2, 4, b"ab");
    let wait = Duration::from_secs(60);
    let partial_age = Duration::from_millis(200);
    let (client, skipped) = noting(&fake, Options { partial_age, wait, ..options() });
    let mut deliveries = deliver(&client);
    let waiting = tokio::spawn(async move { deliveries.next().await.map(drop) });
    eventually(|| !skipped.lock().unwrap().is_empty()).await;
    assert_eq!(*skipped.lock().unwrap(), [(Uuid::from_u128(1), SkipReason::Incomplete)]);
    waiting.abort();
}

#[tokio::test]
async fn a_message_that_was_given_up_comes_if_its_sender_goes_on() {
    let fake = Fake::start();
    fake.arrive(1, 0, 3, 6, b"ab");
    let (client, skipped) = noting(&fake, Options { partial_age: Duration::from_millis(200), ..options() });
    let mut deliveries = deliver(&client);
    while skipped.lock().unwrap().is_empty() {
        assert!(is_quiet(&mut deliveries).await);
    }
    fake.arrive(1, 2, 3, 6, b"ef");
    fake.arrive(1, 1, 3, 6, b"cd");
    let message = next(&mut deliveries).await;
    assert_eq!((&*message.payload, message.arrival_ms), (b"abcdef".as_slice(), 3));
    assert_eq!(skipped.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_relay_that_refuses_each_cursor_is_not_flooded() {
    let fake = Fake::scripted(|request| {
        let refuses = request.body["cursor"].is_string();
        if refuses { refusal(400, "invalid_input", serde_json::json!({"field": "cursor"})) } else { None }
    });
    fake.arrive_alone(1, b"one");
    let client = fake.client();
    let mut deliveries = deliver(&client);
    let _first = next(&mut deliveries).await;
    assert!(timeout(Duration::from_secs(1), deliveries.next()).await.is_err());
    // Pauses of at least 50, 100, 200, 400 and 800 ms.
    assert!(fake.requests("/pull").len() <= 11, "{}", fake.requests("/pull").len());
}

#[tokio::test]
async fn pulling_stops_until_messages_are_acked() {
    let fake = Fake::start();
    for id in 1..=20 {
        fake.arrive_alone(id, b"1234");
    }
    for limits in [Options { unacked_max: 4, ..options() }, Options { memory_bytes: 16, ..options() }] {
        let client = Client::new(&fake.url, limits).unwrap();
        let mut deliveries = deliver(&client);
        let mut held = Vec::new();
        while let Ok(message) = timeout(Duration::from_millis(300), deliveries.next()).await {
            held.push(message.unwrap().unwrap());
        }
        assert_eq!(held.len(), 6, "two pages of three");
        held[0].ack().await.unwrap();
        held[1].ack().await.unwrap();
        assert_eq!(next(&mut deliveries).await.message_id.as_u128(), held[5].message_id.as_u128() + 1);
    }
}

#[tokio::test]
async fn a_cursor_that_is_refused_is_forgotten() {
    let mut is_refused = false;
    let fake = Fake::scripted(move |request| {
        let refuses = request.path == "/pull" && request.body["cursor"].is_string() && !is_refused;
        is_refused |= refuses;
        if refuses { refusal(400, "invalid_input", serde_json::json!({"field": "cursor"})) } else { None }
    });
    fake.arrive_alone(1, b"one");
    let client = fake.client();
    let mut deliveries = deliver(&client);
    let first = next(&mut deliveries).await;
    assert!(is_quiet(&mut deliveries).await, "it is not handed out again");
    fake.arrive_alone(2, b"two");
    assert_eq!(next(&mut deliveries).await.payload, "two");
    first.ack().await.unwrap();
}

#[tokio::test]
async fn refusals_end_the_deliveries() {
    for (status, code) in
        [(400, "invalid_input"), (401, "unauthorized"), (403, "forbidden"), (404, "not_found")]
    {
        let fake = Fake::scripted(move |request| {
            let details = serde_json::json!({"reason": "wrong_proof", "server_ms": 1});
            if request.path == "/pull" { refusal(status, code, details) } else { None }
        });
        let client = fake.client();
        let mut deliveries = deliver(&client);
        let error = timeout(PATIENCE, deliveries.next()).await.unwrap().unwrap().unwrap_err();
        assert_eq!((error.code(), error.refusal().unwrap().status), (code, status));
        assert!(deliveries.next().await.is_none());
        assert_eq!(fake.requests("/pull").len(), 1);
    }
}

#[tokio::test]
async fn nothing_is_left_of_what_is_dropped() {
    let fake = Fake::start();
    let before = Handle::current().metrics().num_alive_tasks();
    let client = fake.client();
    let mut deliveries = deliver(&client);
    fake.arrive_alone(1, b"one");
    let message = next(&mut deliveries).await;
    assert!(timeout(Duration::from_millis(50), deliveries.next()).await.is_err());
    drop(deliveries);
    message.ack().await.unwrap();
    drop((message, client));
    eventually(|| Handle::current().metrics().num_alive_tasks() == before).await;
}
