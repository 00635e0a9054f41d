//! A request on its way to the database, and the promise to answer it.

use std::sync::Arc;
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, Envelope, Error, ImportItem, ImportOutcome, ItemId, Limits, PushOutcome, Recipient,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

/// When a refused caller may try again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A payload of this size goes over a lane of its own.
pub(crate) const LARGE_BYTES: usize = 256 * 1024;

/// A request that waits for a lane, or that a lane works on.
pub(crate) struct Job {
    pub(crate) queue: Uuid,
    /// Tells the attempts of this request from other requests.
    pub(crate) ticket: i64,
    pub(crate) task: Task,
    /// Those that were in force when the request came.
    pub(crate) limits: Arc<Limits>,
    /// Whether an earlier attempt may have taken effect.
    pub(crate) is_repeated: bool,
    /// When its caller is told that the outcome is unknown.
    pub(crate) due: Instant,
    /// What it takes of the backlog.
    pub(crate) _permits: [OwnedSemaphorePermit; 2],
}

/// What a job does, and where its outcome goes.
pub(crate) enum Task {
    Push(Envelope, Reply<PushOutcome>),
    Ack(Ack, Reply<AckOutcome>),
    Import(ImportItem, Reply<ImportOutcome>),
}

/// Answers a caller once. The caller may be gone.
pub(crate) struct Reply<T>(Option<oneshot::Sender<Result<T, Error>>>);

/// What became of a request.
pub(crate) enum Outcome {
    Push(Result<PushOutcome, Error>),
    Ack(Result<AckOutcome, Error>),
    Import(Result<ImportOutcome, Error>),
}

impl<T> Reply<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    const fn is_sent(&self) -> bool {
        self.0.is_none()
    }

    fn send(&mut self, outcome: Result<T, Error>) {
        if let Some(sender) = self.0.take() {
            drop(sender.send(outcome));
        }
    }
}

impl Job {
    pub(crate) const fn recipient(&self) -> &Recipient {
        match &self.task {
            Task::Push(envelope, _) => &envelope.recipient,
            Task::Ack(ack, _) => ack.recipient(),
            Task::Import(item, _) => &item.envelope.recipient,
        }
    }

    /// The item that it brings, if it brings one.
    const fn envelope(&self) -> Option<&Envelope> {
        match &self.task {
            Task::Push(envelope, _) => Some(envelope),
            Task::Import(item, _) => Some(&item.envelope),
            Task::Ack(..) => None,
        }
    }

    /// Whether it may create a queue.
    pub(crate) const fn brings_item(&self) -> bool {
        self.envelope().is_some()
    }

    /// The ids of the items that it is about.
    pub(crate) fn item_ids(&self) -> Vec<ItemId> {
        match &self.task {
            Task::Ack(ack, _) => ack.items().to_vec(),
            Task::Push(..) | Task::Import(..) => self.envelope().map(Envelope::id).into_iter().collect(),
        }
    }

    /// The length of the payload that it brings; -1 for an ack.
    pub(crate) fn payload_bytes(&self) -> i64 {
        self.envelope().map_or(-1, |envelope| i64::try_from(envelope.payload.len()).unwrap_or(i64::MAX))
    }

    /// Its share of what one transaction may have.
    pub(crate) fn weight(&self) -> Weight {
        match &self.task {
            Task::Ack(ack, _) => Weight { items: ack.items().len(), bytes: 0 },
            Task::Push(envelope, _) | Task::Import(ImportItem { envelope, .. }, _) => {
                Weight { items: 1, bytes: envelope.payload.len() }
            }
        }
    }

    /// Whether it must be alone in its transaction: its statements are about a whole queue.
    pub(crate) const fn is_alone(&self) -> bool {
        matches!(&self.task, Task::Ack(ack, _) if ack.through().is_some())
    }

    /// Whether its caller has an answer, so that it must not begin again.
    pub(crate) const fn is_answered(&self) -> bool {
        match &self.task {
            Task::Push(_, reply) => reply.is_sent(),
            Task::Ack(_, reply) => reply.is_sent(),
            Task::Import(_, reply) => reply.is_sent(),
        }
    }

    pub(crate) fn answer(&mut self, outcome: Outcome) {
        match (&mut self.task, outcome) {
            (Task::Push(_, reply), Outcome::Push(outcome)) => reply.send(outcome),
            (Task::Ack(_, reply), Outcome::Ack(outcome)) => reply.send(outcome),
            (Task::Import(_, reply), Outcome::Import(outcome)) => reply.send(outcome),
            // Each outcome is made for its own task.
            (Task::Push(..) | Task::Ack(..) | Task::Import(..), _) => {}
        }
    }

    pub(crate) fn fail(&mut self, error: Error) {
        match &mut self.task {
            Task::Push(_, reply) => reply.send(Err(error)),
            Task::Ack(_, reply) => reply.send(Err(error)),
            Task::Import(_, reply) => reply.send(Err(error)),
        }
    }
}

/// What one transaction has to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl Weight {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }
}
