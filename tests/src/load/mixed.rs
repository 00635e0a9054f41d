//! Pushes, pulls if they are asked for, and acks of the same items some time later. The number of
//! items in the relay stays about the same.

use std::collections::VecDeque;
use std::ops::Range;

use super::ack::{Groups, deleted, write_ack};
use super::names::ItemIds;
use super::pull::{shown, write_pull};
use super::push::{PushWriter, stored};
use super::request::{Kind, Request};
use super::{Next, ResponseSummary, Workload};

/// Items are sorted by recipient in blocks of at most this many, which takes less than a
/// millisecond.
const BLOCK_ITEMS_MAX: u64 = 8192;

/// Pushes a range of items and acks each after `lag_items` further pushes. At the end all items are
/// acked.
#[derive(Debug)]
pub struct Mixed {
    ids: ItemIds,
    push: PushWriter,
    items: Range<u64>,
    lag_items: u64,
    block_items: u64,
    ack_batch: usize,
    /// Behind how many pushes a pull comes; 0: there are none.
    pull_every: u64,
    is_pull_due: bool,
    /// The number of pushes that have begun, and of items in acks that have begun.
    pushed: u64,
    acked: u64,
    /// The number of answered pushes in each block that is not in `groups` yet, oldest first.
    answered: VecDeque<u64>,
    /// The number of blocks that went into `groups`.
    blocks_done: u64,
    groups: Groups,
}

impl Mixed {
    /// Pushes `items` and acks each `lag_items` pushes later, at most `ack_batch` in one ack.
    pub fn new(
        ids: ItemIds,
        payload_bytes: usize,
        items: Range<u64>,
        lag_items: u64,
        ack_batch: usize,
    ) -> Self {
        Self {
            push: PushWriter::new(ids.clone(), payload_bytes),
            ids,
            items,
            lag_items,
            block_items: (lag_items / 4).clamp(1, BLOCK_ITEMS_MAX),
            ack_batch,
            pull_every: 0,
            is_pull_due: false,
            pushed: 0,
            acked: 0,
            answered: VecDeque::new(),
            blocks_done: 0,
            groups: Groups::default(),
        }
    }

    /// Each push carries a proof of its sender, who is a recipient too.
    #[must_use]
    pub const fn with_sender_proofs(mut self) -> Self {
        self.push.has_sender_proofs = true;
        self
    }

    /// Every so many pushes, the queue of the last one is pulled.
    #[must_use]
    pub const fn with_pulls(mut self, every: u64) -> Self {
        self.pull_every = every;
        self
    }

    fn items_max(&self) -> u64 {
        self.items.end.saturating_sub(self.items.start)
    }

    /// The oldest block that is not in `groups` yet, counted from the first item.
    fn oldest_block(&self) -> Range<u64> {
        let start = self.blocks_done.saturating_mul(self.block_items);
        start..start.saturating_add(self.block_items).min(self.items_max())
    }

    /// Moves the oldest block into `groups` once all of its pushes are answered.
    fn regroup(&mut self) {
        let block = self.oldest_block();
        if self.groups.is_done() && self.answered.front().is_some_and(|done| *done == block.end - block.start)
        {
            let first = self.items.start;
            self.groups = Groups::new(&self.ids, block.map(|item| first + item), self.ack_batch);
            self.answered.pop_front();
            self.blocks_done += 1;
        }
    }

    fn is_ack_due(&self) -> bool {
        self.pushed == self.items_max() || self.acked.saturating_add(self.lag_items) <= self.pushed
    }
}

impl Workload for Mixed {
    fn next(&mut self, request: &mut Request) -> Next {
        if self.is_ack_due() {
            self.regroup();
            if let Some(items) = self.groups.next() {
                self.acked += items.len() as u64;
                write_ack(&self.ids, items, request);
                return Next::Send;
            }
        }
        if std::mem::take(&mut self.is_pull_due) {
            write_pull(&self.ids, self.items.start + self.pushed - 1, request);
            return Next::Send;
        }
        if self.pushed < self.items_max() {
            self.push.write(self.items.start + self.pushed, request);
            self.pushed += 1;
            self.is_pull_due = self.pull_every > 0 && self.pushed.is_multiple_of(self.pull_every);
            return Next::Send;
        }
        if self.acked < self.pushed { Next::Wait } else { Next::End }
    }

    fn answered(&mut self, request: &Request, response: &ResponseSummary) -> u64 {
        match request.kind {
            Kind::Ack => return deleted(response),
            Kind::Pull => return shown(response),
            Kind::Push => {}
        }
        let block = (request.number - self.items.start) / self.block_items - self.blocks_done;
        let block = usize::try_from(block).unwrap_or(usize::MAX);
        if self.answered.len() <= block {
            self.answered.resize(block + 1, 0);
        }
        if let Some(done) = self.answered.get_mut(block) {
            *done += 1;
        }
        stored(response)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The message ids in a request.
    fn messages(request: &Request) -> Vec<String> {
        let text = String::from_utf8(request.head.clone()).unwrap();
        let ids = text.split(r#""message_id":""#).skip(1);
        ids.map(|name| name[..ItemIds::MESSAGE_BYTES].to_owned()).collect()
    }

    /// Runs the workload to its end with `connections` requests in flight, answered out of order.
    /// Asserts that each ack names answered items, and each item once. Returns how many items were
    /// pushed, and how many are left.
    fn run(items: Range<u64>, lag: u64, connections: usize) -> (usize, usize) {
        let mut mixed = Mixed::new(ItemIds::new(1, 50), 0, items, lag, 4);
        let (mut pushed, mut alive, mut waiting) = (0, HashSet::new(), Vec::new());
        loop {
            let mut request = Request::default();
            let next = mixed.next(&mut request);
            match (next, request.kind) {
                (Next::Send, Kind::Ack) => {
                    messages(&request).iter().for_each(|message| assert!(alive.remove(message), "{message}"));
                }
                (Next::Send, _) => waiting.push(request),
                (Next::Wait, _) => assert!(!waiting.is_empty(), "it waits, and no request is in flight"),
                (Next::End, _) => return (pushed, alive.len()),
            }
            assert!(mixed.pushed < mixed.acked + lag + 2 * mixed.block_items + connections as u64);
            if waiting.len() == connections || next == Next::Wait {
                // Answers the oldest and the newest request in turn.
                let request = waiting.remove((waiting.len() - 1) * (pushed % 2));
                mixed.answered(&request, &ResponseSummary::default());
                alive.extend(messages(&request));
                pushed += 1;
            }
        }
    }

    #[test]
    fn every_pushed_item_is_acked() {
        for (items, lag, connections) in
            [(0..0, 5, 1), (0..1, 0, 1), (7..1007, 100, 8), (0..999, 10_000, 3), (0..100, 1, 1)]
        {
            let count = usize::try_from(items.end - items.start).unwrap();
            assert_eq!(run(items.clone(), lag, connections), (count, 0), "{items:?} {lag} {connections}");
        }
    }

    #[test]
    fn a_pull_follows_every_so_many_pushes() {
        let mut mixed = Mixed::new(ItemIds::new(1, 50), 0, 0..1000, 100, 4).with_pulls(5);
        let mut kinds = Vec::new();
        for _ in 0..12 {
            let mut request = Request::default();
            assert_eq!(mixed.next(&mut request), Next::Send);
            mixed.answered(&request, &ResponseSummary::default());
            kinds.push(request.kind);
        }
        let five = [Kind::Push; 5];
        assert_eq!(kinds, [&five[..], &[Kind::Pull], &five, &[Kind::Pull]].concat());
    }
}
