//! Pushes of items of one size to random recipients, each alone or in batches, in JSON or CBOR.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::format::{Format, Pieces};
use super::names::ItemIds;
use super::request::{END_OF_HEAD, Kind, Request, open_head_in};
use super::scramble::mix;
use super::{Next, ResponseSummary, Workload};

/// A payload begins at one of this many offsets in the random bytes, in groups of four.
const OFFSETS: usize = 16 * 1024;

/// Pushes a range of items, one after the other.
#[derive(Debug)]
pub struct Push {
    writer: PushWriter,
    next: u64,
    end: u64,
}

/// Pushes a range of items in batches.
#[derive(Debug)]
pub struct PushBatches {
    writer: PushWriter,
    batch_items: u64,
    next: u64,
    end: u64,
}

/// Writes push requests.
#[derive(Debug)]
pub(super) struct PushWriter {
    ids: ItemIds,
    format: Format,
    pieces: Pieces,
    /// The head without its end.
    head: Vec<u8>,
    /// The length of an item in its format.
    item_bytes: usize,
    /// Whether each push carries a proof of its sender.
    pub(super) has_sender_proofs: bool,
    /// Random bytes, or their base64 without padding, longer than one payload.
    text: Bytes,
    text_bytes: usize,
    tail: Bytes,
}

impl Push {
    /// Pushes `items`, each with `payload_bytes` of payload.
    pub fn new(ids: ItemIds, payload_bytes: usize, items: std::ops::Range<u64>) -> Self {
        Self::of(Format::Json, ids, payload_bytes, items)
    }

    /// The same in this format.
    pub fn of(format: Format, ids: ItemIds, payload_bytes: usize, items: std::ops::Range<u64>) -> Self {
        Self { writer: PushWriter::of(format, ids, payload_bytes), next: items.start, end: items.end }
    }

    /// Each push carries a proof of its sender, who is a recipient too.
    #[must_use]
    pub const fn with_sender_proofs(mut self) -> Self {
        self.writer.has_sender_proofs = true;
        self
    }

    /// The number of the item to push next.
    pub const fn next_item(&self) -> u64 {
        self.next
    }
}

impl Workload for Push {
    fn next(&mut self, request: &mut Request) -> Next {
        if self.next >= self.end {
            return Next::End;
        }
        self.writer.write(self.next, request);
        self.next += 1;
        Next::Send
    }

    fn answered(&mut self, _: &Request, response: &ResponseSummary) -> u64 {
        response.count(self.writer.format.stored())
    }
}

impl PushBatches {
    /// Pushes `items`, each with `payload_bytes` of payload, `batch_items` in a request.
    pub fn new(
        format: Format,
        ids: ItemIds,
        payload_bytes: usize,
        batch_items: u64,
        items: std::ops::Range<u64>,
    ) -> Self {
        let writer = PushWriter::of(format, ids, payload_bytes);
        Self { writer, batch_items: batch_items.max(1), next: items.start, end: items.end }
    }
}

impl Workload for PushBatches {
    fn next(&mut self, request: &mut Request) -> Next {
        let end = self.next.saturating_add(self.batch_items).min(self.end);
        if self.next >= end {
            return Next::End;
        }
        self.writer.write_batch(self.next..end, request);
        self.next = end;
        Next::Send
    }

    fn answered(&mut self, _: &Request, response: &ResponseSummary) -> u64 {
        response.count(self.writer.format.stored())
    }
}

impl PushWriter {
    pub(super) fn new(ids: ItemIds, payload_bytes: usize) -> Self {
        Self::of(Format::Json, ids, payload_bytes)
    }

    fn of(format: Format, ids: ItemIds, payload_bytes: usize) -> Self {
        let text_bytes = match format {
            Format::Json => payload_bytes / 3 * 4,
            Format::Cbor => payload_bytes,
        };
        // The base64 of the bytes after the last full group of three.
        let last_group = STANDARD.encode(vec![0; payload_bytes % 3]);
        let id_lengths = [ids.recipients().name_bytes(), ItemIds::MESSAGE_BYTES];
        let mut pieces = format.pieces(payload_bytes, id_lengths, &last_group);
        let tail: Bytes = std::mem::take(&mut pieces.meta).into();
        let around = [&pieces.before_recipient, &pieces.before_message, &pieces.before_payload];
        let ids_bytes = around.map(Vec::len).iter().chain(&id_lengths).sum::<usize>();
        let item_bytes = ids_bytes + text_bytes + tail.len();
        let mut head = Vec::new();
        open_head_in(format, "/push", item_bytes, &mut head);
        let text = random_text(format, text_bytes + OFFSETS * 4);
        Self { ids, format, pieces, head, item_bytes, has_sender_proofs: false, text, text_bytes, tail }
    }

    pub(super) fn write(&self, item: u64, request: &mut Request) {
        request.kind = Kind::Push;
        request.number = item;
        let head = &mut request.head;
        head.clear();
        head.extend_from_slice(&self.head);
        if self.has_sender_proofs {
            self.ids.recipients().write_proof(self.ids.sender_of(item), head);
        }
        head.extend_from_slice(END_OF_HEAD);
        self.write_ids(item, head);
        request.payload = self.payload(item);
        request.tail = self.tail.clone();
    }

