//! A story: requests in an order that makes everything happen, and a ledger of what was answered,
//! against which a store is audited later. The ledger does not know how a store works.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use relay_core::{Ack, Clock, Error, Item, PushOutcome, Relay, Seq, Timestamp, Usage};
use relay_store_redb::RedbRelay;

use crate::world::{QUEUES, Stopwatch, World, envelope, id, number_of, payload, recipient};

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// So many pushes at once, of so many bytes each, to all queues in turn.
    Push(u64, usize),
    /// For each queue at once, an ack of all that is there except each so-manieth item.
    AckAllBut(u64),
    /// Time passes, in milliseconds.
    Advance(u64),
    /// Reclaim.
    Sweep,
}

/// Fills several segments, empties some, leaves others sparse, lets time take items and names, and
/// begins again. Twice the queues come to hold so many items that these get rows of their own, and
/// lose them again: once to acks, once to time.
pub(crate) const STORY: &[Step] = &[
    Step::Push(12, 200),
    Step::Push(12, 300),
    Step::Push(135, 40),
    Step::AckAllBut(6),
    Step::Sweep,
    Step::Advance(400),
    Step::Push(12, 250),
    Step::AckAllBut(5),
    Step::Sweep,
    Step::Advance(1_100),
    Step::Sweep,
    Step::Push(9, 600),
    Step::Push(140, 40),
    Step::Advance(400),
    Step::Push(12, 250),
    Step::AckAllBut(3),
    Step::Sweep,
    Step::Advance(700),
    Step::Sweep,
    Step::Push(6, 150),
    Step::Push(3, 2_500),
];

/// What is known of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its push was answered.
    Queued,
    /// Its push was sent and not answered.
    Unanswered,
    /// Its ack was answered, at this time.
    Acked(Timestamp),
    /// It was named in this ack, which was not answered.
    Unsure(usize),
}

#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    queue: usize,
    bytes: usize,
    deadline: Timestamp,
    fate: Fate,
    /// The arrival number that it was shown with.
    seq: Option<Seq>,
    /// The largest one that could be seen when it was sent. Its own must be larger, whatever
    /// happened in between.
    behind: Seq,
}

/// All that was ever sent, in that order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    sent: Vec<Sent>,
    acks: usize,
    /// The largest arrival number that could ever be seen: none up to it is given away again, also
    /// once its item is gone.
    last_seq: Seq,
}

/// How a teller of a story takes failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What fails was sent once, and its outcome is open. The story ends there.
    Once,
    /// What fails must have had no effect, and is sent again.
    Again,
}

/// So long something may fail that is sent again and again. The store tries a checkpoint again
/// after a second, and refuses what does not fit in memory until then; an index that cannot be
/// opened anew it tries again after a second as well. No story has more than three failures.
const OUTAGE_MAX: Duration = Duration::from_secs(5);

impl Ledger {
    /// Tells a story to a store. False when something was not answered.
    pub(crate) fn tell(&mut self, world: &World, relay: &RedbRelay, story: &[Step], manner: Manner) -> bool {
        story.iter().all(|step| {
            let is_done = self.tell_step(world, relay, *step, manner);
            self.note_numbers(relay);
            is_done
        })
    }

    fn tell_step(&mut self, world: &World, relay: &RedbRelay, step: Step, manner: Manner) -> bool {
        match step {
            Step::Push(count, bytes) => self.push(world, relay, count, bytes, manner),
            Step::AckAllBut(keep) => self.ack(world, relay, keep, manner),
            Step::Advance(ms) => {
                world.clock.advance_ms(ms);
                true
            }
            Step::Sweep => match manner {
                Manner::Once => world.block_on(relay.sweep()).is_ok(),
                Manner::Again => again(|| world.block_on(relay.sweep())).is_some(),
            },
        }
    }

    /// Counters that were given away stay so: a store, this one or one that was opened after it,
    /// knows of all that could be seen.
    fn note_numbers(&mut self, relay: &RedbRelay) {
        let last = relay.last_arrival_number();
        assert!(
            last >= self.last_seq,
            "number {:?} could be seen, and {last:?} is the last one",
            self.last_seq
        );
        self.last_seq = last;
    }

