//! How messages are split, batched, and repeated.

use std::io::Cursor;
use std::time::Duration;

use relay_client::{Client, Options, Outgoing, Secret, Uuid};
use serde_json::{Value, json};

use crate::support::{Fake, Reply, deliver, next, options, refusal};

/// The chunk indexes of each request to `/push/batch`.
fn batches(fake: &Fake) -> Vec<Vec<u64>> {
    let index = |item: &Value| item["meta"]["chunk_index"].as_u64().unwrap();
    let indexes = |body: &Value| body["items"].as_array().unwrap().iter().map(index).collect();
    fake.requests("/push/batch").iter().map(|request| indexes(&request.body)).collect()
}

#[tokio::test]
async fn a_message_is_one_item_or_batches_of_64() {
    let fake = Fake::start();
    let client = Client::new(&fake.url, Options { chunk_bytes: 3, ..options() }).unwrap();
    client.push("alice", "").await.unwrap();
    client.push("alice", "abc").kind("signaling").await.unwrap();
    let payload: Vec<u8> = (0..200).collect();
    let pushed = client.push("alice", payload.clone()).message_id(Uuid::from_u128(7)).await.unwrap();
    assert_eq!((pushed.message_id.as_u128(), pushed.is_duplicate), (7, false));
    assert!(client.push("alice", payload.clone()).message_id(Uuid::from_u128(7)).await.unwrap().is_duplicate);
    assert_eq!(fake.requests("/push").len(), 2);
    assert_eq!(batches(&fake)[..2], [(0..64).collect::<Vec<_>>(), vec![64, 65, 66]]);
    let mut deliveries = deliver(&client);
    assert_eq!(next(&mut deliveries).await.payload, "");
    let short = next(&mut deliveries).await;
    assert_eq!((&*short.payload, &*short.kind), (b"abc".as_slice(), "signaling"));
    assert_eq!(next(&mut deliveries).await.payload, payload);
}

