//! Runs operations on a store and on the model, and compares the results. It uses only [`Relay`]
//! and the harness.

use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::message::{Envelope, ItemId, Recipient, Seq};
use crate::queue::{Ack, Page, Pull};
use crate::relay::Relay;
use crate::store::Item;
use crate::time::{Clock, Timestamp};

use super::contents::{Content, message_id};
use super::harness::Harness;
use super::operations::{CHUNKS, MESSAGES, Op, OpItem, RECIPIENTS, rules};
use super::{Failure, ManualClock, Model};

struct Trial<'a, H: Harness> {
    harness: &'a mut H,
    clock: Arc<ManualClock>,
    model: Model,
    /// The cursors of earlier pages: the queue, the store's cursor and the model's.
    cursors: Vec<(Recipient, Cursors)>,
}

/// A cursor of the store and the equivalent one of the model.
type Cursors = (Seq, Seq);

/// Runs `ops` on a new store, then compares all queues.
pub(super) fn run<H: Harness>(harness: &mut H, ops: &[Op], verify_every: usize) -> Result<(), Failure> {
    let clock = Arc::new(ManualClock::new());
    let [first, ..] = rules();
    let mut relay = harness.open(first.clone(), Arc::clone(&clock));
    let mut trial = Trial { harness, clock, model: Model::new(first), cursors: Vec::new() };
    for (number, op) in (1..).zip(ops) {
        let failure = |error| Failure::new(format!("operation {number}, {op:?}: {error}"));
        relay = trial.step(relay, op).map_err(failure)?;
        if number % verify_every.max(1) == 0 || number == ops.len() {
            trial.verify(&relay).map_err(failure)?;
        }
    }
    trial.pull_all(&relay).map_err(|error| Failure::new(format!("after all operations: {error}")))
}