    fn push(&mut self, world: &World, relay: &RedbRelay, count: u64, bytes: usize, manner: Manner) -> bool {
        let now = world.clock.now();
        let first = self.sent.len();
        for _ in 0..count {
            let number = self.sent.len() as u64;
            let queue = usize::try_from(number).unwrap() % QUEUES.len();
            let deadline = now.plus_ms(world.limits.ttl_ms);
            let behind = self.last_seq;
            self.sent.push(Sent {
                number,
                queue,
                bytes,
                deadline,
                fate: Fate::Unanswered,
                seq: None,
                behind,
            });
        }
        let mut waiting: Vec<usize> = (first..self.sent.len()).collect();
        let since = Stopwatch::start();
        while since.elapsed() < OUTAGE_MAX {
            let pushes = waiting.iter().map(|index| {
                let Sent { number, queue, bytes, .. } = self.sent[*index];
                relay.push(envelope(queue, number, bytes))
            });
            let outcomes = world.block_on(join_all(pushes));
            let failed_before = waiting.len() < usize::try_from(count).unwrap();
            for (index, outcome) in std::mem::take(&mut waiting).into_iter().zip(outcomes) {
                match outcome {
                    Ok(PushOutcome::Stored { .. }) => self.sent[index].fate = Fate::Queued,
                    Ok(duplicate) => panic!("item {index} is new, and the answer is {duplicate:?}"),
                    Err(_) => waiting.push(index),
                }
            }
            if waiting.is_empty() {
                return true;
            }
            if manner == Manner::Once {
                return false;
            }
            if !failed_before {
                self.expect_absent(world, relay, &waiting);
            }
            // An item that is sent again arrives behind those that were stored meanwhile.
            self.move_to_the_end(&mut waiting);
            std::thread::yield_now();
        }
        panic!("pushes keep failing");
    }

