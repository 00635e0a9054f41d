//! The queue that one request works on. A request looks it up once and writes its row back once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use relay_core::{ItemId, Recipient, Seq, Timestamp, Usage};

use crate::format::{BLOCK_ITEMS, ItemRow, Items, Key, QueueRow};
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// The queue of a recipient, as relay-core's rules hold it.
pub(crate) struct QueueHandle {
    pub(crate) recipient: Recipient,
    /// `None` if the recipient has no queue.
    pub(crate) open: Option<OpenQueue>,
    /// Removed items that no record contains yet, and until when each item id is remembered.
    pub(crate) removed: Vec<(Seq, Option<Timestamp>)>,
    /// The last item that a lookup found. Most requests that look up an item change it next.
    pub(super) found: RefCell<Option<ItemRow>>,
    /// The last item id that was looked up among the acked ones, and the result.
    pub(super) acked: RefCell<Option<(ItemId, Option<AckedEntry>)>>,
}

/// The key of an acked item id, and until when it is remembered.
pub(crate) type AckedEntry = (Key, Timestamp);

/// A queue whose row is being changed.
pub(crate) struct OpenQueue {
    pub(crate) number: u64,
    pub(crate) row: Arc<QueueRow>,
    /// The due time under which the sweep finds the queue until it is closed.
    pub(super) due: Option<Timestamp>,
    /// Items were removed, so the ends of the queue may have changed.
    pub(super) has_removed: bool,
    /// The last item was removed.
    pub(super) is_last_removed: bool,
    /// Items removed from full blocks whose counts still include them.
    pub(super) removed_from_blocks: BTreeMap<u64, Usage>,
}

impl QueueHandle {
    pub(super) fn new(recipient: Recipient, found: Option<(u64, Arc<QueueRow>)>) -> Self {
        let open = found.map(|(number, row)| OpenQueue::new(number, row));
        Self { recipient, open, removed: Vec::new(), found: RefCell::default(), acked: RefCell::default() }
    }

    /// The item with this arrival number, if the last lookup found it.
    pub(crate) fn found(&self, seq: Seq) -> Option<ItemRow> {
        self.found.borrow().as_ref().filter(|item| item.seq == seq).cloned()
    }

    /// The result for this item id among the acked ones, if it was the last one looked up.
    pub(crate) fn acked(&self, id: ItemId) -> Option<Option<AckedEntry>> {
        self.acked.borrow().filter(|(known, _)| *known == id).map(|(_, found)| found)
    }
}

impl OpenQueue {
    pub(super) fn new(number: u64, row: Arc<QueueRow>) -> Self {
        let due = row.due();
        let removed_from_blocks = BTreeMap::new();
        Self { number, row, due, has_removed: false, is_last_removed: false, removed_from_blocks }
    }

    /// The queue in its current state.
    pub(crate) fn rows<'a>(&self, view: ReadView<'a>) -> QueueRows<'a> {
        QueueRows { view, queue: self.number, row: Arc::clone(&self.row) }
    }

    /// Subtracts removed items from the open block, or notes them for the count of a full one.
    pub(super) fn remove_from_block(&mut self, block: u64, removed: Usage) {
        let Items::Spilled(positions) = &mut Arc::make_mut(&mut self.row).items else { return };
        if block == positions.next / BLOCK_ITEMS {
            positions.open_block = positions.open_block.minus(removed);
        } else {
            let sum = self.removed_from_blocks.entry(block).or_default();
            *sum = sum.plus(removed);
        }
    }
}
