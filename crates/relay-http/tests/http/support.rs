//! Shared helpers: a server, a client that speaks HTTP by hand, and relays that behave as
//! prescribed.

pub(crate) mod cbor;
mod client;
mod events;
mod relays;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay, Relay};
use relay_http::{Listener, Metrics, Options, Transport, serve};
use serde_json::{Value, json};
use tokio::sync::oneshot;

pub(crate) use self::client::{Client, Response};
pub(crate) use self::events::{Events, PATIENCE};
pub(crate) use self::relays::{Gate, Strict, Stub, envelope};
use crate::contract;
pub(crate) use relay_http::testing::options;

pub(crate) const MESSAGE_ID: &str = "6f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11";

/// No test waits longer for anything.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running server. It ends on `shut_down`, or with the process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    done: mpsc::Receiver<std::io::Result<()>>,
}

pub(crate) fn memory(limits: Limits) -> Arc<MemoryRelay> {
    Arc::new(MemoryRelay::new(limits, Arc::new(ManualClock::new())))
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(memory(Limits::default()), options())
    }

    pub(crate) fn with(relay: Arc<impl Relay>, options: Options) -> Self {
        Self::over(Transport::Plain, relay, options)
    }

    pub(crate) fn over(transport: Transport, relay: Arc<impl Relay>, options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self::on(runtime, transport, relay, options)
    }

    pub(crate) fn on(
        runtime: tokio::runtime::Runtime,
        transport: Transport,
        relay: Arc<impl Relay>,
        options: Options,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Self::listening(runtime, address, vec![Listener::new(listener, transport)], relay, options)
    }

    /// On several listeners, of which one has this address.
    pub(crate) fn listening(
        runtime: tokio::runtime::Runtime,
        address: SocketAddr,
        listeners: Vec<Listener>,
        relay: Arc<impl Relay>,
        options: Options,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // A server that is never shut down keeps serving.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let serving = serve(listeners, relay, options, Arc::clone(&metrics), shutdown).unwrap();
        let (end, done) = mpsc::channel();
        std::thread::spawn(move || end.send(runtime.block_on(serving)));
        Self { address, metrics, stop: Some(stop), done }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// Sends one request on a new connection.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.connect().post(path, &body.to_string())
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        let response = self.connect().ask(&format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n"));
        contract::check("GET", path, &response);
        response
    }

    pub(crate) fn shut_down(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn wait(&self) {
        self.wait_within(TIMEOUT);
    }

    /// Waits for the end of the server, for at most `limit`.
    pub(crate) fn wait_within(&self, limit: Duration) {
        self.done.recv_timeout(limit).expect("the server does not end in time").unwrap();
    }

    /// Waits until `count` pulls have begun.
    pub(crate) fn wait_for_pulls(&self, count: u64) {
        while self.metrics.counts().pull_total < count {
            std::thread::yield_now();
        }
    }
}

/// A push of one chunk; `payload` is base64.
pub(crate) fn push_of(recipient: &str, chunk_index: u32, payload: &str) -> Value {
    json!({
        "recipient": recipient,
        "message_id": MESSAGE_ID,
        "ciphertext_b64": payload,
        "meta": {"kind": "opaque", "total_len": 5, "chunk_index": chunk_index, "chunk_count": 1000, "sent_ms": 7},
    })
}

pub(crate) fn post_head(path: &str, headers: &str, body_bytes: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: relay\r\n{headers}content-length: {body_bytes}\r\n\r\n")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
