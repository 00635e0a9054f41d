//! Acks go together, are repeated, and end with what they belong to.

use std::time::Duration;

use futures_util::future::join_all;
use relay_client::{Client, Options};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::support::{Fake, Reply, deliver, eventually, is_quiet, next, options, refusal};

#[tokio::test]
async fn acks_of_the_same_time_are_one_request() {
    let fake = Fake::start();
    for id in 1..=5 {
        fake.arrive(id, 0, 2, 2, b"a");
        fake.arrive(id, 1, 2, 2, b"b");
    }
    let client = fake.client();
    let mut deliveries = deliver(&client);
    let mut messages = Vec::new();
    for _ in 0..5 {
        messages.push(next(&mut deliveries).await);
    }
    for result in join_all(messages.iter().map(|message| message.ack())).await {
        result.unwrap();
    }
    let requests = fake.requests("/ack");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body["ack"].as_array().unwrap().len(), 10);
    messages[0].ack().await.unwrap();
    assert_eq!(fake.requests("/ack").len(), 1, "it is acked already");
}

#[tokio::test]
async fn a_long_ack_is_split_and_confirmed_as_a_whole() {
    let fake = Fake::start();
    for index in 0..10 {
        fake.arrive(1, index, 10, 10, b"a");
    }
    let ack_delay = Duration::from_secs(3600);
    let client = Client::new(&fake.url, Options { ack_max: 5, ack_delay, ..options() }).unwrap();
    let mut deliveries = deliver(&client);
    next(&mut deliveries).await.ack().await.unwrap();
    let lengths: Vec<_> =
        fake.requests("/ack").iter().map(|request| request.body["ack"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, [5, 5]);
    assert!(fake.state(|state| state.items.is_empty()));
}

#[tokio::test]
async fn an_ack_is_repeated_until_it_is_confirmed() {
    let mut tries = 0;
    let fake = Fake::scripted(move |request| {
        if request.path != "/ack" {
            return None;
        }
        tries += 1;
        match tries {
            1 => refusal(503, "storage_error", json!({"retry_after_ms": 10})),
            2 => Some(Reply::Cut(0)),
            _ => None,
        }
    });
    fake.arrive_alone(1, b"one");
    let client = fake.client();
    next(&mut deliver(&client)).await.ack().await.unwrap();
    assert_eq!(fake.requests("/ack").len(), 3);
}

#[tokio::test]
async fn a_refused_ack_is_an_error_and_the_message_stays() {
    let fake = Fake::scripted(|request| {
        if request.path == "/ack" {
            refusal(403, "forbidden", json!({"reason": "wrong_operation"}))
        } else {
            None
        }
    });
    fake.arrive_alone(1, b"one");
    let client = fake.client();
    let error = next(&mut deliver(&client)).await.ack().await.unwrap_err();
    assert_eq!(error.code(), "forbidden");
    assert_eq!(fake.state(|state| state.items.len()), 1);
}

#[tokio::test]
async fn what_is_pushed_again_after_its_ack_is_acked_again() {
    let fake = Fake::start();
    let arrive = || (0..2).for_each(|index| fake.arrive(1, index, 2, 2, b"a"));
    arrive();
    let client = fake.client();
    let mut deliveries = deliver(&client);
    next(&mut deliveries).await.ack().await.unwrap();
    // The relay has forgotten it by now.
    arrive();
    let is_empty = || fake.state(|state| state.items.is_empty());
    for _ in 0..20 {
        assert!(is_empty() || is_quiet(&mut deliveries).await, "it is not handed out again");
    }
    assert!(is_empty());
}

#[tokio::test]
async fn closing_sends_what_waits() {
    let fake = Fake::start();
    fake.arrive_alone(1, b"one");
    let client =
        Client::new(&fake.url, Options { ack_delay: Duration::from_secs(3600), ..options() }).unwrap();
    let mut deliveries = deliver(&client);
    let message = next(&mut deliveries).await;
    assert!(timeout(Duration::from_millis(20), message.ack()).await.is_err());
    deliveries.close().await;
    assert!(fake.state(|state| state.items.is_empty()));
    assert_eq!(message.ack().await.unwrap_err().code(), "closed");
}

#[tokio::test]
async fn a_silent_relay_does_not_hold_up_the_end() {
    let fake = Fake::scripted(|request| (request.path == "/ack").then_some(Reply::Silence));
    fake.arrive_alone(1, b"one");
    let before = Handle::current().metrics().num_alive_tasks();
    let client = fake.client();
    let mut deliveries = deliver(&client);
    let message = next(&mut deliveries).await;
    assert!(timeout(Duration::from_millis(20), message.ack()).await.is_err());
    fake.wait_for("/ack", 1).await;
    timeout(Duration::from_secs(8), deliveries.close()).await.unwrap();
    drop(client);
    eventually(|| Handle::current().metrics().num_alive_tasks() == before).await;
    assert_eq!(message.ack().await.unwrap_err().code(), "closed");
}
