//! The client against the real HTTP stack, over a store in memory.

use std::net::SocketAddr;
use std::sync::Arc;

use relay_auth::Settings;
use relay_client::{Client, Credentials, Key, Pull, Secret, Transport};
use relay_core::{Clock, Limits, Timestamp};
use relay_http::{Auth, Options, testing};
use tokio::time::timeout;

use crate::support::{PATIENCE, is_quiet, next, options};

const AUDIENCE: &str = "https://relay.example.org";

/// A day ahead of the machine.
struct Tomorrow;

impl Clock for Tomorrow {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the clock of the relay")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_ms(u64::try_from(now.as_millis()).unwrap() + 24 * 3600 * 1000)
    }

    fn elapsed_ms(&self) -> u64 {
        self.now().as_ms()
    }
}

/// A relay in clear text. Returns its address.
fn relay(limits: Limits) -> String {
    let settings = Settings { audiences: vec![AUDIENCE.to_owned()], ..Settings::default() };
    format!("http://{}", start(relay_http::Transport::Plain, limits, settings))
}

/// A relay with these rules. Returns its address.
pub(crate) fn start(transport: relay_http::Transport, limits: Limits, settings: Settings) -> SocketAddr {
    let auth = Auth { settings, clock: Arc::new(Tomorrow) };
    testing::start(transport, Options { limits, auth, ..testing::options() }).unwrap()
}

fn client(url: &str) -> Client {
    Client::new(url, options()).unwrap()
}

#[tokio::test]
async fn messages_of_all_sizes_come_once_over_both_transports() {
    let url = relay(Limits::default());
    let client = client(&url);
    assert!(client.info().await.unwrap().has("stream"));
    for transport in [Transport::Wait, Transport::Stream] {
        let name = format!("{transport:?}");
        let mut deliveries = client.deliveries(&*name, Credentials::none(), transport);
        assert!(is_quiet(&mut deliveries).await);
        for len in [0, 1, 256 << 10, (256 << 10) + 1, 5 << 20] {
            let payload: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
            let pushed = client.push(&*name, payload.clone()).await.unwrap();
            let message = next(&mut deliveries).await;
            assert_eq!(message.message_id, pushed.message_id);
            assert!(message.payload == payload, "{len} bytes");
            message.ack().await.unwrap();
        }
        assert!(is_quiet(&mut deliveries).await);
        deliveries.close().await;
        let page = client.pull(&name, &Credentials::none(), &Pull::default()).await.unwrap();
        assert!(page.items.is_empty());
    }
}

#[tokio::test]
async fn a_message_that_was_not_acked_comes_again_in_the_next_session() {
    let url = relay(Limits::default());
    let client = client(&url);
    client.push("alice", "hello").await.unwrap();
    for transport in [Transport::Stream, Transport::Wait] {
        let mut deliveries = client.deliveries("alice", Credentials::none(), transport);
        assert_eq!(next(&mut deliveries).await.payload, "hello");
        assert!(is_quiet(&mut deliveries).await);
    }
    assert_eq!(client.purge("alice", &Credentials::none()).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn locks_open_to_their_secret_and_key_although_the_clock_is_wrong() {
    let url = relay(Limits::default());
    let secret = Secret::generate().unwrap();
    let key = Key::generate().unwrap();
    let send = Secret::generate().unwrap();
    for (name, credentials) in [
        (secret.recipient() + &send.send_lock(), Credentials::secret(&secret)),
        (key.recipient() + &send.send_lock(), Credentials::key(key, AUDIENCE)),
    ] {
        let client = client(&url);
        assert_eq!(client.push(&*name, "x").await.unwrap_err().code(), "unauthorized");
        client.push(&*name, vec![1; 300 << 10]).send_secret(&send).await.unwrap();
        let mut refused = client.deliveries(&*name, Credentials::none(), Transport::Wait);
        let error = timeout(PATIENCE, refused.next()).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.code(), "unauthorized");
        for transport in [Transport::Stream, Transport::Wait] {
            let mut deliveries = client.deliveries(&*name, credentials.clone(), transport);
            assert_eq!(next(&mut deliveries).await.payload.len(), 300 << 10);
        }
        let mut deliveries = client.deliveries(&*name, credentials, Transport::Wait);
        next(&mut deliveries).await.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_is_told_at_once() {
    let url = relay(Limits { queue_items_max: 2, ..Limits::default() });
    let client = client(&url);
    client.push("alice", "a").await.unwrap();
    client.push("alice", "b").await.unwrap();
    assert_eq!(client.push("alice", "c").await.unwrap_err().code(), "quota_exceeded");
}
