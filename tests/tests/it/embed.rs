//! Tests of the relay inside another program: `start` and `start_with_store` on both kinds of
//! runtime, and every way to end.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use relay_bin::config::{RelayConfig, StorageKind};
use relay_bin::{RelayError, RunningRelay, start, start_with_store};
use relay_core::testing::ManualClock;
use relay_core::{
    Ack, AckOutcome, Envelope, Error, Limits, MemoryRelay, Operation, Page, Pull, PushOutcome, Recipient,
    Rejection, Relay, Swept,
};
use relay_tests::{Client, Response, ack_body, eventually, pull_body, push_body};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// How long a test checks that something does not happen.
const OBSERVATION_TIME: Duration = Duration::from_millis(300);

fn in_memory() -> RelayConfig {
    let mut config = RelayConfig::default();
    config.storage.kind = StorageKind::Memory;
    config.rate_limit.enabled = false;
    config
}

fn on_disk(store: &Path) -> RelayConfig {
    let mut config = RelayConfig::default();
    store.clone_into(&mut config.storage.path);
    config.rate_limit.enabled = false;
    config
}

/// Runs a test on a single-threaded runtime, which runs on the test's thread, and on a
/// multi-threaded one.
fn on_both_runtimes<F: Future<Output = ()>>(test: impl Fn() -> F) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    Runtime::new().unwrap().block_on(test());
}

/// Runs a blocking closure outside of the runtime.
async fn run_blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

async fn post(base_url: &str, path: &'static str, body: Value) -> Response {
    let base_url = base_url.to_owned();
    run_blocking(move || Client::connect(&base_url).unwrap().post(path, &body).unwrap()).await
}

async fn push(base_url: &str, message: u128) -> Value {
    post(base_url, "/push", push_body("alice", message, b"hello")).await.json()
}

async fn pull(base_url: &str) -> Value {
    post(base_url, "/pull", pull_body("alice", None, None)).await.json()
}

async fn stop(running: RunningRelay) {
    running.shutdown.send(()).unwrap();
    running.handle.await.unwrap().unwrap();
}

fn accepts_connections(base_url: &str) -> bool {
    Client::connect(base_url).is_ok()
}

#[test]
fn a_relay_serves_and_stops_on_either_runtime() {
    on_both_runtimes(|| async {
        let directory = tempfile::tempdir().unwrap();
        for config in [in_memory(), on_disk(&directory.path().join("store"))] {
            let running = start(config).await.unwrap();
            let base_url = running.base_url.clone();
            assert_eq!(push(&base_url, 1).await["stored"], true);
            assert_eq!(pull(&base_url).await["items"][0]["recipient"], "alice");
            assert_eq!(post(&base_url, "/ack", ack_body("alice", &[1])).await.json()["deleted"], 1);
            stop(running).await;
            assert!(!accepts_connections(&base_url));
        }
    });
}

#[test]
fn the_base_url_has_the_port_that_the_system_chose() {
    on_both_runtimes(|| async {
        let running = start(RelayConfig { address: "localhost:0".to_owned(), ..in_memory() }).await.unwrap();
        let (_, port) = running.base_url.strip_prefix("http://").unwrap().rsplit_once(':').unwrap();
        assert_ne!(port.parse::<u16>().unwrap(), 0);
        assert!(accepts_connections(&running.base_url), "the relay listens already");
        stop(running).await;
    });
}

#[test]
fn a_provided_store_keeps_its_own_clock_and_limits() {
    on_both_runtimes(|| async {
        let clock = Arc::new(ManualClock::new());
        let limits = Limits { ttl_ms: 5000, queue_items_max: 1, ..Limits::default() };
        let store = MemoryRelay::new(limits, Arc::clone(&clock) as _);
        let running = start_with_store(store, in_memory()).await.unwrap();
        assert_eq!(push(&running.base_url, 1).await["stored"], true);
        assert_eq!(push(&running.base_url, 2).await["error"]["details"]["limit"], 1);
        let item = pull(&running.base_url).await["items"][0].take();
        let start_ms = ManualClock::START.as_ms();
        assert_eq!(
            (&item["arrival_ms"], &item["deadline_ms"]),
            (&start_ms.into(), &(start_ms + 5000).into())
        );
        clock.advance_ms(5000);
        assert_eq!(pull(&running.base_url).await["items"], Value::Array(Vec::new()));
        stop(running).await;
    });
}

