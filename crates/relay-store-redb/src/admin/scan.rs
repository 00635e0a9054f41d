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

/// Visits the items of a queue with their records, from `from` on, until `visit` breaks. It
/// searches again for each page, so corruption that ends a scan costs one page at most.
pub(super) fn each_record(
    txn: &ReadTxn<'_>,
    rows: &QueueRows<'_>,
    mut from: Seq,
    visit: &mut dyn FnMut(ItemRow, Result<Frame, ReadError>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    loop {
        let page = read_page(rows, from)?;
        let Some(last) = page.last() else { return Ok(()) };
        from = last.seq.next();
        let locations: Vec<_> = page.iter().map(|row| row.location).collect();
        let frames = txn.journal.read(&locations);
        if page.into_iter().zip(frames).try_for_each(|(row, frame)| visit(row, frame)).is_break() {
            return Ok(());
        }
    }
}

fn read_page(rows: &QueueRows<'_>, from: Seq) -> Result<Vec<ItemRow>, StoreError> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    rows.scan(from, &mut |item| {
        bytes += u64::from(item.location.length);
        if page.len() >= READ_ITEMS || bytes > READ_BYTES && !page.is_empty() {
            return ControlFlow::Break(());
        }
        page.push(item);
        ControlFlow::Continue(())
    })?;
    Ok(page)
}