    fn move_to_the_end(&mut self, waiting: &mut [usize]) {
        let (late, on_time): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.fate == Fate::Unanswered);
        self.sent = on_time;
        for (place, sent) in waiting.iter_mut().zip(late) {
            *place = self.sent.len();
            self.sent.push(sent);
        }
    }

    /// What failed cannot be seen.
    fn expect_absent(&self, world: &World, relay: &RedbRelay, failed: &[usize]) {
        for queue in 0..QUEUES.len() {
            let shown = again(|| world.pull_all(relay, queue)).unwrap();
            for index in failed {
                let number = self.sent[*index].number;
                assert!(
                    shown.iter().all(|(shown, _)| *shown != number),
                    "item {number} was refused and is there"
                );
            }
        }
    }

    fn ack(&mut self, world: &World, relay: &RedbRelay, keep: u64, manner: Manner) -> bool {
        let now = world.clock.now();
        let mut acks = Vec::new();
        for queue in 0..QUEUES.len() {
            self.acks += 1;
            let mut named = Vec::new();
            let live =
                |sent: &&mut Sent| sent.queue == queue && sent.fate == Fate::Queued && now < sent.deadline;
            for (place, sent) in (0_u64..).zip(self.sent.iter_mut().filter(live)) {
                if place % keep != 0 {
                    sent.fate = Fate::Unsure(self.acks);
                    named.push(sent.number);
                }
            }
            if !named.is_empty() {
                acks.push((self.acks, queue, named));
            }
        }
        let since = Stopwatch::start();
        while since.elapsed() < OUTAGE_MAX {
            let requests = acks.iter().map(|(_, queue, named)| {
                let items = named.iter().copied().map(id).collect();
                relay.ack(Ack::new(recipient(*queue), items).unwrap())
            });
            let outcomes = world.block_on(join_all(requests));
            let mut failed = Vec::new();
            for (ack, outcome) in std::mem::take(&mut acks).into_iter().zip(outcomes) {
                match outcome {
                    Ok(outcome) => {
                        assert_eq!(outcome.deleted, ack.2.len() as u64, "an ack of what is there");
                        self.settle_ack(ack.0, Fate::Acked(now));
                    }
                    Err(_) => failed.push(ack),
                }
            }
            acks = failed;
            if acks.is_empty() || manner == Manner::Once {
                return acks.is_empty();
            }
            std::thread::yield_now();
        }
        panic!("acks keep failing");
    }

    fn settle_ack(&mut self, ack: usize, fate: Fate) {
        for sent in self.sent.iter_mut().filter(|sent| sent.fate == Fate::Unsure(ack)) {
            sent.fate = fate;
        }
    }

    /// Looks at a store: everything that was answered is so, what was open is whole or absent, and
    /// all adds up.
    pub(crate) fn audit(&mut self, world: &World, relay: &RedbRelay) {
        let shown: Vec<_> = (0..QUEUES.len()).map(|queue| world.pull_items(relay, queue).unwrap()).collect();
        self.note_numbers(relay);
        self.judge(world, &shown);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    }

    /// As [`Ledger::audit`], while the store may still be busy getting over a failure: what fails
    /// is asked again.
    pub(crate) fn audit_patiently(&mut self, world: &World, relay: &RedbRelay) {
        let shown: Vec<_> =
            (0..QUEUES.len()).map(|queue| again(|| world.pull_items(relay, queue)).unwrap()).collect();
        self.note_numbers(relay);
        self.judge(world, &shown);
        let findings = again(|| Ok(relay.verify()?)).unwrap();
        assert_eq!(findings, Vec::<String>::new());
    }

    /// Compares what the queues show with what was answered, and takes note of what was open.
    fn judge(&mut self, world: &World, items: &[Vec<Item<Bytes>>]) {
        let now = world.clock.now();
        let mut unanswered_is_over = false;
        self.judge_numbers(items);
        let told = |item: &Item<Bytes>| (number_of(item.message_id), item.body.clone());
        let shown: Vec<Vec<_>> = items.iter().map(|items| items.iter().map(told).collect()).collect();
        let is_shown = |sent: &Sent| shown[sent.queue].iter().any(|(number, _)| *number == sent.number);
        for ack in 1..=self.acks {
            let named: Vec<_> = self.sent.iter().filter(|sent| sent.fate == Fate::Unsure(ack)).collect();
            let Some(first) = named.first().map(|sent| is_shown(sent)) else { continue };
            assert!(named.iter().all(|sent| is_shown(sent) == first), "half of an ack was done");
            self.settle_ack(ack, if first { Fate::Queued } else { Fate::Acked(now) });
        }
        for sent in &mut self.sent {
            if sent.fate == Fate::Unanswered && now < sent.deadline {
                let is_there = is_shown(sent);
                assert!(
                    !(is_there && unanswered_is_over),
                    "a later batch is there and an earlier one is not"
                );
                unanswered_is_over |= !is_there;
                if is_there {
                    sent.fate = Fate::Queued;
                }
            }
        }
        self.sent.retain(|sent| sent.fate != Fate::Unanswered);
        for (queue, shown) in shown.into_iter().enumerate() {
            let expected: Vec<_> =
                self.live(queue, now).map(|sent| (sent.number, payload(sent.number, sent.bytes))).collect();
            let numbers = |items: &[(u64, _)]| items.iter().map(|item| item.0).collect::<Vec<_>>();
            assert_eq!(numbers(&shown), numbers(&expected), "what is in queue {queue}");
            assert!(shown == expected, "a payload of queue {queue} is wrong");
        }
    }

    /// An item keeps its arrival number, and one that is new has one that could not be seen before
    /// it was sent.
    fn judge_numbers(&mut self, shown: &[Vec<Item<Bytes>>]) {
        for item in shown.iter().flatten() {
            let number = number_of(item.message_id);
            let Some(sent) = self.sent.iter_mut().find(|sent| sent.number == number) else { continue };
            let seq = *sent.seq.get_or_insert(item.seq);
            assert_eq!(item.seq, seq, "item {number} had another arrival number");
            assert!(
                sent.behind < seq && seq <= self.last_seq,
                "item {number} has {seq:?}, not behind {:?}",
                sent.behind
            );
        }
    }

    fn live(&self, queue: usize, now: Timestamp) -> impl Iterator<Item = &Sent> {
        let is_live =
            move |sent: &&Sent| sent.queue == queue && sent.fate == Fate::Queued && now < sent.deadline;
        self.sent.iter().filter(is_live)
    }

    /// The store goes on: it knows names and usage, takes new items, and gives them out.
    pub(crate) fn go_on(&mut self, world: &World, relay: &RedbRelay) {
        let now = world.clock.now();
        for sent in self.sent.iter().rev().take(20) {
            let Sent { number, queue, bytes, .. } = *sent;
            let is_known = match sent.fate {
                Fate::Acked(at) => now < at.plus_ms(world.limits.dedup_window_ms),
                _ => now < sent.deadline,
            };
            if is_known {
                let outcome = world.block_on(relay.push(envelope(queue, number, bytes))).unwrap();
                assert!(
                    matches!(outcome, PushOutcome::Duplicate { conflict: false, .. }),
                    "item {number}: {outcome:?}"
                );
            }
        }
        for queue in 0..QUEUES.len() {
            let number = 1_000_000 + self.sent.len() as u64;
            let live = self.live(queue, now).map(|sent| Usage::of(sent.bytes as u64)).sum::<Usage>();
            let usage = live.plus(Usage::of(33));
            let outcome = world.block_on(relay.push(envelope(queue, number, 33))).unwrap();
            assert_eq!(outcome, PushOutcome::Stored { usage });
            let deadline = now.plus_ms(world.limits.ttl_ms);
            let behind = self.last_seq;
            self.sent.push(Sent {
                number,
                queue,
                bytes: 33,
                deadline,
                fate: Fate::Queued,
                seq: None,
                behind,
            });
        }
        assert!(self.ack(world, relay, 2, Manner::Once));
        world.block_on(relay.sweep()).unwrap();
        self.audit(world, relay);
    }

    /// How many items a pull would show.
    pub(crate) fn live_items(&self, world: &World) -> usize {
        let now = world.clock.now();
        (0..QUEUES.len()).map(|queue| self.live(queue, now).count()).sum()
    }
}

/// Does something until it works; `None` if it does not in time.
pub(crate) fn again<T>(mut act: impl FnMut() -> Result<T, Error>) -> Option<T> {
    let since = Stopwatch::start();
    while since.elapsed() < OUTAGE_MAX {
        if let Ok(done) = act() {
            return Some(done);
        }
        std::thread::yield_now();
    }
    None
}
