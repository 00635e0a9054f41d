//! Scenarios: requests to a relay and its expected answers, as text.
//!
//! Each line is a command and, after an arrow, its expected answer. `#` starts a comment, and blank
//! lines are ignored. Only `advance` and `clock` move the clock.
//!
//! ```text
//! limits items=3 bytes=100 message=50 ttl=15d dedup=300s page=2 page_bytes=64   # must come first
//!
//! push alice m1/0 10B -> stored 1/10B            # message m1, chunk 0 of 1, 10 bytes, generated
//! push alice m1/0 10B -> duplicate 1/10B
//! push alice m1/0 10B:x -> conflict 1/10B        # another payload
//! push alice m2/0of3 95B -> rejected too_large 50
//! push alice m3/0 1B ttl 5s -> stored 2/11B      # with a TTL of its own
//! push "a/../b" m1/0 0B -> stored 1/0B           # also: \" \\ \n \t \u{1F980}, "ab"*3
//!
//! pull alice -> m1/0 m2/0 | next remaining 3     # `next`: has a cursor; (empty): has no items
//! pull alice max 1 as c1 -> m1/0 | next remaining 4
//! pull alice after c1 times -> m2/0@0s..15d      # arrival and deadline, since the start
//!
//! ack alice m1/0 m9/0 -> deleted 1 missing 1 remaining 4
//! ack alice m1/0 through c1 -> deleted 2 missing 0 remaining 1   # and all up to the cursor
//! purge alice -> deleted 1 missing 0 remaining 0
//! sweep -> reclaimed 3 forgotten 1
//! advance 14d23h                                 # d h m s ms
//! clock -2h                                      # sets the clock back
//! reopen ttl=1d                                  # reopens the store with changed limits
//! set ttl=1d                                     # changes limits while the store is open
//! verify                                         # verifies the store; implied at the end
//! ```
//!
//! Refusals are `rejected quota count 3/3`, `rejected quota bytes 90/100` (usage and quota) and
//! `rejected too_large 50`. A pulled item is compared with the pushed one, and the answer lists the
//! differences.
//!
//! A relay may read the clock only during requests, so a scenario should pull before `clock`. A
//! reopening before the clock has caught up has no defined result.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Rejection};
use crate::message::{Envelope, ItemId, MessageId, Recipient, Seq};
use crate::queue::{Ack, Page, Pull, PushOutcome};
use crate::relay::Relay;
use crate::store::Item;
use crate::time::{Clock, Timestamp};

use super::harness::Harness;
use super::parse::{Command, Parsed, PullCommand, Step, parse};
use super::trial::describe;
use super::words::UNITS_MS;
use super::{Failure, ManualClock};

/// A parsed scenario.
#[derive(Debug)]
pub struct Scenario {
    file: String,
    parsed: Parsed,
}

impl Scenario {
    /// Parses a scenario. Failures name it `file`.
    ///
    /// # Errors
    /// The file, the line and the expected text.
    pub fn parse(file: &str, text: &str) -> Result<Self, Failure> {
        let parsed = parse(text).map_err(|(line, what)| Failure::new(format!("{file}:{line}: {what}")))?;
        Ok(Self { file: file.to_owned(), parsed })
    }

    /// Runs the scenario on a new store. At a `reopen`, it succeeds early if the store keeps
    /// nothing, and at a `set` if its limits do not change.
    ///
    /// # Errors
    /// The file and the first failed line, with the expected and the actual answer.
    pub fn run<H: Harness>(&self, harness: &mut H) -> Result<(), Failure> {
        let clock = Arc::new(ManualClock::new());
        let mut relay = harness.open(self.parsed.limits.clone(), Arc::clone(&clock));
        let mut run = Run {
            harness,
            clock,
            labels: &self.parsed.labels,
            stored: HashMap::new(),
            cursors: HashMap::new(),
        };
        for step in &self.parsed.steps {
            let Some((open, got)) = run.step(relay, &step.command) else { return Ok(()) };
            relay = open;
            if got != step.expected {
                return Err(self.mismatch(step, &got));
            }
        }
        let findings = run.verify(&relay);
        if findings.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("{}: verify at the end: {findings}", self.file)))
    }

    fn mismatch(&self, step: &Step, got: &str) -> Failure {
        let (file, Step { line, text, expected, .. }) = (&self.file, step);
        let expected = if expected.is_empty() { "(no findings)" } else { expected };
        Failure::new(format!("{file}:{line}: {text}\n  expected: {expected}\n  got:      {got}"))
    }
}

struct Run<'a, H: Harness> {
    harness: &'a mut H,
    clock: Arc<ManualClock>,
    labels: &'a HashMap<MessageId, String>,
    /// The last stored item under each id.
    stored: HashMap<(Recipient, ItemId), Envelope>,
    cursors: HashMap<String, Seq>,
}

