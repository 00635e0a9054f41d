//! A complete relay in memory: for demonstrations, for tests, and for `kind = "memory"`. Nothing survives the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::Error;
use crate::figures::Figures;
use crate::limits::{Limits, Usage};
use crate::message::{Envelope, ItemId, Recipient, Seq};
use crate::queue::{self, Ack, AckOutcome, Page, Pull, PushOutcome, SweepStep, Swept};
use crate::relay::Relay;
use crate::store::{Due, DueItems, Forgotten, Front, Item, Queued as _, ReadTx, Trace, WriteTx};
use crate::time::{Clock, SteadyClock, Timestamp};
use crate::verify::{self, Inspect};

/// How many rows one step of the sweep reclaims before it lets other requests in.
const SWEEP_STEP_ROWS: usize = 1024;

/// A relay whose queues live in memory.
pub struct MemoryRelay {
    limits: Limits,
    clock: SteadyClock,
    tables: Mutex<MemoryTables>,
}

/// The tables of a store, in memory. A transaction on them is whatever is done under one `&mut`: nothing can fail.
#[derive(Debug, Default)]
pub struct MemoryTables {
    queues: HashMap<Recipient, Queue>,
    deadlines: BTreeSet<(Timestamp, Seq, Recipient)>,
    acked: BTreeSet<(Timestamp, Recipient, ItemId)>,
    last_seq: Seq,
}

#[derive(Debug, Default)]
struct Queue {
    usage: Usage,
    items: BTreeMap<Seq, Item<Bytes>>,
    traces: HashMap<ItemId, Trace>,
}

impl MemoryRelay {
    /// An empty relay.
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self { limits, clock: SteadyClock::new(clock), tables: Mutex::default() }
    }

    /// As [`Relay::push`], without a future: nothing here ever waits for long.
    ///
    /// # Errors
    /// As [`Relay::push`].
    pub fn push_now(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let Ok(outcome) = queue::push(&mut *self.lock(), &self.limits, self.clock.now(), envelope);
        Ok(outcome?)
    }

    /// Recounts everything and lists what does not add up.
    pub fn verify(&self) -> Vec<String> {
        let Ok(findings) = verify::recount(&*self.lock());
        findings
    }

    fn lock(&self) -> MutexGuard<'_, MemoryTables> {
        // A panic elsewhere leaves the tables usable: each change is one insert or remove, and `verify` would tell.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep_step(&self) -> SweepStep {
        let Ok(step) = queue::expire(&mut *self.lock(), self.clock.now(), SWEEP_STEP_ROWS);
        step
    }
}

impl Relay for MemoryRelay {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.push_now(envelope)
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let Ok(page) = queue::pull(&*self.lock(), &self.limits, self.clock.now(), &pull);
        Ok(page)
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let Ok(outcome) = queue::ack(&mut *self.lock(), &self.limits, self.clock.now(), &ack);
        Ok(outcome)
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        loop {
            let step = self.sweep_step();
            swept = swept.plus(step.swept);
            if !step.more {
                return Ok(swept);
            }
        }
    }

    fn figures(&self) -> Figures {
        let live = self.lock().queues.values().map(|queue| queue.usage).sum::<Usage>();
        Figures { live: Some(live), ..Figures::default() }
    }
}

