//! What lies aside, to the byte: the frame of a payload file, and the record of its item in the
//! journal. Counters are LEB128.

use bytes::Bytes;
use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Recipient, Seq};
use relay_journal::{Frame, Location};

use crate::error::StoreError;
use crate::format::fields::{Fields, put_number};
use crate::format::record::{self, ItemRecord, Owner, kind};
use crate::format::{self, BlobMeta, ItemRow};

/// What the frame of a payload begins with: which item it is of, and for whom. The payload follows.
/// It is written before its push is decided, so it cannot tell a queue or an arrival number.
pub(crate) fn head(recipient: &Recipient, id: ItemId) -> Vec<u8> {
    let recipient = recipient.as_str();
    let mut bytes = Vec::with_capacity(32 + recipient.len());
    bytes.extend_from_slice(id.message_id.as_bytes());
    put_number(&mut bytes, u64::from(id.chunk_index));
    put_number(&mut bytes, recipient.len() as u64);
    bytes.extend_from_slice(recipient.as_bytes());
    bytes
}

/// The whole item of a row, if the frame holds that one, of that owner. Its kind may be the same as
/// that of the item before: most are.
pub(crate) fn item_of_frame(
    frame: Frame,
    owner: Owner<'_>,
    row: ItemRow,
    kind_before: &mut Option<Kind>,
) -> Result<Item<Bytes>, StoreError> {
    let ItemRow { seq, id, deadline, payload_bytes, blob, .. } = row;
    let Some(blob) = blob else {
        let record = parse_item(&frame, owner, seq, id)?;
        let (item, payload_bytes) = (record.item(kind_before)?, record.payload_bytes);
        return Ok(item.with_body(record::payload_of(frame.body, payload_bytes)));
    };
    let BlobMeta { arrival, total_len, sent_ms, chunk_count, kind } = *blob;
    let chunk = Chunk::new(id.chunk_index, chunk_count).map_err(|_| StoreError::Corrupted("item: chunk"))?;
    let body = of_frame(frame, owner, seq, id)?;
    let message_id = id.message_id;
    Ok(Item { seq, message_id, chunk, kind, total_len, sent_ms, arrival, deadline, payload_bytes, body })
}

/// The payload of the owner's item `seq` called `id`, if the frame holds that one: the record of
/// the item, or what lies aside.
pub(crate) fn of_frame(frame: Frame, owner: Owner<'_>, seq: Seq, id: ItemId) -> Result<Bytes, StoreError> {
    if frame.kind == kind::PAYLOAD {
        return aside(frame.body, owner, id);
    }
    let payload_bytes = parse_item(&frame, owner, seq, id)?.payload_bytes;
    Ok(record::payload_of(frame.body, payload_bytes))
}

fn parse_item<'a>(
    frame: &'a Frame,
    owner: Owner<'_>,
    seq: Seq,
    id: ItemId,
) -> Result<ItemRecord<'a>, StoreError> {
    if !matches!(frame.kind, kind::PUSHED | kind::MOVED) {
        return Err(StoreError::Corrupted("the index leads to the record of something else"));
    }
    ItemRecord::parse_of(&frame.body, owner, seq, id)
}

fn aside(body: Bytes, owner: Owner<'_>, id: ItemId) -> Result<Bytes, StoreError> {
    let mut fields = Fields::new(&body, "payload");
    let found = ItemId { message_id: MessageId::from_bytes(fields.take()?), chunk_index: fields.small()? };
    let recipient_bytes = fields.number()?;
    if fields.slice(recipient_bytes)? != owner.recipient.as_str().as_bytes() {
        return Err(StoreError::Corrupted("the index leads to the payload of another recipient"));
    }
    if found != id {
        return Err(StoreError::Corrupted("the index leads to another item's payload"));
    }
    let payload_bytes = fields.rest_bytes();
    Ok(record::payload_of(body, payload_bytes))
}

/// The record of an item whose payload lies at `location`, in a payload file.
pub(crate) fn record<B>(queue: u64, recipient: &Recipient, item: &Item<B>, location: Location) -> Vec<u8> {
    let mut bytes = record::item_head(queue, recipient, item);
    let Location { segment, offset, length } = format::own_location(location);
    for number in [item.payload_bytes, u64::from(segment), u64::from(offset), u64::from(length)] {
        put_number(&mut bytes, number);
    }
    bytes
}

/// Reads what [`record()`] made: the item, and where its payload lies.
pub(crate) fn parse_record(body: &[u8]) -> Result<(ItemRecord<'_>, Location), StoreError> {
    let mut fields = Fields::new(body, "record of an item whose payload lies aside");
    let mut item = ItemRecord::parse_head(&mut fields)?;
    item.payload_bytes = fields.small()? as usize;
    let own = Location { segment: fields.small()?, offset: fields.small()?, length: fields.small()? };
    let location = format::payload_location(own).ok_or(StoreError::Corrupted("record: payload file"))?;
    fields.end((item, location))
}

#[cfg(test)]
#[path = "../tests/payload.rs"]
mod tests;
