//! Sends requests for a snapshot or a compaction to the maintenance thread.

use tokio::sync::{mpsc, oneshot};

use crate::RedbRelay;
use crate::engine::command::{Job, Task, TaskResponder};
use crate::engine::snapshot::Snapshot;
use crate::error::StoreError;

/// Takes snapshots of a store. It does not keep the store open.
#[derive(Clone, Debug)]
pub struct Snapshots {
    mailbox: mpsc::WeakSender<Job>,
}

impl RedbRelay {
    /// A handle that takes snapshots of this store.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        let closed = || mpsc::channel(1).0.downgrade();
        Snapshots { mailbox: self.mailbox.as_ref().map_or_else(closed, mpsc::Sender::downgrade) }
    }

    /// Reclaims all space that can be reclaimed, whatever it costs: empties sparse segments and
    /// rewrites the index. This takes long; the store serves requests meanwhile.
    ///
    /// # Errors
    /// The store's; it is as good as before.
    pub async fn compact(&self) -> Result<(), StoreError> {
        run(self.mailbox.clone(), Task::Compact).await
    }
}

impl Snapshots {
    /// Takes a snapshot of the store. It contains every push and ack that was answered before the
    /// call, and perhaps some later ones.
    ///
    /// # Errors
    /// When the store is closed, or its index cannot be written.
    pub async fn take(&self) -> Result<Snapshot, StoreError> {
        run(self.mailbox.upgrade(), Task::Snapshot).await
    }
}

/// Runs a task on the maintenance thread. It goes through the writer's mailbox, so that the writer
/// decides all earlier requests first.
async fn run<T>(
    mailbox: Option<mpsc::Sender<Job>>,
    task: impl FnOnce(TaskResponder<T>) -> Task,
) -> Result<T, StoreError> {
    let mailbox = mailbox.ok_or(StoreError::WriterEnded)?;
    let (caller, response) = oneshot::channel();
    mailbox.send(Job::Maintain(task(caller))).await.map_err(|_| StoreError::WriterEnded)?;
    // The store can be closed while the task runs.
    drop(mailbox);
    response.await.map_err(|_| StoreError::WriterEnded)?
}
