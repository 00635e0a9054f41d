//! Acks of items that were pushed before. Which those are is computed again from their numbers.

use std::io::Write as _;
use std::ops::Range;

use bytes::Bytes;

use super::names::Names;
use super::request::{Kind, Request};
use super::{Answer, Next, Workload};

/// How the answer to an ack begins.
const DELETED: &[u8] = br#"{"deleted":"#;

const BEFORE_RECIPIENT: &[u8] = br#"{"recipient":""#;
const BEFORE_ITEMS: &[u8] = br#"","ack":["#;
const BEFORE_MESSAGE: &[u8] = br#"{"message_id":""#;
const AFTER_MESSAGE: &[u8] = br#"","chunk_index":0},"#;
const END: &[u8] = b"]}";

/// Items by recipient, in acks of at most so many.
#[derive(Debug, Default)]
pub struct Groups {
    /// Recipient and item, sorted.
    items: Vec<(u64, u64)>,
    acks: Vec<Range<usize>>,
    begun: usize,
}

/// Acks all groups, one after the other.
#[derive(Debug)]
pub struct Ack {
    names: Names,
    groups: Groups,
}

impl Groups {
    /// The acks of `items` that name at most `batch` of them each.
    pub fn new(names: &Names, items: impl Iterator<Item = u64>, batch: usize) -> Self {
        let mut items: Vec<_> = items.map(|item| (names.recipient_of(item), item)).collect();
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

    /// Only the acks of exactly `batch` items.
    #[must_use]
    pub fn only_of(mut self, batch: usize) -> Self {
        self.acks.retain(|ack| ack.len() == batch);
        self
    }

    /// How many items are left to be acked.
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
    /// Acks of all `groups`.
    pub const fn new(names: Names, groups: Groups) -> Self {
        Self { names, groups }
    }
}

impl Workload for Ack {
    fn next(&mut self, request: &mut Request) -> Next {
        let Some(items) = self.groups.next() else { return Next::End };
        write_ack(&self.names, items, request);
        Next::Send
    }

    fn answered(&mut self, _: &Request, answer: &Answer) -> u64 {
        deleted(answer)
    }
}

/// Writes the ack of some items of one recipient.
pub(super) fn write_ack(names: &Names, items: &[(u64, u64)], request: &mut Request) {
    request.kind = Kind::Ack;
    request.number = items.len() as u64;
    (request.payload, request.tail) = (Bytes::new(), Bytes::new());
    let head = &mut request.head;
    head.clear();
    let entry_bytes = BEFORE_MESSAGE.len() + Names::MESSAGE_BYTES + AFTER_MESSAGE.len();
    // The last entry has no comma.
    let body_bytes = BEFORE_RECIPIENT.len()
        + Names::RECIPIENT_BYTES
        + BEFORE_ITEMS.len()
        + (items.len() * entry_bytes).saturating_sub(1)
        + END.len();
    // A buffer in memory takes all that is written to it.
    let _ = write!(
        head,
        "POST /ack HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {body_bytes}\r\n\r\n"
    );
    head.extend_from_slice(BEFORE_RECIPIENT);
    Names::write_recipient(items.first().map_or(0, |first| first.0), head);
    head.extend_from_slice(BEFORE_ITEMS);
    for (_, item) in items {
        head.extend_from_slice(BEFORE_MESSAGE);
        names.write_message(*item, head);
        head.extend_from_slice(AFTER_MESSAGE);
    }
    if !items.is_empty() {
        head.pop();
    }
    head.extend_from_slice(END);
}

/// How many items an ack has taken out.
pub(super) fn deleted(answer: &Answer) -> u64 {
    answer.number_after(DELETED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(groups: Groups, names: Names) -> Vec<relay_core::Ack> {
        let mut workload = Ack::new(names, groups);
        let mut request = Request::default();
        let mut acks = Vec::new();
        while workload.next(&mut request) == Next::Send {
            let text = String::from_utf8(request.head.clone()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /ack HTTP/1.1\r\n"), "{head}");
            assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
            acks.push(relay_http::codec::decode_ack(body.as_bytes()).unwrap());
        }
        acks
    }

    #[test]
    fn every_item_is_acked_once_at_its_recipient() {
        let names = Names::new(3, 7);
        let groups = Groups::new(&names, 100..400, 10);
        assert_eq!(groups.items_left(), 300);
        let mut named: Vec<_> = Vec::new();
        for ack in acks(groups, names) {
            assert!(ack.items().len() <= 10);
            named.extend(ack.items().iter().map(|item| (ack.recipient().clone(), item.message_id)));
        }
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut text = Vec::new();
            write(&mut text);
            String::from_utf8(text).unwrap()
        };
        let mut expected: Vec<_> = (100..400)
            .map(|item| {
                let recipient = text(&|text| Names::write_recipient(names.recipient_of(item), text));
                let message = text(&|text| names.write_message(item, text));
                (
                    relay_core::Recipient::parse(&recipient).unwrap(),
                    relay_core::MessageId::parse(&message).unwrap(),
                )
            })
            .collect();
        named.sort();
        expected.sort();
        assert_eq!(named, expected);
    }

    #[test]
    fn acks_can_be_of_one_size() {
        let names = Names::new(3, 7);
        let groups = Groups::new(&names, 0..400, 16).only_of(16);
        let left = groups.items_left();
        let acks = acks(groups, names);
        assert!(!acks.is_empty() && acks.iter().all(|ack| ack.items().len() == 16));
        assert_eq!(acks.len() as u64 * 16, left);
    }
}
