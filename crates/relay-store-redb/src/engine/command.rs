//! What the threads of the store ask of each other.

use std::sync::Arc;

use relay_core::{Ack, AckOutcome, Envelope, ImportItem, PushOutcome, Rejection, Seq, Swept};
use relay_journal::{Frame, Location};
use tokio::sync::oneshot;

use crate::engine::backlog::Permit;
use crate::engine::imported::Imported;
use crate::engine::reply::Responder;
use crate::engine::snapshot::Snapshot;
use crate::error::StoreError;
use crate::format::record::FrontSum;
use crate::index::snapshot::IndexSnapshot;

pub(crate) type Answer<T> = Result<T, StoreError>;

/// Whom to tell of what is asked for now and then, once it is known.
pub(crate) type TaskResponder<T> = oneshot::Sender<Answer<T>>;

/// What became of a push.
pub(crate) struct Pushed {
    /// It may be refused, which is no failure.
    pub(crate) outcome: Result<PushOutcome, Rejection>,
    /// It is known, and whether the item with this number has the same payload is still to be found
    /// out: that may take the disk.
    pub(crate) compare: Option<Seq>,
}

/// What a caller wants written.
pub(crate) enum Job {
    Push(Push),
    Ack(Ack, Responder<Answer<AckOutcome>>, Permit),
    /// Take what has expired out of these queues, and tell how many items that were.
    Trim(Vec<Front>, Arc<IndexSnapshot>, TaskResponder<u64>),
    /// Copy the items of these records to the end of the journal, as far as they still lie there.
    Move(Vec<Frame>, TaskResponder<()>),
    /// Items of another store.
    Import(Vec<ImportItem>, TaskResponder<Imported>),
    /// For the maintenance thread, once all before it is decided.
    Keep(Task),
}

/// A push on its way.
pub(crate) struct Push {
    pub(crate) envelope: Envelope,
    pub(crate) caller: Responder<Answer<Pushed>>,
    pub(crate) permit: Permit,
    pub(crate) ahead: Prepared,
}

/// What the maintenance thread is asked for.
pub(crate) enum Task {
    /// Much has piled up in memory.
    Checkpoint,
    /// The index has failed, and who met that could not wait.
    Heal,
    /// Take out what has expired, forget acked names whose time is over, and give back what that
    /// makes free.
    Sweep(TaskResponder<Swept>),
    /// Show the store as it is now, for as long as the snapshot is kept.
    Snapshot(TaskResponder<Snapshot>),
    /// Give back all that can be given back, whatever it costs.
    Compact(TaskResponder<()>),
}

/// What was done for a push before it reached the writer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Prepared {
    #[default]
    Nothing,
    /// Its payload lies there, synced.
    Written(Location),
    /// It is known already. Whether the item with this number, whose payload never changes, has the
    /// same payload.
    Compared(Seq, bool),
}

/// A queue of which something has expired.
pub(crate) struct Front {
    pub(crate) queue: u64,
    /// What that is, if its items have rows of their own. Otherwise they are in the row of the
    /// queue, for the writer to see.
    pub(crate) walked: Option<Walked>,
}

/// Items at the front of a queue that have expired.
pub(crate) struct Walked {
    /// Where the walk began.
    pub(crate) from: Seq,
    /// The last one.
    pub(crate) through: Seq,
    pub(crate) sum: FrontSum,
}
