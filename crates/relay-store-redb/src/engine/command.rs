//! The requests that the threads of the store send to each other, and what a request costs.

use std::sync::Arc;

use relay_core::{
    Ack, AckOutcome, Envelope, ImportItem, Imported, PushOutcome, Recipient, Rejection, Seq, Swept,
};
use relay_journal::{Frame, Location};
use tokio::sync::oneshot;

use crate::engine::backlog::Permit;
use crate::engine::reply::Responder;
use crate::engine::snapshot::Snapshot;
use crate::error::StoreError;
use crate::format::record::FrontSum;
use crate::index::snapshot::IndexSnapshot;

/// The cost of an acked item: the number of payload bytes that take as long to write. Four thousand
/// items fill a batch.
const ACK_ITEM_COST_BYTES: u64 = 1024;

/// How many items an ack of all items up to one counts as: those of a page.
const ACK_THROUGH_ITEMS: u64 = 256;

/// The cost of a push beside its payload: recipient, item id, rows, and the job itself.
const PUSH_COST_BYTES: u64 = 512;

/// How many items one request removes because they have expired before one in front of them: a
/// millisecond of the writer's time.
pub(crate) const SETTLE_ITEMS: usize = 256;

pub(crate) type Answer<T> = Result<T, StoreError>;

/// Response channel for infrequent requests.
pub(crate) type TaskResponder<T> = oneshot::Sender<Answer<T>>;

/// The writer's decision about a push.
pub(crate) struct Pushed {
    pub(crate) outcome: Result<PushOutcome, Rejection>,
    /// The push is a duplicate of the queued item with this seq. The caller must still compare the
    /// payloads, as that may read the disk.
    pub(crate) compare: Option<Seq>,
}

/// The writer's decisions about several pushes of one request.
pub(crate) type PushedList = Vec<Answer<Pushed>>;

/// A request to the writer.
pub(crate) enum Job {
    Push(Push),
    PushAll(PushAll),
    Ack(Ack, Responder<Answer<AckOutcome>>, Permit),
    /// Remove some items of this queue that have expired before one in front of them.
    Settle(u64, TaskResponder<Settled>),
    /// Remove the expired items of these queues. The answer is their number.
    Trim(Vec<Front>, Arc<IndexSnapshot>, TaskResponder<u64>),
    /// Copy the items of these records to the end of the journal, unless they were moved or
    /// removed.
    Move(Vec<Frame>, TaskResponder<()>),
    /// Store items that come from another store.
    Import(Vec<ImportItem>, TaskResponder<Imported>),
    /// Forward a task to the maintenance thread after all earlier jobs.
    Maintain(Task),
}

/// What the removal of items that have expired before one in front of them has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    /// How many expired items it has removed.
    pub(crate) expired: u64,
    /// Whether it has removed anything, rows of items that were gone already included.
    pub(crate) has_advanced: bool,
    /// Whether it has stopped before the last item that has expired.
    pub(crate) is_full: bool,
}

/// A push that the writer has not decided yet.
pub(crate) struct Push {
    pub(crate) envelope: Envelope,
    pub(crate) responder: Responder<Answer<Pushed>>,
    pub(crate) permit: Permit,
    pub(crate) prepared: Prepared,
}

/// The pushes of one request that the writer has not decided yet.
pub(crate) struct PushAll {
    pub(crate) items: Vec<PushItem>,
    pub(crate) responder: Responder<Answer<PushedList>>,
    pub(crate) permit: Permit,
}

/// One of several pushes.
pub(crate) struct PushItem {
    pub(crate) envelope: Envelope,
    /// An error fails this item alone.
    pub(crate) prepared: Answer<Prepared>,
}

/// A request to the maintenance thread.
pub(crate) enum Task {
    /// Write a checkpoint: one is due.
    Checkpoint,
    /// Reopen the index, which has failed.
    Heal,
    /// Remove expired items and expired dedup entries, and reclaim their space.
    Sweep(TaskResponder<Swept>),
    /// Take a snapshot of the store.
    Snapshot(TaskResponder<Snapshot>),
    /// Reclaim all free space, at any cost.
    Compact(TaskResponder<()>),
}

/// What the blob writer has done for a push.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Prepared {
    #[default]
    Nothing,
    /// The payload is synced at this location.
    Written(Location),
    /// The push is a duplicate of the queued item with this seq. The flag says whether the payloads
    /// are equal; the payload of an item never changes.
    Compared(Seq, bool),
}

/// A queue with expired items at its front.
pub(crate) struct Front {
    pub(crate) queue: u64,
    /// The expired items, if they have rows of their own. The writer finds inline items in the row
    /// of the queue.
    pub(crate) walked: Option<Walked>,
}

