//! A complete relay in memory: for demonstrations, for tests, and for `kind = "memory"`. Nothing
//! survives the process.
//!
//! All that it keeps is counted in bytes and has a bound, over which it stores nothing new. Its
//! maps are trees, which give memory back when they shrink: a hash table keeps what it needed once,
//! and nobody would count that.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::Error;
use crate::figures::Figures;
use crate::limits::{Limits, Usage};
use crate::message::{Envelope, ItemId, Kind, Recipient, Seq};
use crate::queue::{self, Ack, AckOutcome, Admission, Page, Pull, PushOutcome, SweepStep, Swept};
use crate::relay::Relay;
use crate::store::{
    Due, DueItems, Forgotten, Front, Item, ItemStatus, Queued as _, ReadTx, SweepTx, WriteTx,
};
use crate::time::{Clock, StoreClock, Timestamp};
use crate::verify::{self, Inspect};

/// How many rows one step of the sweep reclaims before it lets other requests in.
const SWEEP_STEP_ROWS: usize = 1024;

/// What a queue takes besides its recipient and what is in it: its place among the queues, and the
/// first node of each of its trees, which has room for eleven entries. Like the next two it is
/// rather too much than too little: nodes are counted as half empty.
const QUEUE_BYTES: u64 = 2560;

/// What an item takes besides its kind and its payload: its places in the queue, among the names
/// and among the deadlines.
const ITEM_BYTES: u64 = 640;

/// What an acked name takes: its places among the names of its queue and among those that end.
const NAME_BYTES: u64 = 288;

/// Once it was full, a relay takes pushes again when so much is free, as a part of the bound: so
/// that this does not come and go with each ack.
const MARGIN: u64 = 16;

/// A relay whose queues live in memory.
pub struct MemoryRelay {
    limits: Limits,
    clock: StoreClock,
    bytes_max: u64,
    tables: Mutex<Bounded>,
}

/// The tables, and whether the last thing known of them is that they are full.
#[derive(Debug, Default)]
struct Bounded {
    tables: MemoryTables,
    was_full: bool,
}

/// The tables of a store, in memory. A transaction on them is whatever is done under one `&mut`:
/// nothing can fail.
#[derive(Debug, Default)]
pub struct MemoryTables {
    queues: BTreeMap<Recipient, Queue>,
    deadlines: BTreeSet<(Timestamp, Seq, Recipient)>,
    acked: BTreeSet<(Timestamp, Recipient, ItemId)>,
    last_seq: Seq,
    /// What all of it takes, counted by the constants above.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Queue {
    usage: Usage,
    items: BTreeMap<Seq, Item<Bytes>>,
    traces: BTreeMap<ItemId, ItemStatus>,
}

impl MemoryRelay {
    /// How many bytes a relay holds unless it is told otherwise: 256 MiB.
    pub const BYTES_MAX: u64 = 256 << 20;

    /// An empty relay, which holds up to [`Self::BYTES_MAX`].
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let clock = StoreClock::new(clock);
        Self { limits, clock, bytes_max: Self::BYTES_MAX, tables: Mutex::default() }
    }

    /// The same relay with another bound on all that it holds: payloads, recipients, remembered
    /// names, and what it takes to find them. What would pass it is refused with
    /// [`Error::StorageFull`]; pulls, acks and the sweep go on. The process takes somewhat more:
    /// what the allocator does not give back, and requests on their way.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// As [`Relay::push`], without a future: nothing here ever waits for long.
    ///
    /// # Errors
    /// As [`Relay::push`].
    pub fn push_now(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let mut bounded = self.lock();
        let now = self.clock.now();
        let bytes = bounded.tables.bytes_of(&envelope);
        if bounded.is_full(bytes, self.bytes_max) {
            // What is known already, and what is refused for another reason, is answered as ever.
            let Ok(admitted) = queue::admit(&bounded.tables, &self.limits, now, &envelope);
            if let Admission::Fits { .. } = admitted? {
                bounded.was_full = true;
                return Err(Error::StorageFull);
            }
        }
        let Ok(outcome) = queue::push(&mut bounded.tables, &self.limits, now, envelope);
        Ok(outcome?)
    }

    /// Recounts everything and lists what does not add up.
    pub fn verify(&self) -> Vec<String> {
        let tables = &self.lock().tables;
        let Ok(mut findings) = verify::recount(tables);
        let (counted, noted) = (tables.recount_bytes(), tables.bytes);
        if counted != noted {
            findings.push(format!("all of it takes {counted} bytes, and {noted} are noted"));
        }
        findings
    }

    fn lock(&self) -> MutexGuard<'_, Bounded> {
        // A panic elsewhere leaves the tables usable: each change is one insert or remove, and
        // `verify` would tell.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep_step(&self) -> SweepStep {
        let Ok(step) = queue::expire(&mut self.lock().tables, self.clock.now(), SWEEP_STEP_ROWS);
        step
    }
}

impl Relay for MemoryRelay {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.push_now(envelope)
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let reading = self.clock.read();
        let Ok(page) = queue::pull(&self.lock().tables, &self.limits, reading.now, &pull);
        Ok(page.outside(reading))
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let Ok(outcome) = queue::ack(&mut self.lock().tables, &self.limits, self.clock.now(), &ack);
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

    fn is_full(&self) -> bool {
        let mut bounded = self.lock();
        bounded.was_full = bounded.was_full && bounded.is_full(0, self.bytes_max);
        bounded.was_full
    }

