//! The relays under test: the one in memory, and one that keeps its tables when it is reopened and
//! can have a flaw.

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

/// A possible error of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    ReportsDuplicateAsStored,
    MovesDuplicatesToTheEnd,
    CountsExpired,
    CursorRepeatsItsItem,
    DeadlineFromCurrentTtl,
    ExpiredFillQuota,
    ExpiresLate,
    FollowsClockBack,
    ForgetsAcked,
    IgnoresCursor,
    IgnoresMax,
    IgnoresPageBytes,
    DetectsDuplicatesPerThread,
    KeepsItemsBehindLongerOnes,
    AcksNothingThroughCursor,
    ForgetsAckedThroughCursor,
    LosesAllOnReopen,
    LosesChunkCount,
    LosesKind,
    LosesSendingTime,
    MissesLastItem,
    IgnoresConflicts,
    RemainingCountsWholeQueue,
    RemembersAckedTooLong,
    Reorders,
    ReusesArrivalNumbers,
    ShowsExpired,
    SweepReclaimsNothing,
    AcceptsOneItemTooMany,
    AcceptsOneByteTooMany,
    AcceptsTooLargeByOne,
    ConfusesRecipients,
    ReportsMissingAsDeleted,
    ZeroesPayloads,
}

pub(crate) struct Persistent {
    flaw: Option<Flaw>,
}

pub(crate) struct PersistentRelay {
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

impl Persistent {
    pub(crate) fn new(flaw: Option<Flaw>) -> Self {
        Self { flaw }
    }
}

impl Harness for Persistent {
    type Relay = PersistentRelay;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> PersistentRelay {
        PersistentRelay { flaw: self.flaw, limits, clock, state: Mutex::default() }
    }

    fn reopen(
        &mut self,
        relay: PersistentRelay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<PersistentRelay, PersistentRelay> {
        if relay.has(Flaw::LosesAllOnReopen) {
            return Ok(self.open(limits, clock));
        }
        let tables = relay.state.into_inner().unwrap().tables;
        Ok(PersistentRelay {
            flaw: self.flaw,
            limits,
            clock,
            state: Mutex::new(State { tables, ..State::default() }),
        })
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        pollster::block_on(future)
    }

    fn verify(&mut self, relay: &PersistentRelay) -> Vec<String> {
        let Ok(findings) = recount(&relay.state.lock().unwrap().tables);
        findings
    }

    fn plan(&self) -> Plan {
        // The failure of a flawed store is not a regression.
        let regressions = Plan::default().regressions.filter(|_| self.flaw.is_none());
        Plan { regressions, ..Plan::default() }
    }
}

impl PersistentRelay {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn lock(&self) -> (MutexGuard<'_, State>, Timestamp, Limits) {
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
            Some(Flaw::AcceptsOneByteTooMany) => limits.queue_bytes_max += 1,
            Some(Flaw::AcceptsOneItemTooMany) => limits.queue_items_max += 1,
            Some(Flaw::AcceptsTooLargeByOne) => limits.message_bytes_max += 1,
            _ => {}
        }
        (state, now, limits)
    }

    fn recipient(&self, recipient: &Recipient) -> Recipient {
        match recipient.as_str().split_once(':') {
            Some((start, _)) if self.has(Flaw::ConfusesRecipients) => Recipient::parse(start).unwrap(),
            _ => recipient.clone(),
        }
    }

    fn corrupt_outcome(&self, state: &mut State, pushed: &(Recipient, ItemId), outcome: &mut PushOutcome) {
        let (usage, deadline) = (outcome.usage(), outcome.deadline());
        let stored = PushOutcome::Stored { usage, deadline: deadline.unwrap_or_default() };
        let duplicate = !outcome.is_stored();
        match self.flaw {
            Some(Flaw::ReportsDuplicateAsStored) if duplicate => *outcome = stored,
            Some(Flaw::IgnoresConflicts) if duplicate => {
                *outcome = PushOutcome::Duplicate { usage, conflict: false, deadline };
            }
            Some(Flaw::DetectsDuplicatesPerThread) => {
                let pushed_by = *state.pushed_by.entry(pushed.clone()).or_insert(thread::current().id());
                if pushed_by != thread::current().id() {
                    *outcome = stored;
                }
            }
            _ => {}
        }
    }

