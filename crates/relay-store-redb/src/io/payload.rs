//! Payloads in frames: the frame of a blob file, the record of its item in the journal, and how a
//! payload is read from either journal. Numbers are LEB128.

use bytes::Bytes;
use relay_core::{Chunk, Item, ItemId, Kind, MessageId, Recipient, Seq};
use relay_journal::{Frame, Location};

use crate::error::StoreError;
use crate::format::fields::{Fields, put_location, put_number, put_text};
use crate::format::record::{self, ItemRecord, Owner, kind};
use crate::format::{self, BlobMeta, ItemRow};

/// The beginning of a blob's frame: the item id and its recipient. The payload follows. It is
/// written before the writer decides the push, so it contains no queue and no seq.
pub(crate) fn blob_head(recipient: &Recipient, id: ItemId) -> Vec<u8> {
    let recipient = recipient.as_str();
    let mut bytes = Vec::with_capacity(32 + recipient.len());
    bytes.extend_from_slice(id.message_id.as_bytes());
    put_number(&mut bytes, u64::from(id.chunk_index));
    put_text(&mut bytes, recipient);
    bytes
}

/// The item of a row with its payload. `last_kind` is the kind of the item before, which most items
/// share.
///
/// # Errors
/// When the frame belongs to another item or another owner.
pub(crate) fn item_of_frame(
    frame: Frame,
    owner: Owner<'_>,
    row: ItemRow,
    last_kind: &mut Option<Kind>,
) -> Result<Item<Bytes>, StoreError> {
    let ItemRow { seq, id, deadline, payload_bytes, blob, .. } = row;
    let Some(blob) = blob else {
        let record = parse_item(&frame, owner, seq, id)?;
        let (item, payload_bytes) = (record.item(last_kind)?, record.payload_bytes);
        return Ok(item.with_body(record::payload_of(frame.body, payload_bytes)));
    };
    let BlobMeta { arrival, total_len, sent_ms, chunk_count, kind } = *blob;
    let chunk = Chunk::new(id.chunk_index, chunk_count).map_err(|_| StoreError::Corrupted("item: chunk"))?;
    let body = of_frame(frame, owner, seq, id)?;
    let message_id = id.message_id;
    Ok(Item { seq, message_id, chunk, kind, total_len, sent_ms, arrival, deadline, payload_bytes, body })
}

/// The payload in a frame of either journal.
///
/// # Errors
/// When the frame belongs to another item or another owner.
pub(crate) fn of_frame(frame: Frame, owner: Owner<'_>, seq: Seq, id: ItemId) -> Result<Bytes, StoreError> {
    if frame.kind == kind::BLOB {
        return of_blob(frame.body, owner, id);
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

fn of_blob(body: Bytes, owner: Owner<'_>, id: ItemId) -> Result<Bytes, StoreError> {
    let mut fields = Fields::new(&body, "payload");
    let found = ItemId { message_id: MessageId::from_bytes(fields.take()?), chunk_index: fields.small()? };
    if fields.text()? != owner.recipient.as_str() {
        return Err(StoreError::Corrupted("the index leads to the payload of another recipient"));
    }
    if found != id {
        return Err(StoreError::Corrupted("the index leads to another item's payload"));
    }
    let payload_bytes = fields.rest_bytes();
    Ok(record::payload_of(body, payload_bytes))
}

/// The record of an item whose payload is the blob at `location`.
pub(crate) fn blob_record<B>(
    queue: u64,
    recipient: &Recipient,
    item: &Item<B>,
    location: Location,
) -> Vec<u8> {
    let mut bytes = record::item_head(queue, recipient, item);
    put_number(&mut bytes, item.payload_bytes);
    put_location(&mut bytes, format::own_location(location));
    bytes
}

/// Reads what [`blob_record`] wrote: the item, and the location of its payload.
pub(crate) fn parse_blob_record(body: &[u8]) -> Result<(ItemRecord<'_>, Location), StoreError> {
    let mut fields = Fields::new(body, "record of an item with a blob");
    let mut item = ItemRecord::parse_head(&mut fields)?;
    item.payload_bytes = fields.small()? as usize;
    let location =
        format::blob_location(fields.location()?).ok_or(StoreError::Corrupted("record: blob file"))?;
    fields.end((item, location))
}

#[cfg(test)]
#[path = "../tests/payload.rs"]
mod tests;
