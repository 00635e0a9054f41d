//! The read half of the storage seam: a queue over one view of the store, as relay-core's rules
//! read it.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{Front, ItemId, ItemStatus, ReadTx, Recipient, Seq, Timestamp, Usage};

use crate::error::StoreError;
use crate::format::ItemRow;
use crate::format::record::Owner;
use crate::io::journals::Journals;
use crate::io::payload;
use crate::txn::queue_handle::QueueHandle;
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// The most items that a page may pass because they have expired before one in front of them: a
/// millisecond's work.
const UNSETTLED_MAX: usize = 1024;

/// A read transaction over one view.
pub(crate) struct ReadTxn<'a> {
    pub(crate) view: ReadView<'a>,
    pub(crate) journal: &'a Journals,
}

impl ReadTxn<'_> {
    /// Fails if a page of the queue might pass too many items that have expired before one in front
    /// of them.
    pub(crate) fn check_settled(&self, recipient: &Recipient, now: Timestamp) -> Result<(), StoreError> {
        let Some(rows) = QueueRows::of_recipient(self.view, recipient)? else { return Ok(()) };
        let is_unsettled = rows.has_expired_early(UNSETTLED_MAX, now)?;
        if is_unsettled { Err(StoreError::Unsettled(rows.queue)) } else { Ok(()) }
    }

    fn rows(&self, queue: &QueueHandle) -> Option<QueueRows<'_>> {
        queue.open.as_ref().map(|open| open.rows(self.view))
    }

    fn payload(&self, owner: Owner<'_>, item: &ItemRow) -> Result<Bytes, StoreError> {
        let frame = self.journal.read(&[item.location]).pop();
        let frame = frame.ok_or(StoreError::Corrupted("the journal returned no frame"))??;
        payload::of_frame(frame, owner, item.seq, item.id)
    }
}

impl ReadTx for ReadTxn<'_> {
    type Error = StoreError;
    type Item = ItemRow;
    type Queue = QueueHandle;

    fn queue(&self, recipient: &Recipient) -> Result<QueueHandle, StoreError> {
        Ok(QueueHandle::new(recipient.clone(), self.view.queue(recipient)?))
    }

    fn usage(&self, queue: &QueueHandle) -> Result<Usage, StoreError> {
        Ok(queue.open.as_ref().map_or(Usage::ZERO, |open| open.row.visible_usage()))
    }

    fn locate(&self, queue: &QueueHandle, id: ItemId) -> Result<Option<ItemStatus>, StoreError> {
        let Some(rows) = self.rows(queue) else { return Ok(None) };
        if let Some(item) = rows.find(id)? {
            let ItemRow { seq, deadline, payload_bytes, .. } = item;
            if let Some(floor) = rows.row.floor.filter(|floor| seq <= floor.through) {
                return Ok(floor
                    .until
                    .filter(|_| floor.at < deadline)
                    .map(|until| ItemStatus::Acked { until }));
            }
            *queue.found.borrow_mut() = Some(item);
            return Ok(Some(ItemStatus::Queued { seq, deadline, payload_bytes }));
        }
        if rows.row.remembers_until == Timestamp::default() {
            return Ok(None);
        }
        let acked = rows.view.read_acked(rows.queue, id)?;
        *queue.acked.borrow_mut() = Some((id, acked));
        Ok(acked.map(|(_, until)| ItemStatus::Acked { until }))
    }

    fn scan(
        &self,
        queue: &QueueHandle,
        from: Seq,
        visit: &mut dyn FnMut(ItemRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.rows(queue).map_or(Ok(()), |rows| rows.scan(from.max(rows.row.visible_from()), visit))
    }

    fn has_payload(&self, queue: &QueueHandle, seq: Seq, payload: &[u8]) -> Result<bool, StoreError> {
        let no_item = StoreError::Corrupted("an item id has no item");
        let Some(rows) = self.rows(queue) else { return Err(no_item) };
        let item = queue.found(seq).map_or_else(|| rows.read_item(seq), |found| Ok(Some(found)))?;
        let (item, owner) = (item.ok_or(no_item)?, Owner { queue: rows.queue, recipient: &queue.recipient });
        // Different lengths save reading the payload.
        Ok(item.payload_bytes == payload.len() as u64 && self.payload(owner, &item)? == payload)
    }

    fn live_items_from(&self, queue: &QueueHandle, from: Seq, now: Timestamp) -> Result<u64, StoreError> {
        self.rows(queue).map_or(Ok(0), |rows| rows.live_items_from(from, now))
    }

    fn front(&self, queue: &QueueHandle, now: Timestamp) -> Result<Front, StoreError> {
        self.rows(queue).map_or(Ok(Front::default()), |rows| rows.front(now))
    }
}
