//! Replays the journal at a start: applies its records to a version. A record that cannot be
//! applied because of corruption is reported and skipped; it never affects the others.
//!
//! A long replay runs on several threads, divided by queue: each record changes one queue only, and
//! the records of one queue stay in order.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use relay_journal::{Frame, Location};

use crate::error::StoreError;
use crate::format::ItemRow;
use crate::format::fields::Fields;
use crate::format::record::{self, ExpiredEarly, Floored, ItemRecord, Removed, Trimmed, kind};
use crate::io::payload;
use crate::memtable::Memtable;
use crate::memtable::queue_cache::QueueCache;
use crate::txn::write::WriteTxn;
use crate::version::Version;

/// Fewer records than this, of fewer than [`PORTION_BYTES`], are not worth a thread.
const RECORDS_FOR_THREADS: usize = 2048;

/// The records, and their bytes, that are sent to the threads at once. Each thread has a queue of
/// several portions.
const PORTION_RECORDS: usize = 512;
const PORTION_BYTES: usize = 1 << 20;
const PORTIONS_WAITING: usize = 4;

/// The most threads. A machine with more cores has other uses for them, and each thread looks
/// through all acked item ids.
const THREADS_MAX: usize = 8;

/// The result of a replay.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The changes, for [`Version::resume`].
    pub(crate) memtable: Memtable,
    /// What could not be applied, in the order of the journal.
    pub(crate) findings: Vec<String>,
}

/// Applies the records that `read` passes on, in batches, on top of `version`. Uses at most so many
/// threads.
pub(crate) fn replay<T>(
    version: &Version,
    threads: usize,
    read: impl FnOnce(&mut dyn FnMut(&[Frame]) -> Result<(), StoreError>) -> Result<T, StoreError>,
) -> Result<(T, Replayed), StoreError> {
    std::thread::scope(|scope| {
        let mut distributor = Distributor {
            scope,
            version,
            threads: threads.clamp(1, THREADS_MAX),
            workers: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        };
        let read = read(&mut |frames| distributor.add(frames));
        // If both failed, the error of a thread is the cause.
        let replayed = distributor.finish()?;
        Ok((read?, replayed))
    })
}

/// Distributes records among threads.
struct Distributor<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    version: &'env Version,
    threads: usize,
    /// Empty while the records are few.
    workers: Vec<Worker<'scope>>,
    waiting: Vec<Frame>,
    waiting_bytes: usize,
}

/// A thread, and the channel of its records.
struct Worker<'scope> {
    records: SyncSender<Vec<Frame>>,
    thread: ScopedJoinHandle<'scope, Result<Applied, StoreError>>,
}

/// What one thread has applied, and what not.
#[derive(Default)]
struct Applied {
    memtable: Memtable,
    findings: Vec<Finding>,
}

/// A record that could not be applied, and why.
struct Finding {
    location: Location,
    reason: &'static str,
}

impl<'scope> Distributor<'scope, '_> {
    fn add(&mut self, frames: &[Frame]) -> Result<(), StoreError> {
        for frame in frames {
            self.waiting_bytes += frame.body.len();
            self.waiting.push(frame.clone());
            let records = if self.workers.is_empty() { RECORDS_FOR_THREADS } else { PORTION_RECORDS };
            if self.waiting.len() >= records || self.waiting_bytes >= PORTION_BYTES {
                self.distribute()?;
            }
        }
        Ok(())
    }

    /// Sends each thread its share of the waiting records.
    fn distribute(&mut self) -> Result<(), StoreError> {
        if self.workers.is_empty() {
            self.workers = (0..self.threads).map(|_| self.start_worker()).collect();
        }
        self.waiting_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        let queues: Vec<_> = waiting.iter().map(queue_of).collect();
        let workers = self.workers.len() as u64;
        for (number, worker) in (0..).zip(&self.workers) {
            let share = waiting.iter().zip(&queues).filter(|(_, queue)| **queue % workers == number);
            let sent = worker.records.send(share.map(|(frame, _)| frame.clone()).collect());
            sent.map_err(|_| StoreError::Corrupted("a replay thread ended early"))?;
        }
        Ok(())
    }

    fn start_worker(&self) -> Worker<'scope> {
        let (records, portions) = sync_channel(PORTIONS_WAITING);
        let version = self.version;
        let thread = self.scope.spawn(move || Applied::of(version, portions));
        Worker { records, thread }
    }

    /// Waits until all records are applied.
    fn finish(mut self) -> Result<Replayed, StoreError> {
        if self.workers.is_empty() {
            return Ok(Applied::of(self.version, [self.waiting])?.into());
        }
        let distributed = self.distribute();
        let mut all = Applied::default();
        for Worker { records, thread } in self.workers {
            drop(records);
            let applied = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.memtable.merge_disjoint(applied.memtable);
            all.findings.extend(applied.findings);
        }
        distributed?;
        all.findings.sort_by_key(|finding| (finding.location.segment, finding.location.offset));
        Ok(all.into())
    }
}

