//! Relays before 0.1: no `/info`, no batches, no waits, no cursor on the last page.

use crate::support::{Fake, deliver, is_quiet, next};

#[tokio::test]
async fn an_old_relay_is_polled_and_pushed_to_one_by_one() {
    let fake = Fake::with(None, |_| None);
    let client = fake.client();
    let mut deliveries = deliver(&client);
    assert!(is_quiet(&mut deliveries).await);
    let payload = vec![7; (256 << 10) * 2 + 1];
    client.push("alice", payload.clone()).ttl(std::time::Duration::from_secs(5)).await.unwrap();
    client.push("alice", "second").await.unwrap();
    let first = next(&mut deliveries).await;
    assert!(first.payload == payload);
    let second = next(&mut deliveries).await;
    assert_eq!(second.payload, "second");
    assert!(is_quiet(&mut deliveries).await, "they are in every page, and not handed out again");
    first.ack().await.unwrap();
    second.ack().await.unwrap();
    assert!(fake.state(|state| state.items.is_empty()));
    assert_eq!((fake.requests("/info").len(), fake.requests("/push").len()), (1, 4));
    assert!(fake.requests("/push/batch").is_empty());
    let pulls = fake.requests("/pull");
    assert!(pulls.iter().all(|pull| pull.body["wait_ms"].is_null() && pull.body["tail"].is_null()));
    assert!(fake.requests("/push").iter().all(|push| push.body["ttl_seconds"].is_null()));
}
