//! A queue that a request works at. It is looked up once; what is found of it is kept here, and
//! what is changed of its row is put back once, when the request is done with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use relay_core::{ItemId, Recipient, Seq, Timestamp, Usage};

use crate::format::{ItemRow, Key, QueueRow};
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// The queue of a recipient, as the rules hold it.
pub(crate) struct QueueHandle {
    pub(crate) recipient: Recipient,
    /// `None` while there is none.
    pub(crate) open: Option<OpenQueue>,
    /// What was taken out and is not recorded yet, and until when the name of each is remembered.
    pub(crate) removed: Vec<(Seq, Option<Timestamp>)>,
    /// The item that was looked for last, if it was found: who looks for one mostly does something
    /// to it.
    pub(crate) found: RefCell<Option<ItemRow>>,
    /// The name that was looked for last among the acked ones, and what was found.
    pub(crate) acked: RefCell<Option<(ItemId, Option<AckedEntry>)>>,
}

/// Where an acked name is remembered, and until when.
pub(crate) type AckedEntry = (Key, Timestamp);

/// A queue whose row is being changed.
pub(crate) struct OpenQueue {
    pub(crate) number: u64,
    pub(crate) row: Arc<QueueRow>,
    /// Where the sweep finds it, as long as it is not closed.
    pub(crate) due: Option<Timestamp>,
    /// Items were taken out, and its ends may be others.
    pub(crate) has_gone: bool,
    /// Its last item was among them.
    pub(crate) is_last_gone: bool,
    /// What was taken out of full blocks and is not counted there yet.
    pub(crate) blocks: BTreeMap<u64, Usage>,
}

impl QueueHandle {
    pub(crate) fn new(recipient: Recipient, found: Option<(u64, Arc<QueueRow>)>) -> Self {
        let open = found.map(|(number, row)| OpenQueue::new(number, row));
        Self { recipient, open, removed: Vec::new(), found: RefCell::default(), acked: RefCell::default() }
    }

    /// The item with this number, if it is the one that was found last.
    pub(crate) fn found(&self, seq: Seq) -> Option<ItemRow> {
        self.found.borrow().as_ref().filter(|item| item.seq == seq).cloned()
    }

    /// What was found of this acked name, if it was looked for.
    pub(crate) fn acked(&self, id: ItemId) -> Option<Option<AckedEntry>> {
        self.acked.borrow().filter(|(known, _)| *known == id).map(|(_, found)| found)
    }
}

impl OpenQueue {
    pub(crate) fn new(number: u64, row: Arc<QueueRow>) -> Self {
        let due = row.due();
        Self { number, row, due, has_gone: false, is_last_gone: false, blocks: BTreeMap::new() }
    }

    /// The queue as it is now.
    pub(crate) fn rows<'a>(&self, view: ReadView<'a>) -> QueueRows<'a> {
        QueueRows { view, queue: self.number, row: Arc::clone(&self.row) }
    }
}
