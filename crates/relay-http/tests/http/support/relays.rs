//! Relays that behave as a test prescribes.

use std::sync::Arc;
use std::sync::mpsc;

use relay_core::testing::ManualClock;
use relay_core::{
    Ack, AckOutcome, Envelope, Error, Limits, MemoryRelay, Page, Pull, PushOutcome, Relay, Swept, Usage,
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
