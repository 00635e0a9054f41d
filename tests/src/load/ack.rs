//! Acks of items that were pushed before. Item numbers determine recipients and message ids, so no
//! list is kept.

use std::ops::Range;

use bytes::Bytes;

use super::names::ItemIds;
use super::request::{END_OF_HEAD, Kind, Request, open_head};
use super::{Next, ResponseSummary, Workload};

/// The beginning of the response to an ack.
const DELETED: &[u8] = br#"{"deleted":"#;

const BEFORE_RECIPIENT: &[u8] = br#"{"recipient":""#;
const BEFORE_ITEMS: &[u8] = br#"","ack":["#;
const BEFORE_MESSAGE: &[u8] = br#"{"message_id":""#;
const AFTER_MESSAGE: &[u8] = br#"","chunk_index":0},"#;
const END: &[u8] = b"]}";

/// Items grouped by recipient and divided into acks.
#[derive(Debug, Default)]
pub struct Groups {
    /// Recipient and item, sorted.
    items: Vec<(u64, u64)>,
    acks: Vec<Range<usize>>,
    begun: usize,
}

/// Sends the acks of all groups, one after the other.
#[derive(Debug)]
pub struct Ack {
    ids: ItemIds,
    groups: Groups,
}

impl Groups {
    /// Divides `items` into acks of at most `batch` items of one recipient.
    pub fn new(ids: &ItemIds, items: impl Iterator<Item = u64>, batch: usize) -> Self {
        let mut items: Vec<_> = items.map(|item| (ids.recipient_of(item), item)).collect();
        items.sort_unstable();
        let mut acks = Vec::new();
        let mut start = 0;
        for queue in items.chunk_by(|one, next| one.0 == next.0) {
            for ack in queue.chunks(batch.max(1)) {
                acks.push(start..start + ack.len());
                start += ack.len();
            }
        }
        Self { items, acks, begun: 0 }
    }

    /// Keeps only the acks of exactly `batch` items.
    #[must_use]
    pub fn only_of(mut self, batch: usize) -> Self {
        self.acks.retain(|ack| ack.len() == batch);
        self
    }

    /// The number of items in acks that have not begun.
    pub fn items_left(&self) -> u64 {
        self.acks.iter().skip(self.begun).map(|ack| ack.len() as u64).sum()
    }

    /// The items of the next ack, with their recipient.
    pub(super) fn next(&mut self) -> Option<&[(u64, u64)]> {
        let ack = self.acks.get(self.begun)?.clone();
        self.begun += 1;
        self.items.get(ack)
    }

    pub(super) const fn is_done(&self) -> bool {
        self.begun >= self.acks.len()
    }
}

impl Ack {
    /// A workload that sends all acks of `groups`.
    pub const fn new(ids: ItemIds, groups: Groups) -> Self {
        Self { ids, groups }
    }
}

impl Workload for Ack {
    fn next(&mut self, request: &mut Request) -> Next {
        let Some(items) = self.groups.next() else { return Next::End };
        write_ack(&self.ids, items, request);
        Next::Send
    }

    fn answered(&mut self, _: &Request, response: &ResponseSummary) -> u64 {
        deleted(response)
    }
}

/// Writes the ack of some items of one recipient.
pub(super) fn write_ack(ids: &ItemIds, items: &[(u64, u64)], request: &mut Request) {
    request.kind = Kind::Ack;
    request.number = items.len() as u64;
    (request.payload, request.tail) = (Bytes::new(), Bytes::new());
    let head = &mut request.head;
    let entry_bytes = BEFORE_MESSAGE.len() + ItemIds::MESSAGE_BYTES + AFTER_MESSAGE.len();
    // The last entry has no comma.
    let body_bytes = BEFORE_RECIPIENT.len()
        + ids.recipients().name_bytes()
        + BEFORE_ITEMS.len()
        + (items.len() * entry_bytes).saturating_sub(1)
        + END.len();
    open_head("/ack", body_bytes, head);
    let recipient = items.first().map_or(0, |first| first.0);
    ids.recipients().write_proof(recipient, head);
    head.extend_from_slice(END_OF_HEAD);
    head.extend_from_slice(BEFORE_RECIPIENT);
    ids.recipients().write_name(recipient, head);
    head.extend_from_slice(BEFORE_ITEMS);
    for (_, item) in items {
        head.extend_from_slice(BEFORE_MESSAGE);
        ids.write_message(*item, head);
        head.extend_from_slice(AFTER_MESSAGE);
    }
    if !items.is_empty() {
        head.pop();
    }
    head.extend_from_slice(END);
}

/// The number of items that an ack deleted.
pub(super) fn deleted(response: &ResponseSummary) -> u64 {
    response.number_after(DELETED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(groups: Groups, ids: ItemIds) -> Vec<relay_core::Ack> {
        let mut workload = Ack::new(ids, groups);
        let mut request = Request::default();
        let mut acks = Vec::new();
        while workload.next(&mut request) == Next::Send {
            let text = String::from_utf8(request.head.clone()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /ack HTTP/1.1\r\n"), "{head}");
            assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
            acks.push(relay_http::fuzzing::decode_ack(body.as_bytes()).unwrap());
        }
        acks
    }

    #[test]
    fn every_item_is_acked_once_at_its_recipient() {
        let ids = ItemIds::new(3, 7);
        let groups = Groups::new(&ids, 100..400, 10);
        assert_eq!(groups.items_left(), 300);
        let mut acked: Vec<_> = Vec::new();
        for ack in acks(groups, ids.clone()) {
            assert!(ack.items().len() <= 10);
            acked.extend(ack.items().iter().map(|item| (ack.recipient().clone(), item.message_id)));
        }
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut text = Vec::new();
            write(&mut text);
            String::from_utf8(text).unwrap()
        };
        let mut expected: Vec<_> = (100..400)
            .map(|item| {
                let recipient = text(&|text| ids.recipients().write_name(ids.recipient_of(item), text));
                let message = text(&|text| ids.write_message(item, text));
                (
                    relay_core::Recipient::parse(&recipient).unwrap(),
                    relay_core::MessageId::parse(&message).unwrap(),
                )
            })
            .collect();
        acked.sort();
        expected.sort();
        assert_eq!(acked, expected);
    }

    #[test]
    fn acks_can_be_of_one_size() {
        let ids = ItemIds::new(3, 7);
        let groups = Groups::new(&ids, 0..400, 16).only_of(16);
        let left = groups.items_left();
        let acks = acks(groups, ids);
        assert!(!acks.is_empty() && acks.iter().all(|ack| ack.items().len() == 16));
        assert_eq!(acks.len() as u64 * 16, left);
    }
}