    fn corrupt_page(&self, pull: &Pull, page: &mut Page, usage_items: u64) {
        match self.flaw {
            Some(Flaw::DeadlineFromCurrentTtl) => {
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

impl Relay for PersistentRelay {
    async fn push(&self, mut envelope: Envelope) -> Result<PushOutcome, Error> {
        let (mut state, now, limits) = self.lock();
        envelope.recipient = self.recipient(&envelope.recipient);
        let pushed = (envelope.recipient.clone(), envelope.id());
        let Ok(front) = state.tables.front(&pushed.0, now);
        let Ok(usage) = state.tables.usage(&pushed.0);
        if self.has(Flaw::ExpiredFillQuota) {
            usage.admit(envelope.payload_bytes(), &limits)?;
        }
        if self.has(Flaw::KeepsItemsBehindLongerOnes) && !usage.is_empty() {
            envelope.ttl_ms = None;
        }
        let Ok(pushed_first) = queue::push(&mut state.tables, &limits, now, envelope.clone());
        let mut outcome = pushed_first?;
        if self.has(Flaw::MovesDuplicatesToTheEnd) && !outcome.is_stored() {
            let no_dedup = Limits { dedup_window_ms: 0, ..limits };
            let again = Ack::new(pushed.0.clone(), vec![pushed.1])?;
            let Ok(acked) = queue::ack(&mut state.tables, &no_dedup, now, &again);
            if acked.deleted == 1 {
                let Ok(pushed_again) = queue::push(&mut state.tables, &limits, now, envelope);
                let (usage, deadline) = (pushed_again?.usage(), outcome.deadline());
                outcome = PushOutcome::Duplicate { usage, conflict: false, deadline };
            }
        }
        if self.has(Flaw::CountsExpired) {
            outcome = match outcome {
                PushOutcome::Stored { usage, deadline } => {
                    PushOutcome::Stored { usage: usage.plus(front.expired), deadline }
                }
                PushOutcome::Duplicate { usage, conflict, deadline } => {
                    PushOutcome::Duplicate { usage: usage.plus(front.expired), conflict, deadline }
                }
            };
        }
        self.corrupt_outcome(&mut state, &pushed, &mut outcome);
        Ok(outcome)
    }

    async fn pull(&self, mut pull: Pull) -> Result<Page, Error> {
        let (state, now, limits) = self.lock();
        pull.recipient = self.recipient(&pull.recipient);
        match self.flaw {
            Some(Flaw::CursorRepeatsItsItem) => {
                pull.after = pull.after.map(|seq| Seq::new(seq.as_u64() - 1));
            }
            Some(Flaw::IgnoresCursor) => pull.after = None,
            _ => {}
        }
        let pull_time = if self.has(Flaw::ShowsExpired) { Timestamp::default() } else { now };
        let Ok(mut page) = queue::pull(&state.tables, &limits, pull_time, &pull);
        let Ok(front) = state.tables.front(&pull.recipient, now);
        let Ok(usage) = state.tables.usage(&pull.recipient);
        self.corrupt_page(&pull, &mut page, usage.minus(front.expired).items);
        Ok(page)
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let (mut state, now, limits) = self.lock();
        let mut ack = ack.map_recipient(|recipient| self.recipient(&recipient));
        if self.has(Flaw::AcksNothingThroughCursor) {
            ack = Ack::new(ack.recipient().clone(), ack.items().to_vec())?;
        }
        let forgets = self.has(Flaw::ForgetsAckedThroughCursor) && ack.through().is_some();
        let limits = if forgets { Limits { dedup_window_ms: 0, ..limits } } else { limits };
        let Ok(mut outcome) = queue::ack(&mut state.tables, &limits, now, &ack);
        if self.has(Flaw::ReportsMissingAsDeleted) {
            (outcome.deleted, outcome.missing) = (outcome.deleted + outcome.missing, 0);
        }
        Ok(outcome)
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        let (mut state, now, _) = self.lock();
        if self.has(Flaw::SweepReclaimsNothing) {
            return Ok(Swept::default());
        }
        let Ok(step) = queue::expire(&mut state.tables, now, usize::MAX);
        Ok(step.swept)
    }
}