    fn figures(&self) -> Figures {
        let is_full = self.is_full();
        let tables = &self.lock().tables;
        let live = Usage { items: tables.deadlines.len() as u64, bytes: tables.bytes };
        let clock_offset_ms = Some(self.clock.read().offset_ms());
        Figures { live: Some(live), is_full: Some(is_full), clock_offset_ms, ..Figures::default() }
    }
}

impl Bounded {
    /// Whether there is no room for so much more.
    fn is_full(&self, bytes: u64, bytes_max: u64) -> bool {
        let margin = if self.was_full { bytes_max / MARGIN } else { 0 };
        self.tables.bytes.saturating_add(bytes) > bytes_max.saturating_sub(margin)
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
    type Queue = Recipient;

    fn queue(&self, recipient: &Recipient) -> Result<Recipient, Infallible> {
        Ok(recipient.clone())
    }

    fn usage(&self, recipient: &Recipient) -> Result<Usage, Infallible> {
        Ok(self.queues.get(recipient).map_or(Usage::ZERO, |queue| queue.usage))
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<ItemStatus>, Infallible> {
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

    fn insert(&mut self, recipient: &mut Recipient, item: Item<Bytes>) -> Result<(), Infallible> {
        let (seq, id, deadline) = (item.seq, item.id(), item.deadline);
        let trace = ItemStatus::Queued { seq, deadline, payload_bytes: item.payload_bytes };
        self.bytes = self.bytes.saturating_add(item_bytes(&item.kind, item.payload_bytes));
        let (recipient, queue) = self.queue_mut(recipient);
        queue.items.insert(seq, item);
        if let Some(ItemStatus::Acked { until }) = queue.traces.insert(id, trace) {
            self.forget_name(until, recipient.clone(), id);
        }
        self.deadlines.insert((deadline, seq, recipient));
        Ok(())
    }

    fn remove(&mut self, recipient: &mut Recipient, id: ItemId, seq: Seq) -> Result<(), Infallible> {
        let Some(queue) = self.queues.get_mut(recipient) else { return Ok(()) };
        queue.traces.remove(&id);
        if let Some(item) = queue.items.remove(&seq) {
            self.bytes = self.bytes.saturating_sub(item_bytes(&item.kind, item.payload_bytes));
            self.deadlines.remove(&(item.deadline, seq, recipient.clone()));
        }
        Ok(())
    }

    fn remember_acked(
        &mut self,
        recipient: &mut Recipient,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), Infallible> {
        let (recipient, queue) = self.queue_mut(recipient);
        queue.traces.insert(id, ItemStatus::Acked { until });
        if self.acked.insert((until, recipient, id)) {
            self.bytes = self.bytes.saturating_add(NAME_BYTES);
        }
        Ok(())
    }

    fn close(&mut self, recipient: Recipient, usage: Usage) -> Result<(), Infallible> {
        if let Some(queue) = self.queues.get_mut(&recipient) {
            queue.usage = usage;
        }
        self.forget_if_empty(&recipient);
        Ok(())
    }
}

impl SweepTx for MemoryTables {
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
            self.bytes = self.bytes.saturating_sub(NAME_BYTES);
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

    fn traces(&self, recipient: &Recipient) -> Result<Vec<(ItemId, ItemStatus)>, Infallible> {
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
            self.bytes = self.bytes.saturating_sub(queue_bytes(recipient));
        }
    }

    /// The queue, which is made if there is none, and its recipient as it has it: so its text is
    /// there once, however often it is named.
    fn queue_mut(&mut self, recipient: &Recipient) -> (Recipient, &mut Queue) {
        let entry = self.queues.entry(recipient.clone());
        let recipient = entry.key().clone();
        if let Entry::Vacant(_) = entry {
            self.bytes = self.bytes.saturating_add(queue_bytes(&recipient));
        }
        (recipient, entry.or_default())
    }

    fn forget_name(&mut self, until: Timestamp, recipient: Recipient, id: ItemId) {
        if self.acked.remove(&(until, recipient, id)) {
            self.bytes = self.bytes.saturating_sub(NAME_BYTES);
        }
    }

    /// What it takes to store this.
    fn bytes_of(&self, envelope: &Envelope) -> u64 {
        let is_new = !self.queues.contains_key(&envelope.recipient);
        let queue = if is_new { queue_bytes(&envelope.recipient) } else { 0 };
        queue.saturating_add(item_bytes(&envelope.kind, envelope.payload_bytes()))
    }

    /// What all of it takes, counted anew.
    fn recount_bytes(&self) -> u64 {
        let of_queue = |(recipient, queue): (&Recipient, &Queue)| {
            let items: u64 =
                queue.items.values().map(|item| item_bytes(&item.kind, item.payload_bytes)).sum();
            queue_bytes(recipient) + items
        };
        self.queues.iter().map(of_queue).sum::<u64>() + self.acked.len() as u64 * NAME_BYTES
    }
}

/// An allocator rounds up, and leaves some of its pages unused: a quarter at worst.
fn item_bytes(kind: &Kind, payload_bytes: u64) -> u64 {
    let kind_bytes = kind.as_str().len() as u64;
    ITEM_BYTES.saturating_add(kind_bytes).saturating_add(payload_bytes).saturating_add(payload_bytes / 4)
}

fn queue_bytes(recipient: &Recipient) -> u64 {
    QUEUE_BYTES + recipient.as_str().len() as u64
}
