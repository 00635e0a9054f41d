//! What the tests share: a server, a client that speaks HTTP by hand, and relays that do as they
//! are told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use relay_core::testing::ManualClock;
use relay_core::{
    Ack, AckOutcome, Envelope, Error, Limits, MemoryRelay, Page, Pull, PushOutcome, Relay, Swept, Usage,
};
use relay_http::{AllowedHosts, CursorKey, Metrics, Options, Readiness, Transport, serve};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use crate::contract;

pub(crate) const MESSAGE_ID: &str = "6f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11";

/// No test waits longer for anything: then something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is to come comes sooner.
const MOMENT: Duration = Duration::from_millis(300);

/// A running server. It ends when it is told to, or with the process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    done: mpsc::Receiver<std::io::Result<()>>,
}

/// A connection on which HTTP/1.1 is spoken by hand.
pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A relay that answers everything with what this function says.
pub(crate) struct Stub<F>(pub(crate) F);

/// A relay that holds every push until it is let go.
pub(crate) struct Gate {
    inner: MemoryRelay,
    arrived: mpsc::Sender<()>,
    pub(crate) let_go: Arc<Semaphore>,
}

pub(crate) fn options() -> Options {
    Options {
        message_bytes_max: Limits::default().message_bytes_max,
        inflight_bytes_max: 256 * 1024 * 1024,
        connections_max: NonZeroUsize::new(10_000).unwrap(),
        connections_per_address_max: NonZeroUsize::new(10_000).unwrap(),
        connection_age_max: Duration::from_secs(3600),
        request_timeout: PATIENCE,
        keep_alive: PATIENCE,
        drain: PATIENCE,
        rate_limit: None,
        public_stats: true,
        cursor_key: CursorKey::new(&[7; 32]),
        readiness: Readiness::always(),
        allowed_hosts: AllowedHosts::any(),
        allowed_origins: Vec::new(),
    }
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
        let metrics = Arc::new(Metrics::new());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // Who is never told serves on.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let serving = serve(listener, relay, options, transport, Arc::clone(&metrics), shutdown).unwrap();
        let (end, done) = mpsc::channel();
        std::thread::spawn(move || end.send(runtime.block_on(serving)));
        Self { address, metrics, stop: Some(stop), done }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.connect().post(path, &body.to_string())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let answer = self.connect().ask(&format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n"));
        contract::check("GET", path, &answer);
        answer
    }

    pub(crate) fn shut_down(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn wait(&self) {
        self.wait_within(PATIENCE);
    }

    /// Waits for the end, which has to come sooner than this.
    pub(crate) fn wait_within(&self, limit: Duration) {
        self.done.recv_timeout(limit).expect("the end comes in time").unwrap();
    }

    /// Waits until so many pulls have begun.
    pub(crate) fn wait_for_pulls(&self, count: u64) {
        while self.metrics.counts().pull_total < count {
            std::thread::yield_now();
        }
    }
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what the other side may stop reading at any time.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer()
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        self.post_with(path, "content-type: application/json\r\n", body.as_bytes())
    }

    pub(crate) fn post_with(&mut self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.send(post_head(path, headers, body.len()));
        self.send(body);
        let answer = self.answer();
        contract::check("POST", path, &answer);
        answer
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let length = match header(&head, "content-length") {
            Some(length) => length.parse().unwrap(),
            None => {
                assert_eq!(status(&head), 204, "every answer with a body tells its length");
                0
            }
        };
        while self.read.len() < length {
            assert!(self.fill(), "the answer is cut off");
        }
        let body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        Answer { status: status(&head), head, body }
    }

    /// The next answer, or `None` when the other side is gone, however it went.
    pub(crate) fn answer_or_end(&mut self) -> Option<Answer> {
        while !self.read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            match self.try_fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    return None;
                }
            }
        }
        Some(self.answer())
    }

    /// The answer to a request, or `None` when the other side is gone, however it went.
    pub(crate) fn try_ask(&mut self, request: &str) -> Option<Answer> {
        self.try_send(request.as_bytes()).then(|| self.answer_or_end())?
    }

    /// Whether everything that has come was read.
    pub(crate) fn has_nothing_ahead(&self) -> bool {
        self.read.is_empty()
    }

    /// From now on waits no longer than this for anything.
    pub(crate) fn be_patient_for(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// Whether there is neither an answer nor an end yet. Waits for it as long as there is
    /// patience.
    pub(crate) fn has_nothing_yet(&mut self) -> bool {
        self.try_fill()
            .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// The answer to a HEAD, which has a length and no body.
    pub(crate) fn answer_without_body(&mut self) -> Answer {
        let head = self.head();
        Answer { status: status(&head), head, body: String::new() }
    }

    /// Asserts that nothing comes for a moment.
    pub(crate) fn assert_silent(&mut self) {
        self.stream.set_read_timeout(Some(MOMENT)).unwrap();
        let error = self.stream.read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    pub(crate) fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The same, when the other side may be gone already.
    pub(crate) fn try_finish_sending(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Asserts that the other side closes, cleanly, and sends nothing more.
    pub(crate) fn assert_closed(&mut self) {
        assert!(self.read.is_empty(), "{:?}", String::from_utf8_lossy(&self.read));
        assert!(!self.fill(), "{:?}", String::from_utf8_lossy(&self.read));
    }

    /// Asserts that the other side is gone, however it went, and has sent nothing more.
    pub(crate) fn assert_gone(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(len) => assert_eq!(len, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.fill(), "no answer, but {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads some more; false at the end.
    fn fill(&mut self) -> bool {
        self.try_fill().unwrap()
    }

    fn try_fill(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let len = self.stream.read(&mut buffer)?;
        self.read.extend_from_slice(&buffer[..len]);
        Ok(len > 0)
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Asserts that this is a whole error answer, and returns its details.
    pub(crate) fn assert_error(&self, status: u16, code: &str) -> Value {
        let json = self.json();
        let error = &json["error"];
        assert_eq!((self.status, &error["code"]), (status, &json!(code)), "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert_eq!(json.as_object().unwrap().len(), 1);
        contract::check_error(self);
        error["details"].clone()
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl<F> Relay for Stub<F>
where
    F: Fn(&'static str) -> Result<(), Error> + Send + Sync + 'static,
{
    async fn push(&self, _: Envelope) -> Result<PushOutcome, Error> {
        (self.0)("push")?;
        Ok(PushOutcome::Stored { usage: Usage::ZERO })
    }

    async fn pull(&self, _: Pull) -> Result<Page, Error> {
        (self.0)("pull")?;
        Ok(Page { items: Vec::new(), next: None, remaining: 0 })
    }

    async fn ack(&self, _: Ack) -> Result<AckOutcome, Error> {
        (self.0)("ack")?;
        Ok(AckOutcome::default())
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        Ok(Swept::default())
    }
}

impl Gate {
    /// A gate, and where it tells that a push has come.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<()>) {
        let (arrived, arrivals) = mpsc::channel();
        let inner = MemoryRelay::new(Limits::default(), Arc::new(ManualClock::new()));
        (Arc::new(Self { inner, arrived, let_go: Arc::new(Semaphore::new(0)) }), arrivals)
    }
}

impl Relay for Gate {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.arrived.send(()).unwrap();
        self.let_go.acquire().await.unwrap().forget();
        self.inner.push(envelope).await
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        self.inner.pull(pull).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        self.inner.ack(ack).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.inner.sweep().await
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

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}
