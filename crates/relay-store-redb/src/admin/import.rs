//! Items that come from another store: how the writer takes a bundle of them, in order, all of it
//! in one batch. The rule for each is relay-core's.

use relay_core::{Error, ImportItem, Seq};
use tokio::sync::oneshot;

use crate::RedbRelay;
use crate::engine::command::Job;
use crate::engine::imported::Imported;
use crate::error::StoreError;

impl RedbRelay {
    /// Takes items in that come from another store, in this order, up to the first one that is
    /// refused. Those that were stored are durable once this has returned. A caller keeps a bundle
    /// small, some hundred items or a megabyte: it is one write.
    ///
    /// Their payloads lie in the journal, however large.
    ///
    /// # Errors
    /// The store's; then nothing of the bundle is there, unless a restart finds that it is.
    pub async fn import(&self, mut items: Vec<ImportItem>) -> Result<Imported, Error> {
        let time = self.shared.clock.read();
        for item in &mut items {
            (item.arrival, item.deadline) = (time.inside(item.arrival), time.inside(item.deadline));
        }
        let (caller, answer) = oneshot::channel();
        Self::post(self.mailbox.as_ref(), Job::Import(items, caller))?;
        Ok(answer.await.map_err(|_| StoreError::WriterEnded)??)
    }

    /// Gives no arrival number up to `seq` to a later item, so that a cursor from another store
    /// passes none of them over. It is durable together with the next item, or once a snapshot was
    /// taken.
    pub fn raise_arrival_numbers(&self, seq: Seq) {
        self.shared.version_mut().raise_numbers(seq);
    }

    /// The last arrival number that was given away.
    #[must_use]
    pub fn last_arrival_number(&self) -> Seq {
        self.shared.version().numbers().seq
    }
}