/// Expired items at the front of a queue.
pub(crate) struct Walked {
    /// Where the walk began.
    pub(crate) from: Seq,
    /// The seq of the last expired item.
    pub(crate) through: Seq,
    pub(crate) sum: FrontSum,
}

impl PushItem {
    fn cost_bytes(&self) -> u64 {
        self.prepared.as_ref().map_or(PUSH_COST_BYTES, |prepared| prepared.cost_bytes(&self.envelope))
    }
}

impl Prepared {
    /// The cost of a push of which this is done.
    fn cost_bytes(self, envelope: &Envelope) -> u64 {
        match self {
            Self::Nothing => push_cost_bytes(envelope),
            Self::Written(_) | Self::Compared(..) => PUSH_COST_BYTES,
        }
    }
}

impl Job {
    /// How many pushes, acks or imports of clients or operators it has.
    pub(super) const fn requests(&self) -> usize {
        match self {
            Self::PushAll(all) => all.items.len(),
            Self::Push(_) | Self::Ack(..) | Self::Import(..) => 1,
            Self::Move(..) | Self::Settle(..) | Self::Trim(..) | Self::Maintain(_) => 0,
        }
    }

    /// The queues whose contents it has to count.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        let (one, pushes, imports) = match self {
            Self::Push(push) => (Some(&push.envelope.recipient), [].as_slice(), [].as_slice()),
            Self::Ack(ack, ..) => (Some(ack.recipient()), [].as_slice(), [].as_slice()),
            Self::PushAll(all) => (None, all.items.as_slice(), [].as_slice()),
            Self::Import(items, _) => (None, [].as_slice(), items.as_slice()),
            Self::Settle(..) | Self::Trim(..) | Self::Move(..) | Self::Maintain(_) => {
                (None, [].as_slice(), [].as_slice())
            }
        };
        let pushes = pushes.iter().map(|item| &item.envelope.recipient);
        one.into_iter().chain(pushes).chain(imports.iter().map(|item| &item.envelope.recipient))
    }

    /// What is prepared of its pushes.
    pub(super) fn prepared(&self) -> impl Iterator<Item = Prepared> {
        let (one, all) = match self {
            Self::Push(push) => (Some(push.prepared), [].as_slice()),
            Self::PushAll(all) => (None, all.items.as_slice()),
            _ => (None, [].as_slice()),
        };
        one.into_iter().chain(all.iter().filter_map(|item| item.prepared.as_ref().ok().copied()))
    }

    pub(super) fn cost_bytes(&self) -> u64 {
        match self {
            Self::Push(push) => push.prepared.cost_bytes(&push.envelope),
            Self::PushAll(all) => all.items.iter().map(PushItem::cost_bytes).sum(),
            Self::Ack(ack, ..) => ack_cost_bytes(ack),
            Self::Settle(..) => SETTLE_ITEMS as u64 * ACK_ITEM_COST_BYTES,
            Self::Trim(fronts, ..) => (fronts.len() as u64).saturating_mul(PUSH_COST_BYTES),
            Self::Maintain(_) => 0,
            Self::Move(frames, _) => frames.iter().map(|frame| frame.body.len() as u64).sum(),
            Self::Import(items, _) => items.iter().map(|item| push_cost_bytes(&item.envelope)).sum(),
        }
    }

    /// Answers with an error.
    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Self::Push(push) => push.responder.fail(error),
            Self::PushAll(all) => all.responder.fail(error),
            Self::Ack(_, responder, _) => responder.fail(error),
            Self::Settle(_, responder) => respond(responder, Err(error.clone())),
            Self::Trim(_, _, responder) => respond(responder, Err(error.clone())),
            Self::Move(_, responder) => respond(responder, Err(error.clone())),
            Self::Import(_, responder) => respond(responder, Err(error.clone())),
            // Dropping the task drops its responder, which notifies the caller.
            Self::Maintain(_) => {}
        }
    }
}

impl<T: Send + 'static> Responder<Answer<T>> {
    /// Answers with an error, and wakes the caller at once.
    pub(super) fn fail(self, error: &StoreError) {
        if let Some(waiting) = self.answer(Err(error.clone())) {
            waiting.waker.wake();
        }
    }
}

/// Answers an infrequent request. A caller that has gone away needs no answer.
pub(super) fn respond<T>(responder: TaskResponder<T>, answer: Answer<T>) {
    drop(responder.send(answer));
}

pub(crate) fn push_cost_bytes(envelope: &Envelope) -> u64 {
    envelope.payload_bytes().saturating_add(PUSH_COST_BYTES)
}

pub(crate) fn ack_cost_bytes(ack: &Ack) -> u64 {
    let through = if ack.through().is_some() { ACK_THROUGH_ITEMS } else { 0 };
    (ack.items().len() as u64).saturating_add(through).saturating_mul(ACK_ITEM_COST_BYTES)
}
