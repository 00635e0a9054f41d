//! The ledger of a story: it sends the requests, and records how the store answered them.

use futures_util::future::join_all;
use relay_core::{Ack, Clock, PushOutcome, Relay, Seq, Timestamp};
use relay_store_redb::RedbRelay;

use super::steps::{OnFailure, Step};
use crate::world::{OUTAGE_MAX, QUEUES, Stopwatch, World, envelope, id, recipient, retry};

/// What the ledger knows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemState {
    /// Its push was answered.
    Queued,
    /// Its push was sent and not answered.
    Unanswered,
    /// Its ack was answered, at this time.
    Acked(Timestamp),
    /// This ack contains it, and was not answered.
    AckUnanswered(usize),
}

#[derive(Clone, Debug)]
pub(super) struct SentItem {
    pub(super) number: u64,
    pub(super) queue: usize,
    pub(super) bytes: usize,
    pub(super) deadline: Timestamp,
    pub(super) state: ItemState,
    /// The arrival number that the item was pulled with.
    pub(super) seq: Option<Seq>,
    /// The largest visible arrival number when the item was sent. Its own must be larger, whatever
    /// fails in between.
    pub(super) last_seq_before: Seq,
}

/// All items that were sent, in the order of their arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(super) sent: Vec<SentItem>,
    /// How many acks were sent.
    pub(super) acks: usize,
    /// The largest arrival number that was ever visible. The store never uses it or a smaller one
    /// again, even if its item is removed.
    pub(super) last_seq: Seq,
}

/// An ack that is not answered yet.
struct PendingAck {
    ack: usize,
    queue: usize,
    numbers: Vec<u64>,
}

impl Ledger {
    /// Sends the requests of a story to a store. False if the story stopped at a failure.
    pub(crate) fn run(
        &mut self,
        world: &World,
        relay: &RedbRelay,
        story: &[Step],
        on_failure: OnFailure,
    ) -> bool {
        story.iter().all(|step| {
            let is_done = self.run_step(world, relay, *step, on_failure);
            self.check_last_seq(relay);
            is_done
        })
    }

    fn run_step(&mut self, world: &World, relay: &RedbRelay, step: Step, on_failure: OnFailure) -> bool {
        match step {
            Step::Push(count, bytes) => self.push(world, relay, count, bytes, on_failure),
            Step::AckAllBut(keep) => self.ack(world, relay, keep, on_failure),
            Step::Advance(ms) => {
                world.clock.advance_ms(ms);
                true
            }
            Step::Sweep => match on_failure {
                OnFailure::Stop => world.block_on(relay.sweep()).is_ok(),
                OnFailure::Retry => retry(|| world.block_on(relay.sweep())).is_some(),
            },
        }
    }

    /// Checks that the last arrival number never decreases, also in a store that was opened later.
    pub(super) fn check_last_seq(&mut self, relay: &RedbRelay) {
        let last = relay.last_arrival_number();
        assert!(
            last >= self.last_seq,
            "arrival number {:?} was visible, and now {last:?} is the last one",
            self.last_seq
        );
        self.last_seq = last;
    }

    /// Adds an item that is about to be sent.
    pub(super) fn add(&mut self, world: &World, number: u64, queue: usize, bytes: usize) {
        self.sent.push(SentItem {
            number,
            queue,
            bytes,
            deadline: world.clock.now().plus_ms(world.limits.ttl_ms),
            state: ItemState::Unanswered,
            seq: None,
            last_seq_before: self.last_seq,
        });
    }

    fn push(
        &mut self,
        world: &World,
        relay: &RedbRelay,
        count: u64,
        bytes: usize,
        on_failure: OnFailure,
    ) -> bool {
        let first = self.sent.len();
        for _ in 0..count {
            let number = self.sent.len();
            self.add(world, number as u64, number % QUEUES.len(), bytes);
        }
        let mut pending: Vec<usize> = (first..self.sent.len()).collect();
        let since = Stopwatch::start();
        while since.elapsed() < OUTAGE_MAX {
            let was_any_stored = self.sent.len() - first > pending.len();
            pending = self.send_pushes(world, relay, &pending);
            if pending.is_empty() {
                return true;
            }
            if on_failure == OnFailure::Stop {
                return false;
            }
            if !was_any_stored {
                self.expect_absent(world, relay, &pending);
            }
            // An item that is sent again arrives after those that were stored meanwhile.
            self.move_to_end(&mut pending);
            std::thread::yield_now();
        }
        panic!("pushes keep failing");
    }

