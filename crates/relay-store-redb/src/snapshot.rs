//! A snapshot: what a pull reads, and what a recount looks at. It sees the last commit and nothing later.

use std::ops::ControlFlow;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};
use relay_core::verify::Inspect;
use relay_core::{Front, Item, ItemId, Page, Recipient, Seq, Timestamp, Trace, Usage};

use crate::error::StoreError;
use crate::read::{QueueRows, impl_read_tx};
use crate::schema::{self, BLOCK_ITEMS, QueueRow, Tag, TraceRow};

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The tables at one moment.
pub(crate) struct Snapshot {
    queues: ReadOnlyTable<&'static str, u64>,
    index: Rows,
    bodies: ReadOnlyTable<u64, &'static [u8]>,
    due: ReadOnlyTable<(u64, u64), ()>,
    acked: ReadOnlyTable<&'static [u8], ()>,
}

impl Snapshot {
    pub(crate) fn open(tx: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            queues: tx.open_table(schema::QUEUES)?,
            index: tx.open_table(schema::INDEX)?,
            bodies: tx.open_table(schema::BODIES)?,
            due: tx.open_table(schema::DUE)?,
            acked: tx.open_table(schema::ACKED)?,
        })
    }

    /// Puts the payloads into a page.
    pub(crate) fn fill(&self, page: Page<()>) -> Result<Page<Bytes>, StoreError> {
        let Page { items, next, remaining } = page;
        let items = items.into_iter().map(|item| {
            let body =
                self.bodies.get(item.seq.as_u64())?.ok_or(StoreError::Damaged("an item has no body"))?;
            let body = Bytes::copy_from_slice(body.value());
            Ok(item.with_body(body))
        });
        Ok(Page { items: items.collect::<Result<_, StoreError>>()?, next, remaining })
    }

    /// Recounts everything: what [`relay_core::verify`] asks of every store, and what only this one has.
    pub(crate) fn recount(&self) -> Result<Vec<String>, StoreError> {
        let mut findings = relay_core::verify::recount(self)?;
        let (mut items, mut due) = (0, 0);
        for row in self.queues.iter()? {
            let queue = row?.1.value();
            let row = self.rows(queue).read_row()?.ok_or(StoreError::Damaged("a queue has no row"))?;
            items += row.usage.items;
            due += u64::from(row.due.is_some());
            findings.extend(self.check_queue(queue, &row)?);
        }
        for (what, noted, there) in
            [("bodies", items, self.bodies.len()?), ("queues that the sweep looks at", due, self.due.len()?)]
        {
            if noted != there {
                findings.push(format!("{what}: {noted} are noted, {there} exist"));
            }
        }
        Ok(findings)
    }

    /// Checks the counts that are kept for one queue beside its items.
    fn check_queue(&self, queue: u64, row: &QueueRow) -> Result<Vec<String>, StoreError> {
        let mut wrong = Vec::new();
        if let Some(due) = row.due
            && self.due.get((due.as_ms(), queue))?.is_none()
        {
            wrong.push(format!("queue number {queue}: the sweep never looks at it"));
        }
        let open = row.next_place / BLOCK_ITEMS;
        let mut places = Vec::new();
        self.rows(queue).scan(Seq::ZERO, &mut |row| {
            places.push((row.place, row.item.payload_bytes));
            ControlFlow::Continue(())
        })?;
        if !places.is_sorted_by(|a, b| a.0 < b.0)
            || places.last().is_some_and(|last| last.0 >= row.next_place)
        {
            wrong.push(format!("queue number {queue}: places are out of order"));
        }
        let mut counted = Vec::new();
        for block in places.chunk_by(|a, b| a.0 / BLOCK_ITEMS == b.0 / BLOCK_ITEMS) {
            let usage = block.iter().fold(Usage::ZERO, |sum, (_, bytes)| sum.plus(Usage::of(*bytes)));
            counted.extend(block.first().map(|(place, _)| (place / BLOCK_ITEMS, usage)));
        }
        if self.noted_blocks(queue, row, open)? != counted {
            wrong.push(format!("queue number {queue}: its blocks are not counted right"));
        }
        Ok(wrong)
    }

    fn noted_blocks(&self, queue: u64, row: &QueueRow, open: u64) -> Result<Vec<(u64, Usage)>, StoreError> {
        let (start, end) = (schema::block_key(queue, 0), schema::block_key(queue, u64::MAX));
        let mut noted = Vec::new();
        for row in self.index.range::<&[u8]>(start.as_slice()..end.as_slice())? {
            let (key, value) = row?;
            let block = key.value().last_chunk().map(|block| u64::from_be_bytes(*block)).unwrap_or_default();
            noted.push((block, schema::decode_usage(value.value())?));
        }
        noted.extend((!row.open_block.is_empty()).then_some((open, row.open_block)));
        Ok(noted)
    }

    fn rows(&self, queue: u64) -> QueueRows<'_, Rows> {
        QueueRows { index: &self.index, queue }
    }

    fn find(&self, recipient: &Recipient) -> Result<Option<(u64, QueueRow)>, StoreError> {
        let Some(queue) = self.queues.get(recipient.as_str())?.map(|queue| queue.value()) else {
            return Ok(None);
        };
        let row = self.rows(queue).read_row()?.ok_or(StoreError::Damaged("a queue has no row"))?;
        Ok(Some((queue, row)))
    }
}

impl_read_tx!(Snapshot);

impl Inspect for Snapshot {
    fn recipients(&self) -> Result<Vec<Recipient>, StoreError> {
        let names = self.queues.iter()?.map(|row| self.rows(row?.1.value()).read_name());
        names.collect()
    }

    fn traces(&self, recipient: &Recipient) -> Result<Vec<(ItemId, Trace)>, StoreError> {
        let Some((queue, _)) = self.find(recipient)? else { return Ok(Vec::new()) };
        let (start, end) = (schema::key(queue, Tag::Trace, &[]), schema::key(queue, Tag::Block, &[]));
        let mut traces = Vec::new();
        for row in self.index.range::<&[u8]>(start.as_slice()..end.as_slice())? {
            let (key, value) = row?;
            let id = schema::decode_trace_key(key.value())?;
            let trace = match TraceRow::decode(value.value())? {
                TraceRow::Acked { until } => Some(Trace::Acked { until }),
                TraceRow::Queued(_) => self.rows(queue).locate(id)?,
            };
            traces.extend(trace.map(|trace| (id, trace)));
        }
        Ok(traces)
    }

    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, StoreError> {
        let rows = self.due.iter()?.map(|row| {
            let (at, queue) = row?.0.value();
            Ok((Timestamp::from_ms(at), self.rows(queue).read_name()?))
        });
        rows.collect()
    }

    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, StoreError> {
        let rows = self.acked.iter()?.map(|row| {
            let (until, queue, id) = schema::decode_acked_key(row?.0.value())?;
            Ok((until, self.rows(queue).read_name()?, id))
        });
        rows.collect()
    }
}
