//! Replays records: applies to the tables what the journal says was done. What cannot be applied,
//! because of damage, is reported and passed over, so that it takes nothing else with it.
//!
//! A long replay is divided among threads, by queue: what a record changes belongs to one queue,
//! and the order of those of one queue is kept.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use relay_journal::{Frame, Location};

use crate::error::StoreError;
use crate::format::ItemRow;
use crate::format::fields::Fields;
use crate::format::record::{self, ItemRecord, Removed, Trimmed, kind};
use crate::io::payload;
use crate::memtable::Memtable;
use crate::memtable::queue_cache::QueueCache;
use crate::txn::write::Tables;
use crate::version::Version;

/// So many records, and fewer than [`PORTION_BYTES`] of them, are not worth a thread.
const FEW_RECORDS: usize = 2048;

/// What is handed out at once, in records and in bytes. As much waits for all threads together,
/// several times.
const PORTION_RECORDS: usize = 512;
const PORTION_BYTES: usize = 1 << 20;
const PORTIONS_WAITING: usize = 4;

/// The most threads: a machine with more cores has other things to do with them, and each looks
/// through all that was forgotten.
const THREADS_MAX: usize = 8;

/// What became of a replay.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// What was changed, to be [put](Version::resume) on the version.
    pub(crate) memtable: Memtable,
    /// What could not be applied, in the order of the journal.
    pub(crate) findings: Vec<String>,
}

/// Has `read` read batches of records, and makes their changes on top of `version`, on so many
/// threads at most.
pub(crate) fn replay<T>(
    version: &Version,
    threads: usize,
    read: impl FnOnce(&mut dyn FnMut(&[Frame]) -> Result<(), StoreError>) -> Result<T, StoreError>,
) -> Result<(T, Replayed), StoreError> {
    std::thread::scope(|scope| {
        let mut division = Division::new(scope, version, threads.clamp(1, THREADS_MAX));
        let read = read(&mut |frames| division.take(frames));
        // Why a thread has ended is the better answer.
        let replayed = division.finish()?;
        Ok((read?, replayed))
    })
}

/// Records on their way to those who apply them.
struct Division<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    version: &'env Version,
    threads: usize,
    /// None yet, while records are few.
    shares: Vec<Share<'scope>>,
    waiting: Vec<Frame>,
    waiting_bytes: usize,
}

/// A thread, and what it is told.
struct Share<'scope> {
    part: Part,
    records: SyncSender<Vec<Frame>>,
    thread: ScopedJoinHandle<'scope, Result<Applied, StoreError>>,
}

/// What one thread has applied.
#[derive(Default)]
struct Applied {
    memtable: Memtable,
    findings: Vec<Finding>,
}

/// A record that could not be applied, and why.
struct Finding {
    at: Location,
    what: &'static str,
}

/// The queues that one of so many threads cares for.
#[derive(Clone, Copy)]
struct Part {
    number: u64,
    of: u64,
}

impl Part {
    const fn has(self, queue: u64) -> bool {
        queue % self.of == self.number
    }
}

impl<'scope, 'env> Division<'scope, 'env> {
    const fn new(scope: &'scope Scope<'scope, 'env>, version: &'env Version, threads: usize) -> Self {
        Self { scope, version, threads, shares: Vec::new(), waiting: Vec::new(), waiting_bytes: 0 }
    }

    fn take(&mut self, frames: &[Frame]) -> Result<(), StoreError> {
        for frame in frames {
            self.waiting_bytes += frame.body.len();
            self.waiting.push(frame.clone());
            let records = if self.shares.is_empty() { FEW_RECORDS } else { PORTION_RECORDS };
            if self.waiting.len() >= records || self.waiting_bytes >= PORTION_BYTES {
                self.hand_out()?;
            }
        }
        Ok(())
    }

    /// Gives every thread its share of what waits.
    fn hand_out(&mut self) -> Result<(), StoreError> {
        if self.shares.is_empty() {
            self.shares = self.start();
        }
        self.waiting_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        let queues: Vec<_> = waiting.iter().map(queue_of).collect();
        for share in &self.shares {
            let meant = waiting.iter().zip(&queues).filter(|(_, queue)| share.part.has(**queue));
            let portion = meant.map(|(frame, _)| frame.clone()).collect();
            let sent = share.records.send(portion);
            sent.map_err(|_| StoreError::Corrupted("a replay has ended before its end"))?;
        }
        Ok(())
    }