    /// Pushes items, given by index, concurrently. Returns those that failed.
    fn send_pushes(&mut self, world: &World, relay: &RedbRelay, indexes: &[usize]) -> Vec<usize> {
        let pushes = indexes.iter().map(|index| {
            let SentItem { number, queue, bytes, .. } = self.sent[*index];
            relay.push(envelope(queue, number, bytes))
        });
        let outcomes = world.block_on(join_all(pushes));
        let mut failed = Vec::new();
        for (index, outcome) in indexes.iter().zip(outcomes) {
            match outcome {
                Ok(PushOutcome::Stored { .. }) => self.sent[*index].state = ItemState::Queued,
                Ok(duplicate) => panic!("item {index} is new, but the outcome is {duplicate:?}"),
                Err(_) => failed.push(*index),
            }
        }
        failed
    }

    /// Moves the unanswered items behind all others, and updates their indexes.
    fn move_to_end(&mut self, pending: &mut [usize]) {
        let (unanswered, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.state == ItemState::Unanswered);
        self.sent = others;
        for (index, sent) in pending.iter_mut().zip(unanswered) {
            *index = self.sent.len();
            self.sent.push(sent);
        }
    }

    /// Checks that items whose push failed are not visible.
    fn expect_absent(&self, world: &World, relay: &RedbRelay, failed: &[usize]) {
        for queue in 0..QUEUES.len() {
            let shown = retry(|| world.pull_all(relay, queue)).unwrap();
            for index in failed {
                let number = self.sent[*index].number;
                assert!(
                    shown.iter().all(|(shown, _)| *shown != number),
                    "the push of item {number} failed, but the item is visible"
                );
            }
        }
    }

    pub(super) fn ack(&mut self, world: &World, relay: &RedbRelay, keep: u64, on_failure: OnFailure) -> bool {
        let now = world.clock.now();
        let mut pending = self.plan_acks(now, keep);
        let since = Stopwatch::start();
        while since.elapsed() < OUTAGE_MAX {
            let requests = pending.iter().map(|PendingAck { queue, numbers, .. }| {
                let items = numbers.iter().copied().map(id).collect();
                relay.ack(Ack::new(recipient(*queue), items).unwrap())
            });
            let outcomes = world.block_on(join_all(requests));
            let mut failed = Vec::new();
            for (pending, outcome) in pending.into_iter().zip(outcomes) {
                let Ok(outcome) = outcome else {
                    failed.push(pending);
                    continue;
                };
                assert_eq!(outcome.deleted, pending.numbers.len() as u64, "all acked items exist");
                self.settle_ack(pending.ack, ItemState::Acked(now));
            }
            pending = failed;
            if pending.is_empty() || on_failure == OnFailure::Stop {
                return pending.is_empty();
            }
            std::thread::yield_now();
        }
        panic!("acks keep failing");
    }

    /// One ack per queue, of all live items except every n-th.
    fn plan_acks(&mut self, now: Timestamp, keep: u64) -> Vec<PendingAck> {
        let mut planned = Vec::new();
        for queue in 0..QUEUES.len() {
            self.acks += 1;
            let ack = self.acks;
            let is_live = |sent: &&mut SentItem| sent.is_live(queue, now);
            let mut numbers = Vec::new();
            for (position, sent) in (0_u64..).zip(self.sent.iter_mut().filter(is_live)) {
                if position % keep != 0 {
                    sent.state = ItemState::AckUnanswered(ack);
                    numbers.push(sent.number);
                }
            }
            if !numbers.is_empty() {
                planned.push(PendingAck { ack, queue, numbers });
            }
        }
        planned
    }

    pub(super) fn settle_ack(&mut self, ack: usize, state: ItemState) {
        for sent in self.sent.iter_mut().filter(|sent| sent.state == ItemState::AckUnanswered(ack)) {
            sent.state = state;
        }
    }

    pub(super) fn live(&self, queue: usize, now: Timestamp) -> impl Iterator<Item = &SentItem> {
        self.sent.iter().filter(move |sent| sent.is_live(queue, now))
    }

    /// How many items a pull would show.
    pub(crate) fn live_items(&self, world: &World) -> usize {
        let now = world.clock.now();
        (0..QUEUES.len()).map(|queue| self.live(queue, now).count()).sum()
    }
}

impl SentItem {
    fn is_live(&self, queue: usize, now: Timestamp) -> bool {
        self.queue == queue && self.state == ItemState::Queued && now < self.deadline
    }
}
