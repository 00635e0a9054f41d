//! The thread that writes large payloads aside, ahead of the batch that their items are decided in,
//! so that what is small never waits for them. Each has a file of its own, which goes when its item
//! does. It decides nothing: the writer does, in the order in which this has written.

use std::sync::Arc;

use relay_core::queue::{self, Admission};
use relay_core::{Envelope, Seq};
use relay_disk::Disk;
use relay_journal::{Journal, JournalError, Location};
use tokio::sync::mpsc;

use crate::engine::command::{Job, Prepared, Push};
use crate::engine::exit_signal::ExitSignal;
use crate::engine::shared::Shared;
use crate::error::{StoreError, caught};
use crate::format;
use crate::format::record::kind;
use crate::io::payload;
use crate::version::read_snapshot::{ROWS_BESIDE, Wanted};

/// No segment takes a second batch.
const SEGMENT_BYTES: u64 = 0;

/// A large payload is written in such pieces, each synced, so that no other sync has to wait for
/// more of it than that.
const PIECE_BYTES: u64 = 1024 * 1024;

pub(crate) struct BlobWriter {
    pub(crate) _alive: ExitSignal,
    pub(crate) shared: Arc<Shared>,
    pub(crate) payloads: Journal,
    pub(crate) waiting: mpsc::Receiver<Push>,
    pub(crate) mailbox: mpsc::Sender<Job>,
}

/// Opens the payload files, to write behind `last` and all that are there. None is read: each was
/// synced before the journal knew of it, so a start has nothing to find out.
pub(crate) fn open_payloads(disk: Arc<dyn Disk>, last: u32) -> Result<Journal, StoreError> {
    let options = relay_journal::Options {
        name: format::PAYLOADS,
        segment_bytes: SEGMENT_BYTES,
        piece_bytes: PIECE_BYTES,
    };
    Journal::open_unread(disk, options, last).map_err(|error| {
        let kind = error.kind();
        StoreError::Journal(Arc::new(error), kind)
    })
}

impl BlobWriter {
    /// Works until nobody can ask for anything any more.
    pub(crate) fn run(mut self) {
        while let Some(mut push) = self.waiting.blocking_recv() {
            match self.prepare(&push.envelope) {
                Ok(ahead) => {
                    push.ahead = ahead;
                    // Without a writer there is nobody to decide, and who waits hears of it as the
                    // push is dropped.
                    drop(self.mailbox.blocking_send(Job::Push(push)));
                }
                Err(error) => {
                    if !matches!(error, StoreError::Full) {
                        tracing::warn!(%error, "a large payload could not be written");
                    }
                    push.fail(&error);
                }
            }
        }
    }

    /// Does what takes long. What would be refused, for all that is synced by now, costs no disk.
    fn prepare(&mut self, envelope: &Envelope) -> Result<Prepared, StoreError> {
        match self.admit(envelope) {
            Some(Admission::Fits { .. }) if self.shared.space.is_full() => Err(StoreError::Full),
            Some(Admission::Fits { .. }) => {
                self.shared.space.note_written(envelope.payload_bytes());
                let written = self.write(envelope)?;
                Ok(written.map_or(Prepared::Nothing, Prepared::Written))
            }
            Some(Admission::Known { queued: Some(seq), .. }) => {
                let compared =
                    self.shared.has_payload(&envelope.recipient, envelope.id(), seq, &envelope.payload);
                Ok(compared
                    .ok()
                    .flatten()
                    .map_or(Prepared::Nothing, |is_same| Prepared::Compared(seq, is_same)))
            }
            Some(Admission::Known { queued: None, .. }) | None => Ok(Prepared::Nothing),
        }
    }

    /// Writes a payload and syncs it. `None`, and nothing written, when the numbers of files have
    /// run out.
    fn write(&mut self, envelope: &Envelope) -> Result<Option<Location>, StoreError> {
        let mut batch = match self.payloads.begin() {
            Err(JournalError::Exhausted) => return Ok(None),
            begun => begun?,
        };
        let head = payload::head(&envelope.recipient, envelope.id());
        let place = batch.append(kind::PAYLOAD, &head, envelope.payload.clone());
        let Some(location) = format::payload_location(place) else { return Ok(None) };
        self.payloads.commit(batch)?;
        Ok(Some(location))
    }

    /// What the writer would say to it by now; `None` when that is no.
    fn admit(&self, envelope: &Envelope) -> Option<Admission> {
        let shared = &self.shared;
        let wanted =
            Wanted { from: Seq::ZERO, id: Some(envelope.id()), rows_max: ROWS_BESIDE, is_of_older: false };
        let admitted = caught(|| {
            shared.look_up(&envelope.recipient, wanted, |reading| {
                queue::admit(reading, &shared.limits, shared.clock.now(), envelope)
            })
        });
        admitted.ok()?.ok()
    }
}
