//! Iterates over all queues of a store, and over all records of a queue.

use std::ops::ControlFlow;

use relay_core::Seq;
use relay_journal::{Frame, ReadError};

use crate::error::StoreError;
use crate::format::{ItemRow, Key};
use crate::index::snapshot::Value;
use crate::txn::read::ReadTxn;
use crate::version::queue_reader::QueueRows;

/// The most items and bytes that are read at once, unless one record alone is larger.
const READ_ITEMS: usize = 256;
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// All queues whose row is readable.
pub(super) fn queues<'a>(
    txn: &ReadTxn<'a>,
) -> Result<impl Iterator<Item = Result<QueueRows<'a>, StoreError>> + use<'a>, StoreError> {
    let view = txn.view;
    let rows = view.range(&Key::queues_start(), &Key::queues_end())?;
    let read = move |(key, value): (Key, Value<'a>)| {
        Ok(QueueRows { view, queue: key.queue_number(), row: value.queue()? })
    };
    Ok(rows.map(move |row| row.and_then(read)).filter(|rows| !matches!(rows, Err(StoreError::Corrupted(_)))))
}

/// Visits the items of a queue with their records, from `from` on, until `visit` breaks.
pub(super) fn each_record(
    txn: &ReadTxn<'_>,
    rows: &QueueRows<'_>,
    from: Seq,
    visit: &mut dyn FnMut(ItemRow, Result<Frame, ReadError>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut read_page = |page: &mut Vec<ItemRow>| {
        let locations: Vec<_> = page.iter().map(|row| row.location).collect();
        let frames = txn.journal.read(&locations);
        page.drain(..).zip(frames).try_for_each(|(row, frame)| visit(row, frame))
    };
    let (mut page, mut bytes, mut flow) = (Vec::new(), 0, ControlFlow::Continue(()));
    let scanned = rows.scan(from, &mut |item| {
        let item_bytes = u64::from(item.location.length);
        if page.len() >= READ_ITEMS || bytes + item_bytes > READ_BYTES {
            flow = read_page(&mut page);
            bytes = 0;
        }
        bytes += item_bytes;
        page.push(item);
        flow
    });
    if flow.is_continue() {
        _ = read_page(&mut page);
    }
    scanned
}
