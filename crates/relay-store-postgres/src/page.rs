//! A page of a queue, as one statement has read it. The rules of relay-core run over it.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{
    Chunk, Front, Item, ItemId, ItemStatus, Kind, MessageId, ReadTx, Recipient, Seq, Timestamp, Usage,
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::convert::{seq, timestamp, unsigned, usage};
use crate::error::PostgresError;

/// An item of a page. Those behind its end have no payload.
pub(crate) type PageItem = Item<Option<Bytes>>;

/// What was read of a queue.
#[derive(Debug)]
pub(crate) struct ReadPage {
    pub(crate) now: Timestamp,
    usage: Usage,
    expired: Usage,
    /// Live items, one more than the page can have.
    items: Vec<PageItem>,
    /// How many live items follow those.
    behind: u64,
}

impl ReadPage {
    pub(crate) fn of(rows: &[Row], recipient: &Recipient) -> Result<Self, PostgresError> {
        let Some(first) = rows.first() else { return Err(PostgresError::Corrupted("no time")) };
        let now = timestamp(first.try_get(0)?);
        let empty = Self { now, usage: Usage::ZERO, expired: Usage::ZERO, items: Vec::new(), behind: 0 };
        let Some(name) = first.try_get::<_, Option<&[u8]>>(1)? else { return Ok(empty) };
        if name != recipient.as_str().as_bytes() {
            return Err(PostgresError::Corrupted("two recipients with the same hash"));
        }
        let has_item = |row: &&Row| matches!(row.try_get::<_, Option<i64>>(7), Ok(Some(_)));
        let items = rows.iter().filter(has_item).map(item);
        Ok(Self {
            usage: usage(first.try_get(2)?, first.try_get(3)?),
            expired: usage(first.try_get(4)?, first.try_get(5)?),
            behind: unsigned(first.try_get(6)?),
            items: items.collect::<Result<_, _>>()?,
            ..empty
        })
    }

    /// The items whose payload was read.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item<Bytes>> {
        self.items.into_iter().filter_map(with_payload)
    }
}

/// The item, if its payload was read.
pub(crate) fn with_payload(mut item: PageItem) -> Option<Item<Bytes>> {
    let body = item.body.take()?;
    Some(item.with_body(body))
}

fn item(row: &Row) -> Result<PageItem, PostgresError> {
    let (index, count) = (number(row.try_get(9)?), number(row.try_get(10)?));
    let kind = std::str::from_utf8(row.try_get(11)?).map_err(|_| WRONG)?;
    let (total_len, sent_ms): (i64, i64) = (row.try_get(12)?, row.try_get(13)?);
    let body: Option<&[u8]> = row.try_get(17)?;
    Ok(Item {
        seq: seq(row.try_get(7)?),
        message_id: MessageId::from_bytes(row.try_get::<_, Uuid>(8)?.into_bytes()),
        chunk: Chunk::new(index, count).map_err(|_| WRONG)?,
        kind: Kind::parse(kind).map_err(|_| WRONG)?,
        total_len: total_len.cast_unsigned(),
        sent_ms: sent_ms.cast_unsigned(),
        arrival: timestamp(row.try_get(14)?),
        deadline: timestamp(row.try_get(15)?),
        payload_bytes: unsigned(row.try_get(16)?),
        body: body.map(Bytes::copy_from_slice),
    })
}

const WRONG: PostgresError = PostgresError::Corrupted("an item that the relay would not have accepted");

fn number(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl ReadTx for ReadPage {
    type Error = PostgresError;
    type Item = PageItem;
    type Queue = ();

    fn queue(&self, _: &Recipient) -> Result<(), PostgresError> {
        Ok(())
    }

    fn usage(&self, (): &()) -> Result<Usage, PostgresError> {
        Ok(self.usage)
    }

    /// The rule of a page looks up no item id.
    fn locate(&self, (): &(), _: ItemId) -> Result<Option<ItemStatus>, PostgresError> {
        Ok(None)
    }

    fn scan(
        &self,
        (): &(),
        from: Seq,
        visit: &mut dyn FnMut(PageItem) -> ControlFlow<()>,
    ) -> Result<(), PostgresError> {
        for item in self.items.iter().filter(|item| item.seq >= from) {
            if visit(item.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn has_payload(&self, (): &(), _: Seq, _: &[u8]) -> Result<bool, PostgresError> {
        Ok(false)
    }

    /// The caller asks for those behind a page, so from an item on that was read.
    fn live_items_from(&self, (): &(), from: Seq, _: Timestamp) -> Result<u64, PostgresError> {
        let read = self.items.iter().filter(|item| item.seq >= from).count() as u64;
        Ok(read.saturating_add(self.behind))
    }

    /// Nothing that has expired was read. If the page begins at the first item of the queue, all
    /// that has expired was counted.
    fn front(&self, (): &(), _: Timestamp) -> Result<Front, PostgresError> {
        Ok(Front { live_from: Seq::ZERO, expired: self.expired })
    }
}