#[test]
fn dropping_the_shutdown_sender_does_not_stop_the_relay() {
    on_both_runtimes(|| async {
        let RunningRelay { base_url, shutdown, mut handle } = start(in_memory()).await.unwrap();
        drop(shutdown);
        assert!(timeout(OBSERVATION_TIME, &mut handle).await.is_err(), "the relay ended");
        assert_eq!(push(&base_url, 1).await["stored"], true);
    });
}

#[test]
fn the_store_is_free_as_soon_as_the_handle_resolves() {
    on_both_runtimes(|| async {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        for message in 0..5_u64 {
            let running = start(on_disk(&store)).await.unwrap();
            assert_eq!(push(&running.base_url, message.into()).await["queue_len"], message + 1);
            stop(running).await;
        }
    });
}

#[test]
fn an_address_in_use_is_an_error() {
    on_both_runtimes(|| async {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let directory = tempfile::tempdir().unwrap();
        let config = on_disk(&directory.path().join("store"));
        let error = start(RelayConfig { address: address.clone(), ..config.clone() }).await.unwrap_err();
        assert!(matches!(&error, RelayError::Listen { address: named, .. } if *named == address), "{error}");
        assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
        // The store that the failed start opened is free again.
        stop(start(config).await.unwrap()).await;
    });
}

#[test]
fn a_store_in_use_is_an_error() {
    on_both_runtimes(|| async {
        let directory = tempfile::tempdir().unwrap();
        let config = on_disk(&directory.path().join("store"));
        let running = start(config.clone()).await.unwrap();
        let error = start(config).await.unwrap_err();
        assert!(matches!(error, RelayError::Store(_)), "{error}");
        assert!(error.to_string().contains("in use"), "{error}");
        stop(running).await;
    });
}

#[test]
fn every_configuration_error_is_listed() {
    on_both_runtimes(|| async {
        let mut config = RelayConfig { address: "nowhere".to_owned(), ..in_memory() };
        config.relay.pull_batch_max = 0;
        config.rate_limit.ipv6_prefix = 0;
        let with_store = start_with_store(memory_relay(), config.clone()).await.unwrap_err();
        for error in [start(config).await.unwrap_err(), with_store] {
            let RelayError::Config(errors) = error else { panic!("{error}") };
            let keys: Vec<_> =
                errors.problems().iter().filter_map(|problem| problem.key.as_deref()).collect();
            assert_eq!(keys, ["address", "relay.pull_batch_max", "rate_limit.ipv6_prefix"]);
        }
    });
}

fn memory_relay() -> MemoryRelay {
    MemoryRelay::new(Limits::default(), Arc::new(ManualClock::new()))
}

#[test]
fn several_relays_share_a_process() {
    on_both_runtimes(|| async {
        let directory = tempfile::tempdir().unwrap();
        let stores = ["a", "b"].map(|name| directory.path().join(name));
        let first = start(on_disk(&stores[0])).await.unwrap();
        let second = start(on_disk(&stores[1])).await.unwrap();
        let third = start(in_memory()).await.unwrap();
        for (number, relay) in [&first, &second, &third].into_iter().enumerate() {
            for message in 0..=number {
                assert_eq!(push(&relay.base_url, message as u128).await["queue_len"], message + 1);
            }
        }
        stop(first).await;
        assert_eq!(pull(&second.base_url).await["items"].as_array().unwrap().len(), 2);
        stop(second).await;
        assert_eq!(pull(&third.base_url).await["items"].as_array().unwrap().len(), 3);
        stop(third).await;
    });
}

#[test]
fn an_aborted_relay_frees_its_port_and_store() {
    on_both_runtimes(|| async {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let running = start(on_disk(&store)).await.unwrap();
        running.handle.abort();
        assert!(running.handle.await.unwrap_err().is_cancelled());
        assert_port_and_store_are_free(running.base_url, store).await;
    });
}

