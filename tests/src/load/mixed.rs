//! Pushes, and acks of the same items some time later: a relay whose contents neither grow nor
//! shrink.

use std::collections::VecDeque;
use std::ops::Range;

use super::ack::{Groups, deleted, write_ack};
use super::names::Names;
use super::push::{PushWriter, stored};
use super::request::{Kind, Request};
use super::{Answer, Next, Workload};

/// Items are sorted by recipient in blocks of so many, which takes less than a millisecond.
const BLOCK_ITEMS_MAX: u64 = 8192;

/// Pushes the items of a range of numbers and acks each when `lag` more were pushed. At the end all
/// are acked.
#[derive(Debug)]
pub struct Mixed {
    names: Names,
    push: PushWriter,
    items: Range<u64>,
    lag_items: u64,
    block_items: u64,
    ack_batch: usize,
    /// How many pushes are begun, and how many items are named by acks that are begun.
    pushed: u64,
    acked: u64,
    /// How many pushes are answered in each block that is not in `groups` yet, the oldest first.
    answered: VecDeque<u64>,
    /// How many blocks went into `groups`.
    blocks_done: u64,
    groups: Groups,
}

impl Mixed {
    /// Pushes of `items`, each acked `lag_items` later in acks of at most `ack_batch`.
    pub fn new(
        names: Names,
        payload_bytes: usize,
        items: Range<u64>,
        lag_items: u64,
        ack_batch: usize,
    ) -> Self {
        Self {
            names,
            push: PushWriter::new(names, payload_bytes),
            items,
            lag_items,
            block_items: (lag_items / 4).clamp(1, BLOCK_ITEMS_MAX),
            ack_batch,
            pushed: 0,
            acked: 0,
            answered: VecDeque::new(),
            blocks_done: 0,
            groups: Groups::default(),
        }
    }

    fn items_max(&self) -> u64 {
        self.items.end.saturating_sub(self.items.start)
    }

    /// The numbers of the oldest block that is not in `groups` yet, counted from the first item.
    fn oldest_block(&self) -> Range<u64> {
        let start = self.blocks_done.saturating_mul(self.block_items);
        start..start.saturating_add(self.block_items).min(self.items_max())
    }

    /// Takes the oldest block up for acks if all of its pushes are answered.
    fn regroup(&mut self) {
        let block = self.oldest_block();
        if self.groups.is_done() && self.answered.front().is_some_and(|done| *done == block.end - block.start)
        {
            let first = self.items.start;
            self.groups = Groups::new(&self.names, block.map(|item| first + item), self.ack_batch);
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
                write_ack(&self.names, items, request);
                return Next::Send;
            }
        }
        if self.pushed < self.items_max() {
            self.push.write(self.items.start + self.pushed, request);
            self.pushed += 1;
            return Next::Send;
        }
        if self.acked < self.pushed { Next::Wait } else { Next::End }
    }

    fn answered(&mut self, request: &Request, answer: &Answer) -> u64 {
        if request.kind == Kind::Ack {
            return deleted(answer);
        }
        let block = (request.number - self.items.start) / self.block_items - self.blocks_done;
        let block = usize::try_from(block).unwrap_or(usize::MAX);
        if self.answered.len() <= block {
            self.answered.resize(block + 1, 0);
        }
        if let Some(done) = self.answered.get_mut(block) {
            *done += 1;
        }
        stored(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The names of the messages in a request.
    fn messages(request: &Request) -> Vec<String> {
        let text = String::from_utf8(request.head.clone()).unwrap();
        let names = text.split(r#""message_id":""#).skip(1);
        names.map(|name| name[..Names::MESSAGE_BYTES].to_owned()).collect()
    }

    /// Runs it to its end with `connections` requests at once, answered out of order. What is acked
    /// must have been answered before, and is acked once. Tells how many were pushed, and how many
    /// are left.
    fn run(items: Range<u64>, lag: u64, connections: usize) -> (usize, usize) {
        let mut mixed = Mixed::new(Names::new(1, 50), 0, items, lag, 4);
        let (mut pushed, mut alive, mut waiting) = (0, HashSet::new(), Vec::new());
        loop {
            let mut request = Request::default();
            let next = mixed.next(&mut request);
            match (next, request.kind) {
                (Next::Send, Kind::Ack) => {
                    messages(&request).iter().for_each(|message| assert!(alive.remove(message), "{message}"));
                }
                (Next::Send, _) => waiting.push(request),
                (Next::Wait, _) => assert!(!waiting.is_empty(), "it waits for nothing"),
                (Next::End, _) => return (pushed, alive.len()),
            }
            assert!(mixed.pushed < mixed.acked + lag + 2 * mixed.block_items + connections as u64);
            if waiting.len() == connections || next == Next::Wait {
                // The oldest and the youngest in turns.
                let request = waiting.remove((waiting.len() - 1) * (pushed % 2));
                mixed.answered(&request, &Answer::default());
                alive.extend(messages(&request));
                pushed += 1;
            }
        }
    }

    #[test]
    fn all_that_is_pushed_is_acked() {
        for (items, lag, connections) in
            [(0..0, 5, 1), (0..1, 0, 1), (7..1007, 100, 8), (0..999, 10_000, 3), (0..100, 1, 1)]
        {
            let count = usize::try_from(items.end - items.start).unwrap();
            assert_eq!(run(items.clone(), lag, connections), (count, 0), "{items:?} {lag} {connections}");
        }
    }
}
