//! Relays to run the suite on: the one in memory, and one that keeps its tables when it is reopened
//! and can be given a flaw.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use relay_core::memory::MemoryTables;
use relay_core::testing::{Harness, ManualClock, Plan};
use relay_core::verify::{Inspect, recount};
use relay_core::{
    Ack, AckOutcome, Clock, Envelope, Error, ItemId, Limits, MemoryRelay, Page, Pull, PushOutcome, ReadTx,
    Recipient, Relay, Seq, Swept, Timestamp, queue,
};

pub(crate) struct InMemory;

impl Harness for InMemory {
    type Relay = MemoryRelay;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> MemoryRelay {
        MemoryRelay::new(limits, clock)
    }

    fn reopen(
        &mut self,
        relay: MemoryRelay,
        _: Limits,
        _: Arc<ManualClock>,
    ) -> Result<MemoryRelay, MemoryRelay> {
        Err(relay)
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        pollster::block_on(future)
    }

    fn verify(&mut self, relay: &MemoryRelay) -> Vec<String> {
        relay.verify()
    }
}

/// What a store can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    AnswersDuplicateWithStored,
    BringsDuplicatesToTheEnd,
    CountsExpired,
    CursorShowsItsItemAgain,
    DeadlineFromPresentTtl,
    ExpiredFillQuota,
    ExpiresLate,
    FollowsClockBack,
    ForgetsAcked,
    IgnoresCursor,
    IgnoresMax,
    IgnoresPageBytes,
    KnowsDuplicatesPerThread,
    LosesAllOnReopen,
    LosesChunkCount,
    LosesKind,
    LosesSendingTime,
    MissesLastItem,
    OverlooksConflicts,
    RemainingCountsWholeQueue,
    RemembersAckedTooLong,
    Reorders,
    ReusesArrivalNumbers,
    ShowsExpired,
    SweepReclaimsNothing,
    TakesOneItemTooMany,
    TakesOneByteTooMany,
    TakesTooLargeByOne,
    TakesRecipientsForEachOther,
    TellsMissingAsDeleted,
    ZeroesPayloads,
}

pub(crate) struct Kept {
    flaw: Option<Flaw>,
}

pub(crate) struct KeptRelay {
    flaw: Option<Flaw>,
    limits: Limits,
    clock: Arc<ManualClock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tables: MemoryTables,
    now: Timestamp,
    pushed_by: HashMap<(Recipient, ItemId), ThreadId>,
}

impl Kept {
    pub(crate) fn new(flaw: Option<Flaw>) -> Self {
        Self { flaw }
    }
}

impl Harness for Kept {
    type Relay = KeptRelay;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> KeptRelay {
        KeptRelay { flaw: self.flaw, limits, clock, state: Mutex::default() }
    }

    fn reopen(
        &mut self,
        relay: KeptRelay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<KeptRelay, KeptRelay> {
        if relay.has(Flaw::LosesAllOnReopen) {
            return Ok(self.open(limits, clock));
        }
        let tables = relay.state.into_inner().unwrap().tables;
        Ok(KeptRelay {
            flaw: self.flaw,
            limits,
            clock,
            state: Mutex::new(State { tables, ..State::default() }),
        })
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        pollster::block_on(future)
    }

    fn verify(&mut self, relay: &KeptRelay) -> Vec<String> {
        let Ok(findings) = recount(&relay.state.lock().unwrap().tables);
        findings
    }

    fn plan(&self) -> Plan {
        // What a flawed store fails on is no regression of anything.
        let regressions = Plan::default().regressions.filter(|_| self.flaw.is_none());
        Plan { regressions, ..Plan::default() }
    }
}

impl KeptRelay {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn begin(&self) -> (MutexGuard<'_, State>, Timestamp, Limits) {
        let mut state = self.state.lock().unwrap();
        state.now = state.now.max(self.clock.now());
        let now = match self.flaw {
            Some(Flaw::FollowsClockBack) => self.clock.now(),
            Some(Flaw::ExpiresLate) => Timestamp::from_ms(state.now.as_ms() - 1),
            _ => state.now,
        };
        let Ok(queues) = state.tables.recipients();
        if self.has(Flaw::ReusesArrivalNumbers) && queues.is_empty() {
            state.tables = MemoryTables::default();
        }
        let mut limits = self.limits.clone();
        match self.flaw {
            Some(Flaw::ForgetsAcked) => limits.dedup_window_ms = 0,
            Some(Flaw::IgnoresMax) => limits.page_items_max = u64::MAX,
            Some(Flaw::IgnoresPageBytes) => limits.page_bytes_max = u64::MAX,
            Some(Flaw::RemembersAckedTooLong) if limits.dedup_window_ms > 0 => limits.dedup_window_ms += 1,
            Some(Flaw::TakesOneByteTooMany) => limits.queue_bytes_max += 1,
            Some(Flaw::TakesOneItemTooMany) => limits.queue_items_max += 1,
            Some(Flaw::TakesTooLargeByOne) => limits.message_bytes_max += 1,
            _ => {}
        }
        (state, now, limits)
    }

    fn name(&self, recipient: &Recipient) -> Recipient {
        match recipient.as_str().split_once(':') {
            Some((start, _)) if self.has(Flaw::TakesRecipientsForEachOther) => {
                Recipient::parse(start).unwrap()
            }
            _ => recipient.clone(),
        }
    }

