//! What a gateway gets, checked by code that shares nothing with the relay's.

use relay_wake::testing::TestGateway;
use sha2::{Digest as _, Sha256};

use super::support::{KEY, Waking, options};

/// HMAC-SHA-256 as RFC 2104 writes it, in hexadecimal.
fn hmac(key: &[u8], message: &[u8]) -> String {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_gateway_can_find_the_queue_and_check_who_calls() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    relay.push("ålice \"🦀\"", 1).await;
    relay.until(|figures| figures.sent == 1).await;
    let received = gateway.next().unwrap();
    assert_eq!(received.line, "POST /wake HTTP/1.1");
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.header("content-length"), Some(&*received.body.len().to_string()));

    let hash = hmac(&KEY, "relay wake 1, recipient:ålice \"🦀\"".as_bytes());
    assert_eq!(received.body, format!("{{\"recipient_hash\":\"{hash}\",\"waiting\":1}}"));

    let signature = received.header("relay-signature").unwrap();
    let (time, mac) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let seconds: u64 = time.parse().unwrap();
    assert!((1_700_000_000..1_700_000_060).contains(&seconds), "the time of the relay: {seconds}");
    assert_eq!(mac, hmac(&KEY, format!("relay wake 1, call:{time}.{}", received.body).as_bytes()));

    // Nothing else that a client has sent.
    let all = format!("{received:?}");
    for secret in ["lice", "hello", "opaque", "00000000-0000-0000-0000-000000000001"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}

#[tokio::test]
async fn calls_share_a_connection() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    for number in 0..20 {
        relay.push(&format!("queue {number}"), 1).await;
        relay.until(|figures| figures.sent == number + 1).await;
    }
    assert_eq!(gateway.connections(), 1);
}