impl<H: Harness> Run<'_, H> {
    /// Runs one command and formats the answer as in a scenario. It returns `None` if the store
    /// cannot be reopened, or does not change its limits.
    fn step(&mut self, relay: H::Relay, command: &Command) -> Option<(H::Relay, String)> {
        let answer = match command {
            Command::Push { envelope } => self.push(&relay, envelope),
            Command::Pull(pull) => self.pull(&relay, pull),
            Command::Ack { recipient, items, through } => {
                self.ack(&relay, recipient, items, through.as_deref())
            }
            Command::Purge { recipient } => self.answer_ack(&relay, Ack::everything(recipient.clone())),
            Command::Sweep => match self.harness.sweep(&relay) {
                Ok(swept) => format!("reclaimed {} forgotten {}", swept.items, swept.forgotten),
                Err(error) => describe(&error),
            },
            Command::Verify => self.verify(&relay),
            Command::Advance { ms } => {
                self.clock.advance_ms(*ms);
                String::new()
            }
            Command::SetBack { ms } => {
                self.clock.set(Timestamp::from_ms(self.clock.now().as_ms().saturating_sub(*ms)));
                String::new()
            }
            Command::Reopen { limits } => {
                let reopened = self.harness.reopen(relay, limits.clone(), Arc::clone(&self.clock));
                return reopened.ok().map(|relay| (relay, String::new()));
            }
            Command::Set { limits } if relay.set_limits(limits) => String::new(),
            Command::Set { .. } => return None,
        };
        Some((relay, answer))
    }

    fn push(&mut self, relay: &H::Relay, envelope: &Envelope) -> String {
        match self.harness.block_on(relay.push(envelope.clone())) {
            Ok(PushOutcome::Stored { usage, .. }) => {
                self.stored.insert((envelope.recipient.clone(), envelope.id()), envelope.clone());
                format!("stored {}/{}B", usage.items, usage.bytes)
            }
            Ok(PushOutcome::Duplicate { usage, conflict, .. }) => {
                let word = if conflict { "conflict" } else { "duplicate" };
                format!("{word} {}/{}B", usage.items, usage.bytes)
            }
            Err(Error::Rejected(Rejection::QuotaExceeded { reason, limit, used })) => {
                format!("rejected quota {reason} {used}/{limit}")
            }
            Err(Error::Rejected(Rejection::MessageTooLarge { limit })) => {
                format!("rejected too_large {limit}")
            }
            Err(error) => describe(&error),
        }
    }

    fn pull(&mut self, relay: &H::Relay, pull: &PullCommand) -> String {
        let PullCommand { recipient, after, items_max, cursor, times } = pull;
        let mut request = Pull { recipient: recipient.clone(), after: None, items_max: *items_max };
        if let Some(label) = after {
            request.after = self.cursors.get(label).copied();
            if request.after.is_none() {
                return format!("error: the page {label} had no cursor");
            }
        }
        let page = match self.harness.block_on(relay.pull(request)) {
            Ok(page) => page,
            Err(error) => return describe(&error),
        };
        if let (Some(label), Some(next)) = (cursor, page.next) {
            self.cursors.insert(label.clone(), next);
        }
        self.show_page(recipient, &page, *times)
    }

    fn ack(
        &self,
        relay: &H::Relay,
        recipient: &Recipient,
        items: &[ItemId],
        through: Option<&str>,
    ) -> String {
        let ack = match Ack::new(recipient.clone(), items.to_vec()) {
            Ok(ack) => ack,
            Err(rejection) => return describe(&Error::Rejected(rejection)),
        };
        match through.map(|label| self.cursors.get(label).ok_or(label)) {
            None => self.answer_ack(relay, ack),
            Some(Ok(through)) => self.answer_ack(relay, ack.and_through(*through)),
            Some(Err(label)) => format!("error: the page {label} had no cursor"),
        }
    }

    fn answer_ack(&self, relay: &H::Relay, ack: Ack) -> String {
        match self.harness.block_on(relay.ack(ack)) {
            Ok(outcome) => {
                let (deleted, missing, remaining) = (outcome.deleted, outcome.missing, outcome.remaining);
                format!("deleted {deleted} missing {missing} remaining {remaining}")
            }
            Err(error) => describe(&error),
        }
    }

    fn verify(&mut self, relay: &H::Relay) -> String {
        self.harness.verify(relay).join("; ")
    }

    fn show_page(&self, recipient: &Recipient, page: &Page, times: bool) -> String {
        let mut words: Vec<String> =
            page.items.iter().map(|item| self.show_item(recipient, item, times)).collect();
        if words.is_empty() {
            words.push("(empty)".to_owned());
        }
        if page.next.is_some() {
            words.push("| next".to_owned());
        }
        // A page without a cursor is the last one, so any other number than 0 is wrong.
        if page.next.is_some() || page.remaining > 0 {
            words.push(format!("remaining {}", page.remaining));
        }
        words.join(" ")
    }

    fn show_item(&self, recipient: &Recipient, item: &Item<Bytes>, times: bool) -> String {
        let label = self.labels.get(&item.message_id).cloned();
        let label = label.unwrap_or_else(|| item.message_id.to_string());
        let mut shown = format!("{label}/{}", item.chunk.index());
        if times {
            shown += &format!("@{}..{}", since_start(item.arrival), since_start(item.deadline));
        }
        match self.stored.get(&(recipient.clone(), item.id())) {
            None => shown + " (never stored)",
            Some(envelope) => shown + &differences(item, envelope),
        }
    }
}

/// The differences between a pulled item and the pushed one; normally empty.
fn differences(item: &Item<Bytes>, envelope: &Envelope) -> String {
    let checks = [
        ("payload", item.body == envelope.payload),
        ("length", item.payload_bytes == envelope.payload_bytes()),
        ("chunk count", item.chunk == envelope.chunk),
        ("kind", item.kind == envelope.kind),
        ("total length", item.total_len == envelope.total_len),
        ("sending time", item.sent_ms == envelope.sent_ms),
    ];
    let wrong = checks.iter().filter(|(_, same)| !same);
    wrong.map(|(field, _)| format!(" (its {field} differs from the stored one)")).collect()
}

/// The time since the clock started, in the units of a scenario.
fn since_start(time: Timestamp) -> String {
    let start = ManualClock::START;
    let mut ms = time.as_ms().abs_diff(start.as_ms());
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = if time < start { "-" } else { "" }.to_owned();
    for (unit, unit_ms) in UNITS_MS {
        if ms >= unit_ms {
            text += &format!("{}{unit}", ms / unit_ms);
            ms %= unit_ms;
        }
    }
    text
}
