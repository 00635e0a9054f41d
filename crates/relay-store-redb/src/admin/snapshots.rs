//! How an operator's request for a snapshot or a compaction reaches the maintenance thread.

use tokio::sync::{mpsc, oneshot};

use crate::RedbRelay;
use crate::engine::command::{Job, Task};
use crate::engine::snapshot::Snapshot;
use crate::error::StoreError;

/// Asks a store for snapshots, and does not keep it from being closed.
#[derive(Clone, Debug)]
pub struct Snapshots {
    mailbox: mpsc::WeakSender<Job>,
}

impl RedbRelay {
    /// A way to snapshots of this store.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { mailbox: self.mailbox.as_ref().map(mpsc::Sender::downgrade).unwrap_or_else(closed) }
    }

    /// Gives back all that can be given back, however little: empties sparse segments and writes
    /// the index anew. It takes long; requests go on meanwhile.
    ///
    /// # Errors
    /// The store's; it is as good as before.
    pub async fn compact(&self) -> Result<(), StoreError> {
        let (caller, answer) = oneshot::channel();
        let mailbox = self.mailbox.clone().ok_or(StoreError::WriterEnded)?;
        ask(mailbox, Task::Compact(caller)).await?;
        answer.await.map_err(|_| StoreError::WriterEnded)?
    }
}

/// A mailbox that nobody looks into.
fn closed() -> mpsc::WeakSender<Job> {
    mpsc::channel(1).0.downgrade()
}

impl Snapshots {
    /// The store as it is now: with all that was answered by now, and perhaps some of what comes
    /// next.
    ///
    /// # Errors
    /// When the store is closed, or its index cannot be written.
    pub async fn take(&self) -> Result<Snapshot, StoreError> {
        let (caller, answer) = oneshot::channel();
        let mailbox = self.mailbox.upgrade().ok_or(StoreError::WriterEnded)?;
        ask(mailbox, Task::Snapshot(caller)).await?;
        answer.await.map_err(|_| StoreError::WriterEnded)?
    }
}

async fn ask(mailbox: mpsc::Sender<Job>, task: Task) -> Result<(), StoreError> {
    mailbox.send(Job::Keep(task)).await.map_err(|_| StoreError::WriterEnded)
}
