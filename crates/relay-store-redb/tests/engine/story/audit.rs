//! Compares a store with the ledger of its story.

use bytes::Bytes;
use relay_core::{Clock, Item, PushOutcome, Relay, Usage};
use relay_store_redb::RedbRelay;

use super::ledger::{ItemState, Ledger, SentItem};
use super::steps::OnFailure;
use crate::world::{QUEUES, World, envelope, number_of, payload, retry};

impl Ledger {
    /// Checks that every answered request took effect, that every unanswered one took effect fully
    /// or not at all, and that `verify` finds nothing.
    pub(crate) fn audit(&mut self, world: &World, relay: &RedbRelay) {
        let shown: Vec<_> = (0..QUEUES.len()).map(|queue| world.pull_items(relay, queue).unwrap()).collect();
        self.check_last_seq(relay);
        self.compare(world, &shown);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    }

    /// As [`Ledger::audit`], for a store that may still be recovering from a failure: repeats
    /// requests that fail.
    pub(crate) fn audit_with_retries(&mut self, world: &World, relay: &RedbRelay) {
        let shown: Vec<_> =
            (0..QUEUES.len()).map(|queue| retry(|| world.pull_items(relay, queue)).unwrap()).collect();
        self.check_last_seq(relay);
        self.compare(world, &shown);
        let findings = retry(|| Ok(relay.verify()?)).unwrap();
        assert_eq!(findings, Vec::<String>::new());
    }

    /// Compares what the queues show with the answered requests, and settles the unanswered ones.
    fn compare(&mut self, world: &World, shown: &[Vec<Item<Bytes>>]) {
        self.check_seqs(shown);
        let shown: Vec<Vec<_>> = shown
            .iter()
            .map(|items| items.iter().map(|item| (number_of(item.message_id), item.body.clone())).collect())
            .collect();
        self.settle_unanswered(world, |sent| {
            shown[sent.queue].iter().any(|(number, _)| *number == sent.number)
        });
        let now = world.clock.now();
        for (queue, shown) in shown.into_iter().enumerate() {
            let expected: Vec<_> =
                self.live(queue, now).map(|sent| (sent.number, payload(sent.number, sent.bytes))).collect();
            let numbers = |items: &[(u64, _)]| items.iter().map(|item| item.0).collect::<Vec<_>>();
            assert_eq!(numbers(&shown), numbers(&expected), "the items of queue {queue}");
            assert!(shown == expected, "a payload of queue {queue} is wrong");
        }
    }

    /// Decides for each unanswered request whether it took effect.
    fn settle_unanswered(&mut self, world: &World, is_shown: impl Fn(&SentItem) -> bool) {
        let now = world.clock.now();
        for ack in 1..=self.acks {
            let items: Vec<_> =
                self.sent.iter().filter(|sent| sent.state == ItemState::AckUnanswered(ack)).collect();
            let Some(first) = items.first().map(|sent| is_shown(sent)) else { continue };
            assert!(items.iter().all(|sent| is_shown(sent) == first), "an ack took effect partly");
            self.settle_ack(ack, if first { ItemState::Queued } else { ItemState::Acked(now) });
        }
        let mut is_any_absent = false;
        for sent in &mut self.sent {
            if sent.state == ItemState::Unanswered && now < sent.deadline {
                if is_shown(sent) {
                    assert!(!is_any_absent, "a later push is stored and an earlier one is not");
                    sent.state = ItemState::Queued;
                } else {
                    is_any_absent = true;
                }
            }
        }
        self.sent.retain(|sent| sent.state != ItemState::Unanswered);
    }

    /// Checks that an item keeps its arrival number, and that the number of a new item was not
    /// visible before the item was sent.
    fn check_seqs(&mut self, shown: &[Vec<Item<Bytes>>]) {
        for item in shown.iter().flatten() {
            let number = number_of(item.message_id);
            let Some(sent) = self.sent.iter_mut().find(|sent| sent.number == number) else { continue };
            let seq = *sent.seq.get_or_insert(item.seq);
            assert_eq!(item.seq, seq, "the arrival number of item {number} has changed");
            assert!(
                sent.last_seq_before < seq && seq <= self.last_seq,
                "item {number} has {seq:?}, expected more than {:?} and at most {:?}",
                sent.last_seq_before,
                self.last_seq
            );
        }
    }

    /// Checks that the store still works: it knows item ids and usage, takes new items, and
    /// delivers them.
    pub(crate) fn expect_usable(&mut self, world: &World, relay: &RedbRelay) {
        let now = world.clock.now();
        for sent in self.sent.iter().rev().take(20) {
            let SentItem { number, queue, bytes, .. } = *sent;
            let is_known = match sent.state {
                ItemState::Acked(at) => now < at.plus_ms(world.limits.dedup_window_ms),
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
            let deadline = now.plus_ms(world.limits.ttl_ms);
            assert_eq!(outcome, PushOutcome::Stored { usage, deadline });
            self.add(world, number, queue, 33);
            self.sent.last_mut().unwrap().state = ItemState::Queued;
        }
        assert!(self.ack(world, relay, 2, OnFailure::Stop));
        world.block_on(relay.sweep()).unwrap();
        self.audit(world, relay);
    }
}