    fn spoil_outcome(&self, state: &mut State, pushed: &(Recipient, ItemId), outcome: &mut PushOutcome) {
        let usage = outcome.usage();
        let duplicate = !outcome.is_stored();
        match self.flaw {
            Some(Flaw::AnswersDuplicateWithStored) if duplicate => *outcome = PushOutcome::Stored { usage },
            Some(Flaw::OverlooksConflicts) if duplicate => {
                *outcome = PushOutcome::Duplicate { usage, conflict: false };
            }
            Some(Flaw::KnowsDuplicatesPerThread) => {
                let pushed_by = *state.pushed_by.entry(pushed.clone()).or_insert(thread::current().id());
                if pushed_by != thread::current().id() {
                    *outcome = PushOutcome::Stored { usage };
                }
            }
            _ => {}
        }
    }

    fn spoil_page(&self, pull: &Pull, page: &mut Page, usage_items: u64) {
        match self.flaw {
            Some(Flaw::DeadlineFromPresentTtl) => {
                for item in &mut page.items {
                    item.deadline = item.arrival.plus_ms(self.limits.ttl_ms);
                }
            }
            Some(Flaw::LosesChunkCount) => {
                for item in &mut page.items {
                    item.chunk = relay_core::Chunk::new(item.chunk.index(), u32::MAX).unwrap();
                }
            }
            Some(Flaw::LosesKind) => {
                for item in &mut page.items {
                    item.kind = relay_core::Kind::parse("opaque").unwrap();
                }
            }
            Some(Flaw::LosesSendingTime) => page.items.iter_mut().for_each(|item| item.sent_ms = 0),
            Some(Flaw::MissesLastItem) if pull.after.is_none() && page.next.is_none() => {
                drop(page.items.pop());
            }
            Some(Flaw::RemainingCountsWholeQueue) if page.next.is_some() => {
                page.remaining = usage_items - page.items.len() as u64;
            }
            Some(Flaw::Reorders) => page.items.reverse(),
            Some(Flaw::ZeroesPayloads) => {
                page.items.iter_mut().for_each(|item| item.body = vec![0; item.body.len()].into());
            }
            _ => {}
        }
    }
}

impl Relay for KeptRelay {
    async fn push(&self, mut envelope: Envelope) -> Result<PushOutcome, Error> {
        let (mut state, now, limits) = self.begin();
        envelope.recipient = self.name(&envelope.recipient);
        let pushed = (envelope.recipient.clone(), envelope.id());
        let Ok(front) = state.tables.front(&pushed.0, now);
        let Ok(usage) = state.tables.usage(&pushed.0);
        if self.has(Flaw::ExpiredFillQuota) {
            usage.admit(envelope.payload_bytes(), &limits)?;
        }
        let Ok(answer) = queue::push(&mut state.tables, &limits, now, envelope.clone());
        let mut outcome = answer?;
        if self.has(Flaw::BringsDuplicatesToTheEnd) && !outcome.is_stored() {
            let forgetful = Limits { dedup_window_ms: 0, ..limits };
            let again = Ack::new(pushed.0.clone(), vec![pushed.1])?;
            let Ok(acked) = queue::ack(&mut state.tables, &forgetful, now, &again);
            if acked.deleted == 1 {
                let Ok(answer) = queue::push(&mut state.tables, &limits, now, envelope);
                let usage = answer?.usage();
                outcome = PushOutcome::Duplicate { usage, conflict: false };
            }
        }
        if self.has(Flaw::CountsExpired) {
            outcome = match outcome {
                PushOutcome::Stored { usage } => PushOutcome::Stored { usage: usage.plus(front.expired) },
                PushOutcome::Duplicate { usage, conflict } => {
                    PushOutcome::Duplicate { usage: usage.plus(front.expired), conflict }
                }
            };
        }
        self.spoil_outcome(&mut state, &pushed, &mut outcome);
        Ok(outcome)
    }

    async fn pull(&self, mut pull: Pull) -> Result<Page, Error> {
        let (state, now, limits) = self.begin();
        pull.recipient = self.name(&pull.recipient);
        match self.flaw {
            Some(Flaw::CursorShowsItsItemAgain) => {
                pull.after = pull.after.map(|seq| Seq::new(seq.as_u64() - 1));
            }
            Some(Flaw::IgnoresCursor) => pull.after = None,
            _ => {}
        }
        let seen = if self.has(Flaw::ShowsExpired) { Timestamp::default() } else { now };
        let Ok(mut page) = queue::pull(&state.tables, &limits, seen, &pull);
        let Ok(front) = state.tables.front(&pull.recipient, now);
        let Ok(usage) = state.tables.usage(&pull.recipient);
        self.spoil_page(&pull, &mut page, usage.minus(front.expired).items);
        Ok(page)
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let (mut state, now, limits) = self.begin();
        let ack = Ack::new(self.name(ack.recipient()), ack.items().to_vec())?;
        let Ok(mut outcome) = queue::ack(&mut state.tables, &limits, now, &ack);
        if self.has(Flaw::TellsMissingAsDeleted) {
            (outcome.deleted, outcome.missing) = (outcome.deleted + outcome.missing, 0);
        }
        Ok(outcome)
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        let (mut state, now, _) = self.begin();
        if self.has(Flaw::SweepReclaimsNothing) {
            return Ok(Swept::default());
        }
        let Ok(step) = queue::expire(&mut state.tables, now, usize::MAX);
        Ok(step.swept)
    }
}