impl Applied {
    /// Applies records, in portions.
    fn of(version: &Version, portions: impl IntoIterator<Item = Vec<Frame>>) -> Result<Self, StoreError> {
        let cache = QueueCache::default();
        let mut txn = WriteTxn::new(version, &cache);
        let mut findings = Vec::new();
        for frame in portions.into_iter().flatten() {
            let numbers = txn.savepoint();
            let reason = match apply(&mut txn, &frame) {
                Ok(missed) => missed,
                Err(StoreError::Corrupted(reason)) => {
                    txn.rollback(numbers);
                    Some(reason)
                }
                Err(error) => return Err(error),
            };
            findings.extend(reason.map(|reason| Finding { location: frame.location, reason }));
        }
        let mut memtable = txn.memtable;
        memtable.rows.prune_tombstones(version.numbers());
        Ok(Self { memtable, findings })
    }
}

impl From<Applied> for Replayed {
    fn from(Applied { memtable, findings }: Applied) -> Self {
        let describe = |Finding { location, reason }: Finding| {
            format!("segment {} at {}: not applied: {reason}", location.segment, location.offset)
        };
        Self { memtable, findings: findings.into_iter().map(describe).collect() }
    }
}

/// The queue that a record belongs to. If it cannot be read, any thread may report that.
fn queue_of(frame: &Frame) -> u64 {
    Fields::new(&frame.body, "record").number().unwrap_or_default()
}

/// Applies a record. If a part of it was missed and the rest applied, returns what was missed.
fn apply(txn: &mut WriteTxn<'_>, frame: &Frame) -> Result<Option<&'static str>, StoreError> {
    match frame.kind {
        kind::PUSHED => {
            let record = ItemRecord::parse(&frame.body)?;
            add(txn, &record, record.row(frame.location)?)?;
        }
        kind::PUSHED_BLOB => {
            let (record, location) = payload::parse_blob_record(&frame.body)?;
            add(txn, &record, record.row(location)?)?;
        }
        kind::MOVED => {
            txn.move_item(&ItemRecord::parse(&frame.body)?, None, frame.location)?;
        }
        kind::REMOVED => return remove(txn, &Removed::parse(&frame.body)?),
        kind::TRIMMED => return trim(txn, &Trimmed::parse(&frame.body)?),
        kind::FLOORED => return set_floor(txn, &Floored::parse(&frame.body)?),
        kind::EXPIRED_EARLY => return remove_early(txn, &ExpiredEarly::parse(&frame.body)?),
        kind::DROPPED => {
            txn.drop_queue(record::parse_dropped(&frame.body)?, |_| true)?;
        }
        kind::FILL => {}
        _ => return Err(StoreError::Corrupted("a record of an unknown kind")),
    }
    Ok(None)
}

fn add(txn: &mut WriteTxn<'_>, record: &ItemRecord<'_>, item: ItemRow) -> Result<(), StoreError> {
    txn.note_time(record.arrival);
    let mut open = match txn.open(record.queue)? {
        Some(open) => open,
        None => txn.create_queue(record.queue, record.recipient()?),
    };
    txn.add_item(&mut open, item, None)?;
    txn.close(open)
}

fn trim(txn: &mut WriteTxn<'_>, trimmed: &Trimmed) -> Result<Option<&'static str>, StoreError> {
    txn.note_time(trimmed.now);
    let Some(mut open) = txn.open(trimmed.queue)? else {
        return Ok(Some("a queue whose front has expired is missing"));
    };
    txn.trim(&mut open, trimmed.through, trimmed.sum.as_ref())?;
    txn.close(open).map(|()| None)
}

fn remove_early(txn: &mut WriteTxn<'_>, expired: &ExpiredEarly) -> Result<Option<&'static str>, StoreError> {
    txn.note_time(expired.now);
    let Some(mut open) = txn.open(expired.queue)? else {
        return Ok(Some("a queue whose items have expired is missing"));
    };
    let removed = txn.remove_early(&mut open, &expired.items, expired.next)?;
    txn.close(open)?;
    Ok((removed < expired.items.len()).then_some("an item that has expired is missing"))
}

fn set_floor(txn: &mut WriteTxn<'_>, floored: &Floored) -> Result<Option<&'static str>, StoreError> {
    txn.note_time(floored.floor.at);
    let Some(mut open) = txn.open(floored.queue)? else {
        return Ok(Some("a queue whose front was acked is missing"));
    };
    if open.row.inline().is_some() {
        // The records that made it so long are lost, and with them the items that it had.
        txn.remove_through(&mut open, floored.floor.through)?;
        txn.close(open)?;
        return Ok(Some("an acked front is not as long as it was"));
    }
    txn.set_floor(&mut open, floored.floor);
    txn.close(open).map(|()| None)
}

/// Removes the items of the record that exist. A missing one must not bring back the others.
fn remove(txn: &mut WriteTxn<'_>, removed: &Removed) -> Result<Option<&'static str>, StoreError> {
    const MISSED: Option<&str> = Some("an item to remove is missing");
    let Some(mut open) = txn.open(removed.queue)? else { return Ok(MISSED) };
    let mut missed = None;
    for &(seq, until) in &removed.items {
        match (txn.remove_item(&mut open, seq, None), until) {
            (Ok(Some(item)), Some(until)) => txn.remember_ack(&mut open, item.id, until, removed.slot_ms),
            (Ok(Some(_)), None) => {}
            (Ok(None) | Err(StoreError::Corrupted(_)), _) => missed = MISSED,
            (Err(error), _) => return Err(error),
        }
    }
    txn.close(open)?;
    Ok(missed)
}