    fn start(&self) -> Vec<Share<'scope>> {
        let (version, of) = (self.version, self.threads as u64);
        let start = |number| {
            let (records, portions) = sync_channel(PORTIONS_WAITING);
            let part = Part { number, of };
            let thread = self.scope.spawn(move || Applied::of(version, portions));
            Share { part, records, thread }
        };
        (0..of).map(start).collect()
    }

    /// Waits until all is applied.
    fn finish(mut self) -> Result<Replayed, StoreError> {
        if self.shares.is_empty() {
            return Ok(Applied::of(self.version, [self.waiting])?.into());
        }
        let handed_out = self.hand_out();
        let mut all = Applied::default();
        for Share { records, thread, .. } in self.shares {
            drop(records);
            let applied = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.memtable.join(applied.memtable);
            all.findings.extend(applied.findings);
        }
        handed_out?;
        all.findings.sort_by_key(Finding::position);
        Ok(all.into())
    }
}

impl Applied {
    /// Applies records, in portions.
    fn of(version: &Version, portions: impl IntoIterator<Item = Vec<Frame>>) -> Result<Self, StoreError> {
        let cache = QueueCache::default();
        let mut tables = Tables::new(version, &cache);
        let mut findings = Vec::new();
        for frame in portions.into_iter().flatten() {
            let numbers = tables.savepoint();
            match apply(&mut tables, &frame) {
                Ok(missed) => findings.extend(missed.map(|what| Finding { at: frame.location, what })),
                Err(StoreError::Corrupted(what)) => {
                    tables.rollback(numbers);
                    findings.push(Finding { at: frame.location, what });
                }
                Err(error) => return Err(error),
            }
        }
        let mut memtable = tables.memtable;
        memtable.settle(version.numbers());
        Ok(Self { memtable, findings })
    }
}

impl Finding {
    /// In the order of the journal.
    const fn position(&self) -> (u32, u32) {
        (self.at.segment, self.at.offset)
    }
}

impl From<Applied> for Replayed {
    fn from(Applied { memtable, findings }: Applied) -> Self {
        let tell = |Finding { at, what }: Finding| {
            format!("segment {} at {}: not applied: {what}", at.segment, at.offset)
        };
        Self { memtable, findings: findings.into_iter().map(tell).collect() }
    }
}

/// The queue that a record is about. What cannot be read is reported by whoever gets it.
fn queue_of(frame: &Frame) -> u64 {
    Fields::new(&frame.body, "record").number().unwrap_or_default()
}

/// Applies a record, and tells what of it could not be, when all else was.
fn apply(tables: &mut Tables<'_>, frame: &Frame) -> Result<Option<&'static str>, StoreError> {
    match frame.kind {
        kind::PUSHED => {
            let found = ItemRecord::parse(&frame.body)?;
            tables.note_time(found.arrival);
            add(tables, &found, found.row(frame.location)?)
        }
        kind::PUSHED_ASIDE => {
            let (found, location) = payload::parse_record(&frame.body)?;
            tables.note_time(found.arrival);
            add(tables, &found, found.row(location)?)
        }
        kind::MOVED => {
            let found = ItemRecord::parse(&frame.body)?;
            tables.move_item(&found, None, frame.location).map(drop)
        }
        kind::REMOVED => return remove(tables, &Removed::parse(&frame.body)?),
        kind::TRIMMED => return trim(tables, &Trimmed::parse(&frame.body)?),
        kind::DROPPED => tables.drop_queue(record::parse_dropped(&frame.body)?, |_| true).map(drop),
        kind::FILL => Ok(()),
        _ => Err(StoreError::Corrupted("an unknown kind of record")),
    }
    .map(|()| None)
}

fn add(tables: &mut Tables<'_>, record: &ItemRecord<'_>, item: ItemRow) -> Result<(), StoreError> {
    let mut open = match tables.open(record.queue)? {
        Some(open) => open,
        None => tables.make_queue(record.queue, record.recipient()?),
    };
    tables.add_item(&mut open, item, None)?;
    tables.close(open)
}

fn trim(tables: &mut Tables<'_>, trimmed: &Trimmed) -> Result<Option<&'static str>, StoreError> {
    tables.note_time(trimmed.now);
    let Some(mut open) = tables.open(trimmed.queue)? else {
        return Ok(Some("a queue whose front has expired is not there"));
    };
    tables.trim(&mut open, trimmed.through, trimmed.sum.as_ref())?;
    tables.close(open).map(|()| None)
}

/// An item that was lost brings back none of the others.
fn remove(tables: &mut Tables<'_>, removed: &Removed) -> Result<Option<&'static str>, StoreError> {
    const MISSED: Option<&str> = Some("an item to remove is not there");
    let Some(mut open) = tables.open(removed.queue)? else { return Ok(MISSED) };
    let mut missed = None;
    for &(seq, until) in &removed.items {
        match (tables.take_item(&mut open, seq, None), until) {
            (Ok(Some(taken)), Some(until)) => tables.remember(&mut open, taken.id, until, removed.slot_ms),
            (Ok(Some(_)), None) => {}
            (Ok(None) | Err(StoreError::Corrupted(_)), _) => missed = MISSED,
            (Err(error), _) => return Err(error),
        }
    }
    tables.close(open)?;
    Ok(missed)
}