/// Asserts that connections are soon refused, and that the store can be opened again.
async fn assert_port_and_store_are_free(base_url: String, store: std::path::PathBuf) {
    let refused = run_blocking(move || eventually(|| (!accepts_connections(&base_url)).then_some(()))).await;
    assert!(refused.is_some(), "the relay still listens");
    for attempt in 0.. {
        match start(on_disk(&store)).await {
            Ok(running) => return stop(running).await,
            Err(error) => assert!(attempt < 1000, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_relay_ends_with_its_runtime() {
    let runtimes = [Builder::new_current_thread(), Builder::new_multi_thread()];
    for runtime in runtimes.map(|mut builder| builder.enable_all().build().unwrap()) {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let (base_url, mut idle, mut busy) = runtime.block_on(async {
            let base_url = start(on_disk(&store)).await.unwrap().base_url;
            let url = base_url.clone();
            let (idle, busy) = run_blocking(move || (idle_connection(&url), busy_connection(&url))).await;
            (base_url, idle, busy)
        });
        drop(runtime);
        Runtime::new().unwrap().block_on(assert_port_and_store_are_free(base_url, store));
        assert!(idle.is_closed().unwrap_or(true));
        assert!(busy.is_closed().unwrap_or(true));
    }
}

/// An idle connection after a request.
fn idle_connection(base_url: &str) -> Client {
    let mut client = Client::connect(base_url).unwrap();
    assert_eq!(client.get("/health").unwrap().status, 200);
    client
}

/// A connection in the middle of a request: the relay waits for the body.
fn busy_connection(base_url: &str) -> Client {
    let mut client = Client::connect(base_url).unwrap();
    let head = "POST /push HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    client.send(head.as_bytes()).unwrap();
    assert_eq!(client.receive_any().unwrap().status, 100);
    client
}

/// A relay with accounts: the password of a user is its name twice.
struct Accounts(MemoryRelay);

impl Relay for Accounts {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.0.push(envelope).await
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        self.0.pull(pull).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        self.0.ack(ack).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.0.sweep().await
    }

    async fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        authorization: Option<&[u8]>,
    ) -> Result<(), Error> {
        let password = format!("Bearer {0}{0}", recipient.as_str());
        match authorization {
            _ if operation == Operation::Push => Ok(()),
            None => Err(Rejection::Unauthorized.into()),
            Some(given) if given == password.as_bytes() => Ok(()),
            Some(_) => Err(Rejection::Forbidden.into()),
        }
    }
}

#[test]
fn a_store_of_the_caller_sees_the_proof_of_each_request() {
    on_both_runtimes(|| async {
        let store = Accounts(MemoryRelay::new(Limits::default(), Arc::new(ManualClock::new())));
        let running = start_with_store(store, in_memory()).await.unwrap();
        let base_url = running.base_url.clone();
        run_blocking(move || {
            let mut client = Client::connect(&base_url).unwrap();
            assert_eq!(client.post("/push", &push_body("alice", 1, b"hello")).unwrap().status, 200);
            for (path, body) in [("/pull", pull_body("alice", None, None)), ("/ack", ack_body("alice", &[1]))]
            {
                let mut ask = |proofs: &[&str]| {
                    let mut headers = vec![("content-type", "application/json")];
                    headers.extend(proofs.iter().map(|proof| ("authorization", *proof)));
                    client.post_bytes(path, &headers, body.to_string().as_bytes()).unwrap()
                };
                let unauthorized = ask(&[]);
                assert_eq!((unauthorized.status, &*unauthorized.code()), (401, "unauthorized"));
                assert_eq!(unauthorized.header("www-authenticate"), Some("Bearer"));
                assert_eq!(ask(&["Bearer bobbob"]).status, 403);
                assert_eq!(ask(&["Bearer alicealice", "Bearer alicealice"]).status, 401, "two are none");
                assert_eq!(ask(&["Bearer alicealice"]).status, 200);
            }
        })
        .await;
        stop(running).await;
    });
}
