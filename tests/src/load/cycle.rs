//! The life of an item as real clients see it: it is pushed, its queue is pulled, and it is acked,
//! one after the other. Other items are at other points of their lives meanwhile.

use std::collections::VecDeque;
use std::ops::Range;

use super::ack::{deleted, write_ack};
use super::names::ItemIds;
use super::pull::{shown, write_pull};
use super::push::{PushWriter, stored};
use super::request::{Kind, Request};
use super::{Next, ResponseSummary, Workload};

/// Pushes, pulls and acks each item of a range.
#[derive(Debug)]
pub struct Cycle {
    ids: ItemIds,
    push: PushWriter,
    items: Range<u64>,
    /// Requests that may begin, because the one before was answered.
    due: VecDeque<(Kind, u64)>,
    in_flight: u64,
}

impl Cycle {
    /// Cycles of `items`, each with `payload_bytes` of payload.
    pub fn new(ids: ItemIds, payload_bytes: usize, items: Range<u64>) -> Self {
        let push = PushWriter::new(ids.clone(), payload_bytes);
        Self { ids, push, items, due: VecDeque::new(), in_flight: 0 }
    }

    /// Each push carries a proof of its sender, who is a recipient too.
    #[must_use]
    pub const fn with_sender_proofs(mut self) -> Self {
        self.push.has_sender_proofs = true;
        self
    }
}

impl Workload for Cycle {
    fn next(&mut self, request: &mut Request) -> Next {
        match self.due.pop_front() {
            Some((Kind::Pull, item)) => write_pull(&self.ids, item, request),
            Some((_, item)) => write_ack(&self.ids, &[(self.ids.recipient_of(item), item)], request),
            None => match self.items.next() {
                Some(item) => self.push.write(item, request),
                None if self.in_flight > 0 => return Next::Wait,
                None => return Next::End,
            },
        }
        self.in_flight += 1;
        Next::Send
    }

    /// A page counts as one item, if there is one in it.
    fn answered(&mut self, request: &Request, response: &ResponseSummary) -> u64 {
        self.in_flight = self.in_flight.saturating_sub(1);
        match request.kind {
            Kind::Push => {
                self.due.push_back((Kind::Pull, request.number));
                stored(response)
            }
            Kind::Pull => {
                self.due.push_back((Kind::Ack, request.number));
                shown(response)
            }
            Kind::Ack => deleted(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kinds of requests that name this item's recipient or message, in the order sent.
    #[test]
    fn an_item_is_pushed_then_pulled_then_acked() {
        let ids = ItemIds::new(1, 50);
        let mut cycle = Cycle::new(ids, 10, 5..25);
        let mut waiting: VecDeque<Request> = VecDeque::new();
        let mut kinds = Vec::new();
        loop {
            let mut request = Request::default();
            match cycle.next(&mut request) {
                Next::Send => {
                    kinds.push(request.kind);
                    waiting.push_back(request);
                }
                Next::Wait => assert!(!waiting.is_empty(), "it waits, and no request is in flight"),
                Next::End => break,
            }
            if waiting.len() == 3 || cycle.items.is_empty() {
                let request = waiting.pop_front().unwrap();
                cycle.answered(&request, &ResponseSummary::default());
            }
        }
        for kind in Kind::ALL {
            assert_eq!(kinds.iter().filter(|&&sent| sent == kind).count(), 20, "{kind:?}");
        }
        assert_eq!(kinds[..6], [Kind::Push, Kind::Push, Kind::Push, Kind::Pull, Kind::Pull, Kind::Pull]);
    }
}
