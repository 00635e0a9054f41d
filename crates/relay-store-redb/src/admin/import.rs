//! Sends items of another store to the writer, in bundles. The writer stores a bundle as one batch.
//! relay-core has the rule for each item.

use relay_core::{Error, ImportItem, Imported, Seq};
use tokio::sync::oneshot;

use crate::RedbRelay;
use crate::engine::command::Job;
use crate::error::StoreError;

impl RedbRelay {
    /// Stores items of another store, in this order, up to the first one that is rejected. The
    /// stored ones are durable when this returns. A bundle is one write, so it should be small:
    /// some hundred items, or a megabyte. All payloads go to the journal, however large.
    ///
    /// # Errors
    /// The store's. Then nothing of the bundle is stored, but a restart may still find that it is.
    pub async fn import(&self, mut items: Vec<ImportItem>) -> Result<Imported, Error> {
        let time = self.shared.clock.read();
        for item in &mut items {
            (item.arrival, item.deadline) = (time.inside(item.arrival), time.inside(item.deadline));
        }
        let (caller, response) = oneshot::channel();
        Self::post(self.mailbox.as_ref(), Job::Import(items, caller))?;
        Ok(response.await.map_err(|_| StoreError::WriterEnded)??)
    }

    /// Reserves all arrival numbers up to `seq`, so that no later item gets one of them. Then a
    /// cursor from another store skips no item. The reservation becomes durable with the next item
    /// or snapshot.
    pub fn raise_arrival_numbers(&self, seq: Seq) {
        self.shared.version_mut().reserve_seqs(seq);
    }

    /// The last arrival number in use or reserved.
    #[must_use]
    pub fn last_arrival_number(&self) -> Seq {
        self.shared.version().numbers().seq
    }
}