    /// Writes a batch of these items.
    fn write_batch(&self, items: std::ops::Range<u64>, request: &mut Request) {
        request.kind = Kind::Push;
        request.number = items.start;
        let count = usize::try_from(items.end - items.start).unwrap_or_default();
        let head = &mut request.head;
        let (begin, between) = (self.format.before_items(count as u64), self.format.between_items());
        let items_bytes = count * (self.item_bytes + between.len()) - between.len();
        let body_bytes = begin.len() + items_bytes + self.format.after_items().len();
        open_head_in(self.format, "/push/batch", body_bytes, head);
        head.extend_from_slice(END_OF_HEAD);
        head.extend_from_slice(&begin);
        for item in items.clone() {
            if item > items.start {
                head.extend_from_slice(between);
            }
            self.write_ids(item, head);
            head.extend_from_slice(&self.payload(item));
            head.extend_from_slice(&self.tail);
        }
        head.extend_from_slice(self.format.after_items());
        (request.payload, request.tail) = (Bytes::new(), Bytes::new());
    }

    fn write_ids(&self, item: u64, text: &mut Vec<u8>) {
        text.extend_from_slice(&self.pieces.before_recipient);
        self.ids.recipients().write_name(self.ids.recipient_of(item), text);
        text.extend_from_slice(&self.pieces.before_message);
        self.ids.write_message(item, text);
        text.extend_from_slice(&self.pieces.before_payload);
    }

    /// An item's payload; as base64, without its last group.
    fn payload(&self, item: u64) -> Bytes {
        let offset = usize::try_from(mix(item) % OFFSETS as u64).unwrap_or_default() * 4;
        self.text.slice(offset..offset + self.text_bytes)
    }
}

/// The number of items that a push stored: 0 or 1.
pub(super) fn stored(response: &ResponseSummary) -> u64 {
    u64::from(response.is_ok_with(Format::Json.stored()))
}

/// So many random bytes, or base64 of random bytes; then `text_bytes` is a multiple of 4.
fn random_text(format: Format, text_bytes: usize) -> Bytes {
    let random = (0..).flat_map(|word| mix(word).to_le_bytes());
    match format {
        Format::Json => STANDARD.encode(random.take(text_bytes / 4 * 3).collect::<Vec<u8>>()).into(),
        Format::Cbor => random.take(text_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use relay_core::Envelope;

    use super::*;

    /// Splits a request into its head and its body.
    fn split_request(request: &Request) -> (String, Vec<u8>) {
        let bytes: Vec<u8> = request.rest(0).iter().flat_map(|part| part.to_vec()).collect();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(bytes[..end - 4].to_vec()).unwrap();
        let body = bytes[end..].to_vec();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        (head, body)
    }

    fn decoded(format: Format, body: &[u8], payload_bytes: usize) -> Option<Envelope> {
        match format {
            Format::Json => relay_http::fuzzing::decode_push(body, payload_bytes as u64),
            Format::Cbor => relay_http::fuzzing::decode_push_cbor(body, payload_bytes as u64),
        }
    }

    #[test]
    fn a_push_is_valid() {
        for (format, payload_bytes) in [Format::Json, Format::Cbor]
            .into_iter()
            .flat_map(|format| [0, 1, 2, 3, 1024, 65_536].map(|bytes| (format, bytes)))
        {
            let mut push = Push::of(format, ItemIds::new(1, 10), payload_bytes, 5..7);
            let mut request = Request::default();
            let mut payloads = Vec::new();
            while push.next(&mut request) == Next::Send {
                let (head, body) = split_request(&request);
                assert!(head.starts_with("POST /push HTTP/1.1\r\nhost: "), "{head}");
                let envelope = decoded(format, &body, payload_bytes).unwrap();
                assert_eq!(envelope.payload.len(), payload_bytes);
                assert_eq!(envelope.total_len, payload_bytes as u64);
                payloads.push(envelope.payload);
            }
            assert_eq!(payloads.len(), 2);
            // The last group of base64 is the same in all.
            let same_bytes = if format == Format::Json { 0..3 } else { 0..1 };
            let are_same = same_bytes.contains(&payload_bytes);
            assert_eq!(payloads[0] == payloads[1], are_same, "{format:?}, {payload_bytes} bytes");
        }
    }

    #[test]
    fn a_batch_is_valid() {
        for format in [Format::Json, Format::Cbor] {
            let mut push = PushBatches::new(format, ItemIds::new(1, 10), 5, 3, 0..7);
            let mut request = Request::default();
            let mut counts = Vec::new();
            while push.next(&mut request) == Next::Send {
                let (_, body) = split_request(&request);
                counts.push(relay_http::fuzzing::batch_items(format == Format::Cbor, &body).unwrap());
            }
            assert_eq!(counts, [3, 3, 1]);
        }
    }
}
