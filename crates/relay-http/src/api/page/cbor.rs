//! Writes a page as CBOR: the same fields as in JSON, with `ciphertext`, a byte string, in place of
//! `ciphertext_b64`.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use cbor4ii::core::enc::{Encode, Write};
use cbor4ii::core::types;
use relay_core::{Item, Page, Recipient};

/// The initial capacity for an item without its payload. Few items need more.
const ITEM_BYTES: usize = 240;

const PAGE_BYTES: usize = 128;

/// What is written.
struct Writer(Vec<u8>);

impl Write for Writer {
    type Error = Infallible;

    fn push(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The page without the payloads, and the payloads with their offsets.
pub(super) fn write_page(
    recipient: &Recipient,
    cursor: Option<&str>,
    page: Page,
) -> (Vec<u8>, VecDeque<(usize, Bytes)>) {
    let item_bytes = ITEM_BYTES + recipient.as_str().len();
    let mut writer = Writer(Vec::with_capacity(PAGE_BYTES + page.items.len() * item_bytes));
    let mut payloads = VecDeque::with_capacity(page.items.len());
    writer.map(3);
    writer.value("items");
    writer.array(page.items.len());
    for item in page.items {
        payloads.push_back(writer.item(recipient, item));
    }
    match cursor {
        Some(cursor) => writer.field("next_cursor", cursor),
        None => writer.field("next_cursor", types::Null),
    }
    writer.field("remaining_estimate", page.remaining);
    (writer.0, payloads)
}

impl Writer {
    /// Writes an item. Returns the payload and its offset.
    fn item(&mut self, recipient: &Recipient, item: Item<Bytes>) -> (usize, Bytes) {
        self.map(6);
        self.field("recipient", recipient.as_str());
        self.field("message_id", item.message_id.encode(&mut [0; 36]) as &str);
        self.value("ciphertext");
        self.bytes(item.body.len());
        let offset = self.0.len();
        self.value("meta");
        self.map(5);
        self.field("kind", item.kind.as_str());
        self.field("total_len", item.total_len);
        self.field("chunk_index", item.chunk.index());
        self.field("chunk_count", item.chunk.count());
        self.field("sent_ms", item.sent_ms);
        self.field("arrival_ms", item.arrival.as_ms());
        self.field("deadline_ms", item.deadline.as_ms());
        (offset, item.body)
    }

    fn field(&mut self, name: &str, value: impl Encode) {
        self.value(name);
        self.value(value);
    }

    fn value(&mut self, value: impl Encode) {
        value.encode(self).expect("writing to a vector does not fail");
    }

    fn map(&mut self, entries: usize) {
        types::Map::bounded(entries, self).expect("writing to a vector does not fail");
    }

    fn array(&mut self, elements: usize) {
        types::Array::bounded(elements, self).expect("writing to a vector does not fail");
    }

    /// Begins a byte string.
    fn bytes(&mut self, len: usize) {
        types::Bytes::bounded(len, self).expect("writing to a vector does not fail");
    }
}