#[tokio::test]
async fn a_batch_has_four_mebibytes() {
    let fake = Fake::start();
    let client = Client::new(&fake.url, Options { chunk_bytes: 1 << 30, ..options() }).unwrap();
    let len = (9 << 20) + 5;
    client.push_reader("alice", Cursor::new(vec![7; len]), len as u64).await.unwrap();
    // The relay takes one mebibyte for each.
    assert_eq!(batches(&fake), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
}

#[tokio::test]
async fn a_reader_with_another_length_is_an_error() {
    let fake = Fake::start();
    let client = fake.client();
    for len in [2, 4] {
        let error = client.push_reader("alice", Cursor::new("abc"), len).await.unwrap_err();
        assert_eq!(error.code(), "read_failed");
    }
    assert!(fake.state(|state| state.items.is_empty()));
}

#[tokio::test]
async fn only_the_items_that_failed_are_sent_again() {
    let mut is_first = true;
    let fake = Fake::scripted(move |request| {
        let answers = request.path == "/push/batch" && std::mem::take(&mut is_first);
        let stored = json!({"stored": true, "queue_len": 0, "queue_bytes": 0});
        let failed =
            json!({"error": {"code": "storage_error", "message": "", "details": {"retry_after_ms": 5}}});
        let body = json!({"results": [stored, failed, stored, failed]});
        answers.then(|| Reply::Json(200, Vec::new(), body))
    });
    let client = Client::new(&fake.url, Options { chunk_bytes: 1, ..options() }).unwrap();
    client.push("alice", "abcd").await.unwrap();
    assert_eq!(batches(&fake), [vec![0, 1, 2, 3], vec![1, 3]]);
}

/// A relay behind a network that is too slow for more than this many chunks in one request.
fn slow(items_max: usize) -> Fake {
    Fake::scripted(move |request| {
        let is_over = request.body["items"].as_array().is_some_and(|items| items.len() > items_max);
        if is_over { refusal(408, "request_timeout", json!({})) } else { None }
    })
}

#[tokio::test]
async fn what_takes_too_long_goes_in_smaller_requests() {
    let fake = slow(4);
    let client = Client::new(&fake.url, Options { chunk_bytes: 1, ..options() }).unwrap();
    client.push("alice", "0123456789abcdef").await.unwrap();
    let lengths: Vec<_> = batches(&fake).iter().map(Vec::len).collect();
    assert_eq!(lengths, [16, 4, 8, 2, 4, 6, 2, 4]);
    assert_eq!(next(&mut deliver(&client)).await.payload, "0123456789abcdef");
}

#[tokio::test]
async fn a_request_without_an_answer_is_followed_by_smaller_ones() {
    let fake = Fake::scripted(|request| {
        let is_over = request.body["items"].as_array().is_some_and(|items| items.len() > 4);
        is_over.then_some(Reply::Silence)
    });
    let request_timeout = Duration::from_millis(500);
    let client = Client::new(&fake.url, Options { chunk_bytes: 1, request_timeout, ..options() }).unwrap();
    client.push("alice", "01234").await.unwrap();
    assert_eq!(batches(&fake), [vec![0, 1, 2, 3, 4], vec![0, 1], vec![2, 3, 4]]);
}

#[tokio::test]
async fn a_push_that_goes_on_may_take_longer_than_its_timeout() {
    let fake = slow(1);
    let push_timeout = Duration::from_millis(700);
    let client = Client::new(&fake.url, Options { chunk_bytes: 1, push_timeout, ..options() }).unwrap();
    // After each chunk, a request with two fails, with a pause of at least 50 ms.
    client.push("alice", "0123456789abcdefghij").await.unwrap();
    assert_eq!(fake.state(|state| state.items.len()), 20);
}

#[tokio::test]
async fn a_refused_item_ends_the_push_of_its_message() {
    let fake = Fake::scripted(|request| {
        let full =
            json!({"error": {"code": "quota_exceeded", "message": "", "details": {"reason": "count"}}});
        let failed = json!({"error": {"code": "storage_error", "message": ""}});
        let body = json!({"results": [failed, full]});
        (request.path == "/push/batch").then(|| Reply::Json(200, Vec::new(), body))
    });
    let client = Client::new(&fake.url, Options { chunk_bytes: 1, ..options() }).unwrap();
    let error = client.push("alice", "ab").await.unwrap_err();
    assert_eq!((error.code(), fake.requests("/push/batch").len()), ("quota_exceeded", 1));
}

#[tokio::test]
async fn several_messages_go_in_one_request_and_fail_alone() {
    let fake = Fake::scripted(|request| {
        let is_batch = request.path == "/push/batch";
        let full = json!({"error": {"code": "quota_exceeded", "message": ""}});
        let stored = json!({"stored": true});
        is_batch.then(|| Reply::Json(200, Vec::new(), json!({"results": [stored, full, stored]})))
    });
    let client = fake.client();
    let messages = ["a", "b", "c"].map(|name| Outgoing::new(name, "x"));
    let outcomes = client.push_all(messages).await;
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(|e| e.code())).collect();
    assert_eq!(codes, [None, Some("quota_exceeded"), None]);
    assert_eq!(fake.requests("/push/batch").len(), 1);
    assert!(client.push_all([]).await.is_empty());
}

#[tokio::test]
async fn a_send_secret_is_in_the_item_or_for_older_relays_in_the_header() {
    let secret = Secret::generate().unwrap();
    let fake = Fake::start();
    fake.client().push("alice", "x").send_secret(&secret).await.unwrap();
    let push = &fake.requests("/push")[0];
    assert_eq!((&push.body["proof"], &push.authorization), (&json!(secret.expose()), &None));
    let fake = Fake::with(Some(vec![]), |_| None);
    fake.client().push("alice", "x").send_secret(&secret).await.unwrap();
    let push = &fake.requests("/push")[0];
    assert_eq!(push.authorization, Some(format!("Bearer {}", secret.expose())));
    assert!(push.body["proof"].is_null());
}

#[tokio::test]
async fn a_full_queue_is_an_error_at_once() {
    let fake = Fake::scripted(|request| {
        let details = json!({"reason": "bytes"});
        if request.path == "/push" { refusal(409, "quota_exceeded", details) } else { None }
    });
    let error = fake.client().push("alice", "x").await.unwrap_err();
    assert_eq!((error.code(), fake.requests("/push").len()), ("quota_exceeded", 1));
}