impl<H: Harness> Trial<'_, H> {
    fn step(&mut self, relay: H::Relay, op: &Op) -> Result<H::Relay, String> {
        match op {
            Op::Push { recipient, item, payload_bytes, other_content, ttl_ms } => {
                let envelope = envelope(*recipient, *item, *payload_bytes, *other_content)?;
                self.push(&relay, Envelope { ttl_ms: *ttl_ms, ..envelope })?;
            }
            Op::Pull { recipient, after, max } => {
                let recipient = queue(*recipient)?;
                let after = after.and_then(|number| self.cursor(&recipient, number));
                self.pull(&relay, &recipient, after, max.and_then(NonZeroU64::new))?;
            }
            Op::Ack { recipient, items, through } => {
                let recipient = queue(*recipient)?;
                let through = through.and_then(|number| self.cursor(&recipient, number));
                self.ack(&relay, recipient, items, through)?;
            }
            Op::Purge { recipient } => {
                let ack = Ack::everything(queue(*recipient)?);
                self.ack_both(&relay, ack.clone(), &ack)?;
            }
            Op::Advance { ms } => self.clock.advance_ms(*ms),
            Op::SetBack { ms } => self.set_back(&relay, *ms)?,
            Op::Sweep => self.sweep(&relay)?,
            Op::Reopen { rules } => return Ok(self.reopen(relay, *rules)),
        }
        Ok(relay)
    }

    fn push(&mut self, relay: &H::Relay, envelope: Envelope) -> Result<(), String> {
        self.model.observe(self.clock.now());
        let got = match self.harness.block_on(relay.push(envelope.clone())) {
            Ok(outcome) => Ok(outcome),
            Err(Error::Rejected(rejection)) => Err(rejection),
            Err(error) => return Err(describe(&error)),
        };
        same(&got, &self.model.push(envelope))
    }

    fn pull(
        &mut self,
        relay: &H::Relay,
        recipient: &Recipient,
        after: Option<Cursors>,
        items_max: Option<NonZeroU64>,
    ) -> Result<Option<Cursors>, String> {
        self.model.observe(self.clock.now());
        let pull = |after| Pull { recipient: recipient.clone(), after, items_max };
        let expected = self.model.pull(&pull(after.map(|(_, model)| model)));
        let got = self.harness.block_on(relay.pull(pull(after.map(|(store, _)| store))));
        let got = got.map_err(|error| describe(&error))?;
        let next = got.next.zip(expected.next);
        self.cursors.extend(next.map(|cursors| (recipient.clone(), cursors)));
        same(&comparable(got), &comparable(expected))?;
        Ok(next)
    }

    fn ack(
        &mut self,
        relay: &H::Relay,
        recipient: Recipient,
        items: &[OpItem],
        through: Option<Cursors>,
    ) -> Result<(), String> {
        let items = items.iter().map(|item| item_id(*item)).collect::<Result<_, _>>()?;
        let ack = Ack::new(recipient, items).map_err(|rejection| rejection.to_string())?;
        match through {
            Some((store, model)) => {
                self.ack_both(relay, ack.clone().and_through(store), &ack.and_through(model))
            }
            None => self.ack_both(relay, ack.clone(), &ack),
        }
    }

    /// Sends an ack to the store, and the equivalent one to the model.
    fn ack_both(&mut self, relay: &H::Relay, to_store: Ack, to_model: &Ack) -> Result<(), String> {
        self.model.observe(self.clock.now());
        let got = self.harness.block_on(relay.ack(to_store)).map_err(|error| describe(&error))?;
        same(&got, &self.model.ack(to_model))
    }

    /// One of the earlier cursors of a queue.
    fn cursor(&self, recipient: &Recipient, number: usize) -> Option<Cursors> {
        let cursors = self.cursors.iter().filter(|(owner, _)| owner == recipient);
        let cursors: Vec<Cursors> = cursors.map(|(_, cursors)| *cursors).collect();
        cursors.get(number % cursors.len().max(1)).copied()
    }

    fn sweep(&mut self, relay: &H::Relay) -> Result<(), String> {
        self.model.observe(self.clock.now());
        let got = self.harness.sweep(relay).map_err(|error| describe(&error))?;
        same(&got, &self.model.sweep())
    }

    /// Sets the clock back after a pull, because a relay may read the clock only during requests.
    fn set_back(&mut self, relay: &H::Relay, ms: u64) -> Result<(), String> {
        self.pull(relay, &queue(0)?, None, None)?;
        let earlier = self.clock.now().as_ms().saturating_sub(ms);
        self.clock.set(Timestamp::from_ms(earlier));
        Ok(())
    }

    /// Reopens the store. First, a clock that was set back moves to the latest observed time,
    /// because a closed relay need not remember that time.
    fn reopen(&mut self, relay: H::Relay, number: usize) -> H::Relay {
        self.clock.set(self.clock.now().max(self.model.now()));
        let Some(limits) = rules().into_iter().nth(number) else { return relay };
        match self.harness.reopen(relay, limits.clone(), Arc::clone(&self.clock)) {
            Ok(reopened) => {
                self.model.reopen(limits);
                reopened
            }
            Err(relay) => relay,
        }
    }

    /// Pulls all pages of all queues.
    fn pull_all(&mut self, relay: &H::Relay) -> Result<(), String> {
        for number in 0..RECIPIENTS.len() {
            let recipient = queue(number)?;
            let mut after = self.pull(relay, &recipient, None, None)?;
            while after.is_some() {
                after = self.pull(relay, &recipient, after, None)?;
            }
        }
        Ok(())
    }

    fn verify(&mut self, relay: &H::Relay) -> Result<(), String> {
        let findings = self.harness.verify(relay);
        if findings.is_empty() { Ok(()) } else { Err(format!("verify: {}", findings.join("; "))) }
    }
}

fn queue(number: usize) -> Result<Recipient, String> {
    let recipient = RECIPIENTS.get(number).ok_or_else(|| format!("there is no queue {number}"))?;
    Recipient::parse(recipient).map_err(|rejection| rejection.to_string())
}

fn message(number: usize) -> Result<&'static str, String> {
    MESSAGES.get(number).copied().ok_or_else(|| format!("there is no message {number}"))
}

fn item_id(item: OpItem) -> Result<ItemId, String> {
    Ok(ItemId { message_id: message_id(message(item.message)?), chunk_index: item.chunk })
}

fn envelope(number: usize, item: OpItem, payload_bytes: usize, other: bool) -> Result<Envelope, String> {
    let content = Content {
        recipient: queue(number)?,
        message: message(item.message)?,
        chunk_index: item.chunk,
        chunk_count: CHUNKS,
        payload_bytes,
        ttl_ms: None,
        seed: if other { "other" } else { "" },
    };
    content.envelope().map_err(|rejection| rejection.to_string())
}

/// The parts of a page that store and model must agree on. The arrival numbers differ.
fn comparable(page: Page) -> (Vec<Item<Bytes>>, bool, u64) {
    let items = page.items.into_iter().map(|item| Item { seq: Seq::ZERO, ..item }).collect();
    (items, page.next.is_some(), page.remaining)
}

/// An error with its sources.
pub(super) fn describe(error: &Error) -> String {
    let mut text = format!("error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn same<T: PartialEq + std::fmt::Debug>(got: &T, expected: &T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("\n  expected: {expected:?}\n  got:      {got:?}")) }
}
