//! Relays that behave as a test prescribes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use relay_core::testing::ManualClock;
use relay_core::{
    Ack, AckOutcome, Chunk, Envelope, Error, Kind, Limits, MemoryRelay, MessageId, Operation, Page, Pull,
    PushOutcome, Recipient, Rejection, Relay, Swept, TooManyWaiters, Usage, Waiter,
};
use tokio::sync::Semaphore;

/// A relay whose operations call this function first and return its error.
pub(crate) struct Stub<F>(pub(crate) F);

/// A relay that holds every push until `let_go` has a permit.
pub(crate) struct Gate {
    inner: MemoryRelay,
    arrived: mpsc::Sender<()>,
    pub(crate) let_go: Arc<Semaphore>,
}

impl<F> Relay for Stub<F>
where
    F: Fn(&'static str) -> Result<(), Error> + Send + Sync + 'static,
{
    async fn push(&self, _: Envelope) -> Result<PushOutcome, Error> {
        (self.0)("push")?;
        Ok(PushOutcome::Stored { usage: Usage::ZERO, deadline: relay_core::Timestamp::default() })
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
    /// A gate, and a channel that receives a message for each push that arrives.
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

/// A relay with rules of its own, which it may change, and a store that may fail.
pub(crate) struct Strict {
    inner: MemoryRelay,
    pub(crate) is_open: AtomicBool,
    pub(crate) is_broken: AtomicBool,
}

impl Strict {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Arc::try_unwrap(super::memory(Limits::default())).unwrap();
        Arc::new(Self { inner, is_open: AtomicBool::new(true), is_broken: AtomicBool::new(false) })
    }
}

impl Relay for Strict {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.inner.push(envelope).await
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(Error::Storage("broken".into()));
        }
        self.inner.pull(pull).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        self.inner.ack(ack).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.inner.sweep().await
    }

    async fn permit(&self, operation: Operation, _: &Recipient, proof: Option<&[u8]>) -> Result<(), Error> {
        let may = operation == Operation::Push
            || (self.is_open.load(Ordering::SeqCst) && proof == Some(b"Basic b3Blbg=="));
        if may { Ok(()) } else { Err(Rejection::Unauthorized.into()) }
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        self.inner.waiter(recipient)
    }
}

/// An item with five bytes of payload.
pub(crate) fn envelope(recipient: &str, number: u32) -> Envelope {
    Envelope {
        recipient: Recipient::parse(recipient).unwrap(),
        message_id: MessageId::parse(super::MESSAGE_ID).unwrap(),
        chunk: Chunk::new(number, 1000).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 5,
        sent_ms: 7,
        ttl_ms: None,
        payload: "hello".into(),
    }
}
