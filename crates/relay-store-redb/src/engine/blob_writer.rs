//! The thread that writes blobs before the writer decides their pushes, so that small requests
//! never wait for them. Each blob has a file of its own, which lives as long as its item. This
//! thread decides nothing: the writer decides the pushes, in the order of their blobs.

use std::sync::Arc;

use relay_core::queue::{self, Admission};
use relay_core::{Envelope, ItemStatus, ReadTx as _, Seq, Timestamp, Usage};
use relay_disk::Disk;
use relay_journal::{Journal, JournalError, Location};
use tokio::sync::mpsc;

use crate::engine::command::{Job, Prepared};
use crate::engine::exit_signal::ExitSignal;
use crate::engine::shared::Shared;
use crate::error::{StoreError, caught};
use crate::format;
use crate::format::record::kind;
use crate::io::payload;
use crate::txn::read::ReadTxn;
use crate::version::read_snapshot::{EXTRA_ROWS, Wanted};

/// A segment takes one batch only.
const SEGMENT_BYTES: u64 = 0;

/// A blob is written in pieces of this size, each synced. Another sync waits for one piece at most.
const PIECE_BYTES: u64 = 1024 * 1024;

pub(crate) struct BlobWriter {
    pub(crate) _exit_signal: ExitSignal,
    pub(crate) shared: Arc<Shared>,
    pub(crate) blobs: Journal,
    /// A payload of this size becomes a blob.
    pub(crate) blob_bytes: u64,
    pub(crate) pushes: mpsc::Receiver<Job>,
    /// The mailbox of the writer.
    pub(crate) mailbox: mpsc::Sender<Job>,
}

/// Opens the blobs for writing. New numbers exceed `last` and all existing numbers. It reads no
/// blob: each was synced before the journal refers to it.
pub(crate) fn open_blobs(disk: Arc<dyn Disk>, last: u32) -> Result<Journal, StoreError> {
    let options = relay_journal::Options {
        name: format::BLOB_FILE_PREFIX,
        segment_bytes: SEGMENT_BYTES,
        piece_bytes: PIECE_BYTES,
    };
    Journal::open_unread(disk, options, last).map_err(|error| {
        let kind = error.kind();
        StoreError::Journal(Arc::new(error), kind)
    })
}

impl BlobWriter {
    /// Runs until no sender is left.
    pub(crate) fn run(mut self) {
        while let Some(job) = self.pushes.blocking_recv() {
            if let Some(job) = self.prepare_job(job) {
                // If the writer has ended, dropping the job notifies the caller.
                drop(self.mailbox.blocking_send(job));
            }
        }
    }

    /// Prepares the large pushes of a job. Returns `None` if it has failed as a whole.
    fn prepare_job(&mut self, mut job: Job) -> Option<Job> {
        match &mut job {
            Job::Push(push) => match self.prepare(&push.envelope) {
                Ok(prepared) => push.prepared = prepared,
                Err(error) => {
                    job.fail(&error);
                    return None;
                }
            },
            Job::PushAll(all) => {
                for item in &mut all.items {
                    if item.envelope.payload_bytes() >= self.blob_bytes {
                        item.prepared = self.prepare(&item.envelope);
                    }
                }
            }
            Job::Ack(..)
            | Job::Settle(..)
            | Job::Trim(..)
            | Job::Move(..)
            | Job::Import(..)
            | Job::Maintain(_) => {}
        }
        Some(job)
    }

    /// Does the slow part of a push, and logs why it fails.
    fn prepare(&mut self, envelope: &Envelope) -> Result<Prepared, StoreError> {
        self.try_prepare(envelope).inspect_err(|error| {
            if !matches!(error, StoreError::Full) {
                tracing::warn!(%error, "cannot write a blob");
            }
        })
    }

    /// Does the slow part of a push. Writes no blob if the synced state would reject the push.
    fn try_prepare(&mut self, envelope: &Envelope) -> Result<Prepared, StoreError> {
        match self.admit(envelope) {
            Some(Admission::Fits { .. }) if self.shared.space.is_full() => Err(StoreError::Full),
            Some(Admission::Fits { .. }) => {
                self.shared.space.note_written(envelope.payload_bytes());
                Ok(self.write(envelope)?.map_or(Prepared::Nothing, Prepared::Written))
            }
            Some(Admission::Known { queued: Some((seq, _)), .. }) => {
                let compared =
                    self.shared.has_payload(&envelope.recipient, envelope.id(), seq, &envelope.payload);
                // If the comparison fails, the caller repeats it after the answer.
                let is_same = compared.ok().flatten();
                Ok(is_same.map_or(Prepared::Nothing, |is_same| Prepared::Compared(seq, is_same)))
            }
            Some(Admission::Known { queued: None, .. }) | None => Ok(Prepared::Nothing),
        }
    }

    /// Writes and syncs a blob. Returns `None` and writes nothing if the file numbers have run out.
    fn write(&mut self, envelope: &Envelope) -> Result<Option<Location>, StoreError> {
        let mut batch = match self.blobs.begin() {
            Err(JournalError::Exhausted) => return Ok(None),
            begun => begun?,
        };
        let head = payload::blob_head(&envelope.recipient, envelope.id());
        let appended = batch.append(kind::BLOB, &head, envelope.payload.clone());
        let Some(location) = format::blob_location(appended) else { return Ok(None) };
        self.blobs.commit(batch)?;
        Ok(Some(location))
    }

    /// What the rules decide on the synced state; `None` for a rejection or an error.
    fn admit(&self, envelope: &Envelope) -> Option<Admission> {
        let shared = &self.shared;
        let (limits, now) = (shared.limits.load(), shared.clock.now());
        let wanted =
            Wanted { from: Seq::ZERO, id: Some(envelope.id()), rows_max: EXTRA_ROWS, may_skip_newer: false };
        let admitted = caught(|| {
            shared.look_up(&envelope.recipient, wanted, |reading| {
                match reading.check_settled(&envelope.recipient, now) {
                    // To count its items would take too long here.
                    Err(StoreError::Unsettled(_)) => known_or_fits(reading, now, envelope).map(Ok),
                    settled => settled.and_then(|()| queue::admit(reading, &limits, now, envelope)),
                }
            })
        });
        admitted.ok()?.ok()
    }
}

/// Whether the item is known. If it is not, it is assumed to fit.
fn known_or_fits(
    reading: &ReadTxn<'_>,
    now: Timestamp,
    envelope: &Envelope,
) -> Result<Admission, StoreError> {
    let usage = Usage::ZERO;
    Ok(match reading.locate(&reading.queue(&envelope.recipient)?, envelope.id())? {
        Some(ItemStatus::Queued { seq, deadline, .. }) if now < deadline => {
            Admission::Known { usage, queued: Some((seq, deadline)) }
        }
        Some(ItemStatus::Acked { until }) if now < until => Admission::Known { usage, queued: None },
        _ => Admission::Fits { usage, expired: usage, replaces: None },
    })
}