impl fmt::Debug for MemoryRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRelay").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl ReadTx for MemoryTables {
    type Error = Infallible;
    type Item = Item<Bytes>;

    fn usage(&self, recipient: &Recipient) -> Result<Usage, Infallible> {
        Ok(self.queues.get(recipient).map_or(Usage::ZERO, |queue| queue.usage))
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<Trace>, Infallible> {
        Ok(self.queues.get(recipient).and_then(|queue| queue.traces.get(&id).copied()))
    }

    fn scan(
        &self,
        recipient: &Recipient,
        from: Seq,
        visit: &mut dyn FnMut(Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let items = self.queues.get(recipient).into_iter().flat_map(|queue| queue.items.range(from..));
        for (_, item) in items {
            if visit(item.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last_deadline(&self, recipient: &Recipient) -> Result<Option<Timestamp>, Infallible> {
        let last = self.queues.get(recipient).and_then(|queue| queue.items.last_key_value());
        Ok(last.map(|(_, item)| item.deadline))
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, Infallible> {
        let item = self.queues.get(recipient).and_then(|queue| queue.items.get(&seq));
        Ok(item.is_some_and(|item| item.body == payload))
    }

    fn items_from(&self, recipient: &Recipient, from: Seq) -> Result<u64, Infallible> {
        let queue = self.queues.get(recipient);
        Ok(queue.map_or(0, |queue| queue.items.range(from..).count() as u64))
    }

    fn front(&self, recipient: &Recipient, now: Timestamp) -> Result<Front, Infallible> {
        let items = self.queues.get(recipient).into_iter().flat_map(|queue| queue.items.values());
        let expired = items.take_while(|item| !item.is_live(now));
        Ok(expired.fold(Front::default(), |front, item| Front {
            live_from: item.seq.next(),
            expired: front.expired.plus(Usage::of(item.payload_bytes)),
        }))
    }
}

impl WriteTx for MemoryTables {
    fn next_seq(&mut self) -> Result<Seq, Infallible> {
        self.last_seq = self.last_seq.next();
        Ok(self.last_seq)
    }

    fn insert(&mut self, recipient: &Recipient, item: Item<Bytes>) -> Result<(), Infallible> {
        let (seq, id, deadline) = (item.seq, item.id(), item.deadline);
        let queue = self.queues.entry(recipient.clone()).or_default();
        let trace = Trace::Queued { seq, deadline, payload_bytes: item.payload_bytes };
        if let Some(Trace::Acked { until }) = queue.traces.insert(id, trace) {
            self.acked.remove(&(until, recipient.clone(), id));
        }
        queue.items.insert(seq, item);
        self.deadlines.insert((deadline, seq, recipient.clone()));
        Ok(())
    }

    fn remove(&mut self, recipient: &Recipient, id: ItemId, seq: Seq) -> Result<(), Infallible> {
        let Some(queue) = self.queues.get_mut(recipient) else { return Ok(()) };
        queue.traces.remove(&id);
        if let Some(item) = queue.items.remove(&seq) {
            self.deadlines.remove(&(item.deadline, seq, recipient.clone()));
        }
        Ok(())
    }

    fn remember_acked(
        &mut self,
        recipient: &Recipient,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), Infallible> {
        let queue = self.queues.entry(recipient.clone()).or_default();
        queue.traces.insert(id, Trace::Acked { until });
        self.acked.insert((until, recipient.clone(), id));
        Ok(())
    }

    fn set_usage(&mut self, recipient: &Recipient, usage: Usage) -> Result<(), Infallible> {
        if let Some(queue) = self.queues.get_mut(recipient) {
            queue.usage = usage;
        }
        self.forget_if_empty(recipient);
        Ok(())
    }

    fn due(&mut self, now: Timestamp, max: usize) -> Result<DueItems, Infallible> {
        let expired = self.deadlines.iter().take_while(|(deadline, ..)| *deadline <= now);
        let due = expired.take(max).filter_map(|(_, seq, recipient)| {
            let item = self.queues.get(recipient)?.items.get(seq)?;
            let recipient = recipient.clone();
            Some(Due { recipient, id: item.id(), seq: *seq, payload_bytes: item.payload_bytes })
        });
        let mut items: Vec<Due> = due.collect();
        items.sort_by(|a, b| (&a.recipient, a.seq).cmp(&(&b.recipient, b.seq)));
        let more = items.len() >= max;
        Ok(DueItems { items, more })
    }

    fn forget_acked(&mut self, now: Timestamp, max: usize) -> Result<Forgotten, Infallible> {
        let mut names = 0;
        while names < max && self.acked.first().is_some_and(|(until, ..)| *until <= now) {
            let Some((_, recipient, id)) = self.acked.pop_first() else { break };
            if let Some(queue) = self.queues.get_mut(&recipient) {
                queue.traces.remove(&id);
            }
            self.forget_if_empty(&recipient);
            names += 1;
        }
        Ok(Forgotten { names, more: names >= max })
    }
}

impl Inspect for MemoryTables {
    fn recipients(&self) -> Result<Vec<Recipient>, Infallible> {
        Ok(self.queues.keys().cloned().collect())
    }

    fn traces(&self, recipient: &Recipient) -> Result<Vec<(ItemId, Trace)>, Infallible> {
        let traces = self.queues.get(recipient).into_iter().flat_map(|queue| &queue.traces);
        Ok(traces.map(|(id, trace)| (*id, *trace)).collect())
    }

    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, Infallible> {
        Ok(self.deadlines.iter().map(|(deadline, _, recipient)| (*deadline, recipient.clone())).collect())
    }

    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, Infallible> {
        Ok(self.acked.iter().cloned().collect())
    }
}

impl MemoryTables {
    fn forget_if_empty(&mut self, recipient: &Recipient) {
        let empty =
            |queue: &Queue| queue.usage.is_empty() && queue.items.is_empty() && queue.traces.is_empty();
        if self.queues.get(recipient).is_some_and(empty) {
            self.queues.remove(recipient);
        }
    }
}
